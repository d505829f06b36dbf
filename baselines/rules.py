"""The hand-tuned rule of each question that a network model must beat, and how it is tuned.

Several rules compete for each question (`RULES`): those of the literature and ours, from
`baselines.network_rules` and `baselines.network_type_rules`. `tune` sets each one's thresholds on
windows that are handed in, and returns the best, so that a model meets a rule that had the same
data for its few numbers.

>>> RULES["congestion"][0].rule
PredictedRttRule(horizon_s=1.0)
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.network_rules import (
    BacklogRule,
    BurstPointsRule,
    ClassRule,
    CongestionPointsRule,
    DelayRankRule,
    Dense,
    Floats,
    LossPersistenceRule,
    LossPointsRule,
    LossRatioRule,
    MeanRunRule,
    PredictedRttRule,
    ScoreRule,
    SpikeRule,
    ZigZagRule,
    answers,
    measured,
)
from baselines.network_type_rules import TypeTree, TypicalValuesRule
from bwe_env.errors import ConfigError, unknown_name

Rule = ScoreRule | ClassRule
#: Of a rule's answers and the labels; the larger the better, e.g. PR-AUC or macro F1.
Objective = Callable[[NDArray[Any], NDArray[np.int64]], float]

#: Windows that thresholds are searched on, evenly spread over those given; the candidates meet on
#: all of them. Few thresholds do not need more, and a search stays below a minute. Ours.
SEARCH_WINDOWS = 40_000
#: Settings of a grid that are tried: all, or so many drawn at random where there are more, which
#: finds what matters sooner than a coarser grid (Bergstra and Bengio, JMLR 13, 2012). Ours.
GRID_SETTINGS = 300
#: The best of them, from each of which the grid is walked, as one alone may lead nowhere. Ours.
STARTS = 8
#: Steps of the walks over the grid, and of the refinement of the best of them, in distances of
#: neighbours on the grid; each goes once through all parameters. Ours.
GRID_STEPS = (1.0,) * 4
REFINEMENT_STEPS = (0.5,) * 4 + (0.25,) * 4


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A rule with its values before tuning, and those that tuning may choose between."""

    rule: Rule
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """parameter to ascending values; the ends are its bounds"""
    measure: Callable[[Dense, NDArray[np.int64]], Rule] | None = None
    """makes the rule of windows and labels instead, before its grid is searched"""

    def at(self, positions: Sequence[float]) -> Rule:
        """The rule at positions of the grid: 1.5 is midway between the second and third value."""
        values = {
            # Three digits: what a person would write down.
            name: float(f"{np.interp(position, np.arange(len(grid)), grid):.3g}")
            for position, (name, grid) in zip(positions, self.grid.items(), strict=True)
        }
        rule: Rule = dataclasses.replace(self.rule, **values)  # type: ignore[type-var]
        return rule

    def start(self) -> tuple[float, ...]:
        """Positions of the values before tuning."""
        return tuple(
            float(np.interp(getattr(self.rule, name), grid, np.arange(len(grid))))
            for name, grid in self.grid.items()
        )


_POINTS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_DOUBLINGS = (0.5, 1.0, 2.0, 3.0, 4.0)

RULES: dict[str, tuple[Candidate, ...]] = {
    "random_loss": (
        Candidate(rule=SpikeRule()),
        Candidate(rule=DelayRankRule()),
        Candidate(rule=ZigZagRule(), grid={"deviations": (0.0, 0.5, 1.0, 2.0)}),
        Candidate(rule=BacklogRule()),
        Candidate(rule=LossRatioRule()),
        Candidate(
            rule=LossPointsRule(),
            grid={
                "delay_doublings": _DOUBLINGS,
                "delay_points": _POINTS,
                "other_doublings": _DOUBLINGS,
                "rank_points": _POINTS,
                "fuller_share": (0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
                "delay_ms": (10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
                "events_ratio": (0.005, 0.01, 0.02, 0.04, 0.08),
                "gap_points": _POINTS,
                "gap_ratio": (0.2, 0.4, 0.7, 1.0, 1.5),
                "sent_points": _POINTS,
                "sent_bps": (250e3, 500e3, 1e6, 2e6, 4e6, 8e6),
            },
        ),
    ),
    "congestion": (
        Candidate(
            rule=PredictedRttRule(), grid={"horizon_s": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 50.0)}
        ),
        Candidate(
            rule=LossPersistenceRule(),
            grid={"ratio_weight": (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)},
        ),
        Candidate(
            rule=CongestionPointsRule(),
            grid={
                "limit_doublings": _DOUBLINGS,
                "loss_points": _POINTS,
                "sent_points": _POINTS,
                "lossy_share": (0.03, 0.06, 0.12, 0.25, 0.5),
                "loss_ratio": (0.004, 0.008, 0.015, 0.03, 0.06, 0.12),
                "before_points": _POINTS,
                "before_ratio": (0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12),
                "sent_over_delivered": (0.4, 0.6, 0.8, 0.9, 1.0, 1.2, 1.6),
                "rtt_points": _POINTS,
                "rtt_rise_ms": (20.0, 40.0, 80.0, 160.0, 320.0, 640.0),
                "horizon_s": (0.0, 0.25, 0.5, 1.0, 2.0),
            },
        ),
    ),
    "network_type": (
        Candidate(
            rule=TypeTree(),
            grid={
                "wire_floor_ms": (20.0, 30.0, 40.0, 60.0, 90.0),
                "satellite_spike_share": (0.05, 0.1, 0.2, 0.3, 0.4, 0.6),
                "wifi_floor_ms": (20.0, 30.0, 40.0, 50.0, 60.0, 90.0),
                "slow_bps": (250e3, 400e3, 600e3, 900e3, 1300e3, 2000e3),
                "slow_floor_ms": (20.0, 40.0, 60.0, 80.0, 110.0),
                "wire_variation_ms": (1.5, 3.0, 4.5, 6.0, 8.0, 12.0),
            },
        ),
        Candidate(
            rule=TypicalValuesRule(),
            measure=TypicalValuesRule.measure,
            grid={
                "spike_weight": (0.0, 2.0, 4.0, 8.0, 16.0, 32.0),
                "best_weight": (0.0, 0.1, 0.2, 0.4, 0.8),
                "variation_weight": (0.0, 0.1, 0.2, 0.4, 0.8),
            },
        ),
    ),
    "bursty_loss": (
        Candidate(rule=MeanRunRule()),
        Candidate(
            rule=BurstPointsRule(),
            grid={
                "limit_doublings": (0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
                "window_points": _POINTS,
                "longest_points": (0.0, 0.0625, *_POINTS[1:]),
                "run_excess": (1.0, 1.2, 1.4, 1.7, 2.0, 3.0),
                "run_excess_w": (1.0, 1.2, 1.4, 1.7, 2.0, 3.0),
                "longest_packets": (1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
                "spread_points": _POINTS,
                "lossy_share": (0.05, 0.1, 0.2, 0.35, 0.5, 0.8),
            },
        ),
    ),
}


def tune(task: str, dense: Dense, labels: NDArray[np.int64], objective: Objective) -> Rule:
    """The best rule of a task on these windows, its parameters set on them.

    Args:
        task: one of `RULES`.
        dense: of windows to tune on, shape (n, NUM_DENSE): of the training split, and nothing else.
        labels: class, or 1 for yes; shape (n,).
        objective: of answers and labels, both of the same windows.

    Raises:
        UnknownNameError: no such task.
        ConfigError: no windows, or not as many labels as windows.
    """
    if task not in RULES:
        raise unknown_name("task", task, RULES)
    _check(dense, labels)
    stride = -(-len(labels) // SEARCH_WINDOWS)
    few, few_labels = dense[::stride], labels[::stride]
    tuned = [_tuned(candidate, few, few_labels, objective) for candidate in RULES[task]]
    # The first of equals: the simpler one, as they are listed.
    return max(tuned, key=lambda rule: objective(answers(rule, dense), labels))


def _check(dense: Dense, labels: NDArray[np.int64]) -> None:
    if len(labels) == 0 or len(dense) != len(labels):
        raise ConfigError(
            f"a rule is tuned on windows with one label each, got {len(dense)} windows and "
            f"{len(labels)} labels."
        )


def _tuned(
    candidate: Candidate, dense: Dense, labels: NDArray[np.int64], objective: Objective
) -> Rule:
    """The grid, then from its best settings one parameter after the other by smaller steps."""
    if candidate.measure is not None:
        candidate = dataclasses.replace(candidate, rule=candidate.measure(dense, labels))
    known: dict[tuple[float, ...], float] = {}

    def value(positions: tuple[float, ...]) -> float:
        if positions not in known:
            known[positions] = objective(answers(candidate.at(positions), dense), labels)
        return known[positions]

    ends = [len(grid) - 1.0 for grid in candidate.grid.values()]

    def walked(best: tuple[float, ...], steps: Sequence[float]) -> tuple[float, ...]:
        for step in steps:
            for index, end in enumerate(ends):
                here = best[index]
                tried = {min(end, max(0.0, here + move)) for move in (-step, step)}
                moved = [
                    (*best[:index], position, *best[index + 1 :]) for position in sorted(tried)
                ]
                best = max([best, *moved], key=value)
        return best

    starts = sorted(_settings(candidate), key=value, reverse=True)[:STARTS]
    best = max((walked(start, GRID_STEPS) for start in starts), key=value)
    return candidate.at(walked(best, REFINEMENT_STEPS))


def _settings(candidate: Candidate) -> list[tuple[float, ...]]:
    """Positions to start from: those before tuning, and the grid or as many of it as are tried."""
    sizes = [len(grid) for grid in candidate.grid.values()]
    if math.prod(sizes) <= GRID_SETTINGS:
        chosen = list(itertools.product(*map(range, sizes)))
    else:
        generator = np.random.default_rng(0)
        chosen = generator.integers(0, sizes, (GRID_SETTINGS, len(sizes))).tolist()
    return [candidate.start(), *(tuple(map(float, setting)) for setting in chosen)]


# --- What the rate alone tells --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class BitrateControl:
    """Log-odds of yes by the rate alone: what a model knows that has learnt which calls are slow.

    Across calls the cause of losses goes with the rate, so a model that tells random loss from
    congestion no better than this one has learnt nothing of losses. It knows the rate that arrives
    over the window, and that over 1 s as a multiple of it: each is cut into bins of equal counts,
    and each pair of bins has its log-odds.
    """

    rate_edges_bps: Floats
    """inner edges of the bins of the window's rate, shape (bins - 1,)"""
    change_edges: Floats
    """the same of the rate of 1 s over that of the window"""
    log_odds: Floats
    """of each pair, shape (bins, bins)"""

    @classmethod
    def fit(cls, dense: Dense, labels: NDArray[np.int64], *, bins: int = 8) -> BitrateControl:
        """From windows of the training split.

        Args:
            labels: 1 for yes, shape (n,).
            bins: per axis. Ours: some hundreds of windows for each pair of a dataset.

        Raises:
            ConfigError: no windows, or not as many labels as windows.
        """
        _check(dense, labels)
        inner = np.arange(1, bins) / bins
        rate_bps, change = _rate_and_change(dense)
        edges = np.quantile(rate_bps, inner), np.quantile(change, inner)
        pair = _bin(edges[0], rate_bps) * bins + _bin(edges[1], change)
        yes = np.bincount(pair, weights=labels, minlength=bins * bins)
        no = np.bincount(pair, minlength=bins * bins) - yes
        # One window of each answer more, so that none is infinite.
        log_odds = np.log((yes + 1.0) / (no + 1.0)).reshape(bins, bins)
        return cls(rate_edges_bps=edges[0], change_edges=edges[1], log_odds=log_odds)

    def score(self, dense: Dense) -> Floats:
        """Log-odds of yes, shape (n,)."""
        rate_bps, change = _rate_and_change(dense)
        score: Floats = self.log_odds[
            _bin(self.rate_edges_bps, rate_bps), _bin(self.change_edges, change)
        ]
        return score


def _rate_and_change(dense: Dense) -> tuple[Floats, Floats]:
    rate_bps = measured(dense, "acked_rate_w")
    return rate_bps, measured(dense, "acked_rate_1s") / rate_bps


def _bin(edges: Floats, values: Floats) -> NDArray[np.int64]:
    return np.searchsorted(edges, values, side="right").astype(np.int64)

"""Guards: what an arm must not make worse, however well it does elsewhere.

Freezes, delay, drops and picture quality have to be *non-inferior* by 1 %: the end of the 95 %
interval on the worse side (a one-sided bound of 97.5 %) must not be worse than 1 % relative change.
An experiment too small to show that has not shown it, so an undecided guard does not hold either.

Drops are rare: at a rate of 1 %, a relative change of 1 % is one call in ten thousand, and no
experiment of a feasible size decides it. Where the relative bound decides nothing (neither within
the margin nor entirely beyond it), an absolute margin in percentage points stands in,
`DROP_MARGIN_POINTS`. Its bound is at least what can stay unseen on so many networks (the rule of
three), so that a small experiment without drops proves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bwe_env.metrics import FIELD_METRICS, FieldMetric
from experiments.ab_pairs import PairedCalls, paired_sums
from experiments.ab_statistics import (
    AB_RESAMPLES,
    ALPHA,
    UNSEEN_EVENTS,
    Change,
    changes,
)
from experiments.stats import resampled_means

#: Relative change to the worse that is still no harm, percent (definition of the guards).
MARGIN_PCT = 1.0
#: More dropped calls that are still no harm where the relative margin decides nothing, in points of
#: `connection_drop_rate`: one call in 200. Without a drop in either arm it takes 738 networks to
#: show. Ours, settled before the first experiment.
DROP_MARGIN_POINTS = 0.5
#: What is guarded: three metrics that services report, and the delay, the mean over calls of each
#: call's 95th percentile.
GUARDED = (
    FIELD_METRICS["peer_video_freeze_percentage"],
    FieldMetric(name="one_way_delay_p95", unit="ms", column="one_way_delay_ms_p95"),
    FIELD_METRICS["connection_drop_rate"],
    FIELD_METRICS["avg_video_quality_score"],
)

State = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One guard and what the experiment says of it."""

    change: Change
    bound: float
    """the worst that is plausible: percent relative to the control, or points"""
    margin: float
    """what the bound must not exceed, in the same unit; both are positive for the worse"""
    unit: Literal["%", "points"]
    """percent relative to the control, or percentage points"""
    state: State
    """"holds": the bound is within the margin; "fails": even the other end of the interval is
    beyond it; "undecided": neither"""
    note: str = ""

    @property
    def name(self) -> str:
        """Of the metric that is guarded."""
        return self.change.metric.name


def guards(pairs: PairedCalls, *, resamples: int = AB_RESAMPLES, seed: int = 0) -> list[Guard]:
    """The four guards.

    Raises:
        ConfigError: fewer than two networks.
    """
    found = []
    for change in changes(pairs, GUARDED, resamples=resamples, seed=seed):
        guard = relative_guard(change)
        is_drops = change.metric.column == "dropped"
        if is_drops and guard.state == "undecided":
            points = worst_points(pairs, change.metric, resamples=resamples, seed=seed)
            guard = absolute_guard(change, points)
        found.append(guard)
    return found


def relative_guard(change: Change) -> Guard:
    """A guard by the relative change alone."""
    worst, best = change.high_pct, change.low_pct
    if change.metric.better == "higher":
        worst, best = -change.low_pct, -change.high_pct
    state: State = "undecided"
    note = change.note
    if change.undefined_treatment:
        note = f"not shown: the treatment lacks a value that the control has; {note}"
    elif _says_nothing(change):
        note = f"no relative change to bound; {note}".removesuffix("; ")
    elif worst <= MARGIN_PCT:
        state = "holds"
    elif best > MARGIN_PCT:
        state = "fails"
    return Guard(change=change, bound=worst, margin=MARGIN_PCT, unit="%", state=state, note=note)


def _says_nothing(change: Change) -> bool:
    """Undefined, or so few events that equality of the arms shows nothing."""
    is_event = change.metric.column == "dropped"
    return not change.is_defined or (is_event and change.differing == 0)


def absolute_guard(change: Change, bound_points: float) -> Guard:
    """The guard of drops by points, where their relative change decides nothing."""
    holds = bound_points <= DROP_MARGIN_POINTS
    needed = math.ceil(100.0 * UNSEEN_EVENTS / DROP_MARGIN_POINTS)
    note = "1 % of so few drops cannot be decided, so the margin is in points"
    if not holds:
        note += f"; at least {needed} networks can show it"
    return Guard(
        change=change,
        bound=bound_points,
        margin=DROP_MARGIN_POINTS,
        unit="points",
        state="holds" if holds else "undecided",
        note=note,
    )


def worst_points(
    pairs: PairedCalls, metric: FieldMetric, *, resamples: int = AB_RESAMPLES, seed: int = 0
) -> float:
    """One-sided 97.5 % bound of treatment - control of a percentage, in points.

    At least ``369 / networks``: events of a kind that no network had may still be as frequent.
    """
    sums = paired_sums(pairs, metric)
    columns = np.concatenate([sums.control[:, 0], sums.treatment[:, 0]], axis=1)
    means = resampled_means(columns, sums.types, resamples=resamples, seed=seed)
    points = means[:, 2] / means[:, 3] - means[:, 0] / means[:, 1]
    bound = float(np.quantile(points, 1.0 - ALPHA / 2.0))
    return max(bound, metric.factor * UNSEEN_EVENTS / len(sums.types))

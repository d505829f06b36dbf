"""From the calls of several estimators to everything that is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.metrics import metric
from experiments.ab_statistics import holm
from experiments.compare_parts import BY_COLUMN, DELAY, FREEZE, METRICS, SCORE, CallTable, Part
from experiments.compare_results import (
    ComparedMetric,
    Comparison,
    Estimator,
    NonInferiority,
    Profile,
    RunOutcome,
    Subset,
    Value,
)
from experiments.compare_statistics import (
    COMPARE_RESAMPLES,
    Sampled,
    chances_to_win,
    difference,
    gap_closed,
    interquartile_mean,
    mean_chance,
    profile,
    worse_by_margin_p,
)
from experiments.evaluation import Calls, Shown

#: Scores of a performance profile: the whole MOS scale in steps of 0.1.
PROFILE_SCORES = tuple(round(0.1 * tenth, 1) for tenth in range(10, 51))
#: One-sided level of a test of non-inferiority: that of a two-sided 95 % interval (ICH E9, 3.3.2).
NON_INFERIORITY_ALPHA = 0.025
#: An estimator whose label begins so knows what no sender can.
ORACLE = "oracle"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How calls are compared."""

    reference: str = "gcc"
    """label of the estimator that the others are compared with"""
    resamples: int = COMPARE_RESAMPLES
    score_margin: float = 0.05
    """a type's call score may be lower than the reference's by so much, MOS. Ours"""
    freeze_margin_points: float = 0.5
    """and its freeze share higher by so many percentage points. Ours"""

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ConfigError(f"resamples={self.resamples} must be at least 100.")
        for name in ("score_margin", "freeze_margin_points"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0.")


def compare_calls(
    played: Mapping[str, Sequence[Calls]],
    estimators: Sequence[Estimator],
    *,
    title: str,
    options: Options | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Comparison:
    """Everything that is said about some estimators' calls.

    Args:
        played: by label, a table for each training run (columns of
            `bwe_env.metrics.CALL_COLUMNS`); all with the same networks and seeds in the same
            order, networks outermost.
        estimators: who they are, in the order of tables.
        inputs: what the calls depend on, for the record.

    Raises:
        UnknownNameError: the reference is none of the estimators.
        ConfigError: tables of different calls.
    """
    options = options or Options()
    labels = [estimator.label for estimator in estimators]
    if options.reference not in labels:
        raise unknown_name("reference (one of the estimators)", options.reference, labels)
    table = CallTable(played, reference=options.reference, resamples=options.resamples)
    parts, notes = table.headline_parts()
    oracle = _best_oracle(parts[0], labels)
    found = _Findings(options, labels, oracle)
    for part in parts:
        found.add_headline(part, {e.label: e.runs for e in estimators})
        for by in ("network_type", "bandwidth"):
            family = table.parts_by(part, by)
            for inner in family:
                found.add_part(inner)
            if by == "network_type":
                found.add_non_inferiority(family)
    notes += _notes(estimators, oracle)
    return Comparison(
        title=title,
        inputs=dict(inputs or {}),
        reference=options.reference,
        oracle=oracle,
        estimators=tuple(estimators),
        metrics=tuple(_compared(shown) for shown in METRICS),
        subsets=tuple(found.subsets),
        values=tuple(found.values),
        profiles=tuple(found.profiles),
        non_inferiority=tuple(found.non_inferiority),
        runs=tuple(found.runs),
        notes=tuple(notes),
    )


def _compared(shown: Shown) -> ComparedMetric:
    return ComparedMetric(
        name=shown.column,
        header=shown.header,
        factor=shown.factor,
        digits=shown.digits,
        better=metric(shown.column).better,
    )


def _best_oracle(part: Part, labels: Sequence[str]) -> str | None:
    oracles = [label for label in labels if label.startswith(ORACLE)]
    return max(oracles, key=lambda label: part.mean(label, SCORE).value, default=None)


def _notes(estimators: Sequence[Estimator], oracle: str | None) -> list[str]:
    notes = []
    several = [e.label for e in estimators if len(e.runs) > 1]
    if several:
        notes.append(
            f"intervals of {', '.join(several)} cover the training seeds as well; the others speak "
            "of one policy each"
        )
    if oracle is None:
        notes.append("no estimator's label begins with 'oracle', so no gap to it is given")
    return notes


# --- Findings -------------------------------------------------------------------------------------


class _Findings:
    """Collects what is found, subset by subset."""

    def __init__(self, options: Options, labels: Sequence[str], oracle: str | None) -> None:
        self._options = options
        self._labels = labels
        self._others = [label for label in labels if label != options.reference]
        self._oracle = oracle
        self.subsets: list[Subset] = []
        self.values: list[Value] = []
        self.profiles: list[Profile] = []
        self.non_inferiority: list[NonInferiority] = []
        self.runs: list[RunOutcome] = []

    def add_part(self, part: Part) -> None:
        """Means and differences."""
        self.subsets.append(part.subset)
        for shown in METRICS:
            for label in self._labels:
                self._add(part, label, shown, "mean", part.mean(label, shown.column))
            for label in self._others:
                gain = part.difference(label, self._options.reference, shown.column)
                self._add(part, label, shown, "difference", gain)

    def add_headline(self, part: Part, runs: Mapping[str, Sequence[str]]) -> None:
        """All statistics."""
        self.add_part(part)
        for shown in METRICS:
            self._add_equal_types(part, shown)
            self._add_interquartile_means(part, shown)
            self._add_chances(part, shown)
        self._add_gaps(part)
        for label in self._labels:
            self._add_profile(part, label)
        for label in self._others:
            self._add_runs(part, label, runs[label])

    def _add(
        self,
        part: Part,
        label: str,
        shown: Shown,
        statistic: str,
        found: Sampled,
        factor: float = 0,
    ) -> None:
        low, high = found.ends()
        scale = factor or shown.factor
        self.values.append(
            Value(
                estimator=label,
                subset=part.subset.name,
                metric=shown.column,
                statistic=statistic,
                value=found.value * scale,
                low=low * scale,
                high=high * scale,
            )
        )

    def _add_equal_types(self, part: Part, shown: Shown) -> None:
        for label in self._labels:
            found = part.mean(label, shown.column, part.equal)
            self._add(part, label, shown, "mean_equal_types", found)
        for label in self._others:
            found = part.difference(label, self._options.reference, shown.column, part.equal)
            self._add(part, label, shown, "difference_equal_types", found)

    def _add_interquartile_means(self, part: Part, shown: Shown) -> None:
        found = {}
        for label in self._labels:
            arguments = part.of(label, shown.column), part.runs[label]
            found[label] = interquartile_mean(arguments[0], part.draws, arguments[1])
            self._add(part, label, shown, "iqm", found[label])
            if part.equal is not None and shown.column == SCORE:
                equal = interquartile_mean(arguments[0], part.equal, arguments[1])
                self._add(part, label, shown, "iqm_equal_types", equal)
        for label in self._others:
            gain = found[label] - found[self._options.reference]
            self._add(part, label, shown, "iqm_difference", gain)

    def _add_chances(self, part: Part, shown: Shown) -> None:
        reference = self._options.reference
        sign = -1.0 if metric(shown.column).better == "lower" else 1.0
        others = sign * part.calls[reference][shown.column]
        for label in self._others:
            calls = sign * part.calls[label][shown.column]
            for statistic, same_seed in (
                ("probability_of_improvement", False),
                ("share_won", True),
            ):
                chances = chances_to_win(calls, others, same_seed=same_seed)
                runs = part.runs[label], part.runs[reference]
                found = mean_chance(chances, part.draws, *runs)
                self._add(part, label, shown, statistic, found, factor=1.0)

    def _add_gaps(self, part: Part) -> None:
        if self._oracle is None:
            return
        reference = part.mean(self._options.reference, SCORE)
        oracle = part.mean(self._oracle, SCORE)
        for label in self._others:
            found = gap_closed(part.mean(label, SCORE), reference, oracle)
            self._add(part, label, BY_COLUMN[SCORE], "gap_closed", found, factor=1.0)

    def _add_profile(self, part: Part, label: str) -> None:
        calls = part.calls[label][SCORE]
        shares = profile(calls, PROFILE_SCORES, part.draws, part.runs[label])
        ends = [share.ends() for share in shares]
        self.profiles.append(
            Profile(
                estimator=label,
                subset=part.subset.name,
                metric=SCORE,
                scores=PROFILE_SCORES,
                shares=tuple(share.value for share in shares),
                low=tuple(low for low, _ in ends),
                high=tuple(high for _, high in ends),
            )
        )

    def _add_runs(self, part: Part, label: str, names: Sequence[str]) -> None:
        """Every training run by itself against the reference."""
        reference = self._options.reference
        runs = np.ones((self._options.resamples, 1)), part.runs[reference]
        for position, name in enumerate(names):
            found = [
                difference(
                    part.of(label, column)[position : position + 1],
                    part.of(reference, column),
                    part.draws,
                    *runs,
                )
                for column in (SCORE, FREEZE, DELAY)
            ]
            score, freeze, delay = (sampled.value for sampled in found)
            low, high = found[0].ends()
            self.runs.append(
                RunOutcome(
                    estimator=label,
                    run=name,
                    subset=part.subset.name,
                    score=score,
                    score_low=low,
                    score_high=high,
                    freeze=freeze * BY_COLUMN[FREEZE].factor,
                    delay=delay,
                    beats=bool(low > 0.0 and freeze < 0.0 and delay <= 0.0),
                )
            )

    def add_non_inferiority(self, family: Sequence[Part]) -> None:
        """Every estimator on every network type, adjusted over types and metrics."""
        margins = {SCORE: self._options.score_margin, FREEZE: self._options.freeze_margin_points}
        for label in self._others:
            rows = [
                self._margin_row(part, label, column, margin)
                for part in family
                for column, margin in margins.items()
            ]
            for (fields, p_value), p_holm in zip(rows, holm([p for _, p in rows]), strict=True):
                self.non_inferiority.append(
                    NonInferiority(
                        **fields,
                        p_value=p_value,
                        p_holm=p_holm,
                        is_non_inferior=bool(p_holm < NON_INFERIORITY_ALPHA),
                    )
                )

    def _margin_row(
        self, part: Part, label: str, column: str, margin: float
    ) -> tuple[dict[str, Any], float]:
        shown = BY_COLUMN[column]
        found = part.difference(label, self._options.reference, column)
        sign = -1.0 if metric(column).better == "lower" else 1.0
        gain = Sampled(sign * found.value, sign * found.resampled)
        low, high = found.ends()
        fields = {
            "estimator": label,
            "subset": part.subset.name,
            "metric": column,
            "difference": found.value * shown.factor,
            "low": low * shown.factor,
            "high": high * shown.factor,
            "margin": margin,
        }
        p_value = worse_by_margin_p(gain, margin / shown.factor, part.subset.networks)
        return fields, p_value

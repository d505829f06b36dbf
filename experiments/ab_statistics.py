"""What a paired A/B test says: relative changes, their intervals and p-values, guards, a verdict.

The value of an arm is that of `bwe_env.metrics.FIELD_METRICS` over all scheduled calls (a ratio of
sums, or a mean), and the change is ``100 * (treatment / control - 1)`` percent.

**Equal classes.** `avg_sender_video_qp` is compared at equal picture sizes: both arms are weighted
to the same mix of them (`bwe_env.metrics.at_equal_classes`), in every resample anew. Its two values
are those at that mix.

**Interval.** Networks are the unit: whole networks are resampled within their type by the bootstrap
of `experiments.stats`, with both arms' calls on them. An interval holds the middle 95 % of the
resampled changes.

**p-value.** From the same resamples, two-sided: twice the smaller of the two shares of resamples
that change nothing or the other way, ``2 * (1 + k) / (B + 1)``. It is below 0.05 where the interval
excludes 0, and never 0. Resamples say little about events so rare that few networks differ between
the arms, so a second bound stands below: of d networks that differ, flipping the sign of each is as
likely under no effect, which no test can make rarer than ``2^(1 - d)`` (the sign test's least
p-value). With fewer than 6 of them 95 % cannot be reached, and the interval has no ends.

**Calibration.** Without effect, 200 networks give p < 0.05 in 5 % of experiments (3 to 4 % for rare
events, 40 in an arm); 60 networks that differ as widely as log-normal ones of sigma 1.2 give it in
6.6 % (1,000 experiments each; see tests/experiments/test_ab_statistics.py).

**Holm.** Over the rows of one report that count as evidence (S. Holm, Scand. J. Statist. 6, 1979).
A row whose change is undefined stays among them with p = 1: how many rows there are is settled
before there is data.

**Not counted** are the rows of `NOT_COUNTED`: they are reported, and say nothing about a win.

**Undefined.** Where the control has no event at all, a relative change has no meaning; the row says
so and nothing is divided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.metrics import FIELD_METRICS, Better, FieldMetric, at_equal_classes
from experiments.ab_pairs import PairedCalls, paired_sums
from experiments.stats import resampled_means

#: Resamples per report. The strictest step of Holm over 12 rows is p = 0.0042, that is 41 resamples
#: in the smaller tail: from seed to seed, such a p-value scatters by 16 %. Ours.
AB_RESAMPLES = 20_000
#: Of the intervals, and what the adjusted p-value must be below.
LEVEL = 0.95
ALPHA = 1.0 - LEVEL
#: The number of events that is seen at least once in 97.5 % of samples: with none seen, an expected
#: number up to this is plausible (the rule of three at this level).
UNSEEN_EVENTS = -math.log(ALPHA / 2.0)

#: Rows of a report that are no evidence, and why.
NOT_COUNTED = {
    "total_talk_time": "follows from the score of every second by the user model's construction",
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A metric's relative change from control to treatment."""

    metric: FieldMetric
    control: float
    """its value in the control, in the metric's unit; NaN if no call has one"""
    treatment: float
    """its value in the treatment"""
    change_pct: float
    """NaN where it is undefined"""
    low_pct: float
    """lower end of the 95 % interval; NaN if the change is undefined, -100 if the end is unknown"""
    high_pct: float
    """upper end; infinite if it is unknown"""
    p_value: float
    """two-sided, in (0, 1]; 1 where the change is undefined"""
    log_se: float
    """standard deviation of the resampled log(treatment / control); NaN where it is unknown"""
    networks: int
    calls: int
    """pairs of calls that count"""
    differing: int
    """networks on which the arms are not the same"""
    undefined_control: int
    """pairs left out as the control's value is undefined"""
    undefined_treatment: int
    """pairs left out as only the treatment's is"""
    note: str = ""
    """what a reader has to know about this row; empty for an ordinary one"""

    @property
    def is_defined(self) -> bool:
        """There is a change to speak of."""
        return math.isfinite(self.change_pct)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a report."""

    change: Change
    direction: Better
    """where the arm is expected to move it; "neither": no movement is a win or a loss"""
    counts: bool
    """part of Holm's family and of the verdict"""
    p_holm: float
    """adjusted for the rows that count; NaN for one that does not"""

    @property
    def is_significant(self) -> bool:
        """The adjusted p-value is below 0.05."""
        return self.counts and self.p_holm < ALPHA

    @property
    def moves(self) -> Literal["for", "against", ""]:
        """Whether a significant change is in the declared direction."""
        if not self.is_significant or self.direction == "neither":
            return ""
        is_up = self.change.change_pct > 0.0
        return "for" if is_up == (self.direction == "higher") else "against"


# --- Changes --------------------------------------------------------------------------------------


class Sums(Protocol):
    """A metric's sums over networks in two groups of calls; `ab_pairs.PairedSums` is one."""

    @property
    def control(self) -> NDArray[np.float64]:
        """Sums over each network's calls, shape (networks, classes, 2); see `PairedSums`."""

    @property
    def treatment(self) -> NDArray[np.float64]:
        """The same of the other group."""

    @property
    def networks(self) -> int:
        """Networks that stand behind a change."""

    @property
    def calls(self) -> int:
        """Calls that count, in pairs if there are pairs."""

    @property
    def differing(self) -> int:
        """Networks that can tell the groups apart."""

    @property
    def least_p(self) -> float:
        """The least p-value that so many networks can give."""

    @property
    def undefined_control(self) -> int:
        """Left out as the control's value is undefined."""

    @property
    def undefined_treatment(self) -> int:
        """Left out as the treatment's is."""


def changes(
    pairs: PairedCalls,
    metrics: Sequence[FieldMetric],
    *,
    resamples: int = AB_RESAMPLES,
    seed: int = 0,
) -> list[Change]:
    """The change of each metric; all of them in the same resamples of networks.

    Raises:
        ConfigError: fewer than two networks.
    """
    sums = [paired_sums(pairs, metric) for metric in metrics]
    drawn = [
        resampled_sums([getattr(s, arm) for s in sums], sums[0].types, resamples, seed)
        for arm in ("control", "treatment")  # the same seed: the same networks
    ]
    return [
        change_from(metric, *parts) for metric, *parts in zip(metrics, sums, *drawn, strict=True)
    ]


def resampled_sums(
    sums: Sequence[NDArray[np.float64]], types: NDArray[Any], resamples: int, seed: int
) -> list[NDArray[np.float64]]:
    """Means over networks of sums of shape (networks, classes, 2): (resamples, classes, 2) each."""
    flat = [part.reshape(len(part), -1) for part in sums]
    means = resampled_means(np.concatenate(flat, axis=1), types, resamples=resamples, seed=seed)
    ends = np.cumsum([part.shape[1] for part in flat])
    pieces = np.split(means, ends[:-1], axis=1)
    return [piece.reshape(resamples, -1, 2) for piece in pieces]


def at_one_mix(
    control: NDArray[np.float64], treatment: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerator and denominator of both arms, shape (..., 2), from sums of (..., classes, 2)."""
    if control.shape[-2] == 1:
        return control[..., 0, :], treatment[..., 0, :]
    equal = at_equal_classes(control, treatment)
    return equal.control, equal.treatment


def _value(parts: NDArray[np.float64]) -> float:
    above, below = parts
    return float(above / below) if below > 0.0 else math.nan


def change_from(
    metric: FieldMetric,
    sums: Sums,
    control_means: NDArray[np.float64],
    treatment_means: NDArray[np.float64],
) -> Change:
    """The change of one metric.

    Args:
        control_means: of the control's sums in every resample, shape (resamples, classes, 2).
        treatment_means: the same of the treatment.
    """
    totals = at_one_mix(sums.control.sum(axis=0), sums.treatment.sum(axis=0))
    control, treatment = (_value(parts) for parts in totals)
    low, high, p_value, log_se, ratio = math.nan, math.nan, 1.0, math.nan, math.nan
    if control > 0.0 and math.isfinite(treatment):
        ratio = treatment / control
        means = np.concatenate(at_one_mix(control_means, treatment_means), axis=1)
        resampled = resampled_ratios(means)
        low, high = _interval(resampled, sums)
        p_value = max(two_sided_p(resampled), sums.least_p)
        log_se = _log_se(resampled)
    return Change(
        metric=metric,
        control=control,
        treatment=treatment,
        change_pct=_percent(ratio),
        low_pct=_percent(low),
        high_pct=_percent(high),
        p_value=p_value,
        log_se=log_se,
        networks=sums.networks,
        calls=sums.calls,
        differing=sums.differing,
        undefined_control=sums.undefined_control,
        undefined_treatment=sums.undefined_treatment,
        note=_note(control, sums),
    )


def _percent(ratio: float) -> float:
    return 100.0 * (ratio - 1.0)


def _note(control: float, sums: Sums) -> str:
    """What is special about a row."""
    notes = []
    if math.isnan(control):
        notes.append("no call has a value")
    elif control == 0.0:
        treated = _networks_with_any(sums.treatment)
        notes.append(
            f"undefined: the control has none; the treatment has some on {treated} networks"
        )
    elif sums.differing == 0:
        notes.append("the arms are the same on every network")
    elif _is_too_few(sums):
        notes.append(f"only {sums.differing} networks say anything: too few for an interval")
    elif _networks_with_any(sums.treatment) == 0:
        notes.append("the treatment has none; upper end by the rule of three")
    left_out = sums.undefined_control + sums.undefined_treatment
    if left_out:
        notes.append(
            f"{left_out} left out as undefined, {sums.undefined_treatment} for the treatment"
        )
    return "; ".join(notes)


def _networks_with_any(sums: NDArray[np.float64]) -> int:
    """Networks whose numerator is not 0."""
    return int(sums[..., 0].any(axis=1).sum())


def _is_too_few(sums: Sums) -> bool:
    """Whether no test could call this many differing networks a significant change."""
    return sums.differing > 0 and sums.least_p > ALPHA


def resampled_ratios(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Treatment over control in every resample.

    Args:
        means: shape (resamples, 4): numerator and denominator of the control, then those of the
            treatment, >= 0.

    Returns:
        Shape (resamples,), >= 0; infinite where only the control has nothing, and 1 (no change)
        where neither has.
    """
    above = means[:, 2] * means[:, 1]
    below = means[:, 0] * means[:, 3]
    ratios = np.where(above > 0.0, np.inf, 1.0)
    np.divide(above, below, out=ratios, where=below > 0.0)
    return ratios


def two_sided_p(ratios: NDArray[np.float64]) -> float:
    """Twice the smaller share of resamples on either side of 1 (those at 1 are on both)."""
    few = min(np.count_nonzero(ratios <= 1.0), np.count_nonzero(ratios >= 1.0))
    return min(1.0, 2.0 * (1 + int(few)) / (len(ratios) + 1))


def _interval(ratios: NDArray[np.float64], sums: Sums) -> tuple[float, float]:
    """The middle 95 % of the resampled ratios, where they say anything."""
    if _is_too_few(sums):
        return 0.0, math.inf
    # An order statistic, as interpolation between infinite ratios is undefined.
    ends = np.quantile(ratios, [ALPHA / 2.0, 1.0 - ALPHA / 2.0], method="inverted_cdf")
    low, high = (float(end) for end in ends)
    if _networks_with_any(sums.treatment) == 0:
        # No resample has an event that no network had. As many as can stay unseen would be this
        # share of the control's, counted in networks that have any.
        high = UNSEEN_EVENTS / _networks_with_any(sums.control)
    return low, high


def _log_se(ratios: NDArray[np.float64]) -> float:
    usable = ratios[(ratios > 0.0) & np.isfinite(ratios)]
    return float(np.log(usable).std()) if len(usable) > 1 else math.nan


# --- Rows of a report -----------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def rows(
    pairs: PairedCalls,
    *,
    metrics: Sequence[FieldMetric] = tuple(FIELD_METRICS.values()),
    directions: Mapping[str, Better] | None = None,
    resamples: int = AB_RESAMPLES,
    seed: int = 0,
) -> list[Row]:
    """One row per metric, Holm-adjusted over those that count.

    Args:
        metrics: the rows of the report, settled before there is data.
        directions: by metric, where the arm is declared (or was published) to move it; of those
            not named, the direction that is better for the user.

    Raises:
        UnknownNameError: a direction for a metric that nobody defined.
        ConfigError: a direction that is none, or fewer than two networks.
    """
    declared = _directions(directions or {})
    found = changes(pairs, metrics, resamples=resamples, seed=seed)
    counted = [c for c in found if c.metric.name not in NOT_COUNTED]
    values = holm([c.p_value for c in counted])
    adjusted = {c.metric.name: p for c, p in zip(counted, values, strict=True)}
    return [
        Row(
            change=change,
            direction=declared[change.metric.name],
            counts=change.metric.name in adjusted,
            p_holm=adjusted.get(change.metric.name, math.nan),
        )
        for change in found
    ]


def _directions(given: Mapping[str, Better]) -> dict[str, Better]:
    for name, direction in given.items():
        if name not in FIELD_METRICS:
            raise unknown_name("metric", name, FIELD_METRICS)
        if direction not in ("higher", "lower", "neither"):
            raise ConfigError(
                f"direction of {name}: {direction!r} must be 'higher', 'lower' or 'neither'."
            )
    return {name: given.get(name, metric.better) for name, metric in FIELD_METRICS.items()}

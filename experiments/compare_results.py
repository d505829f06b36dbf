"""What a comparison found, as data: ``compare.json``, which pages and tables are made from.

::

    DIRECTORY/
        compare.json    everything below, as `read_comparison` reads it back
        summary.csv     `Comparison.values`, one row each
        profiles.csv    `Comparison.profiles`, one row per score
        calls.csv       one row per call, with columns estimator and run before those of
                        `bwe_env.metrics.CALL_COLUMNS`
        compare.txt     the tables as printed
        blocks/         calls as they were played, by the digest of everything they depend on

``compare.json`` is one object::

    format, schema_version   "bwe-env comparison", 1
    title                    one line: which calls
    inputs                   object: seeds, call, networks (count, digest), resamples, margins
    reference                label of the estimator that the others are compared with
    oracle                   label of the best oracle, or null
    estimators[]             label, runs[] (names of baselines or directories)
    metrics[]                name (column of calls), header, factor, digits, better
    subsets[]                name, calls ("contested", "all"), by ("", "network_type",
                             "bandwidth"), part ("4G-LTE", "1-2 Mbps", …), networks, num_calls
    values[]                 estimator, subset, metric, statistic, value, low, high
    profiles[]               estimator, subset, metric, scores[], shares[], low[], high[]
    non_inferiority[]        estimator, subset, metric, difference, low, high, margin, p_value,
                             p_holm, is_non_inferior
    runs[]                   estimator, run, subset, beats, and the differences behind it
    notes[]                  sentences that belong below the tables

The headline subset is the first of ``subsets``. Names of subsets are ``contested``, ``all`` and, by
network type or bandwidth, ``contested/network_type/4G-LTE`` or ``all/bandwidth/1-2 Mbps``. Values
are in the unit people read (column times ``factor``: freezes and utilisation in percent, media in
kbps). ``better`` is "higher", "lower" or "neither". ``low`` and ``high`` are the ends of the 95 %
interval. JSON has no infinity and no NaN: null stands for a number that is not known, such as the
ends where one network stands alone.

Statistics (`STATISTICS`; formulas in `experiments.compare_statistics`):

========================== ========================================================================
mean                       mean over networks
mean_equal_types           the same with every network type counting as much
iqm                        interquartile mean over networks and training runs
iqm_equal_types            the same with every network type counting as much, call score only
difference                 mean over networks of estimator minus reference, paired
difference_equal_types     the same with every network type counting as much
iqm_difference             iqm of the estimator minus that of the reference
probability_of_improvement chance that a call of the estimator is better than one of the reference
                           on the same network, 0 to 1
share_won                  share of calls better than the reference's call of the same network and
                           seed, 0 to 1; equal ones count half
gap_closed                 share of the way from the reference to the best oracle, call score only
========================== ========================================================================

Subsets with a part have ``mean`` and ``difference`` only. The reference has no differences.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agents.artifact import read_artifact_manifest
from bwe_env.errors import ArtifactError
from bwe_env.metrics import Better
from experiments.run_directory import config_to_dict, write_json

T = TypeVar("T")

FORMAT = "bwe-env comparison"
SCHEMA_VERSION = 1
COMPARISON_FILE = "compare.json"

#: The tables as printed.
COMPARISON_TEXT = "compare.txt"
#: Names in `Value.statistic`.
STATISTICS = (
    "mean",
    "mean_equal_types",
    "iqm",
    "iqm_equal_types",
    "difference",
    "difference_equal_types",
    "iqm_difference",
    "probability_of_improvement",
    "share_won",
    "gap_closed",
)


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Who played: a baseline, or a policy of one or more training runs."""

    label: str
    runs: tuple[str, ...]
    """what `experiments.contenders.find_contender` was asked for"""


@dataclass(frozen=True, kw_only=True)
class ComparedMetric:
    """A column of calls as people read it."""

    name: str
    header: str
    factor: float
    """shown value / value of the column"""
    digits: int
    better: Better


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Calls that statistics are taken over."""

    name: str
    calls: str
    """"contested" or "all\""""
    by: str = ""
    """"network_type", "bandwidth", or empty for all of them"""
    part: str = ""
    """which one; empty for all of them"""
    networks: int
    num_calls: int
    """of each estimator and run"""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A statistic with its 95 % interval; NaN where there is none."""

    estimator: str
    subset: str
    metric: str
    statistic: str
    """one of `STATISTICS`"""
    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """The whole interval lies on one side of 0."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Share of calls above each score, with a pointwise 95 % band; all of one length."""

    estimator: str
    subset: str
    metric: str
    scores: tuple[float, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class NonInferiority:
    """Whether an estimator is at most a margin worse than the reference on a network type."""

    estimator: str
    subset: str
    """its name; one with a part"""
    metric: str
    difference: float
    """estimator minus reference, in the metric's shown unit"""
    low: float
    high: float
    margin: float
    """> 0, in the same unit"""
    p_value: float
    """one-sided, of being worse by the margin or more"""
    p_holm: float
    """adjusted over all types and metrics of this estimator"""
    is_non_inferior: bool


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """One training run against the reference."""

    estimator: str
    run: str
    subset: str
    score: float
    """difference of the mean call score to the reference's, MOS"""
    score_low: float
    score_high: float
    freeze: float
    """difference of the freeze share, percentage points"""
    delay: float
    """difference of the 95th percentile of the one-way delay, ms"""
    beats: bool
    """score's interval above 0, fewer freezes, delay not higher"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything a comparison found; see the module."""

    title: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    reference: str
    oracle: str | None
    estimators: tuple[Estimator, ...]
    metrics: tuple[ComparedMetric, ...]
    subsets: tuple[Subset, ...]
    values: tuple[Value, ...]
    profiles: tuple[Profile, ...]
    non_inferiority: tuple[NonInferiority, ...]
    runs: tuple[RunOutcome, ...]
    notes: tuple[str, ...] = ()

    def find(self, estimator: str, subset: str, metric: str, statistic: str) -> Value | None:
        """The value of that name; None where the statistic is not defined."""
        return self._index().get((estimator, subset, metric, statistic))

    def _index(self) -> dict[tuple[str, str, str, str], Value]:
        found: dict[tuple[str, str, str, str], Value] | None = self.__dict__.get("_by_name")
        if found is None:
            found = {(v.estimator, v.subset, v.metric, v.statistic): v for v in self.values}
            object.__setattr__(self, "_by_name", found)
        return found


#: Fields that are lists of dataclasses.
_LISTS: dict[str, type[Any]] = {
    "estimators": Estimator,
    "metrics": ComparedMetric,
    "subsets": Subset,
    "values": Value,
    "profiles": Profile,
    "non_inferiority": NonInferiority,
    "runs": RunOutcome,
}


def write_comparison(directory: Path, comparison: Comparison) -> None:
    """Write ``compare.json``, whole or not at all; the same bytes for the same comparison."""
    content = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **config_to_dict(comparison)}
    write_json(directory / COMPARISON_FILE, _without_unknown(content))


def read_comparison(directory: str | Path) -> Comparison:
    """What `write_comparison` wrote.

    Raises:
        ArtifactError: missing, damaged, or of another version.
    """
    path = Path(directory) / COMPARISON_FILE
    content = read_artifact_manifest(
        path,
        what="comparison",
        format_name=FORMAT,
        remedy="python -m experiments.compare --out DIR makes one.",
    )
    version = content.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} is of version {version!r}, this project reads version {SCHEMA_VERSION}. Run "
            "the comparison again; calls that were played stay."
        )
    del content["format"]
    try:
        lists: dict[str, Any] = {
            name: _all_of(kind, content.pop(name)) for name, kind in _LISTS.items()
        }
        notes = tuple(content.pop("notes"))
        return Comparison(**lists, notes=notes, **content)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Run the comparison again.") from error


def _without_unknown(value: Any) -> Any:
    """The same JSON value with null for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_unknown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_unknown(item) for item in value]
    return value


def _all_of(kind: type[T], rows: Sequence[Mapping[str, Any]]) -> tuple[T, ...]:
    """Dataclasses from JSON objects; null is NaN where a number is meant, lists are tuples."""
    hints = {f.name: f.type for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return tuple(
        kind(**{key: _read(item, hints.get(key)) for key, item in r.items()}) for r in rows
    )


def _read(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(_read(item, "float" if hint == "tuple[float, ...]" else "") for item in value)
    return math.nan if value is None and hint == "float" else value

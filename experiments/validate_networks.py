"""Synthetic networks beside measured ones: ``python -m experiments.validate networks DIRECTORY``.

Every kind of recorded link is drawn from its recipe: as long as its recordings, so that both sides
see as little of the slow movement, and often enough that a synthetic number moves little from one
draw to the next (`MIN_SYNTHETIC`). Both sides go through `capacity_statistics`. Beside each
measured number stands the interval that holds it in 95 % of bootstrap samples of the recording
sessions: where that is wide, the number itself is hardly known. Round-trip times and loss of links
without load are compared in the same way with the directory's probes (`validate_paths`).

The rule for a kind: every autocorrelation within 0.15 and the outage share within 0.025 of the
measured one; of all else at least 80 % within 25 % (a factor of 1.25) and nothing beyond a factor
of 2.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bwe_env.errors import ConfigError, TraceFormatError
from bwe_env.trace import Trace, read_directory
from bwe_env.trace.catalog import CYCLES, Kind, synthetic_traces
from bwe_env.trace.files import read_json
from bwe_env.trace.paths import PATH_RECIPES
from bwe_env.units import s_to_ms, s_to_us
from experiments.capacity_statistics import Session, pooled, session_of, step_means_bps
from experiments.networks import recordings
from experiments.validate_paths import (
    LOSS_BOUND,
    PROBE_TYPES,
    PathSession,
    measured_paths,
    path_statistics,
    queue_quantiles_s,
    synthetic_networks,
    synthetic_paths,
)

#: Step of the statistics, as on the statistics page of the directory: wired recordings know no
#: more than one capacity every 2 s.
STEP_S = {"wired-broadband": 2.0}
USUAL_STEP_S = 1.0
#: Recordings with a coarser step of their own are left out: they have no dynamics at this one. A
#: tenth more is clock drift ("1 s" of an application's clock). Ours.
MAX_STEP_RATIO = 1.1

#: Fewer recordings say nothing of a kind (the smallest kind that is judged has 6). Ours.
MIN_RECORDINGS = 5
#: Fewer measured outages say nothing of how long outages are. Ours.
MIN_OUTAGES = 10
OUTAGE_LENGTHS = ("outage mean s", "outage p90 s")
#: Synthetic sessions per kind, rounded up to whole sets of recordings. The sd of a synthetic number
#: over draws is then at most 0.015 for an autocorrelation, 0.009 for the outage share and 7 % for
#: anything else: well below the bounds. Measured, five draws of each kind.
MIN_SYNTHETIC = 1000
#: Bootstrap samples per interval of a measured number; its ends are good to a tenth of its width.
RESAMPLES = 200

#: The rule.
ACF_BOUND = 0.15
OUTAGE_BOUND = 0.025
NEAR_FACTOR = 1.25
FAR_FACTOR = 2.0
MIN_NEAR_SHARE = 0.8

#: Names of statistics with a bound of their own, by how they begin.
ABSOLUTE_BOUNDS = {"acf": ACF_BOUND, "outage share": OUTAGE_BOUND, "loss": LOSS_BOUND}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One statistic of one kind of network, on both sides."""

    name: str
    measured: float
    interval: tuple[float, float] = (math.nan, math.nan)
    """holds the measured number in 95 % of bootstrap samples"""
    synthetic: float
    bound: float = math.nan
    """largest absolute difference; NaN for the rule of factors"""
    is_judged: bool = True

    @property
    def factor(self) -> float:
        """How far apart the two are, >= 1; infinite if one of them is 0 or unknown."""
        if self.measured == self.synthetic:
            return 1.0
        if not (self.measured > 0.0 and self.synthetic > 0.0):
            return math.inf
        ratio = self.synthetic / self.measured
        return max(ratio, 1.0 / ratio)

    @property
    def verdict(self) -> str:
        """``ok``, ``off`` (allowed for one in five), ``MISS``, or nothing if not judged."""
        if not self.is_judged:
            return ""
        if not math.isnan(self.bound):
            return "ok" if abs(self.synthetic - self.measured) <= self.bound else "MISS"
        if self.factor <= NEAR_FACTOR:
            return "ok"
        return "off" if self.factor <= FAR_FACTOR else "MISS"


@dataclass(frozen=True)
class Comparison:
    """A kind of network, measured and synthetic."""

    kind: str
    rows: list[Row] = field(default_factory=list)

    @property
    def by_factor(self) -> list[Row]:
        """The rows under the rule of factors."""
        return [row for row in self.rows if row.is_judged and math.isnan(row.bound)]

    @property
    def num_near(self) -> int:
        """How many of those are within `NEAR_FACTOR`."""
        return sum(row.verdict == "ok" for row in self.by_factor)

    @property
    def agrees(self) -> bool:
        """Whether the rule holds."""
        is_near = self.num_near >= MIN_NEAR_SHARE * len(self.by_factor)
        return is_near and all(row.verdict != "MISS" for row in self.rows)


# --- The two sides --------------------------------------------------------------------------------


def step_s_of(kind: str) -> float:
    """Step of the statistics of a kind of network."""
    return next((step for name, step in STEP_S.items() if kind.startswith(name)), USUAL_STEP_S)


def kind_of(entry: Mapping[str, Any], where: str) -> str:
    """Which recipe stands for a recording of the manifest."""
    for key in ("network_type", "direction"):
        if not isinstance(entry.get(key), str):
            raise TraceFormatError(
                f"{where}: trace {entry.get('name')!r} has no {key!r}; networks are compared by "
                "type and direction ('down' or 'up')."
            )
    network_type, direction = entry["network_type"], entry["direction"]
    if network_type == "5G" and "mmWave" in str(entry.get("how_measured", "")):
        network_type = "5G-mmWave"
    return f"{network_type}-{direction}"


def measured_traces(directory: Path) -> dict[str, list[Trace]]:
    """Recordings by kind, without those too coarse for the kind's statistics."""
    manifest = directory / "manifest.json"
    traces = read_directory(directory)
    kinds: dict[str, list[Trace]] = defaultdict(list)
    for trace, entry in zip(traces, read_json(manifest), strict=True):
        kind = kind_of(entry, str(manifest))
        if np.median(trace.duration_us) <= s_to_us(MAX_STEP_RATIO * step_s_of(kind)):
            kinds[kind].append(trace)
    return dict(kinds)


def synthetic_sessions(kind: str, like: Sequence[Session]) -> list[Session]:
    """Sessions from the recipe, as long as the measured ones, in whole sets of them."""
    step_s = like[0].step_s
    sets = math.ceil(MIN_SYNTHETIC / len(like))
    lengths = [len(session.deviations) for session in like] * sets
    names = [f"validation-of-{kind}-{i}" for i in range(len(lengths))]
    traces = synthetic_traces(Kind(kind), names, duration_s=max(lengths) * step_s)
    return [
        session_of(step_means_bps(trace, step_s)[:length], step_s=step_s)
        for trace, length in zip(traces, lengths, strict=True)
    ]


def bootstrap_intervals(
    units: Sequence[str],
    statistics_of: Callable[[Sequence[int]], Mapping[str, float]],
    *,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Intervals of statistics under resampling of whole units.

    Args:
        units: which unit each item belongs to (the recording session of a trace).
        statistics_of: the statistics of the items with these numbers.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for item, unit in enumerate(units):
        members[unit].append(item)
    groups = list(members.values())
    rng = np.random.default_rng(seed)
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(groups), size=len(groups))
        for name, value in statistics_of([i for group in chosen for i in groups[group]]).items():
            samples[name].append(value)
    intervals = {}
    for name, values in samples.items():
        known = np.array(values)[~np.isnan(values)]
        ends = np.percentile(known, (2.5, 97.5)).tolist() if len(known) else (math.nan, math.nan)
        intervals[name] = (ends[0], ends[1])
    return intervals


def compare_kind(kind: str, traces: Sequence[Trace], units: Sequence[str]) -> Comparison:
    """Both sides of a kind of network, statistic by statistic."""
    step_s = step_s_of(kind)
    measured = [session_of(step_means_bps(trace, step_s), step_s=step_s) for trace in traces]
    intervals = bootstrap_intervals(units, lambda items: pooled([measured[i] for i in items]))
    ours = pooled(synthetic_sessions(kind, measured))
    num_outages = sum(len(session.outages_s) for session in measured)
    unjudged = () if num_outages >= MIN_OUTAGES else OUTAGE_LENGTHS
    return Comparison(kind, rows_of(pooled(measured), intervals, ours, unjudged=unjudged))


def compare_paths(network_type: str, measured: Sequence[PathSession]) -> Comparison:
    """Both sides of a type's paths, statistic by statistic."""
    intervals = bootstrap_intervals(
        [str(i) for i in range(len(measured))],
        lambda items: path_statistics([measured[i] for i in items]),
    )
    ours = path_statistics(synthetic_paths(synthetic_networks(network_type)))
    rows = rows_of(path_statistics(measured), intervals, ours, unjudged=["RTT step ms"])
    return Comparison(f"{network_type} path", rows)


def rows_of(
    measured: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    synthetic: Mapping[str, float],
    *,
    unjudged: Sequence[str] = (),
) -> list[Row]:
    """A row per statistic that the measured side knows."""
    return [
        Row(
            name=name,
            measured=value,
            interval=intervals[name],
            synthetic=synthetic[name],
            bound=next((b for key, b in ABSOLUTE_BOUNDS.items() if name.startswith(key)), math.nan),
            is_judged=name not in unjudged,
        )
        for name, value in measured.items()
        if not math.isnan(value)
    ]


# --- The table ------------------------------------------------------------------------------------


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def print_comparison(comparison: Comparison, title: str) -> None:
    """The rows of a kind, and how many of them agree."""
    print(title)
    for row in comparison.rows:
        low, high = (_number(end) for end in row.interval)
        measured = f"measured {_number(row.measured):>8} [{low}, {high}]"
        print(
            f"  {row.verdict:4} {row.name:14} {measured:38} synthetic {_number(row.synthetic):>8}"
        )
    verdict = "agrees" if comparison.agrees else "DIFFERS"
    print(
        f"  {comparison.kind} {verdict}: {comparison.num_near} of {len(comparison.by_factor)} "
        f"within a factor of {NEAR_FACTOR}; " + _outside(comparison)
    )


def _outside(comparison: Comparison) -> str:
    names = [
        f"{row.name} ({row.verdict})" for row in comparison.rows if row.verdict not in ("", "ok")
    ]
    return f"outside: {', '.join(names)}" if names else "nothing outside its bound"


def generation_seconds() -> float:
    """Processor time to draw 1000 traces of 60 s, of all kinds in turn."""
    kinds = [kind for cycle in CYCLES.values() for kind in cycle]
    counts = [len(range(i, 1000, len(kinds))) for i in range(len(kinds))]
    start_s = time.process_time()
    for kind, count in zip(kinds, counts, strict=True):
        synthetic_traces(kind, [f"speed-{i}" for i in range(count)], duration_s=60.0)
    return time.process_time() - start_s


def _progress(kinds: Sequence[str]) -> Any:
    from tqdm import tqdm

    return tqdm(kinds, unit="kind", disable=None, leave=False)


def validate_networks(directory: Path) -> int:
    """Print the comparison of every kind; returns how many of them differ."""
    start_s = time.perf_counter()
    kinds = measured_traces(directory)
    _, sessions = recordings(directory)
    known = {kind.recipe for cycle in CYCLES.values() for kind in cycle}
    enough = [kind for kind in kinds if kind in known and len(kinds[kind]) >= MIN_RECORDINGS]
    if not enough:
        raise ConfigError(
            f"{directory} has no kind of network with {MIN_RECORDINGS} recordings or more, so "
            "there is nothing to compare with; give a directory of measured traces such as "
            "../shared/traces."
        )
    comparisons = []
    for kind in _progress(sorted(enough)):
        traces = kinds[kind]
        units = [sessions.get(trace.name, trace.name) for trace in traces]
        comparison = compare_kind(kind, traces, units)
        hours = sum(trace.duration_s for trace in traces) / 3600.0
        title = f"{kind}: {len(traces)} recordings of {len(set(units))} sessions, {hours:.1f} h"
        print_comparison(comparison, title)
        comparisons.append(comparison)
    for kind in sorted(set(kinds) - set(enough)):
        reason = "too few to compare" if kind in known else "no recipe"
        print(f"{kind}: {len(kinds[kind])} recordings, {reason}")
    paths = measured_paths(directory)
    for network_type in PROBE_TYPES:
        if network_type in paths:
            comparison = compare_paths(network_type, paths[network_type])
            print_comparison(comparison, f"{network_type} path: {len(paths[network_type])} probes")
            comparisons.append(comparison)
    for network_type in PATH_RECIPES:
        p10, p50, p90 = (s_to_ms(seconds) for seconds in queue_quantiles_s(network_type))
        print(
            f"{network_type} queue: p10 {p10:.0f}, p50 {p50:.0f}, p90 {p90:.0f} ms (not measured)"
        )
    differing = [comparison for comparison in comparisons if not comparison.agrees]
    print(f"1000 traces of 60 s are made in {generation_seconds():.2f} s of processor time.")
    misses = f"; misses: {', '.join(c.kind for c in differing)}" if differing else ""
    print(
        f"{len(comparisons) - len(differing)} of {len(comparisons)} kinds agree in "
        f"{time.perf_counter() - start_s:.0f} s{misses}."
    )
    return len(differing)

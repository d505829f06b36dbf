"""`Trace`: the capacity of a link over time, piecewise constant and periodic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bwe_env.errors import TraceFormatError, unknown_name
from bwe_env.units import US_PER_S, s_to_us, us_to_s

#: Words for the kind of access network, the same for measured and synthetic traces.
#: "pattern" is what `constant`, `step` and `square` draw: no network, a drawing board.
NETWORK_TYPES = ("3G", "4G-LTE", "5G", "wifi", "wired-broadband", "satellite", "pattern")

#: More is no link but a wrong unit (a terabit per second). Ours.
MAX_CAPACITY_BPS = 1e12
#: Less is an outage and must be written 0: 1500 bytes would take more than three hours. Ours.
MIN_CAPACITY_BPS = 1.0
#: Longest period, 366 days: more is a wrong unit. Ours.
MAX_DURATION_US = 366 * 86_400 * US_PER_S


@dataclass(frozen=True, eq=False)
class Trace:
    """Capacity of a bottleneck over time.

    Segment `i` lasts ``duration_us[i]`` and carries ``capacity_bps[i]``; after the last one the
    trace starts again. Two traces are equal when their names, types, sources and contents are.

    Raises:
        TraceFormatError: no segment; a duration <= 0; a capacity that is negative, NaN, infinite
            or absurd; nothing but outage.
    """

    name: str
    """unique within a set of networks"""
    network_type: str
    """one of `NETWORK_TYPES`"""
    source: str
    """where it comes from: a file, a data set, a generator"""
    duration_us: NDArray[np.int64]
    """shape (n,), > 0"""
    capacity_bps: NDArray[np.float64]
    """shape (n,), finite, >= 0; 0 is an outage"""

    def __post_init__(self) -> None:
        if self.network_type not in NETWORK_TYPES:
            raise unknown_name("network type", self.network_type, NETWORK_TYPES)
        capacity_bps = _read_only(self.capacity_bps, np.float64)
        durations = np.asarray(self.duration_us)
        if durations.size and not np.issubdtype(durations.dtype, np.integer):
            raise self._error(
                f"duration_us must hold integers (microseconds), got dtype {durations.dtype}; "
                "times in seconds are read with Trace.from_points()."
            )
        duration_us = _read_only(durations, np.int64)
        object.__setattr__(self, "duration_us", duration_us)
        object.__setattr__(self, "capacity_bps", capacity_bps)
        if duration_us.ndim != 1 or duration_us.shape != capacity_bps.shape:
            raise self._error(
                f"duration_us and capacity_bps must be one-dimensional and of one length, got "
                f"shapes {duration_us.shape} and {capacity_bps.shape}."
            )
        if len(duration_us) == 0:
            raise self._error("it has no segments; give at least one duration and capacity.")
        if (duration_us <= 0).any():
            i = int(np.argmax(duration_us <= 0))
            raise self._error(
                f"segment {i} lasts {duration_us[i]} us; every duration must be > 0: sort the "
                "points by time and drop repeated ones."
            )
        for i in np.flatnonzero(~valid_capacity(capacity_bps))[:1]:
            raise self._error(f"segment {i}: {explain_capacity(float(capacity_bps[i]))}")
        if not (capacity_bps > 0).any():
            raise self._error("capacity is 0 everywhere; no packet would ever arrive.")
        if float(duration_us.sum(dtype=np.float64)) > MAX_DURATION_US:
            raise self._error(
                f"it lasts {us_to_s(float(duration_us.sum(dtype=np.float64))):.4g} s, over a year; "
                "are the times in another unit than seconds?"
            )

    def _error(self, text: str) -> TraceFormatError:
        return TraceFormatError(f"trace {self.name!r}: {text}")

    @classmethod
    def from_points(
        cls,
        time_s: ArrayLike,
        capacity_bps: ArrayLike,
        *,
        name: str,
        network_type: str,
        source: str = "points",
        end_s: float | None = None,
    ) -> Trace:
        """A trace that holds ``capacity_bps[i]`` from ``time_s[i]`` to the next point.

        Args:
            time_s: strictly increasing; the trace begins at the first one, whatever its value.
            capacity_bps: one per point.
            end_s: where the last point's capacity ends, on the clock of `time_s`. Without it the
                last point lasts as long as the median one.

        Raises:
            TraceFormatError: as for `Trace`, or times that do not increase, or `end_s` missing
                where there is one point only.
        """
        time = np.asarray(time_s, dtype=np.float64)
        problem = f"trace {name!r}: "
        if time.ndim != 1 or len(time) == 0:
            raise TraceFormatError(f"{problem}time_s needs at least one point in one dimension.")
        if not np.isfinite(time).all():
            i = int(np.argmin(np.isfinite(time)))
            raise TraceFormatError(f"{problem}time_s[{i}]={time[i]} is not a finite number.")
        if end_s is None:
            if len(time) == 1:
                raise TraceFormatError(
                    f"{problem}one point alone has no duration; give end_s (for a capacity that "
                    "never changes use bwe_env.trace.constant)."
                )
            end_s = float(time[-1] + np.median(np.diff(time)))
        # Rounded differences of times, not rounded durations: errors do not add up.
        edges_us = np.round((np.append(time, end_s) - time[0]) * US_PER_S)
        gaps = np.diff(edges_us)
        if not (gaps > 0).all():
            i = int(np.argmin(gaps > 0))
            after = "end_s" if i == len(time) - 1 else f"time_s[{i + 1}]"
            value = end_s if i == len(time) - 1 else time[i + 1]
            raise TraceFormatError(
                f"{problem}times must increase by at least 1 us; {after}={value} does not follow "
                f"time_s[{i}]={time[i]}. Sort the points and drop repeated times."
            )
        return cls(name, network_type, source, gaps.astype(np.int64), np.asarray(capacity_bps))

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        network_type: str,
        name: str | None = None,
        source: str | None = None,
        duration_s: float | None = None,
    ) -> Trace:
        """Read a CSV file with the header ``time_s,capacity_bps``; see `readers.read_csv`."""
        from bwe_env.trace.readers import read_csv  # readers builds on this module

        return read_csv(
            path, network_type=network_type, name=name, source=source, duration_s=duration_s
        )

    def __len__(self) -> int:
        """Number of segments."""
        return len(self.duration_us)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return (
            f"Trace({self.name!r}, {self.network_type!r}, {len(self)} segments, "
            f"{self.duration_s:g} s, mean {self.mean_bps:.4g} bps)"
        )

    @property
    def _identity(self) -> tuple[str, str, str, str]:
        return (self.name, self.network_type, self.source, self.digest)

    @cached_property
    def start_us(self) -> NDArray[np.int64]:
        """When each segment begins, shape (n,), the first at 0."""
        return _read_only(np.cumsum(self.duration_us) - self.duration_us, np.int64)

    @cached_property
    def period_us(self) -> int:
        """Length of one round of the trace."""
        return int(self.duration_us.sum())

    @property
    def duration_s(self) -> float:
        """Length of one round of the trace."""
        return us_to_s(self.period_us)

    @cached_property
    def mean_bps(self) -> float:
        """Time-weighted mean capacity over one round."""
        return float(np.dot(self.capacity_bps, self.duration_us) / self.period_us)

    def capacity_at(self, time_s: float) -> float:
        """Capacity at a time of any sign and size; the trace repeats for ever."""
        offset_us = s_to_us(time_s) % self.period_us
        return float(self.capacity_bps[np.searchsorted(self.start_us, offset_us, "right") - 1])

    def ratio_below(self, rate_bps: float) -> float:
        """Share of time, 0...1, in which a flow of `rate_bps` does not fit."""
        return float(self.duration_us[self.capacity_bps < rate_bps].sum() / self.period_us)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content (durations and capacities; not name, type or source)."""
        digest = hashlib.sha256()
        digest.update(self.duration_us.astype("<i8").tobytes())
        digest.update(self.capacity_bps.astype("<f8").tobytes())
        return digest.hexdigest()

    def scaled(self, factor: float, *, name: str | None = None) -> Trace:
        """The same trace with every capacity times `factor` (> 0)."""
        if not (np.isfinite(factor) and factor > 0):
            raise self._error(f"cannot be scaled by {factor!r}; the factor must be finite and > 0.")
        return replace(
            self,
            name=self.name if name is None else name,
            source=f"{self.source}, scaled by {factor:g}",
            capacity_bps=self.capacity_bps * factor,
        )


def valid_capacity(capacity_bps: Any) -> Any:
    """Whether a capacity, or each of an array, is 0 or between `MIN_` and `MAX_CAPACITY_BPS`."""
    in_range = (capacity_bps >= MIN_CAPACITY_BPS) & (capacity_bps <= MAX_CAPACITY_BPS)
    return in_range | (capacity_bps == 0)


def explain_capacity(capacity_bps: float) -> str:
    """Why a capacity that is not `valid_capacity` is refused, and how to mend it."""
    if not np.isfinite(capacity_bps):
        return f"capacity {capacity_bps} bps is not a finite number; leave the point out or give 0."
    if capacity_bps < 0:
        return f"capacity {capacity_bps:g} bps is negative; an outage is written as 0."
    if capacity_bps > MAX_CAPACITY_BPS:
        return (
            f"capacity {capacity_bps:g} bps is above {MAX_CAPACITY_BPS:g}; the unit is bits per "
            "second. Mend the unit, or cut a glitch to what the link can carry."
        )
    return (
        f"capacity {capacity_bps:g} bps is between 0 and {MIN_CAPACITY_BPS:g}; the unit is bits "
        "per second, and an outage is written as 0."
    )


def check_unique_names(traces: Sequence[Trace]) -> None:
    """Raise a `TraceFormatError` if two traces share a name."""
    seen: set[str] = set()
    for trace in traces:
        if trace.name in seen:
            raise TraceFormatError(
                f"two traces are called {trace.name!r}; give each its own name, since results are "
                "stored and paired by it."
            )
        seen.add(trace.name)


def _read_only(values: Any, dtype: type[np.generic]) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array

"""Series of statistics in a dump of chrome://webrtc-internals, sampled at common times.

A dump holds one series per member of each statistics object, named "<object>-<member>", one value
per poll (about a second), as a string of JSON. Since M117 a series "<object>-timestamp" tells when;
without it, values are a second apart from `startTime` on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.logs.columns import numbers
from bwe_env.units import MS_PER_S

#: What is read of each kind of object (W3C webrtc-stats); the rest is passed over.
MEMBERS = {
    "candidate-pair": (
        "availableOutgoingBitrate",
        "bytesSent",
        "currentRoundTripTime",
        "packetsSent",
        "responsesReceived",
    ),
    "outbound-rtp": ("bytesSent", "headerBytesSent", "packetsSent"),
    "remote-inbound-rtp": ("packetsLost", "roundTripTime", "roundTripTimeMeasurements"),
    "transport": ("bytesSent", "packetsSent", "selectedCandidatePairId"),
}
_TIMESTAMP = "timestamp"
#: Objects whose values are of the moment of the poll; a receiver report's are of its arrival.
POLLED = ("transport", "candidate-pair", "outbound-rtp")
#: A value belongs to a poll within half of the second between polls.
MATCH_S = 0.5
#: A late member's own beginning may differ so much from its stamps, one and a half polls (ours).
MAX_START_ERROR_S = 1.5
#: Milliseconds since 1970 of any stamp that makes sense: up to the year 2286.
_MAX_STAMP_MS = 1e13


@dataclass
class StatsObject:
    """One object of `getStats()` over time."""

    kind: str
    members: dict[str, list[Any]] = field(default_factory=dict)
    time_s: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """when each member's values are from, since 1970"""

    def last(self, member: str) -> float:
        """The newest number of a member, 0 without any."""
        values = numbers(self.members.get(member, []))
        known = values[np.isfinite(values)]
        return float(known[-1]) if len(known) else 0.0

    def at(self, times_s: NDArray[np.float64], member: str) -> NDArray[np.float64]:
        """A member at the times of polls; NaN where no value is near.

        Args:
            times_s: increasing; shape (n,).
        """
        positions = self._positions(times_s, member)
        values = np.append(numbers(self.members.get(member, [])), np.nan)
        return values[positions]

    def text_at(self, times_s: NDArray[np.float64], member: str) -> list[str | None]:
        """A member that is text, in the same way."""
        values = [*self.members.get(member, []), None]
        found = [values[position] for position in self._positions(times_s, member)]
        return [value if isinstance(value, str) else None for value in found]

    def _positions(self, times_s: NDArray[np.float64], member: str) -> list[int]:
        """Position of the value nearest to each time, -1 for none near enough."""
        own_s = self.time_s.get(member, np.zeros(0))
        if not len(own_s):
            return [-1] * len(times_s)
        order = np.argsort(own_s, kind="stable")
        right = np.searchsorted(own_s[order], times_s).clip(1, max(len(own_s) - 1, 1))
        left = right - 1
        right = np.minimum(right, len(own_s) - 1)
        is_left = np.abs(own_s[order][left] - times_s) <= np.abs(own_s[order][right] - times_s)
        nearest = order[np.where(is_left, left, right)]
        is_near = np.abs(own_s[nearest] - times_s) < MATCH_S
        return [int(position) for position in np.where(is_near, nearest, -1)]


@dataclass
class Stats:
    """Objects of one peer connection by id, and what could not be read."""

    objects: dict[str, StatsObject]
    unreadable: tuple[str, ...]
    """names of series whose values or times make no sense"""

    def of(self, kind: str) -> dict[str, StatsObject]:
        """Objects of a kind."""
        return {name: item for name, item in self.objects.items() if item.kind == kind}


def read_stats(table: Mapping[str, Any]) -> Stats:
    """The `stats` member of a peer connection."""
    objects: dict[str, StatsObject] = {}
    starts_s: dict[tuple[str, str], float | None] = {}
    unreadable = []
    for key, series in table.items():
        name, _, member = key.rpartition("-")
        kind = series.get("statsType") if isinstance(series, Mapping) else None
        if not isinstance(kind, str) or member not in (*MEMBERS.get(kind, ()), _TIMESTAMP):
            continue
        if kind not in MEMBERS:
            continue
        values = _values(series)
        if values is None:
            unreadable.append(key)
            continue
        item = objects.setdefault(name, StatsObject(kind))
        item.members[member] = values
        starts_s[name, member] = _start_s(series)
    for name, item in objects.items():
        stamps_s = _stamps_s(item.members.pop(_TIMESTAMP, None))
        for member in list(item.members):
            times_s = _times_s(len(item.members[member]), stamps_s, starts_s[name, member])
            if times_s is None:
                unreadable.append(f"{name}-{member}")
                del item.members[member]
            else:
                keep = np.isfinite(times_s)
                item.time_s[member] = times_s[keep]
                item.members[member] = [
                    v for v, is_kept in zip(item.members[member], keep, strict=True) if is_kept
                ]
    return Stats(objects, tuple(unreadable))


def _values(series: Mapping[str, Any]) -> list[Any] | None:
    try:
        values = json.loads(series["values"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return values if isinstance(values, list) else None


def _start_s(series: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(series["startTime"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _stamps_s(values: list[Any] | None) -> NDArray[np.float64] | None:
    if values is None:
        return None
    stamps_ms = numbers(values)
    stamps_ms[~(np.abs(stamps_ms) < _MAX_STAMP_MS)] = np.nan
    return stamps_ms / MS_PER_S


def _times_s(
    count: int, stamps_s: NDArray[np.float64] | None, start_s: float | None
) -> NDArray[np.float64] | None:
    """Times of a member's values, None if they cannot be told.

    A member that came later than its object has the last of the object's stamps, and says itself
    when it began; one that comes and goes does not fit.
    """
    if stamps_s is None:
        return None if start_s is None else start_s + np.arange(count, dtype=np.float64)
    if count > len(stamps_s):
        return None
    times_s = stamps_s[len(stamps_s) - count :]
    is_late = 0 < count < len(stamps_s)
    if is_late and not (start_s is not None and abs(times_s[0] - start_s) <= MAX_START_ERROR_S):
        return None
    return times_s

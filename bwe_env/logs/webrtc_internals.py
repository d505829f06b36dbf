"""Bins of a call from a dump of chrome://webrtc-internals: what getStats() told once a second.

Counters tell how much was sent and, through receiver reports, how much was lost; nothing tells of
single packets or of transport-wide feedback, so most columns stay unknown. Round-trip times are
those of connectivity checks, else of receiver reports, in bins in which one was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import CallLogFormatError, unknown_name
from bwe_env.logs.bins import MAX_SILENCE_US
from bwe_env.logs.call_log import CallLog
from bwe_env.logs.columns import numbers
from bwe_env.logs.event_log_call import DEFAULT_OVERHEAD_BYTES
from bwe_env.logs.files import parse_json_object, read_log_bytes
from bwe_env.logs.internals_stats import MATCH_S, MEMBERS, POLLED, Stats, StatsObject, read_stats
from bwe_env.telemetry import TELEMETRY, TELEMETRY_NAMES
from bwe_env.units import s_to_ms, us_to_s

#: Clients poll once a second.
POLL_S = 1.0
#: Kinds of statistics that count packets sent, best first: RTP alone, as in the other logs.
SENDING_KINDS = ("outbound-rtp", "transport", "candidate-pair")
#: Polls further apart than that have missed some.
MAX_POLL_GAP_S = 1.5

Floats = NDArray[np.float64]


def webrtc_internals_call(path: Path | str, *, connection: str | None = None) -> CallLog:
    """Read a dump, gzipped or not.

    Args:
        connection: which peer connection, e.g. ``"7-1"``; None for the one that sends most.

    Raises:
        CallLogFormatError: no such dump, it breaks off, or it tells neither of packets nor of
            round-trip times.
        UnknownNameError: there is no such connection.
    """
    path = Path(path)
    dump = parse_json_object(read_log_bytes(path), str(path))
    return webrtc_internals_from(dump, source=str(path), connection=connection)


def webrtc_internals_from(
    dump: Mapping[str, Any], *, source: str, connection: str | None = None
) -> CallLog:
    """The same from its JSON object; `source` is what to call it in errors."""
    name, stats, notes = _connection(dump, source, connection)
    times_s, poll_notes = _polls(stats, f"{source}: connection {name}")
    packets, sent_bytes, sent_notes = _sent(stats, times_s)
    lost_packets, lost_notes = _lost(stats, times_s)
    rtt_ms = _rtt_ms(stats, times_s)
    if not np.isfinite(packets).any() and not np.isfinite(rtt_ms).any():
        raise CallLogFormatError(
            f"{source}: connection {name} tells neither of packets sent (outbound-rtp, transport "
            "or candidate-pair: packetsSent) nor of round-trip times (candidate-pair: "
            "currentRoundTripTime); legacy statistics (goog…) are not read. Record the end that "
            "sends, with a client that has standard statistics."
        )
    rows = _unknown(len(times_s) - 1)
    rows["time_s"] = times_s[1:] - times_s[0]
    rows["sent_packets"] = packets
    rows["sent_bytes"] = sent_bytes
    rows["lost_packets"] = lost_packets
    rows["rtt_ms"] = rtt_ms
    rows["target_rate_bps"] = _of_selected_pair(stats, times_s, "availableOutgoingBitrate")[1:]
    notes += poll_notes + sent_notes + lost_notes + _notes_on_series(stats)
    return CallLog(
        name=f"{Path(source).name.split('.')[0]}:{name}",
        source="webrtc-internals",
        interval_s=POLL_S,
        telemetry=_with_missed_polls(rows, times_s),
        warnings=tuple(notes),
    )


def _connection(
    dump: Mapping[str, Any], source: str, connection: str | None
) -> tuple[str, Stats, list[str]]:
    """Name and statistics of the connection that was asked for, or sends most."""
    found = dump.get("PeerConnections")
    if not isinstance(found, Mapping) or not found:
        raise CallLogFormatError(
            f"{source}: it holds no PeerConnections; download the dump while the call is on."
        )
    if connection is not None and connection not in found:
        raise unknown_name("peer connection", connection, found)
    stats = {
        name: read_stats(table["stats"])
        for name, table in found.items()
        if isinstance(table, Mapping) and isinstance(table.get("stats"), Mapping)
    }
    if not stats or (connection is not None and connection not in stats):
        raise CallLogFormatError(
            f"{source}: PeerConnections hold no stats; keep chrome://webrtc-internals open during "
            "the call, and download the dump before it ends."
        )
    sent = {name: _total_sent(item) for name, item in stats.items()}
    chosen = connection or max(sent, key=lambda name: sent[name])
    others = [
        f"{name} ({count:.0f} packets sent)" for name, count in sent.items() if name != chosen
    ]
    notes = []
    if others and connection is None:
        notes.append(f"of {len(sent)} peer connections, {', '.join(others)} are left out")
    return chosen, stats[chosen], notes


def _total_sent(stats: Stats) -> float:
    """Packets sent in all, by whatever counts them."""
    for kind in SENDING_KINDS:
        total = sum(item.last("packetsSent") for item in stats.of(kind).values())
        if total > 0:
            return total
    return 0.0


def _polls(stats: Stats, source: str) -> tuple[Floats, list[str]]:
    """Times of polls, increasing, since 1970, and what is left out of them."""
    every_s, repeated = [np.zeros(0)], 0
    for kind in POLLED:
        for name, item in stats.of(kind).items():
            own_s = max(item.time_s.values(), key=len, default=np.zeros(0))
            steps_s = np.diff(own_s)
            back = np.flatnonzero(steps_s <= -MATCH_S)
            if len(back):
                raise CallLogFormatError(
                    f"{source}: sample {int(back[0]) + 1} of {name} is {-steps_s[back[0]]:.1f} s "
                    "before the one before it: the clock was set back. Record the call again."
                )
            repeated = max(repeated, int((steps_s < MATCH_S).sum()))
            every_s.append(own_s)
    times_s = _apart(np.sort(np.concatenate(every_s)))
    notes = []
    if repeated:
        notes.append(f"{repeated} samples less than {MATCH_S} s after the last are left out")
    silences = np.flatnonzero(np.diff(times_s) > us_to_s(MAX_SILENCE_US))
    if len(silences):
        end = int(silences[0]) + 1
        notes.append(
            f"{len(times_s) - end} samples after {times_s[end - 1] - times_s[0]:.1f} s are left "
            f"out: none came for {times_s[end] - times_s[end - 1]:.0f} s"
        )
        times_s = times_s[:end]
    if len(times_s) < 2:
        raise CallLogFormatError(
            f"{source}: {len(times_s)} samples of statistics; a call needs two. Record for longer."
        )
    gaps_s = np.diff(times_s)
    missed = gaps_s[gaps_s > MAX_POLL_GAP_S]
    if len(missed):
        notes.append(
            f"{len(missed)} gaps between samples, {missed.sum():.1f} s in all, are bins of which "
            "nothing is known"
        )
    return times_s, notes


def _apart(times_s: Floats) -> Floats:
    """Sorted times without those of one poll told several times."""
    kept: list[float] = []
    for time_s in times_s.tolist():
        if not kept or time_s - kept[-1] >= MATCH_S:
            kept.append(time_s)
    return np.array(kept)


# --- Counters -------------------------------------------------------------------------------------


def _growth(item: StatsObject, member: str, times_s: Floats) -> Floats:
    """What a counter grew by between polls; NaN where that is unknown.

    An object that appears later has counted from 0; one that is gone counts no more.
    """
    values = item.at(times_s, member)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.full(len(times_s) - 1, np.nan)
    values[: known[0]] = 0.0
    values[known[-1] + 1 :] = values[known[-1]]
    grown = np.diff(values)
    return np.where(grown < 0, np.nan, grown)


def _falls(item: StatsObject, member: str, times_s: Floats) -> int:
    values = item.at(times_s, member)
    return int((np.diff(values[np.isfinite(values)]) < 0).sum())


def _sent(stats: Stats, times_s: Floats) -> tuple[Floats, Floats, list[str]]:
    """Packets and bytes on the wire per bin: of RTP alone, or of all where streams tell nothing."""
    for kind in SENDING_KINDS:
        items = [item for item in stats.of(kind).values() if "packetsSent" in item.members]
        if items:
            break
    else:
        unknown = np.full(len(times_s) - 1, np.nan)
        return unknown, unknown, ["packetsSent is in no statistics: what was sent is unknown"]
    members = ("packetsSent", *(m for m in MEMBERS[kind] if m in ("bytesSent", "headerBytesSent")))
    grown = {
        member: np.sum([_growth(item, member, times_s) for item in items], axis=0)
        for member in members
    }
    packets = grown.pop("packetsSent")
    sent_bytes = sum(grown.values(), DEFAULT_OVERHEAD_BYTES * packets)
    falls = sum(_falls(item, member, times_s) for item in items for member in members)
    notes = []
    if kind != SENDING_KINDS[0]:
        notes.append(f"packets sent are those of {kind}: RTCP and connectivity checks count, too")
    if falls:
        notes.append(f"counters of what was sent fell {falls} times; those bins are unknown")
    return packets, sent_bytes, notes


def _new_reports(item: StatsObject, member: str) -> tuple[Floats, Floats]:
    """Times of receiver reports, increasing, and a member after each; polls repeat the last one."""
    own_s, values = item.time_s.get(member, np.zeros(0)), numbers(item.members.get(member, []))
    own_s, values = own_s[np.isfinite(values)], values[np.isfinite(values)]
    unique_s, first = np.unique(own_s, return_index=True)
    return unique_s, values[first]


def _bins_of(stamps_s: Floats, times_s: Floats) -> NDArray[np.int64]:
    """Bin of each time, -1 up to the first poll; what comes at a border ends its bin."""
    return np.searchsorted(times_s, stamps_s, side="left") - 1


def _lost(stats: Stats, times_s: Floats) -> tuple[Floats, list[str]]:
    """Packets per bin that receiver reports told of as missing; none where no report came."""
    num_bins = len(times_s) - 1
    items = [i for i in stats.of("remote-inbound-rtp").values() if "packetsLost" in i.members]
    if not items:
        return np.full(num_bins, np.nan), ["no packetsLost of remote-inbound-rtp: loss is unknown"]
    lost_packets, falls = np.zeros(num_bins), 0
    for item in items:
        stamps_s, counts = _new_reports(item, "packetsLost")
        grown = np.diff(counts, prepend=0.0)
        bins = _bins_of(stamps_s, times_s)
        is_inside = (bins >= 0) & (bins < num_bins)
        falls += int((grown[is_inside] < 0).sum())
        np.add.at(lost_packets, bins[is_inside], np.where(grown < 0, np.nan, grown)[is_inside])
    notes = [f"packetsLost fell {falls} times (packets came late); those bins are unknown"]
    return lost_packets, notes if falls else []


# --- Round-trip times and targets -----------------------------------------------------------------


def _of_selected_pair(stats: Stats, times_s: Floats, member: str) -> Floats:
    """A member of the candidate pair in use at each poll, NaN where it is not told."""
    pairs = stats.of("candidate-pair")
    if not pairs:
        return np.full(len(times_s), np.nan)
    busiest = max(pairs, key=lambda name: pairs[name].last("bytesSent"))
    selected: list[str | None] = [None] * len(times_s)
    for transport in stats.of("transport").values():
        texts = transport.text_at(times_s, "selectedCandidatePairId")
        selected = [text or other for text, other in zip(texts, selected, strict=True)]
    values = {name: pair.at(times_s, member) for name, pair in pairs.items()}
    return np.array(
        [values[n if n in values else busiest][index] for index, n in enumerate(selected)]
    )


def _rtt_ms(stats: Stats, times_s: Floats) -> Floats:
    """Newest round-trip time measured in each bin; NaN where none was."""
    rtt_s = _of_selected_pair(stats, times_s, "currentRoundTripTime")[1:]
    responses = _of_selected_pair(stats, times_s, "responsesReceived")
    if np.isfinite(responses).any():  # the value stays until the next check, every 2.5 s or so
        rtt_s[~(np.diff(responses) != 0)] = np.nan
        rtt_s[~np.isfinite(np.diff(responses))] = np.nan
    for item in stats.of("remote-inbound-rtp").values():
        stamps_s, values_s = _new_reports(item, "roundTripTime")
        bins = _bins_of(stamps_s, times_s)
        for index, value_s in zip(bins.tolist(), values_s.tolist(), strict=True):
            if 0 <= index < len(rtt_s) and np.isnan(rtt_s[index]):
                rtt_s[index] = value_s
    return s_to_ms(1.0) * np.where(rtt_s > 0, rtt_s, np.nan)


# --- Rows and notes -------------------------------------------------------------------------------


def _unknown(num_bins: int) -> NDArray[Any]:
    """Rows of which nothing is known, not even counts."""
    rows = np.zeros(num_bins, TELEMETRY)
    for name in TELEMETRY_NAMES:
        rows[name] = np.nan
    return rows


def _with_missed_polls(rows: NDArray[Any], times_s: Floats) -> NDArray[Any]:
    """Every gap as so many unknown bins as it has seconds."""
    parts = []
    for index, gap_s in enumerate(np.diff(times_s).tolist()):
        if gap_s <= MAX_POLL_GAP_S:
            parts.append(rows[index : index + 1])
            continue
        missed = _unknown(round(gap_s / POLL_S))
        begin_s = times_s[index] - times_s[0]
        missed["time_s"] = begin_s + gap_s * np.arange(1, len(missed) + 1) / len(missed)
        parts.append(missed)
    return np.concatenate(parts)


def _notes_on_series(stats: Stats) -> list[str]:
    notes = []
    missing = [
        f"{kind}: {', '.join(absent)}"
        for kind in ("candidate-pair", "outbound-rtp", "remote-inbound-rtp")
        if (
            absent := [
                m
                for m in MEMBERS[kind]
                if not any(m in item.members for item in stats.of(kind).values())
            ]
        )
    ]
    if missing:
        notes.append(f"missing members: {'; '.join(missing)}")
    if stats.unreadable:
        notes.append(
            f"{len(stats.unreadable)} series cannot be read: {', '.join(stats.unreadable)}"
        )
    return notes

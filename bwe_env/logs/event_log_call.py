"""Bins of a real call from its RTC event log.

The log tells of sending in whole milliseconds, and of RTP packets before encryption: the ten bytes
of SRTP's authentication tag (RFC 3711 §4.2) are on the wire, but in no size of libwebrtc's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bwe_env.logs.bins import (
    BIN_US,
    MAX_PACKET_BYTES,
    SenderLog,
    end_of_sending,
    is_told_of,
    telemetry_of,
)
from bwe_env.logs.call_log import CallLog
from bwe_env.logs.reports import Report, reports_of
from bwe_env.logs.rtc_event_log import RtcEventLog, read_rtc_event_log
from bwe_env.logs.wire import EventLogFormatError
from bwe_env.sim.receive import MAX_REPORT_INTERVAL_US
from bwe_env.units import US_PER_S, us_to_s

#: IPv4 (RFC 791) and UDP (RFC 768) headers, where no route change tells what the client adds.
DEFAULT_OVERHEAD_BYTES = 20 + 8
#: Packets of several streams are logged a few milliseconds out of order at most; beyond a second,
#: ours, the clock was set back.
MAX_DISORDER_US = US_PER_S
#: A packet sent so long before the end should have been reported: four of the longest intervals
#: between reports (ours), for the way of both.
REPORT_WAIT_US = 4 * MAX_REPORT_INTERVAL_US
#: Clients write to the log so often (pc/peer_connection.cc, StartRtcEventLog).
FLUSH_INTERVAL_US = 5 * US_PER_S
#: Times may be that far from the log's beginning; no call lasts for a month (ours).
_MAX_AGE_US = 31 * 24 * 3600 * US_PER_S


@dataclasses.dataclass(frozen=True, eq=False)
class _Packets:
    """Packets with transport-wide numbers, in the order of those; arrays of shape (n,)."""

    send_us: NDArray[np.int64]
    size_bytes: NDArray[np.int64]
    seq: NDArray[np.int64]


def event_log_call(log: RtcEventLog | Path | str, *, name: str | None = None) -> CallLog:
    """Read the sender's side of a log; a log that breaks off, as far as it is complete.

    Args:
        log: a file, or what `parse_rtc_event_log` made of it.
        name: what to call it; else by its file.

    Raises:
        CallLogFormatError: no event log, or it holds no packets with transport-wide numbers, no
            feedback on them, times that go back, or less than one bin.
    """
    source = str(log)
    if isinstance(log, RtcEventLog):
        source = name = name or "event log"
    else:
        name = name or Path(log).name.removesuffix(".gz").removesuffix(".rtceventlog")
        log = read_rtc_event_log(log, allow_truncated=True)
    packets, all_reports = _packets(log, source), _reports(log, source)
    num_sent, end_us = _complete_part(log, packets, all_reports)
    send_us = packets.send_us[:num_sent]
    reports = _possible_reports(all_reports, send_us, end_us)
    num_bins = (end_us - int(send_us[0])) // BIN_US
    if num_bins < 1 or not reports:
        raise EventLogFormatError(
            f"{source}: complete for {us_to_s(end_us - int(send_us[0])):.3f} s and {len(reports)} "
            f"reports; a call needs {us_to_s(BIN_US)} s and one report. Record for longer."
        )
    sender = _sender_log(log, send_us, packets.size_bytes[:num_sent], reports)
    notes = _notes_on_file(log) + _notes_on_packets(log, packets, num_sent)
    notes += _notes_on_reports(log, all_reports, reports, send_us, end_us)
    return CallLog(
        name=name,
        source="event log",
        interval_s=us_to_s(BIN_US),
        telemetry=telemetry_of(sender, num_bins),
        warnings=tuple(notes),
    )


def _packets(log: RtcEventLog, source: str) -> _Packets:
    """Packets with transport-wide numbers, once their numbers and times are found to make sense."""
    numbered = log.outgoing.has_transport_seq
    if not numbered.any():
        raise EventLogFormatError(
            f"{source}: no packets with transport-wide numbers; take the log of the end that "
            "sends, of a call with transport-cc in its SDP."
        )
    seq, time_us = log.outgoing.transport_seq[numbered], log.outgoing.time_us[numbered]
    _check_times(log.begin_us, seq, time_us, source)
    repeated = np.flatnonzero(np.diff(seq) == 0)
    if len(repeated):
        raise EventLogFormatError(
            f"{source}: the transport-wide number {seq[repeated[0]]} was sent twice; are these "
            "several calls, or is the log damaged? A log holds one."
        )
    send_us = np.maximum.accumulate(time_us)  # no packet is reported before it is sent
    size_bytes = log.outgoing.size_bytes[numbered] + _overhead_bytes(log, send_us, source)
    is_odd = (size_bytes <= 0) | (size_bytes > MAX_PACKET_BYTES)
    if is_odd.any():
        index = int(is_odd.argmax())
        raise EventLogFormatError(
            f"{source}: packet {seq[index]} has {size_bytes[index]} bytes; IP carries "
            f"{MAX_PACKET_BYTES} at most. The log is damaged."
        )
    return _Packets(send_us, size_bytes, seq)


def _check_times(
    begin_us: int, seq: NDArray[np.int64], time_us: NDArray[np.int64], source: str
) -> None:
    """Times are of one call, and fall no more than streams are logged out of order."""
    is_odd = np.abs(time_us - begin_us) > _MAX_AGE_US
    if is_odd.any():
        index = int(is_odd.argmax())
        raise EventLogFormatError(
            f"{source}: packet {seq[index]} was sent {us_to_s(int(time_us[index])):.0f} s by the "
            f"log's clock, which began at {us_to_s(begin_us):.0f} s; the log is damaged."
        )
    latest_us = np.maximum.accumulate(time_us)
    fallen = np.flatnonzero(latest_us - time_us > MAX_DISORDER_US)
    if len(fallen):
        index = int(fallen[0])
        raise EventLogFormatError(
            f"{source}: packet {seq[index]} was sent at {us_to_s(int(time_us[index])):.3f} s, one "
            f"before it at {us_to_s(int(latest_us[index])):.3f} s: the clock was set back, or "
            "these are several calls. Record each by itself."
        )


def _overhead_bytes(log: RtcEventLog, send_us: NDArray[np.int64], source: str) -> NDArray[np.int64]:
    """What the client adds to an RTP packet's size on the route of its time, shape (n,)."""
    routes = [change for change in log.route_changes if change.is_connected]
    if not routes:
        return np.full(len(send_us), DEFAULT_OVERHEAD_BYTES, np.int64)
    for route in routes:
        if route.overhead_bytes > MAX_PACKET_BYTES or not _is_of_call(log, route.time_us):
            raise EventLogFormatError(
                f"{source}: a route at {us_to_s(route.time_us):.0f} s adds {route.overhead_bytes} "
                "bytes to every packet; the log is damaged."
            )
    # Packets from before the first change was logged took its route, too.
    overhead = np.array([routes[0].overhead_bytes, *(route.overhead_bytes for route in routes)])
    changed_us = np.array([route.time_us for route in routes])
    return overhead[np.searchsorted(changed_us, send_us, side="right")]


def _is_of_call(log: RtcEventLog, time_us: int) -> bool:
    return abs(time_us - log.begin_us) <= _MAX_AGE_US


def _reports(log: RtcEventLog, source: str) -> list[Report]:
    reports = reports_of(log)
    if not reports:
        raise EventLogFormatError(
            f"{source}: no transport-wide feedback on the packets it tells of; take the log of the "
            "end that sends, of a call with transport-cc in its SDP."
        )
    return reports


def _complete_part(
    log: RtcEventLog, packets: _Packets, reports: Sequence[Report]
) -> tuple[int, int]:
    """How many packets, and the time, up to which a log is complete.

    Clients write what happened in the last seconds kind by kind and stream by stream. Unless they
    closed the log, its last seconds may lack streams (then numbers are missing) or feedback.
    """
    num_sent = end_of_sending(packets.send_us)
    if not log.was_ended:
        gaps = np.flatnonzero(np.diff(packets.seq[:num_sent]) != 1)
        last_flush_us = _last_report_us(packets, reports)
        unsure = gaps[packets.send_us[gaps] > last_flush_us - FLUSH_INTERVAL_US]
        num_sent = int(unsure[0]) + 1 if len(unsure) else num_sent
    end_us = int(packets.send_us[num_sent - 1])
    if not log.was_ended:
        end_us = min(end_us, _last_report_us(packets, reports))
    return num_sent, end_us


def _last_report_us(packets: _Packets, reports: Sequence[Report]) -> int:
    """Time of the last report that can be of the call: a damaged one may be far from it."""
    latest_us = int(packets.send_us[-1]) + FLUSH_INTERVAL_US
    return max((r.time_us for r in reports if r.time_us <= latest_us), default=latest_us)


def _possible_reports(
    reports: Sequence[Report], send_us: NDArray[np.int64], end_us: int
) -> list[Report]:
    """Reports up to the end, without what they tell of packets not sent by then."""
    possible = []
    for report in reports:
        num_sent = int(np.searchsorted(send_us, report.time_us, side="right"))
        arrivals_us = report.arrivals_us[: max(0, num_sent - report.first_seq)]
        if report.time_us <= end_us and len(arrivals_us):
            possible.append(dataclasses.replace(report, arrivals_us=arrivals_us))
    return possible


def _sender_log(
    log: RtcEventLog,
    send_us: NDArray[np.int64],
    size_bytes: NDArray[np.int64],
    reports: Sequence[Report],
) -> SenderLog:
    """The same with times from the first packet on, and the targets."""
    first_us = int(send_us[0])
    is_sound = _is_sound_target(log)
    target_time_us = log.loss_based.time_us[is_sound] - first_us
    target_rate_bps = log.loss_based.bitrate_bps[is_sound].astype(np.float64)
    if not log.was_ended and not log.has_last_targets and len(target_time_us):
        target_time_us = np.append(target_time_us, target_time_us[-1] + 1)
        target_rate_bps = np.append(target_rate_bps, np.nan)
    return SenderLog(
        send_us=send_us - first_us,
        size_bytes=size_bytes,
        reports=[
            dataclasses.replace(report, time_us=report.time_us - first_us) for report in reports
        ],
        target_time_us=target_time_us,
        target_rate_bps=target_rate_bps,
    )


def _is_sound_target(log: RtcEventLog) -> NDArray[np.bool_]:
    """Which loss-based updates are of the call, with a rate of the log's 32 bits."""
    updates = log.loss_based
    is_rate = (updates.bitrate_bps >= 0) & (updates.bitrate_bps < 1 << 32)
    is_of_call = [_is_of_call(log, time_us) for time_us in updates.time_us.tolist()]
    return is_rate & np.array(is_of_call, np.bool_)


# --- What was left out ----------------------------------------------------------------------------


def _notes_on_file(log: RtcEventLog) -> list[str]:
    notes = []
    if log.is_truncated:
        notes.append(
            f"the log breaks off: {log.left_out_bytes} bytes of an unfinished message are left "
            "out, and what followed is missing"
        )
    elif not log.was_ended:
        notes.append("the log was not closed by its client: what followed its end is missing")
    if not len(log.loss_based):
        notes.append("no loss-based updates: the target is unknown")
    elif not (is_sound := _is_sound_target(log)).all():
        notes.append(f"{int((~is_sound).sum())} loss-based updates make no sense and are left out")
    if len(log.loss_based) and not log.was_ended and not log.has_last_targets:
        notes.append("no loss-based updates behind the last packets: the last target is unknown")
    return notes


def _notes_on_packets(log: RtcEventLog, packets: _Packets, num_sent: int) -> list[str]:
    notes = []
    unnumbered = int((~log.outgoing.has_transport_seq).sum())
    if unnumbered:
        notes.append(f"{unnumbered} RTP packets without transport-wide numbers are left out")
    missing = int(packets.seq[num_sent - 1] - packets.seq[0]) + 1 - num_sent
    if missing:
        notes.append(f"{missing} transport-wide numbers between those sent are not in the log")
    if num_sent < len(packets.seq):
        notes.append(
            f"{len(packets.seq) - num_sent} packets after {_call_s(packets, num_sent - 1)} are "
            "left out: between them packets are missing, or nothing was sent for a minute"
        )
    return notes


def _call_s(packets: _Packets, index: int) -> str:
    return f"{us_to_s(int(packets.send_us[index] - packets.send_us[0])):.3f} s"


def _told(reports: Sequence[Report]) -> int:
    return sum(len(report.arrivals_us) for report in reports)


def _notes_on_reports(
    log: RtcEventLog,
    known: Sequence[Report],
    used: Sequence[Report],
    send_us: NDArray[np.int64],
    end_us: int,
) -> list[str]:
    """What feedback is left out, of all that was received, known here, and used."""
    notes = []
    received = [feedback for packet in log.incoming_rtcp for feedback in packet.content.feedback]
    foreign = sum(len(feedback.has_arrived) for feedback in received) - _told(known)
    if foreign:
        notes.append(f"feedback tells {foreign} times of packets that the log lacks")
    unused = _told(known) - _told(used)
    if unused:
        notes.append(
            f"feedback tells {unused} times of packets before they were sent, or after the end at "
            f"{us_to_s(end_us - int(send_us[0])):.3f} s"
        )
    is_due = send_us <= end_us - REPORT_WAIT_US
    unreported = int((is_due & ~is_told_of(used, len(send_us))).sum())
    if unreported:
        notes.append(f"{unreported} packets were never reported")
    return notes

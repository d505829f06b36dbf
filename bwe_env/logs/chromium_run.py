"""Bins of a call that we recorded with Chromium, from the packets on its emulated link.

The recorder saw every IP packet of both directions, when it entered the link and what became of it,
but nothing inside of RTCP. What each report told is rebuilt from what had arrived when it was sent;
so the truth about every lost packet is known beside what its sender could know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import CallLogFormatError
from bwe_env.logs.bins import (
    BIN_US,
    MAX_PACKET_BYTES,
    SenderLog,
    bins_of,
    end_of_sending,
    first_told_missing,
    is_told_of,
    telemetry_of,
)
from bwe_env.logs.call_log import CallLog
from bwe_env.logs.columns import integer_columns, member, number, numbers
from bwe_env.logs.event_log_call import REPORT_WAIT_US
from bwe_env.logs.files import parse_json_object, read_log_bytes
from bwe_env.logs.reports import Report
from bwe_env.logs.rtc_event_log import unwrap
from bwe_env.sim._jit import NEVER
from bwe_env.sim.receive import MIN_REPORT_INTERVAL_US
from bwe_env.units import US_PER_MS, s_to_us, us_to_s

# Kinds and fates of packets in the recorder's columns.
_RTP = 2
_RTCP = 3
_DELIVERED, _QUEUE_DROP, _IID_LOSS, _BURST_LOSS = 0, 1, 2, 3
#: Statistics are taken at times of the call; no call lasts for a month (ours).
_MAX_STATS_S = 31 * 24 * 3600
#: The recorder's bins of the link.
_LINK_BIN_US = 100_000

#: Transport layer feedback (RFC 4585 §6.1): transport-wide feedback, but also NACK.
_TRANSPORT_LAYER_FEEDBACK = 205
#: On the wire a NACK of n items is 54 + 4 n bytes (IP 20, UDP 8, RTCP 12 + 4 n, SRTCP 14), and the
#: smallest transport-wide feedback 66 (IP 20, UDP 8, RTCP 20 + 2 of chunk + 1 of delta, padded to
#: 24, SRTCP 14). One item covers 17 packets: in the recordings, nearly every NACK has one.
_MIN_FEEDBACK_BYTES = 66
#: Reports keep a distance, less 10 ms, ours, by which a busy machine may send one late and the next
#: in time.
_MIN_FEEDBACK_GAP_US = MIN_REPORT_INTERVAL_US - 10_000
#: A packet delivered so short a time before a report is not in it: in 95 % of the recorded reports,
#: the newest packet told of had come at least 0.4 ms before.
_RECEIVE_US = 400


@dataclasses.dataclass(frozen=True, eq=False)
class _Packets:
    """Packets with transport-wide numbers in order of those, times since the first was sent."""

    send_us: NDArray[np.int64]
    arrival_us: NDArray[np.int64]
    """`NEVER` for those lost"""
    size_bytes: NDArray[np.int64]
    fate: NDArray[np.int64]


def chromium_run_call(path: Path | str) -> CallLog:
    """Read a recorded run, ``NAME.json.gz`` of the recorder, unpacked or not.

    Raises:
        CallLogFormatError: no such run, or its columns make no sense, with their names and rows.
    """
    path = Path(path)
    return chromium_run_from(parse_json_object(read_log_bytes(path), str(path)), source=str(path))


def chromium_run_from(run: Mapping[str, Any], *, source: str) -> CallLog:
    """The same from its JSON object; `source` is what to call it in errors."""
    columns = integer_columns(
        run, "packets_fwd", ("t_us", "oneway_us", "queue_us", "len", "kind", "fate", "twcc"), source
    )
    packets, first_us, notes = _packets(columns, source)
    reports = _reports(run, packets, first_us, source)
    num_sent = end_of_sending(packets.send_us)
    end_us = int(packets.send_us[num_sent - 1])
    num_bins = end_us // BIN_US
    reports_by_end = [report for report in reports if report.time_us <= end_us]
    if num_bins < 1 or not reports_by_end:
        raise CallLogFormatError(
            f"{source}: {us_to_s(end_us):.3f} s with {len(reports_by_end)} reports; a call needs "
            f"{us_to_s(BIN_US)} s and one report. Record for longer."
        )
    targets, target_notes = _targets(run, first_us, source)
    sender = SenderLog(
        packets.send_us[:num_sent], packets.size_bytes[:num_sent], reports_by_end, *targets
    )
    random, congestion = _reported_by_cause(reports_by_end, packets.fate, num_bins)
    notes += target_notes + _notes_on_reports(packets, num_sent, reports_by_end, end_us)
    return CallLog(
        name=str(member(run, "meta.name", source)),
        source="chromium run",
        interval_s=us_to_s(BIN_US),
        telemetry=telemetry_of(sender, num_bins),
        capacity_bps=_capacity_bps(run, first_us, num_bins, source),
        queue_delay_ms=_queue_delay_ms(columns, first_us, num_bins),
        reported_random_packets=random,
        reported_congestion_packets=congestion,
        warnings=tuple(notes),
    )


def _packets(
    columns: Mapping[str, NDArray[np.int64]], source: str
) -> tuple[_Packets, int, list[str]]:
    """Numbered RTP packets, when the first was sent, and what is left out."""
    is_rtp = columns["kind"] == _RTP
    chosen = {name: column[is_rtp & (columns["twcc"] >= 0)] for name, column in columns.items()}
    if not len(chosen["t_us"]):
        raise CallLogFormatError(f"{source}: packets_fwd holds no RTP with transport-wide numbers.")
    _check_order(chosen, source)
    _check_fates(chosen, source)
    seq = unwrap(chosen["twcc"])
    notes = []
    if unnumbered := int(is_rtp.sum()) - len(seq):
        notes.append(f"{unnumbered} RTP packets without transport-wide numbers are left out")
    if missing := int(seq[-1] - seq[0]) + 1 - len(seq):
        notes.append(f"{missing} transport-wide numbers between those sent are not in the log")
    first_us = int(chosen["t_us"][0])
    send_us = chosen["t_us"] - first_us
    has_come = chosen["fate"] == _DELIVERED
    arrival_us = np.where(has_come, send_us + chosen["oneway_us"], NEVER)
    return _Packets(send_us, arrival_us, chosen["len"], chosen["fate"]), first_us, notes


def _check_order(chosen: Mapping[str, NDArray[np.int64]], source: str) -> None:
    """Numbers and times of RTP packets grow."""
    fallen = np.flatnonzero((np.diff(unwrap(chosen["twcc"])) <= 0) | (np.diff(chosen["t_us"]) < 0))
    if len(fallen):
        row = int(fallen[0]) + 1
        raise CallLogFormatError(
            f"{source}: packets_fwd: the RTP packet numbered {chosen['twcc'][row]} at "
            f"{us_to_s(int(chosen['t_us'][row])):.3f} s comes after {chosen['twcc'][row - 1]} at "
            f"{us_to_s(int(chosen['t_us'][row - 1])):.3f} s: numbers or the clock go back. One run "
            "holds one call in order of time."
        )


def _check_fates(chosen: Mapping[str, NDArray[np.int64]], source: str) -> None:
    """A packet is delivered after a while, or lost."""
    unknown = ~np.isin(chosen["fate"], (_DELIVERED, _QUEUE_DROP, _IID_LOSS, _BURST_LOSS))
    has_come = chosen["fate"] == _DELIVERED
    contradictory = unknown | (has_come != (chosen["oneway_us"] >= 0)) | (chosen["len"] <= 0)
    contradictory |= chosen["len"] > MAX_PACKET_BYTES
    if contradictory.any():
        row = int(contradictory.argmax())
        raise CallLogFormatError(
            f"{source}: packets_fwd: the packet numbered {chosen['twcc'][row]} has fate "
            f"{chosen['fate'][row]}, oneway_us {chosen['oneway_us'][row]} and len "
            f"{chosen['len'][row]}; a packet is delivered after a time >= 0, or lost (fate 1 to 3)."
        )


def _feedback_sent_us(run: Mapping[str, Any], first_us: int, source: str) -> NDArray[np.int64]:
    """When the receiver sent each transport-wide report."""
    columns = integer_columns(run, "packets_rev", ("t_us", "len", "kind", "pt"), source)
    is_feedback = (columns["kind"] == _RTCP) & (columns["pt"] == _TRANSPORT_LAYER_FEEDBACK)
    sent_us = columns["t_us"][is_feedback & (columns["len"] >= _MIN_FEEDBACK_BYTES)] - first_us
    chosen: list[int] = []
    for time_us in np.sort(sent_us).tolist():
        if not chosen or time_us - chosen[-1] >= _MIN_FEEDBACK_GAP_US:
            chosen.append(time_us)
    return np.array(chosen, np.int64)


def _reports(run: Mapping[str, Any], packets: _Packets, first_us: int, source: str) -> list[Report]:
    """What each report told, when it reached the sender.

    A report tells of all numbers behind the last report's up to the newest packet there; a packet
    that comes late takes it back to itself (`bwe_env.sim.receive.on_report_timer`).
    """
    reverse_us = round(US_PER_MS * number(run, "meta.scenario.link.propr", source))
    if reverse_us < 0:
        raise CallLogFormatError(f"{source}: meta.scenario.link.propr is below 0 ms.")
    order = np.argsort(packets.arrival_us, kind="stable")
    order = order[packets.arrival_us[order] != NEVER]
    arrivals_us = packets.arrival_us[order].tolist()
    order = order.tolist()
    newest, report_seq, come = -1, -1, 0
    reports = []
    for sent_us in _feedback_sent_us(run, first_us, source).tolist():
        while come < len(order) and arrivals_us[come] <= sent_us - _RECEIVE_US:
            seq = order[come]
            report_seq = seq if newest < 0 else min(report_seq, seq)
            newest = max(newest, seq)
            come += 1
        if newest < report_seq or newest < 0:
            continue  # nothing has come since the last one: it was no report after all
        told_us = packets.arrival_us[report_seq : newest + 1]
        told_us = np.where(told_us <= sent_us - _RECEIVE_US, told_us, NEVER)
        reports.append(Report(sent_us + reverse_us, report_seq, told_us))
        report_seq = newest + 1
    return reports


def _reported_by_cause(
    reports: list[Report], fate: NDArray[np.int64], num_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Packets first told of as missing in each bin: lost by chance, and to the queue."""
    told_by = first_told_missing(reports, len(fate))
    times_us = np.array([report.time_us for report in reports], np.int64)
    bins = bins_of(times_us)
    counts = []
    for causes in ((_IID_LOSS, _BURST_LOSS), (_QUEUE_DROP,)):
        position = bins[told_by[(told_by >= 0) & np.isin(fate, causes)]]
        counts.append(np.bincount(position[position < num_bins], minlength=num_bins).astype(float))
    return counts[0], counts[1]


def _capacity_bps(
    run: Mapping[str, Any], first_us: int, num_bins: int, source: str
) -> NDArray[np.float64]:
    """Mean of what the recorder's bins say, whose borders are not ours; NaN beyond them."""
    capacity_bps = integer_columns(run, "link_100ms", ("capacity_bps",), source)["capacity_bps"]
    borders_us = _LINK_BIN_US * np.arange(len(capacity_bps) + 1)
    offered = np.concatenate([[0.0], np.cumsum(capacity_bps * float(_LINK_BIN_US))])
    ours_us = first_us + BIN_US * np.arange(num_bins + 1)
    carried = np.interp(ours_us, borders_us, offered, left=np.nan, right=np.nan)
    return np.asarray(np.diff(carried) / BIN_US, np.float64)


def _queue_delay_ms(
    columns: Mapping[str, NDArray[np.int64]], first_us: int, num_bins: int
) -> NDArray[np.float64]:
    """Wait and own serialisation of every packet of any kind, mean per bin of its coming."""
    bins = bins_of(columns["t_us"] - first_us)
    counted = (columns["queue_us"] >= 0) & (bins >= 0) & (bins < num_bins)
    weights = columns["queue_us"][counted] / US_PER_MS
    count = np.bincount(bins[counted], minlength=num_bins)
    total = np.bincount(bins[counted], weights=weights, minlength=num_bins)
    mean_ms = np.full(num_bins, np.nan)
    mean_ms[count > 0] = total[count > 0] / count[count > 0]
    return mean_ms


def _targets(
    run: Mapping[str, Any], first_us: int, source: str
) -> tuple[tuple[NDArray[np.int64], NDArray[np.float64]], list[str]]:
    """Times and values of the target (getStats, every 200 ms), each in force until the next."""
    pair = member(run, "sender_stats.candidate-pair", source)
    rates = pair.get("availableOutgoingBitrate") if isinstance(pair, Mapping) else None
    times = pair.get("timestamp") if isinstance(pair, Mapping) else None
    if not isinstance(rates, list) or not isinstance(times, list) or len(rates) != len(times):
        problem = "sender_stats.candidate-pair lacks availableOutgoingBitrate"
        return (np.zeros(0, np.int64), np.zeros(0)), [f"{problem}: the target is unknown"]
    time_s, rate_bps = numbers(times), numbers(rates)
    known = np.isfinite(time_s) & np.isfinite(rate_bps) & (np.abs(time_s) < _MAX_STATS_S)
    known[known] &= np.diff(np.maximum.accumulate(time_s[known]), prepend=-np.inf) > 0
    time_us = np.array([s_to_us(value) for value in time_s[known].tolist()], np.int64) - first_us
    left_out = len(known) - int(known.sum())
    notes = [f"{left_out} samples of the target are no numbers or go back in time"]
    return (time_us, rate_bps[known]), notes if left_out else []


def _notes_on_reports(
    packets: _Packets, num_sent: int, reports: list[Report], end_us: int
) -> list[str]:
    notes = []
    if num_sent < len(packets.send_us):
        notes.append(
            f"{len(packets.send_us) - num_sent} packets after {us_to_s(end_us):.3f} s are left "
            "out: nothing was sent for a minute"
        )
    due = packets.send_us <= end_us - REPORT_WAIT_US
    unreported = int((due & ~is_told_of(reports, len(due))).sum())
    if unreported:
        notes.append(f"{unreported} packets were never reported")
    return notes

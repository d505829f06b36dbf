"""What a sender logged of its packets and of the feedback on them, as bins of telemetry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.logs.reports import Report
from bwe_env.sim._jit import NEVER
from bwe_env.telemetry import TelemetryRecorder, empty_telemetry
from bwe_env.units import US_PER_S

#: The simulator's decision interval, so that models meet the bins they were trained on.
BIN_US = 100_000
#: No feedback can tell of more packets than the 16 bits of their numbers do.
RING_PACKETS = 1 << 16
#: A call that sends nothing for so long is over: consent to send expires after 30 s (RFC 7675
#: §5.1), and a damaged time must not make a call of years. Twice that, ours.
MAX_SILENCE_US = 60 * US_PER_S

#: No IP packet is larger (RFC 791 §3.1, total length); a damaged size must not fill a sum.
MAX_PACKET_BYTES = 65_535


@dataclass(frozen=True, eq=False)
class SenderLog:
    """One call as its sender saw it; every time on one clock that reads 0 when media starts."""

    send_us: NDArray[np.int64]
    """shape (n,), not falling"""
    size_bytes: NDArray[np.int64]
    """shape (n,), on the wire"""
    reports: Sequence[Report]
    """in order of time; none tells of packets not sent by then"""
    target_time_us: NDArray[np.int64]
    """shape (k,), not falling: when a target came into force"""
    target_rate_bps: NDArray[np.float64]
    """shape (k,); NaN where it is not known what came"""


def _targets_at(log: SenderLog, times_us: NDArray[np.int64]) -> NDArray[np.float64]:
    """Targets in force, NaN before the first."""
    rates_bps = np.concatenate([[np.nan], log.target_rate_bps])
    return rates_bps[np.searchsorted(log.target_time_us, times_us, side="right")]


def telemetry_of(log: SenderLog, num_bins: int) -> NDArray[Any]:
    """Bins of `BIN_US` from time 0 on; what happens at a border belongs to the bin that ends there.

    Returns:
        dtype TELEMETRY, shape (num_bins,).
    """
    recorder = TelemetryRecorder(ring_packets=RING_PACKETS)
    rows = empty_telemetry(num_bins)
    ends_us = BIN_US * np.arange(1, num_bins + 1)
    targets_bps = _targets_at(log, ends_us)
    sizes, sends_us = log.size_bytes.tolist(), log.send_us.tolist()
    sent = told = 0
    for index, end_us in enumerate(ends_us.tolist()):
        while True:
            has_report = told < len(log.reports) and log.reports[told].time_us <= end_us
            until_us = log.reports[told].time_us if has_report else end_us
            while sent < len(sends_us) and sends_us[sent] <= until_us:
                recorder.on_packet_sent(sizes[sent], sends_us[sent])
                sent += 1
            if not has_report:
                break
            report = log.reports[told]
            recorder.on_feedback(report.first_seq, report.arrivals_us, report.time_us)
            told += 1
        rows[index] = recorder.end_bin(end_us, target_rate_bps=float(targets_bps[index]))[0]
    return rows


def bins_of(times_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bin of each time, by the same rule; time 0 is in the first."""
    return np.asarray(np.where(times_us == 0, 0, -(-times_us // BIN_US) - 1))


def first_told_missing(reports: Sequence[Report], num_packets: int) -> NDArray[np.int64]:
    """Position of the report that first tells of each packet, if it tells of it as missing.

    Returns:
        Shape (num_packets,); -1 for packets first told of as received, or never told of.
    """
    told_by = np.full(num_packets, -1, np.int64)
    is_told = np.zeros(num_packets, np.bool_)
    for position, report in enumerate(reports):
        span = slice(report.first_seq, report.first_seq + len(report.arrivals_us))
        told_by[span][~is_told[span] & (report.arrivals_us == NEVER)] = position
        is_told[span] = True
    return told_by


def is_told_of(reports: Sequence[Report], num_packets: int) -> NDArray[np.bool_]:
    """Which packets any report tells of, shape (num_packets,)."""
    is_told = np.zeros(num_packets, np.bool_)
    for report in reports:
        is_told[report.first_seq : report.first_seq + len(report.arrivals_us)] = True
    return is_told


def end_of_sending(send_us: NDArray[np.int64]) -> int:
    """How many packets come before the first silence of more than `MAX_SILENCE_US`."""
    silences = np.flatnonzero(np.diff(send_us) > MAX_SILENCE_US)
    return int(silences[0]) + 1 if len(silences) else len(send_us)

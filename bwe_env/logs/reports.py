"""Transport-wide feedback of an event log, with numbers and times that no longer wrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bwe_env.logs.rtc_event_log import RtcEventLog, unwrap
from bwe_env.logs.rtcp import REFERENCE_TIME_PERIOD_US, TransportFeedback
from bwe_env.sim._jit import NEVER


@dataclass(frozen=True, eq=False)
class Report:
    """What one report tells of packets that are in the log."""

    time_us: int
    """when it reached the sender"""
    first_seq: int
    """counted from 0 at the first packet of the log that has a transport-wide number"""
    arrivals_us: NDArray[np.int64]
    """shape (n,), of that packet and those after it, on the receiver's clock in ticks of 250 us;
    `NEVER` for those reported as missing"""


def reports_of(log: RtcEventLog) -> list[Report]:
    """Transport-wide feedback in order of time, without packets the log lacks."""
    received: list[tuple[int, TransportFeedback]] = [
        (packet.time_us, feedback)
        for packet in log.incoming_rtcp
        for feedback in packet.content.feedback
    ]
    logged = log.outgoing.transport_seq[log.outgoing.has_transport_seq]
    if not received or not len(logged):
        return []
    firsts = unwrap(np.array([int(logged[0]), *(f.first_seq for _, f in received)], np.int64))[1:]
    references_us = unwrap(
        np.array([f.reference_us for _, f in received], np.int64), REFERENCE_TIME_PERIOD_US
    )
    reports = []
    for (time_us, feedback), first, reference_us in zip(
        received, firsts.tolist(), references_us.tolist(), strict=True
    ):
        arrivals_us = np.where(feedback.has_arrived, reference_us + feedback.arrival_us, NEVER)
        begin, end = np.searchsorted(logged, [first, first + len(arrivals_us)]).tolist()
        if end > begin:
            reports.append(Report(time_us, begin, arrivals_us[logged[begin:end] - first]))
    return reports

"""What the window- and loss-driven controllers read from a transport-wide report.

Each packet is told of once or more: as missing, as missing again, as received after all. Here each
number gets its *first* verdict, in order, which is what a receiver that counts gaps would say (RFC
8698 section 5.1.2 takes overtaken packets for lost).
"""

from __future__ import annotations

from dataclasses import dataclass

from bwe_env.estimator import NO_TIMEOUT_US
from bwe_env.feedback import FeedbackReport, PacketResult

#: The sender waits for so many round trips before it takes silence for congestion, and halves its
#: rate at each such silence. RFC 5348 section 4.4.
NO_FEEDBACK_RTTS = 4
NO_FEEDBACK_FACTOR = 0.5
#: Shortest wait. Reports come 50 to 250 ms apart, so that one that is lost is no silence yet. Ours.
MIN_NO_FEEDBACK_US = 600_000
#: Weight of the past in the smoothed round-trip time. RFC 6298 section 2.
SRTT_MEMORY = 0.875


@dataclass(slots=True)
class ReportReader:
    """The numbers told of so far, and the timer that rings where reports stay away."""

    newest_reported_seq: int = -1
    newest_sent_seq: int = -1
    timer_us: int = NO_TIMEOUT_US
    """when silence will have lasted too long"""

    def first_verdicts(self, report: FeedbackReport) -> list[PacketResult]:
        """Packets that no earlier report mentioned, in order of their numbers."""
        newest_seq = self.newest_reported_seq
        fresh = [result for result in report.packets if result.sent.seq > newest_seq]
        if fresh:
            self.newest_reported_seq = fresh[-1].sent.seq
        return fresh

    def restart_timer(self, rtt_us: float, now_us: int) -> None:
        """A report has come, or silence has been answered: wait anew.

        Args:
            rtt_us: smoothed; 0 while unknown.
        """
        self.timer_us = now_us + max(int(NO_FEEDBACK_RTTS * rtt_us), MIN_NO_FEEDBACK_US)

    def is_silent(self, now_us: int) -> bool:
        """Whether packets wait for a report that should have come by now."""
        return now_us >= self.timer_us and self.newest_sent_seq > self.newest_reported_seq


def round_trip_us(result: PacketResult, report: FeedbackReport, now_us: int) -> int:
    """Round-trip time of a packet that arrived, without its wait for the report.

    Forward delay and the report's own way back are each measured across both clocks; in their sum
    the offset is gone. The wire of transport-wide feedback has the newest arrival in place of
    `built_us`, at most one packet's distance earlier. At least 1: arrivals are told to 250 us.
    """
    assert result.arrival_time_us is not None
    forward_us = result.arrival_time_us - result.sent.send_time_us
    return max(1, forward_us + now_us - report.built_us)

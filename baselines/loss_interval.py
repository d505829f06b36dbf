"""The average loss interval of TCP-friendly rate control: packets between losses. RFC 5348 §5.

NADA takes it to judge how long ago "recent" loss is (RFC 8698 section 4.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

#: Weights of the latest intervals, newest first. RFC 5348 section 5.4 with n = 8.
WEIGHTS = (1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2)


def average_loss_interval(open_packets: float, closed_packets: Sequence[float]) -> float:
    """Weighted mean of loss intervals in packets, RFC 5348 section 5.4 (I_mean).

    Args:
        open_packets: since the latest loss event began (I_0). It counts only where it makes the
            mean larger.
        closed_packets: between the events before, newest first (I_1 …); at least one.
    """
    closed = closed_packets[: len(WEIGHTS)]
    weights = WEIGHTS[: len(closed)]
    with_open = sum(w * i for w, i in zip(weights, (open_packets, *closed[:-1]), strict=True))
    without_open = sum(w * i for w, i in zip(weights, closed, strict=True))
    return max(with_open, without_open) / sum(weights)


class LossIntervals:
    """Counts packets between loss events; losses within a round trip are one event (§5.2).

    Before the first event there is no history; the packets up to it are taken for the first
    interval, where RFC 5348 section 6.3.1 inverts TCP's throughput equation, which NADA lacks.
    """

    def __init__(self) -> None:
        self.packets_since_loss: int | None = None
        """None before the first loss"""
        self._closed_packets: deque[int] = deque(maxlen=len(WEIGHTS))
        self._open_packets = 0
        self._event_us = 0

    def on_packet(self, *, is_lost: bool, send_time_us: int, rtt_us: float) -> None:
        """The next packet in order of numbers has arrived or not."""
        self._open_packets += 1
        if not is_lost:
            if self.packets_since_loss is not None:
                self.packets_since_loss += 1
            return
        is_new_event = self.packets_since_loss is None or send_time_us > self._event_us + rtt_us
        self.packets_since_loss = 0
        if is_new_event:
            self._closed_packets.appendleft(self._open_packets)
            self._open_packets = 0
            self._event_us = send_time_us

    def average_packets(self) -> float:
        """loss_int, in packets; infinite before the first loss."""
        if not self._closed_packets:
            return float("inf")
        return average_loss_interval(self._open_packets, tuple(self._closed_packets))

"""A packet simulation as plain Python usually has it, to measure the machine with.

Absolute packets per second say as much about a machine as about a simulator. This is the same
traffic with the least that still is a simulation of it: a heap of events, one object per packet, a
droptail queue at a constant rate, feedback every 50 ms that a toy controller reads. No video, no
audio, no GCC. Ratios to it can be compared between machines.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

PACKET_BYTES = 1228  # 1200-byte RTP packets and their IP and UDP headers, as in the core
FEEDBACK_INTERVAL_S = 0.05
PROPAGATION_S = 0.025
QUEUE_LIMIT_S = 0.3

_SEND, _ARRIVE, _FEEDBACK = range(3)


@dataclass
class _Packet:
    sequence: int
    send_s: float
    arrival_s: float = 0.0


@dataclass(frozen=True)
class YardstickResult:
    """What the plain simulation managed."""

    packets: int
    steps: int
    seconds: float

    @property
    def packets_per_s(self) -> float:
        """Packets sent per second of this machine."""
        return self.packets / self.seconds

    @property
    def steps_per_s(self) -> float:
        """Decision intervals per second of this machine."""
        return self.steps / self.seconds


def run_yardstick(
    *, capacity_bps: float, duration_s: float, interval_s: float = 0.1
) -> YardstickResult:
    """Simulate one sender on one link for `duration_s` and take the time."""
    started_s = time.perf_counter()
    serialisation_s = PACKET_BYTES * 8 / capacity_bps
    rate_bps = capacity_bps
    link_free_s = 0.0
    sequence = 0
    received: list[_Packet] = []
    events: list[tuple[float, int, int, _Packet | None]] = [
        (0.0, 0, _SEND, None),
        (FEEDBACK_INTERVAL_S, 1, _FEEDBACK, None),
    ]
    tie = 2
    while events:
        now_s, _, kind, packet = heapq.heappop(events)
        if now_s >= duration_s:
            break
        tie += 1
        if kind == _SEND:
            sent = _Packet(sequence, now_s)
            sequence += 1
            if link_free_s - now_s < QUEUE_LIMIT_S:
                link_free_s = max(link_free_s, now_s) + serialisation_s
                heapq.heappush(events, (link_free_s + PROPAGATION_S, tie, _ARRIVE, sent))
            heapq.heappush(events, (now_s + PACKET_BYTES * 8 / rate_bps, -tie, _SEND, None))
        elif kind == _ARRIVE and packet is not None:
            packet.arrival_s = now_s
            received.append(packet)
        else:
            if received:
                delays = [p.arrival_s - p.send_s for p in received]
                queue_s = sum(delays) / len(delays) - PROPAGATION_S - serialisation_s
                rate_bps = capacity_bps * (1.05 if queue_s < 0.01 else 0.9)
                received.clear()
            heapq.heappush(events, (now_s + FEEDBACK_INTERVAL_S, tie, _FEEDBACK, None))
    return YardstickResult(
        packets=sequence,
        steps=round(duration_s / interval_s),
        seconds=time.perf_counter() - started_s,
    )

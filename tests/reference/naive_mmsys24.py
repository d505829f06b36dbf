"""The MMSys'24 observation, slow and in plain Python, written from its definition.

For each feature and each of its intervals: which packets arrived in it, and what of them is asked.
Nothing is kept from one observation to the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bwe_env.feedback import PacketResult

INTERVALS_MS = (60, 600)


def naive_observation(packets: Sequence[PacketResult]) -> list[float]:
    """The 150 features after all of a call's packets, those without an arrival among them."""
    arrived = sorted(
        (p.arrival_time_us, p.sent.seq, p.sent) for p in packets if p.arrival_time_us is not None
    )
    if not arrived:
        return [0.0] * 150
    first_transit_us = arrived[0][0] - arrived[0][2].send_time_us
    rows = []
    previous_us, newest_seq = arrived[0][0], arrived[0][1] - 1
    for arrival_us, seq, sent in arrived:
        rows.append(
            {
                "arrival_us": arrival_us,
                "bytes": sent.size_bytes,
                "delay_ms": 200 + (arrival_us - sent.send_time_us - first_transit_us) / 1000,
                "gap_ms": (arrival_us - previous_us) / 1000,
                "lost": max(0, seq - newest_seq - 1),
                "kind": sent.kind,
            }
        )
        previous_us, newest_seq = arrival_us, max(newest_seq, seq)
    least_ms = min(row["delay_ms"] for row in rows)
    last_us = rows[-1]["arrival_us"]
    by_interval = []
    for length_ms in INTERVALS_MS:
        for k in range(5):
            until_us = last_us - 1000 * length_ms * k
            from_us = until_us - 1000 * length_ms
            inside = [row for row in rows if from_us < row["arrival_us"] <= until_us]
            has_begun = until_us >= rows[0]["arrival_us"]
            by_interval.append(features(inside, length_ms, least_ms, has_begun=has_begun))
    return [by_interval[interval][feature] for feature in range(15) for interval in range(10)]


def features(rows: list[dict], length_ms: int, least_ms: float, *, has_begun: bool) -> list[float]:
    """The 15 features of one interval."""
    if not rows:
        return [0.0] * 5 + [least_ms if has_begun else 0.0] + [0.0] * 9
    num_bytes = sum(row["bytes"] for row in rows)
    delays_ms = [row["delay_ms"] for row in rows]
    mean_ms = statistics.fmean(delays_ms)
    gaps_ms = [row["gap_ms"] for row in rows]
    bursts = [row["lost"] for row in rows if row["lost"] > 0]

    def share(*kinds: str) -> float:
        return sum(row["kind"] in kinds for row in rows) / len(rows)

    return [
        8 * num_bytes / (length_ms / 1000),
        len(rows),
        num_bytes,
        mean_ms - least_ms,
        mean_ms - 200,
        least_ms,
        mean_ms / max(1.0, min(delays_ms)),
        mean_ms - min(delays_ms),
        statistics.fmean(gaps_ms),
        statistics.pstdev(gaps_ms),
        sum(bursts) / (sum(bursts) + len(rows)),
        statistics.fmean(bursts) if bursts else 0.0,
        share("video", "retransmission", "fec"),
        share("audio"),
        share("padding"),
    ]

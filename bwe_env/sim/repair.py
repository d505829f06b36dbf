"""The receiver's list of missing video packets and when it asks for them again.

Timing follows libwebrtc modules/video_coding/nack_requester.cc: a gap is asked for at once, again
after one round-trip time, looked at every 20 ms, 100 times at most; a list that overflows is given
up for a key frame.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.packet import KIND_VIDEO

POLL_INTERVAL_US = 20_000  # kUpdateInterval, nack_requester.cc
MAX_RETRIES = 100  # kMaxNackRetries, same file
MAX_MISSING = 1000  # kMaxNackPackets, same file

MISSING = record(
    [
        ("seq", "i8"),
        ("retry_us", "i8"),
        ("tries", "i8"),
    ]
)

REPAIR = record(
    [
        ("num_missing", "i8"),
        ("nacked_packets", "i8"),  # requests sent, repeats counted
        ("missing", MISSING, (MAX_MISSING,)),  # the first num_missing rows, oldest first
    ]
)


@kernel
def repair_reset(repair: Record) -> None:
    """Nothing missing."""
    repair.num_missing = 0
    repair.nacked_packets = 0


@kernel
def repair_add_gap(
    repair: Record, packets: np.ndarray, first_seq: int, last_seq: int, now_us: int
) -> int:
    """Note the video packets of a gap, due to be asked for now.

    Returns:
        How many there are; -1 when the list overflowed and was cleared.
    """
    mask = len(packets) - 1
    added = 0
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        if packet.kind != KIND_VIDEO or packet.is_repaired == 1:
            continue
        if repair.num_missing == MAX_MISSING:
            repair.num_missing = 0
            return -1
        entry = repair.missing[repair.num_missing]
        entry.seq = seq
        entry.retry_us = now_us
        entry.tries = 0
        repair.num_missing += 1
        added += 1
    return added


@kernel
def repair_forget(repair: Record, packets: np.ndarray, oldest_seq: int, oldest_frame: int) -> None:
    """Drop what has arrived, what nobody waits for any more, and what was asked for too often."""
    mask = len(packets) - 1
    kept = 0
    for index in range(repair.num_missing):
        entry = repair.missing[index]
        if entry.seq < oldest_seq or entry.tries >= MAX_RETRIES:
            continue
        packet = packets[entry.seq & mask]
        if packet.is_repaired == 1 or packet.frame < oldest_frame:
            continue
        if kept != index:
            target = repair.missing[kept]
            target.seq = entry.seq
            target.retry_us = entry.retry_us
            target.tries = entry.tries
        kept += 1
    repair.num_missing = kept


@kernel
def repair_take_due(repair: Record, index: int, rtt_us: int, now_us: int) -> bool:
    """Whether entry `index` is to be asked for again now; if so, schedule the time after that."""
    entry = repair.missing[index]
    if entry.retry_us > now_us:
        return False
    entry.retry_us = now_us + rtt_us
    entry.tries += 1
    repair.nacked_packets += 1
    return True

"""The receiver's list of missing video packets and when it asks for them again.

Timing follows libwebrtc modules/video_coding/nack_requester.cc: a gap is asked for at once, again
after one round-trip time, looked at every 20 ms, 100 times at most; a list that overflows is given
up for a key frame. Once packets have come late, a gap is asked for when as many video packets have
passed it as half of the late ones were behind, or at the next look.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.packet import KIND_VIDEO

POLL_INTERVAL_US = 20_000  # kUpdateInterval, nack_requester.cc
MAX_RETRIES = 100  # kMaxNackRetries, same file
MAX_MISSING = 1000  # kMaxNackPackets, same file
LATE_PACKETS = 128  # late packets remembered: kMaxReorderedPackets, same file
LATE_BINS = 10  # a packet later than by 9 counts as late by 9: kNumReorderingBuckets, same file

MISSING = record(
    [
        ("seq", "i8"),
        ("retry_us", "i8"),
        ("tries", "i8"),
        ("wait_packets", "i8"),  # so many video packets have to pass before it is asked for
    ]
)

REPAIR = record(
    [
        ("num_missing", "i8"),
        ("num_unasked", "i8"),  # of them
        ("nacked_packets", "i8"),  # requests sent, repeats counted
        ("num_late", "i8"),  # late packets ever
        ("late_by", "i1", (LATE_PACKETS,)),  # ring: by how many video packets
        ("late_bins", "i8", (LATE_BINS,)),  # how many of the ring's are late by 0, 1, …
        ("missing", MISSING, (MAX_MISSING,)),  # the first num_missing rows, oldest first
    ]
)


@kernel
def repair_reset(repair: Record) -> None:
    """Nothing missing."""
    repair.num_missing = 0
    repair.num_unasked = 0
    repair.nacked_packets = 0
    repair.num_late = 0
    for late_by in range(LATE_BINS):
        repair.late_bins[late_by] = 0


@kernel
def _move(repair: Record, index: int, target_index: int) -> None:
    """Copy entry `index` of the list over another."""
    if index == target_index:
        return
    entry = repair.missing[index]
    target = repair.missing[target_index]
    target.seq = entry.seq
    target.retry_us = entry.retry_us
    target.tries = entry.tries
    target.wait_packets = entry.wait_packets


@kernel
def _late_by(packets: np.ndarray, seq: int, newest_seq: int, most: int) -> int:
    """How many video packets up to the newest follow packet `seq`, counted up to `most`."""
    mask = len(packets) - 1
    count = 0
    while count < most and seq < newest_seq:
        seq += 1
        if packets[seq & mask].kind == KIND_VIDEO:
            count += 1
    return count


@kernel
def repair_on_late(repair: Record, packets: np.ndarray, seq: int, newest_seq: int) -> int:
    """Video packet `seq` is here after newer ones: no longer missing.

    Returns:
        How often it has been asked for.
    """
    slot = repair.num_late % LATE_PACKETS
    if repair.num_late >= LATE_PACKETS:
        repair.late_bins[repair.late_by[slot]] -= 1
    late_by = _late_by(packets, seq, newest_seq, LATE_BINS - 1)
    repair.late_by[slot] = late_by
    repair.late_bins[late_by] += 1
    repair.num_late += 1
    tries = 0
    kept = 0
    for index in range(repair.num_missing):
        if repair.missing[index].seq == seq:
            tries = repair.missing[index].tries
            if tries == 0:
                repair.num_unasked -= 1
            continue
        _move(repair, index, kept)
        kept += 1
    repair.num_missing = kept
    return int(tries)


@kernel
def repair_wait_packets(repair: Record) -> int:
    """Video packets that are to pass a gap before it is asked for (WaitNumberOfPackets(0.5))."""
    late = min(repair.num_late, LATE_PACKETS)
    below = 0
    bins = 0
    while 2 * below < late and bins < LATE_BINS:
        below += repair.late_bins[bins]
        bins += 1
    return bins


@kernel
def repair_add_gap(
    repair: Record, packets: np.ndarray, first_seq: int, last_seq: int, now_us: int
) -> bool:
    """Note the video packets of a gap before the newest one; False if the list overflowed.

    It is then empty.
    """
    mask = len(packets) - 1
    wait_packets = repair_wait_packets(repair)
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        if packet.kind != KIND_VIDEO or packet.is_repaired == 1:
            continue
        if repair.num_missing == MAX_MISSING:
            repair.num_missing = 0
            repair.num_unasked = 0
            return False
        entry = repair.missing[repair.num_missing]
        entry.seq = seq
        entry.retry_us = now_us
        entry.tries = 0
        entry.wait_packets = wait_packets
        repair.num_missing += 1
        repair.num_unasked += 1
    return True


@kernel
def repair_forget(repair: Record, packets: np.ndarray, oldest_seq: int, oldest_frame: int) -> None:
    """Drop what has arrived, what nobody waits for any more, and what was asked for too often."""
    mask = len(packets) - 1
    kept = 0
    unasked = 0
    for index in range(repair.num_missing):
        entry = repair.missing[index]
        if entry.seq < oldest_seq or entry.tries >= MAX_RETRIES:
            continue
        packet = packets[entry.seq & mask]
        if packet.is_repaired == 1 or packet.frame < oldest_frame:
            continue
        if entry.tries == 0:
            unasked += 1
        _move(repair, index, kept)
        kept += 1
    repair.num_missing = kept
    repair.num_unasked = unasked


@kernel
def _take(repair: Record, entry: Record, rtt_us: int, now_us: int) -> None:
    """An entry is asked for now: schedule the time after that."""
    if entry.tries == 0:
        repair.num_unasked -= 1
    entry.retry_us = now_us + rtt_us
    entry.tries += 1
    repair.nacked_packets += 1


@kernel
def repair_take_due(repair: Record, index: int, rtt_us: int, now_us: int) -> bool:
    """Whether entry `index` is to be asked for at a look at the list; if so, that is noted."""
    entry = repair.missing[index]
    if entry.retry_us > now_us:
        return False
    _take(repair, entry, rtt_us, now_us)
    return True


@kernel
def repair_take_passed(
    repair: Record, packets: np.ndarray, index: int, newest_seq: int, rtt_us: int, now_us: int
) -> bool:
    """Whether entry `index` is to be asked for the first time now that `newest_seq` is here."""
    entry = repair.missing[index]
    wait_packets = entry.wait_packets
    if entry.tries > 0 or _late_by(packets, entry.seq, newest_seq, wait_packets) < wait_packets:
        return False
    _take(repair, entry, rtt_us, now_us)
    return True

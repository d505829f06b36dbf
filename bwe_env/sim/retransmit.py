"""Whether the sender repeats a packet that a NACK asks for.

It knows what it sent and when, and nothing of what has arrived meanwhile. As in libwebrtc, a packet
is not repeated while a repeat of it waits in the pacer or may still be under way
(modules/rtp_rtcp/source/rtp_packet_history.cc), and all repeats together take at most the target
rate over half a second (rtc_base/rate_limiter.cc, call/rtp_transport_controller_send.cc).

Beyond libwebrtc, that may be a share of the target rate, and packets may be given up at an age at
which the history would still have them (`bwe_env.config.RtxConfig`).
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.packet import KIND_VIDEO

# What becomes of a request.
REPEAT_NOW = 0
REPEAT_NEVER = 1  # not in the history, too old, or repeated less than a round trip ago
REPEAT_TOO_MUCH = 2  # the rate limit: the rest of the NACK is given up, too

#: A repeat is not repeated within the round-trip time and this (rtp_sender.cc, OnReceivedNack).
RTT_MARGIN_US = 5_000
#: The history keeps packets for this long or so many round trips, and for three times that as long
#: as it holds no more than 600 (kMinPacketDuration, kMinPacketDurationRtt,
#: kPacketCullingDelayFactor, rtp_packet_history.h; kMinSendSidePacketHistorySize,
#: call/rtp_video_sender.cc). Numbers beside video are counted in here.
MIN_KEPT_US = 1_000_000
MIN_KEPT_ROUND_TRIPS = 3
MAX_KEPT_FACTOR = 3
MIN_KEPT_PACKETS = 600
#: Window of the rate limit (kRetransmitWindowSizeMs, rtp_transport_controller_send.cc) and its
#: resolution: libwebrtc counts by the millisecond, we by 20.
WINDOW_US = 500_000
SLOT_US = 20_000
_SLOTS = WINDOW_US // SLOT_US
#: A rate over so short a time, or of a single repeat before the window is full, says nothing and
#: forbids nothing (rtc_base/rate_statistics.cc, Rate).
MIN_SPAN_US = 1_000

RETRANSMIT = record(
    [
        ("slot", "i8"),  # number of the newest slot, counted from the start of the call
        ("window_bytes", "i8"),  # of all slots
        ("window_repeats", "i8"),
        ("first_us", "i8"),  # the first repeat since the window was last empty
        ("refused", "i8"),  # repeats that the rate limit forbade
        ("slot_bytes", "i8", (_SLOTS,)),  # ring
        ("slot_repeats", "i8", (_SLOTS,)),
    ]
)


@kernel
def retransmit_reset(retransmit: Record) -> None:
    """Nothing repeated."""
    retransmit.slot = 0
    retransmit.window_bytes = 0
    retransmit.window_repeats = 0
    retransmit.first_us = 0
    retransmit.refused = 0
    for slot in range(_SLOTS):
        retransmit.slot_bytes[slot] = 0
        retransmit.slot_repeats[slot] = 0


@kernel
def retransmit_take_rate(
    retransmit: Record, size_bytes: int, max_rate_bps: int, now_us: int
) -> bool:
    """Whether `size_bytes` more keep repeats within `max_rate_bps`; if so, they are counted."""
    slot = now_us // SLOT_US
    for passed in range(max(retransmit.slot + 1, slot - _SLOTS + 1), slot + 1):
        index = passed % _SLOTS
        retransmit.window_bytes -= retransmit.slot_bytes[index]
        retransmit.slot_bytes[index] = 0
        retransmit.window_repeats -= retransmit.slot_repeats[index]
        retransmit.slot_repeats[index] = 0
    retransmit.slot = slot
    if retransmit.window_repeats == 0:
        retransmit.first_us = now_us
    span_us = min(WINDOW_US, now_us - retransmit.first_us)
    is_rate = span_us > MIN_SPAN_US and (retransmit.window_repeats > 1 or span_us == WINDOW_US)
    if is_rate:
        rate_bps = retransmit.window_bytes * 8e6 / span_us
        if rate_bps + size_bytes * 8e6 / WINDOW_US > max_rate_bps:
            retransmit.refused += 1
            return False
    retransmit.window_bytes += size_bytes
    retransmit.window_repeats += 1
    retransmit.slot_repeats[slot % _SLOTS] += 1
    retransmit.slot_bytes[slot % _SLOTS] += size_bytes
    return True


@kernel
def retransmit_on_sent(packets: np.ndarray, original_seq: int, repeat_seq: int) -> None:
    """Note at a packet which one repeats it."""
    packets[original_seq & (len(packets) - 1)].repairs = original_seq - repeat_seq


@kernel
def retransmit_verdict(
    retransmit: Record,
    packets: np.ndarray,
    seq: int,
    next_seq: int,
    rtt_us: int,
    max_rate_bps: int,
    max_age_us: int,
    now_us: int,
) -> int:
    """One of `REPEAT_…` for packet `seq`, which no repeat in the pacer stands for.

    Args:
        next_seq: of the next packet to be sent; the ring holds those before it.
        rtt_us: as the sender knows it.
        max_rate_bps: of all repeats together, see `retransmit_take_rate`.
        max_age_us: a packet that was first sent longer ago is not repeated; 0 for what the history
            alone says.
    """
    mask = len(packets) - 1
    if seq < next_seq - len(packets):
        return REPEAT_NEVER
    packet = packets[seq & mask]
    if packet.kind != KIND_VIDEO:
        return REPEAT_NEVER
    kept_us = max(MIN_KEPT_US, MIN_KEPT_ROUND_TRIPS * rtt_us)
    age_us = now_us - packet.send_us
    if 0 < max_age_us < age_us:
        return REPEAT_NEVER
    if age_us > MAX_KEPT_FACTOR * kept_us:
        return REPEAT_NEVER
    if age_us > kept_us and next_seq - seq > MIN_KEPT_PACKETS:
        return REPEAT_NEVER
    if packet.repairs < 0:
        repeated_us = packets[(seq - packet.repairs) & mask].send_us
        if now_us - repeated_us < rtt_us + RTT_MARGIN_US:
            return REPEAT_NEVER
    if not retransmit_take_rate(retransmit, packet.size_bytes, max_rate_bps, now_us):
        return REPEAT_TOO_MUCH
    return REPEAT_NOW

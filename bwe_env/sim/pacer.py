"""The pacer: when the next packet may leave, and the queue it leaves from.

Follows libwebrtc M150 modules/pacing/pacing_controller.cc: media drains a debt at the pacing rate,
a burst of up to 40 ms may run ahead, the rate rises when packets would otherwise wait longer than
the queue time limit, and retransmissions go before frames. Frames wait as (frame, packet index), so
a queued packet costs no memory.
"""

from __future__ import annotations

from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.prober import PROBER, prober_next_us, prober_reset

#: Longest debt the pacer remembers, as time at its rate (kMaxDebtInTime, pacing_controller.cc).
MAX_DEBT_S = 0.5
#: Padding is sent in portions of this time at the padding rate (kPaddingTarget, same file).
PADDING_PORTION_S = 0.005
#: Most bytes of one burst (kMaxBurstSize, same file).
MAX_BURST_BYTES = 63_000
#: Least time left for draining the queue (pacing_controller.cc, UpdateBudgetWithElapsedTime).
MIN_DRAIN_TIME_US = 1_000
#: Retransmissions that may wait; a request beyond that is forgotten (ours: 0.3 s at 5 Mbps).
RTX_QUEUE_LENGTH = 128

_US_TO_S = 1e-6
_BYTES_PER_US = 1.25e-7  # one bit per second, as bytes per microsecond

PACER = record(
    [
        ("burst_interval_us", "i8"),
        ("queue_time_limit_us", "i8"),
        ("pacing_rate_bps", "i8"),
        ("padding_rate_bps", "i8"),
        ("cwnd_bytes", "i8"),  # 0 for no window
        ("media_debt_bytes", "f8"),
        ("padding_debt_bytes", "f8"),
        ("updated_us", "i8"),
        ("frame", "i8"),  # number of the frame at the head
        ("frame_packet", "i8"),  # its next packet
        ("queue_bytes", "i8"),  # on the wire, frames and retransmissions
        ("queue_packets", "i8"),
        ("queue_since_sum_us", "i8"),  # sum of the waiting packets' enqueue times
        ("rtx_head", "i8"),
        ("rtx_tail", "i8"),
        ("rtx_seq", "i8", (RTX_QUEUE_LENGTH,)),  # lost packets to be sent again
        ("rtx_queued_us", "i8", (RTX_QUEUE_LENGTH,)),
        ("prober", PROBER),
    ]
)


@kernel
def pacer_reset(pacer: Record) -> None:
    """An empty queue and no debt."""
    pacer.media_debt_bytes = 0.0
    pacer.padding_debt_bytes = 0.0
    pacer.updated_us = 0
    pacer.frame = 0
    pacer.frame_packet = 0
    pacer.queue_bytes = 0
    pacer.queue_packets = 0
    pacer.queue_since_sum_us = 0
    pacer.rtx_head = 0
    pacer.rtx_tail = 0
    prober_reset(pacer.prober)


@kernel
def pacer_media_rate_bps(pacer: Record, now_us: int) -> float:
    """The pacing rate, or more when the queue would not drain within its time limit."""
    rate_bps = float(pacer.pacing_rate_bps)
    if pacer.queue_packets > 0:
        waited_us = now_us - pacer.queue_since_sum_us // pacer.queue_packets
        left_us = max(MIN_DRAIN_TIME_US, pacer.queue_time_limit_us - waited_us)
        rate_bps = max(rate_bps, 8e6 * pacer.queue_bytes / left_us)
    return rate_bps


@kernel
def pacer_expected_queue_us(pacer: Record) -> int:
    """How long the queue takes at the pacing rate, not counting what speeds it up."""
    return int(8_000_000 * pacer.queue_bytes // max(1, pacer.pacing_rate_bps))


@kernel
def pacer_elapse(pacer: Record, now_us: int) -> None:
    """Let the debts drain up to now."""
    elapsed_us = now_us - pacer.updated_us
    if elapsed_us <= 0:
        return
    media_bytes = pacer_media_rate_bps(pacer, now_us) * elapsed_us * _BYTES_PER_US
    pacer.media_debt_bytes = max(0.0, pacer.media_debt_bytes - media_bytes)
    padding_bytes = pacer.padding_rate_bps * elapsed_us * _BYTES_PER_US
    pacer.padding_debt_bytes = max(0.0, pacer.padding_debt_bytes - padding_bytes)
    pacer.updated_us = now_us


@kernel
def pacer_on_sent(pacer: Record, size_bytes: int, now_us: int) -> None:
    """Charge one paced packet (audio is not paced and not charged)."""
    debt_bytes = pacer.media_debt_bytes + size_bytes
    if debt_bytes > MAX_DEBT_S * pacer.pacing_rate_bps * 0.125:  # the media rate may be higher
        debt_bytes = min(debt_bytes, MAX_DEBT_S * pacer_media_rate_bps(pacer, now_us) * 0.125)
    pacer.media_debt_bytes = debt_bytes
    most_padding = MAX_DEBT_S * pacer.padding_rate_bps * 0.125
    pacer.padding_debt_bytes = min(most_padding, pacer.padding_debt_bytes + size_bytes)


@kernel
def pacer_next_send_us(pacer: Record, in_flight_bytes: int, now_us: int) -> int:
    """When the pacer may send next, `now_us` at the earliest; NEVER when there is nothing to send.

    Reckoned from the last time the debts were drained (`pacer_elapse`), as libwebrtc reckons from
    its last process time: asking twice does not change the answer.
    """
    probe_us = prober_next_us(pacer.prober, now_us)
    if probe_us != NEVER:
        return probe_us
    if pacer.cwnd_bytes > 0 and in_flight_bytes >= pacer.cwnd_bytes:
        return NEVER
    if pacer.queue_packets > 0:
        rate_bps = pacer_media_rate_bps(pacer, now_us)
        drain_us = int(pacer.media_debt_bytes * 8e6 / max(1.0, rate_bps) + 0.5)
        if drain_us < pacer.burst_interval_us and pacer.media_debt_bytes < MAX_BURST_BYTES:
            return now_us
        return int(max(now_us, pacer.updated_us + drain_us))
    if pacer.padding_rate_bps > 0:
        media_us = pacer.media_debt_bytes * 8e6 / max(1.0, float(pacer.pacing_rate_bps))
        padding_us = pacer.padding_debt_bytes * 8e6 / pacer.padding_rate_bps
        return int(max(now_us, pacer.updated_us + int(max(media_us, padding_us) + 0.5)))
    return NEVER


@kernel
def pacer_padding_bytes(pacer: Record) -> int:
    """The portion of padding due when the queue is empty and no debt is left."""
    return int(pacer.padding_rate_bps * PADDING_PORTION_S * 0.125)


@kernel
def pacer_queue_frame(pacer: Record, size_bytes: int, num_packets: int, now_us: int) -> None:
    """Let a coded frame wait; the caller keeps its packets' sizes."""
    pacer.queue_bytes += size_bytes
    pacer.queue_packets += num_packets
    pacer.queue_since_sum_us += num_packets * now_us


@kernel
def pacer_unqueue(pacer: Record, size_bytes: int, since_us: int) -> None:
    """One waiting packet leaves."""
    pacer.queue_bytes -= size_bytes
    pacer.queue_packets -= 1
    pacer.queue_since_sum_us -= since_us


@kernel
def pacer_queue_rtx(pacer: Record, seq: int, size_bytes: int, now_us: int) -> bool:
    """Let a retransmission wait before all frames; False when too many wait already."""
    if pacer.rtx_tail - pacer.rtx_head == RTX_QUEUE_LENGTH:
        return False
    slot = pacer.rtx_tail % RTX_QUEUE_LENGTH
    pacer.rtx_seq[slot] = seq
    pacer.rtx_queued_us[slot] = now_us
    pacer.rtx_tail += 1
    pacer_queue_frame(pacer, size_bytes, 1, now_us)
    return True

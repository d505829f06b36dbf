"""The pacer: when the next packet may leave, and the queue it leaves from.

Follows libwebrtc M150 modules/pacing/pacing_controller.cc and task_queue_paced_sender.cc, in whole
bytes and microseconds as there: media drains a debt at the pacing rate, a burst of up to 40 ms may
run ahead, the rate rises when packets would otherwise wait longer than the queue time limit,
retransmissions go before frames and padding goes last. It is woken by a timer of whole milliseconds
that, unless probing, holds back what comes soon, so that packets leave in few bursts.

Frames wait as (frame, packet index), and padding as numbers of equal packets, so a queued packet
costs no memory.
"""

from __future__ import annotations

from bwe_env.gcc.rates import bytes_in
from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.prober import PROBER, prober_next_us, prober_reset

#: Longest debt the pacer remembers, as time at its rate (kMaxDebtInTime, pacing_controller.cc).
MAX_DEBT_US = 500_000
#: Longest time that drains debt at once (kMaxElapsedTime, same file).
MAX_ELAPSED_US = 2_000_000
#: An idle pacer looks at its clock so often (kPausedProcessInterval, same file).
IDLE_INTERVAL_US = 500_000
#: Padding is sent in portions of this time at the padding rate (kTargetPaddingDuration, same file).
PADDING_PORTION_US = 5_000
#: Padding is not made up for longer than this (kMaxPaddingReplayDuration, same file).
MAX_PADDING_REPLAY_US = 50_000
#: Most bytes of one burst (kMaxBurstSize, same file).
MAX_BURST_BYTES = 63_000
#: Least time left for draining the queue (MaybeUpdateMediaRateDueToLongQueue, same file).
MIN_DRAIN_TIME_US = 1_000
#: A probe burst may leave so early (kMaxEarlyProbeProcessing, pacing_controller.h).
MAX_EARLY_PROBE_US = 1_000
#: Unless probing, the pacer sleeps at least so long or for so many packets
#: (call/rtp_transport_controller_send.cc: max hold-back window of 5 ms and 3 packets).
HOLD_BACK_US = 5_000
HOLD_BACK_PACKETS = 3
#: The timers of a task queue are whole milliseconds (task_queue_paced_sender.cc).
TIMER_TICK_US = 1_000
#: Weight of the past in the average packet size (task_queue_paced_sender.cc, packet_size_).
PACKET_SIZE_MEMORY = 0.95
#: Retransmissions that may wait; a request beyond that is forgotten (ours: 0.3 s at 5 Mbps).
RTX_QUEUE_LENGTH = 128

_BIT_US = 8_000_000  # bits per byte times microseconds per second

PACER = record(
    [
        ("burst_interval_us", "i8"),
        ("queue_time_limit_us", "i8"),
        ("pacing_rate_bps", "i8"),
        ("media_rate_bps", "i8"),  # the pacing rate, or more while the queue is long
        ("padding_rate_bps", "i8"),
        ("cwnd_bytes", "i8"),  # 0 for no window
        ("media_debt_bytes", "i8"),
        ("padding_debt_bytes", "i8"),
        ("updated_us", "i8"),  # the debts are of this time; a little ahead of now in a probe
        ("task_us", "i8"),  # the wake-up that is planned, NEVER for none
        ("wake_us", "i8"),  # when its timer fires: whole milliseconds after it was set
        ("packet_bytes", "f8"),  # average of the packets that were queued, 0 for none yet
        ("frame", "i8"),  # number of the frame at the head
        ("frame_packet", "i8"),  # its next packet
        ("queue_bytes", "i8"),  # on the wire, frames, retransmissions and padding
        ("queue_packets", "i8"),
        ("queue_since_sum_us", "i8"),  # sum of the waiting packets' enqueue times
        ("last_media_bytes", "i8"),  # on the wire, the newest video packet sent; 0 for none yet
        ("repeats", "i8"),  # padding packets waiting that repeat one
        ("repeat_bytes", "i8"),  # on the wire, each of them
        ("plain_paddings", "i8"),  # padding packets waiting that carry zeros
        ("padding_since_us", "i8"),  # when they were made
        ("fec_packets", "i8"),  # parity packets waiting
        ("fec_bytes", "i8"),  # on the wire, each of them
        ("fec_since_us", "i8"),  # when they were made
        ("rtx_head", "i8"),
        ("rtx_tail", "i8"),
        ("rtx_seq", "i8", (RTX_QUEUE_LENGTH,)),  # lost packets to be sent again
        ("rtx_bytes", "i8", (RTX_QUEUE_LENGTH,)),  # on the wire
        ("rtx_queued_us", "i8", (RTX_QUEUE_LENGTH,)),
        ("prober", PROBER),
        ("is_due", "i1"),  # something has changed: look at it at once
        ("is_holding", "i1"),  # what waits does so until no debt is left, bursts notwithstanding
    ]
)


@kernel
def pacer_reset(pacer: Record) -> None:
    """An empty queue and no debt."""
    pacer.pacing_rate_bps = 0
    pacer.padding_rate_bps = 0
    pacer.media_rate_bps = 0
    pacer.media_debt_bytes = 0
    pacer.padding_debt_bytes = 0
    pacer.updated_us = 0
    pacer.task_us = NEVER
    pacer.wake_us = NEVER
    pacer.packet_bytes = 0.0
    pacer.frame = 0
    pacer.frame_packet = 0
    pacer.queue_bytes = 0
    pacer.queue_packets = 0
    pacer.queue_since_sum_us = 0
    pacer.last_media_bytes = 0
    pacer.repeats = 0
    pacer.repeat_bytes = 0
    pacer.plain_paddings = 0
    pacer.padding_since_us = 0
    pacer.fec_packets = 0
    pacer.fec_bytes = 0
    pacer.fec_since_us = 0
    pacer.rtx_head = 0
    pacer.rtx_tail = 0
    pacer.is_due = 0
    pacer.is_holding = 0
    prober_reset(pacer.prober)


@kernel
def _drain_us(debt_bytes: int, rate_bps: int) -> int:
    return int(debt_bytes * _BIT_US // max(1, rate_bps))


@kernel
def pacer_update_media_rate(pacer: Record, now_us: int) -> None:
    """The pacing rate, or more when the queue would not drain within its time limit."""
    rate_bps = pacer.pacing_rate_bps
    if pacer.queue_packets > 0:
        waited_us = now_us - pacer.queue_since_sum_us // pacer.queue_packets
        left_us = max(MIN_DRAIN_TIME_US, pacer.queue_time_limit_us - waited_us)
        rate_bps = max(rate_bps, pacer.queue_bytes * _BIT_US // left_us)
    pacer.media_rate_bps = rate_bps


@kernel
def pacer_set_rates(
    pacer: Record, pacing_rate_bps: int, padding_rate_bps: int, now_us: int
) -> None:
    """New rates, as the controller publishes them."""
    padding_rate_bps = min(padding_rate_bps, pacing_rate_bps)
    if pacer.pacing_rate_bps != pacing_rate_bps or pacer.padding_rate_bps != padding_rate_bps:
        pacer.pacing_rate_bps = pacing_rate_bps
        pacer.padding_rate_bps = padding_rate_bps
        pacer.is_due = 1
        pacer_update_media_rate(pacer, now_us)


@kernel
def pacer_expected_queue_us(pacer: Record) -> int:
    """How long the queue takes at the pacing rate, not counting what speeds it up."""
    return _drain_us(pacer.queue_bytes, pacer.pacing_rate_bps)


@kernel
def pacer_elapse(pacer: Record, until_us: int) -> None:
    """Let the debts drain until then."""
    elapsed_us = until_us - pacer.updated_us
    if elapsed_us <= 0:
        return
    pacer.updated_us = until_us
    elapsed_us = min(elapsed_us, MAX_ELAPSED_US)
    media_bytes = bytes_in(pacer.media_rate_bps, elapsed_us)
    pacer.media_debt_bytes -= min(pacer.media_debt_bytes, media_bytes)
    padding_bytes = bytes_in(pacer.padding_rate_bps, elapsed_us)
    pacer.padding_debt_bytes -= min(pacer.padding_debt_bytes, padding_bytes)


@kernel
def pacer_on_audio(pacer: Record, size_bytes: int, now_us: int) -> None:
    """Charge a packet that does not wait, without letting go what does.

    In recorded Chromium calls video that waits for its debt to drain goes on waiting when audio
    passes it: the rest of a frame leaves 45 to 49 ms after the burst that it did not fit into, in
    one burst with the frame after it, whatever audio was sent in between.
    """
    if pacer.queue_packets > 0 and pacer_next_send_us(pacer, 0, now_us) > now_us:
        pacer.is_holding = 1
    pacer_elapse(pacer, now_us)
    pacer_on_sent(pacer, size_bytes)


@kernel
def pacer_on_sent(pacer: Record, size_bytes: int) -> None:
    """Charge one packet."""
    most_media = bytes_in(pacer.media_rate_bps, MAX_DEBT_US)
    pacer.media_debt_bytes = min(most_media, pacer.media_debt_bytes + size_bytes)
    most_padding = bytes_in(pacer.padding_rate_bps, MAX_DEBT_US)
    pacer.padding_debt_bytes = min(most_padding, pacer.padding_debt_bytes + size_bytes)


@kernel
def pacer_is_blocked(pacer: Record, in_flight_bytes: int) -> bool:
    """Whether the congestion window is full."""
    return bool(pacer.cwnd_bytes > 0 and in_flight_bytes >= pacer.cwnd_bytes)


@kernel
def pacer_next_send_us(pacer: Record, in_flight_bytes: int, now_us: int) -> int:
    """When the pacer would like to send or look next, perhaps in the past."""
    if pacer.prober.is_active == 1:
        return prober_next_us(pacer.prober, now_us)
    if pacer_is_blocked(pacer, in_flight_bytes):
        return int(pacer.updated_us + IDLE_INTERVAL_US)
    if pacer.queue_packets > 0:
        rate_bps = pacer.media_rate_bps
        drain_us = _drain_us(pacer.media_debt_bytes, rate_bps)
        burst_us = min(pacer.burst_interval_us, _drain_us(MAX_BURST_BYTES, rate_bps))
        if burst_us > drain_us and pacer.is_holding == 0:
            drain_us = 0
        return int(pacer.updated_us + drain_us)
    if pacer.padding_rate_bps > 0:
        media_us = _drain_us(pacer.media_debt_bytes, pacer.media_rate_bps)
        drain_us = max(media_us, _drain_us(pacer.padding_debt_bytes, pacer.padding_rate_bps))
        if drain_us == 0 and pacer.media_debt_bytes + pacer.padding_debt_bytes > 0:
            drain_us = 1
        return int(pacer.updated_us + drain_us)
    return int(pacer.updated_us + IDLE_INTERVAL_US)


@kernel
def pacer_early_us(pacer: Record) -> int:
    """How early the next packet may leave: a timer is not exact, and probes are in a hurry."""
    return MAX_EARLY_PROBE_US if pacer.prober.is_active == 1 else 0


@kernel
def pacer_plan_wake(pacer: Record, next_us: int, now_us: int) -> None:
    """Set the timer for the next packet, unless it will go off before that anyway."""
    hold_back_us = 0
    if pacer.prober.is_active == 0:
        hold_back_us = HOLD_BACK_US
        if pacer.packet_bytes > 0.0:
            packet_us = _drain_us(int(pacer.packet_bytes), pacer.pacing_rate_bps)
            hold_back_us = min(hold_back_us, HOLD_BACK_PACKETS * packet_us)
    wait_us = max(hold_back_us, next_us - now_us - pacer_early_us(pacer))
    if now_us + wait_us < pacer.task_us:
        pacer.task_us = now_us + wait_us
        ticks = (wait_us + TIMER_TICK_US - 1) // TIMER_TICK_US
        pacer.wake_us = now_us + ticks * TIMER_TICK_US


@kernel
def pacer_padding_bytes(pacer: Record, in_flight_bytes: int) -> int:
    """The portion of padding due now that nothing waits; 0 while there is a debt."""
    if pacer.padding_debt_bytes > 0 or pacer_is_blocked(pacer, in_flight_bytes):
        return 0
    # At least a byte at any rate: nothing sent is no debt, and the pacer would ask for ever.
    portion_bytes = bytes_in(pacer.padding_rate_bps, PADDING_PORTION_US)
    return max(1, portion_bytes) if pacer.padding_rate_bps > 0 else 0


@kernel
def _before_queueing(pacer: Record, now_us: int) -> None:
    """Time that passed with an empty queue is no budget for what comes now."""
    if pacer.queue_packets == 0:
        next_us = pacer_next_send_us(pacer, 0, now_us)
        pacer_elapse(pacer, min(now_us, next_us))


@kernel
def pacer_queue_packets(pacer: Record, size_bytes: int, num_packets: int, now_us: int) -> None:
    """Let packets wait that the caller keeps; `size_bytes` is their sum on the wire."""
    _before_queueing(pacer, now_us)
    pacer.queue_bytes += size_bytes
    pacer.queue_packets += num_packets
    pacer.queue_since_sum_us += num_packets * now_us
    pacer_update_media_rate(pacer, now_us)


@kernel
def pacer_average_packet(pacer: Record, size_bytes: float, num_packets: int) -> None:
    """Let packets of this size enter the average that the hold-back time is reckoned with."""
    if pacer.packet_bytes == 0.0:
        pacer.packet_bytes = size_bytes
    memory = 1.0
    for _ in range(num_packets):
        memory *= PACKET_SIZE_MEMORY
    pacer.packet_bytes = memory * pacer.packet_bytes + (1.0 - memory) * size_bytes


@kernel
def pacer_unqueue(pacer: Record, size_bytes: int, since_us: int) -> None:
    """One waiting packet leaves."""
    pacer.is_holding = 0
    pacer.queue_bytes -= size_bytes
    pacer.queue_packets -= 1
    pacer.queue_since_sum_us -= since_us


@kernel
def pacer_queue_fec(pacer: Record, size_bytes: int, num_packets: int, now_us: int) -> None:
    """Let the parity packets of a block wait, before the next frame."""
    pacer.fec_packets = num_packets
    pacer.fec_bytes = size_bytes
    pacer.fec_since_us = now_us
    pacer_queue_packets(pacer, num_packets * size_bytes, num_packets, now_us)
    pacer_average_packet(pacer, float(size_bytes), num_packets)


@kernel
def pacer_has_rtx(pacer: Record, seq: int) -> bool:
    """Whether a retransmission of packet `seq` waits."""
    for position in range(pacer.rtx_head, pacer.rtx_tail):
        if pacer.rtx_seq[position % RTX_QUEUE_LENGTH] == seq:
            return True
    return False


@kernel
def pacer_queue_rtx(pacer: Record, seq: int, size_bytes: int, now_us: int) -> bool:
    """Let a retransmission wait before all frames; False when too many wait already."""
    if pacer.rtx_tail - pacer.rtx_head == RTX_QUEUE_LENGTH:
        return False
    slot = pacer.rtx_tail % RTX_QUEUE_LENGTH
    pacer.rtx_seq[slot] = seq
    pacer.rtx_bytes[slot] = size_bytes
    pacer.rtx_queued_us[slot] = now_us
    pacer.rtx_tail += 1
    pacer_queue_packets(pacer, size_bytes, 1, now_us)
    pacer_average_packet(pacer, float(size_bytes), 1)
    return True

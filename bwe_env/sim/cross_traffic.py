"""Traffic of others in the same queue: on/off UDP, and bulk TCP with Reno or CUBIC.

A source sends into the bottleneck like the call does. Behind it lies a path of its own without
loss; a TCP source's ACKs come back over an uncongested reverse path, so that an ACK reaches the
sender one `rtt_us` after its packet has left the bottleneck.

TCP: slow start, fast retransmit and congestion control of RFC 5681 (Reno) or RFC 9438 (CUBIC),
retransmission timer of RFC 6298, selective acknowledgements with the pipe of RFC 6675, as every
present stack has it (NewReno, RFC 6582, repairs one loss per round trip). Every packet is
acknowledged at once; RTTs are measured with timestamps (RFC 7323), so retransmissions are, too.
Windows are counted in packets of one size. Without: HyStart, pacing, ECN, delayed ACKs. A source
that fetches files begins each as a new connection would, its handshake left out.
"""

from __future__ import annotations

import math

import numpy as np

from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.link import link_enqueue
from bwe_env.sim.packet import FATE_PENDING, N_FATES
from bwe_env.sim.rng import STREAM_CROSS_TRAFFIC, uniform

# What `SOURCE.kind` says.
SOURCE_ON_OFF = 0
SOURCE_RENO = 1
SOURCE_CUBIC = 2

#: First window in packets. RFC 6928.
INITIAL_WINDOW = 10.0
#: A packet is lost when so many sent after it have arrived (DupThresh, RFC 6675 section 2).
DUP_THRESH = 3
#: The window never shrinks below two packets (RFC 5681 section 3.1), but for a timeout, after which
#: it is one.
MIN_SSTHRESH = 2.0
LOSS_WINDOW = 1.0

#: Retransmission timer: RFC 6298 sections 2.1 (before a measurement), 2.3 (gains), 2.5 (maximum).
INITIAL_RTO_US = 1_000_000
MAX_RTO_US = 60_000_000
RTT_GAIN = 0.125
RTT_VAR_GAIN = 0.25
#: Clock granularity G of RFC 6298 (that of Linux at 1000 Hz).
CLOCK_GRANULARITY_US = 1_000.0

RENO_BETA = 0.5
#: RFC 9438 section 4.6 (beta_cubic), section 5 (C, in packets per cubic second), section 4.3
#: (alpha_cubic, the Reno-friendly additive increase), section 4.2 (most growth per round trip).
CUBIC_BETA = 0.7
CUBIC_C = 0.4
CUBIC_ALPHA = 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA)
CUBIC_MAX_GROWTH = 1.5

_US_TO_S = 1e-6

# What a TCP sender knows of a packet (field `state`).
_UNSENT = 0  # or acknowledged
_IN_FLIGHT = 1
_LOST = 2  # to be sent again
_SACKED = 3

SOURCE = record(
    [
        # Configuration
        ("start_us", "i8"),
        ("stop_us", "i8"),  # nothing new is sent from then on; NEVER
        ("packet_bytes", "i8"),  # on the wire
        ("rate_bps", "f8"),  # on/off: while it is on
        ("mean_on_us", "f8"),  # on/off: exponential
        ("mean_off_us", "f8"),  # on/off: exponential; 0: always on
        ("rtt_us", "i8"),  # TCP: from leaving the bottleneck to the ACK
        ("ack_jitter_us", "f8"),  # TCP: most by which an ACK is late, uniform, in order
        ("max_window", "i8"),  # TCP: receiver's window in packets
        ("min_rto_us", "i8"),
        ("min_file_bytes", "i8"),  # TCP
        ("max_file_bytes", "i8"),  # TCP: 0 for one file without end
        ("mean_idle_us", "f8"),  # TCP: between two files, exponential
        # Common state
        ("key", "u8"),  # of the call's random streams
        ("number", "i8"),  # within its call
        ("timer_us", "i8"),  # when it does something next; NEVER
        ("sent_packets", "i8"),
        ("sent_bytes", "i8"),
        ("departed_packets", "i8"),  # left the bottleneck
        ("departed_bytes", "i8"),
        ("fate_packets", "i8", (N_FATES,)),  # dropped, by cause
        ("fate_bytes", "i8", (N_FATES,)),
        # On/off state
        ("next_us", "f8"),  # exact time of the next packet
        ("off_us", "f8"),  # end of the on-time
        ("counter", "i8"),  # random numbers drawn
        # TCP sender
        ("una", "i8"),  # oldest packet that is not acknowledged
        ("next_seq", "i8"),  # first packet never sent
        ("highest_sacked", "i8"),
        ("judged_seq", "i8"),  # packets below were looked at for loss
        ("resend_seq", "i8"),  # no packet below is to be sent again
        ("recover", "i8"),  # losses below belong to the congestion event that has been answered
        ("pipe", "i8"),  # packets in flight, RFC 6675
        ("cwnd", "f8"),  # packets
        ("ssthresh", "f8"),  # packets
        ("srtt_us", "f8"),  # 0 before the first measurement
        ("rttvar_us", "f8"),
        ("rto_us", "f8"),
        ("rto_timer_us", "i8"),  # NEVER while nothing is outstanding
        ("fast_recoveries", "i8"),
        ("timeouts", "i8"),
        ("end_seq", "i8"),  # first packet beyond the file; NEVER for one without end
        ("next_file_us", "i8"),  # when the next file begins; NEVER while one is under way
        # CUBIC, RFC 9438 section 4.1
        ("w_max", "f8"),
        ("epoch_us", "i8"),  # start of the present growth; NEVER before its first ACK
        ("k_s", "f8"),
        ("w_est", "f8"),
        ("cwnd_prior", "f8"),  # at the last congestion event
        # TCP receiver, and its ACKs under way
        ("expected_seq", "i8"),
        ("ack_head", "i8"),
        ("ack_tail", "i8"),
        ("kind", "i1"),
        ("starts_idle", "i1"),  # TCP: an idle time comes before the first file
        ("in_recovery", "i1"),
    ]
)

#: Two things in one row, in rings of their own: what TCP knows of packet `seq`, in row
#: ``seq & mask``; and an ACK under way, in row ``ack_head & mask`` and on.
TCP_ROW = record(
    [
        ("ack_arrival_us", "i8"),
        ("ack_sent_us", "i8"),  # when the packet it answers had been sent (echoed timestamp)
        ("ack", "i4"),  # the receiver has everything below
        ("ack_seq", "i4"),  # the packet it answers
        ("state", "i1"),
        ("has_arrived", "i1"),  # at the receiver, out of order
    ]
)


@kernel
def source_entry_flow(source: Record) -> int:
    """What a queue entry says in `flow` for a packet of this source: below zero."""
    return int(-1 - source.number)


@kernel
def _forget_path(source: Record) -> None:
    """TCP: what a new connection believes."""
    source.cwnd = INITIAL_WINDOW
    source.ssthresh = float(source.max_window)
    source.srtt_us = 0.0
    source.rttvar_us = 0.0
    source.rto_us = float(INITIAL_RTO_US)
    source.rto_timer_us = NEVER
    source.in_recovery = 0
    source.w_max = 0.0
    source.epoch_us = NEVER
    source.k_s = 0.0
    source.w_est = 0.0
    source.cwnd_prior = 0.0


@kernel
def _chance(source: Record) -> float:
    """The source's next random number, uniform on [0, 1)."""
    counter = source.counter
    source.counter = counter + 1
    return uniform(source.key, STREAM_CROSS_TRAFFIC + source.number, counter)


@kernel
def _exponential(source: Record, mean_us: float) -> float:
    return -mean_us * math.log(1.0 - _chance(source))


@kernel
def source_reset(source: Record, rows: np.ndarray, key: np.uint64, number: int) -> None:
    """Before its start; the configuration stays."""
    source.key = key
    source.number = number
    source.sent_packets = 0
    source.sent_bytes = 0
    source.departed_packets = 0
    source.departed_bytes = 0
    for fate in range(N_FATES):
        source.fate_packets[fate] = 0
        source.fate_bytes[fate] = 0
    source.next_us = float(source.start_us)
    source.off_us = source.next_us
    source.counter = 0
    source.una = 0
    source.next_seq = 0
    source.highest_sacked = -1
    source.judged_seq = 0
    source.resend_seq = 0
    source.recover = 0
    source.pipe = 0
    source.fast_recoveries = 0
    source.timeouts = 0
    source.expected_seq = 0
    source.ack_head = 0
    source.ack_tail = 0
    _forget_path(source)
    source.end_seq = NEVER
    source.next_file_us = NEVER
    source.timer_us = source.start_us
    if source.max_file_bytes > 0:
        source.end_seq = 0
        if source.starts_idle == 1:
            source.timer_us += int(_exponential(source, source.mean_idle_us))
        source.next_file_us = source.timer_us
    if source.kind != SOURCE_ON_OFF:
        for index in range(len(rows)):
            rows[index].state = _UNSENT
            rows[index].has_arrived = 0


@kernel
def source_on_dropped(source: Record, fate: int) -> None:
    """A packet of this source was dropped at the bottleneck."""
    source.fate_packets[fate] += 1
    source.fate_bytes[fate] += source.packet_bytes


@kernel
def _send(
    source: Record, link: Record, segments: np.ndarray, queue: np.ndarray, seq: int, now_us: int
) -> None:
    source.sent_packets += 1
    source.sent_bytes += source.packet_bytes
    flow = source_entry_flow(source)
    fate = link_enqueue(link, segments, queue, flow, seq, source.packet_bytes, now_us)
    if fate != FATE_PENDING:
        source_on_dropped(source, fate)


# --- On/off UDP -----------------------------------------------------------------------------------


@kernel
def _on_off_timer(
    source: Record, link: Record, segments: np.ndarray, queue: np.ndarray, now_us: int
) -> None:
    """Send a packet and time the next, behind an off-time where the on-time ends before it."""
    if source.sent_packets == 0:
        source.off_us = source.next_us + _exponential(source, source.mean_on_us)
    _send(source, link, segments, queue, 0, now_us)
    source.next_us += source.packet_bytes * 8e6 / source.rate_bps
    if source.mean_off_us > 0.0 and source.next_us >= source.off_us:
        begin_us = source.off_us + _exponential(source, source.mean_off_us)
        source.next_us = max(source.next_us, begin_us)
        source.off_us = source.next_us + _exponential(source, source.mean_on_us)
    source.timer_us = math.ceil(source.next_us)
    if source.timer_us >= source.stop_us:
        source.timer_us = NEVER


# --- TCP: congestion control ----------------------------------------------------------------------


@kernel
def w_cubic(w_max: float, k_s: float, t_s: float) -> float:
    """The window `t_s` after the last congestion event. RFC 9438 section 4.2."""
    return CUBIC_C * (t_s - k_s) ** 3 + w_max


@kernel
def _begin_epoch(source: Record, now_us: int) -> None:
    """Congestion avoidance begins. RFC 9438 sections 4.2 and 4.8."""
    source.epoch_us = now_us
    source.w_est = source.cwnd
    if source.cwnd < source.w_max:
        source.k_s = math.exp(math.log((source.w_max - source.cwnd) / CUBIC_C) / 3.0)
    else:
        source.k_s = 0.0
        source.w_max = source.cwnd


@kernel
def _grow_cubic(source: Record, acked: int, now_us: int) -> None:
    """Congestion avoidance. RFC 9438 sections 4.2 to 4.5."""
    if source.epoch_us == NEVER:
        _begin_epoch(source, now_us)
    cwnd = source.cwnd
    t_s = (now_us - source.epoch_us) * _US_TO_S
    alpha = CUBIC_ALPHA if source.w_est < source.cwnd_prior else 1.0
    source.w_est += alpha * acked / cwnd
    if w_cubic(source.w_max, source.k_s, t_s) < source.w_est:
        source.cwnd = max(cwnd, source.w_est)
        return
    target = w_cubic(source.w_max, source.k_s, t_s + source.srtt_us * _US_TO_S)
    target = min(CUBIC_MAX_GROWTH * cwnd, max(cwnd, target))
    source.cwnd += acked * (target - cwnd) / cwnd


@kernel
def _grow(source: Record, acked: int, now_us: int) -> None:
    """`acked` packets were acknowledged outside recovery."""
    if source.cwnd < source.ssthresh:
        source.cwnd += 1.0  # RFC 5681 section 3.1: at most one packet per ACK
    elif source.kind == SOURCE_CUBIC:
        _grow_cubic(source, acked, now_us)
    else:
        source.cwnd += acked / source.cwnd
    source.cwnd = min(source.cwnd, float(source.max_window))


@kernel
def _on_congestion(source: Record) -> None:
    """A loss, once per window of data: reduce the threshold, and remember for CUBIC."""
    cwnd = source.cwnd
    beta = RENO_BETA
    if source.kind == SOURCE_CUBIC:
        beta = CUBIC_BETA
        # Fast convergence, section 4.7: make room for a newcomer.
        source.w_max = cwnd * (1.0 + CUBIC_BETA) * 0.5 if cwnd < source.w_max else cwnd
        source.cwnd_prior = cwnd
        source.epoch_us = NEVER
    source.ssthresh = max(MIN_SSTHRESH, beta * cwnd)
    source.recover = source.next_seq


# --- TCP: what is sent, lost and acknowledged -----------------------------------------------------


@kernel
def _transmit(
    source: Record,
    rows: np.ndarray,
    link: Record,
    segments: np.ndarray,
    queue: np.ndarray,
    seq: int,
    now_us: int,
) -> None:
    rows[seq & (len(rows) - 1)].state = _IN_FLIGHT
    source.pipe += 1
    # A repair may take longer than the timer: each retransmission restarts it (RFC 6675 section 6).
    is_repair = source.in_recovery == 1 and seq < source.recover
    if source.rto_timer_us == NEVER or is_repair:
        source.rto_timer_us = now_us + int(source.rto_us)
    _send(source, link, segments, queue, seq, now_us)


@kernel
def _next_lost(source: Record, rows: np.ndarray) -> int:
    """The oldest packet to be sent again; -1 for none."""
    mask = len(rows) - 1
    while source.resend_seq < source.judged_seq:
        if rows[source.resend_seq & mask].state == _LOST:
            return int(source.resend_seq)
        source.resend_seq += 1
    return -1


@kernel
def _fill_window(
    source: Record,
    rows: np.ndarray,
    link: Record,
    segments: np.ndarray,
    queue: np.ndarray,
    now_us: int,
) -> None:
    """Send again what is lost, then new packets, as far as the window allows (RFC 6675)."""
    while source.pipe < int(source.cwnd):
        seq = _next_lost(source, rows)
        if seq < 0:
            if source.next_seq - source.una >= source.max_window or now_us >= source.stop_us:
                return
            if source.next_seq >= source.end_seq:
                return
            seq = source.next_seq
            source.next_seq += 1
        _transmit(source, rows, link, segments, queue, seq, now_us)


@kernel
def _measure_rtt(source: Record, rtt_us: float) -> None:
    """RFC 6298 section 2; a fresh measurement also ends a back-off.

    The gains are meant for one measurement per round trip; they are shared among as many as there
    are (RFC 7323 appendix G).
    """
    share = 1.0 / max(1.0, float(source.pipe))
    if source.srtt_us == 0.0:
        source.srtt_us = rtt_us
        source.rttvar_us = 0.5 * rtt_us
    else:
        deviation_us = abs(source.srtt_us - rtt_us)
        source.rttvar_us += share * RTT_VAR_GAIN * (deviation_us - source.rttvar_us)
        source.srtt_us += share * RTT_GAIN * (rtt_us - source.srtt_us)
    rto_us = source.srtt_us + max(CLOCK_GRANULARITY_US, 4.0 * source.rttvar_us)
    source.rto_us = min(float(MAX_RTO_US), max(float(source.min_rto_us), rto_us))


@kernel
def _find_losses(source: Record, rows: np.ndarray) -> int:
    """Mark what `DUP_THRESH` later packets have overtaken; returns the first such, or -1."""
    mask = len(rows) - 1
    first = -1
    while source.judged_seq + DUP_THRESH <= source.highest_sacked:
        row = rows[source.judged_seq & mask]
        if row.state == _IN_FLIGHT:
            row.state = _LOST
            source.pipe -= 1
            if first < 0:
                first = source.judged_seq
        source.judged_seq += 1
    return first


@kernel
def _on_ack(
    source: Record,
    rows: np.ndarray,
    link: Record,
    segments: np.ndarray,
    queue: np.ndarray,
    now_us: int,
) -> None:
    """The oldest ACK under way reaches the sender."""
    mask = len(rows) - 1
    message = rows[source.ack_head & mask]
    source.ack_head += 1
    if message.ack_seq >= message.ack and message.ack_seq >= source.una:
        row = rows[message.ack_seq & mask]
        if row.state == _IN_FLIGHT:
            source.pipe -= 1
        row.state = _SACKED
        source.highest_sacked = max(source.highest_sacked, message.ack_seq)
    acked = message.ack - source.una
    if acked > 0:
        for seq in range(source.una, message.ack):
            if rows[seq & mask].state == _IN_FLIGHT:
                source.pipe -= 1
            rows[seq & mask].state = _UNSENT
        source.una = message.ack
        source.judged_seq = max(source.judged_seq, source.una)
        source.resend_seq = max(source.resend_seq, source.una)
        _measure_rtt(source, float(now_us - message.ack_sent_us))
        source.rto_timer_us = NEVER
        if source.next_seq > source.una:
            source.rto_timer_us = now_us + int(source.rto_us)
        if source.una >= source.end_seq:
            source.next_file_us = now_us + int(_exponential(source, source.mean_idle_us))
    if source.in_recovery == 1 and source.una >= source.recover:
        source.in_recovery = 0
    first_lost = _find_losses(source, rows)
    if first_lost >= source.recover:
        _on_congestion(source)
        source.cwnd = source.ssthresh
        source.in_recovery = 1
        source.fast_recoveries += 1
        _transmit(source, rows, link, segments, queue, first_lost, now_us)  # at once, section 5
    elif acked > 0 and source.in_recovery == 0:
        _grow(source, acked, now_us)
    _fill_window(source, rows, link, segments, queue, now_us)


@kernel
def _on_timeout(
    source: Record,
    rows: np.ndarray,
    link: Record,
    segments: np.ndarray,
    queue: np.ndarray,
    now_us: int,
) -> None:
    """Take all that is not acknowledged for lost and begin again (RFC 6298 section 5)."""
    mask = len(rows) - 1
    source.timeouts += 1
    if source.una >= source.recover:  # else the congestion event has been answered
        _on_congestion(source)
    source.recover = source.next_seq
    source.epoch_us = NEVER
    source.in_recovery = 0
    source.cwnd = LOSS_WINDOW
    for seq in range(source.una, source.next_seq):
        if rows[seq & mask].state == _IN_FLIGHT:
            rows[seq & mask].state = _LOST
    source.pipe = 0
    source.judged_seq = source.next_seq
    source.resend_seq = source.una
    source.rto_us = min(float(MAX_RTO_US), 2.0 * source.rto_us)
    source.rto_timer_us = NEVER
    _fill_window(source, rows, link, segments, queue, now_us)


@kernel
def _begin_file(source: Record) -> None:
    """A file of random length, over a connection that knows nothing of those before it."""
    spread_bytes = source.max_file_bytes - source.min_file_bytes
    size_bytes = source.min_file_bytes + spread_bytes * _chance(source)
    source.end_seq = source.next_seq + max(1, math.ceil(size_bytes / source.packet_bytes))
    source.next_file_us = NEVER
    _forget_path(source)


@kernel
def _schedule_tcp(source: Record, rows: np.ndarray) -> None:
    source.timer_us = min(source.rto_timer_us, source.next_file_us)
    if source.ack_head < source.ack_tail:
        arrival_us = rows[source.ack_head & (len(rows) - 1)].ack_arrival_us
        source.timer_us = min(source.timer_us, arrival_us)


# --- What the clock calls -------------------------------------------------------------------------


@kernel
def source_on_timer(
    source: Record,
    rows: np.ndarray,
    link: Record,
    segments: np.ndarray,
    queue: np.ndarray,
    now_us: int,
) -> None:
    """It is `timer_us`: start, send, hear an ACK, or time out."""
    if source.kind == SOURCE_ON_OFF:
        _on_off_timer(source, link, segments, queue, now_us)
        return
    has_ack = source.ack_head < source.ack_tail
    if has_ack and rows[source.ack_head & (len(rows) - 1)].ack_arrival_us <= now_us:
        _on_ack(source, rows, link, segments, queue, now_us)
    elif source.rto_timer_us <= now_us:
        _on_timeout(source, rows, link, segments, queue, now_us)
    else:
        if source.next_file_us <= now_us:
            _begin_file(source)
        _fill_window(source, rows, link, segments, queue, now_us)
    _schedule_tcp(source, rows)


@kernel
def source_on_departed(
    source: Record, rows: np.ndarray, seq: int, sent_us: int, released_us: int
) -> None:
    """A packet has left the bottleneck; the receiver's ACK is under way, or will be."""
    source.departed_packets += 1
    source.departed_bytes += source.packet_bytes
    if source.kind == SOURCE_ON_OFF:
        return
    mask = len(rows) - 1
    if seq >= source.expected_seq:
        rows[seq & mask].has_arrived = 1
    while rows[source.expected_seq & mask].has_arrived == 1:
        rows[source.expected_seq & mask].has_arrived = 0
        source.expected_seq += 1
    if source.ack_tail - source.ack_head > mask:
        return  # as if lost: a later ACK says the same and more
    arrival_us = released_us + source.rtt_us
    if source.ack_jitter_us > 0.0:
        arrival_us += int(source.ack_jitter_us * _chance(source))
    if source.ack_tail > source.ack_head:
        newest_us = rows[(source.ack_tail - 1) & mask].ack_arrival_us
        arrival_us = max(arrival_us, newest_us)
    message = rows[source.ack_tail & mask]
    source.ack_tail += 1
    message.ack_arrival_us = arrival_us
    message.ack_sent_us = sent_us
    message.ack = source.expected_seq
    message.ack_seq = seq
    _schedule_tcp(source, rows)


@kernel
def earliest_source_us(sources: np.ndarray, num_sources: int) -> int:
    """When the next of the first `num_sources` does something; NEVER."""
    best_us = NEVER
    for index in range(num_sources):
        best_us = min(best_us, sources[index].timer_us)
    return int(best_us)

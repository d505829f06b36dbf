"""Google Congestion Control: the boxes wired together, event by event.

Follows GCC/goog_cc_network_control.cc of libwebrtc M150. Every kernel takes `gcc` (one row of
`GCC`), `p` (one row of `GCC_PARAMETERS`) and the time since the call began; results are fields of
`gcc`: `target_rate_bps`, `pacing_rate_bps`, `padding_rate_bps`, `cwnd_bytes`, `cwnd_reduce_ratio`
and the first `num_probes` of `probes`, which the pacer takes by setting `num_probes = 0`.
"""

from __future__ import annotations

import numpy as np

from bwe_env.gcc.aimd_rate_control import aimd_set_min_rate, aimd_set_start_rate
from bwe_env.gcc.alr_detector import alr_on_packet_sent, alr_reset, alr_set_rate
from bwe_env.gcc.bitrate_estimator import bitrate_add, bitrate_rate_bps, bitrate_reset
from bwe_env.gcc.congestion_window import (
    window_add_rtt,
    window_pushback_rate_bps,
    window_reset,
    window_target_bps,
    window_update,
)
from bwe_env.gcc.delay_based import (
    delay_based_add,
    delay_based_begin_report,
    delay_based_end_report,
    delay_based_reset,
)
from bwe_env.gcc.loss_based_v2 import (
    DECREASING,
    DELAY_BASED,
    INCREASING,
    INCREASING_WITH_PADDING,
    loss_v2_add_packet,
    loss_v2_set_acked_rate,
    loss_v2_update,
)
from bwe_env.gcc.parameters import LOSS_V2, ROBUST
from bwe_env.gcc.probe_bitrate_estimator import (
    probe_estimator_add,
    probe_estimator_reset,
    probe_take_result_bps,
)
from bwe_env.gcc.probe_controller import (
    FREE,
    LOSS_INCREASING,
    NO_PROBES,
    probe_after_drop,
    probe_process,
    probe_reset,
    probe_set_allocated,
    probe_set_available,
    probe_set_estimate,
    probe_set_rates,
)
from bwe_env.gcc.rates import NO_RATE, floor_to_ms, reported_us, round_to_ms, scale
from bwe_env.gcc.robust_throughput import (
    throughput_add,
    throughput_rate_bps,
    throughput_reset,
    throughput_trim,
)
from bwe_env.gcc.send_side import (
    MIN_RATE_BPS,
    is_rtt_above_limit,
    send_side_jump,
    send_side_on_loss_report,
    send_side_reset,
    send_side_set_delay_based,
    send_side_set_limits,
    send_side_update,
)
from bwe_env.gcc.trendline import NORMAL, OVERUSING
from bwe_env.sim._jit import NEVER, Record, kernel
from bwe_env.sim.packet import REPORT_RECEIVED_NOW
from bwe_env.sim.send_history import is_told_lost

#: The pacer keeps its rates as whole bytes per burst window of 40 ms, which rounds them to this
#: (kDefaultBurstInterval, modules/pacing/pacing_controller.cc).
_PACER_STEP_BPS = 200


@kernel
def _pacer_rate_bps(rate_bps: int) -> int:
    """A rate as the pacer keeps it: whole bytes per 40 ms."""
    return (rate_bps + _PACER_STEP_BPS // 2) // _PACER_STEP_BPS * _PACER_STEP_BPS


@kernel
def _update_pacing(gcc: Record) -> None:
    """Pacing and padding rate from what was last published (GetPacingRates)."""
    target_bps = gcc.published_bps
    pacing_bps = scale(max(target_bps, gcc.min_total_allocated_bps), gcc.pacing_factor)
    padding_bps = gcc.max_padding_rate_bps
    if gcc.published_loss_state == INCREASING_WITH_PADDING:
        padding_bps = max(padding_bps, target_bps)
    gcc.pacing_rate_bps = _pacer_rate_bps(pacing_bps)
    gcc.padding_rate_bps = _pacer_rate_bps(min(padding_bps, gcc.published_pushback_bps))


@kernel
def _limited_by(gcc: Record, p: Record) -> int:
    """What limits the estimate, as the probe controller wants to know it."""
    if gcc.delay.usage != NORMAL or is_rtt_above_limit(gcc.send_side, p):
        return NO_PROBES
    state = gcc.send_side.loss_state
    if state == DECREASING or state == INCREASING_WITH_PADDING:
        return NO_PROBES
    return LOSS_INCREASING if state == INCREASING else FREE


@kernel
def _publish(gcc: Record, p: Record, now_us: int) -> None:
    """Tell pacer, encoder, ALR detector and probe controller if anything has changed."""
    send_side = gcc.send_side
    target_bps = send_side.target_rate_bps
    paced_bps = window_target_bps(gcc.window, target_bps)
    pushback_bps = paced_bps
    if p.cwnd_enabled == 1:
        pushback_bps = window_pushback_rate_bps(gcc.window, p, paced_bps)
        pushback_bps = max(pushback_bps, send_side.min_rate_bps)
    if (
        target_bps == gcc.published_bps
        and pushback_bps == gcc.published_pushback_bps
        and send_side.rtt_us == gcc.published_rtt_us
        and gcc.loss_classic.loss_q8 == gcc.published_loss_q8
        and send_side.loss_state == gcc.published_loss_state
    ):
        return
    gcc.published_bps = target_bps
    gcc.published_pushback_bps = pushback_bps
    gcc.published_rtt_us = send_side.rtt_us
    gcc.published_loss_q8 = gcc.loss_classic.loss_q8
    gcc.published_loss_state = send_side.loss_state
    alr_set_rate(gcc.alr, p, target_bps)
    if p.cwnd_drop_frames == 1 or gcc.window.set_target_bps > 0:
        gcc.target_rate_bps = target_bps
        gcc.cwnd_reduce_ratio = (paced_bps - pushback_bps) / paced_bps
    else:
        gcc.target_rate_bps = pushback_bps
        gcc.cwnd_reduce_ratio = 0.0  # perhaps frames were dropped until now
    probe_set_estimate(gcc, p, target_bps, _limited_by(gcc, p), now_us)
    _update_pacing(gcc)


@kernel
def _update_window(gcc: Record, p: Record) -> None:
    """Let the congestion window follow the published target."""
    if p.cwnd_enabled == 1 and gcc.window.num_rtts > 0:
        window_update(gcc.window, p, window_target_bps(gcc.window, gcc.published_bps))
        gcc.cwnd_bytes = gcc.window.window_bytes


@kernel
def _set_constraints(
    gcc: Record,
    p: Record,
    min_rate_bps: int,
    start_rate_bps: int,
    max_rate_bps: int,
    now_us: int,
) -> None:
    min_bps = max(min_rate_bps, MIN_RATE_BPS, gcc.min_total_allocated_bps)
    max_bps = max(max_rate_bps, min_bps) if max_rate_bps > 0 else max_rate_bps
    send_side_set_limits(gcc, p, min_bps, max_bps)
    start_bps = start_rate_bps
    if start_rate_bps > 0:
        start_bps = max(start_rate_bps, min_bps)
        send_side_jump(gcc, start_bps)
        aimd_set_start_rate(gcc.aimd, start_bps)
    aimd_set_min_rate(gcc.aimd, min_bps)
    probe_set_rates(gcc, p, min_bps, start_bps, max_bps, now_us)


@kernel
def gcc_reset(
    gcc: Record,
    p: Record,
    min_rate_bps: int,
    start_rate_bps: int,
    max_rate_bps: int,
    now_us: int,
) -> None:
    """A new controller, constraints and stream configuration applied.

    Args:
        min_rate_bps: floor of the target; libwebrtc never goes below 5 kbps.
        max_rate_bps: ceiling of the target, 0 or less for none.
    """
    gcc.num_probes = 0
    gcc.cwnd_bytes = 0
    gcc.cwnd_reduce_ratio = 0.0
    gcc.target_rate_bps = start_rate_bps
    gcc.published_bps = start_rate_bps
    gcc.published_pushback_bps = start_rate_bps
    gcc.published_rtt_us = -1
    gcc.published_loss_q8 = 0
    gcc.published_loss_state = DELAY_BASED
    gcc.pacing_factor = p.pacing_factor
    gcc.min_total_allocated_bps = p.min_total_allocated_bps
    gcc.max_padding_rate_bps = p.max_padding_rate_bps
    gcc.acked_rate_bps = NO_RATE
    gcc.has_sent = 0
    gcc.was_in_alr = 0
    alr_reset(gcc.alr)
    window_reset(gcc.window)
    bitrate_reset(gcc.bitrate, p)
    throughput_reset(gcc.throughput)
    probe_estimator_reset(gcc.probe_estimator)
    send_side_reset(gcc, p)
    delay_based_reset(gcc, p, min_rate_bps, start_rate_bps)
    probe_reset(gcc.probe, p, now_us)
    _set_constraints(gcc, p, min_rate_bps, start_rate_bps, max_rate_bps, now_us)
    probe_set_allocated(gcc, p, p.max_total_allocated_bps, now_us)
    _update_pacing(gcc)


@kernel
def gcc_on_network_availability(gcc: Record, p: Record, available: bool, now_us: int) -> None:
    """The transport comes or goes; its first coming requests the initial probes."""
    probe_set_available(gcc, p, available, now_us)


@kernel
def gcc_on_constraints(
    gcc: Record,
    p: Record,
    min_rate_bps: int,
    start_rate_bps: int,
    max_rate_bps: int,
    now_us: int,
) -> None:
    """New bounds, and a new rate to start from unless `start_rate_bps` is 0 or less."""
    _set_constraints(gcc, p, min_rate_bps, start_rate_bps, max_rate_bps, now_us)
    _publish(gcc, p, now_us)


@kernel
def gcc_on_streams_config(
    gcc: Record,
    p: Record,
    alr_probing: bool,
    max_total_allocated_bps: int,
    max_padding_rate_bps: int,
    pacing_factor: float,
    now_us: int,
) -> None:
    """What the application's streams ask for has changed."""
    gcc.probe.alr_probing = alr_probing
    probe_set_allocated(gcc, p, max_total_allocated_bps, now_us)
    gcc.max_padding_rate_bps = max_padding_rate_bps
    gcc.pacing_factor = pacing_factor
    _update_pacing(gcc)


@kernel
def gcc_on_packet_sent(
    gcc: Record, p: Record, size_bytes: int, in_flight_bytes: int, now_us: int
) -> None:
    """A packet has been handed to the network.

    Args:
        in_flight_bytes: after it, its own bytes included.
    """
    send_us = floor_to_ms(now_us)
    send_side = gcc.send_side
    alr_on_packet_sent(gcc.alr, p, size_bytes, send_us)
    if gcc.has_sent == 0:
        gcc.has_sent = 1
        send_side.propagation_update_us = send_us
    send_side.last_sent_us = send_us
    gcc.window.in_flight_bytes = in_flight_bytes
    if p.cwnd_enabled == 1:
        _publish(gcc, p, send_us)


@kernel
def gcc_on_rtt(gcc: Record, p: Record, rtt_us: int, now_us: int) -> None:
    """RTCP has measured a round-trip time."""
    rtt_us = round_to_ms(rtt_us)
    gcc.aimd.rtt_us = rtt_us
    if rtt_us > 0:
        gcc.send_side.rtt_us = rtt_us


@kernel
def gcc_on_loss_report(
    gcc: Record, p: Record, lost_packets: int, received_packets: int, now_us: int
) -> None:
    """An RTCP receiver report told how many packets were lost since the last one."""
    send_side_on_loss_report(gcc, p, lost_packets, lost_packets + received_packets, now_us)


@kernel
def gcc_on_process_interval(gcc: Record, p: Record, in_flight_bytes: int, now_us: int) -> None:
    """25 ms have passed (api/transport/goog_cc_factory.cc)."""
    send_side_update(gcc, p, now_us)
    gcc.probe.alr_started_us = gcc.alr.started_us if gcc.alr.in_alr == 1 else NEVER
    probe_process(gcc, p, now_us)
    _update_window(gcc, p)
    _publish(gcc, p, now_us)


@kernel
def _comes_after(packet: Record, other: Record) -> bool:
    """Whether a packet arrived after another, or with it and was sent after it; in milliseconds."""
    if packet.arrival_us <= other.arrival_us and packet.send_us <= other.send_us:
        return False  # nor in milliseconds
    arrival_us = floor_to_ms(reported_us(packet.arrival_us))
    other_us = floor_to_ms(reported_us(other.arrival_us))
    if arrival_us != other_us:
        return bool(arrival_us > other_us)
    return bool(floor_to_ms(packet.send_us) > floor_to_ms(other.send_us))


@kernel
def _next_received(packets: np.ndarray, from_seq: int, last_seq: int) -> int:
    """The first newly received packet from `from_seq` on, ``last_seq + 1`` for none."""
    mask = len(packets) - 1
    seq = from_seq
    while seq <= last_seq and packets[seq & mask].report_state != REPORT_RECEIVED_NOW:
        seq += 1
    return seq


@kernel
def is_reordered(packets: np.ndarray, first_seq: int, last_seq: int) -> bool:
    """Whether a report's newly received packets arrived in another order than by number."""
    mask = len(packets) - 1
    seq = _next_received(packets, first_seq, last_seq)
    while seq <= last_seq:
        following = _next_received(packets, seq + 1, last_seq)
        if following <= last_seq and _comes_after(packets[seq & mask], packets[following & mask]):
            return True
        seq = following
    return False


@kernel
def next_in_order(packets: np.ndarray, first_seq: int, last_seq: int, seq: int) -> int:
    """The newly received packet after `seq` by time of arrival, then of sending, then number.

    Looks at every packet of the report; reports of reordered packets are rare.

    Args:
        seq: -1 for the first of all.

    Returns:
        Its number, ``last_seq + 1`` for none.
    """
    mask = len(packets) - 1
    best = last_seq + 1
    candidate = _next_received(packets, first_seq, last_seq)
    while candidate <= last_seq:
        packet = packets[candidate & mask]
        is_later = seq < 0 or _comes_after(packet, packets[seq & mask])
        if not is_later and candidate > seq:
            is_later = not _comes_after(packets[seq & mask], packet)
        if is_later and (best > last_seq or _comes_after(packets[best & mask], packet)):
            best = candidate
        candidate = _next_received(packets, candidate + 1, last_seq)
    return best


@kernel
def _update_rtts(
    gcc: Record, packets: np.ndarray, first_seq: int, last_seq: int, now_us: int
) -> None:
    """The largest RTT of a report, and the smallest one without the wait for the report."""
    mask = len(packets) - 1
    newest_us = 0
    first_send_us = NEVER
    shortest_us = NEVER
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        if packet.report_state != REPORT_RECEIVED_NOW:
            continue
        newest_us = max(newest_us, packet.arrival_us)
        first_send_us = min(first_send_us, packet.send_us)
        arrival_us = floor_to_ms(reported_us(packet.arrival_us))
        shortest_us = min(shortest_us, arrival_us - floor_to_ms(packet.send_us))
    window_add_rtt(gcc.window, round_to_ms(now_us - floor_to_ms(first_send_us)))
    newest_us = floor_to_ms(reported_us(newest_us))
    gcc.send_side.propagation_rtt_us = shortest_us + now_us - newest_us
    gcc.send_side.propagation_update_us = now_us


@kernel
def _note_alr_end(gcc: Record, now_us: int) -> None:
    if gcc.was_in_alr == 1 and gcc.alr.in_alr == 0:
        gcc.bitrate.alr_ended_us = now_us
        gcc.probe.alr_ended_us = now_us
    gcc.was_in_alr = gcc.alr.in_alr


@kernel
def _add_received(gcc: Record, p: Record, packet: Record, now_us: int) -> None:
    """Hand a newly received packet to the boxes that want it, with the controller's times."""
    send_us = floor_to_ms(packet.send_us)
    arrival_us = floor_to_ms(reported_us(packet.arrival_us))
    size_bytes = int(packet.size_bytes)
    if p.acked_rate_estimator == ROBUST:
        throughput_add(gcc.throughput, p, arrival_us, send_us, size_bytes)
    else:
        bitrate_add(gcc.bitrate, p, arrival_us, send_us, size_bytes)
    if packet.probe_cluster >= 0:
        probe_estimator_add(
            gcc.probe_estimator, p, int(packet.probe_cluster), arrival_us, send_us, size_bytes
        )
    delay_based_add(gcc, p, send_us, arrival_us, now_us)


@kernel
def _add_all_received(
    gcc: Record, p: Record, packets: np.ndarray, first_seq: int, last_seq: int, now_us: int
) -> None:
    """Hand over all of a report's newly received packets, in order."""
    mask = len(packets) - 1
    in_order = not is_reordered(packets, first_seq, last_seq)
    seq = first_seq - 1 if in_order else -1
    while True:
        if in_order:
            seq = _next_received(packets, seq + 1, last_seq)
        else:
            seq = next_in_order(packets, first_seq, last_seq, seq)
        if seq > last_seq:
            return
        _add_received(gcc, p, packets[seq & mask], now_us)


@kernel
def _update_acked_rate(gcc: Record, p: Record) -> None:
    if p.acked_rate_estimator == ROBUST:
        throughput_trim(gcc.throughput, p)
        gcc.acked_rate_bps = throughput_rate_bps(gcc.throughput, p)
    else:
        gcc.acked_rate_bps = bitrate_rate_bps(gcc.bitrate)
    if gcc.acked_rate_bps != NO_RATE and p.loss_estimator == LOSS_V2:
        loss_v2_set_acked_rate(gcc.loss_based, p, gcc.acked_rate_bps)


@kernel
def _probe_rate_bps(gcc: Record, p: Record) -> int:
    """A probe result, but not far below the acknowledged rate; NO_RATE for none."""
    probe_bps = probe_take_result_bps(gcc.probe_estimator)
    if probe_bps == NO_RATE or gcc.acked_rate_bps == NO_RATE:
        return probe_bps
    floor_bps = scale(gcc.acked_rate_bps, p.probe_throughput_floor)
    return int(max(probe_bps, min(gcc.delay.published_bps, floor_bps)))


@kernel
def _update_delay_based(gcc: Record, p: Record, in_alr: bool, now_us: int) -> bool:
    """Move the delay-based estimate after a report; returns whether it was updated."""
    probe_bps = _probe_rate_bps(gcc, p)
    if not delay_based_end_report(gcc, p, gcc.acked_rate_bps, probe_bps, in_alr, now_us):
        return False
    estimate_bps = gcc.aimd.rate_bps
    if probe_bps != NO_RATE and gcc.trendline.state != OVERUSING:
        send_side_jump(gcc, estimate_bps)
    send_side_set_delay_based(gcc.send_side, estimate_bps)
    return True


@kernel
def _send_span_us(packets: np.ndarray, first_seq: int, last_seq: int) -> tuple[int, int]:
    """Earliest and latest send time of what a report newly tells, (NEVER, -NEVER) for nothing."""
    mask = len(packets) - 1
    first_us = NEVER
    last_us = -NEVER
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        if packet.report_state == REPORT_RECEIVED_NOW or is_told_lost(packet):
            first_us = min(first_us, packet.send_us)
            last_us = max(last_us, packet.send_us)
    return first_us, last_us


@kernel
def _add_losses(loss: Record, packets: np.ndarray, first_seq: int, last_seq: int) -> None:
    """Let loss-based estimation see every packet a report tells of, received or lost."""
    mask = len(packets) - 1
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        is_received = packet.report_state == REPORT_RECEIVED_NOW
        if is_received or is_told_lost(packet):
            loss_v2_add_packet(loss, seq, int(packet.size_bytes), is_received)


@kernel
def gcc_on_feedback(
    gcc: Record,
    p: Record,
    packets: np.ndarray,
    first_seq: int,
    last_seq: int,
    in_flight_bytes: int,
    now_us: int,
) -> None:
    """A transport-wide feedback report has arrived and `send_history_report` has marked its rows.

    Args:
        packets: the flow's ring of dtype PACKET; rows `first_seq` to `last_seq` are read. Those
            told of before (REPORT_RECEIVED) are skipped.
        in_flight_bytes: after the report.
    """
    first_send_us, last_send_us = _send_span_us(packets, first_seq, last_seq)
    if last_send_us < first_send_us:
        return  # nothing new
    gcc.window.in_flight_bytes = in_flight_bytes
    in_alr = gcc.alr.in_alr == 1
    _note_alr_end(gcc, now_us)
    has_received = _next_received(packets, first_seq, last_seq) <= last_seq
    is_updated = False
    if has_received:
        _update_rtts(gcc, packets, first_seq, last_seq, now_us)
        delay_based_begin_report(gcc, p, now_us)
        _add_all_received(gcc, p, packets, first_seq, last_seq, now_us)
        _update_acked_rate(gcc, p)
        is_updated = _update_delay_based(gcc, p, in_alr, now_us)
    if p.loss_estimator == LOSS_V2:
        loss = gcc.loss_based
        limit_bps = gcc.send_side.delay_based_limit_bps
        _add_losses(loss, packets, first_seq, last_seq)
        loss_v2_update(
            loss, p, floor_to_ms(first_send_us), floor_to_ms(last_send_us), limit_bps, in_alr
        )
        send_side_update(gcc, p, now_us)
    if is_updated:
        _publish(gcc, p, now_us)
        if gcc.delay.has_recovered == 1:
            gcc.probe.alr_started_us = gcc.alr.started_us if in_alr else NEVER
            probe_after_drop(gcc, p, now_us)
    if has_received:
        _update_window(gcc, p)

"""The receiving end of a flow, and the sender when a message reaches it."""

from __future__ import annotations

import numpy as np

from bwe_env.gcc.controller import gcc_on_feedback, gcc_on_loss_report, gcc_on_rtt
from bwe_env.sim._jit import NEVER, Record, entry, kernel
from bwe_env.sim.accounts import account_arrived, account_inbound, account_reported
from bwe_env.sim.audio import audio_on_packet
from bwe_env.sim.decision import apply_decision, follow_gcc
from bwe_env.sim.encoder import encoder_on_key_request
from bwe_env.sim.events import (
    EVENT_CONSENT_ARRIVAL,
    EVENT_DROP,
    EVENT_MESSAGE_ARRIVAL,
    EVENT_PACKET_ARRIVAL,
    EVENT_REPAIR,
    EVENT_REPORT,
    EVENT_RTCP,
)
from bwe_env.sim.fec import fec_class_of, fec_on_loss, fec_on_parity, fec_recoverable
from bwe_env.sim.link import link_empty_us
from bwe_env.sim.monitor import monitor_on_report
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    FATE_PENDING,
    KIND_AUDIO,
    KIND_FEC,
    KIND_RTX,
    KIND_VIDEO,
    REPORT_RECEIVED_NOW,
)
from bwe_env.sim.receiver import (
    receiver_is_blocked,
    receiver_on_repaired,
    receiver_on_video,
    receiver_show_due,
    receiver_wants_key,
)
from bwe_env.sim.repair import (
    POLL_INTERVAL_US,
    repair_add_gap,
    repair_forget,
    repair_on_late,
    repair_take_due,
    repair_take_passed,
)
from bwe_env.sim.reverse_path import (
    MESSAGE_CONSENT,
    MESSAGE_DECISION,
    MESSAGE_KEY_REQUEST,
    MESSAGE_NACK,
    MESSAGE_REPORT,
    MESSAGE_RTCP,
    NACK_SPAN,
    mailbox_next_us,
    message_send,
)
from bwe_env.sim.send_history import first_reportable_seq, send_history_report
from bwe_env.sim.sender import schedule_pacer, sender_on_nack

# The receiver's report interval, libwebrtc M150 (modules/remote_bitrate_estimator/
# transport_sequence_number_feedback_generator.cc): 5 % of the estimate goes to reports of 68 bytes.
FIRST_REPORT_US = 100_000
MIN_REPORT_INTERVAL_US = 50_000
MAX_REPORT_INTERVAL_US = 250_000
_REPORT_BITS = 68 * 8
_REPORT_SHARE = 0.05


@kernel
def _send(
    call: Record,
    flow: Record,
    messages: np.ndarray,
    kind: int,
    a: int,
    b: int,
    now_us: int,
    c: int = 0,
) -> None:
    message_send(flow.mailbox, messages, call.reverse, call.relay, call.key, kind, a, b, c, now_us)
    flow.timers_us[EVENT_MESSAGE_ARRIVAL] = mailbox_next_us(flow.mailbox, messages)


@kernel
def _ask_for_missing(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    messages: np.ndarray,
    newest_seq: int,
    now_us: int,
) -> None:
    """NACK what is due of the missing packets.

    Args:
        newest_seq: the packet that has just arrived, for what it makes due; -1 for a look at all.
    """
    repair = flow.repair
    rtt_us = flow.receiver.rtt_us
    first_seq = -1
    wanted = 0
    for index in range(repair.num_missing):
        if newest_seq < 0:
            is_due = repair_take_due(repair, index, rtt_us, now_us)
        else:
            is_due = repair_take_passed(repair, packets, index, newest_seq, rtt_us, now_us)
        if not is_due:
            continue
        seq = repair.missing[index].seq
        ahead = seq - first_seq - 1
        if first_seq >= 0 and ahead < NACK_SPAN:
            wanted |= 1 << ahead
            continue
        if first_seq >= 0:
            _send(call, flow, messages, MESSAGE_NACK, first_seq, wanted, now_us)
        first_seq = seq
        wanted = 0
    if first_seq >= 0:
        _send(call, flow, messages, MESSAGE_NACK, first_seq, wanted, now_us)


@kernel
def _look_at_gap(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    messages: np.ndarray,
    previous_seq: int,
    seq: int,
    now_us: int,
) -> None:
    """Video packet `seq` is newer than all others: NACK what it makes due, or want a key frame.

    The list begins with the first packet that arrives (nack_requester.cc): what was lost before
    it, only a key frame replaces.
    """
    if flow.repair_enabled == 0 or previous_seq < 0:
        return
    receiver = flow.receiver
    repair = flow.repair
    if repair.num_unasked > 0:  # FEC may have brought them
        oldest_seq = flow.history.next_seq - len(packets)
        repair_forget(repair, packets, oldest_seq, receiver.next_frame)
    if not repair_add_gap(repair, packets, previous_seq + 1, seq - 1, now_us):
        receiver.needs_key = 1
        receiver.key_requests += 1
        receiver.last_request_us = now_us
        _send(call, flow, messages, MESSAGE_KEY_REQUEST, 0, 0, now_us)
    elif repair.num_unasked > 0:
        _ask_for_missing(call, flow, packets, messages, seq, now_us)


@kernel
def _recover(
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    block: int,
    parity: int,
    now_us: int,
) -> None:
    """Bring back what one class of a FEC block lacks, if that is one packet."""
    oldest_seq = flow.history.next_seq - len(packets)
    seq = fec_recoverable(flow.fec, packets, block, parity, oldest_seq)
    if seq < 0:
        return
    lost = packets[seq & (len(packets) - 1)]
    lost.is_repaired = 1
    flow.totals.fec_recovered += 1
    receiver_on_repaired(flow.receiver, frames, lost.frame, now_us)


@kernel
def _recover_class_of(
    flow: Record, packets: np.ndarray, frames: np.ndarray, seq: int, now_us: int
) -> None:
    """Packet `seq` came late: perhaps its class now lacks but one."""
    block, parity = fec_class_of(flow.fec, packets, seq)
    if block >= 0:
        _recover(flow, packets, frames, block, parity, now_us)


@kernel
def _on_overtaken_video(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    messages: np.ndarray,
    seq: int,
    now_us: int,
) -> None:
    """Video packet `seq` itself, not a repeat, has arrived after packets sent later."""
    receiver = flow.receiver
    packet = packets[seq & (len(packets) - 1)]
    previous = receiver.newest_video_seq
    requests = 0
    if seq < previous and flow.repair_enabled == 1:
        requests = repair_on_late(flow.repair, packets, seq, previous)
    if packet.is_repaired == 0:
        if requests > 0:
            # Its frame waited for a repair (nack_requester.cc, OnReceivedPacket: times_nacked).
            receiver_on_repaired(receiver, frames, packet.frame, now_us)
        else:
            receiver_on_video(receiver, frames, packet.frame, now_us)
        if flow.fec.enabled == 1:
            _recover_class_of(flow, packets, frames, seq, now_us)
    if seq > previous:
        receiver.newest_video_seq = seq
        _look_at_gap(call, flow, packets, messages, previous, seq, now_us)


@kernel
def on_packet_arrival(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    messages: np.ndarray,
    now_us: int,
) -> None:
    """The next packet of this flow is at the receiver; set the timer for the one after it."""
    mask = len(packets) - 1
    seq = flow.next_arrival_seq
    packet = packets[seq & mask]
    packet.fate = FATE_DELIVERED
    account_arrived(flow.totals, flow.interval, packet)
    receiver = flow.receiver
    if receiver.next_show_us <= now_us:
        receiver_show_due(receiver, frames, now_us)
    if receiver.newest_seq < 0 or seq < receiver.report_seq:
        # What was lost before the first arrival is never told of. A late packet takes the report
        # back to itself (transport_sequence_number_feedback_generator.cc, OnReceivedPacket).
        receiver.report_seq = seq
    receiver.newest_seq = max(receiver.newest_seq, seq)
    flow.newest_forward_us = packet.arrival_us - packet.send_us
    if packet.kind == KIND_VIDEO:
        if seq < receiver.newest_seq:
            _on_overtaken_video(call, flow, packets, frames, messages, seq, now_us)
        else:
            previous = receiver.newest_video_seq
            receiver.newest_video_seq = seq
            receiver_on_video(receiver, frames, packet.frame, now_us)
            if seq - previous > 1 or flow.repair.num_unasked > 0:
                _look_at_gap(call, flow, packets, messages, previous, seq, now_us)
    elif packet.kind == KIND_RTX:
        original_seq = seq - packet.repairs
        original = packets[original_seq & mask]
        is_forgotten = original_seq < flow.history.next_seq - len(packets)
        if is_forgotten or original.is_repaired == 1 or original.fate == FATE_DELIVERED:
            flow.totals.duplicate_packets += 1
        else:
            original.is_repaired = 1
            receiver_on_repaired(receiver, frames, packet.frame, now_us)
            if flow.fec.enabled == 1:
                _recover_class_of(flow, packets, frames, original_seq, now_us)
    elif packet.kind == KIND_FEC and fec_on_parity(flow.fec, packet.frame, packet.repairs):
        _recover(flow, packets, frames, packet.frame, packet.repairs, now_us)
    elif packet.kind == KIND_AUDIO:
        # The microphone's frames leave at whole multiples of their length.
        number = packet.send_us // flow.audio_interval_us
        audio_on_packet(flow.audio, number, now_us, packet.repairs)
    if flow.timers_us[EVENT_REPAIR] == NEVER and (
        flow.repair.num_missing > 0 or receiver_is_blocked(receiver)
    ):
        flow.timers_us[EVENT_REPAIR] = now_us + POLL_INTERVAL_US

    schedule_next_arrival(flow, packets)


@kernel
def time_arrival(flow: Record, seq: int, arrival_us: int) -> None:
    """Packet `seq` has left the bottleneck: its arrival is the next if none comes before it."""
    if arrival_us < flow.timers_us[EVENT_PACKET_ARRIVAL]:  # at the same time: in order of number
        flow.timers_us[EVENT_PACKET_ARRIVAL] = arrival_us
        flow.next_arrival_seq = seq


@kernel
def schedule_next_arrival(flow: Record, packets: np.ndarray) -> None:
    """Time the next arrival among the packets that have left the bottleneck."""
    mask = len(packets) - 1
    # Rows that have been overwritten held losses: nothing pending is ever overwritten.
    seq = max(flow.first_pending_seq, flow.history.next_seq - len(packets))
    while seq < flow.history.next_seq and packets[seq & mask].fate != FATE_PENDING:
        seq += 1
    flow.first_pending_seq = seq
    next_us = NEVER
    while seq < flow.history.next_seq:
        packet = packets[seq & mask]
        if packet.fate == FATE_PENDING:
            if packet.arrival_us == NEVER:
                break  # the queue is first in, first out: all after it are still in it
            if packet.arrival_us < next_us:
                next_us = packet.arrival_us
                flow.next_arrival_seq = seq
            if flow.may_overtake == 0:
                break
        seq += 1
    flow.timers_us[EVENT_PACKET_ARRIVAL] = next_us


@kernel
def on_report_timer(call: Record, flow: Record, messages: np.ndarray, now_us: int) -> None:
    """Build transport feedback on what has arrived since the last one, if anything has.

    The adaptive interval follows the receiver's own uplink estimate in libwebrtc; a call is taken
    as symmetric here, so the sender's target stands in for it.
    """
    receiver = flow.receiver
    if receiver.newest_seq >= receiver.report_seq:
        _send(
            call, flow, messages, MESSAGE_REPORT, receiver.report_seq, receiver.newest_seq, now_us
        )
        receiver.report_seq = receiver.newest_seq + 1
    interval_us = flow.feedback_interval_us
    if interval_us == 0:
        wanted_us = int(1e6 * _REPORT_BITS / (_REPORT_SHARE * flow.target_rate_bps))
        interval_us = min(MAX_REPORT_INTERVAL_US, max(MIN_REPORT_INTERVAL_US, wanted_us))
    flow.timers_us[EVENT_REPORT] = now_us + interval_us


@kernel
def _delay_of_newest_sent_us(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> int:
    """One-way delay of the newest packet that found room in the queue, wherever it is now."""
    link = call.link
    queue_delay_us = flow.totals.newest_queue_delay_us
    if link.head < link.tail:
        entry = queue[(link.tail - 1) & (len(queue) - 1)]
        send_us = packets[entry.seq & (len(packets) - 1)].send_us
        queue_delay_us = link_empty_us(link, segments, queue, now_us) - send_us
    propagation_us = call.forward.delay.propagation_us + call.relay.forward.delay.propagation_us
    return int(queue_delay_us + propagation_us)


@kernel
def on_rtcp_timer(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    messages: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """Send a receiver report: packets lost and received since the last one."""
    newest = flow.receiver.newest_seq
    expected = newest - flow.rtcp_newest_seq
    received = flow.totals.fate_packets[FATE_DELIVERED] - flow.rtcp_received_base
    if expected > 0:
        lost = max(0, expected - received)
        flow.rtcp_newest_seq = newest
        flow.rtcp_received_base = flow.totals.fate_packets[FATE_DELIVERED]
        if flow.rtt_of_sent == 1:
            # In this model an RTT knows neither jitter nor outages of the reverse path.
            reverse_us = call.reverse.delay.propagation_us + call.relay.reverse.delay.propagation_us
            delay_us = reverse_us + _delay_of_newest_sent_us(
                call, flow, packets, queue, segments, now_us
            )
        else:
            delay_us = flow.newest_forward_us
        _send(call, flow, messages, MESSAGE_RTCP, lost, received, now_us, delay_us)
    flow.timers_us[EVENT_RTCP] = now_us + flow.rtcp_interval_us


@kernel
def on_repair_timer(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    messages: np.ndarray,
    now_us: int,
) -> None:
    """Ask again for what is still missing, or for a key frame when the picture stands."""
    receiver = flow.receiver
    oldest_seq = flow.history.next_seq - len(packets)
    repair_forget(flow.repair, packets, oldest_seq, receiver.next_frame)
    _ask_for_missing(call, flow, packets, messages, -1, now_us)
    receiver_show_due(receiver, frames, now_us)
    is_blocked = receiver_is_blocked(receiver)
    if is_blocked and receiver_wants_key(receiver, now_us):
        _send(call, flow, messages, MESSAGE_KEY_REQUEST, 0, 0, now_us)
    if is_blocked or flow.repair.num_missing > 0:
        flow.timers_us[EVENT_REPAIR] = now_us + POLL_INTERVAL_US
    else:
        flow.timers_us[EVENT_REPAIR] = NEVER


@kernel
def on_consent_arrival(call: Record, flow: Record, messages: np.ndarray, now_us: int) -> None:
    """A consent check is at the receiver, which answers at once."""
    flow.timers_us[EVENT_CONSENT_ARRIVAL] = NEVER
    account_inbound(flow.totals, now_us)
    _send(call, flow, messages, MESSAGE_CONSENT, 0, 0, now_us)


@entry
def send_decision(
    call: Record, flow: Record, messages: np.ndarray, target_rate_bps: int, now_us: int
) -> None:
    """A receiver-side estimator's decision sets out on the reverse path."""
    _send(call, flow, messages, MESSAGE_DECISION, target_rate_bps, 0, now_us)


@kernel
def _tell_by_receiver_clock(
    flow: Record, packets: np.ndarray, first_seq: int, last_seq: int
) -> None:
    """The receive times of a report are by the receiver's clock: what the sender reads from now on.

    Whatever needs the true ones has taken them at the arrival.
    """
    mask = len(packets) - 1
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        if packet.report_state == REPORT_RECEIVED_NOW:
            packet.arrival_us += int(packet.arrival_us * flow.clock_skew)


@kernel
def _on_report(
    flow: Record, packets: np.ndarray, first_seq: int, last_seq: int, built_us: int, now_us: int
) -> None:
    history = flow.history
    first_seq = first_reportable_seq(history, packets, first_seq)
    if first_seq > last_seq:
        return
    send_history_report(history, packets, first_seq, last_seq, built_us)
    if flow.clock_skew != 0.0:
        _tell_by_receiver_clock(flow, packets, first_seq, last_seq)
    flow.report_first_seq = first_seq
    flow.report_last_seq = last_seq
    flow.report_built_us = built_us
    known_lost = flow.monitor.lost_packets
    monitor_on_report(flow.monitor, packets, first_seq, last_seq, now_us)
    if flow.monitor.lost_packets > known_lost:
        account_reported(flow.interval, packets, first_seq, last_seq)
    gcc_on_feedback(
        flow.gcc,
        flow.gcc_parameters,
        packets,
        first_seq,
        last_seq,
        history.in_flight_bytes,
        now_us,
    )
    follow_gcc(flow, now_us)


@kernel
def _on_rtcp(
    flow: Record, lost: int, received: int, delay_us: int, built_us: int, now_us: int
) -> None:
    """The RTT is the forward delay of the newest packet the report knew and the report's own."""
    rtt_us = delay_us
    if flow.rtt_of_sent == 0:
        rtt_us += now_us - built_us
    flow.rtt_us = rtt_us
    flow.receiver.rtt_us = rtt_us
    fec_on_loss(flow.fec, lost, received, now_us)
    gcc_on_rtt(flow.gcc, flow.gcc_parameters, rtt_us, now_us)
    gcc_on_loss_report(flow.gcc, flow.gcc_parameters, lost, received, now_us)
    follow_gcc(flow, now_us)


@kernel
def on_message_arrival(flow: Record, packets: np.ndarray, messages: np.ndarray, now_us: int) -> int:
    """The head of the reverse path reaches the sender.

    Returns:
        The message's kind, so that the caller can pause for an external estimator.
    """
    mailbox = flow.mailbox
    message = messages[mailbox.head & (len(messages) - 1)]
    mailbox.head += 1
    flow.timers_us[EVENT_MESSAGE_ARRIVAL] = mailbox_next_us(mailbox, messages)
    kind = message.kind
    if kind == MESSAGE_REPORT:
        _on_report(flow, packets, message.a, message.b, message.built_us, now_us)
        schedule_pacer(flow, now_us)
    elif kind == MESSAGE_RTCP:
        _on_rtcp(flow, message.a, message.b, message.c, message.built_us, now_us)
        schedule_pacer(flow, now_us)
    elif kind == MESSAGE_NACK:
        sender_on_nack(flow, packets, message.a, message.b, now_us)
    elif kind == MESSAGE_KEY_REQUEST:
        encoder_on_key_request(flow.encoder, now_us)
    elif kind == MESSAGE_CONSENT:
        flow.last_consent_us = now_us
        flow.timers_us[EVENT_DROP] = now_us + flow.drop_timeout_us
    elif kind == MESSAGE_DECISION:
        apply_decision(flow, message.a, 0, 0, 0, now_us)
        schedule_pacer(flow, now_us)
    return int(kind)

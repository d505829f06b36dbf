"""The sender: frames become packets, the pacer lets them go, the network takes them."""

from __future__ import annotations

import math

import numpy as np

from bwe_env.gcc.controller import gcc_on_packet_sent
from bwe_env.sim._jit import NEVER, Record, entry, kernel
from bwe_env.sim.accounts import account_lost, account_refused, account_sent
from bwe_env.sim.decision import apply_decision, follow_gcc
from bwe_env.sim.encoder import encoder_drops_frame, encoder_make_frame
from bwe_env.sim.events import EVENT_AUDIO, EVENT_FRAME, EVENT_PACER
from bwe_env.sim.flow import CONTROLLER_GCC
from bwe_env.sim.link import link_enqueue
from bwe_env.sim.loss import loss_strikes
from bwe_env.sim.pacer import (
    RTX_QUEUE_LENGTH,
    pacer_elapse,
    pacer_expected_queue_us,
    pacer_next_send_us,
    pacer_on_sent,
    pacer_padding_bytes,
    pacer_queue_frame,
    pacer_queue_rtx,
    pacer_unqueue,
)
from bwe_env.sim.packet import (
    FATE_PENDING,
    FATE_RANDOM_LOSS,
    KIND_AUDIO,
    KIND_PADDING,
    KIND_RTX,
    KIND_VIDEO,
)
from bwe_env.sim.prober import prober_burst_bytes, prober_on_burst_sent, prober_on_packet_queued
from bwe_env.sim.receiver import receiver_give_up
from bwe_env.sim.rng import STREAM_FORWARD_LOSS
from bwe_env.sim.send_history import send_history_add

#: Payload of a padding packet: plain padding is 224 bytes (kMaxPaddingLength, rtp_sender.h), a
#: larger need is met by repeating media, so anything up to a full packet (kMaxPayloadPadding).
MIN_PADDING_BYTES = 224
#: A retransmission repeats the packet behind its 2-byte original sequence number (RFC 4588 §4).
RTX_HEADER_BYTES = 2
#: Weight per frame of the smoothed retransmission rate: about one second at 30 fps (ours).
RTX_RATE_WEIGHT = 1.0 / 30.0
#: Retransmissions may take at most this share of the target from the encoder
#: (libwebrtc call/rtp_video_sender.cc: protection overhead is capped at 50 %).
MAX_REPAIR_SHARE = 0.5
NO_CLUSTER = -1
NO_FRAME = -1


@kernel
def send_packet(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    kind: int,
    size_bytes: int,
    frame: int,
    repairs: int,
    cluster: int,
    now_us: int,
) -> None:
    """Hand one packet to the network, and tell the accounts and GCC."""
    mask = len(packets) - 1
    next_seq = flow.history.next_seq
    if next_seq >= len(packets) and packets[next_seq & mask].fate == FATE_PENDING:
        # A ring's length of packets is stuck behind this one: the socket refuses (ENOBUFS).
        account_refused(flow.totals, flow.interval, kind, size_bytes)
        return
    seq = send_history_add(flow.history, packets, size_bytes)
    packet = packets[seq & mask]
    packet.send_us = now_us
    packet.arrival_us = NEVER
    packet.frame = frame
    packet.repairs = repairs
    packet.probe_cluster = cluster
    packet.kind = kind
    packet.is_repaired = 0
    account_sent(flow.totals, flow.interval, kind, size_bytes)
    flow.monitor.sent_bytes += size_bytes
    if call.link.loss_before_queue == 1 and loss_strikes(
        call.forward.loss, call.key, STREAM_FORWARD_LOSS
    ):
        packet.fate = FATE_RANDOM_LOSS
    else:
        packet.fate = link_enqueue(call.link, segments, queue, flow.number, seq, size_bytes, now_us)
    if packet.fate != FATE_PENDING:
        account_lost(flow.totals, flow.interval, packet)
    gcc_on_packet_sent(
        flow.gcc, flow.gcc_parameters, size_bytes, flow.history.in_flight_bytes, now_us
    )
    follow_gcc(flow, now_us)


@kernel
def packet_payload_bytes(frame: Record, index: int) -> int:
    """Media bytes in packet `index` of a frame split into equal packets."""
    size = frame.size_bytes // frame.num_packets
    if index < frame.size_bytes % frame.num_packets:
        size += 1
    return int(size)


@kernel
def media_rate_bps(flow: Record) -> float:
    """What the target leaves for coded video after audio, headers and retransmissions.

    libwebrtc takes the packet overhead off in call/rtp_video_sender.cc (CalculateOverheadRate) and
    the protection share in the same file; here the packets per frame are counted exactly.
    """
    target_bps = float(flow.target_rate_bps)
    header_bytes = flow.rtp_header_bytes + flow.overhead_bytes
    if flow.audio_interval_us > 0:
        audio_bytes = flow.audio_payload_bytes + header_bytes
        target_bps -= audio_bytes * 8e6 / flow.audio_interval_us
    target_bps -= min(flow.rtx_rate_bps, MAX_REPAIR_SHARE * max(0.0, target_bps))
    frames_per_s = 1e6 / flow.encoder.frame_interval_us
    frame_bytes = max(0.0, target_bps) * 0.125 / frames_per_s
    packets_per_frame = math.ceil(frame_bytes / (flow.mtu_bytes + flow.overhead_bytes))
    return target_bps - 8.0 * frames_per_s * header_bytes * max(1, packets_per_frame)


@kernel
def sender_on_frame(flow: Record, frames: np.ndarray, now_us: int) -> None:
    """The camera delivers a frame: code it, or skip it, and schedule the next."""
    encoder = flow.encoder
    encoder.captured += 1
    flow.timers_us[EVENT_FRAME] = int(encoder.captured * encoder.frame_interval_us + 0.5)
    rtx_bps = flow.rtx_bytes * 8e6 / encoder.frame_interval_us
    flow.rtx_rate_bps += RTX_RATE_WEIGHT * (rtx_bps - flow.rtx_rate_bps)
    flow.rtx_bytes = 0

    rate_bps = media_rate_bps(flow)
    if flow.controller == CONTROLLER_GCC:
        ratio = flow.gcc.cwnd_reduce_ratio
        if encoder_drops_frame(encoder, ratio):
            flow.totals.skipped_frames += 1
            return
    # A window may hold the pacer back for longer than its queue says: keep its frames' rows.
    is_full = encoder.next_frame - flow.pacer.frame >= len(frames) - 1
    if is_full or pacer_expected_queue_us(flow.pacer) > flow.pacer.queue_time_limit_us:
        flow.totals.skipped_frames += 1
        return
    number = encoder.next_frame
    # A frame this old leaves the receiver's buffer; only a key frame gets past the hole.
    receiver_give_up(flow.receiver, number - len(frames) + 1)
    frame = frames[number & (len(frames) - 1)]
    size_bytes = encoder_make_frame(encoder, frame, rate_bps, now_us, flow.key)
    payload_limit = flow.mtu_bytes - flow.rtp_header_bytes
    num_packets = (size_bytes + payload_limit - 1) // payload_limit
    frame.num_packets = num_packets
    header_bytes = flow.rtp_header_bytes + flow.overhead_bytes
    if flow.pacer.queue_packets == 0:
        pacer_elapse(flow.pacer, now_us)
    pacer_queue_frame(flow.pacer, size_bytes + num_packets * header_bytes, num_packets, now_us)
    prober_on_packet_queued(flow.pacer.prober, packet_payload_bytes(frame, 0) + header_bytes)
    schedule_pacer(flow, now_us)


@kernel
def schedule_pacer(flow: Record, now_us: int) -> None:
    """Set the pacer's timer to the time of its next packet."""
    flow.timers_us[EVENT_PACER] = pacer_next_send_us(
        flow.pacer, flow.history.in_flight_bytes, now_us
    )


@entry
def decide_externally(
    flow: Record,
    target_rate_bps: int,
    pacing_rate_bps: int,
    padding_rate_bps: int,
    cwnd_bytes: int,
    now_us: int,
) -> None:
    """Let a Python estimator's decision act, in the middle of an interval."""
    apply_decision(flow, target_rate_bps, pacing_rate_bps, padding_rate_bps, cwnd_bytes)
    schedule_pacer(flow, now_us)


@kernel
def sender_on_nack(
    flow: Record,
    packets: np.ndarray,
    first_seq: int,
    last_seq: int,
    built_us: int,
    now_us: int,
) -> None:
    """Queue retransmissions of the video packets a NACK asks for."""
    mask = len(packets) - 1
    first_seq = max(first_seq, flow.history.next_seq - len(packets))
    if flow.pacer.queue_packets == 0:
        pacer_elapse(flow.pacer, now_us)
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        if packet.kind != KIND_VIDEO or packet.arrival_us <= built_us or packet.is_repaired == 1:
            continue
        flow.monitor.nacked_packets += 1
        if not pacer_queue_rtx(flow.pacer, seq, packet.size_bytes + RTX_HEADER_BYTES, now_us):
            flow.totals.dropped_rtx += 1
    schedule_pacer(flow, now_us)


@kernel
def _send_media(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    cluster: int,
    now_us: int,
) -> int:
    """Send the packet at the head of the pacer's queue: a retransmission first, else video.

    Returns:
        Its size on the wire.
    """
    pacer = flow.pacer
    mask = len(packets) - 1
    if pacer.rtx_head < pacer.rtx_tail:
        slot = pacer.rtx_head % RTX_QUEUE_LENGTH
        original = pacer.rtx_seq[slot]
        packet = packets[original & mask]
        size_bytes = packet.size_bytes + RTX_HEADER_BYTES
        pacer_unqueue(pacer, size_bytes, pacer.rtx_queued_us[slot])
        pacer.rtx_head += 1
        repairs = flow.history.next_seq - original
        if repairs >= len(packets):
            return 0
        flow.rtx_bytes += size_bytes
        frame_number = packet.frame
        kind = KIND_RTX
    else:
        frame_number = pacer.frame
        frame = frames[frame_number & (len(frames) - 1)]
        header_bytes = flow.rtp_header_bytes + flow.overhead_bytes
        size_bytes = packet_payload_bytes(frame, pacer.frame_packet) + header_bytes
        pacer_unqueue(pacer, size_bytes, frame.capture_us)
        pacer.frame_packet += 1
        if pacer.frame_packet == frame.num_packets:
            pacer.frame += 1
            pacer.frame_packet = 0
        repairs = 0
        kind = KIND_VIDEO
    send_packet(
        call,
        flow,
        packets,
        queue,
        segments,
        kind,
        size_bytes,
        frame_number,
        repairs,
        cluster,
        now_us,
    )
    pacer_on_sent(pacer, size_bytes, now_us)
    return int(size_bytes)


@kernel
def _send_padding(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    wanted_bytes: int,
    cluster: int,
    now_us: int,
) -> int:
    """Send one padding packet of about the wanted size; returns its size on the wire."""
    payload_limit = flow.mtu_bytes - flow.rtp_header_bytes
    payload_bytes = min(payload_limit, max(MIN_PADDING_BYTES, wanted_bytes))
    size_bytes = payload_bytes + flow.rtp_header_bytes + flow.overhead_bytes
    send_packet(
        call,
        flow,
        packets,
        queue,
        segments,
        KIND_PADDING,
        size_bytes,
        NO_FRAME,
        0,
        cluster,
        now_us,
    )
    pacer_on_sent(flow.pacer, size_bytes, now_us)
    return int(size_bytes)


@kernel
def _send_probe_burst(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """One burst of the present probe cluster: waiting media first, padding for the rest."""
    prober = flow.pacer.prober
    cluster = prober.clusters[prober.head]
    cluster_id = cluster.id
    wanted_bytes = prober_burst_bytes(prober)
    sent_bytes = 0
    if cluster.sent_bytes == 0:
        # A small packet opens the cluster, so that its first gap counts (pacing_controller.cc).
        sent_bytes += _send_padding(call, flow, packets, queue, segments, 1, cluster_id, now_us)
    while sent_bytes < wanted_bytes:
        if flow.pacer.queue_packets > 0:
            sent_bytes += _send_media(
                call,
                flow,
                packets,
                frames,
                queue,
                segments,
                cluster_id,
                now_us,
            )
        else:
            sent_bytes += _send_padding(
                call,
                flow,
                packets,
                queue,
                segments,
                wanted_bytes - sent_bytes,
                cluster_id,
                now_us,
            )
    prober_on_burst_sent(prober, sent_bytes, now_us)


@kernel
def sender_on_pacer(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """Send all that is due now: a probe burst, media within the burst window, or padding."""
    pacer = flow.pacer
    pacer_elapse(pacer, now_us)
    while True:
        next_us = pacer_next_send_us(pacer, flow.history.in_flight_bytes, now_us)
        if next_us > now_us:
            break
        if pacer.prober.is_active == 1:
            _send_probe_burst(call, flow, packets, frames, queue, segments, now_us)
        elif pacer.queue_packets > 0:
            _send_media(
                call,
                flow,
                packets,
                frames,
                queue,
                segments,
                NO_CLUSTER,
                now_us,
            )
        else:
            _send_padding(
                call,
                flow,
                packets,
                queue,
                segments,
                pacer_padding_bytes(pacer),
                NO_CLUSTER,
                now_us,
            )
    flow.timers_us[EVENT_PACER] = next_us


@kernel
def sender_on_audio(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """One Opus frame leaves at once."""
    size_bytes = flow.audio_payload_bytes + flow.rtp_header_bytes + flow.overhead_bytes
    send_packet(
        call,
        flow,
        packets,
        queue,
        segments,
        KIND_AUDIO,
        size_bytes,
        NO_FRAME,
        0,
        NO_CLUSTER,
        now_us,
    )
    flow.timers_us[EVENT_AUDIO] = now_us + flow.audio_interval_us

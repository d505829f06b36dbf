"""The sender: frames become packets, the pacer lets them go, the network takes them."""

from __future__ import annotations

import numpy as np

from bwe_env.gcc.controller import gcc_on_packet_sent
from bwe_env.sim._jit import NEVER, Record, entry, kernel
from bwe_env.sim.accounts import account_lost, account_refused, account_sent
from bwe_env.sim.decision import apply_decision, follow_gcc
from bwe_env.sim.encoder import (
    encoder_drop_interval,
    encoder_drops_frame,
    encoder_frame_rate_hz,
    encoder_is_too_coarse,
    encoder_make_frame,
)
from bwe_env.sim.events import EVENT_AUDIO, EVENT_FRAME, EVENT_PACER
from bwe_env.sim.fec import (
    BLOCK_RING,
    FEC_HEADER_BYTES,
    MAX_BLOCK_PACKETS,
    fec_block_is_full,
    fec_end_block,
    fec_on_media,
    fec_protection,
)
from bwe_env.sim.flow import CONTROLLER_EXTERNAL
from bwe_env.sim.link import link_enqueue
from bwe_env.sim.monitor import monitor_on_sent
from bwe_env.sim.pacer import (
    MAX_PADDING_REPLAY_US,
    RTX_QUEUE_LENGTH,
    pacer_average_packet,
    pacer_early_us,
    pacer_elapse,
    pacer_expected_queue_us,
    pacer_has_rtx,
    pacer_is_blocked,
    pacer_next_send_us,
    pacer_on_audio,
    pacer_on_sent,
    pacer_padding_bytes,
    pacer_plan_wake,
    pacer_queue_fec,
    pacer_queue_packets,
    pacer_queue_rtx,
    pacer_unqueue,
    pacer_update_media_rate,
)
from bwe_env.sim.packet import (
    FATE_PENDING,
    FATE_RANDOM_LOSS,
    KIND_AUDIO,
    KIND_FEC,
    KIND_PADDING,
    KIND_RTX,
    KIND_VIDEO,
)
from bwe_env.sim.path import path_loses
from bwe_env.sim.prober import (
    prober_begin_burst,
    prober_burst_bytes,
    prober_give_up,
    prober_on_burst_sent,
    prober_on_packet_queued,
)
from bwe_env.sim.receiver import receiver_give_up
from bwe_env.sim.red import red_copies, red_payload_bytes
from bwe_env.sim.retransmit import (
    REPEAT_NOW,
    REPEAT_TOO_MUCH,
    retransmit_on_sent,
    retransmit_verdict,
)
from bwe_env.sim.rng import STREAM_FORWARD_LOSS
from bwe_env.sim.send_history import send_history_add

#: Padding of at least so many bytes repeats the last video packet (kMinPayloadPaddingBytes,
#: modules/rtp_rtcp/source/rtp_sender.cc), unless that is larger than this many times the need
#: (kDefaultMaxPaddingSizeFactor, same file).
MIN_REPEAT_BYTES = 50
MAX_PADDING_FACTOR = 3
#: A retransmission repeats the packet behind its 2-byte original sequence number (RFC 4588 §4).
RTX_HEADER_BYTES = 2
#: Weight per frame of the smoothed rate of RTX and FEC: about one second at 30 fps (ours).
PROTECTION_RATE_WEIGHT = 1.0 / 30.0
#: RTX and FEC may take at most this share of the target from the encoder
#: (libwebrtc call/rtp_video_sender.cc: protection overhead is capped at 50 %).
MAX_PROTECTION_SHARE = 0.5
NO_CLUSTER = -1
NO_FRAME = -1


@kernel
def socket_is_full(flow: Record, packets: np.ndarray) -> bool:
    """Whether a ring's length of packets is stuck behind the next one's row."""
    next_seq = flow.history.next_seq
    return bool(
        next_seq >= len(packets) and packets[next_seq & (len(packets) - 1)].fate == FATE_PENDING
    )


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
    if socket_is_full(flow, packets):  # it refuses (ENOBUFS)
        account_refused(flow.totals, flow.interval, kind, size_bytes)
        if kind == KIND_VIDEO:
            # Nobody can ask for a packet without a number: its frame is given up for a key frame.
            flow.encoder.is_key_requested = 1
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
    monitor_on_sent(flow.monitor, size_bytes)
    if call.link.loss_before_queue == 1 and path_loses(
        call.forward, call.key, STREAM_FORWARD_LOSS, now_us
    ):
        packet.fate = FATE_RANDOM_LOSS
    else:
        link_bytes = size_bytes + flow.uncounted_bytes
        packet.fate = link_enqueue(call.link, segments, queue, flow.number, seq, link_bytes, now_us)
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
def _audio_copies(flow: Record) -> int:
    """Frames of the past in an audio packet, once there are so many."""
    header_bytes = flow.rtp_header_bytes + flow.overhead_bytes
    return int(red_copies(flow.audio_redundancy, flow.audio_payload_bytes, header_bytes))


@kernel
def _audio_packet_bytes(flow: Record, copies: int) -> int:
    """An audio packet on the wire, `copies` frames beside its own in it."""
    payload_bytes = red_payload_bytes(flow.audio_redundancy, copies, flow.audio_payload_bytes)
    return int(payload_bytes + flow.rtp_header_bytes + flow.overhead_bytes)


@kernel
def media_budget(flow: Record, target_bps: float) -> tuple[float, int]:
    """What a target rate leaves for coded video after audio, headers, RTX and FEC.

    libwebrtc takes the packet overhead off in call/rtp_video_sender.cc (CalculateOverheadRate) and
    the protection share in the same file; here the packets per frame are counted exactly. Its
    audio allocation (audio/audio_send_stream.cc) leaves room for packet headers, but not for
    redundant frames; here these, too, come out of what video gets.

    Returns:
        The rate of coded video, and the packets per frame it was reckoned with.
    """
    header_bytes = flow.rtp_header_bytes + flow.overhead_bytes
    if flow.audio_interval_us > 0:
        audio_bytes = _audio_packet_bytes(flow, _audio_copies(flow))
        target_bps -= audio_bytes * 8e6 / flow.audio_interval_us
    target_bps -= min(flow.protection_rate_bps, MAX_PROTECTION_SHARE * max(0.0, target_bps))
    frames_per_s = encoder_frame_rate_hz(flow.encoder)
    frame_bytes = int(max(0.0, target_bps) * 0.125 / frames_per_s + 0.5)
    packet_bytes = flow.mtu_bytes + flow.overhead_bytes
    num_packets = max(1, (frame_bytes + packet_bytes - 1) // packet_bytes)
    return target_bps - 8.0 * frames_per_s * header_bytes * num_packets, num_packets


@kernel
def _queue_frame(flow: Record, frame: Record, now_us: int) -> None:
    """Let the packets of a coded frame wait in the pacer."""
    pacer = flow.pacer
    num_packets = frame.num_packets
    wire_bytes = frame.size_bytes + num_packets * (flow.rtp_header_bytes + flow.overhead_bytes)
    prober_on_packet_queued(pacer.prober, packet_payload_bytes(frame, 0))
    pacer_queue_packets(pacer, wire_bytes, num_packets, now_us)
    pacer_average_packet(pacer, wire_bytes / num_packets, num_packets)
    flow.timers_us[EVENT_PACER] = now_us


@kernel
def _packets_of_frame(flow: Record, size_bytes: int, rate_bps: float, planned: int) -> int:
    """As few as hold the frame; or as planned, if the frame is just what its rate says."""
    payload_limit = flow.mtu_bytes - flow.rtp_header_bytes
    if size_bytes == int(rate_bps * flow.encoder.frame_interval_us * 1.25e-7 + 0.5):
        return planned
    return int((size_bytes + payload_limit - 1) // payload_limit)


@kernel
def sender_on_frame(flow: Record, packets: np.ndarray, frames: np.ndarray, now_us: int) -> None:
    """The camera delivers a frame: code it, or skip it, and schedule the next."""
    encoder = flow.encoder
    encoder.captured += 1
    capture_us = int(encoder.captured * encoder.frame_interval_us + 0.5)
    flow.timers_us[EVENT_FRAME] = flow.camera_phase_us + capture_us
    protection_bps = flow.protection_bytes * 8e6 / encoder.frame_interval_us
    flow.protection_rate_bps += PROTECTION_RATE_WEIGHT * (protection_bps - flow.protection_rate_bps)
    flow.protection_bytes = 0
    if encoder.pause_from_us <= now_us < encoder.pause_until_us:
        return

    target_bps = float(flow.target_rate_bps)
    if flow.controller != CONTROLLER_EXTERNAL:
        interval = encoder_drop_interval(encoder, target_bps, flow.gcc.cwnd_reduce_ratio)
        if interval > 0:
            if encoder_drops_frame(encoder, interval):
                flow.totals.skipped_frames += 1
                return
            target_bps -= int(target_bps / interval + 0.5)
    # A window may hold the pacer back for longer than its queue says: keep its frames' rows.
    is_full = encoder.next_frame - flow.pacer.frame >= len(frames) - 1
    is_full = is_full or socket_is_full(flow, packets)
    if is_full or pacer_expected_queue_us(flow.pacer) > flow.pacer.queue_time_limit_us:
        flow.totals.skipped_frames += 1
        return
    if encoder.skips_frames == 1 and encoder_is_too_coarse(encoder):
        flow.totals.skipped_frames += 1
        return
    number = encoder.next_frame
    # A frame this old leaves the receiver's buffer; only a key frame gets past the hole.
    receiver_give_up(flow.receiver, number - len(frames) + 1)
    frame = frames[number & (len(frames) - 1)]
    rate_bps, planned = media_budget(flow, target_bps)
    rate_bps *= encoder.rate_share
    size_bytes = encoder_make_frame(encoder, frame, rate_bps, now_us, flow.key)
    frame.num_packets = _packets_of_frame(flow, size_bytes, rate_bps, planned)
    _queue_frame(flow, frame, now_us)


@kernel
def schedule_pacer(flow: Record, now_us: int) -> None:
    """Wake the pacer now if something may have changed that it waits for, else when planned."""
    pacer = flow.pacer
    if pacer.is_due == 1 or pacer.cwnd_bytes > 0:
        flow.timers_us[EVENT_PACER] = now_us
    else:
        flow.timers_us[EVENT_PACER] = pacer.wake_us


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
    apply_decision(flow, target_rate_bps, pacing_rate_bps, padding_rate_bps, cwnd_bytes, now_us)
    schedule_pacer(flow, now_us)


@kernel
def sender_on_nack(
    flow: Record,
    packets: np.ndarray,
    first_seq: int,
    others: int,
    now_us: int,
) -> None:
    """Queue repeats of the video packets a NACK asks for.

    Args:
        first_seq: the first of them.
        others: bit i stands for packet `first_seq` + 1 + i.
    """
    mask = len(packets) - 1
    wanted = 1 | others << 1
    seq = first_seq - 1
    is_giving_up = False
    while wanted > 0:
        seq += 1
        is_wanted = wanted & 1 == 1
        wanted >>= 1
        if not is_wanted:
            continue
        flow.monitor.nacked_packets += 1
        if is_giving_up or pacer_has_rtx(flow.pacer, seq):
            continue
        verdict = retransmit_verdict(
            flow.retransmit,
            packets,
            seq,
            flow.history.next_seq,
            flow.rtt_us,
            int(flow.rtx_rate_share * flow.target_rate_bps),
            flow.rtx_max_age_us,
            now_us,
        )
        is_giving_up = verdict == REPEAT_TOO_MUCH
        if verdict == REPEAT_NOW:
            size_bytes = packets[seq & mask].size_bytes + RTX_HEADER_BYTES
            if not pacer_queue_rtx(flow.pacer, seq, size_bytes, now_us):
                flow.totals.dropped_rtx += 1
    flow.timers_us[EVENT_PACER] = now_us


@kernel
def _protect(flow: Record, frame: Record, size_bytes: int, ends_frame: bool, now_us: int) -> None:
    """Count the video packet that was sent last into a block; queue parity if it ends one."""
    fec = flow.fec
    fec_on_media(fec, flow.history.next_seq - 1, size_bytes, frame.is_key)
    encoder = flow.encoder
    frame_rate_hz = encoder_frame_rate_hz(encoder)
    is_full = fec.num_media == MAX_BLOCK_PACKETS
    if ends_frame:
        fec.num_frames += 1
        is_full = is_full or fec_block_is_full(fec, flow.rtt_us, frame_rate_hz)
    if not is_full:
        return
    protection = fec_protection(
        fec,
        flow.rtt_us,
        float(frame.num_packets),
        encoder.rate_bps * 0.125 / frame_rate_hz,
        frame.pixels,
    )
    parity_bytes = fec.media_bytes + FEC_HEADER_BYTES
    num_parity = fec_end_block(fec, protection)
    if num_parity > 0:
        pacer_queue_fec(flow.pacer, parity_bytes, num_parity, now_us)


@kernel
def _plain_padding_bytes(flow: Record) -> int:
    """A padding packet of zeros on the wire."""
    return int(flow.padding_bytes + flow.rtp_header_bytes + flow.overhead_bytes)


@kernel
def _send_queued(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    cluster: int,
    now_us: int,
) -> int:
    """Send the packet at the head of the queue: a retransmission, else FEC, video, padding.

    Returns:
        Its size on the wire.
    """
    pacer = flow.pacer
    mask = len(packets) - 1
    seq = flow.history.next_seq
    ends_frame = False
    if pacer.rtx_head < pacer.rtx_tail:
        slot = pacer.rtx_head % RTX_QUEUE_LENGTH
        original = pacer.rtx_seq[slot]
        packet = packets[original & mask]
        size_bytes = pacer.rtx_bytes[slot]
        pacer_unqueue(pacer, size_bytes, pacer.rtx_queued_us[slot])
        pacer.rtx_head += 1
        repairs = flow.history.next_seq - original
        if repairs >= len(packets):
            return 0
        flow.protection_bytes += size_bytes
        frame_number = packet.frame
        kind = KIND_RTX
        if not socket_is_full(flow, packets):
            retransmit_on_sent(packets, original, flow.history.next_seq)
    elif pacer.fec_packets > 0:
        frame_number = flow.fec.next_block - 1
        repairs = flow.fec.blocks[frame_number % BLOCK_RING].num_parity - pacer.fec_packets
        size_bytes = pacer.fec_bytes
        kind = KIND_FEC
        pacer_unqueue(pacer, size_bytes, pacer.fec_since_us)
        pacer.fec_packets -= 1
        flow.protection_bytes += size_bytes
    elif pacer.repeats + pacer.plain_paddings == pacer.queue_packets:
        repairs = 0
        frame_number = NO_FRAME
        kind = KIND_PADDING
        if pacer.repeats > 0:
            pacer.repeats -= 1
            size_bytes = pacer.repeat_bytes
        else:
            pacer.plain_paddings -= 1
            size_bytes = _plain_padding_bytes(flow)
        pacer_unqueue(pacer, size_bytes, pacer.padding_since_us)
    else:
        frame_number = pacer.frame
        frame = frames[frame_number & (len(frames) - 1)]
        header_bytes = flow.rtp_header_bytes + flow.overhead_bytes
        size_bytes = packet_payload_bytes(frame, pacer.frame_packet) + header_bytes
        pacer_unqueue(pacer, size_bytes, frame.capture_us)
        pacer.frame_packet += 1
        ends_frame = pacer.frame_packet == frame.num_packets
        if ends_frame:
            pacer.frame += 1
            pacer.frame_packet = 0
        repairs = 0
        kind = KIND_VIDEO
        pacer.last_media_bytes = size_bytes
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
    if kind == KIND_VIDEO and flow.fec.enabled == 1 and flow.history.next_seq > seq:
        _protect(flow, frames[frame_number & (len(frames) - 1)], size_bytes, ends_frame, now_us)
    return int(size_bytes)


@kernel
def _send_first_padding(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    cluster: int,
    now_us: int,
) -> int:
    """Send a small padding packet, past the queue; returns its size on the wire.

    It opens a probe cluster, so that the gap before the first large packet is measured
    (GetPendingPacket, modules/pacing/pacing_controller.cc).
    """
    size_bytes = _plain_padding_bytes(flow)
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
    return int(size_bytes)


@kernel
def _queue_padding(flow: Record, wanted_bytes: int, now_us: int) -> None:
    """Let padding of at least `wanted_bytes` wait.

    It repeats the last video packet, if that is not far too large, and fills up with packets of
    zeros (GeneratePadding, modules/rtp_rtcp/source/rtp_sender.cc).
    """
    pacer = flow.pacer
    left_bytes = wanted_bytes
    header_bytes = flow.rtp_header_bytes + flow.overhead_bytes
    repeat_bytes = pacer.last_media_bytes + RTX_HEADER_BYTES
    payload_bytes = repeat_bytes - header_bytes
    most_bytes = (MAX_PADDING_FACTOR - 1) * wanted_bytes
    pacer.padding_since_us = now_us
    pacer.repeat_bytes = repeat_bytes
    while (
        left_bytes >= MIN_REPEAT_BYTES
        and pacer.last_media_bytes > 0
        and payload_bytes <= most_bytes + left_bytes
    ):
        prober_on_packet_queued(pacer.prober, payload_bytes)
        pacer_queue_packets(pacer, repeat_bytes, 1, now_us)
        pacer.repeats += 1
        left_bytes -= payload_bytes
    while left_bytes > 0:
        pacer_queue_packets(pacer, _plain_padding_bytes(flow), 1, now_us)
        pacer.plain_paddings += 1
        left_bytes -= flow.padding_bytes


@kernel
def _send_due(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    frames: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    target_us: int,
    now_us: int,
) -> None:
    """Send one probe burst, or all that was due at `target_us` (ProcessPackets)."""
    pacer = flow.pacer
    prober = pacer.prober
    pacer_elapse(pacer, target_us)
    is_probing = prober.is_active == 1 and prober_begin_burst(prober, now_us)
    wanted_bytes = 0
    cluster = NO_CLUSTER
    is_first = False
    if is_probing:
        wanted_bytes = prober_burst_bytes(prober)
        cluster = prober.clusters[prober.head].id
        is_first = prober.clusters[prober.head].sent_bytes == 0 and pacer.last_media_bytes > 0
    sent_bytes = 0
    while True:
        in_flight_bytes = flow.history.in_flight_bytes
        if is_first:
            is_first = False
            size_bytes = _send_first_padding(call, flow, packets, queue, segments, cluster, now_us)
        elif pacer.queue_packets > 0 and (
            is_probing or not pacer_is_blocked(pacer, in_flight_bytes)
        ):
            size_bytes = _send_queued(
                call,
                flow,
                packets,
                frames,
                queue,
                segments,
                cluster,
                now_us,
            )
        else:
            if pacer.queue_packets > 0:
                break
            pacer.updated_us = max(pacer.updated_us, now_us - MAX_PADDING_REPLAY_US)
            if is_probing:
                padding_bytes = wanted_bytes - sent_bytes
                if pacer_is_blocked(pacer, in_flight_bytes):
                    padding_bytes = 0
            else:
                padding_bytes = pacer_padding_bytes(pacer, in_flight_bytes)
            if padding_bytes <= 0:
                break
            _queue_padding(flow, padding_bytes, now_us)
            continue
        sent_bytes += size_bytes
        pacer_on_sent(pacer, size_bytes)
        if is_probing and sent_bytes >= wanted_bytes:
            break
        next_us = pacer_next_send_us(pacer, flow.history.in_flight_bytes, now_us)
        if next_us > now_us:
            if not is_probing:
                break
            next_us = now_us
        pacer_elapse(pacer, next_us)
    if is_probing:
        if sent_bytes > 0:
            prober_on_burst_sent(prober, sent_bytes, now_us)
        else:
            prober_give_up(prober)
    pacer_update_media_rate(pacer, now_us)


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
    """Send all that is due now and set the timer for what comes next (MaybeProcessPackets)."""
    pacer = flow.pacer
    pacer.is_due = 0
    if pacer.wake_us <= now_us:
        pacer.task_us = NEVER
        pacer.wake_us = NEVER
    next_us = pacer_next_send_us(pacer, flow.history.in_flight_bytes, now_us)
    while next_us <= now_us + pacer_early_us(pacer):
        _send_due(call, flow, packets, frames, queue, segments, next_us, now_us)
        next_us = pacer_next_send_us(pacer, flow.history.in_flight_bytes, now_us)
    pacer_plan_wake(pacer, next_us, now_us)
    # What it sent may have let the controller publish new rates: then once more.
    flow.timers_us[EVENT_PACER] = now_us if pacer.is_due == 1 else pacer.wake_us


@kernel
def sender_on_audio(
    call: Record,
    flow: Record,
    packets: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """One Opus frame leaves at once, but what it takes of the pacer's budget, video waits for.

    Its packets are counted wherever the controller's feedback covers them
    (AccountForAudioPacketsInPacedSender, audio/audio_send_stream.cc); in recorded Chromium calls
    with video waiting, both together leave at the pacing rate. A packet repeats those of the
    frames before its own that it has room for, as far as there were any (bwe_env.sim.red).
    """
    copies = min(_audio_copies(flow), flow.totals.sent_packets[KIND_AUDIO])
    size_bytes = _audio_packet_bytes(flow, copies)
    pacer_on_audio(flow.pacer, size_bytes, now_us)
    send_packet(
        call,
        flow,
        packets,
        queue,
        segments,
        KIND_AUDIO,
        size_bytes,
        NO_FRAME,
        copies,
        NO_CLUSTER,
        now_us,
    )
    flow.timers_us[EVENT_PACER] = now_us
    flow.timers_us[EVENT_AUDIO] = now_us + flow.audio_interval_us

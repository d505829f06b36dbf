"""Frame assembly, decode order, playout and freezes at the receiver.

A frame can be decoded when it is complete and so was every frame before it, or when it is a key
frame; it is shown when it leaves the jitter buffer (`bwe_env.sim.playout`). Nothing depends on the
showing but what is measured of it, so it has no timer: frames are shown, with their exact times, as
soon as anybody looks (`receiver_show_due`).

Freezes are counted as libwebrtc and W3C webrtc-stats count them, at the moment the late frame is
shown (`freeze_us`); a gap in which the stream was silent is a pause there. `frozen_us` counts both,
and the gap that is still open, so that a picture that never comes back is charged while it is
missing.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.freeze import FREEZE_WINDOW, MIN_FREEZE_EXTRA_US, is_freeze
from bwe_env.sim.playout import PLAYOUT, playout_on_complete, playout_reset, playout_schedule

KEY_FRAME_WAIT_US = 200_000  # max_wait_for_keyframe, video_receive_stream2.h
FRAME_WAIT_US = 3_000_000  # max_wait_for_frame, video_receive_stream2.h
ACTIVE_STREAM_US = (
    5_000_000  # a stream silent for longer asks for nothing (video_receive_stream2.cc)
)

#: A freeze so long is one that people remember (`peer_video_freeze_percentage_above_500ms`).
LONG_FREEZE_US = 500_000

RECEIVER = record(
    [
        ("playout", PLAYOUT),
        ("jitter_buffer", "i8"),  # 0: frames are shown as soon as they can be decoded
        ("newest_seq", "i8"),  # highest transport sequence number that has arrived, -1 for none
        ("newest_video_seq", "i8"),  # highest among video packets, -1 for none
        ("report_seq", "i8"),  # first packet the next transport feedback tells of
        ("newest_frame", "i8"),  # highest frame number of which anything arrived, -1 for none
        ("next_frame", "i8"),  # the frame to be decoded next
        ("show_frame", "i8"),  # frames from here to next_frame - 1 wait to be shown, if decoded
        ("newest_show_us", "i8"),  # the last of them is due
        ("next_show_us", "i8"),  # the first of them is due; NEVER for none
        ("nominal_interval_us", "i8"),  # between frames at the camera
        ("rate_scale", "f8"),  # 30 Hz over the camera's frame rate
        ("first_shown_us", "i8"),
        ("last_shown_us", "i8"),  # 0 until the first frame
        ("last_video_us", "i8"),  # arrival of the newest video packet
        ("last_key_us", "i8"),  # arrival of the newest packet of a key frame
        ("last_request_us", "i8"),  # key-frame request, or the end of a wait for a key frame
        ("frames_shown", "i8"),
        ("shown_bytes", "i8"),
        ("shown_pixels", "i8"),  # of the newest frame shown
        ("freeze_count", "i8"),
        ("freeze_us", "i8"),  # W3C totalFreezesDuration
        ("closed_frozen_us", "i8"),  # frozen gaps that have ended, pauses among them
        ("long_frozen_us", "i8"),  # those of LONG_FREEZE_US or longer
        ("frozen_us", "i8"),  # frozen time at the end of the last decision interval
        ("pause_count", "i8"),
        ("pause_us", "i8"),
        ("squared_delays_s2", "f8"),  # sum over inter-frame delays (totalSquaredInterFrameDelay)
        ("buffer_delay_sum_us", "i8"),  # from a frame's first packet until it was shown
        ("key_requests", "i8"),
        ("rtt_us", "i8"),  # as told by RTCP
        ("delays_sum_us", "i8"),
        ("delays_us", "i8", (FREEZE_WINDOW,)),  # ring of the last inter-frame delays
        ("num_delays", "i8"),  # ever
        ("needs_key", "i1"),
        ("is_paused", "i1"),  # the stream was silent: the gap that is open is no freeze
    ]
)

#: RTT the receiver assumes until it knows better (nack_requester.cc kDefaultRtt).
DEFAULT_RTT_US = 100_000


@kernel
def receiver_reset(receiver: Record, frame_interval_us: float) -> None:
    """Waiting for the first key frame."""
    receiver.newest_seq = -1
    receiver.newest_video_seq = -1
    receiver.report_seq = 0
    receiver.newest_frame = -1
    receiver.next_frame = 0
    receiver.show_frame = 0
    receiver.newest_show_us = 0
    receiver.next_show_us = NEVER
    receiver.nominal_interval_us = int(frame_interval_us)
    receiver.rate_scale = frame_interval_us * 30e-6
    if abs(receiver.rate_scale - 1.0) < 1e-9:
        receiver.rate_scale = 1.0
    receiver.first_shown_us = 0
    receiver.last_shown_us = 0
    receiver.last_video_us = 0
    receiver.last_key_us = -KEY_FRAME_WAIT_US
    receiver.last_request_us = 0
    receiver.frames_shown = 0
    receiver.shown_bytes = 0
    receiver.shown_pixels = 0
    receiver.freeze_count = 0
    receiver.freeze_us = 0
    receiver.closed_frozen_us = 0
    receiver.long_frozen_us = 0
    receiver.frozen_us = 0
    receiver.pause_count = 0
    receiver.pause_us = 0
    receiver.squared_delays_s2 = 0.0
    receiver.buffer_delay_sum_us = 0
    receiver.key_requests = 0
    receiver.rtt_us = DEFAULT_RTT_US
    receiver.delays_sum_us = 0
    receiver.num_delays = 0
    receiver.needs_key = 1
    receiver.is_paused = 0
    playout_reset(receiver.playout)


@kernel
def _delay_is_frozen(receiver: Record, delay_us: int) -> bool:
    """Whether a gap of `delay_us` since the last frame shown is (or will have been) a freeze.

    Before libwebrtc's rule has its five samples, the nominal frame interval stands in for their
    average: a call that starts without a picture is frozen, too (ours).
    """
    count = min(receiver.num_delays, FREEZE_WINDOW - 1)
    if count < 4:
        nominal_us = receiver.nominal_interval_us
        return bool(delay_us >= max(3 * nominal_us, nominal_us + MIN_FREEZE_EXTRA_US))
    others_us = receiver.delays_sum_us
    if receiver.num_delays >= FREEZE_WINDOW:
        others_us -= receiver.delays_us[receiver.num_delays % FREEZE_WINDOW]
    return is_freeze(delay_us, others_us + delay_us, count + 1)


@kernel
def _show_frame(receiver: Record, frame: Record, now_us: int) -> None:
    delay_us = now_us - receiver.last_shown_us
    is_pause = receiver.is_paused == 1
    if is_pause or _delay_is_frozen(receiver, delay_us):
        receiver.closed_frozen_us += delay_us
        if delay_us >= LONG_FREEZE_US:
            receiver.long_frozen_us += delay_us
    if receiver.frames_shown == 0:
        receiver.first_shown_us = now_us
    else:
        receiver.squared_delays_s2 += (delay_us * 1e-6) * (delay_us * 1e-6)
    if is_pause:
        receiver.is_paused = 0
        receiver.pause_count += 1
        receiver.pause_us += delay_us
    elif receiver.frames_shown > 0:
        slot = receiver.num_delays % FREEZE_WINDOW
        if receiver.num_delays >= FREEZE_WINDOW:
            receiver.delays_sum_us -= receiver.delays_us[slot]
        receiver.delays_us[slot] = delay_us
        receiver.delays_sum_us += delay_us
        receiver.num_delays += 1
        count = min(receiver.num_delays, FREEZE_WINDOW)
        if is_freeze(delay_us, receiver.delays_sum_us, count):
            receiver.freeze_count += 1
            receiver.freeze_us += delay_us
    receiver.last_shown_us = now_us
    receiver.frames_shown += 1
    receiver.shown_bytes += frame.size_bytes
    receiver.shown_pixels = frame.pixels
    receiver.buffer_delay_sum_us += now_us - frame.first_us


@kernel
def receiver_show_due(receiver: Record, frames: np.ndarray, now_us: int) -> None:
    """Show all frames whose time has come, each at its time."""
    mask = len(frames) - 1
    while receiver.show_frame < receiver.next_frame:
        frame = frames[receiver.show_frame & mask]
        if frame.number == receiver.show_frame and frame.show_us > 0:
            if frame.show_us > now_us:
                receiver.next_show_us = frame.show_us
                return
            _show_frame(receiver, frame, frame.show_us)
        receiver.show_frame += 1
    receiver.next_show_us = NEVER


@kernel
def _decode_frame(receiver: Record, frame: Record, now_us: int) -> None:
    """A frame can be decoded from now on: say when it is shown."""
    receiver.needs_key = 0
    receiver.next_frame = frame.number + 1
    if receiver.jitter_buffer == 0:
        _show_frame(receiver, frame, now_us)
        receiver.show_frame = receiver.next_frame
        return
    frame.show_us = playout_schedule(
        receiver.playout,
        frame.size_bytes,
        frame.capture_us,
        frame.complete_us,
        frame.is_late == 1,
        receiver.rate_scale,
        receiver.rtt_us,
        now_us,
    )
    # Frames leave in their order.
    frame.show_us = max(frame.show_us, receiver.newest_show_us)
    receiver.newest_show_us = frame.show_us
    receiver.next_show_us = min(receiver.next_show_us, frame.show_us)


@kernel
def receiver_on_video(receiver: Record, frames: np.ndarray, number: int, now_us: int) -> int:
    """One more distinct packet of frame `number` is here; decode what can be decoded.

    Returns:
        How many frames that were.
    """
    if receiver.frames_shown > 0 and now_us - receiver.last_video_us >= ACTIVE_STREAM_US:
        receiver.is_paused = 1
    receiver.last_video_us = now_us
    if number > receiver.newest_frame:
        receiver.newest_frame = number
    mask = len(frames) - 1
    frame = frames[number & mask]
    if frame.number != number or number < receiver.next_frame:
        return 0
    if frame.is_key == 1:
        receiver.last_key_us = now_us
    if frame.num_received == 0:
        frame.first_us = now_us
    frame.num_received += 1
    if frame.num_received < frame.num_packets:
        return 0
    frame.complete_us = now_us
    if receiver.jitter_buffer == 1 and frame.is_late == 0:
        playout_on_complete(receiver.playout, frame.capture_us, now_us)
    if frame.is_key == 1:
        receiver.next_frame = number
    decoded = 0
    while True:
        candidate = frames[receiver.next_frame & mask]
        if candidate.number != receiver.next_frame or receiver.next_frame > receiver.newest_frame:
            return decoded
        if candidate.num_received < candidate.num_packets:
            return decoded
        if receiver.needs_key == 1 and candidate.is_key == 0:
            return decoded
        _decode_frame(receiver, candidate, now_us)
        decoded += 1


@kernel
def receiver_on_repaired(receiver: Record, frames: np.ndarray, number: int, now_us: int) -> int:
    """The same for a packet that a retransmission or FEC brought."""
    frame = frames[number & (len(frames) - 1)]
    if frame.number == number:
        frame.is_late = 1
    return receiver_on_video(receiver, frames, number, now_us)


@kernel
def receiver_is_blocked(receiver: Record) -> bool:
    """Whether a frame is waited for although a later one has begun to arrive."""
    return bool(receiver.newest_frame > receiver.next_frame)


@kernel
def receiver_wants_key(receiver: Record, now_us: int) -> bool:
    """Whether it is time for a key-frame request, and if so note it.

    libwebrtc asks when no frame could be shown for 3 s, or for 200 ms while it needs a key frame;
    but not while one arrives: then it waits as long again (IsReceivingKeyFrame,
    video_receive_stream2.cc).
    """
    if now_us - receiver.last_video_us > ACTIVE_STREAM_US:
        return False
    wait_us = KEY_FRAME_WAIT_US if receiver.needs_key == 1 else FRAME_WAIT_US
    since_us = max(receiver.last_shown_us, receiver.last_request_us)
    if now_us - since_us < wait_us:
        return False
    receiver.last_request_us = now_us
    if now_us - receiver.last_key_us < KEY_FRAME_WAIT_US:
        return False
    receiver.key_requests += 1
    return True


@kernel
def receiver_give_up(receiver: Record, oldest_frame: int) -> None:
    """Frames before `oldest_frame` have left the buffer: only a key frame helps now."""
    if receiver.next_frame < oldest_frame:
        receiver.next_frame = oldest_frame
        receiver.needs_key = 1


@kernel
def receiver_frozen_us(receiver: Record, now_us: int) -> int:
    """Frozen time since the start of the call, the open gap included once it counts as frozen."""
    open_us = now_us - receiver.last_shown_us
    if _delay_is_frozen(receiver, open_us):
        return int(receiver.closed_frozen_us + open_us)
    return int(receiver.closed_frozen_us)

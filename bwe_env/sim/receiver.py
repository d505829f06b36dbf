"""Frame assembly, decode order and freezes at the receiver.

A frame can be shown when it is complete and every frame before it was shown, or when it is a key
frame. Freezes are counted as libwebrtc and W3C webrtc-stats count them, at the moment the late
frame is shown (`freeze_us`); `frozen_us` also counts the gap that is still open, so that a picture
that never comes back is charged while it is missing.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.freeze import FREEZE_WINDOW, MIN_FREEZE_EXTRA_US, is_freeze

KEY_FRAME_WAIT_US = 200_000  # max_wait_for_keyframe, video_receive_stream2.h
FRAME_WAIT_US = 3_000_000  # max_wait_for_frame, video_receive_stream2.h
ACTIVE_STREAM_US = (
    5_000_000  # a stream silent for longer asks for nothing (video_receive_stream2.cc)
)

#: A frozen gap as long as this is noticed by everybody (`peer_video_freeze_..._above_500ms`).
LONG_FREEZE_US = 500_000

RECEIVER = record(
    [
        ("newest_seq", "i8"),  # highest transport sequence number that has arrived, -1 for none
        ("newest_video_seq", "i8"),  # highest among video packets, -1 for none
        ("report_seq", "i8"),  # first packet the next transport feedback tells of
        ("newest_frame", "i8"),  # highest frame number of which anything arrived, -1 for none
        ("next_frame", "i8"),  # the frame to be shown next
        ("nominal_interval_us", "i8"),  # between frames at the camera
        ("last_shown_us", "i8"),  # 0 until the first frame
        ("last_video_us", "i8"),  # arrival of the newest video packet
        ("last_request_us", "i8"),  # key-frame request
        ("frames_shown", "i8"),
        ("shown_bytes", "i8"),
        ("shown_pixels", "i8"),  # of the newest frame shown
        ("freeze_count", "i8"),
        ("freeze_us", "i8"),  # W3C totalFreezesDuration
        ("closed_frozen_us", "i8"),  # frozen gaps that have ended
        ("long_frozen_us", "i8"),  # of those, the ones of 500 ms or more
        ("key_requests", "i8"),
        ("rtt_us", "i8"),  # as told by RTCP
        ("delays_sum_us", "i8"),
        ("delays_us", "i8", (FREEZE_WINDOW,)),  # ring of the last inter-frame delays
        ("num_delays", "i8"),  # ever
        ("needs_key", "i1"),
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
    receiver.nominal_interval_us = int(frame_interval_us)
    receiver.last_shown_us = 0
    receiver.last_video_us = 0
    receiver.last_request_us = 0
    receiver.frames_shown = 0
    receiver.shown_bytes = 0
    receiver.shown_pixels = 0
    receiver.freeze_count = 0
    receiver.freeze_us = 0
    receiver.closed_frozen_us = 0
    receiver.long_frozen_us = 0
    receiver.key_requests = 0
    receiver.rtt_us = DEFAULT_RTT_US
    receiver.delays_sum_us = 0
    receiver.num_delays = 0
    receiver.needs_key = 1


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
    if _delay_is_frozen(receiver, delay_us):
        receiver.closed_frozen_us += delay_us
        if delay_us >= LONG_FREEZE_US:
            receiver.long_frozen_us += delay_us
    if receiver.frames_shown > 0:
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
    receiver.needs_key = 0
    receiver.next_frame = frame.number + 1


@kernel
def receiver_on_video(receiver: Record, frames: np.ndarray, number: int, now_us: int) -> int:
    """One more distinct packet of frame `number` is here; show what can be shown.

    Returns:
        How many frames were shown.
    """
    receiver.last_video_us = now_us
    if number > receiver.newest_frame:
        receiver.newest_frame = number
    mask = len(frames) - 1
    frame = frames[number & mask]
    if frame.number != number or number < receiver.next_frame:
        return 0
    frame.num_received += 1
    if frame.num_received < frame.num_packets:
        return 0
    if frame.is_key == 1:
        receiver.next_frame = number
    shown = 0
    while True:
        candidate = frames[receiver.next_frame & mask]
        if candidate.number != receiver.next_frame or receiver.next_frame > receiver.newest_frame:
            return shown
        if candidate.num_received < candidate.num_packets:
            return shown
        if receiver.needs_key == 1 and candidate.is_key == 0:
            return shown
        _show_frame(receiver, candidate, now_us)
        shown += 1


@kernel
def receiver_is_blocked(receiver: Record) -> bool:
    """Whether a frame is waited for although a later one has begun to arrive."""
    return bool(receiver.newest_frame > receiver.next_frame)


@kernel
def receiver_wants_key(receiver: Record, now_us: int) -> bool:
    """Whether it is time for a key-frame request, and if so note it.

    libwebrtc asks when no frame could be shown for 3 s, or for 200 ms while it needs a key frame.
    """
    if now_us - receiver.last_video_us > ACTIVE_STREAM_US:
        return False
    wait_us = KEY_FRAME_WAIT_US if receiver.needs_key == 1 else FRAME_WAIT_US
    since_us = max(receiver.last_shown_us, receiver.last_request_us)
    if now_us - since_us < wait_us:
        return False
    receiver.last_request_us = now_us
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

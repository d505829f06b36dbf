"""The camera and its encoder: frames that follow a target rate with lag, noise and key frames.

Wording and lag follow RFC 8593 section 5 (the statistical model); unlike it, the deviation of frame
sizes is log-normal and correlated from frame to frame, and a key frame's excess is paid back by
smaller frames after it, as real-time rate control does.

The quantiser (QP) is a function of bits per pixel, fitted to libvpx VP8 in recorded Chromium calls.
Where even the coarsest would take more bits than there are, captured frames are skipped, so that
the frame rate falls smoothly with the rate. The picture size follows the rate smoothly, as a mean
over contents (`bwe_env.quality.resolution_pixels`), or steps on a ladder as libwebrtc's quality
scaler does: down when the mean QP is high, up when it is low, with a key frame each time.
"""

from __future__ import annotations

import math

import numpy as np

from bwe_env.quality import RESOLUTION_LADDER, resolution_pixels
from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.rng import STREAM_FRAME_SIZE, STREAM_SCENE_CHANGE, normal, uniform

#: Share of a frame's nominal size by which each frame repays earlier excess, at most. Halving the
#: frames after a key frame keeps the picture and repays a fourfold key frame in 6 frames (ours).
MAX_REPAYMENT = 0.5

#: Smallest frame: a few headers and skipped macroblocks (ours).
MIN_FRAME_BYTES = 50

#: Requests for key frames that come sooner after one are ignored (kMinKeyframeSendInterval,
#: video/encoder_rtcp_feedback.cc).
MIN_KEY_INTERVAL_US = 300_000

#: The least cwnd_reduce_ratio that makes the encoder drop frames (video_stream_encoder.cc).
MIN_REDUCE_RATIO = 0.01

#: QP = QP_SCALE * (bits per pixel)^-QP_RATE_POWER * (pixels / QP_PIXELS)^-QP_SIZE_POWER. Fitted to
#: the mean QP of recorded Chromium calls (VP8): 480 x 270 at 187 kbps 74, 1280 x 720 at 3.24 Mbps
#: 23 and at 4.96 Mbps 17; between them 640 x 360 at 708 kbps comes out as 38 (recorded 38.5).
QP_SCALE = 7.9
QP_RATE_POWER = 0.686
QP_SIZE_POWER = 0.28
QP_PIXELS = 640.0 * 360.0
#: libvpx's quantiser index for the limits of WebRTC's VP8 encoder: qpMax 56 of 63 is 106 of 127,
#: qpMin 2 is 2 (modules/video_coding/codecs/vp8).
MIN_QP = 2.0
MAX_QP = 106.0
#: Mean QP over a period above which the picture gets smaller, and below which it gets larger
#: (kHighVp8QpThreshold, kLowVp8QpThreshold, modules/video_coding/codecs/vp8; the period of
#: quality_scaler.cc).
HIGH_QP = 95.0
LOW_QP = 29.0
SCALER_PERIOD_US = 2_000_000

LADDER_PIXELS = tuple(float(size.width * size.height) for size in RESOLUTION_LADDER)
_LADDER_RATES_BPS = tuple(float(size.min_rate_bps) for size in RESOLUTION_LADDER)
#: Where the classes of picture sizes meet: each has one step of the ladder and the sizes nearer to
#: it than to another, by their ratio. Ours.
_CLASS_EDGES_PIXELS = tuple(
    math.sqrt(LADDER_PIXELS[i] * LADDER_PIXELS[i + 1]) for i in range(len(LADDER_PIXELS) - 1)
)
#: Bits of a frame at `MAX_QP`, for each size of the ladder.
LEAST_BITS = tuple(
    pixels
    * math.pow(
        MAX_QP / (QP_SCALE * math.pow(pixels / QP_PIXELS, -QP_SIZE_POWER)), -1.0 / QP_RATE_POWER
    )
    for pixels in LADDER_PIXELS
)

_US_TO_S = 1e-6

ENCODER = record(
    [
        ("frame_interval_us", "f8"),
        ("min_rate_bps", "f8"),
        ("rate_share", "f8"),  # of the rate left for video
        ("app_max_rate_bps", "f8"),  # 0 for none
        ("app_limit_until_us", "i8"),  # 0 for a limit that is never lifted
        ("pause_from_us", "i8"),
        ("pause_until_us", "i8"),  # not after `pause_from_us` for no pause
        ("lag_us", "f8"),
        ("size_sd", "f8"),
        ("size_correlation", "f8"),
        (
            "content_ratio",
            "f8",
        ),  # what a replayed clip makes of the next frame; set from outside, else 1
        ("key_frame_ratio", "f8"),
        ("scene_change_chance", "f8"),  # per frame
        ("rate_bps", "f8"),  # the target after the lag; media bits, no headers
        ("size_noise", "f8"),  # AR(1), unit variance
        ("debt_bits", "f8"),  # of key frames above nominal, not yet repaid
        ("updated_us", "i8"),
        ("next_frame", "i8"),  # number of the next frame to be coded
        ("captured", "i8"),  # frames captured, dropped ones included
        ("drop_counter", "i8"),  # frames while the congestion window pushed back
        ("key_frames", "i8"),
        ("key_request_us", "i8"),  # the receiver's last one that was not ignored
        ("uses_ladder", "i8"),
        ("skips_frames", "i8"),  # when the rate is too low for all
        ("picture", "i8"),  # position of its size on the ladder
        ("scaler_us", "i8"),  # when the scaler's period began
        ("scaler_qp", "f8"),  # sum over its frames
        ("scaler_frames", "i8"),
        ("credit_bits", "f8"),  # saved by skipping frames that would have been too coarse
        ("coarse_frames", "i8"),  # skipped so
        ("qp_sum", "f8"),  # over all frames
        ("class_qp_sum", "f8", (len(LADDER_PIXELS),)),  # over the frames of each `picture_class`
        ("class_frames", "i8", (len(LADDER_PIXELS),)),
        ("is_key_requested", "i1"),
        ("enabled", "i1"),
    ]
)

FRAME = record(
    [
        ("number", "i8"),
        ("capture_us", "i8"),
        ("size_bytes", "i4"),  # media, without headers
        ("pixels", "i4"),
        ("num_packets", "i4"),
        ("num_received", "i4"),  # distinct packets at the receiver, retransmissions included
        # At the receiver
        ("first_us", "i8"),  # its first packet was here
        ("complete_us", "i8"),  # its last
        ("show_us", "i8"),  # it leaves the jitter buffer; 0 until it can be decoded
        ("is_key", "i1"),
        ("is_late", "i1"),  # a retransmission or FEC brought a part of it
    ]
)


@kernel
def encoder_reset(encoder: Record, start_rate_bps: float) -> None:
    """Ready to code a key frame at the start rate."""
    encoder.rate_bps = start_rate_bps
    encoder.size_noise = 0.0
    encoder.content_ratio = 1.0
    encoder.debt_bits = 0.0
    encoder.updated_us = 0
    encoder.next_frame = 0
    encoder.captured = 0
    encoder.drop_counter = 0
    encoder.key_frames = 0
    encoder.is_key_requested = 1
    encoder.key_request_us = -MIN_KEY_INTERVAL_US
    encoder.picture = 0
    for position in range(1, len(_LADDER_RATES_BPS)):
        if encoder.uses_ladder == 1 and _LADDER_RATES_BPS[position] <= start_rate_bps:
            encoder.picture = position
    encoder.scaler_us = 0
    encoder.scaler_qp = 0.0
    encoder.scaler_frames = 0
    encoder.credit_bits = 0.0
    encoder.coarse_frames = 0
    encoder.qp_sum = 0.0
    for position in range(len(LADDER_PIXELS)):
        encoder.class_qp_sum[position] = 0.0
        encoder.class_frames[position] = 0


@kernel
def encoder_on_key_request(encoder: Record, now_us: int) -> None:
    """The receiver asks for a key frame."""
    if now_us - encoder.key_request_us < MIN_KEY_INTERVAL_US:
        return
    encoder.key_request_us = now_us
    encoder.is_key_requested = 1


@kernel
def encoder_qp(bits: float, pixels: float) -> float:
    """Quantiser of a frame, 2 to 106: the fewer bits per pixel, the coarser."""
    qp = QP_SCALE * math.exp(
        -QP_RATE_POWER * math.log(bits / pixels) - QP_SIZE_POWER * math.log(pixels / QP_PIXELS)
    )
    return min(MAX_QP, max(MIN_QP, qp))


@kernel
def picture_class(pixels: float) -> int:
    """Position on the ladder of the step that a picture's size is nearest to, by their ratio.

    QP at different sizes are not to be compared: at the same rate, a smaller picture has the finer
    quantiser. On the ladder a class is one size. Off it, the sizes of a class reach from 0.67 to
    1.5 times its step, as neighbours on the ladder are at most 2.25 apart.
    """
    position = 0
    for edge_pixels in _CLASS_EDGES_PIXELS:
        if pixels >= edge_pixels:
            position += 1
    return position


@kernel
def encoder_frame_rate_hz(encoder: Record) -> float:
    """How many frames a second are coded at the present rate."""
    camera_hz = 1e6 / encoder.frame_interval_us
    if encoder.skips_frames == 0:
        return camera_hz
    return min(camera_hz, encoder.rate_bps / LEAST_BITS[encoder.picture])


@kernel
def encoder_is_too_coarse(encoder: Record) -> bool:
    """Whether this captured frame is skipped: there are not the bits to code it even at `MAX_QP`.

    What it would have had is saved for the next one.
    """
    # Off the ladder the picture is the smallest at any rate that is this low.
    least_bits = LEAST_BITS[encoder.picture]
    frame_bits = encoder.rate_bps * encoder.frame_interval_us * _US_TO_S
    if frame_bits >= least_bits or encoder.is_key_requested == 1:
        encoder.credit_bits = 0.0
        return False
    encoder.credit_bits += frame_bits
    if encoder.credit_bits < least_bits:
        encoder.coarse_frames += 1
        return True
    encoder.credit_bits -= least_bits
    return False


@kernel
def _count_qp(encoder: Record, qp: float, pixels: float) -> None:
    """Add a frame to the sums of all frames and of those of about its size."""
    encoder.qp_sum += qp
    position = picture_class(pixels)
    encoder.class_qp_sum[position] += qp
    encoder.class_frames[position] += 1


@kernel
def _scale(encoder: Record, qp: float, now_us: int) -> None:
    """Let one more frame's QP tell whether the picture should have another size."""
    encoder.scaler_qp += qp
    encoder.scaler_frames += 1
    if now_us - encoder.scaler_us < SCALER_PERIOD_US:
        return
    mean_qp = encoder.scaler_qp / encoder.scaler_frames
    encoder.scaler_us = now_us
    encoder.scaler_qp = 0.0
    encoder.scaler_frames = 0
    if mean_qp > HIGH_QP and encoder.picture > 0:
        encoder.picture -= 1
        encoder.is_key_requested = 1
    elif mean_qp < LOW_QP and encoder.picture + 1 < len(LADDER_PIXELS):
        encoder.picture += 1
        encoder.is_key_requested = 1


@kernel
def encoder_drop_interval(encoder: Record, target_bps: float, cwnd_reduce_ratio: float) -> int:
    """Congestion-window pushback takes every n-th frame and lowers the target by 1 / n.

    libwebrtc video/video_stream_encoder.cc (UpdateTargetBitrate).

    Returns:
        n, at least 2, or 0 while the window pushes nothing back.
    """
    if cwnd_reduce_ratio <= MIN_REDUCE_RATIO:
        return 0
    reduction_bps = min(int(target_bps * cwnd_reduce_ratio), int(target_bps - encoder.min_rate_bps))
    if reduction_bps <= 0:
        return 0
    return max(2, int(target_bps) // reduction_bps)


@kernel
def encoder_drops_frame(encoder: Record, interval: int) -> bool:
    """Whether this frame is the n-th. Frames are counted only while the window pushes back."""
    counter = encoder.drop_counter
    encoder.drop_counter = counter + 1
    return bool(counter % interval == 0)


@kernel
def encoder_make_frame(
    encoder: Record, frame: Record, media_rate_bps: float, now_us: int, key: np.uint64
) -> int:
    """Code one frame into `frame` and return its size in bytes, headers not included.

    Args:
        media_rate_bps: what the controller leaves for media bits at this moment; the frame follows
            it through the encoder's lag.
    """
    target_bps = max(encoder.min_rate_bps, media_rate_bps)
    is_lifted = 0 < encoder.app_limit_until_us <= now_us
    if encoder.app_max_rate_bps > 0.0 and not is_lifted:
        target_bps = min(target_bps, encoder.app_max_rate_bps)
    weight = 1.0
    if encoder.lag_us > 0.0:
        weight = 1.0 - math.exp(-(now_us - encoder.updated_us) / encoder.lag_us)
    encoder.updated_us = now_us
    if encoder.next_frame == 0:
        weight = 1.0
    encoder.rate_bps += weight * (target_bps - encoder.rate_bps)

    nominal_bits = encoder.rate_bps * encoder.frame_interval_us * _US_TO_S
    if encoder.skips_frames == 1:
        nominal_bits = max(nominal_bits, LEAST_BITS[encoder.picture])
    number = encoder.next_frame
    is_key = encoder.is_key_requested == 1
    if encoder.scene_change_chance > 0.0:
        chance = uniform(key, STREAM_SCENE_CHANGE, encoder.captured)
        is_key = is_key or chance < encoder.scene_change_chance
    if is_key:
        wanted_bits = nominal_bits * encoder.key_frame_ratio
        encoder.key_frames += 1
    else:
        repaid_bits = min(MAX_REPAYMENT * nominal_bits, encoder.debt_bits)
        encoder.debt_bits -= repaid_bits
        wanted_bits = nominal_bits - repaid_bits
    pixels = LADDER_PIXELS[encoder.picture]
    if encoder.uses_ladder == 0:
        pixels = resolution_pixels(encoder.rate_bps)
    # A key frame takes its further bits to be as good as the others.
    qp = encoder_qp(nominal_bits if is_key else wanted_bits, pixels)
    _count_qp(encoder, qp, pixels)
    if encoder.size_sd > 0.0:
        rho = encoder.size_correlation
        noise = math.sqrt(1.0 - rho * rho) * normal(key, STREAM_FRAME_SIZE, encoder.captured)
        encoder.size_noise = rho * encoder.size_noise + noise
        deviation = encoder.size_sd * encoder.size_noise
        wanted_bits *= math.exp(deviation - 0.5 * encoder.size_sd * encoder.size_sd)
    wanted_bits *= encoder.content_ratio
    size_bytes = max(MIN_FRAME_BYTES, int(wanted_bits * 0.125 + 0.5))
    if is_key:  # the noise of other frames is about their nominal size and needs no repayment
        encoder.debt_bits += max(0.0, wanted_bits - nominal_bits)

    frame.number = number
    frame.capture_us = now_us
    frame.size_bytes = size_bytes
    frame.pixels = int(pixels)
    frame.num_received = 0
    frame.show_us = 0
    frame.is_late = 0
    frame.is_key = 1 if is_key else 0
    encoder.is_key_requested = 0
    if number == 0:  # a competing call may begin late
        encoder.scaler_us = now_us
    if encoder.uses_ladder == 1:
        _scale(encoder, qp, now_us)
    encoder.next_frame = number + 1
    return size_bytes

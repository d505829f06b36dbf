"""How good a call looks and feels: opinion scores (MOS) from ITU-T parametric models.

Three small models, each a scalar kernel in `math` only:

- `video_mos`: Rec. ITU-T P.1203.1 (10/2017), mode 0 (bitrate, frame rate, coded and displayed
  resolution; H.264). The coefficients were checked against public implementations, and the tests
  repeat three published example scores.
- `delay_impairment_mos` and `audio_mos`: the E-model, Rec. ITU-T G.107 (06/2015), for
  conversational delay and for audio loss.
- `resolution_pixels`: the coded resolution that goes with a media rate, after libwebrtc.

Where we leave P.1203.1:

- It scores whole segments of stored video; we score each decision interval by itself. Its
  integration over a session (P.1203.3) is not used: freezes are counted by their own rule.
- It was fitted to file encoders. A real-time encoder (one pass, no B frames, no lookahead) needs
  more rate for the same picture. No published factor exists, so none is applied: scores compare
  controllers, they do not predict a panel's absolute opinion.
- Its frame rate term is exactly zero from 24 Hz up and gives a still picture half of the quality
  that is left. Below `STILL_FRAME_RATE_HZ` we take the rest away linearly, so that a lowered frame
  rate cannot hide a freeze.
- Nothing shown (no rate or no frames) scores 1; the model itself ends at 1.05 and 4.9.
- The inverse of its R-to-MOS polynomial is taken in closed form, not from an interpolated table.
- At equal rate mode 0 prefers the larger picture at *every* rate (720p at 20 kbps scores 3.1); no
  such pair can have been in its data. So the resolution has to come from what encoders do; see
  `resolution_pixels`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from bwe_env.sim._jit import kernel

#: Score of a picture that does not move or is not there.
WORST_MOS = 1.0

#: The picture is shown on 1280 x 720, the size it was captured at. Ours.
DISPLAY_PIXELS = 1280 * 720

# A kernel cannot call units.py, which stays plain Python.
_BPS_PER_KBPS = 1e3
_PERCENT = 100.0

# --- Video: Rec. ITU-T P.1203.1 (10/2017), clause 8 and the coefficient tables of mode 0 ----------

#: quant = a1 + a2 ln(a3 + ln(rate) + ln(rate * bits per pixel + a4)), rates in kbit/s.
_A1 = 11.9983519
_A2 = -2.99991847
_A3 = 41.2475074001
_A4 = 0.13183165961
#: MOS of coding alone = q1 + q2 exp(q3 quant).
_Q1 = 4.66
_Q2 = -0.07
_Q3 = 4.06
#: Upscaling degradation = u1 log10(u2 (display pixels / coded pixels - 1) + 1).
_U1 = 72.61
_U2 = 0.32
#: Frame rate degradation = (what is left) (t1 - t2 f) / (t3 + f), f in Hz, for f < 24.
_T1 = 30.98
_T2 = 1.29
_T3 = 64.65
_FULL_FRAME_RATE_HZ = 24.0

#: Ours: below this what is left of the quality falls linearly with the frame rate, to nothing at 0.
#: A quarter of the usual 30 Hz; people then see a row of still pictures.
STILL_FRAME_RATE_HZ = 7.5

#: Ends of the model's MOS scale (R = 0 and R = 100); the polynomial's cubic coefficient.
_MOS_LOW = 1.05
_MOS_HIGH = 4.9
_CUBIC = 7e-6

# R^3 - 160 R^2 + linear R + (MOS - low) / cubic = 0 is the polynomial solved for R. With
# t = R - 160/3 it has no square term: t^3 + p t + q = 0, and p < 0, so the roots are cosines.
_SHIFT = 160.0 / 3.0
_LINEAR = 6000.0 - (_MOS_HIGH - _MOS_LOW) / 100.0 / _CUBIC
_P = _LINEAR - 160.0 * 160.0 / 3.0
_Q_AT_LOW = -2.0 * 160.0**3 / 27.0 + 160.0 * _LINEAR / 3.0
_RADIUS = 2.0 * math.sqrt(-_P / 3.0)
_ARGUMENT = 3.0 / (_P * _RADIUS)
_THIRD_TURN = 2.0 * math.pi / 3.0


@kernel
def _rating_from_video_mos(mos: float) -> float:
    """R in [0, 100] at which the P.1203.1 polynomial takes the value `mos`."""
    if mos <= _MOS_LOW:
        return 0.0
    if mos >= _MOS_HIGH:
        return 100.0
    cosine = _ARGUMENT * (_Q_AT_LOW + (mos - _MOS_LOW) / _CUBIC)
    angle = math.acos(max(-1.0, min(1.0, cosine))) / 3.0
    # Of the three real roots the middle one runs from about 3 to 100.
    return min(100.0, _SHIFT + _RADIUS * math.cos(angle - _THIRD_TURN))


@kernel
def _video_mos_from_rating(rating: float) -> float:
    """The P.1203.1 polynomial: MOS in [1.05, 4.9] of R in [0, 100]."""
    cubic = _CUBIC * rating * (rating - 60.0) * (100.0 - rating)
    mos = _MOS_LOW + (_MOS_HIGH - _MOS_LOW) / 100.0 * rating + cubic
    return max(_MOS_LOW, min(_MOS_HIGH, mos))


@kernel
def video_mos(
    media_rate_bps: float, frame_rate_hz: float, pixels: float, display_pixels: float
) -> float:
    """Opinion of the moving picture while it plays (Rec. ITU-T P.1203.1 mode 0).

    Args:
        media_rate_bps: video payload per second that was *shown*; no audio, headers, padding, RTX.
        frame_rate_hz: frames shown per second, >= 0.
        pixels: coded picture, width times height.
        display_pixels: picture on the screen, width times height.

    Returns:
        1 if nothing is shown (not a bit, frame or pixel), else 1.05 (bad) to 4.9 (excellent). It
        grows with the rate, with the coded size, and with the frame rate up to 24 Hz; from there on
        all that the model sees is that each frame has fewer bits (a loss below 0.03 at 30 Hz).
    """
    if media_rate_bps < 1.0 or frame_rate_hz <= 0.0 or pixels < 1.0:
        return WORST_MOS
    rate_kbps = media_rate_bps / _BPS_PER_KBPS
    # The Recommendation's "bitrate * bpp" with bpp = kbit/s over pixels per second.
    rate_bpp = rate_kbps * rate_kbps / (pixels * frame_rate_hz)
    # No encoder goes below some kbit/s; the bound keeps the logarithm's argument positive.
    logs = max(1.0, _A3 + math.log(rate_kbps) + math.log(rate_bpp + _A4))
    quant = _A1 + _A2 * math.log(logs)
    coding = 100.0 - _rating_from_video_mos(_Q1 + _Q2 * math.exp(_Q3 * quant))
    scale = max(1.0, display_pixels / pixels)
    upscaling = min(100.0, _U1 * math.log10(_U2 * (scale - 1.0) + 1.0))
    left = max(0.0, 100.0 - coding - upscaling)
    if frame_rate_hz < _FULL_FRAME_RATE_HZ:
        moving = max(frame_rate_hz, STILL_FRAME_RATE_HZ)
        left -= left * (_T1 - _T2 * moving) / (_T3 + moving)
        left *= min(1.0, frame_rate_hz / STILL_FRAME_RATE_HZ)
    return _video_mos_from_rating(left)


# --- Resolution: what an encoder sends at a rate --------------------------------------------------


class Resolution(NamedTuple):
    """A coded picture size and the media rates that libwebrtc thinks right for it."""

    width: int
    height: int
    min_rate_bps: int
    max_rate_bps: int


#: libwebrtc M150 `EncoderInfoSettings::GetDefaultSinglecastBitrateLimits`, VP8 and H.264
#: (rtc_base/experiments/encoder_info_settings.cc): lowest rate to start at and highest useful rate.
#: The smallest size starts at 0 there; it is 30 kbps here, the lowest rate an encoder is given.
RESOLUTION_LADDER = (
    Resolution(320, 180, 30_000, 300_000),
    Resolution(480, 270, 200_000, 500_000),
    Resolution(640, 360, 300_000, 800_000),
    Resolution(960, 540, 500_000, 1_500_000),
    Resolution(1280, 720, 900_000, 2_500_000),
)

_KNOT_RATE_BPS = tuple(math.sqrt(r.min_rate_bps * r.max_rate_bps) for r in RESOLUTION_LADDER)
_KNOT_PIXELS = tuple(float(r.width * r.height) for r in RESOLUTION_LADDER)
_KNOTS = len(RESOLUTION_LADDER)
#: Growth exponent of the pixel count between knot i and i + 1.
_KNOT_POWER = tuple(
    math.log(_KNOT_PIXELS[i + 1] / _KNOT_PIXELS[i])
    / math.log(_KNOT_RATE_BPS[i + 1] / _KNOT_RATE_BPS[i])
    for i in range(_KNOTS - 1)
)


@kernel
def resolution_pixels(media_rate_bps: float) -> float:
    """Coded picture size at a media rate, width times height, as a mean over contents.

    Each size of `RESOLUTION_LADDER` sits at the geometric mean of its rates, and between two of
    them the pixel count follows a power of the rate. A real encoder switches between the sizes, but
    by its quantiser, so at a rate that depends on the picture (libwebrtc's ranges overlap twofold);
    the mean over many contents is the smooth curve. The reason is more than comfort: `video_mos`
    jumps by up to 0.8 where the size switches, and a controller could earn by hovering above a
    switch, or by alternating between two, what no viewer of another content would grant.

    Returns:
        57,600 (320 x 180) to 921,600 (1280 x 720), never falling with the rate.
    """
    if media_rate_bps <= _KNOT_RATE_BPS[0]:
        return _KNOT_PIXELS[0]
    for i in range(_KNOTS - 1):
        if media_rate_bps < _KNOT_RATE_BPS[i + 1]:
            return _KNOT_PIXELS[i] * math.pow(media_rate_bps / _KNOT_RATE_BPS[i], _KNOT_POWER[i])
    return _KNOT_PIXELS[_KNOTS - 1]


# --- Conversation: Rec. ITU-T G.107 (06/2015) -----------------------------------------------------

#: R of a connection with every parameter at its default. G.107 clause 7.7.
DEFAULT_RATING = 93.2

#: Delay below which nobody notices, mT, and delay sensitivity sT = 1 of the default class. G.107
#: table 1.
PERCEIVED_DELAY_MS = 100.0

#: What the two end points add to the network's one-way delay: capture, a 20 ms audio frame with its
#: lookahead, jitter buffer, playout. G.114 (05/2003) appendix II.2 reckons 80 ms for a pair of
#: terminals with 20 ms packets and good loss concealment. The jitter buffer's growth on jittery
#: networks is not in it.
END_POINT_DELAY_MS = 80.0

#: Ie of the audio codec: 0, the reference; only what loss takes away shall count. Ours.
_AUDIO_IE = 0.0
#: Bpl, robustness against random loss. G.113 (11/2007) appendix I gives 25.1 for G.711 with
#: concealment; none is published for Opus on this scale, so that value stands in. Ours.
_AUDIO_BPL = 25.1
#: G.107 clause 7.5: Ie,eff = Ie + (95 - Ie) Ppl / (Ppl / BurstR + Bpl), Ppl in percent.
_AUDIO_IE_MAX = 95.0

#: What the audio coder adds to the delay: a frame of 20 ms, and 6.5 ms of lookahead in the
#: reference encoder of RFC 6716.
AUDIO_CODER_DELAY_MS = 26.5

#: Idd tends to 50 for endless delays; beyond this its terms would lose all digits.
_ENDLESS_DELAY_MS = 1e9


@kernel
def mos_from_rating(rating: float) -> float:
    """Mean opinion score, 1 to 4.5, of the E-model's transmission rating R (G.107 annex B)."""
    if rating <= 0.0:
        return 1.0
    if rating >= 100.0:
        return 4.5
    # Between R = 0 and 6.5 the polynomial dips below the scale's end.
    return max(1.0, 1.0 + 0.035 * rating + 7e-6 * rating * (rating - 60.0) * (100.0 - rating))


@kernel
def _sixth_root_of_1_plus_sixth_power(x: float) -> float:
    square = x * x
    return math.pow(1.0 + square * square * square, 1.0 / 6.0)


@kernel
def delay_rating_loss(mouth_to_ear_ms: float) -> float:
    """Idd, what absolute delay takes off R with echo cancelled (G.107 clause 7.4); 0 to 50."""
    if mouth_to_ear_ms <= PERCEIVED_DELAY_MS:
        return 0.0
    delay_ms = min(mouth_to_ear_ms, _ENDLESS_DELAY_MS)
    x = math.log(delay_ms / PERCEIVED_DELAY_MS) / math.log(2.0)
    near = _sixth_root_of_1_plus_sixth_power(x)
    far = _sixth_root_of_1_plus_sixth_power(x / 3.0)
    return max(0.0, 25.0 * (near - 3.0 * far + 2.0))


@kernel
def delay_impairment_mos(one_way_delay_ms: float) -> float:
    """What the delay takes off the opinion of a call.

    Args:
        one_way_delay_ms: of the network alone; `END_POINT_DELAY_MS` is added for the terminals.

    Returns:
        MOS(93.2) - MOS(93.2 - Idd): 0 up to 20 ms, 0.85 at 320 ms, never above 2.2.
    """
    loss = delay_rating_loss(one_way_delay_ms + END_POINT_DELAY_MS)
    return mos_from_rating(DEFAULT_RATING) - mos_from_rating(DEFAULT_RATING - loss)


@kernel
def audio_mos(loss_ratio: float) -> float:
    """Opinion of the audio at a ratio of packets that came too late or never (G.107 clause 7.5).

    Args:
        loss_ratio: 0 to 1, after repair; random loss (BurstR = 1).

    Returns:
        4.41 without loss, falling to 1.2.
    """
    return conversation_mos(loss_ratio, 1.0, 0.0)


@kernel
def conversation_mos(loss_ratio: float, burst_ratio: float, mouth_to_ear_ms: float) -> float:
    """Opinion of a conversation: R = 93.2 - Idd - Ie,eff (G.107 clauses 7.1, 7.4, 7.5).

    Args:
        loss_ratio: 0 to 1, of the speech that was concealed; stands for the loss of packets.
        burst_ratio: mean length of the losses over that of random loss as frequent, >= 1.
        mouth_to_ear_ms: all delay, network and terminals.

    Returns:
        1 to 4.41.
    """
    loss_percent = _PERCENT * max(0.0, min(1.0, loss_ratio))
    share = loss_percent / (loss_percent / max(1.0, burst_ratio) + _AUDIO_BPL)
    impairment = (_AUDIO_IE_MAX - _AUDIO_IE) * share
    rating = DEFAULT_RATING - _AUDIO_IE - impairment
    return mos_from_rating(rating - delay_rating_loss(mouth_to_ear_ms))

"""The opinion models against published numbers, by hand, and by the laws they must keep."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.quality import (
    DISPLAY_PIXELS,
    RESOLUTION_LADDER,
    STILL_FRAME_RATE_HZ,
    _rating_from_video_mos,
    _video_mos_from_rating,
    audio_mos,
    conversation_mos,
    delay_impairment_mos,
    delay_rating_loss,
    mos_from_rating,
    resolution_pixels,
    video_mos,
)

ROOT = Path(__file__).resolve().parent.parent

#: The same examples in every run, and no deadline: the first call of a kernel compiles it.
law = settings(deadline=None, derandomize=True)

RATES_BPS = st.floats(1e3, 1e8)
FRAME_RATES_HZ = st.floats(0.1, 120.0)
PIXELS = st.sampled_from([float(size.width * size.height) for size in RESOLUTION_LADDER])
DELAYS_MS = st.floats(0.0, 1e5)

#: Rounding of a MOS in the last bits; far below anything a person or a table could tell.
EPSILON = 1e-9


def ladder_mos(media_rate_bps: float) -> float:
    """MOS at 30 Hz of what the encoder makes of a rate."""
    pixels = resolution_pixels(media_rate_bps)
    return video_mos(media_rate_bps, 30.0, pixels, float(DISPLAY_PIXELS))


# --- Video ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate_kbps", "pixels", "published_mos"),
    [
        # Example scores distributed with the model authors' own implementation, mode 0, 30 Hz,
        # shown on 1920 x 1080.
        (2801.27587623, 1920 * 1080, 4.311),
        (629.203792838, 852 * 480, 2.664),
        (224.771246112, 426 * 240, 1.085),
    ],
)
def test_video_mos_repeats_the_published_scores_of_mode_0_to_the_printed_digit(
    rate_kbps: float, pixels: int, published_mos: float
) -> None:
    mos = video_mos(rate_kbps * 1e3, 30.0, float(pixels), 1920.0 * 1080.0)
    assert abs(mos - published_mos) <= 0.0006  # printed with three digits


def test_video_mos_agrees_with_the_formulas_worked_step_by_step() -> None:
    # 1000 kbps at 12 Hz, 640 x 360 shown on 1280 x 720.
    # rate * bpp = 1000^2 / (230400 * 12) = 0.361690, ln(0.361690 + 0.131832) = -0.706189
    # quant = 11.998352 - 2.999918 ln(41.247507 + 6.907755 - 0.706189) = 0.419696
    # MOS of coding = 4.66 - 0.07 exp(4.06 * 0.419696) = 4.275302, which is R = 78.1403:
    assert _video_mos_from_rating(78.1403) == pytest.approx(4.275302, abs=2e-6)
    # upscaling = 72.61 log10(0.32 * (4 - 1) + 1) = 21.2207, leaves 56.9196
    # frame rate = 56.9196 * (30.98 - 1.29 * 12) / (64.65 + 12) = 11.5102, leaves 45.4094
    # MOS = 1.05 + 0.0385 * 45.4094 + 7e-6 * 45.4094 * (45.4094 - 60) * (100 - 45.4094)
    #     = 1.05 + 1.748262 - 0.253182
    mos = video_mos(1e6, 12.0, 640.0 * 360.0, 1280.0 * 720.0)
    assert mos == pytest.approx(2.545080, abs=5e-6)


@law
@given(st.floats(1.05, 4.9))
def test_rating_and_mos_are_inverse_to_each_other_on_the_whole_scale(mos: float) -> None:
    rating = _rating_from_video_mos(mos)
    assert 0.0 <= rating <= 100.0
    assert _video_mos_from_rating(rating) == pytest.approx(mos, abs=EPSILON)


@law
@given(RATES_BPS, RATES_BPS, FRAME_RATES_HZ, PIXELS)
def test_video_mos_never_falls_when_the_rate_rises(
    rate_a: float, rate_b: float, frame_rate_hz: float, pixels: float
) -> None:
    low, high = sorted((rate_a, rate_b))
    better = video_mos(high, frame_rate_hz, pixels, float(DISPLAY_PIXELS))
    assert better >= video_mos(low, frame_rate_hz, pixels, float(DISPLAY_PIXELS)) - EPSILON


@law
@given(st.floats(1e4, 1e8), st.floats(0.0, 24.0), st.floats(0.0, 24.0), PIXELS)
def test_video_mos_never_falls_when_the_frame_rate_rises_to_24_hz(
    rate_bps: float, frame_rate_a: float, frame_rate_b: float, pixels: float
) -> None:
    low, high = sorted((frame_rate_a, frame_rate_b))
    better = video_mos(rate_bps, high, pixels, float(DISPLAY_PIXELS))
    assert better >= video_mos(rate_bps, low, pixels, float(DISPLAY_PIXELS)) - EPSILON


@law
@given(st.floats(3e4, 1e7), PIXELS)
def test_between_24_and_30_hz_the_frame_rate_moves_the_score_by_less_than_three_hundredths(
    rate_bps: float, pixels: float
) -> None:
    at_24 = video_mos(rate_bps, 24.0, pixels, float(DISPLAY_PIXELS))
    at_30 = video_mos(rate_bps, 30.0, pixels, float(DISPLAY_PIXELS))
    assert abs(at_24 - at_30) < 0.03


@law
@given(st.floats(2e4, 1e7), FRAME_RATES_HZ)
def test_at_equal_rate_the_larger_picture_never_scores_lower(
    rate_bps: float, frame_rate_hz: float
) -> None:
    # Which is why the model itself cannot choose the resolution; see the module's docstring.
    scores = [
        video_mos(rate_bps, frame_rate_hz, float(size.width * size.height), float(DISPLAY_PIXELS))
        for size in RESOLUTION_LADDER
    ]
    assert all(b >= a - EPSILON for a, b in itertools.pairwise(scores))


@law
@given(st.floats(-1e9, 1e9), st.floats(-10.0, 200.0), st.floats(-10.0, 1e7), st.floats(1.0, 1e7))
def test_video_mos_stays_between_1_and_4_point_9_whatever_it_is_given(
    rate_bps: float, frame_rate_hz: float, pixels: float, display_pixels: float
) -> None:
    assert 1.0 <= video_mos(rate_bps, frame_rate_hz, pixels, display_pixels) <= 4.9


@pytest.mark.parametrize(
    ("rate_bps", "frame_rate_hz", "pixels"),
    [(0.0, 30.0, 230_400.0), (1e6, 0.0, 230_400.0), (1e6, 30.0, 0.0)],
)
def test_a_picture_that_is_not_there_scores_exactly_1(
    rate_bps: float, frame_rate_hz: float, pixels: float
) -> None:
    assert video_mos(rate_bps, frame_rate_hz, pixels, float(DISPLAY_PIXELS)) == 1.0


def test_one_frame_a_second_scores_hardly_more_than_a_freeze() -> None:
    # The Recommendation alone would leave it 1.9; a controller must not hide freezes that way.
    assert video_mos(1e6, 1.0, 640.0 * 360.0, float(DISPLAY_PIXELS)) < 1.2


def test_the_score_has_no_step_where_our_frame_rate_rule_begins() -> None:
    below, above = (
        video_mos(1e6, STILL_FRAME_RATE_HZ * factor, 640.0 * 360.0, float(DISPLAY_PIXELS))
        for factor in (1.0 - 1e-9, 1.0 + 1e-9)
    )
    assert below == pytest.approx(above, abs=1e-6)


# --- Resolution -----------------------------------------------------------------------------------


def test_each_size_of_the_ladder_sits_at_the_geometric_mean_of_its_rates() -> None:
    for size in RESOLUTION_LADDER:
        rate_bps = math.sqrt(size.min_rate_bps * size.max_rate_bps)
        assert resolution_pixels(rate_bps) == pytest.approx(size.width * size.height)


@law
@given(st.floats(0.0, 1e8), st.floats(0.0, 1e8))
def test_the_resolution_never_falls_with_the_rate_and_stays_on_the_ladder(
    rate_a: float, rate_b: float
) -> None:
    low, high = sorted((rate_a, rate_b))
    assert 320 * 180 <= resolution_pixels(low) <= resolution_pixels(high) + EPSILON
    assert resolution_pixels(high) <= 1280 * 720


@law
@given(st.floats(1e4, 1e8), st.floats(1.0, 1.01))
def test_the_score_of_the_ladder_never_falls_with_the_rate_nor_jumps(
    rate_bps: float, factor: float
) -> None:
    gain = ladder_mos(rate_bps * factor) - ladder_mos(rate_bps)
    assert -EPSILON <= gain < 0.03  # a step of the real ladder would be up to 0.8


def test_alternating_around_a_rate_gains_nothing_from_340_kbps_on() -> None:
    def gain(rate_bps: float) -> float:
        alternating = (ladder_mos(0.5 * rate_bps) + ladder_mos(1.5 * rate_bps)) / 2
        return alternating - ladder_mos(rate_bps)

    assert all(gain(rate_bps) < 0.0 for rate_bps in range(340_000, 4_000_000, 10_000))
    # Below, where the smallest size leaves hardly anything to lose, it could gain a little.
    assert all(gain(rate_bps) < 0.1 for rate_bps in range(30_000, 340_000, 10_000))


# --- Conversation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rating", "published_mos"),
    # G.107 table B.1, and the default R = 93.2 with its 4.41.
    [
        (0, 1.0),
        (50, 2.58),
        (60, 3.10),
        (70, 3.60),
        (80, 4.03),
        (90, 4.34),
        (93.2, 4.41),
        (100, 4.5),
    ],
)
def test_mos_from_rating_repeats_table_b_1_of_g_107(rating: float, published_mos: float) -> None:
    assert mos_from_rating(float(rating)) == pytest.approx(published_mos, abs=0.0061)


@law
@given(st.floats(-50.0, 150.0), st.floats(-50.0, 150.0))
def test_mos_from_rating_never_falls_and_stays_on_its_scale(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 1.0 <= mos_from_rating(low) <= mos_from_rating(high) + EPSILON
    assert mos_from_rating(high) <= 4.5


@pytest.mark.parametrize(
    ("mouth_to_ear_ms", "idd"),
    [
        (0.0, 0.0),
        (100.0, 0.0),
        # X = 1: 25 (2^(1/6) - 3 (1 + 3^-6)^(1/6) + 2) = 25 (1.122462 - 3.000685 + 2)
        (200.0, 3.0444),
        # X = 2: 25 (65^(1/6) - 3 (1 + (2/3)^6)^(1/6) + 2) = 25 (2.005175 - 3.042373 + 2)
        (400.0, 24.0701),
        # X = 3: 25 (730^(1/6) - 3 * 2^(1/6) + 2) = 25 (3.000685 - 3.367386 + 2)
        (800.0, 40.8325),
    ],
)
def test_delay_rating_loss_is_idd_of_g_107_worked_by_hand(
    mouth_to_ear_ms: float, idd: float
) -> None:
    assert delay_rating_loss(mouth_to_ear_ms) == pytest.approx(idd, abs=1e-3)


@law
@given(DELAYS_MS, DELAYS_MS)
def test_the_delay_impairment_never_falls_with_the_delay(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0.0 <= delay_impairment_mos(low) <= delay_impairment_mos(high) + EPSILON


def test_the_delay_impairment_is_zero_up_to_20_ms_and_ends_at_2_point_2() -> None:
    assert delay_impairment_mos(20.0) == 0.0
    assert delay_impairment_mos(30.0) > 0.0
    # 320 ms of network and 80 ms of terminals: MOS(93.2) - MOS(93.2 - 24.07).
    assert delay_impairment_mos(320.0) == pytest.approx(4.4093 - 3.5561, abs=2e-3)
    assert 2.1 < delay_impairment_mos(1e12) <= delay_impairment_mos(math.inf) < 2.2


def test_audio_without_loss_has_the_default_score_and_1_percent_costs_3_point_64_of_r() -> None:
    assert audio_mos(0.0) == mos_from_rating(93.2)
    assert audio_mos(0.01) == pytest.approx(mos_from_rating(93.2 - 95.0 / 26.1))  # 95 * 1/(1+25.1)


@law
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_audio_mos_never_rises_with_the_loss(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 1.0 <= audio_mos(high) <= audio_mos(low) + EPSILON


def test_a_conversation_adds_up_delay_and_loss_and_bursts_make_the_loss_worse() -> None:
    # 2 % in bursts twice as long as random ones: 95 * 2 / (2 / 2 + 25.1); 250 ms take their own.
    rating = 93.2 - 95.0 * 2.0 / 26.1 - delay_rating_loss(250.0)
    assert conversation_mos(0.02, 2.0, 250.0) == pytest.approx(mos_from_rating(rating))
    assert conversation_mos(0.02, 1.0, 0.0) == audio_mos(0.02)
    assert conversation_mos(1.0, 50.0, 0.0) == 1.0


# --- Compiled and not -----------------------------------------------------------------------------

_DIGEST = """
import hashlib, struct
from bwe_env.quality import *
digest = hashlib.sha256()
for i in range(2000):
    rate = 10.0 ** (3.0 + i / 500.0)
    pixels = resolution_pixels(rate)
    scores = (
        pixels, video_mos(rate, (i % 70) * 0.5, pixels, 921600.0), delay_impairment_mos(i * 0.7),
        delay_rating_loss(rate / 50.0), conversation_mos(i / 2000.0, 1.0 + i / 500.0, i * 0.3),
        audio_mos(i / 2000.0), mos_from_rating(i / 20.0),
    )
    digest.update(struct.pack("<7d", *scores))
print(digest.hexdigest())
"""


def _digest(disable_jit: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": disable_jit}
    result = subprocess.run(
        [sys.executable, "-c", _DIGEST], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_scores_are_the_same_to_the_last_bit_with_the_compiler_off() -> None:
    assert _digest("0") == _digest("1")

"""The encoder follows its target: on average, with its lag, and through key frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import AudioConfig, CallConfig, VideoConfig
from bwe_env.network import Network
from bwe_env.sim.encoder import (
    ENCODER,
    FRAME,
    LADDER_PIXELS,
    LEAST_BITS,
    MAX_QP,
    MIN_QP,
    encoder_drop_interval,
    encoder_drops_frame,
    encoder_make_frame,
    encoder_on_key_request,
    encoder_qp,
    encoder_reset,
    picture_class,
)
from bwe_env.sim.packet import KIND_VIDEO
from bwe_env.trace import constant
from tests.sim.calls import PLAIN_VIDEO, SILENT, OneCall

FRAME_RATE_HZ = 30.0

#: Payload of a full packet: the MTU less the RTP header.
FULL_PAYLOAD_BYTES = 1200 - 12
#: RTP, UDP and IP headers.
HEADER_BYTES = 12 + 28

ROOMY = Network(trace=constant(50e6))


class Camera:
    """An encoder and its clock."""

    def __init__(self, *, start_rate_bps: float = 1e6, **settings: Any) -> None:
        self.encoder = np.zeros(1, ENCODER)[0]
        self.encoder.frame_interval_us = 1e6 / FRAME_RATE_HZ
        self.encoder.min_rate_bps = 30_000.0
        self.encoder.key_frame_ratio = 1.0
        for name, value in settings.items():
            self.encoder[name] = value
        encoder_reset(self.encoder, start_rate_bps)
        self.frame = np.zeros(1, FRAME)[0]

    def sizes(self, rate_bps: float, count: int) -> NDArray[np.int64]:
        """Sizes of the next frames at a target."""
        sizes = []
        for _ in range(count):
            now_us = round(self.encoder.captured * 1e6 / FRAME_RATE_HZ)
            self.encoder.captured += 1
            sizes.append(
                encoder_make_frame(self.encoder, self.frame, rate_bps, now_us, np.uint64(4))
            )
        return np.array(sizes)


def rate_bps(sizes: NDArray[np.int64]) -> float:
    return float(8 * sizes.mean() * FRAME_RATE_HZ)


# --- The rate -------------------------------------------------------------------------------------


def test_without_noise_every_frame_is_its_share_of_the_rate() -> None:
    # 1.2 Mbps at 30 frames a second: 40,000 bits, 5000 bytes.
    assert Camera().sizes(1_200_000.0, 10).tolist() == [5_000] * 10


def test_noisy_frames_meet_the_target_on_average() -> None:
    camera = Camera(size_sd=0.15, size_correlation=0.5, key_frame_ratio=4.0, lag_us=200_000.0)
    sizes = camera.sizes(1e6, 6_000)
    # The mean of n frames with AR(1) deviations of sd 0.15 is off by 0.15 * sqrt(3 / n), at most.
    assert rate_bps(sizes) == pytest.approx(1e6, rel=4 * 0.15 * math.sqrt(3 / 6_000))


def test_deviations_of_frame_sizes_have_the_spread_and_the_memory_they_are_given() -> None:
    camera = Camera(size_sd=0.15, size_correlation=0.5)
    logs = np.log(camera.sizes(5e6, 6_000))
    # Errors of an estimated sd and correlation from n values with this memory; sizes are whole.
    assert logs.std() == pytest.approx(0.15, rel=4 * math.sqrt(1.7 / 2 / 6_000))
    memory = np.corrcoef(logs[:-1], logs[1:])[0, 1]
    assert memory == pytest.approx(0.5, abs=4 / math.sqrt(6_000))


def test_frames_follow_a_new_target_with_the_lag_of_the_encoder() -> None:
    camera = Camera(lag_us=200_000.0)
    camera.sizes(1e6, 30)
    sizes = camera.sizes(2e6, 30)
    # After k frames 1 - exp(-k / (30 * 0.2)) of the way from 1 to 2 Mbps.
    for position in (0, 5, 11, 29):
        share = 1.0 - math.exp(-(position + 1) / (FRAME_RATE_HZ * 0.2))
        expected_bytes = (1.0 + share) * 1e6 / 8 / FRAME_RATE_HZ
        assert sizes[position] == pytest.approx(expected_bytes, rel=0.001)  # whole microseconds


def test_a_key_frame_is_larger_and_the_frames_after_it_pay_for_it_to_the_byte() -> None:
    camera = Camera(key_frame_ratio=4.0)
    sizes = camera.sizes(1_200_000.0, 20)
    # 4 * 5000 bytes; the 15,000 in excess come back at half a frame, 2500 bytes, in six frames.
    assert sizes.tolist() == [20_000] + [2_500] * 6 + [5_000] * 13
    assert sizes[:7].sum() == 7 * 5_000
    assert camera.encoder.key_frames == 1


def test_a_requested_key_frame_is_the_next_frame_and_no_other() -> None:
    camera = Camera(key_frame_ratio=4.0)
    camera.sizes(1e6, 20)
    camera.encoder.is_key_requested = 1
    is_key = []
    for _ in range(5):
        camera.sizes(1e6, 1)
        is_key.append(int(camera.frame.is_key))
    assert is_key == [1, 0, 0, 0, 0]


def test_requests_within_300_ms_of_one_make_no_further_key_frame() -> None:
    camera = Camera(key_frame_ratio=4.0)
    camera.sizes(1e6, 20)
    honoured = []
    for now_us in (1_000_000, 1_200_000, 1_299_999, 1_300_000, 1_500_000, 1_700_000):
        encoder_on_key_request(camera.encoder, now_us)
        honoured.append(int(camera.encoder.is_key_requested))
        camera.sizes(1e6, 1)
    assert honoured == [1, 0, 0, 1, 0, 1]


def test_the_application_limit_and_the_least_rate_bound_what_the_encoder_aims_at() -> None:
    assert rate_bps(Camera(app_max_rate_bps=300_000.0).sizes(2e6, 10)) == pytest.approx(3e5)
    assert rate_bps(Camera(app_max_rate_bps=300_000.0).sizes(2e5, 10)) == pytest.approx(
        2e5, rel=1e-3
    )
    assert rate_bps(Camera().sizes(1_000.0, 10)) == pytest.approx(30_000.0)


def test_scene_changes_come_as_often_as_they_should() -> None:
    camera = Camera(scene_change_chance=0.02)
    camera.sizes(1e6, 5_000)
    # The first frame is a key frame anyway.
    assert abs(camera.encoder.key_frames - 1 - 100) < 4 * math.sqrt(5_000 * 0.02 * 0.98)


def test_pushback_drops_every_nth_frame_and_none_below_one_percent() -> None:
    def interval(ratio: float) -> int:
        return encoder_drop_interval(Camera().encoder, 1_000_000.0, ratio)

    assert interval(0.25) == 4
    assert interval(0.9) == 2  # never more than every other frame
    assert interval(0.01) == 0
    camera = Camera()
    assert [int(encoder_drops_frame(camera.encoder, 4)) for _ in range(12)] == [1, 0, 0, 0] * 3


def test_pushback_leaves_the_least_rate_of_the_encoder_alone() -> None:
    # 40 kbps less 10 kbps are the least rate: only a quarter can go, however much is asked.
    assert encoder_drop_interval(Camera().encoder, 40_000.0, 0.8) == 4
    assert encoder_drop_interval(Camera().encoder, 30_000.0, 0.8) == 0


# --- On the wire ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [60_000, 100_000, 700_000, 1_000_000, 3_000_000])
def test_video_and_all_headers_together_use_up_the_target(rate: int) -> None:
    call = OneCall(ROOMY, CallConfig(video=PLAIN_VIDEO, audio=SILENT), mode="rate")
    steps = call.run_until(10.0, rate)
    # The first second is the start rate's; a frame in 300 falls on this or that side of an edge.
    assert steps["sent_rate_bps"][10:].mean() == pytest.approx(rate, rel=0.005)


def test_audio_is_taken_out_of_what_the_target_leaves_for_video() -> None:
    call = OneCall(ROOMY, CallConfig(video=PLAIN_VIDEO), mode="rate")
    steps = call.run_until(10.0, 1_000_000)
    assert steps["sent_rate_bps"][10:].mean() == pytest.approx(1_000_000, rel=0.005)
    # 50 packets of 80 + 40 bytes a second.
    audio = call.flow.totals.sent_bytes[1]
    assert audio == 501 * 120  # one at t = 0


@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_the_packets_of_a_frame_add_up_to_it_and_are_as_few_and_as_equal_as_can_be(
    noise: float,
) -> None:
    video = VideoConfig(frame_size_sd=noise)
    call = OneCall(ROOMY, CallConfig(video=video), mode="rate")
    call.run_until(5.0, 2_500_000)
    rows = call.packets[call.packets["kind"] == KIND_VIDEO]
    frames = call.world.frames[0][: call.flow.encoder.next_frame]
    assert len(frames) > 100
    for frame in frames[:-1]:  # the last may still wait in the pacer
        payloads = rows["size_bytes"][rows["frame"] == frame["number"]] - HEADER_BYTES
        assert payloads.sum() == frame["size_bytes"]
        assert len(payloads) == math.ceil(frame["size_bytes"] / FULL_PAYLOAD_BYTES)
        assert payloads.max() <= FULL_PAYLOAD_BYTES
        assert payloads.max() - payloads.min() <= 1


def test_an_application_limit_holds_the_media_rate_whatever_the_target() -> None:
    video = VideoConfig(app_max_rate_bps=300_000, frame_size_sd=0.0)
    config = CallConfig(video=video, audio=AudioConfig(enabled=False))
    steps = OneCall(ROOMY, config, mode="rate").run_until(10.0, 5_000_000)
    assert steps["target_rate_bps"][-1] == 5_000_000
    assert steps["media_rate_bps"][20:].mean() == pytest.approx(300_000, rel=0.01)


# --- Quantiser, picture size, frame rate ----------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "rate_kbps", "recorded_qp"),
    [
        # Mean QP and encoder target of recorded Chromium calls that kept one picture size.
        (480, 270, 187, 74.0),
        (640, 360, 708, 38.5),
        (640, 360, 721, 38.1),
        (960, 540, 1448, 30.4),
        (1280, 720, 3239, 23.2),
        (1280, 720, 4964, 17.3),
    ],
)
def test_the_quantiser_is_that_of_recorded_calls_within_six_percent(
    width: int, height: int, rate_kbps: float, recorded_qp: float
) -> None:
    qp = encoder_qp(rate_kbps * 1e3 / 30.0, float(width * height))
    assert qp == pytest.approx(recorded_qp, rel=0.06)


def test_fewer_bits_per_pixel_never_make_a_finer_quantiser() -> None:
    rates = np.geomspace(1e3, 1e9, 200)
    for pixels in LADDER_PIXELS:
        values = [encoder_qp(rate / 30.0, pixels) for rate in rates]
        assert (np.diff(values) <= 0.0).all()
        assert (values[0], values[-1]) == (MAX_QP, MIN_QP)
    for pixels, bits in zip(LADDER_PIXELS, LEAST_BITS, strict=True):
        assert encoder_qp(bits, pixels) == pytest.approx(MAX_QP, rel=1e-9)


def test_below_what_the_coarsest_quantiser_takes_frames_are_skipped_and_the_rate_is_kept() -> None:
    video = VideoConfig(encoder_lag_s=0.0, frame_size_sd=0.0, key_frame_ratio=1.0)
    rate_bps, frames_hz = [], []
    for target_bps in (50_000, 75_000, 150_000):
        call = OneCall(ROOMY, CallConfig(video=video, audio=SILENT), mode="rate")
        call.run_until(20.0, target_bps)
        encoder, totals = call.flow.encoder, call.flow.totals
        frames_hz.append(encoder.next_frame / 20.0)
        media = totals.sent_bytes[KIND_VIDEO] - HEADER_BYTES * totals.sent_packets[KIND_VIDEO]
        rate_bps.append(media * 8 / 20.0)
        assert rate_bps[-1] == pytest.approx(encoder.rate_bps, rel=0.03)
        least_hz = min(FRAME_RATE_HZ, float(encoder.rate_bps) / LEAST_BITS[0])
        assert frames_hz[-1] == pytest.approx(least_hz, rel=0.02)
        assert encoder.coarse_frames == pytest.approx(20.0 * (30.0 - least_hz), abs=3)
    assert 12.0 < frames_hz[0] < frames_hz[1] < frames_hz[2] == pytest.approx(30.0, abs=0.1)


def nearest_step(pixels: float) -> int:
    """Position of the ladder's step whose ratio to a size is the smallest."""
    ratios = [max(pixels / step, step / pixels) for step in LADDER_PIXELS]
    return ratios.index(min(ratios))


def test_a_picture_is_of_the_class_whose_step_is_nearest_by_their_ratio() -> None:
    assert [picture_class(pixels) for pixels in LADDER_PIXELS] == [0, 1, 2, 3, 4]
    for pixels in np.geomspace(40_000.0, 2e6, 997):
        assert picture_class(pixels) == nearest_step(pixels)
    # 480 x 270 and 640 x 360 meet at 172,800 pixels (555 x 312), the geometric mean of the two.
    assert (picture_class(172_799.0), picture_class(172_801.0)) == (1, 2)


@pytest.mark.parametrize("uses_ladder", [0, 1])
def test_sums_over_the_classes_of_picture_sizes_are_those_of_all_frames(uses_ladder: int) -> None:
    camera = Camera(start_rate_bps=200e3, uses_ladder=uses_ladder, key_frame_ratio=4.0)
    encoder = camera.encoder
    qp_sums, counts = np.zeros(5), np.zeros(5, dtype=np.int64)
    rates = np.concatenate([np.geomspace(60e3, 6e6, 600), np.geomspace(6e6, 60e3, 600)])
    for rate in rates:
        before = float(encoder.qp_sum)
        camera.sizes(float(rate), 1)
        step = nearest_step(float(camera.frame.pixels))
        qp_sums[step] += float(encoder.qp_sum) - before
        counts[step] += 1
    assert (counts > 0).sum() == 5
    assert encoder.class_frames.tolist() == counts.tolist()
    assert encoder.class_frames.sum() == encoder.next_frame == 1_200
    np.testing.assert_allclose(encoder.class_qp_sum, qp_sums, rtol=1e-9)
    # The same numbers in another order of summation.
    assert encoder.class_qp_sum.sum() == pytest.approx(float(encoder.qp_sum), rel=1e-12)
    encoder_reset(encoder, 200e3)
    assert not encoder.class_frames.any()
    assert not encoder.class_qp_sum.any()


def ladder_sizes(*rates: tuple[float, float]) -> list[int]:
    """Picture sizes at the end of each (seconds, rate)."""
    camera = Camera(start_rate_bps=300_000.0, uses_ladder=1)
    encoder_reset(camera.encoder, 300_000.0)
    sizes = []
    for seconds, rate_bps in rates:
        camera.sizes(rate_bps, round(seconds * FRAME_RATE_HZ))
        sizes.append(int(camera.frame.pixels))
    return sizes


def test_the_picture_steps_on_its_ladder_with_hysteresis() -> None:
    small, medium, large = 480 * 270, 640 * 360, 960 * 540
    # It starts with 640 x 360, the largest that 300 kbps may start.
    assert ladder_sizes((1.0, 300e3)) == [medium]
    # 708 kbps keep it (as recorded), and so do rates down to a QP of 95; below, it gets smaller.
    assert ladder_sizes((20.0, 708e3), (20.0, 250e3), (20.0, 170e3)) == [medium, medium, small]
    # Up again only below a QP of 29, at several times that rate.
    up = ladder_sizes((20.0, 170e3), (20.0, 400e3), (20.0, 800e3), (20.0, 1_200e3))
    assert up == [small, small, medium, large]


def test_a_new_picture_size_comes_with_a_key_frame() -> None:
    camera = Camera(start_rate_bps=300_000.0, uses_ladder=1)
    encoder_reset(camera.encoder, 300_000.0)
    is_key, pixels = [], []
    for _ in range(400):
        camera.sizes(5e6, 1)
        is_key.append(int(camera.frame.is_key))
        pixels.append(int(camera.frame.pixels))
    changes = np.flatnonzero(np.diff(pixels)) + 1
    assert len(changes) == 2
    assert np.flatnonzero(is_key).tolist() == [0, *changes.tolist()]
    assert np.diff(changes).min() >= 2 * FRAME_RATE_HZ - 1  # not before the next period


def test_the_picture_of_a_call_that_begins_late_waits_a_whole_period_too() -> None:
    camera = Camera(start_rate_bps=300_000.0, uses_ladder=1)
    camera.encoder.captured = 40 * FRAME_RATE_HZ  # a camera that is switched on after 40 s
    camera.sizes(5e6, 1)
    first = int(camera.frame.pixels)
    camera.sizes(5e6, 2 * round(FRAME_RATE_HZ) - 2)
    assert int(camera.frame.pixels) == first
    camera.sizes(5e6, 3)
    assert int(camera.frame.pixels) > first

"""Configurations check themselves and survive JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bwe_env.config import (
    AudioConfig,
    CallConfig,
    FeedbackConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    OutageConfig,
    RtxConfig,
    VideoConfig,
    from_mapping,
)
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.reward import RewardConfig


def test_a_configuration_survives_json():
    video = VideoConfig(frame_rate_hz=15.0, rtx=RtxConfig(rate_share=0.5, max_age_s=0.3))
    call = CallConfig(duration_s=30.0, video=video, audio=AudioConfig(redundancy=1))
    plain = json.loads(json.dumps(dataclasses.asdict(call)))
    assert from_mapping(CallConfig, plain) == call


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CallConfig(duration_s=60.05), "not a whole number of intervals"),
        (lambda: CallConfig(interval_s=0.0), "interval_s=0.0 must be"),
        (lambda: CallConfig(max_rate_bps=float("inf")), "max_rate_bps=inf"),
        (lambda: CallConfig(start_rate_bps=10_000), "min_rate_bps <= start_rate_bps"),
        (lambda: VideoConfig(frame_rate_hz="30"), "frame_rate_hz='30'"),
        (lambda: AudioConfig(redundancy=3), "redundancy=3 must be a whole number .* from 0 to 2"),
        (lambda: AudioConfig(redundancy=0.5), "redundancy=0.5 must be a whole number"),
        (lambda: RtxConfig(rate_share=0.0), "rtx.rate_share=0.0 must be .* 0.01 and 1"),
        (lambda: RtxConfig(max_age_s=-1.0), "rtx.max_age_s=-1.0 must be .* s, or 0"),
        (lambda: LossConfig(good_loss=1.5), "a probability"),
        (lambda: LossConfig(good_to_bad=0.1, bad_to_good=0.0), "never recovers"),
        (lambda: LossConfig(from_s=10.0, until_s=5.0), "must be after loss.from_s=10.0"),
        (lambda: LossConfig(replay=(0, 2)), r"packet 1 is 2; each must be 0 .arrives. or 1 .lost"),
        (lambda: LossConfig(replay=(0, None)), "packet 1 is None"),
        (lambda: LossConfig(replay=((0, 1),)), r"packet 0 is \(0, 1\)"),
        (lambda: LossConfig(replay="0101"), "replay='0101' must be a sequence of 0"),
        (lambda: LossConfig(replay=0.1), "replay=0.1 must be a sequence of 0"),
        (lambda: LossConfig(replay=(0,) * 20_000), "has 20000 packets; at most 16384"),
        (lambda: LossConfig(replay=(0, 1), good_loss=0.1), "two models of one loss"),
        (lambda: LinkConfig(grant_interval_s=0.01, grant_spread=1.5), "grant_spread=1.5 must be"),
        (lambda: LinkConfig(grant_spread=0.5), "grant_interval_s=0 does not give"),
        (lambda: JitterConfig(distribution="uniform", mean_s=0.1), "mean_s=0.1 is for"),
        (lambda: VideoConfig(app_limit_until_s=5.0), "app_max_rate_bps=0 does not set"),
        (lambda: OutageConfig(keeps=True, until_s=600.0), "is too long"),
        (lambda: CallConfig(feedback=FeedbackConfig(rtt_packet="sent")), "consent_interval_s=0"),
        (lambda: LinkConfig(queue_limit_bytes=1000), "cannot hold one packet"),
        (lambda: JitterConfig(correlation=1.0), "correlation=1.0"),
        (lambda: RewardConfig(freeze=0.9, delay=0.9), "add up to 1.8|add up to 2"),
        (lambda: RewardConfig(quality=-1.0), "between 0 and 1"),
    ],
)
def test_a_value_out_of_range_says_its_name_and_what_is_allowed(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_unknown_field_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'frame_rate_hz'.*Known: "):
        from_mapping(CallConfig, {"video": {"framerate_hz": 30}})


def test_mean_loss_of_the_chain_is_its_stationary_share_times_its_loss():
    chain = LossConfig(good_loss=0.01, bad_loss=0.5, good_to_bad=0.02, bad_to_good=0.18)
    assert chain.mean_loss_ratio == pytest.approx(0.1 * 0.5 + 0.9 * 0.01)

"""Ways to look good without being good, each closed. The gate (test_gate.py) closes them for whole
policies; here each stands alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bwe_env.action import rate_to_action
from bwe_env.config import (
    AudioConfig,
    CallConfig,
    FeedbackConfig,
    LinkConfig,
    LossConfig,
    OutageConfig,
    PacketConfig,
    PathConfig,
    VideoConfig,
)
from bwe_env.estimator import NO_TIMEOUT_US, RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.network import Network
from bwe_env.rollout import call_key, run_calls
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    FATE_QUEUE_DROP,
    FATE_RANDOM_LOSS,
    KIND_PADDING,
    KIND_VIDEO,
)
from bwe_env.trace import constant
from bwe_env.truth import GroundTruth
from tests.sim.calls import OneCall

CALL = CallConfig()
MUTE = CallConfig(audio=AudioConfig(enabled=False))


class Orders:
    """An external estimator that always decides the same."""

    def __init__(self, decision: RateDecision) -> None:
        self._decision = decision

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None: ...

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        return self._decision

    def on_timeout(self, now_us: int) -> RateDecision:
        return self._decision

    def next_timeout_us(self) -> int:
        return NO_TIMEOUT_US


class Rates:
    """A policy whose target goes through a list of rates, each for so many intervals."""

    action_mode = "rate"

    def __init__(self, *rates_bps: float, intervals: int = 1) -> None:
        self._actions = [
            rate_to_action(rate_bps, CALL.min_rate_bps, CALL.max_rate_bps) for rate_bps in rates_bps
        ]
        self._intervals = intervals
        self._interval = 0

    def reset(self, num_envs: int) -> None:
        self._interval = 0

    def act(self, observation: np.ndarray, truth: GroundTruth) -> np.ndarray:
        action = self._actions[self._interval // self._intervals % len(self._actions)]
        self._interval += 1
        return np.full((len(observation), 1), action, dtype=np.float32)


def wide(capacity_bps: float = 20e6) -> Network:
    return Network(trace=constant(capacity_bps, name="wide"))


def row_of(table: dict[str, Any]) -> dict[str, float]:
    (length,) = {len(column) for column in table.values()}
    assert length == 1
    return {name: column[0] for name, column in table.items()}


# --- Where packets are lost, what they cost, when they are told of --------------------------------


@pytest.mark.parametrize("loss_before_queue", [True, False])
def test_loss_before_the_queue_spares_it_and_loss_behind_it_has_used_it(
    loss_before_queue: bool,
) -> None:
    # 2 Mbps offered to 1 Mbps, half of the packets lost by chance.
    network = Network(
        trace=constant(1e6),
        link=LinkConfig(loss_before_queue=loss_before_queue),
        forward=PathConfig(loss=LossConfig(good_loss=0.5)),
    )
    video = VideoConfig(repair=False)
    call = OneCall(network, replace(MUTE, video=video), mode="rate", packet_rows=1 << 15)
    call.run_until(30.0, 2_000_000)
    rows = call.packets
    received_bps = 8 * rows["size_bytes"][rows["fate"] == FATE_DELIVERED].sum() / 30.0
    overflow = (rows["fate"] == FATE_QUEUE_DROP).mean()
    by_chance = (rows["fate"] == FATE_RANDOM_LOSS).mean()
    if loss_before_queue:  # what is left fits in, but for bursts
        assert received_bps > 0.8e6
        assert overflow < 0.1
        assert by_chance == pytest.approx(0.5, abs=0.03)
    else:  # half of the link's time is wasted, and the queue sees everything
        assert received_bps == pytest.approx(0.5e6, rel=0.06)
        assert overflow > 0.4
        assert by_chance == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("overhead_bytes", "uncounted_bytes"), [(28, 0), (48, 0), (28, 20)])
def test_headers_take_link_time_and_only_those_that_the_controller_knows_come_off_the_video(
    overhead_bytes: int, uncounted_bytes: int
) -> None:
    packets = PacketConfig(overhead_bytes=overhead_bytes, uncounted_bytes=uncounted_bytes)
    config = replace(MUTE, packets=packets)
    call = OneCall(wide(), config, mode="rate")
    call.run_until(20.0, 1_000_000)
    rows = call.packets[call.packets["kind"] == KIND_VIDEO]
    assert 8 * rows["size_bytes"].sum() / 20.0 == pytest.approx(1e6, rel=0.02)
    # Whoever finds the queue empty takes 25 ms and its own bits at 20 Mbps, and some do.
    service_us = 8 * (rows["size_bytes"] + uncounted_bytes) / 20.0
    waits_us = rows["arrival_us"] - rows["send_us"] - 25_000 - service_us
    assert 0.0 <= waits_us.min() <= 1.0


@pytest.mark.parametrize(
    ("link", "slow_s", "fast_s"),
    [
        # 75 kB: 1.2 s at 0.5 Mbps, 0.15 s at 4 Mbps; 0.3 s at either rate.
        (LinkConfig(queue_limit_bytes=75_000), 1.2, 0.15),
        (LinkConfig(queue_limit_s=0.3), 0.3, 0.3),
    ],
)
def test_a_queue_is_limited_in_bytes_or_in_time(
    link: LinkConfig, slow_s: float, fast_s: float
) -> None:
    for capacity_bps, expected_s in ((0.5e6, slow_s), (4e6, fast_s)):
        network = Network(trace=constant(capacity_bps), link=link)
        call = OneCall(network, MUTE, mode="rate", packet_rows=1 << 15)
        call.run_until(20.0, 1.5 * capacity_bps)
        rows = call.packets[call.packets["fate"] == FATE_DELIVERED]
        longest_s = (rows["arrival_us"] - rows["send_us"]).max() * 1e-6 - 0.025
        # A packet more or less, and the whole microseconds of the service.
        packet_s = 8 * 1_228 / capacity_bps
        assert longest_s == pytest.approx(expected_s, abs=packet_s + 1e-3)


@pytest.mark.parametrize(("interval_s", "per_s"), [(0.05, 20), (0.0, 20), (0.2, 5)])
def test_feedback_comes_by_the_rule_that_the_call_is_given(interval_s: float, per_s: int) -> None:
    config = replace(CALL, feedback=FeedbackConfig(interval_s=interval_s))
    call = OneCall(wide(), config, mode="rate", step_us=10_000)
    built_us = set()
    while call.now_us < 10_000_000:
        call.step(1_000_000)
        built_us.add(int(call.flow.report_built_us))
    assert len(built_us) == pytest.approx(10 * per_s, abs=3)


# --- Probes and padding ---------------------------------------------------------------------------


def test_probes_of_gcc_are_packets_like_others_and_a_full_queue_drops_them() -> None:
    # Three and six times 300 kbps into 400 kbps with room for 50 ms.
    narrow = Network(trace=constant(400e3), link=LinkConfig(queue_limit_s=0.05))
    call = OneCall(narrow)
    call.run_until(2.0)
    rows = call.packets
    probes = rows[rows["probe_cluster"] >= 0]
    assert len(probes) > 10
    assert (probes["fate"] == FATE_QUEUE_DROP).any()
    totals = call.flow.totals
    assert totals.sent_bytes.sum() == rows["size_bytes"].sum()
    assert totals.fate_packets[FATE_QUEUE_DROP] == (rows["fate"] == FATE_QUEUE_DROP).sum()


def test_padding_costs_whoever_orders_it_and_counts_as_no_video() -> None:
    """Same target, and 4 Mbps of padding on top over 2 Mbps: it queues, is lost, is charged."""
    network = Network(trace=constant(2e6, name="two"))
    rows = []
    for padding_bps in (0, 4_000_000):
        decision = RateDecision(
            target_rate_bps=1_000_000, pacing_rate_bps=6_000_000, padding_rate_bps=padding_bps
        )

        def factory(decision: RateDecision = decision) -> Orders:
            return Orders(decision)

        rows.append(row_of(run_calls([network], factory, seeds=(0,))))
    plain, padded = rows
    assert padded["mean_sent_bps"] > 3.5e6 > plain["mean_sent_bps"]
    assert padded["queue_loss_ratio"] > 0.3
    assert padded["one_way_delay_ms_p50"] > plain["one_way_delay_ms_p50"] + 200.0
    assert padded["mean_reward"] < plain["mean_reward"] - 0.2
    assert padded["call_score"] < plain["call_score"]
    assert padded["mean_video_sent_bps"] <= 1.01 * plain["mean_video_sent_bps"]


def test_an_action_orders_neither_probes_nor_padding_and_gets_none() -> None:
    call = OneCall(wide(), mode="rate")
    call.run_until(20.0, 1_000_000)
    rows = call.packets
    assert (rows["probe_cluster"] < 0).all()
    assert (rows["kind"] != KIND_PADDING).all()
    # The shadow GCC sees no more than what was sent: it cannot find the 20 Mbps.
    assert call.flow.gcc.target_rate_bps < 2_000_000


def test_scaled_gcc_is_told_of_what_was_really_sent() -> None:
    """Closed loop: at half the target GCC sees half the packets, not those it would have sent."""
    acked_bps = []
    for scale in (1.0, 0.5):
        call = OneCall(Network(trace=constant(1e6)), mode="scale")
        rows = call.run_until(30.0, scale)
        late = rows["time_s"] > 20.0
        sent_bps = rows["sent_rate_bps"][late].mean()
        assert sent_bps == pytest.approx(scale * rows["gcc_target_rate_bps"][late].mean(), rel=0.1)
        acked_bps.append(rows["receive_rate_bps"][late].mean())
    assert acked_bps[1] < 0.95 * acked_bps[0]


# --- Silence is not smoothness --------------------------------------------------------------------


@pytest.mark.parametrize("silent_s", [3.0, 8.0, 30.0])
def test_a_silence_of_any_length_is_charged_as_frozen_whatever_it_is_called(
    silent_s: float,
) -> None:
    """From 5 s on libwebrtc calls it a pause; the reward and the metrics charge it all the same."""
    video = VideoConfig(pause_from_s=10.0, pause_until_s=10.0 + silent_s)
    config = replace(CALL, video=video)
    call = OneCall(wide(), config, mode="rate")
    steps = call.run_until(60.0, 1_000_000)
    receiver = call.flow.receiver
    is_pause = silent_s > 5.0
    assert receiver.pause_count == int(is_pause)
    assert receiver.freeze_count == int(not is_pause)
    frozen_s = steps["frozen_ratio"].sum() * 0.1
    # A frame interval before, and at the start the time until the first picture.
    assert silent_s <= frozen_s <= silent_s + 0.5
    during = (steps["time_s"] > 11.2) & (steps["time_s"] < 10.0 + silent_s)
    assert (steps["video_mos"][during] == 1.0).all()
    assert (steps["reward"][during] < 0.0).all()
    row = row_of(run_calls([wide()], Rates(1_000_000), seeds=(0,), call=config))
    assert row["freeze_ratio"] >= silent_s / 60.0
    assert row["freeze_ratio_above_500ms"] >= silent_s / 60.0


def test_a_silence_that_never_ends_is_charged_from_its_first_moment_on() -> None:
    video = VideoConfig(pause_from_s=10.0, pause_until_s=1_000.0)
    config = replace(CALL, video=video)
    row = row_of(run_calls([wide()], Rates(1_000_000), seeds=(0,), call=config))
    assert row["freeze_count"] == 0  # W3C counts when a picture ends a freeze
    # The last frame was captured at 9.97 s and shown up to 0.1 s later.
    assert 49.93 / 60.0 <= row["freeze_ratio"] < 50.1 / 60.0
    assert 49.93 / 60.0 <= row["freeze_ratio_above_500ms"] <= row["freeze_ratio"] + 1e-12


def test_fewer_frames_hide_no_freeze() -> None:
    """The freeze rule is relative to the frames before; the score is not.

    An outage of 0.2 s is a freeze at 30 Hz and none at 5 Hz, where frames come 0.2 s apart: but
    each step down in frame rate costs more than all that it hides.
    """
    out = PathConfig(outage=OutageConfig(from_s=30.0, until_s=30.2))
    network = Network(trace=constant(4e6, name="clean"), forward=out)
    scores, freezes = [], []
    for rate_hz in (30.0, 15.0, 10.0, 5.0, 2.0, 1.0):
        config = replace(CALL, video=VideoConfig(frame_rate_hz=rate_hz))
        row = row_of(run_calls([network], Rates(1_000_000), seeds=(0,), call=config))
        scores.append(row["video_mos"])
        freezes.append(int(row["freeze_count"]))
    print(f"scores {np.round(scores, 2).tolist()}, freezes {freezes}")
    assert freezes[0] >= 1
    assert freezes[3] == 0
    assert (np.diff(scores) < -0.1).all()
    assert scores[-1] < 1.5
    # Frozen half of the time at 30 Hz is still better than a picture a second.
    assert scores[-1] < 0.5 * (1.0 + scores[0])


@pytest.mark.parametrize("lag_s", [0.0, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("intervals", [1, 5, 20])
def test_a_target_that_jumps_earns_no_more_than_what_it_delivers_is_worth_at_a_constant_rate(
    lag_s: float, intervals: int
) -> None:
    """Whatever the encoder makes of it: the score is that of delivered frames."""
    config = replace(CALL, video=VideoConfig(encoder_lag_s=lag_s))
    jumping = row_of(
        run_calls([wide()], Rates(3e6, 300e3, intervals=intervals), seeds=(0,), call=config)
    )
    mean_bps = jumping["mean_sent_bps"]
    steady = row_of(run_calls([wide()], Rates(mean_bps), seeds=(0,), call=config))
    assert steady["mean_sent_bps"] == pytest.approx(mean_bps, rel=0.05)
    assert jumping["video_mos"] < steady["video_mos"] + 0.02
    assert jumping["call_score"] < steady["call_score"] + 0.02
    assert jumping["mean_reward"] < steady["mean_reward"] - 0.05


# --- Seeds ----------------------------------------------------------------------------------------


def test_the_key_of_a_call_is_a_hash_of_its_network_and_its_index() -> None:
    """Neighbouring seeds, and the same seed of networks of other splits, share nothing."""
    names = [
        f"{split}-wifi-{index}" for split in ("train", "validation", "test") for index in (0, 1)
    ]
    keys = np.array([[call_key(name, seed) for seed in range(500)] for name in names])
    assert len(np.unique(keys)) == keys.size
    gaps = np.diff(np.sort(keys.ravel()))
    assert gaps.min() > 1_000  # no seed + i of one meets another

"""Whole calls by `run_calls`: reproducible, complete, paired across controllers, fully charged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.action import rate_to_action
from bwe_env.call_table import call_columns
from bwe_env.config import (
    AudioConfig,
    CallConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    PathConfig,
    VideoConfig,
)
from bwe_env.errors import ActionError, ConfigError, UnknownNameError
from bwe_env.estimator import NO_TIMEOUT_US, RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.metrics import CALL_COLUMNS, PICTURE_CLASSES
from bwe_env.network import Network
from bwe_env.rollout import call_key, run_calls
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    FATE_QUEUE_DROP,
    FATE_RANDOM_LOSS,
    KIND_AUDIO,
    KIND_RTX,
)
from bwe_env.trace import Trace, constant, square
from bwe_env.truth import GroundTruth
from tests.sim.calls import OneCall

LOSSY = PathConfig(
    loss=LossConfig(good_loss=0.02, good_to_bad=0.01, bad_to_good=0.3),
    jitter=JitterConfig(distribution="uniform", scale_s=0.005),
)
NETWORKS = (
    Network(trace=constant(1e6), forward=LOSSY),
    Network(trace=square(2e6, 0.5e6, half_period_s=2.0), link=LinkConfig(loss_before_queue=True)),
    Network(trace=constant(300e3, name="slow"), reverse=LOSSY),
)
CALL = CallConfig(duration_s=5.0)


class Ladder:
    """A policy that climbs with the time it has seen and knows nothing else.

    What it is given is kept for the tests.
    """

    action_mode: Literal["rate", "scale"] = "rate"

    def __init__(self) -> None:
        self.resets: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.capacities: list[NDArray[np.float64]] = []

    def reset(self, num_envs: int) -> None:
        self.resets.append(num_envs)

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        self.shapes.append(observation.shape)
        self.capacities.append(truth.capacity_bps)
        return observation[:, -1:].clip(-1.0, 1.0)  # the call's age, in the last feature


class Constant:
    """A policy with one answer."""

    def __init__(self, action: float, mode: Literal["rate", "scale"] = "rate") -> None:
        self.action_mode: Literal["rate", "scale"] = mode
        self.action = action

    def reset(self, num_envs: int) -> None:
        pass

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        return np.full((len(observation), 1), self.action, dtype=np.float32)


class Halver:
    """An estimator that follows 0.9 times the rate at which the last report's packets arrived."""

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        pass

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        received = report.received
        if len(received) < 2:
            return RateDecision(target_rate_bps=300_000)
        first, last = received[0].arrival_time_us, received[-1].arrival_time_us
        assert first is not None
        assert last is not None
        bits = 8 * sum(packet.sent.size_bytes for packet in received[1:])
        return RateDecision(target_rate_bps=max(50_000.0, 0.9e6 * bits / max(10_000, last - first)))

    def on_timeout(self, now_us: int) -> RateDecision:
        raise AssertionError("it asked for no timer")

    def next_timeout_us(self) -> int:
        return NO_TIMEOUT_US


def assert_same(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    for name, column in first.items():
        assert column.dtype == second[name].dtype, name
        assert column.tobytes() == second[name].tobytes(), name


def assert_finite(table: dict[str, NDArray[Any]]) -> None:
    for name, column in table.items():
        if name.startswith("last_minute"):
            continue  # calls of a few seconds have none
        assert column.dtype.kind != "f" or np.isfinite(column).all(), name


# --- Reproducible ---------------------------------------------------------------------------------


@pytest.mark.parametrize("controller", ["gcc", Constant(0.3), Constant(0.4, "scale"), Halver])
def test_results_depend_neither_on_the_batch_size_nor_on_the_threads(controller: Any) -> None:
    reference = run_calls(NETWORKS, controller, call=CALL, seeds=(0, 1), batch_size=64)
    for batch_size, num_threads in ((1, 1), (4, 1), (5, 2), (64, 2), (64, 7)):
        again = run_calls(
            NETWORKS,
            controller,
            call=CALL,
            seeds=(0, 1),
            batch_size=batch_size,
            num_threads=num_threads,
        )
        assert_same(reference, again)


def test_a_call_depends_on_its_network_and_seed_and_not_on_what_else_is_run() -> None:
    together = run_calls(NETWORKS, "gcc", call=CALL, seeds=(0, 1))
    alone = run_calls(NETWORKS[1:2], "gcc", call=CALL, seeds=(1,))
    assert_same({name: column[3:4] for name, column in together.items()}, alone)
    # Nor on how much memory the others need.
    large = Network(
        trace=constant(50e6, name="large"),
        link=LinkConfig(queue_limit_s=30.0),
        reverse=PathConfig(propagation_delay_s=2.0),
    )
    beside = run_calls((*NETWORKS[1:2], large), Constant(1.0), call=CALL, seeds=(1,))
    alone = run_calls(NETWORKS[1:2], Constant(1.0), call=CALL, seeds=(1,))
    assert alone["queue_loss_ratio"][0] > 0.5
    assert alone["rtx_packets"][0] > 500
    for name, column in alone.items():
        assert column[0] == beside[name][0] or name.startswith("last_minute"), name
    seeds = run_calls(NETWORKS[:1], "gcc", call=CALL, seeds=(0, 1, 0))
    assert seeds["mean_reward"][0] == seeds["mean_reward"][2] != seeds["mean_reward"][1]


def test_keys_of_calls_are_all_different() -> None:
    keys = {call_key(name, seed) for name in ("a", "b", "a1") for seed in range(1_000)}
    assert len(keys) == 3_000
    assert all(0 <= key < 2**63 for key in keys)


def test_two_controllers_meet_the_same_losses_packet_for_packet() -> None:
    network = replace(NETWORKS[0], link=LinkConfig(loss_before_queue=True))
    # One consent check at the start: from then on every draw belongs to a media packet.
    config = CallConfig(consent_interval_s=60.0)
    struck = []
    for mode, rate in (("gcc", 0.0), ("rate", 900_000.0), ("rate", 60_000.0)):
        call = OneCall(network, config, mode=mode, key=call_key(network.name, 4))
        call.run_until(10.0, rate)
        struck.append(call.packets["fate"] == FATE_RANDOM_LOSS)
    count = min(len(fates) for fates in struck)
    assert count > 500
    assert struck[0][:count].sum() > 10
    assert np.array_equal(struck[0][:count], struck[1][:count])
    assert np.array_equal(struck[0][:count], struck[2][:count])


def test_scaling_gcc_by_one_is_gcc_bit_for_bit() -> None:
    assert_same(
        run_calls(NETWORKS, "gcc", call=CALL, seeds=(0,)),
        run_calls(NETWORKS, Constant(0.0, "scale"), call=CALL, seeds=(0,)),
    )


# --- Complete -------------------------------------------------------------------------------------


@pytest.mark.parametrize("controller", ["gcc", Constant(1.0), Constant(-1.0), Halver])
def test_every_column_of_the_table_is_there_and_finite(controller: Any) -> None:
    done: list[int] = []
    table = run_calls(
        NETWORKS, controller, call=CALL, seeds=(5, 9), batch_size=4, progress=done.append
    )
    assert list(table) == list(CALL_COLUMNS)
    assert done == [4, 2]
    # Networks outermost, seeds inside.
    assert table["network"].tolist() == [n.name for n in NETWORKS for _ in range(2)]
    assert table["network_type"].tolist() == ["pattern"] * 6
    assert table["seed"].tolist() == [5, 9] * 3
    assert all(column.shape == (6,) for column in table.values())
    assert_finite(table)


@pytest.mark.parametrize(("picture_size", "least_classes"), [("smooth", 3), ("ladder", 1)])
def test_columns_of_the_classes_of_picture_sizes_add_up_to_those_of_all_frames(
    picture_size: Literal["smooth", "ladder"], least_classes: int
) -> None:
    call = replace(CALL, video=VideoConfig(picture_size=picture_size))
    table = run_calls(NETWORKS, "gcc", call=call, seeds=(0,))
    sums, frames = (
        np.array([table[f"{name}_{size}"] for size in PICTURE_CLASSES])
        for name in ("video_qp_sum", "frames_encoded")
    )
    assert (frames > 0).any(axis=1).sum() >= least_classes
    np.testing.assert_array_equal(frames.sum(axis=0), table["frames_encoded"])
    # The same numbers in another order of summation.
    np.testing.assert_allclose(sums.sum(axis=0), table["video_qp_sum"], rtol=1e-12)
    np.testing.assert_array_equal(
        table["video_qp_sum"] / table["frames_encoded"], table["video_qp"]
    )


def test_the_table_says_what_the_packets_of_the_call_say() -> None:
    duration_s = 8.0
    config = CallConfig(duration_s=duration_s)
    network = replace(NETWORKS[1], forward=LOSSY)
    call = OneCall(network, config, mode="rate", key=6)
    steps = call.run_until(duration_s, 900_000)
    (row,) = [
        {
            name: column[0]
            for name, column in call_columns(call.world, steps[:, None], config).items()
        }
    ]
    packets = call.packets
    delivered = packets[packets["fate"] == FATE_DELIVERED]
    audio = packets[packets["kind"] == KIND_AUDIO]

    def bits_per_s(sizes: Any) -> float:
        return float(8 * sizes.sum() / duration_s)

    assert row["mean_sent_bps"] == pytest.approx(bits_per_s(packets["size_bytes"]))
    assert row["mean_receive_bps"] == pytest.approx(bits_per_s(delivered["size_bytes"]))
    for fate, name in ((FATE_QUEUE_DROP, "queue"), (FATE_RANDOM_LOSS, "random")):
        share = (packets["fate"] == fate).mean()
        assert share > 0.005
        assert row[f"{name}_loss_ratio"] == pytest.approx(share)
    lost_audio = np.isin(audio["fate"], (FATE_QUEUE_DROP, FATE_RANDOM_LOSS)).mean()
    assert row["audio_loss_ratio"] == pytest.approx(lost_audio)
    assert row["rtx_packets"] == (packets["kind"] == KIND_RTX).sum()
    delays_ms = (delivered["arrival_us"] - delivered["send_us"]) / 1_000
    for q in (50, 95, 99):
        # A histogram of 16 bins to the octave or finer: 5 %.
        assert row[f"one_way_delay_ms_p{q}"] == pytest.approx(np.percentile(delays_ms, q), rel=0.05)
    assert row["mean_target_bps"] == pytest.approx(900_000)
    assert row["mean_reward"] == pytest.approx(steps["reward"].sum() / duration_s)
    assert row["mean_capacity_bps"] == pytest.approx(1.25e6)
    assert row["utilisation"] == pytest.approx(row["mean_receive_bps"] / 1.25e6)
    frozen_s = call.flow.receiver.frozen_us * 1e-6
    assert row["freeze_ratio"] == pytest.approx(frozen_s / duration_s)
    # What shows itself as a freeze at the very end is too much for the last intervals.
    assert 0.0 <= frozen_s - 0.1 * steps["frozen_ratio"].sum() < 0.2
    assert row["call_score"] == pytest.approx(steps["call_score"][9::10].mean())


# --- Dropped calls --------------------------------------------------------------------------------


def dying(at_s: float) -> Network:
    """A network that is silent for ever after `at_s`."""
    durations_us = np.array([round(at_s * 1e6), 10**9])
    trace = Trace(f"dies-at-{at_s:g}", "pattern", "test", durations_us, np.array([2e6, 0.0]))
    return Network(trace=trace)


@pytest.mark.parametrize("controller", ["gcc", Constant(0.0), Halver])
def test_a_dropped_call_is_charged_for_all_its_scheduled_time(controller: Any) -> None:
    networks = (dying(4.0), Network(trace=constant(2e6)))
    config = CallConfig(duration_s=60.0)
    table = run_calls(networks, controller, call=config, seeds=(0,))
    assert table["dropped"].tolist() == [True, False]
    assert_finite(table)
    # The last answer came for the check of 2.5 s: dropped between 17.5 and 17.7 s, frozen from 4 s
    # on (the jitter buffer holds 0.3 s more) and not there from 17.6 s on.
    assert 55.6 / 60 <= table["freeze_ratio"][0] <= 56.5 / 60
    assert table["freeze_ratio"][1] < 0.02
    # At most 4 s of pictures at +1, then 13.6 s at less than nothing, then 42.4 s at -1.
    assert table["mean_reward"][0] < (4.0 - 42.3) / 60
    assert table["call_score"][0] < (4 * 5.0 + 56 * 1.0) / 60
    assert table["video_mos"][0] < (4 * 5.0 + 56 * 1.0) / 60
    for name in ("mean_sent_bps", "mean_receive_bps", "mean_media_bps"):
        assert table[name][0] < 0.35 * 2e6  # over 60 s, and 2 Mbps passed for 4 s of them


def test_a_batch_in_which_all_calls_have_dropped_ends_at_once() -> None:
    table = run_calls((dying(1.0),), "gcc", call=CallConfig(duration_s=3_600.0), seeds=(0, 1))
    assert table["dropped"].all()
    assert (table["freeze_ratio"] > 0.99).all()
    assert (table["mean_reward"] < -0.98).all()


def test_the_intervals_of_each_call_are_handed_out_in_the_order_of_the_rows() -> None:
    networks = (dying(4.0), Network(trace=constant(2e6)))
    config = CallConfig(duration_s=30.0)
    steps: list[NDArray[Any]] = []
    table = run_calls(
        networks, "gcc", call=config, seeds=(0, 1), batch_size=3, on_call=steps.append
    )
    assert len(steps) == 4
    for row, call in enumerate(steps):
        # A dropped call has the intervals until then, 17.5 to 17.7 s of them; the last is cut off.
        assert len(call) == 300 if row >= 2 else 175 <= len(call) <= 178
        assert np.allclose(call["time_s"][:-1], 0.1 * np.arange(1, len(call)))
        assert call["reward"].sum() / 30.0 == pytest.approx(table["mean_reward"][row])
        terms = [name for name in call.dtype.names or () if name.startswith("reward_")]
        assert sum(call[name] for name in terms) == pytest.approx(call["reward"])
    assert not np.array_equal(steps[2], steps[3])


# --- Policies -------------------------------------------------------------------------------------


def test_a_policy_is_reset_for_each_batch_and_asked_once_an_interval_for_all_its_calls() -> None:
    policy = Ladder()
    run_calls(NETWORKS, policy, call=CALL, seeds=(0, 1), batch_size=4)
    assert policy.resets == [4, 2]
    assert len(policy.shapes) == 2 * CALL.steps
    sizes = {shape[0] for shape in policy.shapes[: CALL.steps]}
    assert sizes == {4}
    # What it may know of the capacity is that of the moment at which it is asked.
    asked = np.array(policy.capacities[: CALL.steps])
    moments_s = np.arange(CALL.steps) * 0.1
    for env, network in enumerate(n for n in NETWORKS[:2] for _ in range(2)):
        expected = [network.trace.capacity_at(moment + 1e-9) for moment in moments_s]
        assert asked[:, env].tolist() == expected


def test_a_constant_policy_has_its_rate_in_force_from_the_start_to_the_end() -> None:
    rate = 750_000.0
    action = float(rate_to_action(rate, CALL.min_rate_bps, CALL.max_rate_bps))
    table = run_calls(NETWORKS, Constant(action), call=CALL, seeds=(0,))
    # An action is a float32: seven digits on a logarithmic scale.
    assert table["mean_target_bps"] == pytest.approx(rate, rel=1e-5)
    assert (table["rate_change_ratio"] == 0.0).all()


def test_a_policy_that_answers_nonsense_is_told_so() -> None:
    with pytest.raises(ActionError, match="NaN"):
        run_calls(NETWORKS, Constant(float("nan")), call=CALL, seeds=(0,))


def test_unknown_controllers_and_empty_tasks_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="gcc"):
        run_calls(NETWORKS, "gccc", call=CALL)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one network"):
        run_calls((), "gcc", call=CALL)
    with pytest.raises(ConfigError, match="one seed"):
        run_calls(NETWORKS, "gcc", call=CALL, seeds=())


def test_a_silent_call_without_any_video_or_sound_ends_all_the_same() -> None:
    config = CallConfig(
        duration_s=5.0, video=VideoConfig(enabled=False), audio=AudioConfig(enabled=False)
    )
    table = run_calls(NETWORKS, "gcc", call=config, seeds=(0,))
    assert (table["mean_sent_bps"] == 0.0).all()
    assert (table["freeze_ratio"] > 0.95).all()
    percentiles = [name for name in table if "_ms_p" in name]
    assert len(percentiles) == 6
    heard = [name for name in table if name.startswith("audio") and np.isnan(table[name]).all()]
    assert {"audio_mos", "audio_jitter_buffer_ms", "audio_burst_ratio"} <= set(heard)
    for name in percentiles + heard:  # of no delays at all, and of no sound
        assert np.isnan(table.pop(name)).all()
    assert_finite(table)


@pytest.mark.parametrize("interval_s", [0.06, 0.3, 2.0])
def test_the_call_score_does_not_depend_on_how_intervals_cut_a_second(interval_s: float) -> None:
    network = Network(trace=constant(2e6))
    scores = [
        run_calls([network], "gcc", seeds=(0,), call=CallConfig(duration_s=60.0, interval_s=step_s))
        for step_s in (0.1, interval_s)
    ]
    for name in ("call_score", "video_mos"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=0.1)


def test_a_dropped_call_is_the_same_alone_and_beside_a_call_that_goes_on() -> None:
    dead = Network(
        trace=Trace.from_points(
            [0.0, 5.0], [1e6, 0.0], name="dead", network_type="pattern", end_s=120.0
        ),
    )
    alive = Network(trace=constant(2e6))
    alone = run_calls([dead], "gcc", seeds=(0,))
    beside = run_calls([dead, alive], "gcc", seeds=(0,))
    assert alone["dropped"][0]
    for name, column in alone.items():
        assert column[:1].tobytes() == beside[name][:1].astype(column.dtype).tobytes(), name

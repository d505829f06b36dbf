"""Settings that change within a call act on its own sender, there and then, and on nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import CallConfig, FecConfig, LinkConfig, LossConfig, PathConfig, VideoConfig
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.observation import ObservationConfig
from bwe_env.reward import RewardConfig
from bwe_env.sender_settings import FIXED_IN_CALL, SETTING_NAMES, SenderSettings
from bwe_env.sim.batch import MODE_NONE
from bwe_env.sim.flow import CONTROLLER_EXTERNAL, CONTROLLER_GCC, FLOW
from bwe_env.sim.packet import KIND_FEC
from bwe_env.sim.settings import build_settings, copy_settings
from bwe_env.sim.state import World
from bwe_env.trace import square
from tests.scripted_models import Cue
from tests.test_sender_settings import another

LOSSY = Network(
    trace=square(1.5e6, 0.5e6, half_period_s=1.0, name="lossy"),
    link=LinkConfig(queue_limit_s=0.2),
    forward=PathConfig(loss=LossConfig(good_loss=0.03)),
)
CALL = CallConfig(duration_s=4.0)
INTERVAL_US = 100_000

Overrides = Sequence[Mapping[str, Any]]


def world_of(
    overrides: Overrides,
    at_interval: int,
    *,
    back_at: int = 1 << 30,
    network: Network = LOSSY,
    call: CallConfig = CALL,
    controller: int = CONTROLLER_GCC,
) -> World:
    """One call for each of the overrides, all alike until they come into force."""
    base = SenderSettings.of(call, GccParameters())
    cue = Cue(
        [base.with_overrides(one) for one in overrides], at_interval=at_interval, back_at=back_at
    )
    cue.reset(len(overrides))
    world = World.make(
        len(overrides),
        [network],
        call,
        gcc=GccParameters(),
        reward=RewardConfig(),
        observation=ObservationConfig(history=1),
        controller=controller,
        targeting=cue,
    )
    for env in range(len(overrides)):
        world.reset(env, 0, 7)
    return world


def step(world: World, intervals: int) -> None:
    values = np.zeros(world.num_envs)
    active = np.ones(world.num_envs, dtype=np.bool_)
    for _ in range(intervals):
        world.step(MODE_NONE, values, active, interval_us=INTERVAL_US, duration_us=4_000_000)


def flow_bytes(world: World, env: int = 0) -> bytes:
    return bytes(world.own_flows[env].tobytes())


# --- The copy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n for n in SETTING_NAMES if n.removeprefix("gcc.") not in FIXED_IN_CALL]
)
def test_a_copied_setting_makes_the_row_of_a_call_configured_so(name: str) -> None:
    """And a copy back leaves no trace of it; a neighbour is not touched."""
    base = SenderSettings()
    table = build_settings([base, base.with_overrides({name: another(name)})], CallConfig())
    assert table[0].tobytes() != table[1].tobytes(), "the change is in the row"
    flows = np.zeros(2, dtype=FLOW)
    flows[:] = table[0]
    copy_settings(flows, 1, table, 1)
    assert flows[0].tobytes() == table[0].tobytes()
    assert flows[1].tobytes() == table[1].tobytes()
    copy_settings(flows, 1, table, 0)
    assert flows[1].tobytes() == table[0].tobytes()


def test_lists_of_another_length_leave_nothing_behind_that_is_read() -> None:
    long: dict[str, Any] = {
        "fec.loss_knots": (0.0, 0.1, 0.2, 0.3),
        "fec.rtt_knots_s": (0.0,),
        "fec.protection": (0.0, 0.1, 0.2, 0.3),
    }
    base = SenderSettings()
    table = build_settings([base, base.with_overrides(long)], CallConfig())
    fec = table["fec"][1]
    assert (fec["num_loss_knots"], fec["num_rtt_knots"]) == (4, 1)
    assert fec["protection"][:4].tolist() == [0.0, 0.1, 0.2, 0.3]


# --- A call ---------------------------------------------------------------------------------------


def test_settings_act_from_their_interval_on_and_not_before() -> None:
    changes: Overrides = (
        {},
        {"gcc.pacing_factor": 2.5},
        {"fec.enabled": True},
        {"audio_redundancy": 2},
        {"burst_interval_s": 0.005},
        {"gcc.max_padding_rate_bps": 300_000},
    )
    world = world_of(changes, at_interval=10)
    step(world, 9)
    before = [flow_bytes(world, env) for env in range(len(changes))]
    assert len(set(before)) == 1
    step(world, 1)  # at its end the settings are changed
    sent = [world.own_flows["totals"][env].tobytes() for env in range(len(changes))]
    assert len(set(sent)) == 1
    step(world, 10)
    after = [world.own_packets[env].tobytes() for env in range(len(changes))]
    assert len(set(after)) == len(changes)


def test_gcc_is_told_at_once_what_its_streams_ask_for() -> None:
    world = world_of(
        (
            {},
            {"gcc.pacing_factor": 2.0},
            {"gcc.max_padding_rate_bps": 100_000},
            {"gcc.alr_probing": True},
        ),
        at_interval=10,
    )
    step(world, 10)
    gcc, pacer = world.own_flows["gcc"], world.own_flows["pacer"]
    target_bps = int(gcc["target_rate_bps"][0])
    assert (gcc["target_rate_bps"] == target_bps).all()
    # Whole bytes in 40 ms: multiples of 200 bps.
    expected = [round(1.1 * target_bps / 200) * 200, round(2.0 * target_bps / 200) * 200]
    assert abs(gcc["pacing_rate_bps"][0] - expected[0]) <= 200
    assert abs(gcc["pacing_rate_bps"][1] - expected[1]) <= 200
    assert (pacer["pacing_rate_bps"] == gcc["pacing_rate_bps"]).all()
    assert gcc["padding_rate_bps"][2] - gcc["padding_rate_bps"][0] in (0, 100_000)
    assert gcc["padding_rate_bps"][2] >= 100_000
    assert (pacer["padding_rate_bps"] == gcc["padding_rate_bps"]).all()
    assert gcc["probe"]["alr_probing"].tolist() == [0, 0, 0, 1]


def test_competing_calls_keep_their_own_settings() -> None:
    """Two calls in one queue; the settings of one change. The other's row says nothing of it."""
    network = Network(trace=LOSSY.trace, link=LOSSY.link, competing_calls=1)
    changes = {"gcc.pacing_factor": 2.0, "fec.enabled": True, "burst_interval_s": 0.01}
    world = world_of(({}, changes), at_interval=5, network=network)
    step(world, 20)
    own, others = world.flows[0::2], world.flows[1::2]
    assert own["gcc_parameters"]["pacing_factor"].tolist() == [1.1, 2.0]
    assert own["fec"]["enabled"].tolist() == [0, 1]
    assert others["gcc_parameters"]["pacing_factor"].tolist() == [1.1, 1.1]
    assert others["fec"]["enabled"].tolist() == [0, 0]
    assert len(set(others["pacer"]["burst_interval_us"].tolist())) == 1
    assert others["gcc_parameters"][0].tobytes() == others["gcc_parameters"][1].tobytes()


def test_a_new_call_begins_with_the_first_settings() -> None:
    world = world_of(({}, {"gcc.decrease_factor": 0.5, "fec.enabled": True}), at_interval=3)
    step(world, 12)
    assert world.own_flows["gcc_parameters"]["decrease_factor"].tolist() == [0.85, 0.5]
    assert world.choice.tolist() == [0, 1]
    world.reset(1, 0, 7)
    assert world.choice.tolist() == [0, 0]
    assert world.own_flows["gcc_parameters"]["decrease_factor"][1] == 0.85
    assert world.own_flows["fec"]["enabled"][1] == 0


def test_settings_that_change_and_change_back_unseen_leave_no_trace() -> None:
    """Nothing reads classic loss rules in the v2 estimator, and no sender waits over 9 s."""
    world = world_of(
        ({}, {"gcc.bitrate_process_noise": 7.0, "rtx.max_age_s": 9.0}), at_interval=3, back_at=8
    )
    step(world, 20)
    assert flow_bytes(world, 0) == flow_bytes(world, 1)
    assert world.own_packets[0].tobytes() == world.own_packets[1].tobytes()


# --- What once went wrong -------------------------------------------------------------------------


def test_parity_that_is_switched_on_again_covers_no_packet_from_before() -> None:
    """A block that was open when it was switched off is not completed afterwards."""
    call = CallConfig(duration_s=4.0, video=VideoConfig(fec=FecConfig(enabled=True)))
    was_open = []
    for off_at in (13, 14, 16):
        world = world_of(({}, {"fec.enabled": False}), at_interval=off_at, back_at=20, call=call)
        step(world, off_at)
        was_open.append(world.own_flows["fec"]["num_media"][0] > 0)  # where it stays on
        first_off = int(world.own_flows["history"]["next_seq"][1])
        step(world, 20 - off_at)
        first_on = int(world.own_flows["history"]["next_seq"][1])
        assert first_on > first_off + 20
        step(world, 18)
        blocks = world.own_flows["fec"]["blocks"][1]
        blocks = blocks[blocks["number"] >= 0]
        is_before = blocks["last_seq"] < first_off
        is_after = blocks["first_seq"] >= first_on
        assert is_after.any()
        assert (is_before | is_after).all()
        kinds = world.own_packets[1]["kind"]
        # Parity that waited when it was switched off may still leave, no more than one block's.
        assert (kinds[first_off:first_on] == KIND_FEC).sum() <= 24
    assert any(was_open)


def test_frames_are_no_longer_dropped_for_a_window_that_moves_the_target_instead() -> None:
    tight: dict[str, Any] = {"gcc.cwnd_queue_s": 0.0, "gcc.cwnd_min_bytes": 100}
    world = world_of(
        ({**tight, "gcc.cwnd_drop_frames": True}, {**tight, "gcc.cwnd_drop_frames": False}),
        at_interval=15,
    )
    step(world, 15)
    assert (world.own_flows["gcc"]["cwnd_reduce_ratio"] > 0.0).any()
    step(world, 5)
    assert world.own_flows["gcc"]["cwnd_reduce_ratio"][1] == 0.0


def test_a_factor_leaves_rates_alone_that_are_not_gccs() -> None:
    """An estimator from outside sets the rate; GCC runs in its shadow and must not come forward."""

    class Half(Cue):
        def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> Any:
            choice, scale = super().update(telemetry, active)
            return choice, 0.5 * scale

    targets = []
    for cls in (Cue, Half):
        world = world_of(({},), at_interval=1, controller=CONTROLLER_EXTERNAL)
        world.targeting = cls([SenderSettings()], at_interval=1)
        world.targeting.reset(1)
        step(world, 10)
        targets.append(int(world.own_flows["target_rate_bps"][0]))
    assert targets[0] == targets[1]


def test_a_snapshot_holds_what_is_in_force() -> None:
    world = world_of(({}, {"gcc.pacing_factor": 2.0}), at_interval=5)
    step(world, 8)
    snapshot = world.snapshot()
    step(world, 4)
    after = [flow_bytes(world, env) for env in range(2)]
    world.restore(snapshot)
    assert world.choice.tolist() == [0, 1]
    step(world, 4)
    assert [flow_bytes(world, env) for env in range(2)] == after

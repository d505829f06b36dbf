"""The oracle that knows the future, and the ground truth it asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from baselines.future_oracle import LOOK_AHEAD_STEP_S, FutureOracle
from bwe_env.action import action_to_rate
from bwe_env.config import CallConfig, LinkConfig, PathConfig
from bwe_env.errors import ConfigError
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.observation import ObservationConfig
from bwe_env.reward import RewardConfig
from bwe_env.rollout import run_series
from bwe_env.sim.state import World
from bwe_env.trace import Trace, constant, square
from bwe_env.truth import GroundTruth

CALL = CallConfig(duration_s=12.0, min_rate_bps=50_000, max_rate_bps=5_000_000)


def a_trace(durations_ms: list[int], rates_bps: list[float], *, name: str = "trace") -> Trace:
    durations_us = 1_000 * np.array(durations_ms, dtype=np.int64)
    return Trace(name, "wifi", "hand-made", durations_us, np.array(rates_bps, dtype=np.float64))


#: 1 s at 1 Mbps, 0.5 s of outage, 2 s at 2 Mbps: 5 Mb in each period of 3.5 s.
STEPS = a_trace([1_000, 500, 2_000], [1e6, 0.0, 2e6], name="steps")


def a_world(networks: list[Network], *, scales: tuple[float, ...] = ()) -> World:
    """One call on each network, just begun."""
    world = World.make(
        len(networks),
        networks,
        CALL,
        gcc=GccParameters(),
        reward=RewardConfig(),
        observation=ObservationConfig(),
    )
    for env in range(len(networks)):
        scale = scales[env] if scales else 1.0
        world.reset(env, env, env, capacity_scale=scale)
    return world


def asked_bps(oracle: FutureOracle, truth: Any) -> NDArray[np.float64]:
    """What the oracle asks for, as the environment understands its actions."""
    actions = oracle.act(np.zeros((1, 1), dtype=np.float32), truth)
    assert actions.dtype == np.float32
    assert actions.shape[1] == 1
    return np.asarray(action_to_rate(actions[:, 0], CALL.min_rate_bps, CALL.max_rate_bps))


def told(trace: Trace, *, start_s: float = 0.0, queued_bytes: int = 0) -> SimpleNamespace:
    """The truth about one call, integrated by walking a trace in steps of a millisecond."""

    def future_capacity_bits(after_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([[naive_bits(trace, start_s, after) for after in after_s]])

    return SimpleNamespace(
        future_capacity_bits=future_capacity_bits, queued_bytes=np.array([queued_bytes])
    )


def by_millisecond_bps(trace: Trace) -> NDArray[np.float64]:
    """Capacity in each millisecond of a trace whose changes are at whole ones."""
    return np.repeat(trace.capacity_bps, trace.duration_us // 1_000)


def naive_bits(trace: Trace, start_s: float, after_s: float) -> float:
    """Capacity added up millisecond by millisecond (all times here are whole ones)."""
    milliseconds = round(1e3 * start_s) + np.arange(round(1e3 * after_s))
    return float((1e-3 * by_millisecond_bps(trace).take(milliseconds, mode="wrap")).sum())


# --- The integral of the capacity to come ---------------------------------------------------------


def test_the_integral_goes_on_across_changes_and_beyond_the_end_of_the_trace() -> None:
    truth = GroundTruth(a_world([Network(trace=STEPS)]))
    bits = truth.future_capacity_bits([0.0, 0.4, 1.0, 1.5, 2.5, 3.5, 4.0, 36.0])
    # 36 s are ten periods of 5 Mb and 1 s at 1 Mbps.
    np.testing.assert_allclose(bits, [[0, 0.4e6, 1e6, 1e6, 3e6, 5e6, 5.5e6, 51e6]], atol=1e-3)


def test_it_begins_where_the_call_is_and_is_scaled_as_its_capacity_is() -> None:
    networks = [
        Network(trace=STEPS, start_s=1.25),
        Network(trace=constant(3e6, name="constant")),
        Network(trace=STEPS.scaled(1.0, name="again"), start_s=3.0),
    ]
    truth = GroundTruth(a_world(networks, scales=(1.0, 0.5, 2.0)))
    bits = truth.future_capacity_bits([0.25, 1.25])
    # 0.25 s of outage, then 2 Mbps; half of 3 Mbps; 0.5 s at 4 Mbps, then 0.75 s at 2 Mbps.
    np.testing.assert_allclose(
        bits, [[0.0, 2e6], [0.375e6, 1.875e6], [1e6, 2e6 + 1.5e6]], atol=1e-3
    )


def test_as_the_call_goes_on_the_same_truth_tells_of_the_new_present() -> None:
    world = a_world([Network(trace=STEPS)])
    truth = GroundTruth(world)
    assert truth.future_capacity_bits([1.0])[0, 0] == pytest.approx(1e6)
    world.advance(900_000)
    # 0.1 s at 1 Mbps, the outage, 0.4 s at 2 Mbps.
    assert truth.future_capacity_bits([1.0])[0, 0] == pytest.approx(0.9e6)
    world.advance(3_500_000 + 900_000)
    assert truth.future_capacity_bits([1.0])[0, 0] == pytest.approx(0.9e6)
    queued_bytes = truth.queued_bytes
    assert queued_bytes.shape == (1,)
    assert queued_bytes[0] == world.calls["link"]["queue_bytes"][0]


@given(
    segments=st.lists(
        st.tuples(st.integers(1, 700), st.one_of(st.just(0.0), st.floats(1e4, 1e7))),
        min_size=1,
        max_size=6,
    ).filter(lambda segments: any(rate for _, rate in segments)),
    start_ms=st.integers(0, 3_000),
    after_ms=st.lists(st.integers(0, 2_500), min_size=1, max_size=4),
)
def test_the_integral_is_what_adding_up_milliseconds_gives(
    segments: list[tuple[int, float]], start_ms: int, after_ms: list[int]
) -> None:
    trace = a_trace([ms for ms, _ in segments], [rate for _, rate in segments])
    before = Network(trace=constant(1e6, name="before"))  # so that its segments are not the first
    truth = GroundTruth(a_world([before, Network(trace=trace, start_s=1e-3 * start_ms)]))
    after_s = 1e-3 * np.array(after_ms)
    naive = [naive_bits(trace, 1e-3 * start_ms, after) for after in after_s]
    np.testing.assert_allclose(truth.future_capacity_bits(after_s)[1], naive, rtol=1e-9, atol=1e-2)


# --- The target -----------------------------------------------------------------------------------


def test_on_a_constant_link_it_asks_for_its_share_of_the_capacity() -> None:
    for headroom in (0.8, 1.0):
        oracle = FutureOracle(headroom_ratio=headroom, horizon_s=2.0, max_wait_s=0.0, call=CALL)
        asked = asked_bps(oracle, told(constant(2e6, name="constant")))
        np.testing.assert_allclose(asked, headroom * 2e6, rtol=1e-6)


def test_the_wait_it_accepts_is_spread_over_the_horizon() -> None:
    oracle = FutureOracle(headroom_ratio=1.0, horizon_s=2.0, max_wait_s=0.1, call=CALL)
    # Over 2 s at 2 Mbps, 4 Mb leave, and 0.2 Mb may be left in the queue: 4.2 Mb / 2 s.
    asked = asked_bps(oracle, told(constant(2e6, name="constant")))
    np.testing.assert_allclose(asked, 2.1e6, rtol=1e-6)


def test_what_waits_already_is_served_first() -> None:
    oracle = FutureOracle(headroom_ratio=1.0, horizon_s=1.0, max_wait_s=0.1, call=CALL)
    trace = constant(2e6, name="constant")
    # 20 kB are 160 kbit, 80 ms: within 0.05 s, 300 - 160 kbit fit; within 1 s, 2,200 - 160.
    np.testing.assert_allclose(asked_bps(oracle, told(trace, queued_bytes=20_000)), 2.04e6, 1e-6)
    # 40 kB are 320 kbit, 160 ms: within 0.05 s not even those.
    np.testing.assert_allclose(asked_bps(oracle, told(trace, queued_bytes=40_000)), 50_000, 1e-6)


def test_it_goes_down_before_a_drop_and_is_back_right_after_the_rise() -> None:
    trace = a_trace([4_000, 2_000, 4_000], [3e6, 0.5e6, 3e6])
    oracle = FutureOracle(headroom_ratio=1.0, horizon_s=1.0, max_wait_s=0.0, call=CALL)
    asked = [asked_bps(oracle, told(trace, start_s=s))[0] for s in (2.9, 3.5, 3.9, 4.0, 5.9, 6.0)]
    # At 3.5 s: half a second of either, 1.75 Mb within 1 s. At 3.9: 0.3 + 0.45 Mb. At 5.9 s the
    # first 0.1 s alone binds: nothing may wait, and 0.05 Mb leave until then.
    np.testing.assert_allclose(asked, [3e6, 1.75e6, 0.75e6, 0.5e6, 0.5e6, 3e6], rtol=1e-6)


def test_it_sees_a_drop_beyond_the_end_of_the_trace() -> None:
    trace = a_trace([2_000, 8_000], [0.5e6, 3e6])
    oracle = FutureOracle(headroom_ratio=1.0, horizon_s=1.0, max_wait_s=0.0, call=CALL)
    # The trace ends at 10 s and begins again with 0.5 Mbps: at 9.6 s, 1.2 + 0.3 Mb within 1 s.
    np.testing.assert_allclose(asked_bps(oracle, told(trace, start_s=9.6)), 1.5e6, rtol=1e-6)


@pytest.mark.parametrize(
    ("max_wait_s", "horizon_s"), [(0.0, 1.0), (0.05, 0.5), (0.1, 2.0), (0.3, 1.0)]
)
def test_a_fluid_that_flows_as_it_says_never_waits_longer_than_accepted(
    max_wait_s: float, horizon_s: float
) -> None:
    """Its own plan, carried out to the bit, on a step trace; lowest rates below the capacity."""
    trace = square(3e6, 0.4e6, half_period_s=1.5, name="steps")
    oracle = FutureOracle(headroom_ratio=1.0, horizon_s=horizon_s, max_wait_s=max_wait_s, call=CALL)
    capacity_bps = by_millisecond_bps(trace)
    queued_bits, longest_s = 0.0, 0.0
    for step in range(60):
        now_s = 0.1 * step
        truth = told(trace, start_s=now_s, queued_bytes=int(queued_bits / 8))
        rate_bps = float(asked_bps(oracle, truth)[0])
        for millisecond in range(100 * step, 100 * (step + 1)):
            carried_bits = 1e-3 * capacity_bps[millisecond % len(capacity_bps)]
            queued_bits = max(0.0, queued_bits + 1e-3 * rate_bps - carried_bits)
            longest_s = max(longest_s, drain_s(capacity_bps, millisecond + 1, queued_bits))
    # Asked at steps of 0.05 s, and a byte's and a millisecond's rounding.
    assert longest_s <= max_wait_s + LOOK_AHEAD_STEP_S
    if max_wait_s > 0.0:
        assert longest_s > 0.3 * max_wait_s


def drain_s(capacity_bps: NDArray[np.float64], millisecond: int, queued_bits: float) -> float:
    """How long from this millisecond on until what is queued has left, in whole milliseconds."""
    waited = 0
    while queued_bits > 0.0:
        queued_bits -= 1e-3 * capacity_bps[(millisecond + waited) % len(capacity_bps)]
        waited += 1
    return 1e-3 * waited


def test_in_a_call_it_leaves_a_shorter_queue_behind_a_drop_than_the_one_that_sees_the_present() -> (
    None
):
    from baselines.oracle import Oracle

    network = Network(
        trace=square(2.5e6, 0.4e6, half_period_s=4.0, name="steps"),
        link=LinkConfig(queue_limit_bytes=150_000),
        forward=PathConfig(propagation_delay_s=0.02),
    )

    def worst_delay_ms(controller: Any) -> float:
        series = run_series(network, controller, call=CALL, seeds=(0,))
        return float(series[0].steps["one_way_delay_ms"].max())

    present = worst_delay_ms(Oracle(headroom_ratio=0.9, call=CALL))
    future = worst_delay_ms(
        FutureOracle(headroom_ratio=0.9, horizon_s=2.0, max_wait_s=0.05, call=CALL)
    )
    assert future < 0.6 * present


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headroom_ratio": 0.0}, "above 0 and at most 1.5"),
        ({"horizon_s": 0.01}, "horizon_s=0.01 must be between 0.05 and 60"),
        ({"max_wait_s": -0.1}, "max_wait_s=-0.1 must be between 0 and 10"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FutureOracle(**options, call=CALL)

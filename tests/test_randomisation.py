"""Domain randomisation: what a reset scales is what a scaled network would be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bwe_env import BandwidthEstimationVectorEnv, Network
from bwe_env.config import CallConfig, LinkConfig, PathConfig, RandomisationConfig
from bwe_env.errors import ConfigError
from bwe_env.trace import square
from tests.sim.fixed_calls import NETWORKS

SHORT = CallConfig(duration_s=3.0)


def steps(networks, *, seed: int = 4, num_envs: int = 2, **randomisation) -> np.ndarray:
    """Observations and rewards of half a call."""
    env = BandwidthEstimationVectorEnv(
        num_envs, networks=networks, call=SHORT, randomisation=randomisation
    )
    env.reset(seed=seed, options={"network_index": np.arange(num_envs) % len(networks)})
    rows = []
    for action in (0.6, 0.9, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8):
        observation, reward, _, _, info = env.step(np.full((num_envs, 1), action))
        rows.append(np.column_stack([observation, reward, info["capacity_bps"]]))
    return np.array(rows)


def test_scaled_capacity_is_a_scaled_trace_whose_queue_holds_the_same_time() -> None:
    scaled = [
        replace(
            network,
            trace=network.trace.scaled(0.5),
            link=replace(network.link, queue_limit_bytes=network.link.queue_limit_bytes // 2),
        )
        for network in NETWORKS
    ]
    assert all(network.link.queue_limit_bytes % 2 == 0 for network in NETWORKS)
    by_reset = steps(NETWORKS, capacity_scale=(0.5, 0.5))
    assert np.array_equal(by_reset, steps(scaled))
    assert not np.array_equal(by_reset, steps(NETWORKS))


def test_scaled_capacity_scales_the_rate_of_a_policer_in_front_of_it() -> None:
    # Else a policer above the capacity would become the bottleneck of a wider link.
    policed = Network(
        trace=square(5e5, 5e5, half_period_s=0.5), link=LinkConfig(policer_rate_bps=6e5)
    )
    wider = replace(
        policed, trace=policed.trace.scaled(4.0), link=LinkConfig(policer_rate_bps=2.4e6)
    )
    assert np.array_equal(steps([policed], capacity_scale=(4.0, 4.0)), steps([wider]))
    assert not np.array_equal(steps([wider]), steps([replace(wider, link=policed.link)]))


def test_scaled_delay_is_that_of_both_directions() -> None:
    def longer(path: PathConfig) -> PathConfig:
        return replace(path, propagation_delay_s=3.0 * path.propagation_delay_s)

    scaled = [
        replace(network, forward=longer(network.forward), reverse=longer(network.reverse))
        for network in NETWORKS
    ]
    by_reset = steps(NETWORKS, delay_scale=(3.0, 3.0))
    assert np.array_equal(by_reset, steps(scaled))
    assert not np.array_equal(by_reset, steps(NETWORKS))


@pytest.mark.parametrize("limit", [{"queue_limit_bytes": 20_000}, {"queue_limit_s": 0.2}])
def test_scaled_queues_hold_that_many_times_more(limit: dict[str, float]) -> None:
    # A link below the rate that is sent: its queue fills and drops.
    slow = Network(trace=square(4e5, 6e5, half_period_s=0.5), link=LinkConfig(**limit))
    twice = replace(slow, link=LinkConfig(**{name: 2 * value for name, value in limit.items()}))
    by_reset = steps([slow], queue_scale=(2.0, 2.0))
    assert np.array_equal(by_reset, steps([twice]))
    assert not np.array_equal(by_reset, steps([slow]))


@pytest.mark.parametrize("scale", [0.1, 0.01])
def test_a_scaled_queue_still_holds_two_full_packets(scale: float) -> None:
    # 0.1 and 0.01 of these leave no room for one packet, or for one small one.
    shallow = Network(
        trace=square(2e6, 2e6, half_period_s=0.5), link=LinkConfig(queue_limit_bytes=2_000)
    )
    by_reset = steps([shallow], queue_scale=(scale, scale))
    assert np.array_equal(by_reset, steps([shallow]))
    deeper = replace(shallow, link=LinkConfig(queue_limit_bytes=20_000))
    least = replace(shallow, link=LinkConfig(queue_limit_bytes=3_000))
    assert np.array_equal(steps([deeper], queue_scale=(scale, scale)), steps([least]))


def test_scales_are_drawn_log_uniformly_within_their_bounds_and_by_the_seed_alone() -> None:
    link = Network(trace=square(1e6, 1e6, half_period_s=1.0))
    env = BandwidthEstimationVectorEnv(
        400, networks=[link], call=SHORT, randomisation={"capacity_scale": (0.25, 4.0)}
    )
    env.reset(seed=1)
    capacity = env.step(np.zeros((400, 1)))[-1]["capacity_bps"] / 1e6
    assert capacity.min() >= 0.25
    assert capacity.max() <= 4.0
    # Uniform in the logarithm: mean 0 and sd 1.6 / 2 / sqrt(3) in powers of two, of 400 draws.
    powers = np.log2(capacity)
    assert abs(powers.mean()) < 4.0 * 1.155 / np.sqrt(400)
    assert powers.std() == pytest.approx(4.0 / np.sqrt(12.0), rel=0.1)
    assert len(np.unique(capacity)) == 400
    single = BandwidthEstimationVectorEnv(
        1, networks=[link], call=SHORT, randomisation={"capacity_scale": (0.25, 4.0)}
    )
    single.reset(seed=1 + 7)
    assert single.step(np.zeros((1, 1)))[-1]["capacity_bps"][0] == pytest.approx(1e6 * capacity[7])


def test_the_longest_delay_has_room_for_all_feedback_on_its_way() -> None:
    slow = Network(
        trace=square(4e6, 4e6, half_period_s=1.0), reverse=PathConfig(propagation_delay_s=0.3)
    )
    rows = steps([slow], delay_scale=(50.0, 50.0))
    assert np.isfinite(rows).all()


@pytest.mark.parametrize(
    "bounds", [(0.0, 1.0), (2.0, 1.0), (1.0,), (1.0, 1e3), ("a", 1.0), (1, 2, 3)]
)
def test_impossible_scales_name_key_value_and_range(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"randomisation\.delay_scale=.*two factors from 0.01"):
        RandomisationConfig(delay_scale=bounds)  # type: ignore[arg-type]


def test_a_scale_that_is_no_list_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"randomisation\.queue_scale=2 must be a list"):
        RandomisationConfig(queue_scale=2)  # type: ignore[arg-type]

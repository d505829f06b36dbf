"""Delay, jitter, loss and queue of a type lie where STATS (or the stated judgement) puts them."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest

from bwe_env.errors import UnknownNameError
from bwe_env.network import Network
from bwe_env.trace import Trace, constant, draw_network
from bwe_env.trace.paths import LOSSY_SHARE, PATH_RECIPES

COUNT = 2000


def trace_of(network_type: str, name: str, capacity_bps: float = 5e6) -> Trace:
    return Trace(name, network_type, "test", np.array([10**6]), np.array([capacity_bps]))


def draws(network_type: str) -> list[Network]:
    return [draw_network(trace_of(network_type, f"n{i}")) for i in range(COUNT)]


def quantiles(values: list[float], *percent: float) -> list[float]:
    return [float(value) for value in np.percentile(values, percent)]


def rtts_ms(networks: list[Network]) -> list[float]:
    return [1e3 * (n.forward.propagation_delay_s + n.reverse.propagation_delay_s) for n in networks]


# STATS section 5, "base RTT ms (session p5) p10/p50/p90"; for 5G the mean of its two rows.
@pytest.mark.parametrize(
    ("network_type", "p10", "p50", "p90"),
    [("4G-LTE", 43, 60, 81), ("5G", 37, 47, 62), ("3G", 73, 100, 138)],
)
def test_cellular_base_rtt_has_the_measured_quantiles(
    network_type: str, p10: float, p50: float, p90: float
) -> None:
    # 12 %: a log-normal through three measured quantiles, and 2000 draws.
    assert quantiles(rtts_ms(draws(network_type)), 10, 50, 90) == pytest.approx(
        [p10, p50, p90], rel=0.12
    )


# STATS section 5: p50 of the access alone; what comes on top is ours, median 20 ms.
@pytest.mark.parametrize(
    ("network_type", "access_ms"), [("wifi", 13), ("wired-broadband", 7), ("satellite", 23)]
)
def test_a_wan_comes_on_top_of_the_rtt_of_an_access_network(
    network_type: str, access_ms: float
) -> None:
    # 15 ms: for satellite, a quarter goes over inter-satellite links of 65-113 ms.
    assert access_ms + 15 < median(rtts_ms(draws(network_type))) < access_ms + 35


# p95 - p50 of the RTT in a median session of the probes (experiments/validate_paths.py). 20 %: part
# of the weight is the smaller step from probe to probe.
@pytest.mark.parametrize(
    ("network_type", "spread_ms"),
    [("4G-LTE", 23), ("5G", 21.7), ("wifi", 13.6), ("wired-broadband", 1.95), ("satellite", 39.8)],
)
def test_jitter_gives_the_rtt_the_measured_tail(network_type: str, spread_ms: float) -> None:
    rng = np.random.default_rng(1)
    jitters = [n.forward.jitter for n in draws(network_type)]
    scale_ms = 1e3 * median(jitter.scale_s for jitter in jitters)
    mean_ms = 1e3 * median(jitter.mean_s for jitter in jitters)
    rtt_ms = np.maximum(rng.normal(mean_ms, scale_ms, (2, 100_000)), 0).sum(axis=0)
    p50, p95 = np.percentile(rtt_ms, (50, 95))
    assert p95 - p50 == pytest.approx(spread_ms, rel=0.2)


def test_both_directions_share_one_level_of_jitter_and_probes_stop_before_the_wan() -> None:
    for network_type in PATH_RECIPES:
        trace = trace_of(network_type, "n")
        network, probed = draw_network(trace), draw_network(trace, access_only=True)
        assert network.forward.jitter == network.reverse.jitter == probed.forward.jitter
        is_across = PATH_RECIPES[network_type].has_wan
        shorter = probed.forward.propagation_delay_s < network.forward.propagation_delay_s
        assert shorter == is_across


# STATS section 6: the median and the 99th percentile of the average loss p/(p+r) over all
# sessions, and the mean burst 1/r at the 5th percentile of r; 4 in 5 networks lie below the
# median, 1 in 5 above it.
@pytest.mark.parametrize(
    ("network_type", "median_ratio", "p99_ratio", "longest_burst"),
    [
        ("4G-LTE", 1.35e-4, 0.0197, 2.5),
        ("wifi", 1.38e-3, 0.239, 14.0),
        ("wired-broadband", 7.3e-4, 0.173, 16.7),
    ],
)
def test_random_loss_comes_from_the_lower_half_of_measured_sessions_but_for_the_lossy_fifth(
    network_type: str, median_ratio: float, p99_ratio: float, longest_burst: float
) -> None:
    networks = draws(network_type)
    loss = np.array([n.forward.loss.mean_loss_ratio for n in networks])
    # 0.08: p and r are drawn apart, so the split of their ratio is not as sharp as that of p.
    assert np.mean(loss > median_ratio) == pytest.approx(LOSSY_SHARE, abs=0.08)
    assert 0.0 < loss.min() <= loss.max() < p99_ratio
    bursts = [1 / n.forward.loss.bad_to_good for n in networks]
    assert 1.0 <= min(bursts) <= max(bursts) <= longest_burst
    assert all(n.forward.loss.bad_loss == 1.0 for n in networks)
    # Feedback travels on a usual link.
    assert np.mean([n.reverse.loss.mean_loss_ratio for n in networks]) < np.mean(loss)


def test_satellite_loss_is_a_background_with_long_bursts() -> None:
    losses = [n.forward.loss for n in draws("satellite")]
    # STATS section 7: up to 1 % background, bursts of 10-35 packets; LENS sample 3.3 % in all.
    assert all(0.001 <= loss.good_loss <= 0.01 for loss in losses)
    assert all(10 <= 1 / loss.bad_to_good <= 35 for loss in losses)
    assert all(loss.mean_loss_ratio < 0.033 for loss in losses)


@pytest.mark.parametrize("network_type", sorted(PATH_RECIPES))
def test_a_queue_holds_its_time_at_the_capacity_a_call_can_use(network_type: str) -> None:
    low_s, high_s = PATH_RECIPES[network_type].queue_s
    for capacity_bps, reference_bps in ((5e6, 5e6), (500e6, 12e6)):
        for i in range(200):
            network = draw_network(trace_of(network_type, f"q{i}", capacity_bps))
            queue_s = network.link.queue_limit_bytes * 8 / reference_bps
            assert low_s - 1e-6 <= queue_s <= high_s + 1e-6
    slow = draw_network(trace_of(network_type, "slow", 20e3))
    assert slow.link.queue_limit_bytes >= 15_000  # ten packets, however slow the link


def test_a_path_is_a_function_of_the_trace_s_name() -> None:
    first, again, other = (draw_network(trace_of("wifi", name)) for name in ("a", "a", "b"))
    assert first == again
    assert first.forward != other.forward
    assert first.link != other.link


def test_a_pattern_has_no_path_to_draw() -> None:
    with pytest.raises(UnknownNameError, match="network type with a path 'pattern'. Known: 3G, 4G"):
        draw_network(constant(1e6))

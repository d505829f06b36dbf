"""The parameters of RFC 8867, written down a second time, and what the cases make of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bwe_env.config import TcpTraffic
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.rfc8867 import RFC_8867, SUITES, PublishedCase, published_case, suite
from bwe_env.rollout import run_calls, run_series

#: Section: test duration, capacities in Mbps by their times, one-way delays in ms of each variant
#: or of each flow, queues in ms, starts of the media flows in s.
TABLE = {
    "5.1": (100, {0: 1.0, 40: 2.5, 60: 0.6, 80: 1.0}, {50, 100}, {300}, (0,)),
    "5.2": (125, {0: 4.0, 25: 2.0, 50: 3.5, 75: 1.0, 100: 2.0}, {50}, {300}, (0, 0)),
    "5.3": (100, {0: 2.0, 20: 1.0, 40: 0.5, 60: 2.0}, {50}, {300}, (0,)),
    "5.4": (120, {0: 3.5}, {50}, {300}, (0, 20, 40)),
    "5.5": (300, {0: 4.0}, {10, 25, 50, 100, 150}, {300}, (0, 10, 20, 30, 40)),
    "5.6": (120, {0: 2.0}, {50}, {300, 1000}, (5,)),
    "5.7": (300, {0: 2.0}, {50}, {300}, (5, 5)),
    "5.8": (120, {0: 3.5}, {50}, {300}, (0, 0, 0)),
}

each = pytest.mark.parametrize("case", RFC_8867, ids=lambda case: case.name)


def delays_ms(case: PublishedCase) -> set[int]:
    """One-way propagation delays of all flows of a case."""
    added = (0.0, *case.network.competing_added_delay_s)
    return {round(1e3 * (case.network.forward.propagation_delay_s + a)) for a in added}


def test_every_case_of_section_5_is_there_once_per_variant() -> None:
    sections = [case.section for case in RFC_8867]
    assert sections == ["5.1", "5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.6", "5.7", "5.8"]
    assert len({case.name for case in RFC_8867}) == len(RFC_8867)


@each
def test_times_and_capacities_and_starts_are_those_of_the_rfc(case: PublishedCase) -> None:
    duration_s, steps_mbps, _, _, starts_s = TABLE[case.section]
    assert case.call.duration_s == duration_s
    assert case.network.trace.duration_s == duration_s
    assert {at_s: bps / 1e6 for at_s, bps in case.capacity_steps} == steps_mbps
    assert case.flow_starts_s == starts_s


@pytest.mark.parametrize("section", TABLE)
def test_delays_and_queues_are_those_of_the_rfc(section: str) -> None:
    cases = [case for case in RFC_8867 if case.section == section]
    assert set().union(*(delays_ms(case) for case in cases)) == TABLE[section][2]
    assert {1e3 * case.network.link.queue_limit_s for case in cases} == TABLE[section][3]


@each
def test_media_and_path_are_those_of_section_4(case: PublishedCase) -> None:
    call, network = case.call, case.network
    assert (call.min_rate_bps, call.max_rate_bps) == (150_000, 1_500_000)
    assert call.start_rate_bps == 150_000
    assert call.audio.rate_bps == 20_000
    assert call.video.encoder_lag_s == 0.1
    assert network.link.discipline == "drop_tail"
    assert network.forward == network.reverse
    assert network.forward.loss.mean_loss_ratio == 0.0
    jitter = network.forward.jitter
    assert jitter.mean_s + 3.0 * jitter.scale_s == pytest.approx(0.03)
    assert jitter.mean_s - 3.0 * jitter.scale_s == pytest.approx(0.0)


def test_tcp_flows_are_those_of_sections_5_6_and_5_7() -> None:
    for name in ("rfc8867-5.6-300ms", "rfc8867-5.6-1000ms"):
        (long,) = published_case(name).network.cross_traffic
        assert isinstance(long, TcpTraffic)
        assert (long.rtt_s, long.start_s, long.max_file_bytes) == (0.1, 0.0, 0)
    short = published_case("rfc8867-5.7").network.cross_traffic
    assert len(short) == 10
    assert [flow.starts_idle for flow in short if isinstance(flow, TcpTraffic)].count(False) == 2
    for flow in short:
        assert isinstance(flow, TcpTraffic)
        assert (flow.min_file_bytes, flow.max_file_bytes) == (100_000, 1_000_000)
        assert flow.mean_idle_s == 10.0


def test_one_flow_of_section_5_8_pauses_from_40_to_60_s() -> None:
    video = published_case("rfc8867-5.8").call.video
    assert (video.pause_from_s, video.pause_until_s) == (40.0, 60.0)


def test_media_of_section_5_3_goes_both_ways_and_the_way_back_narrows_at_35_s() -> None:
    case = published_case("rfc8867-5.3")
    assert case.backward is not None
    trace = case.backward.trace
    assert [trace.capacity_at(at_s) / 1e6 for at_s in (0, 34, 35, 69, 70, 99)] == [
        2.0,
        2.0,
        0.8,
        0.8,
        2.0,
        2.0,
    ]
    assert trace.duration_s == 100.0
    assert all(other.backward is None for other in RFC_8867 if other is not case)
    unimpaired = case.unimpaired()
    assert unimpaired.backward is not None
    assert unimpaired.backward.trace.ratio_below(2e6) == 0.0
    assert unimpaired.network == case.network


def test_feedback_waits_behind_media_of_the_other_direction_and_only_behind_that() -> None:
    case = published_case("rfc8867-5.3")
    series = [
        run_series(case.network, "gcc", backward=x.backward, call=case.call, seeds=(4,))[0]
        for x in (case, case.unimpaired())
    ]
    impaired, unimpaired = (call.steps["rtt_ms"] for call in series)
    time_s = series[0].time_s
    # The same to the bit up to the step, and for as long as its queue is not yet felt.
    assert (impaired[time_s <= 35.0] == unimpaired[time_s <= 35.0]).all()
    queueing = (time_s > 36.0) & (time_s < 39.0)
    assert (impaired[queueing] - unimpaired[queueing]).mean() > 50.0
    # A queue of 300 ms in each direction, two propagation delays of 50 ms, and jitter.
    assert impaired.max() < 300 + 300 + 2 * 50 + 2 * 40


def test_hand_overs_have_no_place_beside_a_backward_network() -> None:
    case = published_case("rfc8867-5.3")
    path = replace(case.network.reverse, delay_steps=((1.0, 0.1),))
    with pytest.raises(ConfigError, match="delay_steps has no place with backward"):
        run_series(
            replace(case.network, reverse=path), "gcc", backward=case.backward, call=case.call
        )


def test_names_are_found_and_unknown_ones_get_the_known() -> None:
    assert suite("rfc8867") is RFC_8867
    assert all(published_case(case.name) is case for cases in SUITES.values() for case in cases)
    with pytest.raises(UnknownNameError, match="unknown suite 'rfc8868'.*Known: rfc8867"):
        suite("rfc8868")
    with pytest.raises(UnknownNameError, match="Did you mean 'rfc8867-5.4'"):
        published_case("rfc8867-5.44")


def test_a_series_adds_up_to_the_table_of_the_same_calls() -> None:
    case = published_case("rfc8867-5.2")
    table = run_calls([case.network], "gcc", call=case.call, seeds=(0, 1))
    series = run_series(case.network, "gcc", call=case.call, seeds=(0, 1))
    for call, receive_bps, others_bps in zip(
        series, table["mean_receive_bps"], table["cross_traffic_bps"], strict=True
    ):
        assert call.flow_rates_bps.shape == (2, case.call.steps)
        assert not call.dropped
        np.testing.assert_allclose(call.flow_rates_bps[0].mean(), receive_bps)
        np.testing.assert_allclose(call.flow_rates_bps[1].mean(), others_bps)
        np.testing.assert_allclose(call.flow_rates_bps[0], call.steps["receive_rate_bps"])


def test_short_tcp_flows_come_before_media_and_all_get_through() -> None:
    case = published_case("rfc8867-5.7")
    (call,) = run_series(case.network, "gcc", call=case.call, seeds=(0,))
    before = call.time_s <= case.media_start_s
    # Audio alone: 50 packets a second of 50 bytes and 40 of headers.
    assert call.flow_rates_bps[0, before].mean() < 36_000
    assert call.flow_rates_bps[1, before].max() == 0.0
    assert call.source_rates_bps.shape[0] == 10
    assert (call.source_rates_bps.mean(axis=1) > 50_000).all()

"""Policer, radio buffer, grants and hand-overs: what happens around the bottleneck's queue."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.config import CallConfig, JitterConfig, LinkConfig, PathConfig, from_mapping
from bwe_env.errors import ConfigError
from bwe_env.network import Network
from bwe_env.rollout import run_calls
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    FATE_POLICER_DROP,
    FATE_QUEUE_DROP,
    FATE_RANDOM_LOSS,
)
from bwe_env.trace import constant, square
from tests.sim.bottleneck import run_link
from tests.sim.calls import OneCall

ENDLESS = LinkConfig(queue_limit_bytes=1_000_000_000)
#: At 8 Mbps a byte takes a microsecond.
BYTE_US_BPS = 8e6

CALL = CallConfig(duration_s=20.0)


def play(network: Network, seconds: float = 20.0) -> OneCall:
    call = OneCall(network, replace(CALL, duration_s=seconds))
    call.run_until(seconds)
    return call


# --- Policer --------------------------------------------------------------------------------------


def test_a_policer_passes_its_burst_and_then_its_rate_as_worked_by_hand() -> None:
    # 800 kbps is 0.1 bytes per microsecond; the bucket holds 3000. Packets of 1000 bytes at ...
    times_us = [0, 0, 0, 0, 9_999, 10_000, 12_000, 25_000, 100_000, 100_000, 100_000, 100_000]
    # three pass at 0, the fourth not; 999.9 bytes of tokens at 9.999 ms, 1000 at 10; 200 at 12;
    # 1500 at 25, of which 500 stay; full (and no fuller) at 100.
    passes = [1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 0]
    config = replace(ENDLESS, policer_rate_bps=8e5, policer_burst_bytes=3000)
    outcomes = run_link(config, BYTE_US_BPS, times_us, np.full(len(times_us), 1000))
    expected = [FATE_DELIVERED if passed else FATE_POLICER_DROP for passed in passes]
    assert outcomes["fate"].tolist() == expected


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rate_bps=st.floats(1e5, 1e7),
    burst_bytes=st.integers(1500, 100_000),
    gap_us=st.integers(50, 5_000),
)
def test_no_span_of_time_lets_more_through_a_policer_than_its_burst_and_its_rate(
    seed: int, rate_bps: float, burst_bytes: int, gap_us: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(60, 1500, 300)
    times_us = np.cumsum(rng.exponential(gap_us, 300)).astype(np.int64)
    config = replace(ENDLESS, policer_rate_bps=rate_bps, policer_burst_bytes=burst_bytes)
    outcomes = run_link(config, BYTE_US_BPS, times_us, sizes)
    passed = outcomes["fate"] == FATE_DELIVERED
    upto = np.cumsum(np.where(passed, sizes, 0))
    for first in np.flatnonzero(passed)[::10]:
        in_span = upto[first:] - upto[first] + sizes[first]
        allowed = burst_bytes + rate_bps * 1.25e-7 * (times_us[first:] - times_us[first])
        assert (in_span <= allowed + 1e-3).all()  # floating-point sums of bytes


def test_a_call_counts_what_a_policer_drops_apart_and_gets_no_more_than_its_rate() -> None:
    link = LinkConfig(policer_rate_bps=1e6, policer_burst_bytes=20_000)
    table = run_calls(
        [Network(trace=constant(5e6, name="policed"), link=link)], "gcc", seeds=(0,), call=CALL
    )
    assert table["policer_loss_ratio"][0] > 0.0
    assert table["queue_loss_ratio"][0] == table["random_loss_ratio"][0] == 0.0
    assert table["mean_receive_bps"][0] <= 1e6 + 8 * 20_000 / 20.0
    assert table["queue_delay_ms_p99"][0] < 50.0


def test_without_a_rate_there_is_no_policer() -> None:
    assert (play(Network(trace=constant(1e6))).packets["fate"] != FATE_POLICER_DROP).all()


# --- Radio buffer ---------------------------------------------------------------------------------


def test_a_radio_buffer_drops_at_the_head_what_has_waited_longer_than_its_limit_by_hand() -> None:
    # Five packets of 10 ms at 0: their turns come at 0, 10, 20 ms; the limit is 20 ms.
    config = replace(ENDLESS, max_wait_s=0.020)
    outcomes = run_link(config, BYTE_US_BPS, [0, 0, 0, 0, 0, 29_000], [10_000] * 6)
    assert outcomes["fate"].tolist() == [FATE_DELIVERED] * 3 + [FATE_QUEUE_DROP] * 2 + [
        FATE_DELIVERED
    ]
    # Both old ones go when the third leaves, and the sixth follows at once.
    assert outcomes["time_us"].tolist() == [10_000, 20_000, 30_000, 30_000, 30_000, 40_000]


def test_no_packet_of_a_call_waits_longer_than_the_limit_and_drops_count_as_the_queues() -> None:
    trace = square(2e6, 0.2e6, half_period_s=3.0, name="square")
    link = LinkConfig(queue_limit_bytes=500_000, max_wait_s=0.1)
    call = play(Network(trace=trace, link=link))
    rows = call.packets
    dropped = rows["fate"] == FATE_QUEUE_DROP
    assert dropped.sum() == call.flow.totals.fate_packets[FATE_QUEUE_DROP] > 10
    delivered = rows[rows["fate"] == FATE_DELIVERED]
    delays_us = delivered["arrival_us"] - delivered["send_us"] - 25_000
    # The limit, and one service of 1250 bytes at 0.2 Mbps.
    assert delays_us.max() <= 100_000 + 50_000
    no_limit = play(Network(trace=trace, link=replace(link, max_wait_s=0.0))).packets
    no_limit = no_limit[no_limit["fate"] == FATE_DELIVERED]
    assert (no_limit["arrival_us"] - no_limit["send_us"]).max() > 300_000


# --- Grants ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grant_ms", "share"), [(5, 0.9), (20, 0.4)])
def test_deliveries_come_in_bursts_at_grants_alone_and_never_before_they_are_served(
    grant_ms: int, share: float
) -> None:
    network = Network(trace=constant(2e6), link=LinkConfig(grant_interval_s=grant_ms / 1000))
    rows = play(network).packets
    rows = rows[rows["fate"] == FATE_DELIVERED]
    released_us = rows["arrival_us"] - 25_000
    assert (released_us % (grant_ms * 1000) == 0).all()
    assert (released_us - rows["send_us"] >= rows["size_bytes"] * 4 - 1).all()
    assert len(np.unique(released_us)) < share * len(rows)


def test_grants_conserve_the_capacity() -> None:
    def receive_bps(grant_s: float) -> float:
        link = LinkConfig(grant_interval_s=grant_s, queue_limit_s=0.2)
        call = OneCall(Network(trace=constant(1e6), link=link), CALL, mode="rate")
        steps = call.run_until(20.0, 3e6)
        return float(steps["receive_rate_bps"][50:].mean())

    # Overloaded all the time: the link is the limit, with and without grants.
    assert receive_bps(0.0) == pytest.approx(1e6, rel=0.005)
    assert receive_bps(0.02) == pytest.approx(1e6, rel=0.005)


def test_bytes_released_by_any_grant_never_exceed_the_capacity_up_to_then() -> None:
    network = Network(trace=constant(1e6), link=LinkConfig(grant_interval_s=0.013))
    rows = play(network).packets
    rows = rows[rows["fate"] == FATE_DELIVERED]
    released_us = rows["arrival_us"] - 25_000
    assert (np.cumsum(rows["size_bytes"]) * 8 <= released_us * 1.0 + 1e-3).all()


def saturated(grant_s: float, spread: float, *, key: int = 1) -> Any:
    """What an overloaded link delivers at a capacity that moves."""
    link = LinkConfig(grant_interval_s=grant_s, grant_spread=spread, queue_limit_s=0.3)
    trace = square(3e6, 1.5e6, half_period_s=1.0, name="square")
    call = OneCall(Network(trace=trace, link=link), CALL, mode="rate", key=key)
    call.run_until(20.0, 6e6)
    return call.packets[call.packets["fate"] == FATE_DELIVERED]


@pytest.mark.parametrize(("grant_ms", "spread"), [(10, 0.0), (10, 0.5), (10, 1.0), (40, 1.0)])
def test_grants_keep_the_long_run_capacity_however_they_spread(
    grant_ms: int, spread: float
) -> None:
    rows = saturated(grant_ms / 1000, spread)
    released_us = rows["arrival_us"] - 25_000
    late = (released_us >= 4_000_000) & (released_us < 18_000_000)  # whole periods of the trace
    # 1 %: 40 ms of the last grant in 14 s are 0.3 %, and consent checks take a little.
    bits = 8 * rows["size_bytes"][late].sum()
    assert bits / 14.0 == pytest.approx(2.25e6, rel=0.01)
    # No burst holds what has not been served by then.
    upto = 8 * np.cumsum(rows["size_bytes"])
    periods, rest_us = np.divmod(released_us, 2_000_000)
    served = 4.5e6 * periods + 3.0 * np.minimum(rest_us, 1_000_000)
    served += 1.5 * np.maximum(0, rest_us - 1_000_000)
    assert (upto <= served + 1).all()


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_contended_grants_come_once_an_interval_at_a_random_place_in_it(spread: float) -> None:
    rows = saturated(0.06, spread)
    grants_us = np.unique(rows["arrival_us"] - 25_000)
    grants_us = grants_us[(grants_us > 1_000_000) & (grants_us < 19_000_000)]
    numbers, late_us = np.divmod(grants_us, 60_000)
    assert len(np.unique(numbers)) == len(numbers)
    # A packet takes 6.7 ms at most; 0.6 % of the gaps are shorter (6.7 / 60 squared, over 2).
    assert len(numbers) >= 0.98 * (numbers[-1] - numbers[0] + 1)
    share = late_us / 60_000
    assert 0.0 <= share.min() <= share.max() < spread
    # Uniform: mean and sd, within four standard errors of 300 grants.
    assert share.mean() == pytest.approx(spread / 2, abs=4 * (spread**2 / 12 / 300) ** 0.5)
    assert share.std() == pytest.approx(spread / 12**0.5, rel=0.1)
    # Another call contends anew.
    other_us = saturated(0.06, spread, key=2)["arrival_us"] - 25_000
    assert len(np.intersect1d(grants_us, other_us)) < 0.05 * len(grants_us)


# --- Hand-overs -----------------------------------------------------------------------------------


def test_the_one_way_delay_steps_when_the_schedule_says_and_order_is_kept() -> None:
    forward = PathConfig(delay_steps=((5.0, 0.08), (10.0, 0.0), (15.0, 0.03)))
    call = play(Network(trace=constant(1e8), forward=forward))
    rows = call.packets[call.packets["fate"] == FATE_DELIVERED]
    assert (np.diff(rows["arrival_us"]) >= 0).all()
    delays_ms = (rows["arrival_us"] - rows["send_us"]) / 1000
    sent_s = rows["send_us"] / 1e6
    for from_s, until_s, delay_ms in ((0, 5, 25), (5, 10, 105), (10.2, 15, 25), (15, 20, 55)):
        span = (sent_s > from_s + 0.01) & (sent_s < until_s - 0.01)
        assert span.sum() > 100
        assert np.abs(delays_ms[span] - delay_ms).max() < 5.0  # the link's own
    # When the delay falls by 80 ms, what is sent in these waits for what was sent before.
    falling = (sent_s > 10.0) & (sent_s < 10.07)
    before_us = rows["arrival_us"][sent_s < 10.0].max()
    assert before_us > 10_080_000
    assert (rows["arrival_us"][falling] >= before_us).all()


def test_what_enters_at_a_change_of_cell_goes_the_long_way_and_the_next_waits_for_it() -> None:
    # What `draw_network` makes of one: 100 ms more for 100 ms, then 5 ms more than before.
    forward = PathConfig(delay_steps=((5.0, 0.1), (5.1, 0.005)))
    call = play(Network(trace=constant(1e8), forward=forward), 8.0)
    rows = call.packets[call.packets["fate"] == FATE_DELIVERED]
    left_us = rows["send_us"]
    delays_us = rows["arrival_us"] - left_us - 25_000
    # 3 ms: what the link takes for a burst of the pacer. 21 ms: what lies between two of sound.
    arrived_s = rows["arrival_us"] / 1e6 - 0.025
    assert not ((arrived_s > 5.003) & (arrived_s < 5.1)).any()
    away = (left_us > 5_000_000) & (left_us < 5_098_000)
    assert away.sum() > 5
    assert ((delays_us[away] >= 100_000) & (delays_us[away] < 103_000)).all()
    waiting = (left_us > 5_100_000) & (left_us < 5_170_000)
    assert waiting.sum() > 5
    assert ((arrived_s[waiting] > 5.179) & (arrived_s[waiting] <= 5.2)).all()
    after = left_us > 5_200_000
    assert ((delays_us[after] >= 5_000) & (delays_us[after] < 8_000)).all()


def test_steps_of_the_way_back_delay_the_feedback() -> None:
    reverse = PathConfig(delay_steps=((10.0, 0.2),))
    call = OneCall(Network(trace=constant(2e6), reverse=reverse), CALL)
    steps = call.run_until(20.0)
    before, after = steps["rtt_ms"][80:100], steps["rtt_ms"][130:]
    assert np.median(after) - np.median(before) == pytest.approx(200.0, abs=30.0)


def test_a_schedule_of_delays_survives_json() -> None:
    path = PathConfig(delay_steps=((1.0, 0.1), (2.0, 0.0)), jitter=JitterConfig(scale_s=0.01))
    assert from_mapping(PathConfig, json.loads(json.dumps(asdict(path)))) == path


# --- All together ---------------------------------------------------------------------------------


def test_every_cause_is_counted_apart_and_all_packets_are_accounted_for() -> None:
    link = LinkConfig(
        queue_limit_s=0.5,
        discipline="codel",
        policer_rate_bps=1.5e6,
        policer_burst_bytes=5_000,
        max_wait_s=0.2,
        grant_interval_s=0.01,
    )
    forward = PathConfig(delay_steps=((5.0, 0.05),))
    network = Network(trace=square(2e6, 0.3e6, half_period_s=2.0), link=link, forward=forward)
    call = OneCall(network, CALL, mode="rate")
    call.set_forward_loss(0.02)
    call.run_until(20.0, 2e6)
    totals, fates = call.flow.totals, call.packets["fate"]
    counts = np.bincount(fates, minlength=len(totals.fate_packets))
    assert counts.tolist() == totals.fate_packets.tolist()
    assert (counts[1:] > 0).all()
    assert counts[FATE_RANDOM_LOSS] < 0.05 * len(fates)
    assert totals.fate_bytes.sum() == totals.sent_bytes.sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinkConfig(policer_rate_bps=10.0), r"policer_rate_bps=10.0 .* between 1000 and"),
        (lambda: LinkConfig(policer_burst_bytes=100), "policer_burst_bytes=100 .* 1500 and"),
        (lambda: LinkConfig(max_wait_s=-1.0), r"max_wait_s=-1.0 .* between 0.001 and 60 s, or 0"),
        (lambda: LinkConfig(grant_interval_s=2.0), "grant_interval_s=2.0 .* between 0 and 1 s"),
        (lambda: LinkConfig(grant_spread=0.5), "grant_spread=0.5 spreads grants that"),
        (lambda: PathConfig(delay_steps=((1.0,),)), "must be at most 16 pairs"),  # type: ignore
        (lambda: PathConfig(delay_steps=((1.0, -0.1),)), "an added delay=-0.1 must be"),
        (lambda: PathConfig(delay_steps=((2.0, 0.1), (1.0, 0.0))), "increasing times"),
        (lambda: PathConfig(delay_steps=tuple((t, 0.0) for t in range(17))), "at most 16 pairs"),
    ],
)
def test_an_impossible_value_says_its_name_and_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()

"""Drop-tail against queueing theory, CoDel against its RFC and a twin, PIE at its reference."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.config import CallConfig, CodelConfig, LinkConfig, PieConfig
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.network import Network
from bwe_env.sim.packet import (
    CONGESTION_FATES,
    FATE_AQM_DROP,
    FATE_DELIVERED,
    FATE_POLICER_DROP,
    FATE_QUEUE_DROP,
)
from bwe_env.sim.queue_discipline import (
    CODEL,
    codel_drops,
    codel_next_drop_us,
    pie_tuning,
)
from bwe_env.trace import square
from tests.reference.naive_codel import Offer, run_naive_codel
from tests.sim.bottleneck import run_link
from tests.sim.calls import OneCall

ENDLESS = LinkConfig(queue_limit_bytes=1_000_000_000)
CODEL_LINK = replace(ENDLESS, discipline="codel")
PIE_LINK = replace(ENDLESS, discipline="pie")


# --- Drop-tail against queueing theory ------------------------------------------------------------

#: At 8 Mbps a byte takes a microsecond.
BYTE_US_BPS = 8e6
MEAN_BYTES = 2000
PACKETS = 2_000_000


def mean_wait_us(load: float, sizes_bytes: Any, seed: int) -> float:
    """Mean waiting time of Poisson arrivals at a drop-tail queue that never overflows."""
    rng = np.random.default_rng(seed)
    gaps_us = rng.exponential(MEAN_BYTES / load, len(sizes_bytes))
    times_us = np.cumsum(gaps_us).astype(np.int64)
    outcomes = run_link(ENDLESS, BYTE_US_BPS, times_us, sizes_bytes)
    assert (outcomes["fate"] == FATE_DELIVERED).all()
    return float((outcomes["time_us"] - times_us - sizes_bytes).mean())


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_exponential_service_waits_as_long_as_in_an_m_m_1_queue(load: float) -> None:
    rng = np.random.default_rng(1)
    sizes = np.maximum(1, rng.exponential(MEAN_BYTES, PACKETS)).astype(np.int64)
    sizes = np.minimum(sizes, 32_767)  # one in ten million is longer
    expected_us = load / (1.0 - load) * MEAN_BYTES
    assert mean_wait_us(load, sizes, seed=2) == pytest.approx(expected_us, rel=0.02)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_equal_packets_wait_as_long_as_in_an_m_d_1_queue(load: float) -> None:
    sizes = np.full(PACKETS, MEAN_BYTES)
    expected_us = load / (2.0 * (1.0 - load)) * MEAN_BYTES
    assert mean_wait_us(load, sizes, seed=3) == pytest.approx(expected_us, rel=0.02)


#: A power of two divides every bit count exactly: floating-point time has nothing to round.
EXACT_BPS = float(1 << 20)
US_PER_BYTE = Fraction(8_000_000, 1 << 20)


# --- CoDel ----------------------------------------------------------------------------------------


def codel(**fields: Any) -> Any:
    record = np.zeros(1, CODEL)[0]
    record.target_us, record.interval_us = 5_000, 100_000
    for name, value in fields.items():
        record[name] = value
    return record


def test_codel_drops_come_an_interval_over_the_root_of_their_number_apart() -> None:
    record, drops_ms = codel(), []
    for now_us in range(0, 500_000, 500):  # a head that has waited 20 ms, every half millisecond
        if codel_drops(record, 20_000, 50_000, now_us):
            drops_ms.append(now_us / 1000)
            while codel_drops(record, 20_000, 50_000, now_us):
                drops_ms.append(now_us / 1000)
    # Above the target from 0 on: entered after one interval. From 100 ms, by hand, in ms: the next
    # after 100/sqrt(1), then 100/sqrt(2) = 70.71, 57.73, 50, 44.72; each at the next half.
    assert drops_ms == [100.0, 200.0, 271.0, 328.5, 378.5, 423.5, 464.0]


def test_the_control_law_at_counts_one_four_and_a_hundred() -> None:
    for count, gap_us in ((1, 100_000), (4, 50_000), (100, 10_000)):
        assert codel_next_drop_us(codel(count=count), 7_000) == 7_000 + gap_us


def test_codel_goes_on_at_the_last_drop_rate_if_that_was_not_long_ago() -> None:
    for since_us, first_count in ((1_000_000, 7), (2_000_000, 1)):
        record = codel(count=9, last_count=2, drop_next_us=3_000_000, first_above_us=1)
        assert codel_drops(record, 20_000, 50_000, 3_000_000 + since_us)
        assert record.count == record.last_count == first_count


def test_codel_leaves_short_queues_and_short_waits_alone() -> None:
    for sojourn_us, bytes_behind in ((4_999, 50_000), (20_000, 1_500)):
        record = codel()
        assert not any(
            codel_drops(record, sojourn_us, bytes_behind, now_us)
            for now_us in range(0, 1_000_000, 10_000)
        )
        assert record.first_above_us == 0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    load=st.floats(0.6, 3.0),
    mean_burst=st.integers(1, 40),
    target_ms=st.integers(1, 20),
    interval_ms=st.integers(21, 120),
)
def test_codel_serves_and_drops_what_its_naive_twin_does_when_that_does(
    seed: int, load: float, mean_burst: int, target_ms: int, interval_ms: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(60, 1500, 800)
    bursts = rng.random(len(sizes)) < 1.0 / mean_burst
    mean_gap_us = float(US_PER_BYTE) * mean_burst * sizes.mean() / load
    gaps_us = bursts * rng.exponential(mean_gap_us, len(sizes))
    times_us = np.cumsum(gaps_us).astype(np.int64)
    config = CodelConfig(target_s=target_ms / 1000, interval_s=interval_ms / 1000)
    outcomes = run_link(replace(CODEL_LINK, codel=config), EXACT_BPS, times_us, sizes)
    offers = [Offer(int(time), int(size)) for time, size in zip(times_us, sizes, strict=True)]
    naive = run_naive_codel(offers, US_PER_BYTE, target_ms * 1000, interval_ms * 1000)
    is_dropped = (outcomes["fate"] == FATE_AQM_DROP).tolist()
    assert is_dropped == [outcome.is_dropped for outcome in naive]
    assert outcomes["time_us"].tolist() == [outcome.time_us for outcome in naive]


def test_codel_holds_a_moderate_overload_that_drop_tail_lets_stand_near_its_target() -> None:
    # 5 % too much for 60 s: drop-tail would end with a queue of 3 s.
    times_us = np.arange(0, 60_000_000, 1143)
    sizes = np.full(len(times_us), 1200)
    outcomes = run_link(CODEL_LINK, BYTE_US_BPS, times_us, sizes)
    late = times_us > 30_000_000
    served = late & (outcomes["fate"] == FATE_DELIVERED)
    waits_ms = (outcomes["time_us"] - times_us - sizes)[served] / 1000
    assert np.median(waits_ms) < 50.0
    assert np.isin(outcomes["fate"], (FATE_DELIVERED, FATE_AQM_DROP)).all()


# --- PIE ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overload", [1.1, 1.5])
def test_pie_keeps_an_overloaded_queue_near_its_reference(overload: float) -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(600, 1401, 80_000)
    times_us = np.cumsum(rng.exponential(sizes.mean() / overload, len(sizes))).astype(np.int64)
    outcomes = run_link(PIE_LINK, BYTE_US_BPS, times_us, sizes)
    late = times_us > times_us[-1] // 3
    served = outcomes["fate"] == FATE_DELIVERED
    waits_ms = (outcomes["time_us"] - times_us - sizes)[late & served] / 1000
    assert waits_ms.mean() == pytest.approx(15.0, rel=0.2)
    # What is too much is what it drops; the last tenth of it keeps the queue from running empty.
    dropped = (outcomes["fate"] == FATE_AQM_DROP)[late].mean()
    assert dropped == pytest.approx(1.0 - 1.0 / overload, rel=0.2)


def test_pie_lets_a_burst_pass_after_quiet_and_drops_once_the_allowance_is_used_up() -> None:
    # At twice the capacity from 0 on: the allowance of 150 ms, then the probability grows.
    times_us = np.arange(0, 2_000_000, 500)
    outcomes = run_link(PIE_LINK, BYTE_US_BPS, times_us, np.full(len(times_us), 1000))
    drops_us = outcomes["time_us"][outcomes["fate"] == FATE_AQM_DROP]
    assert 150_000 <= drops_us[0] < 300_000


def test_pie_never_drops_while_two_packets_or_less_are_queued() -> None:
    times_us = np.arange(0, 5_000_000, 2_900)  # one packet of 3 ms every 2.9 ms: a slow overload
    config = replace(PIE_LINK, pie=PieConfig(reference_s=0.0001, max_burst_s=0.0))
    outcomes = run_link(config, 4e6, times_us, np.full(len(times_us), 1500))
    dropped = np.flatnonzero(outcomes["fate"] == FATE_AQM_DROP)
    assert len(dropped) > 10
    for number in dropped:
        before = outcomes[:number]
        waiting = (before["fate"] == FATE_DELIVERED) & (before["time_us"] > times_us[number])
        assert waiting.sum() > 2 - 1


def test_pie_tunes_its_steps_to_the_probability_as_the_table_of_the_rfc_says() -> None:
    table = [(1e-7, 2048), (5e-6, 512), (5e-5, 128), (5e-4, 32), (5e-3, 8), (5e-2, 2), (0.5, 1)]
    for probability, divisor in table:
        assert pie_tuning(probability) == 1.0 / divisor


# --- In a call ------------------------------------------------------------------------------------

#: GCC lets a queue of 300 ms fill at each fall of the capacity.
NETWORK = Network(trace=square(3e6, 0.6e6, half_period_s=4.0, name="square"))


def with_discipline(discipline: str) -> OneCall:
    link = LinkConfig(discipline=discipline, queue_limit_s=1.0)  # type: ignore[arg-type]
    call = OneCall(replace(NETWORK, link=link), CallConfig(duration_s=30.0))
    call.run_until(30.0)
    return call


@pytest.mark.parametrize("discipline", ["codel", "pie"])
def test_a_call_counts_what_the_discipline_drops_apart_from_overflow_and_chance(
    discipline: str,
) -> None:
    call = with_discipline(discipline)
    rows, totals = call.packets, call.flow.totals
    dropped = rows["fate"] == FATE_AQM_DROP
    assert dropped.sum() == totals.fate_packets[FATE_AQM_DROP] > 10
    assert rows["size_bytes"][dropped].sum() == totals.fate_bytes[FATE_AQM_DROP]
    assert totals.fate_packets.sum() == totals.sent_packets.sum() == len(rows)
    assert FATE_AQM_DROP in CONGESTION_FATES


@pytest.mark.parametrize("discipline", ["codel", "pie"])
def test_a_discipline_shortens_the_queue_of_a_call(discipline: str) -> None:
    def delay_ms(call: OneCall) -> float:
        totals = call.flow.totals
        return 1e-3 * float(totals.queue_delay_sum_us / totals.departed_packets)

    assert delay_ms(with_discipline(discipline)) < 0.7 * delay_ms(with_discipline("drop_tail"))


def test_the_fates_of_congestion_are_those_that_more_room_or_less_traffic_would_have_saved() -> (
    None
):
    assert set(CONGESTION_FATES) == {FATE_QUEUE_DROP, FATE_AQM_DROP, FATE_POLICER_DROP}


def test_an_interval_tells_the_share_of_packets_that_the_discipline_dropped() -> None:
    link = LinkConfig(discipline="codel", queue_limit_s=1.0)
    call = OneCall(replace(NETWORK, link=link), CallConfig(duration_s=30.0))
    steps = call.run_until(30.0)
    assert steps["aqm_loss_ratio"].max() > 0.0
    assert (steps["aqm_loss_ratio"] <= 1.0).all()
    assert (steps["policer_loss_ratio"] == 0.0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CodelConfig(target_s=0.0),
            r"codel.target_s=0.0 must be .* between 0.0001 and 1 s",
        ),
        (lambda: CodelConfig(interval_s=math.inf), "codel.interval_s=inf must be"),
        (lambda: CodelConfig(target_s=0.2), "must be below codel.interval_s=0.1"),
        (lambda: PieConfig(reference_s=2.0), "pie.reference_s=2.0 must be"),
        (lambda: PieConfig(update_interval_s=0.0), "pie.update_interval_s=0.0 must be"),
        (lambda: PieConfig(max_burst_s=-1.0), "pie.max_burst_s=-1.0 must be"),
    ],
)
def test_an_impossible_value_says_its_name_and_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_unknown_discipline_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Known: codel, drop_tail, pie"):
        LinkConfig(discipline="red")  # type: ignore[arg-type]


def test_a_constant_link_below_its_capacity_never_drops_under_any_discipline() -> None:
    for config in (ENDLESS, CODEL_LINK, PIE_LINK):
        times_us = np.arange(0, 5_000_000, 1_250)
        outcomes = run_link(config, BYTE_US_BPS, times_us, np.full(len(times_us), 1200))
        assert (outcomes["fate"] == FATE_DELIVERED).all()

"""The compiled bottleneck and path agree packet by packet with a naive twin in exact fractions.

The twin (`tests/reference/naive_link.py`) is given when each packet of a real call was handed to
the network and how large it was, and says what became of it and when it arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from bwe_env.config import CallConfig, JitterConfig, LinkConfig, LossConfig, PathConfig
from bwe_env.network import Network
from bwe_env.sim._jit import NEVER
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    FATE_PENDING,
    FATE_QUEUE_DROP,
    FATE_RANDOM_LOSS,
)
from bwe_env.trace import Trace, constant, square
from bwe_env.units import s_to_us
from tests.reference.naive_link import NaiveCapacity, Offer, Outcome, run_naive_link
from tests.sim.calls import OneCall

#: A STUN binding request with its attributes, and IP and UDP headers: what a consent check puts
#: into the same queue.
CONSENT_BYTES = 128

#: A power of two divides every bit count exactly: floating-point time has nothing to round.
EXACT_BPS = float(1 << 20)

CALL_S = 8.0


def irregular(name: str, *, outages: bool) -> Trace:
    """Two dozen segments of odd lengths, 1.7 s in all, some of them without any capacity."""
    rng = np.random.default_rng(7)
    durations_us = rng.integers(1_003, 140_001, 24)
    capacity_bps = np.exp(rng.uniform(np.log(1e5), np.log(8e6), 24))
    if outages:
        capacity_bps[rng.permutation(24)[:6]] = 0.0
    return Trace(name, "pattern", "test", durations_us, capacity_bps)


def path(**changes: Any) -> PathConfig:
    return replace(PathConfig(propagation_delay_s=0.0217), **changes)


GILBERT = LossConfig(good_loss=0.003, bad_loss=0.6, good_to_bad=0.01, bad_to_good=0.2)
REPLAY = tuple(number % 23 in (3, 4, 17) for number in range(61))
UNIFORM = JitterConfig(distribution="uniform", scale_s=0.012)
NORMAL = JitterConfig(distribution="normal", scale_s=0.02, correlation=0.9)

NETWORKS = {
    "constant, power of two": Network(
        trace=constant(EXACT_BPS, name="exact"), link=LinkConfig(queue_limit_bytes=20_000)
    ),
    "constant, limit in time": Network(
        trace=constant(1e6, name="timed"), link=LinkConfig(queue_limit_s=0.15), forward=path()
    ),
    "square, loss before the queue, uniform jitter": Network(
        trace=square(2.1e6, 0.37e6, half_period_s=0.9, name="square"),
        link=LinkConfig(queue_limit_bytes=17_000, loss_before_queue=True),
        forward=path(loss=LossConfig(good_loss=0.03), jitter=UNIFORM),
    ),
    "square, limit in time that follows the capacity": Network(
        trace=square(3e6, 0.5e6, half_period_s=0.7, name="square-timed"),
        start_s=0.31,
        link=LinkConfig(queue_limit_s=0.08),
        forward=path(loss=GILBERT),
    ),
    "irregular with outages, loss behind the queue, normal jitter": Network(
        trace=irregular("outages", outages=True),
        start_s=0.6789,
        link=LinkConfig(queue_limit_bytes=30_000),
        forward=path(loss=GILBERT, jitter=NORMAL),
    ),
    "irregular, bursty loss before a tiny queue in time": Network(
        trace=irregular("tiny", outages=False),
        start_s=123.456789,
        link=LinkConfig(queue_limit_s=0.01, loss_before_queue=True),
        forward=path(loss=GILBERT, jitter=replace(UNIFORM, scale_s=0.05)),
    ),
    "square, scheduled grants, replayed loss before the queue": Network(
        trace=square(2.3e6, 0.7e6, half_period_s=0.6, name="scheduled"),
        link=LinkConfig(queue_limit_s=0.12, grant_interval_s=0.011, loss_before_queue=True),
        forward=path(loss=LossConfig(replay=REPLAY)),
    ),
    "irregular with outages, contended grants, replayed loss behind the queue": Network(
        trace=irregular("contended", outages=True),
        link=LinkConfig(queue_limit_bytes=25_000, grant_interval_s=0.007, grant_spread=0.8),
        forward=path(loss=LossConfig(replay=REPLAY), jitter=UNIFORM),
    ),
    "square, packets overtake each other": Network(
        trace=square(2.1e6, 0.37e6, half_period_s=0.9, name="overtaking"),
        link=LinkConfig(queue_limit_bytes=17_000),
        forward=path(loss=GILBERT, jitter=replace(UNIFORM, scale_s=0.05), keeps_order=False),
    ),
}


@dataclass(frozen=True)
class Comparison:
    """Rows of all packets of a call, and what the twin says about each."""

    now_us: int
    rows: np.ndarray
    outcomes: list[Outcome]


def play(network: Network, mode: str, key: int) -> Comparison:
    """A call, and the twin on the same offers; targets at random in mode "rate"."""
    config = CallConfig(duration_s=CALL_S)
    call = OneCall(network, config, mode=mode, key=key)
    targets = np.random.default_rng(key)
    low, high = np.log(config.min_rate_bps), np.log(config.max_rate_bps)
    while call.now_us < s_to_us(CALL_S):
        call.step(float(np.exp(targets.uniform(low, high))) if mode == "rate" else 0.0)
    rows = call.packets.copy()
    consent_us = range(0, call.now_us + 1, s_to_us(config.consent_interval_s))
    # At the same microsecond a consent check goes before the media (tie order of events).
    entries = [(when, 0, -1, CONSENT_BYTES) for when in consent_us]
    entries += [
        (int(row["send_us"]), 1, seq, int(row["size_bytes"])) for seq, row in enumerate(rows)
    ]
    entries.sort()
    outcomes = run_naive_link(network, key, [Offer(entry[0], entry[3]) for entry in entries])
    of_packets = [
        outcome for entry, outcome in zip(entries, outcomes, strict=True) if entry[2] >= 0
    ]
    return Comparison(call.now_us, rows, of_packets)


def fate_at(outcome: Outcome, now_us: int) -> int:
    """What the simulator may know of an outcome by now."""
    if outcome.fate == "queue_drop":
        return FATE_QUEUE_DROP
    if outcome.fate == "random_loss":
        struck = outcome.departure_us is None or outcome.departure_us <= now_us
        return FATE_RANDOM_LOSS if struck else FATE_PENDING
    assert outcome.arrival_us is not None
    return FATE_DELIVERED if outcome.arrival_us <= now_us else FATE_PENDING


def may_round_up(name: str, outcome: Outcome) -> bool:
    """Whether the simulator may be one microsecond later than the fractions.

    Its floating-point time can be a hair above the exact one. That shows only where the exact one
    is a whole microsecond: rounding up then takes the next.
    """
    assert outcome.served_us is not None
    return name != "constant, power of two" and outcome.served_us.denominator == 1


@pytest.mark.parametrize("mode", ["gcc", "rate"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_packet_meets_the_fate_and_arrives_when_the_naive_twin_says(
    name: str, mode: str
) -> None:
    result = play(NETWORKS[name], mode, key=20)
    expected = [fate_at(outcome, result.now_us) for outcome in result.outcomes]
    assert result.rows["fate"].tolist() == expected
    previous_us = 0
    for row, outcome in zip(result.rows, result.outcomes, strict=True):
        has_left = outcome.departure_us is not None and outcome.departure_us <= result.now_us
        if outcome.arrival_us is None or not has_left:
            assert row["arrival_us"] == NEVER
        else:
            late_us = int(row["arrival_us"]) - outcome.arrival_us
            keeps_order = NETWORKS[name].forward.keeps_order
            waits_for_previous = keeps_order and row["arrival_us"] == previous_us
            assert late_us in (0, 1)
            assert late_us == 0 or may_round_up(name, outcome) or waits_for_previous
            previous_us = row["arrival_us"]


def test_the_compared_calls_meet_every_fate_and_a_full_queue_and_idle_links() -> None:
    """The comparison above is worth something only if something happens in it."""
    fates: set[int] = set()
    for name, network in NETWORKS.items():
        result = play(network, "rate", key=20)
        counts = np.bincount(result.rows["fate"], minlength=4)
        assert counts[FATE_DELIVERED] > 300, name
        assert counts[FATE_QUEUE_DROP] > 30, name
        if network.forward.loss.mean_loss_ratio > 0.0:
            assert counts[FATE_RANDOM_LOSS] > 10, name
        fates |= set(np.flatnonzero(counts).tolist())
        waits = [
            outcome.departure_us - int(row["send_us"])
            for row, outcome in zip(result.rows, result.outcomes, strict=True)
            if outcome.departure_us is not None
        ]
        assert max(waits) > 5 * min(waits), name
    assert fates == {FATE_PENDING, FATE_DELIVERED, FATE_QUEUE_DROP, FATE_RANDOM_LOSS}


# --- The twin itself, by hand ---------------------------------------------------------------------


def test_the_twin_serves_three_packets_by_hand() -> None:
    # 1 Mbps for 20 ms, then 0.5 Mbps for 20 ms, and again. 1000 bytes are 8000 bits.
    network = Network(
        trace=square(1e6, 0.5e6, half_period_s=0.02),
        link=LinkConfig(queue_limit_bytes=2_500),
        forward=PathConfig(propagation_delay_s=0.01),
    )
    offers = [
        Offer(0, 1000),
        Offer(0, 1000),
        Offer(0, 1000),
        Offer(7_999, 1000),
        Offer(15_000, 1000),
    ]
    # 0-8 ms, 8-16 ms; the third finds 2000 bytes and a limit of 2500, the fourth still does.
    # The fifth finds the second in service, waits to 16 ms, has sent 4000 bits by 20 ms and the
    # rest at half the rate by 28 ms.
    assert run_naive_link(network, 1, offers) == [
        Outcome("passed", Fraction(8_000), 18_000),
        Outcome("passed", Fraction(16_000), 26_000),
        Outcome("queue_drop"),
        Outcome("queue_drop"),
        Outcome("passed", Fraction(28_000), 38_000),
    ]


def test_the_twin_waits_through_an_outage_and_starts_where_the_network_says() -> None:
    trace = Trace("t", "pattern", "test", np.array([10_000, 30_000]), np.array([8e6, 0.0]))
    network = Network(trace=trace, start_s=0.008, forward=PathConfig(propagation_delay_s=0.0))
    # 2 ms at 8 bits per microsecond are 16,000 bits; 30 ms of nothing; then the rest.
    assert run_naive_link(network, 1, [Offer(500, 1250), Offer(600, 1250)]) == [
        Outcome("passed", Fraction(1_750), 1_750),
        Outcome("passed", Fraction(33_000), 33_000),
    ]


def test_the_twin_integrates_over_changes_and_the_end_of_the_period() -> None:
    capacity = NaiveCapacity([10, 20, 30], [1e6, 0.0, 2e6], start_us=5)
    # From 5 us into the trace: 5 us at 1, 20 us at 0, 30 us at 2, 10 us at 1, ... bits per us.
    assert capacity.bits(0, 5) == 5
    assert capacity.bits(0, 25) == 5
    assert capacity.bits(0, 65) == 5 + 60 + 10
    assert capacity.bits(30, 130) == 50 + 10 + 60 + 10
    assert capacity.served_us(Fraction(0), 8) == 25 + Fraction(3, 2)
    assert capacity.at(54) == 2_000_000
    assert capacity.at(55) == 1_000_000

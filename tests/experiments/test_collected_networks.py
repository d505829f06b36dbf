"""Collected calls meet every cause of loss on every network type, each independently of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env import Network, run_calls
from bwe_env.config import MTU_BYTES, LossConfig, OnOffTraffic, TcpTraffic
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.trace import Trace, constant, networks
from bwe_env.trace.randomness import uniforms
from experiments import collected_networks as collected
from experiments.collected_networks import (
    SENDERS,
    collected_network,
    collected_networks,
    drop_ratios,
    sender_of,
    usable_rate_bps,
)
from experiments.networks import networks_digest

TRAIN = collected_networks("train", 600)
DRAWN = {network.name: network for network in networks("train", count=600)}
TYPES = sorted({network.network_type for network in TRAIN})

SHARES = {
    name: getattr(collected, name) for name in ("LOSS_SHARES", "MANAGEMENT_SHARES", "OTHERS_SHARES")
}


def has_drawn_loss(network: Network) -> bool:
    return network.forward.loss == DRAWN[network.name].forward.loss


def is_independent(loss: LossConfig) -> bool:
    return loss.good_to_bad == 0.0 and loss.good_loss >= 0.003


def is_bursty(loss: LossConfig) -> bool:
    """Whether bursts of two packets or more lose at least 0.3 %: satellites' rare ones do not."""
    bad_ratio = loss.good_to_bad / (loss.good_to_bad + loss.bad_to_good)
    return loss.bad_to_good <= 0.5 and bad_ratio >= 0.003


def others_of(network: Network) -> str:
    if network.competing_calls:
        return "call"
    if not network.cross_traffic:
        return "nobody"
    (source,) = network.cross_traffic
    if isinstance(source, OnOffTraffic):
        return "on-off"
    return "files" if source.max_file_bytes else f"long {source.algorithm}"


def management_of(network: Network) -> str:
    return "policer" if network.link.policer_rate_bps else network.link.discipline


def loss_of(network: Network) -> str:
    loss = network.forward.loss
    if has_drawn_loss(network):
        return "drawn"
    kind = "independent" if is_independent(loss) else "bursts"
    return f"{kind}, {'for a time' if loss.until_s else 'always'}"


def queue_of(network: Network) -> str:
    limit = "bytes" if network.link.queue_limit_bytes else "time"
    place = "before" if network.link.loss_before_queue else "behind"
    return f"{limit}, loss {place}"


def capacity_of(network: Network) -> str:
    return "drops" if network.trace.source.endswith("with drops") else "as it was"


KINDS: dict[str, tuple[Callable[[Network], str], set[str]]] = {
    "loss": (
        loss_of,
        {
            "drawn",
            "independent, always",
            "independent, for a time",
            "bursts, always",
            "bursts, for a time",
        },
    ),
    "management": (management_of, {"drop_tail", "codel", "pie", "policer"}),
    "queue": (
        queue_of,
        {f"{limit}, loss {place}" for limit in ("bytes", "time") for place in ("before", "behind")},
    ),
    "others": (others_of, {"nobody", "on-off", "long reno", "long cubic", "files", "call"}),
    "capacity": (capacity_of, {"drops", "as it was"}),
}


def cramers_v(first: Iterable[object], second: Iterable[object]) -> float:
    """Association of two nominal variables: 0 for none, 1 where one tells the other."""
    pairs = Counter(zip(first, second, strict=True))
    rows, columns = (sorted({pair[i] for pair in pairs}, key=str) for i in (0, 1))
    observed = np.array([[pairs[row, column] for column in columns] for row in rows], dtype=float)
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / observed.sum()
    chi2 = float(((observed - expected) ** 2 / expected).sum())
    return float(np.sqrt(chi2 / observed.sum() / (min(observed.shape) - 1)))


def most_by_chance(first: Iterable[object], second: Iterable[object]) -> float:
    """What Cramér's V of two independent variables stays below, three standard deviations up.

    n (min(rows, columns) - 1) V^2 is then chi-squared with f = (rows - 1)(columns - 1) degrees of
    freedom: mean f, variance 2 f.
    """
    rows, columns = len(set(first)), len(set(second))
    freedom = (rows - 1) * (columns - 1)
    most = freedom + 3.0 * np.sqrt(2.0 * freedom)
    return float(np.sqrt(most / len(TRAIN) / (min(rows, columns) - 1)))


def test_a_longer_set_begins_with_the_shorter_one_and_a_network_alone_is_the_same() -> None:
    shorter = collected_networks("train", 30)
    assert networks_digest(shorter) == networks_digest(TRAIN[:30])
    alone = collected_network(networks("train", count=18)[17])
    assert networks_digest([alone]) == networks_digest([TRAIN[17]])


def test_a_network_keeps_its_name_type_delays_and_way_back() -> None:
    for network in TRAIN:
        drawn = DRAWN[network.name]
        assert network.network_type == drawn.network_type
        assert network.reverse == drawn.reverse
        assert network.forward.jitter == drawn.forward.jitter
        assert network.forward.propagation_delay_s == drawn.forward.propagation_delay_s
        assert network.forward.delay_steps == drawn.forward.delay_steps
        assert network.link.grant_interval_s == drawn.link.grant_interval_s
        assert network.link.max_wait_s == drawn.link.max_wait_s
        assert network.forward.keeps_order


def test_splits_share_no_network() -> None:
    everything = [
        *TRAIN,
        *collected_networks("validation", 60),
        *collected_networks("test", 120),
    ]
    assert len({network.name for network in everything}) == len(everything)
    assert len({network.trace.digest for network in everything}) == len(everything)


def test_wrong_splits_and_counts_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="train"):
        collected_networks("training", 3)
    with pytest.raises(ConfigError, match="count=0"):
        collected_networks("train", 0)


@pytest.mark.parametrize("aspect", KINDS)
def test_every_type_meets_every_kind(aspect: str) -> None:
    kind_of, kinds = KINDS[aspect]
    met = {(network.network_type, kind_of(network)) for network in TRAIN}
    assert met == {(network_type, kind) for network_type in TYPES for kind in kinds}


@pytest.mark.parametrize("name", SHARES)
def test_shares_add_up_to_one(name: str) -> None:
    assert sum(SHARES[name].values()) == pytest.approx(1.0)


def test_kinds_have_their_shares() -> None:
    # Three standard deviations of a share of 600 draws are at most 0.061.
    share = {
        "drawn": np.mean([has_drawn_loss(network) for network in TRAIN]),
        "bursts": np.mean([loss_of(network).startswith("bursts") for network in TRAIN]),
        "nobody": np.mean([others_of(network) == "nobody" for network in TRAIN]),
        "policer": np.mean([management_of(network) == "policer" for network in TRAIN]),
        "alone in a plain queue": np.mean(
            [
                others_of(network) == "nobody" and management_of(network) == "drop_tail"
                for network in TRAIN
            ]
        ),
    }
    assert share == pytest.approx(
        {
            "drawn": 0.25,
            "bursts": 0.375,
            "nobody": 0.55,
            "policer": 0.2,
            "alone in a plain queue": 0.33,
        },
        abs=0.061,
    )


def ln_mean_capacity() -> NDArray[np.float64]:
    return np.log([network.trace.mean_bps for network in TRAIN])


@pytest.mark.parametrize("aspect", KINDS)
def test_no_kind_goes_with_the_network_type(aspect: str) -> None:
    kinds = [KINDS[aspect][0](network) for network in TRAIN]
    types = [network.network_type for network in TRAIN]
    assert cramers_v(kinds, types) < most_by_chance(kinds, types)


def test_bursty_random_loss_tells_neither_the_type_nor_the_capacity() -> None:
    bursty = np.array([is_bursty(network.forward.loss) for network in TRAIN])
    assert 0.3 < bursty.mean() < 0.5
    # 0.16 is the 99 % quantile of independence: chi-squared with 5 degrees of freedom is 15.1.
    assert cramers_v(bursty.tolist(), [network.network_type for network in TRAIN]) < 0.16
    # Three standard errors of a correlation of 600 independent pairs are 0.12.
    assert abs(np.corrcoef(bursty, ln_mean_capacity())[0, 1]) < 0.12


def test_causes_do_not_go_with_each_other_or_with_the_sender() -> None:
    kinds: dict[str, list[object]] = {
        "loss": [loss_of(network).split(",")[0] for network in TRAIN],
        "management": [management_of(network) for network in TRAIN],
        "others": [others_of(network) == "nobody" for network in TRAIN],
        "capacity": [capacity_of(network) for network in TRAIN],
        "sender": [sender_of(network.name).name for network in TRAIN],
    }
    for first in kinds:
        for second in kinds:
            if first < second:
                pair = kinds[first], kinds[second]
                assert cramers_v(*pair) < most_by_chance(*pair), (first, second)


def test_loss_of_one_part_lies_within_the_call_and_as_often_early_as_late() -> None:
    parts = [network.forward.loss for network in TRAIN if network.forward.loss.until_s > 0.0]
    middle_s = np.array([(loss.from_s + loss.until_s) / 2.0 for loss in parts])
    assert all(0.0 <= loss.from_s < loss.until_s <= 60.0 for loss in parts)
    assert all(10.0 <= loss.until_s - loss.from_s <= 40.0 for loss in parts)
    # The middle is symmetric about 30 s; its sd is at most 60 / sqrt(12) = 17.3 s.
    assert abs(middle_s.mean() - 30.0) < 3.0 * 17.3 / np.sqrt(len(parts))


def test_explicit_loss_has_the_mean_and_the_bursts_that_were_drawn() -> None:
    for network in TRAIN:
        loss = network.forward.loss
        if has_drawn_loss(network):
            continue
        _, kind, mean, burst, *_ = uniforms(6, "collect", network.name, "loss")
        assert loss.mean_loss_ratio == pytest.approx(0.003 * (0.1 / 0.003) ** mean)
        if kind >= 0.25 + 0.375:
            assert 1.0 / loss.bad_to_good == pytest.approx(2.0 * 6.0**burst)


def test_queues_policers_and_others_stay_in_their_ranges() -> None:
    for network in TRAIN:
        link, usable_bps = network.link, usable_rate_bps(network.trace)
        assert 0.03 <= link.queue_limit_s <= 1.5
        if link.queue_limit_bytes:
            assert link.queue_limit_bytes >= 5 * MTU_BYTES
            assert link.queue_limit_bytes == pytest.approx(
                max(7_500, link.queue_limit_s * usable_bps / 8), abs=1
            )
        if link.policer_rate_bps:
            assert 200e3 <= link.policer_rate_bps <= max(200e3, usable_bps)
        for source in network.cross_traffic:
            if isinstance(source, OnOffTraffic):
                assert 0.1 <= source.rate_bps / usable_bps <= 0.6
            elif isinstance(source, TcpTraffic) and not source.max_file_bytes:
                assert 15.0 <= source.stop_s - source.start_s <= 60.0


def test_capacity_is_never_raised_and_never_taken_below_what_audio_needs() -> None:
    slowed = 0
    for network in TRAIN:
        before_bps, after_bps = DRAWN[network.name].trace.capacity_bps, network.trace.capacity_bps
        assert (after_bps <= before_bps).all()
        assert (after_bps >= np.minimum(before_bps, 200e3)).all()
        slowed += "slowed" in network.trace.source
    # Half of the links with a median above 6 Mbps, which are two in five.
    assert 0.15 < slowed / len(TRAIN) < 0.25


def ten_segments_per_second(name: str, seconds: int) -> Trace:
    time_s = np.arange(10 * seconds) / 10.0
    return Trace.from_points(time_s, np.full(len(time_s), 1e6), name=name, network_type="wifi")


def test_each_minute_has_one_drop_of_ten_to_thirty_seconds() -> None:
    for number in range(20):
        ratio = drop_ratios(ten_segments_per_second(f"flat-{number}", 150))
        for minute in (ratio[:600], ratio[600:1200]):
            dropped = np.flatnonzero(minute < 1.0)
            assert 100 - 1 <= len(dropped) <= 300 + 1  # of 0.1 s
            assert (np.diff(dropped) == 1).all()
            assert len(set(minute[dropped])) == 1
            assert 0.2 <= minute[dropped[0]] <= 0.6
        assert (ratio[1200:] == 1.0).all()


def test_usable_rate_is_the_mean_of_what_a_call_could_take_in_its_first_minute() -> None:
    trace = Trace.from_points(
        [0.0, 15.0, 30.0, 60.0], [1e6, 0.0, 50e6, 3e6], name="w", network_type="wifi", end_s=180.0
    )
    # 15 s of 1 Mbps, 15 s of outage that counts as 0.2, 30 s capped at 6; the rest is not met.
    assert usable_rate_bps(trace) == pytest.approx((15 * 1e6 + 15 * 0.2e6 + 30 * 6e6) / 60)
    assert usable_rate_bps(constant(2e6)) == 2e6


def test_senders_have_names_of_their_own_and_calls_of_one_length() -> None:
    assert len({sender.name for sender in SENDERS}) == len(SENDERS) >= 6
    assert len({repr(sender.call) for sender in SENDERS}) == len(SENDERS)
    assert {(s.call.duration_s, s.call.interval_s) for s in SENDERS} == {(60.0, 0.1)}


def test_a_networks_sender_follows_from_its_name_and_all_are_met_on_every_type() -> None:
    assert sender_of("train-0000-3G-down") is sender_of("train-0000-3G-down")
    met = {(network.network_type, sender_of(network.name).name) for network in TRAIN}
    assert len(met) == len(TYPES) * len(SENDERS)


@pytest.fixture(scope="module")
def calls() -> dict[str, NDArray[Any]]:
    """One call by GCC on each of the first 240 networks, by the sender that belongs to it."""
    tables = []
    for sender in SENDERS:
        own = [network for network in TRAIN[:240] if sender_of(network.name) is sender]
        tables.append(run_calls(own, "gcc", call=sender.call, seeds=(0,), num_threads=2))
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def test_every_network_and_sender_is_simulated(calls: dict[str, NDArray[Any]]) -> None:
    assert sorted(calls["network"]) == [network.name for network in TRAIN[:240]]
    assert (calls["mean_sent_bps"] > 0.0).all()
    for cause in ("random", "queue", "aqm", "policer"):
        assert calls[f"{cause}_loss_ratio"].max() > 0.01


def test_at_least_two_in_five_calls_have_both_causes_and_some_have_neither_or_one(
    calls: dict[str, NDArray[Any]],
) -> None:
    congestion = sum(calls[f"{cause}_loss_ratio"] for cause in ("queue", "aqm", "policer"))
    # A call has about 7000 packets: 0.3 % of them are twenty.
    is_random, is_congested = calls["random_loss_ratio"] >= 0.003, congestion >= 0.003
    assert np.mean(is_random & is_congested) >= 0.4
    assert np.mean(is_random & ~is_congested) >= 0.05
    assert np.mean(~is_random & is_congested) >= 0.05


def test_calls_hardly_drop_more_often_than_on_the_networks_of_the_split(
    calls: dict[str, NDArray[Any]],
) -> None:
    drawn = run_calls([*DRAWN.values()][:240], "gcc", seeds=(0,), num_threads=2)
    # Outages of the traces drop calls on both; loss and congestion are to add next to none.
    assert calls["dropped"].mean() <= drawn["dropped"].mean() + 0.01

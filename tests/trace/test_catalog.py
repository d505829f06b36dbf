"""Splits are fixed sets of networks: reproducible, balanced, disjoint, and contested enough."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.trace import NETWORK_TYPES, SPLITS, networks
from bwe_env.trace.catalog import CYCLES, Kind, synthetic_traces
from bwe_env.trace.recipes import OUTAGE_BPS

#: Beginning of the SHA-256 of the first traces of "test": if one changes, every recorded result on
#: a split is of other networks, and the environment's version must be raised.
FINGERPRINTS = {
    "test-0000-3G-down": "148a31d833be2471",
    "test-0001-4G-LTE-down-congested": "251ca7f59bba29d4",
    "test-0002-5G-up": "4e9223c5c3b70490",
    "test-0003-wifi-down-congested": "bba75630a3cf9630",
    "test-0004-wired-broadband-down": "c635a3c212bb68d5",
    "test-0005-satellite-down-congested": "2c9f3002c28242bb",
    "test-0006-3G-up": "1a8797f5b88bac8d",
    "test-0007-4G-LTE-up": "d5576c2562525e76",
    "test-0008-5G-up-congested": "2392e29d0c07672e",
    "test-0009-wifi-down": "bed7c09f6f987832",
    "test-0010-wired-line-congested": "92f9dfb455c55ac4",
    "test-0011-satellite-up": "c0c9dab6640af416",
}


def test_splits_have_their_sizes() -> None:
    assert {split: len(networks(split)) for split in SPLITS} == SPLITS
    assert len(networks("test", count=7)) == 7
    assert len(networks("validation", count=61)) == 61  # beyond the default


def test_no_network_is_in_two_splits_or_twice_in_one() -> None:
    everything = [network for split in SPLITS for network in networks(split)]
    assert len({network.trace.digest for network in everything}) == len(everything)
    assert len({network.name for network in everything}) == len(everything)
    assert all(n.name.startswith(split) for split in SPLITS for n in networks(split))


def test_a_longer_split_begins_with_the_shorter_one() -> None:
    assert networks("train", count=30) == networks("train")[:30]


def test_every_type_has_as_many_networks() -> None:
    for split, count in SPLITS.items():
        types = Counter(network.network_type for network in networks(split))
        assert types == {name: count / 6 for name in NETWORK_TYPES if name != "pattern"}


@pytest.mark.parametrize("split", SPLITS)
def test_more_than_half_of_the_networks_contest_a_call_of_6_mbps(split: str) -> None:
    # Below 6 Mbps for more than half of the time; of the 322 measured traces it is 39 %.
    share = np.mean([network.trace.ratio_below(6e6) > 0.5 for network in networks(split)])
    assert 0.5 < share < 0.75
    first_minute = [network.trace.capacity_bps[:300].min() < 6e6 for network in networks(split)]
    assert np.mean(first_minute) > 0.75


def test_congested_networks_say_so_and_have_medians_between_300_kbps_and_6_mbps() -> None:
    for network in networks("train"):
        if "congested" not in network.name:
            assert "congested" not in network.trace.source
            continue
        assert "congested" in network.trace.source
        # Threefold: the median of 180 s wanders around the median that was drawn. Outages apart:
        # one of a satellite may last for more than half of a trace.
        capacity_bps = network.trace.capacity_bps
        assert 0.1e6 < np.median(capacity_bps[capacity_bps >= OUTAGE_BPS]) < 18e6


def test_even_a_dozen_networks_hold_congested_ones() -> None:
    names = [network.name for network in networks("test", count=12)]
    assert sum("congested" in name for name in names) >= 3


def test_content_is_a_function_of_the_name_whatever_stands_beside_it() -> None:
    for cycle in CYCLES.values():
        for kind in cycle:
            together = synthetic_traces(kind, ["x", "y", "z"], duration_s=60.0)
            (alone,) = synthetic_traces(kind, ["y"], duration_s=60.0)
            assert together[1] == alone
            assert len({trace.digest for trace in together}) == 3


def test_a_longer_trace_begins_with_the_shorter_one() -> None:
    for cycle in CYCLES.values():
        (short,) = synthetic_traces(cycle[0], ["x"], duration_s=30.0)
        (long,) = synthetic_traces(cycle[0], ["x"], duration_s=120.0)
        assert np.array_equal(long.capacity_bps[: len(short)], short.capacity_bps)


def test_calls_begin_where_the_trace_does_and_traces_outlast_an_ab_call() -> None:
    for network in networks("test"):
        assert network.start_s == 0.0
        assert network.trace.duration_s == 180.0
        assert set(network.trace.duration_us) == {200_000}


def test_the_first_networks_of_a_split_are_those_of_every_recorded_result() -> None:
    found = {network.name: network.trace.digest[:16] for network in networks("test", count=12)}
    assert found == FINGERPRINTS


def test_networks_are_the_same_in_another_process() -> None:
    code = (
        "from bwe_env.trace import networks\n"
        "print(hash(0), [n.trace.digest for n in networks('validation', count=12)])\n"
        "print([n.forward for n in networks('validation', count=12)])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = networks("validation", count=12)
    assert run.stdout.splitlines() == [
        f"0 {[n.trace.digest for n in ours]}",
        f"{[n.forward for n in ours]}",
    ]


def test_importing_the_traces_imports_neither_numba_nor_torch() -> None:
    code = (
        "import sys, bwe_env.trace\n"
        "print([name for name in ('numba', 'torch') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_thousand_traces_of_a_minute_are_made_in_two_seconds() -> None:
    kinds = [kind for cycle in CYCLES.values() for kind in cycle]
    begin = time.process_time()
    made = 0
    for i, kind in enumerate(kinds):
        names = [f"speed-{i}-{j}" for j in range(1 + 1000 // len(kinds))]
        made += len(synthetic_traces(kind, names, duration_s=60.0))
    assert made >= 1000
    assert time.process_time() - begin < 2.0


def test_an_unknown_split_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError,
        match="split of networks 'tests'. Did you mean 'test'. Known: test, train, validation",
    ):
        networks("tests")


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "all"])
def test_a_count_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(ConfigError, match=r"count=.* must be a whole number of networks, at least"):
        networks("train", count=count)  # type: ignore[arg-type]


def test_every_kind_of_a_cycle_has_a_recipe_of_its_type() -> None:
    for network_type, cycle in CYCLES.items():
        for kind in cycle:
            assert isinstance(kind, Kind)
            (trace,) = synthetic_traces(kind, ["x"], duration_s=10.0)
            assert trace.network_type == network_type

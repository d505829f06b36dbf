"""Networks by class: the right ones, as many as asked for, and none in two splits."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from bwe_env.errors import UnknownNameError
from bwe_env.labels import CELLULAR_LOW_BPS, NETWORK_CLASSES
from bwe_env.trace.catalog import networks
from experiments.tuning_networks import (
    GLOBAL,
    TARGETS,
    NetworkList,
    class_networks,
    class_of,
    mean_capacity_bps,
)

DURATION_S = 20.0


@pytest.mark.parametrize("target", NETWORK_CLASSES)
def test_a_list_holds_as_many_networks_of_its_class_as_asked_for(target: str):
    chosen = NetworkList(split="validation", target=target, count=5).networks(DURATION_S)
    assert [class_of(network, DURATION_S) for network in chosen] == [target] * 5
    assert len({network.name for network in chosen}) == 5


def test_the_global_list_has_as_many_of_every_class():
    chosen = NetworkList(split="validation", target=GLOBAL, count=12).networks(DURATION_S)
    counts = Counter(class_of(network, DURATION_S) for network in chosen)
    assert counts == dict.fromkeys(NETWORK_CLASSES, 3)


@pytest.mark.parametrize("target", TARGETS)
def test_no_two_splits_share_a_network(target: str):
    names = [
        {n.name for n in NetworkList(split=split, target=target, count=5).networks(DURATION_S)}
        for split in ("train", "validation", "test")
    ]
    assert not names[0] & names[1] | names[1] & names[2] | names[0] & names[2]


def test_a_longer_list_begins_with_the_shorter():
    short = class_networks("test", "cellular-low", 3, DURATION_S)
    long = class_networks("test", "cellular-low", 6, DURATION_S)
    assert [network.name for network in long[:3]] == [network.name for network in short]


def test_slow_and_fast_cellular_networks_are_parted_at_the_threshold():
    for name, is_low in (("cellular-low", True), ("cellular-high", False)):
        for network in class_networks("test", name, 5, DURATION_S):
            assert (mean_capacity_bps(network, DURATION_S) < CELLULAR_LOW_BPS) is is_low


def test_the_mean_capacity_is_that_of_the_call_and_not_of_the_trace():
    for network in networks("test", count=6):
        late = dataclasses.replace(network, start_s=170.0)  # the trace of 180 s repeats
        times_s = [170.0 + tenth / 10.0 for tenth in range(200)]
        naive = np.mean([late.trace.capacity_at(time_s) for time_s in times_s])
        assert mean_capacity_bps(late, DURATION_S) == pytest.approx(naive, rel=1e-12)


def test_an_unknown_class_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="cellular-high"):
        NetworkList(split="train", target="cellular", count=1)

"""The networks that a configuration is tuned, chosen and judged on, by their class.

Classes are those of `bwe_env.labels.NETWORK_CLASSES`: what a model of network types finds out in a
call, and so what a configuration can be delivered for. Splits are those of `bwe_env.trace.catalog`,
which share no network: training ones to tune on, validation ones to choose on, test ones to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bwe_env.errors import unknown_name
from bwe_env.labels import NETWORK_CLASSES, network_class
from bwe_env.network import Network
from bwe_env.trace.catalog import CYCLES
from bwe_env.trace.catalog import networks as catalog_networks
from bwe_env.units import s_to_us

#: All classes in equal shares: what one configuration for everybody is tuned on.
GLOBAL = "global"
#: What a configuration can be tuned for.
TARGETS = (*NETWORK_CLASSES, GLOBAL)


@dataclass(frozen=True, kw_only=True)
class NetworkList:
    """A list of networks by what makes it, so that a worker can make it itself."""

    split: str
    """of `bwe_env.trace.catalog.SPLITS`"""
    target: str
    """one of `TARGETS`"""
    count: int
    """networks; of `GLOBAL` as many of each class as makes so many or a little more"""

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise unknown_name("network class", self.target, TARGETS)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in it."""
        return NETWORK_CLASSES if self.target == GLOBAL else (self.target,)

    def networks(self, duration_s: float) -> tuple[Network, ...]:
        """The networks, those of one class together.

        Args:
            duration_s: of the calls; the class of a cellular network hangs on the mean capacity in
                the call.
        """
        each = -(-self.count // len(self.classes))
        chosen: list[Network] = []
        for name in self.classes:
            chosen += class_networks(self.split, name, each, duration_s)
        return tuple(chosen)


def class_of(network: Network, duration_s: float) -> str:
    """The class of a network in a call of this length."""
    return network_class(network.network_type, mean_capacity_bps(network, duration_s))


def mean_capacity_bps(network: Network, duration_s: float) -> float:
    """Mean capacity of the bottleneck over the first so many seconds of a call, sampled at 10 Hz.

    That is the resolution of a decision interval, and finer than any trace of the catalog.
    """
    trace = network.trace
    times_us = s_to_us(network.start_s) + np.arange(0, s_to_us(duration_s), s_to_us(0.1))
    segments = np.searchsorted(trace.start_us, times_us % trace.period_us, "right") - 1
    return float(trace.capacity_bps[segments].mean())


def class_networks(split: str, name: str, count: int, duration_s: float) -> Sequence[Network]:
    """The first `count` networks of a class in a split; a longer list begins with the shorter."""
    size = len(CYCLES) * count
    while True:
        found = [
            network
            for network in catalog_networks(split, count=size)
            if class_of(network, duration_s) == name
        ]
        if len(found) >= count:
            return found[:count]
        size += len(CYCLES) * count

"""The sets of networks that calls are made on: named synthetic splits, and measured traces.

A split holds as many networks of each type. Every type goes round a cycle of its kinds (downlink,
uplink, …), *as measured* and *congested*: public traces favour links far faster than a video call
of 6 Mbps ever needs, on which no controller can be told from another. A congested network is a
crowded cell, a weak signal, a shared or cheap line: it moves as its type does, but its median
capacity is drawn between 0.3 and 6 Mbps (`CONGESTED_MEDIAN_BPS`), and its name says "congested".
So more than half of a split's networks carry less than 6 Mbps for more than half of the time
(of the measured traces it is 39 %, and 93 % do for some of it).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.network import Network
from bwe_env.trace.paths import draw_network
from bwe_env.trace.readers import read_directory
from bwe_env.trace.recipes import RECIPES, STEP_S
from bwe_env.trace.synthetic import synthetic_capacity_bps
from bwe_env.trace.trace import Trace
from bwe_env.units import s_to_us

#: Named splits and how many networks each has unless told otherwise. Ours: training sees enough to
#: generalise; 120 test networks (20 per type) pair well in a bootstrap over networks.
SPLITS = {"train": 600, "validation": 60, "test": 120}

#: Length of a synthetic trace: the long calls of experiments (180 s) fit in it once. Ours.
DURATION_S = 180.0


@dataclass(frozen=True)
class Kind:
    """One recipe, as measured or congested."""

    recipe: str
    congested: bool = False

    @property
    def label(self) -> str:
        """How it is called in the name of a network."""
        return f"{self.recipe}-congested" if self.congested else self.recipe


#: What each network type goes round. 3G and the 4G uplink are slow as measured.
CYCLES = {
    "3G": (Kind("3G-down"), Kind("3G-up")),
    "4G-LTE": (Kind("4G-LTE-down"), Kind("4G-LTE-down", congested=True), Kind("4G-LTE-up")),
    "5G": (
        Kind("5G-down"),
        Kind("5G-down", congested=True),
        Kind("5G-up"),
        Kind("5G-up", congested=True),
        Kind("5G-mmWave-down"),
    ),
    "wifi": (Kind("wifi-down"), Kind("wifi-down", congested=True)),
    "wired-broadband": (
        Kind("wired-broadband-down"),
        Kind("wired-line", congested=True),
        Kind("wired-broadband-down", congested=True),
        Kind("wired-line"),
    ),
    "satellite": (
        Kind("satellite-down"),
        Kind("satellite-down", congested=True),
        Kind("satellite-up"),
        Kind("satellite-up", congested=True),
    ),
}


def networks(split: str, *, count: int | None = None) -> list[Network]:
    """The first `count` synthetic networks of a split (all by default).

    The content of each is a function of its name alone, and its name of the split and its number:
    a longer split begins with the shorter one, and no two splits share a network.

    Args:
        split: one of `SPLITS`.
        count: may exceed the default.

    Raises:
        UnknownNameError: no such split; the known ones are listed.
        ConfigError: `count` is not a whole number >= 1.
    """
    if split not in SPLITS:
        raise unknown_name("split of networks", split, SPLITS)
    if count is None:
        count = SPLITS[split]
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ConfigError(f"count={count!r} must be a whole number of networks, at least 1.")
    return list(_networks(split, int(count)))


def real_networks(directory: str | Path) -> list[Network]:
    """One network per measured trace of a directory (see `read_directory`), outages included.

    The trace gives the capacity. Delay, jitter, loss and queue are drawn for its type (`paths`),
    as a function of the trace's name: a trace meets the same path in every run and every subset.
    """
    return [draw_network(trace) for trace in read_directory(directory)]


@lru_cache(maxsize=8)
def _networks(split: str, count: int) -> tuple[Network, ...]:
    named = [_name_and_kind(split, index) for index in range(count)]
    rows = defaultdict(list)
    for index, (_, kind) in enumerate(named):
        rows[kind].append(index)
    traces: list[Trace | None] = [None] * count
    for kind, indices in rows.items():
        names = [named[index][0] for index in indices]
        for index, trace in zip(indices, synthetic_traces(kind, names), strict=True):
            traces[index] = trace
    return tuple(draw_network(trace) for trace in traces if trace is not None)


def _name_and_kind(split: str, index: int) -> tuple[str, Kind]:
    types = list(CYCLES)
    place = index % len(types)
    cycle = CYCLES[types[place]]
    # Types start at different places of their cycles: small splits hold congested networks, too.
    kind = cycle[(index // len(types) + place) % len(cycle)]
    return f"{split}-{index:04d}-{kind.label}", kind


def synthetic_traces(
    kind: Kind, names: list[str], *, duration_s: float = DURATION_S
) -> list[Trace]:
    """Traces of one kind, each a function of its name.

    Args:
        duration_s: rounded to whole steps of `STEP_S`; a longer trace begins with the shorter one.
    """
    recipe = RECIPES[kind.recipe]
    capacity_bps = synthetic_capacity_bps(
        recipe, names, duration_s=duration_s, congested=kind.congested
    )
    duration_us = np.full(capacity_bps.shape[1], s_to_us(STEP_S), dtype=np.int64)
    source = f"synthetic, {kind.label}"
    return [
        Trace(name, recipe.network_type, source, duration_us, row)
        for name, row in zip(names, capacity_bps, strict=True)
    ]

"""The networks of an experiment: train, validation and test, apart from each other.

Synthetic ones come from the named splits of `bwe_env.trace.catalog`. Measured traces are split
here: by the group a trace was recorded in (one route, one place, one provider), or by recording
session where a type has few groups, so that pieces of one recording never stand on both sides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.network import Network
from bwe_env.trace.catalog import networks as synthetic_networks
from bwe_env.trace.catalog import real_networks

SPLITS = ("train", "validation", "test")
#: Share of a type's traces that each split should have. Ours.
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
#: Types with fewer groups are split by session: one group may then hold most of the traces. Ours.
MIN_GROUPS = 5


@dataclass(frozen=True)
class NetworkSets:
    """Three lists of networks that share no recording."""

    train: tuple[Network, ...]
    """for learning"""
    validation: tuple[Network, ...]
    """for every choice: checkpoint, constant, threshold"""
    test: tuple[Network, ...]
    """for the final table only"""

    @property
    def digests(self) -> dict[str, str]:
        """Fingerprint of each list, for the run's record."""
        return {name: networks_digest(getattr(self, name)) for name in SPLITS}


def networks_digest(networks: Iterable[Network]) -> str:
    """SHA-256 of everything that makes up a list of networks."""
    digest = hashlib.sha256()
    for network in networks:
        path = {
            field.name: getattr(network, field.name)
            for field in dataclasses.fields(network)
            if field.name != "trace"
        }
        parts = (network.name, network.network_type, network.trace.digest, repr(path))
        digest.update("\n".join(parts).encode())
    return digest.hexdigest()


def synthetic_sets(*, train: int, validation: int, test: int) -> NetworkSets:
    """The first so many networks of each named synthetic split."""
    return NetworkSets(
        train=tuple(synthetic_networks("train", count=train)),
        validation=tuple(synthetic_networks("validation", count=validation)),
        test=tuple(synthetic_networks("test", count=test)),
    )


def measured_sets(directory: str | Path) -> NetworkSets:
    """The traces of a directory with ``manifest.json``, split by group or session.

    Raises:
        UnknownNameError: no such directory.
        TraceFormatError: a trace or the manifest cannot be read.
        ConfigError: too few recordings to fill three lists.
    """
    networks = real_networks(directory)
    groups, sessions = recordings(directory)
    split_of = split_recordings(
        [(n.name, n.network_type, groups.get(n.name), sessions.get(n.name)) for n in networks]
    )
    sets = {split: tuple(n for n in networks if split_of[n.name] == split) for split in SPLITS}
    for split in SPLITS:
        if not sets[split]:
            raise ConfigError(
                f"{directory}: its {len(networks)} traces come from too few recordings to fill the "
                f"{split} networks. Give at least 3 recordings (groups or sessions in "
                "manifest.json) of one network type."
            )
    return NetworkSets(**sets)


def recordings(directory: str | Path) -> tuple[dict[str, str], dict[str, str]]:
    """Group and session of each trace by its name, as far as ``manifest.json`` tells them."""
    entries: list[Mapping[str, Any]] = json.loads((Path(directory) / "manifest.json").read_text())
    groups: dict[str, str] = {}
    sessions: dict[str, str] = {}
    for entry in entries:
        dataset = str(entry.get("dataset", ""))
        for key, names in (("group", groups), ("session", sessions)):
            if entry.get(key):
                names[entry["name"]] = f"{dataset}/{entry[key]}"
    return groups, sessions


def split_recordings(
    traces: Sequence[tuple[str, str, str | None, str | None]],
) -> dict[str, str]:
    """Which split each trace belongs to.

    Args:
        traces: (name, network type, group or None, session or None). Without a session, the name
            up to a chunk number (``…__c3``) is one; without a group, the session is.

    Returns:
        One of `SPLITS` by name. It depends on the set of traces, not on their order: within a type,
        the largest units go first (of equal ones in the order of their hash), each to the split
        that is furthest below its share.
    """
    by_type: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for name, network_type, group, session in traces:
        recording = session or re.sub(r"[_-]+(c|seg|chunk)\d+$", "", name)
        by_type[network_type].append((name, group or recording, recording))
    split_of: dict[str, str] = {}
    for network_type, rows in by_type.items():
        by_group = len({group for _, group, _ in rows}) >= MIN_GROUPS
        units: dict[str, list[str]] = defaultdict(list)
        for name, group, recording in rows:
            units[group if by_group else recording].append(name)
        counts = dict.fromkeys(SPLITS, 0)
        for unit in sorted(units, key=lambda u: (-len(units[u]), _hash(network_type, u))):
            split = max(SPLITS, key=lambda s: SHARES[s] * len(rows) - counts[s])
            counts[split] += len(units[unit])
            split_of.update(dict.fromkeys(units[unit], split))
    return split_of


def _hash(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()


def named_networks(*, traces: str | Path | None, split: str, count: int) -> tuple[Network, ...]:
    """What `experiments.evaluate` runs on: all traces of a directory, or a synthetic split.

    Args:
        traces: directory with ``manifest.json``, or None for synthetic networks.
        split: one of `SPLITS`, or ``"all"`` for every trace of the directory.
        count: how many synthetic networks; a directory is always taken whole.
    """
    if split not in (*SPLITS, "all"):
        raise unknown_name("split", split, (*SPLITS, "all"))
    if traces is None:
        if split == "all":
            raise ConfigError(
                "synthetic networks have no end, so split 'all' needs --traces DIR; choose one of "
                f"{', '.join(SPLITS)}."
            )
        return tuple(synthetic_networks(split, count=count))
    if split == "all":
        return tuple(real_networks(traces))
    chosen: tuple[Network, ...] = getattr(measured_sets(traces), split)
    return chosen

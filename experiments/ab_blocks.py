"""Playing an A/B test in blocks of networks, so that an interrupted one goes on where it stopped.

::

    DIRECTORY/
        manifest.json             all inputs: arms, networks, seeds, call, simulator
        calls-control-0000.npz    columns of the calls of one arm on one block of networks
        calls-treatment-0000.npz
        …

A block is written whole or not at all, as soon as it is finished. To resume, all inputs must be
those of the manifest: an experiment of mixed inputs compares nothing, and one that is made longer
after a look at its results has no valid p-values.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.artifact import read_artifact_manifest, replace_file
from bwe_env.call_table import LAST_MINUTE_MIN_DURATION_S
from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.metrics import FIELD_METRICS, METRICS, Better
from bwe_env.network import Network
from bwe_env.sim._jit import CACHE_DIRECTORY
from experiments.ab_arms import Arm, described
from experiments.ab_pairs import needed_columns
from experiments.evaluation import Calls
from experiments.networks import networks_digest
from experiments.run_directory import config_to_dict, write_json

FORMAT = "bwe-env A/B test"
SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
#: The parts that arms play, in the order of every report.
ROLES = ("control", "treatment", "placebo")
#: Networks of a block: some seconds of work are lost at most, and models are asked for as many
#: calls at once. Ours.
BLOCK_NETWORKS = 64
#: How many differing inputs an error names.
NAMED_DIFFERENCES = 5
#: Name of the column that says how often a call plays through its network's trace.
TRACE_PLAYS = "trace_plays"
#: What reading an npz file raises where it is damaged.
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Which calls are played by whom."""

    arms: Mapping[str, Arm]
    """by role: those of `ROLES`, of which the placebo may be missing, and further ones"""
    networks: Sequence[Network]
    seeds: Sequence[int]
    """every network meets each of them once per arm"""
    call: CallConfig
    directions: Mapping[str, Better] = field(default_factory=dict)
    """where the treatment is declared to move a metric, settled before the calls are played"""

    def __post_init__(self) -> None:
        if not {"control", "treatment"} <= set(self.arms):
            raise ConfigError(
                f"arms {sorted(self.arms)}: an A/B test has a control and a treatment, and it may "
                "have a placebo and further arms."
            )
        names = [arm.name for arm in self.arms.values()]
        if len(set(names)) < len(names):
            raise ConfigError(f"arms {names} must have different names; tell them apart by labels.")
        if self.call.duration_s < LAST_MINUTE_MIN_DURATION_S:
            raise ConfigError(
                f"duration_s={self.call.duration_s:g}: calls of an A/B test last at least "
                f"{LAST_MINUTE_MIN_DURATION_S:g} s, or they have no last minute to compare."
            )
        if len(self.networks) < 2 or not self.seeds:
            raise ConfigError("an A/B test needs at least 2 networks and one seed.")

    def inputs(self) -> dict[str, Any]:
        """All that the calls depend on, as plain JSON values."""
        return {
            "arms": {role: described(arm, self.call) for role, arm in self.arms.items()},
            "block_networks": BLOCK_NETWORKS,
            "call": config_to_dict(self.call),
            "directions": dict(self.directions),
            "networks": {"count": len(self.networks), "digest": networks_digest(self.networks)},
            "seeds": list(self.seeds),
            "simulator": CACHE_DIRECTORY.name,
        }

    def blocks(self) -> list[Block]:
        """Every block of every arm, those of the same networks next to each other."""
        return [
            Block(
                role=role,
                arm=arm,
                number=first // BLOCK_NETWORKS,
                networks=tuple(self.networks[first : first + BLOCK_NETWORKS]),
                seeds=tuple(self.seeds),
                call=self.call,
            )
            for first in range(0, len(self.networks), BLOCK_NETWORKS)
            for role, arm in self.arms.items()
        ]


@dataclass(frozen=True, kw_only=True, repr=False)
class Block:
    """One arm on one block of networks: a piece of work that pickles."""

    role: str
    arm: Arm
    number: int
    networks: tuple[Network, ...]
    seeds: tuple[int, ...]
    call: CallConfig

    def __repr__(self) -> str:
        """Short: errors of workers show it."""
        return f"block {self.number} of {self.role} {self.arm.name!r}"

    @property
    def file(self) -> str:
        """Name of the file of its calls."""
        return f"calls-{self.role}-{self.number:04d}.npz"

    @property
    def num_calls(self) -> int:
        """Calls in it."""
        return len(self.networks) * len(self.seeds)


def play_block(block: Block) -> dict[str, NDArray[Any]]:
    """Play the calls of a block; runs in a worker."""
    table = dict(block.arm.play(block.networks, block.seeds, block.call, None))
    plays = {network.name: trace_plays(network, block.call) for network in block.networks}
    table[TRACE_PLAYS] = np.array([plays[name] for name in table["network"].tolist()])
    return table


def trace_plays(network: Network, call: CallConfig) -> int:
    """How often a call begins its network's trace: 1 unless the trace is too short and repeats."""
    return math.ceil((network.start_s + call.duration_s) / network.trace.duration_s)


# --- On disk --------------------------------------------------------------------------------------


def encode_calls(calls: Calls) -> bytes:
    """Columns as one compressed npz file; the same bytes for the same calls."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **calls)
    return content.getvalue()


def decode_calls(content: bytes) -> dict[str, NDArray[Any]] | None:
    """The columns of a block; None where the file is damaged."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE:
        return None


def _read_block(path: Path) -> dict[str, NDArray[Any]] | None:
    return decode_calls(path.read_bytes()) if path.is_file() else None


def _is_finished(directory: Path, block: Block) -> bool:
    calls = _read_block(directory / block.file)
    if calls is None:
        return False
    names = [network.name for network in block.networks for _ in block.seeds]
    return bool(calls["network"].tolist() == names)


def open_directory(directory: Path, experiment: Experiment) -> None:
    """Make the folder of an experiment, or find it with the same inputs.

    Raises:
        ArtifactError: it holds an experiment of other inputs; the differences are named.
        ConfigError: it holds something else.
    """
    inputs = experiment.inputs()
    path = directory / MANIFEST_FILE
    if path.exists():
        recorded = read_manifest(directory)["inputs"]
        different = list(differences(recorded, inputs))
        if different:
            shown = "; ".join(different[:NAMED_DIFFERENCES])
            raise ArtifactError(
                f"{directory} holds an experiment of other inputs: {shown}"
                f"{' …' if len(different) > NAMED_DIFFERENCES else ''}. Give the same inputs to "
                "resume it, or another --out."
            )
        return
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(
            f"{directory} is not empty and holds no experiment; give a new folder with --out."
        )
    directory.mkdir(parents=True, exist_ok=True)
    manifest = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "inputs": inputs}
    write_json(path, manifest)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The checked manifest of an experiment.

    Raises:
        ArtifactError: missing, damaged, or of another version.
    """
    manifest = read_artifact_manifest(
        directory / MANIFEST_FILE,
        what="A/B test",
        format_name=FORMAT,
        remedy="python -m experiments.ab_test makes one.",
    )
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{directory / MANIFEST_FILE} is of version {manifest.get('schema_version')!r}, this "
            f"project reads version {SCHEMA_VERSION}. Play the experiment anew."
        )
    return manifest


def differences(there: Any, now: Any, name: str = "") -> Iterator[str]:
    """Where two JSON values differ, innermost names first to last."""
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        for key in sorted(set(there) | set(now)):
            inner = f"{name}.{key}" if name else key
            yield from differences(there.get(key), now.get(key), inner)
    elif there != now:
        yield f"{name} is {there!r} there and {now!r} now"


def waiting_blocks(directory: Path, experiment: Experiment) -> list[Block]:
    """The blocks that have still to be played; damaged ones are among them."""
    return [block for block in experiment.blocks() if not _is_finished(directory, block)]


def write_block(directory: Path, block: Block, calls: Calls) -> None:
    """Write the calls of a finished block."""
    replace_file(directory / block.file, encode_calls(calls))


def read_calls(directory: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """All calls of every arm, by its role.

    Raises:
        ArtifactError: no experiment, or one that is not finished.
    """
    inputs = read_manifest(directory)["inputs"]
    count = math.ceil(inputs["networks"]["count"] / inputs["block_networks"])
    arms = {}
    known = [role for role in ROLES if role in inputs["arms"]]
    for role in (*known, *sorted(set(inputs["arms"]) - set(ROLES))):
        files = [directory / f"calls-{role}-{number:04d}.npz" for number in range(count)]
        tables = [_read_block(file) for file in files]
        whole = [table for table in tables if table is not None]
        if len(whole) < count:
            raise ArtifactError(
                f"{directory}: {count - len(whole)} of {count} blocks of the {role} are missing or "
                "damaged. Run the same command again; it plays what is missing."
            )
        arms[role] = {name: np.concatenate([t[name] for t in whole]) for name in whole[0]}
        _check_columns(directory, role, arms[role])
    return arms


def _check_columns(directory: Path, role: str, calls: Calls) -> None:
    needed = needed_columns(FIELD_METRICS.values())
    missing = sorted((needed | {"network", "network_type", "seed"}) - set(calls))
    if missing:
        raise ArtifactError(
            f"{directory}: the calls of the {role} have no columns {', '.join(missing)}. An arm's "
            f"play() returns all {len(METRICS)} columns of bwe_env.metrics.CALL_COLUMNS."
        )

"""Playing a comparison in blocks of networks, each kept by the digest of all it depends on.

So an interrupted comparison goes on where it stopped, an estimator that is added is the only one to
be played, and nothing that was played under other conditions can be mistaken for the same.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import agents
import baselines
import bwe_env
from agents.artifact import replace_file
from agents.export import MANIFEST_FILE, WEIGHTS_FILE
from bwe_env.network import Network
from bwe_env.sim._jit import CACHE_DIRECTORY
from experiments.ab_blocks import decode_calls, encode_calls
from experiments.compare_results import Estimator
from experiments.contenders import (
    GUARDED_PREFIX,
    ONNX_PREFIX,
    find_contender,
    policy_folder,
)
from experiments.evaluation import Calls, Setting, run
from experiments.executor import Executor
from experiments.networks import networks_digest
from experiments.run_directory import config_to_dict, fingerprint

#: Networks of a block: seconds of work, so that little is lost when interrupted. Ours.
BLOCK_NETWORKS = 32
#: Folder of blocks in the folder of a comparison.
BLOCKS_FOLDER = "blocks"


@dataclass(frozen=True, kw_only=True, repr=False)
class Block:
    """One estimator, or one of its training runs, on some networks: work that pickles."""

    name: str
    """what `find_contender` is asked for, in the worker"""
    key: str
    """digest of everything that its calls depend on"""
    networks: tuple[Network, ...]
    setting: Setting

    def __repr__(self) -> str:
        """Short: errors of workers show it."""
        return f"{len(self.networks)} networks with {self.name!r}"

    @property
    def num_calls(self) -> int:
        """Calls in it."""
        return len(self.networks) * len(self.setting.seeds)


def play_block(block: Block) -> Calls:
    """Play the calls of a block; runs in a worker."""
    contender = find_contender(block.name, block.setting.call)
    return run(contender, block.networks, block.setting)


def blocks_of(name: str, networks: Sequence[Network], setting: Setting) -> list[Block]:
    """All blocks of a baseline or a training run.

    Raises:
        UnknownNameError: nobody of that name.
        ArtifactError: its policy cannot be played.
        ConfigError: it does not fit the calls.
    """
    inputs = call_inputs(name, setting)
    blocks = []
    for first in range(0, len(networks), BLOCK_NETWORKS):
        some = tuple(networks[first : first + BLOCK_NETWORKS])
        key = fingerprint({**inputs, "networks": networks_digest(some)})
        blocks.append(Block(name=name, key=key, networks=some, setting=setting))
    return blocks


def call_inputs(name: str, setting: Setting) -> dict[str, Any]:
    """All that a named estimator's calls depend on beside their networks, as JSON values."""
    contender = find_contender(name, setting.call)
    return {
        "controller": _content(name),
        "gcc": config_to_dict(contender.gcc),
        "observation": config_to_dict(contender.observation),
        "call": config_to_dict(setting.call),
        "reward": config_to_dict(setting.reward),
        "seeds": list(setting.seeds),
        "simulator": CACHE_DIRECTORY.name,
        "controllers": _sources_digest(),
    }


def _content(name: str) -> str:
    """What a name stands for. A policy is known by what is in its files, wherever they lie."""
    if name.startswith(ONNX_PREFIX):
        path = Path(name.removeprefix(ONNX_PREFIX))
        return ONNX_PREFIX + _digest(path.parent, [path])
    folder = policy_folder(name)
    if folder is None:
        return name
    prefix = GUARDED_PREFIX if name.startswith(GUARDED_PREFIX) else ""
    files = [folder / file for file in (WEIGHTS_FILE, MANIFEST_FILE)]
    return prefix + _digest(folder, files)


@functools.cache
def _sources_digest() -> str:
    """SHA-256 of all code that calls go through, beside what `CACHE_DIRECTORY` is named after."""
    digests = []
    for package in (bwe_env, baselines, agents):
        folder = Path(str(package.__file__)).parent
        digests.append(_digest(folder, sorted(folder.rglob("*.py"))))
    return fingerprint({"packages": digests})


def _digest(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        name = file.relative_to(folder) if file != folder else Path()
        digest.update(f"{name.as_posix()}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


# --- Playing --------------------------------------------------------------------------------------


def play(
    estimators: Sequence[Estimator],
    networks: Sequence[Network],
    setting: Setting,
    *,
    directory: Path,
    executor: Executor,
    quiet: bool = False,
) -> dict[str, list[Calls]]:
    """Calls of every estimator, by label: one table for each of its training runs.

    Blocks that are in `directory` already are not played again; damaged ones are.

    Returns:
        Tables with the same networks and seeds in the same order.
    """
    names = dict.fromkeys(name for estimator in estimators for name in estimator.runs)
    blocks = {name: blocks_of(name, networks, setting) for name in names}
    folder = directory / BLOCKS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    # All estimators on the first networks, then on the next: none has to wait for another's end.
    ordered = [block for same in zip(*blocks.values(), strict=True) for block in same]
    tables = _kept(folder, ordered)
    _play_missing(folder, ordered, tables, executor, quiet)
    played = {name: _joined([tables[block.key] for block in blocks[name]]) for name in names}
    return {estimator.label: [played[name] for name in estimator.runs] for estimator in estimators}


def _kept(folder: Path, blocks: Sequence[Block]) -> dict[str, dict[str, NDArray[Any]]]:
    """Tables of the blocks that were played before, by their keys."""
    tables = {}
    for block in blocks:
        path = _file(folder, block)
        table = decode_calls(path.read_bytes()) if path.is_file() else None
        if table is not None and len(table["network"]) == block.num_calls:
            tables[block.key] = table
    return tables


def _play_missing(
    folder: Path,
    blocks: Sequence[Block],
    tables: dict[str, dict[str, NDArray[Any]]],
    executor: Executor,
    quiet: bool,
) -> None:
    from tqdm import tqdm

    # By key: two names of the same policy are played once.
    missing = list({block.key: block for block in blocks if block.key not in tables}.values())
    total = sum(block.num_calls for block in blocks)
    waiting = sum(block.num_calls for block in missing)
    with tqdm(
        total=total, initial=total - waiting, unit=" calls", desc="playing", disable=quiet
    ) as bar:
        for position, calls in executor.map(play_block, missing):
            block = missing[position]
            replace_file(_file(folder, block), encode_calls(calls))
            tables[block.key] = dict(calls)
            bar.update(block.num_calls)


def _file(folder: Path, block: Block) -> Path:
    return folder / f"{block.key}.npz"


def _joined(tables: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}

"""Collect calls with ground truth: ``python -m experiments.collect``.

Simulated calls under GCC, on networks with all kinds of loss and congestion and with different
senders, or logs of real calls (``--logs``), become a dataset (`experiments.dataset`) that network
models are trained on and scored with. The folder's name holds a hash of everything that the
content depends on, so that a change of the simulator makes another dataset, and an interrupted
collection goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bwe_env.errors import ArtifactError, BweEnvError, ConfigError
from bwe_env.labels import burst_label, network_class
from bwe_env.logs import CallLog, read_call_log
from bwe_env.network import Network
from bwe_env.rollout import RecordedCall, record_calls
from bwe_env.sim._jit import CACHE_DIRECTORY
from experiments.cli import run_command
from experiments.collected_networks import SENDERS, Sender, collected_networks, sender_of
from experiments.dataset import (
    SCHEMA_VERSION,
    TRUTH_NAMES,
    DatasetCall,
    DatasetWriter,
    encode_shard,
    read_manifest,
    shards_of,
)
from experiments.networks import networks_digest
from experiments.run_directory import fingerprint

#: Where datasets are kept unless told otherwise.
DATASETS = Path("runs/datasets")
#: Calls of a shard: a few seconds of work are lost at most when a collection is interrupted. Ours.
SHARD_CALLS = 200
#: What may stand behind a log's name.
LOG_SUFFIXES = (".json", ".gz", ".rtceventlog", ".log", ".txt")


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Collect calls with ground truth, for network models."""

    train: int = 2400
    """networks to train on, one call of 60 s each"""
    validation: int = 300
    """networks to stop and calibrate on"""
    test: int = 500
    """networks to score on"""
    logs: tuple[Path, ...] = ()
    """read these logs of real calls (files, or folders of them) instead of simulating"""
    out: Path | None = None
    """folder of the dataset; by default runs/datasets/calls-HASH, which is found again"""
    threads: int = 0
    """threads of the simulation, 0 for one per processor; the content does not depend on it"""

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1 network.")
        if self.threads < 0:
            raise ConfigError("--threads must not be negative.")

    @property
    def counts(self) -> dict[str, int]:
        """Networks of each split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def _truth(call: RecordedCall) -> dict[str, Any]:
    steps = call.steps
    columns = (
        steps["capacity_bps"],
        steps["queue_delay_ms"],
        steps["reported_random_packets"],
        steps["reported_congestion_packets"],
    )
    return dict(zip(TRUTH_NAMES, columns, strict=True))


def loss_process(network: Network) -> str:
    """How a network loses packets by chance on the way of the media."""
    is_bursty = burst_label(network.forward.loss)
    return {None: "none", True: "bursty", False: "independent"}[is_bursty]


def simulated_call(call: RecordedCall, sender: str) -> DatasetCall:
    """A recorded call as the dataset holds it."""
    network = call.network
    mean_bps = float(call.steps["capacity_bps"].mean()) if len(call.steps) else 0.0
    return DatasetCall(
        network=network.name,
        network_type=network.network_type,
        network_class=network_class(network.network_type, mean_bps),
        source="simulation",
        sender=sender,
        loss_process=loss_process(network),
        seed=call.seed,
        telemetry=call.telemetry,
        truth=_truth(call),
    )


def by_sender(networks: Sequence[Network]) -> Iterator[tuple[Sender, list[Network]]]:
    """The networks of each sender: calls of one set-up can run in one batch."""
    for sender in SENDERS:
        chosen = [network for network in networks if sender_of(network.name) == sender]
        if chosen:
            yield sender, chosen


def _simulate(networks: Sequence[Network], threads: int) -> Iterator[DatasetCall]:
    """One call per network, those of one sender together."""
    for sender, chosen in by_sender(networks):
        for call in record_calls(chosen, "gcc", call=sender.call, num_threads=threads):
            yield simulated_call(call, sender.name)


def logged_call(log: CallLog) -> DatasetCall:
    """A log of a real call as the dataset holds it; what it cannot tell is NaN."""
    unknown = np.full(len(log.telemetry), np.nan)
    columns = (
        log.capacity_bps,
        log.queue_delay_ms,
        log.reported_random_packets,
        log.reported_congestion_packets,
    )
    return DatasetCall(
        network=log.name,
        source=log.source,
        telemetry=log.telemetry,
        interval_s=log.interval_s,
        truth={
            name: unknown if column is None else np.asarray(column, dtype=np.float64)
            for name, column in zip(TRUTH_NAMES, columns, strict=True)
        },
    )


def dataset_key(counts: dict[str, int]) -> tuple[str, dict[str, Any]]:
    """Hash of all that simulated calls depend on, and its parts for the manifest."""
    recipe = {
        "counts": counts,
        "networks": {
            split: networks_digest(collected_networks(split, count))
            for split, count in counts.items()
        },
        "schema_version": SCHEMA_VERSION,
        "senders": [(sender.name, repr(sender.call)) for sender in SENDERS],
        "shard_calls": SHARD_CALLS,
        "simulator": CACHE_DIRECTORY.name,
    }
    return fingerprint(recipe), recipe


def collect_simulated(config: CollectConfig, *, quiet: bool = False) -> Path:
    """Simulate what of the dataset is not there yet; returns its folder."""
    from tqdm import tqdm

    key, recipe = dataset_key(config.counts)
    directory = config.out or DATASETS / f"calls-{key[:12]}"
    writer = DatasetWriter(directory, key=key, recipe=recipe)
    threads = config.threads or os.cpu_count() or 1
    total = sum(config.counts.values())
    with tqdm(total=total, unit=" calls", desc="collecting", disable=quiet) as progress:
        for split, count in config.counts.items():
            networks = collected_networks(split, count)
            for number, first in enumerate(range(0, count, SHARD_CALLS)):
                part = networks[first : first + SHARD_CALLS]
                file = f"{split}-{number:03d}.npz"
                if not writer.has(file):
                    calls = sorted(_simulate(part, threads), key=lambda call: call.network)
                    writer.write(file, split, calls)
                progress.update(len(part))
    return directory


def log_files(paths: Sequence[Path]) -> list[Path]:
    """The files among these paths and in these folders.

    Raises:
        ConfigError: a path that does not exist, or no file at all.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in LOG_SUFFIXES)
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise ConfigError(f"--logs {path}: there is no such file or folder.")
    if not files:
        raise ConfigError(
            f"--logs {', '.join(map(str, paths))}: no files ending in {', '.join(LOG_SUFFIXES)}."
        )
    return files


def collect_logs(config: CollectConfig) -> tuple[Path, int]:
    """Read logs into a dataset; returns its folder and how many could not be read."""
    calls, refused = [], 0
    for path in log_files(config.logs):
        try:
            log = read_call_log(path)
        except BweEnvError as error:
            print(f"left out: {error}", file=sys.stderr)
            refused += 1
            continue
        for warning in log.warnings:
            print(f"warning: {path.name}: {warning}", file=sys.stderr)
        calls.append(logged_call(log))
        print(f"{path.name}: {log.source}, {len(log.telemetry)} bins of {log.interval_s:g} s")
    if not calls:
        raise ArtifactError("none of the logs could be read; see the messages above.")
    content = hashlib.sha256(encode_shard(calls)).hexdigest()
    recipe = {"content": content, "logs": [f"{call.network} {call.source}" for call in calls]}
    key = fingerprint({**recipe, "schema_version": SCHEMA_VERSION})
    directory = config.out or DATASETS / f"logs-{key[:12]}"
    writer = DatasetWriter(directory, key=key, recipe=recipe)
    writer.write("logs-000.npz", "logs", calls)
    return directory, refused


def collect(config: CollectConfig) -> int:
    """Run the command; returns its exit code."""
    started = time.perf_counter()
    refused = 0
    if config.logs:
        directory, refused = collect_logs(config)
    else:
        directory = collect_simulated(config)
    shards = shards_of(read_manifest(directory))
    size = sum((directory / shard.file).stat().st_size for shard in shards)
    calls, bins = sum(s.calls for s in shards), sum(s.bins for s in shards)
    print(
        f"{directory}: {calls} calls, {bins} bins, {size / 1e6:.1f} MB, "
        f"in {time.perf_counter() - started:.0f} s"
    )
    return 2 if refused else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.collect``."""
    return run_command(collect, CollectConfig, module="experiments.collect", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

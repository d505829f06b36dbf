"""A dataset of calls: columns of 0.1 s bins with ground truth, in shards, split by network.

::

    DIRECTORY/
        manifest.json     format, schema, key of its inputs, columns, shards with their SHA-256
        train-000.npz     columns of the calls of one shard, one after the other
        …

A shard's arrays are ``bins/NAME`` (shape (bins,)), ``calls/NAME`` (shape (calls,)) and
``calls/bins`` (how many of the bins belong to each call). No array holds objects: reading a shard
executes nothing. The dataset of simulated calls has the splits of its networks, so that no network
stands in two of them; logs of real calls have the split "logs".
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.artifact import read_artifact_manifest, replace_file
from bwe_env.errors import ArtifactError
from bwe_env.telemetry import TELEMETRY, TELEMETRY_COLUMNS, TELEMETRY_NAMES
from experiments.run_directory import write_json

FORMAT = "bwe-env calls"
#: Version of the columns below. A reader refuses any other.
SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"

#: Ground truth of a bin: (name, unit, what it is). NaN where a log of a real call cannot tell.
TRUTH_COLUMNS = (
    ("capacity_bps", "bps", "mean capacity of the bottleneck"),
    ("queue_delay_true_ms", "ms", "in the bottleneck, mean of packets that left; else of its head"),
    ("reported_random_packets", "1", "first reported missing in the bin, and lost by chance"),
    ("reported_congestion_packets", "1", "the same, and lost to a queue, AQM or policer"),
)
TRUTH_NAMES = tuple(name for name, _, _ in TRUTH_COLUMNS)

#: What a call is; text is empty where nobody knows.
CALL_COLUMNS = {
    "network": "name of the network, or of the log",
    "network_type": "type of its trace",
    "network_class": "one of bwe_env.labels.NETWORK_CLASSES",
    "source": "simulation, or the kind of log",
    "sender": "name of the sender's configuration",
    "loss_process": '"bursty", "independent", or "none"; empty if not known',
    "seed": "of the simulated call",
    "interval_s": "length of a bin",
}
#: What reading an npz file raises where it is damaged.
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class DatasetCall:
    """One call as the dataset holds it."""

    network: str
    source: str
    telemetry: NDArray[Any]
    """dtype `bwe_env.telemetry.TELEMETRY`, shape (bins,)"""
    truth: dict[str, NDArray[np.float64]]
    """each of `TRUTH_NAMES`, shape (bins,); NaN where it is not known"""
    network_type: str = ""
    network_class: str = ""
    sender: str = ""
    loss_process: str = ""
    seed: int = 0
    interval_s: float = 0.1

    @property
    def has_causes(self) -> bool:
        """Whether the cause of its losses is known."""
        return not np.isnan(self.truth["reported_random_packets"]).all()


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of a dataset, as the manifest lists it."""

    file: str
    split: str
    sha256: str
    calls: int
    bins: int


def encode_shard(calls: Sequence[DatasetCall]) -> bytes:
    """The calls as one compressed npz file; the same bytes for the same calls."""
    arrays: dict[str, NDArray[Any]] = {
        "calls/bins": np.array([len(call.telemetry) for call in calls], dtype=np.int64)
    }
    for name in CALL_COLUMNS:
        arrays[f"calls/{name}"] = np.array([getattr(call, name) for call in calls])
    for name in TELEMETRY_NAMES:
        column = np.concatenate([call.telemetry[name] for call in calls])
        arrays[f"bins/{name}"] = column.astype(np.float32)
    for name in TRUTH_NAMES:
        column = np.concatenate([call.truth[name] for call in calls])
        arrays[f"bins/{name}"] = column.astype(np.float32)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def decode_shard(content: bytes, path: Path) -> list[DatasetCall]:
    """The calls of a shard.

    Raises:
        ArtifactError: columns are missing or do not fit each other.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        ends = np.cumsum(arrays["calls/bins"])
        starts = ends - arrays["calls/bins"]
        _check_lengths(arrays, calls=len(ends), bins=int(ends[-1]) if len(ends) else 0)
        return [
            _call(arrays, index, slice(starts[index], ends[index])) for index in range(len(ends))
        ]
    except (*_UNREADABLE, KeyError, ValueError, IndexError) as error:
        raise ArtifactError(
            f"{path} is no shard of schema {SCHEMA_VERSION} ({type(error).__name__}: {error}). "
            "Delete it; python -m experiments.collect makes it anew."
        ) from error


def _check_lengths(arrays: dict[str, NDArray[Any]], *, calls: int, bins: int) -> None:
    for name in (*TELEMETRY_NAMES, *TRUTH_NAMES):
        if arrays[f"bins/{name}"].shape != (bins,):
            raise ValueError(f"bins/{name} is not one number for each of {bins} bins")
    for name in CALL_COLUMNS:
        if arrays[f"calls/{name}"].shape != (calls,):
            raise ValueError(f"calls/{name} is not one entry for each of {calls} calls")


def _call(arrays: dict[str, NDArray[Any]], index: int, rows: slice) -> DatasetCall:
    telemetry = np.zeros(rows.stop - rows.start, dtype=TELEMETRY)
    for name in TELEMETRY_NAMES:
        telemetry[name] = arrays[f"bins/{name}"][rows]
    described = {name: arrays[f"calls/{name}"][index].item() for name in CALL_COLUMNS}
    return DatasetCall(
        telemetry=telemetry,
        truth={name: arrays[f"bins/{name}"][rows].astype(np.float64) for name in TRUTH_NAMES},
        **described,
    )


class DatasetWriter:
    """Writes shards into a directory; what is there already, whole and of the same key, stays.

    Args:
        key: of everything that the content depends on.
        recipe: for readers: what it was made of. How many calls each split is to have stands under
            ``counts``; without it one is enough.
    """

    def __init__(self, directory: Path, *, key: str, recipe: dict[str, Any]) -> None:
        self.directory = directory
        self._key = key
        self._recipe = recipe
        self._shards: dict[str, Shard] = {}
        if (directory / MANIFEST_FILE).exists():
            manifest = read_manifest(directory)
            if manifest["key"] != key:
                raise ArtifactError(
                    f"{directory} holds a dataset of other inputs (key {manifest['key'][:12]}, now "
                    f"{key[:12]}). Give another --out, or delete the folder."
                )
            self._shards = {s.file: s for s in shards_of(manifest) if _is_whole(directory, s)}

    def has(self, file: str) -> bool:
        """Whether this shard needs no more work."""
        return file in self._shards

    def write(self, file: str, split: str, calls: Sequence[DatasetCall]) -> None:
        """Write one shard, then the manifest that knows it."""
        content = encode_shard(calls)
        self.directory.mkdir(parents=True, exist_ok=True)
        replace_file(self.directory / file, content)
        self._shards[file] = Shard(
            file=file,
            split=split,
            sha256=hashlib.sha256(content).hexdigest(),
            calls=len(calls),
            bins=sum(len(call.telemetry) for call in calls),
        )
        columns = [{"name": c.name, "unit": c.unit, "doc": c.doc} for c in TELEMETRY_COLUMNS]
        columns += [{"name": name, "unit": unit, "doc": doc} for name, unit, doc in TRUTH_COLUMNS]
        write_json(
            self.directory / MANIFEST_FILE,
            {
                "bins": columns,
                "calls": CALL_COLUMNS,
                "format": FORMAT,
                "key": self._key,
                "recipe": self._recipe,
                "schema_version": SCHEMA_VERSION,
                "shards": [vars(self._shards[name]) for name in sorted(self._shards)],
            },
        )


def _is_whole(directory: Path, shard: Shard) -> bool:
    path = directory / shard.file
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256


def read_manifest(directory: Path) -> dict[str, Any]:
    """The checked manifest of a dataset.

    Raises:
        ArtifactError: missing, damaged, or of another schema.
    """
    path = directory / MANIFEST_FILE
    manifest = read_artifact_manifest(
        path,
        what="dataset",
        format_name=FORMAT,
        remedy="python -m experiments.collect makes one.",
    )
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} is of format version {manifest.get('schema_version')!r}, this project reads "
            f"version {SCHEMA_VERSION}. Collect anew with python -m experiments.collect."
        )
    return manifest


def shards_of(manifest: dict[str, Any]) -> list[Shard]:
    """The shards that a manifest lists."""
    return [Shard(**entry) for entry in manifest["shards"]]


def read_calls(directory: str | Path, splits: Iterable[str]) -> list[DatasetCall]:
    """All calls of some splits, in the order of their shards.

    Raises:
        ArtifactError: no dataset, a shard that is missing or damaged, or a split without all of its
            calls.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    wanted = sorted(set(splits))
    shards = [s for s in shards_of(manifest) if s.split in wanted]
    for split in wanted:
        found = sum(shard.calls for shard in shards if shard.split == split)
        planned = manifest["recipe"].get("counts", {}).get(split, 1)
        if found < planned:
            raise ArtifactError(
                f"{folder} has {found} calls of split {split} instead of {planned} or more; "
                "collecting it was interrupted, or it holds logs. Run python -m "
                "experiments.collect again with the same options."
            )
    calls = []
    for shard in shards:
        path = folder / shard.file
        if not _is_whole(folder, shard):
            raise ArtifactError(
                f"{path} is missing or differs from its SHA-256 in the manifest. Run "
                "python -m experiments.collect again: it makes only what is not whole."
            )
        calls += decode_shard(path.read_bytes(), path)
    return calls

"""What storing and sending costs: a model that is sent again after a part of it changed."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.network_features import NUM_DENSE, NUM_SERIES
from experiments.artifact_store import Store
from experiments.tables import make_table, show
from experiments.transfer import TransferReport, transfer

Tensors = dict[str, NDArray[np.float32]]

#: Widths of the network model that is sent: with two heads, 185 kB. Ours.
SERIES_UNITS, DENSE_UNITS, SHARED_UNITS = 64, 90, 128
TASKS = ("random_loss", "congestion")


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Print what sending a model costs, for the first time and after parts of it changed."""

    dataset_bytes: int = 60_000_000
    """of the dataset that is stored and sent, too; 0 leaves it out"""
    seed: int = 0
    """of the numbers in both"""

    def __post_init__(self) -> None:
        if self.dataset_bytes < 0:
            raise ConfigError("--dataset-bytes must not be negative.")


def model_shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of `agents.network_model.NetworkModel` of these widths, known without torch."""
    gates = 4 * SERIES_UNITS  # of an LSTM: input, forget, cell, output
    shapes: dict[str, tuple[int, ...]] = {
        "scale": (len(TASKS),),
        "offset": (len(TASKS),),
        "lstm.weight_ih_l0": (gates, NUM_SERIES),
        "lstm.weight_hh_l0": (gates, SERIES_UNITS),
        "lstm.bias_ih_l0": (gates,),
        "lstm.bias_hh_l0": (gates,),
        "dense.0.weight": (DENSE_UNITS, NUM_DENSE),
        "dense.0.bias": (DENSE_UNITS,),
        "shared.0.weight": (SHARED_UNITS, SERIES_UNITS + DENSE_UNITS),
        "shared.0.bias": (SHARED_UNITS,),
    }
    for task in TASKS:
        shapes[f"heads.{task}.weight"] = (1, SHARED_UNITS)
        shapes[f"heads.{task}.bias"] = (1,)
    return shapes


def example_model(seed: int) -> Tensors:
    """A model of random numbers."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(size=shape).astype(np.float32) for name, shape in model_shapes().items()
    }


def changed(tensors: Tensors, names: str, seed: int) -> Tensors:
    """The model after training of those tensors alone whose name begins so."""
    fresh = example_model(seed)
    return {
        name: fresh[name] if name.startswith(names) else value for name, value in tensors.items()
    }


def write_model(folder: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """A folder with the model as a safetensors file."""
    from safetensors.numpy import save

    folder.mkdir(parents=True)
    (folder / "network_model.safetensors").write_bytes(save(dict(tensors)))


def push_model(source: Store, target: Store, folder: Path) -> tuple[TransferReport, float]:
    """Add and send a model; the report, and the seconds that adding took."""
    started_s = time.perf_counter()
    digest = source.add(folder, kind="model", architecture="network_model")
    add_s = time.perf_counter() - started_s
    return transfer(source, target, digest), add_s


def _model_rows(root: Path, seed: int) -> list[list[str]]:
    source, target = Store(root / "source"), Store(root / "target")
    model = example_model(seed)
    versions: dict[str, Tensors] = {
        "a model, first time": model,
        "the same again": model,
        "one head changed": changed(model, "heads.congestion.", seed + 1),
        "two tensors of the LSTM changed": changed(model, "lstm.weight", seed + 2),
        "the shared layer changed": changed(model, "shared.", seed + 3),
        "all tensors changed": example_model(seed + 4),
    }
    rows = []
    for number, (name, tensors) in enumerate(versions.items()):
        folder = root / f"model-{number}"
        write_model(folder, tensors)
        rows.append(_row(name, *push_model(source, target, folder)))
    return rows


def _dataset_rows(root: Path, size_bytes: int, seed: int) -> list[list[str]]:
    source, target = Store(root / "source"), Store(root / "target")
    content = np.random.default_rng(seed).bytes(size_bytes)
    middle = size_bytes // 2
    versions = {
        "a dataset, first time": content,
        "100 bytes put into its middle": content[:middle] + bytes(100) + content[middle:],
    }
    rows = []
    for number, (name, data) in enumerate(versions.items()):
        folder = root / f"dataset-{number}"
        folder.mkdir()
        (folder / "train-000.npz").write_bytes(data)
        started_s = time.perf_counter()
        digest = source.add(folder, kind="dataset", architecture="calls")
        add_s = time.perf_counter() - started_s
        rows.append(_row(name, transfer(source, target, digest), add_s))
    return rows


def _row(name: str, report: TransferReport, add_s: float) -> list[str]:
    return [
        name,
        f"{report.bytes_total:,}",
        f"{report.bytes_sent:,}",
        f"{report.sent_ratio:.1%}",
        str(report.blobs_sent),
        f"{add_s:.3f}",
        f"{report.seconds:.3f}",
    ]


def measure(config: MeasureConfig) -> int:
    """Run the command; returns its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        rows = _model_rows(Path(folder) / "models", config.seed)
        if config.dataset_bytes:
            rows += _dataset_rows(Path(folder) / "datasets", config.dataset_bytes, config.seed)
    header = ["sent", "bytes in all", "bytes sent", "share", "blobs sent", "add, s", "send, s"]
    caption = (
        "between two folders of one disk; bytes are those of blobs and manifest. Options: "
        f"{dataclasses.asdict(config)}"
    )
    show(make_table("what a transfer sends", header, rows, caption=caption))
    return 0

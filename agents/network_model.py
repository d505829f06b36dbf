"""The network model: LSTM over the time series, a dense layer over derived features, task heads.

::

    series (bins x features) --> LSTM --> 16-vector --+
                                                      +--> fully connected --> one head per task
    window features ------------> dense layer --------+

The architecture is that of Meta's network characterisation (March 2024); the sizes beside the
16-vector are ours. One model answers one task, or several with one shared representation. Artifacts
are safetensors with a manifest (`agents.artifact`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from agents.artifact import read_artifact_manifest, read_artifact_weights, write_artifact
from agents.network_tasks import NetworkTask, task_of, window_of
from agents.onnx_export import write_onnx
from bwe_env.config import from_mapping
from bwe_env.errors import ArtifactError, BweEnvError, ConfigError
from bwe_env.network_features import (
    DENSE_NAMES,
    FEATURES_VERSION,
    NUM_DENSE,
    NUM_SERIES,
    SERIES_NAMES,
)

FORMAT = "bwe-env network model 1"
WEIGHTS_FILE = "network_model.safetensors"
MANIFEST_FILE = "network_model.json"

Inputs = Literal["both", "series", "dense"]


@dataclass(frozen=True, kw_only=True)
class NetworkModelConfig:
    """What a network model consists of."""

    tasks: tuple[str, ...]
    """one, or several that share a representation"""
    inputs: Inputs = "both"
    """"series" leaves the dense layer out, "dense" the LSTM"""
    series_units: int = 16
    """the LSTM's state, and so the vector that stands for the time series"""
    dense_units: int = 64
    shared_units: int = 64
    """of the fully connected layer in front of the heads"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))  # a list in a manifest
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ConfigError(f"tasks={self.tasks!r} must be one task or several different ones.")
        for name in self.tasks:
            task_of(name)
        if self.inputs not in ("both", "series", "dense"):
            raise ConfigError(f"inputs={self.inputs!r} must be 'both', 'series' or 'dense'.")
        for name in ("series_units", "dense_units", "shared_units"):
            value = getattr(self, name)
            if not (isinstance(value, int) and 1 <= value <= 1024):
                raise ConfigError(f"{name}={value!r} must be a whole number, 1..1024.")

    @property
    def window_bins(self) -> int:
        """Bins of the time series, and of the window of the dense features."""
        return window_of(self.tasks)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each probability of the model is."""
        return tuple(name for task in self.tasks for name in task_of(task).outputs)


class NetworkModel(nn.Module):
    """LSTM and dense layer with one head per task; calibrated by a scale and an offset per task."""

    def __init__(self, config: NetworkModelConfig) -> None:
        super().__init__()
        self.config = config
        width = 0
        if config.inputs != "dense":
            self.lstm = nn.LSTM(NUM_SERIES, config.series_units, batch_first=True)
            width += config.series_units
        if config.inputs != "series":
            self.dense = nn.Sequential(nn.Linear(NUM_DENSE, config.dense_units), nn.ReLU())
            width += config.dense_units
        self.shared = nn.Sequential(nn.Linear(width, config.shared_units), nn.ReLU())
        heads = {
            name: nn.Linear(config.shared_units, len(task_of(name).outputs))
            for name in config.tasks
        }
        self.heads = nn.ModuleDict(heads)
        self.register_buffer("scale", torch.ones(len(config.tasks)))
        self.register_buffer("offset", torch.zeros(len(config.tasks)))

    @property
    def tasks(self) -> list[NetworkTask]:
        """In the order of the outputs."""
        return [task_of(name) for name in self.config.tasks]

    def representation(self, series: Tensor, dense: Tensor) -> Tensor:
        """What all heads read, shape (batch, shared_units)."""
        parts = []
        if self.config.inputs != "dense":
            _, (hidden, _) = self.lstm(series)
            parts.append(hidden[-1])
        if self.config.inputs != "series":
            parts.append(self.dense(dense))
        return self.shared(torch.cat(parts, dim=-1))

    def logits(self, series: Tensor, dense: Tensor) -> dict[str, Tensor]:
        """Uncalibrated, by task.

        Args:
            series: shape (batch, window_bins, NUM_SERIES).
            dense: shape (batch, NUM_DENSE).

        Returns:
            Shape (batch, number of the task's outputs) for each.
        """
        shared = self.representation(series, dense)
        return {name: head(shared) for name, head in self.heads.items()}

    def forward(self, series: Tensor, dense: Tensor) -> Tensor:
        """Calibrated probabilities, shape (batch, len(config.outputs))."""
        logits = self.logits(series, dense)
        parts = []
        for index, task in enumerate(self.tasks):
            calibrated = logits[task.name] * self.scale[index] + self.offset[index]
            if task.is_binary:
                parts.append(torch.sigmoid(calibrated))
            else:
                parts.append(torch.softmax(calibrated, dim=-1))
        return torch.cat(parts, dim=-1)

    @property
    def num_parameters(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())


def save_network_model(
    directory: str | Path, model: NetworkModel, *, extra: Mapping[str, Any] | None = None
) -> None:
    """Write a model into `directory`, replacing an earlier one there.

    Args:
        extra: more JSON values for the manifest (data, seed, scores).
    """
    from safetensors.torch import save

    folder = Path(directory)
    weights = save({name: value.contiguous() for name, value in model.state_dict().items()})
    manifest = {
        "config": dataclasses.asdict(model.config),
        "dense_features": list(DENSE_NAMES),
        "extra": dict(extra or {}),
        "features_version": FEATURES_VERSION,
        "format": FORMAT,
        "outputs": list(model.config.outputs),
        "series_features": list(SERIES_NAMES),
    }
    write_artifact(folder / WEIGHTS_FILE, folder / MANIFEST_FILE, weights, manifest)


def read_network_manifest(directory: str | Path) -> dict[str, Any]:
    """The checked manifest of a network model.

    Raises:
        ArtifactError: missing, damaged, of another format, or of other features.
    """
    path = Path(directory) / MANIFEST_FILE
    manifest = read_artifact_manifest(
        path,
        what="network model",
        format_name=FORMAT,
        remedy="python -m experiments.fit writes one.",
    )
    if manifest.get("features_version") != FEATURES_VERSION:
        raise ArtifactError(
            f"{path} belongs to version {manifest.get('features_version')!r} of the features, this "
            f"project computes version {FEATURES_VERSION}: its inputs would mean something else. "
            "Train anew with python -m experiments.fit."
        )
    return manifest


def load_network_model(directory: str | Path) -> NetworkModel:
    """The model that `save_network_model` wrote, ready for inference.

    Raises:
        ArtifactError: missing, damaged, of other features, or weights that do not match their
            digest or the architecture.
    """
    from safetensors.torch import load

    folder = Path(directory)
    manifest = read_network_manifest(folder)
    content = read_artifact_weights(folder / WEIGHTS_FILE, manifest)
    try:
        model = NetworkModel(from_mapping(NetworkModelConfig, manifest["config"]))
        model.load_state_dict(load(content))
    except (KeyError, TypeError, RuntimeError, BweEnvError) as error:
        raise ArtifactError(f"{folder}: weights and manifest do not fit: {error}.") from error
    return model.eval()


def export_onnx(model: NetworkModel, path: str | Path) -> None:
    """Write the calibrated model as ONNX: inputs ``series`` and ``dense``, output ``probability``.

    Raises:
        ConfigError: the packages for it are not installed.
    """
    write_onnx(
        model,
        path,
        inputs={
            "series": torch.zeros(2, model.config.window_bins, NUM_SERIES),
            "dense": torch.zeros(2, NUM_DENSE),
        },
        outputs=["probability"],
        any_batch=True,
    )

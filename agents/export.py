"""Policies as data: weights in safetensors, everything else in a JSON manifest.

Stable-Baselines3 archives and pickled modules run code when they are loaded. An exported policy
cannot: the network is rebuilt from an allow-list of architectures and the weights are plain arrays,
checked against their SHA-256.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.artifact import read_artifact_manifest, read_artifact_weights, write_artifact
from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError

FORMAT = "bwe-env policy 2"
#: What a policy's network may be; each names a key of the manifest that holds its shape.
ARCHITECTURES = ("mlp", "lstm")
WEIGHTS_FILE = "policy.safetensors"
MANIFEST_FILE = "policy.json"


def save_policy(
    directory: str | Path, policy: Any, *, environment: str, extra: Mapping[str, Any] | None = None
) -> None:
    """Write a `PolicyEstimator` into `directory`, replacing an earlier one there.

    Args:
        policy: the `PolicyEstimator`, of any architecture.
        environment: id and version of the environment it was trained in.
        extra: more JSON values to keep in the manifest (how it was trained and selected).
    """
    from safetensors.torch import save

    folder = Path(directory)
    weights = save({key: value.contiguous() for key, value in policy.network.state_dict().items()})
    manifest = {
        policy.architecture.kind: dataclasses.asdict(policy.architecture),
        "architecture": policy.architecture.kind,
        "environment": environment,
        "extra": dict(extra or {}),
        "format": FORMAT,
        "setting": policy.setting.to_json(),
    }
    if policy.statistics is not None:
        manifest["statistics"] = policy.statistics.to_json()
    write_artifact(folder / WEIGHTS_FILE, folder / MANIFEST_FILE, weights, manifest)


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """The checked manifest of an exported policy.

    Raises:
        ArtifactError: missing, damaged, or of another format.
    """
    path = Path(directory) / MANIFEST_FILE
    manifest = read_artifact_manifest(
        path,
        what="policy",
        format_name=FORMAT,
        remedy="A run writes a policy at its first evaluation; let it run longer, or resume it.",
    )
    if manifest.get("architecture") not in ARCHITECTURES:
        raise ArtifactError(
            f"{path} wants architecture {manifest.get('architecture')!r}; allowed: "
            f"{', '.join(ARCHITECTURES)}."
        )
    return manifest


def load_policy(directory: str | Path, *, environment: str) -> Any:
    """The `PolicyEstimator` that `save_policy` wrote.

    Raises:
        ArtifactError: missing, damaged, of another environment version, or weights that do not
            match their digest or the architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from agents.observation_statistics import ObservationStatistics
    from agents.policy_estimator import MlpArchitecture, PolicyEstimator
    from agents.policy_setting import PolicySetting
    from agents.recurrent_policy import LstmArchitecture, RecurrentPolicyEstimator

    folder = Path(directory)
    manifest = read_manifest(folder)
    if manifest.get("environment") != environment:
        raise ArtifactError(
            f"the policy in {folder} was trained in {manifest.get('environment')!r}, this is "
            f"{environment!r}: it has learnt other dynamics. Train anew, or use the version of the "
            "project it was made with."
        )
    content = read_artifact_weights(folder / WEIGHTS_FILE, manifest)
    kinds: dict[str, tuple[type[Any], type[PolicyEstimator]]] = {
        "mlp": (MlpArchitecture, PolicyEstimator),
        "lstm": (LstmArchitecture, RecurrentPolicyEstimator),
    }
    shape, estimator = kinds[manifest["architecture"]]
    try:
        architecture = shape(**manifest[shape.kind])
        network = architecture.build()
        network.load_state_dict(load(content))
        setting = PolicySetting.from_json(manifest["setting"])
        statistics = None
        if "statistics" in manifest:
            statistics = ObservationStatistics.from_json(manifest["statistics"])
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        SafetensorError,
        ConfigError,
        UnknownNameError,
    ) as error:
        raise ArtifactError(f"{folder}: weights and manifest do not fit: {error}.") from error
    return estimator(network, architecture, setting=setting, statistics=statistics)


def export_policy_onnx(policy: Any, path: str | Path) -> None:
    """Write a `PolicyEstimator` as ONNX, for one call at a time.

    Inputs: ``obs``, shape (1, observation length), float32, as the environment gives it; of a
    policy with memory also ``hidden`` and ``cell``, shape (1, lstm_size), zeros where a call
    begins. Outputs: ``action``, shape (1, action length), in [-1, 1]; of a policy with memory also
    ``hidden_out`` and ``cell_out``, to be given back with the next observation.

    ``metadata_props`` hold what it takes to use the numbers, as JSON: ``setting`` (the
    `PolicySetting`), ``features`` (names of one interval's features, in order) and
    ``architecture``.

    Raises:
        ConfigError: the packages for it are not installed.
    """
    import torch

    from agents.onnx_export import write_onnx
    from bwe_env.observation import FEATURE_NAMES

    class Clipped(torch.nn.Module):
        """The network as `PolicyEstimator.act` uses it."""

        def __init__(self) -> None:
            super().__init__()
            self.network = policy.network

        def forward(self, *arguments: torch.Tensor) -> Any:
            """Action first, then the state if there is one."""
            answer = self.network(*arguments)
            if isinstance(answer, tuple):
                return answer[0].clamp(-1.0, 1.0), *answer[1:]
            return answer.clamp(-1.0, 1.0)

    inputs = {"obs": torch.zeros(1, policy.architecture.inputs)}
    outputs = ["action"]
    if policy.architecture.kind == "lstm":
        inputs |= {
            name: torch.zeros(1, policy.architecture.lstm_size) for name in ("hidden", "cell")
        }
        outputs += ["hidden_out", "cell_out"]
    metadata = {
        "architecture": {policy.architecture.kind: dataclasses.asdict(policy.architecture)},
        "features": list(FEATURE_NAMES),
        "setting": policy.setting.to_json(),
    }
    write_onnx(
        Clipped(),
        path,
        inputs=inputs,
        outputs=outputs,
        any_batch=False,
        metadata={name: json.dumps(value, sort_keys=True) for name, value in metadata.items()},
    )

"""Policies as data: weights in safetensors, everything else in a JSON manifest.

Stable-Baselines3 archives and pickled modules run code when they are loaded. An exported policy
cannot: the network is rebuilt from an allow-list of architectures and the weights are plain arrays,
checked against their SHA-256.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.artifact import read_artifact_manifest, read_artifact_weights, write_artifact
from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError

FORMAT = "bwe-env policy 2"
ARCHITECTURES = ("mlp",)
WEIGHTS_FILE = "policy.safetensors"
MANIFEST_FILE = "policy.json"


def save_policy(
    directory: str | Path, policy: Any, *, environment: str, extra: Mapping[str, Any] | None = None
) -> None:
    """Write a `PolicyEstimator` into `directory`, replacing an earlier one there.

    Args:
        policy: the `PolicyEstimator`.
        environment: id and version of the environment it was trained in.
        extra: more JSON values to keep in the manifest (how it was trained and selected).
    """
    from safetensors.torch import save

    folder = Path(directory)
    weights = save({key: value.contiguous() for key, value in policy.network.state_dict().items()})
    manifest = {
        "architecture": "mlp",
        "environment": environment,
        "extra": dict(extra or {}),
        "format": FORMAT,
        "mlp": dataclasses.asdict(policy.architecture),
        "setting": policy.setting.to_json(),
    }
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
    from safetensors.torch import load

    from agents.policy_estimator import MlpArchitecture, PolicyEstimator
    from agents.policy_setting import PolicySetting

    folder = Path(directory)
    manifest = read_manifest(folder)
    if manifest.get("environment") != environment:
        raise ArtifactError(
            f"the policy in {folder} was trained in {manifest.get('environment')!r}, this is "
            f"{environment!r}: it has learnt other dynamics. Train anew, or use the version of the "
            "project it was made with."
        )
    content = read_artifact_weights(folder / WEIGHTS_FILE, manifest)
    try:
        architecture = MlpArchitecture(**manifest["mlp"])
        network = architecture.build()
        network.load_state_dict(load(content))
        setting = PolicySetting.from_json(manifest["setting"])
    except (KeyError, TypeError, RuntimeError, ConfigError, UnknownNameError) as error:
        raise ArtifactError(f"{folder}: weights and manifest do not fit: {error}.") from error
    return PolicyEstimator(network, architecture, setting=setting)

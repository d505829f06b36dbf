"""Policies as data: weights in safetensors, everything else in a JSON manifest.

Stable-Baselines3 archives and pickled modules run code when they are loaded. An exported policy
cannot: the network is rebuilt from an allow-list of architectures and the weights are plain arrays,
checked against their SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bwe_env.errors import ArtifactError, UnknownNameError

FORMAT = "bwe-env policy 1"
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
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({key: value.contiguous() for key, value in policy.network.state_dict().items()})
    manifest = {
        "action_mode": policy.action_mode,
        "architecture": "mlp",
        "environment": environment,
        "extra": dict(extra or {}),
        "format": FORMAT,
        "mlp": dataclasses.asdict(policy.architecture),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    # The manifest last: a crash in between leaves a digest that does not match, never a mix.
    _replace(folder / WEIGHTS_FILE, weights)
    _replace(folder / MANIFEST_FILE, text.encode())


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """The checked manifest of an exported policy.

    Raises:
        ArtifactError: missing, damaged, or of another format.
    """
    path = Path(directory) / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text())
    except OSError as error:
        raise ArtifactError(
            f"no policy in {path.parent}: {path.name} cannot be read ({error.strerror}). A run "
            "writes one at its first evaluation; let it run longer, or resume it."
        ) from error
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged, it is no JSON: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ArtifactError(f"{path} has format {found!r}, this version reads {FORMAT!r}.")
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

    folder = Path(directory)
    manifest = read_manifest(folder)
    if manifest.get("environment") != environment:
        raise ArtifactError(
            f"the policy in {folder} was trained in {manifest.get('environment')!r}, this is "
            f"{environment!r}: it has learnt other dynamics. Train anew, or use the version of the "
            "project it was made with."
        )
    path = folder / WEIGHTS_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.get("sha256"):
        raise ArtifactError(
            f"{path} is damaged: its SHA-256 is {digest[:12]}…, the manifest says "
            f"{str(manifest.get('sha256'))[:12]}…. Copy the folder again from where it was made."
        )
    try:
        architecture = MlpArchitecture(**manifest["mlp"])
        network = architecture.build()
        network.load_state_dict(load(content))
        action_mode = str(manifest["action_mode"])
    except (KeyError, TypeError, RuntimeError, UnknownNameError) as error:
        raise ArtifactError(f"{folder}: weights and manifest do not fit: {error}.") from error
    return PolicyEstimator(network, architecture, action_mode=action_mode)

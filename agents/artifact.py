"""Trained things on disk: a safetensors file and a JSON manifest with its digest.

Loading one executes nothing: a network is rebuilt from an allow-list of architectures and the
weights are plain arrays, checked against their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bwe_env.errors import ArtifactError


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_artifact(
    weights_path: Path, manifest_path: Path, weights: bytes, manifest: Mapping[str, Any]
) -> None:
    """Write both files, replacing earlier ones; the digest is added to the manifest."""
    weights_path.parent.mkdir(parents=True, exist_ok=True)
    content = {**manifest, "sha256": hashlib.sha256(weights).hexdigest()}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    # The manifest last: a crash in between leaves a digest that does not match, never a mix.
    replace_file(weights_path, weights)
    replace_file(manifest_path, text.encode())


def read_artifact_manifest(
    path: Path, *, what: str, format_name: str, remedy: str
) -> dict[str, Any]:
    """The manifest, if it is one of this format.

    Args:
        what: the kind of thing, such as "policy".
        remedy: what to do where there is none, a sentence.

    Raises:
        ArtifactError: missing, damaged, or of another format.
    """
    try:
        manifest = json.loads(path.read_text())
    except OSError as error:
        raise ArtifactError(
            f"no {what} in {path.parent}: {path.name} cannot be read ({error.strerror}). {remedy}"
        ) from error
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged, it is no JSON: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != format_name:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ArtifactError(f"{path} has format {found!r}, this version reads {format_name!r}.")
    return manifest


def read_artifact_weights(path: Path, manifest: Mapping[str, Any]) -> bytes:
    """The weights that a manifest belongs to.

    Raises:
        ArtifactError: missing, or other than the manifest's digest says.
    """
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
    return content

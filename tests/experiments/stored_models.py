"""Folders to store, and what of a store is visible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.artifact_store import Store

MODEL: dict[str, Any] = {"kind": "model", "architecture": "network_model"}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def add_files(store: Store, folder: Path, files: dict[str, bytes]) -> str:
    """Store these files as a model."""
    return store.add(write_files(folder, files), **MODEL)


def read_files(folder: Path) -> dict[str, bytes]:
    """All files of a folder by their path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def visible(store: Store) -> tuple[list[str], dict[str, str]]:
    """What others see of a store: artifacts and names."""
    return store.manifests(), store.refs()


def blobs(store: Store) -> list[Path]:
    """Files of all blobs."""
    return sorted(path for path in (store.root / "blobs").rglob("*") if path.is_file())


def damage(path: Path, data: bytes) -> None:
    """Put other content into a read-only file."""
    path.chmod(0o644)
    path.write_bytes(data)

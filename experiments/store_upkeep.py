"""Whether a store is sound, and what of it nobody needs any more."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bwe_env.errors import ConfigError
from experiments.manifest import DIGEST_PATTERN, Manifest
from experiments.refusals import ArtifactRefused, NotInStoreError

if TYPE_CHECKING:
    from experiments.artifact_store import Store


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What a check of a whole store found."""

    blobs: int
    manifests: int
    references: int
    bytes_read: int
    problems: tuple[str, ...]
    """one line each; empty if the store is sound"""
    set_aside: int
    """damaged blobs moved out of the way"""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class GarbageReport:
    """What a garbage collection deleted (or would, of a dry run) and kept."""

    blobs_deleted: int
    manifests_deleted: int
    bytes_deleted: int
    blobs_kept: int
    bytes_kept: int
    seconds: float


def verify(store: Store, *, repair: bool) -> VerifyReport:
    """See `Store.verify`."""
    started_s = time.perf_counter()
    problems: list[str] = []
    # Manifests first: the blobs of those that are there now are there, whoever goes on writing.
    manifests = store.manifests()
    sizes, set_aside = _check_blobs(store, problems, repair=repair)
    for digest in manifests:
        _check_manifest(store, digest, sizes, problems)
    references = sorted(path.name for path in (store.root / "refs").iterdir())
    for name in references:
        try:
            if not store.has_manifest(store.resolve(name)):
                problems.append(f"reference {name!r} stands for an artifact that is not there")
        except ArtifactRefused as error:
            problems.append(str(error))
    return VerifyReport(
        blobs=len(sizes),
        manifests=len(manifests),
        references=len(references),
        bytes_read=sum(sizes.values()),
        problems=tuple(problems),
        set_aside=set_aside,
        seconds=time.perf_counter() - started_s,
    )


def _check_blobs(store: Store, problems: list[str], *, repair: bool) -> tuple[dict[str, int], int]:
    """Sizes of the sound blobs, and how many others were set aside."""
    sizes: dict[str, int] = {}
    set_aside = 0
    for path in _files(store.root / "blobs"):
        try:
            sizes[path.name] = len(store.read_blob(path.name))
        except NotInStoreError:
            continue  # collected as garbage in between
        except ArtifactRefused as error:
            problems.append(str(error))
            if repair and DIGEST_PATTERN.fullmatch(path.name):
                store.set_aside(path.name)
                set_aside += 1
    return sizes, set_aside


def _check_manifest(store: Store, digest: str, sizes: dict[str, int], problems: list[str]) -> None:
    try:
        manifest = store.manifest(digest)
        store.signatures(digest)
    except NotInStoreError:
        return  # collected as garbage in between
    except ArtifactRefused as error:
        problems.append(str(error))
        return
    for member in manifest.members:
        if any(sizes.get(chunk.digest) != chunk.size_bytes for chunk in member.chunks):
            if not store.has_manifest(digest):
                return
            problems.append(
                f"artifact {digest}: {member.path!r} lacks sound blobs. Add or transfer it again."
            )


def collect_garbage(store: Store, grace_s: float, *, dry_run: bool) -> GarbageReport:
    """See `Store.collect_garbage`."""
    if not grace_s >= 0:
        raise ConfigError(f"grace_s={grace_s} must be 0 or more seconds.")
    started_s = time.perf_counter()
    with store.alone():
        oldest_s = time.time() - grace_s
        kept_manifests = _kept_manifests(store, oldest_s)
        kept_blobs = {
            chunk.digest for manifest in kept_manifests.values() for chunk in manifest.chunks()
        }
        manifests = [
            path for path in _files(store.root / "manifests") if path.name not in kept_manifests
        ]
        blobs = list(_files(store.root / "blobs"))
        garbage = [p for p in blobs if p.name not in kept_blobs and not _is_young(p, oldest_s)]
        left_over = [
            path
            for folder in ("tmp", "damaged")
            for path in (store.root / folder).iterdir()
            if not _is_young(path, oldest_s)
        ]
        bytes_all = sum(path.stat().st_size for path in blobs)
        bytes_garbage = sum(path.stat().st_size for path in (*garbage, *manifests, *left_over))
        bytes_blobs = sum(path.stat().st_size for path in garbage)
        if not dry_run:
            _delete(store, manifests, garbage, left_over)
    return GarbageReport(
        blobs_deleted=len(garbage),
        manifests_deleted=len(manifests),
        bytes_deleted=bytes_garbage,
        blobs_kept=len(blobs) - len(garbage),
        bytes_kept=bytes_all - bytes_blobs,
        seconds=time.perf_counter() - started_s,
    )


def _kept_manifests(store: Store, oldest_s: float) -> dict[str, Manifest]:
    """Those that a reference reaches, and young ones: their reference may be about to be set.

    Raises:
        ArtifactRefused: one of them is damaged. What it needs is not known then, so that nothing
            may be deleted.
    """
    kept = set(store.refs().values())
    for path in _files(store.root / "manifests"):
        if _is_young(path, oldest_s):
            kept.add(path.name)
    return {digest: store.manifest(digest) for digest in sorted(kept)}


def _delete(store: Store, manifests: list[Path], blobs: list[Path], left_over: list[Path]) -> None:
    # Manifests first: one that is there has its blobs, also after a crash in between.
    for path in manifests:
        path.unlink()
        shutil.rmtree(store.signature_folder(path.name), ignore_errors=True)
    for path in (*blobs, *left_over):
        path.unlink(missing_ok=True)


def _is_young(path: Path, oldest_s: float) -> bool:
    try:
        return os.stat(path).st_mtime > oldest_s
    except FileNotFoundError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    """Files named by their digest, sorted."""
    return iter(sorted(folder.glob("[0-9a-f]/*")))

"""Files out of a store: every byte is checked before one of them has its final name."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bwe_env.errors import unknown_name
from experiments.manifest import Manifest, Member
from experiments.member_paths import folders_of
from experiments.refusals import refuse

if TYPE_CHECKING:
    from experiments.artifact_store import Store

#: Read at once from a file that is there already.
READ_BYTES = 2**20


@dataclass(frozen=True)
class CheckoutReport:
    """What a checkout did."""

    files_written: int
    files_present: int
    """that were there already, with the right content"""
    bytes_written: int
    seconds: float


def chosen_members(manifest: Manifest, paths: Sequence[str] | None) -> list[Member]:
    """The members of these paths; all of them for None.

    Raises:
        UnknownNameError: a path that the artifact does not have.
    """
    if paths is None:
        return list(manifest.members)
    by_path = {member.path: member for member in manifest.members}
    for path in paths:
        if path not in by_path:
            raise unknown_name("member", path, by_path)
    return [by_path[path] for path in dict.fromkeys(paths)]


def checkout(
    store: Store,
    manifest: Manifest,
    directory: Path,
    members: Sequence[str] | None,
    *,
    overwrite: bool,
) -> CheckoutReport:
    """See `Store.checkout`."""
    started_s = time.perf_counter()
    chosen = chosen_members(manifest, members)
    staging = directory.parent / f".{directory.name}.{secrets.token_hex(8)}.partial"
    try:
        wanted = [member for member in chosen if not _is_there(member, directory, overwrite)]
        if wanted:
            staging.mkdir(parents=True)
            for member in wanted:
                _write_member(store, member, staging / member.path)
            _publish(staging, directory, wanted)
            store.sync(directory)
    except OSError as error:
        remedy = "Make room or give another folder; what stood in it is unchanged."
        refuse(
            str(directory), error.strerror, "must be a folder to write into", remedy, cause=error
        )
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return CheckoutReport(
        files_written=len(wanted),
        files_present=len(chosen) - len(wanted),
        bytes_written=sum(member.size_bytes for member in wanted),
        seconds=time.perf_counter() - started_s,
    )


def _is_there(member: Member, directory: Path, overwrite: bool) -> bool:
    """Whether a file has its final name already.

    Raises:
        ArtifactRefused: something else has, or a link leads out of the folder.
    """
    path = directory / member.path
    for part in (*folders_of(member.path), member.path):
        found = directory / part
        if found.is_symlink():
            refuse(str(found), "a symbolic link", "must not lead a checkout elsewhere")
        if part != member.path and found.exists() and not found.is_dir():
            refuse(str(found), "a file", "must be a folder of the artifact or absent")
    if not os.path.lexists(path):
        return False
    if path.is_file() and _file_digest(path) == member.digest:
        return True
    if path.is_dir() or not overwrite:
        remedy = "Give a new folder, or --overwrite to replace files."
        refuse(str(path), "other content", "must be that of the artifact or absent", remedy)
    return False


def _file_digest(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            whole.update(data)
    return whole.hexdigest()


def _write_member(store: Store, member: Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for data in store.read_member(member):
            file.write(data)
        file.flush()
        if store.durable:
            os.fsync(file.fileno())


def _publish(staging: Path, directory: Path, members: Sequence[Member]) -> None:
    """All at once where the folder is new or empty, else file by file."""
    if not directory.exists() or not any(directory.iterdir()):
        os.rename(staging, directory)
    else:
        for member in members:
            path = directory / member.path
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / member.path, path)

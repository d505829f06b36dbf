"""Files of a store: written whole or not at all, read without following links, locked by process.

Locks are those of `flock`, so that a store is for POSIX systems; what is checked out of it may be
used anywhere.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bwe_env.errors import ConfigError
from experiments.manifest import check_path
from experiments.member_paths import MAX_PATH_DEPTH
from experiments.refusals import refuse

#: What a refused write leaves behind, and what to do.
WRITE_REMEDY = (
    "Make room or give a folder that can be written. Nothing that was stored has changed, and a "
    "second attempt does not write again what is there."
)


@contextlib.contextmanager
def locked(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the lock of a file, shared with others or alone; waits for it.

    Every call opens the file anew, so that threads of one process exclude each other too.
    """
    try:
        import fcntl
    except ImportError as error:
        raise ConfigError(
            "a store needs the file locks of a POSIX system (Linux, macOS, WSL); on this one, "
            "fetch artifacts from a server instead."
        ) from error
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        refuse(str(path), error.strerror, "must be a file to lock", WRITE_REMEDY, cause=error)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)  # gives the lock back


def write_temporary(folder: Path, data: bytes, *, durable: bool = True) -> Path:
    """Write bytes under a name nobody else has; to be renamed to the final one.

    Args:
        folder: on the disk of the final name.
        data: of the whole file.
        durable: wait until they are on the disk.

    Raises:
        ArtifactRefused: the disk is full or cannot be written; the file is gone again.
    """
    path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
    try:
        # Read-only: what is named by its digest must not be edited.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            _write_all(handle, data)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        refuse(str(folder), error.strerror, "must have room", WRITE_REMEDY, cause=error)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def replace_with(temporary: Path, path: Path) -> None:
    """Give a temporary file its final name, whether or not there is one of that name.

    Raises:
        ArtifactRefused: the folder cannot be written; the temporary file is gone again.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        refuse(str(path), error.strerror, "must be writable", WRITE_REMEDY, cause=error)


def same_content(path: Path, data: bytes) -> bool:
    """Whether a file is there and holds exactly these bytes."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_files(root: Path) -> list[tuple[str, Path]]:
    """Every file of a folder as (member path, file), sorted by member path.

    Empty folders are no part of an artifact. A file instead of a folder is its only member.

    Raises:
        ArtifactRefused: a link, a device or pipe, an unreadable folder, or a name that may not be.
    """
    try:
        if root.is_file():
            return [(check_path(root.name), root)]
        return sorted(_walk(root, ""))
    except OSError as error:
        where = str(error.filename or root)
        refuse(where, error.strerror, "must be a folder or file that can be read", cause=error)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    if prefix.count("/") > MAX_PATH_DEPTH:
        check_path(prefix.rstrip("/"))
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = prefix + entry.name
            if entry.is_symlink():
                remedy = "Put a copy of the file in its place."
                refuse(path, "a symbolic link", "must be a file or a folder", remedy)
            elif entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), path + "/")
            elif entry.is_file(follow_symlinks=False):
                yield check_path(path), Path(entry.path)
            else:
                refuse(path, "a device, pipe or socket", "must be a file or a folder")


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file to read and its size; refused if it is a link, or changes before it is closed.

    Raises:
        ArtifactRefused: see above, or the file cannot be read.
    """
    try:
        # O_NONBLOCK: opening a pipe that has taken the file's place must not wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(path, flags), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                refuse(str(path), "a device, pipe or socket", "must be a file")
            yield file, before.st_size
            after = os.fstat(file.fileno())
    except OSError as error:
        refuse(str(path), error.strerror, "must be a file that can be read", cause=error)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        refuse(str(path), "a file that changed", "must not be written while it is added")

"""What arrived of blobs whose connection ended: the next attempt asks for the rest alone.

On a slow link one blob may take longer than a whole call set-up has; without the part that is kept,
no number of calls would ever get it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from experiments.manifest import Chunk
from experiments.refusals import ArtifactRefused
from experiments.store_files import replace_with, write_temporary


class PartialBlobs:
    """A folder of beginnings, named by the digest of the whole. Processes may share it.

    What is in it is not trusted: the whole has to have the digest in the end.
    """

    def __init__(self, folder: Path, temporary: Path) -> None:
        """Prepare.

        Args:
            folder: of the beginnings; made when there is the first one.
            temporary: a folder of the same file system to write in.
        """
        self._folder = folder
        self._temporary = temporary

    def load(self, chunk: Chunk) -> bytes:
        """What there is of a blob: less than the whole, often nothing."""
        try:
            begun = self._path(chunk).read_bytes()
        except OSError:
            return b""
        return begun if len(begun) < chunk.size_bytes else b""

    def save(self, chunk: Chunk, begun: bytes) -> None:
        """Keep a beginning. That it cannot be kept is no reason to fail: the refusal is logged."""
        if begun:
            with contextlib.suppress(ArtifactRefused):
                replace_with(write_temporary(self._temporary, begun), self._path(chunk))

    def drop(self, chunk: Chunk) -> None:
        """Forget a beginning."""
        with contextlib.suppress(OSError):
            self._path(chunk).unlink()

    def _path(self, chunk: Chunk) -> Path:
        return self._folder / chunk.digest

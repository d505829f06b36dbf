"""What arrived of blobs whose connection ended: the next attempt asks for the rest alone.

On a slow link one blob may take longer than a whole call set-up has; without the part that is kept,
no number of calls would ever get it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from experiments.manifest import Chunk
from experiments.refusals import ArtifactRefused
from experiments.store_blobs import BlobStore


class PartialBlobs:
    """A folder of beginnings in a store, named by the digest of the whole. Processes may share it.

    What is in it is not trusted: the whole has to have the digest in the end.
    """

    def __init__(self, store: BlobStore) -> None:
        """Prepare; the folder is made when there is the first beginning."""
        self._store = store
        self._folder = store.root / "partial"

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
                self._store.write(self._path(chunk), begun)

    def drop(self, chunk: Chunk) -> None:
        """Forget a beginning."""
        with contextlib.suppress(OSError):
            self._path(chunk).unlink()

    def drop_older(self, oldest_s: float) -> None:
        """Forget the beginnings from before this time, in seconds since the epoch."""
        for path in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime <= oldest_s:
                    path.unlink()

    def _path(self, chunk: Chunk) -> Path:
        return self._folder / chunk.digest

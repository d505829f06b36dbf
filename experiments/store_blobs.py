"""The lower half of a store: its folder, its lock, and blobs named by their digest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from bwe_env.errors import ArtifactError
from experiments.manifest import MAX_BLOB_BYTES, check_digest, digest_of
from experiments.refusals import NotInStoreError, refuse
from experiments.store_files import locked, replace_with, same_content, sync_folder, write_temporary

#: Digits of a digest that name the folder of its file. 16 folders: each has to be brought to the
#: disk before a manifest is, which takes some milliseconds; 100,000 blobs are 6,250 in each. Ours.
FOLDER_DIGITS = 1
STORE_FORMAT = b'{"format":"bwe-env store 1"}\n'


class BlobStore:
    """A folder of blobs. `experiments.artifact_store.Store` makes artifacts of them."""

    def __init__(self, root: str | Path, *, create: bool = True, durable: bool = True) -> None:
        """Open a store.

        Args:
            root: its folder.
            create: make an empty one where there is none.
            durable: what was put survives a power failure. False does not wait for the disk, some
                milliseconds for each blob: for what can be had again. What is lost then is found
                out, because whatever is read is checked.

        Raises:
            ArtifactError: there is none and `create` is False, or the folder is something else.
        """
        self.root = Path(root)
        self.durable = durable
        label = self.root / "store.json"
        if not label.exists():
            self._create(label, create=create)
        if label.read_bytes() != STORE_FORMAT:
            raise ArtifactError(
                f"{label} is not that of a store which this version reads; give another folder."
            )

    def _create(self, label: Path, *, create: bool) -> None:
        if not create:
            raise ArtifactError(
                f"{self.root} is no store: there is no {label.name}. Make one with "
                "python -m experiments.store add, or give the folder of another."
            )
        is_other = self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir()))
        # With tmp/ it is one that another process is making right now.
        if is_other and not (self.root / "tmp").is_dir():
            raise ArtifactError(f"{self.root} exists and is no store; give an empty folder.")
        (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        for name in ("blobs", "manifests", "refs", "signatures", "damaged"):
            (self.root / name).mkdir(exist_ok=True)
        self.write(label, STORE_FORMAT)

    def shared(self) -> contextlib.AbstractContextManager[None]:
        """Keeps the garbage collector out; others may write."""
        return locked(self.root / "lock", exclusive=False)

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Keeps everybody else from giving names and relying on them."""
        return locked(self.root / "lock", exclusive=True)

    def write_temporary(self, data: bytes) -> Path:
        """A file of this content in tmp/, to be renamed to its final name."""
        return write_temporary(self.root / "tmp", data, durable=self.durable)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file whole or not at all, in the place of an earlier one.

        Raises:
            ArtifactRefused: the disk is full or cannot be written.
        """
        replace_with(self.write_temporary(data), path)
        self.sync(path.parent)

    def sync(self, *folders: Path) -> None:
        """Bring the names in these folders to the disk, if the store is durable."""
        if self.durable:
            for folder in folders:
                sync_folder(folder)

    def blob_path(self, digest: str) -> Path:
        """Where a blob is or would be."""
        return self.root / "blobs" / check_digest(digest)[:FOLDER_DIGITS] / digest

    def has_blob(self, digest: str) -> bool:
        """Whether a blob is there; not whether it is sound."""
        return self.blob_path(digest).is_file()

    def put_blob(self, data: bytes) -> str:
        """Store bytes once, and return their digest.

        Raises:
            ArtifactRefused: empty or too large, or the disk is full.
        """
        if not 1 <= len(data) <= MAX_BLOB_BYTES:
            refuse("blob", f"{len(data)} bytes", f"must be 1..{MAX_BLOB_BYTES} bytes")
        digest = digest_of(data)
        path = self.blob_path(digest)
        with self.shared():
            # Compared, not trusted: a crash of another writer's machine may have left less.
            if same_content(path, data):
                os.utime(path)  # young again for the garbage collector
                return digest
        temporary = self.write_temporary(data)
        with self.shared():
            replace_with(temporary, path)
        return digest

    def read_blob(self, digest: str) -> bytes:
        """The bytes of a blob, checked.

        Raises:
            NotInStoreError: there is none.
            ArtifactRefused: it is damaged.
        """
        data = self.read_file(self.blob_path(digest), "blob", digest)
        if digest_of(data) != digest:
            refuse(
                f"blob {digest}",
                f"content of SHA-256 {digest_of(data)}",
                "must be what its name says",
                "python -m experiments.store verify --repair sets it aside; then add or transfer "
                "the artifact again.",
            )
        return data

    def lacking(self, digests: Iterable[str], *, renew: bool = True) -> list[str]:
        """Those of the digests that are no blobs here, once each.

        Args:
            digests: of blobs.
            renew: the blobs that are here count as new for the garbage collector, because who asks
                is about to build on the answer. False writes nothing.
        """
        wanted = dict.fromkeys(digests)
        if not renew:
            return [digest for digest in wanted if not self.has_blob(digest)]
        absent = []
        with self.shared():
            for digest in wanted:
                try:
                    os.utime(self.blob_path(digest))
                except FileNotFoundError:
                    absent.append(digest)
        return absent

    def set_aside(self, digest: str) -> None:
        """Move a damaged blob out of the way, so that it can be stored again."""
        aside = self.root / "damaged" / digest
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.blob_path(digest), aside)
            if digest_of(aside.read_bytes()) == digest:
                # Somebody has stored it anew since it was found damaged.
                os.replace(aside, self.blob_path(digest))

    def read_file(self, path: Path, what: str, digest: str) -> bytes:
        """The bytes of a file that a digest names, unchecked.

        Raises:
            NotInStoreError: there is none.
            ArtifactRefused: it cannot be read.
        """
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            refuse(what, digest, f"must be in {self.root}", error=NotInStoreError, cause=error)
        except OSError as error:
            refuse(str(path), error.strerror, "must be a file that can be read", cause=error)

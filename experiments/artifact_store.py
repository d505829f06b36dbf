"""A folder of artifacts: blobs named by their digest, manifests, and names that point at them.

::

    STORE/
        store.json             format of this folder
        blobs/9/9f86…          pieces of files, named by their SHA-256; never changed
        manifests/6/6030…      canonical JSON (`experiments.manifest`); there once its blobs are
        refs/congestion        the digest a name stands for; replaced whole
        signatures/6030…/KEY   who vouches for a manifest (`experiments.signing`)
        tmp/                   files being written
        damaged/               blobs that were not what their name says

Equal content is stored once. Every file is written under another name, brought to the disk and
renamed, so that a crash leaves no half of it. Processes may write at once: each holds the store's
lock shared with others while it gives a file its name or relies on one, and the garbage collector
holds it alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bwe_env.errors import unknown_name
from experiments.chunks import cut_file
from experiments.manifest import (
    EMPTY_DIGEST,
    Chunk,
    Kind,
    Manifest,
    Member,
    check_digest,
    check_total,
    digest_of,
)
from experiments.member_paths import name_fault
from experiments.refusals import (
    BlobsLackingError,
    NotInStoreError,
    ReferenceChangedError,
    refuse,
)
from experiments.signing import Signature, check_signed
from experiments.store_blobs import FOLDER_DIGITS, BlobStore
from experiments.store_checkout import CheckoutReport, checkout
from experiments.store_files import (
    list_files,
    locked,
    open_regular,
    same_content,
)
from experiments.store_upkeep import GarbageReport, VerifyReport, collect_garbage, verify

#: What a reference is called: lower case, so that no file system takes two names for one.
REFERENCE_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
#: `expected` of `Store.set_ref` for a name that must be new.
ABSENT = "absent"
#: A day: longer than any add or transfer takes. Ours.
GRACE_S = 86_400.0


class Store(BlobStore):
    """One store in a folder. Safe to use from several processes and threads."""

    def manifest_path(self, digest: str) -> Path:
        """Where a manifest is or would be."""
        return self.root / "manifests" / check_digest(digest)[:FOLDER_DIGITS] / digest

    def has_manifest(self, digest: str) -> bool:
        """Whether a whole artifact is there."""
        return self.manifest_path(digest).is_file()

    def manifest_bytes(self, digest: str) -> bytes:
        """A manifest as it is stored and signed, checked against its digest.

        Raises:
            NotInStoreError: there is none.
            ArtifactRefused: it is damaged.
        """
        data = self.read_file(self.manifest_path(digest), "manifest", digest)
        if digest_of(data) != digest:
            refuse(f"manifest {digest}", data[:80], "must be what its name says")
        return data

    def manifest(self, digest: str) -> Manifest:
        """A manifest, checked.

        Raises:
            NotInStoreError: there is none.
            ArtifactRefused: it is damaged.
        """
        return Manifest.from_bytes(self.manifest_bytes(digest))

    def manifests(self) -> list[str]:
        """Digests of all whole artifacts, sorted."""
        return sorted(path.name for path in (self.root / "manifests").glob("*/*"))

    def put_manifest(self, data: bytes) -> str:
        """Make an artifact visible whose blobs are all there and are what it says.

        Raises:
            BlobsLackingError: some are not there, or were damaged and have been set aside.
            ArtifactRefused: no manifest, or one whose files are not what it says.
        """
        manifest = Manifest.from_bytes(data)
        digest = digest_of(data)
        with self.shared():
            self._check_content(manifest)
            path = self.manifest_path(digest)
            if same_content(path, data):
                os.utime(path)  # young again for the garbage collector
                return digest
            folders = {self.blob_path(chunk.digest).parent for chunk in manifest.chunks()}
            self.sync(*sorted(folders), self.root / "blobs")
            self.write(path, data)
            self.sync(self.root / "manifests")
        return digest

    def _check_content(self, manifest: Manifest) -> None:
        lacking: dict[str, None] = {}
        for member in manifest.members:
            whole = hashlib.sha256()
            for chunk in member.chunks:
                data = self._sound_content(chunk)
                if data is None:
                    lacking[chunk.digest] = None
                else:
                    whole.update(data)
            if not lacking and whole.hexdigest() != member.digest:
                refuse(f"member {member.path!r} digest", member.digest, "must be of its content")
        if lacking:
            refuse(
                "manifest",
                tuple(lacking),
                "must be blobs of the store before their manifest",
                error=BlobsLackingError,
            )

    def _sound_content(self, chunk: Chunk) -> bytes | None:
        """The bytes of a chunk, which is kept for now; None if they are not there."""
        path = self.blob_path(chunk.digest)
        try:
            os.utime(path)
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if len(data) == chunk.size_bytes and digest_of(data) == chunk.digest:
            return data
        self.set_aside(chunk.digest)
        return None

    # -- references

    def refs(self) -> dict[str, str]:
        """Digest of every name, sorted by name."""
        names = sorted(path.name for path in (self.root / "refs").iterdir())
        digests = {name: self._reference(check_reference(name)) for name in names}
        # One that was forgotten in between is none.
        return {name: digest for name, digest in digests.items() if digest is not None}

    def resolve(self, name: str) -> str:
        """The digest that a name stands for.

        Raises:
            UnknownNameError: there is no such name.
            ArtifactRefused: no name, or its file is damaged.
        """
        digest = self._reference(check_reference(name))
        if digest is None:
            known = [path.name for path in (self.root / "refs").iterdir()]
            raise unknown_name("reference", name, known)
        return digest

    def set_ref(self, name: str, digest: str, *, expected: str | None = None) -> None:
        """Let a name stand for an artifact from now on.

        Args:
            name: lower-case letters, digits, ".", "_" and "-".
            digest: of a manifest that is there.
            expected: what the name has to stand for until now (`ABSENT`: nothing), so that of two
                who change it at once one learns of the other. None: whatever it was.

        Raises:
            NotInStoreError: there is no such manifest.
            ReferenceChangedError: the name stands for something else than `expected`.
        """
        check_reference(name)
        with self.shared(), locked(self.root / "refs.lock", exclusive=True):
            if not self.has_manifest(digest):
                refuse("reference", digest, "must be a manifest here", error=NotInStoreError)
            self._expect(name, expected)
            self.write(self.root / "refs" / name, f"{digest}\n".encode())

    def delete_ref(self, name: str, *, expected: str | None = None) -> None:
        """Forget a name; what it stood for is garbage unless something else reaches it.

        Raises:
            UnknownNameError: there is no such name.
            ReferenceChangedError: as in `set_ref`.
        """
        with self.shared(), locked(self.root / "refs.lock", exclusive=True):
            self.resolve(name)
            self._expect(name, expected)
            (self.root / "refs" / name).unlink()
            self.sync(self.root / "refs")

    def _expect(self, name: str, expected: str | None) -> None:
        if expected is None:
            return
        current = self._reference(name) or ABSENT
        if current != expected:
            refuse(
                f"reference {name!r}",
                current,
                f"must still be {expected}",
                "Somebody changed it; look at the new one and decide again.",
                error=ReferenceChangedError,
            )

    def _reference(self, name: str) -> str | None:
        path = self.root / "refs" / name
        try:
            text = path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return None
        return check_digest(text.removesuffix("\n"), f"reference {name!r}")

    # -- files

    def add(
        self,
        directory: str | Path,
        *,
        kind: Kind,
        architecture: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Store a folder (or one file) as an artifact, and return its digest.

        The digest depends on names and content of the files and on the arguments, not on where
        the folder is, when it was made, or in which order it is read.

        Raises:
            ArtifactRefused: a rule of `experiments.manifest` is broken; nothing is visible then.
        """
        if self.root.resolve().is_relative_to(Path(directory).resolve()):
            refuse(str(directory), str(self.root), "must not be inside the folder that is added")
        files = list_files(Path(directory))
        labels: dict[str, Any] = {
            "kind": kind,
            "architecture": architecture,
            "metadata": metadata or {},
        }
        check_total(sum(file.stat().st_size for _, file in files))
        # All but the content is checked before the first byte is stored.
        Manifest(**labels, members=tuple(Member(path, EMPTY_DIGEST, 0, ()) for path, _ in files))
        members = tuple(self._add_file(path, file) for path, file in files)
        return self.put_manifest(Manifest(**labels, members=members).to_bytes())

    def _add_file(self, path: str, file: Path) -> Member:
        whole = hashlib.sha256()
        chunks = []
        with open_regular(file) as (content, size_bytes):
            for data in cut_file(content, size_bytes):
                whole.update(data)
                chunks.append(Chunk(self.put_blob(data), len(data)))
        return Member(path, whole.hexdigest(), size_bytes, tuple(chunks))

    def read_member(self, member: Member) -> Iterator[bytes]:
        """The content of a file of an artifact in pieces, each checked, the whole at the end.

        Raises:
            NotInStoreError: a piece is not there.
            ArtifactRefused: a piece or the whole is not what the manifest says.
        """
        whole = hashlib.sha256()
        for chunk in member.chunks:
            data = self.read_blob(chunk.digest)
            whole.update(data)
            yield data
        if whole.hexdigest() != member.digest:
            refuse(f"member {member.path!r}", whole.hexdigest(), f"must be {member.digest}")

    def checkout(
        self,
        digest: str,
        directory: str | Path,
        members: Sequence[str] | None = None,
        *,
        overwrite: bool = False,
        trusted: Collection[str] | None = None,
    ) -> CheckoutReport:
        """Write files of an artifact; files that are there with the right content stay.

        Args:
            digest: of the manifest.
            directory: made if need be. A new or empty one appears whole.
            members: paths to fetch; None for all.
            overwrite: replace files that have other content.
            trusted: public keys, one of which must have signed it; None takes unsigned ones too.

        Raises:
            NotInStoreError, ArtifactRefused: absent, damaged, not signed by a trusted key, or
                `directory` holds other content. Nothing has been written then.
            UnknownNameError: no such member.
        """
        data = self.manifest_bytes(digest)
        if trusted is not None:
            check_signed(data, self.signatures(digest), trusted)
        manifest = Manifest.from_bytes(data)
        return checkout(self, manifest, Path(directory).resolve(), members, overwrite=overwrite)

    # -- signatures

    def signature_folder(self, digest: str) -> Path:
        """Where the signatures of a manifest are or would be, one file per key."""
        return self.root / "signatures" / check_digest(digest)

    def signatures(self, digest: str) -> list[Signature]:
        """Those beside a manifest, sorted by key; whether they fit is not checked here.

        Raises:
            ArtifactRefused: a damaged file.
        """
        files = sorted(self.signature_folder(digest).glob("*"))
        return [Signature.from_bytes(file.read_bytes()) for file in files]

    def put_signature(self, digest: str, signature: Signature) -> None:
        """Put a signature beside a manifest; an earlier one of the same key is replaced.

        Raises:
            NotInStoreError: there is no such manifest.
        """
        with self.shared():
            if not self.has_manifest(digest):
                refuse("signature", digest, "must be a manifest here", error=NotInStoreError)
            self.write(self.signature_folder(digest) / signature.key, signature.to_bytes())

    # -- upkeep

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """Read everything and compare it with its digest.

        Args:
            repair: move damaged blobs out of the way, so that adding or transferring the
                artifacts again stores them anew.
        """
        return verify(self, repair=repair)

    def collect_garbage(self, grace_s: float = GRACE_S, *, dry_run: bool = False) -> GarbageReport:
        """Delete what neither a reference nor a young manifest reaches, if it is old itself.

        Args:
            grace_s: how long what nobody reaches yet is kept; longer than any add or transfer.
            dry_run: only tell.

        Raises:
            ArtifactRefused: a reference or its manifest is damaged; nothing is deleted then.
            ConfigError: `grace_s` is negative or NaN.
        """
        return collect_garbage(self, grace_s, dry_run=dry_run)


def check_reference(name: str) -> str:
    """The name, if a reference may have it.

    Raises:
        ArtifactRefused: it may not.
    """
    if not isinstance(name, str) or REFERENCE_PATTERN.fullmatch(name) is None:
        allowed = "must be 1..100 lower-case letters, digits, '.', '_' or '-', no '.' in front"
        refuse("reference name", name, allowed)
    if re.fullmatch(r"[0-9a-f]{64}", name) or name == ABSENT:
        refuse("reference name", name, "must not look like a digest or be 'absent'")
    fault = name_fault(name)
    if fault is not None:
        refuse("reference name", name, fault)
    return name

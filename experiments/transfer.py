"""Artifacts from one store to another: only what the other side lacks is sent.

Either side may be a `Store` or a client of a server; both have the methods below. A transfer that
was interrupted goes on where it stopped, because the blobs that arrived are there; the artifact
becomes visible with its manifest, which is sent last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from experiments.manifest import Manifest, digest_of
from experiments.refusals import BlobsLackingError, refuse
from experiments.signing import Signature, check_signed


class Source(Protocol):
    """What artifacts are read from."""

    def manifest_bytes(self, digest: str) -> bytes:
        """A manifest as it is stored and signed."""

    def read_blob(self, digest: str) -> bytes:
        """The bytes of a blob."""

    def signatures(self, digest: str) -> list[Signature]:
        """Those beside a manifest."""


class Target(Protocol):
    """What artifacts are sent to."""

    def lacking(self, digests: Iterable[str]) -> list[str]:
        """Those of the digests that are no blobs there."""

    def put_blob(self, data: bytes) -> str:
        """Store a blob."""

    def has_manifest(self, digest: str) -> bool:
        """Whether the artifact is visible there."""

    def put_manifest(self, data: bytes) -> str:
        """Make an artifact visible whose blobs are all there."""

    def signatures(self, digest: str) -> list[Signature]:
        """Those beside a manifest."""

    def put_signature(self, digest: str, signature: Signature) -> None:
        """Put one beside a manifest."""


@dataclass(frozen=True)
class TransferReport:
    """What a transfer cost."""

    bytes_sent: int
    """blobs, manifest and signatures; not what a protocol adds"""
    blobs_sent: int
    bytes_total: int
    """the same of a target that has nothing"""
    seconds: float

    @property
    def sent_ratio(self) -> float:
        """Share of the artifact that was sent, 0..1."""
        return self.bytes_sent / self.bytes_total


def transfer(
    source: Source,
    target: Target,
    digest: str,
    *,
    trusted: Collection[str] | None = None,
    progress: Callable[[int], object] = lambda size_bytes: None,
) -> TransferReport:
    """Send an artifact, or what of it is not there yet.

    Args:
        source: has it.
        target: will have it.
        digest: of the manifest.
        trusted: public keys, one of which must have signed it; None takes unsigned ones too.
        progress: called with the size of each blob sent.

    Raises:
        NotInStoreError: the source does not have it.
        ArtifactRefused: damaged, or not signed by a trusted key; nothing is visible then.
    """
    started_s = time.perf_counter()
    data = source.manifest_bytes(digest)
    if digest_of(data) != digest:
        refuse(f"manifest {digest}", data[:80], "must be what its name says")
    manifest = Manifest.from_bytes(data)
    signatures = source.signatures(digest)
    if trusted is not None:
        check_signed(data, signatures, trusted)
    sent_sizes = _send_blobs(source, target, manifest, data, progress)
    new = [item for item in signatures if item not in target.signatures(digest)]
    for signature in new:
        target.put_signature(digest, signature)
    blob_sizes = [chunk.size_bytes for chunk in manifest.chunks()]
    return TransferReport(
        bytes_sent=sum(sent_sizes) + sum(len(item.to_bytes()) for item in new),
        blobs_sent=len(sent_sizes) - 1,
        bytes_total=sum(blob_sizes) + len(data) + sum(len(s.to_bytes()) for s in signatures),
        seconds=time.perf_counter() - started_s,
    )


def _send_blobs(
    source: Source,
    target: Target,
    manifest: Manifest,
    data: bytes,
    progress: Callable[[int], object],
) -> list[int]:
    """Sizes of what was sent: blobs, and the manifest last (0 if it was there)."""
    digests = [chunk.digest for chunk in manifest.chunks()]
    sizes: list[int] = []
    # Twice: the target finds out that a blob is damaged when it puts them together.
    for attempt in range(2):
        lacking = target.lacking(digests)
        for digest in lacking:
            blob = source.read_blob(digest)
            if digest_of(blob) != digest:
                refuse(f"blob {digest}", digest_of(blob), "must be what its name says")
            target.put_blob(blob)
            sizes.append(len(blob))
            progress(len(blob))
        if not lacking and target.has_manifest(manifest.digest):
            return [*sizes, 0]
        try:
            target.put_manifest(data)
            break
        except BlobsLackingError:
            if attempt:
                raise
    return [*sizes, len(data)]

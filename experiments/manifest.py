"""What an artifact is: a canonical JSON manifest that lists every file with its digest and size.

::

    {"architecture":"network_model","format":"bwe-env artifact 1","kind":"model",
     "members":[{"chunks":[["9f86…",4121],…],"digest":"60303ae2…","path":"network_model.json",
                 "size_bytes":2048},…],
     "metadata":{…}}

The same content has the same bytes, and so the same digest: keys and members are sorted, there are
no spaces, text is UTF-8 in NFC, numbers are written in one way, and bytes that are spelt otherwise
are refused. A digest is the SHA-256 in 64 lower-case hexadecimal digits. Files are stored as
blobs: small ones whole, large ones in chunks (`experiments.chunks`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from agents.export import ARCHITECTURES as POLICY_ARCHITECTURES
from experiments.canonical_json import (
    MAX_JSON_BYTES,
    canonical_json,
    check_whole_number,
    checked_json,
    parse_json,
)
from experiments.member_paths import clashing_paths, path_fault
from experiments.refusals import (
    ArtifactRefused,
    BlobsLackingError,
    NotInStoreError,
    ReferenceChangedError,
    refuse,
)

__all__ = [
    "ARCHITECTURES",
    "MAX_ARTIFACT_BYTES",
    "MAX_BLOB_BYTES",
    "MAX_JSON_BYTES",
    "ArtifactRefused",
    "BlobsLackingError",
    "Chunk",
    "Kind",
    "Manifest",
    "Member",
    "NotInStoreError",
    "ReferenceChangedError",
    "check_architecture",
    "check_digest",
    "check_path",
    "check_total",
    "digest_of",
]

FORMAT = "bwe-env artifact 1"
Kind = Literal["configuration", "model", "policy", "dataset"]

#: What may be stored, by kind: each is read by code of this project that executes nothing.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "configuration": ("sender_settings", "targeting_plan"),
    "model": ("network_model",),
    "policy": POLICY_ARCHITECTURES,
    "dataset": ("calls", "traces"),
}

#: One blob is held in memory, and is the most that one request of a server has to take. Ours.
MAX_BLOB_BYTES = 2**20
#: All members together: 60 times the largest dataset of ours, and what a manifest can list. Ours.
MAX_ARTIFACT_BYTES = 4 * 2**30
#: Ours: a dataset has a few hundred shards.
MAX_MEMBERS = 10_000

DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
EMPTY_DIGEST = hashlib.sha256().hexdigest()


def digest_of(data: bytes | memoryview) -> str:
    """SHA-256 in 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def check_digest(text: object, where: str = "digest") -> str:
    """The text, if it is a digest.

    Raises:
        ArtifactRefused: it is not.
    """
    if not isinstance(text, str) or DIGEST_PATTERN.fullmatch(text) is None:
        refuse(where, text, "must be a SHA-256 of 64 lower-case hexadecimal digits")
    return text


@dataclass(frozen=True)
class Chunk:
    """A piece of a file, stored as one blob."""

    digest: str
    size_bytes: int
    """1..MAX_BLOB_BYTES"""

    def __post_init__(self) -> None:
        check_digest(self.digest, "chunk digest")
        check_whole_number(self.size_bytes, "chunk size_bytes", 1, MAX_BLOB_BYTES)


@dataclass(frozen=True)
class Member:
    """One file of an artifact."""

    path: str
    """relative to the artifact's folder, with "/"; rules in `experiments.member_paths`"""
    digest: str
    """of the whole file"""
    size_bytes: int
    chunks: tuple[Chunk, ...]
    """in order; one that is the file itself where it is small, none where it is empty"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunks", tuple(self.chunks))
        check_path(self.path)
        where = f"member {self.path!r}"
        check_digest(self.digest, f"{where} digest")
        check_whole_number(self.size_bytes, f"{where} size_bytes", 0, MAX_ARTIFACT_BYTES)
        total_bytes = sum(chunk.size_bytes for chunk in self.chunks)
        if total_bytes != self.size_bytes:
            refuse(
                f"{where} size_bytes", self.size_bytes, f"must be that of its chunks, {total_bytes}"
            )
        expected = self.digest
        if not self.chunks:
            expected = EMPTY_DIGEST
        elif len(self.chunks) == 1:
            expected = self.chunks[0].digest
        if self.digest != expected:
            refuse(f"{where} digest", self.digest, f"must be that of its content, {expected}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked manifest. Making one raises `ArtifactRefused` where a rule is broken."""

    kind: Kind
    architecture: str
    """one of `ARCHITECTURES` of its kind"""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: how it was made, scores, what it belongs to"""
    members: tuple[Member, ...]
    """sorted by path, whatever the order given"""

    def __post_init__(self) -> None:
        check_architecture(self.kind, self.architecture)
        members = sorted(self.members, key=lambda member: member.path)
        object.__setattr__(self, "members", tuple(members))
        _check_members(self.members)
        if not isinstance(self.metadata, Mapping):
            refuse("metadata", self.metadata, "must be a JSON object")
        object.__setattr__(self, "metadata", checked_json(dict(self.metadata), "metadata"))
        size_bytes = len(self.to_bytes())
        if size_bytes > MAX_JSON_BYTES:
            refuse("manifest", f"{size_bytes} bytes", f"must be at most {MAX_JSON_BYTES} bytes")

    @property
    def digest(self) -> str:
        """The name of the artifact: SHA-256 of `to_bytes`."""
        return digest_of(self.to_bytes())

    @property
    def size_bytes(self) -> int:
        """All members together."""
        return sum(member.size_bytes for member in self.members)

    def chunks(self) -> Iterator[Chunk]:
        """Every blob that the artifact needs, once, in the order of the members."""
        seen: set[str] = set()
        for member in self.members:
            for chunk in member.chunks:
                if chunk.digest not in seen:
                    seen.add(chunk.digest)
                    yield chunk

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        members = [
            {
                "chunks": [[chunk.digest, chunk.size_bytes] for chunk in member.chunks],
                "digest": member.digest,
                "path": member.path,
                "size_bytes": member.size_bytes,
            }
            for member in self.members
        ]
        return canonical_json(
            {
                "architecture": self.architecture,
                "format": FORMAT,
                "kind": self.kind,
                "members": members,
                "metadata": self.metadata,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The manifest that `to_bytes` wrote.

        Raises:
            ArtifactRefused: anything else, whatever it is.
        """
        content = _fields(
            parse_json(data), "manifest", {"architecture", "format", "kind", "members", "metadata"}
        )
        if content["format"] != FORMAT:
            refuse("manifest format", content["format"], f"must be {FORMAT!r}")
        members = _list(content["members"], "members", MAX_MEMBERS)
        manifest = cls(
            kind=content["kind"],
            architecture=content["architecture"],
            metadata=content["metadata"],
            members=tuple(_member(member, f"members[{i}]") for i, member in enumerate(members)),
        )
        if manifest.to_bytes() != data:
            refuse(
                "manifest",
                data[:80],
                "must be canonical JSON: sorted keys and members, no spaces, UTF-8, "
                "numbers as Python's repr writes them",
            )
        return manifest


def check_architecture(kind: object, architecture: object) -> None:
    """Refuse what no code of this project reads.

    Raises:
        ArtifactRefused: an unknown kind, or an architecture that is not one of the kind's.
    """
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        refuse("kind", kind, f"must be one of {', '.join(get_args(Kind))}")
    known = ARCHITECTURES[kind]
    if architecture not in known:
        refuse("architecture", architecture, f"must be, for a {kind}, one of {', '.join(known)}")


def check_path(path: object) -> str:
    """The path, if a member may have it.

    Raises:
        ArtifactRefused: it may not.
    """
    if not isinstance(path, str):
        refuse("member path", path, "must be text")
    fault = path_fault(path)
    if fault is not None:
        refuse("member path", path, fault)
    return path


def check_total(size_bytes: int) -> None:
    """Refuse an artifact that is too large.

    Raises:
        ArtifactRefused: its members are larger together than `MAX_ARTIFACT_BYTES`.
    """
    if size_bytes > MAX_ARTIFACT_BYTES:
        refuse("members", f"{size_bytes} bytes", f"must be at most {MAX_ARTIFACT_BYTES} bytes")


def _check_members(members: tuple[Member, ...]) -> None:
    if not 1 <= len(members) <= MAX_MEMBERS:
        refuse("members", len(members), f"must be 1..{MAX_MEMBERS} files")
    clash = clashing_paths(member.path for member in members)
    if clash is not None:
        refuse("member paths", clash, "must differ in more than case, and no file be a folder")
    check_total(sum(member.size_bytes for member in members))
    sizes: dict[str, int] = {}
    for member in members:
        for chunk in member.chunks:
            if sizes.setdefault(chunk.digest, chunk.size_bytes) != chunk.size_bytes:
                refuse(f"chunk {chunk.digest}", chunk.size_bytes, "must have one size")


def _fields(value: Any, where: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        refuse(where, value, "must be a JSON object")
    if set(value) != names:
        refuse(where, sorted(value), f"must have exactly the keys {', '.join(sorted(names))}")
    return value


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        refuse(where, value, "must be a JSON array")
    if len(value) > most:
        refuse(where, f"{len(value)} entries", f"must be at most {most}")
    return value


def _member(value: Any, where: str) -> Member:
    content = _fields(value, where, {"chunks", "digest", "path", "size_bytes"})
    chunks = _list(content["chunks"], f"{where}.chunks", MAX_JSON_BYTES)
    return Member(
        path=content["path"],
        digest=content["digest"],
        size_bytes=content["size_bytes"],
        chunks=tuple(_chunk(chunk, f"{where}.chunks[{i}]") for i, chunk in enumerate(chunks)),
    )


def _chunk(value: Any, where: str) -> Chunk:
    if not isinstance(value, list) or len(value) != 2:
        refuse(where, value, "must be [digest, size_bytes]")
    return Chunk(*value)

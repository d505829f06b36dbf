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
import json
import logging
import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, get_args

from agents.export import ARCHITECTURES as POLICY_ARCHITECTURES
from bwe_env.errors import ArtifactError
from experiments.member_paths import clashing_paths, is_plain_text, path_fault

_LOG = logging.getLogger(__name__)

FORMAT = "bwe-env artifact 1"
Kind = Literal["configuration", "model", "policy", "dataset"]

#: What may be stored, by kind: each is read by code of this project that executes nothing.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "configuration": ("sender_settings", "targeting_plan"),
    "model": ("network_model",),
    "policy": POLICY_ARCHITECTURES,
    "dataset": ("calls", "traces"),
}

#: A manifest is read whole; a dataset of 10 GB in chunks of 64 KiB needs 12 MB. Ours.
MAX_MANIFEST_BYTES = 16 * 2**20
#: One blob is held in memory, and is the most that one request of a server has to take. Ours.
MAX_BLOB_BYTES = 2**20
#: All members together: more than any dataset of ours by a factor of 100. Ours.
MAX_ARTIFACT_BYTES = 16 * 2**30
#: Ours: a dataset has a few hundred shards.
MAX_MEMBERS = 10_000
#: Levels of arrays and objects in the metadata. Ours.
MAX_METADATA_DEPTH = 16
#: Whole numbers that every JSON reader keeps exact: RFC 7493 §2.2.
MAX_WHOLE_NUMBER = 2**53 - 1

DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
EMPTY_DIGEST = hashlib.sha256().hexdigest()


class ArtifactRefused(ArtifactError):  # noqa: N818 - reads as what happened: "was refused"
    """Content that a store does not take, or does not hand out.

    Attributes:
        where: the path or field at fault.
        seen: the value found there.
        allowed: what it must be, a clause.
        remedy: what to do next, a sentence; may be empty.
    """

    def __init__(self, where: str, seen: object, allowed: str, remedy: str = "") -> None:
        super().__init__(where, seen, allowed, remedy)
        self.where = where
        self.seen = seen
        self.allowed = allowed
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where} refused: {_short(self.seen)} {self.allowed}."
        return f"{text} {self.remedy}" if self.remedy else text


class NotInStoreError(ArtifactRefused):
    """A digest that a store does not hold."""


class BlobsLackingError(ArtifactRefused):
    """A manifest whose blobs are not all there; `seen` are the digests to send first."""


class ReferenceChangedError(ArtifactRefused):
    """A reference that is no longer what the caller expected; `seen` is what it is now."""


def refuse(
    where: str,
    seen: object,
    allowed: str,
    remedy: str = "",
    *,
    error: type[ArtifactRefused] = ArtifactRefused,
    cause: BaseException | None = None,
) -> NoReturn:
    """Write the refusal into the log and raise it.

    Raises:
        ArtifactRefused: always; of the class `error`.
    """
    refusal = error(where, seen, allowed, remedy)
    _LOG.warning("%s", refusal)
    raise refusal from cause


def _short(value: object) -> str:
    """A value as one line of bounded length, whatever somebody sent."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = shortened.maxlong = 100
    return shortened.repr(value)


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
        _check_size(self.size_bytes, "chunk size_bytes", 1, MAX_BLOB_BYTES)


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
        _check_size(self.size_bytes, f"{where} size_bytes", 0, MAX_ARTIFACT_BYTES)
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
        object.__setattr__(self, "metadata", _checked_json(dict(self.metadata), "metadata"))
        size_bytes = len(self.to_bytes())
        if size_bytes > MAX_MANIFEST_BYTES:
            refuse("manifest", f"{size_bytes} bytes", f"must be at most {MAX_MANIFEST_BYTES} bytes")

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


def canonical_json(content: Any) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8."""
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def parse_json(data: bytes) -> Any:
    """JSON of bounded size, without NaN and without repeated keys.

    Raises:
        ArtifactRefused: it is not.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        refuse("JSON", f"{len(data)} bytes", f"must be at most {MAX_MANIFEST_BYTES} bytes")
    try:
        return json.loads(
            bytes(data).decode(), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except ArtifactRefused:
        raise
    except RecursionError as error:
        refuse("JSON", data[:80], "must not be nested that deep", cause=error)
    except ValueError as error:
        refuse("JSON", data[:80], f"must be JSON in UTF-8 ({error})", cause=error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        refuse("JSON", [key for key, _ in pairs], "must not repeat a key")
    return content


def _no_constant(text: str) -> NoReturn:
    refuse("JSON", text, "must be a finite number (JSON has no other)")


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


def _check_size(value: object, where: str, least: int, most: int) -> None:
    # bool is an int to Python, not to JSON.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        refuse(where, value, f"must be a whole number, {least}..{most}")


def _check_members(members: tuple[Member, ...]) -> None:
    if not 1 <= len(members) <= MAX_MEMBERS:
        refuse("members", len(members), f"must be 1..{MAX_MEMBERS} files")
    clash = clashing_paths(member.path for member in members)
    if clash is not None:
        refuse("member paths", clash, "must differ in more than case, and no file be a folder")
    total_bytes = sum(member.size_bytes for member in members)
    if total_bytes > MAX_ARTIFACT_BYTES:
        refuse("members", f"{total_bytes} bytes", f"must be at most {MAX_ARTIFACT_BYTES} bytes")
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
    chunks = _list(content["chunks"], f"{where}.chunks", MAX_MANIFEST_BYTES)
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


def _checked_json(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of plain JSON values; tuples become lists.

    Raises:
        ArtifactRefused: anything that JSON cannot hold, or not exactly.
    """
    if depth > MAX_METADATA_DEPTH:
        refuse(where, "…", f"must not be nested deeper than {MAX_METADATA_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not is_plain_text(value.replace("\n", "").replace("\t", "")):
            refuse(where, value, "must be text in Unicode NFC without control characters")
        return value
    if isinstance(value, int):
        _check_size(value, where, -MAX_WHOLE_NUMBER, MAX_WHOLE_NUMBER)
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            refuse(where, value, "must be a finite number (JSON has no other)")
        return value
    if isinstance(value, list | tuple):
        return [_checked_json(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _checked_object(value, where, depth)
    return refuse(where, type(value).__name__, "must be a JSON value")


def _checked_object(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str) or not is_plain_text(key):
            refuse(where, key, "must have keys of plain text in Unicode NFC")
    return {key: _checked_json(item, f"{where}.{key}", depth + 1) for key, item in value.items()}

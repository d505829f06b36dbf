"""What HTTP says about versions, parts and writers of a resource, as functions of header texts.

Follows RFC 9110: entity tags (§8.8.3), conditional requests (§13.1), byte ranges (§14); and RFC
6750 for tokens. Every resource of the store is named by the SHA-256 of its bytes or points at one,
so the digest in quotes is its entity tag, always a strong one. Headers are a mapping that ignores
the case of its keys, as Starlette's does.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from bwe_env.errors import BweEnvError
from experiments.manifest import digest_of

#: One entity tag, RFC 9110 §8.8.3: visible ASCII without the quote; we take no `obs-text`.
_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
#: RFC 9110 §14.1.1; the longest number has more digits than any size, and none that takes long.
_BYTE_RANGE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")


class RequestRefused(BweEnvError, ValueError):  # noqa: N818 - as in `ArtifactRefused`
    """A request that is not carried out, and the status code that says why.

    Attributes:
        status: HTTP status code, 400 … 599.
        headers: what the response carries besides the message.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def entity_tag(digest: str) -> str:
    """The entity tag of what has this digest."""
    return f'"{digest}"'


def matches_entity_tag(header: str, digest: str | None, *, is_weak_allowed: bool) -> bool:
    """Whether one of the tags of an If-Match or If-None-Match header names this digest.

    Args:
        header: ``*``, or entity tags separated by commas.
        digest: of the present version; None where there is none, which not even ``*`` matches.
        is_weak_allowed: the weak comparison of If-None-Match; If-Match compares strongly
            (RFC 9110 §13.1.1, §13.1.2).

    Raises:
        RequestRefused: 400, the header is no list of entity tags.
    """
    if header.strip() == "*":
        return digest is not None
    found = False
    for text in header.split(","):
        tag = _ENTITY_TAG.fullmatch(text.strip())
        if tag is None:
            raise RequestRefused(
                400,
                f"{text.strip()[:80]!r} is no entity tag. A condition is '*' or digests in double "
                'quotes, as in If-None-Match: "0123…".',
            )
        found |= tag[2] == digest and (is_weak_allowed or tag[1] is None)
    return found


def byte_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """The part of a resource that a Range header asks for.

    Args:
        header: ``bytes=FIRST-LAST``, ``bytes=FIRST-``, ``bytes=-COUNT``, another unit, or None.
        size_bytes: of the whole resource, >= 0.

    Returns:
        Half-open [start, stop) with 0 <= start < stop <= size_bytes, or None for all of it: without
        the header, and for a unit we do not know, which RFC 9110 §14.2 says to ignore.

    Raises:
        RequestRefused: 416 (RFC 9110 §15.5.17), nothing of the resource lies in the range, it is
            not written as one, or there are several (one answer holds one part).
    """
    if header is None or not header.lower().lstrip().startswith("bytes="):
        return None
    text = header.split("=", 1)[1].strip()
    parts = _BYTE_RANGE.fullmatch(text)
    span = _span(parts[1], parts[2], size_bytes) if parts else None
    if span is None:
        raise RequestRefused(
            416,
            f"range {text[:80]!r} cannot be served from {size_bytes} bytes. Ask for one range: "
            "bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT, with FIRST below the size.",
            {"Content-Range": f"bytes */{size_bytes}"},
        )
    return span


def _span(first: str, last: str, size_bytes: int) -> tuple[int, int] | None:
    """[start, stop) of the two numbers of a range, or None where it means nothing."""
    if not first and not last:
        return None
    if not first:
        start, stop = max(0, size_bytes - int(last)), size_bytes
    else:
        if last and int(last) < int(first):
            return None
        start, stop = int(first), min(size_bytes, int(last) + 1) if last else size_bytes
    return (start, stop) if start < stop else None


def unchanging(digest: str) -> dict[str, str]:
    """Headers of what is named by its content: it can be kept for ever (RFC 8246)."""
    return {"ETag": entity_tag(digest), "Cache-Control": "max-age=31536000, immutable"}


def is_known(headers: Mapping[str, str], digest: str) -> bool:
    """Whether the client has this version already (If-None-Match)."""
    header = headers.get("if-none-match")
    return header is not None and matches_entity_tag(header, digest, is_weak_allowed=True)


def range_header(headers: Mapping[str, str], digest: str) -> str | None:
    """The Range header of a GET, where If-Range (RFC 9110 §13.1.5) lets it apply."""
    condition = headers.get("if-range")
    applies = condition is None or condition == entity_tag(digest)
    return headers.get("range") if applies else None


def check_condition(headers: Mapping[str, str], digest: str | None) -> None:
    """Refuse a write of what is not what the writer thinks.

    Args:
        digest: of what is there; None for nothing.

    Raises:
        RequestRefused: 428 (RFC 6585 §3) the write says nothing about it; 412 it says otherwise.
    """
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is None and none_match is None:
        raise RequestRefused(
            428,
            'say what the reference is to replace: If-Match: "DIGEST", or If-None-Match: * for a '
            "new one. Otherwise two writers could undo each other's work.",
        )
    holds = match is None or matches_entity_tag(match, digest, is_weak_allowed=False)
    if none_match is not None:
        holds &= not matches_entity_tag(none_match, digest, is_weak_allowed=True)
    if not holds:
        present = digest or "not there"
        raise RequestRefused(
            412,
            f"the reference is {present} by now. Look at it before replacing it.",
            {"ETag": entity_tag(digest)} if digest else {},
        )


def check_token(headers: Mapping[str, str], token: str | None) -> None:
    """Refuse who may not write.

    Args:
        token: that of writers; None if there are none.

    Raises:
        RequestRefused: 403 nobody may; 401 (RFC 6750 §3) the token is missing or wrong.
    """
    if token is None:
        raise RequestRefused(
            403, "this server is read-only. Started with a token, it takes writes with it."
        )
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        challenge = {"WWW-Authenticate": "Bearer"}
        raise RequestRefused(401, "writing needs 'Authorization: Bearer TOKEN'.", challenge)
    # Digests have one length: the time of the comparison tells nothing about the token.
    seen, expected = digest_of(given.strip().encode()), digest_of(token.encode())
    if not hmac.compare_digest(seen, expected):
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        raise RequestRefused(401, "the token is not the one of this server.", challenge)

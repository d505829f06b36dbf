"""What HTTP says about versions and parts of a resource, as functions of header texts.

Follows RFC 9110: entity tags (§8.8.3), conditional requests (§13.1), byte ranges (§14). Every
resource of the store is named by the SHA-256 of its bytes or points at one, so the digest in
quotes is its entity tag, always a strong one.
"""

from __future__ import annotations

import re

from bwe_env.errors import BweEnvError

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

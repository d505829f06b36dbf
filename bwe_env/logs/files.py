"""Bytes and JSON of a log file, gzipped or not by what it holds, not by its name."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bwe_env.errors import CallLogFormatError

#: First bytes of a gzip member (RFC 1952 §2.3.1).
_GZIP_MAGIC = b"\x1f\x8b"
#: Deflate with a gzip header and trailer (zlib.h, inflateInit2).
_GZIP_WBITS = zlib.MAX_WBITS | 16


@dataclass(frozen=True)
class LogBytes:
    """What a log file holds."""

    content: bytes
    """unpacked"""
    cut_at: int | None
    """where in the file its gzip data breaks off; None if it is whole, or no gzip data"""


def read_log_bytes(
    path: Path, error_class: type[CallLogFormatError] = CallLogFormatError
) -> LogBytes:
    """A log file, unpacked; of gzip data that breaks off, what comes before.

    Raises:
        error_class: the file cannot be read, or its gzip data is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise error_class(
            f"{path}: the log cannot be read: {error.strerror}; check the path."
        ) from error
    if not data.startswith(_GZIP_MAGIC):
        return LogBytes(data, None)
    return _gunzip(data, path, error_class)


def _gunzip(data: bytes, path: Path, error_class: type[CallLogFormatError]) -> LogBytes:
    """All gzip members one after another (RFC 1952 §2.2)."""
    parts = []
    rest = data
    while rest.startswith(_GZIP_MAGIC):
        unpacker = zlib.decompressobj(wbits=_GZIP_WBITS)
        try:
            parts.append(unpacker.decompress(rest))
        except zlib.error as error:
            raise error_class(
                f"{path}: byte {len(data) - len(rest)}: the gzip data is damaged ({error}); copy "
                "the log again."
            ) from error
        if not unpacker.eof:
            return LogBytes(b"".join(parts), len(data))
        rest = unpacker.unused_data
    if rest.strip(b"\0"):  # zeros may pad the last member, as gzip(1) allows
        raise error_class(
            f"{path}: byte {len(data) - len(rest)}: {len(rest)} bytes behind the gzip data are "
            "none themselves; copy the log again."
        )
    return LogBytes(b"".join(parts), None)


def parse_json_object(data: LogBytes, source: str) -> dict[str, Any]:
    """The JSON object that a log is.

    Raises:
        CallLogFormatError: it breaks off, is not UTF-8, not JSON, or no object.
    """
    if data.cut_at is not None:
        raise CallLogFormatError(
            f"{source}: byte {data.cut_at}: the compressed log is truncated; copy it again."
        )
    try:
        text = data.content.decode("utf-8-sig")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise CallLogFormatError(
            f"{source}: byte {error.start} is not UTF-8 text; the log is damaged, copy it again."
        ) from error
    except json.JSONDecodeError as error:
        byte = len(text[: error.pos].encode())
        raise CallLogFormatError(
            f"{source}: line {error.lineno}, column {error.colno} (byte {byte}): not JSON "
            f"({error.msg}); the log is damaged or breaks off there, copy it again."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting
        raise CallLogFormatError(f"{source}: JSON that cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise CallLogFormatError(f"{source}: a JSON {type(value).__name__}, where a log of a call "
                                 "is an object.")  # fmt: skip
    return value

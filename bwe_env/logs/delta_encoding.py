"""Columns of a batch of events: a base value and packed differences.

libwebrtc writes events of one kind in batches: the first event as plain fields, each column of the
others as one string of bits (logging/rtc_event_log/encoder/delta_encoding.cc), high bits first:

    bits  meaning
    2     kind: 0 unsigned differences of 64-bit values; 1 with the three fields in brackets
    6     width of a difference, minus 1
    [1]   differences are two's complement
    [1]   values are optional: one bit per event follows, 1 where it has a value
    [6]   width of a value, minus 1: values wrap around there

then a difference for each event that has a value. If the base is absent, the first value stands
there whole, as a varint. An empty string says that all events equal the base. RTCP packets are
kept as lengths, one varint each, and then the packets (encoder/blob_encoding.cc).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bwe_env.logs.wire import MAX_VARINT_BYTES, Span, read_varint

_UNSIGNED_64, _WITH_OPTIONS = 0, 1
#: Above any batch of a real log (events of a few seconds); a damaged number must not fill memory.
MAX_DELTAS = 1_000_000


@dataclass(frozen=True)
class Column:
    """One quantity of a batch, base first."""

    values: NDArray[np.uint64]
    """shape (n,); 0 where absent"""
    exists: NDArray[np.bool_]
    """shape (n,)"""


@dataclass
class _BitReader:
    span: Span
    bits: NDArray[np.uint8]
    position: int = 0

    def take(self, count: int) -> NDArray[np.uint8]:
        """The next bits."""
        if self.position + count > len(self.bits):
            raise self.span.error(
                self.span.begin,
                f"packed differences need {self.position + count} bits and have {len(self.bits)}; "
                "the log is damaged.",
            )
        self.position += count
        return self.bits[self.position - count : self.position]

    def number(self, width: int) -> int:
        """The next unsigned number."""
        return int("".join(map(str, self.take(width))), 2)

    def numbers(self, count: int, width: int) -> NDArray[np.uint64]:
        """The next unsigned numbers, all of one width."""
        rows = self.take(count * width).reshape(count, width).astype(np.uint64)
        weights = np.left_shift(np.uint64(1), np.arange(width - 1, -1, -1, dtype=np.uint64))
        numbers: NDArray[np.uint64] = (rows * weights).sum(axis=1, dtype=np.uint64)
        return numbers

    def varint(self) -> int:
        """The next varint; it need not begin at a byte."""
        value = 0
        for index in range(MAX_VARINT_BYTES):
            byte = self.number(8)
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                break
        return value & ((1 << 64) - 1)


def _mask(width: int) -> np.uint64:
    return np.uint64((1 << width) - 1)


def decode_deltas(blob: Span | None, base: int | None, num_deltas: int) -> Column:
    """A column of ``1 + num_deltas`` events.

    Args:
        blob: the packed differences; None or empty if all events equal the base.
        base: value of the first event, None if it has none.
    """
    count = num_deltas + 1
    values = np.full(count, np.uint64(base or 0))
    exists = np.full(count, base is not None)
    if num_deltas == 0 or blob is None or len(blob) == 0:
        return Column(values, exists)
    reader = _BitReader(blob, np.unpackbits(np.frombuffer(blob.content, np.uint8)))
    kind, delta_width = reader.number(2), reader.number(6) + 1
    if kind not in (_UNSIGNED_64, _WITH_OPTIONS):
        raise blob.error(blob.begin, f"encoding {kind} of packed differences is unknown; 0 and 1 "
                         "are known.")  # fmt: skip
    is_signed = is_optional = False
    value_width = 64
    if kind == _WITH_OPTIONS:
        is_signed, is_optional = bool(reader.number(1)), bool(reader.number(1))
        value_width = reader.number(6) + 1
    if delta_width > value_width:
        raise blob.error(blob.begin, f"differences of {delta_width} bits between values of "
                         f"{value_width} make no sense; the log is damaged.")  # fmt: skip
    if is_optional:
        exists[1:] = reader.take(num_deltas).astype(np.bool_)
    present = 1 + np.flatnonzero(exists[1:])
    start = base
    if start is None and len(present):
        start = reader.varint()
        values[present[0]] = start
        present = present[1:]
    deltas = reader.numbers(len(present), delta_width)
    if is_signed:
        is_negative = deltas >> np.uint64(delta_width - 1) == 1
        deltas = np.where(is_negative, deltas | ~_mask(delta_width), deltas)
    # Sums of uint64 wrap at 2^64, which every narrower width divides.
    values[present] = (np.uint64(start or 0) + np.cumsum(deltas)) & _mask(value_width)
    values[~exists] = 0
    return Column(values, exists)


def decode_blobs(blob: Span | None, num_blobs: int) -> list[Span]:
    """The packets behind the first one of a batch."""
    if num_blobs == 0:
        return []
    if blob is None:
        raise ValueError("a batch of several packets has no blobs")
    lengths = []
    offset = blob.begin
    for _ in range(num_blobs):
        length, offset = read_varint(blob, offset)
        lengths.append(length)
    parts = []
    for length in lengths:
        parts.append(blob.part(offset, length, "a packet"))
        offset += length
    return parts

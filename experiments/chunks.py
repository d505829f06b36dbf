"""Content-defined chunks: cuts that depend on the bytes around them, not on where they stand.

A byte inserted or changed moves or changes the chunks next to it, and all others keep their digest;
so the second copy of a slightly changed file costs what changed. The rolling hash is Gear, the
two masks around a normal size are those of FastCDC (Xia et al., USENIX ATC 2016, §3.3-3.4), with a
window of 32 bytes. All of it is whole-number arithmetic modulo 2**32: the same on every machine.

The Gear hash of the 32 bytes up to i is the sum of ``GEAR[byte[i - k]] << k`` over k = 0..31. It is
computed for all i at once by doubling the window five times: a window of 2w is the window of w here
plus the one w bytes earlier, shifted by w.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

#: Bytes that the hash at one place depends on: one bit of a uint32 each.
WINDOW_BYTES = 32
#: Files up to this size are one blob: cutting them saves less than listing the chunks costs. Ours.
WHOLE_FILE_BYTES = 8 * 2**10
#: From this size on, chunks are large: a dataset of 60 MB is then about 900 blobs. Ours.
LARGE_FILE_BYTES = 4 * 2**20
#: Hashed at once: the arrays of one block stay in the processor's cache.
BLOCK_BYTES = 64 * 2**10
#: Read at once from a file.
BUFFER_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class ChunkSizes:
    """How large chunks are. Only the last one of a file may be smaller than `least_bytes`."""

    least_bytes: int
    normal_bits: int
    """the normal size is 2**normal_bits bytes"""
    most_bytes: int

    @property
    def normal_bytes(self) -> int:
        """Below this size cuts are rarer, above more frequent."""
        return 1 << self.normal_bits

    @property
    def strict_mask(self) -> int:
        """High bits that are all zero at a cut below the normal size: 4 times rarer."""
        return _high_bits(self.normal_bits + 2)

    @property
    def loose_mask(self) -> int:
        """High bits that are all zero at a cut above the normal size: 4 times more frequent."""
        return _high_bits(self.normal_bits - 2)


def _high_bits(count: int) -> int:
    # Bit 31 depends on all bytes of the window, bit 0 on one.
    return ((1 << count) - 1) << (WINDOW_BYTES - count)


#: Of models, some 100 kB: a changed tensor costs one chunk and a list of all chunks, 75 bytes each.
#: The sum of both, size + 75 * 185_000 / size, is least at 3.7 kB.
SMALL_CHUNKS = ChunkSizes(least_bytes=2**10, normal_bits=12, most_bytes=2**14)
#: Of datasets: 16 times as large, so that there are not 16 times as many files to write.
LARGE_CHUNKS = ChunkSizes(least_bytes=2**14, normal_bits=16, most_bytes=2**18)

#: One pseudo-random number per byte value, from a hash so that anybody can make them again. Ours.
GEAR = np.array(
    [
        int.from_bytes(hashlib.sha256(b"bwe-env gear %d" % value).digest()[:4], "big")
        for value in range(256)
    ],
    dtype=np.uint32,
)


def chunk_sizes(size_bytes: int) -> ChunkSizes:
    """How a file of this size is cut."""
    return SMALL_CHUNKS if size_bytes < LARGE_FILE_BYTES else LARGE_CHUNKS


def gear_hashes(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The hash of the window that ends with each byte; shorter windows at the beginning.

    Args:
        data: shape (bytes,).

    Returns:
        Shape (bytes,).
    """
    hashes = GEAR[data]
    width = 1
    while width < WINDOW_BYTES:
        # A copy of the right-hand side comes first, so that no sum is read after it was written.
        hashes[width:] += hashes[:-width] << np.uint32(width)
        width *= 2
    return hashes


def _cut_places(data: NDArray[np.uint8], mask: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Where the hash allows a cut: ends of chunks, and the hash there."""
    places, values = [], []
    for first in range(0, len(data), BLOCK_BYTES):
        lead = min(first, WINDOW_BYTES - 1)
        hashes = gear_hashes(data[first - lead : first + BLOCK_BYTES])[lead:]
        found = np.flatnonzero((hashes & np.uint32(mask)) == 0)
        places.append(found + (first + 1))
        values.append(hashes[found])
    return np.concatenate(places), np.concatenate(values)


def chunk_ends(data: bytes | memoryview, sizes: ChunkSizes) -> list[int]:
    """Where each chunk ends; the last end is ``len(data)``. Empty for empty data."""
    if not data:
        return []
    array = np.frombuffer(data, dtype=np.uint8)
    loose, hashes = _cut_places(array, sizes.loose_mask)
    strict = loose[(hashes & np.uint32(sizes.strict_mask)) == 0]
    ends: list[int] = []
    start = 0
    while start < len(data):
        start = _next_end(start, len(data), strict, loose, sizes)
        ends.append(start)
    return ends


def _next_end(
    start: int,
    length: int,
    strict: NDArray[np.int64],
    loose: NDArray[np.int64],
    sizes: ChunkSizes,
) -> int:
    normal = start + sizes.normal_bytes
    index = int(np.searchsorted(strict, start + sizes.least_bytes))
    if index < len(strict) and strict[index] < normal:
        return int(strict[index])
    last = min(start + sizes.most_bytes, length)
    index = int(np.searchsorted(loose, normal))
    return min(int(loose[index]), last) if index < len(loose) else last


def cut_file(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    """The chunks of an open file, in order, with at most `BUFFER_BYTES` and one chunk in memory.

    Args:
        file: opened for reading bytes, at its beginning.
        size_bytes: of the whole file; it decides how large the chunks are.
    """
    if size_bytes <= WHOLE_FILE_BYTES:
        content = file.read()
        if content:
            yield content
        return
    sizes = chunk_sizes(size_bytes)
    pending = b""
    while True:
        read = file.read(BUFFER_BYTES)
        pending += read
        start = 0
        for end in chunk_ends(pending, sizes):
            # A cut depends on nothing but what lies up to `most_bytes` behind the chunk's start.
            if read and start + sizes.most_bytes > len(pending):
                break
            yield pending[start:end]
            start = end
        pending = pending[start:]
        if not read:
            return

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.chunks import (
    BLOCK_BYTES,
    GEAR,
    LARGE_CHUNKS,
    LARGE_FILE_BYTES,
    SMALL_CHUNKS,
    WHOLE_FILE_BYTES,
    WINDOW_BYTES,
    ChunkSizes,
    chunk_ends,
    chunk_sizes,
    cut_file,
    gear_hashes,
)
from experiments.manifest import MAX_BLOB_BYTES

#: Small enough that a plain loop cuts many chunks.
TINY = ChunkSizes(least_bytes=64, normal_bits=8, most_bytes=1024)


def random_bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def naive_hashes(data: bytes) -> list[int]:
    """Gear as the paper writes it: shift, add, keep 32 bits."""
    hashes, value = [], 0
    for byte in data:
        value = ((value << 1) + int(GEAR[byte])) % 2**32
        hashes.append(value)
    return hashes


def naive_ends(data: bytes, sizes: ChunkSizes) -> list[int]:
    """Byte by byte, with the hash begun anew at every chunk, as a streaming chunker does it."""
    ends, start = [], 0
    while start < len(data):
        end = min(start + sizes.most_bytes, len(data))
        for position, value in enumerate(naive_hashes(data[start:end])):
            size = position + 1
            mask = sizes.strict_mask if size < sizes.normal_bytes else sizes.loose_mask
            if size >= sizes.least_bytes and value & mask == 0:
                end = start + size
                break
        ends.append(end)
        start = end
    return ends


def pieces(data: bytes) -> list[bytes]:
    return list(cut_file(io.BytesIO(data), len(data)))


@given(st.binary(max_size=100))
def test_hashes_by_doubling_are_those_of_the_loop(data: bytes) -> None:
    array = np.frombuffer(data, dtype=np.uint8)
    assert gear_hashes(array).tolist() == naive_hashes(data)


def test_a_hash_depends_on_the_last_32_bytes_alone() -> None:
    first, second = random_bytes(200, 1), random_bytes(200, 2)
    tail = random_bytes(WINDOW_BYTES, 3)
    last = [gear_hashes(np.frombuffer(b + tail, dtype=np.uint8))[-1] for b in (first, second)]
    assert last[0] == last[1]
    # The oldest byte counts with the lowest bit of its number alone, which is 0 for half of them.
    others = {
        int(gear_hashes(np.frombuffer(bytes([byte]) + tail[1:], dtype=np.uint8))[-1])
        for byte in range(256)
    }
    assert len(others) == 2


@pytest.mark.parametrize("seed", range(5))
def test_cuts_are_those_of_the_loop_that_begins_anew_at_every_chunk(seed: int) -> None:
    data = random_bytes(20_000, seed)
    assert chunk_ends(data, TINY) == naive_ends(data, TINY)


@pytest.mark.parametrize("byte", [0, 7, 255])
def test_cuts_of_equal_bytes_are_those_of_the_loop(byte: int) -> None:
    data = bytes([byte]) * 5000
    assert chunk_ends(data, TINY) == naive_ends(data, TINY)


def test_blocks_hide_no_cut_at_their_borders() -> None:
    data = random_bytes(3 * BLOCK_BYTES + 17)
    assert chunk_ends(data, TINY) == naive_ends(data, TINY)


def test_the_cuts_of_a_known_file_never_change() -> None:
    # Made again by anybody: SHA-256 of counters. Another result means other digests everywhere.
    data = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(2000))
    assert GEAR[:3].tolist() == [0x751D499A, 0x0A160B10, 0xF67A51A1]
    assert chunk_ends(data, SMALL_CHUNKS)[:6] == [5209, 10664, 16483, 19991, 24727, 29275]


@pytest.mark.parametrize(
    ("size_bytes", "sizes"), [(300_000, SMALL_CHUNKS), (6_000_000, LARGE_CHUNKS)]
)
def test_chunks_join_to_the_file_and_keep_their_sizes(size_bytes: int, sizes: ChunkSizes) -> None:
    data = random_bytes(size_bytes)
    chunks = pieces(data)
    assert b"".join(chunks) == data
    lengths = np.array([len(chunk) for chunk in chunks])
    assert lengths.max() <= sizes.most_bytes <= MAX_BLOB_BYTES
    assert lengths[:-1].min() >= sizes.least_bytes
    # Around the normal size: masks of 4 times and a quarter of its rarity keep the spread small.
    assert 0.8 * sizes.normal_bytes < lengths[:-1].mean() < 1.4 * sizes.normal_bytes


@given(st.binary(max_size=40), st.integers(0, 3))
def test_small_files_are_one_piece_and_empty_ones_none(data: bytes, copies: int) -> None:
    content = data * copies
    assert pieces(content) == ([content] if content else [])


def test_files_at_the_borders_of_the_size_classes_are_cut_as_documented() -> None:
    assert len(pieces(random_bytes(WHOLE_FILE_BYTES))) == 1
    assert chunk_sizes(LARGE_FILE_BYTES - 1) is SMALL_CHUNKS
    assert chunk_sizes(LARGE_FILE_BYTES) is LARGE_CHUNKS


def test_reading_in_pieces_cuts_as_reading_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_bytes(300_000)
    ends = chunk_ends(data, SMALL_CHUNKS)
    for buffer_bytes in (1000, 16_384, 20_000, 299_999, 300_000):
        monkeypatch.setattr("experiments.chunks.BUFFER_BYTES", buffer_bytes)
        assert np.cumsum([len(piece) for piece in pieces(data)]).tolist() == ends


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("change", ["put in", "taken out", "replaced"])
def test_a_change_in_the_middle_changes_few_chunks(seed: int, change: str) -> None:
    data = random_bytes(400_000, seed)
    new = random_bytes(100, seed + 100)
    rest = 200_000 if change == "put in" else 200_100
    changed = data[:200_000] + (b"" if change == "taken out" else new) + data[rest:]
    before = set(pieces(data))
    fresh = [chunk for chunk in pieces(changed) if chunk not in before]
    # The chunk itself and its neighbour, until two cuts coincide again: 2 to 4 of about 95.
    assert 1 <= len(fresh) <= 4
    assert sum(map(len, fresh)) < 0.1 * len(data)

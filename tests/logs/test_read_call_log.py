"""Logs are recognised by what they hold; what is none of them is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bwe_env.errors import CallLogFormatError
from bwe_env.logs import read_call_log

DATA = Path(__file__).parents[1] / "data/chromium"
FILES = {
    "c_loss05_2M_r2.json.gz": "chromium run",
    "c_loss05_2M_r2.rtceventlog.gz": "event log",
    "c_loss05_2M.webrtc_internals_dump.json.gz": "webrtc-internals",
}


@pytest.mark.parametrize("name", FILES)
def test_a_log_is_recognised_by_its_content_whatever_its_name(name: str, tmp_path: Path) -> None:
    packed = (DATA / name).read_bytes()
    for number, data in enumerate((packed, gzip.decompress(packed))):
        path = tmp_path / f"log{number}"
        path.write_bytes(data)
        call = read_call_log(path)
        assert call.source == FILES[name]
        assert call.telemetry["sent_packets"].sum() > 2_000
        assert call.interval_s == (1.0 if call.source == "webrtc-internals" else 0.1)
        # Ground truth only where the link is known.
        is_truth = call.source == "chromium run"
        for truth in (
            call.capacity_bps,
            call.queue_delay_ms,
            call.reported_random_packets,
            call.reported_congestion_packets,
        ):
            assert (truth is not None) == is_truth
            assert truth is None or truth.shape == call.telemetry.shape


@pytest.mark.parametrize("name", FILES)
def test_a_byte_order_mark_or_blanks_before_json_do_not_matter(name: str, tmp_path: Path) -> None:
    data = gzip.decompress((DATA / name).read_bytes())
    path = tmp_path / "marked"
    path.write_bytes(b"\xef\xbb\xbf" + b" \n" + data)
    if FILES[name] == "event log":
        with pytest.raises(CallLogFormatError):
            read_call_log(path)
    else:
        assert read_call_log(path).source == FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused_or_told(name: str, tmp_path: Path) -> None:
    packed = (DATA / name).read_bytes()
    path = tmp_path / "cut"
    for data in (packed, gzip.decompress(packed)):
        for length in range(1, len(data), len(data) // 25):
            path.write_bytes(data[:length])
            try:
                call = read_call_log(path)
            except CallLogFormatError:
                continue
            assert call.source == "event log"  # JSON that breaks off is none
            assert "breaks off" in call.warnings[0] or "not closed" in call.warnings[0]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_a_compressed_log_is_refused(name: str, tmp_path: Path) -> None:
    packed = (DATA / name).read_bytes()
    path = tmp_path / "flipped"
    for position in range(12, len(packed), len(packed) // 25):
        damaged = bytearray(packed)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            call = read_call_log(path)
        except CallLogFormatError:
            continue
        assert "breaks off" in call.warnings[0]  # the end of the compressed data was not found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: the log is empty"),
        (b"time,rate\n", "no RTC event log|damaged"),
        (b"[1, 2]", "a JSON list, where a log of a call is an object"),
        (b'{"a": 1, "b": 2}', "neither a recorded run .* it has a, b"),
        (b'{"PeerConnections": {"a": 1,}}', r"line 1, column 29 \(byte 28\): not JSON"),
        ('{"ä": tru'.encode(), r"line 1, column 7 \(byte 7\): not JSON"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8 text"),
        (b"[" * 200_000, "JSON that cannot be read"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "JSON that cannot be read"),
        (gzip.compress(b"{}")[:-4], "byte 18: the compressed log is truncated|log is empty"),
        (gzip.compress(b"{}") + b"rest", "byte 22: 4 bytes behind the gzip data"),
    ],
)
def test_what_is_no_log_is_refused_with_its_place(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(CallLogFormatError, match=message):
        read_call_log(path)


def test_files_that_are_not_there_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CallLogFormatError, match="none: the log cannot be read: No such file"):
        read_call_log(tmp_path / "none")
    with pytest.raises(CallLogFormatError, match="cannot be read: Is a directory"):
        read_call_log(tmp_path)


def test_a_log_in_two_members_of_gzip_is_read_whole(tmp_path: Path) -> None:
    data = gzip.decompress((DATA / "c_loss05_2M_r2.json.gz").read_bytes())
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(data[:1_000]) + gzip.compress(data[1_000:]) + bytes(16))
    assert read_call_log(path).source == "chromium run"

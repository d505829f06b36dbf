"""Trace files are read exactly, and every kind of damage is named with file, line and value."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.errors import TraceFormatError, UnknownNameError
from bwe_env.trace import Trace, read_csv, read_directory, read_losses, read_mahimahi

CSV = "time_s,capacity_bps\n0.000,120000\n0.100,2640000\n0.350,0\n"


def write(directory: Path, text: str, name: str = "t.csv") -> Path:
    path = directory / name
    path.write_text(text)
    return path


# --- CSV ---


def test_a_csv_file_becomes_the_trace_it_describes(tmp_path: Path) -> None:
    trace = read_csv(write(tmp_path, CSV), network_type="wifi", duration_s=0.5)
    assert trace.name == "t"
    assert trace.network_type == "wifi"
    assert trace.source == str(tmp_path / "t.csv")
    assert trace.duration_us.tolist() == [100_000, 250_000, 150_000]
    assert trace.capacity_bps.tolist() == [120_000, 2_640_000, 0]


def test_from_csv_is_read_csv(tmp_path: Path) -> None:
    path = write(tmp_path, CSV)
    options = {"network_type": "wifi", "name": "n", "source": "s", "duration_s": 0.4}
    trace = Trace.from_csv(path, **options)  # type: ignore[arg-type]
    assert trace == read_csv(path, **options)  # type: ignore[arg-type]


def test_a_gzipped_csv_is_the_same_trace(tmp_path: Path) -> None:
    plain = read_csv(write(tmp_path, CSV), network_type="wifi", source="s")
    zipped = tmp_path / "t.csv.gz"
    zipped.write_bytes(gzip.compress(CSV.encode()))
    assert read_csv(zipped, network_type="wifi", source="s") == plain


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode())
    assert read_csv(path, network_type="wifi").capacity_bps.tolist() == [120_000, 2_640_000, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv: the file is empty; expected 'time_s,capacity_bps' and points"),
        ("\n\n", r"t\.csv: the file is empty"),
        ("0,1\n1,2\n", r"t\.csv:1: expected the header 'time_s,capacity_bps', got '0,1'\. Put it"),
        ("time_s,capacity_bps\n", r"t\.csv:2: no points follow the header"),
        (CSV + "1.0\n", r"t\.csv:5: expected two numbers .* got '1\.0'; remove blank lines"),
        (CSV + "\n1.0,5\n", r"t\.csv:5: expected two numbers .* got ''; remove blank lines"),
        (CSV + "1.0,5,6\n", r"t\.csv:5: .* got '1\.0,5,6'; remove blank lines and further col"),
        (CSV + "1.0,fast\n", r"t\.csv:5: capacity_bps='fast' is not a number; mend the line"),
        (CSV + "soon,5\n", r"t\.csv:5: time_s='soon' is not a number"),
        (CSV + "1.0,nan\n", r"t\.csv:5: capacity_bps='nan' is not a finite number; remove the li"),
        (CSV + "inf,5\n", r"t\.csv:5: time_s='inf' is not a finite number"),
        (CSV + "1.0,-7\n", r"t\.csv:5: capacity_bps=-7: capacity -7 bps is negative; an outage i"),
        (CSV + "1.0,1e13\n", r"t\.csv:5: capacity_bps=1e13: .* above 1e\+12.*Mend the unit"),
        (CSV + "1.0,0.01\n", r"t\.csv:5: capacity_bps=0\.01: .* an outage is written as 0"),
        (CSV + "0.35,5\n", r"t\.csv:5: time_s=0\.35 does not come after 0\.350000 of the line"),
        (CSV + "0.2,5\n", r"t\.csv:5: time_s=0\.2 does not come after 0\.350000 .*; sort the po"),
        ("time_s,capacity_bps\n0,0\n1,0\n", r"t\.csv: every capacity is 0, .*; leave the trace"),
        ("time_s,capacity_bps\n0,5\n", r"t\.csv: trace 't': one point alone has no duration; giv"),
        (CSV + "0.3500001,5\n", r"t\.csv: trace 't': times must increase by at least 1 us"),
    ],
)
def test_a_damaged_csv_is_refused_with_file_line_value_and_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(TraceFormatError, match=re.escape(str(tmp_path)) + "/" + message):
        read_csv(write(tmp_path, text), network_type="wifi")


def test_a_duration_that_ends_before_the_last_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match=r"t\.csv:4: the trace is said to last 0\.35 s, but"):
        read_csv(write(tmp_path, CSV), network_type="wifi", duration_s=0.35)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match=r"none\.csv: no such file; check the path"):
        read_csv(tmp_path / "none.csv", network_type="wifi")
    with pytest.raises(TraceFormatError, match=r"is a directory; one trace is a file"):
        read_csv(tmp_path, network_type="wifi")
    binary = tmp_path / "b.csv"
    binary.write_bytes(b"time\xff\xfe")
    with pytest.raises(TraceFormatError, match=r"b\.csv: byte 4 is not UTF-8 text"):
        read_csv(binary, network_type="wifi")
    for content in (b"plain text", gzip.compress(CSV.encode())[:-9]):
        damaged = tmp_path / "d.csv.gz"
        damaged.write_bytes(content)
        with pytest.raises(TraceFormatError, match=r"d\.csv\.gz: not a whole gzip file .*fetch it"):
            read_csv(damaged, network_type="wifi")


@given(st.text(max_size=60))
def test_no_text_whatever_ends_in_another_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "t.csv"
        path.write_text("time_s,capacity_bps\n" + text, encoding="utf-8", errors="replace")
        for read in (read_csv, read_mahimahi):
            try:
                understood = read(path, network_type="wifi").mean_bps > 0
            except TraceFormatError as error:
                understood = str(path) in str(error)
            assert understood


# --- a directory with a manifest ---


def entry(directory: Path, **changes: object) -> dict[str, object]:
    """A manifest entry for `CSV`, and the file itself."""
    write(directory, CSV, "a.csv")
    values = {"name": "a", "file": "a.csv", "network_type": "5G", "duration_s": 0.5} | changes
    return {key: value for key, value in values.items() if value is not None}


def write_manifest(directory: Path, entries: object) -> None:
    (directory / "manifest.json").write_text(json.dumps(entries))


def test_a_directory_is_read_as_its_manifest_says(tmp_path: Path) -> None:
    digest = hashlib.sha256(CSV.encode()).hexdigest()
    first = entry(tmp_path, dataset="d", direction="up", source_repo="r", sha256=digest, other=1)
    write_manifest(tmp_path, [first, entry(tmp_path, name="b", duration_s=0.4)])
    a, b = read_directory(tmp_path)
    assert (a.name, a.network_type, a.source) == ("a", "5G", "d, up, r")
    assert (b.name, b.source) == ("b", str(tmp_path / "a.csv"))
    assert (a.duration_s, b.duration_s) == (0.5, 0.4)
    assert a.capacity_bps.tolist() == [120_000, 2_640_000, 0]


def test_durations_count_from_the_first_point(tmp_path: Path) -> None:
    write_manifest(tmp_path, [entry(tmp_path)])
    write(tmp_path, "time_s,capacity_bps\n1700000000.0,5\n1700000000.25,6\n", "a.csv")
    assert read_directory(tmp_path)[0].duration_us.tolist() == [250_000, 250_000]


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"trace directory '.*none' does not exist; give a"):
        read_directory(tmp_path / "none")
    with pytest.raises(UnknownNameError, match=r"is a file, not a directory"):
        read_directory(write(tmp_path, CSV))
    with pytest.raises(TraceFormatError, match=r"manifest\.json: no such file\. It lists the trac"):
        read_directory(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, r"entry 0 \(None\): key 'name' is missing; every trace needs name, file"),
        ({"duration_s": None}, r"entry 0 \('a'\): key 'duration_s' is missing"),
        ({"name": 5}, r"entry 0: name must be a non-empty string, got 5"),
        ({"file": ""}, r"entry 0: file must be a non-empty string, got ''"),
        ({"duration_s": "long"}, r"entry 0 \(a\)\.duration_s='long' must be a finite number"),
        ({"duration_s": 0.1}, r"a\.csv:4: the trace is said to last 0\.1 s"),
        (
            {"network_type": "wify"},
            r"entry 0 \(a\): unknown network type 'wify'\. Did you mean 'wi",
        ),
        ({"file": "b.csv"}, r"entry 0 \(a\): file 'b\.csv' is not in .*; restore it, or take"),
        ({"sha256": "00ff"}, r"a\.csv is not the file the manifest describes \(sha256 .*fetch"),
    ],
)
def test_a_damaged_manifest_entry_is_refused_by_its_number(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    write_manifest(tmp_path, [entry(tmp_path, **changes)])
    with pytest.raises(TraceFormatError, match=message):
        read_directory(tmp_path)


def test_a_manifest_that_lists_no_traces_is_refused(tmp_path: Path) -> None:
    for content in ({}, [], "traces"):
        write_manifest(tmp_path, content)
        with pytest.raises(TraceFormatError, match=r"expected a JSON array with one object per"):
            read_directory(tmp_path)
    write_manifest(tmp_path, ["a.csv"])
    with pytest.raises(TraceFormatError, match=r"entry 0: expected an object, got 'a\.csv'"):
        read_directory(tmp_path)
    (tmp_path / "manifest.json").write_text('[\n{"name": }\n]')
    with pytest.raises(TraceFormatError, match=r"manifest\.json:2: not JSON \(Expecting value at"):
        read_directory(tmp_path)


def test_two_traces_of_one_name_are_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, [entry(tmp_path), entry(tmp_path)])
    with pytest.raises(TraceFormatError, match=r"manifest\.json: two traces are called 'a'; give"):
        read_directory(tmp_path)


# --- Losses ---


def test_losses_may_stand_together_or_apart_with_notes_between_them(tmp_path: Path) -> None:
    path = write(tmp_path, "# a call\n0100\n\n1 0\r\n# 1111\n1\n", "losses")
    assert read_losses(path) == (False, True, False, False, True, False, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("010\n0 2\n", r":2: '2' is neither 0 \(the packet arrives\) nor 1 \(it is lost\)"),
        ("0.5\n", r":1: '\.' is neither"),
        ("# nothing\n", "no packet in it; expected a 0 or a 1 for each"),
    ],
)
def test_anything_but_losses_is_refused_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(TraceFormatError, match=message):
        read_losses(write(tmp_path, text, "losses"))


# --- Mahimahi ---


def test_a_mahimahi_file_holding_only_1_is_12_mbps(tmp_path: Path) -> None:
    trace = read_mahimahi(write(tmp_path, "1\n", "one"), network_type="pattern")  # mm-link(1)
    assert trace.duration_us.tolist() == [1000]
    assert trace.capacity_bps.tolist() == [12e6]


def test_mahimahi_opportunities_fall_into_their_bins(tmp_path: Path) -> None:
    # Period 310 ms, bins [0, 100), [100, 200), [200, 310]: the end belongs to the last one.
    text = "0\n0\n99\n100\n310\n310\n"
    trace = read_mahimahi(write(tmp_path, text, "m"), network_type="4G-LTE")
    assert trace.duration_us.tolist() == [100_000, 100_000, 110_000]
    assert trace.capacity_bps.tolist() == pytest.approx([360e3, 120e3, 2 * 12_000 / 0.11])
    assert (trace.name, trace.network_type) == ("m", "4G-LTE")


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=200).filter(lambda times: max(times) > 0),
    st.sampled_from([0.001, 0.02, 0.1, 1.0]),
)
def test_mahimahi_bits_of_a_round_are_kept(times: list[int], bin_s: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        text = "".join(f"{time}\n" for time in sorted(times))
        path = write(Path(directory), text, "m")
        trace = read_mahimahi(path, network_type="4G-LTE", bin_s=bin_s)
    assert trace.period_us == max(times) * 1000
    assert trace.mean_bps * trace.duration_s == pytest.approx(len(times) * 12_000, rel=1e-9)
    assert np.all(trace.duration_us[:-1] == round(bin_s * 1e6))
    if max(times) >= bin_s * 1000:
        assert 0.5e6 * bin_s <= trace.duration_us[-1] <= 1.5e6 * bin_s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"m: the file is empty; expected one delivery time per line"),
        ("5\n4.5\n", r"m:2: expected one non-negative integer \(milliseconds\), got '4\.5'\. Mah"),
        ("5\n-6\n", r"m:2: expected one non-negative integer .* got '-6'"),
        ("5\n\n6\n", r"m:2: expected one non-negative integer .* got ''"),
        ("5\nnan\n", r"m:2: expected one non-negative integer .* got 'nan'"),
        ("0.000,120000\n", r"m:1: .* a CSV of \(time_s,capacity_bps\) is read with Trace\.from_"),
        ("5\n7\n6\n", r"m:3: time 6 ms comes before 7 ms of the line before; sort the file"),
        ("0\n0\n", r"m:2: the last time is 0 ms, so the period is 0; the last line must say"),
    ],
)
def test_a_damaged_mahimahi_file_is_refused_with_file_line_value_and_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(TraceFormatError, match=re.escape(str(tmp_path)) + "/" + message):
        read_mahimahi(write(tmp_path, text, "m"), network_type="wifi")


def test_a_bin_below_the_resolution_of_mahimahi_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match=r"bin_s=0\.0001 is below 0\.001 s"):
        read_mahimahi(write(tmp_path, "1\n", "m"), network_type="wifi", bin_s=0.0001)

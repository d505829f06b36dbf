"""``python -m experiments.validate gcc`` says what agrees, differs, or cannot be read."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from experiments.validate import main
from experiments.validate_gcc import FLOORS, Row, compare, replay

DATA = Path(__file__).resolve().parents[1] / "data/gcc"
NAME = "overuse_start"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    for suffix in ("events", "out"):
        shutil.copy(DATA / f"{NAME}.{suffix}.csv.gz", tmp_path)
    return tmp_path


def edit(path: Path, line_number: int, old: str, new: str) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    assert old in lines[line_number]
    lines[line_number] = lines[line_number].replace(old, new, 1)
    path.write_bytes(gzip.compress("".join(lines).encode()))


def test_agreement_is_one_line_per_recording_and_exit_code_0(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["gcc", str(DATA)]) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(DATA.glob("*.events.csv.gz")))
    assert all(line.endswith("; agrees") and " rows, worst errors: " in line for line in lines)
    assert f"{len(lines)} of {len(lines)} recordings agree on all {len(FLOORS)} columns" in summary


def test_a_column_that_differs_is_named_with_row_and_values_and_exit_code_1(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The last row: t_us, ev, target …
    edit(recording / f"{NAME}.out.csv.gz", -1, ",F,260908,", ",F,261008,")
    assert main(["gcc", str(recording)]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS first in row 61 (F at 2975000 us), target_bps: 260908 instead of 261008" in out
    assert "target_bps 3.8e-04" in out
    assert "0 of 1 recordings agree" in out


def test_a_missing_row_is_a_difference(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording / f"{NAME}.out.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    path.write_bytes(gzip.compress("".join(lines[:-1]).encode()))
    assert main(["gcc", str(recording)]) == 1
    assert "F at 2975000 us instead of no row" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line_number", "old", "new", "message"),
    [
        (0, "G,", "X,", "begins with its G line"),
        (5, "S,", "Z,", "unknown event 'Z'"),
        (5, "S,", "S,a", "cannot be read"),
        (0, "pacing_factor=1.1", "pacing_factor=99", "pacing_factor=99.0 must be a number"),
    ],
)
def test_a_broken_recording_ends_with_one_message_and_exit_code_2(
    recording: Path,
    capsys: pytest.CaptureFixture[str],
    line_number: int,
    old: str,
    new: str,
    message: str,
) -> None:
    edit(recording / f"{NAME}.events.csv.gz", line_number, old, new)
    assert main(["gcc", str(recording)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_directory_without_recordings_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gcc", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no NAME.events.csv.gz" in capsys.readouterr().err


def test_a_recording_without_its_result_is_refused(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recording / f"{NAME}.out.csv.gz").unlink()
    assert main(["gcc", str(recording)]) == 2
    assert "has no overuse_start.out.csv.gz beside it" in capsys.readouterr().err


# --- Damaged and empty recordings -----------------------------------------------------------------


def write_pair(directory: Path, events: bytes, rows: bytes) -> None:
    """A pair of files as they are, compressed."""
    (directory / "x.events.csv.gz").write_bytes(gzip.compress(events))
    (directory / "x.out.csv.gz").write_bytes(gzip.compress(rows))


HEADER = ("t_us,ev," + ",".join(FLOORS) + "\n").encode()


@pytest.mark.parametrize(
    ("events", "rows"),
    [
        (b"G,start_bps=300000\n", HEADER),  # nothing to compare
        (b"", HEADER),
        (b"G,start_bps=300000\nA,99999\n", HEADER),  # a line cut short
        (b"G,start_bps=300000\nT,99999,unknown=1\n", HEADER),
        (b"G,start_bps=300000\nP,0\n", b""),
    ],
)
def test_recordings_that_say_nothing_or_break_off_are_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], events: bytes, rows: bytes
) -> None:
    write_pair(tmp_path, events, rows)
    assert main(["gcc", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_recording_whose_compression_is_damaged_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, b"G,start_bps=300000\n" + b"P,0\n" * 1000, HEADER)
    path = tmp_path / "x.events.csv.gz"
    data = bytearray(path.read_bytes())
    data[20:24] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert main(["gcc", str(tmp_path)]) == 2
    assert "x.events.csv.gz" in capsys.readouterr().err


def test_a_probe_with_another_id_differs_and_one_with_a_rate_one_bit_off_does_not() -> None:
    def row(*probe: float) -> Row:
        values = dict.fromkeys(FLOORS, (0.0,)) | {"probes": probe}
        return Row(0, "F", values)

    recorded = (1.0, 900_000.0, 15_000.0, 2_000.0, 5.0)
    assert compare("x", iter([row(*recorded)]), iter([row(*recorded)])).agrees
    near = (1.0, 900_001.0, 15_000.0, 2_000.0, 5.0)
    assert compare("x", iter([row(*near)]), iter([row(*recorded)])).agrees
    for index in (0, 2, 3, 4):
        other = list(recorded)
        other[index] += 1.0
        assert not compare("x", iter([row(*other)]), iter([row(*recorded)])).agrees


def test_a_streams_line_changes_what_the_controller_may_ask_for() -> None:
    lines = ["G,start_bps=300000,pacing_factor=1.1", "T,0,pacing_factor=2.0", "A,0,1"]
    last = list(replay(iter(lines)))[-1]
    controller_pacing = last.values["pacing_bps"][0]
    assert controller_pacing == pytest.approx(2.0 * last.values["target_bps"][0], rel=1e-3)

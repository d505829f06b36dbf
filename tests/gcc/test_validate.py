"""``python -m experiments.validate gcc`` says what agrees, differs, or cannot be read."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from experiments.validate import main
from experiments.validate_gcc import FLOORS

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

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bwe_env.errors import ConfigError
from experiments.tables import make_table, refuse_existing, show, write_csv


def test_columns_come_back_from_a_csv_file_to_the_last_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=5)
    names = ["a", "b,c", 'd"', "e", "f"]
    write_csv(tmp_path / "x.csv", {"name": names, "value": values})
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert [float(row["value"]) for row in rows] == values.tolist()


def test_columns_of_different_length_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_csv(tmp_path / "x.csv", {"a": [1, 2], "b": [1]})
    assert not (tmp_path / "x.csv").exists()


def test_an_existing_file_stays_unless_overwriting_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    refuse_existing(path, overwrite=False)
    path.write_text("")
    with pytest.raises(ConfigError, match=r"exists already .* --overwrite"):
        refuse_existing(path, overwrite=False)
    refuse_existing(path, overwrite=True)


def test_a_file_in_no_directory_or_that_is_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; make it"):
        refuse_existing(tmp_path / "no" / "x.csv", overwrite=True)
    with pytest.raises(ConfigError, match="is a directory"):
        refuse_existing(tmp_path, overwrite=True)


def test_what_is_shown_is_written_word_for_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_table("a [title]", ["name", "value"], [["x", "1.0 [0.5, 1.5]"]])
    show(table, "a line", file=tmp_path / "t.txt")
    printed = capsys.readouterr().out
    assert "1.0 [0.5, 1.5]" in printed
    assert "a line" in printed
    assert (tmp_path / "t.txt").read_text() == printed

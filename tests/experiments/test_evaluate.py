from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bwe_env.metrics import CALL_COLUMNS, FIELD_METRICS
from experiments.evaluate import main
from tests.experiments.test_networks import write_traces


def evaluate(*argv: str) -> int:
    return main([*argv, "--duration-s", "3", "--seeds", "2", "--num-threads", "1"])


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_trace_and_seed_is_one_row_with_every_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = write_traces(tmp_path / "traces", sessions=3)
    out = tmp_path / "gcc.csv"
    assert evaluate("--estimator", "gcc", "--traces", str(traces), "--out", str(out)) == 0
    rows = read(out)
    assert set(rows[0]) == set(CALL_COLUMNS)
    assert {(row["network"], row["seed"]) for row in rows} == {
        (f"rec{i}__c{j}", seed) for i in range(3) for j in range(2) for seed in ("0", "1")
    }
    assert len(rows) == 12
    printed = capsys.readouterr().out
    assert "at most 6 Mbps, calls of 3 s" in printed
    assert "4G-LTE" in printed
    assert "contested: the capacity is below the maximum rate" in printed
    for name in FIELD_METRICS:
        assert name in printed


def test_the_same_command_gives_the_same_file(tmp_path: Path) -> None:
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for file in files:
        assert evaluate("--estimator", "gcc", "--networks", "6", "--out", str(file)) == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_rate_policy_meets_the_same_calls_as_gcc(tmp_path: Path) -> None:
    for name in ("gcc", "constant:300000"):
        out = tmp_path / f"{name}.csv"
        assert evaluate("--estimator", name, "--networks", "6", "--out", str(out)) == 0
    keys = [
        [(row["network"], row["seed"], row["mean_capacity_bps"]) for row in read(tmp_path / name)]
        for name in ("gcc.csv", "constant:300000.csv")
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--estimator", "gc"], "unknown estimator 'gc'. Did you mean 'gcc'?"),
        (["--estimator", "runs/nothing"], "unknown run directory 'runs/nothing'"),
        (["--estimator", "constant:1"], "outside the call's range"),
        (["--estimator", "gcc", "--traces", "no/such"], "'no/such' does not exist"),
        (["--estimator", "gcc", "--split", "tets"], "Did you mean 'test'?"),
        (["--estimator", "gcc", "--out", "no/such/file.csv"], "does not exist; make it"),
        (["--estimator", "gcc", "--max-rate-bps", "1000"], "max_rate_bps=1000 must be"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_message(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("", "the file is empty"),
        ("time_s,capacity_bps\n", "no points follow the header"),
        ("time_s,capacity_bps\n0,-1\n1,5\n", "negative"),
        ("time_s,capacity_bps\n0,nan\n1,5\n", "nan"),
        ("time_s,capacity_bps\n1,1000\n0,1000\n", "does not come after"),
        ("a,b,c\n1,2,3\n", "expected the header"),
    ],
)
def test_a_bad_trace_ends_with_code_2_and_names_the_file(
    tmp_path: Path, points: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = write_traces(tmp_path / "traces", sessions=3)
    (traces / "rec1__c0.csv").write_text(points)
    assert evaluate("--estimator", "gcc", "--traces", str(traces)) == 2
    error = capsys.readouterr().err
    assert "rec1__c0.csv" in error
    assert message in error


def test_a_scenario_file_is_played_with_the_calls_that_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "".join(
            f"[{name}]\ntrace = {{ time_s = [0], capacity_bps = [{rate}], end_s = {duration_s} }}\n"
            f"call = {{ duration_s = {duration_s}, max_rate_bps = 4_000_000 }}\n"
            for name, rate, duration_s in (("slow", 400_000, 6), ("fast", 3_000_000, 8))
        )
    )
    out = tmp_path / "calls.csv"
    command = ["--estimator", "gcc", "--scenarios", str(file), "--seeds", "2"]
    assert main([*command, "--out", str(out)]) == 0
    with out.open() as rows:
        calls = list(csv.DictReader(rows))
    assert [(row["network"], float(row["duration_s"])) for row in calls] == [
        ("slow", 6.0),
        ("slow", 6.0),
        ("fast", 8.0),
        ("fast", 8.0),
    ]
    assert all(float(row["mean_target_bps"]) < 4e5 for row in calls[:2])
    assert all(float(row["mean_target_bps"]) > 4e5 for row in calls[2:])
    printed = capsys.readouterr().out
    assert "2 scenarios in" in printed
    assert main([*command, "--networks", "3"]) == 2
    assert "leave out --networks" in capsys.readouterr().err


def test_an_existing_result_is_not_overwritten_without_saying_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.csv"
    out.write_text("precious")
    assert evaluate("--estimator", "gcc", "--networks", "2", "--out", str(out)) == 2
    assert out.read_text() == "precious"
    assert "exists already" in capsys.readouterr().err
    argv = ["--estimator", "gcc", "--networks", "2", "--out", str(out), "--overwrite"]
    assert evaluate(*argv) == 0
    assert len(read(out)) == 4

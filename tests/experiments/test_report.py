"""A report of small models from end to end: what it holds, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.network_tasks import TASKS
from experiments import model_online
from experiments.collect import CollectConfig, collect_simulated
from experiments.fit import main as fit
from experiments.model_study import study_models
from experiments.report import main as report

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SMALL = ["--epochs", "1", "--seeds", "0", "1", "--batch-size", "128"]


@pytest.fixture(scope="module")
def runs(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of each task, of all together, and of congestion by its series alone."""
    root = tmp_path_factory.mktemp("reported") / "runs"
    options = [*SMALL, "--dataset", str(small_dataset), "--runs-dir", str(root)]
    for task in (*TASKS, "multi"):
        assert fit([*options, "--task", task]) == 0
    assert fit([*options, "--task", "congestion", "--inputs", "series"]) == 0
    return sorted(path.parent for path in root.glob("*/run.json"))


@pytest.mark.slow
def test_a_report_scores_all_contestants_on_the_same_windows_and_the_models_in_calls(
    runs: list[Path],
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(model_online, "ALTERNATING_SEEDS", 1)
    options = ["--dataset", str(small_dataset), "--out", str(tmp_path / "out"), "--threads", "1"]
    assert report(["models", *map(str, runs), *options]) == 0
    told = capsys.readouterr().out
    page = (tmp_path / "out" / "models.html").read_text()
    rows = json.loads((tmp_path / "out" / "models.json").read_text())["scores"]
    assert {row["task"] for row in rows} == set(TASKS)
    for task in TASKS:
        of_task = [row for row in rows if row["task"] == task]
        expected = {"model", "rule", "multi-task"}
        expected |= {"bitrate only"} if task == "random_loss" else set()
        expected |= {"series only"} if task == "congestion" else set()
        assert {row["contestant"] for row in of_task} == expected
        for subset in {row["subset"] for row in of_task}:
            assert len({row["windows"] for row in of_task if row["subset"] == subset}) == 1
        assert all(len(row["by_seed"]) == 2 for row in of_task if row["contestant"] == "model")
    for text in ("Lead time on the alternating link", "multi-task model", "all single-task models"):
        assert text in told
        assert text in page


def test_models_say_in_calls_what_they_say_of_the_dataset(
    runs: list[Path], small_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_online, "ALTERNATING_SEEDS", 1)
    chosen = [run for run in runs if run.name == "network_type-001"]
    found = study_models(
        chosen, dataset=small_dataset, logs=(), online=True, threads=1, command="test"
    )
    [row] = found.online
    # Calls and dataset differ by float32 alone, which may turn a class now and then.
    assert row.online.mean == pytest.approx(row.offline.mean, abs=0.02)
    assert row.truth == "the simulator alone"


def test_runs_of_another_dataset_are_refused(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = collect_simulated(
        CollectConfig(train=2, validation=2, test=2, out=tmp_path / "other"), quiet=True
    )
    assert report(["models", str(runs[0]), "--dataset", str(other)]) == 2
    assert "may have been trained on" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["models", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_no_run_at_all_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        report(["models"])
    assert ended.value.code == 2
    assert "at least one run" in capsys.readouterr().err

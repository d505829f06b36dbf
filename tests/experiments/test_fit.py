"""A fit leaves models that can be repeated, goes on where it stopped, and refuses other data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.network_model import load_network_model, read_network_manifest
from agents.network_tasks import TASKS, window_of
from bwe_env.errors import ArtifactError, ConfigError
from experiments import fit as fitting
from experiments import model_training
from experiments.dataset import read_calls, read_manifest
from experiments.fit import FitConfig, main, model_folders, run_key
from experiments.model_scores import answers_of
from experiments.model_training import predict
from experiments.run_directory import RunDirectory, fingerprint, write_json
from experiments.samples import make_samples

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SMALL = ["--epochs", "2", "--torch-threads", "1", "--batch-size", "128"]


def fit(dataset: Path, *argv: str) -> int:
    return main([*SMALL, "--dataset", str(dataset), *argv])


@pytest.fixture(scope="module")
def run(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of the congestion model; not to be written into."""
    runs = tmp_path_factory.mktemp("fitted") / "runs"
    assert (
        fit(small_dataset, "--task", "congestion", "--seeds", "0", "1", "--runs-dir", str(runs))
        == 0
    )
    return runs / "congestion-001"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / run.name)


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def weights(run: Path, seed: int) -> bytes:
    return (run / f"seed-{seed}" / "network_model.safetensors").read_bytes()


# --- What is left ---------------------------------------------------------------------------------


def test_a_run_leaves_a_model_and_its_course_for_every_seed(run: Path, small_dataset: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "run.json", "tensorboard", "seed-0", "seed-1"} <= names
    for seed in (0, 1):
        folder = run / f"seed-{seed}"
        assert {path.name for path in folder.iterdir()} == {
            *("history.json", "network_model.json", "network_model.safetensors"),
        }
        extra = read_network_manifest(folder)["extra"]
        assert extra["seed"] == seed
        assert extra["dataset"] == read_manifest(small_dataset)["key"] == run_key(run)
        epochs = read(folder / "history.json")["epochs"]
        assert len(epochs) == extra["epochs"]
        assert 1 <= extra["best_epoch"] <= 2
        assert {"train/loss", "validation/loss", "validation/congestion"} == set(epochs[0])
    assert weights(run, 0) != weights(run, 1)
    assert model_folders(run) == [run / "seed-0", run / "seed-1"]


def test_tensorboard_shows_the_losses_of_every_epoch_and_the_final_score(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / "seed-1")).Reload()
    assert set(events.Tags()["scalars"]) == {
        *("train/loss", "validation/loss", "validation/congestion"),
        "validation/congestion/roc_auc",
    }
    history = read(run / "seed-1" / "history.json")["epochs"]
    logged = events.Scalars("validation/loss")
    assert [event.step for event in logged] == list(range(1, len(history) + 1))
    np.testing.assert_allclose(
        [event.value for event in logged], [row["validation/loss"] for row in history], rtol=1e-6
    )


def test_the_score_that_is_told_is_that_of_the_stored_model_on_the_validation_windows(
    run: Path, small_dataset: Path
) -> None:
    model = load_network_model(run / "seed-0")
    assert tuple(model.config.tasks) == ("congestion",)
    samples = make_samples("congestion", read_calls(small_dataset, ["validation"]), learn=True)
    (scores,) = answers_of([model], samples)
    positive, negative = scores[samples.labels == 1], scores[samples.labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    told = read_network_manifest(run / "seed-0")["extra"]["validation"]["congestion/roc_auc"]
    # Other sizes of batches change the last bits, and so perhaps a tie or two.
    assert told == pytest.approx(wins.mean(), abs=1e-3)


def test_neither_training_nor_stopping_reads_the_test_networks(
    small_dataset: Path, tmp_path: Path, run: Path
) -> None:
    without = shutil.copytree(small_dataset, tmp_path / "calls")
    (without / "test-000.npz").unlink()
    argv = ["--task", "congestion", "--seeds", "0", "--runs-dir", str(tmp_path)]
    assert fit(without, *argv) == 0
    assert weights(tmp_path / "congestion-001", 0) == weights(run, 0)


def test_one_model_answers_all_tasks_from_the_longest_window(
    small_dataset: Path, tmp_path: Path
) -> None:
    argv = ["--task", "multi", "--inputs", "dense", "--seeds", "3", "--runs-dir", str(tmp_path)]
    assert fit(small_dataset, *argv) == 0
    folder = tmp_path / "multi-dense-001" / "seed-3"
    model = load_network_model(folder)
    assert tuple(model.config.tasks) == tuple(TASKS)
    assert model.config.window_bins == window_of(tuple(TASKS)) == 100
    assert set(read_network_manifest(folder)["extra"]["validation"]) == {
        *("random_loss/roc_auc", "congestion/roc_auc", "network_type/macro_f1"),
        "bursty_loss/roc_auc",
    }
    calls = read_calls(small_dataset, ["test"])
    for task in TASKS.values():
        samples = make_samples(task.name, calls, learn=False, window_bins=100)
        assert predict(model, samples).shape == (len(samples), len(task.outputs))


# --- Going on -------------------------------------------------------------------------------------


def test_an_interrupted_run_keeps_its_models_and_goes_on_with_the_others(
    copy: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "seed-1" / "network_model.json").unlink()  # what is written last
    kept = {path: path.stat().st_mtime_ns for path in (copy / "seed-0").iterdir()}
    # Other options than those of the run are not taken.
    assert main(["--resume", str(copy), "--epochs", "9", "--seeds", "7"]) == 0
    assert "seed 0: done before" in capsys.readouterr().out
    assert kept == {path: path.stat().st_mtime_ns for path in (copy / "seed-0").iterdir()}
    assert not (copy / "seed-7").exists()
    assert weights(copy, 1) == weights(run, 1)
    assert read(copy / "seed-1" / "history.json") == read(run / "seed-1" / "history.json")
    assert len(RunDirectory.open(copy).record["resumed"]) == 1


def test_ctrl_c_ends_with_130_and_leaves_no_half_model(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_model = model_training.train_model

    def interrupted(*args: Any, seed: int, **options: Any) -> model_training.TrainedModel:
        if seed == 1:
            raise KeyboardInterrupt
        return train_model(*args, seed=seed, **options)

    argv = ["--task", "congestion", "--seeds", "0", "1", "--runs-dir", str(tmp_path)]
    with monkeypatch.context() as context:
        context.setattr(model_training, "train_model", interrupted)
        assert fit(small_dataset, *argv) == 130
    run = tmp_path / "congestion-001"
    assert model_folders(run) == [run / "seed-0"]
    assert main(["--resume", str(run)]) == 0
    assert model_folders(run) == [run / "seed-0", run / "seed-1"]


def test_what_an_interrupted_seed_showed_in_tensorboard_is_not_shown_beside_the_new_course(
    copy: Path,
) -> None:
    shutil.rmtree(copy / "seed-1")  # its events stay behind, as after Ctrl-C
    assert main(["--resume", str(copy)]) == 0
    assert len(list((copy / "tensorboard" / "seed-1").iterdir())) == 1
    assert len(list((copy / "tensorboard" / "seed-0").iterdir())) == 1


def test_a_dataset_that_is_another_now_is_refused_before_anything_is_trained(
    copy: Path, small_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(small_dataset, tmp_path / "calls")
    write_json(other / "manifest.json", {**read_manifest(other), "key": "f" * 64})
    config = {**read(copy / "config.json"), "dataset": str(other)}
    write_json(copy / "config.json", config)
    record = read(copy / "run.json")
    write_json(copy / "run.json", {**record, "config_fingerprint": fingerprint(config)})
    shutil.rmtree(copy / "seed-1")
    assert main(["--resume", str(copy)]) == 2
    captured = capsys.readouterr()
    assert str(other) in captured.err
    assert "was fitted on dataset" in captured.err
    assert "--traces" not in captured.err
    assert "windows of" not in captured.out
    assert not (copy / "seed-1").exists()
    assert RunDirectory.open(copy).record["resumed"] == []


# --- Wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--resume", "no/such"], "unknown run directory 'no/such'"),
        (["--dataset", "no/such"], "no dataset in no/such"),
    ],
)
def test_what_is_not_there_ends_with_code_2_and_one_message(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--runs-dir", str(tmp_path), *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--task", "weather"], "weather"),
        (["--seeds", "1", "1"], "must be different"),
        (["--seeds", "-1"], "must be different"),
        (["--torch-threads", "0"], "torch_threads must be at least 1"),
        (["--colour", "blue"], "--colour"),
    ],
)
def test_wrong_options_end_with_code_2(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--runs-dir", str(tmp_path), *argv])
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [["--epochs", "0"], ["--learning-rate", "-1"]])
def test_impossible_trainings_are_refused_before_a_run_is_made(
    argv: list[str], small_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(small_dataset, "--runs-dir", str(tmp_path), *argv) == 2
    assert "windows of" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_without_a_dataset_the_default_one_is_collected(
    small_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "collect_simulated", lambda config: small_dataset)
    config = FitConfig(task="congestion")
    data = fitting.load_data(config, fitting.dataset_of(config))
    assert data.dataset == small_dataset
    assert data.key == read_manifest(small_dataset)["key"]
    names = [set(data.train["congestion"].networks), set(data.validation["congestion"].networks)]
    assert not names[0] & names[1]


def test_models_are_listed_by_seed_and_a_run_without_any_is_told_how_to_go_on(
    tmp_path: Path,
) -> None:
    with pytest.raises(ArtifactError, match=r"holds no network models; .*--resume"):
        model_folders(tmp_path)
    for seed in (10, 2, 0):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        (folder / "network_model.json").touch()
    (tmp_path / "seed-3").mkdir()  # begun, not done
    assert [path.name for path in model_folders(tmp_path)] == ["seed-0", "seed-2", "seed-10"]


def test_names_of_runs_tell_task_and_inputs() -> None:
    assert FitConfig(task="random_loss").run_name == "random_loss"
    assert FitConfig(task="multi", inputs="series").run_name == "multi-series"
    with pytest.raises(ConfigError, match="seeds"):
        FitConfig(seeds=())

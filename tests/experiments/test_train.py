from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.guard import GuardedPolicy
from agents.tags import explains
from bwe_env import rfc8867
from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.observation import NUM_FEATURES
from experiments import evaluate, policy_statistics
from experiments.compare_results import read_comparison
from experiments.contenders import find_contender
from experiments.run_directory import RunDirectory, write_json
from experiments.train import TrainConfig, derived_seed, main, resumed_config
from tests.experiments.test_networks import write_traces

ROOT = Path(__file__).resolve().parents[2]

#: A run of a few seconds: 4,096 decisions in calls of 4 s.
SMALL = [
    *("--total-steps", "4096", "--validate-every-steps", "2048"),
    *("--train-networks", "12", "--validation-networks", "6", "--test-networks", "6"),
    *("--test-seeds", "0", "--num-threads", "1", "--call.duration-s", "4"),
    *("--ppo.num-envs", "16", "--ppo.batch-size", "512", "--ppo.torch-threads", "1"),
]


def train(*argv: str) -> int:
    return main([*SMALL, *argv])


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("trained") / "runs"
    assert train("--runs-dir", str(runs)) == 0
    return runs / "ppo-001"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_needed_to_understand_and_repeat_it(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert names == {
        *("config.json", "run.json", "checkpoints", "policy", "tensorboard"),
        *("progress.csv", "validations.csv", "calls.csv", "summary.csv", "profiles.csv"),
        *("compare.json", "compare.txt"),
    }
    assert {path.name for path in (finished_run / "policy").iterdir()} == {
        "policy.json",
        "policy.safetensors",
    }
    assert [path.name for path in (finished_run / "checkpoints").iterdir()] == ["last.zip"]
    assert any((finished_run / "tensorboard").iterdir())
    assert len(rows(finished_run / "validations.csv")) == 2


def test_the_final_table_compares_the_agent_with_baselines_on_the_same_test_calls(
    finished_run: Path,
) -> None:
    calls: dict[str, list[tuple[str, str]]] = {}
    for row in rows(finished_run / "calls.csv"):
        calls.setdefault(row["estimator"], []).append((row["network"], row["seed"]))
    controllers = list(calls)
    assert controllers[:2] == ["PPO", "gcc"]
    assert controllers[2:4] == ["gcc-tuned", "gcc-short-window"]
    assert controllers[4].startswith("constant:")
    assert controllers[5:] == ["oracle"]
    assert all(played == calls["PPO"] for played in calls.values())
    assert {name.split("-")[0] for name, _ in calls["PPO"]} == {"test"}
    text = (finished_run / "compare.txt").read_text()
    for word in (*controllers, "PPO - gcc", "reward/s", "call score", "freeze %", "95 %"):
        assert word in text
    found = read_comparison(finished_run)
    assert [estimator.label for estimator in found.estimators] == controllers
    assert (found.reference, found.oracle) == ("gcc", "oracle")
    differences = [value for value in found.values if value.statistic == "difference"]
    assert {value.estimator for value in differences} == set(controllers) - {"gcc"}
    for value in found.values:
        assert not value.low > value.high


def read_events(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return events


def test_tensorboard_ends_with_the_test_calls_of_the_kept_policy_beside_gcc(
    finished_run: Path,
) -> None:
    events = read_events(finished_run)
    table = rows(finished_run / "calls.csv")
    manifest = json.loads((finished_run / "policy" / "policy.json").read_text())
    for column in ("call_score", "freeze_ratio", "one_way_delay_ms_p95"):
        means = {}
        for label in ("PPO", "gcc"):
            values = [float(row[column]) for row in table if row["estimator"] == label]
            means[label] = sum(values) / len(values)
        (value,) = events.Scalars(f"test/{column}")
        (difference,) = events.Scalars(f"test_minus_gcc/{column}")
        assert value.value == pytest.approx(means["PPO"], rel=1e-5)
        assert difference.value == pytest.approx(means["PPO"] - means["gcc"], abs=1e-4)
        assert value.step == manifest["extra"]["steps"]


def test_the_terms_of_the_validation_reward_add_up_to_it(finished_run: Path) -> None:
    events = read_events(finished_run)
    for total, group in (
        ("validation", "validation_reward"),
        ("validation_minus_gcc", "validation_reward_minus_gcc"),
    ):
        tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(f"{group}/")]
        assert len(tags) == 6
        sums = np.sum([[event.value for event in events.Scalars(tag)] for tag in tags], axis=0)
        rewards = [event.value for event in events.Scalars(f"{total}/mean_reward")]
        assert sums == pytest.approx(rewards, abs=1e-6)


def test_every_tag_of_a_run_is_explained_in_its_own_text_panel(finished_run: Path) -> None:
    tags = read_events(finished_run).Tags()
    shown = [*tags["scalars"], *tags["images"]]
    assert {"call/worst", "call/median", "call/best"} <= set(shown)
    assert [tag for tag in shown if not explains(tag)] == []
    assert "about/tags/text_summary" in tags["tensors"]


def test_a_trained_run_is_evaluated_by_its_directory(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "agent.csv"
    argv = ["--networks", "6", "--seeds", "1", "--duration-s", "4", "--out", str(out)]
    assert evaluate.main(["--estimator", str(finished_run), *argv]) == 0
    again = {row["network"]: row["mean_reward"] for row in rows(out)}
    during = {
        row["network"]: row["mean_reward"]
        for row in rows(finished_run / "calls.csv")
        if row["estimator"] == "PPO"
    }
    assert again == during


def test_a_trained_run_can_be_guarded_by_what_it_saw_in_training(
    finished_run: Path, tmp_path: Path
) -> None:
    manifest = json.loads((finished_run / "policy" / "policy.json").read_text())
    shares = manifest["statistics"]["guarded_share"]
    assert set(shares) == {"off_distribution", "overshoot", "any"}
    assert manifest["statistics"]["calls"] == 12
    contender = find_contender(f"guarded:{finished_run}", CallConfig(duration_s=4.0))
    assert isinstance(contender.controller, GuardedPolicy)
    out = tmp_path / "guarded.csv"
    argv = ["--networks", "3", "--seeds", "1", "--duration-s", "4", "--out", str(out)]
    assert evaluate.main(["--estimator", f"guarded:{finished_run}", *argv]) == 0
    assert len(rows(out)) == 3
    with pytest.raises(ConfigError, match="only a trained policy can be guarded"):
        find_contender("guarded:gcc", CallConfig())


def test_statistics_that_are_measured_later_are_those_of_training(
    finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(finished_run, run)
    path = run / "policy" / "policy.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in before.items() if k != "statistics"}))
    with pytest.raises(ArtifactError, match=r"experiments\.policy_statistics RUN"):
        find_contender(f"guarded:{run}", CallConfig(duration_s=4.0))
    assert policy_statistics.main([str(run)]) == 0
    assert json.loads(path.read_text()) == before


def test_a_trained_run_plays_a_suite_at_the_rates_it_learnt(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = rfc8867.published_case("rfc8867-5.4")
    short = replace(case, call=replace(case.call, duration_s=30.0))
    monkeypatch.setitem(rfc8867.SUITES, "rfc8867", (short,))
    argv = ["--suite", "rfc8867", "--seeds", "1", "--num-threads", "1"]
    assert evaluate.main(["--estimator", str(finished_run), *argv]) == 0
    printed = capsys.readouterr().out
    assert "target rates 30 to 6000 kbps as the policy was trained for" in printed
    assert "under GCC" not in printed  # all media flows are under the policy
    assert evaluate.main(["--estimator", "ppo", *argv]) == 0
    assert "as the policy was trained for" in capsys.readouterr().out


def test_a_trained_run_is_not_evaluated_at_rates_it_never_learnt(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--estimator", str(finished_run), "--max-rate-bps", "2000000"]
    assert evaluate.main(argv) == 2
    assert "Give --max-rate-bps 6000000" in capsys.readouterr().err


def test_a_checkpoint_of_another_environment_version_is_refused_everywhere(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    copy = tmp_path / "old-001"
    shutil.copytree(finished_run, copy)
    for path, key in ((copy / "run.json", "environment"), (copy / "policy/policy.json", None)):
        content = json.loads(path.read_text())
        content[key or "environment"] = "BandwidthEstimation-v99"
        write_json(path, content)
    assert main(["--resume", str(copy)]) == 2
    assert evaluate.main(["--estimator", str(copy)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("BandwidthEstimation-v99" in line and "rain anew" in line for line in errors)


def test_a_second_run_never_touches_the_first(finished_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished_run.rglob("*")}
    assert train("--runs-dir", str(finished_run.parent), "--total-steps", "1024") == 0
    assert (finished_run.parent / "ppo-002" / "compare.txt").exists()
    assert before == {p: p.stat().st_mtime_ns for p in finished_run.rglob("*")}


def test_a_finished_run_can_be_trained_on(finished_run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "more-001"
    shutil.copytree(finished_run, copy)
    assert main(["--resume", str(copy), "--total-steps", "6144", "--num-threads", "1"]) == 0
    steps = [float(row["steps"]) for row in rows(copy / "validations-1.csv")]
    assert steps[-1] == 6144
    assert (copy / "progress-1.csv").exists()
    assert len(RunDirectory.open(copy).record["resumed"]) == 1


def test_a_recurrent_run_is_selected_resumed_and_evaluated(tmp_path: Path) -> None:
    recurrent = ("--ppo.memory", "lstm", "--ppo.lstm-size", "16", "--observation.history", "1")
    assert train("--runs-dir", str(tmp_path), *recurrent) == 0
    run = tmp_path / "ppo-001"
    manifest = json.loads((run / "policy" / "policy.json").read_text())
    assert manifest["architecture"] == "lstm"
    assert manifest["lstm"]["inputs"] == NUM_FEATURES
    assert main(["--resume", str(run), "--total-steps", "6144"]) == 0
    assert len(rows(run / "validations-1.csv")) >= 1
    out = tmp_path / "calls.csv"
    argv = ["--networks", "3", "--seeds", "1", "--duration-s", "4", "--out", str(out)]
    assert evaluate.main(["--estimator", str(run), *argv]) == 0
    assert len(rows(out)) == 3


def test_a_resumed_run_keeps_its_own_configuration(finished_run: Path) -> None:
    run = RunDirectory.open(finished_run)
    resumed = resumed_config(TrainConfig(resume="x", total_steps=9999, num_threads=1), run)
    assert resumed.total_steps == 9999
    assert resumed.ppo.num_envs == 16
    assert resumed.call.duration_s == 4
    with pytest.raises(ConfigError, match=r"--seed 3 differs from 0 .* drop the option"):
        resumed_config(TrainConfig(resume="x", seed=3), run)


def test_training_on_measured_traces_uses_all_of_them_split_by_recording(tmp_path: Path) -> None:
    traces = write_traces(tmp_path / "traces", sessions=5)
    runs = tmp_path / "runs"
    argv = ["--traces", str(traces), "--runs-dir", str(runs), "--total-steps", "1024"]
    assert train(*argv) == 0
    tested = {row["network"] for row in rows(runs / "ppo-001" / "calls.csv")}
    assert tested
    assert all(name.startswith("rec") for name in tested)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--resume", "runs/nothing"], "unknown run directory"),
        (["--traces", "no/such"], "'no/such' does not exist"),
        (["--name", "../x"], "becomes a folder"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_message(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--runs-dir", str(tmp_path), *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_seeds_of_different_runs_and_parts_do_not_meet() -> None:
    seeds = [derived_seed("train", seed, part) for seed in range(50) for part in range(4)]
    gaps = sorted(b - a for a, b in zip(sorted(seeds), sorted(seeds)[1:], strict=False))
    assert gaps[0] > 4096  # more sub-envs than any run has


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = [sys.executable, "-u", "-m", "experiments.train", *SMALL, "--runs-dir", str(runs)]
    command += ["--total-steps", "100000000"]
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs inherit an ignored SIGINT, which Python would leave ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "validation reward" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    run = runs / "ppo-001"
    assert process.returncode == 130, error
    assert f"python -m experiments.train --resume {run}" in error
    assert "Traceback" not in error
    assert (run / "checkpoints" / "last.zip").exists()
    record = json.loads((run / "policy" / "policy.json").read_text())
    assert record["extra"]["steps"] >= 2048

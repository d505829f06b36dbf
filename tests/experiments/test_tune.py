"""The command line of tuning, and of the picture that is made from it, with calls made up.

That trials are what GCC plays is tested in `test_tuning_trials`.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bwe_env.labels import NETWORK_CLASSES
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import TargetingPlan
from experiments import tradeoff, tune
from experiments.tune import TuneConfig
from experiments.tuning_networks import GLOBAL, TARGETS
from experiments.tuning_results import read_tests
from experiments.tuning_study import ROUND
from experiments.tuning_trials import MEASURED, Task
from tests.experiments.inline_executor import InlineExecutor

OPTIONS = [
    "--trials", "8", "--networks", "5", "--validation", "5", "--test", "2", "--candidates", "1",
    "--duration-s", "5",
]  # fmt: skip
FILES = {
    "configuration.json",
    "pareto.png",
    "plan.json",
    "results.csv",
    "results.txt",
    "study.log",
    "test_calls.csv",
    "trials.csv",
}


def pretended(task: Task) -> dict[str, np.ndarray]:
    """Calls in which a shallow back-off brings quality everywhere, and freezes to slow networks."""
    names, classes = [], []
    for name in task.networks.classes:
        each = -(-task.networks.count // len(task.networks.classes))
        names += [f"{task.networks.split}-{name}-{i}" for i in range(each)]
        classes += [name] * each
    noise = np.array([sum(map(ord, name)) % 7 / 100.0 for name in names])
    factor = task.overrides.get("gcc.decrease_factor", 0.85)
    columns = {name: np.zeros(len(names)) for name in MEASURED}
    columns["video_mos"] = 2.0 + factor + noise
    columns["call_score"] = 1.5 + factor + noise
    columns["freeze_ratio"] = (
        0.1 + noise + 0.1 * factor * np.array([name == "cellular-low" for name in classes])
    )
    columns["one_way_delay_ms_p95"] = 100.0 + 100.0 * noise
    once = {
        "network": np.array(names),
        "network_type": np.array(classes),
        "seed": np.zeros(len(names), dtype=np.int64),
        "network_class": np.array(classes),
        **columns,
    }
    return {
        name: np.concatenate([column] * len(task.seeds))
        if name != "seed"
        else np.repeat(np.array(task.seeds), len(names))
        for name, column in once.items()
    }


def run(out: Path, *options: str, executor: InlineExecutor | None = None) -> int:
    executor = executor or InlineExecutor(play=pretended)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "make_executor", lambda *_, **__: executor)
        return tune.main([*OPTIONS, "--out", str(out), *options])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All targets."""
    out = tmp_path_factory.mktemp("tune") / "all"
    assert run(out) == 0
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_that_is_promised_is_written(tuned: Path):
    assert {path.name for path in tuned.iterdir()} == FILES
    assert (tuned / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_configuration_holds_overrides_that_a_sender_takes(tuned: Path):
    content = json.loads((tuned / "configuration.json").read_text())
    assert list(content["overrides"]) == sorted(TARGETS)
    for overrides in content["overrides"].values():
        settings = SenderSettings().with_overrides(overrides)
        SenderSettings().check_reachable("tuned", settings)
    assert "call_score" in content["rule"]
    assert content["inputs"]["networks"][GLOBAL]["train"]["count"] == 5
    assert set(content) == {
        "format",
        "inputs",
        "objectives",
        "overrides",
        "rule",
        "space",
        "targets",
    }


def test_the_plan_sets_what_was_chosen_for_each_type(tuned: Path):
    overrides = json.loads((tuned / "configuration.json").read_text())["overrides"]
    plan = TargetingPlan.read(tuned / "plan.json")
    assert plan.base == {}
    assert plan.network_type is not None
    expected = {name: overrides[name] for name in NETWORK_CLASSES if overrides[name]}
    told = json.loads((tuned / "plan.json").read_text())["network_type"]["settings"]
    assert told == expected


def test_every_trial_of_every_target_is_a_row_and_the_first_is_the_default(tuned: Path):
    rows = rows_of(tuned / "trials.csv")
    assert len(rows) == ROUND * len(TARGETS)
    firsts = [row for row in rows if row["trial"] == "0"]
    assert [row["target"] for row in firsts] == list(TARGETS)
    assert {row["overrides"] for row in firsts} == {"{}"}
    assert {row["delay_ratio"] for row in firsts} == {"1.0"}


def test_results_hold_the_whole_matrix(tuned: Path):
    cells = {(row["tuned_for"], row["run_on"]) for row in rows_of(tuned / "results.csv")}
    assert {(target, name) for target in TARGETS for name in NETWORK_CLASSES} <= cells
    text = (tuned / "results.txt").read_text()
    assert "call_score on test networks: tuned for (row), run on (column)" in text
    assert "per-type minus global" in text


def test_test_calls_are_read_back_as_they_were_written(tuned: Path):
    tests = read_tests(tuned / "test_calls.csv")
    assert tests.targets == TARGETS
    assert tests.classes == NETWORK_CLASSES
    assert all(len(calls["call_score"]) == 2 * 3 for calls in tests.calls.values())


def test_the_same_inputs_give_the_same_bytes_whatever_the_workers(tmp_path: Path):
    for name, seed in (("first", None), ("second", 3)):
        executor = InlineExecutor(play=pretended, shuffle_seed=seed)
        assert run(tmp_path / name, "--targets", "wifi", executor=executor) == 0
    for name in ("configuration.json", "plan.json", "trials.csv", "results.csv", "test_calls.csv"):
        first, second = (
            (tmp_path / run_name / name).read_bytes() for run_name in ("first", "second")
        )
        assert first == second, name


def test_the_same_folder_with_other_networks_is_refused(
    tuned: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(tuned, "--networks", "6", "--targets", "wifi") == 2
    assert "'wifi' was made with other networks" in capsys.readouterr().err


def test_an_interrupted_command_ends_as_such_and_its_executor_is_closed(tmp_path: Path):
    executor = InlineExecutor(play=pretended, interrupt_after=4)
    assert run(tmp_path / "cut", "--targets", "wifi", executor=executor) == 130
    assert executor.is_closed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--targets", "wify"), "Did you mean 'wifi'"),
        (("--targets", "wifi", "wifi"), "none of them twice"),
        (("--trials", "0"), "--trials must be at least 1"),
        (("--delay-slack", "-1"), "--delay-slack"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    tmp_path: Path, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
):
    assert run(tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err


def test_quick_never_makes_anything_larger():
    config = TuneConfig(quick=True, networks=3)
    assert config.networks == 3
    assert config.trials < TuneConfig().trials


# --- The picture ----------------------------------------------------------------------------------


def test_the_picture_comes_with_its_text(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tradeoff, "play", pretended)
    out = tmp_path / "tradeoff.png"
    assert tradeoff.main([str(tuned), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "tradeoff.txt").read_text()
    assert f"{ROUND - 1} global trials against the default" in text
    assert "On test networks, per-type against the default" in text
    # Every trial pays for quality with freezes in this world.
    assert "+1.00. A global change that helps the one tends to cost the other." in text


def test_a_picture_that_exists_stays(tuned: Path, tmp_path: Path):
    out = tmp_path / "tradeoff.png"
    out.write_bytes(b"mine")
    assert tradeoff.main([str(tuned), "--out", str(out)]) == 2
    assert out.read_bytes() == b"mine"


def test_a_folder_without_a_tuning_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert tradeoff.main([str(tmp_path), "--out", str(tmp_path / "x.png")]) == 2
    assert "experiments.tune has finished" in capsys.readouterr().err

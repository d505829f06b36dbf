"""The search for targeting plans, on made-up outcomes: rounds, resuming, the choice, the record."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from agents.targeting import PLAN_FILE
from bwe_env.errors import ArtifactError
from bwe_env.targeting import TargetingPlan
from experiments import tune_plans as module
from experiments.plan_trials import GUARDED, WANTED, PlanOutcome, PlanTask
from experiments.tune_plans import ROUND, TunePlansConfig, complete, open_study, tune_plans
from tests.experiments.inline_executor import InlineExecutor


def made_up(task: PlanTask) -> PlanOutcome:
    """The later an alarm goes off, the better: by 10 % at a threshold of 0.9; a placebo is bad."""
    gain = 10.0 * task.plan["congestion"]["threshold"] / 0.9
    good = {**dict.fromkeys(GUARDED, -gain), "video_mos": gain}
    good |= {name: sign * gain for name, sign in WANTED["congestion"].items()}
    bad = {name: -change for name, change in good.items()}
    return PlanOutcome(treatment={"congestion": good}, placebo={"congestion": bad})


def harmful(task: PlanTask) -> PlanOutcome:
    """The same on train networks, and the other way round elsewhere."""
    its = made_up(task)
    if task.split == "train":
        return its
    return PlanOutcome(treatment=its.placebo, placebo=its.treatment)


def all_alike(task: PlanTask) -> PlanOutcome:
    """Whatever the plan, as if it were the best."""
    return made_up(dataclasses.replace(task, plan={"congestion": {"threshold": 0.9}}))


def config(folder: Path, out: str = "out", **options: Any) -> TunePlansConfig:
    model = folder / "models" / "congestion"
    model.mkdir(parents=True, exist_ok=True)
    (model / "weights").write_text("1")
    names = {"plans": ("congestion",), "trials": 3 * ROUND, "candidates": 3} | options
    return TunePlansConfig(models=folder / "models", out=folder / out, **names)


def run(monkeypatch: pytest.MonkeyPatch, its: TunePlansConfig, executor: InlineExecutor) -> None:
    monkeypatch.setattr(module, "make_executor", lambda name, workers: executor)
    tune_plans(its)


def values(its: TunePlansConfig) -> list[dict[str, Any]]:
    return [trial.params for trial in complete(open_study(its, "congestion"))]


def record(its: TunePlansConfig) -> Any:
    return json.loads((its.out / "congestion" / "tuning.json").read_text())


def test_the_best_on_validation_networks_is_written_and_test_networks_are_not_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    its, executor = config(tmp_path), InlineExecutor(play=made_up)
    run(monkeypatch, its, executor)
    assert [item.split for item in executor.items] == ["train"] * 3 * ROUND + ["validation"] * 3
    plan = TargetingPlan.read(its.out / "congestion" / PLAN_FILE)
    thresholds = [trial["congestion/threshold"] for trial in values(its)]
    assert plan.congestion is not None
    assert plan.congestion.threshold == pytest.approx(max(thresholds), abs=5e-4)
    assert record(its)["unmet_on_validation"] == []
    assert record(its)["started_from"] is None


def test_what_is_found_depends_on_no_order_and_no_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = config(tmp_path, "a"), config(tmp_path, "b")
    run(monkeypatch, straight, InlineExecutor(play=made_up))
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, broken, InlineExecutor(play=made_up, interrupt_after=ROUND))
    run(monkeypatch, broken, InlineExecutor(play=made_up, shuffle_seed=1))
    assert values(broken) == values(straight)
    assert record(broken)["validation"] == record(straight)["validation"]


def test_of_equally_good_plans_the_first_is_taken_whichever_finishes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = []
    for seed in range(3):
        its = config(tmp_path, f"{seed}")
        run(monkeypatch, its, InlineExecutor(play=all_alike, shuffle_seed=seed))
        chosen.append(record(its)["chosen_trial"])
    assert len(set(chosen)) == 1


def test_a_plan_that_fails_on_validation_networks_is_told_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    its = config(tmp_path)
    run(monkeypatch, its, InlineExecutor(play=harmful))
    assert "the best there is does not meet: congestion guards (lacks" in capsys.readouterr().out
    assert len(record(its)["unmet_on_validation"]) == 3


def test_a_search_that_starts_from_another_plays_its_best_first_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = config(tmp_path, "first")
    run(monkeypatch, first, InlineExecutor(play=made_up))
    second = config(tmp_path, "second", start_from=first.out, trials=ROUND, networks=7)
    run(monkeypatch, second, InlineExecutor(play=made_up))
    best = sorted((t["congestion/threshold"] for t in values(first)), reverse=True)[:3]
    assert [t["congestion/threshold"] for t in values(second)][:3] == pytest.approx(best)
    assert record(second)["started_from"]["trials"] == 3
    assert record(second)["started_from"]["inputs"]["task"]["count"] == first.networks


def test_a_search_does_not_go_on_with_other_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = config(tmp_path)
    run(monkeypatch, its, InlineExecutor(play=made_up))
    (its.models / "congestion" / "weights").write_text("2")
    with pytest.raises(ArtifactError, match=r"made with other models\."):
        run(monkeypatch, its, InlineExecutor(play=made_up))

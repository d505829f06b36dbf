"""The search: what it finds depends on its seed alone, and an interrupted one goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from bwe_env.errors import ArtifactError
from experiments.tuning_networks import NetworkList
from experiments.tuning_space import KNOBS
from experiments.tuning_study import (
    ROUND,
    Finished,
    Search,
    finished_trials,
    open_storage,
    search_all,
)
from experiments.tuning_trials import MEASURED, Task
from tests.experiments.inline_executor import InlineExecutor

TARGET = "wifi"
#: Two dimensions, so that a search is a matter of a second.
KNOBS_HERE = tuple(
    knob for knob in KNOBS if knob.name in ("gcc.decrease_factor", "gcc.increase_factor_per_s")
)
TASKS = {TARGET: Task(networks=NetworkList(split="train", target=TARGET, count=2))}


def pretended(task: Task) -> dict[str, np.ndarray]:
    """Calls of a simple world: a deep back-off costs quality, a shallow one freezes and delay."""
    factor = task.overrides.get("gcc.decrease_factor", 0.85)
    growth = task.overrides.get("gcc.increase_factor_per_s", 1.08)
    columns = {name: np.zeros(2) for name in MEASURED}
    columns["video_mos"] = np.array([2.0, 3.0]) + factor + growth
    columns["freeze_ratio"] = np.full(2, 0.1 * factor**4)
    columns["one_way_delay_ms_p95"] = np.full(2, 100.0 * growth)
    return {"network_class": np.array([TARGET] * 2), **columns}


def search_in(directory: Path, **options) -> Search:
    storage = open_storage(directory / "study.log")
    return Search(TARGET, storage, inputs={"a": 1}, knobs=KNOBS_HERE, **options)


def run(directory: Path, trials: int, executor: InlineExecutor | None = None, **options):
    search = search_in(directory, **options)
    search_all([search], TASKS, executor or InlineExecutor(play=pretended), trials=trials)
    return search.finished()


def found(trials: list[Finished]) -> list[tuple[dict, tuple[float, ...]]]:
    return [(dict(trial.values), trial.outcome.objectives()) for trial in trials]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Finished]:
    return run(tmp_path_factory.mktemp("study"), 3 * ROUND)


def test_the_first_trial_is_the_default(uninterrupted: list[Finished]):
    assert uninterrupted[0].overrides == {}
    assert uninterrupted[0].outcome.delay_ratio == 1.0
    assert uninterrupted[0].is_feasible


def test_trials_end_with_a_whole_round(tmp_path: Path):
    assert len(run(tmp_path, ROUND + 1)) == 2 * ROUND


def test_the_order_in_which_workers_end_changes_nothing(
    uninterrupted: list[Finished], tmp_path: Path
):
    shuffled = run(tmp_path, 3 * ROUND, InlineExecutor(play=pretended, shuffle_seed=5))
    assert found(shuffled) == found(uninterrupted)


def test_another_seed_finds_other_trials(uninterrupted: list[Finished], tmp_path: Path):
    other = run(tmp_path, ROUND, seed=1)
    assert found(other)[0] == found(uninterrupted)[0]
    assert found(other)[1:] != found(uninterrupted)[1:ROUND]


@pytest.mark.parametrize("after", [0, 3, ROUND + 4])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(
    uninterrupted: list[Finished], tmp_path: Path, after: int
):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 3 * ROUND, InlineExecutor(play=pretended, interrupt_after=after))
    study = optuna.load_study(study_name=TARGET, storage=open_storage(tmp_path / "study.log"))
    assert not study.get_trials(states=(TrialState.RUNNING,))
    assert found(run(tmp_path, 3 * ROUND)) == found(uninterrupted)


def test_more_trials_may_be_asked_for_later(uninterrupted: list[Finished], tmp_path: Path):
    run(tmp_path, ROUND)
    assert found(run(tmp_path, 3 * ROUND)) == found(uninterrupted)


def test_a_search_that_has_its_trials_plays_nothing(tmp_path: Path):
    run(tmp_path, ROUND)
    executor = InlineExecutor(play=pretended)
    assert len(run(tmp_path, ROUND, executor)) == ROUND
    assert executor.items == []


def test_a_trial_with_more_delay_than_allowed_is_neither_feasible_nor_on_the_front(
    uninterrupted: list[Finished], tmp_path: Path
):
    for trials, slack in ((uninterrupted, 0.0), (run(tmp_path, ROUND, delay_slack=0.1), 0.1)):
        for trial in trials:
            assert trial.is_feasible is (trial.outcome.delay_ratio <= 1.0 + slack)
            assert trial.is_feasible or not trial.is_efficient
        assert any(not trial.is_feasible for trial in trials)


def test_the_front_holds_exactly_the_feasible_trials_that_no_other_beats(
    uninterrupted: list[Finished],
):
    feasible = [trial for trial in uninterrupted if trial.is_feasible]

    def beats(first: Finished, second: Finished) -> bool:
        (mos, freeze), (other_mos, other_freeze) = (
            trial.outcome.objectives() for trial in (first, second)
        )
        return (
            mos >= other_mos
            and freeze <= other_freeze
            and (mos, freeze)
            != (
                other_mos,
                other_freeze,
            )
        )

    for trial in feasible:
        assert trial.is_efficient is not any(beats(other, trial) for other in feasible)


def test_two_processes_on_one_journal_see_each_other_s_trials(tmp_path: Path):
    first, second = search_in(tmp_path), search_in(tmp_path)
    search_all([first], TASKS, InlineExecutor(play=pretended), trials=ROUND)
    assert second.finished_count == ROUND
    search_all([second], TASKS, InlineExecutor(play=pretended), trials=2 * ROUND)
    assert found(first.finished()) == found(second.finished())
    assert sum(trial.overrides == {} for trial in first.finished()) == 1


def test_trials_of_a_killed_process_are_failed_and_those_of_a_living_one_are_not(tmp_path: Path):
    search = search_in(tmp_path)
    study = optuna.load_study(study_name=TARGET, storage=open_storage(tmp_path / "study.log"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    for owner in (f"{host} {ended.pid}", f"{host} {os.getppid()}", f"elsewhere.{host} 1"):
        study.ask().set_user_attr("owner", owner)
    search = search_in(tmp_path)
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.RUNNING]
    assert search.finished_count == 0


def test_a_study_of_other_inputs_is_refused(tmp_path: Path):
    storage = open_storage(tmp_path / "study.log")
    Search(TARGET, storage, inputs={"networks": "abc", "seeds": [0]})
    with pytest.raises(ArtifactError, match="'wifi' was made with other networks, so"):
        Search(TARGET, storage, inputs={"networks": "abd", "seeds": [0]})


def test_finished_trials_are_read_back_from_the_journal(tmp_path: Path):
    trials = run(tmp_path, ROUND)
    assert found(finished_trials(tmp_path / "study.log", TARGET)) == found(trials)


def test_a_missing_or_damaged_journal_is_told(tmp_path: Path):
    with pytest.raises(ArtifactError, match="there is no study"):
        finished_trials(tmp_path / "study.log", TARGET)
    run(tmp_path, ROUND)
    with pytest.raises(ArtifactError, match="holds no study for 'satellite'"):
        finished_trials(tmp_path / "study.log", "satellite")
    (tmp_path / "broken.log").write_text("no journal\nat all\n")
    with pytest.raises(ArtifactError, match=r"broken\.log is no journal"):
        open_storage(tmp_path / "broken.log")

"""Which configuration is delivered, and how it is judged on networks never seen."""

from __future__ import annotations

import numpy as np
import pytest

from bwe_env.labels import NETWORK_CLASSES
from experiments.tuning_choice import (
    ALL,
    DEFAULT,
    PER_TYPE,
    PER_TYPE_OVER_GLOBAL,
    candidates,
    choose,
    compared,
    difference,
    play_all,
    run_tests,
)
from experiments.tuning_networks import GLOBAL, NetworkList
from experiments.tuning_study import Finished
from experiments.tuning_trials import MEASURED, Outcome, Task
from tests.experiments.inline_executor import InlineExecutor

NUM_NETWORKS = 8
TASK = Task(networks=NetworkList(split="validation", target="wifi", count=NUM_NETWORKS))


def calls_with(network_class: str = "wifi", **gains: float) -> dict[str, np.ndarray]:
    """Calls whose columns are better or worse than those of others by a little more or less."""
    noise = np.linspace(-0.02, 0.02, NUM_NETWORKS)
    columns = {
        name: np.arange(1.0, NUM_NETWORKS + 1) + gains.get(name, 0.0) + (name in gains) * noise
        for name in MEASURED
    }
    names = np.array([f"{network_class}-{i}" for i in range(NUM_NETWORKS)])
    return {
        "network": names,
        "network_type": np.full(NUM_NETWORKS, network_class),
        "seed": np.zeros(NUM_NETWORKS, dtype=np.int64),
        "network_class": np.full(NUM_NETWORKS, network_class),
        **columns,
    }


def trial(position: int, score: float = 0.0, *, efficient: bool = True) -> Finished:
    """A finished trial; its decrease factor says which one it is."""
    return Finished(
        position=position,
        overrides={"gcc.decrease_factor": position / 100.0} if position else {},
        values={},
        outcome=Outcome(classes={"wifi": {"call_score": score}}, delay_ratio=1.0),
        is_feasible=True,
        is_efficient=efficient,
    )


def chosen_among(worlds: dict[int, dict[str, float]], most: int = 10):
    """The choice where each trial's validation calls differ from the default's in this way."""

    def pretended(task: Task) -> dict[str, np.ndarray]:
        position = round(100 * task.overrides.get("gcc.decrease_factor", 0.0))
        return calls_with(**worlds.get(position, {}))

    trials = [trial(0), *(trial(position, score=-position) for position in worlds)]
    executor = InlineExecutor(play=pretended, shuffle_seed=1)
    return choose({"wifi": trials}, {"wifi": TASK}, executor, most=most)["wifi"]


def test_the_highest_gain_of_call_score_is_chosen():
    choice = chosen_among({1: {"call_score": 0.2}, 2: {"call_score": 0.5}, 3: {"call_score": 0.4}})
    assert choice.trial == 2
    assert choice.overrides == {"gcc.decrease_factor": 0.02}
    assert choice.validation.score == pytest.approx(0.5)
    assert (choice.candidates, choice.allowed) == (3, 3)


@pytest.mark.parametrize("guard", ["freeze_ratio", "one_way_delay_ms_p95"])
def test_a_gain_that_is_paid_for_with_freezes_or_delay_is_not_chosen(guard: str):
    choice = chosen_among({1: {"call_score": 0.2}, 2: {"call_score": 0.5, guard: 0.1}})
    assert choice.trial == 1
    assert (choice.candidates, choice.allowed) == (2, 1)


def test_what_is_worse_by_less_than_its_noise_is_allowed():
    choice = chosen_among({1: {"call_score": 0.2}, 2: {"call_score": 0.5, "freeze_ratio": 0.001}})
    assert choice.trial == 2


def test_the_default_stays_where_nothing_gains():
    choice = chosen_among({1: {"call_score": -0.2}, 2: {"call_score": 0.5, "freeze_ratio": 0.3}})
    assert choice.trial == 0
    assert choice.overrides == {}
    assert choice.validation.score == 0.0


def test_the_default_stays_where_the_search_found_nothing():
    choice = chosen_among({})
    assert (choice.trial, choice.candidates) == (0, 0)


def test_candidates_are_the_best_of_the_front_without_the_default():
    trials = [
        trial(0, 9.0),
        trial(1, 1.0),
        trial(2, 3.0),
        trial(3, 2.0),
        trial(4, 8.0, efficient=False),
        trial(5, 3.0),
    ]
    assert [t.position for t in candidates(trials, 3)] == [2, 5, 3]


def test_a_difference_pairs_networks():
    its = difference(calls_with(video_mos=0.5), calls_with(), ["video_mos"]).columns["video_mos"]
    # Networks differ by whole MOS, yet the interval is as narrow as the noise of the pairs.
    assert its.mean == pytest.approx(0.5)
    assert 0.48 < its.low < its.high < 0.52


def test_equal_tasks_are_played_once_and_results_keep_their_order():
    items = [
        Task(networks=TASK.networks, overrides={"gcc.decrease_factor": factor})
        for factor in (0.8, 0.9, 0.8)
    ]
    executor = InlineExecutor(
        play=lambda task: {"factor": np.array([task.overrides["gcc.decrease_factor"]])},
        shuffle_seed=2,
    )
    done: list[int] = []
    played = play_all(items, executor, done.append)
    assert [calls["factor"][0] for calls in played] == [0.8, 0.9, 0.8]
    assert len(executor.items) == 2
    assert sorted(done) == [1, 2]


def pretended_test(task: Task) -> dict[str, np.ndarray]:
    """0.3 MOS more where a configuration runs on its own class, 0.1 less elsewhere."""
    name, own = task.networks.target, task.overrides.get("gcc.decrease_factor", 0.0)
    if own == 0.0:
        return calls_with(name)
    gain = 0.3 if own == (NETWORK_CLASSES.index(name) + 1) / 10.0 else -0.1
    return calls_with(name, **dict.fromkeys(MEASURED, gain))


def judged(*targets: str):
    trials = {
        target: [trial(0), trial(10 * (NETWORK_CLASSES.index(target) + 1), 1.0)]
        if target != GLOBAL
        else [trial(0), trial(99, 1.0)]
        for target in targets
    }
    choices = choose(
        trials,
        dict.fromkeys(targets, TASK),
        InlineExecutor(
            play=lambda task: calls_with(**({"call_score": 1.0} if task.overrides else {}))
        ),
        most=5,
    )
    return run_tests(
        choices,
        lambda networks: Task(networks=networks),
        InlineExecutor(play=pretended_test),
        count=NUM_NETWORKS,
    )


def test_every_configuration_is_judged_on_every_class():
    tests = judged("wifi", "wired", GLOBAL)
    rows = compared(tests, ["call_score"])
    for target in ("wifi", "wired", GLOBAL):
        for name in NETWORK_CLASSES:
            gain = rows[target, name].score
            assert gain == pytest.approx(0.3 if name == target else -0.1)
    assert (DEFAULT, "wifi") not in rows


def test_per_type_means_each_class_under_its_own_configuration():
    rows = compared(judged("wifi", "wired", GLOBAL), ["call_score"])
    assert rows[PER_TYPE, ALL].score == pytest.approx(0.3)
    assert rows[GLOBAL, ALL].score == pytest.approx(-0.1)
    assert rows[PER_TYPE_OVER_GLOBAL, ALL].score == pytest.approx(0.4)
    assert rows[PER_TYPE, ALL].columns["call_score"].networks == 2 * NUM_NETWORKS


def test_without_a_global_search_nothing_is_said_of_it():
    rows = compared(judged("satellite"), ["call_score"])
    assert (PER_TYPE, ALL) in rows
    assert not any(target in (GLOBAL, PER_TYPE_OVER_GLOBAL) for target, _ in rows)

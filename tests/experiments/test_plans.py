"""Targeting plans: the space they are tuned in, and what a trial is judged by."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from optuna.trial import FixedTrial

from bwe_env.config import from_mapping
from bwe_env.labels import CELLULAR_LOW_BPS
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import Targeting, TargetingPlan
from experiments.collected_networks import usable_rate_bps
from experiments.plan_space import SPACES
from experiments.plan_trials import GUARDED, STUDIES, WANTED, PlanOutcome, _changes, segment
from experiments.published_experiments import (
    CALL,
    EXPERIMENTS,
    HIGH_BANDWIDTH_BPS,
    experiment_of,
)
from experiments.tune_plans import (
    GUARD_RESERVE_PCT,
    LEAST_GAIN_PCT,
    PLACEBO_HARM_PCT,
    lacking,
    merit,
    unmet_constraints,
)
from experiments.tuning_networks import class_of, mean_capacity_bps


class Silent:
    """Models that never say anything."""

    def __init__(self, outputs: tuple[str, ...]) -> None:
        self.outputs = outputs

    def reset(self, num_envs: int) -> None:
        self.num_envs = num_envs

    def restart(self, env: int) -> None:
        pass

    def update(self, telemetry: object, active: object) -> np.ndarray:
        return np.zeros((self.num_envs, len(self.outputs)), dtype=np.float32)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("end", ["low", "high"])
def test_every_corner_of_a_space_is_a_plan_that_a_running_call_can_follow(
    name: str, end: str
) -> None:
    space = SPACES[name]
    trial = FixedTrial({knob.name: getattr(knob, end) for knob in space.knobs})
    plan = space.suggest(trial)
    Targeting(plan, Silent(plan.outputs), base=SenderSettings())
    assert from_mapping(TargetingPlan, dataclasses.asdict(plan)) == plan


@pytest.mark.parametrize("name", SPACES)
def test_values_land_where_their_path_says(name: str) -> None:
    space = SPACES[name]
    plan = dataclasses.asdict(space.plan({knob.path: knob.low for knob in space.knobs}))
    for path, value in [*space.fixed.items(), *((k.path, k.low) for k in space.knobs)]:
        place = plan
        for step in path[:-1]:
            place = place[step]
        assert place[path[-1]] == value


def test_a_plan_asks_what_its_study_has_models_for() -> None:
    asked = {"congestion": "congestion", "random-loss": "random_loss", "cellular": "network_type"}
    for name, space in SPACES.items():
        plan = space.plan({knob.path: knob.high for knob in space.knobs})
        assert {output.partition(":")[0] for output in plan.outputs} == {asked[name]}
        assert STUDIES[name].models == (asked[name],)


def outcome(treatment: float, harm: float, placebo: float) -> PlanOutcome:
    """One in which every wanted column gains alike, and the delay is what is guarded."""
    wanted = WANTED["congestion"]
    changes = dict.fromkeys(GUARDED, -50.0) | {"video_mos": 50.0}
    changes |= {name: sign * treatment for name, sign in wanted.items()}
    changes["one_way_delay_ms_p95"] = harm
    return PlanOutcome(
        treatment={"congestion": changes},
        placebo={"congestion": {**changes, "freeze_ratio": -9.0, "one_way_delay_ms_p95": placebo}},
    )


def test_gain_is_the_mean_in_the_wanted_direction_and_harm_the_worst_guard() -> None:
    its = outcome(7.0, -4.0, 12.0)
    assert its.gain("congestion") == pytest.approx(7.0)
    assert its.harm("congestion") == pytest.approx(-4.0)
    assert its.least("congestion") == pytest.approx(7.0)
    assert its.harm("congestion", of_placebo=True) == pytest.approx(12.0)


def test_merit_takes_off_twice_what_guards_and_placebo_lack() -> None:
    sound = outcome(7.0, -GUARD_RESERVE_PCT, PLACEBO_HARM_PCT)
    assert merit(sound, ["congestion"]) == pytest.approx(7.0)
    assert merit(outcome(7.0, 1.0, PLACEBO_HARM_PCT), ["congestion"]) == pytest.approx(
        7.0 - 2.0 * (1.0 + GUARD_RESERVE_PCT)
    )
    assert merit(outcome(7.0, -GUARD_RESERVE_PCT, 0.0), ["congestion"]) == pytest.approx(
        7.0 - 2.0 * PLACEBO_HARM_PCT
    )


def test_constraints_that_are_not_met_are_told_with_what_they_lack() -> None:
    sound = outcome(7.0, -GUARD_RESERVE_PCT, PLACEBO_HARM_PCT)
    assert unmet_constraints(sound, ["congestion"]) == []
    broken = outcome(7.0, 1.0, PLACEBO_HARM_PCT)
    lack = 1.0 + GUARD_RESERVE_PCT
    assert unmet_constraints(broken, ["congestion"]) == [f"congestion guards (lacks {lack:.1f} %)"]


def test_a_placebo_also_fails_by_moving_something_the_wrong_way() -> None:
    its = outcome(7.0, -9.0, -9.0)
    wrong = dataclasses.replace(
        its, placebo={"congestion": {**its.placebo["congestion"], "call_score": -5.0}}
    )
    assert lacking(wrong, "congestion")["placebo"] == pytest.approx(PLACEBO_HARM_PCT - 5.0)
    assert lacking(wrong, "congestion")["gains"] == pytest.approx(LEAST_GAIN_PCT - 7.0)


def test_few_calls_in_which_the_control_has_no_freeze_at_all_can_be_judged() -> None:
    names = {*GUARDED, *(name for wanted in WANTED.values() for name in wanted)}
    control = {name: np.ones(3) for name in names} | {"freeze_ratio": np.array([0.0, 0.0, 9.0])}
    rows = np.array([True, True, False])
    treated = control | {"freeze_ratio": np.array([0.0, 0.1, 0.0])}
    assert _changes(control, control, rows)["freeze_ratio"] == 0.0
    assert _changes(treated, control, rows)["freeze_ratio"] == 100.0
    assert _changes(treated, control, ~rows)["freeze_ratio"] == pytest.approx(-100.0)


# --- What is tested on ----------------------------------------------------------------------------


def test_there_are_twenty_published_rows_and_nineteen_without_talk_time() -> None:
    names = [name for experiment in EXPERIMENTS for name in experiment.rows]
    assert len(names) == 20
    assert sum(name != "total_talk_time" for name in names) == 19


def test_published_intervals_exclude_zero() -> None:
    for experiment in EXPERIMENTS:
        for row in experiment.rows.values():
            assert row.low_pct * row.high_pct > 0.0
            assert row.low_pct < row.change_pct < row.high_pct


def test_populations_are_what_they_are_called() -> None:
    low = experiment_of("congestion").networks("validation", 10)
    assert all(mean_capacity_bps(n, CALL.duration_s) < CELLULAR_LOW_BPS for n in low)
    fast = experiment_of("random-loss").networks("validation", 10)
    assert all(usable_rate_bps(n.trace) >= HIGH_BANDWIDTH_BPS for n in fast)
    mixed = experiment_of("cellular-low").networks("validation", 10)
    classes = [class_of(network, CALL.duration_s) for network in mixed]
    assert classes == ["cellular-low", "cellular-high"] * 5
    assert segment(experiment_of("cellular-high"), mixed).tolist() == [False, True] * 5
    assert segment(experiment_of("congestion"), low).all()


@pytest.mark.parametrize("name", ["congestion", "random-loss", "cellular-low"])
def test_a_longer_list_begins_with_the_shorter_and_splits_share_nothing(name: str) -> None:
    networks = experiment_of(name).networks
    short = [network.name for network in networks("validation", 6)]
    assert [network.name for network in networks("validation", 14)][:6] == short
    assert len(set(short)) == 6
    assert not set(short) & {network.name for network in networks("test", 14)}

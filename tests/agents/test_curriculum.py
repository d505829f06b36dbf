"""Curriculum: how often networks are drawn from what the agent and a rule have reached on them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.curriculum import SHARE_UNIFORM, TEMPERATURE, GapCurriculum
from bwe_env.errors import ArtifactError, ConfigError

REWARDS = st.floats(-2.0, 2.0, allow_nan=False).map(lambda reward: round(reward, 3))


def played(baseline: list[float], agent: list[float | None], **options: Any) -> GapCurriculum:
    curriculum = GapCurriculum(baseline, **options)
    for network, reward in enumerate(agent):
        if reward is not None:
            curriculum.record(network, reward)
    return curriculum


# --- Hand-worked ----------------------------------------------------------------------------------


def test_two_networks_share_the_draws_as_worked_by_hand() -> None:
    # Ranks 1/4 and 3/4: weights exp(-3/4 / t) and exp(-1/4 / t), with t = 1 / (2 ln 3) one to
    # three. Half of the draws are uniform: 1/4 + 1/8 and 1/4 + 3/8.
    temperature = 0.5 / np.log(3.0)
    curriculum = played([0.5, 0.5], [0.4, 0.3], temperature=temperature)
    np.testing.assert_allclose(curriculum.probabilities, [3 / 8, 5 / 8])
    np.testing.assert_allclose(curriculum.gaps, [0.1, 0.2])
    assert curriculum.mean_gap == pytest.approx(0.15)
    assert curriculum.effective_networks == pytest.approx(64 / (9 + 25))


def test_a_network_not_yet_played_counts_with_the_mean_gap_of_the_others() -> None:
    curriculum = played([1.0, 1.0, 1.0, 1.0], [0.8, None, 0.4, None])
    np.testing.assert_allclose(curriculum.gaps, [0.2, 0.4, 0.6, 0.4])
    # The two in the middle share their ranks: both 1/2, between 1/8 and 7/8.
    weights = np.exp(np.array([1 / 8, 1 / 2, 7 / 8, 1 / 2]) / TEMPERATURE)
    expected = SHARE_UNIFORM / 4 + (1 - SHARE_UNIFORM) * weights / weights.sum()
    np.testing.assert_allclose(curriculum.probabilities, expected)


def test_before_the_first_call_all_networks_are_drawn_equally_often() -> None:
    curriculum = GapCurriculum([0.1, -3.0, 0.9])
    np.testing.assert_allclose(curriculum.probabilities, 1 / 3)
    assert curriculum.effective_networks == pytest.approx(3.0)
    assert curriculum.mean_gap == 0.0


def test_the_agents_reward_is_an_exponential_mean_that_begins_with_the_first_call() -> None:
    curriculum = GapCurriculum([0.0, 0.0], smoothing=0.25)
    for reward in (0.8, 0.4, -0.4):
        curriculum.record(1, reward)
    # 0.8; 3/4 of it + 1/4 of 0.4 = 0.7; 3/4 of that - 1/4 of 0.4 = 0.425
    assert curriculum.agent_rewards[1] == pytest.approx(0.425)
    assert np.isnan(curriculum.agent_rewards[0])
    assert curriculum.calls.tolist() == [0, 3]


def test_the_default_draws_the_largest_gap_2_5_times_and_the_smallest_half_as_often() -> None:
    ratios = 600 * played([0.5] * 600, np.linspace(0, 1, 600).tolist()).probabilities
    assert ratios[0] == pytest.approx(2.53, abs=0.01)  # SHARE_UNIFORM and TEMPERATURE say so
    assert ratios[-1] == pytest.approx(0.54, abs=0.01)


def test_one_call_that_went_wildly_wrong_weighs_no_more_than_any_largest_gap() -> None:
    baseline, agent = [0.5] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]
    as_usual = played(baseline, agent).probabilities
    np.testing.assert_array_equal(played(baseline, [-900.0, *agent[1:]]).probabilities, as_usual)


# --- Laws -----------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.tuples(REWARDS, st.none() | REWARDS), min_size=1, max_size=30),
    share_uniform=st.floats(0.0, 1.0),
    temperature=st.floats(0.01, 100.0),
)
def test_probabilities_sum_to_1_keep_their_floor_and_grow_with_the_gap(
    rows: list[tuple[float, float | None]], share_uniform: float, temperature: float
) -> None:
    curriculum = played(
        [baseline for baseline, _ in rows],
        [agent for _, agent in rows],
        share_uniform=share_uniform,
        temperature=temperature,
    )
    p, gaps = curriculum.probabilities, curriculum.gaps
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert (p >= share_uniform / len(rows) * (1.0 - 1e-12)).all()
    order = np.argsort(gaps, kind="stable")
    assert (np.diff(p[order]) >= 0.0).all()
    for i, j in itertools.pairwise(order):
        if gaps[i] == gaps[j]:
            assert p[i] == p[j]
    assert 1.0 - 1e-9 <= curriculum.effective_networks <= len(rows) * (1.0 + 1e-9)


@given(
    agent=st.lists(REWARDS, min_size=2, max_size=20, unique=True),
    scale=st.sampled_from([0.25, 2.0, 1024.0]),
)
def test_the_scale_of_the_reward_changes_nothing(agent: list[float], scale: float) -> None:
    baseline = [0.0] * len(agent)
    np.testing.assert_array_equal(
        played(baseline, agent).probabilities,
        played(baseline, [scale * reward for reward in agent]).probabilities,
    )


def test_draws_follow_the_probabilities_and_repeat_for_a_seed() -> None:
    curriculum = played([0.5] * 4, [0.0, 0.2, 0.4, 0.6])
    drawn = curriculum.draw(100_000, np.random.default_rng(7))
    shares = np.bincount(drawn, minlength=4) / 100_000
    # Five standard deviations of a share near 1/2 of 100,000 draws.
    np.testing.assert_allclose(shares, curriculum.probabilities, atol=0.008)
    again = curriculum.draw(100_000, np.random.default_rng(7))
    np.testing.assert_array_equal(drawn, again)


# --- To go on later -------------------------------------------------------------------------------


def test_a_restored_curriculum_goes_on_as_the_one_that_was_kept() -> None:
    one = played([0.5, 0.1, 0.9], [0.1, None, 1.0 / 3.0])
    state = json.loads(json.dumps(one.state))
    other = GapCurriculum([0.0, 0.0, 0.0])
    other.restore(state)
    for curriculum in (one, other):
        curriculum.record(0, 0.7)
        curriculum.record(1, -0.2)
    assert one.state == other.state
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert state["calls"] == [1, 0, 1]  # a copy, not a view


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calls": [1]}, "does not fit its 2 networks"),
        ({"agent_rewards": [0.1, None]}, "exactly where there are calls"),
        ({"agent_rewards": ["x", 0.2]}, "damaged"),
        ({"calls": None}, "damaged"),
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, Any], message: str) -> None:
    curriculum = played([0.5, 0.5], [0.1, 0.2])
    with pytest.raises(ArtifactError, match=message):
        curriculum.restore(curriculum.state | change)
    assert curriculum.calls.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline_rewards": []}, "at least one network"),
        ({"baseline_rewards": [np.nan, 1.0]}, "1 not finite"),
        ({"share_uniform": 1.5}, "share_uniform=1.5"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"smoothing": 0.0}, "smoothing=0.0"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GapCurriculum(**({"baseline_rewards": [1.0]} | arguments))


def test_calls_that_cannot_be_are_refused() -> None:
    curriculum = GapCurriculum([1.0, 2.0])
    with pytest.raises(ConfigError, match="must be 0 to 1"):
        curriculum.record(2, 0.0)
    with pytest.raises(ConfigError, match="not finite"):
        curriculum.record(0, float("nan"))

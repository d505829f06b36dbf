from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from bwe_env.metrics import FIELD_METRICS
from experiments.ab_guards import DROP_MARGIN_POINTS, MARGIN_PCT, Guard, guards
from experiments.ab_pairs import pair
from experiments.ab_power import networks_needed, power_of
from experiments.ab_report import report
from experiments.ab_statistics import changes
from tests.experiments.ab_calls import Table, calls_table, noisy_table

MANY = 1_000


def guard_of(control: Table, treatment: Table, name: str) -> Guard:
    return {g.name: g for g in guards(pair(control, treatment), resamples=2_000)}[name]


# --- Guards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "name", "worse"),
    [
        ("freeze_ratio", "peer_video_freeze_percentage", 1.05),
        ("one_way_delay_ms_p95", "one_way_delay_p95", 1.05),
        ("video_mos", "avg_video_quality_score", 0.95),
    ],
)
def test_a_guard_holds_when_the_bound_is_within_1_percent_and_fails_when_the_interval_is_beyond(
    column: str, name: str, worse: float
) -> None:
    control = noisy_table(MANY, seed=1, noise=0.02)
    same = guard_of(control, noisy_table(MANY, seed=2, noise=0.02), name)
    assert same.state == "holds"
    assert same.bound <= MARGIN_PCT
    better = noisy_table(MANY, seed=2, noise=0.02, **{column: 1.0 / worse})
    assert guard_of(control, better, name).state == "holds"
    bad = guard_of(control, noisy_table(MANY, seed=2, noise=0.02, **{column: worse}), name)
    assert bad.state == "fails"
    assert bad.bound > 4.0  # percent to the worse, also where lower is worse


def test_a_small_experiment_leaves_guards_undecided() -> None:
    control, treatment = noisy_table(20, seed=1), noisy_table(20, seed=2)
    assert guard_of(control, treatment, "peer_video_freeze_percentage").state == "undecided"


def test_a_guard_does_not_hold_where_only_the_treatment_has_no_value() -> None:
    control, treatment = noisy_table(seed=1), noisy_table(seed=1)
    treatment["one_way_delay_ms_p95"][3] = np.nan  # nothing arrived
    guard = guard_of(control, treatment, "one_way_delay_p95")
    assert guard.state == "undecided"
    assert "lacks a value" in guard.note


@pytest.mark.parametrize(("networks", "state"), [(737, "undecided"), (738, "holds")])
def test_without_any_drop_738_networks_show_half_a_point(networks: int, state: str) -> None:
    """-ln(0.025) = 3.689 unseen events; 100 * 3.689 / 738 = 0.4998 points."""
    table = calls_table(networks)
    guard = guard_of(table, table, "connection_drop_rate")
    assert (guard.state, guard.unit, guard.margin) == (state, "points", DROP_MARGIN_POINTS)
    assert guard.bound == pytest.approx(100.0 * 3.68888 / networks, rel=1e-4)


def test_few_drops_are_judged_in_points_and_many_more_of_them_fail() -> None:
    once, more, many = np.zeros(MANY), np.zeros(MANY), np.zeros(MANY)
    once[:10] = 1.0
    more[5:17] = 1.0
    many[:60] = 1.0
    control = calls_table(MANY, dropped=once)
    few = guard_of(control, calls_table(MANY, dropped=more), "connection_drop_rate")
    # 7 calls more and 5 fewer: +0.2 points, standard error sqrt(12) / 1000 = 0.35 points.
    assert few.bound == pytest.approx(0.2 + 1.96 * 0.35, abs=0.1)
    assert (few.unit, few.state) == ("points", "undecided")
    fails = guard_of(control, calls_table(MANY, dropped=many), "connection_drop_rate")
    assert (fails.unit, fails.state) == ("%", "fails")


# --- Verdict --------------------------------------------------------------------------------------


def arms(**factors: float) -> tuple[Table, Table]:
    return (
        noisy_table(MANY, seed=1, noise=0.02),
        noisy_table(MANY, seed=2, noise=0.02, **factors),
    )


def test_an_arm_wins_with_one_gain_no_loss_and_all_guards() -> None:
    found = report(*arms(freeze_ratio=0.9), names=("gcc", "tuned"), resamples=2_000)
    assert found.wins
    assert found.verdict.startswith("tuned WINS. better: peer_video_freeze_percentage;")


def test_an_arm_without_effect_does_not_win() -> None:
    found = report(*arms(), resamples=2_000)
    assert not found.wins
    assert "better: nothing; worse: nothing; guards that do not hold: none" in found.verdict


def test_a_gain_with_a_loss_beside_it_does_not_win() -> None:
    found = report(*arms(freeze_ratio=0.9, mean_video_sent_bps=0.9), resamples=2_000)
    assert not found.wins
    assert "worse: avg_video_sent_bitrate" in found.verdict


def test_a_gain_bought_with_delay_does_not_win_though_no_row_shows_it() -> None:
    found = report(*arms(freeze_ratio=0.9, one_way_delay_ms_p95=1.1), resamples=2_000)
    assert not found.wins
    assert "guards that do not hold: one_way_delay_p95 (fails)" in found.verdict


def test_more_talk_time_alone_is_no_win() -> None:
    found = report(*arms(talk_time_s=1.2), resamples=2_000)
    talk = next(r for r in found.rows if r.change.metric.name == "total_talk_time")
    assert talk.change.change_pct > 15.0
    assert not found.wins


# --- Power ----------------------------------------------------------------------------------------


def test_the_textbook_sample_size() -> None:
    """At an effect of z standard errors, n * ((1.960 + 0.842) / z)^2 networks have 80 % power."""
    assert networks_needed(2.8015, 100) == 101  # 1.95996 + 0.84162 = 2.80159
    assert networks_needed(1.4008, 100) == 400
    assert networks_needed(0.0, 100) == math.inf


def test_power_is_the_share_of_like_experiments_that_find_the_effect() -> None:
    metric = FIELD_METRICS["peer_video_freeze_percentage"]
    pairs = [
        pair(
            calls_table(60, freeze_ratio=0.02),
            calls_table(60, freeze_ratio=0.021 * np.random.default_rng(s).lognormal(0, 0.15, 60)),
        )
        for s in range(150)
    ]
    found = [changes(p, [metric], resamples=500)[0] for p in pairs]
    share = np.mean([c.p_value < 0.05 for c in found])
    # The truth: 1.05 * exp(0.15^2 / 2) - 1 = 6.2 % with a standard error of 1.94 %.
    exact = NormalDist().cdf(math.log(1.062) / 0.0194 - 1.96)
    assert share == pytest.approx(exact, abs=0.1)  # standard error of the share: 2.9 %
    typical = sorted(found, key=lambda c: c.change_pct)[len(found) // 2]
    assert power_of(typical).power == pytest.approx(exact, abs=0.1)
    assert power_of(typical).detectable_pct == pytest.approx(
        100 * math.expm1(2.8016 * 0.0194), rel=0.2
    )


def test_power_is_unknown_where_the_change_is() -> None:
    change = changes(pair(calls_table(), calls_table()), [FIELD_METRICS["connection_drop_rate"]])[0]
    assert math.isnan(power_of(change).power)

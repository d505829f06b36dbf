from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.metrics import FIELD_METRICS, PICTURE_CLASSES
from experiments.ab_pairs import pair, paired_sums
from experiments.ab_statistics import (
    NOT_COUNTED,
    UNSEEN_EVENTS,
    Change,
    changes,
    holm,
    resampled_ratios,
    rows,
    two_sided_p,
)
from experiments.evaluation import Calls, select
from experiments.stats import mean_interval, resampled_means
from tests.experiments.ab_calls import Table, calls_table, noisy_table

FREEZE = FIELD_METRICS["peer_video_freeze_percentage"]
DROPS = FIELD_METRICS["connection_drop_rate"]
QP = "avg_sender_video_qp"


def change(control: Calls, treatment: Calls, metric: str, *, resamples: int = 2_000) -> Change:
    return changes(pair(control, treatment), [FIELD_METRICS[metric]], resamples=resamples)[0]


# --- Pairs ----------------------------------------------------------------------------------------


def test_calls_are_paired_by_network_and_seed_whatever_their_order() -> None:
    control = noisy_table(6, seeds=2, seed=1)
    treatment = noisy_table(6, seeds=2, seed=2)
    shuffled = select(treatment, np.random.default_rng(3).permutation(12))
    for first, second in ((control, treatment), (control, shuffled)):
        pairs = pair(first, second)
        assert pairs.control["network"].tolist() == pairs.treatment["network"].tolist()
        assert pairs.control["seed"].tolist() == pairs.treatment["seed"].tolist()
        np.testing.assert_array_equal(pairs.treatment["freeze_ratio"], treatment["freeze_ratio"])
    assert (pairs.networks, pairs.calls) == (6, 12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: select(t, np.arange(5)), "1 calls are in one arm only, e.g. network 'n00005'"),
        (lambda t: select(t, np.array([0, 0, 1, 2, 3, 4, 5])), "1 calls are there more than once"),
        (lambda t: t | {"duration_s": t["duration_s"] + 1.0}, "has duration_s=180.0 in the"),
        (lambda t: t | {"network_type": t["network_type"][::-1]}, "has network_type="),
    ],
)
def test_calls_that_are_not_the_same_are_refused(spoil: object, message: str) -> None:
    table = calls_table(6)
    with pytest.raises(ConfigError, match=message):
        pair(table, spoil(table))  # type: ignore[operator]


def test_values_are_ratios_of_sums_over_all_calls_and_not_means_of_ratios() -> None:
    control = calls_table(2, not_ready_s=[9.0, 1.0], audio_concealed_s=[1.0, 3.0])
    treatment = calls_table(2, not_ready_s=[3.0, 1.0], audio_concealed_s=[1.0, 0.0])
    treatment["audio_played_s"][:] = [10.0, 90.0]
    ready = change(control, treatment, "transport_not_ready_pct")
    assert ready.control == pytest.approx(100.0 * 10.0 / 360.0)
    assert ready.treatment == pytest.approx(100.0 * 4.0 / 360.0)
    assert ready.change_pct == pytest.approx(-60.0)
    audio = change(control, treatment, "peer_neteq_plc_cng_perc")
    assert audio.control == pytest.approx(100.0 * 4.0 / 340.0)
    assert audio.treatment == pytest.approx(1.0)  # 1 s of 100, though the first call lost a tenth


def test_a_pair_counts_in_both_arms_or_in_none() -> None:
    control = calls_table(4, last_minute_regression_v1=[1.0, 0.0, np.nan, 1.0])
    treatment = calls_table(4, last_minute_regression_v1=[np.nan, 1.0, 1.0, 1.0])
    metric = FIELD_METRICS["last_minute_quality_regression_v1"]
    sums = paired_sums(pair(control, treatment), metric)
    assert (sums.calls, sums.undefined_control, sums.undefined_treatment) == (2, 1, 1)
    assert sums.control.sum(axis=0).tolist() == [[100.0, 2.0]]
    assert sums.treatment.sum(axis=0).tolist() == [[200.0, 2.0]]
    found = change(control, treatment, metric.name)
    assert "2 left out as undefined, 1 for the treatment" in found.note


# --- Intervals and p-values -----------------------------------------------------------------------


def test_a_change_of_a_mean_agrees_with_the_delta_method() -> None:
    control = noisy_table(400, seed=1)
    treatment = noisy_table(400, seed=2, freeze_ratio=1.1)
    found = change(control, treatment, FREEZE.name, resamples=10_000)
    x, y = control["freeze_ratio"], treatment["freeze_ratio"]
    error = np.std(y / y.mean() - x / x.mean(), ddof=1) / np.sqrt(400)
    ratio = y.mean() / x.mean()
    assert found.change_pct == pytest.approx(100.0 * (ratio - 1.0))
    # 10,000 resamples and 400 networks: ends and spread agree with the linear formula to 5 %.
    assert found.log_se == pytest.approx(error, rel=0.05)
    assert found.high_pct - found.low_pct == pytest.approx(
        100.0 * ratio * 2 * 1.96 * error, rel=0.05
    )


def test_all_resamples_of_four_networks_enumerated_by_hand_give_the_same_ends() -> None:
    """One stratum of 4: every draw of 3 out of 4 is as likely; 64 in all."""
    control = calls_table(4, freeze_ratio=[0.1, 0.2, 0.3, 0.4])
    treatment = calls_table(4, freeze_ratio=[0.2, 0.2, 0.2, 0.4])
    for table in (control, treatment):
        table["network_type"][:] = "5G"
    pairs = pair(control, treatment)
    sums = paired_sums(pairs, FREEZE)
    columns = np.concatenate([sums.control[:, 0], sums.treatment[:, 0]], axis=1)
    means = resampled_means(columns, sums.types, resamples=40_000)
    sampled = resampled_ratios(means)
    x, y = control["freeze_ratio"], treatment["freeze_ratio"]
    exact = [y[list(d)].sum() / x[list(d)].sum() for d in itertools.product(range(4), repeat=3)]
    for level in (0.7, 1.0 - 1e-9, 1.1, 1.3):
        # The standard error of a share of 40,000 is at most 0.25 %.
        share = np.mean(np.asarray(exact) <= level)
        assert np.mean(sampled <= level) == pytest.approx(share, abs=0.01)


def test_the_p_value_is_below_5_percent_where_the_interval_excludes_zero_and_never_zero() -> None:
    for factor in np.linspace(0.9, 1.1, 21):
        found = change(
            noisy_table(60, seed=1),
            noisy_table(60, seed=2, freeze_ratio=float(factor)),
            FREEZE.name,
            resamples=1_999,
        )
        excludes = found.low_pct > 0.0 or found.high_pct < 0.0
        assert (found.p_value < 0.05) == excludes
        assert 0.0 < found.p_value <= 1.0
    huge = change(noisy_table(seed=1), noisy_table(seed=2, freeze_ratio=3.0), FREEZE.name)
    assert huge.p_value == pytest.approx(2.0 / 2_001.0)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5.0), st.integers(0, 1_000))
def test_swapping_the_arms_inverts_the_ratio_and_keeps_the_p_value(
    factor: float, seed: int
) -> None:
    first = noisy_table(20, seed=seed)
    second = noisy_table(20, seed=seed + 1, freeze_ratio=factor)
    there = change(first, second, FREEZE.name, resamples=999)
    back = change(second, first, FREEZE.name, resamples=999)
    assert (1 + there.change_pct / 100) * (1 + back.change_pct / 100) == pytest.approx(1.0)
    assert back.p_value == pytest.approx(there.p_value)


def test_a_resample_without_events_counts_as_no_change_and_one_without_control_as_a_rise() -> None:
    means = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 2.0, 1.0], [4.0, 2.0, 1.0, 1.0]])
    ratios = resampled_ratios(means)
    assert ratios.tolist() == [1.0, math.inf, 0.5]
    assert two_sided_p(ratios) == 1.0
    assert two_sided_p(np.full(99, 0.5)) == 0.02


def test_quantisers_are_compared_at_the_same_mix_of_picture_sizes() -> None:
    """30 and 60 in 1 small and 3 large pictures against 40 and 70 in 3 and 1: 10 more in either.

    At 4 small and 4 large of 8 pictures: 45 and 55, though the means of all are 52.5 and 47.5.
    """
    small, large = PICTURE_CLASSES[0], PICTURE_CLASSES[-1]
    none = {f"{c}_{p}": 0.0 for c in ("video_qp_sum", "frames_encoded") for p in PICTURE_CLASSES}

    def table(frames: tuple[float, float], qp: tuple[float, float]) -> Table:
        columns = dict(none)
        for name, count, mean in zip((small, large), frames, qp, strict=True):
            columns |= {f"frames_encoded_{name}": count, f"video_qp_sum_{name}": count * mean}
        return calls_table(8, **columns)

    found = change(table((1.0, 3.0), (30.0, 60.0)), table((3.0, 1.0), (40.0, 70.0)), QP)
    assert (found.control, found.treatment) == (pytest.approx(45.0), pytest.approx(55.0))
    assert found.change_pct == pytest.approx(100.0 * 10.0 / 45.0)
    # Every network is the same, so the mix moves in no resample.
    assert found.low_pct == pytest.approx(found.change_pct) == pytest.approx(found.high_pct)


# --- Rare events ----------------------------------------------------------------------------------


def with_events(
    control: int, treatment: int, *, both: int = 0, networks: int = 200
) -> tuple[Table, Table]:
    """Tables in which so many calls drop in one arm only, or in both."""
    first, second = np.zeros(networks), np.zeros(networks)
    first[: both + control] = 1.0
    second[:both] = 1.0
    second[both + control : both + control + treatment] = 1.0
    return calls_table(networks, dropped=first), calls_table(networks, dropped=second)


def test_without_an_event_in_the_control_the_change_is_undefined_and_nothing_is_divided() -> None:
    with np.errstate(all="raise"):
        found = change(*with_events(0, 4), DROPS.name)
    assert (found.control, found.treatment) == (0.0, 2.0)
    assert not found.is_defined
    assert math.isnan(found.low_pct)
    assert found.p_value == 1.0
    assert "undefined: the control has none; the treatment has some on 4 networks" in found.note


@pytest.mark.parametrize("events", [1, 3, 5])
def test_fewer_than_six_differing_networks_have_no_interval_and_cannot_be_significant(
    events: int,
) -> None:
    found = change(*with_events(events, 0, both=2), DROPS.name)
    assert found.p_value >= 2.0 ** (1 - events)
    assert (found.low_pct, found.high_pct) == (-100.0, math.inf)
    assert f"only {events} networks say anything" in found.note


def test_no_event_left_in_the_treatment_is_no_certainty_that_there_are_none() -> None:
    found = change(*with_events(40, 0), DROPS.name)
    assert (found.change_pct, found.low_pct) == (-100.0, -100.0)
    assert found.high_pct == pytest.approx(100.0 * (UNSEEN_EVENTS / 40.0 - 1.0))
    # Poisson: an expectation of UNSEEN_EVENTS shows none in 2.5 % of experiments.
    assert math.exp(-UNSEEN_EVENTS) == pytest.approx(0.025)
    assert found.p_value < 0.001


def test_arms_that_are_the_same_show_no_change_and_say_so() -> None:
    table = noisy_table()
    for row in rows(pair(table, table), resamples=500):
        assert row.change.p_value == 1.0
        if row.change.is_defined:
            assert (row.change.low_pct, row.change.change_pct, row.change.high_pct) == (0, 0, 0)
            assert row.change.note == "the arms are the same on every network"


# --- Calibration ----------------------------------------------------------------------------------

RUNS = 600


def experiments(kind: str, networks: int, kept: float = 1.0) -> tuple[np.ndarray, float]:
    """p-values of many experiments, and how often the interval held the true change.

    Args:
        kept: true ratio of treatment to control, at most 1.
    """
    generator = np.random.default_rng(7)
    p_values, held = [], 0
    metric, column = (DROPS, "dropped") if kind == "rare" else (FREEZE, "freeze_ratio")
    truth_pct = 100.0 * (kept - 1.0)
    for run in range(RUNS):
        if kind == "rare":
            # 40 events expected in the control, on few networks; six in ten have a common cause.
            risk = np.minimum(0.9, generator.gamma(0.5, 2.0, networks) * 40.0 / networks)
            draws = generator.random((2, networks))
            draws[1] = np.where(generator.random(networks) < 0.6, draws[0], draws[1])
            values = (draws < risk * [[1.0], [kept]]).astype(float)
        else:
            hardness = generator.lognormal(0.0, 1.2, networks)
            values = hardness * generator.lognormal(0.0, 0.3, (2, networks)) * [[1.0], [kept]]
        tables = [calls_table(networks, **{column: v}) for v in values]
        found = changes(pair(*tables), [metric], resamples=1_000, seed=run)[0]
        p_values.append(found.p_value)
        held += found.low_pct <= truth_pct <= found.high_pct
    return np.array(p_values), held / RUNS


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "networks"), [("continuous", 200), ("rare", 200), ("rare", 400)])
def test_without_effect_p_values_are_uniform_enough_and_intervals_hold_it_95_percent(
    kind: str, networks: int
) -> None:
    p_values, held = experiments(kind, networks)
    # A share of 600 runs has a standard error of 0.9 % at 5 % and of 1.9 % at one third.
    assert 0.93 <= held <= 0.97
    for level, tolerance in ((0.01, 0.012), (0.05, 0.02), (0.33, 0.06), (0.67, 0.06)):
        assert np.mean(p_values <= level) == pytest.approx(level, abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["continuous", "rare"])
def test_an_interval_holds_a_true_reduction_by_30_percent_95_percent_of_the_time(kind: str) -> None:
    p_values, held = experiments(kind, 200, kept=0.7)
    assert 0.93 <= held <= 0.97
    assert np.mean(p_values < 0.05) > 0.3  # not by never excluding anything


# --- Holm and rows --------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    """0.01 * 4; 0.02 * 3; 0.03 * 2 = 0.06 again; 0.5 * 1."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=15))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p_values: list[float]) -> None:
    """The procedure itself: go up while p <= alpha / (remaining)."""
    for alpha in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, position in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[position] * (len(p_values) - rank) > alpha:
                break
            rejected.add(int(position))
        assert {i for i, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_a_report_has_every_field_metric_and_counts_only_what_is_evidence() -> None:
    table = rows(pair(noisy_table(seed=1), noisy_table(seed=2)), resamples=500)
    assert [row.change.metric.name for row in table] == list(FIELD_METRICS)
    assert {row.change.metric.name for row in table if not row.counts} == set(NOT_COUNTED)
    for row in table:
        assert math.isnan(row.p_holm) != row.counts
        if row.counts:
            assert row.p_holm >= row.change.p_value


def test_undefined_rows_stay_in_holms_family() -> None:
    control, treatment = noisy_table(seed=1), noisy_table(seed=2, freeze_ratio=2.0)
    freeze = {r.change.metric.name: r for r in rows(pair(control, treatment))}[FREEZE.name]
    family = len(FIELD_METRICS) - len(NOT_COUNTED)
    assert freeze.p_holm == pytest.approx(family * freeze.change.p_value)


def test_a_row_moves_for_or_against_its_declared_direction() -> None:
    pairs = pair(noisy_table(seed=1), noisy_table(seed=2, freeze_ratio=1.5, frames_encoded=1.5))
    name = "avg_sender_video_encode_fps"
    by_name = {row.change.metric.name: row for row in rows(pairs)}
    assert by_name[FREEZE.name].moves == "against"
    assert by_name[name].is_significant
    assert by_name[name].moves == ""  # more frames are neither better nor worse
    declared = {row.change.metric.name: row for row in rows(pairs, directions={name: "higher"})}
    assert declared[name].moves == "for"
    with pytest.raises(UnknownNameError, match="avg_sender_video_encode_fps"):
        rows(pairs, directions={"avg_sender_video_encode": "higher"})
    with pytest.raises(ConfigError, match="'up' must be"):
        rows(pairs, directions={name: "up"})  # type: ignore[dict-item]


def test_one_network_says_nothing_and_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 networks"):
        rows(pair(calls_table(1), calls_table(1)))


def test_columns_resampled_together_are_those_resampled_alone() -> None:
    generator = np.random.default_rng(4)
    columns = generator.normal(size=(30, 3))
    strata = ["3G"] * 10 + ["5G"] * 19 + ["wifi"]
    means = resampled_means(columns, strata, resamples=3_000, seed=5)
    for column, resampled in zip(columns.T, means.T, strict=True):
        alone = mean_interval(column, strata, resamples=3_000, seed=5)
        ends = np.quantile(resampled, [0.025, 0.975])
        np.testing.assert_allclose(ends, [alone.low, alone.high], rtol=1e-9)

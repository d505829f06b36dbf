"""Rules on windows written by hand, and what every rule keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.network_tasks import TASKS
from baselines.network_rules import (
    BacklogRule,
    BurstPointsRule,
    CongestionPointsRule,
    DelayRankRule,
    LossPersistenceRule,
    LossPointsRule,
    LossRatioRule,
    MeanRunRule,
    PredictedRttRule,
    ScoreRule,
    SpikeRule,
    ZigZagRule,
    answers,
    doublings,
    excess_run,
    measured,
)
from baselines.network_type_rules import TypeTree, TypicalValuesRule
from baselines.rules import RULES, Candidate
from bwe_env.labels import NETWORK_CLASSES
from bwe_env.network_features import DENSE_NAMES
from tests.baselines.windows import random_windows, window

#: float32 on a logarithmic scale, see `unscaled`.
TOLERANCE = 1e-5
CANDIDATES = [candidate for candidates in RULES.values() for candidate in candidates]


def rule_name(value: object) -> str:
    return type(value.rule if isinstance(value, Candidate) else value).__name__


# --- What a rule reads ----------------------------------------------------------------------------


def test_a_feature_is_read_in_its_unit_by_its_name() -> None:
    dense = window(rtt_now=120.0, rtt_slope_1s=-35.0, lossy_bins_w=0.25)
    assert measured(dense, "rtt_now") == pytest.approx(120.0, rel=TOLERANCE)
    assert measured(dense, "rtt_slope_1s") == pytest.approx(-35.0, rel=TOLERANCE)
    assert measured(dense, "lossy_bins_w") == pytest.approx(0.25, rel=TOLERANCE)


def test_a_threshold_counts_nothing_its_double_one_and_more_than_the_limit_no_more() -> None:
    values = np.array([-5.0, 0.0, 1.0, 5.0, 10.0, 20.0, 1000.0])
    counted = doublings(values, 10.0, 2.0)
    np.testing.assert_allclose(counted, [-2.0, -2.0, -2.0, -1.0, 0.0, 1.0, 2.0])


def test_independent_losses_have_no_excess_of_runs() -> None:
    ratio = np.array([0.0, 0.1, 0.5])
    np.testing.assert_allclose(excess_run(1.0 / (1.0 - ratio), ratio), 1.0)
    assert excess_run(np.array(4.0), np.array(0.25)) == pytest.approx(3.0)


# --- Hand-worked answers --------------------------------------------------------------------------

#: A mean delay of 50 ms, its deviation 20 ms, 40 ms in front of the loss: half a deviation below.
ZIGZAG = {"queue_delay_w": 50.0, "queue_delay_sd_w": 20.0, "loss_delay_1s": 40.0}
#: 8 % lost in runs of 2: 4 % of the packets begin a run, twice the threshold. Half a point each for
#: the fuller share of 0.2, a delay of 160 ms and a gap of 1.4, each twice its threshold, too, and a
#: quarter for 2 Mbps: -1 + 0.5 - 0.5 + 0.5 - 0.25.
LOSS = {
    "loss_ratio_1s": 0.08,
    "loss_run_1s": 2.0,
    "loss_delay_rank_1s": 0.8,
    "loss_delay_1s": 160.0,
    "loss_gap_w": 1.4,
    "sent_rate_1s": 2e6,
}
#: All on their thresholds; the rise of 90 ms grows by 20 ms/s for half a second.
CONGESTION = {
    "spike_bins_w": 0.5,
    "lossy_bins_w": 0.1,
    "loss_ratio_1s": 0.015,
    "loss_ratio_before": 0.01,
    "sent_over_acked_max": 0.9,
    "rtt_rise_now": 90.0,
    "rtt_slope_1s": 20.0,
}
#: Runs of 2.6 at 25 %, so 1.95 times what independent losses make; of 2 at 35 %, 1.3 times. A
#: longest run of 6 is twice its threshold, and 45 % of the bins lose: log2(1.5) + 0 + 0.5 - 0.
BURSTS = {
    "loss_run_1s": 2.6,
    "loss_ratio_1s": 0.25,
    "loss_run_w": 2.0,
    "loss_ratio_w": 0.35,
    "loss_run_max_w": 6.0,
    "lossy_bins_w": 0.45,
}


@pytest.mark.parametrize(
    ("rule", "values", "score"),
    [
        (SpikeRule(), {"loss_delay_share_1s": 0.2}, 0.3),
        (SpikeRule(), {"loss_delay_share_1s": 0.9}, -0.4),
        (DelayRankRule(), {"loss_delay_rank_1s": 0.3}, 0.5),
        (DelayRankRule(), {"loss_delay_rank_1s": 1.0}, -0.2),
        (ZigZagRule(), {**ZIGZAG, "loss_run_1s": 1.0}, 0.5 - 1.0),
        (ZigZagRule(), {**ZIGZAG, "loss_run_1s": 2.0}, 0.5 - 0.5),
        (ZigZagRule(), {**ZIGZAG, "loss_run_1s": 3.0}, 0.5),
        (ZigZagRule(), {**ZIGZAG, "loss_run_1s": 9.0}, 0.5 - 0.5),
        # 100 bytes a millisecond for 20 ms: two packets of 1000 bytes wait.
        (BacklogRule(), {"acked_rate_1s": 800e3, "loss_delay_1s": 20.0}, 3.0 - 2.0),
        (BacklogRule(), {"acked_rate_1s": 4e6, "loss_delay_1s": 80.0}, 3.0 - 40.0),
        (LossRatioRule(), {"loss_ratio_1s": 0.04}, 0.06),
        (LossRatioRule(), {"loss_ratio_1s": 0.25}, -0.15),
        (LossPointsRule(), LOSS, -0.75),
        (PredictedRttRule(), {"rtt_rise_now": 50.0, "rtt_slope_1s": 40.0}, 90.0),
        (PredictedRttRule(horizon_s=2.0), {"rtt_rise_now": 50.0, "rtt_slope_1s": -40.0}, -30.0),
        (LossPersistenceRule(), {"lossy_bins_w": 0.3, "loss_ratio_1s": 0.1}, 0.4),
        (CongestionPointsRule(), CONGESTION, 0.0),
        (CongestionPointsRule(), {**CONGESTION, "lossy_bins_w": 0.2}, 1.0),
        (CongestionPointsRule(), {**CONGESTION, "loss_ratio_before": 0.005}, -0.5),
        (CongestionPointsRule(), {**CONGESTION, "sent_over_acked_max": 1.8}, 1.0),
        (CongestionPointsRule(), {**CONGESTION, "rtt_slope_1s": 220.0}, 0.3),
        # Three limits of 2 doublings, times weights of 1 + 1 + 0.5 + 1 + 0.3.
        (CongestionPointsRule(), {**CONGESTION, "spike_bins_w": 1 / 40}, -3.0 * 2.0 * 3.8),
        (CongestionPointsRule(), {**CONGESTION, "spike_bins_w": 2 / 40}, 0.0),
        (MeanRunRule(), {"loss_run_1s": 3.5}, 1.5),
        (MeanRunRule(), {"loss_run_1s": 1.0}, -1.0),
        (BurstPointsRule(), BURSTS, np.log2(1.5) + 0.5),
        # Single losses at 20 %, spread: -log2(1.3 / 0.8) in the second, and half of it again.
        (
            BurstPointsRule(),
            {
                **BURSTS,
                "loss_run_1s": 1.0,
                "loss_ratio_1s": 0.2,
                "loss_run_w": 1.0,
                "loss_ratio_w": 0.2,
                "loss_run_max_w": 1.5,
                "lossy_bins_w": 0.9,
            },
            -1.5 * np.log2(1.3 / 0.8) - 0.5 - 0.5,
        ),
    ],
    ids=lambda value: type(value).__name__ if dataclasses.is_dataclass(value) else "",
)
def test_a_score_is_what_one_works_out_by_hand(
    rule: ScoreRule, values: dict[str, float], score: float
) -> None:
    # The delays of 40 ms and more lose a few units of the seventh digit on the way.
    assert rule.score(window(**values)[None]) == pytest.approx([score], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"acked_rate_max_w": 300e3, "rtt_floor": 90.0, "spike_bins_w": 0.5}, "cellular-low"),
        ({"acked_rate_max_w": 3e6, "rtt_floor": 25.0, "delay_variation_w": 2.0}, "wired"),
        ({"acked_rate_max_w": 300e3, "rtt_floor": 25.0, "delay_variation_w": 2.0}, "wired"),
        (
            {
                "acked_rate_max_w": 3e6,
                "rtt_floor": 60.0,
                "delay_variation_w": 10.0,
                "spike_bins_w": 0.5,
            },
            "satellite",
        ),
        ({"acked_rate_max_w": 3e6, "rtt_floor": 25.0, "delay_variation_w": 9.0}, "wifi"),
        ({"acked_rate_max_w": 3e6, "rtt_floor": 60.0, "delay_variation_w": 9.0}, "cellular-high"),
    ],
)
def test_the_tree_names_the_network_that_its_thresholds_describe(
    values: dict[str, float], kind: str
) -> None:
    assert NETWORK_CLASSES[TypeTree().classify(window(**values)[None]).item()] == kind


def typical_windows(rule: TypicalValuesRule) -> NDArray[np.float32]:
    """One window per class that has its typical values."""
    columns = zip(rule.floor_ms, rule.best_bps, rule.variation_ms, rule.spike_share, strict=True)
    return np.stack(
        [
            window(
                rtt_floor=floor_ms,
                acked_rate_max_w=best_bps,
                delay_variation_w=variation_ms,
                spike_bins_w=spike_share,
            )
            for floor_ms, best_bps, variation_ms, spike_share in columns
        ]
    )


def test_a_window_with_the_typical_values_of_a_kind_of_network_is_of_that_kind() -> None:
    rule = TypicalValuesRule()
    assert rule.classify(typical_windows(rule)).tolist() == list(range(len(NETWORK_CLASSES)))


def test_typical_values_are_the_medians_of_each_class_and_a_missing_class_keeps_its_own() -> None:
    floors_ms = {0: (100.0, 200.0, 900.0), 2: (30.0, 10.0, 20.0)}
    dense = np.stack([window(rtt_floor=ms) for row in floors_ms.values() for ms in row])
    measured_rule = TypicalValuesRule.measure(dense, np.array([0, 0, 0, 2, 2, 2]))
    default = TypicalValuesRule().floor_ms
    assert measured_rule.floor_ms == (200.0, default[1], 20.0, *default[3:])


def test_no_window_without_a_spike_ranks_above_one_with() -> None:
    dense = random_windows(2000)
    has_spike = measured(dense, "spike_bins_w") >= CongestionPointsRule().spike_share
    scores = CongestionPointsRule().score(dense)
    assert 0 < has_spike.sum() < 2000
    assert scores[~has_spike].max() < scores[has_spike].min()


# --- What every rule keeps ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "rising", "falling"),
    [
        (SpikeRule(), (), ("loss_delay_share_1s",)),
        (DelayRankRule(), (), ("loss_delay_rank_1s",)),
        (ZigZagRule(), ("queue_delay_w",), ("loss_delay_1s",)),
        (BacklogRule(), (), ("acked_rate_1s", "loss_delay_1s")),
        (LossRatioRule(), (), ("loss_ratio_1s",)),
        (
            LossPointsRule(),
            ("loss_gap_w", "loss_run_1s"),
            ("loss_delay_1s", "loss_delay_rank_1s", "loss_ratio_1s", "sent_rate_1s"),
        ),
        (PredictedRttRule(), ("rtt_rise_now", "rtt_slope_1s"), ()),
        (LossPersistenceRule(), ("lossy_bins_w", "loss_ratio_1s"), ()),
        (CongestionPointsRule(), tuple(CONGESTION), ()),
        (MeanRunRule(), ("loss_run_1s",), ()),
        (
            BurstPointsRule(),
            ("loss_run_1s", "loss_run_w", "loss_run_max_w"),
            ("lossy_bins_w", "loss_ratio_1s"),
        ),
    ],
    ids=rule_name,
)
def test_a_score_goes_with_each_of_its_features_one_way_and_with_no_other(
    rule: ScoreRule, rising: tuple[str, ...], falling: tuple[str, ...]
) -> None:
    dense = random_windows(300)
    before = rule.score(dense)
    moved_by = set()
    for index, name in enumerate(DENSE_NAMES):
        raised = dense.copy()
        raised[:, index] = (raised[:, index] + 1.0) / 2.0
        change = rule.score(raised) - before
        if (change != 0.0).any():
            moved_by.add(name)
        if name in rising:
            assert (change >= 0.0).all(), name
        if name in falling:
            assert (change <= 0.0).all(), name
    assert moved_by >= {*rising, *falling}
    # Features that go either way: ZigZag's deviation and run, the loss ratio that excuses runs.
    either_way = {
        "ZigZagRule": {"queue_delay_sd_w", "loss_run_1s"},
        "BurstPointsRule": {"loss_ratio_w"},
    }
    assert moved_by - {*rising, *falling} <= either_way.get(rule_name(rule), set())


@pytest.mark.parametrize("candidate", CANDIDATES, ids=rule_name)
def test_a_rule_answers_for_any_window_and_for_one_call_as_for_many(candidate: Candidate) -> None:
    dense = random_windows(50)
    dense[0], dense[1] = -1.0, 1.0
    together = answers(candidate.rule, dense)
    assert together.shape == (50,)
    assert np.isfinite(together).all()
    alone = np.array([answers(candidate.rule, row) for row in dense])
    np.testing.assert_allclose(alone, together, rtol=1e-12)


def test_every_task_of_the_network_models_has_rules_that_answer_it() -> None:
    assert set(RULES) == set(TASKS)
    for task, candidates in RULES.items():
        for candidate in candidates:
            assert hasattr(candidate.rule, "score") == TASKS[task].is_binary, candidate

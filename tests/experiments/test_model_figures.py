from __future__ import annotations

import math
import sys

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.labels import spike_threshold_ms
from experiments.classification import (
    calibration_bins,
    expected_calibration_error,
    operating_curve,
    pr_auc,
    roc_auc,
)
from experiments.model_call_tables import lead_tables, leads_s, size_tables
from experiments.model_course_figures import alternating_pictures, example_picture
from experiments.model_figures import confusion_picture, importance_picture
from experiments.model_online import Fall
from experiments.model_report import ConfusionTable, SizeRow
from experiments.model_scores import Importance, operating_point
from experiments.model_tables import difference_cell, interval_cell, number
from experiments.stats import Interval
from tests.experiments.model_reports import alternating, examples

# --- What curves are drawn from -------------------------------------------------------------------


def test_a_curve_of_four_windows_is_the_one_worked_by_hand() -> None:
    scores = np.array([0.9, 0.7, 0.7, 0.1])
    labels = np.array([True, False, True, False])
    curve = operating_curve(scores, labels)
    assert curve is not None
    # Named: nothing, then 0.9, then both of 0.7 at once, then all.
    assert curve.recall.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert curve.false_positive_ratio.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert curve.precision.tolist() == [1.0, 1.0, 2 / 3, 0.5]


def test_without_both_labels_there_is_no_curve() -> None:
    scores = np.linspace(0.0, 1.0, 5)
    assert operating_curve(scores, np.ones(5, dtype=np.bool_)) is None
    assert operating_curve(scores, np.zeros(5, dtype=np.bool_)) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_areas_under_the_curves_are_the_scores_that_are_told(
    windows: list[tuple[int, bool]],
) -> None:
    scores = np.array([score / 5.0 for score, _ in windows])
    labels = np.array([label for _, label in windows])
    curve = operating_curve(scores, labels)
    if curve is None:
        return
    once = np.ones((1, len(labels)))
    area = np.trapezoid(curve.recall, curve.false_positive_ratio)
    assert area == pytest.approx(roc_auc(scores, labels, once)[0])
    steps = np.diff(curve.recall) * curve.precision[1:]
    assert steps.sum() == pytest.approx(pr_auc(scores, labels, once)[0])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_every_threshold_s_operating_point_lies_on_the_curve(
    windows: list[tuple[int, bool]],
) -> None:
    scores = np.array([score / 5.0 for score, _ in windows])
    labels = np.array([label for _, label in windows])
    curve = operating_curve(scores, labels)
    if curve is None:
        return
    on_curve = set(zip(curve.recall.tolist(), curve.precision.tolist(), strict=True))
    for threshold in np.unique(scores):
        point = operating_point(scores, labels, threshold)
        assert (point.recall, point.precision) in on_curve


def test_the_calibration_error_is_the_mean_gap_of_the_bins_that_are_drawn() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.random(1003)
    labels = generator.random(1003) < probabilities**2
    bins = calibration_bins(probabilities, labels)
    assert bins.counts.sum() == 1003
    assert np.ptp(bins.counts) <= 1
    assert (np.diff(bins.probability) > 0.0).all()
    naive, ordered = 0.0, sorted(zip(probabilities, labels, strict=True))
    for count in bins.counts:
        part, ordered = ordered[:count], ordered[count:]
        said = sum(probability for probability, _ in part) / count
        true = sum(bool(label) for _, label in part) / count
        naive += count / 1003 * abs(said - true)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(naive)


def test_bins_of_fewer_windows_than_bins_are_single_windows() -> None:
    bins = calibration_bins(np.array([0.9, 0.2]), np.array([True, False]))
    assert bins.probability.tolist() == [0.2, 0.9]
    assert bins.frequency.tolist() == [0.0, 1.0]


def test_a_spike_is_forty_ms_above_a_low_floor_and_a_quarter_above_a_high_one() -> None:
    assert spike_threshold_ms(np.array([20.0, 160.0, 400.0])).tolist() == [60.0, 200.0, 500.0]


# --- Cells ----------------------------------------------------------------------------------------


def test_numbers_carry_their_unit_and_the_unknown_is_a_dash() -> None:
    assert number(12345.678, 1, "ms") == "12,345.7 ms"
    assert number(math.nan, 1, "ms") == number(math.inf) == "–"


def test_a_difference_is_marked_just_where_its_interval_excludes_zero() -> None:
    def cell(low: float, high: float) -> str:
        return difference_cell(Interval(mean=0.02, low=low, high=high, networks=9), digits=2)

    assert cell(0.01, 0.03) == "+0.02 [+0.01, +0.03] *"
    assert cell(-0.01, 0.05) == "+0.02 [-0.01, +0.05]"
    assert cell(-math.inf, math.inf) == "+0.02 [–, –]"
    alone = Interval(mean=0.5, low=-math.inf, high=math.inf, networks=1)
    assert interval_cell(alone) == "0.500 [–, –]"


def falls(*leads: float) -> list[Fall]:
    return [Fall(time_s=30.0, first_loss_s=31.0, alarm_s=31.0 - lead) for lead in leads]


def test_lead_times_are_of_falls_with_both_and_the_others_are_counted() -> None:
    no_loss = Fall(time_s=30.0, first_loss_s=math.nan, alarm_s=30.5)
    of_seed = [*falls(0.2, 0.4, -0.3, math.nan), no_loss]
    assert leads_s(of_seed) == pytest.approx([0.2, 0.4, -0.3])
    link = alternating()
    link = type(link)(**{**vars(link), "falls": [of_seed], "false_alarms_per_minute": [1.25]})
    (table,) = lead_tables(link)
    # Two alarms came early; four falls had a loss; one of five had no alarm.
    assert table.rows == [["0", "0.20", "-0.20 to 0.36", "2 of 4 (50.0 %)", "1 of 5", "1.25"]]


def test_sizes_without_a_multi_task_model_have_no_ratios() -> None:
    row = SizeRow(name="single-task a", parameters=10, file_bytes=2000, inference_ms=1.5)
    (table,) = size_tables([row])
    assert table.rows == [["single-task a", "10", "2,000", "1.50"]]


# --- Pictures -------------------------------------------------------------------------------------


def test_drawing_leaves_the_state_of_matplotlib_alone_and_repeats_itself() -> None:
    before = dict(matplotlib.rcParams)
    first, second = (example_picture(0, examples()[0]) for _ in range(2))
    assert first == second
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        import matplotlib.pyplot as plt

        assert plt.get_fignums() == []


def test_only_the_fifteen_largest_importances_are_drawn() -> None:
    importances = [Importance(feature=f"f{index}", loss=index / 100) for index in range(20)]
    picture = importance_picture("congestion", importances, "ROC-AUC")
    assert picture is not None
    assert picture.alt.startswith("Loss when shuffled: f19 0.190, f18 0.180")
    assert picture.alt.endswith("f5 0.050")
    assert importance_picture("congestion", [], "ROC-AUC") is None


def test_confusions_are_told_by_true_class_and_a_class_that_never_occurs_by_a_dash() -> None:
    counts = np.array([[3, 1], [0, 0]])
    picture = confusion_picture("x", ConfusionTable(contestant="rule", classes="ab", counts=counts))
    assert picture.alt == "Confusion matrix of rule; named rightly: a 75 %, b – %"


def test_the_alternating_link_is_drawn_as_a_whole_and_from_near_with_its_lead_times() -> None:
    pictures = {picture.name: picture for picture in alternating_pictures(alternating())}
    assert list(pictures) == ["alternating-call", "alternating-lead", "alternating-fall"]
    assert (
        "fall at 30.0 s, alarm at 30.2 s, first loss at 30.5 s" in pictures["alternating-fall"].alt
    )
    assert "fall at 150.0 s" in pictures["alternating-call"].alt
    assert "fall at 90.0 s" not in pictures["alternating-fall"].alt
    assert "median 0.30 s" in pictures["alternating-lead"].alt

"""Loss alone: the rule by hand, and what it does to a queue."""

from __future__ import annotations

import pytest

from baselines.aimd_loss import AimdLoss, loss_based_rate_bps
from baselines.report_reading import MIN_NO_FEEDBACK_US
from bwe_env.config import CallConfig
from bwe_env.feedback import SentPacket
from tests.baselines.estimator_calls import CALL, link, play, report, settled_mean


@pytest.mark.parametrize(
    ("loss_ratio", "rate_bps"),
    [
        (0.0, 1_080_000),
        (0.019, 1_080_000),
        (0.02, 1_000_000),
        (0.1, 1_000_000),
        (0.2, 900_000),  # 1 - 0.5·0.2
        (1.0, 500_000),
    ],
)
def test_the_rate_grows_holds_or_falls_by_half_the_loss(loss_ratio: float, rate_bps: float) -> None:
    assert loss_based_rate_bps(1e6, loss_ratio) == pytest.approx(rate_bps)


def second_of_reports(estimator: AimdLoss, second: int, num_lost: int) -> float:
    """Ten reports of ten packets each, of which the first `num_lost` are missing."""
    for tenth in range(10):
        first = 100 * second + 10 * tenth
        sent_us = [10_000 * (first + index) for index in range(10)]
        built_us = sent_us[-1] + 25_000
        arrivals_us = [
            None if first + index < 100 * second + num_lost else send_us + 20_000
            for index, send_us in enumerate(sent_us)
        ]
        told = report(first, arrivals_us, sent_us=sent_us, built_us=built_us)
        decision = estimator.on_feedback(told, built_us + 25_000)
    return decision.target_rate_bps


def test_reports_of_a_second_are_judged_together() -> None:
    estimator = AimdLoss(call=CALL)
    second_of_reports(estimator, 0, 0)
    assert second_of_reports(estimator, 1, 0) == pytest.approx(324_000)  # 300 kbps and 8 %
    # Nine of a hundred lost hold, though one report lost nine of ten.
    assert second_of_reports(estimator, 2, 9) == pytest.approx(324_000)
    assert second_of_reports(estimator, 3, 0) == pytest.approx(349_920)
    # A second ends with the first report of the next: first 10 of 100 are lost, then 20.
    assert second_of_reports(estimator, 4, 0) == pytest.approx(377_913.6)
    assert second_of_reports(estimator, 5, 30) == pytest.approx(377_913.6)
    assert second_of_reports(estimator, 6, 0) == pytest.approx(0.9 * 377_913.6)


def test_a_packet_that_comes_late_is_not_lost() -> None:
    estimator = AimdLoss(call=CALL)
    sent_us = [100_000 * index for index in range(10)]
    arrived_us = [send_us + 20_000 for send_us in sent_us]
    estimator.on_feedback(
        report(0, [None] * 5 + arrived_us[5:], sent_us=sent_us, built_us=950_000), 975_000
    )
    decision = estimator.on_feedback(
        report(0, [960_000] * 5, sent_us=sent_us[:5], built_us=2_000_000), 2_025_000
    )
    assert decision.target_rate_bps == pytest.approx(324_000)


def test_silence_halves_the_rate_down_to_the_calls_minimum() -> None:
    estimator = AimdLoss(call=CallConfig(min_rate_bps=100_000))
    told = report(0, [20_000], sent_us=[0], built_us=25_000)
    estimator.on_feedback(told, 50_000)
    due_us = 50_000 + MIN_NO_FEEDBACK_US
    assert estimator.next_timeout_us() == due_us
    # Nothing is out: no report can be missed.
    assert estimator.on_timeout(due_us).target_rate_bps == 300_000
    estimator.on_packet_sent(SentPacket(1, due_us, 1_000), due_us)
    rates = [estimator.on_timeout(estimator.next_timeout_us()).target_rate_bps for _ in range(3)]
    assert rates == [150_000, 100_000, 100_000]


def test_it_fills_whatever_queue_there_is_and_random_loss_stops_it_only_above_two_percent() -> None:
    networks = (
        link(500e3, queue_limit_s=0.3),
        link(500e3, queue_limit_s=1.0),
        link(2.5e6, loss=0.05),
        link(2.5e6, loss=0.2),
    )
    short, long, holding, falling = play(AimdLoss, networks)
    assert settled_mean(short, "queue_delay_ms") > 150
    assert settled_mean(long, "queue_delay_ms") > 500
    assert settled_mean(short, "queue_loss_ratio") > 0.02
    # Between 2 and 10 % it stays about where it started, 2.5 Mbps or not.
    assert 250e3 < settled_mean(holding, "target_rate_bps") < 500e3
    assert settled_mean(falling, "target_rate_bps") == pytest.approx(CALL.min_rate_bps, rel=0.05)

"""Models that watch say what they would have said afterwards, and every alarm counts."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agents.network_model import NetworkModel, NetworkModelConfig
from agents.online_models import OnlineModels
from bwe_env.rollout import record_calls
from experiments import model_online
from experiments.collected_networks import collected_networks, sender_of
from experiments.dataset import DatasetCall
from experiments.model_online import (
    HORIZON_BINS,
    alarm_starts,
    alternating_calls,
    capacity_falls_s,
    congestion_shares,
    falls_of,
    false_alarms,
    shadow_calls,
    threshold_for_false_alarms,
)
from experiments.model_training import predict
from experiments.samples import make_samples, telemetry_labels
from tests.experiments.dataset_calls import quiet_telemetry

Scores = NDArray[np.float64]


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def scores_at(bins: int, at: Any, value: float = 0.9) -> Scores:
    scores = np.zeros(bins)
    scores[at] = value
    return scores


def congested_at(bins: int, at: int) -> NDArray[Any]:
    """A call of which a loss of 10 % is reported in bin `at`."""
    rows = quiet_telemetry(bins)
    rows["lost_packets"][at] = 20.0
    return rows


# --- Alarms ---------------------------------------------------------------------------------------


def test_alarms_begin_above_the_threshold_and_end_after_a_second_below() -> None:
    scores = scores_at(200, [5, 6, 16, 40, 51, 61])
    # 16 comes within a second of 6, 51 does not of 40: the ten bins from 41 to 50 are below.
    assert alarm_starts(scores, 0.9).tolist() == [5, 40, 51]
    assert alarm_starts(scores, 0.91).tolist() == []
    assert alarm_starts(scores_at(20, slice(None)), 0.5).tolist() == [0]


def test_an_alarm_that_goes_on_is_raised_anew_every_four_seconds() -> None:
    """It speaks of the next 4 s. A model that always fires must look as bad as it is."""
    always = scores_at(600, slice(None))
    assert alarm_starts(always, 0.5).tolist() == list(range(0, 600, HORIZON_BINS))
    wavering = scores_at(200, slice(10, 190, 8))  # never a second below
    assert alarm_starts(wavering, 0.5).tolist() == [10, 50, 90, 130, 170]
    paused = scores_at(200, [*range(10, 45), *range(60, 65)])
    assert alarm_starts(paused, 0.5).tolist() == [10, 60]


def test_alarms_are_false_if_nothing_comes_within_four_seconds() -> None:
    telemetry = congested_at(300, 150)
    # A second with the loss lies wholly within the 40 bins ahead; the first such ends with it.
    assert telemetry_labels(telemetry).is_followed.nonzero()[0].tolist() == list(range(110, 150))
    for start, expected in ((50, 1), (109, 1), (110, 0), (149, 0), (150, 1), (200, 1)):
        assert false_alarms(telemetry, scores_at(300, start), 0.5) == expected
    # What the last 4 s foretell nobody can know.
    assert false_alarms(telemetry, scores_at(300, 259), 0.5) == 1
    assert false_alarms(telemetry, scores_at(300, 260), 0.5) == 0
    several = scores_at(300, [20, 60, 120, 200, 270])
    assert false_alarms(telemetry, several, 0.5) == 3


def test_a_model_that_always_fires_is_false_wherever_nothing_follows() -> None:
    telemetry = congested_at(600, 150)
    # Raised at 0, 40, … 520, 560; the last is censored, and 120 alone is followed.
    assert false_alarms(telemetry, scores_at(600, slice(None)), 0.5) == 13


def test_an_early_alarm_is_not_false_for_want_of_a_spike() -> None:
    telemetry = congested_at(300, 150)
    labels = telemetry_labels(telemetry)
    assert not labels.had_spike.any()
    assert not labels.is_positive.any()
    assert false_alarms(telemetry, scores_at(300, 140), 0.5) == 0


def followed(calls: list[NDArray[Any]]) -> list[NDArray[np.bool_]]:
    return [telemetry_labels(call).is_followed for call in calls]


def test_the_threshold_is_the_smallest_that_is_quiet_enough_from_there_on() -> None:
    calls = [quiet_telemetry(600), quiet_telemetry(600)]  # two minutes
    scores = [scores_at(600, [50, 150], 0.31), scores_at(600, [250], 0.62)]
    scores[1][350] = 0.8
    # Four false alarms: at 0.31 twice, at 0.62 and at 0.8.
    for per_minute, expected in ((0.0, 0.805), (0.5, 0.625), (1.0, 0.315), (1.5, 0.315)):
        threshold = threshold_for_false_alarms(followed(calls), scores, per_minute=per_minute)
        assert threshold == pytest.approx(expected)
    lowest = threshold_for_false_alarms(followed(calls), scores, per_minute=2.0)
    assert lowest == pytest.approx(0.005)


def test_always_firing_is_no_way_to_few_false_alarms() -> None:
    """Below 0.4 there is one long alarm, which would count once if it was not raised anew."""
    telemetry = [quiet_telemetry(600)]
    wavering = np.where(np.arange(600) % 30 < 15, 0.8, 0.4)
    assert threshold_for_false_alarms(followed(telemetry), [wavering], per_minute=2.0) > 0.8
    assert threshold_for_false_alarms(followed(telemetry), [np.ones(600)], per_minute=2.0) == 1.0


# --- The alternating link -------------------------------------------------------------------------


def test_falls_are_those_of_the_capacity_with_first_loss_and_first_alarm_behind_each() -> None:
    telemetry = quiet_telemetry(1800)  # 180 s: the capacity falls at 30, 90 and 150 s
    telemetry["lost_packets"][[100, 304, 310, 1600]] = 3.0
    telemetry["lost_packets"][700] = 3.0  # after the rise at 60 s
    scores = scores_at(1800, [50, 301, 302, *range(890, 905), 1605])
    falls = falls_of(telemetry, scores, 0.5)
    assert [fall.time_s for fall in falls] == [30.0, 90.0, 150.0]
    # Bin 304 ends at 30.5 s, bin 301 at 30.2 s.
    assert (falls[0].first_loss_s, falls[0].alarm_s) == pytest.approx((30.5, 30.2))
    assert falls[0].lead_s == pytest.approx(0.3)
    # An alarm that went on: known at the end of the first bin after the fall.
    assert np.isnan(falls[1].first_loss_s)
    assert falls[1].alarm_s == pytest.approx(90.1)
    assert np.isnan(falls[1].lead_s)
    assert falls[2].lead_s == pytest.approx(-0.5)  # too late


def test_a_fall_without_an_alarm_and_one_that_a_dropped_call_did_not_meet() -> None:
    telemetry = quiet_telemetry(1000)
    falls = falls_of(telemetry, np.zeros(1000), 0.5)
    assert [fall.time_s for fall in falls] == [30.0, 90.0]
    assert all(np.isnan(fall.alarm_s) for fall in falls)
    assert falls_of(quiet_telemetry(250), np.zeros(250), 0.5) == []
    assert falls_of(quiet_telemetry(0), np.zeros(0), 0.5) == []


class Silent:
    """A model that never says yes."""

    outputs = ("congestion",)

    def reset(self, num_envs: int) -> None:
        self.num_envs = num_envs

    def restart(self, env: int) -> None:
        pass

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.zeros((self.num_envs, 1), dtype=np.float32)


def test_the_alternating_scenario_falls_when_falls_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_online, "ALTERNATING_SEEDS", 2)
    calls = alternating_calls(cast(OnlineModels, Silent()), threads=1)
    assert [call.seed for call in calls] == [0, 1]
    for call in calls:
        capacity_bps = call.steps["capacity_bps"]
        assert len(capacity_bps) == 1800
        for fall in falls_of(call.telemetry, call.probabilities[:, 0], 2.0):
            end_s = call.steps["time_s"]
            after = (end_s > fall.time_s + 1e-6) & (end_s < fall.time_s + 29.0)
            np.testing.assert_allclose(capacity_bps[after], 100e3)
            before = (end_s > fall.time_s - 29.0) & (end_s < fall.time_s - 1e-6)
            np.testing.assert_allclose(capacity_bps[before], 500e3)


# --- Shadow mode ----------------------------------------------------------------------------------


def model_of(*tasks: str) -> NetworkModel:
    torch.manual_seed(len(tasks))
    model = NetworkModel(NetworkModelConfig(tasks=tasks))
    dict(model.named_buffers())["scale"].fill_(5.0)  # so that answers differ from one half
    return model.eval()


NETWORKS = collected_networks("test", 3)


@pytest.fixture(scope="module")
def watched() -> tuple[list[DatasetCall], list[NDArray[np.float32]], list[NetworkModel]]:
    models = [
        model_of("random_loss"),
        model_of("congestion"),
        model_of("network_type", "bursty_loss"),
    ]
    calls, probabilities = shadow_calls(NETWORKS, OnlineModels(models), threads=2)
    return calls, probabilities, models


def test_watched_calls_are_those_that_nobody_watches(watched: Any) -> None:
    calls, probabilities, models = watched
    assert sorted(call.network for call in calls) == sorted(network.name for network in NETWORKS)
    outputs = sum(len(model.config.outputs) for model in models)
    for network in NETWORKS:
        (alone,) = record_calls([network], "gcc", call=sender_of(network.name).call)
        index = [call.network for call in calls].index(network.name)
        assert calls[index].telemetry.tobytes() == alone.telemetry.tobytes()
        assert probabilities[index].shape == (len(alone.telemetry), outputs)


@pytest.mark.parametrize("task", ["random_loss", "congestion", "network_type", "bursty_loss"])
def test_what_is_said_in_a_call_is_what_is_said_of_its_windows_afterwards(
    task: str, watched: Any
) -> None:
    calls, probabilities, models = watched
    model = next(model for model in models if task in model.config.tasks)
    outputs = [name for model in models for name in model.config.outputs]
    column = outputs.index(task) if task in outputs else outputs.index("network_type:cellular-low")
    samples = make_samples(task, calls, learn=False, window_bins=model.config.window_bins)
    offline = predict(model, samples)
    online = np.concatenate(
        [probabilities[index][samples.bin[samples.call == index]] for index in range(len(calls))]
    )[:, column : column + offline.shape[1]]
    # Batches of other sizes add up in another order, some last bits of float32; the scale of 5 and
    # the 100 steps of the LSTM make more of them.
    np.testing.assert_allclose(online, offline, atol=2e-5)
    assert offline.std() > 1e-3


# --- What GCC does, and cost ----------------------------------------------------------------------


def test_congestion_is_told_for_each_network_in_its_order_under_gcc_and_the_oracle() -> None:
    shares = congestion_shares(NETWORKS, threads=1)
    assert [share.controller for share in shares] == ["gcc", "oracle"]
    for position, network in enumerate(NETWORKS):
        (call,) = record_calls([network], "gcc", call=sender_of(network.name).call)
        labels = telemetry_labels(call.telemetry)
        lost = call.steps["reported_congestion_packets"].sum()
        reported = call.telemetry["lost_packets"].sum() + call.telemetry["acked_packets"].sum()
        assert shares[0].queue_loss_ratio[position] == pytest.approx(lost / reported)
        positive = labels.is_positive[labels.is_scored].mean()
        assert shares[0].positive_ratio[position] == pytest.approx(positive)


def test_capacities_fall_where_a_bin_has_at_most_three_fifths_of_the_last() -> None:
    time_s = 0.1 * np.arange(1, 9)
    sharp = np.array([5.0, 5.0, 1.0, 1.0, 5.0, 4.0, 3.0, 1.7])
    assert capacity_falls_s(time_s, sharp) == pytest.approx([0.2, 0.7])
    within_a_bin = np.array([5.0, 5.0, 2.2, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert capacity_falls_s(time_s, within_a_bin) == pytest.approx([0.2])
    assert len(capacity_falls_s(time_s[:1], sharp[:1])) == 0


def test_falls_at_other_times_are_looked_for_there() -> None:
    telemetry = congested_at(300, 150)  # a loss reported at the end of bin 150
    [fall] = falls_of(telemetry, scores_at(300, [145]), 0.5, times_s=[14.0])
    assert (fall.time_s, fall.alarm_s) == pytest.approx((14.0, 14.6))
    assert fall.lead_s == pytest.approx(fall.first_loss_s - 14.6)

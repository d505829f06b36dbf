"""Windows are cut where the labels' definitions have them and see nothing that comes after."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env.errors import ArtifactError, UnknownNameError
from bwe_env.labels import (
    MIXED,
    NETWORK_CLASSES,
    RANDOM,
    congestion_labels,
    first_of_episodes,
    loss_episodes,
    random_loss_labels,
)
from bwe_env.network_features import NUM_DENSE, NUM_SERIES, call_features, series_windows
from experiments.dataset import TRUTH_NAMES, DatasetCall, read_calls
from experiments.samples import (
    LEARN_PER_CALL,
    Samples,
    has_both_causes,
    make_samples,
)
from tests.experiments.dataset_calls import lose, quiet_call, quiet_telemetry

TASKS = ("random_loss", "congestion", "network_type", "bursty_loss")


@pytest.fixture(scope="module")
def calls(small_dataset: Path) -> list[DatasetCall]:
    """Simulated calls, and one of which nobody knows why it lost."""
    simulated = read_calls(small_dataset, ["train", "validation"])
    unknown = {name: np.full(600, np.nan) for name in TRUTH_NAMES}
    log = DatasetCall(network="log", source="log", telemetry=quiet_telemetry(600), truth=unknown)
    lose(log, slice(100, 200), by_chance=3)
    return [simulated[0], log, *simulated[1:]]


def of_call(samples: Samples, index: int) -> dict[str, Any]:
    """The windows of one call, its position left out."""
    rows = samples.call == index
    return {
        "bin": samples.bin[rows].tolist(),
        "labels": samples.labels[rows].tolist(),
        "is_special": samples.is_special[rows].tolist(),
        "dense": samples.dense[rows].tobytes(),
        "series": samples.windows(np.flatnonzero(rows)).tobytes(),
    }


# --- What a window holds --------------------------------------------------------------------------


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_a_window_holds_the_features_of_its_call_at_its_bin(
    task: str, learn: bool, calls: list[DatasetCall]
) -> None:
    samples = make_samples(task, calls, learn=learn)
    assert samples.dense.shape == (len(samples), NUM_DENSE)
    for index, call in enumerate(calls):
        rows = np.flatnonzero(samples.call == index)
        if len(rows) == 0:
            continue
        bins = samples.bin[rows]
        assert (np.diff(bins) > 0).all()
        series, dense = call_features(call.telemetry, bins, window_bins=samples.window_bins)
        windows = series_windows(series, bins, window_bins=samples.window_bins)
        np.testing.assert_array_equal(samples.windows(rows), windows)
        np.testing.assert_array_equal(samples.dense[rows], dense)
        assert {samples.networks[n] for n in samples.network[rows]} == {call.network}
        assert {samples.types[n] for n in samples.network[rows]} == {call.network_type}


def test_before_the_call_began_a_window_holds_minus_one_and_nothing_of_the_call_before() -> None:
    calls = [quiet_call("a"), quiet_call("b", bins=60)]
    for call in calls:
        lose(call, [3, 4], by_chance=2)
    samples = make_samples("random_loss", calls, learn=False)
    windows = samples.windows(np.arange(len(samples)))
    assert samples.bin.tolist() == [3, 3]
    assert windows.shape == (2, 100, NUM_SERIES)
    assert (windows[:, :96] == -1.0).all()
    assert (windows[:, 96:] != -1.0).any(axis=2).all()
    np.testing.assert_array_equal(windows[0], windows[1])


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("task", ["random_loss", "network_type"])
def test_what_comes_after_a_window_changes_nothing_in_it(
    task: str, learn: bool, calls: list[DatasetCall]
) -> None:
    call = calls[0]
    samples = make_samples(task, [call], learn=learn)
    row = len(samples) // 2
    end = int(samples.bin[row])
    later = call.telemetry.copy()
    later[end + 1 :] = quiet_telemetry(len(later))[end + 1 :]
    assert (later[end + 1 :] != call.telemetry[end + 1 :]).any()
    # The truth stays, so that the same windows are chosen.
    again = make_samples(task, [dataclasses.replace(call, telemetry=later)], learn=learn)
    assert again.bin.tolist() == samples.bin.tolist()
    np.testing.assert_array_equal(again.dense[: row + 1], samples.dense[: row + 1])
    seen = np.arange(row + 1)
    np.testing.assert_array_equal(again.windows(seen), samples.windows(seen))


def test_truth_is_no_part_of_what_a_model_sees(calls: list[DatasetCall]) -> None:
    call = calls[0]
    other = {name: np.zeros_like(column) for name, column in call.truth.items()}
    for task in ("congestion", "network_type"):
        first = make_samples(task, [call], learn=False)
        second = make_samples(task, [dataclasses.replace(call, truth=other)], learn=False)
        np.testing.assert_array_equal(first.dense, second.dense)
        np.testing.assert_array_equal(first.series, second.series)


# --- What is learnt from --------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_windows_of_a_call_hang_on_that_call_alone(task: str, calls: list[DatasetCall]) -> None:
    both = make_samples(task, calls, learn=True)
    for index in sorted(set(both.call.tolist()))[:4]:
        alone = make_samples(task, [calls[index]], learn=True)
        assert of_call(alone, 0) == of_call(both, index)
    backwards = make_samples(task, calls[::-1], learn=True)
    for index in range(len(calls)):
        assert of_call(backwards, len(calls) - 1 - index) == of_call(both, index)


@pytest.mark.parametrize("task", TASKS)
def test_no_call_teaches_more_windows_than_its_share(task: str) -> None:
    call = quiet_call("a", bins=3000, loss_process="bursty")
    lose(call, np.arange(0, 3000, 3), by_chance=3)
    samples = make_samples(task, [call], learn=True)
    assert 0 < len(samples) <= LEARN_PER_CALL[task]


def test_half_of_what_teaches_random_loss_begins_an_episode() -> None:
    call = quiet_call("a")
    lose(call, np.arange(20, 600, 25), by_chance=2)  # 24 episodes of a second each
    samples = make_samples("random_loss", [call], learn=True)
    starts = first_of_episodes(loss_episodes(_kinds(call)))
    assert len(starts) == 24
    assert np.isin(samples.bin, starts).sum() >= 15
    assert len(samples) == 30
    few = quiet_call("b")
    lose(few, [100, 300], by_chance=2)
    bins = make_samples("random_loss", [few], learn=True).bin
    assert bins.tolist() == [*range(100, 110), *range(300, 310)]  # all that are eligible


def _kinds(call: DatasetCall) -> Any:
    return random_loss_labels(
        call.truth["reported_random_packets"], call.truth["reported_congestion_packets"]
    )


def test_congestion_is_learnt_mostly_after_spikes_and_a_fifth_without() -> None:
    call = quiet_call("a")
    call.telemetry["rtt_ms"][100:300] = 200.0
    samples = make_samples("congestion", [call], learn=True)
    assert len(samples) == 36
    assert (~samples.is_special).sum() == 7
    calm = make_samples("congestion", [quiet_call("a")], learn=True)
    assert len(calm) == 7
    assert not calm.labels.any()


# --- What is scored -------------------------------------------------------------------------------


def test_random_loss_is_scored_once_an_episode_and_mixed_causes_are_no() -> None:
    call = quiet_call("a")
    lose(call, 100, by_chance=2)  # random until bin 109
    lose(call, 300, by_load=4)  # not random
    lose(call, 305, by_chance=3)  # mixed until bin 309, then random until 314
    samples = make_samples("random_loss", [call], learn=False)
    assert samples.bin.tolist() == [100, 300, 305, 310]
    assert samples.labels.tolist() == [1, 0, 0, 1]
    assert samples.is_special.tolist() == [False, False, True, False]


def test_random_loss_of_simulated_calls_has_the_labels_of_the_first_bins_of_episodes(
    calls: list[DatasetCall],
) -> None:
    samples = make_samples("random_loss", calls, learn=False)
    for index, call in enumerate(calls):
        if call.network == "log":
            continue
        rows = samples.call == index
        labels = _kinds(call)
        starts = first_of_episodes(loss_episodes(labels))
        assert samples.bin[rows].tolist() == starts.tolist()
        assert samples.labels[rows].tolist() == (labels.kind[starts] == RANDOM).tolist()
        assert samples.is_special[rows].tolist() == (labels.kind[starts] == MIXED).tolist()
        learnt = make_samples("random_loss", [call], learn=True) if rows.any() else None
        if learnt is not None:
            assert labels.is_eligible[learnt.bin].all()
            assert learnt.labels.tolist() == labels.is_random[learnt.bin].tolist()


def test_congestion_is_scored_every_second_where_past_and_future_are_whole(
    calls: list[DatasetCall],
) -> None:
    samples = make_samples("congestion", calls, learn=False)
    learnt = make_samples("congestion", calls, learn=True)
    for index, call in enumerate(calls):
        lost = call.telemetry["lost_packets"]
        labels = congestion_labels(
            call.telemetry["rtt_ms"], lost, reported_packets=lost + call.telemetry["acked_packets"]
        )
        assert samples.bin[samples.call == index].tolist() == (
            np.flatnonzero(labels.is_scored)[::10].tolist()
        )
        for chosen in (samples, learnt):
            rows = chosen.call == index
            bins = chosen.bin[rows]
            assert labels.is_scored[bins].all()
            assert chosen.labels[rows].tolist() == labels.is_positive[bins].tolist()
            assert chosen.is_special[rows].tolist() == labels.had_spike[bins].tolist()
    whole = make_samples("congestion", [quiet_call("a", bins=600)], learn=False)
    assert whole.bin.tolist() == list(range(39, 560, 10))


def test_the_type_is_asked_every_five_seconds_of_calls_whose_class_is_known() -> None:
    calls = [
        quiet_call("a", network_type="4G-LTE", network_class="cellular-high"),
        quiet_call("b", bins=40),  # over before it could be asked
        quiet_call("c", network_class=""),
    ]
    samples = make_samples("network_type", calls, learn=False)
    assert samples.bin.tolist() == list(range(49, 600, 50))
    assert set(samples.labels.tolist()) == {NETWORK_CLASSES.index("cellular-high")}
    assert set(samples.call.tolist()) == {0}
    learnt = make_samples("network_type", calls, learn=True)
    assert ((np.arange(49, 50 * len(learnt), 50) <= learnt.bin) & (learnt.bin < 600)).all()


def test_bursts_are_asked_once_a_second_and_only_while_loss_is_random() -> None:
    call = quiet_call("a", loss_process="bursty")
    lose(call, [104, 113, 122], by_chance=2)  # random from bin 104 to 131
    lose(call, 300, by_load=4)
    independent = quiet_call("b", loss_process="independent")
    lose(independent, 200, by_chance=2)
    unlabelled = quiet_call("c", loss_process="none")
    lose(unlabelled, 200, by_chance=2)
    calls = [call, independent, unlabelled]
    samples = make_samples("bursty_loss", calls, learn=False)
    assert samples.bin.tolist() == [104, 110, 120, 130, 200]
    assert samples.labels.tolist() == [1, 1, 1, 1, 0]
    learnt = make_samples("bursty_loss", calls, learn=True)
    for index, one in enumerate(calls):
        assert (_kinds(one).kind[learnt.bin[learnt.call == index]] == RANDOM).all()
    assert len(learnt) == 16 + 10


def test_calls_whose_causes_nobody_knows_are_asked_for_congestion_only(
    calls: list[DatasetCall],
) -> None:
    position = next(i for i, call in enumerate(calls) if call.network == "log")
    for task in TASKS:
        for learn in (True, False):
            asked = set(make_samples(task, calls, learn=learn).call.tolist())
            assert (position in asked) == (task == "congestion")


def test_both_causes_means_episodes_of_either() -> None:
    call = quiet_call("a")
    lose(call, 100, by_chance=2)
    assert not has_both_causes(call)
    lose(call, 300, by_load=1)
    assert not has_both_causes(call)  # one loss is no episode
    lose(call, 301, by_load=1)
    assert has_both_causes(call)


# --- All of them ----------------------------------------------------------------------------------


def test_networks_are_numbered_by_name_and_two_calls_of_one_share_its_number() -> None:
    calls = [quiet_call("b", seed=1), quiet_call("a", network_type="3G"), quiet_call("b", seed=2)]
    samples = make_samples("network_type", calls, learn=False)
    assert samples.networks == ("a", "b")
    assert samples.types == ("3G", "wifi")
    numbers = [set(samples.network[samples.call == index].tolist()) for index in range(3)]
    assert numbers == [{1}, {0}, {1}]
    moved = make_samples("network_type", calls, learn=True)
    assert of_call(moved, 0)["bin"] != of_call(moved, 2)["bin"]


def test_a_longer_window_may_be_asked_for_and_a_shorter_one_is_its_end(
    calls: list[DatasetCall],
) -> None:
    own = make_samples("congestion", calls, learn=False)
    longer = make_samples("congestion", calls, learn=False, window_bins=100)
    assert (own.window_bins, longer.window_bins) == (40, 100)
    assert own.bin.tolist() == longer.bin.tolist()
    rows = np.arange(0, len(own), 20)
    np.testing.assert_array_equal(longer.windows(rows)[:, 60:], own.windows(rows))


def test_nothing_to_ask_and_unknown_tasks_are_refused() -> None:
    with pytest.raises(ArtifactError, match="no call of the dataset has a window .*'bursty_loss'"):
        make_samples("bursty_loss", [quiet_call("a")], learn=True)
    with pytest.raises(UnknownNameError, match="random_loss"):
        make_samples("randomloss", [quiet_call("a")], learn=True)


def test_bins_of_another_length_are_refused() -> None:
    """Features count bins of 0.1 s; others would be taken for a call at another speed."""
    with pytest.raises(ArtifactError, match=r"'a' has bins of 0\.05 s"):
        make_samples("congestion", [quiet_call("a", interval_s=0.05)], learn=True)

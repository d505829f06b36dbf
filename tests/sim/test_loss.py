"""Random loss: rates and bursts as the theory of the Gilbert-Elliott chain says."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import MAX_REPLAY_PACKETS, LossConfig, PathConfig, from_mapping
from bwe_env.labels import mean_loss_burst_packets
from bwe_env.network import Network
from bwe_env.sim.loss import loss_reset, loss_strikes
from bwe_env.sim.tables import build_networks
from bwe_env.trace import constant

#: Four standard deviations: a correct chain fails one such test in 16,000.
SIGMAS = 4.0


def record_of(config: LossConfig) -> Any:
    rows, _ = build_networks([Network(trace=constant(1e6), forward=PathConfig(loss=config))])
    row = rows[0]["forward"]["loss"].copy()
    loss_reset(row)
    return row


def losses(config: LossConfig, count: int, *, key: int = 5, stream: int = 0) -> NDArray[np.bool_]:
    row = record_of(config)
    return np.array([loss_strikes(row, np.uint64(key), stream) for _ in range(count)])


def bursts(lost: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of all runs of losses."""
    runs = [len(list(run)) for is_lost, run in itertools.groupby(lost.tolist()) if is_lost]
    return np.array(runs)


def test_independent_loss_strikes_at_its_rate_and_in_geometric_bursts() -> None:
    count, chance = 20_000, 0.07
    lost = losses(LossConfig(good_loss=chance), count)
    assert abs(lost.mean() - chance) < SIGMAS * math.sqrt(chance * (1 - chance) / count)
    # A burst ends with probability 1 - p after each loss: its mean length is 1 / (1 - p).
    lengths = bursts(lost)
    sd = math.sqrt(chance) / (1 - chance)
    assert abs(lengths.mean() - 1 / (1 - chance)) < SIGMAS * sd / math.sqrt(len(lengths))


def test_gilbert_loss_has_the_mean_and_the_burst_length_of_theory() -> None:
    config = LossConfig(good_to_bad=0.01, bad_to_good=0.25)
    count = 60_000
    lost = losses(config, count)
    mean = 0.01 / (0.01 + 0.25)
    assert config.mean_loss_ratio == pytest.approx(mean)
    # Packets k apart correlate by (1 - 0.01 - 0.25) ** k, which widens the error of the mean.
    memory = 1 - 0.01 - 0.25
    sd = math.sqrt(mean * (1 - mean) / count * (1 + memory) / (1 - memory))
    assert abs(lost.mean() - mean) < SIGMAS * sd
    # Every packet in the bad state is lost, and it ends with 0.25 a packet: 4 packets on average.
    lengths = bursts(lost)
    assert abs(lengths.mean() - 4.0) < SIGMAS * math.sqrt(0.75) / 0.25 / math.sqrt(len(lengths))
    assert abs((lengths == 1).mean() - 0.25) < SIGMAS * math.sqrt(0.25 * 0.75 / len(lengths))


def test_elliott_loss_mixes_the_loss_of_both_states_by_the_time_spent_in_them() -> None:
    config = LossConfig(good_loss=0.02, bad_loss=0.5, good_to_bad=0.1, bad_to_good=0.3)
    # A quarter of the packets meet the bad state: 0.25 * 0.5 + 0.75 * 0.02.
    assert config.mean_loss_ratio == pytest.approx(0.14)
    count = 30_000
    lost = losses(config, count)
    memory = 1 - 0.1 - 0.3
    sd = math.sqrt(0.14 * 0.86 / count * (1 + memory) / (1 - memory))  # at most
    assert abs(lost.mean() - 0.14) < SIGMAS * sd


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(good_loss=0.3),
        LossConfig(good_to_bad=0.02, bad_to_good=0.3),
        LossConfig(good_loss=0.05, bad_loss=0.8, good_to_bad=0.1, bad_to_good=0.2),
        LossConfig(good_loss=0.3, bad_loss=0.9, good_to_bad=0.8, bad_to_good=0.6),
        LossConfig(replay=(1, 0, 0, 1, 1, 0, 1)),  # type: ignore[arg-type]
    ],
)
def test_mean_bursts_are_those_of_the_process_label(config: LossConfig) -> None:
    lengths = [bursts(losses(config, 5_000, key=key)) for key in range(20)]
    means = np.array([each.mean() for each in lengths])
    # Calls of other keys are independent, so their spread is the error; a replay has none, but may
    # cut a run at the end of the call, one of thousands.
    error = SIGMAS * means.std(ddof=1) / math.sqrt(len(means)) + 0.01 * means.mean()
    assert abs(means.mean() - mean_loss_burst_packets(config)) < error


def test_no_chance_never_strikes_and_certainty_always_does() -> None:
    assert not losses(LossConfig(), 1_000).any()
    assert losses(LossConfig(good_loss=1.0), 1_000).all()


def test_the_fate_of_a_packet_depends_on_its_number_its_key_and_its_stream_alone() -> None:
    config = LossConfig(good_loss=0.3, good_to_bad=0.05, bad_to_good=0.3)
    lost = losses(config, 2_000)
    assert np.array_equal(lost[:500], losses(config, 500))
    assert not np.array_equal(lost, losses(config, 2_000, key=6))
    assert not np.array_equal(lost, losses(config, 2_000, stream=2))


@pytest.mark.parametrize("length", [1, 7, 8, 61, MAX_REPLAY_PACKETS])
def test_a_replayed_packet_is_lost_if_and_only_if_its_place_in_the_sequence_says_so(
    length: int,
) -> None:
    sequence = np.random.default_rng(length).random(length) < 0.3
    config = LossConfig(replay=sequence.tolist())
    count = 2 * length + 5
    lost = losses(config, count)
    assert lost.tolist() == np.resize(sequence, count).tolist()  # repeated
    # No chance is in it: another call meets the same.
    assert losses(config, count, key=6, stream=2).tolist() == lost.tolist()
    assert config.mean_loss_ratio == sequence.mean()


def test_a_replay_may_be_an_array_a_list_or_a_tuple_of_truths_or_numbers() -> None:
    expected = LossConfig(replay=(False, True, True))
    assert LossConfig(replay=np.array([0, 1, 1])) == expected  # type: ignore[arg-type]
    assert LossConfig(replay=np.array([0.0, 1.0, 1.0])) == expected  # type: ignore[arg-type]
    assert LossConfig(replay=[False, True, True]) == expected  # type: ignore[arg-type]
    assert from_mapping(LossConfig, json.loads(json.dumps(asdict(expected)))) == expected
    assert hash(LossConfig(replay=(0, 1, 1))) == hash(expected)  # type: ignore[arg-type]

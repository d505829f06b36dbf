"""What models said, kept and told to other calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bwe_env.errors import ArtifactError
from bwe_env.telemetry import empty_telemetry
from experiments.recorded_answers import (
    LEAST_SHIFT,
    RecordingModels,
    ShuffledModels,
    read_answers,
    write_answers,
)

OUTPUTS = ("random_loss", "congestion")


class Counting:
    """Says 100 times the call's number and the interval, which half a float holds exactly."""

    outputs = OUTPUTS

    def reset(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.interval = 0

    def restart(self, env: int) -> None:
        pass

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        self.interval += 1
        first = 100.0 * np.arange(self.num_envs) + self.interval
        return np.stack([first, -first], axis=1).astype(np.float32)


def recorded(calls: int, intervals: int, *, over: int = -1) -> RecordingModels:
    """A batch; call `over` ends half-way."""
    models = RecordingModels(Counting())
    models.reset(calls)
    active = np.ones(calls, dtype=np.bool_)
    for interval in range(intervals):
        if over >= 0:
            active[over] = interval < intervals // 2
        models.update(empty_telemetry(calls), active)
    models.finish()
    return models


def test_answers_are_passed_on_and_kept_batch_by_batch() -> None:
    models = RecordingModels(Counting())
    for calls in (2, 3):
        models.reset(calls)
        answer = models.update(empty_telemetry(calls), np.ones(calls, dtype=np.bool_))
        assert answer.shape == (calls, 2)
    models.finish()
    assert [batch.shape for batch in models.batches] == [(1, 2, 2), (1, 3, 2)]


def test_a_call_that_is_over_has_said_nothing_since() -> None:
    batch = recorded(3, 10, over=1).batches[0]
    assert (batch[:5, 1, 0] > 0).all()
    assert (batch[5:, 1] == 0).all()
    assert (batch[5:, 2, 0] > 0).all()


@given(calls=st.integers(2, 20), seed=st.integers(0, 100))
def test_nobody_hears_the_own_answers_and_each_answer_is_heard_once(calls: int, seed: int) -> None:
    intervals = 20
    batch = recorded(calls, intervals).batches[0]
    models = ShuffledModels(OUTPUTS, [batch], seed=seed)
    models.reset(calls)
    heard = np.stack(
        [
            models.update(empty_telemetry(calls), np.ones(calls, dtype=np.bool_))
            for _ in range(intervals)
        ]
    )
    speaker = heard[:, :, 0].astype(int) // 100
    assert (speaker == speaker[0]).all(), "a call hears one other call throughout"
    assert sorted(speaker[0].tolist()) == list(range(calls))
    assert (speaker[0] != np.arange(calls)).all()
    for call in range(calls):
        shift = np.argmin(heard[:, call, 0])  # where the other's first interval is heard
        assert LEAST_SHIFT * intervals <= shift <= (1 - LEAST_SHIFT) * intervals
    # Nothing is said more or less often than it was.
    assert np.array_equal(np.sort(heard, axis=None), np.sort(batch.astype(np.float32), axis=None))


def test_after_the_recording_nothing_is_said() -> None:
    models = ShuffledModels(OUTPUTS, recorded(2, 3).batches, seed=0)
    models.reset(2)
    active = np.ones(2, dtype=np.bool_)
    answers = [models.update(empty_telemetry(2), active) for _ in range(5)]
    assert (answers[2] != 0).all()
    assert (answers[3] == 0).all()
    assert (answers[4] == 0).all()


def test_a_file_gives_the_same_shuffle_for_the_same_seed(tmp_path: Path) -> None:
    path = tmp_path / "answers.npz"
    write_answers(path, recorded(6, 12))
    told = []
    for seed in (1, 1, 2):
        models = read_answers(path, seed=seed)
        assert models.outputs == OUTPUTS
        models.reset(6)
        told.append(models.update(empty_telemetry(6), np.ones(6, dtype=np.bool_)))
    assert np.array_equal(told[0], told[1])
    assert not np.array_equal(told[0], told[2])


def test_other_calls_than_those_recorded_are_refused(tmp_path: Path) -> None:
    models = ShuffledModels(OUTPUTS, recorded(4, 3).batches, seed=0)
    with pytest.raises(ArtifactError, match=r"5 calls, 4 were recorded.*same size"):
        models.reset(5)
    with pytest.raises(ArtifactError, match="after the treatment"):
        read_answers(tmp_path / "none.npz", seed=0)
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 nonsense")
    with pytest.raises(ArtifactError, match="after the treatment"):
        read_answers(tmp_path / "bad.npz", seed=0)

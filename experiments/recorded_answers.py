"""What network models said in some calls, kept and said again in others: the placebo of targeting.

A placebo does what the treatment does, and as much of it, but not where and when it is of use: each
call hears what the models said of another call of its batch, from another moment on. Whatever it
gains, it does not gain by knowing its network.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.artifact import replace_file
from bwe_env.errors import ArtifactError
from bwe_env.telemetry import NetworkModels

#: A shuffled answer is at least this share of the call away from its own moment. Ours.
LEAST_SHIFT = 0.1


class RecordingModels:
    """`NetworkModels` that remembers what other models say, batch by batch.

    Attributes:
        batches: probabilities of each batch, shape (intervals, calls, outputs).
    """

    def __init__(self, models: NetworkModels) -> None:
        self._models = models
        self._rows: list[NDArray[np.float16]] = []
        self.outputs = models.outputs
        self.batches: list[NDArray[np.float16]] = []

    def reset(self, num_envs: int) -> None:
        """`num_envs` calls begin; the batch before is complete."""
        self.finish()
        self._models.reset(num_envs)

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""
        self._models.restart(env)

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """See `bwe_env.telemetry.NetworkModels`; a call that is over has said 0."""
        probabilities = self._models.update(telemetry, active)
        self._rows.append(np.where(active[:, None], probabilities, 0.0).astype(np.float16))
        return probabilities

    def finish(self) -> None:
        """The newest batch is complete."""
        if self._rows:
            self.batches.append(np.stack(self._rows))
        self._rows = []


class ShuffledModels:
    """`NetworkModels` that says what was said in other calls.

    Args:
        outputs: what each probability is.
        batches: as `RecordingModels` has them, in the order in which they are played again.
        seed: of the shuffle.
    """

    def __init__(
        self, outputs: Sequence[str], batches: Sequence[NDArray[Any]], *, seed: int
    ) -> None:
        self.outputs = tuple(outputs)
        generator = np.random.default_rng(seed)
        self._batches = [_shuffled(batch, generator) for batch in batches]
        self._batch = -1
        self._interval = 0

    def reset(self, num_envs: int) -> None:
        """The next batch begins."""
        if num_envs == 0:
            return  # nothing is played yet
        self._batch += 1
        self._interval = 0
        recorded = self._batches[self._batch].shape[1] if self._batch < len(self._batches) else 0
        if recorded != num_envs:
            raise ArtifactError(
                f"batch {self._batch} has {num_envs} calls, {recorded} were recorded; play the "
                "placebo on the calls of the treatment, in batches of the same size."
            )

    def restart(self, env: int) -> None:
        """Nothing to forget."""

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """See `bwe_env.telemetry.NetworkModels`."""
        batch = self._batches[self._batch]
        row = batch[self._interval] if self._interval < len(batch) else np.zeros_like(batch[0])
        self._interval += 1
        return row.astype(np.float32)


def _shuffled(batch: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Answers of a batch with each call's replaced by another's, each from a moment of its own."""
    intervals, calls, _ = batch.shape
    order = generator.permutation(calls)
    of_call = np.empty(calls, dtype=np.int64)
    of_call[order] = np.roll(order, 1)  # one cycle: nobody keeps the own, unless alone
    least = int(np.ceil(LEAST_SHIFT * intervals))
    shifts = generator.integers(least, max(least + 1, intervals - least + 1), size=calls)
    mixed = np.empty_like(batch)
    for call in range(calls):
        mixed[:, call] = np.roll(batch[:, of_call[call]], shifts[call], axis=0)
    return mixed


def write_answers(path: Path, models: RecordingModels) -> None:
    """Keep what has been recorded."""
    models.finish()
    arrays = {f"batch_{index}": batch for index, batch in enumerate(models.batches)}
    content = io.BytesIO()
    np.savez_compressed(content, outputs=np.array(models.outputs), **arrays)
    replace_file(path, content.getvalue())


def read_answers(path: Path, *, seed: int) -> ShuffledModels:
    """What was kept, shuffled.

    Raises:
        ArtifactError: missing or damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            batches = [arrays[f"batch_{index}"] for index in range(len(arrays.files) - 1)]
            outputs = arrays["outputs"].tolist()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(
            f"{path} does not hold what the treatment's models said ({error}); a placebo is played "
            "after the treatment. Where it is lost, delete the treatment's blocks "
            "(calls-treatment-*.npz) too, and the same command plays both again."
        ) from error
    return ShuffledModels(outputs, batches, seed=seed)

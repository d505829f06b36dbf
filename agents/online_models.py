"""Network models that follow calls as they run: in the environment, in rollouts, and over logs.

The features are those of training (`bwe_env.network_features`), bin by bin. A question that is put
only while packets are being lost has the answer 0 while none are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.network_model import NetworkModel, load_network_model
from bwe_env.errors import ConfigError
from bwe_env.labels import ELIGIBLE_LOST_PACKETS
from bwe_env.network_features import BIN_S, SECOND_BINS, FeatureStream


class OnlineModels:
    """Single-task models, a multi-task one, or both, over any number of calls at once.

    Args:
        models: loaded models; no two of them with the same output.
        period_bins: a call's models are asked at its first bin and then at every so many; in
            between their last answer stands. What they see has no gaps. Bins are counted call by
            call, so that an answer does not depend on which other calls there are.

    Attributes:
        outputs: what each probability of `update` is.

    Raises:
        ConfigError: no model, or two with one output; or a period below one bin.
    """

    def __init__(self, models: Sequence[NetworkModel], *, period_bins: int = 1) -> None:
        if not models:
            raise ConfigError("OnlineModels needs at least one network model.")
        if not (isinstance(period_bins, int) and period_bins >= 1):
            raise ConfigError(f"period_bins={period_bins!r} must be a whole number, at least 1.")
        self._period_bins = period_bins
        self._models = [model.eval() for model in models]
        self.outputs = tuple(name for model in models for name in model.config.outputs)
        if len(set(self.outputs)) != len(self.outputs):
            raise ConfigError(
                f"two of the network models answer the same question: {', '.join(self.outputs)}. "
                "Give each task one model."
            )
        self._windows = sorted({model.config.window_bins for model in models})
        self._needs_loss = np.array(
            [t.only_while_losing for model in models for t in model.tasks for _ in t.outputs]
        )
        self.reset(1)

    @classmethod
    def load(cls, *directories: str | Path, period_bins: int = 1) -> OnlineModels:
        """Models from what `experiments.fit` wrote.

        Raises:
            ArtifactError: a directory without a sound model.
        """
        models = [load_network_model(directory) for directory in directories]
        return cls(models, period_bins=period_bins)

    def reset(self, num_envs: int) -> None:
        """`num_envs` calls begin."""
        self._features = FeatureStream(num_envs, windows=self._windows)
        self._lost = np.zeros((SECOND_BINS, num_envs))
        self._bins = 0
        self._own_bins = np.zeros(num_envs, dtype=np.int64)
        self._probabilities = np.zeros((num_envs, len(self.outputs)), dtype=np.float32)

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""
        self._features.restart(env)
        self._lost[:, env] = 0.0
        self._own_bins[env] = 0
        self._probabilities[env] = 0.0

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Take the newest bin of every active call; see `bwe_env.telemetry.NetworkModels`."""
        self._features.push(telemetry, active)
        slot = self._bins % SECOND_BINS
        is_due = active & (self._own_bins % self._period_bins == 0)
        self._own_bins[active] += 1
        self._lost[slot, active] = telemetry["lost_packets"][active]
        self._bins += 1
        is_losing = self._lost.sum(axis=0) >= ELIGIBLE_LOST_PACKETS
        column = 0
        for model in self._models:
            width = len(model.config.outputs)
            asked = is_due
            if all(task.only_while_losing for task in model.tasks):
                asked = is_due & is_losing
            if asked.any():
                columns = slice(column, column + width)
                self._probabilities[asked, columns] = self._infer(model, asked)
            column += width
        hidden = np.outer(active & ~is_losing, self._needs_loss)
        self._probabilities[hidden] = 0.0
        return self._probabilities.copy()

    def _infer(self, model: NetworkModel, asked: NDArray[np.bool_]) -> NDArray[np.float32]:
        window_bins = model.config.window_bins
        dense = self._features.dense[self._windows.index(window_bins)][asked]
        series = self._features.series(window_bins)[asked]
        with torch.inference_mode():
            return model(torch.from_numpy(series), torch.from_numpy(dense)).numpy()


def follow_log(models: OnlineModels, telemetry: NDArray[Any]) -> NDArray[np.float32]:
    """What the models would have said during one recorded call.

    Args:
        telemetry: its bins of 0.1 s, dtype `bwe_env.telemetry.TELEMETRY`, shape (bins,).

    Returns:
        Probabilities after each bin, shape (bins, len(models.outputs)).

    Raises:
        ConfigError: bins of another length, or of which a log cannot tell what was sent, received
            or lost (a dump of webrtc-internals).
    """
    _check_bins(telemetry)
    models.reset(1)
    is_active = np.ones(1, dtype=np.bool_)
    rows = [
        models.update(telemetry[index : index + 1], is_active) for index in range(len(telemetry))
    ]
    return np.concatenate([*rows, np.empty((0, len(models.outputs)), dtype=np.float32)])


#: What a log must know of every bin; the delays may be missing in some.
_COUNTS = ("sent_bytes", "acked_packets", "acked_bytes", "lost_packets", "loss_runs")


def _check_bins(telemetry: NDArray[Any]) -> None:
    """Refuse bins that features would be computed from, but mean something else."""
    lengths_s = np.diff(telemetry["time_s"], prepend=0.0)
    # Times of datasets have single precision; the last bin of a dropped call is shorter.
    is_other = np.abs(lengths_s[:-1] - BIN_S) > BIN_S / 10.0
    if is_other.any() or (lengths_s[-1:] > 1.1 * BIN_S).any():
        index = int(np.argmax(is_other)) if is_other.any() else len(lengths_s) - 1
        raise ConfigError(
            f"bin {index} lasts {lengths_s[index]:g} s; network models follow whole calls in bins "
            f"of {BIN_S:g} s, such as event logs and recorded runs give."
        )
    for name in _COUNTS:
        unknown = np.isnan(telemetry[name])
        if unknown.any():
            raise ConfigError(
                f"{name} of bin {int(np.argmax(unknown))} is not known; network models need the "
                "counts of every bin, such as event logs and recorded runs give."
            )

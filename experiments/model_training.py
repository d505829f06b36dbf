"""How a network model learns: balanced classes, early stopping, calibration.

The loss weighs classes inversely to how often they occur, so that a rare class counts as much as a
common one. Training stops when the validation networks' loss no longer falls and goes back to its
best epoch; then each head gets a scale and an offset that fit its probabilities to the frequencies
of the validation windows, thinned as those that are learnt from (Platt; for several classes a
temperature alone).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.network_model import NetworkModel, NetworkModelConfig
from agents.network_tasks import task_of
from bwe_env.errors import ConfigError
from experiments.samples import Samples

#: Windows whose loss or probability is computed at once outside of training. Ours: memory.
EVALUATION_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train one model."""

    epochs: int = 24
    """at most"""
    patience: int = 8
    """epochs without a better validation loss before training stops"""
    batch_size: int = 512
    """windows per step of the task with most of them; the others have as many steps"""
    learning_rate: float = 3e-3
    """of Adam; it falls to a tenth over the epochs"""
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if not (self.learning_rate > 0.0 and self.weight_decay >= 0.0):
            raise ConfigError("learning_rate must be positive and weight_decay not negative.")


class TaskWindows:
    """The windows of one task as tensors."""

    def __init__(self, samples: Samples) -> None:
        self.task = samples.task
        self._series = torch.from_numpy(samples.series)
        self._offsets = torch.arange(samples.window_bins)
        self._first_row = torch.from_numpy(samples.first_row)
        self._dense = torch.from_numpy(samples.dense)
        self.labels = torch.from_numpy(samples.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Series, dense features and labels of some windows."""
        index = self._first_row[rows][:, None] + self._offsets
        return self._series[index], self._dense[rows], self.labels[rows]

    def class_weights(self, classes: int) -> Tensor:
        """Inverse to the frequency of each class, 1 on average over the windows."""
        counts = torch.bincount(self.labels, minlength=classes).clamp(min=1)
        return len(self.labels) / (classes * counts)


def _windows_of(samples: Samples, config: NetworkModelConfig) -> TaskWindows:
    if samples.window_bins != config.window_bins:
        raise ConfigError(
            f"{samples.task}: windows of {samples.window_bins} bins, but the model sees "
            f"{config.window_bins}; cut them by make_samples(..., "
            f"window_bins={config.window_bins})."
        )
    return TaskWindows(samples)


def task_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy with class weights; one column of logits is yes or no."""
    if logits.shape[-1] == 1:
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits[:, 0], labels.to(logits.dtype), reduction="none"
        )
    else:
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    weight = weights[labels]
    return (losses * weight).sum() / weight.sum()


def joint_loss(losses: Tensor) -> Tensor:
    """What several tasks minimise together: the power mean of their losses, exponent one half.

    In their sum the task with the largest loss, which here is the one that nobody can learn well,
    would shape the shared layers; in their geometric mean it would be the one that is learnt
    already. Ours: between the two.
    """
    return losses.sqrt().mean().square()


def _num_classes(task: str) -> int:
    return max(2, len(task_of(task).classes))


@torch.inference_mode()
def all_logits(model: NetworkModel, windows: TaskWindows) -> Tensor:
    """Uncalibrated logits of a task's windows, shape (n, outputs)."""
    parts = [
        model.logits(*windows.batch(rows)[:2])[windows.task]
        for rows in torch.arange(len(windows)).split(EVALUATION_BATCH)
    ]
    return torch.cat(parts)


def task_columns(model: NetworkModel, task: str) -> slice:
    """Where a model's probabilities have those of one of its tasks.

    Raises:
        ConfigError: it is none of the model's.
    """
    if task not in model.config.tasks:
        raise ConfigError(
            f"the model does not answer {task!r} but {', '.join(model.config.tasks)}. Train one "
            f"with python -m experiments.fit --task {task}."
        )
    outputs = task_of(task).outputs
    first = model.config.outputs.index(outputs[0])
    return slice(first, first + len(outputs))


@torch.inference_mode()
def predict(model: NetworkModel, samples: Samples) -> NDArray[np.float32]:
    """Calibrated probabilities of the samples' task, shape (n, outputs of the task).

    Raises:
        ConfigError: the model has no such task, or sees windows of another length.
    """
    windows = _windows_of(samples, model.config)
    columns = task_columns(model, samples.task)
    parts = [
        model(*windows.batch(rows)[:2])[:, columns]
        for rows in torch.arange(len(windows)).split(EVALUATION_BATCH)
    ]
    return torch.cat(parts).numpy()


@dataclass
class TrainedModel:
    """A model after training, and how it went."""

    model: NetworkModel
    epochs: int
    """that were trained"""
    best_epoch: int
    validation_loss: float
    history: list[dict[str, float]] = field(default_factory=list)
    """losses by epoch: ``train/loss``, ``validation/loss``, and each task's"""


def _validation_losses(
    model: NetworkModel, validation: Mapping[str, TaskWindows], weights: Mapping[str, Tensor]
) -> dict[str, float]:
    return {
        name: float(task_loss(all_logits(model, windows), windows.labels, weights[name]))
        for name, windows in validation.items()
    }


def _platt(logits: Tensor, labels: Tensor, *, with_offset: bool) -> tuple[float, float]:
    """Scale and offset that fit logits to the labels best."""
    logits = logits.clone()  # of inference mode, from which nothing can be learnt
    log_scale = torch.zeros(1, requires_grad=True)
    offset = torch.zeros(1, requires_grad=with_offset)
    even = torch.ones(int(labels.max()) + 1)
    optimizer = torch.optim.LBFGS(
        [log_scale, offset] if with_offset else [log_scale],
        max_iter=100,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task_loss(logits * log_scale.exp() + offset, labels, even)
        loss.backward()
        return loss

    optimizer.step(closure)
    return log_scale.exp().item(), offset.item()


def _calibrate(model: NetworkModel, validation: Mapping[str, TaskWindows]) -> None:
    """Fit each head's scale and offset to the validation windows, classes as frequent as there."""
    for index, task in enumerate(model.tasks):
        windows = validation[task.name]
        logits = all_logits(model, windows)
        scale, offset = _platt(logits, windows.labels, with_offset=task.is_binary)
        model.scale[index] = scale
        model.offset[index] = offset


def train_model(
    config: NetworkModelConfig,
    train: Mapping[str, Samples],
    validation: Mapping[str, Samples],
    *,
    training: Training,
    seed: int,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainedModel:
    """Train one model from scratch; the same arguments give the same model on the same machine.

    Args:
        train: windows to learn from, by task.
        validation: windows of other networks, to stop and calibrate on.
        on_epoch: called with the number of each epoch, from 1, and its losses.

    Raises:
        ConfigError: windows of another length than the model sees, or a loss that was never a
            number.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = NetworkModel(config)
    windows = {name: _windows_of(train[name], config) for name in config.tasks}
    held_out = {name: _windows_of(validation[name], config) for name in config.tasks}
    weights = {name: w.class_weights(_num_classes(name)) for name, w in windows.items()}
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, training.epochs, eta_min=training.learning_rate / 10
    )
    steps = max(math.ceil(len(w) / training.batch_size) for w in windows.values())
    result = TrainedModel(model=model, epochs=0, best_epoch=0, validation_loss=math.inf)
    best = copy.deepcopy(model.state_dict())
    for epoch in range(1, training.epochs + 1):
        losses = _train_epoch(model, windows, weights, optimizer, steps, generator)
        schedule.step()
        model.eval()
        held = _validation_losses(model, held_out, weights)
        row = {
            "train/loss": losses,
            "validation/loss": float(joint_loss(torch.tensor([*held.values()]))),
        }
        row |= {f"validation/{name}": value for name, value in held.items()}
        result.history.append(row)
        result.epochs = epoch
        if on_epoch is not None:
            on_epoch(epoch, row)
        if row["validation/loss"] < result.validation_loss:
            result.validation_loss = row["validation/loss"]
            result.best_epoch = epoch
            best = copy.deepcopy(model.state_dict())
        elif epoch - result.best_epoch >= training.patience:
            break
    if result.best_epoch == 0:
        raise ConfigError(
            f"the validation loss of {result.epochs} epochs was never a number. Give a smaller "
            "--learning-rate; if that does not help, the windows hold a NaN."
        )
    model.load_state_dict(best)
    model.eval()
    _calibrate(model, held_out)
    return result


def _train_epoch(
    model: NetworkModel,
    windows: Mapping[str, TaskWindows],
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    steps: int,
    generator: torch.Generator,
) -> float:
    """One pass over the windows of every task; each step has the same share of all of them."""
    model.train()
    orders = {
        name: torch.randperm(len(w), generator=generator).tensor_split(steps)
        for name, w in windows.items()
    }
    total = 0.0
    for step in range(steps):
        optimizer.zero_grad()
        batches = [w.batch(orders[name][step]) for name, w in windows.items()]
        # All windows at once: the LSTM's steps cost more than what they work on.
        series, dense = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:2])
        sizes = [len(labels) for _, _, labels in batches]
        logits = model.logits(series, dense)
        losses = [
            task_loss(logits[name].split(sizes)[index], batches[index][2], weights[name])
            for index, name in enumerate(windows)
        ]
        loss = joint_loss(torch.stack(losses))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += float(loss.detach())
    return total / steps

"""Network models learn what was planted, stop at their best, and say probabilities that hold."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch

from agents.network_model import Inputs, NetworkModel, NetworkModelConfig
from agents.network_tasks import task_of, window_of
from bwe_env.errors import ConfigError
from experiments import model_training
from experiments.classification import expected_calibration_error, roc_auc
from experiments.model_scores import subset_of
from experiments.model_training import (
    TaskWindows,
    Training,
    all_logits,
    joint_loss,
    predict,
    task_loss,
    train_model,
)
from experiments.samples import Samples
from tests.experiments.planted_windows import planted

#: Enough to tell two trainings apart.
SHORT = Training(epochs=2, batch_size=128)
BOTH = ("congestion", "network_type")
pytestmark = pytest.mark.usefixtures("one_torch_thread")

#: Enough to learn what `planted` has, in a second.
QUICK = Training(epochs=5, patience=5, batch_size=64, learning_rate=2e-2)


def data(tasks: tuple[str, ...], *, seed: int = 0, count: int = 300) -> dict[str, Samples]:
    bins = window_of(tasks)
    return {task: planted(task, seed=seed, count=count, window_bins=bins) for task in tasks}


def trained(
    tasks: tuple[str, ...] = ("congestion",), *, seed: int = 0, training: Training = QUICK
) -> model_training.TrainedModel:
    config = NetworkModelConfig(tasks=tasks)
    return train_model(
        config, data(tasks), data(tasks, seed=1, count=200), training=training, seed=seed
    )


def auc(model: NetworkModel, samples: Samples) -> float:
    scores = predict(model, samples)[:, 0]
    return float(roc_auc(scores, samples.labels == 1, np.ones((1, len(samples))))[0])


# --- Learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", ["both", "series", "dense"])
def test_a_separable_problem_is_learnt_from_either_input(inputs: str) -> None:
    config = NetworkModelConfig(tasks=("congestion",), inputs=cast(Inputs, inputs))
    result = train_model(
        config, data(("congestion",)), data(("congestion",), seed=1), training=QUICK, seed=0
    )
    # Places two apart with a noise of 0.3 overlap by less than one in a thousand.
    assert auc(result.model, planted("congestion", seed=2)) > 0.98


def test_several_losses_count_between_their_sum_and_their_product() -> None:
    assert joint_loss(torch.tensor([0.3])) == pytest.approx(0.3)
    assert joint_loss(torch.tensor([0.04, 0.64])) == pytest.approx(0.25)  # (0.2 + 0.8) / 2, squared
    losses = torch.tensor([0.04, 0.64], requires_grad=True)
    joint_loss(losses).backward()
    assert losses.grad is not None
    # A sum would weigh them alike, a product by 16 to 1.
    assert losses.grad[0] / losses.grad[1] == pytest.approx(4.0)


def test_all_heads_of_a_model_of_several_tasks_learn() -> None:
    result = trained(BOTH)
    bins = window_of(BOTH)
    assert auc(result.model, planted("congestion", seed=2, window_bins=bins)) > 0.95
    samples = planted("network_type", seed=2, window_bins=bins)
    is_right = predict(result.model, samples).argmax(axis=1) == samples.labels
    # Five places half apart with a noise of 0.3 on two inputs: chance would be 0.2.
    assert is_right.mean() > 0.6


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    first, again, other = (trained(seed=seed, training=SHORT) for seed in (3, 3, 4))
    torch.rand(7)  # what anybody else draws changes nothing
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert first.history == again.history
    assert any(
        not torch.equal(value, other.model.state_dict()[name])
        for name, value in first.model.state_dict().items()
    )


def test_training_does_not_look_at_the_order_or_number_of_validation_windows() -> None:
    """They decide when to stop and how to calibrate, and never the course of the weights."""
    config = NetworkModelConfig(tasks=("congestion",))
    losses = []
    for count in (100, 50):
        held_out = data(("congestion",), seed=1, count=count)
        result = train_model(config, data(("congestion",)), held_out, training=SHORT, seed=0)
        losses.append([row["train/loss"] for row in result.history])
    assert losses[0] == losses[1]


# --- Stopping -------------------------------------------------------------------------------------


def scripted_losses(
    monkeypatch: pytest.MonkeyPatch, losses: list[float]
) -> list[dict[str, torch.Tensor]]:
    """Let validation losses be these, epoch after epoch; returns the weights of each epoch."""
    weights: list[dict[str, torch.Tensor]] = []

    def scripted(model: NetworkModel, *_: object) -> dict[str, float]:
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"congestion": losses[len(weights) - 1]}

    monkeypatch.setattr(model_training, "_validation_losses", scripted)
    return weights


def test_training_stops_after_its_patience_and_returns_the_best_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = scripted_losses(monkeypatch, [0.9, 0.5, 0.7, 0.6, 0.8, 0.1])
    told: list[int] = []
    result = train_model(
        NetworkModelConfig(tasks=("congestion",)),
        data(("congestion",), count=60),
        data(("congestion",), seed=1, count=60),
        training=Training(epochs=20, patience=3, batch_size=32),
        seed=0,
        on_epoch=lambda epoch, row: told.append(epoch),
    )
    assert (result.epochs, result.best_epoch) == (5, 2)
    assert result.validation_loss == pytest.approx(0.5, rel=1e-6)  # single precision
    assert told == [1, 2, 3, 4, 5]
    losses = [row["validation/loss"] for row in result.history]
    assert losses == pytest.approx([0.9, 0.5, 0.7, 0.6, 0.8], rel=1e-6)
    assert set(result.history[0]) == {"train/loss", "validation/loss", "validation/congestion"}
    final = result.model.state_dict()
    for name in set(final) - {"scale", "offset"}:  # those are fitted afterwards
        assert torch.equal(final[name], weights[1][name])
    assert not torch.equal(final["shared.0.weight"], weights[4]["shared.0.weight"])
    assert not result.model.training


def test_the_best_of_all_epochs_has_the_loss_that_is_told() -> None:
    result = trained(training=Training(epochs=4, patience=4, batch_size=128))
    losses = [row["validation/loss"] for row in result.history]
    assert result.validation_loss == min(losses) == losses[result.best_epoch - 1]
    held_out = TaskWindows(data(("congestion",), seed=1, count=200)["congestion"])
    train = TaskWindows(data(("congestion",))["congestion"])
    logits = all_logits(result.model, held_out)
    loss = float(task_loss(logits, held_out.labels, train.class_weights(2)))
    # The same sums on the same machine, in the same order.
    assert loss == pytest.approx(result.validation_loss, rel=1e-6)


def test_a_loss_that_is_no_number_is_an_error_and_not_a_model() -> None:
    broken = data(("congestion",), count=60)
    broken["congestion"].dense[3, 0] = np.nan
    with pytest.raises(ConfigError, match="validation loss .* never a number"):
        train_model(
            NetworkModelConfig(tasks=("congestion",)),
            broken,
            data(("congestion",), seed=1, count=60),
            training=Training(epochs=2, patience=2, batch_size=32),
            seed=0,
        )


# --- Losses ---------------------------------------------------------------------------------------


def test_class_weights_are_inverse_to_frequencies_and_one_on_average() -> None:
    windows = TaskWindows(planted("congestion", count=400, share=0.2))
    weights = windows.class_weights(2)
    counts = torch.bincount(windows.labels)
    assert weights[0] / weights[1] == pytest.approx(float(counts[1] / counts[0]))
    assert float(weights[windows.labels].mean()) == pytest.approx(1.0)


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    """Without a clue the loss is smallest at one half, however rare the answer."""
    labels = torch.tensor([1] + [0] * 9)
    weights = 10 / (2 * torch.tensor([9.0, 1.0]))
    at = {p: float(task_loss(torch.full((10, 1), p), labels, weights)) for p in (-0.5, 0.0, 0.5)}
    assert at[0.0] == pytest.approx(math.log(2.0))
    assert at[-0.5] == pytest.approx(at[0.5])
    assert at[0.0] < at[0.5]


def test_losses_by_hand() -> None:
    weights = torch.tensor([1.0, 3.0])
    logits = torch.log(torch.tensor([[4.0], [0.25]]))  # probabilities 0.8 and 0.2
    loss = float(task_loss(logits, torch.tensor([1, 0]), weights))
    assert loss == pytest.approx(-(3 * math.log(0.8) + math.log(0.8)) / 4)
    classes = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    loss = float(task_loss(classes, torch.tensor([0, 1]), torch.tensor([1.0, 2.0, 1.0])))
    assert loss == pytest.approx(-(math.log(0.5) + 2 * math.log(0.1)) / 3)


# --- Calibration ----------------------------------------------------------------------------------


def shifted(model: Any, task: str) -> NetworkModel:
    """The same ranking, its probabilities far too high and too sure."""
    with torch.no_grad():
        model.heads[task].weight.mul_(4.0)
        model.heads[task].bias.mul_(4.0).add_(6.0)
        model.scale.fill_(1.0)
        model.offset.fill_(0.0)
    return cast(NetworkModel, model)


def test_calibration_mends_probabilities_of_new_windows_and_leaves_their_order() -> None:
    config = NetworkModelConfig(tasks=("congestion",), inputs="dense")
    train, held_out, test = (
        planted("congestion", seed=seed, count=2000, noise=2.0, share=0.2) for seed in range(3)
    )
    result = train_model(
        config, {"congestion": train}, {"congestion": held_out}, training=QUICK, seed=0
    )
    model = shifted(result.model, "congestion")
    before = predict(model, test)[:, 0]
    model_training._calibrate(model, {"congestion": TaskWindows(held_out)})
    after = predict(model, test)[:, 0]
    is_positive = test.labels == 1
    wrong = expected_calibration_error(before, is_positive)
    mended = expected_calibration_error(after, is_positive)
    # A bin of 133 has a standard error of up to 0.04: 15 of them make about 0.03 of noise.
    assert wrong > 0.2
    assert mended < 0.05
    assert after.mean() == pytest.approx(is_positive.mean(), abs=0.04)
    order = np.argsort(all_logits(model, TaskWindows(test))[:, 0].numpy())
    assert (np.diff(after[order]) >= 0.0).all()


def test_several_classes_get_a_temperature_alone_so_that_the_likeliest_stays() -> None:
    result = trained(("network_type",))
    samples = planted("network_type", seed=2)
    with torch.no_grad():
        uncalibrated = all_logits(result.model, TaskWindows(samples)).argmax(dim=1).numpy()
    probabilities = predict(result.model, samples)
    buffers = dict(result.model.named_buffers())
    assert float(buffers["offset"][0]) == 0.0
    assert float(buffers["scale"][0]) > 0.0
    np.testing.assert_array_equal(probabilities.argmax(axis=1), uncalibrated)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)


# --- Prediction -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [BOTH, BOTH[::-1]])
def test_predictions_are_those_columns_of_the_model_that_belong_to_the_task(
    tasks: tuple[str, ...],
) -> None:
    torch.manual_seed(0)
    model = NetworkModel(NetworkModelConfig(tasks=tasks)).eval()
    for task in tasks:
        samples = planted(task, seed=2, count=50, window_bins=model.config.window_bins)
        with torch.inference_mode():
            series = torch.from_numpy(samples.windows(np.arange(50)))
            outputs = model(series, torch.from_numpy(samples.dense)).numpy()
        names = [model.config.outputs.index(name) for name in task_of(task).outputs]
        np.testing.assert_array_equal(predict(model, samples), outputs[:, names])


def test_predictions_do_not_depend_on_how_many_windows_are_computed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = NetworkModel(NetworkModelConfig(tasks=("congestion",))).eval()
    samples = planted("congestion", count=100)
    whole = predict(model, samples)
    monkeypatch.setattr(model_training, "EVALUATION_BATCH", 7)
    # Matrix products of other sizes add up in another order: some last bits of float32.
    np.testing.assert_allclose(predict(model, samples), whole, rtol=1e-5)
    rows = np.arange(100) % 3 == 0
    np.testing.assert_allclose(predict(model, subset_of(samples, rows)), whole[rows], rtol=1e-5)


def test_windows_that_the_model_was_not_made_for_are_refused() -> None:
    model = NetworkModel(NetworkModelConfig(tasks=BOTH)).eval()
    with pytest.raises(ConfigError, match=r"windows of 40 bins, .* 100; .*window_bins=100"):
        predict(model, planted("congestion"))
    with pytest.raises(ConfigError, match="does not answer 'random_loss'"):
        predict(model, planted("random_loss"))
    short = {task: planted(task) for task in BOTH}
    with pytest.raises(ConfigError, match=r"congestion: windows of 40 bins, .* 100;"):
        train_model(model.config, short, short, training=QUICK, seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"patience": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"weight_decay": -1.0},
    ],
)
def test_impossible_trainings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Training(**wrong)

"""Scores of network models on networks they never saw, beside rules and ablations.

Every contestant scores the same windows; models of several seeds count by the mean of their scores
(not by an ensemble). Intervals and differences are over networks (`experiments.classification`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.network_model import NetworkModel
from agents.network_tasks import task_of
from bwe_env.network_features import DENSE_NAMES, SERIES_NAMES
from experiments.classification import (
    Floats,
    NetworkResamples,
    expected_calibration_error,
    interval_of,
    macro_f1,
    pr_auc,
    roc_auc,
)
from experiments.model_training import predict, task_columns
from experiments.samples import Samples
from experiments.stats import Interval

#: What a contestant is: scores of shape (n,) or predicted classes, one array per seed.
Answers = Sequence[NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One metric of several contestants on one set of windows."""

    task: str
    subset: str
    metric: str
    windows: int
    networks: int
    positive_ratio: float
    """share of windows whose answer is yes; NaN for several classes"""
    values: Mapping[str, Floats]
    """by contestant: on all networks, then on each resample; means over seeds"""
    by_seed: Mapping[str, Sequence[float]]
    """by contestant: the score of each seed's model on all networks"""

    def interval(self, name: str) -> Interval:
        """A contestant's score."""
        return interval_of(self.values[name], networks=self.networks)

    def difference(self, name: str, other: str) -> Interval:
        """How much more one scores than another on the same networks."""
        return interval_of(self.values[name] - self.values[other], networks=self.networks)


def subset_of(samples: Samples, keep: NDArray[np.bool_]) -> Samples:
    """Some of the windows."""
    names = ("first_row", "dense", "labels", "is_special", "network", "call", "bin")
    return replace(samples, **{name: getattr(samples, name)[keep] for name in names})


def _metrics(task: str) -> dict[str, Callable[[NDArray[Any], NDArray[np.int64], Floats], Floats]]:
    if task_of(task).is_binary:
        return {
            "ROC-AUC": lambda scores, labels, weights: roc_auc(scores, labels == 1, weights),
            "PR-AUC": lambda scores, labels, weights: pr_auc(scores, labels == 1, weights),
        }
    classes = len(task_of(task).classes)
    return {
        "macro F1": lambda named, labels, weights: macro_f1(named, labels, weights, classes),
    }


def hold(samples: Samples, contestants: Mapping[str, Answers], *, subset: str) -> list[Contest]:
    """One contest for each metric of the samples' task.

    Args:
        contestants: answers of each seed, shape (n,): scores, or classes for several classes.
    """
    present = np.unique(samples.network)
    position = np.searchsorted(present, samples.network)
    resamples = NetworkResamples.draw([samples.types[index] for index in present])
    contests = []
    for metric, function in _metrics(samples.task).items():
        values, by_seed = {}, {}
        for name, answers in contestants.items():
            of_seeds = [
                resamples.values(partial(function, answer, samples.labels), position)
                for answer in answers
            ]
            values[name] = np.mean(of_seeds, axis=0)
            by_seed[name] = [float(value[0]) for value in of_seeds]
        contests.append(
            Contest(
                task=samples.task,
                subset=subset,
                metric=metric,
                windows=len(samples),
                networks=len(present),
                positive_ratio=_positive_ratio(samples),
                values=values,
                by_seed=by_seed,
            )
        )
    return contests


def _positive_ratio(samples: Samples) -> float:
    return float((samples.labels == 1).mean()) if task_of(samples.task).is_binary else float("nan")


def answers_of(models: Sequence[NetworkModel], samples: Samples) -> list[NDArray[Any]]:
    """What each model says of the samples' task: the probability of yes, or the likeliest class."""
    answers = []
    for model in models:
        probabilities = predict(model, samples)
        is_binary = task_of(samples.task).is_binary
        answers.append(probabilities[:, 0] if is_binary else probabilities.argmax(axis=1))
    return answers


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What a threshold finds and what it raises for nothing."""

    threshold: float
    precision: float
    recall: float


def operating_point(
    scores: NDArray[np.floating], labels: NDArray[np.bool_], threshold: float
) -> OperatingPoint:
    """Precision and recall of ``scores >= threshold``; precision is NaN where nothing is named."""
    named = scores >= threshold
    hits = float((named & labels).sum())
    return OperatingPoint(
        threshold=threshold,
        precision=hits / float(named.sum()) if named.any() else float("nan"),
        recall=hits / float(labels.sum()) if labels.any() else float("nan"),
    )


def threshold_of_best_f1(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """The threshold with the largest F1; to be found on validation networks.

    One of the scores, the highest of several that do as well.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    hits = np.cumsum(labels[order])
    f1 = 2.0 * hits / (np.arange(1, len(scores) + 1) + labels.sum())
    # A threshold takes all windows of one score: only behind the last of them it may stand.
    f1[:-1][ordered[:-1] == ordered[1:]] = -1.0
    return float(ordered[int(np.argmax(f1))])


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What a model loses when one of its features is shuffled among the windows."""

    feature: str
    loss: float
    """of ROC-AUC or macro F1"""


def permutation_importance(
    model: NetworkModel, samples: Samples, *, windows: int = 3000, seed: int = 0
) -> list[Importance]:
    """Shuffle each feature in turn, a series feature with its whole course; largest loss first.

    Args:
        windows: as many are drawn from the samples, to bound the time.
    """
    generator = np.random.default_rng(seed)
    rows = np.arange(len(samples))
    if len(rows) > windows:
        rows = np.sort(generator.choice(rows, size=windows, replace=False))
    series, dense = samples.windows(rows), samples.dense[rows]
    labels = samples.labels[rows]
    order = generator.permutation(len(rows))

    def score(series: NDArray[np.float32], dense: NDArray[np.float32]) -> float:
        return _single_score(model, samples.task, series, dense, labels)

    whole = score(series, dense)
    losses = []
    if model.config.inputs != "dense":
        for index, name in enumerate(SERIES_NAMES):
            shuffled = series.copy()
            shuffled[:, :, index] = series[order][:, :, index]
            losses.append(
                Importance(feature=f"{name} (series)", loss=whole - score(shuffled, dense))
            )
    if model.config.inputs != "series":
        for index, name in enumerate(DENSE_NAMES):
            shuffled = dense.copy()
            shuffled[:, index] = dense[order, index]
            losses.append(Importance(feature=name, loss=whole - score(series, shuffled)))
    return sorted(losses, key=lambda importance: -importance.loss)


def _single_score(
    model: NetworkModel,
    task: str,
    series: NDArray[np.float32],
    dense: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> float:
    import torch

    with torch.inference_mode():
        outputs = model(torch.from_numpy(series), torch.from_numpy(dense)).numpy()
    outputs = outputs[:, task_columns(model, task)]
    once = np.ones((1, len(labels)))
    if task_of(task).is_binary:
        return float(roc_auc(outputs[:, 0], labels == 1, once)[0])
    return float(macro_f1(outputs.argmax(axis=1), labels, once, outputs.shape[1])[0])


def calibration_errors(models: Sequence[NetworkModel], samples: Samples) -> list[float]:
    """Expected calibration error of each seed's model; of several classes, of the likeliest."""
    errors = []
    for model in models:
        probabilities = predict(model, samples)
        if task_of(samples.task).is_binary:
            errors.append(expected_calibration_error(probabilities[:, 0], samples.labels == 1))
        else:
            is_right = probabilities.argmax(axis=1) == samples.labels
            errors.append(expected_calibration_error(probabilities.max(axis=1), is_right))
    return errors

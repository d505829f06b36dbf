"""Score one task: models, rules and ablations on the same windows of test networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.network_model import NetworkModel
from agents.network_tasks import task_of
from baselines.rules import BitrateControl, tune
from bwe_env.network_features import FLOOR_BINS
from experiments.classification import confusion, macro_f1, pr_auc
from experiments.dataset import DatasetCall
from experiments.model_online import HORIZON_BINS
from experiments.model_report import (
    ABLATIONS,
    BITRATE,
    MODEL,
    MULTI,
    RULE,
    ConfusionTable,
    Curves,
    Example,
)
from experiments.model_runs import FittedRun, Study
from experiments.model_scores import (
    Answers,
    answers_of,
    calibration_errors,
    hold,
    operating_point,
    permutation_importance,
    subset_of,
    threshold_of_best_f1,
)
from experiments.model_training import predict
from experiments.samples import (
    Samples,
    has_both_causes,
    make_samples,
    queue_labels,
    telemetry_labels,
)


def scored_calls(task: str, calls: Sequence[DatasetCall]) -> list[DatasetCall]:
    """The calls that a task's headline is taken from: random loss wants both causes in a call."""
    return [call for call in calls if task != "random_loss" or has_both_causes(call)]


def subsets(samples: Samples, calls: Sequence[DatasetCall]) -> dict[str, Samples]:
    """Subsets of the windows that scores are told of; the first is the headline."""
    if samples.task == "random_loss":
        return {
            "calls with both causes": samples,
            "the same, mixed episodes left out": subset_of(samples, ~samples.is_special),
        }
    if samples.task == "congestion":
        after_spike = subset_of(samples, samples.is_special)
        return {
            "after a spike": after_spike,
            "all": samples,
            "after a spike, losses of queues only": by_queue(after_spike, calls),
        }
    return {"all": samples}


def by_queue(samples: Samples, calls: Sequence[DatasetCall]) -> Samples:
    """The same windows of congestion, labelled by the losses of queues, AQM and policers alone."""
    labels = samples.labels.copy()
    for index in np.unique(samples.call):
        rows = samples.call == index
        labels[rows] = queue_labels(calls[index]).is_positive[samples.bin[rows]]
    return dataclasses.replace(samples, labels=labels)


def headline_of(task: str, calls: Sequence[DatasetCall]) -> Samples:
    """The windows of some calls that a headline is taken from."""
    chosen = scored_calls(task, calls)
    return next(iter(subsets(make_samples(task, chosen, learn=False), chosen).values()))


def tuned_rule(task: str, train: Samples) -> Any:
    """The best rule on train windows that are chosen as the scored ones are."""

    def objective(answers: NDArray[Any], labels: NDArray[np.int64]) -> float:
        once = np.ones((1, len(labels)))
        if task_of(task).is_binary:
            return float(pr_auc(answers, labels == 1, once)[0])
        classes = len(task_of(task).classes)
        return float(macro_f1(answers, labels, once, classes)[0])

    return tune(task, train.dense, train.labels, objective)


def rule_answers(rule: Any, samples: Samples) -> NDArray[Any]:
    """What a hand-tuned rule says: a score, or a class."""
    is_binary = task_of(samples.task).is_binary
    return np.asarray(rule.score(samples.dense) if is_binary else rule.classify(samples.dense))


#: Says of windows what a contestant's models, one for each seed, or its rule say.
Contestant = Callable[[Samples], Answers]


def _by_models(models: Sequence[NetworkModel]) -> Contestant:
    return lambda samples: answers_of(models, samples)


def _contestants(study: Study, run: FittedRun, task: str) -> dict[str, Contestant]:
    """Who scores the windows of a task, the multi-task model left out: its windows are longer."""
    rule = study.rules[task]
    contestants: dict[str, Contestant] = {
        MODEL: _by_models(run.models),
        RULE: lambda samples: [rule_answers(rule, samples)],
    }
    if task == "random_loss":
        contestants[BITRATE] = lambda samples: [study.rules[BITRATE].score(samples.dense)]
    for inputs, name in ABLATIONS.items():
        other = study.run(task, inputs)
        if other is not None:
            contestants[name] = _by_models(other.models)
    return contestants


def study_task(study: Study, task: str) -> None:
    """Put all scores of one task into the report; its single-task run must be there."""
    run = study.run(task)
    assert run is not None
    report = study.report
    calls = scored_calls(task, study.calls["test"])
    samples = make_samples(task, calls, learn=False)
    train = headline_of(task, study.calls["train"])
    study.rules[task] = tuned_rule(task, train)
    if task == "random_loss":
        study.rules[BITRATE] = BitrateControl.fit(train.dense, train.labels)
    report.contestants = {**report.contestants, f"{RULE} ({task})": str(study.rules[task])}
    contestants = _contestants(study, run, task)
    parts = subsets(samples, calls)
    headline = next(iter(parts.values()))
    wide: dict[str, Samples] = {}
    if study.multi is not None:
        window_bins = study.multi.models[0].config.window_bins
        same = make_samples(task, calls, learn=False, window_bins=window_bins)
        wide = subsets(same, calls)
    for subset, part in parts.items():
        answers = {name: answer(part) for name, answer in contestants.items()}
        if study.multi is not None:
            answers[MULTI] = answers_of(study.multi.models, wide[subset])
        for contest in hold(part, answers, subset=subset):
            report.contests.append(contest)
            others = [name for name in contest.values if name != MODEL]
            report.differences += [(contest, MODEL, name) for name in others]
        if part is headline:
            _draw(study, run, part, subset, answers)
    report.importances[task] = permutation_importance(run.models[0], headline)
    report.calibration_errors[task] = calibration_errors(run.models, headline)


def _draw(
    study: Study,
    run: FittedRun,
    samples: Samples,
    subset: str,
    answers: Mapping[str, Answers],
) -> None:
    """Keep what the curves and tables of the headline are drawn from."""
    task = samples.task
    probabilities = predict(run.models[0], samples)
    if not task_of(task).is_binary:
        classes = task_of(task).classes
        for name in (MODEL, RULE):
            counts = confusion(np.asarray(answers[name][0]), samples.labels, len(classes))
            table = ConfusionTable(contestant=name, classes=classes, counts=counts)
            study.report.confusions.append(table)
        is_right = probabilities.argmax(axis=1) == samples.labels
        study.report.curves.append(
            Curves(
                task=task,
                subset=subset,
                labels=is_right,
                scores={},
                probabilities=probabilities.max(axis=1),
                is_right=is_right,
                point=None,
            )
        )
        return
    validation = headline_of(task, study.calls["validation"])
    known = predict(run.models[0], validation)[:, 0]
    threshold = threshold_of_best_f1(known, validation.labels == 1)
    is_positive = samples.labels == 1
    study.report.curves.append(
        Curves(
            task=task,
            subset=subset,
            labels=is_positive,
            scores={name: np.asarray(answer[0]) for name, answer in answers.items()},
            probabilities=probabilities[:, 0],
            is_right=is_positive,
            point=operating_point(probabilities[:, 0], is_positive, threshold),
        )
    )


def congestion_examples(calls: Sequence[DatasetCall], *, of_each: int = 2) -> list[Example]:
    """Windows of each kind: positive, negative after a spike, negative without one."""
    found: dict[str, list[Example]] = {}
    for call in calls:
        samples_bins, labels = _scored_congestion(call)
        for title, wanted in (
            ("positive", labels.is_positive),
            ("negative: a spike, and nothing followed", labels.had_spike & ~labels.is_followed),
            ("negative: congestion followed, but no spike", ~labels.had_spike & labels.is_followed),
        ):
            bins = samples_bins[wanted[samples_bins]]
            examples = found.setdefault(title, [])
            if len(bins) and len(examples) < of_each:
                examples.append(_example(call, int(bins[len(bins) // 2]), title))
    return [example for examples in found.values() for example in examples]


def _scored_congestion(call: DatasetCall) -> tuple[NDArray[np.int64], Any]:
    labels = telemetry_labels(call.telemetry)
    return np.flatnonzero(labels.is_scored), labels


def _example(call: DatasetCall, end: int, title: str) -> Example:
    rows = slice(max(0, end + 1 - HORIZON_BINS), end + 1 + HORIZON_BINS)
    rtt_ms = call.telemetry["rtt_ms"]
    return Example(
        network=call.network,
        title=title,
        time_s=call.telemetry["time_s"][rows] - call.telemetry["time_s"][end],
        rtt_ms=rtt_ms[rows],
        floor_ms=float(np.nanmin(rtt_ms[max(0, end + 1 - FLOOR_BINS) : end + 1])),
        lost_packets=call.telemetry["lost_packets"][rows],
    )

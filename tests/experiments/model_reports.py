"""A report of network models with planted numbers, and one with nothing in it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bwe_env.labels import NETWORK_CLASSES
from bwe_env.network_features import NUM_DENSE, NUM_SERIES
from experiments.classification import confusion
from experiments.model_online import CongestionShare, falls_of
from experiments.model_report import (
    Alternating,
    ConfusionTable,
    Cost,
    Curves,
    Example,
    LogScores,
    ModelReport,
    OnlineRow,
    SizeRow,
)
from experiments.model_scores import Contest, Importance, hold, operating_point
from experiments.samples import Samples
from experiments.stats import Interval

NETWORKS, WINDOWS = 12, 600
SEEDS = 3


def empty_report() -> ModelReport:
    return ModelReport(command="python -m experiments.report models", dataset="runs/x", models={})


def samples(task: str, labels: NDArray[np.int64]) -> Samples:
    count = len(labels)
    return Samples(
        task=task,
        window_bins=1,
        series=np.zeros((count, NUM_SERIES), dtype=np.float32),
        first_row=np.arange(count),
        dense=np.zeros((count, NUM_DENSE), dtype=np.float32),
        labels=labels,
        is_special=np.ones(count, dtype=np.bool_),
        network=np.arange(count) % NETWORKS,
        call=np.arange(count) % NETWORKS,
        bin=np.arange(count),
        networks=tuple(f"test-{index:04d}" for index in range(NETWORKS)),
        types=("wifi", "5G") * (NETWORKS // 2),
    )


def guesses(
    labels: NDArray[np.int64], skill: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Probabilities that tell the labels apart the better, the greater the skill."""
    logits = skill * (2.0 * labels - 1.0) + generator.normal(size=len(labels))
    return 1.0 / (1.0 + np.exp(-2.0 * skill * logits))


def binary_answers(
    labels: NDArray[np.int64], names: Sequence[str], generator: np.random.Generator
) -> dict[str, list[NDArray[np.float64]]]:
    answers = {}
    for index, name in enumerate(names):
        seeds = 1 if name in ("rule", "bitrate only") else SEEDS
        skill = 1.3 - 0.2 * index
        answers[name] = [guesses(labels, skill, generator) for _ in range(seeds)]
        if name == "rule":
            answers[name] = [np.round(8.0 * answer) / 8.0 for answer in answers[name]]
    return answers


def add_binary_task(
    report: ModelReport, task: str, subset: str, generator: np.random.Generator
) -> None:
    labels = (generator.random(WINDOWS) < 0.3).astype(np.int64)
    names = ("model", "rule", "series only", "dense only", "multi-task")
    answers = binary_answers(labels, names, generator)
    contests = hold(samples(task, labels), answers, subset=subset)
    contests += [replace(contest, subset="all windows") for contest in contests]
    report.contests += contests
    report.differences += [(contest, "model", "rule") for contest in contests]
    scores = {name: answer[0] for name, answer in answers.items()}
    is_positive = labels == 1
    report.curves.append(
        Curves(
            task=task,
            subset=subset,
            labels=is_positive,
            scores=scores,
            probabilities=scores["model"],
            is_right=is_positive,
            point=operating_point(scores["model"], is_positive, 0.625),
        )
    )
    report.importances[task] = [
        Importance(feature=f"feature_{index}_with_a_name", loss=0.0907 / (1 + index) - 0.004)
        for index in range(20)
    ]
    report.calibration_errors[task] = [0.0123, 0.0234, 0.0345]


def add_type_task(report: ModelReport, generator: np.random.Generator) -> None:
    labels = generator.integers(0, len(NETWORK_CLASSES), size=WINDOWS)
    answers = {}
    for name, chance in (("model", 0.8), ("rule", 0.5)):
        named = generator.integers(0, len(NETWORK_CLASSES), size=WINDOWS)
        answers[name] = [np.where(generator.random(WINDOWS) < chance, labels, named)]
    report.contests += hold(samples("network_type", labels), answers, subset="all")
    for name, of_seeds in answers.items():
        counts = confusion(of_seeds[0], labels, len(NETWORK_CLASSES))
        report.confusions.append(
            ConfusionTable(contestant=name, classes=NETWORK_CLASSES, counts=counts)
        )
    is_right = answers["model"][0] == labels
    report.curves.append(
        Curves(
            task="network_type",
            subset="all",
            labels=is_right,
            scores={},
            probabilities=np.clip(0.75 + 0.2 * generator.normal(size=WINDOWS), 0.2, 1.0),
            is_right=is_right,
            point=None,
        )
    )


def alternating(*, falls_have_alarms: bool = True) -> Alternating:
    """Three falls of a call of 180 s; the first loss comes 0.5 s after each."""
    time_s = np.arange(1, 1801) / 10.0
    since_fall_s = (time_s - 30.0) % 60.0
    is_low = (time_s - 30.05) % 60.0 < 30.0  # a row tells of the interval that it ends
    generator = np.random.default_rng(5)
    lost = np.where((since_fall_s > 0.45) & (since_fall_s < 1.6) & is_low, 3.0, 0.0)
    rtt_ms = 60.0 + 900.0 * np.exp(-since_fall_s / 2.0) * np.minimum(1.0, since_fall_s / 0.6)
    rtt_ms[100:105] = np.nan
    scores = 0.08 + 0.04 * generator.random(1800)
    if falls_have_alarms:
        scores[(since_fall_s > 0.15) & (since_fall_s < 4.0)] = 0.93
    telemetry = np.zeros(1800, dtype=[("time_s", "f8"), ("lost_packets", "f8")])
    telemetry["time_s"], telemetry["lost_packets"] = time_s, lost
    falls = falls_of(telemetry, scores, 0.715)
    return Alternating(
        time_s=time_s,
        capacity_bps=np.where(is_low, 100e3, 500e3),
        target_rate_bps=np.where(is_low, 95e3, 430e3) + 30e3 * np.sin(time_s),
        rtt_ms=rtt_ms,
        lost_packets=lost,
        scores=scores,
        threshold=0.715,
        falls=[falls] * SEEDS,
        false_alarms_per_minute=[0.11, 0.22, 0.33],
    )


def examples() -> list[Example]:
    generator = np.random.default_rng(8)
    time_s = np.round(0.1 * np.arange(-39, 41), 1)
    made = []
    for index, title in enumerate(("positive", "negative: a spike, and nothing followed")):
        rise = np.where((time_s > -2.0) & (time_s < (3.0 if index == 0 else -0.5)), 130.0, 0.0)
        lost = np.where((time_s > 1.0) & (time_s < 1.8), 2.0, 0.0) * (index == 0)
        rtt_ms = 52.0 + rise + 8.0 * generator.random(80)
        rtt_ms[3] = np.nan
        made.append(
            Example(
                network=f"test-0{index}-wifi",
                title=title,
                time_s=time_s,
                rtt_ms=rtt_ms,
                floor_ms=52.0,
                lost_packets=lost,
            )
        )
    return made


def shares() -> list[CongestionShare]:
    generator = np.random.default_rng(9)
    gcc = 0.2 + 0.02 * generator.random(20)
    return [
        CongestionShare(controller="gcc", positive_ratio=gcc, queue_loss_ratio=gcc / 10),
        CongestionShare(controller="oracle", positive_ratio=gcc - 0.15, queue_loss_ratio=gcc / 100),
    ]


def interval(mean: float) -> Interval:
    return Interval(mean=mean, low=mean - 0.011, high=mean + 0.012, networks=NETWORKS)


def logs(contests: Sequence[Contest]) -> LogScores:
    return LogScores(
        contests=[contest for contest in contests if contest.task == "random_loss"][:2],
        runs=[("d_ge05_2M_r2", 41, 1.0, 0.8765), ("f2_drop2500_500", 17, 0.0, 0.1357)],
    )


def full_report() -> ModelReport:
    """A fresh one each time, scored once."""
    return copy.deepcopy(_full_report())


@cache
def _full_report() -> ModelReport:
    generator = np.random.default_rng(3)
    report = empty_report()
    report.command = "python -m experiments.report models runs/a-1 runs/b-1"
    report.models = {"a-1": ["runs/a-1/models/seed-0", "runs/a-1/models/seed-1"]}
    report.contestants = {"rule (congestion)": "QueueRule(threshold_ms=47.25) <tuned>"}
    add_binary_task(report, "random_loss", "calls with both causes", generator)
    add_binary_task(report, "congestion", "after a spike", generator)
    add_type_task(report, generator)
    report.online = [
        OnlineRow(
            task="congestion",
            subset="after a spike",
            metric="ROC-AUC",
            offline=interval(0.8421),
            online=interval(0.8319),
            truth="the call's own future",
        )
    ]
    report.alternating = alternating()
    report.shares = shares()
    report.examples = examples()
    report.sizes = [
        SizeRow(name="single-task a", parameters=10_250, file_bytes=42_111, inference_ms=2.75),
        SizeRow(
            name="all single-task models", parameters=41_000, file_bytes=168_444, inference_ms=11
        ),
        SizeRow(name="multi-task model", parameters=20_500, file_bytes=84_222, inference_ms=5.5),
    ]
    report.cost = Cost(models_ms=5.5, simulation_ms=22.0, onnx_us={"a": 187.0})
    report.logs = logs(report.contests)
    report.notes = ["A planted note, with <angles> & an ampersand."]
    return report

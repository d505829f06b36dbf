"""Score random loss and congestion alarms on logs of real calls, which nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agents.online_models import OnlineModels, follow_log
from bwe_env.errors import ConfigError
from bwe_env.network_features import BIN_S
from experiments.collect import CollectConfig, collect_logs
from experiments.dataset import DatasetCall, read_calls
from experiments.model_online import Fall, capacity_falls_s, falls_of, false_alarms
from experiments.model_report import BITRATE, MODEL, RULE, LogScores
from experiments.model_runs import Study
from experiments.model_scores import Contest, answers_of, hold
from experiments.model_tasks import rule_answers
from experiments.samples import make_samples


def study_logs(study: Study, logs: Sequence[Path]) -> None:
    """Random loss in logs that know the causes; nothing of them was trained on."""
    directory, _ = collect_logs(CollectConfig(logs=tuple(logs)))
    calls = [
        call
        for call in read_calls(directory, ["logs"])
        if call.has_causes and call.interval_s == BIN_S
    ]
    if not calls:
        raise ConfigError("none of the --logs knows why its packets were lost.")
    run = study.run("random_loss")
    assert run is not None
    samples = make_samples("random_loss", calls, learn=False)
    answers = answers_of(run.models, samples)
    contestants = {
        MODEL: answers,
        RULE: [rule_answers(study.rules["random_loss"], samples)],
        BITRATE: [rule_answers(study.rules[BITRATE], samples)],
    }
    contests: list[Contest] = []
    if len(np.unique(samples.labels)) == 2:
        contests = hold(samples, contestants, subset="logs")
    runs = []
    for index in np.unique(samples.call):
        rows = samples.call == index
        runs.append(
            (
                calls[index].network,
                int(rows.sum()),
                float(samples.labels[rows].mean()),
                float(np.mean([answer[rows].mean() for answer in answers])),
            )
        )
    falls, rates = _alarms(study, calls)
    study.report.logs = LogScores(
        contests=contests, runs=runs, falls=falls, false_alarms_per_minute=rates
    )


def _alarms(
    study: Study, calls: Sequence[DatasetCall]
) -> tuple[list[tuple[str, int, Fall]], list[float]]:
    """Falls of known capacities and false alarms, at the thresholds of the validation networks."""
    run = study.run("congestion")
    falls: list[tuple[str, int, Fall]] = []
    rates: list[float] = []
    if run is None:
        return falls, rates
    for seed, threshold in enumerate(study.thresholds):
        models = OnlineModels([run.models[seed]])
        alarms, minutes = 0, 0.0
        for call in calls:
            telemetry = call.telemetry
            scores = follow_log(models, telemetry)[:, 0]
            times_s = capacity_falls_s(telemetry["time_s"], call.truth["capacity_bps"])
            found = falls_of(telemetry, scores, threshold, times_s=times_s)
            falls += [(call.network, seed, fall) for fall in found]
            alarms += false_alarms(telemetry, scores, threshold)
            minutes += len(telemetry) * BIN_S / 60.0
        rates.append(alarms / minutes)
    return falls, rates

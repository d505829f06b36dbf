"""Score random loss on logs of real calls, of which nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bwe_env.errors import ConfigError
from experiments.collect import CollectConfig, collect_logs
from experiments.dataset import read_calls
from experiments.model_report import MODEL, RULE, LogScores
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
        if call.has_causes and call.interval_s == 0.1
    ]
    if not calls:
        raise ConfigError("none of the --logs knows why its packets were lost.")
    run = study.run("random_loss")
    assert run is not None
    samples = make_samples("random_loss", calls, learn=False)
    answers = answers_of(run.models, samples)
    rule = study.rules["random_loss"]
    contests: list[Contest] = []
    if len(np.unique(samples.labels)) == 2:
        contests = hold(
            samples, {MODEL: answers, RULE: [rule_answers(rule, samples)]}, subset="logs"
        )
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
    study.report.logs = LogScores(contests=contests, runs=runs)

"""Tune the rules that drive `baselines.targeted`: ``python -m experiments.targeting_rules``.

The rules that `experiments.report models` holds models against, and for those that give a score the
logistic curve that makes it a probability. That report tunes them on the windows that its headline
is taken from (random loss in calls with both causes, congestion after a spike); here they are all
windows of train networks in which a question is asked, because a call asks it in all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baselines.targeted import AnsweringRule, write_rules
from experiments.cli import run_command
from experiments.dataset import DatasetCall, read_calls
from experiments.model_tasks import rule_answers, tuned_rule
from experiments.samples import make_samples

#: What targeting asks.
TASKS = ("random_loss", "congestion", "network_type")
#: Steps of Newton's method; two parameters settle in fewer than ten. Ours.
NEWTON_STEPS = 25
#: Keeps the curve finite where a score parts the labels completely. Ours.
RIDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class TargetingRulesConfig:
    """Tune hand-written rules that drive network targeting."""

    dataset: Path
    """made by python -m experiments.collect"""
    out: Path
    """folder that gets rules.json"""


def fit_rules(calls: Sequence[DatasetCall]) -> dict[str, AnsweringRule]:
    """The tuned rule of each task.

    Args:
        calls: of train networks.
    """
    rules = {}
    for task in TASKS:
        samples = make_samples(task, calls, learn=False)
        rule = tuned_rule(task, samples)
        slope, offset = 1.0, 0.0
        if task != "network_type":
            slope, offset = logistic_curve(rule_answers(rule, samples), samples.labels)
        rules[task] = AnsweringRule(rule=rule, slope=slope, offset=offset)
    return rules


def logistic_curve(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Slope and offset of the log-odds of yes, by maximum likelihood.

    Args:
        scores: shape (n,), finite.
        labels: 1 for yes, shape (n,).

    Returns:
        Three digits each: what a person would write down.
    """
    inputs = np.stack([scores, np.ones_like(scores)], axis=1)
    weights = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        probability = 0.5 * (1.0 + np.tanh(0.5 * inputs @ weights))
        gradient = inputs.T @ (labels - probability) - RIDGE * weights
        spread = (probability * (1.0 - probability))[:, None]
        weights = weights + np.linalg.solve(
            inputs.T @ (spread * inputs) + RIDGE * np.eye(2), gradient
        )
    return float(f"{weights[0]:.3g}"), float(f"{weights[1]:.3g}")


def run(config: TargetingRulesConfig) -> int:
    """Tune, write, and print the rules."""
    rules = fit_rules(read_calls(config.dataset, ("train",)))
    config.out.mkdir(parents=True, exist_ok=True)
    write_rules(config.out, rules)
    for task, rule in rules.items():
        print(f"{task}: {rule}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.targeting_rules``."""
    return run_command(run, TargetingRulesConfig, module="experiments.targeting_rules", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

"""Everything that is delivered, made from nothing: calls, models, rules, plans.

Each step is skipped if its result is there, so that an interrupted build goes on. Only train and
validation networks are played.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from baselines.targeted import RULES_FILE, write_rules
from experiments.collect import CollectConfig, collect_simulated
from experiments.dataset import read_calls
from experiments.executor import ExecutorName
from experiments.fit import FitConfig, fit
from experiments.plan_trials import STUDIES
from experiments.reproduce_delivery import assemble
from experiments.targeting_rules import fit_rules
from experiments.tune_plans import TunePlansConfig, tune_plans

T = TypeVar("T")

#: Of the models that are delivered; `experiments.report models` shows how little seeds differ.
MODEL_SEED = 0


@dataclass(frozen=True, kw_only=True)
class BuildSizes:
    """How much work goes into a build."""

    train: int = 2400
    """networks that models are trained on"""
    validation: int = 300
    epochs: int = 24
    trials: int = 160
    """of each plan"""
    networks: int = 96
    """train networks of each trial"""
    validation_networks: int = 160
    """that plans are chosen on"""
    candidates: int = 8

    @classmethod
    def small(cls) -> BuildSizes:
        """Some minutes of work, to see that all fits together; its plans are worth little."""
        return cls(
            train=120,
            validation=40,
            epochs=2,
            trials=8,
            networks=12,
            validation_networks=12,
            candidates=2,
        )


def build(out: Path, sizes: BuildSizes, executor: ExecutorName, workers: int) -> Path:
    """Make what is missing; returns the folder of the delivered configurations.

    Raises:
        ArtifactError: what is there was made from other inputs.
    """
    out.mkdir(parents=True, exist_ok=True)
    dataset = _timed("collecting calls", lambda: _collect(out, sizes))
    models = out / "models"
    for task in sorted({task for study in STUDIES.values() for task in study.models}):
        if not (models / task).exists():
            _timed(f"fitting {task}", functools.partial(_fit, out, dataset, task, sizes))
    rules = out / "rules"
    if not (rules / RULES_FILE).exists():
        _timed("tuning rules", lambda: _rules(rules, dataset))
    plans = TunePlansConfig(
        models=models,
        trials=sizes.trials,
        networks=sizes.networks,
        validation=sizes.validation_networks,
        candidates=sizes.candidates,
        out=out / "plans",
        executor=executor,
        workers=workers,
    )
    _timed("tuning plans", lambda: tune_plans(plans))
    delivered = out / "delivered"
    assemble(out / "plans", models, rules, delivered)
    return delivered


def _timed(what: str, work: Callable[[], T]) -> T:
    started_s = time.monotonic()
    print(f"{what} …", flush=True)
    result = work()
    print(f"{what}: {time.monotonic() - started_s:.0f} s", flush=True)
    return result


def _collect(out: Path, sizes: BuildSizes) -> Path:
    return collect_simulated(
        CollectConfig(train=sizes.train, validation=sizes.validation, test=1, out=out / "dataset")
    )


def _fit(out: Path, dataset: Path, task: str, sizes: BuildSizes) -> None:
    config = FitConfig(
        task=task,
        seeds=(MODEL_SEED,),
        dataset=dataset,
        epochs=sizes.epochs,
        runs_dir=out / "runs",
    )
    fit(config)
    # Numbered from 001 on: the last one has been fitted just now.
    fitted = sorted((out / "runs").glob(f"{config.run_name}-*"))[-1] / f"seed-{MODEL_SEED}"
    target = out / "models" / task
    target.parent.mkdir(exist_ok=True)
    # Relative: the folder may be moved before the build goes on.
    target.symlink_to(Path(os.path.relpath(fitted, target.parent)), target_is_directory=True)


def _rules(folder: Path, dataset: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_rules(folder, fit_rules(read_calls(dataset, ("train",))))

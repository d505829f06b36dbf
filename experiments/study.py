"""Train variants of the agent with several seeds each, and compare them on networks never seen.

    python -m experiments.study headline --seeds 5
    python -m experiments.study features --traces DIR

A study is a table of variants, each a change of the default training run; every variant is trained
once per seed, in processes side by side, and the selected policies are then played by
`experiments.compare`, a variant being one estimator with several training runs. What is finished is
not done again: Ctrl-C stops a study, the same command goes on with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from bwe_env.config import from_mapping
from bwe_env.errors import ConfigError
from experiments.cli import run_command
from experiments.compare_results import read_comparison
from experiments.executor import make_executor
from experiments.run_directory import config_to_dict, write_json
from experiments.tables import write_csv

# Read when torch loads OpenMP: its threads would spin while they wait for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

StudyName = Literal["headline", "features", "actions", "memory", "reward", "sender", "curriculum"]

#: What each variant changes of `experiments.train`'s defaults, as nested JSON values. The first of
#: a study is the one that the others are compared with.
STUDIES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "headline": {"PPO": {}},
    "features": {
        "PPO": {},
        "PPO with random loss": {"network_models": ["random_loss"]},
        "PPO with congestion": {"network_models": ["congestion"]},
        "PPO with network type": {"network_models": ["network_type"]},
        "PPO with all three": {"network_models": ["random_loss", "congestion", "network_type"]},
    },
    "actions": {
        "PPO": {},
        "PPO scale": {"action_mode": "scale"},
        "PPO config": {"action_mode": "config"},
    },
    "curriculum": {
        "PPO": {},
        "PPO with curriculum": {"curriculum": "gap"},
        "PPO with randomisation": {
            "randomisation": {
                "capacity_scale": [0.5, 2.0],
                "delay_scale": [0.7, 1.5],
                "queue_scale": [0.5, 2.0],
            }
        },
    },
    "reward": {
        "PPO": {},
        "PPO without freeze": {"reward": {"freeze": 0.0}},
        "PPO without delay": {"reward": {"delay": 0.0}},
        "PPO without loss": {"reward": {"loss": 0.0}},
        "PPO without rate change": {"reward": {"rate_change": 0.0}},
    },
    "sender": {
        "PPO": {},
        "PPO with window in training": {
            "training_gcc": {"cwnd_enabled": True, "cwnd_queue_s": 0.03}
        },
        "PPO without window": {"gcc": {"cwnd_enabled": False}},
        "PPO with GCC's pacing": {"gcc": {"pacing_factor": 1.1}},
        "PPO with free noise": {"ppo": {"anneal_exploration": False}},
    },
    "memory": {
        "PPO": {},
        "PPO one interval": {"observation": {"history": 1}},
        "PPO LSTM": {"observation": {"history": 1}, "ppo": {"memory": "lstm"}},
    },
}

#: Who plays beside the variants: what runs in the compiled loop, and is fast.
BASELINES = (
    "gcc",
    "gcc-tuned",
    "gcc-classic-loss",
    "gcc-classic-rate",
    "gcc-short-window",
    "constant:1000000",
)
ORACLES = ("oracle", "oracle-future")
#: Folder of one CSV file per study, in that of the runs.
TABLES_FOLDER = "tables"
#: Written into a run's folder when it has learnt to the end.
FINISHED_FILE = "finished.json"


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Train variants with several seeds each, and compare them on networks never seen."""

    study: tyro.conf.Positional[StudyName]
    """headline: the default agent; features: with and without network models; actions: rate, scale
    or config; memory: a history of intervals, one interval, or an LSTM; reward: without one of its
    terms; sender: congestion window and exploration noise otherwise; curriculum: networks drawn by
    the gap to GCC, or varied at random"""
    out: Path = Path("runs/study")
    """folder of the runs, which studies share, and of the comparison"""
    seeds: int = 5
    """training runs of each variant, with the seeds 0, 1, …"""
    total_steps: int | None = None
    """decisions that each learns from; as many as experiments.train by default"""
    workers: int = 0
    """runs that are trained side by side, each on one core; 0 for one per processor"""
    traces: Path | None = None
    """compare on measured traces; on synthetic test networks without it"""
    test_networks: int = 120
    """synthetic networks of the comparison"""
    test_seeds: int = 2
    """calls on each of them"""

    def __post_init__(self) -> None:
        for name in ("seeds", "test_networks", "test_seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1.")
        if self.workers < 0:
            raise ConfigError("--workers must be at least 1, or 0 for one per processor.")


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run of a study; it pickles."""

    variant: str
    seed: int
    folder: Path
    """of all runs of its variant"""
    changes: Mapping[str, Any]
    """of the default configuration"""

    @property
    def name(self) -> str:
        """Of the run, without the number that run directories have."""
        return f"seed-{self.seed}"

    @property
    def path(self) -> Path:
        """The run directory, made by the first start."""
        return self.folder / f"{self.name}-001"

    @property
    def is_finished(self) -> bool:
        """It has learnt to the end.

        Raises:
            ConfigError: with another configuration than this one.
        """
        file = self.path / FINISHED_FILE
        if not file.is_file():
            return False
        if json.loads(file.read_text())["changes"] != json.loads(json.dumps(self.changes)):
            raise ConfigError(
                f"{self.path} was trained with other options, see {FINISHED_FILE} in it. Give "
                "another --out, or remove that run."
            )
        return True


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.study``."""
    return run_command(study, StudyConfig, module="experiments.study", argv=argv)


def study(config: StudyConfig) -> int:
    """Train what is missing, then compare."""
    from experiments.compare import CompareConfig, compare

    runs = trainings(config)
    train_missing(runs, workers=config.workers)
    estimators = [
        f"{variant}={','.join(str(run.path) for run in runs if run.variant == variant)}"
        for variant in STUDIES[config.study]
    ]
    folder = config.out / f"{config.study}-{'traces' if config.traces else 'test'}"
    first, *others = STUDIES[config.study]
    code = compare(
        CompareConfig(
            estimators=(*BASELINES, *estimators, *ORACLES),
            traces=None if config.traces is None else str(config.traces),
            networks=config.test_networks,
            seeds=config.test_seeds,
            workers=config.workers,
            # Variants are compared with the default agent; that alone, with GCC.
            reference=first if others else "gcc",
            out=str(folder),
        )
    )
    if code == 0 and others:
        tables = config.out / TABLES_FOLDER
        tables.mkdir(exist_ok=True)
        write_csv(tables / f"{folder.name}.csv", variant_columns(folder, others))
    return code


def variant_columns(folder: Path, variants: Sequence[str]) -> dict[str, list[Any]]:
    """What each variant adds to the first one, over all calls, for ``report results --ablations``.

    Args:
        folder: of the comparison.
    """
    found = read_comparison(folder)
    rows = [
        (value.estimator, value.metric, value.value, value.low, value.high)
        for value in found.values
        if value.statistic == "difference" and value.subset == "all" and value.estimator in variants
    ]
    names = ("variant", "metric", "mean", "low", "high")
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def trainings(config: StudyConfig) -> list[Training]:
    """Every run of a study, seeds innermost."""
    common = {} if config.total_steps is None else {"total_steps": config.total_steps}
    return [
        Training(
            variant=variant,
            seed=seed,
            folder=config.out / _folder_name(variant),
            changes={**common, **changes},
        )
        for variant, changes in STUDIES[config.study].items()
        for seed in range(config.seeds)
    ]


def _folder_name(variant: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in variant.lower()).replace("--", "-")


def train_missing(runs: Sequence[Training], *, workers: int) -> None:
    """Train the runs that are not finished, several side by side; says what comes and goes."""
    missing = [run for run in runs if not run.is_finished]
    if not missing:
        return
    print(f"{len(missing)} of {len(runs)} runs to train", flush=True)
    started_s = time.monotonic()
    executor = make_executor(workers=workers)
    try:
        for done, (position, said) in enumerate(executor.map(train_one, missing), start=1):
            run = missing[position]
            minutes = (time.monotonic() - started_s) / 60.0
            print(
                f"{done}/{len(missing)} after {minutes:.1f} min: {run.variant}, seed {run.seed}: "
                f"{said}",
                flush=True,
            )
    finally:
        executor.close()


def train_one(run: Training) -> str:
    """Train one run to its end, or go on with it; what it prints goes into its folder.

    Returns:
        Its last line about a validation.
    """
    from experiments.train import TrainConfig, learn_run

    run.folder.mkdir(parents=True, exist_ok=True)
    can_resume = (run.path / "checkpoints/last.zip").is_file()
    values = config_to_dict(TrainConfig()) | {
        "name": run.name,
        "runs_dir": str(run.folder),
        "seed": run.seed,
        "num_threads": 1,
    }
    config = from_mapping(TrainConfig, _merged(values, run.changes))
    if can_resume:
        config = dataclasses.replace(config, resume=str(run.path))
    elif run.path.exists():
        raise ConfigError(
            f"{run.path} stopped before its first checkpoint; remove that folder and start again."
        )
    log = run.folder / f"{run.name}.log"
    with log.open("a") as file, contextlib.redirect_stdout(file):
        directory = learn_run(config)
    if directory is None:
        raise KeyboardInterrupt
    lines = [line for line in log.read_text().splitlines() if "validation" in line]
    write_json(directory.path / FINISHED_FILE, {"changes": run.changes})
    return lines[-1].strip() if lines else "no validation"


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with some of them changed."""
    merged = dict(values)
    for name, value in changes.items():
        merged[name] = _merged(merged[name], value) if isinstance(value, Mapping) else value
    return merged


assert set(STUDIES) == set(get_args(StudyName))

if __name__ == "__main__":
    sys.exit(main())

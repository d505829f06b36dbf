"""Tune a sender's settings offline, per kind of network: ``python -m experiments.tune``.

For every network class, and for all of them in equal shares ("global"), a search over GCC's
parameters, pacing and FEC (`experiments.tuning_space`) plays the same calls again and again. It
wants more video quality and less frozen time, and no more delay than the default. What it finds is
chosen on validation networks and judged on test networks, of its own class and of every other.

Stopped with Ctrl-C, it goes on where it was when it is started again with the same --out. Several
machines that see the same --out (or the same --storage) share the work.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.sim._jit import CACHE_DIRECTORY
from experiments.cli import run_command
from experiments.executor import Executor, ExecutorName, make_executor
from experiments.networks import networks_digest
from experiments.run_directory import ENVIRONMENT
from experiments.tuning_networks import TARGETS, NetworkList
from experiments.tuning_trials import Task

#: Classes and splits of `--quick`, and of the default: numbers of networks, seeds and trials that
#: take about 3 and about 25 minutes for all targets on two cores. Ours.
QUICK = {"trials": 24, "networks": 20, "validation": 15, "test": 15, "candidates": 6}


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Tune a sender's settings offline, per kind of network.

    Each trial plays --networks training networks of the class with --seeds seeds, the same ones for
    every trial. The rule of choice: of the trials on the Pareto front (video quality up, frozen
    time down, delay within the default's), the --candidates with the highest mean call score are
    played on validation networks; chosen is the one that gains most call score over the default
    there, if neither its frozen time nor its delay is significantly worse; otherwise the default
    stays. Every configuration is then judged on the test networks of every class.
    """

    targets: tuple[str, ...] = TARGETS
    """what to tune for: network classes, and "global" for all of them at once"""
    trials: int = 240
    """finished trials of each target, rounded up to whole rounds of 8; the first is the default"""
    networks: int = 64
    """training networks of each target; "global" has as many of each class as make so many"""
    validation: int = 48
    """validation networks of each target"""
    test: int = 48
    """test networks of each class"""
    seeds: int = 1
    """calls on each training network; on the others there are three"""
    candidates: int = 16
    """trials of each target that are played on validation networks"""
    delay_slack: float = 0.02
    """by how much the delay of a trial may exceed the default's, as a share of it"""
    duration_s: float = 60.0
    """length of a call"""
    seed: int = 0
    """of the search"""
    out: Path = Path("runs/tune")
    """folder of the study and the results; one that exists is gone on with"""
    storage: str | None = None
    """URL of a database with the study, for Optuna; by default a journal file in --out"""
    executor: ExecutorName = "local"
    """processes of this machine, or a Ray cluster"""
    workers: int = 0
    """trials at once, 0 for one per processor; what is found does not depend on it"""
    quick: bool = False
    """smaller numbers of networks, trials and candidates, for a look at how it goes"""

    def __post_init__(self) -> None:
        if self.quick:
            for name, value in QUICK.items():
                object.__setattr__(self, name, min(value, getattr(self, name)))

    def training(self, target: str) -> Task:
        """What a trial plays."""
        networks = NetworkList(split="train", target=target, count=self.networks)
        return Task(networks=networks, seeds=tuple(range(self.seeds)), duration_s=self.duration_s)

    def held_out(self, networks: NetworkList) -> Task:
        """What a configuration is chosen or judged by."""
        return Task(networks=networks, seeds=HELD_OUT_SEEDS, duration_s=self.duration_s)


#: Seeds of calls on validation and test networks; few configurations are played there. Ours.
HELD_OUT_SEEDS = (0, 1, 2)


def check(config: TuneConfig) -> None:
    """Refuse options that mean nothing.

    Raises:
        UnknownNameError: a target that there is not.
        ConfigError: a number out of range, or a target named twice.
    """
    for name in config.targets:
        if name not in TARGETS:
            raise unknown_name("target of --targets", name, TARGETS)
    if not config.targets or len(set(config.targets)) < len(config.targets):
        raise ConfigError("--targets must name at least one target, and none of them twice.")
    for name in ("trials", "networks", "validation", "test", "seeds", "candidates"):
        if getattr(config, name) < 1:
            raise ConfigError(f"--{name} must be at least 1.")
    if not 0.0 <= config.delay_slack <= 10.0:
        raise ConfigError(f"--delay-slack {config.delay_slack} must be from 0 to 10.")


def tune(config: TuneConfig) -> int:
    """Run the command; returns its exit code."""
    check(config)
    config.out.mkdir(parents=True, exist_ok=True)
    executor = make_executor(config.executor, workers=config.workers)
    try:
        finished = _search(config, executor)
        _conclude(config, finished, executor)
    finally:
        executor.close()
    return 0


def _search(config: TuneConfig, executor: Executor) -> dict[str, Any]:
    """Search for every target; returns the finished trials of each."""
    from tqdm import tqdm

    from experiments.tuning_study import Search, open_storage, recorded_inputs, search_all, whole

    storage = open_storage(config.storage or config.out / "study.log")
    tasks = {target: config.training(target) for target in config.targets}
    searches = [
        Search(
            target,
            storage,
            inputs=recorded_inputs(task, _digest(task), CACHE_DIRECTORY.name, config.delay_slack),
            seed=config.seed,
            delay_slack=config.delay_slack,
        )
        for target, task in tasks.items()
    ]
    done, total = sum(s.finished_count for s in searches), whole(config.trials) * len(searches)
    with tqdm(total=max(total, done), initial=done, unit=" trials", desc="tuning") as bar:
        search_all(searches, tasks, executor, trials=config.trials, progress=bar.update)
    return {search.target: search.finished() for search in searches}


def _conclude(config: TuneConfig, finished: Mapping[str, Any], executor: Executor) -> None:
    """Choose, judge, and write everything down."""
    from tqdm import tqdm

    from experiments import tuning_choice, tuning_results
    from experiments.tables import show

    validation = {
        target: config.held_out(
            NetworkList(split="validation", target=target, count=config.validation)
        )
        for target in config.targets
    }
    with tqdm(unit=" configurations", desc="validating") as bar:
        choices = tuning_choice.choose(
            finished, validation, executor, most=config.candidates, progress=bar.update
        )
    with tqdm(unit=" cells", desc="testing") as bar:
        tests = tuning_choice.run_tests(
            choices, config.held_out, executor, count=config.test, progress=bar.update
        )
    rows = tuning_choice.compared(tests)
    out = config.out
    tuning_results.write_trials(out / "trials.csv", finished)
    tuning_results.write_configuration(
        out / "configuration.json", choices, finished, _inputs(config, validation)
    )
    tuning_results.write_plan(out / "plan.json", choices)
    tuning_results.write_tests(out / "test_calls.csv", tests)
    tuning_results.write_results(out / "results.csv", rows)
    _draw(out / "pareto.png", finished, choices)
    show(*tuning_results.result_tables(choices, rows), file=out / "results.txt")
    print(f"\n{out / 'configuration.json'}, {out / 'plan.json'}, {out / 'pareto.png'}")


def _draw(path: Path, finished: Mapping[str, Any], choices: Mapping[str, Any]) -> None:
    # Here, because workers import this module, and matplotlib is a second of nothing for them.
    from experiments.tuning_figures import pareto_picture

    path.write_bytes(pareto_picture(finished, choices).png)


def _digest(task: Task) -> str:
    return networks_digest(task.networks.networks(task.duration_s))


def _inputs(config: TuneConfig, validation: Mapping[str, Task]) -> dict[str, Any]:
    """What the configuration follows from, as a JSON object: no versions, no places, no workers."""
    return {
        "candidates": config.candidates,
        "delay_slack": config.delay_slack,
        "duration_s": config.duration_s,
        "environment": ENVIRONMENT,
        "networks": {
            target: {
                split: {
                    "count": len(task.networks.networks(task.duration_s)),
                    "digest": _digest(task),
                    "seeds": list(task.seeds),
                }
                for split, task in (("train", config.training(target)), ("validation", its))
            }
            for target, its in validation.items()
        },
        "seed": config.seed,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.tune``."""
    return run_command(tune, TuneConfig, module="experiments.tune", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

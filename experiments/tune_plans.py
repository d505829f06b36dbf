"""Tune targeting plans offline, model in the loop: ``python -m experiments.tune_plans``.

Each plan (`experiments.plan_space`) is tuned for the A/B test that it is made for, on the train
networks of that test. Objectives: the mean gain of what the test wants to change. Constraints: what
is guarded becomes better by `GUARD_RESERVE_PCT`, everything wanted moves the right way, and the
placebo, the same plan told of other calls, fails (`experiments.plan_trials`). Of the best trials on
train networks, the one that does best on validation networks is chosen (`merit`); where it does not
meet a constraint there, that is printed and written down. Test networks are never played.

Stopped with Ctrl-C, it goes on where it was when it is started again with the same --out.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.targeting import PLAN_FILE
from bwe_env.config import from_mapping
from bwe_env.errors import ArtifactError, ConfigError, unknown_name
from bwe_env.sim._jit import CACHE_DIRECTORY
from bwe_env.targeting import TargetingPlan
from experiments.cli import run_command
from experiments.executor import Executor, ExecutorName, make_executor
from experiments.plan_space import SPACES
from experiments.plan_trials import STUDIES, PlanOutcome, PlanTask, model_folders, play_plan
from experiments.run_directory import fingerprint, write_json
from experiments.targeted_arms import folder_digest

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

#: Trials that are asked for at once, hence the most workers that one study keeps busy. Ours.
ROUND = 4
#: Trials that begin a search, at random. Ours.
STARTUP_TRIALS = 24
#: A treatment's guards have to hold with so much to spare, percent: intervals have a width. Ours.
GUARD_RESERVE_PCT = 3.0
#: Every wanted column has to gain so much, percent. Ours.
LEAST_GAIN_PCT = 0.3
#: The placebo has to break a guard by so much, or to move a wanted column the wrong way. Ours.
PLACEBO_HARM_PCT = 2.0


@dataclass(frozen=True, kw_only=True)
class TunePlansConfig:
    """Tune targeting plans, model in the loop."""

    models: Path
    """folder with the models, one folder each, named after its task (random_loss, …)"""
    plans: tuple[str, ...] = tuple(STUDIES)
    """which"""
    trials: int = 160
    """of each plan, rounded up to whole rounds"""
    networks: int = 96
    """train networks of each plan"""
    validation: int = 160
    """validation networks of each plan"""
    candidates: int = 8
    """trials of each plan that are played on validation networks"""
    duration_s: float = 90.0
    """length of a call in the search; on validation networks it is that of the test"""
    seed: int = 0
    """of the search"""
    out: Path = Path("runs/plans")
    """folder of the studies and the plans; one that exists is gone on with"""
    start_from: Path | None = None
    """folder of another search, on fewer networks say, whose best trials are played first"""
    executor: ExecutorName = "local"
    """processes of this machine, or a Ray cluster"""
    workers: int = 0
    """trials at once, 0 for one per processor"""

    def __post_init__(self) -> None:
        for name in self.plans:
            if name not in STUDIES:
                raise unknown_name("plan of --plans", name, STUDIES)
        for name in ("trials", "networks", "validation", "candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1.")

    def task(self, plan: str) -> PlanTask:
        """What every trial of a plan plays, without the plan itself."""
        study = STUDIES[plan]
        return PlanTask(
            experiments=study.experiments,
            models=model_folders(self.models, study),
            split="train",
            count=self.networks,
            duration_s=self.duration_s,
            plan={},
        )


def tune_plans(config: TunePlansConfig) -> int:
    """Run the command; returns its exit code."""
    config.out.mkdir(parents=True, exist_ok=True)
    executor = make_executor(config.executor, workers=config.workers)
    try:
        for name in config.plans:
            _search(config, name, executor)
            _conclude(config, name, executor)
    finally:
        executor.close()
    return 0


# --- Search ---------------------------------------------------------------------------------------


def open_study(config: TunePlansConfig, name: str) -> Study:
    """The study of a plan, new or as it was left.

    Raises:
        ArtifactError: it was made from other inputs.
    """
    import optuna

    from experiments.tuning_study import open_storage

    study = optuna.create_study(
        study_name=name,
        storage=open_storage(config.out / "journal.log"),
        directions=["maximize"] * len(STUDIES[name].experiments),
        load_if_exists=True,
    )
    inputs = _inputs(config, name)
    recorded = study.user_attrs.get("inputs")
    if recorded is None:
        study.set_user_attr("inputs", inputs)
    elif fingerprint(recorded) != fingerprint(inputs):
        differing = [key for key in inputs if recorded.get(key) != inputs[key]]
        raise ArtifactError(
            f"the study of plan {name!r} in {config.out} was made with other "
            f"{', '.join(differing)}. Give the same options, or another --out."
        )
    return study


def _inputs(config: TunePlansConfig, name: str) -> dict[str, Any]:
    task = config.task(name)
    # As a journal gives it back: lists, no tuples.
    counted = {"experiments": list(task.experiments), "models": len(task.models)}
    return {
        "task": {**dataclasses.asdict(task), **counted},
        "models": [folder_digest(Path(folder)) for folder in task.models],
        "seed": config.seed,
        "simulator": CACHE_DIRECTORY.name,
        "space": fingerprint({"space": repr(SPACES[name])}),
    }


def _search(config: TunePlansConfig, name: str, executor: Executor) -> None:
    """Play trials until there are as many as wanted."""
    from optuna.trial import TrialState
    from tqdm import tqdm

    study = open_study(config, name)
    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL, skip_if_finished=True)
    if config.start_from is not None and not study.get_trials(deepcopy=False):
        _enqueue_best(config, config.start_from, name, study)
    done = len(complete(study))
    with tqdm(total=config.trials, initial=done, unit=" trials", desc=name, disable=None) as bar:
        while (done := len(complete(study))) < config.trials:
            _round(config, name, study, executor, done)
            bar.update(ROUND)


def _enqueue_best(config: TunePlansConfig, folder: Path, name: str, study: Study) -> None:
    """Ask for the best trials of another search first."""
    import optuna

    from experiments.tuning_study import open_storage

    try:
        other = optuna.load_study(study_name=name, storage=open_storage(folder / "journal.log"))
    except KeyError as error:
        raise ArtifactError(f"{folder} holds no search for plan {name!r}.") from error
    best = best_trials(other, STUDIES[name].experiments)[: config.candidates]
    study.set_user_attr("started_from", {"inputs": other.user_attrs["inputs"], "trials": len(best)})
    for trial in best:
        study.enqueue_trial(trial.params)


def _round(config: TunePlansConfig, name: str, study: Study, executor: Executor, done: int) -> None:
    from optuna.trial import TrialState

    study.sampler = _sampler(config.seed, done)
    asked = [study.ask() for _ in range(ROUND)]
    plans = [dataclasses.asdict(SPACES[name].suggest(trial)) for trial in asked]
    tasks = [dataclasses.replace(config.task(name), plan=plan) for plan in plans]
    results: dict[int, PlanOutcome] = {}
    try:
        results = dict(executor.map(play_plan, tasks))
    finally:
        for position, trial in enumerate(asked):  # in the order in which they were asked for
            if position not in results:
                study.tell(trial, state=TrialState.FAIL)
                continue
            outcome = results[position]
            trial.set_user_attr("plan", dict(plans[position]))
            trial.set_user_attr("outcome", dataclasses.asdict(outcome))
            for experiment in STUDIES[name].experiments:
                for what, lack in lacking(outcome, experiment).items():
                    trial.set_constraint(f"{experiment} {what}", lack)
            study.tell(trial, [outcome.gain(name) for name in STUDIES[name].experiments])


def _sampler(seed: int, done: int) -> Any:
    import numpy as np
    from optuna.samplers import TPESampler

    state = int(np.random.SeedSequence((seed, done)).generate_state(1)[0])
    return TPESampler(
        seed=state, multivariate=True, n_startup_trials=STARTUP_TRIALS, constant_liar=True
    )


def complete(study: Study) -> list[FrozenTrial]:
    """Trials that have been played."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


# --- Choice ---------------------------------------------------------------------------------------


def outcome_of(trial: FrozenTrial) -> PlanOutcome:
    """What a trial came to."""
    return PlanOutcome(**trial.user_attrs["outcome"])


def lacking(outcome: PlanOutcome, experiment: str) -> dict[str, float]:
    """How much each constraint lacks, percent; 0 or below where it is met.

    A placebo fails in all experiments of a plan if it breaks a guard in one of them: an arm that
    harms some calls is not rolled out for the sake of others.
    """
    harms = [outcome.harm(name, of_placebo=True) for name in outcome.placebo]
    failed = max(*harms, -outcome.least(experiment, of_placebo=True))
    return {
        "guards": outcome.harm(experiment) + GUARD_RESERVE_PCT,
        "gains": LEAST_GAIN_PCT - outcome.least(experiment),
        "placebo": PLACEBO_HARM_PCT - failed,
    }


def unmet_constraints(outcome: PlanOutcome, experiments: Sequence[str]) -> list[str]:
    """Constraints that lack something, and how much, in words."""
    return [
        f"{name} {what} (lacks {lack:.1f} %)"
        for name in experiments
        for what, lack in lacking(outcome, name).items()
        if lack > 0.0
    ]


def merit(outcome: PlanOutcome, experiments: Sequence[str]) -> float:
    """Gain less what constraints lack, twice; percent."""
    total = 0.0
    for name in experiments:
        lack = sum(max(0.0, value) for value in lacking(outcome, name).values())
        total += outcome.gain(name) - 2.0 * lack
    return total


def best_trials(study: Study, experiments: Sequence[str]) -> list[FrozenTrial]:
    """Played trials, the best first."""
    return sorted(
        complete(study), key=lambda trial: merit(outcome_of(trial), experiments), reverse=True
    )


def _conclude(config: TunePlansConfig, name: str, executor: Executor) -> None:
    """Choose a plan on validation networks, and write it."""
    from experiments.published_experiments import CALL

    experiments = STUDIES[name].experiments
    study = open_study(config, name)
    trials = best_trials(study, experiments)
    best = trials[: config.candidates]
    tasks = [
        dataclasses.replace(
            config.task(name),
            plan=trial.user_attrs["plan"],
            split="validation",
            count=config.validation,
            duration_s=CALL.duration_s,
        )
        for trial in best
    ]
    judged = dict(executor.map(play_plan, tasks))
    # In order, or the first to finish would be taken of two that are as good.
    chosen = max(sorted(judged), key=lambda position: merit(judged[position], experiments))
    unmet = unmet_constraints(judged[chosen], experiments)
    folder = config.out / name
    folder.mkdir(parents=True, exist_ok=True)
    from_mapping(TargetingPlan, best[chosen].user_attrs["plan"]).write(folder / PLAN_FILE)
    record = {
        "candidates": len(best),
        "chosen_trial": best[chosen].number,
        "inputs": _inputs(config, name),
        "started_from": study.user_attrs.get("started_from"),
        "train": dataclasses.asdict(outcome_of(best[chosen])),
        "trials": len(trials),
        "unmet_on_validation": unmet,
        "validation": dataclasses.asdict(judged[chosen]),
        "validation_networks": config.validation,
    }
    write_json(folder / "tuning.json", record)
    for experiment in experiments:
        its = judged[chosen]
        print(
            f"{name}: {experiment} on validation networks: gain {its.gain(experiment):+.1f} % "
            f"(least {its.least(experiment):+.1f}), guards {its.harm(experiment):+.1f} %; placebo: "
            f"guards {its.harm(experiment, of_placebo=True):+.1f} %, least gain "
            f"{its.least(experiment, of_placebo=True):+.1f} %",
            flush=True,
        )
    if unmet:
        print(f"{name}: the best there is does not meet: {', '.join(unmet)}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.tune_plans``."""
    return run_command(tune_plans, TunePlansConfig, module="experiments.tune_plans", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

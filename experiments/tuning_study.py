"""The search for one target: an Optuna study in rounds, shared and resumed through a journal.

A round asks for `ROUND` trials, plays them all, and tells them in the order they were asked for.
The sampler is made anew for each round from the seed and the number of finished trials. So what is
found depends on the seed alone, not on how many workers there are or on which was the fastest, and
a search that was interrupted goes on as if it had not been. (Several machines on one study see each
other's trials whenever they happen to finish; that is not reproducible, and cannot be.)

TPE, not NSGA-II: a study has some hundred trials in some twenty dimensions, too few for generations
to evolve. On 32 cellular-low networks the front of TPE had more hypervolume after 24 trials than
that of NSGA-II after 144, whatever the reference point.
"""

from __future__ import annotations

import dataclasses
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from bwe_env.errors import ArtifactError, ConfigError
from experiments.executor import Executor
from experiments.run_directory import fingerprint
from experiments.tuning_networks import TARGETS
from experiments.tuning_space import KNOBS, Knob, default_values, overrides_of, suggest
from experiments.tuning_trials import OBJECTIVES, Calls, Outcome, Task, outcome, play

#: Trials of a round, hence the most workers that one target keeps busy. Ours.
ROUND = 8
#: Trials that begin a search, at random but for the first one, the default. Ours.
STARTUP_TRIALS = 2 * ROUND
#: Name of the constraint on the delay, as a journal has it.
DELAY = "delay"


def open_storage(place: str | Path) -> BaseStorage:
    """The storage of all studies: a journal file, or any database that Optuna knows by a URL.

    Raises:
        ConfigError: the database cannot be opened.
        ArtifactError: the file is no journal.
    """
    # What Optuna says on its own is for those who read logs; ours is a progress bar.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" in str(place):
        try:
            return get_storage(str(place))
        except Exception as error:  # of whatever driver the URL names
            raise ConfigError(f"the storage {place} cannot be opened: {error}") from error
    try:
        # A lock by an exclusive file works over NFS, and is freed if its owner was killed.
        return JournalStorage(JournalFileBackend(str(place), JournalFileOpenLock(str(place))))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{place} is no journal of a study, or damaged: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A trial to be played."""

    trial: optuna.Trial
    overrides: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A trial that was played."""

    position: int
    """among the finished ones, from 0; the default is 0"""
    overrides: Mapping[str, Any]
    values: Mapping[str, float]
    """of the knobs, as suggested"""
    outcome: Outcome
    is_feasible: bool
    """its delay is not above the default's by more than the slack"""
    is_efficient: bool
    """feasible, and no feasible trial is better in one objective without being worse in another"""


class Search:
    """One study, for one target."""

    def __init__(
        self,
        target: str,
        storage: BaseStorage,
        *,
        inputs: Mapping[str, Any],
        seed: int = 0,
        delay_slack: float = 0.0,
        knobs: Sequence[Knob] = KNOBS,
    ) -> None:
        """Create the study or go on with it.

        Args:
            inputs: everything that a trial depends on, as a JSON object.
            delay_slack: by how much delay may exceed the default's, as a share of it.
            knobs: the search space.

        Raises:
            ArtifactError: the study there was made from other inputs.
        """
        self.target = target
        self._seed = seed
        self._delay_slack = delay_slack
        self._knobs = knobs
        self._study = optuna.create_study(
            study_name=target,
            storage=storage,
            directions=list(OBJECTIVES.values()),
            load_if_exists=True,
        )
        self._asked: list[optuna.Trial] = []
        self._check(inputs)
        self._fail_abandoned()
        lives = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
        if not self._study.get_trials(deepcopy=False, states=lives):
            self._study.enqueue_trial(default_values(knobs))

    @property
    def finished_count(self) -> int:
        """Trials that have been played."""
        return len(self._complete())

    def ask(self, count: int = ROUND) -> list[Asked]:
        """What to play next."""
        self._study.sampler = _sampler(self._seed, self.target, self.finished_count)
        asked = []
        for _ in range(count):
            trial = self._study.ask()
            self._asked.append(trial)
            trial.set_user_attr("owner", _owner())
            asked.append(
                Asked(trial=trial, overrides=overrides_of(suggest(trial, self._knobs), self._knobs))
            )
        return asked

    def tell(self, asked: Asked, result: Outcome) -> None:
        """Write down what came of a trial."""
        trial = asked.trial
        trial.set_user_attr("overrides", dict(asked.overrides))
        trial.set_user_attr("classes", {name: dict(m) for name, m in result.classes.items()})
        trial.set_user_attr("delay_ratio", result.delay_ratio)
        trial.set_constraint(DELAY, result.delay_ratio - 1.0 - self._delay_slack)
        self._study.tell(trial, result.objectives())
        self._asked.remove(trial)

    def give_up(self) -> None:
        """Mark what was asked for and will not be told as failed: it is asked for again."""
        while self._asked:
            self._study.tell(self._asked.pop(), state=TrialState.FAIL)

    def finished(self) -> list[Finished]:
        """All played trials in the order they were asked for."""
        return _finished_trials(self._study)

    def _complete(self) -> list[FrozenTrial]:
        return _complete(self._study)

    def _check(self, inputs: Mapping[str, Any]) -> None:
        recorded = self._study.user_attrs.get("inputs")
        if recorded is None:
            self._study.set_user_attr("inputs", dict(inputs))
        elif fingerprint(recorded) != fingerprint(inputs):
            differing = sorted(
                name for name in {*recorded, *inputs} if recorded.get(name) != inputs.get(name)
            )
            raise ArtifactError(
                f"the study for {self.target!r} was made with other {', '.join(differing)}, so its "
                "trials cannot be compared with new ones. Give the same options, or another --out."
            )

    def _fail_abandoned(self) -> None:
        """Fail the trials of processes of this machine that were killed."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _is_gone(trial.user_attrs.get("owner", "")):
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def finished_trials(place: str | Path, target: str) -> list[Finished]:
    """All played trials of a study, in the order they were asked for.

    Args:
        place: as `open_storage` has it.

    Raises:
        ArtifactError: there is no such study.
    """
    if "://" not in str(place) and not Path(place).is_file():
        raise ArtifactError(f"there is no study {place}; give a folder of experiments.tune.")
    try:
        study = optuna.load_study(study_name=target, storage=open_storage(place))
    except KeyError as error:
        raise ArtifactError(f"{place} holds no study for {target!r}.") from error
    return _finished_trials(study)


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _finished_trials(study: optuna.Study) -> list[Finished]:
    trials = _complete(study)
    efficient = {trial.number for trial in study.best_trials} if trials else set()
    return [
        _finished(position, trial, trial.number in efficient)
        for position, trial in enumerate(trials)
    ]


def _finished(position: int, trial: FrozenTrial, is_efficient: bool) -> Finished:
    attributes = trial.user_attrs
    return Finished(
        position=position,
        overrides=attributes["overrides"],
        values=trial.params,
        outcome=Outcome(classes=attributes["classes"], delay_ratio=attributes["delay_ratio"]),
        is_feasible=all(value <= 0.0 for value in trial.constraints.values()),
        is_efficient=is_efficient,
    )


def _sampler(seed: int, target: str, finished: int) -> optuna.samplers.BaseSampler:
    words = (seed, TARGETS.index(target), finished)
    state = int(np.random.SeedSequence(words).generate_state(1)[0])
    return optuna.samplers.TPESampler(
        seed=state, multivariate=True, n_startup_trials=STARTUP_TRIALS, constant_liar=True
    )


def _owner() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _is_gone(owner: str) -> bool:
    """Whether a process of this machine has ended; of others nobody here can tell."""
    host, _, process = owner.rpartition(" ")
    if host != socket.gethostname() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


# --- Rounds ---------------------------------------------------------------------------------------


def whole(trials: int) -> int:
    """So many trials, or a few more to make whole rounds."""
    return ROUND * math.ceil(trials / ROUND)


def search_all(
    searches: Sequence[Search],
    tasks: Mapping[str, Task],
    executor: Executor,
    *,
    trials: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Go on with every search until it has so many finished trials, all of them side by side.

    Args:
        tasks: what every trial of a target plays, with the default's configuration.
        trials: of each; rounded up to whole rounds.
        progress: called with the number of trials that have just been played.
    """
    wanted = whole(trials)
    lacking = [search for search in searches if search.finished_count < wanted]
    if not lacking:
        return
    defaults: dict[str, Calls] = {}
    for position, calls in executor.map(play, [tasks[search.target] for search in lacking]):
        defaults[lacking[position].target] = calls
    while lacking:
        try:
            _round(lacking, tasks, defaults, executor, wanted, progress)
        except BaseException:  # Ctrl-C above all
            for search in lacking:
                search.give_up()
            raise
        lacking = [search for search in lacking if search.finished_count < wanted]


def _round(
    searches: Sequence[Search],
    tasks: Mapping[str, Task],
    defaults: Mapping[str, Calls],
    executor: Executor,
    wanted: int,
    progress: Callable[[int], None],
) -> None:
    asked = [
        (search, one)
        for search in searches
        for one in search.ask(min(ROUND, wanted - search.finished_count))
    ]
    items = [
        dataclasses.replace(tasks[search.target], overrides=one.overrides) for search, one in asked
    ]
    outcomes: dict[int, Outcome] = {}
    for position, calls in executor.map(play, items):
        outcomes[position] = outcome(calls, defaults[asked[position][0].target])
        progress(1)
    for position, (search, one) in enumerate(asked):
        search.tell(one, outcomes[position])


def recorded_inputs(task: Task, digest: str, simulator: str, delay_slack: float) -> dict[str, Any]:
    """What a study's trials depend on, as a JSON object for `Search`."""
    return {
        "delay_slack": delay_slack,
        "duration_s": task.duration_s,
        "knobs": [
            {"name": k.name, "low": k.low, "high": k.high, "log": k.log, "cell": k.cell}
            for k in KNOBS
        ],
        "networks": digest,
        "seeds": list(task.seeds),
        "simulator": simulator,
    }

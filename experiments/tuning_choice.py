"""Which of a search's configurations is delivered, and what it is worth on networks never seen.

The search has seen its networks some hundred times, so the best of its trials are also the
luckiest. The choice is made on validation networks, and what it is worth is told by test networks,
those of its own type and those of every other: a configuration is delivered by what a model takes
the network for, and a model errs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bwe_env.labels import NETWORK_CLASSES
from experiments.executor import Executor
from experiments.stats import Interval, paired_difference, per_network
from experiments.tuning_networks import GLOBAL, NetworkList
from experiments.tuning_study import Finished
from experiments.tuning_trials import MEASURED, Calls, Task, merged, play

#: What a configuration is chosen by.
SCORE = "call_score"
#: What must not be significantly worse: columns of which less is better.
GUARDS = ("freeze_ratio", "one_way_delay_ms_p95")
#: The name of the untuned configuration, and of the one that is each type's own.
DEFAULT = "default"
PER_TYPE = "per-type"
#: The latter against the one configuration for everybody, instead of against the default.
PER_TYPE_OVER_GLOBAL = "per-type minus global"
#: All classes that have a configuration of their own.
ALL = "all"

#: The rule in words, for people and for `configuration.json`.
RULE = (
    "Of the feasible trials on the Pareto front of the search (mean video_mos up, mean "
    "freeze_ratio down, delay not above the default's), those with the highest mean call_score on "
    "the training networks are played on validation networks. Chosen is the one with the highest "
    "mean paired difference of call_score against the default, among those whose differences of "
    "freeze_ratio and of one_way_delay_ms_p95 are not significantly worse (their 95 % intervals "
    "over networks do not lie above 0). Where none of these has a higher call_score than the "
    "default, the default stays."
)

Overrides = Mapping[str, Any]
Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A configuration against the default on the same calls, by column."""

    columns: Mapping[str, Interval]

    @property
    def is_allowed(self) -> bool:
        """None of the `GUARDS` is significantly worse."""
        return all(self.columns[name].low <= 0.0 for name in GUARDS)

    @property
    def score(self) -> float:
        """Mean gain of `SCORE`."""
        return self.columns[SCORE].mean


def difference(
    calls: Calls, baseline: Calls, columns: Sequence[str] = (SCORE, *GUARDS)
) -> Difference:
    """Paired over networks, resampled within their types (see `experiments.stats`)."""
    intervals = {}
    for name in columns:
        sides = [per_network(c["network"], c["network_type"], c[name]) for c in (calls, baseline)]
        intervals[name] = paired_difference(*sides)
    return Difference(columns=intervals)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is delivered for one target."""

    target: str
    overrides: Overrides
    """of the default settings; none where the default stays"""
    trial: int
    """position of the trial among the finished ones; 0 is the default"""
    candidates: int
    """trials that were played on validation networks"""
    allowed: int
    """of these, how many no guard kept out"""
    validation: Difference
    """against the default on validation networks"""


def candidates(finished: Sequence[Finished], most: int) -> list[Finished]:
    """Trials that may be chosen: see `RULE`. The default is none of them."""
    front = [trial for trial in finished if trial.is_efficient and trial.overrides]
    front.sort(key=lambda trial: (-trial.outcome.mean(SCORE), trial.position))
    return front[:most]


def choose(
    finished: Mapping[str, Sequence[Finished]],
    tasks: Mapping[str, Task],
    executor: Executor,
    *,
    most: int,
    progress: Progress = lambda _: None,
) -> dict[str, Choice]:
    """Choose for every target.

    Args:
        finished: trials of each target.
        tasks: what each target is validated on, with the default's configuration.
        most: candidates of each.
        progress: called with the number of configurations that have just been played.
    """
    entries = [
        (target, trial)
        for target, trials in finished.items()
        for trial in (trials[0], *candidates(trials, most))
    ]
    items = [dataclasses.replace(tasks[target], overrides=t.overrides) for target, t in entries]
    played = play_all(items, executor, progress)
    by_target: dict[str, list[tuple[Finished, Calls]]] = {}
    for (target, trial), calls in zip(entries, played, strict=True):
        by_target.setdefault(target, []).append((trial, calls))
    return {target: _choice(target, rows) for target, rows in by_target.items()}


def _choice(target: str, rows: Sequence[tuple[Finished, Calls]]) -> Choice:
    """Apply `RULE` to the default (the first row) and the candidates (the others)."""
    default, baseline = rows[0]
    judged = [(trial, difference(calls, baseline)) for trial, calls in rows[1:]]
    allowed = [(trial, its) for trial, its in judged if its.is_allowed]
    better = [(trial, its) for trial, its in allowed if its.score > 0.0]
    chosen, its = max(
        better, key=lambda row: row[1].score, default=(default, difference(baseline, baseline))
    )
    return Choice(
        target=target,
        overrides=chosen.overrides,
        trial=chosen.position,
        candidates=len(judged),
        allowed=len(allowed),
        validation=its,
    )


def play_all(items: Sequence[Task], executor: Executor, progress: Progress) -> list[Calls]:
    """Calls of every task, in order; equal tasks are played once."""
    places: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(repr(item), []).append(place)
    distinct = [items[same[0]] for same in places.values()]
    groups = list(places.values())
    played: list[Calls] = [{}] * len(items)
    for position, calls in executor.map(play, distinct):
        for place in groups[position]:
            played[place] = calls
        progress(len(groups[position]))
    return played


# --- Held-out networks ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TestCalls:
    """Calls of every configuration on the test networks of every class."""

    __test__ = False  # nothing for pytest

    calls: Mapping[tuple[str, str], Calls]
    """by (what was tuned for, class it runs on); `DEFAULT` is among the former"""

    @property
    def targets(self) -> tuple[str, ...]:
        """What was tuned for, without the default."""
        return tuple(dict.fromkeys(target for target, _ in self.calls if target != DEFAULT))

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that they run on."""
        return tuple(dict.fromkeys(name for _, name in self.calls))

    @property
    def own_types(self) -> tuple[str, ...]:
        """Classes that have a configuration of their own."""
        return tuple(name for name in self.classes if name in self.targets)

    def everywhere(self, target: str, classes: Sequence[str]) -> Calls:
        """All calls of one configuration; of `PER_TYPE` each class under its own."""
        chosen = {name: name if target == PER_TYPE else target for name in classes}
        return merged([self.calls[target, name] for name, target in chosen.items()])


def run_tests(
    choices: Mapping[str, Choice],
    task: Callable[[NetworkList], Task],
    executor: Executor,
    *,
    count: int,
    progress: Progress = lambda _: None,
) -> TestCalls:
    """Play what was chosen for each target, and the default, on the test networks of every class.

    Args:
        task: calls on a list of networks, with the default's configuration.
        count: networks of each class.
        progress: called with the number of table cells that have just been played.
    """
    cells: dict[tuple[str, str], Task] = {}
    for target, overrides in (
        (DEFAULT, {}),
        *((target, choice.overrides) for target, choice in choices.items()),
    ):
        for name in NETWORK_CLASSES:
            its = task(NetworkList(split="test", target=name, count=count))
            cells[target, name] = dataclasses.replace(its, overrides=overrides)
    played = play_all(list(cells.values()), executor, progress)
    return TestCalls(calls=dict(zip(cells, played, strict=True)))


def compared(
    tests: TestCalls, columns: Sequence[str] = MEASURED
) -> dict[tuple[str, str], Difference]:
    """Every configuration against the default, on every class.

    Returns:
        By (configuration, class); for `GLOBAL` and `PER_TYPE` also on `ALL`, and the latter over
        the former there.
    """
    rows = {
        (target, name): difference(tests.calls[target, name], tests.calls[DEFAULT, name], columns)
        for target in tests.targets
        for name in tests.classes
    }
    if own := tests.own_types:
        default = tests.everywhere(DEFAULT, own)
        for target in (GLOBAL, PER_TYPE):
            if target == PER_TYPE or target in tests.targets:
                rows[target, ALL] = difference(tests.everywhere(target, own), default, columns)
        if GLOBAL in tests.targets:
            sides = (tests.everywhere(target, own) for target in (PER_TYPE, GLOBAL))
            rows[PER_TYPE_OVER_GLOBAL, ALL] = difference(*sides, columns)
    return rows

"""What a tuning leaves behind: trials, a picture of the fronts, configurations, and what they gain.

::

    runs/tune/
        study.log            Optuna's journal of all studies
        trials.csv           one row per finished trial
        pareto.png           the front of every study
        configuration.json   what was chosen, from what, by which rule; same inputs, same bytes
        plan.json            the same as a plan that a sender follows (`bwe_env.targeting`)
        test_calls.csv       every call on test networks, under every configuration
        results.csv, .txt    every configuration on the test networks of every class
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bwe_env.errors import ArtifactError
from bwe_env.labels import NETWORK_CLASSES
from bwe_env.metrics import metric
from bwe_env.targeting import TargetingPlan, TypeResponse
from experiments.run_directory import write_json
from experiments.stats import Interval
from experiments.tables import make_table, write_csv
from experiments.tuning_choice import (
    ALL,
    DEFAULT,
    GUARDS,
    PER_TYPE,
    PER_TYPE_OVER_GLOBAL,
    RULE,
    SCORE,
    Choice,
    Difference,
    TestCalls,
)
from experiments.tuning_networks import GLOBAL
from experiments.tuning_space import KNOBS
from experiments.tuning_study import Finished
from experiments.tuning_trials import MEASURED, OBJECTIVES, Calls, merged

#: Digits of numbers in `configuration.json`: the order of a sum must not show. Ours.
JSON_DIGITS = 6
#: Version of `configuration.json`.
FORMAT = 1

Finisheds = Mapping[str, Sequence[Finished]]


def write_trials(path: Path, finished: Finisheds) -> None:
    """One row per trial: its place, its knobs, and its means over classes."""
    rows = [(target, trial) for target, trials in finished.items() for trial in trials]
    columns: dict[str, list[Any]] = {
        "target": [target for target, _ in rows],
        "trial": [trial.position for _, trial in rows],
        "is_feasible": [int(trial.is_feasible) for _, trial in rows],
        "is_efficient": [int(trial.is_efficient) for _, trial in rows],
        "delay_ratio": [trial.outcome.delay_ratio for _, trial in rows],
        **{name: [trial.outcome.mean(name) for _, trial in rows] for name in MEASURED},
        **{knob.name: [trial.values[knob.name] for _, trial in rows] for knob in KNOBS},
        "overrides": [json.dumps(trial.overrides, sort_keys=True) for _, trial in rows],
    }
    write_csv(path, columns)


def write_configuration(
    path: Path, choices: Mapping[str, Choice], finished: Finisheds, inputs: Mapping[str, Any]
) -> None:
    """Write down what was chosen and everything that it follows from.

    Args:
        inputs: options, seeds and networks, as a JSON object.
    """
    write_json(
        path,
        {
            "format": FORMAT,
            "inputs": inputs,
            "objectives": dict(OBJECTIVES),
            "overrides": {target: dict(choice.overrides) for target, choice in choices.items()},
            "rule": RULE,
            "space": [
                {"name": k.name, "low": k.low, "high": k.high, "log": k.log, "why": k.why}
                for k in KNOBS
            ],
            "targets": {
                target: {
                    "allowed": choice.allowed,
                    "candidates": choice.candidates,
                    "trial": choice.trial,
                    "trials": len(finished[target]),
                    "validation": {
                        name: _plain(interval)
                        for name, interval in choice.validation.columns.items()
                    },
                }
                for target, choice in choices.items()
            },
        },
    )


def write_plan(path: Path, choices: Mapping[str, Choice]) -> None:
    """What a sender sets once it knows the type of its network; it begins with the default."""
    settings = {
        name: dict(choices[name].overrides)
        for name in NETWORK_CLASSES
        if name in choices and choices[name].overrides
    }
    TargetingPlan(network_type=TypeResponse(settings=settings)).write(path)


def _plain(interval: Interval) -> dict[str, float | int]:
    ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {
        **{name: round(value, JSON_DIGITS) for name, value in ends.items()},
        "networks": interval.networks,
    }


def write_tests(path: Path, tests: TestCalls) -> None:
    """One row per call on test networks."""
    parts = [
        {"tuned_for": np.full(len(calls["network"]), target), **calls}
        for (target, _), calls in tests.calls.items()
    ]
    write_csv(path, merged(parts))


def read_tests(path: Path) -> TestCalls:
    """What `write_tests` wrote.

    Raises:
        ArtifactError: the file cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        cells: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in rows:
            cells.setdefault((row["tuned_for"], row["network_class"]), []).append(row)
        return TestCalls(calls={cell: _columns(rows) for cell, rows in cells.items()})
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read as calls on test networks ({error}). Give a folder that "
            "python -m experiments.tune has finished."
        ) from error


def _columns(rows: Sequence[Mapping[str, str]]) -> Calls:
    words = {
        name: np.array([row[name] for row in rows])
        for name in ("network", "network_type", "network_class")
    }
    numbers = {name: np.array([_number(row[name]) for row in rows]) for name in MEASURED}
    return {**words, "seed": np.array([int(row["seed"]) for row in rows]), **numbers}


#: How a table of calls spells flags.
_FLAGS = {"True": 1.0, "False": 0.0}


def _number(text: str) -> float:
    return _FLAGS[text] if text in _FLAGS else float(text)


def write_results(path: Path, rows: Mapping[tuple[str, str], Difference]) -> None:
    """Every difference against the default, one row per configuration, class and column."""
    flat = [
        (target, name, column, interval)
        for (target, name), its in rows.items()
        for column, interval in its.columns.items()
    ]
    write_csv(
        path,
        {
            "tuned_for": [target for target, _, _, _ in flat],
            "run_on": [name for _, name, _, _ in flat],
            "metric": [column for _, _, column, _ in flat],
            "unit": [metric(column).unit for _, _, column, _ in flat],
            "difference": [interval.mean for *_, interval in flat],
            "low": [interval.low for *_, interval in flat],
            "high": [interval.high for *_, interval in flat],
            "networks": [interval.networks for *_, interval in flat],
        },
    )


# --- For people -----------------------------------------------------------------------------------


def result_tables(
    choices: Mapping[str, Choice], rows: Mapping[tuple[str, str], Difference]
) -> list[Any]:
    """What results.txt and the terminal show: three tables, and the rule that made them."""
    return [_choice_table(choices), _matrix_table(rows), _own_table(rows), RULE]


def _choice_table(choices: Mapping[str, Choice]) -> Any:
    return make_table(
        "Chosen on validation networks (difference to the default, 95 % interval)",
        ("tuned for", "trial", "allowed", SCORE, "freeze %", "delay p95 ms", "settings changed"),
        [
            (
                choice.target,
                str(choice.trial) if choice.overrides else DEFAULT,
                f"{choice.allowed} of {choice.candidates}",
                *_cells(choice.validation),
                str(len(choice.overrides)),
            )
            for choice in choices.values()
        ],
    )


def _matrix_table(rows: Mapping[tuple[str, str], Difference]) -> Any:
    targets = list(dict.fromkeys(target for target, name in rows if name != ALL))
    cells = [
        [target, *(_starred(rows[target, name].columns[SCORE]) for name in NETWORK_CLASSES)]
        for target in targets
    ]
    return make_table(
        f"{SCORE} on test networks: tuned for (row), run on (column), difference to the default",
        ("tuned for", *NETWORK_CLASSES),
        cells,
        caption="* the 95 % interval over networks excludes 0",
    )


def _own_table(rows: Mapping[tuple[str, str], Difference]) -> Any:
    shown = [
        (target, name)
        for target, name in rows
        if target == name or name == ALL or target in (GLOBAL, PER_TYPE, PER_TYPE_OVER_GLOBAL)
    ]
    return make_table(
        "Test networks: each configuration on what it was tuned for (difference, 95 % interval)",
        ("tuned for", "run on", SCORE, "freeze %", "delay p95 ms"),
        [(target, name, *_cells(rows[target, name])) for target, name in shown],
        caption=f"differences to the default, but for {PER_TYPE_OVER_GLOBAL!r}",
    )


def _starred(interval: Interval) -> str:
    return interval.text(2) + ("*" if interval.excludes_zero else " ")


def _cells(its: Difference) -> tuple[str, str, str]:
    freeze, delay = (its.columns[name] for name in GUARDS)
    percent = Interval(
        mean=100.0 * freeze.mean,
        low=100.0 * freeze.low,
        high=100.0 * freeze.high,
        networks=freeze.networks,
    )
    return its.columns[SCORE].text(2), percent.text(2), delay.text(0)

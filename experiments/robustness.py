"""How controllers bear networks beyond those they were made for, beside GCC on the same calls.

    python -m experiments.robustness --estimators gcc ppo=runs/ppo-001 guarded=guarded:runs/ppo-001
        --out robustness

Synthetic test networks are made worse along four axes: longer round trips, another capacity, added
random loss, outages of the feedback. At every point each controller's calls are compared with GCC's
on the same networks with the same seeds. The table says where a controller falls below GCC: where
the whole interval of the paired difference lies on the wrong side of 0.

At four times the capacity both meet the highest rate of the call (--max-rate-bps, the same for all
controllers, which a policy was trained for): what more there is, neither can use.

Interrupted sweeps go on where they stopped when the same command is given again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError, unknown_name
from bwe_env.trace.catalog import networks as synthetic_networks
from experiments.cli import run_command
from experiments.compare_blocks import call_inputs
from experiments.contenders import find_contender
from experiments.executor import make_executor
from experiments.robustness_networks import AXES, Point, points
from experiments.run_directory import fingerprint, write_json
from experiments.tables import show, write_csv

if TYPE_CHECKING:
    from experiments.evaluation import Calls
    from experiments.executor import Executor

#: What all others are compared with.
REFERENCE = "gcc"


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """Sweep networks beyond the training range and compare controllers with GCC."""

    estimators: tuple[str, ...]
    """NAME, or LABEL=NAME: a baseline, a run directory, guarded:RUN. GCC is always there"""
    out: Path
    """folder for calls, tables and figures; one that was begun is gone on with"""
    axes: tuple[str, ...] = tuple(AXES)
    """rtt, capacity, loss, outage"""
    networks: int = 120
    """synthetic test networks, as many of each type"""
    seeds: int = 1
    """calls per network"""
    duration_s: float = 60.0
    """length of a call"""
    max_rate_bps: int = CallConfig.max_rate_bps
    """highest target rate"""
    workers: int = 0
    """processes; 0 for one per processor. Results do not depend on it"""

    def __post_init__(self) -> None:
        for name in ("networks", "seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for axis in self.axes:
            if axis not in AXES:
                raise unknown_name("axis", axis, tuple(AXES))
        if not self.axes:
            raise ConfigError(f"axes is empty; give some of {', '.join(AXES)}.")

    @property
    def call(self) -> CallConfig:
        """What all controllers play."""
        return CallConfig(duration_s=self.duration_s, max_rate_bps=self.max_rate_bps)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One controller on all networks of one point."""

    label: str
    estimator: str
    point: Point
    networks: int
    seeds: int
    call: CallConfig

    def path(self, folder: Path) -> Path:
        """Of its calls."""
        return folder / "calls" / f"{self.point.name}-{self.label}.csv"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.robustness``."""
    return run_command(robustness, RobustnessConfig, module="experiments.robustness", argv=argv)


def robustness(config: RobustnessConfig, executor: Executor | None = None) -> int:
    """Run the command; returns its exit code."""
    from experiments.robustness_report import figures, result_columns, tables

    started_s = time.monotonic()
    named = labels(config.estimators)
    # All of them first: what cannot be played is said before anything is.
    for name in named.values():
        find_contender(name, config.call)
    open_folder(config, named)
    play_all(
        make_tasks(config, named), config.out, executor or make_executor(workers=config.workers)
    )
    calls = {
        (point, label): read_calls(task.path(config.out))
        for point in points(config.axes)
        for label, task in _tasks_at(config, named, point).items()
    }
    write_csv(config.out / "robustness.csv", result_columns(calls))
    show(*tables(calls, config), file=config.out / "robustness.txt")
    for picture in figures(calls):
        (config.out / f"{picture.name}.png").write_bytes(picture.png)
    print(f"sweep in {time.monotonic() - started_s:.0f} s; everything is in {config.out}")
    return 0


def labels(estimators: Sequence[str]) -> dict[str, str]:
    """Name of each controller by its label, GCC first.

    Raises:
        ConfigError: a label twice, or one that cannot be part of a file's name.
    """
    named = {REFERENCE: REFERENCE}
    for text in estimators:
        label, _, name = text.rpartition("=")
        label = label or name
        if text == REFERENCE:
            continue
        if label in named:
            raise ConfigError(f"the label {label!r} is there twice; give LABEL=NAME.")
        if not all(character.isalnum() or character in "-_.:" for character in label):
            raise ConfigError(
                f"{label!r} becomes part of a file's name; give LABEL=NAME with a label of "
                "letters, digits, '-', '_', '.' and ':'."
            )
        named[label] = name
    return named


def _tasks_at(config: RobustnessConfig, named: dict[str, str], point: Point) -> dict[str, Task]:
    return {
        label: Task(
            label=label,
            estimator=name,
            point=point,
            networks=config.networks,
            seeds=config.seeds,
            call=config.call,
        )
        for label, name in named.items()
    }


def make_tasks(config: RobustnessConfig, named: dict[str, str]) -> list[Task]:
    """Everything to play; the unchanged networks once, though they are on every axis."""
    tasks = {
        (point.name, label): task
        for point in points(config.axes)
        for label, task in _tasks_at(config, named, point).items()
    }
    return list(tasks.values())


def open_folder(config: RobustnessConfig, named: dict[str, str]) -> None:
    """Make the folder, or check that the same sweep was begun there.

    Raises:
        ConfigError: another one was.
    """
    from experiments.evaluation import Setting

    path = config.out / "config.json"
    content = {
        "duration_s": config.duration_s,
        "estimators": named,
        "max_rate_bps": config.max_rate_bps,
        "networks": config.networks,
        "seeds": config.seeds,
        "inputs": {
            label: fingerprint(call_inputs(name, Setting(call=config.call)))
            for label, name in named.items()
        },
    }
    if path.is_file():
        known = json.loads(path.read_text())
        changed = [name for name in content if known.get(name) != content[name]]
        if changed:
            raise ConfigError(
                f"{config.out} holds a sweep with other {', '.join(changed)}; give the same "
                "options, or another --out."
            )
        return
    if config.out.exists() and any(config.out.iterdir()):
        raise ConfigError(f"{config.out} is not empty and holds no sweep; give another --out.")
    (config.out / "calls").mkdir(parents=True)
    write_json(path, content)


def play_all(tasks: Sequence[Task], folder: Path, executor: Executor) -> None:
    """Play what has not been played yet, several at a time; each is written as it is done."""
    waiting = [task for task in tasks if not task.path(folder).is_file()]
    try:
        with _progress(len(tasks), len(tasks) - len(waiting)) as bar:
            for position, calls in executor.map(play, waiting):
                write_csv(waiting[position].path(folder), calls)
                bar.update(1)
    finally:
        executor.close()


def _progress(total: int, done: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="point", disable=None, leave=False)


#: Columns of the calls that are kept.
KEPT = ("network", "network_type", "seed", "call_score", "freeze_ratio", "one_way_delay_ms_p95")


def play(task: Task) -> dict[str, Any]:
    """The calls of a task, and for what share of the time a guard let GCC drive (NaN: no guard)."""
    from experiments import evaluation

    contender = find_contender(task.estimator, task.call)
    networks = [
        task.point.apply(network, task.call.duration_s)
        for network in synthetic_networks("test", count=task.networks)
    ]
    setting = evaluation.Setting(call=task.call, seeds=tuple(range(task.seeds)))
    calls = evaluation.run(contender, networks, setting)
    share = getattr(contender.controller, "fallback_share", np.nan)
    rows = len(calls["network"])
    return {name: calls[name] for name in KEPT} | {"fallback_share": np.full(rows, share)}


def read_calls(path: Path) -> Calls:
    """Columns that `play` gave.

    Raises:
        ArtifactError: the file is not what was written.
    """
    import csv

    def columns(rows: Iterator[list[str]]) -> Calls:
        header = next(rows)
        values = zip(*rows, strict=True)
        read = dict(zip(header, map(np.array, values), strict=True))
        return {
            name: read[name] if name.startswith("network") else read[name].astype(np.float64)
            for name in (*KEPT, "fallback_share")
        }

    try:
        with path.open(newline="") as file:
            return columns(csv.reader(file))
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}). Delete it; the same command plays it again."
        ) from error


if __name__ == "__main__":
    sys.exit(main())

"""Runs of `experiments.fit` with their models, and what all parts of a study of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.network_model import NetworkModel, load_network_model
from agents.network_tasks import TASKS
from experiments.dataset import DatasetCall
from experiments.fit import FitConfig, model_folders
from experiments.model_report import ModelReport
from experiments.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class FittedRun:
    """The models of one run, one for each seed."""

    name: str
    """of its folder, without the number"""
    path: Path
    tasks: tuple[str, ...]
    inputs: str
    folders: tuple[Path, ...]
    models: tuple[NetworkModel, ...]

    @property
    def is_multi(self) -> bool:
        """Whether its models answer several questions."""
        return len(self.tasks) > 1


def load_run(path: Path) -> FittedRun:
    """A run of `experiments.fit` with its models.

    Raises:
        ArtifactError: no such run, or it has no models.
    """
    config = RunDirectory.open(path).load_config(FitConfig)
    folders = model_folders(path)
    return FittedRun(
        name=config.run_name,
        path=path,
        tasks=config.tasks,
        inputs=config.inputs,
        folders=tuple(folders),
        models=tuple(load_network_model(folder) for folder in folders),
    )


@dataclass(kw_only=True)
class Study:
    """What all parts of a report need."""

    runs: Sequence[FittedRun]
    calls: Mapping[str, Sequence[DatasetCall]]
    """by split"""
    counts: Mapping[str, int]
    """networks of each split"""
    report: ModelReport
    threads: int
    rules: dict[str, Any] = field(default_factory=dict)
    thresholds: list[float] = field(default_factory=list)
    """of congestion alarms, for the models of each seed; empty where no calls were played"""

    def run(self, task: str, inputs: str = "both") -> FittedRun | None:
        """The single-task run of a task, if there is one."""
        for run in self.runs:
            if run.tasks == (task,) and run.inputs == inputs:
                return run
        return None

    @property
    def multi(self) -> FittedRun | None:
        """The multi-task run."""
        return next((run for run in self.runs if run.is_multi and run.inputs == "both"), None)

    @property
    def tasks(self) -> list[str]:
        """Tasks with a single-task run on both inputs."""
        return [task for task in TASKS if self.run(task) is not None]

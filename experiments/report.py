"""Report what was trained: ``python -m experiments.report models RUN…``.

``models`` takes runs of ``python -m experiments.fit`` and scores their models on the test networks
of the dataset they were trained from, beside hand-tuned rules: a page with all figures
(``models.html``), the figures, and ``models.json``. With a single-task run and a multi-task one,
or runs with other ``--inputs``, these are compared, too. Logs of real calls (``--logs``) are scored
without having been trained on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from bwe_env.errors import ConfigError
from experiments.cli import run_command

# Read when torch loads OpenMP: its threads would spin while they wait for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Report what was trained."""

    what: tyro.conf.Positional[Literal["models"]]
    """of what: network models"""
    runs: tyro.conf.Positional[tuple[Path, ...]]
    """runs of experiments.fit"""
    dataset: Path | None = None
    """the dataset that they were trained from; by default that of experiments.collect's defaults"""
    logs: tuple[Path, ...] = ()
    """logs of real calls, or folders of them, to score random loss on"""
    out: Path = Path("runs/models-report")
    """folder of the page and its figures; files of their names are replaced"""
    online: bool = True
    """score the models in calls, too; without it the report takes half the time"""
    threads: int = 2
    """of the simulator and of torch"""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("give at least one run of python -m experiments.fit.")
        if self.threads < 1:
            raise ConfigError("--threads must be at least 1.")


def report(config: ReportConfig) -> int:
    """Run the command; returns its exit code."""
    import torch

    from experiments.model_page import print_tables, write_page
    from experiments.model_study import study_models

    torch.set_num_threads(config.threads)
    result = study_models(
        config.runs,
        dataset=config.dataset,
        logs=config.logs,
        online=config.online,
        threads=config.threads,
        command=f"python -m experiments.report models {' '.join(map(str, config.runs))}",
    )
    print_tables(result)
    page = write_page(result, config.out)
    print(f"page: {page}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.report``."""
    return run_command(report, ReportConfig, module="experiments.report", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

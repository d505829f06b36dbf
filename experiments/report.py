"""Report what was trained: ``python -m experiments.report models RUN…``, ``… results DIR``.

``models`` takes runs of ``python -m experiments.fit`` and scores their models on the test networks
of the dataset they were trained from, beside hand-tuned rules: a page with all figures
(``models.html``), the figures, and ``models.json``. With a single-task run and a multi-task one,
or runs with other ``--inputs``, these are compared, too. Logs of real calls (``--logs``) are scored
without having been trained on.

``results`` takes a folder of ``python -m experiments.compare`` and makes one HTML page of it
(``results.html``), which opens anywhere: tables, figures, calls played again, and, where they are
given, training curves (``--runs``), ablations and robustness.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bwe_env.errors import ConfigError
from experiments.cli import run_command

# Read when torch loads OpenMP: its threads would spin while they wait for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """Report network models."""

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


@dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """Report a comparison of estimators on one page."""

    comparison: tyro.conf.Positional[Path]
    """folder of python -m experiments.compare"""
    traces: Path | None = None
    """directory of the measured traces that it was made on; synthetic networks without it"""
    runs: tuple[Path, ...] = ()
    """run directories of experiments.train, for training curves"""
    ablations: Path | None = None
    """folder of CSV files with the columns variant, metric, mean, low, high"""
    robustness: Path | None = None
    """folder of CSV files of a robustness study"""
    timelines: bool = True
    """play some of the calls again and draw them"""
    out: Path | None = None
    """HTML file; by default results.html in the comparison's folder"""
    threads: int = 2
    """of the simulator; the page does not depend on it"""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError("--threads must be at least 1.")
        if self.out is not None and self.out.suffix != ".html":
            raise ConfigError(f"--out {self.out} must be the name of an .html file.")


def report_models(config: ModelsConfig) -> int:
    """Run ``models``; returns its exit code."""
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


def report_results(config: ResultsConfig) -> int:
    """Run ``results``; returns its exit code."""
    from experiments.results_page import PAGE_FILE, Sources, write_page

    sources = Sources(
        comparison=config.comparison,
        traces=config.traces,
        runs=config.runs,
        ablations=config.ablations,
        robustness=config.robustness,
        timelines=config.timelines,
        num_threads=config.threads,
    )
    page = write_page(sources, config.out or config.comparison / PAGE_FILE)
    print(f"page: {page} ({page.stat().st_size / 1e6:.2f} MB)")
    return 0


Command = (
    Annotated[ModelsConfig, tyro.conf.subcommand("models")]
    | Annotated[ResultsConfig, tyro.conf.subcommand("results")]
)


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Report what was trained."""

    command: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Command]]


def report(config: ReportConfig) -> int:
    """Run the command; returns its exit code."""
    if isinstance(config.command, ModelsConfig):
        return report_models(config.command)
    return report_results(config.command)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.report``."""
    return run_command(report, ReportConfig, module="experiments.report", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

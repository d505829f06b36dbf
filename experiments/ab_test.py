"""A paired A/B test of two senders on the same calls, with a placebo arm, guards and intervals.

    python -m experiments.ab_test --control gcc --treatment gcc-classic-loss --networks test \
        --calls 200 --out runs/ab/classic-loss
    python -m experiments.ab_test --analyse runs/ab/classic-loss --published published.csv

Calls are played in blocks and written as they finish; the same command goes on where it was
interrupted. `--analyse` recomputes the tables of an experiment from its calls. In the folder:
results.txt (the tables), results.csv, guards.csv, results.png (the forest plot) and calls.csv (one
row per call and arm).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agents.artifact import replace_file
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.network import Network
from bwe_env.trace import SPLITS
from experiments.ab_arms import Arm, make_arm
from experiments.ab_blocks import (
    TRACE_PLAYS,
    Experiment,
    open_directory,
    play_block,
    read_calls,
    read_manifest,
    waiting_blocks,
    write_block,
)
from experiments.ab_published import Published, directions, read_published
from experiments.ab_report import Report, report
from experiments.ab_statistics import AB_RESAMPLES
from experiments.ab_tables import Results, guard_columns, result_columns, tables
from experiments.cli import run_command
from experiments.evaluation import Calls
from experiments.executor import Executor, ExecutorName, make_executor
from experiments.networks import named_networks
from experiments.tables import show, write_csv

if TYPE_CHECKING:
    from bwe_env.metrics import Better


@dataclass(frozen=True, kw_only=True)
class AbTestConfig:
    """Play an A/B test, or analyse one that was played."""

    control: str | None = None
    """what the treatment is compared with: a baseline (gcc, constant:RATE_BPS, …)"""
    treatment: str | None = None
    """what is tested: a baseline"""
    placebo: str | None = None
    """a baseline that must fail to win"""
    networks: str = "test"
    """split of networks: train, validation or test; of --traces also all"""
    traces: str | None = None
    """directory of measured traces (manifest.json); synthetic networks without it"""
    calls: int | None = None
    """calls per arm on synthetic networks, --seeds on each; by default the whole split"""
    seeds: int = 1
    """calls per network and arm; further networks say more than further seeds"""
    duration_s: float = 180.0
    """length of a call, at least 180 s; a shorter trace repeats"""
    max_rate_bps: int = 6_000_000
    """highest target rate"""
    out: str | None = None
    """folder of the experiment; an interrupted one goes on"""
    analyse: str | None = None
    """folder of a finished experiment: recompute its tables, play nothing"""
    published: str | None = None
    """CSV of published changes to show beside (metric,change_pct,low_pct,high_pct)"""
    declare: tuple[str, ...] = ()
    """directions the treatment is declared to move metrics in, METRIC=higher or =lower"""
    resamples: int = AB_RESAMPLES
    """of the bootstrap"""
    executor: ExecutorName = "local"
    """where calls are played: processes of this machine, or Ray"""
    workers: int = 0
    """processes that play, 0 for one per processor; results do not depend on it"""


def check(config: AbTestConfig) -> None:
    """Refuse options that contradict each other.

    Raises:
        ConfigError: they do, or one is out of range.
    """
    if config.seeds < 1 or config.workers < 0 or config.resamples < 1_000:
        raise ConfigError(
            f"seeds={config.seeds} must be at least 1, workers={config.workers} at least 0, "
            f"resamples={config.resamples} at least 1000."
        )
    played = (config.control, config.treatment, config.out)
    if config.analyse is None and None in played:
        raise ConfigError("an A/B test needs --control, --treatment and --out (or --analyse).")
    if config.analyse is not None and (any(played) or config.declare):
        raise ConfigError(
            "--analyse plays nothing, so it has no --control, --treatment or --out; and what was "
            "not declared before the calls were played cannot be with --declare."
        )
    if config.calls is not None and (
        config.traces or config.calls % config.seeds or config.calls < 1
    ):
        raise ConfigError(
            f"calls={config.calls} must be a multiple of seeds={config.seeds}, and has no place "
            "with --traces, which are taken whole."
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.ab_test``."""
    return run_command(ab_test, AbTestConfig, module="experiments.ab_test", argv=argv)


def ab_test(config: AbTestConfig) -> int:
    """Play what is missing, then analyse."""
    check(config)
    published = read_published(Path(config.published)) if config.published else {}
    if config.analyse is not None:
        directory = Path(config.analyse)
    else:
        directory = Path(str(config.out))
        experiment = Experiment(
            arms=_arms(config),
            networks=_networks(config),
            seeds=range(config.seeds),
            call=CallConfig(duration_s=config.duration_s, max_rate_bps=config.max_rate_bps),
            directions=directions(published, config.declare),
        )
        open_directory(directory, experiment)
        executor = make_executor(config.executor, workers=config.workers)
        try:
            play(experiment, directory, executor)
        finally:
            executor.close()
    write_results(directory, analyse(directory, published, resamples=config.resamples))
    return 0


def _arms(config: AbTestConfig) -> dict[str, Arm]:
    names = {"control": config.control, "treatment": config.treatment, "placebo": config.placebo}
    return {role: make_arm(name) for role, name in names.items() if name is not None}


def _networks(config: AbTestConfig) -> tuple[Network, ...]:
    count = SPLITS.get(config.networks, 1)
    if config.calls is not None:
        count = config.calls // config.seeds
    return named_networks(traces=config.traces, split=config.networks, count=count)


def play(
    experiment: Experiment, directory: Path, executor: Executor, *, quiet: bool = False
) -> int:
    """Play the blocks that are not there yet, writing each as it finishes; returns their calls.

    `open_directory` comes first.
    """
    from tqdm import tqdm

    blocks = waiting_blocks(directory, experiment)
    # A placebo says again what the treatment heard on the same calls.
    rounds = [[b for b in blocks if (b.role == "placebo") == last] for last in (False, True)]
    total = sum(block.num_calls for block in experiment.blocks())
    waiting = sum(block.num_calls for block in blocks)
    started_s = time.monotonic()
    with tqdm(
        total=total, initial=total - waiting, unit=" calls", desc="playing", disable=quiet
    ) as bar:
        for playing in rounds:
            for position, calls in executor.map(play_block, playing):
                write_block(directory, playing[position], calls)
                bar.update(playing[position].num_calls)
    if not quiet:
        print(f"played {waiting} of {total} calls in {time.monotonic() - started_s:.0f} s")
    return waiting


# --- What came of it ------------------------------------------------------------------------------


def analyse(
    directory: Path, published: Mapping[str, Published] | None = None, *, resamples: int
) -> Results:
    """All reports of a finished experiment; the declared directions are those of its manifest.

    Raises:
        ArtifactError: no experiment, or one that is not finished.
    """
    inputs = read_manifest(directory)["inputs"]
    calls = read_calls(directory)
    names = {role: arm["name"] for role, arm in inputs["arms"].items()}
    declared: Mapping[str, Better] = inputs["directions"]

    def against_control(role: str) -> Report:
        return report(
            calls["control"],
            calls[role],
            names=(names["control"], names[role]),
            directions=declared,
            resamples=resamples,
        )

    return Results(
        treatment=against_control("treatment"),
        placebo=against_control("placebo") if "placebo" in calls else None,
        published=published or {},
        duration_s=float(inputs["call"]["duration_s"]),
        repeating_calls=int((calls["control"][TRACE_PLAYS] > 1).sum()),
    )


def write_results(directory: Path, results: Results) -> None:
    """Print the tables; write them, their numbers, the forest plot and all calls."""
    from experiments.ab_figures import forest_picture

    show(*tables(results), file=directory / "results.txt")
    write_csv(directory / "results.csv", result_columns(results))
    write_csv(directory / "guards.csv", guard_columns(results))
    write_csv(directory / "calls.csv", joined_calls(read_calls(directory)))
    replace_file(directory / "results.png", forest_picture(results).png)
    print(f"results.txt, results.csv, guards.csv, calls.csv and results.png are in {directory}")


def joined_calls(arms: Mapping[str, Calls]) -> dict[str, NDArray[Any]]:
    """The calls of all arms below each other; what an arm has no column for is empty."""
    names = list(dict.fromkeys(name for calls in arms.values() for name in calls))
    lengths = {role: len(calls["network"]) for role, calls in arms.items()}
    columns = {"arm": np.concatenate([np.repeat(role, n) for role, n in lengths.items()])}
    for name in names:
        parts = [
            calls[name] if name in calls else np.repeat("", lengths[role])
            for role, calls in arms.items()
        ]
        # As objects, so that numbers beside empty cells stay numbers.
        is_whole = all(name in calls for calls in arms.values())
        columns[name] = np.concatenate(parts if is_whole else [p.astype(object) for p in parts])
    return columns


if __name__ == "__main__":
    sys.exit(main())

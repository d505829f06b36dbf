"""Compare estimators on the same calls: who is better, by how much, where, and how sure that is.

    python -m experiments.compare --estimators gcc ppo=runs/ppo-001,runs/ppo-002 oracle \
        --traces DIR --out runs/compare
    python -m experiments.compare --estimators gcc constant:500000 oracle --networks 40 --out DIR

An estimator is the name of a baseline, a run directory of experiments.train, or a folder with an
exported policy; ``LABEL=NAME`` gives it another name in tables, and ``LABEL=RUN,RUN,…`` makes one
estimator of several training runs, whose intervals cover the training seeds, too.

Calls are kept in the folder of --out as they are played: the same command goes on where it was
interrupted, and an estimator that is added is the only one to be played. What is written there, and
what the statistics are, stands in `experiments.compare_results`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError, unknown_name
from bwe_env.network import Network
from bwe_env.units import bps_to_mbps
from experiments.cli import run_command
from experiments.compare_analysis import Options, compare_calls
from experiments.compare_blocks import play
from experiments.compare_results import COMPARISON_TEXT, Comparison, Estimator, write_comparison
from experiments.compare_statistics import COMPARE_RESAMPLES
from experiments.compare_tables import call_columns, profile_columns, summary_columns, tables
from experiments.contenders import is_directory
from experiments.evaluation import Calls, Setting
from experiments.executor import make_executor
from experiments.networks import named_networks, networks_digest
from experiments.run_directory import config_to_dict
from experiments.tables import show, write_csv

#: Synthetic networks of a comparison without --traces: the whole test split.
DEFAULT_NETWORKS = 120


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Play the same calls with several estimators and compare them."""

    estimators: tuple[str, ...]
    """baselines, run directories or folders of policies; LABEL=NAME, or LABEL=RUN,RUN,… for
    several training runs of one"""
    out: str
    """folder of the results; calls that were played for it are not played again"""
    traces: str | None = None
    """directory of measured traces (manifest.json); synthetic networks without it"""
    split: str | None = None
    """train, validation or test; of --traces also all. Default: all traces, or the test split"""
    networks: int = DEFAULT_NETWORKS
    """how many synthetic networks (--traces are taken whole)"""
    seeds: int = 3
    """calls per network, with the seeds 0, 1, …"""
    duration_s: float = 60.0
    """length of a call"""
    max_rate_bps: int = 6_000_000
    """highest target rate; a call is contested where the capacity falls below it"""
    reference: str = "gcc"
    """label of the estimator that the others are compared with"""
    score_margin: float = Options.score_margin
    """a network type's call score may be lower than the reference's by so much, MOS"""
    freeze_margin_points: float = Options.freeze_margin_points
    """and its share of frozen time higher by so many percentage points"""
    resamples: int = COMPARE_RESAMPLES
    """of the bootstrap"""
    workers: int = 0
    """processes that play, 0 for one per processor; results do not depend on it"""

    def __post_init__(self) -> None:
        for name in ("networks", "seeds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.compare``."""
    return run_command(compare, CompareConfig, module="experiments.compare", argv=argv)


def compare(config: CompareConfig) -> int:
    """Play what is missing, then say what came of it."""
    started_s = time.monotonic()
    options = Options(
        reference=config.reference,
        resamples=config.resamples,
        score_margin=config.score_margin,
        freeze_margin_points=config.freeze_margin_points,
    )
    estimators = read_estimators(config.estimators)
    labels = [estimator.label for estimator in estimators]
    if config.reference not in labels:
        raise unknown_name("reference (one of --estimators)", config.reference, labels)
    call = CallConfig(duration_s=config.duration_s, max_rate_bps=config.max_rate_bps)
    setting = Setting(call=call, seeds=tuple(range(config.seeds)))
    networks = _networks(config)
    directory = _directory(config.out)
    executor = make_executor(workers=config.workers)
    try:
        played = play(estimators, networks, setting, directory=directory, executor=executor)
    finally:
        executor.close()
    found = compare_calls(
        played,
        estimators,
        title=_title(config, len(networks)),
        options=options,
        inputs=inputs(networks, setting, options),
    )
    write_results(directory, found, played)
    print(f"{time.monotonic() - started_s:.0f} s; results are in {directory}")
    return 0


def read_estimators(given: Sequence[str]) -> tuple[Estimator, ...]:
    """What ``NAME``, ``LABEL=NAME`` and ``LABEL=RUN,RUN`` mean.

    >>> read_estimators(["gcc", "ppo=runs/a,runs/b"])[1]
    Estimator(label='ppo', runs=('runs/a', 'runs/b'))

    Raises:
        ConfigError: none at all, an empty name, or two of the same label.
    """
    estimators = []
    for text in given:
        label, equals, names = text.partition("=")
        runs = tuple(names.split(",")) if equals else (text,)
        if not label or not all(runs) or len(set(runs)) < len(runs):
            raise ConfigError(
                f"estimator {text!r}: write NAME, LABEL=NAME, or LABEL=RUN,RUN with different runs."
            )
        if not equals and is_directory(text):
            label = Path(text).name
        estimators.append(Estimator(label=label, runs=runs))
    counts = Counter(estimator.label for estimator in estimators)
    repeated = [label for label, count in counts.items() if count > 1]
    if repeated or not estimators:
        what = f"{', '.join(repeated)} is there twice" if repeated else "there are none"
        raise ConfigError(f"estimators: {what}; give each a name of its own, by LABEL=NAME.")
    return tuple(estimators)


def _networks(config: CompareConfig) -> tuple[Network, ...]:
    split = config.split or ("all" if config.traces else "test")
    networks = named_networks(traces=config.traces, split=split, count=config.networks)
    if len(networks) < 2:
        raise ConfigError(
            f"{len(networks)} network(s): a comparison needs at least 2, because the network is "
            "the unit of every interval; raise --networks, or give further --traces."
        )
    return networks


def _directory(out: str) -> Path:
    directory = Path(out)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be a folder: {error.strerror}.") from error
    return directory


def _title(config: CompareConfig, networks: int) -> str:
    where = f"traces of {config.traces}" if config.traces else "synthetic networks"
    split = config.split or ("all" if config.traces else "test")
    return (
        f"{networks} {where} ({split}), {config.seeds} calls of {config.duration_s:g} s on each, "
        f"at most {bps_to_mbps(config.max_rate_bps):g} Mbps; 95 % bootstrap intervals over networks"
    )


def inputs(networks: Sequence[Network], setting: Setting, options: Options) -> dict[str, object]:
    """What a comparison's numbers depend on beside its estimators, for its record."""
    return {
        "networks": {"count": len(networks), "digest": networks_digest(networks)},
        "seeds": list(setting.seeds),
        "call": config_to_dict(setting.call),
        "options": config_to_dict(options),
    }


def write_results(
    directory: Path, comparison: Comparison, played: Mapping[str, Sequence[Calls]]
) -> None:
    """Print the tables; write them, their numbers, and all calls."""
    write_csv(directory / "calls.csv", call_columns(played, comparison))
    write_csv(directory / "summary.csv", summary_columns(comparison))
    write_csv(directory / "profiles.csv", profile_columns(comparison))
    write_comparison(directory, comparison)
    show(*tables(comparison), file=directory / COMPARISON_TEXT)


if __name__ == "__main__":
    sys.exit(main())

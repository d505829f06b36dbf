"""Play calls with one controller: one row per call as CSV, and a summary by network type.

    python -m experiments.evaluate --estimator gcc --traces DIR --out gcc.csv
    python -m experiments.evaluate --estimator runs/ppo-001 --split test
    python -m experiments.evaluate --estimator gcc --suite rfc8867
    python -m experiments.evaluate --estimator gcc --scenarios experiments/scenarios.toml

The estimator is the name of a baseline (gcc, constant:500000, oracle, …), a run directory made by
experiments.train, whose selected policy is then played, or onnx:PATH, a model of the MMSys'24
challenge. A suite is a set of published test cases; its tables say which of their criteria were
met. A scenario file (`bwe_env.scenario`) holds cases of one's own.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.rfc8867 import suite as published_suite
from bwe_env.scenario import read_scenarios
from bwe_env.units import bps_to_mbps
from experiments.cli import run_command
from experiments.contenders import find_contender, policy_folder
from experiments.networks import named_networks
from experiments.tables import make_table, refuse_existing, show, write_csv

if TYPE_CHECKING:
    from experiments.contenders import Contender
    from experiments.evaluation import Calls, Setting

#: Synthetic networks of an evaluation without --traces: the whole test split.
DEFAULT_NETWORKS = 120


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Play calls on measured or synthetic networks with one controller."""

    estimator: str
    """a baseline (gcc, constant:RATE_BPS, oracle:HEADROOM, …), a run directory, or onnx:PATH"""
    traces: str | None = None
    """directory of measured traces (manifest.json); synthetic networks without it"""
    split: str | None = None
    """train, validation or test; of --traces also all. Default: all traces, or the test split"""
    networks: int = DEFAULT_NETWORKS
    """how many synthetic networks (--traces are taken whole)"""
    suite: str | None = None
    """play published test cases instead, and judge them by their criteria: rfc8867"""
    scenarios: str | None = None
    """play the scenarios of a .toml or .json file instead"""
    out: str | None = None
    """CSV file for one row per call; of a suite, per criterion and call"""
    overwrite: bool = False
    """replace the file of --out if it exists"""
    seeds: int = 3
    """calls per network, with the seeds 0, 1, …"""
    duration_s: float = 60.0
    """length of a call"""
    max_rate_bps: int = 6_000_000
    """highest target rate; a call is contested where the capacity falls below it"""
    num_threads: int = 2
    """threads of the simulator; results do not depend on it"""

    def __post_init__(self) -> None:
        for name in ("networks", "seeds", "num_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.evaluate``."""
    return run_command(evaluate, EvaluateConfig, module="experiments.evaluate", argv=argv)


def evaluate(config: EvaluateConfig) -> int:
    """Play, write, summarise."""
    started_s = time.monotonic()
    if config.out is not None:
        refuse_existing(Path(config.out), overwrite=config.overwrite)
    if config.suite is not None:
        return evaluate_suite(config, config.suite)
    if config.scenarios is not None:
        return evaluate_scenarios(config, Path(config.scenarios))
    call = CallConfig(duration_s=config.duration_s, max_rate_bps=config.max_rate_bps)
    contender, setting = find_contender(config.estimator, call), _setting(config, call)
    split = config.split or ("all" if config.traces else "test")
    networks = named_networks(traces=config.traces, split=split, count=config.networks)

    from experiments import evaluation

    total = len(networks) * len(setting.seeds)
    with _progress(total) as bar:
        calls = evaluation.run(contender, networks, setting, progress=bar.update)
    if config.out is not None:
        write_csv(Path(config.out), calls)
    show(*summaries(calls, config, contender, split))
    seconds = time.monotonic() - started_s
    where = f"; one row per call in {config.out}" if config.out else ""
    print(f"{total} calls on {len(networks)} networks in {seconds:.1f} s{where}")
    return 0


def evaluate_suite(config: EvaluateConfig, name: str) -> int:
    """Play a suite and print what was met; the exit code does not depend on that."""
    started_s = time.monotonic()
    scenarios = published_suite(name)
    from experiments import suite

    call = CallConfig(max_rate_bps=config.max_rate_bps)
    fixed = ["scenarios", "traces", "split", "networks", "duration_s"]
    if policy_folder(config.estimator) is None:
        call = scenarios[0].call  # an agent, though, has to have the rates it was trained for
        fixed.append("max_rate_bps")
    _refuse_options(config, fixed, f"suite {name!r}")
    contender, setting = find_contender(config.estimator, call), _setting(config, call)
    with _progress(len(scenarios), unit="case") as bar:
        verdicts = suite.play(scenarios, contender, setting, progress=bar.update)
    if config.out is not None:
        write_csv(Path(config.out), suite.columns(verdicts))
    print(f"suite {name}: {contender.label}; {config.seeds} calls per case, their median decides")
    print(suite.told_media(setting.call) + "\n")
    show(*suite.report(scenarios, verdicts, contender))
    where = f"; one row per criterion and call in {config.out}" if config.out else ""
    print(f"{len(scenarios)} cases in {time.monotonic() - started_s:.1f} s{where}")
    return 0


def evaluate_scenarios(config: EvaluateConfig, path: Path) -> int:
    """Play every scenario of a file and print one row for each."""
    started_s = time.monotonic()
    fixed = ["traces", "split", "networks", "duration_s", "max_rate_bps"]
    _refuse_options(config, fixed, f"{path}")
    scenarios = read_scenarios(path)
    from experiments import evaluation

    # All of them first: what does not fit one scenario is said before another is played.
    played = [
        (s, find_contender(config.estimator, s.call), _setting(config, s.call))
        for s in scenarios.values()
    ]
    tables, rows = [], []
    with _progress(len(scenarios), unit="scenario") as bar:
        for scenario, contender, setting in played:
            calls = evaluation.run(contender, [scenario.network], setting)
            tables.append(calls)
            rows.append(evaluation.call_row(scenario.name, calls))
            bar.update(1)
    columns = {name: np.concatenate([calls[name] for calls in tables]) for name in tables[0]}
    if config.out is not None:
        write_csv(Path(config.out), columns)
    title = f"{config.estimator} on {path}; mean of {config.seeds} calls each (least to most)"
    show(make_table(title, evaluation.call_header(), rows))
    where = f"; one row per call in {config.out}" if config.out else ""
    print(f"{len(scenarios)} scenarios in {time.monotonic() - started_s:.1f} s{where}")
    return 0


def _setting(config: EvaluateConfig, call: CallConfig) -> Setting:
    from experiments.evaluation import Setting

    return Setting(call=call, seeds=tuple(range(config.seeds)), num_threads=config.num_threads)


def _refuse_options(config: EvaluateConfig, names: Sequence[str], what: str) -> None:
    """Options that would change nothing, as `what` brings networks and calls of its own."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    changed = [option for option in names if getattr(config, option) != defaults[option]]
    if changed:
        options = ", ".join(f"--{option.replace('_', '-')}" for option in changed)
        raise ConfigError(f"{what} has networks and calls of its own; leave out {options}.")


def summaries(calls: Calls, config: EvaluateConfig, contender: Contender, split: str) -> list[Any]:
    """All calls by network type, the contested ones, and all by the names services report."""
    from experiments import evaluation

    where = f"traces of {config.traces}" if config.traces else "synthetic networks"
    title = (
        f"{contender.label} on {where} ({split}), "
        f"at most {bps_to_mbps(config.max_rate_bps):g} Mbps, "
        f"calls of {config.duration_s:g} s; mean over networks [95 % bootstrap interval]"
    )
    header = evaluation.summary_header()
    tables = [make_table(title, header, evaluation.summary_rows(calls))]
    contested = evaluation.select(calls, calls["contested"].astype(bool))
    if len(contested["network"]):
        rows = evaluation.summary_rows(contested)
        heading = "contested: the capacity is below the maximum rate for some of the call"
        tables.append(make_table(heading, header, rows))
    else:
        tables.append("contested: none; the capacity never falls below the maximum rate")
    caption = (
        "all calls; formulas and sources in bwe_env/metrics.py. The last minute is that of calls "
        "of 180 s or more; total_talk_time follows from the call score and is no further evidence"
    )
    rows = evaluation.field_rows(calls)
    tables.append(
        make_table("as services report it", evaluation.field_header(), rows, caption=caption)
    )
    return tables


def _progress(total: int, unit: str = "call") -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, disable=None, leave=False)


if __name__ == "__main__":
    sys.exit(main())

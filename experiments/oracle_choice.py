"""Which settings an oracle should have: mean call score on validation networks, for each of a grid.

    python -m experiments.oracle_choice

Where the defaults of `baselines.oracle` and `baselines.future_oracle` come from. Test networks and
measured traces have no say in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from baselines.future_oracle import FutureOracle
from baselines.oracle import Oracle
from bwe_env.config import CallConfig
from experiments.cli import run_command
from experiments.contenders import Contender
from experiments.evaluation import SHOWN, Setting, run
from experiments.networks import named_networks


@dataclass(frozen=True, kw_only=True)
class OracleChoiceConfig:
    """Compare settings of both oracles on synthetic validation networks."""

    headrooms: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0)
    """shares of what fits, for either oracle"""
    horizons_s: tuple[float, ...] = (0.3, 0.5, 1.0)
    """how far the one that knows the future looks ahead"""
    max_waits_s: tuple[float, ...] = (0.05, 0.1, 0.2)
    """the longest wait in the queue that it accepts"""
    networks: int = 60
    """the first so many of the validation split"""
    seeds: int = 1
    """calls per network"""
    num_threads: int = 2
    """results do not depend on it"""


def arms(config: OracleChoiceConfig, call: CallConfig) -> Iterator[Contender]:
    """Every oracle of the grid, its settings as its label."""
    for headroom in config.headrooms:
        oracle = Oracle(headroom_ratio=headroom, call=call)
        yield Contender(label=f"oracle:{headroom:g}", controller=oracle)
    for headroom, horizon_s, max_wait_s in itertools.product(
        config.headrooms, config.horizons_s, config.max_waits_s
    ):
        future = FutureOracle(
            headroom_ratio=headroom, horizon_s=horizon_s, max_wait_s=max_wait_s, call=call
        )
        label = f"oracle-future:{headroom:g} H={horizon_s:g} s D={max_wait_s:g} s"
        yield Contender(label=label, controller=future)


def choose(config: OracleChoiceConfig) -> int:
    """Play the grid and print a line for each arm."""
    call = CallConfig()
    networks = named_networks(traces=None, split="validation", count=config.networks)
    setting = Setting(call=call, seeds=tuple(range(config.seeds)), num_threads=config.num_threads)
    print(f"{'':40}" + "".join(f"{shown.header:>15}" for shown in SHOWN))
    for arm in arms(config, call):
        calls = run(arm, networks, setting)
        means = (shown.factor * float(np.mean(calls[shown.column])) for shown in SHOWN)
        print(f"{arm.label:40}" + "".join(f"{mean:15.3f}" for mean in means), flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.oracle_choice``."""
    return run_command(choose, OracleChoiceConfig, module="experiments.oracle_choice", argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""How fast the compiled core is: packets and decisions per second, threads, compile time.

    python -m experiments.benchmark

GCC drives N calls on clean constant links. Beside every rate stands its ratio to a plain-Python
packet simulation measured in the same run (`experiments.yardstick`): machines and their load
differ, ratios do so far less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.units import bps_to_mbps
from experiments.cli import run_command
from experiments.gcc_cost import gcc_cost
from experiments.tables import make_table, show
from experiments.yardstick import run_yardstick

#: GCC needs so long from 300 kbps to a steady 2 Mbps; before, a step holds fewer packets.
WARM_UP_S = 20.0
#: What we want of one core at 64 calls of 2 Mbps.
TARGET_PACKETS_PER_S = 5e6
TARGET_STEPS_PER_S = 250e3
#: What we want the controller to cost for a feedback report of 12 packets.
TARGET_REPORT_US = 1.0

ROOT = Path(__file__).resolve().parent.parent

#: A first step in a fresh process, as a user meets it: imports, kernels, one call.
FIRST_STEP = """
import time
started_s = time.perf_counter()
import numpy as np
import bwe_env
from bwe_env import BandwidthEstimationVectorEnv
from bwe_env.network import Network
from bwe_env.trace import constant
networks = [Network(trace=constant(2_000_000))]
env = BandwidthEstimationVectorEnv(1, networks=networks, action_mode="scale")
env.reset(seed=0)
env.step(np.zeros((1, 1), dtype=np.float32))
print(time.perf_counter() - started_s)
"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure the compiled core with GCC on constant links."""

    num_envs: int = 64
    """calls side by side"""
    capacity_bps: float = 2_000_000.0
    """of every link"""
    seconds: float = 3.0
    """measuring time per line of the table; the median of five parts is shown"""
    threads: tuple[int, ...] = (1, 2)
    """thread counts to measure"""
    compile_time: bool = True
    """also measure a first step with an empty and with a full kernel cache (a minute)"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "threads", tuple(self.threads))
        if self.num_envs < 1 or not self.threads or min(self.threads) < 1:
            raise ConfigError("num_envs and every number of threads must be at least 1.")
        if not self.seconds > 0.0:
            raise ConfigError(f"seconds={self.seconds} must be above 0.")


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Medians over five parts of a measurement."""

    packets_per_s: float
    steps_per_s: float
    packets_per_step: float


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.benchmark``."""
    return run_command(benchmark, BenchmarkConfig, module="experiments.benchmark", argv=argv)


def benchmark(config: BenchmarkConfig) -> int:
    """Measure and print."""
    plain = run_yardstick(capacity_bps=config.capacity_bps, duration_s=200.0)
    rows = [["plain Python, 1 call", *_cells(plain.packets_per_s, plain.steps_per_s), "1.0", "1.0"]]
    for threads in config.threads:
        measured = measure(config, num_envs=config.num_envs, threads=threads)
        name = f"compiled core, {config.num_envs} calls, {threads} thread{'s'[: threads - 1]}"
        rows.append(
            [
                name,
                *_cells(measured.packets_per_s, measured.steps_per_s),
                f"{measured.packets_per_s / plain.packets_per_s:.1f}",
                f"{measured.steps_per_s / plain.steps_per_s:.1f}",
            ]
        )
    title = f"GCC on constant links of {bps_to_mbps(config.capacity_bps):g} Mbps, 100 ms steps"
    header = ["", "packets/s", "steps/s", "× packets", "× steps"]
    caption = (
        f"targets per core: {TARGET_PACKETS_PER_S:,.0f} packets/s and "
        f"{TARGET_STEPS_PER_S:,.0f} steps/s"
    )
    show(make_table(title, header, rows, caption=caption))
    print(f"single env step(): median {single_step_us(config):.1f} us")
    cost = gcc_cost()
    print(
        f"GCC per feedback report of {cost.packets_per_report:.1f} packets, over a call: "
        f"{cost.call_us:.2f} us (target {TARGET_REPORT_US:g} for 12), of which sent packets and "
        f"process intervals {cost.other_us:.2f}, loss-based v2 {cost.loss_based_us:.2f}"
    )
    if config.compile_time:
        cold_s, cached_s = compile_seconds()
        print(f"first step in a fresh process: {cold_s:.1f} s with an empty kernel cache, ", end="")
        print(f"{cached_s:.1f} s from the cache")
    return 0


def _cells(packets_per_s: float, steps_per_s: float) -> list[str]:
    return [f"{packets_per_s:,.0f}", f"{steps_per_s:,.0f}"]


def make_env(config: BenchmarkConfig, *, num_envs: int, threads: int) -> Any:
    """Calls under GCC's own control that do not end while being measured."""
    from bwe_env import BandwidthEstimationVectorEnv
    from bwe_env.network import Network
    from bwe_env.trace import constant

    networks = [Network(trace=constant(config.capacity_bps))]
    call = CallConfig(duration_s=86_400.0)
    env = BandwidthEstimationVectorEnv(
        num_envs, call=call, networks=networks, action_mode="scale", num_threads=threads
    )
    env.reset(seed=0)
    return env


def measure(config: BenchmarkConfig, *, num_envs: int, threads: int) -> Throughput:
    """Packets and decisions per second of all calls together."""
    env = make_env(config, num_envs=num_envs, threads=threads)
    action = np.zeros((num_envs, 1), dtype=np.float32)
    for _ in range(round(WARM_UP_S / 0.1)):
        env.step(action)
    packets, steps, per_step = [], [], []
    for _ in range(5):
        sent_before, count = env.packets_sent, 0
        started_s = time.perf_counter()
        while (elapsed_s := time.perf_counter() - started_s) < config.seconds / 5:
            for _ in range(10):
                env.step(action)
            count += 10 * num_envs
        sent = env.packets_sent - sent_before
        packets.append(sent / elapsed_s)
        steps.append(count / elapsed_s)
        per_step.append(sent / count)
    env.close()
    return Throughput(
        packets_per_s=statistics.median(packets),
        steps_per_s=statistics.median(steps),
        packets_per_step=statistics.median(per_step),
    )


def single_step_us(config: BenchmarkConfig) -> float:
    """Median of one `step()` of the single environment through `gymnasium.make`."""
    import gymnasium

    import bwe_env  # noqa: F401  (registers the environment)
    from bwe_env.network import Network
    from bwe_env.trace import constant

    env = gymnasium.make(
        "BandwidthEstimation-v0",
        networks=[Network(trace=constant(config.capacity_bps))],
        action_mode="scale",
        disable_env_checker=True,
    )
    env.reset(seed=0)
    action = np.zeros(1, dtype=np.float32)
    times_us = []
    for _ in range(3000):
        started_ns = time.perf_counter_ns()
        _, _, terminated, truncated, _ = env.step(action)
        times_us.append((time.perf_counter_ns() - started_ns) / 1e3)
        if terminated or truncated:
            env.reset()
    env.close()
    return statistics.median(times_us)


def compile_seconds() -> tuple[float, float]:
    """Seconds to a first step in a fresh process: kernels compiled, and loaded from the cache."""
    with tempfile.TemporaryDirectory(prefix="bwe_env-benchmark-") as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        cold_s = _first_step_s(environment)
        cached_s = min(_first_step_s(environment) for _ in range(3))
    return cold_s, cached_s


def _first_step_s(environment: dict[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    return float(done.stdout)


if __name__ == "__main__":
    sys.exit(main())

"""Measure what a run's policy sees on its training networks, and keep it with the policy.

    python -m experiments.policy_statistics runs/ppo-001

A guard (`agents.guard`) tells by it what is new to the policy. Training does so at its end; the
command is for runs that were interrupted, or made by an earlier version.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from bwe_env.network import Network
from experiments.cli import run_command
from experiments.run_directory import ENVIRONMENT, RunDirectory

if TYPE_CHECKING:
    from agents.policy_estimator import PolicyEstimator
    from experiments.evaluation import Setting

#: Training networks whose calls are looked at, drawn from all of them. Ours.
STATISTICS_NETWORKS = 120


@dataclass(frozen=True, kw_only=True)
class PolicyStatisticsConfig:
    """Measure what a run's policy sees on its training networks."""

    run: Annotated[str, tyro.conf.Positional]
    """a run directory of experiments.train"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.policy_statistics``."""
    return run_command(
        measure_run, PolicyStatisticsConfig, module="experiments.policy_statistics", argv=argv
    )


def measure_run(config: PolicyStatisticsConfig) -> int:
    """Run the command; returns its exit code."""
    from experiments.evaluation import Setting
    from experiments.train import TrainConfig, network_sets

    run = RunDirectory.open(config.run)
    own = run.load_config(TrainConfig)
    sets = network_sets(own)
    run.check_same(networks=sets.digests)
    setting = Setting(call=own.call, reward=own.reward, num_threads=own.num_threads)
    add_statistics(run, sets.train, setting)
    return 0


def add_statistics(run: RunDirectory, networks: Sequence[Network], setting: Setting) -> None:
    """Measure the selected policy of a run, write it anew with the statistics, and tell of them.

    Args:
        networks: those it was trained on; `STATISTICS_NETWORKS` of them are played once.
        setting: of the calls.
    """
    from agents.export import load_policy, read_manifest, save_policy
    from agents.guard import guarded_shares
    from agents.observation_statistics import measure_statistics

    policy = load_policy(run.policy, environment=ENVIRONMENT)
    drawn = np.random.default_rng(0).permutation(len(networks))[:STATISTICS_NETWORKS]
    calls = recorded_features(policy, [networks[i] for i in sorted(drawn)], setting)
    statistics = measure_statistics(calls)
    shares = guarded_shares(calls, statistics, interval_s=policy.setting.interval_s)
    policy.statistics = replace(statistics, guarded_share=shares)
    extra = read_manifest(run.policy)["extra"]
    save_policy(run.policy, policy, environment=ENVIRONMENT, extra=extra)
    told = ", ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items())
    print(f"a guard would step in on {len(calls)} training calls for this share of time: {told}")


def recorded_features(
    policy: PolicyEstimator, networks: Sequence[Network], setting: Setting
) -> list[NDArray[np.float32]]:
    """What the policy sees on each network, shape (intervals, NUM_FEATURES) of every call."""
    from experiments import evaluation
    from experiments.contenders import policy_contender

    recorder = _Recorder(policy)
    contender = replace(policy_contender(policy, label="policy"), controller=recorder)
    evaluation.run(contender, networks, replace(setting, seeds=(0,)))
    return [call for batch in recorder.batches for call in np.stack(batch, axis=1)]


class _Recorder:
    """A policy that keeps what it saw. Rows of a call that has dropped stand still."""

    def __init__(self, policy: PolicyEstimator) -> None:
        self.policy = policy
        self.action_mode = policy.action_mode
        self.batches: list[list[NDArray[np.float32]]] = []

    def reset(self, num_envs: int) -> None:
        self.batches.append([])
        self.policy.reset(num_envs)

    def act(self, observation: NDArray[np.float32], truth: Any) -> NDArray[np.float32]:
        from agents.observation_statistics import newest_features

        history = self.policy.setting.observation.history
        self.batches[-1].append(newest_features(observation, history))
        return self.policy.act(observation, truth)


if __name__ == "__main__":
    sys.exit(main())

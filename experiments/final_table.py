"""The table at the end of a training run: its policy on the test networks beside baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.callbacks import write_final_metrics
from agents.export import load_policy, read_manifest
from bwe_env.units import bps_to_mbps
from experiments import evaluation
from experiments.compare import inputs, write_results
from experiments.compare_analysis import Options, compare_calls
from experiments.compare_results import Estimator
from experiments.contenders import baseline, policy_contender
from experiments.networks import NetworkSets
from experiments.run_directory import ENVIRONMENT, RunDirectory
from experiments.train import setting_of

if TYPE_CHECKING:
    from experiments.train import TrainConfig

#: Constant rates among which the best is chosen on the validation networks: three per factor of
#: ten, as far as a call's range goes. Ours.
CONSTANT_RATES_BPS = (
    100_000,
    200_000,
    300_000,
    500_000,
    700_000,
    1_000_000,
    1_500_000,
    2_000_000,
    3_000_000,
    5_000_000,
)


def report(config: TrainConfig, run: RunDirectory, sets: NetworkSets) -> None:
    """Judge the selected policy on the test networks beside the baselines; print and store it."""
    call = config.call
    policy = load_policy(run.policy, environment=ENVIRONMENT)
    validation = setting_of(config, config.validation_seeds)
    rates = [r for r in CONSTANT_RATES_BPS if call.min_rate_bps <= r <= call.max_rate_bps]
    constant = evaluation.best_contender(
        [baseline(f"constant:{rate}", call) for rate in rates or [call.start_rate_bps]],
        sets.validation,
        validation,
    )
    agent = policy_contender(policy, label="PPO")
    contenders = [
        agent,
        *(baseline(name, call) for name in ("gcc", "gcc-tuned", "gcc-short-window")),
        constant,
        baseline("oracle", call),
    ]
    setting, options = setting_of(config, config.test_seeds), Options()
    played = {c.label: [evaluation.run(c, sets.test, setting)] for c in contenders}
    found = compare_calls(
        played,
        [
            Estimator(label=c.label, runs=(str(run.path) if c is agent else c.label,))
            for c in contenders
        ],
        title=(
            f"{len(sets.test)} test networks, calls of {call.duration_s:g} s with seeds "
            f"{', '.join(map(str, config.test_seeds))}, at most "
            f"{bps_to_mbps(call.max_rate_bps):g} Mbps; 95 % bootstrap intervals over networks"
        ),
        options=options,
        inputs=inputs(sets.test, setting, options),
    )
    write_results(run.path, found, played)
    steps = int(read_manifest(run.policy)["extra"]["steps"])
    write_final_metrics(run.tensorboard, played["PPO"][0], played["gcc"][0], steps=steps)

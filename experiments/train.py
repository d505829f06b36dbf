"""Train a PPO agent, select it on validation networks, judge it on test networks.

    python -m experiments.train
    python -m experiments.train --traces DIR
    python -m experiments.train --resume runs/ppo-001

A run directory (see `experiments.run_directory`) holds all it did; TensorBoard shows it with
``tensorboard --logdir runs``. Ctrl-C writes a checkpoint and says how to go on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from agents.curriculum import CurriculumName
from agents.ppo import PpoConfig
from bwe_env.action import ActionMode
from bwe_env.config import CallConfig, RandomisationConfig
from bwe_env.errors import ArtifactError, ConfigError, unknown_name
from bwe_env.gcc import GccParameters
from bwe_env.observation import ObservationConfig
from bwe_env.reward import RewardConfig
from experiments.cli import EXIT_INTERRUPTED, run_command
from experiments.delivered_models import ModelName, model_folder
from experiments.networks import NetworkSets, measured_sets, synthetic_sets
from experiments.run_directory import ENVIRONMENT, RunDirectory, config_to_dict

# Read when torch loads OpenMP. By default its threads spin while they wait for each other: with two
# of them on a busy machine, learning was seen to take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

    from agents.callbacks import ProgressCallback
    from agents.curriculum import GapCurriculum
    from agents.policy_estimator import PolicyEstimator
    from agents.policy_setting import PolicySetting
    from bwe_env.render import Timeline
    from experiments.contenders import Contender
    from experiments.evaluation import Setting

#: Options that may differ when a run is resumed: they change how long and how fast, not what.
RESUMABLE_OPTIONS = ("resume", "total_steps", "num_threads", "ppo.torch_threads")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a PPO agent on simulated calls and compare it with GCC, a constant and an oracle."""

    name: str = "ppo"
    """the run's folder is RUNS_DIR/NAME-001, -002, …"""
    runs_dir: str = "runs"
    """where run directories are made"""
    resume: str | None = None
    """go on with this run directory; its own configuration is used"""
    traces: str | None = None
    """directory of measured traces (manifest.json); synthetic networks without it"""
    total_steps: int = 2_000_000
    """decisions to learn from, over all calls together"""
    validate_every_steps: int = 250_000
    """decisions between two validations, each of which may select the policy"""
    seed: int = 0
    """of the weights, the exploration and the training calls"""
    action_mode: ActionMode = "rate"
    """rate: the agent sets the target; scale: it multiplies GCC's by 0.5 to 2; config: it sets
    GCC's parameters"""
    train_networks: int = 600
    """synthetic networks to learn on"""
    validation_networks: int = 60
    """synthetic networks to select on"""
    test_networks: int = 120
    """synthetic networks of the final table"""
    validation_seeds: tuple[int, ...] = (0,)
    """each validation network is called once per seed"""
    test_seeds: tuple[int, ...] = (0, 1)
    """each test network is called once per seed and controller"""
    randomisation: RandomisationConfig = field(
        default_factory=lambda: RandomisationConfig(random_start=True)
    )
    """of training calls: they begin anywhere in their trace, validation and test calls at its
    start"""
    curriculum: CurriculumName = "none"
    """gap: training networks are drawn more often where the agent's reward lags behind GCC's most
    (GCC plays them first, as they are: scales of --randomisation change the agent's calls only).
    none: all equally often"""
    num_threads: int = 2
    """threads of the simulator; results do not depend on it"""
    call: CallConfig = field(default_factory=CallConfig)
    observation: ObservationConfig = field(default_factory=lambda: ObservationConfig(history=5))
    """5 intervals learn as much in the same number of steps as 10, in three quarters of the time"""
    reward: RewardConfig = field(default_factory=RewardConfig)
    gcc: GccParameters = field(
        default_factory=lambda: GccParameters(pacing_factor=2.5, cwnd_queue_s=0.03)
    )
    """of the sender and the GCC in it, where the policy is judged and used: pacing, congestion
    window, and the GCC that is observed, scaled or configured. These two were chosen by hand among
    some ten pairs, by reward and frozen time on 200 validation networks"""
    training_gcc: GccParameters = field(default_factory=lambda: GccParameters(cwnd_enabled=False))
    """the same in training calls, with libwebrtc's pacing (mode config: `gcc`). Without a window,
    the policy learns to leave room by itself; one that learns behind a window leans on it, and
    freezes more"""
    network_models: tuple[ModelName, ...] = ()
    """network models whose answers stand behind the features in the observation"""
    network_model_period_bins: int = 5
    """intervals between two questions to them; the last answer stands in between. They cost most of
    a step, and what they tell changes within seconds"""
    ppo: PpoConfig = field(default_factory=PpoConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network_models", tuple(self.network_models))
        for model in self.network_models:
            model_folder(model)  # raises for an unknown one
        if self.curriculum not in get_args(CurriculumName):
            raise unknown_name("curriculum", self.curriculum, get_args(CurriculumName))
        for name in ("validation_seeds", "test_seeds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty; give at least one seed.")
        for name in (
            "total_steps",
            "validate_every_steps",
            "train_networks",
            "validation_networks",
            "test_networks",
            "num_threads",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} must be 0 or more.")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.train``."""
    return run_command(train, TrainConfig, module="experiments.train", argv=argv)


def train(config: TrainConfig) -> int:
    """One training run from start (or checkpoint) to the final table."""
    from experiments.final_table import report

    started_s = time.monotonic()
    run = learn_run(config)
    if run is None:
        return EXIT_INTERRUPTED
    config = run.load_config(TrainConfig)
    report(config, run, network_sets(config))
    print(f"whole run: {time.monotonic() - started_s:.0f} s; everything is in {run.path}")
    return 0


def learn_run(config: TrainConfig) -> RunDirectory | None:
    """Learn from start (or checkpoint) to end.

    Returns:
        The run with its selected policy; None if interrupted, with a checkpoint written.
    """
    from experiments.policy_statistics import add_statistics

    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if config.resume is None:
            sets = network_sets(config)
            run = _create_run(config, sets)
        else:
            run = RunDirectory.open(config.resume)
            config = resumed_config(config, run)
            sets = network_sets(config)
            _check_resumable(run, sets)
            run.note_resume()
        print(f"run directory {run.path}", flush=True)
        if not _learn(config, run, sets):
            return None
        add_statistics(run, sets.train, setting_of(config, config.validation_seeds))
        return run
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def network_sets(config: TrainConfig) -> NetworkSets:
    """The three lists of networks of a run."""
    if config.traces is not None:
        return measured_sets(config.traces)
    return synthetic_sets(
        train=config.train_networks,
        validation=config.validation_networks,
        test=config.test_networks,
    )


def derived_seed(*words: str | int) -> int:
    """A 31-bit seed that is a hash of what it is for: no run repeats the calls of another."""
    text = "/".join(map(str, words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _create_run(config: TrainConfig, sets: NetworkSets) -> RunDirectory:
    return RunDirectory.create(
        config.runs_dir,
        config.name,
        config,
        seeds={"seed": config.seed, "training_calls": derived_seed("train", config.seed, 0)},
        networks=sets.digests,
    )


# --- Resuming -------------------------------------------------------------------------------------


def resumed_config(given: TrainConfig, run: RunDirectory) -> TrainConfig:
    """The run's own configuration, with what may be changed taken from the command line.

    Raises:
        ConfigError: an option was given that would make it another experiment.
    """
    from agents.callbacks import flatten

    stored = run.load_config(TrainConfig)
    default, wanted, own = (
        flatten(config_to_dict(config)) for config in (TrainConfig(), given, stored)
    )
    for option, value in wanted.items():
        if option in RESUMABLE_OPTIONS or value in (default[option], own.get(option)):
            continue
        flag = "--" + option.replace("_", "-")
        raise ConfigError(
            f"{flag} {value} differs from {own.get(option)!r} in {run.path / 'config.json'}. A "
            f"resumed run keeps its configuration (only "
            f"{', '.join('--' + o.replace('_', '-') for o in RESUMABLE_OPTIONS[1:])} may change): "
            "drop the option, or start a new run."
        )
    changes: dict[str, Any] = {"resume": given.resume}
    for option in ("total_steps", "num_threads"):
        if wanted[option] != default[option]:
            changes[option] = getattr(given, option)
    if wanted["ppo.torch_threads"] != default["ppo.torch_threads"]:
        changes["ppo"] = dataclasses.replace(stored.ppo, torch_threads=given.ppo.torch_threads)
    return dataclasses.replace(stored, **changes)


def _check_resumable(run: RunDirectory, sets: NetworkSets) -> None:
    run.check_same(networks=sets.digests)
    if not _checkpoint(run).is_file():
        raise ArtifactError(
            f"{run.path} has no checkpoint yet ({_checkpoint(run).name} is missing): it stopped "
            "before the first one. Start a new run."
        )


def _checkpoint(run: RunDirectory) -> Path:
    return run.checkpoints / "last.zip"


# --- Learning -------------------------------------------------------------------------------------


def setting_of(config: TrainConfig, seeds: tuple[int, ...]) -> Setting:
    """What the calls of a run share, whoever plays them."""
    from experiments.evaluation import Setting

    return Setting(
        call=config.call,
        reward=config.reward,
        seeds=seeds,
        num_threads=config.num_threads,
    )


def _agent(policy: PolicyEstimator) -> Contender:
    from experiments.contenders import policy_contender

    return policy_contender(policy, label="PPO")


def policy_setting(config: TrainConfig) -> PolicySetting:
    """What the run's policies see and set."""
    from agents.policy_setting import PolicySetting
    from experiments.delivered_models import model_digests

    return PolicySetting.of_call(
        config.call,
        action_mode=config.action_mode,
        observation=config.observation,
        gcc=config.gcc,
        network_models=config.network_models,
        network_model_digests=model_digests(config.network_models),
        network_model_period_bins=config.network_model_period_bins,
    )


def make_env(
    config: TrainConfig, sets: NetworkSets, *, curriculum: GapCurriculum | None = None
) -> Any:
    """The training environment, as the agent sees it."""
    from agents.sb3_vec_env import Sb3VecEnv
    from bwe_env import BandwidthEstimationVectorEnv
    from experiments.delivered_models import load_models

    env = BandwidthEstimationVectorEnv(
        config.ppo.num_envs,
        call=config.call,
        networks=sets.train,
        action_mode=config.action_mode,
        observation=config.observation,
        reward=config.reward,
        gcc=config.gcc if config.action_mode == "config" else config.training_gcc,
        network_models=load_models(
            config.network_models, period_bins=config.network_model_period_bins
        ),
        randomisation=config.randomisation,
        num_threads=config.num_threads,
        autoreset_mode="disabled",
    )
    return Sb3VecEnv(
        env,
        stagger_steps=config.call.steps,
        curriculum=curriculum,
        call_duration_s=config.call.duration_s,
    )


def _make_or_load(config: TrainConfig, run: RunDirectory, env: Any) -> OnPolicyAlgorithm:
    from agents.ppo import load_ppo, make_ppo

    part = len(run.record["resumed"])
    seed = derived_seed("train", config.seed, part)
    if config.resume is None:
        return make_ppo(env, config.ppo, seed=seed)
    model = load_ppo(_checkpoint(run), env, config.ppo)
    # Calls begin anew: the simulator's state is no part of a checkpoint. A curriculum goes on.
    model.set_random_seed(seed)
    return model


def _logger(run: RunDirectory) -> Any:
    from stable_baselines3.common.logger import Logger, make_output_format

    part = len(run.record["resumed"])
    suffix = f"-{part}" if part else ""
    formats = [
        make_output_format("tensorboard", str(run.tensorboard)),
        make_output_format("csv", str(run.path), suffix),
    ]
    return Logger(str(run.path), formats)


def _learn(config: TrainConfig, run: RunDirectory, sets: NetworkSets) -> bool:
    """Learn to the end. False if interrupted, with a checkpoint written."""
    from agents.callbacks import (
        DescriptionCallback,
        ExplorationCallback,
        ProgressCallback,
        StepMetricsCallback,
        ValidationCallback,
    )
    from experiments.curriculum import curriculum_callbacks, make_curriculum
    from experiments.tables import write_csv

    say_if_compiling()
    curriculum = make_curriculum(config, run, sets.train)
    env = make_env(config, sets, curriculum=curriculum)
    model = _make_or_load(config, run, env)
    model.set_logger(_logger(run))
    remaining = config.total_steps - model.num_timesteps
    progress = ProgressCallback(config.total_steps)
    validation = ValidationCallback(
        _validation(config, sets),
        every_steps=config.validate_every_steps,
        policy_directory=run.policy,
        checkpoint=_checkpoint(run),
        environment=ENVIRONMENT,
        setting=policy_setting(config),
        best_reward=_best_reward(run),
        report=progress.say,
    )
    description = DescriptionCallback(config_to_dict(config))
    exploration = []
    if config.ppo.anneal_exploration:
        exploration = [ExplorationCallback(config.ppo.log_std_init, config.ppo.log_std_final)]
    started_s, started_steps = time.monotonic(), model.num_timesteps
    callbacks = [
        description,
        *exploration,
        StepMetricsCallback(),
        *curriculum_callbacks(curriculum, run, sets.train),
        validation,
        progress,
    ]
    try:
        if remaining > 0:
            model.learn(remaining, callback=callbacks, reset_num_timesteps=False)
        else:
            print(f"{model.num_timesteps:,} steps are done already; judging the last policy")
            validation.init_callback(model)
            validation.validate()  # the last validation may have been interrupted
    except KeyboardInterrupt:
        _stop(model, run, progress)
        return False
    finally:
        env.close()
        model.logger.close()
        part = len(run.record["resumed"])
        name = f"validations-{part}.csv" if part else "validations.csv"
        write_csv(run.path / name, validation.columns)
    seconds = time.monotonic() - started_s
    steps = model.num_timesteps - started_steps
    print(f"learnt from {steps:,} steps in {seconds:.0f} s ({steps / seconds:,.0f} steps/s)")
    return True


def _stop(model: OnPolicyAlgorithm, run: RunDirectory, progress: ProgressCallback) -> None:
    from agents.callbacks import save_checkpoint

    progress.close()
    save_checkpoint(model, _checkpoint(run))
    print(
        f"\ninterrupted after {model.num_timesteps:,} steps; checkpoint written. Go on with\n"
        f"    python -m experiments.train --resume {run.path}",
        file=sys.stderr,
    )


def _best_reward(run: RunDirectory) -> float:
    from agents.export import read_manifest

    if not run.policy.is_dir():
        return float("-inf")
    return float(read_manifest(run.policy)["extra"]["validation_reward"])


def _validation(config: TrainConfig, sets: NetworkSets) -> Any:
    from agents.callbacks import Validation, ValidationCalls
    from experiments import evaluation
    from experiments.contenders import baseline

    setting = setting_of(config, config.validation_seeds)
    networks = {network.name: network for network in sets.validation}

    def run(policy: PolicyEstimator | None) -> ValidationCalls:
        contender = baseline("gcc", config.call) if policy is None else _agent(policy)
        steps: list[NDArray[Any]] = []
        columns = evaluation.run(contender, sets.validation, setting, on_call=steps.append)
        return ValidationCalls(columns=columns, steps=steps)

    def timeline(network: str, steps: NDArray[Any]) -> Timeline:
        return evaluation.timeline_of(steps, networks[network], setting)

    return Validation(run=run, timeline=timeline)


def say_if_compiling() -> None:
    """Tell that the first start takes longer, where the kernel cache is empty."""
    from bwe_env.sim._jit import CACHE_DIRECTORY

    if not any(CACHE_DIRECTORY.rglob("*.nbi")):
        print("compiling the simulator, once per version (under a minute) …", flush=True)


if __name__ == "__main__":
    sys.exit(main())

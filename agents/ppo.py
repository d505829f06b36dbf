"""PPO with settings that use a fast vector environment: many sub-envs, short rollouts, big batches.

With 64x64 networks on two cores the optimiser is the limit, not the simulator. Batches of 64 (the
library's default) train 20 times slower per environment step than batches of 4096.

The same defaults serve the recurrent policy. Decisions learnt from per second of processor time,
one thread, LSTM of 64, observation of one interval:

    num_envs n_steps batch_size
         256      64       4096   7,600   (4,300 without `agents.lstm_policy`)
         256      64       8192   8,300
         256     128       8192   8,200
         512      32       4096   8,500   (sequences of 3.2 s only)
          64      64       1024   1,700   (without `agents.lstm_policy`)
         256      64       4096  19,600   (no LSTM, observation of 5 intervals)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bwe_env.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from agents.policy_estimator import PolicyEstimator
    from agents.policy_setting import PolicySetting

ACTIVATIONS = ("tanh", "relu")
MEMORIES = ("history", "lstm")


@dataclass(frozen=True, kw_only=True)
class PpoConfig:
    """Proximal policy optimisation (Schulman et al., 2017) as Stable-Baselines3 names its parts."""

    num_envs: int = 256
    """calls simulated side by side"""
    n_steps: int = 64
    """decisions per call and rollout (6.4 s of call at the default interval)"""
    batch_size: int = 4096
    """decisions per gradient step; num_envs * n_steps must be a multiple of it"""
    n_epochs: int = 4
    """passes over each rollout"""
    learning_rate: float = 1e-3
    """step size of Adam at the start"""
    learning_rate_decay: bool = True
    """lets the step size fall linearly to a tenth over the run"""
    gamma: float = 0.97
    """discount per decision: 0.97 looks about 3 s ahead, what a queue or a freeze lasts"""
    gae_lambda: float = 0.95
    """bias against variance of the advantage estimate"""
    clip_range: float = 0.2
    """how far one rollout may move the policy"""
    ent_coef: float = 0.0
    """bonus for exploration"""
    vf_coef: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """gradients are scaled down to this norm"""
    log_std_init: float = -1.0
    """log of the first exploration noise; e^-1 is 18 % of the action's range"""
    anneal_exploration: bool = True
    """lets the noise fall over the run; without it the optimizer finds its size"""
    log_std_final: float = -3.0
    """log of the last; falls linearly over the run. Left to itself the noise ends near e^-1.7, half
    a nat of rate from one interval to the next: what is learnt under it is no policy for calls
    without"""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """neurons per hidden layer, of the policy and of the value network"""
    activation: Literal["tanh", "relu"] = "tanh"
    """between the layers"""
    memory: Literal["history", "lstm"] = "history"
    """how the policy knows the past. history: by the intervals that the observation shows. lstm: by
    a state of its own as well (recurrent PPO); an observation of one interval
    (--observation.history 1) is then enough"""
    lstm_size: int = 64
    """state of the LSTM in front of the hidden layers; the value network has one of its own"""
    torch_threads: int = 1
    """threads of the optimiser; two are a quarter faster on quiet cores, and many times slower on
    busy ones, where they wait for each other at every layer"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_sizes", tuple(int(n) for n in self.hidden_sizes))
        for name in (
            "num_envs",
            "n_steps",
            "batch_size",
            "n_epochs",
            "lstm_size",
            "torch_threads",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"ppo.{name}={getattr(self, name)} must be at least 1.")
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ConfigError(
                f"ppo.hidden_sizes={self.hidden_sizes} must name at least one layer of >= 1 neuron."
            )
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        if self.memory not in MEMORIES:
            raise unknown_name("memory", self.memory, MEMORIES)
        for name in ("gamma", "gae_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"ppo.{name}={getattr(self, name)} must be between 0 and 1.")
        for name in ("learning_rate", "clip_range", "max_grad_norm"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"ppo.{name}={getattr(self, name)} must be above 0.")
        if self.batch_size < 2 or self.rollout_steps % self.batch_size:
            nearest = _divisor_near(self.rollout_steps, self.batch_size)
            raise ConfigError(
                f"ppo.batch_size={self.batch_size} must be at least 2 and divide "
                f"num_envs * n_steps = {self.rollout_steps}; e.g. {nearest}."
            )

    @property
    def rollout_steps(self) -> int:
        """Decisions of all sub-envs between two updates."""
        return self.num_envs * self.n_steps


def _divisor_near(total: int, wanted: int) -> int:
    divisors = [n for n in range(2, total + 1) if total % n == 0] or [total]
    return min(divisors, key=lambda n: abs(n - wanted))


def linear_schedule(start: float, *, decays: bool) -> Callable[[float], float]:
    """Step size by the share of the run that remains (1 at the start, 0 at the end)."""
    if not decays:
        return lambda remaining: start
    return lambda remaining: start * (0.1 + 0.9 * remaining)


def _algorithm(config: PpoConfig) -> tuple[Any, Any]:
    """Class of the agent, and of its policy."""
    if config.memory == "lstm":
        from sb3_contrib import RecurrentPPO

        from agents.lstm_policy import FastLstmPolicy

        return RecurrentPPO, FastLstmPolicy
    from stable_baselines3 import PPO

    return PPO, "MlpPolicy"


def make_ppo(env: VecEnv, config: PpoConfig, *, seed: int) -> OnPolicyAlgorithm:
    """A fresh agent on `env`.

    Args:
        env: the vector environment, `config.num_envs` wide.
        seed: of the network's first weights and of the exploration noise.
    """
    import torch

    from agents.optimizer import PlainAdam

    torch.set_num_threads(config.torch_threads)
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[config.activation]
    sizes = list(config.hidden_sizes)
    policy_options: dict[str, Any] = {
        "net_arch": {"pi": sizes, "vf": sizes},
        "activation_fn": activation,
        "log_std_init": config.log_std_init,
        "optimizer_class": PlainAdam,
    }
    if config.memory == "lstm":
        policy_options["lstm_hidden_size"] = config.lstm_size
    agent, policy = _algorithm(config)
    return agent(  # type: ignore[no-any-return]
        policy,
        env,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        learning_rate=linear_schedule(config.learning_rate, decays=config.learning_rate_decay),
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs=policy_options,
        seed=seed,
        device="cpu",
    )


def load_ppo(path: Any, env: VecEnv, config: PpoConfig) -> OnPolicyAlgorithm:
    """An agent and its optimizer as its ``save`` left them. Archives can run code: own ones only.

    The state of an LSTM is no part of it: calls begin anew.
    """
    import torch

    torch.set_num_threads(config.torch_threads)
    agent, _ = _algorithm(config)
    return agent.load(  # type: ignore[no-any-return]
        path,
        env=env,
        device="cpu",
        custom_objects={
            "learning_rate": linear_schedule(
                config.learning_rate, decays=config.learning_rate_decay
            ),
        },
    )


def estimator_of(policy: Any, *, setting: PolicySetting) -> PolicyEstimator:
    """A copy of the actor of a policy in training, as comparisons play and artifacts keep it."""
    from agents.policy_estimator import PolicyEstimator
    from agents.recurrent_policy import RecurrentPolicyEstimator

    kind = RecurrentPolicyEstimator if hasattr(policy, "lstm_actor") else PolicyEstimator
    return kind.from_sb3(policy, setting=setting)

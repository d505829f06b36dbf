"""A trained policy behind the protocol that baselines and rollouts speak.

The forward pass always sees the same number of rows, padded with zeros: with batches of different
size the last bits of a matrix product differ, and a call's result would depend on how many others
run beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from agents.observation_statistics import ObservationStatistics
from agents.policy_setting import PolicySetting
from bwe_env.action import ActionMode
from bwe_env.errors import ArtifactError, unknown_name

if TYPE_CHECKING:
    from stable_baselines3.common.policies import ActorCriticPolicy

#: Rows of every forward pass; fewer are padded. As many as a rollout batch has by default.
BATCH_ROWS = 64

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


@dataclass(frozen=True, kw_only=True)
class MlpArchitecture:
    """A plain multi-layer perceptron: all that is needed to build the network again."""

    kind: ClassVar[str] = "mlp"
    """what manifests call it"""

    inputs: int
    """length of the observation"""
    hidden_sizes: tuple[int, ...]
    """neurons per hidden layer"""
    outputs: int
    """length of the action"""
    activation: str = "tanh"
    """one of `ACTIVATIONS`, between the layers"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_sizes", tuple(int(n) for n in self.hidden_sizes))
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        sizes = (self.inputs, *self.hidden_sizes, self.outputs)
        if not all(isinstance(n, int) and 1 <= n <= 1_000_000 for n in sizes):
            raise ArtifactError(f"layer sizes {sizes} must be whole numbers between 1 and 10^6.")

    def build(self) -> torch.nn.Sequential:
        """The network with weights yet to be loaded."""
        layers: list[torch.nn.Module] = []
        size = self.inputs
        for hidden in self.hidden_sizes:
            layers += [torch.nn.Linear(size, hidden), ACTIVATIONS[self.activation]()]
            size = hidden
        layers.append(torch.nn.Linear(size, self.outputs))
        return torch.nn.Sequential(*layers)

    @classmethod
    def of_layers(
        cls, layers: Sequence[torch.nn.Module], activation: type[torch.nn.Module]
    ) -> MlpArchitecture:
        """The shape of a list of layers as Stable-Baselines3 keeps them."""
        linear = linear_layers(layers)
        return cls(
            inputs=linear[0].in_features,
            hidden_sizes=tuple(layer.out_features for layer in linear[:-1]),
            outputs=linear[-1].out_features,
            activation={kind: name for name, kind in ACTIVATIONS.items()}[activation],
        )


def linear_layers(layers: Iterable[torch.nn.Module]) -> list[torch.nn.Linear]:
    """Those that hold weights, in order."""
    return [layer for layer in layers if isinstance(layer, torch.nn.Linear)]


def copy_layers(source: Iterable[torch.nn.Module], target: Iterable[torch.nn.Module]) -> None:
    """Copy the weights of one perceptron into another of the same shape."""
    for copy, layer in zip(linear_layers(target), linear_layers(source), strict=True):
        copy.load_state_dict(layer.state_dict())


class PolicyEstimator:
    """The mean action of an actor network: a `bwe_env.estimator.RatePolicy`.

    Args:
        network: maps (rows, observation length) to (rows, action length).
        architecture: its shape.
        setting: what the policy was trained to see and to set.
        statistics: of what it saw in training, for a guard (`agents.guard`); None if not measured.
    """

    #: With `inputs` and `outputs`, `kind` and `build`; see `agents.export.ARCHITECTURES`.
    architecture: Any

    def __init__(
        self,
        network: torch.nn.Module,
        architecture: Any,
        *,
        setting: PolicySetting,
        statistics: ObservationStatistics | None = None,
    ) -> None:
        self.network = network.eval()
        self.architecture = architecture
        self.setting = setting
        self.statistics = statistics

    @property
    def action_mode(self) -> ActionMode:
        """The environment's."""
        return self.setting.action_mode

    @classmethod
    def from_sb3(cls, policy: ActorCriticPolicy, *, setting: PolicySetting) -> PolicyEstimator:
        """A copy of the actor of a Stable-Baselines3 ``MlpPolicy``; training on changes nothing."""
        layers = [*policy.mlp_extractor.policy_net, policy.action_net]
        architecture = MlpArchitecture.of_layers(layers, policy.activation_fn)
        network = architecture.build()
        copy_layers(layers, network)
        return cls(network, architecture, setting=setting)

    def reset(self, num_envs: int) -> None:
        """Nothing to forget: the observation carries the history."""

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`; nothing to forget here either."""

    def act(self, observation: NDArray[np.float32], truth: Any) -> NDArray[np.float32]:
        """Actions in [-1, 1], shape (rows, action length). The truth is not looked at."""
        rows, width = observation.shape
        if width != self.architecture.inputs:
            raise ArtifactError(
                f"the policy was trained on observations of length {self.architecture.inputs}, "
                f"these have {width}; use the observation options it was trained with."
            )
        actions = np.empty((rows, self.architecture.outputs), dtype=np.float32)
        padded = torch.zeros((BATCH_ROWS, width), dtype=torch.float32)
        with torch.inference_mode():
            for start in range(0, rows, BATCH_ROWS):
                count = min(BATCH_ROWS, rows - start)
                padded[:count] = torch.from_numpy(
                    np.ascontiguousarray(observation[start : start + count], dtype=np.float32)
                )
                padded[count:] = 0.0
                actions[start : start + count] = self._forward(padded, start)[:count].numpy()
        return np.clip(actions, -1.0, 1.0)

    def _forward(self, padded: torch.Tensor, start: int) -> torch.Tensor:
        """Mean actions of the `BATCH_ROWS` calls from `start` on."""
        return self.network(padded)  # type: ignore[no-any-return]

"""A policy with a memory of its own: an LSTM between the observation and the layers of the actor.

The state of every call is kept row by row. Forward passes have as many rows as those of a policy
without memory, for the same reason: see `agents.policy_estimator`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.observation_statistics import ObservationStatistics
from agents.policy_estimator import BATCH_ROWS, MlpArchitecture, PolicyEstimator, copy_layers
from agents.policy_setting import PolicySetting
from bwe_env.errors import ActionError, ArtifactError

#: Parameters of an LSTM layer, without the layer's number.
_LSTM_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True, kw_only=True)
class LstmArchitecture:
    """One LSTM layer, then a perceptron: all that is needed to build the network again."""

    kind: ClassVar[str] = "lstm"
    """what manifests call it"""

    inputs: int
    """length of the observation"""
    lstm_size: int
    """length of the hidden state, and of the cell's"""
    hidden_sizes: tuple[int, ...]
    """neurons per hidden layer behind the LSTM"""
    outputs: int
    """length of the action"""
    activation: str = "tanh"
    """between the layers behind the LSTM"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_sizes", tuple(int(n) for n in self.hidden_sizes))
        if not (isinstance(self.inputs, int) and 1 <= self.inputs <= 1_000_000):
            raise ArtifactError(f"inputs={self.inputs!r} must be a whole number from 1 to 10^6.")
        if not (isinstance(self.lstm_size, int) and 1 <= self.lstm_size <= 4096):
            raise ArtifactError(f"lstm_size={self.lstm_size!r} must be a whole number, 1..4096.")
        self._head()  # checks the rest

    def _head(self) -> MlpArchitecture:
        return MlpArchitecture(
            inputs=self.lstm_size,
            hidden_sizes=self.hidden_sizes,
            outputs=self.outputs,
            activation=self.activation,
        )

    def build(self) -> LstmNetwork:
        """The network with weights yet to be loaded."""
        return LstmNetwork(self.inputs, self.lstm_size, self._head())


class LstmNetwork(torch.nn.Module):
    """One decision interval of the actor."""

    def __init__(self, inputs: int, lstm_size: int, head: MlpArchitecture) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTMCell(inputs, lstm_size)
        self.head = head.build()

    def forward(self, obs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean action, shape (rows, action length), and the new state.

        Args:
            obs: shape (rows, observation length).
            hidden, cell: the state before, shape (rows, lstm_size); zeros where a call begins.
        """
        hidden, cell = self.lstm(obs, (hidden, cell))
        return self.head(hidden), hidden, cell


class RecurrentPolicyEstimator(PolicyEstimator):
    """The mean action of an actor with an LSTM: a `bwe_env.estimator.RatePolicy` with a state.

    Args:
        network: an `LstmNetwork`.
        architecture: its `LstmArchitecture`.
        setting: what the policy was trained to see and to set.
        statistics: of what it saw in training.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        architecture: Any,
        *,
        setting: PolicySetting,
        statistics: ObservationStatistics | None = None,
    ) -> None:
        super().__init__(network, architecture, setting=setting, statistics=statistics)
        self.reset(1)

    @classmethod
    def from_sb3(cls, policy: Any, *, setting: PolicySetting) -> RecurrentPolicyEstimator:
        """A copy of the actor of an sb3-contrib ``MlpLstmPolicy``; training on changes nothing."""
        layers = [*policy.mlp_extractor.policy_net, policy.action_net]
        head = MlpArchitecture.of_layers(layers, policy.activation_fn)
        architecture = LstmArchitecture(
            inputs=policy.lstm_actor.input_size,
            lstm_size=policy.lstm_actor.hidden_size,
            hidden_sizes=head.hidden_sizes,
            outputs=head.outputs,
            activation=head.activation,
        )
        network = architecture.build()
        weights = policy.lstm_actor.state_dict()
        network.lstm.load_state_dict({name: weights[f"{name}_l0"] for name in _LSTM_PARAMETERS})
        copy_layers(layers, network.head)
        return cls(network, architecture, setting=setting)

    def reset(self, num_envs: int) -> None:
        """Forget everything; `num_envs` calls begin."""
        self._num_envs = num_envs
        rows = -(-num_envs // BATCH_ROWS) * BATCH_ROWS  # whole forward passes
        self._hidden = torch.zeros((rows, self.architecture.lstm_size))
        self._cell = torch.zeros_like(self._hidden)

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`, as an environment restarts single calls."""
        self._hidden[env] = 0.0
        self._cell[env] = 0.0

    def act(self, observation: NDArray[np.float32], truth: Any) -> NDArray[np.float32]:
        """Actions in [-1, 1], shape (num_envs, action length); every call's state moves on.

        Raises:
            ActionError: other than the number of calls that `reset` was told.
        """
        if len(observation) != self._num_envs:
            raise ActionError(
                f"{len(observation)} observations for {self._num_envs} calls: a policy with memory "
                f"keeps a state per call. Say reset({len(observation)}) when calls begin."
            )
        return super().act(observation, truth)

    def _forward(self, padded: Tensor, start: int) -> Tensor:
        rows = slice(start, start + BATCH_ROWS)
        action, self._hidden[rows], self._cell[rows] = self.network(
            padded, self._hidden[rows], self._cell[rows]
        )
        return action  # type: ignore[no-any-return]

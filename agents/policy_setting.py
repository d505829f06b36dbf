"""What a policy was trained to see and to set: without it, its numbers mean nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bwe_env.action import ActionMode, action_size
from bwe_env.config import CallConfig, from_mapping
from bwe_env.errors import ConfigError
from bwe_env.gcc import GccParameters
from bwe_env.observation import ObservationConfig


@dataclass(frozen=True, kw_only=True)
class PolicySetting:
    """Kept with every policy, so that whoever loads it can give it what it knows."""

    action_mode: ActionMode = "rate"
    """the environment's"""
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    """of the environment"""
    gcc: GccParameters = field(default_factory=GccParameters)
    """of the GCC that is observed, scaled or configured; its pacing factor is the sender's"""
    min_rate_bps: int = CallConfig.min_rate_bps
    """rate of action -1 in mode "rate"; lowest target of the call"""
    max_rate_bps: int = CallConfig.max_rate_bps
    """rate of action +1 in mode "rate"; highest target of the call"""
    interval_s: float = CallConfig.interval_s
    """between two decisions"""
    network_models: tuple[str, ...] = ()
    """tasks of the network models whose answers stand behind the features, in this order"""
    network_model_digests: tuple[str, ...] = ()
    """SHA-256 of the weights of each"""
    network_model_period_bins: int = 1
    """how often they are asked; see `agents.online_models.OnlineModels`"""

    def __post_init__(self) -> None:
        action_size(self.action_mode)  # raises for an unknown mode
        object.__setattr__(self, "network_models", tuple(self.network_models))
        object.__setattr__(self, "network_model_digests", tuple(self.network_model_digests))
        if len(self.network_model_digests) != len(self.network_models):
            raise ConfigError(
                f"network_model_digests={self.network_model_digests!r} must name one digest for "
                f"each of network_models={self.network_models!r}."
            )

    @classmethod
    def of_call(cls, call: CallConfig, **options: Any) -> PolicySetting:
        """The setting of a policy for such calls."""
        return cls(
            min_rate_bps=call.min_rate_bps,
            max_rate_bps=call.max_rate_bps,
            interval_s=call.interval_s,
            **options,
        )

    @classmethod
    def from_json(cls, values: Any) -> PolicySetting:
        """What `to_json` gave.

        Raises:
            ConfigError: unknown names, or values out of range.
        """
        return from_mapping(cls, values)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `bwe_env.run_calls` and `bwe_env.record_calls` that it needs.

        Its network models are not among them; `experiments.contenders` finds those.
        """
        return {"observation": self.observation, "gcc": self.gcc}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)

    def check_call(self, call: CallConfig, name: str) -> None:
        """Refuse calls in which the policy's actions would mean other rates than in training.

        Args:
            name: of the policy, for the message.

        Raises:
            ConfigError: with what has to be given to play it.
        """
        own = (self.min_rate_bps, self.max_rate_bps, self.interval_s)
        wanted = (call.min_rate_bps, call.max_rate_bps, call.interval_s)
        if own != wanted:
            raise ConfigError(
                f"the policy of {name} was trained for {self.min_rate_bps} to {self.max_rate_bps} "
                f"bps in steps of {self.interval_s:g} s; its actions mean nothing at "
                f"{call.min_rate_bps} to {call.max_rate_bps} bps in steps of {call.interval_s:g} "
                f"s. Give --max-rate-bps {self.max_rate_bps}, or in a scenario file call = {{ "
                f"min_rate_bps = {self.min_rate_bps}, max_rate_bps = {self.max_rate_bps}, "
                f"interval_s = {self.interval_s:g} }}."
            )

"""The arms of an A/B test: who plays the calls, and everything that their calls depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

import baselines
from bwe_env.config import CallConfig
from bwe_env.network import Network
from bwe_env.rollout import run_calls
from experiments.run_directory import config_to_dict


class Arm(Protocol):
    """One way to treat calls. It pickles: its calls are played in other processes."""

    @property
    def name(self) -> str:
        """As reports call it."""
        ...

    def inputs(self, call: CallConfig) -> Mapping[str, Any]:
        """All that its calls depend on, beside networks and seeds, as plain JSON values.

        Of models or a plan, their digests. An experiment is resumed only with the same inputs.
        """
        ...

    def play(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        call: CallConfig,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Every network with every seed: columns of `bwe_env.metrics.CALL_COLUMNS`, or more.

        Args:
            call: what all arms share; an arm that treats the sender changes its own copy.
            progress: called with the number of calls just finished.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class BaselineArm:
    """A controller from the registry of baselines."""

    baseline: str
    """as `baselines.make` knows it"""
    label: str = ""
    """in reports; the baseline's name if empty"""

    @property
    def name(self) -> str:
        """As reports call it."""
        return self.label or self.baseline

    def inputs(self, call: CallConfig) -> dict[str, Any]:
        """The baseline and GCC's parameters.

        Raises:
            UnknownNameError: no such baseline.
            ConfigError: it does not fit the calls.
        """
        made = baselines.make(self.baseline, call=call)
        return {"baseline": self.baseline, "gcc": config_to_dict(made.gcc)}

    def play(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        call: CallConfig,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `Arm.play`."""
        made = baselines.make(self.baseline, call=call)
        return run_calls(
            networks, made.controller, call=call, seeds=seeds, gcc=made.gcc, progress=progress
        )


def make_arm(name: str) -> Arm:
    """The arm that a name on the command line means: a baseline."""
    return BaselineArm(baseline=name)


def described(arm: Arm, call: CallConfig) -> dict[str, Any]:
    """Name and inputs of an arm, for the record of an experiment."""
    return {"name": arm.name, "class": type(arm).__name__, "inputs": dict(arm.inputs(call))}

"""A network: a capacity trace, a bottleneck queue, and the delay and loss of both directions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bwe_env.config import LinkConfig, PathConfig

if TYPE_CHECKING:
    from bwe_env.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a call meets: everything about the path, nothing about the endpoints."""

    trace: Trace
    """capacity of the forward bottleneck over time; repeats when the call outlasts it"""
    start_s: float = 0.0
    """where in the trace the call begins"""
    link: LinkConfig = field(default_factory=LinkConfig)
    forward: PathConfig = field(default_factory=PathConfig)
    reverse: PathConfig = field(default_factory=PathConfig)

    @property
    def name(self) -> str:
        """The trace's name; unique within a set of networks."""
        return self.trace.name

    @property
    def network_type(self) -> str:
        """One of `bwe_env.trace.NETWORK_TYPES`."""
        return self.trace.network_type

"""A network: a capacity trace, a bottleneck queue, and the delay and loss of both directions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bwe_env.config import (
    MAX_COMPETING_CALLS,
    MAX_SOURCES,
    LinkConfig,
    OnOffTraffic,
    PathConfig,
    RelayConfig,
    TcpTraffic,
)
from bwe_env.errors import ConfigError

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
    relay: RelayConfig | None = None
    """None where the endpoints talk directly"""
    cross_traffic: tuple[OnOffTraffic | TcpTraffic, ...] = ()
    """others that send into the same queue"""
    competing_calls: int = 0
    """further video calls in the same queue, over the same paths, from the same start: set up like
    the call itself, with GCC in control (or a `bwe_env.competition.Competitor` of a rollout)"""
    competing_start_s: tuple[float, ...] = ()
    """times of the call at which they begin, in order; 0 for those that it does not name"""
    competing_added_delay_s: tuple[float, ...] = ()
    """what each adds to the propagation delay of either direction, in the same way"""

    def __post_init__(self) -> None:
        if not self.reverse.keeps_order:
            raise ConfigError(
                "reverse.keeps_order=False is not simulated: messages to the sender keep their "
                "order. Allowed: True."
            )
        if self.relay is not None and not self.forward.keeps_order:
            raise ConfigError(
                "forward.keeps_order=False is not simulated in front of a relay. Allowed: True "
                "there, and relay.forward.keeps_order=False for the hop behind it."
            )
        sources = tuple(self.cross_traffic)
        if len(sources) > MAX_SOURCES or not all(
            isinstance(source, OnOffTraffic | TcpTraffic) for source in sources
        ):
            raise ConfigError(
                f"cross_traffic={self.cross_traffic!r} must be at most {MAX_SOURCES} of "
                "OnOffTraffic and TcpTraffic."
            )
        object.__setattr__(self, "cross_traffic", sources)
        if not (
            isinstance(self.competing_calls, int)
            and 0 <= self.competing_calls <= MAX_COMPETING_CALLS
        ):
            raise ConfigError(
                f"competing_calls={self.competing_calls!r} must be a whole number from 0 to "
                f"{MAX_COMPETING_CALLS}."
            )
        for name, longest_s in (("competing_start_s", 86_400), ("competing_added_delay_s", 10)):
            values = tuple(getattr(self, name))
            if len(values) > self.competing_calls or not all(0 <= v <= longest_s for v in values):
                raise ConfigError(
                    f"{name}={values!r} must name at most competing_calls={self.competing_calls} "
                    f"times from 0 to {longest_s} s."
                )
            object.__setattr__(self, name, values)

    @property
    def name(self) -> str:
        """The trace's name; unique within a set of networks."""
        return self.trace.name

    @property
    def path(self) -> str:
        """How the packets go: "relay" or "direct"."""
        return "direct" if self.relay is None else "relay"

    @property
    def network_type(self) -> str:
        """One of `bwe_env.trace.NETWORK_TYPES`."""
        return self.trace.network_type

"""Networks made worse step by step, beyond what training draws: delay, capacity, loss, outages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bwe_env.config import LossConfig, OutageConfig, PathConfig, RelayConfig
from bwe_env.errors import ConfigError
from bwe_env.network import Network

#: A queue given in bytes never shrinks below two full packets.
MIN_QUEUE_BYTES = 3000


def longer_round_trip(network: Network, factor: float) -> Network:
    """Every propagation delay times `factor`, hand-overs and the relay's hops included."""
    relay = network.relay
    if relay is not None:
        relay = RelayConfig(
            forward=_longer(relay.forward, factor), reverse=_longer(relay.reverse, factor)
        )
    return replace(
        network,
        forward=_longer(network.forward, factor),
        reverse=_longer(network.reverse, factor),
        relay=relay,
    )


def _longer(path: PathConfig, factor: float) -> PathConfig:
    return replace(
        path,
        propagation_delay_s=path.propagation_delay_s * factor,
        delay_steps=tuple((from_s, added_s * factor) for from_s, added_s in path.delay_steps),
    )


def scaled_capacity(network: Network, factor: float) -> Network:
    """Capacity and a policer's rate times `factor`; a queue in bytes keeps the time it holds.

    Cross traffic and competing calls stay as they are, as in `bwe_env.RandomisationConfig`.
    """
    link = network.link
    queue_bytes = link.queue_limit_bytes
    if queue_bytes:
        queue_bytes = max(MIN_QUEUE_BYTES, round(queue_bytes * factor))
    link = replace(
        link, queue_limit_bytes=queue_bytes, policer_rate_bps=link.policer_rate_bps * factor
    )
    trace = network.trace.scaled(factor, name=network.name)
    return replace(network, trace=trace, link=link)


def added_loss(network: Network, probability: float) -> Network:
    """Every packet of the forward direction is lost with `probability` besides.

    Raises:
        ConfigError: the network's own loss is replayed, or has a beginning or an end.
    """
    loss = network.forward.loss
    if loss.replay or loss.from_s or loss.until_s:
        raise ConfigError(
            f"network {network.name!r} has a replayed or timed loss, to which none can be added. "
            "Sweep over synthetic networks."
        )
    changed = LossConfig(
        good_loss=_either(loss.good_loss, probability),
        bad_loss=_either(loss.bad_loss, probability),
        good_to_bad=loss.good_to_bad,
        bad_to_good=loss.bad_to_good,
    )
    return replace(network, forward=replace(network.forward, loss=changed))


def _either(first: float, second: float) -> float:
    """Probability that at least one of two independent things happens."""
    return 1.0 - (1.0 - first) * (1.0 - second)


def feedback_outages(network: Network, seconds: float, duration_s: float) -> Network:
    """Nothing comes back to the sender for `seconds`, at a third and at two thirds of the call.

    A path has one outage. The second one is that of a relay, which a direct network gets with hops
    of no length: they delay and lose nothing else.
    """
    first, second = (
        OutageConfig(from_s=share * duration_s, until_s=share * duration_s + seconds)
        for share in (1 / 3, 2 / 3)
    )
    none = PathConfig(propagation_delay_s=0.0)
    relay = network.relay or RelayConfig(forward=none, reverse=none)
    return replace(
        network,
        reverse=replace(network.reverse, outage=first),
        relay=replace(relay, reverse=replace(relay.reverse, outage=second)),
    )


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One way of making networks worse, and how far."""

    name: str
    title: str
    """as figures name it"""
    values: tuple[float, ...]
    """from the least to the most"""
    unchanged: float
    """the one of `values` that leaves the networks as they are"""
    factor: float = 1.0
    """from values to what is shown"""

    def shown(self, value: float) -> str:
        """A value as people read it."""
        return f"{value * self.factor:g}"


#: What is swept. Training draws networks at the unchanged values. Ours.
AXES = {
    axis.name: axis
    for axis in (
        Axis(name="rtt", title="round trip ×", values=(1.0, 1.5, 2.0, 3.0), unchanged=1.0),
        Axis(name="capacity", title="capacity ×", values=(0.25, 0.5, 1.0, 2.0, 4.0), unchanged=1.0),
        Axis(
            name="loss",
            title="added loss %",
            values=(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3),
            unchanged=0.0,
            factor=100.0,
        ),
        Axis(
            name="outage",
            title="feedback outage s (twice)",
            values=(0.0, 1.0, 2.0, 5.0),
            unchanged=0.0,
        ),
    )
}


@dataclass(frozen=True, kw_only=True, order=True)
class Point:
    """One value of one axis."""

    axis: str
    value: float

    @property
    def is_unchanged(self) -> bool:
        """The networks are as they were: the same calls on every axis."""
        return self.value == AXES[self.axis].unchanged

    @property
    def name(self) -> str:
        """Of its files; the unchanged networks have one for all axes."""
        return "unchanged" if self.is_unchanged else f"{self.axis}-{self.value:g}"

    def apply(self, network: Network, duration_s: float) -> Network:
        """The network at this point.

        Args:
            duration_s: of the call.
        """
        if self.is_unchanged:
            return network
        changes: dict[str, Callable[[], Network]] = {
            "rtt": lambda: longer_round_trip(network, self.value),
            "capacity": lambda: scaled_capacity(network, self.value),
            "loss": lambda: added_loss(network, self.value),
            "outage": lambda: feedback_outages(network, self.value, duration_s),
        }
        return changes[self.axis]()


def points(axes: tuple[str, ...]) -> list[Point]:
    """All points of some axes."""
    return [Point(axis=name, value=value) for name in axes for value in AXES[name].values]

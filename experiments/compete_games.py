"""Who meets whom in one queue, and over which links."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bwe_env.config import LinkConfig, PathConfig, TcpTraffic
from bwe_env.network import Network
from bwe_env.rollout import run_series
from bwe_env.trace import constant
from bwe_env.units import bps_to_mbps, mbps_to_bps, ms_to_s, s_to_ms
from experiments.compete_measures import DURATION_S, JOIN_S, measure
from experiments.contenders import Contender
from experiments.evaluation import Setting

#: The grid of links. A queue of "one BDP" drains in one round trip; the other is that of RFC 8867
#: section 4.2. Ours but for that.
CAPACITIES_MBPS = (1.0, 2.0, 5.0)
RTTS_MS = (40.0, 100.0)
DEEP_QUEUE_MS = 300.0

#: TCP that may join, by the name a table gives it.
TCP = {"CUBIC": "cubic", "Reno": "reno"}


@dataclass(frozen=True)
class Bottleneck:
    """A link that two share: nothing is lost but in its drop-tail queue, and it never changes."""

    capacity_bps: float
    rtt_s: float
    queue_s: float

    @property
    def name(self) -> str:
        """The same whoever meets there, so that the same seed brings the same chances."""
        mbps, rtt_ms = bps_to_mbps(self.capacity_bps), s_to_ms(self.rtt_s)
        return f"{mbps:g} Mbps, RTT {rtt_ms:g} ms, queue {s_to_ms(self.queue_s):g} ms"

    def network(self, second: Contender | str) -> Network:
        """With somebody who joins at `JOIN_S`: a call, or a TCP flow by its name in `TCP`."""
        path = PathConfig(propagation_delay_s=0.5 * self.rtt_s)
        trace = constant(self.capacity_bps, duration_s=DURATION_S, name=self.name)
        link = LinkConfig(queue_limit_s=self.queue_s)
        if isinstance(second, str):
            tcp = TcpTraffic(algorithm=TCP[second], rtt_s=self.rtt_s, start_s=JOIN_S)  # type: ignore[arg-type]
            return Network(trace=trace, link=link, forward=path, reverse=path, cross_traffic=(tcp,))
        return Network(
            trace=trace,
            link=link,
            forward=path,
            reverse=path,
            competing_calls=1,
            competing_start_s=(JOIN_S,),
        )


def bottlenecks() -> tuple[Bottleneck, ...]:
    """The grid."""
    return tuple(
        Bottleneck(mbps_to_bps(mbps), ms_to_s(rtt_ms), ms_to_s(queue_ms))
        for mbps, rtt_ms in itertools.product(CAPACITIES_MBPS, RTTS_MS)
        for queue_ms in (rtt_ms, DEEP_QUEUE_MS)
    )


@dataclass(frozen=True)
class Game:
    """Somebody's call, and who joins it."""

    first: Contender
    second: Contender | str
    """a call's contender, or a TCP flow by its name in `TCP`"""

    @property
    def name(self) -> str:
        """Both, in the order in which they come."""
        return f"{self.first.label}, then {self.joining}"

    @property
    def joining(self) -> str:
        """The second's name."""
        return self.second if isinstance(self.second, str) else self.second.label


def games(estimator: Contender, gcc: Contender) -> list[tuple[Game, Game]]:
    """Every game of an estimator with the one it is compared to: GCC in its place.

    GCC's own games come last, each with itself; for GCC as the estimator there are no others.
    """
    with_tcp = list(TCP)
    references = [Game(gcc, gcc), *(Game(gcc, tcp) for tcp in with_tcp)]
    pairs = [(game, game) for game in references]
    if estimator.label == gcc.label:
        return pairs
    against_gcc = [Game(estimator, estimator), Game(estimator, gcc), Game(gcc, estimator)]
    beside_tcp = [Game(estimator, tcp) for tcp in with_tcp]
    return [
        *((game, references[0]) for game in against_gcc),
        *zip(beside_tcp, references[1:], strict=True),
        *pairs,
    ]


def play(
    game: Game,
    links: Sequence[Bottleneck],
    setting: Setting,
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """One row per link and seed: what was played, and all of its measures."""
    for link in links:
        limit_bps = float(setting.call.max_rate_bps)
        is_tcp = isinstance(game.second, str)
        played = run_series(
            link.network(game.second),
            game.first.controller,
            call=setting.call,
            seeds=setting.seeds,
            reward=setting.reward,
            observation=game.first.observation,
            gcc=game.first.gcc,
            network_models=game.first.network_models,
            competitor=None if isinstance(game.second, str) else game.second.competitor,
            num_threads=setting.num_threads,
        )
        limits_bps = (limit_bps, float("inf") if is_tcp else limit_bps)
        for seed, series in zip(setting.seeds, played, strict=True):
            yield {
                "game": game.name,
                "first": game.first.label,
                "second": game.joining,
                "link": link.name,
                "capacity_bps": link.capacity_bps,
                "rtt_s": link.rtt_s,
                "queue_s": link.queue_s,
                "seed": seed,
                **measure(series, link.capacity_bps, limits_bps),
            }
        if progress is not None:
            progress(len(setting.seeds))

"""Short calls for tests of estimators: on one link, with what the estimator decided beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from bwe_env.estimator import BandwidthEstimator, RateDecision
from bwe_env.feedback import FeedbackReport, PacketResult, SentPacket
from bwe_env.network import Network
from bwe_env.rollout import record_calls

CALL = CallConfig(duration_s=30.0)


@dataclass(frozen=True)
class Played:
    """One call and its estimator."""

    steps: NDArray[Any]
    """STEP rows"""
    estimator: Any
    decisions: list[tuple[int, RateDecision]]
    """times in microseconds, and what was decided"""
    states: list[Any]
    """what `state_of` said after each decision"""

    def mean(self, column: str, from_s: float, to_s: float) -> float:
        """Of a column of the steps between two times."""
        time_s = self.steps["time_s"]
        return float(np.mean(self.steps[column][(time_s > from_s) & (time_s <= to_s)]))


class Watched:
    """Passes everything on, and keeps the decisions."""

    def __init__(self, estimator: Any, state_of: Callable[[Any], Any]) -> None:
        self.estimator = estimator
        self.decisions: list[tuple[int, RateDecision]] = []
        self.states: list[Any] = []
        self._state_of = state_of

    def _keep(self, decision: RateDecision, now_us: int) -> RateDecision:
        self.decisions.append((now_us, decision))
        self.states.append(self._state_of(self.estimator))
        return decision

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        self.estimator.on_packet_sent(packet, now_us)

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        return self._keep(self.estimator.on_feedback(report, now_us), now_us)

    def on_timeout(self, now_us: int) -> RateDecision:
        return self._keep(self.estimator.on_timeout(now_us), now_us)

    def next_timeout_us(self) -> int:
        return int(self.estimator.next_timeout_us())


def play(
    factory: Callable[..., BandwidthEstimator],
    network: Network,
    *,
    duration_s: float = 30.0,
    state_of: Callable[[Any], Any] = lambda estimator: None,
) -> Played:
    """One call of seed 0 under `factory(call=...)`."""
    call = replace(CALL, duration_s=duration_s)
    watched: list[Watched] = []

    def make() -> Watched:
        watched.append(Watched(factory(call=call), state_of))
        return watched[-1]

    (recorded,) = record_calls((network,), make, call=call)
    assert not recorded.dropped
    (one,) = watched
    return Played(recorded.steps, one.estimator, one.decisions, one.states)


def packet(seq: int, send_time_us: int, size_bytes: int = 1_000) -> SentPacket:
    """A packet as an estimator is told of it."""
    return SentPacket(seq=seq, send_time_us=send_time_us, size_bytes=size_bytes)


def report(
    results: list[tuple[SentPacket, int | None]], bytes_in_flight: int = 0
) -> FeedbackReport:
    """A report of packets and when they arrived, None for missing."""
    packets = tuple(PacketResult(sent, arrival_us) for sent, arrival_us in results)
    built_us = max((arrival for _, arrival in results if arrival is not None), default=0)
    return FeedbackReport(built_us=built_us, packets=packets, bytes_in_flight=bytes_in_flight)

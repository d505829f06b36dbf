"""Short calls under an estimator, and reports written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bwe_env.config import CallConfig, LinkConfig, LossConfig, PathConfig, TcpTraffic
from bwe_env.feedback import FeedbackReport, PacketResult, SentPacket
from bwe_env.network import Network
from bwe_env.rollout import RecordedCall, record_calls
from bwe_env.trace import Trace, constant

CALL = CallConfig(duration_s=40.0)
#: Intervals after which a call has settled.
SETTLED = slice(200, None)
PROPAGATION_US = 25_000
#: 1 Mbps with nothing at all from 6 s to 10 s.
OUTAGE = Trace(
    name="outage",
    network_type="pattern",
    source="these tests",
    duration_us=np.array([6_000_000, 4_000_000, 50_000_000]),
    capacity_bps=np.array([1e6, 0.0, 1e6]),
)


def link(
    capacity: float | Trace,
    *,
    loss: float = 0.0,
    queue_limit_s: float = 0.3,
    one_way_s: float = 0.025,
    has_tcp: bool = False,
) -> Network:
    """A drop-tail bottleneck with the same delay either way."""
    trace = capacity if isinstance(capacity, Trace) else constant(capacity)
    return Network(
        trace=trace,
        link=LinkConfig(queue_limit_s=queue_limit_s),
        forward=PathConfig(propagation_delay_s=one_way_s, loss=LossConfig(good_loss=loss)),
        reverse=PathConfig(propagation_delay_s=one_way_s),
        cross_traffic=(TcpTraffic(rtt_s=2 * one_way_s),) if has_tcp else (),
    )


def play(
    estimator: Callable[..., Any], networks: Sequence[Network], call: CallConfig = CALL
) -> list[RecordedCall]:
    """One call on each network under ``estimator(call=call)``."""
    return list(record_calls(networks, partial(estimator, call=call), call=call))


def settled_mean(played: RecordedCall, column: str) -> float:
    """Mean of a column of STEP once the call has settled."""
    return float(played.steps[column][SETTLED].mean())


def report(
    first_seq: int,
    arrivals_us: Sequence[int | None],
    *,
    sent_us: Sequence[int],
    built_us: int,
    size_bytes: int = 1_000,
) -> FeedbackReport:
    """A report of packets that follow each other; None for a missing one."""
    packets = tuple(
        PacketResult(SentPacket(first_seq + index, send_us, size_bytes), arrival_us)
        for index, (send_us, arrival_us) in enumerate(zip(sent_us, arrivals_us, strict=True))
    )
    return FeedbackReport(built_us=built_us, packets=packets, bytes_in_flight=0)

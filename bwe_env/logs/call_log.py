"""A real call as the bins that models are trained on, whatever wrote its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Source = Literal["event log", "chromium run", "webrtc-internals"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CallLog:
    """What the sender of one call knew of each bin, and the truth where the network is known.

    All arrays have shape (bins,). NaN is "the log does not tell".
    """

    name: str
    source: Source
    interval_s: float
    """length of a bin; of a dump of webrtc-internals, nearly: its clients poll once a second"""
    telemetry: NDArray[Any]
    """dtype `bwe_env.telemetry.TELEMETRY`; time 0 is the first packet, or a dump's first sample"""
    capacity_bps: NDArray[Any] | None = None
    """what the link could carry, mean over the bin"""
    queue_delay_ms: NDArray[Any] | None = None
    """in the bottleneck, mean of the packets that reached it in the bin; NaN where none did"""
    reported_random_packets: NDArray[Any] | None = None
    """lost by chance and first reported as missing in the bin"""
    reported_congestion_packets: NDArray[Any] | None = None
    """lost to a full queue, in the same way; packets that are merely late count as neither"""
    warnings: tuple[str, ...] = ()
    """what was left out and how much of it; empty where the log was taken as it is"""

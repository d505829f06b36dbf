"""Reader of AlphaRTC traces (MMSys 2021 challenge): capacity, and perhaps loss and RTT."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import LossConfig, PathConfig
from bwe_env.errors import TraceFormatError, unknown_name
from bwe_env.network import Network
from bwe_env.trace.files import (
    check_capacity,
    check_some_capacity,
    json_number,
    read_json,
    shown,
    stem,
)
from bwe_env.trace.trace import MAX_CAPACITY_BPS, Trace
from bwe_env.units import kbps_to_bps, ms_to_s, s_to_us

logger = logging.getLogger(__name__)

#: Above it a capacity is probably a glitch of the recording, and is logged: some public files jump
#: to between 1e6 and 3.3e7 kbps, while honest segments stay below 1 Gbps. Ours.
GLITCH_BPS = 1e9
#: `PathConfig` holds a propagation delay of up to 10 s each way.
MAX_RTT_MS = 20_000.0


@dataclass(frozen=True, kw_only=True, eq=False)
class AlphaRtcTrace:
    """What an AlphaRTC trace file holds."""

    trace: Trace
    loss_ratio: NDArray[np.float64] | None = None
    """shape (n,), 0...1, one per segment of the trace; None if no segment gives it"""
    rtt_ms: NDArray[np.float64] | None = None
    """shape (n,), >= 0; None if no segment gives it"""

    def network(self) -> Network:
        """A `Network` whose loss and delay are the file's time-weighted means.

        A `Network` has one loss and one delay for a whole call; where the file varies them, the
        mean stands for them and the log says so. Loss is i.i.d. on the forward path. The one-way
        delay is rtt/2 both ways, as AlphaRTC's player sets it; without an rtt the default stays.
        """
        forward, reverse = PathConfig(), PathConfig()
        if self.rtt_ms is not None:
            one_way_s = ms_to_s(self._mean("rtt_ms", self.rtt_ms)) / 2.0
            forward = reverse = PathConfig(propagation_delay_s=one_way_s)
        if self.loss_ratio is not None:
            forward = PathConfig(
                propagation_delay_s=forward.propagation_delay_s,
                loss=LossConfig(good_loss=self._mean("loss", self.loss_ratio)),
            )
        return Network(trace=self.trace, forward=forward, reverse=reverse)

    def _mean(self, what: str, values: NDArray[np.float64]) -> float:
        low, high = float(values.min()), float(values.max())
        if low < high:
            logger.warning(
                "%s: %s varies between %g and %g; the network takes its mean",
                self.trace.name,
                what,
                low,
                high,
            )
        mean = float(values @ self.trace.duration_us) / self.trace.period_us
        return min(max(mean, low), high)  # rounding may leave the range by 1 ulp


def read_alphartc(
    path: str | Path,
    *,
    network_type: str,
    name: str | None = None,
    direction: Literal["uplink", "downlink"] = "uplink",
    max_capacity_bps: float | None = None,
) -> AlphaRtcTrace:
    """An AlphaRTC trace: ``{direction: {"trace_pattern": [segment, ...]}}``.

    A segment has `duration` (ms) and `capacity` (kbps), and may have `loss` (0...1) and `rtt`
    (ms). A segment without loss has none; one without rtt keeps the rtt before it. `jitter` is
    ignored, as AlphaRTC's own player ignores it.

    Args:
        direction: which of the two patterns to read.
        max_capacity_bps: cut capacities above it, and log how many. Some public files hold
            glitches of up to 3.3e7 kbps; by default they are kept and logged.
    """
    if direction not in ("uplink", "downlink"):
        raise unknown_name("direction", direction, ("uplink", "downlink"))
    if max_capacity_bps is not None and not 1.0 <= max_capacity_bps <= MAX_CAPACITY_BPS:
        raise TraceFormatError(
            f"max_capacity_bps={max_capacity_bps!r} must be between 1 and {MAX_CAPACITY_BPS:g} bps."
        )
    path = Path(path)
    pattern = _trace_pattern(path, direction)
    places = [f"{path}: {direction}.trace_pattern[{i}]" for i in range(len(pattern))]
    for segment, where in zip(pattern, places, strict=True):
        if not isinstance(segment, Mapping):
            raise TraceFormatError(
                f"{where}: expected an object with duration and capacity, got {shown(segment)}."
            )
    segments = list(zip(pattern, places, strict=True))
    durations = [_duration_us(segment, where) for segment, where in segments]
    capacities = [_capacity_bps(segment, where) for segment, where in segments]
    check_some_capacity(capacities, path)
    capacity_bps = _cut_glitches(path, np.array(capacities), max_capacity_bps)
    return AlphaRtcTrace(
        trace=Trace(name or stem(path), network_type, str(path), np.array(durations), capacity_bps),
        loss_ratio=_losses(segments),
        rtt_ms=_rtts_ms(segments),
    )


def _trace_pattern(path: Path, direction: str) -> list[Any]:
    document = read_json(path)
    pattern = None
    if isinstance(document, Mapping) and isinstance(document.get(direction), Mapping):
        pattern = document[direction].get("trace_pattern")
    if not isinstance(pattern, list) or not pattern:
        raise TraceFormatError(
            f"{path}: expected {direction}.trace_pattern, a list of segments, got "
            f"{shown(pattern)}; mend the file, or choose the other direction."
        )
    return pattern


def _duration_us(segment: Mapping[str, Any], where: str) -> int:
    duration_us = s_to_us(ms_to_s(json_number(segment, "duration", where)))
    if duration_us <= 0:
        raise TraceFormatError(
            f"{where}.duration={shown(segment['duration'])} must be > 0 milliseconds; remove the "
            "segment if it is to last no time."
        )
    return duration_us


def _capacity_bps(segment: Mapping[str, Any], where: str) -> float:
    kbps = json_number(segment, "capacity", where)
    return check_capacity(kbps_to_bps(kbps), f"{where}.capacity={kbps:g} kbps")


def _losses(segments: list[tuple[Mapping[str, Any], str]]) -> NDArray[np.float64] | None:
    if not any("loss" in segment for segment, _ in segments):
        return None
    losses = []
    for segment, where in segments:
        loss = json_number(segment, "loss", where) if "loss" in segment else 0.0
        if not 0.0 <= loss <= 1.0:
            raise TraceFormatError(
                f"{where}.loss={loss:g} is outside 0...1; it is a ratio, not a percentage."
            )
        losses.append(loss)
    return np.array(losses)


def _rtts_ms(segments: list[tuple[Mapping[str, Any], str]]) -> NDArray[np.float64] | None:
    rtts: list[float] = []
    waiting = 0  # segments before the first rtt; they take it
    for segment, where in segments:
        if "rtt" not in segment:
            if rtts:
                rtts.append(rtts[-1])
            else:
                waiting += 1
            continue
        rtt_ms = json_number(segment, "rtt", where)
        if not 0.0 <= rtt_ms <= MAX_RTT_MS:
            raise TraceFormatError(
                f"{where}.rtt={rtt_ms:g} is outside 0...{MAX_RTT_MS:g}; it is in milliseconds."
            )
        rtts.append(rtt_ms)
    if not rtts:
        return None
    return np.array([rtts[0]] * waiting + rtts)


def _cut_glitches(
    path: Path, capacity_bps: NDArray[np.float64], max_capacity_bps: float | None
) -> NDArray[np.float64]:
    limit_bps = GLITCH_BPS if max_capacity_bps is None else max_capacity_bps
    glitches = int((capacity_bps > limit_bps).sum())
    if glitches:
        logger.warning(
            "%s: %d of %d segments are above %g bps (up to %g), %s",
            path,
            glitches,
            len(capacity_bps),
            limit_bps,
            capacity_bps.max(),
            "probably glitches; pass max_capacity_bps to cut them"
            if max_capacity_bps is None
            else "and were cut to it",
        )
    if max_capacity_bps is None:
        return capacity_bps
    return np.minimum(capacity_bps, max_capacity_bps)

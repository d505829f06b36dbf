"""Drawn capacities for scenarios and tests: constant, step, square wave."""

from __future__ import annotations

from bwe_env.errors import TraceFormatError
from bwe_env.trace.trace import Trace
from bwe_env.units import bps_to_kbps


def constant(capacity_bps: float, *, duration_s: float = 60.0, name: str | None = None) -> Trace:
    """A capacity that never changes."""
    return _pattern(
        [0.0], [capacity_bps], duration_s, name or f"constant-{_kbps(capacity_bps)}", "constant"
    )


def step(
    before_bps: float,
    after_bps: float,
    *,
    at_s: float = 30.0,
    duration_s: float = 60.0,
    name: str | None = None,
) -> Trace:
    """One change at `at_s`. A call longer than `duration_s` meets it again in the next round."""
    if not 0.0 < at_s < duration_s:
        raise TraceFormatError(
            f"step: at_s={at_s} must lie inside the trace, between 0 and duration_s={duration_s}."
        )
    return _pattern(
        [0.0, at_s],
        [before_bps, after_bps],
        duration_s,
        name or f"step-{_kbps(before_bps)}-{_kbps(after_bps)}-at-{at_s:g}s",
        "step",
    )


def square(
    first_bps: float, second_bps: float, *, half_period_s: float = 30.0, name: str | None = None
) -> Trace:
    """Two capacities in turn, each for `half_period_s`, for ever."""
    return _pattern(
        [0.0, half_period_s],
        [first_bps, second_bps],
        2.0 * half_period_s,
        name or f"square-{_kbps(first_bps)}-{_kbps(second_bps)}-every-{half_period_s:g}s",
        "square",
    )


def _kbps(capacity_bps: float) -> str:
    return f"{bps_to_kbps(capacity_bps):g}k"


def _pattern(
    time_s: list[float], capacity_bps: list[float], end_s: float, name: str, generator: str
) -> Trace:
    return Trace.from_points(
        time_s,
        capacity_bps,
        name=name,
        network_type="pattern",
        source=f"bwe_env.trace.{generator}",
        end_s=end_s,
    )

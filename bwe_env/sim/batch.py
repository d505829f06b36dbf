"""One decision interval for a range of calls: decide, advance, judge, observe."""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, entry, kernel
from bwe_env.sim.advance import advance_one
from bwe_env.sim.call import STATUS_ACTIVE
from bwe_env.sim.decision import apply_decision
from bwe_env.sim.sender import schedule_pacer
from bwe_env.sim.step import finish_interval, mean_capacity_bps

# How `values` of `step_calls` are meant.
MODE_NONE = 0  # not at all: GCC drives alone
MODE_RATE = 1  # target rates in bps
MODE_SCALE = 2  # factors on GCC's target
MODE_CONFIG = 3  # parameters of GCC, which `World.step` sets before the interval

#: The core's mode for that of an action.
CORE_MODES = {"rate": MODE_RATE, "scale": MODE_SCALE, "config": MODE_CONFIG}


@kernel
def decide(call: Record, flow: Record, mode: int, value: float) -> None:
    """Let one number act; see the modes."""
    now_us = call.now_us
    if mode == MODE_RATE:
        apply_decision(flow, int(value + 0.5), 0, 0, 0, now_us)
    elif mode == MODE_SCALE and flow.scale != value:
        flow.scale = value
        target_bps = int(value * flow.gcc.target_rate_bps + 0.5)
        apply_decision(flow, target_bps, 0, flow.gcc.padding_rate_bps, 0, now_us)
    schedule_pacer(flow, now_us)


@entry
def step_calls(
    calls: np.ndarray,
    flows: np.ndarray,
    packets: np.ndarray,
    frames: np.ndarray,
    messages: np.ndarray,
    sources: np.ndarray,
    tcp_rows: np.ndarray,
    queues: np.ndarray,
    segments: np.ndarray,
    steps: np.ndarray,
    history: np.ndarray,
    telemetry: np.ndarray,
    weights: np.ndarray,
    mode: int,
    values: np.ndarray,
    interval_us: int,
    duration_us: int,
    active: np.ndarray,
    first: int,
    last: int,
) -> int:
    """Run the active calls among ``first..last - 1`` for one interval.

    Args:
        values: float64, one per call; see the modes.
        active: bool, one per call; the others are left as they are.

    Returns:
        The largest status of the calls that ran: above `STATUS_DROPPED` for a full ring.
    """
    worst = STATUS_ACTIVE
    for env in range(first, last):
        if not active[env]:
            continue
        call = calls[env]
        index = call.first_flow
        flow = flows[index]
        decide(call, flow, mode, values[env])
        until_us = (flow.window.steps + 1) * interval_us
        advance_one(
            calls,
            flows,
            packets,
            frames,
            messages,
            sources,
            tcp_rows,
            queues,
            segments,
            env,
            until_us,
        )
        finish_interval(
            call,
            flow,
            steps[env],
            weights[0],
            packets[index],
            queues[env],
            history[env],
            telemetry[env],
            mean_capacity_bps(call, flow, segments),
            interval_us,
            duration_us,
        )
        worst = max(worst, call.status)
    return worst

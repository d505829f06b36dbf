"""One decision interval for a range of calls: decide, advance, judge, observe."""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import entry
from bwe_env.sim.advance import advance_one
from bwe_env.sim.decision import apply_decision
from bwe_env.sim.sender import schedule_pacer
from bwe_env.sim.step import finish_interval

# How `values` of `step_calls` are meant.
MODE_NONE = 0  # not at all: GCC drives alone
MODE_RATE = 1  # target rates in bps
MODE_SCALE = 2  # factors on GCC's target


@entry
def decide(
    calls: np.ndarray, flows: np.ndarray, mode: int, values: np.ndarray, first: int, last: int
) -> None:
    """Let one number per call act, for calls ``first..last - 1``."""
    for env in range(first, last):
        flow = flows[calls[env].first_flow]
        if mode == MODE_RATE:
            apply_decision(flow, int(values[env] + 0.5), 0, 0, 0)
        elif mode == MODE_SCALE:
            if flow.scale != values[env]:
                flow.scale = values[env]
                apply_decision(
                    flow,
                    int(flow.scale * flow.gcc.target_rate_bps + 0.5),
                    0,
                    flow.gcc.padding_rate_bps,
                    0,
                )
        schedule_pacer(flow, calls[env].now_us)


@entry
def judge(
    calls: np.ndarray,
    flows: np.ndarray,
    packets: np.ndarray,
    queues: np.ndarray,
    segments: np.ndarray,
    steps: np.ndarray,
    history: np.ndarray,
    weights: np.ndarray,
    interval_us: int,
    duration_us: int,
    active: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Fill steps and newest history rows of the active calls among ``first..last - 1``."""
    for env in range(first, last):
        if active[env]:
            index = calls[env].first_flow
            flow = flows[index]
            finish_interval(
                calls[env],
                flow,
                flow.window,
                steps[env],
                weights[0],
                packets[index],
                queues[env],
                segments,
                history[env],
                interval_us,
                duration_us,
            )


@entry
def step_calls(
    calls: np.ndarray,
    flows: np.ndarray,
    packets: np.ndarray,
    frames: np.ndarray,
    messages: np.ndarray,
    queues: np.ndarray,
    segments: np.ndarray,
    steps: np.ndarray,
    history: np.ndarray,
    weights: np.ndarray,
    mode: int,
    values: np.ndarray,
    interval_us: int,
    duration_us: int,
    active: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Run the active calls among ``first..last - 1`` for one interval.

    Args:
        values: float64, one per call; see the modes.
        active: bool, one per call; the others are left as they are.
    """
    for env in range(first, last):
        if not active[env]:
            continue
        decide(calls, flows, mode, values, env, env + 1)
        call = calls[env]
        until_us = (flows[call.first_flow].window.steps + 1) * interval_us
        advance_one(calls, flows, packets, frames, messages, queues, segments, env, until_us)
    judge(
        calls,
        flows,
        packets,
        queues,
        segments,
        steps,
        history,
        weights,
        interval_us,
        duration_us,
        active,
        first,
        last,
    )

"""Competing calls under a controller of their own: their decisions, and how their intervals end.

What is done for the call itself in `step_calls` is done here for the others in its queue, by the
same kernels and at the same times. Nobody pays for it who plays without a `Competitor`.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import NEVER, Record, entry, kernel
from bwe_env.sim.batch import decide
from bwe_env.sim.events import EVENT_PROCESS
from bwe_env.sim.step import finish_interval, observe_flow, step_reset
from bwe_env.telemetry import telemetry_fill


@kernel
def has_hung_up(flow: Record) -> bool:
    """Whether a competing call has lost its consent: none of its timers will come."""
    return bool(flow.timers_us[EVENT_PROCESS] == NEVER)


@entry
def begin_competing(
    calls: np.ndarray,
    flows: np.ndarray,
    steps: np.ndarray,
    history: np.ndarray,
    telemetry: np.ndarray,
) -> None:
    """Fill the rows of all competing calls as they are before their first interval.

    Args:
        steps: STEP, shape (num_envs, competing calls).
        history: float32, shape (num_envs, competing calls, history, features).
        telemetry: TELEMETRY, as `steps`.
    """
    for env in range(len(calls)):
        call = calls[env]
        for number in range(1, call.num_flows):
            flow = flows[call.first_flow + number]
            row = number - 1
            step_reset(call, flow, steps[env, row])
            observe_flow(flow, history[env, row], 1, flow.start_us)
            telemetry_fill(telemetry[env, row], flow.monitor, float(flow.target_rate_bps), 0)


@entry
def decide_flows(
    calls: np.ndarray,
    flows: np.ndarray,
    mode: int,
    values: np.ndarray,
    first: int,
    last: int,
    active: np.ndarray,
) -> None:
    """Let one number act on each of the flows ``first..last - 1`` of active calls that have begun.

    Args:
        mode: see `bwe_env.sim.batch`.
        values: float64, shape (num_envs, ``last - first``).
    """
    for env in range(len(calls)):
        if not active[env]:
            continue
        call = calls[env]
        for number in range(first, min(last, call.num_flows)):
            flow = flows[call.first_flow + number]
            if call.now_us >= flow.start_us and not has_hung_up(flow):
                decide(call, flow, mode, values[env, number - first])


@entry
def finish_competing(
    calls: np.ndarray,
    flows: np.ndarray,
    packets: np.ndarray,
    queues: np.ndarray,
    own_steps: np.ndarray,
    steps: np.ndarray,
    history: np.ndarray,
    telemetry: np.ndarray,
    weights: np.ndarray,
    interval_us: int,
    duration_us: int,
    active: np.ndarray,
) -> None:
    """Judge and observe the interval that ends now for every competing call that has begun.

    Args:
        own_steps: STEP rows of the calls themselves, of the same interval.
        steps: shaped like `history` and `telemetry` as in `begin_competing`.
        active: calls that have just run.
    """
    for env in range(len(calls)):
        if not active[env]:
            continue
        call = calls[env]
        for number in range(1, call.num_flows):
            index = call.first_flow + number
            flow = flows[index]
            if call.now_us <= flow.start_us:
                continue
            row = number - 1
            finish_interval(
                call,
                flow,
                steps[env, row],
                weights[0],
                packets[index],
                queues[env],
                history[env, row],
                telemetry[env, row],
                own_steps[env].capacity_bps,
                interval_us,
                duration_us,
            )

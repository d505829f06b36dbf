"""Propagation delay with jitter: a packet waits for the one before it, or may overtake it.

At a hand-over the propagation delay steps to another value; what was sent before keeps the old one.
"""

from __future__ import annotations

import math

import numpy as np

from bwe_env.config import MAX_DELAY_STEPS
from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.rng import normal, uniform

JITTER_NONE = 0
JITTER_UNIFORM = 1
JITTER_NORMAL = 2

DELAY = record(
    [
        ("propagation_us", "i8"),
        ("jitter_mean_us", "f8"),  # of the normal
        ("jitter_scale_us", "f8"),  # mean of the uniform on [0, 2 scale], or sd of the normal
        ("jitter_correlation", "f8"),  # AR(1) coefficient of the normal, packet to packet
        ("jitter_state", "f8"),  # the AR(1) process, unit variance
        ("counter", "i8"),
        ("last_arrival_us", "i8"),
        ("added_us", "i8"),  # to the propagation delay, at present
        ("next_step_us", "i8"),  # when that changes; NEVER
        ("step", "i8"),  # steps taken
        ("num_steps", "i8"),
        ("jitter_distribution", "i1"),
        ("may_overtake", "i1"),  # 1: what enters later may arrive earlier
        ("step_from_us", "i8", (MAX_DELAY_STEPS,)),
        ("step_added_us", "i8", (MAX_DELAY_STEPS,)),
    ]
)


@kernel
def delay_reset(delay: Record) -> None:
    """Nothing has travelled yet."""
    delay.jitter_state = 0.0
    delay.counter = 0
    delay.last_arrival_us = 0
    delay.added_us = 0
    delay.step = 0
    delay.next_step_us = delay.step_from_us[0] if delay.num_steps > 0 else NEVER


@kernel
def _take_steps(delay: Record, now_us: int) -> None:
    """Go on to the added delay of `now_us`."""
    while delay.next_step_us <= now_us:
        delay.added_us = delay.step_added_us[delay.step]
        delay.step += 1
        delay.next_step_us = NEVER
        if delay.step < delay.num_steps:
            delay.next_step_us = delay.step_from_us[delay.step]


@kernel
def delay_arrival_us(delay: Record, key: np.uint64, stream: int, now_us: int) -> int:
    """When something that enters now arrives; not before what entered earlier, unless it may."""
    if now_us >= delay.next_step_us:
        _take_steps(delay, now_us)
    arrival_us = now_us + delay.propagation_us + delay.added_us
    if delay.jitter_distribution != JITTER_NONE:
        counter = delay.counter
        delay.counter = counter + 1
        if delay.jitter_distribution == JITTER_UNIFORM:
            extra_us = 2.0 * delay.jitter_scale_us * uniform(key, stream, counter)
        else:
            rho = delay.jitter_correlation
            noise = math.sqrt(1.0 - rho * rho) * normal(key, stream, counter)
            delay.jitter_state = rho * delay.jitter_state + noise
            extra_us = max(0.0, delay.jitter_mean_us + delay.jitter_scale_us * delay.jitter_state)
        arrival_us += int(extra_us)
    if arrival_us < delay.last_arrival_us and delay.may_overtake == 0:
        arrival_us = delay.last_arrival_us
    delay.last_arrival_us = arrival_us
    return arrival_us

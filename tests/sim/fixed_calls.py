"""Short calls in which something of everything happens, for comparisons bit by bit.

Run as a program (``python -m tests.sim.fixed_calls FILE.npz``) it writes what they gave.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.call_table import call_columns
from bwe_env.config import (
    AudioConfig,
    CallConfig,
    FecConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    OnOffTraffic,
    PathConfig,
    RelayConfig,
    RtxConfig,
    TcpTraffic,
    VideoConfig,
)
from bwe_env.network import Network
from bwe_env.sim.batch import step_calls
from bwe_env.trace import square
from bwe_env.vector_env import BandwidthEstimationVectorEnv

NETWORKS = (
    Network(
        trace=square(1.3e6, 0.4e6, half_period_s=0.7, name="lossy"),
        start_s=0.2,
        link=LinkConfig(queue_limit_s=0.1),
        forward=PathConfig(
            loss=LossConfig(good_loss=0.01, good_to_bad=0.02, bad_to_good=0.3),
            jitter=JitterConfig(distribution="normal", scale_s=0.01, correlation=0.8),
        ),
        reverse=PathConfig(
            loss=LossConfig(good_loss=0.05),
            jitter=JitterConfig(distribution="uniform", scale_s=0.005),
        ),
    ),
    Network(
        trace=square(0.5e6, 2.5e6, half_period_s=0.4, name="loss-first"),
        link=LinkConfig(queue_limit_bytes=12_000, loss_before_queue=True),
        forward=PathConfig(loss=LossConfig(good_loss=0.03)),
        relay=RelayConfig(
            forward=PathConfig(
                propagation_delay_s=0.01, jitter=JitterConfig(distribution="normal", scale_s=0.01)
            ),
            reverse=PathConfig(propagation_delay_s=0.0, loss=LossConfig(good_loss=0.02)),
        ),
    ),
)

#: Everything that can surround a call's queue.
CROWDED = (
    Network(
        trace=square(1.5e6, 0.6e6, half_period_s=0.7, name="crowded"),
        link=LinkConfig(
            queue_limit_s=0.2, discipline="codel", grant_interval_s=0.008, grant_spread=0.7
        ),
        forward=PathConfig(
            delay_steps=((0.8, 0.04), (1.6, 0.01)),
            loss=LossConfig(replay=(False,) * 37 + (True, False, True)),
        ),
        cross_traffic=(
            OnOffTraffic(rate_bps=6e5, mean_on_s=0.3, mean_off_s=0.2),
            TcpTraffic(algorithm="cubic", rtt_s=0.03, stop_s=2.0),
        ),
    ),
    Network(
        trace=square(0.8e6, 2.5e6, half_period_s=0.4, name="policed"),
        link=LinkConfig(
            queue_limit_s=0.4, discipline="pie", policer_rate_bps=1.8e6, max_wait_s=0.12
        ),
        cross_traffic=(
            TcpTraffic(algorithm="reno", rtt_s=0.05, start_s=0.3),
            TcpTraffic(rtt_s=0.03, min_file_bytes=3_000, max_file_bytes=30_000, mean_idle_s=0.2),
        ),
        competing_calls=1,
        competing_start_s=(0.4,),
        competing_added_delay_s=(0.02,),
    ),
)

#: Packets that overtake each other, on the path itself and behind a relay.
OVERTAKING = (
    Network(
        trace=square(1.3e6, 0.4e6, half_period_s=0.7, name="overtaking"),
        link=LinkConfig(queue_limit_s=0.1),
        forward=PathConfig(
            loss=LossConfig(good_loss=0.02),
            jitter=JitterConfig(distribution="uniform", scale_s=0.03),
            keeps_order=False,
        ),
        reverse=PathConfig(loss=LossConfig(good_loss=0.05)),
    ),
    Network(
        trace=square(0.8e6, 2.5e6, half_period_s=0.4, name="overtaking-late"),
        relay=RelayConfig(
            forward=PathConfig(
                jitter=JitterConfig(distribution="normal", scale_s=0.02, correlation=0.5),
                keeps_order=False,
                delay_steps=((0.5, 0.06), (1.5, 0.0)),
            ),
        ),
    ),
)

CALL = CallConfig(
    duration_s=2.5,
    video=VideoConfig(
        scene_change_interval_s=1.0,
        pause_from_s=1.1,
        pause_until_s=1.4,
        fec=FecConfig(enabled=True),
    ),
)

#: The same with all that a sender can do about loss but does not by default.
PROTECTED_CALL = replace(
    CALL,
    audio=AudioConfig(redundancy=2),
    video=replace(CALL.video, rtx=RtxConfig(rate_share=0.02, max_age_s=0.15)),
)

#: What `play` plays, by name: mode, networks, call.
PLAYS = {
    "rate": ("rate", NETWORKS, CALL),
    "scale": ("scale", NETWORKS, CALL),
    "crowded": ("scale", CROWDED, CALL),
    "overtaking": ("scale", OVERTAKING, CALL),
    "protected": ("scale", OVERTAKING, PROTECTED_CALL),
}


def play(name: str) -> dict[str, NDArray[Any]]:
    """Two networks at once under actions that need every decimal."""
    mode, networks, call = PLAYS[name]
    env = BandwidthEstimationVectorEnv(
        2, call=call, networks=networks, action_mode=mode, autoreset_mode="disabled"
    )
    actions = np.random.default_rng(11)
    observations = [env.reset(seed=3, options={"network_index": np.array([0, 1])})[0]]
    rewards, steps = [], []
    for _ in range(call.steps):
        observation, reward, *_ = env.step(actions.uniform(-1.0, 1.0, (2, 1)).astype(np.float32))
        observations.append(observation)
        rewards.append(reward)
        steps.append(env.last_steps.copy())
    world = env._world
    result = {
        "observations": np.array(observations),
        "rewards": np.array(rewards),
        "steps": np.array(steps).view(np.float64),
        **call_columns(world, np.array(steps, dtype=world.steps.dtype), call),
    }
    result["audio"] = np.frombuffer(world.flows["audio"].tobytes(), dtype=np.uint8)
    for array in ("packets", "frames", "messages", "sources", "tcp_rows"):
        result[array] = np.frombuffer(getattr(world, array).tobytes(), dtype=np.uint8)
    return result


def main() -> None:
    """Write the results of all plays to the file that the command line names."""
    if hasattr(step_calls, "py_func"):
        raise SystemExit("numba has compiled the kernels; set NUMBA_DISABLE_JIT=1.")
    with np.errstate(over="ignore"):  # the random numbers wrap around on purpose
        results = {name: play(name) for name in PLAYS}
    np.savez(
        sys.argv[1],
        **{f"{play}.{name}": a for play, columns in results.items() for name, a in columns.items()},
    )


if __name__ == "__main__":
    main()

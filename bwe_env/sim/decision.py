"""The one door: whoever sets the rate ends in `apply_decision`."""

from __future__ import annotations

from bwe_env.sim._jit import Record, kernel
from bwe_env.sim.flow import CONTROLLER_ACTION, CONTROLLER_GCC
from bwe_env.sim.pacer import pacer_set_rates
from bwe_env.sim.prober import prober_request


@kernel
def apply_decision(
    flow: Record,
    target_rate_bps: int,
    pacing_rate_bps: int,
    padding_rate_bps: int,
    cwnd_bytes: int,
    now_us: int,
) -> None:
    """Let a rate decision act: on the pacer at once, on the encoder at its next frame.

    Args:
        target_rate_bps: clipped to the call's minimum and maximum.
        pacing_rate_bps: 0 derives it from the target as GCC does (pacing factor).
        padding_rate_bps: 0 for none.
        cwnd_bytes: 0 for no window.
    """
    target_bps = min(flow.max_rate_bps, max(flow.min_rate_bps, target_rate_bps))
    flow.target_rate_bps = target_bps
    # GCC's window is for what is really sent; where GCC is alone, it knows that itself.
    is_set = flow.controller == CONTROLLER_ACTION or flow.scale != 1.0
    flow.gcc.window.set_target_bps = target_bps if is_set else 0
    if pacing_rate_bps <= 0:
        pacing_rate_bps = int(flow.gcc_parameters.pacing_factor * target_bps + 0.5)
    pacer_set_rates(flow.pacer, pacing_rate_bps, padding_rate_bps, now_us)
    flow.pacer.cwnd_bytes = cwnd_bytes


@kernel
def follow_gcc(flow: Record, now_us: int) -> None:
    """After any GCC kernel: publish its decision if it is in control, and take its probes.

    A scaled target keeps GCC's padding and probes; pacing follows the scaled target. GCC's own
    state never sees the scale. In the shadow, GCC's wishes are dropped.
    """
    gcc = flow.gcc
    if flow.controller != CONTROLLER_GCC:
        gcc.num_probes = 0
        return
    if flow.scale == 1.0:
        apply_decision(
            flow, gcc.target_rate_bps, gcc.pacing_rate_bps, gcc.padding_rate_bps, 0, now_us
        )
    else:
        scaled_bps = int(flow.scale * gcc.target_rate_bps + 0.5)
        apply_decision(flow, scaled_bps, 0, gcc.padding_rate_bps, 0, now_us)
    if gcc.num_probes > 0:
        flow.pacer.is_due = 1
    for index in range(gcc.num_probes):
        probe = gcc.probes[index]
        prober_request(
            flow.pacer.prober,
            probe.id,
            probe.target_rate_bps,
            probe.min_duration_us,
            probe.min_delta_us,
            probe.min_packets,
            now_us,
        )
    gcc.num_probes = 0

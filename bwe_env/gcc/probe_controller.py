"""When to probe for more bandwidth, and how fast.

Follows GCC/probe_controller.cc of libwebrtc M150, without the parts that need a network-state
estimate (off by default). The clusters it asks for are appended to `gcc.probes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bwe_env.gcc.probe_bitrate_estimator import probe_declare
from bwe_env.gcc.rates import INFINITE_RATE, bytes_in, scale
from bwe_env.sim._jit import NEVER, Record, kernel, record

#: Waiting for the start, for probe results, or for a reason to probe (ProbeController::State).
INIT, WAITING, COMPLETE = 0, 1, 2

#: What limits the estimate (BandwidthLimitedCause): nothing that forbids probes, loss while
#: increasing (small probes), or delay, RTT and loss (no probes).
FREE, LOSS_INCREASING, NO_PROBES = 0, 1, 2

#: Arguments of `_initiate`. Typed, because a plain number would compile its own version.
NO_SECOND: Any = np.int64(0)
LAST: Any = np.int64(0)
FURTHER: Any = np.int64(1)

#: libwebrtc's timers begin at "Timestamp 0", long before a call. Ours begin at the call, so "0" is
#: this long ago (the vectors were recorded from 100 s on).
_LONG_AGO_US = 100_000_000

#: Clusters requested and not yet taken; two are requested at a time.
MAX_REQUESTED_CLUSTERS = 8

PROBE_CLUSTER = record(
    [
        ("id", "i8"),
        ("target_rate_bps", "i8"),
        ("min_duration_us", "i8"),
        ("min_delta_us", "i8"),  # between bursts
        ("min_packets", "i8"),
    ]
)

PROBE_CONTROLLER = record(
    [
        ("estimate_bps", "i8"),  # last published target
        ("start_rate_bps", "i8"),
        ("max_rate_bps", "i8"),
        ("max_total_allocated_bps", "i8"),  # 0 for not told
        ("min_to_probe_further_bps", "i8"),  # INFINITE_RATE for not going on
        ("before_drop_bps", "i8"),  # estimate before the last large drop
        ("drop_us", "i8"),  # when that was
        ("drop_probed_us", "i8"),  # last probe because of a drop
        ("probing_us", "i8"),  # last request of clusters
        ("repeat_until_us", "i8"),  # end of repeated initial probing
        ("alr_started_us", "i8"),  # as of the last look, NEVER for not limited
        ("alr_ended_us", "i8"),  # -NEVER for never
        ("next_id", "i8"),
        ("state", "i1"),
        ("limited_by", "i1"),
        ("is_available", "i1"),  # the network
        ("alr_probing", "i1"),
        ("repeated_initial_probing", "i1"),
    ]
)


@kernel
def probe_reset(probe: Record, p: Record, now_us: int) -> None:
    """Nothing known, network not available."""
    probe.estimate_bps = 0
    probe.start_rate_bps = 0
    probe.max_rate_bps = p.default_max_probe_bps
    probe.max_total_allocated_bps = 0
    probe.min_to_probe_further_bps = INFINITE_RATE
    probe.before_drop_bps = 0
    probe.drop_us = now_us - _LONG_AGO_US
    probe.drop_probed_us = now_us - _LONG_AGO_US
    probe.probing_us = now_us - _LONG_AGO_US
    probe.repeat_until_us = -NEVER
    probe.alr_started_us = NEVER
    probe.alr_ended_us = -NEVER
    probe.next_id = 1
    probe.state = INIT
    probe.limited_by = FREE
    probe.is_available = 0
    probe.alr_probing = p.alr_probing
    probe.repeated_initial_probing = p.repeated_initial_probing


@kernel
def _complete(probe: Record) -> None:
    probe.state = COMPLETE
    probe.min_to_probe_further_bps = INFINITE_RATE


@kernel
def _request_cluster(gcc: Record, p: Record, rate_bps: int, now_us: int) -> None:
    probe = gcc.probe
    cluster_id = probe.next_id
    probe.next_id += 1
    if gcc.num_probes == MAX_REQUESTED_CLUSTERS:
        return  # nobody takes them
    cluster = gcc.probes[gcc.num_probes]
    gcc.num_probes += 1
    is_initial = now_us < probe.repeat_until_us
    cluster.id = cluster_id
    cluster.target_rate_bps = rate_bps
    cluster.min_duration_us = p.initial_probe_us if is_initial else p.probe_us
    cluster.min_delta_us = p.initial_probe_delta_us if is_initial else p.probe_delta_us
    cluster.min_packets = p.probe_min_packets
    min_bytes = bytes_in(rate_bps, cluster.min_duration_us)
    probe_declare(gcc.probe_estimator, cluster_id, p.probe_min_packets, min_bytes)


@kernel
def _max_probe_bps(probe: Record, p: Record) -> int:
    limit_bps = probe.max_rate_bps
    if probe.max_total_allocated_bps > 0:
        limit_bps = min(limit_bps, 2 * probe.max_total_allocated_bps)
    if probe.limited_by == LOSS_INCREASING:
        limit_bps = min(limit_bps, scale(probe.estimate_bps, p.loss_limited_probe_scale))
    return int(limit_bps)


@kernel
def _initiate(
    gcc: Record, p: Record, first_bps: int, second_bps: int, further: int, now_us: int
) -> None:
    """Request clusters at one or two rates, unless the bandwidth is limited by something.

    Args:
        second_bps: NO_SECOND for none.
        further: FURTHER if a good result is to lead to the next probe, else LAST.
    """
    probe = gcc.probe
    if probe.limited_by == NO_PROBES:
        return
    limit_bps = _max_probe_bps(probe, p)
    last_bps = first_bps if second_bps == 0 else second_bps
    _request_cluster(gcc, p, min(first_bps, limit_bps), now_us)
    if second_bps != 0:
        _request_cluster(gcc, p, min(second_bps, limit_bps), now_us)
    probe.probing_us = now_us
    if further == FURTHER and first_bps < limit_bps and last_bps < limit_bps:
        probe.state = WAITING
        probe.min_to_probe_further_bps = scale(last_bps, p.further_probe_threshold)
    else:
        _complete(probe)


@kernel
def _initiate_exponential(gcc: Record, p: Record, now_us: int) -> None:
    probe = gcc.probe
    if probe.repeated_initial_probing == 1 and probe.max_total_allocated_bps == 0:
        probe.repeat_until_us = now_us + p.initial_probing_period_us
    first_bps = scale(probe.start_rate_bps, p.first_probe_scale)
    second_bps = scale(probe.start_rate_bps, p.second_probe_scale)
    _initiate(gcc, p, first_bps, second_bps, FURTHER, now_us)


@kernel
def probe_set_rates(
    gcc: Record, p: Record, min_rate_bps: int, start_rate_bps: int, max_rate_bps: int, now_us: int
) -> None:
    """New constraints; a raised maximum is probed at once.

    Args:
        start_rate_bps: 0 or less to leave the estimate alone.
        max_rate_bps: 0 or less for none.
    """
    probe = gcc.probe
    if start_rate_bps > 0:
        probe.start_rate_bps = start_rate_bps
        probe.estimate_bps = start_rate_bps
    elif probe.start_rate_bps == 0:
        probe.start_rate_bps = min_rate_bps
    old_max_bps = probe.max_rate_bps
    probe.max_rate_bps = max_rate_bps if max_rate_bps > 0 else p.default_max_probe_bps
    if probe.state == INIT:
        if probe.is_available == 1:
            _initiate_exponential(gcc, p, now_us)
    elif probe.state == COMPLETE:
        is_raised = old_max_bps < probe.max_rate_bps
        if is_raised and 0 < probe.estimate_bps < probe.max_rate_bps:
            _initiate(gcc, p, probe.max_rate_bps, NO_SECOND, LAST, now_us)


@kernel
def probe_set_available(gcc: Record, p: Record, is_available: bool, now_us: int) -> None:
    """The network comes or goes; the first coming starts the initial probes."""
    probe = gcc.probe
    probe.is_available = is_available
    if is_available:
        if probe.state == INIT and probe.start_rate_bps > 0:
            _initiate_exponential(gcc, p, now_us)
    elif probe.state == WAITING:
        _complete(probe)


@kernel
def _probe_allocation(gcc: Record, p: Record, allocated_bps: int, now_us: int) -> None:
    """Probe once or twice for a raised allocation, no further than the estimate permits."""
    probe = gcc.probe
    if p.first_allocation_probe_scale == 0.0:
        return
    limit_bps = INFINITE_RATE
    if p.allocation_probe_limit_scale > 0.0:
        limit_bps = scale(probe.estimate_bps, p.allocation_probe_limit_scale)
    first_bps = scale(allocated_bps, p.first_allocation_probe_scale)
    is_limited = limit_bps < first_bps
    first_bps = min(first_bps, limit_bps)
    second_bps = 0
    if not is_limited and p.second_allocation_probe_scale > 0.0:
        wanted_bps = scale(allocated_bps, p.second_allocation_probe_scale)
        is_limited = limit_bps < wanted_bps
        wanted_bps = min(wanted_bps, limit_bps)
        if wanted_bps > first_bps:
            second_bps = wanted_bps
    _initiate(gcc, p, first_bps, second_bps, int(is_limited), now_us)


@kernel
def probe_set_allocated(gcc: Record, p: Record, allocated_bps: int, now_us: int) -> None:
    """What the streams can use at most has changed."""
    probe = gcc.probe
    is_news = (
        probe.state == COMPLETE
        and allocated_bps != probe.max_total_allocated_bps
        and probe.estimate_bps < min(probe.max_rate_bps, allocated_bps)
        and probe.alr_started_us != NEVER
    )
    if not is_news and allocated_bps > 0:
        probe.repeat_until_us = now_us
    probe.max_total_allocated_bps = allocated_bps
    if is_news:
        _probe_allocation(gcc, p, allocated_bps, now_us)


@kernel
def probe_set_estimate(
    gcc: Record, p: Record, estimate_bps: int, limited_by: int, now_us: int
) -> None:
    """A published target; where it answers a probe well, probe further."""
    probe = gcc.probe
    probe.limited_by = limited_by
    if estimate_bps < scale(probe.estimate_bps, p.drop_threshold):
        probe.drop_us = now_us
        probe.before_drop_bps = probe.estimate_bps
    probe.estimate_bps = estimate_bps
    if probe.state == WAITING and estimate_bps > probe.min_to_probe_further_bps:
        _initiate(gcc, p, scale(estimate_bps, p.further_probe_scale), NO_SECOND, FURTHER, now_us)


@kernel
def probe_after_drop(gcc: Record, p: Record, now_us: int) -> None:
    """The detector has returned from under-use: see whether a recent drop is over."""
    probe = gcc.probe
    is_alr_recent = now_us - probe.alr_ended_us < p.alr_ended_timeout_us
    if probe.state != COMPLETE or not (probe.alr_started_us != NEVER or is_alr_recent):
        return
    suggested_bps = scale(probe.before_drop_bps, p.drop_probe_scale)
    if (
        scale(suggested_bps, 1.0 - p.probe_uncertainty) > probe.estimate_bps
        and now_us - probe.drop_us < p.drop_timeout_us
        and now_us - probe.drop_probed_us > p.drop_probe_interval_us
    ):
        probe.drop_probed_us = now_us
        _initiate(gcc, p, suggested_bps, NO_SECOND, LAST, now_us)


@kernel
def probe_process(gcc: Record, p: Record, now_us: int) -> None:
    """Time passes: give up waiting, repeat initial probes, probe while application limited."""
    probe = gcc.probe
    waited_us = now_us - probe.probing_us
    if probe.state == WAITING and waited_us > p.probe_result_timeout_us:
        _complete(probe)
    if probe.state != COMPLETE or probe.estimate_bps == 0:
        return
    if now_us < probe.repeat_until_us and waited_us >= p.probe_result_timeout_us:
        _initiate(
            gcc, p, scale(probe.estimate_bps, p.first_probe_scale), NO_SECOND, FURTHER, now_us
        )
    elif probe.alr_probing == 1 and probe.alr_started_us != NEVER:
        last_us = max(probe.alr_started_us, probe.probing_us)
        if now_us >= last_us + p.alr_probe_interval_us:
            _initiate(
                gcc, p, scale(probe.estimate_bps, p.alr_probe_scale), NO_SECOND, FURTHER, now_us
            )

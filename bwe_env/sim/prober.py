"""Probe clusters on the wire: short trains of packets faster than the pacing rate.

Follows libwebrtc modules/pacing/bitrate_prober.cc: a cluster starts with the next packet of at
least 200 bytes, sends a burst every `delta_us`, and ends when it has sent both its bytes and its
bursts.
"""

from __future__ import annotations

from bwe_env.sim._jit import Record, kernel, record

MAX_PENDING_CLUSTERS = 5  # kMaxPendingProbeClusters, bitrate_prober.cc; it keeps one more
CLUSTER_TIMEOUT_US = 5_000_000  # kProbeClusterTimeout, bitrate_prober.cc
MIN_PACKET_BYTES = 200  # min_packet_size, bitrate_prober.cc
MAX_PROBE_DELAY_US = 10_000  # max_probe_delay, bitrate_prober.cc
AT_ONCE = -1  # `next_probe_us` of a prober that has just become active

_RING = MAX_PENDING_CLUSTERS + 1

CLUSTER = record(
    [
        ("id", "i8"),
        ("rate_bps", "i8"),
        ("min_bytes", "i8"),
        ("min_bursts", "i8"),
        ("delta_us", "i8"),  # between bursts
        ("requested_us", "i8"),
        ("started_us", "i8"),
        ("sent_bytes", "i8"),
        ("sent_bursts", "i8"),
    ]
)

PROBER = record(
    [
        ("clusters", CLUSTER, (_RING,)),  # a ring of num_clusters from head on
        ("head", "i8"),
        ("num_clusters", "i8"),
        ("next_probe_us", "i8"),  # of the active cluster
        ("is_active", "i1"),
    ]
)


@kernel
def prober_reset(prober: Record) -> None:
    """No clusters."""
    prober.head = 0
    prober.num_clusters = 0
    prober.next_probe_us = AT_ONCE
    prober.is_active = 0


@kernel
def _pop(prober: Record) -> None:
    prober.head = (prober.head + 1) % _RING
    prober.num_clusters -= 1
    if prober.num_clusters == 0:
        prober.is_active = 0


@kernel
def prober_request(
    prober: Record,
    cluster_id: int,
    rate_bps: int,
    duration_us: int,
    delta_us: int,
    min_bursts: int,
    now_us: int,
) -> None:
    """Queue a cluster; the oldest leave when they have timed out or too many wait."""
    while prober.num_clusters > 0 and (
        prober.num_clusters > MAX_PENDING_CLUSTERS
        or now_us - prober.clusters[prober.head].requested_us > CLUSTER_TIMEOUT_US
    ):
        _pop(prober)
    cluster = prober.clusters[(prober.head + prober.num_clusters) % _RING]
    cluster.id = cluster_id
    cluster.rate_bps = rate_bps
    cluster.min_bytes = (rate_bps * duration_us + 4_000_000) // 8_000_000
    cluster.min_bursts = min_bursts
    cluster.delta_us = delta_us
    cluster.requested_us = now_us
    cluster.started_us = -1
    cluster.sent_bytes = 0
    cluster.sent_bursts = 0
    prober.num_clusters += 1


@kernel
def prober_burst_bytes(prober: Record) -> int:
    """What one burst of the present cluster should hold."""
    cluster = prober.clusters[prober.head]
    return int((cluster.rate_bps * cluster.delta_us + 4_000_000) // 8_000_000)


@kernel
def prober_on_packet_queued(prober: Record, payload_bytes: int) -> None:
    """A packet is at hand: enough to start with, if it is large enough."""
    if prober.is_active == 1 or prober.num_clusters == 0:
        return
    if payload_bytes >= min(prober_burst_bytes(prober), MIN_PACKET_BYTES):
        prober.is_active = 1
        prober.next_probe_us = AT_ONCE


@kernel
def prober_next_us(prober: Record, now_us: int) -> int:
    """When the next burst of an active prober is due, perhaps in the past."""
    if prober.next_probe_us == AT_ONCE:
        return now_us
    return int(prober.next_probe_us)


@kernel
def prober_begin_burst(prober: Record, now_us: int) -> bool:
    """Whether an active prober has a cluster to go on with; one that comes too late is dropped."""
    if prober.next_probe_us != AT_ONCE and now_us - prober.next_probe_us > MAX_PROBE_DELAY_US:
        _pop(prober)
    return bool(prober.num_clusters > 0)


@kernel
def prober_give_up(prober: Record) -> None:
    """Drop the present cluster: nothing could be sent for it."""
    _pop(prober)


@kernel
def prober_on_burst_sent(prober: Record, size_bytes: int, now_us: int) -> None:
    """Account for one burst of the present cluster and schedule the next."""
    cluster = prober.clusters[prober.head]
    if cluster.started_us < 0:
        cluster.started_us = now_us
    cluster.sent_bytes += size_bytes
    cluster.sent_bursts += 1
    elapsed_us = (cluster.sent_bytes * 8_000_000) // cluster.rate_bps
    prober.next_probe_us = cluster.started_us + elapsed_us
    if cluster.sent_bytes >= cluster.min_bytes and cluster.sent_bursts >= cluster.min_bursts:
        _pop(prober)

"""Probe clusters on the wire: short trains of packets faster than the pacing rate.

Follows libwebrtc modules/pacing/bitrate_prober.cc: a cluster starts with the next packet of at
least 200 bytes, sends a burst every `delta_us`, and ends when it has sent both its bytes and its
bursts.
"""

from __future__ import annotations

from bwe_env.sim._jit import NEVER, Record, kernel, record

MAX_PENDING_CLUSTERS = 5  # kMaxPendingProbeClusters, bitrate_prober.cc
CLUSTER_TIMEOUT_US = 5_000_000  # kProbeClusterTimeout, bitrate_prober.cc
MIN_PACKET_BYTES = 200  # min_packet_size, bitrate_prober.cc
MAX_PROBE_DELAY_US = 10_000  # max_probe_delay, bitrate_prober.cc

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
        ("clusters", CLUSTER, (MAX_PENDING_CLUSTERS,)),  # a ring of num_clusters from head on
        ("head", "i8"),
        ("num_clusters", "i8"),
        ("next_probe_us", "i8"),  # of the active cluster; 0 for at once
        ("is_active", "i1"),
    ]
)


@kernel
def prober_reset(prober: Record) -> None:
    """No clusters."""
    prober.head = 0
    prober.num_clusters = 0
    prober.next_probe_us = 0
    prober.is_active = 0


@kernel
def _pop(prober: Record) -> None:
    prober.head = (prober.head + 1) % MAX_PENDING_CLUSTERS
    prober.num_clusters -= 1
    prober.next_probe_us = 0
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
    """Queue a cluster; the oldest leave when they have timed out or there is no room."""
    while prober.num_clusters > 0 and (
        prober.num_clusters == MAX_PENDING_CLUSTERS
        or now_us - prober.clusters[prober.head].requested_us > CLUSTER_TIMEOUT_US
    ):
        _pop(prober)
    cluster = prober.clusters[(prober.head + prober.num_clusters) % MAX_PENDING_CLUSTERS]
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
def prober_on_packet_queued(prober: Record, size_bytes: int) -> None:
    """A media packet is at hand: enough to start with, if it is large enough."""
    if prober.is_active == 1 or prober.num_clusters == 0:
        return
    if size_bytes >= min(prober_burst_bytes(prober), MIN_PACKET_BYTES):
        prober.is_active = 1
        prober.next_probe_us = 0


@kernel
def prober_next_us(prober: Record, now_us: int) -> int:
    """When the next burst is due, `now_us` at the earliest; NEVER when nothing is probed."""
    while prober.is_active == 1 and now_us - prober.next_probe_us > MAX_PROBE_DELAY_US:
        if prober.next_probe_us == 0:
            break
        _pop(prober)
    if prober.is_active == 0:
        return NEVER
    return int(max(now_us, prober.next_probe_us))


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

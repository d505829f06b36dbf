"""Rates measured by clusters of probe packets.

Follows GCC/probe_bitrate_estimator.cc of libwebrtc M150. There every probe packet carries what its
cluster asked for; here the clusters are declared when they are requested and found by their id.
"""

from __future__ import annotations

from bwe_env.gcc.rates import NO_RATE, rate_of, scale
from bwe_env.sim._jit import NEVER, Record, kernel, record

#: Clusters remembered; ids follow each other, and a cluster lives about a second.
_CLUSTERS = 8

PROBED_CLUSTER = record(
    [
        ("id", "i8"),
        ("min_packets", "i8"),  # asked for
        ("min_bytes", "i8"),
        ("num_packets", "i8"),  # received
        ("total_bytes", "i8"),
        ("first_send_us", "i8"),
        ("last_send_us", "i8"),
        ("last_send_bytes", "i8"),  # size of the packet sent then
        ("first_arrival_us", "i8"),
        ("first_arrival_bytes", "i8"),  # size of the packet received then
        ("last_arrival_us", "i8"),
    ]
)

PROBE_ESTIMATOR = record(
    [
        ("result_bps", "i8"),  # of the last valid cluster, NO_RATE once taken
        ("clusters", PROBED_CLUSTER, (_CLUSTERS,)),  # cluster id is in row id % length
    ]
)


@kernel
def probe_estimator_reset(estimator: Record) -> None:
    """No clusters, no result."""
    estimator.result_bps = NO_RATE
    for row in range(_CLUSTERS):
        estimator.clusters[row].id = -1


@kernel
def _forget_packets(cluster: Record) -> None:
    cluster.num_packets = 0
    cluster.total_bytes = 0
    cluster.first_send_us = NEVER
    cluster.last_send_us = -NEVER
    cluster.last_send_bytes = 0
    cluster.first_arrival_us = NEVER
    cluster.first_arrival_bytes = 0
    cluster.last_arrival_us = -NEVER


@kernel
def probe_declare(estimator: Record, cluster_id: int, min_packets: int, min_bytes: int) -> None:
    """Say what a cluster asks for; packets already received for it stay."""
    cluster = estimator.clusters[cluster_id % _CLUSTERS]
    if cluster.id != cluster_id:
        cluster.id = cluster_id
        _forget_packets(cluster)
    cluster.min_packets = min_packets
    cluster.min_bytes = min_bytes


@kernel
def probe_result_bps(cluster: Record, p: Record) -> int:
    """The rate a cluster has measured, NO_RATE while or when it says nothing."""
    if cluster.num_packets < int(cluster.min_packets * p.probe_received_ratio):
        return NO_RATE
    if cluster.total_bytes < scale(cluster.min_bytes, p.probe_received_ratio):
        return NO_RATE
    send_us = cluster.last_send_us - cluster.first_send_us
    receive_us = cluster.last_arrival_us - cluster.first_arrival_us
    if send_us <= 0 or send_us > p.probe_max_interval_us:
        return NO_RATE
    if receive_us <= 0 or receive_us > p.probe_max_interval_us:
        return NO_RATE
    # The time to send the last packet, and to receive the first one, is not in these intervals.
    send_rate_bps = rate_of(cluster.total_bytes - cluster.last_send_bytes, send_us)
    receive_rate_bps = rate_of(cluster.total_bytes - cluster.first_arrival_bytes, receive_us)
    if receive_rate_bps > p.probe_max_ratio * send_rate_bps:
        return NO_RATE
    if receive_rate_bps < scale(send_rate_bps, p.probe_saturation_ratio):
        return scale(receive_rate_bps, p.probe_utilisation)
    return min(send_rate_bps, receive_rate_bps)


@kernel
def probe_estimator_add(
    estimator: Record, p: Record, cluster_id: int, arrival_us: int, send_us: int, size_bytes: int
) -> None:
    """Take one received probe packet, in order of arrival; `result_bps` may change."""
    cluster = estimator.clusters[cluster_id % _CLUSTERS]
    if cluster.id != cluster_id:
        return  # declared too long ago
    if cluster.last_arrival_us + p.probe_max_interval_us < arrival_us:
        _forget_packets(cluster)
    cluster.num_packets += 1
    cluster.total_bytes += size_bytes
    cluster.first_send_us = min(cluster.first_send_us, send_us)
    if send_us > cluster.last_send_us:
        cluster.last_send_us = send_us
        cluster.last_send_bytes = size_bytes
    if arrival_us < cluster.first_arrival_us:
        cluster.first_arrival_us = arrival_us
        cluster.first_arrival_bytes = size_bytes
    cluster.last_arrival_us = max(cluster.last_arrival_us, arrival_us)
    result_bps = probe_result_bps(cluster, p)
    if result_bps != NO_RATE:
        estimator.result_bps = result_bps


@kernel
def probe_take_result_bps(estimator: Record) -> int:
    """The last result since the last call, NO_RATE for none."""
    result_bps = estimator.result_bps
    estimator.result_bps = NO_RATE
    return int(result_bps)

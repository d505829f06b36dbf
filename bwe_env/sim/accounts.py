"""Ground truth in numbers: what a flow sent and what became of it, per interval and per call.

These sums feed rewards, metrics and conservation checks, never an observation.
"""

from __future__ import annotations

import numpy as np

from bwe_env.metrics import DELAY_BINS
from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.histogram import delay_bin
from bwe_env.sim.packet import (
    FATE_AQM_DROP,
    FATE_DELIVERED,
    FATE_PENDING,
    FATE_POLICER_DROP,
    FATE_QUEUE_DROP,
    FATE_RANDOM_LOSS,
    KIND_AUDIO,
    N_FATES,
    N_KINDS,
    REPORT_LOST,
)

#: Silence after which a connection no longer counts as ready: two consent checks. Ours.
READY_SILENCE_US = 5_000_000

TOTALS = record(
    [
        ("sent_packets", "i8", (N_KINDS,)),
        ("sent_bytes", "i8", (N_KINDS,)),
        ("fate_packets", "i8", (N_FATES,)),  # FATE_PENDING counts what is in flight now
        ("fate_bytes", "i8", (N_FATES,)),
        ("audio_lost_packets", "i8"),
        ("one_way_delay_sum_us", "i8"),  # of delivered packets
        ("queue_delay_sum_us", "i8"),  # waiting and service, of packets that left the bottleneck
        ("departed_packets", "i8"),
        ("newest_queue_delay_us", "i8"),  # of the packet that left last
        ("skipped_frames", "i8"),  # captured but not coded: pushback, a full pacer, a rate too low
        (
            "refused_packets",
            "i8",
        ),  # never sent: a ring's length was stuck in the queue (see sender)
        ("dropped_rtx", "i8"),  # retransmissions not sent: the queue for them was full
        ("inbound_us", "i8"),  # when anything arrived last, a consent check included
        ("not_ready_us", "i8"),  # silences that have ended, beyond `READY_SILENCE_US` of each
        ("fec_recovered", "i8"),  # video packets that FEC brought back
        ("duplicate_packets", "i8"),  # retransmissions of what was there, or of what is forgotten
        ("one_way_delay_bins", "i4", (DELAY_BINS,)),
        ("queue_delay_bins", "i4", (DELAY_BINS,)),
    ]
)

INTERVAL = record(
    [
        ("sent_packets", "i8"),
        ("sent_bytes", "i8"),
        ("arrived_packets", "i8"),
        ("arrived_bytes", "i8"),
        ("one_way_delay_sum_us", "i8"),
        ("departed_packets", "i8"),
        ("queue_delay_sum_us", "i8"),
        ("queue_drops", "i8"),
        ("random_losses", "i8"),
        ("aqm_drops", "i8"),
        ("policer_drops", "i8"),
        ("reported_random", "i8"),  # lost by chance, and first reported missing in this interval
        ("reported_congestion", "i8"),  # lost to `CONGESTION_FATES`, in the same way
        ("newest_arrival_send_us", "i8"),  # send time of the newest packet that arrived; lasting
    ]
)


@kernel
def interval_begin(interval: Record) -> None:
    """Start the next interval's sums at zero."""
    interval.sent_packets = 0
    interval.sent_bytes = 0
    interval.arrived_packets = 0
    interval.arrived_bytes = 0
    interval.one_way_delay_sum_us = 0
    interval.departed_packets = 0
    interval.queue_delay_sum_us = 0
    interval.queue_drops = 0
    interval.random_losses = 0
    interval.aqm_drops = 0
    interval.policer_drops = 0
    interval.reported_random = 0
    interval.reported_congestion = 0


@kernel
def accounts_reset(totals: Record, interval: Record) -> None:
    """Nothing sent."""
    for kind in range(N_KINDS):
        totals.sent_packets[kind] = 0
        totals.sent_bytes[kind] = 0
    for fate in range(N_FATES):
        totals.fate_packets[fate] = 0
        totals.fate_bytes[fate] = 0
    for index in range(DELAY_BINS):
        totals.one_way_delay_bins[index] = 0
        totals.queue_delay_bins[index] = 0
    totals.audio_lost_packets = 0
    totals.one_way_delay_sum_us = 0
    totals.queue_delay_sum_us = 0
    totals.newest_queue_delay_us = 0
    totals.departed_packets = 0
    totals.skipped_frames = 0
    totals.refused_packets = 0
    totals.dropped_rtx = 0
    totals.inbound_us = 0
    totals.not_ready_us = 0
    totals.duplicate_packets = 0
    totals.fec_recovered = 0
    interval.newest_arrival_send_us = 0
    interval_begin(interval)


@kernel
def account_sent(totals: Record, interval: Record, kind: int, size_bytes: int) -> None:
    """A packet was handed to the network."""
    totals.sent_packets[kind] += 1
    totals.sent_bytes[kind] += size_bytes
    totals.fate_packets[FATE_PENDING] += 1
    totals.fate_bytes[FATE_PENDING] += size_bytes
    interval.sent_packets += 1
    interval.sent_bytes += size_bytes


@kernel
def account_lost(totals: Record, interval: Record, packet: Record) -> None:
    """`packet.fate` has just become a loss."""
    fate = packet.fate
    totals.fate_packets[FATE_PENDING] -= 1
    totals.fate_bytes[FATE_PENDING] -= packet.size_bytes
    totals.fate_packets[fate] += 1
    totals.fate_bytes[fate] += packet.size_bytes
    if packet.kind == KIND_AUDIO:
        totals.audio_lost_packets += 1
    if fate == FATE_QUEUE_DROP:
        interval.queue_drops += 1
    elif fate == FATE_AQM_DROP:
        interval.aqm_drops += 1
    elif fate == FATE_POLICER_DROP:
        interval.policer_drops += 1
    else:
        interval.random_losses += 1


@kernel
def account_reported(interval: Record, packets: np.ndarray, first_seq: int, last_seq: int) -> None:
    """A report, whose rows the send history has marked, tells of losses: by what they were lost.

    A packet that is only late when it is first told of counts as neither.
    """
    mask = len(packets) - 1
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        if packet.report_state != REPORT_LOST:
            continue
        fate = packet.fate
        if fate == FATE_RANDOM_LOSS:
            interval.reported_random += 1
        elif fate != FATE_PENDING and fate != FATE_DELIVERED:
            interval.reported_congestion += 1


@kernel
def account_refused(totals: Record, interval: Record, kind: int, size_bytes: int) -> None:
    """A packet that the sender's own socket refused counts as one that the queue dropped."""
    totals.refused_packets += 1
    totals.sent_packets[kind] += 1
    totals.sent_bytes[kind] += size_bytes
    totals.fate_packets[FATE_QUEUE_DROP] += 1
    totals.fate_bytes[FATE_QUEUE_DROP] += size_bytes
    if kind == KIND_AUDIO:
        totals.audio_lost_packets += 1
    interval.sent_packets += 1
    interval.sent_bytes += size_bytes
    interval.queue_drops += 1


@kernel
def account_departed(totals: Record, interval: Record, queue_delay_us: int) -> None:
    """A packet left the bottleneck after `queue_delay_us` of waiting and service."""
    totals.departed_packets += 1
    totals.queue_delay_sum_us += queue_delay_us
    totals.newest_queue_delay_us = queue_delay_us
    totals.queue_delay_bins[delay_bin(queue_delay_us)] += 1
    interval.departed_packets += 1
    interval.queue_delay_sum_us += queue_delay_us


@kernel
def account_inbound(totals: Record, now_us: int) -> None:
    """Something has reached the receiver: the connection is ready again."""
    totals.not_ready_us += max(0, now_us - totals.inbound_us - READY_SILENCE_US)
    totals.inbound_us = now_us


@kernel
def account_arrived(totals: Record, interval: Record, packet: Record) -> None:
    """`packet` has reached the receiver."""
    delay_us = packet.arrival_us - packet.send_us
    account_inbound(totals, packet.arrival_us)
    totals.fate_packets[FATE_PENDING] -= 1
    totals.fate_bytes[FATE_PENDING] -= packet.size_bytes
    totals.fate_packets[FATE_DELIVERED] += 1
    totals.fate_bytes[FATE_DELIVERED] += packet.size_bytes
    totals.one_way_delay_sum_us += delay_us
    totals.one_way_delay_bins[delay_bin(delay_us)] += 1
    interval.arrived_packets += 1
    interval.arrived_bytes += packet.size_bytes
    interval.one_way_delay_sum_us += delay_us
    interval.newest_arrival_send_us = max(interval.newest_arrival_send_us, packet.send_us)

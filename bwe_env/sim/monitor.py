"""What the sender learns from the reports that reach it within one decision interval.

Only numbers a real sender has: what it sent, what a report says arrived and when, what a report
says is missing. Delays are relative to the smallest seen, because the clocks of the two ends are
not synchronised. From here come the observation's features, and nothing else.
"""

from __future__ import annotations

import numpy as np

from bwe_env.gcc.rates import reported_us
from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.packet import REPORT_LOST, REPORT_RECEIVED_NOW

MONITOR = record(
    [
        ("reports", "i8"),  # in this interval, like all sums below
        ("sent_packets", "i8"),
        ("sent_bytes", "i8"),
        ("acked_bytes", "i8"),
        ("acked_packets", "i8"),
        ("lost_packets", "i8"),  # when first told of; one that comes late is acknowledged, too
        ("loss_runs", "i8"),  # runs of consecutive packets among them
        ("loss_delay_sum_us", "i8"),  # of the newest one-way delay known when a run begins
        ("loss_delay_min_us", "i8"),
        ("loss_delay_max_us", "i8"),
        ("located_runs", "i8"),  # runs that had such a delay before them
        ("loss_gap_sum_us", "i8"),  # from the sending of the packet before a run to its first
        ("delay_sum_us", "i8"),  # of one-way delays of the packets acknowledged
        ("delay_min_us", "i8"),
        ("delay_max_us", "i8"),
        ("delay_change_sum_us", "i8"),  # absolute change from packet to packet
        ("nacked_packets", "i8"),
        ("last_delay_us", "i8"),  # one-way delay of the newest packet acknowledged; lasting
        ("last_was_lost", "i8"),  # 1: the newest packet reported was told lost; lasting
        ("base_delay_us", "i8"),  # smallest one-way delay of the call; lasting
        ("rtt_us", "i8"),  # newest report: its arrival less the newest packet's send time; lasting
        ("base_rtt_us", "i8"),  # smallest of the call; lasting
        ("report_us", "i8"),  # arrival of the newest report, 0 for none; lasting
        ("newest_arrival_us", "i8"),  # receive time of the newest packet reported; lasting
        ("previous_arrival_us", "i8"),  # the same at the end of the last interval with a report
    ]
)


@kernel
def monitor_begin_interval(monitor: Record) -> None:
    """Forget the sums of the interval that ended; keep what lasts."""
    if monitor.reports > 0:
        monitor.previous_arrival_us = monitor.newest_arrival_us
    monitor.reports = 0
    monitor.sent_packets = 0
    monitor.sent_bytes = 0
    monitor.acked_bytes = 0
    monitor.acked_packets = 0
    monitor.lost_packets = 0
    monitor.loss_runs = 0
    monitor.loss_delay_sum_us = 0
    monitor.loss_delay_min_us = NEVER
    monitor.loss_delay_max_us = -NEVER
    monitor.located_runs = 0
    monitor.loss_gap_sum_us = 0
    monitor.delay_sum_us = 0
    monitor.delay_min_us = NEVER
    monitor.delay_max_us = -NEVER
    monitor.delay_change_sum_us = 0
    monitor.nacked_packets = 0


@kernel
def monitor_reset(monitor: Record) -> None:
    """Nothing known."""
    monitor.reports = 0
    monitor.last_delay_us = NEVER
    monitor.last_was_lost = 0
    monitor.base_delay_us = NEVER
    monitor.rtt_us = 0
    monitor.base_rtt_us = NEVER
    monitor.report_us = 0
    monitor.newest_arrival_us = 0
    monitor.previous_arrival_us = 0
    monitor_begin_interval(monitor)


@kernel
def monitor_on_sent(monitor: Record, size_bytes: int) -> None:
    """A packet was handed to the network."""
    monitor.sent_packets += 1
    monitor.sent_bytes += size_bytes


@kernel
def monitor_acked_rate_bps(monitor: Record) -> float:
    """Bytes acknowledged over the time they took to arrive, from the report before on."""
    span_us = monitor.newest_arrival_us - monitor.previous_arrival_us
    if monitor.acked_packets == 0 or span_us <= 0:
        return 0.0
    return float(monitor.acked_bytes * 8e6 / span_us)


@kernel
def monitor_on_loss(monitor: Record, gap_us: int) -> None:
    """The next packet of a report is missing; it was sent `gap_us` after the one before it."""
    monitor.lost_packets += 1
    if monitor.last_was_lost == 1:
        return
    monitor.last_was_lost = 1
    monitor.loss_runs += 1
    monitor.loss_gap_sum_us += gap_us
    if monitor.last_delay_us != NEVER:
        delay_us = monitor.last_delay_us
        monitor.loss_delay_sum_us += delay_us
        monitor.loss_delay_min_us = min(monitor.loss_delay_min_us, delay_us)
        monitor.loss_delay_max_us = max(monitor.loss_delay_max_us, delay_us)
        monitor.located_runs += 1


@kernel
def monitor_on_report(
    monitor: Record, packets: np.ndarray, first_seq: int, last_seq: int, now_us: int
) -> None:
    """Add a report whose rows the send history has marked."""
    mask = len(packets) - 1
    newest_send_us = -1
    for seq in range(first_seq, last_seq + 1):
        packet = packets[seq & mask]
        if packet.report_state == REPORT_RECEIVED_NOW:
            arrival_us = reported_us(packet.arrival_us)
            delay_us = arrival_us - packet.send_us
            monitor.acked_bytes += packet.size_bytes
            monitor.acked_packets += 1
            monitor.delay_sum_us += delay_us
            monitor.delay_min_us = min(monitor.delay_min_us, delay_us)
            monitor.delay_max_us = max(monitor.delay_max_us, delay_us)
            if monitor.last_delay_us != NEVER:
                monitor.delay_change_sum_us += abs(delay_us - monitor.last_delay_us)
            monitor.last_delay_us = delay_us
            monitor.newest_arrival_us = max(monitor.newest_arrival_us, arrival_us)
            newest_send_us = packet.send_us
            monitor.last_was_lost = 0
        elif packet.report_state == REPORT_LOST:
            before = packets[max(0, seq - 1) & mask]
            monitor_on_loss(monitor, packet.send_us - before.send_us)
    monitor.reports += 1
    monitor.report_us = now_us
    monitor.base_delay_us = min(monitor.base_delay_us, monitor.delay_min_us)
    if newest_send_us >= 0:
        monitor.rtt_us = now_us - newest_send_us
        monitor.base_rtt_us = min(monitor.base_rtt_us, monitor.rtt_us)

"""The classic reaction to loss: rules on the loss ratio of RTCP receiver reports.

Follows UpdatePacketsLost, UpdateMinHistory and the last part of UpdateEstimate in
GCC/send_side_bandwidth_estimation.cc of libwebrtc M150. It rules where loss-based estimation v2 is
switched off or not ready yet.
"""

from __future__ import annotations

from bwe_env.sim._jit import NEVER, Record, kernel, record

#: Rows of the history of targets: one per update, of which the last second counts.
_HISTORY = 128

#: Whole loss ratio in libwebrtc's eight bits.
_Q8 = 256

TARGET_SAMPLE = record([("time_us", "i8"), ("rate_bps", "i8")])

LOSS_BASED_CLASSIC = record(
    [
        ("loss_q8", "i8"),  # last loss ratio, in 1/256
        ("lost_packets", "i8"),  # of reports too small to count yet
        ("expected_packets", "i8"),
        ("first_report_us", "i8"),  # NEVER for none
        ("report_us", "i8"),  # last one that counted, -NEVER for none
        ("decreased_us", "i8"),  # -NEVER for never
        ("has_decreased", "i1"),  # since the last loss ratio
        ("head", "i8"),  # oldest row of the history
        ("num_samples", "i8"),
        ("history", TARGET_SAMPLE, (_HISTORY,)),  # rising rates: the front is the minimum
    ]
)


@kernel
def loss_classic_reset(classic: Record) -> None:
    """No report yet."""
    classic.loss_q8 = 0
    classic.lost_packets = 0
    classic.expected_packets = 0
    classic.first_report_us = NEVER
    classic.report_us = -NEVER
    classic.decreased_us = -NEVER
    classic.has_decreased = 0
    classic.head = 0
    classic.num_samples = 0


@kernel
def loss_classic_clear_history(classic: Record) -> None:
    """Forget former targets: the present one was set from outside."""
    classic.num_samples = 0


@kernel
def loss_classic_remember(classic: Record, p: Record, target_rate_bps: int, now_us: int) -> None:
    """Keep the minimum of the target over the last second (a monotonic queue)."""
    history = classic.history
    head = classic.head
    count = classic.num_samples
    oldest_us = now_us + 1_000 - p.classic_increase_interval_us
    while count > 0 and history[head].time_us < oldest_us:
        head = (head + 1) % _HISTORY
        count -= 1
    while count > 0 and target_rate_bps <= history[(head + count - 1) % _HISTORY].rate_bps:
        count -= 1
    if count == _HISTORY:  # more updates per second than libwebrtc ever makes
        head = (head + 1) % _HISTORY
        count -= 1
    history[(head + count) % _HISTORY].time_us = now_us
    history[(head + count) % _HISTORY].rate_bps = target_rate_bps
    classic.head = head
    classic.num_samples = count + 1


@kernel
def loss_classic_on_report(
    classic: Record, p: Record, lost_packets: int, expected_packets: int, now_us: int
) -> bool:
    """Take the packets of one receiver report.

    Returns:
        Whether `loss_q8` is new: reports add up until they cover enough packets.
    """
    classic.first_report_us = min(classic.first_report_us, now_us)
    if expected_packets <= 0:
        return False
    classic.lost_packets += lost_packets
    classic.expected_packets += expected_packets
    if classic.expected_packets < p.classic_min_report_packets:
        return False
    lost_q8 = max(classic.lost_packets, 0) * _Q8 // classic.expected_packets
    classic.loss_q8 = min(lost_q8, _Q8 - 1)
    classic.has_decreased = 0
    classic.lost_packets = 0
    classic.expected_packets = 0
    classic.report_us = now_us
    return True


@kernel
def loss_classic_rate_bps(
    classic: Record, p: Record, target_rate_bps: int, rtt_us: int, now_us: int
) -> int:
    """The new target; the present one where loss says nothing.

    Args:
        rtt_us: from RTCP, 0 while unknown.
    """
    if now_us - classic.report_us >= p.classic_report_timeout_us:
        return target_rate_bps
    ratio = classic.loss_q8 / _Q8
    if ratio <= p.classic_low_loss:
        lowest_bps = classic.history[classic.head].rate_bps
        increased_bps = int(lowest_bps * p.classic_increase_factor + 0.5)
        return int(increased_bps + p.classic_increase_extra_bps)
    if ratio <= p.classic_high_loss or classic.has_decreased == 1:
        return target_rate_bps
    if now_us - classic.decreased_us < p.classic_decrease_interval_us + rtt_us:
        return target_rate_bps
    classic.decreased_us = now_us
    classic.has_decreased = 1
    return int(target_rate_bps * (2.0 * _Q8 - classic.loss_q8) / (2.0 * _Q8))

"""Application-limited region: the application sends much less than it may.

Follows GCC/alr_detector.cc and modules/pacing/interval_budget.cc of libwebrtc M150, with the
levels of the built-in screenshare group of rtc_base/experiments/alr_experiment.cc.
"""

from __future__ import annotations

from bwe_env.gcc.rates import scale
from bwe_env.sim._jit import Record, kernel, record

ALR_DETECTOR = record(
    [
        ("rate_kbps", "i8"),  # whole kbps that fill the budget
        ("max_bytes", "i8"),  # depth of the budget, either way
        ("budget_bytes", "i8"),  # unused so far, negative when overdrawn
        ("last_sent_us", "i8"),  # -1 before the first packet
        ("started_us", "i8"),  # of the present phase
        ("in_alr", "i1"),
    ]
)


@kernel
def alr_reset(alr: Record) -> None:
    """Not limited, empty budget."""
    alr.rate_kbps = 0
    alr.max_bytes = 0
    alr.budget_bytes = 0
    alr.last_sent_us = -1
    alr.started_us = 0
    alr.in_alr = 0


@kernel
def alr_set_rate(alr: Record, p: Record, target_rate_bps: int) -> None:
    """Size the budget for a new target rate."""
    alr.rate_kbps = (scale(target_rate_bps, p.alr_usage_ratio) + 500) // 1000
    alr.max_bytes = p.alr_budget_us // 1000 * alr.rate_kbps // 8
    alr.budget_bytes = min(max(alr.budget_bytes, -alr.max_bytes), alr.max_bytes)


@kernel
def alr_on_packet_sent(alr: Record, p: Record, size_bytes: int, send_us: int) -> None:
    """Draw a packet from the budget, refill it for the time passed, and decide."""
    if alr.last_sent_us < 0:
        alr.last_sent_us = send_us
        return
    elapsed_ms = (send_us - alr.last_sent_us) // 1000
    alr.last_sent_us = send_us
    drawn_bytes = max(alr.budget_bytes - size_bytes, -alr.max_bytes)
    alr.budget_bytes = min(drawn_bytes + alr.rate_kbps * elapsed_ms // 8, alr.max_bytes)
    if alr.max_bytes == 0:
        return
    level = alr.budget_bytes / alr.max_bytes
    if alr.in_alr == 0 and level > p.alr_start_level:
        alr.in_alr = 1
        alr.started_us = send_us
    elif alr.in_alr == 1 and level < p.alr_stop_level:
        alr.in_alr = 0

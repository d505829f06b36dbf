"""A token-bucket policer: what exceeds a rate and a burst is dropped at once, never queued.

The bucket fills at the rate up to the burst; a packet passes if there are tokens for all its bytes
(the single-rate meter of RFC 2697 with green and red alone).
"""

from __future__ import annotations

from bwe_env.sim._jit import Record, kernel, record

POLICER = record(
    [
        ("rate_bps", "f8"),  # 0: there is no policer
        ("burst_bytes", "f8"),
        ("tokens", "f8"),  # millionths of a bit: whole numbers for whole rates
        ("filled_us", "i8"),  # the tokens are those of this time
    ]
)

_TOKENS_PER_BYTE = 8e6


@kernel
def policer_reset(policer: Record) -> None:
    """A full bucket at call time 0."""
    policer.tokens = policer.burst_bytes * _TOKENS_PER_BYTE
    policer.filled_us = 0


@kernel
def policer_passes(policer: Record, size_bytes: int, now_us: int) -> bool:
    """Whether a packet conforms; if so, its tokens are taken."""
    if policer.rate_bps <= 0.0:
        return True
    filled = policer.tokens + policer.rate_bps * (now_us - policer.filled_us)
    policer.tokens = min(policer.burst_bytes * _TOKENS_PER_BYTE, filled)
    policer.filled_us = now_us
    needed = size_bytes * _TOKENS_PER_BYTE
    if policer.tokens < needed:
        return False
    policer.tokens -= needed
    return True

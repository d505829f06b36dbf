"""Which packets a queue drops before it is full: drop-tail (none), CoDel, PIE.

CoDel follows the pseudocode of RFC 8289 section 5 to the letter. It drops at the head, when the
server takes the next packet. PIE follows RFC 8033 section 4 and drops at the entrance; the queue
delay is the waiting time of the packet that the server took last (measured directly, as section 4.3
allows). Of the optional parts of its section 5 there are none: no ECN, no derandomisation, no cap
on the adjustment.
"""

from __future__ import annotations

import math

import numpy as np

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.rng import STREAM_QUEUE_DISCIPLINE, uniform

# What `QUEUE_DISCIPLINE.kind` says.
DISCIPLINE_DROP_TAIL = 0
DISCIPLINE_CODEL = 1
DISCIPLINE_PIE = 2

#: Neither discipline drops while no more than so much is queued: CoDel one packet (MAXPACKET, RFC
#: 8289), PIE two (2 * MEAN_PKTSIZE, RFC 8033 section 4.1).
MAX_PACKET_BYTES = 1500
MEAN_PACKET_BYTES = 1500

#: CoDel resumes the drop rate of the last dropping state if that ended less than so many intervals
#: ago. RFC 8289 section 5, deque.
CODEL_MEMORY_INTERVALS = 16

#: Shrinks the drop probability per update while the queue is empty. RFC 8033 section 4.2.
PIE_DECAY = 0.98
#: PIE lets everything in while the delay was below half the reference and the drop probability is
#: below this. RFC 8033 section 4.1.
PIE_SAFE_DROP_PROBABILITY = 0.2

_US_TO_S = 1e-6

# What CoDel has done since the server asked for a packet.
_NOTHING = 0
_DROPPED = 1  # in the dropping state
_ENTERED = 2  # the first drop of a dropping state: the next packet is served in any case

CODEL = record(
    [
        ("target_us", "i8"),
        ("interval_us", "i8"),
        ("first_above_us", "i8"),  # when a delay above the target will have lasted; 0: it is below
        ("drop_next_us", "i8"),
        ("count", "i8"),  # drops since the dropping state was entered
        ("last_count", "i8"),  # `count` when it was entered
        ("is_dropping", "i1"),
        ("turn", "i1"),
    ]
)

PIE = record(
    [
        ("reference_s", "f8"),
        ("alpha_per_s", "f8"),
        ("beta_per_s", "f8"),
        ("max_burst_us", "i8"),
        ("update_interval_us", "i8"),
        ("next_update_us", "i8"),
        ("burst_allowance_us", "i8"),
        ("queue_delay_s", "f8"),  # waiting time of the packet taken last; 0 with an empty queue
        ("previous_delay_s", "f8"),  # at the last update
        ("drop_probability", "f8"),
        ("counter", "i8"),  # random numbers drawn
    ]
)

QUEUE_DISCIPLINE = record(
    [
        ("key", "u8"),  # of the call's random streams
        ("codel", CODEL),
        ("pie", PIE),
        ("kind", "i1"),
    ]
)


@kernel
def discipline_copy(target: Record, source: Record) -> None:
    """Take over another record's configuration."""
    target.kind = source.kind
    target.codel.target_us = source.codel.target_us
    target.codel.interval_us = source.codel.interval_us
    target.pie.reference_s = source.pie.reference_s
    target.pie.alpha_per_s = source.pie.alpha_per_s
    target.pie.beta_per_s = source.pie.beta_per_s
    target.pie.max_burst_us = source.pie.max_burst_us
    target.pie.update_interval_us = source.pie.update_interval_us


@kernel
def discipline_reset(discipline: Record, key: np.uint64) -> None:
    """At call time 0, in front of an empty queue."""
    discipline.key = key
    codel = discipline.codel
    codel.first_above_us = 0
    codel.drop_next_us = 0
    codel.count = 0
    codel.last_count = 0
    codel.is_dropping = 0
    codel.turn = _NOTHING
    pie = discipline.pie
    pie.next_update_us = pie.update_interval_us
    pie.burst_allowance_us = pie.max_burst_us
    pie.queue_delay_s = 0.0
    pie.previous_delay_s = 0.0
    pie.drop_probability = 0.0
    pie.counter = 0


# --- CoDel, RFC 8289 ------------------------------------------------------------------------------


@kernel
def codel_next_drop_us(codel: Record, from_us: int) -> int:
    """The control law: drops come `interval / sqrt(count)` apart (control_law)."""
    return int(from_us + codel.interval_us / math.sqrt(codel.count))


@kernel
def _codel_is_above(codel: Record, sojourn_us: int, bytes_behind: int, now_us: int) -> bool:
    """Whether the delay has been above the target for an interval (dodequeue)."""
    if sojourn_us < codel.target_us or bytes_behind <= MAX_PACKET_BYTES:
        codel.first_above_us = 0
        return False
    if codel.first_above_us == 0:
        codel.first_above_us = now_us + codel.interval_us
        return False
    return now_us >= codel.first_above_us


@kernel
def codel_on_empty(codel: Record) -> None:
    """The server asked for a packet and there is none (any more)."""
    codel.first_above_us = 0
    if codel.turn != _ENTERED:
        codel.is_dropping = 0
    codel.turn = _NOTHING


@kernel
def codel_drops(codel: Record, sojourn_us: int, bytes_behind: int, now_us: int) -> bool:
    """Whether to drop the packet at the head instead of serving it (deque).

    The server asks again for the next head after every drop, until a packet is served or
    `codel_on_empty`.

    Args:
        sojourn_us: how long the packet has waited.
        bytes_behind: what is queued behind it.
    """
    turn = codel.turn
    codel.turn = _NOTHING
    is_above = _codel_is_above(codel, sojourn_us, bytes_behind, now_us)
    if turn == _ENTERED:
        return False
    if codel.is_dropping == 1:
        if not is_above:
            codel.is_dropping = 0
            return False
        if turn == _DROPPED:
            codel.drop_next_us = codel_next_drop_us(codel, codel.drop_next_us)
        if now_us < codel.drop_next_us:
            return False
        codel.count += 1
        codel.turn = _DROPPED
        return True
    if not is_above:
        return False
    # The drop rate that controlled the queue last time is a good start if that was not long ago.
    delta = codel.count - codel.last_count
    codel.count = 1
    if delta > 1 and now_us - codel.drop_next_us < CODEL_MEMORY_INTERVALS * codel.interval_us:
        codel.count = delta
    codel.drop_next_us = codel_next_drop_us(codel, now_us)
    codel.last_count = codel.count
    codel.is_dropping = 1
    codel.turn = _ENTERED
    return True


# --- PIE, RFC 8033 --------------------------------------------------------------------------------


@kernel
def pie_tuning(drop_probability: float) -> float:
    """What scales an adjustment of a small drop probability down (auto-tuning, section 4.2)."""
    if drop_probability < 0.000001:
        return 1.0 / 2048.0
    if drop_probability < 0.00001:
        return 1.0 / 512.0
    if drop_probability < 0.0001:
        return 1.0 / 128.0
    if drop_probability < 0.001:
        return 1.0 / 32.0
    if drop_probability < 0.01:
        return 1.0 / 8.0
    if drop_probability < 0.1:
        return 1.0 / 2.0
    return 1.0


@kernel
def _pie_update(pie: Record) -> None:
    """Adjust the drop probability to the present queue delay (calculate_drop_prob, section 4.2)."""
    delay_s = pie.queue_delay_s
    change = pie.alpha_per_s * (delay_s - pie.reference_s)
    change += pie.beta_per_s * (delay_s - pie.previous_delay_s)
    probability = pie.drop_probability + change * pie_tuning(pie.drop_probability)
    if delay_s == 0.0 and pie.previous_delay_s == 0.0:
        probability *= PIE_DECAY
    pie.drop_probability = min(1.0, max(0.0, probability))
    pie.burst_allowance_us = max(0, pie.burst_allowance_us - pie.update_interval_us)
    half_s = 0.5 * pie.reference_s
    if pie.drop_probability == 0.0 and delay_s < half_s and pie.previous_delay_s < half_s:
        pie.burst_allowance_us = pie.max_burst_us
    pie.previous_delay_s = delay_s


@kernel
def pie_run(pie: Record, now_us: int) -> None:
    """Make up for the periodic updates up to now; to be called before the queue changes.

    Between changes the queue delay that an update looks at stays what it was.
    """
    while pie.next_update_us <= now_us:
        _pie_update(pie)
        pie.next_update_us += pie.update_interval_us


@kernel
def pie_on_served(pie: Record, waited_us: int) -> None:
    """The server has taken a packet that waited so long; 0 when it found the queue empty."""
    pie.queue_delay_s = waited_us * _US_TO_S


@kernel
def pie_drops(discipline: Record, queue_bytes: int) -> bool:
    """Whether to refuse a packet in front of a queue of `queue_bytes` (drop_early, section 4.1)."""
    pie = discipline.pie
    if pie.burst_allowance_us > 0:
        return False
    if (
        pie.previous_delay_s < 0.5 * pie.reference_s
        and pie.drop_probability < PIE_SAFE_DROP_PROBABILITY
    ):
        return False
    if queue_bytes <= 2 * MEAN_PACKET_BYTES:
        return False
    counter = pie.counter
    pie.counter = counter + 1
    return uniform(discipline.key, STREAM_QUEUE_DISCIPLINE, counter) < pie.drop_probability

"""The bottleneck: a byte-limited FIFO in front of a server whose rate follows a trace.

Packets of all flows (and consent checks) share one ring of queue entries. One timer, the departure
of the packet in service, drives the link. Where packets may be dropped at the head, the server does
not take the next one by itself: the caller asks `link_drops_head` until it serves or the queue is
empty, because only the caller knows whose packet that was.
"""

from __future__ import annotations

import math

import numpy as np

from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.capacity import CURSOR, cursor_copy, cursor_reset, cursor_seek, serve_until_us
from bwe_env.sim.packet import FATE_AQM_DROP, FATE_PENDING, FATE_POLICER_DROP, FATE_QUEUE_DROP
from bwe_env.sim.policer import POLICER, policer_passes, policer_reset
from bwe_env.sim.queue_discipline import (
    DISCIPLINE_CODEL,
    DISCIPLINE_DROP_TAIL,
    DISCIPLINE_PIE,
    QUEUE_DISCIPLINE,
    codel_drops,
    codel_on_empty,
    discipline_reset,
    pie_drops,
    pie_on_served,
    pie_run,
)
from bwe_env.sim.rng import STREAM_GRANTS, uniform

#: A queue given as time at the present capacity never shrinks below two full packets, so that an
#: outage fills the buffer instead of abolishing it (ours).
MIN_QUEUE_LIMIT_BYTES = 3_000

#: `seq` of a queue entry that carries a consent check instead of a media packet.
CONSENT_ENTRY = -1

_US_TO_S = 1e-6

LINK = record(
    [
        ("queue_limit_bytes", "i8"),  # 0: use queue_limit_s
        ("queue_limit_s", "f8"),  # at the present capacity
        ("service", CURSOR),  # the trace at the server's own time, ahead of now while busy
        ("present", CURSOR),  # the trace at the present
        ("accounted", CURSOR),  # the trace at the end of the last decision interval
        ("ahead", CURSOR),  # scratch of `link_empty_us`
        ("served_until_us", "f8"),  # exact end of the last service begun
        ("departure_us", "i8"),  # of the packet in service; NEVER while idle
        ("queue_bytes", "i8"),  # waiting and in service
        ("head", "i8"),  # entry in service; entries head..tail-1 are in the queue
        ("tail", "i8"),
        ("max_entries", "i8"),  # packets that the queue may hold
        ("grant_interval_us", "i8"),  # what was served goes on at multiples of this; 0: at once
        ("grant_spread", "f8"),  # of the interval, by which each grant is late at most
        ("loss_before_queue", "i1"),
        ("is_plain", "i1"),  # 1: drop-tail and nothing of what follows
        ("drops_at_head", "i1"),  # 1: the head is asked for before it is served
        ("max_wait_us", "i8"),  # a head that has waited longer is dropped; 0: none
        ("policer", POLICER),
        ("discipline", QUEUE_DISCIPLINE),
    ]
)

#: Sixteen bytes: there are as many entries as a full queue has packets, in every call.
QUEUE_ENTRY = record(
    [
        ("enqueue_us", "i8"),
        ("seq", "i4"),  # packet of the flow's ring, or CONSENT_ENTRY
        ("flow", "i2"),  # number of the flow within its call; below 0: -1 - number of the source
        ("size_bytes", "i2"),
    ]
)


@kernel
def link_reset(
    link: Record,
    segments: np.ndarray,
    first: int,
    last: int,
    start_us: int,
    scale: float,
    key: np.uint64,
) -> None:
    """An empty queue at call time 0, `start_us` into the trace, whose capacities are scaled."""
    cursor_reset(link.service, segments, first, last, start_us, scale)
    cursor_reset(link.present, segments, first, last, start_us, scale)
    cursor_reset(link.accounted, segments, first, last, start_us, scale)
    link.served_until_us = 0.0
    link.departure_us = NEVER
    link.queue_bytes = 0
    link.head = 0
    link.tail = 0
    link.drops_at_head = 0
    if link.discipline.kind == DISCIPLINE_CODEL or link.max_wait_us > 0:
        link.drops_at_head = 1
    link.is_plain = 1
    if link.discipline.kind != DISCIPLINE_DROP_TAIL or link.policer.rate_bps > 0.0:
        link.is_plain = 0
    discipline_reset(link.discipline, key)
    policer_reset(link.policer)


@kernel
def link_limit_bytes(link: Record, segments: np.ndarray, now_us: int) -> int:
    """What the queue may hold at this moment, the packet in service included."""
    if link.queue_limit_bytes > 0:
        return int(link.queue_limit_bytes)
    capacity_bps = cursor_seek(link.present, segments, float(now_us))
    return max(MIN_QUEUE_LIMIT_BYTES, int(link.queue_limit_s * capacity_bps * 0.125))


@kernel
def link_serve_head(link: Record, segments: np.ndarray, queue: np.ndarray, now_us: int) -> None:
    """Begin the service of the entry at the head: now, or at the exact end of the last service.

    The last service ended a fraction of a microsecond before its packet's departure event.
    """
    entry = queue[link.head & (len(queue) - 1)]
    start_us = float(now_us)
    if math.ceil(link.served_until_us) == now_us:
        start_us = link.served_until_us
    link.served_until_us = serve_until_us(link.service, segments, start_us, 8.0 * entry.size_bytes)
    # Rounded up: a packet that left a fraction early would exceed the capacity.
    link.departure_us = math.ceil(link.served_until_us)
    if link.is_plain == 0 and link.discipline.kind == DISCIPLINE_PIE:
        pie_on_served(link.discipline.pie, now_us - entry.enqueue_us)


@kernel
def link_enqueue(
    link: Record,
    segments: np.ndarray,
    queue: np.ndarray,
    flow: int,
    seq: int,
    size_bytes: int,
    now_us: int,
) -> int:
    """Offer a packet to the bottleneck.

    Returns:
        `FATE_PENDING` when it was queued, `FATE_QUEUE_DROP` when the buffer had no room for it, in
        bytes or in packets (`max_entries`), `FATE_AQM_DROP` when PIE refused it,
        `FATE_POLICER_DROP` when it did not get as far.
    """
    is_plain = link.is_plain == 1
    if not is_plain and not policer_passes(link.policer, size_bytes, now_us):
        return FATE_POLICER_DROP
    if link.queue_bytes + size_bytes > link_limit_bytes(link, segments, now_us):
        return FATE_QUEUE_DROP
    if link.tail - link.head >= link.max_entries:
        return FATE_QUEUE_DROP
    if not is_plain and link.discipline.kind == DISCIPLINE_PIE:
        pie_run(link.discipline.pie, now_us)
        if pie_drops(link.discipline, link.queue_bytes):
            return FATE_AQM_DROP
    entry = queue[link.tail & (len(queue) - 1)]
    entry.enqueue_us = now_us
    entry.seq = seq
    entry.flow = flow
    entry.size_bytes = size_bytes
    link.tail += 1
    link.queue_bytes += size_bytes
    if link.departure_us == NEVER:
        link.served_until_us = float(now_us)  # idle until now, not since the last service
        if not is_plain and link.discipline.kind == DISCIPLINE_CODEL:
            codel_drops(link.discipline.codel, 0, 0, now_us)  # never: nothing is behind it
        link_serve_head(link, segments, queue, now_us)
    return FATE_PENDING


@kernel
def link_pop(link: Record, queue: np.ndarray) -> int:
    """Take the entry at the head off the queue; returns its ring index."""
    index = link.head & (len(queue) - 1)
    link.queue_bytes -= queue[index].size_bytes
    link.head += 1
    if link.head == link.tail:  # begin again in front: those rows are in the processor's cache
        link.head = 0
        link.tail = 0
    return int(index)


@kernel
def link_depart(link: Record, segments: np.ndarray, queue: np.ndarray, now_us: int) -> int:
    """Let the packet in service leave and begin the next service, unless the head may be dropped.

    Returns:
        The ring index of the entry that left; its row stays readable until the next enqueue.
    """
    is_pie = link.is_plain == 0 and link.discipline.kind == DISCIPLINE_PIE
    if is_pie:
        pie_run(link.discipline.pie, now_us)
    index = link_pop(link, queue)
    link.departure_us = NEVER
    if link.head < link.tail:
        if link.drops_at_head == 0:
            link_serve_head(link, segments, queue, now_us)
    elif is_pie:
        pie_on_served(link.discipline.pie, 0)
    return index


@kernel
def link_drops_head(link: Record, segments: np.ndarray, queue: np.ndarray, now_us: int) -> int:
    """Look at the head of an idle link: begin its service, or say why it is to be dropped.

    Returns:
        `FATE_PENDING` when a service has begun or the queue is empty; else the fate of the head,
        which the caller takes off with `link_pop` before it asks again.
    """
    is_codel = link.discipline.kind == DISCIPLINE_CODEL
    if link.head == link.tail:
        if is_codel:
            codel_on_empty(link.discipline.codel)
        return FATE_PENDING
    entry = queue[link.head & (len(queue) - 1)]
    waited_us = now_us - entry.enqueue_us
    bytes_behind = link.queue_bytes - entry.size_bytes
    if 0 < link.max_wait_us < waited_us:
        return FATE_QUEUE_DROP
    if is_codel and codel_drops(link.discipline.codel, waited_us, bytes_behind, now_us):
        return FATE_AQM_DROP
    link_serve_head(link, segments, queue, now_us)
    return FATE_PENDING


@kernel
def _grant_us(link: Record, number: int) -> int:
    """When a grant comes; a function of its number alone, and never before the one before it."""
    grant_us = number * link.grant_interval_us
    if link.grant_spread > 0.0:
        share = link.grant_spread * uniform(link.discipline.key, STREAM_GRANTS, number)
        grant_us += int(share * link.grant_interval_us)
    return int(grant_us)


@kernel
def link_release_us(link: Record, served_us: int) -> int:
    """When the radio sends on what has been served by `served_us`: at its next grant."""
    if link.grant_interval_us == 0:
        return served_us
    number = served_us // link.grant_interval_us
    grant_us = _grant_us(link, number)
    if grant_us >= served_us:
        return grant_us
    return _grant_us(link, number + 1)


@kernel
def link_empty_us(link: Record, segments: np.ndarray, queue: np.ndarray, now_us: int) -> int:
    """When all that is in the queue now will have left it; `now_us` if that is nothing."""
    if link.head == link.tail:
        return now_us
    cursor_copy(link.ahead, link.service)
    waiting_bytes = link.queue_bytes - queue[link.head & (len(queue) - 1)].size_bytes
    if waiting_bytes == 0:
        return int(link.departure_us)
    return math.ceil(
        serve_until_us(link.ahead, segments, link.served_until_us, 8.0 * waiting_bytes)
    )

"""A bottleneck alone, driven by offers: the link's kernels without a call around them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import LinkConfig
from bwe_env.network import Network
from bwe_env.sim._jit import NEVER, Record, entry
from bwe_env.sim.call import CALL
from bwe_env.sim.link import (
    QUEUE_ENTRY,
    link_depart,
    link_drops_head,
    link_enqueue,
    link_pop,
    link_reset,
)
from bwe_env.sim.packet import FATE_DELIVERED, FATE_PENDING
from bwe_env.sim.state import copy_link
from bwe_env.sim.tables import build_networks
from bwe_env.trace import constant

OFFER = np.dtype([("time_us", "i8"), ("size_bytes", "i8")])
#: `time_us`: when it was dropped, or its last bit served (`FATE_DELIVERED`).
OUTCOME = np.dtype([("fate", "i8"), ("time_us", "i8")])


QUEUE_ENTRIES = 1 << 15


@entry
def drive_link(
    link: Record,
    segments: np.ndarray,
    queue: np.ndarray,
    offers: np.ndarray,
    outcomes: np.ndarray,
) -> None:
    """Offer everything, departures first at equal times, and serve until the queue is empty."""
    mask = len(queue) - 1
    number = 0
    while number < len(offers) or link.departure_us != NEVER:
        offer_us = offers[number].time_us if number < len(offers) else NEVER
        now_us = link.departure_us
        if now_us <= offer_us:
            left = queue[link_depart(link, segments, queue, now_us)].seq
            outcomes[left].fate = FATE_DELIVERED
            outcomes[left].time_us = now_us
            while link.drops_at_head == 1:
                fate = link_drops_head(link, segments, queue, now_us)
                if fate == FATE_PENDING:
                    break
                dropped = queue[link_pop(link, queue) & mask].seq
                outcomes[dropped].fate = fate
                outcomes[dropped].time_us = now_us
        else:
            size_bytes = offers[number].size_bytes
            fate = link_enqueue(link, segments, queue, 0, number, size_bytes, offer_us)
            outcomes[number].fate = fate
            outcomes[number].time_us = offer_us
            number += 1


def run_link(
    config: LinkConfig,
    capacity_bps: float,
    times_us: Any,
    sizes_bytes: Any,
    *,
    key: int = 1,
) -> NDArray[Any]:
    """OUTCOME rows of packets offered to a bottleneck of constant capacity."""
    networks, segments = build_networks(
        [Network(trace=constant(capacity_bps, name="constant"), link=config)]
    )
    calls = np.zeros(1, CALL)
    link = calls[0].link
    copy_link(link, networks[0])
    link.max_entries = QUEUE_ENTRIES
    link_reset(link, segments, 0, len(segments) - 1, 0, 1.0, np.uint64(key))
    offers = np.zeros(len(times_us), OFFER)
    offers["time_us"] = times_us
    offers["size_bytes"] = sizes_bytes
    outcomes = np.zeros(len(offers), OUTCOME)
    drive_link(link, segments, np.zeros(QUEUE_ENTRIES, QUEUE_ENTRY), offers, outcomes)
    return outcomes

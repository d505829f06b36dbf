"""CoDel in front of a server of constant rate, slow and in plain Python, from RFC 8289's prose.

No turns, no timers: a list of offers goes in, when each was served or dropped comes out. Services
take exact fractions of microseconds; a packet leaves on the first whole one after its service.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

MAX_PACKET_BYTES = 1500


@dataclass(frozen=True)
class Offer:
    """A packet at the entrance of the queue."""

    time_us: int
    size_bytes: int


@dataclass(frozen=True)
class Outcome:
    """What became of an offer: served to the end at a time, or dropped at a time."""

    is_dropped: bool
    time_us: int


class NaiveCodel:
    """The three rules of RFC 8289 section 3 and their memory."""

    def __init__(self, target_us: int, interval_us: int) -> None:
        self.target_us, self.interval_us = target_us, interval_us
        self.above_since_us: int | None = None
        self.dropping = False
        self.count = self.count_at_entry = 0
        self.next_us = 0

    def spaced(self, from_us: int) -> int:
        return math.floor(from_us + self.interval_us / math.sqrt(self.count))

    def stands(self, waited_us: int, bytes_behind: int, now_us: int) -> bool:
        """Whether there has been a standing queue for an interval."""
        if waited_us < self.target_us or bytes_behind <= MAX_PACKET_BYTES:
            self.above_since_us = None
            return False
        if self.above_since_us is None:
            self.above_since_us = now_us
            return False
        return now_us - self.above_since_us >= self.interval_us

    def take(self, waiting: list[tuple[int, Offer]], now_us: int) -> tuple[list[int], int | None]:
        """What the server gets: numbers of the packets dropped, and of the one served (or None)."""
        dropped: list[int] = []

        def look() -> bool:
            if not waiting:
                self.above_since_us = None
                return False
            offer = waiting[0][1]
            behind = sum(later.size_bytes for _, later in waiting[1:])
            return self.stands(now_us - offer.time_us, behind, now_us)

        def drop() -> bool:
            dropped.append(waiting.pop(0)[0])
            return look()

        standing = look()
        if self.dropping:
            while standing and now_us >= self.next_us:
                self.count += 1
                standing = drop()
                if standing:
                    self.next_us = self.spaced(self.next_us)
            self.dropping = standing
        elif standing:
            drop()
            since_entry = self.count - self.count_at_entry
            recently = now_us - self.next_us < 16 * self.interval_us
            self.count = since_entry if since_entry > 1 and recently else 1
            self.count_at_entry = self.count
            self.next_us = self.spaced(now_us)
            self.dropping = True
        return dropped, waiting.pop(0)[0] if waiting else None


def run_naive_codel(
    offers: Sequence[Offer], us_per_byte: Fraction, target_us: int, interval_us: int
) -> list[Outcome]:
    """What becomes of each offer; what waits when the offers end is served, too."""
    codel = NaiveCodel(target_us, interval_us)
    outcomes: dict[int, Outcome] = {}
    waiting: list[tuple[int, Offer]] = []
    coming = list(enumerate(offers))
    now_us = 0
    served_us = Fraction(0)
    while coming or waiting:
        if not waiting:
            now_us = max(now_us, coming[0][1].time_us)
        # What arrives at the very time of a departure comes after it.
        while coming and (coming[0][1].time_us < now_us or not waiting):
            if not waiting and coming[0][1].time_us > now_us:
                break
            waiting.append(coming.pop(0))
        dropped, served = codel.take(waiting, now_us)
        for number in dropped:
            outcomes[number] = Outcome(True, now_us)
        if served is not None:
            begin_us = served_us if math.ceil(served_us) == now_us else now_us
            served_us = begin_us + us_per_byte * offers[served].size_bytes
            now_us = math.ceil(served_us)
            outcomes[served] = Outcome(False, now_us)
            while coming and coming[0][1].time_us < now_us:
                waiting.append(coming.pop(0))
            if not waiting:
                codel.take(waiting, now_us)
    return [outcomes[number] for number in range(len(offers))]

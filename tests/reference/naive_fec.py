"""What FEC brings back, reckoned naively: sets, and every class of every block at every arrival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NaiveBlock:
    """Media packets by number in the order in which they were sent, and how much parity."""

    media: tuple[int, ...]
    num_parity: int

    def members(self, parity: int) -> tuple[int, ...]:
        """The media packets whose exclusive or parity packet `parity` is."""
        return tuple(
            seq for place, seq in enumerate(self.media) if place % self.num_parity == parity
        )


@dataclass(frozen=True)
class Arrival:
    """A packet at the receiver: one of media, or parity."""

    media: int = -1
    block: int = -1
    parity: int = -1


def recovered(blocks: Mapping[int, NaiveBlock], arrivals: Sequence[Arrival]) -> list[int]:
    """Media packets that FEC brings back, in the order in which it does.

    Args:
        arrivals: in order; a packet that a retransmission brings counts as itself.
    """
    there: set[int] = set()
    parities: set[tuple[int, int]] = set()
    found: list[int] = []
    for arrival in arrivals:
        if arrival.media >= 0:
            there.add(arrival.media)
        else:
            parities.add((arrival.block, arrival.parity))
        for number, parity in sorted(parities):
            lacking = [seq for seq in blocks[number].members(parity) if seq not in there]
            if len(lacking) == 1:
                there.add(lacking[0])
                found.append(lacking[0])
    return found

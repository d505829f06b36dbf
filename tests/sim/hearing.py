"""Audio receivers for tests: given packets, made for once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from bwe_env.sim.audio import AUDIO, audio_on_packet, audio_play_until, audio_reset
from tests.reference.naive_audio import Packet

FRAME_US = 20_000

#: What the kernels and their twin both say about a call.
HEARD = (
    "played_us",
    "concealed_us",
    "silent_us",
    "concealments",
    "interruptions",
    "interrupted_us",
    "long_interrupted_us",
    "inserted_us",
    "removed_us",
    "played_frames",
    "delay_sum_us",
    "target_sum_us",
    "late_packets",
    "recovered_frames",
)


def play(arrivals: Sequence[Packet], until_us: int, frame_us: int = FRAME_US) -> Any:
    """An AUDIO record after these packets, times in us."""
    audio = np.zeros(1, AUDIO)[0]
    audio_reset(audio, frame_us)
    for packet in arrivals:
        if packet[1] < until_us:
            audio_on_packet(audio, *packet)
    audio_play_until(audio, until_us)
    return audio


def steady(numbers: Sequence[int], delay_us: int = 30_000) -> list[tuple[int, int]]:
    """Packets that all take equally long."""
    return [(number, number * FRAME_US + delay_us) for number in numbers]


def random_arrivals(
    seed: int, *, keeps_order: bool = True
) -> tuple[list[tuple[int, int]], int, int]:
    """Packets over a path with loss, jitter and an outage; frame length and end."""
    chance = random.Random(seed)
    frame_us = chance.choice([FRAME_US, FRAME_US, 10_000, 60_000])
    count = chance.choice([60, 150, 260])
    loss = chance.choice([0.0, 0.02, 0.2])
    jitter_us = chance.choice([0.0, 5e3, 6e4, 3e5])
    out_us = chance.uniform(5e5, 3e6)
    outage_us = chance.choice([0.0, 3e5, 2e6, 5e6])
    keeps = chance.random() < 0.5
    arrivals, last_us = [], 0
    for number in range(chance.choice([0, 3]), count):
        at_us = number * frame_us + 30_000 + int(chance.random() * jitter_us)
        if out_us <= at_us < out_us + outage_us:
            if not keeps:
                continue
            at_us = int(out_us + outage_us)
        if chance.random() < loss:
            continue
        last_us = max(last_us, at_us) if keeps_order else at_us
        arrivals.append((number, last_us))
    arrivals.sort(key=lambda arrival: arrival[1])
    return arrivals, frame_us, count * frame_us + chance.choice([0, 777_777])

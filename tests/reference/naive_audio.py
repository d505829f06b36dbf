"""The audio receiver, slow and in plain Python, written from its definition.

One list of arrivals goes in; every 10 ms of output is decided by looking at all of it. No ring, no
queue of minima, no catching up: at each output everything that has arrived by then is in a set, and
the target is worked out from the whole past.

A packet is (number of its frame, time of arrival), or those and how many frames before it repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

OUTPUT_US = 10_000
BUCKET_US = 20_000
HISTORY_US = 2_000_000

Packet = tuple[int, int] | tuple[int, int, int]


@dataclass
class Heard:
    """What an audio receiver played, under the field names of the record `AUDIO`."""

    played_us: int = 0
    concealed_us: int = 0
    silent_us: int = 0
    inserted_us: int = 0
    removed_us: int = 0
    played_frames: int = 0
    delay_sum_us: int = 0
    target_sum_us: int = 0
    late_packets: int = 0
    recovered_frames: int = 0
    runs_us: list[int] = field(default_factory=list)
    """lengths of all concealments, the present one last"""

    @property
    def concealments(self) -> int:
        return len(self.runs_us)

    @property
    def interruptions(self) -> int:
        return sum(run >= 150_000 for run in self.runs_us)

    @property
    def interrupted_us(self) -> int:
        return sum(run for run in self.runs_us if run >= 150_000)

    @property
    def long_interrupted_us(self) -> int:
        return sum(run for run in self.runs_us if run > 500_000)


def _copies(packet: Packet) -> list[int]:
    """Numbers of the frames that it repeats, the newest first."""
    count = packet[2] if len(packet) == 3 else 0
    return [packet[0] - 1 - back for back in range(count)]


def _transits_us(arrived: Sequence[tuple[int, int]], frame_us: int) -> list[int]:
    """Of the last 2 s of frames; the newest is the last."""
    newest = arrived[-1][0]
    return [at - n * frame_us for n, at in arrived if n > newest - HISTORY_US // frame_us]


def _in_order(arrivals: Sequence[Packet]) -> list[tuple[int, int]]:
    """Those that came before all newer ones."""
    found: list[tuple[int, int]] = []
    for packet in arrivals:
        if not found or packet[0] > found[-1][0]:
            found.append(packet[:2])
    return found


def _reorder_target_us(delays_us: Sequence[int | None], base_us: int) -> int:
    """The target against reordering.

    Args:
        delays_us: of every packet from the second on: relative delay if it was reordered, or None.
        base_us: the other target.
    """
    shares = [1.0] + [0.0] * 99
    adds = 0
    for delay_us in delays_us:
        bucket = 0 if delay_us is None else delay_us // BUCKET_US
        if bucket >= 100:
            continue
        factor = max(0.0, min(0.9993, 1.0 - 2.0 / (adds + 1)))
        shares = [factor * share for share in shares]
        shares[bucket] += 1.0 - factor
        adds += 1
    costs = [
        max(0, bucket * BUCKET_US - base_us) + 2_000_000 * (1.0 - sum(shares[: bucket + 1]))
        for bucket in range(100)
    ]
    return (costs.index(min(costs)) + 1) * BUCKET_US


def target_us(arrivals: Sequence[Packet], frame_us: int) -> int:
    """The target delay once these packets have arrived in this order."""
    frames: dict[int, int] = {}
    for packet in arrivals:
        for number in (packet[0], *_copies(packet)):
            frames.setdefault(number, packet[1])  # a frame counts when it comes first
    target = 80_000
    shares = [0.0] * 100
    factor = 0.0
    adds = 0
    start_us = -1
    largest_us = 0
    late_us: list[int | None] = []
    in_order = list(frames.items())[:1]
    for number, now_us in list(frames.items())[1:]:
        if number > in_order[-1][0]:
            in_order.append((number, now_us))
        transits_us = _transits_us(in_order, frame_us)
        if number < in_order[-1][0]:
            if number > in_order[-1][0] - HISTORY_US // frame_us:
                late_us.append(now_us - number * frame_us - min(transits_us))
            continue
        late_us.append(None)
        if start_us < 0:
            start_us = now_us
        if now_us - start_us > 500_000:
            bucket = largest_us // BUCKET_US
            if bucket < 100:
                shares = [factor * share for share in shares]
                shares[bucket] += 1.0 - factor
                adds += 1
                factor = max(0.0, min(0.983, 1.0 - 2.0 / (adds + 1)))
            if adds:
                rest = 1.0
                for index, share in enumerate(shares):
                    rest -= share
                    target = (index + 1) * BUCKET_US
                    if rest <= 1.0 - 0.95:
                        break
            start_us = now_us
            largest_us = 0
        largest_us = max(largest_us, transits_us[-1] - min(transits_us))
    if all(delay_us is None for delay_us in late_us):
        return target
    return max(target, _reorder_target_us(late_us, target))


def hear(arrivals: Sequence[Packet], frame_us: int, until_us: int) -> Heard:
    """Play until just before `until_us`.

    Args:
        arrivals: every packet, times not decreasing.
    """
    heard = Heard()
    if not arrivals:
        return heard
    stretch = min(10_000, frame_us // 2)
    due = arrivals[0][0]
    now_us = -(-arrivals[0][1] // OUTPUT_US) * OUTPUT_US
    stretch_from_us = 0
    run_us = 0
    seen = 0
    buffered: dict[int, int] = {}
    copied: set[int] = set()
    arrived: list[Packet] = []
    while now_us < until_us:
        for packet in arrivals[seen:]:
            number, at_us = packet[:2]
            if at_us > now_us:
                break
            seen += 1
            newest = max((earlier[0] for earlier in arrived), default=-1)
            arrived.append(packet)
            if number < newest and (number < due or newest - number >= 200):
                heard.late_packets += 1
            else:
                if number > newest and buffered and number - min(buffered) >= 200:
                    buffered.clear()
                    due = number
                buffered[number] = at_us
                copied.discard(number)
            for copy in _copies(packet):
                if copy >= due and copy not in buffered and max(newest, number) - copy < 200:
                    buffered[copy] = at_us
                    copied.add(copy)
        target = target_us(arrived, frame_us)
        number = min(buffered, default=-1)
        plays = bool(buffered)
        if buffered:
            newest, newest_at_us = max(packet[:2] for packet in arrived)
            held_us = (newest - number) * frame_us + now_us - newest_at_us
            if run_us >= 90_000 and held_us < target / 2:
                plays = False
            elif number != due:
                is_covered = run_us >= (number - due) * frame_us
                plays = run_us > 0 and (is_covered or held_us > target + 50_000)
        if not plays:
            if run_us == 0:
                heard.runs_us.append(0)
            if run_us >= 120_000:
                heard.silent_us += OUTPUT_US
            run_us += OUTPUT_US
            heard.runs_us[-1] = run_us
            heard.concealed_us += OUTPUT_US
            heard.played_us += OUTPUT_US
            now_us += OUTPUT_US
            continue
        change_us = 0
        if run_us == 0:
            transits_us = _transits_us(_in_order(arrived), frame_us)
            delay_us = now_us - number * frame_us - min(transits_us)
            high_us = target + max(transits_us) - min(transits_us) + 20_000
            is_allowed = now_us >= stretch_from_us
            if delay_us >= 4 * high_us or (delay_us >= high_us and is_allowed):
                change_us = -stretch
            elif delay_us < target and is_allowed:
                change_us = stretch
        if change_us:
            stretch_from_us = now_us + 60_000
            heard.inserted_us += max(0, change_us)
            heard.removed_us -= min(0, change_us)
        run_us = 0
        heard.played_frames += 1
        heard.recovered_frames += number in copied
        heard.delay_sum_us += now_us - buffered.pop(number)
        heard.target_sum_us += target
        heard.played_us += frame_us + change_us
        now_us += frame_us + change_us
        due = number + 1
    return heard

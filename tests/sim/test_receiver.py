"""Frames become pictures and gaps become freezes, by arrival times made by hand.

The rule is libwebrtc's (video/video_quality_observer2.cc) and W3C's: a picture that comes `d` after
its predecessor ends a freeze of `d` if `d` is at least three times the average of the last 30
delays, `d` among them, and at least 150 ms above it; from five delays on.
"""

from __future__ import annotations

import numpy as np
import pytest

from bwe_env.sim.encoder import FRAME
from bwe_env.sim.receiver import (
    RECEIVER,
    receiver_frozen_us,
    receiver_give_up,
    receiver_is_blocked,
    receiver_on_video,
    receiver_reset,
    receiver_wants_key,
)

RING = 64


class Screen:
    """A receiver; frames of one packet are made as they arrive."""

    def __init__(self, frame_interval_us: float = 33_333.0) -> None:
        self.receiver = np.zeros(1, RECEIVER)[0]
        receiver_reset(self.receiver, frame_interval_us)
        self.frames = np.zeros(RING, FRAME)
        self.frames["number"] = -1

    def code(self, number: int, *, packets: int = 1, key: bool = False) -> None:
        """The sender codes a frame."""
        row = self.frames[number % RING]
        row["number"], row["num_packets"], row["is_key"] = number, packets, key or number == 0
        row["num_received"], row["size_bytes"] = 0, 1_000

    def packet(self, number: int, now_us: int) -> int:
        """A packet of a frame arrives; returns how many frames were shown."""
        return int(receiver_on_video(self.receiver, self.frames, number, now_us))

    def show(self, *times_us: int) -> Screen:
        """Further frames, complete and in order, at these times."""
        for now_us in times_us:
            number = int(self.receiver.next_frame)
            self.code(number)
            assert self.packet(number, now_us) == 1
        return self


def regular(count: int, interval_us: int) -> list[int]:
    return [interval_us * position for position in range(1, count + 1)]


# --- Freezes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "interval_us", "least_freeze_us"),
    [
        # 9 delays of 30 ms and d: average (270 + d) / 10; 150 ms above it from 0.9 d = 177 ms on.
        (10, 30_000, 196_667),
        # 29 others: (870 + d) / 30; 29/30 d = 179 ms. The average is floored to whole microseconds.
        (31, 30_000, 185_172),
        (40, 30_000, 185_172),
        # At 100 ms the factor decides: 3 * (2900 + d) / 30, so 0.9 d = 290 ms.
        (40, 100_000, 322_220),
        # Four others: 3 * (400 + d) / 5, so 0.4 d = 240 ms.
        (5, 100_000, 600_000),
    ],
)
def test_a_delay_is_a_freeze_from_exactly_the_length_that_the_rule_says(
    frames: int, interval_us: int, least_freeze_us: int
) -> None:
    times_us = regular(frames, interval_us)
    for delay_us in (least_freeze_us - 10, least_freeze_us + 10):
        screen = Screen().show(*times_us, times_us[-1] + delay_us)
        is_freeze = delay_us > least_freeze_us
        assert screen.receiver.freeze_count == int(is_freeze)
        # The whole delay counts, not only what is above the average.
        assert screen.receiver.freeze_us == (delay_us if is_freeze else 0)


def test_the_rule_needs_five_delays_and_a_start_without_a_picture_is_frozen_all_the_same() -> None:
    # W3C has no verdict on the fourth delay; the nominal 33 ms stand in for its average in ours.
    screen = Screen().show(50_000, 100_000, 150_000, 200_000, 900_000)
    assert screen.receiver.freeze_count == 0
    assert receiver_frozen_us(screen.receiver, 900_000) == 700_000
    assert receiver_frozen_us(Screen().receiver, 180_000) == 0
    assert receiver_frozen_us(Screen().receiver, 190_000) == 190_000


def test_a_freeze_enters_the_average_of_the_next_30_delays_and_no_more() -> None:
    times_us = regular(10, 30_000)
    times_us += [times_us[-1] + 1_000_000]
    inside = times_us + [times_us[-1] + 30_000 * k for k in range(1, 29)]
    outside = times_us + [times_us[-1] + 30_000 * k for k in range(1, 30)]
    # With the second still in the window: (1000 + 28 * 30 + d) / 30, and 29/30 d = 211.3 ms.
    for times, least_us in ((inside, 218_600), (outside, 185_172)):
        for delay_us in (least_us - 200, least_us + 200):
            screen = Screen().show(*times, times[-1] + delay_us)
            assert screen.receiver.freeze_count == 1 + int(delay_us > least_us)


def test_an_open_gap_counts_whole_as_soon_as_it_is_a_freeze_and_stays_counted() -> None:
    screen = Screen().show(*regular(40, 30_000))
    last_us = 1_200_000
    assert receiver_frozen_us(screen.receiver, last_us + 185_100) == 0
    assert receiver_frozen_us(screen.receiver, last_us + 185_200) == 185_200
    assert receiver_frozen_us(screen.receiver, last_us + 4_900_000) == 4_900_000
    screen.show(last_us + 4_900_000)
    assert receiver_frozen_us(screen.receiver, last_us + 4_900_000) == 4_900_000
    assert receiver_frozen_us(screen.receiver, last_us + 5_000_000) == 4_900_000
    assert screen.receiver.freeze_us == screen.receiver.long_frozen_us == 4_900_000


def test_a_gap_in_which_the_stream_was_silent_is_a_pause_and_no_innocent_one() -> None:
    screen = Screen().show(*regular(40, 30_000), 1_200_000 + 5_000_000)
    receiver = screen.receiver
    assert (receiver.freeze_count, receiver.freeze_us) == (0, 0)
    assert (receiver.pause_count, receiver.pause_us) == (1, 5_000_000)
    # It is charged like a freeze, and does not make the next freeze longer.
    assert receiver_frozen_us(receiver, 6_200_000) == receiver.long_frozen_us == 5_000_000
    screen.show(6_200_000 + 185_300)
    assert receiver.freeze_count == 1


def test_squared_delays_hold_every_gap_between_frames() -> None:
    screen = Screen().show(100_000, 200_000, 400_000, 6_400_000)
    assert screen.receiver.squared_delays_s2 == pytest.approx(0.01 + 0.04 + 36.0)
    assert screen.receiver.first_shown_us == 100_000


# --- Decoding -------------------------------------------------------------------------------------


def test_a_frame_is_shown_when_its_last_packet_is_here() -> None:
    screen = Screen()
    screen.code(0, packets=3)
    assert [screen.packet(0, now_us) for now_us in (10, 20, 30)] == [0, 0, 1]
    assert screen.receiver.last_shown_us == 30


def test_frames_behind_a_hole_wait_for_it_and_are_then_shown_at_once_in_order() -> None:
    screen = Screen().show(10_000)
    for number in (1, 2, 3):
        screen.code(number)
    assert screen.packet(2, 50_000) == 0
    assert screen.packet(3, 60_000) == 0
    assert receiver_is_blocked(screen.receiver)
    assert screen.packet(1, 70_000) == 3
    assert not receiver_is_blocked(screen.receiver)
    assert screen.receiver.frames_shown == 4
    assert screen.receiver.last_shown_us == 70_000


def test_a_key_frame_needs_nothing_before_it_and_what_it_passed_is_never_shown() -> None:
    screen = Screen().show(10_000)
    for number in (1, 2, 3, 4):
        screen.code(number, key=number == 3)
    assert screen.packet(2, 50_000) == 0
    assert screen.packet(3, 60_000) == 1
    assert screen.packet(1, 70_000) == 0
    assert screen.packet(4, 80_000) == 1
    assert screen.receiver.frames_shown == 3


def test_nothing_is_shown_before_the_first_key_frame_or_after_a_lost_reference() -> None:
    screen = Screen().show(10_000)
    for number in (1, 2, 3):
        screen.code(number, key=number == 3)
    receiver_give_up(screen.receiver, 2)  # frame 1 has left the buffer for good
    assert screen.packet(2, 50_000) == 0
    assert screen.packet(3, 60_000) == 1
    assert screen.receiver.needs_key == 0


# --- Key-frame requests ---------------------------------------------------------------------------


def test_a_key_frame_is_asked_for_after_3_s_and_after_200_ms_when_one_is_needed() -> None:
    screen = Screen().show(1_000_000)
    receiver = screen.receiver
    receiver.last_video_us = 3_900_000  # packets go on arriving
    assert not receiver_wants_key(receiver, 3_999_999)
    assert receiver_wants_key(receiver, 4_000_000)
    assert not receiver_wants_key(receiver, 4_100_000)  # asked for already
    receiver.needs_key = 1
    assert not receiver_wants_key(receiver, 4_199_999)
    assert receiver_wants_key(receiver, 4_200_000)
    assert receiver.key_requests == 2


def test_a_key_frame_that_is_arriving_is_not_asked_for_again() -> None:
    screen = Screen()
    screen.code(0, packets=20)
    asked_us = []
    for now_us in range(10_000, 2_000_000, 10_000):
        if now_us % 100_000 == 0 and now_us <= 1_000_000:  # ten of its packets, slowly
            screen.packet(0, now_us)
        if now_us > 1_000_000:  # those of others go on
            screen.receiver.last_video_us = now_us
        if receiver_wants_key(screen.receiver, now_us):
            asked_us.append(now_us)
    # Looked at every 200 ms: the first time that none has come for as long is 1.2 s.
    assert asked_us == [1_200_000, 1_400_000, 1_600_000, 1_800_000]


def test_a_stream_without_packets_for_5_s_asks_for_nothing() -> None:
    screen = Screen().show(1_000_000)
    assert receiver_wants_key(screen.receiver, 6_000_000)
    screen = Screen().show(1_000_000)
    assert not receiver_wants_key(screen.receiver, 6_000_001)

"""The audio receiver: schedules worked by hand, laws, its twin, and whole calls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bwe_env.config import CallConfig, LinkConfig, LossConfig, OutageConfig, PathConfig
from bwe_env.network import Network
from bwe_env.sim.audio import AUDIO, audio_on_packet, audio_play_until, audio_reset
from bwe_env.sim.packet import FATE_DELIVERED, KIND_AUDIO
from bwe_env.trace import constant
from tests.reference.naive_audio import hear, target_us
from tests.sim.calls import OneCall
from tests.sim.hearing import FRAME_US, HEARD, play, random_arrivals, steady

NETWORK = Network(trace=constant(2e6, name="steady"), link=LinkConfig(queue_limit_s=0.3))


# --- By hand --------------------------------------------------------------------------------------


def test_nothing_is_counted_before_the_first_frame_is_decoded() -> None:
    assert play([], 5_000_000).played_us == 0
    audio = play([(0, 1_003_000)], 1_020_000)
    # Played at the output after its arrival, and lengthened by 10 ms: the target is 80 ms.
    assert (audio.played_us, audio.concealed_us, audio.inserted_us) == (30_000, 0, 10_000)
    assert audio.delay_sum_us == 7_000


def test_a_late_frame_is_waited_for_and_everything_after_it_is_played_later() -> None:
    # Frame 0 lasts 30 ms (lengthened) from 30 ms on. Frame 1 is there at 85 ms, not at 50.
    audio = play([(0, 30_000), (1, 85_000), (2, 85_000)], 121_000)
    assert (audio.concealments, audio.concealed_us) == (1, 30_000)  # at 60, 70 and 80 ms
    assert audio.played_frames == 3  # at 30, 90 and 110 ms
    assert audio.delay_sum_us == 0 + 5_000 + 25_000


def test_a_lost_frame_is_concealed_for_its_own_length() -> None:
    audio = play(steady([n for n in range(100) if n != 50]), 1_980_000)
    assert (audio.concealments, audio.concealed_us, audio.silent_us) == (1, FRAME_US, 0)
    assert audio.late_packets == 0


def test_a_packet_that_comes_after_its_frame_was_jumped_over_is_late() -> None:
    arrivals = steady([n for n in range(100) if n != 50])
    arrivals.append((50, arrivals[-1][1]))
    assert play(arrivals, 2_100_000).late_packets == 1


def test_a_packet_that_is_only_reordered_is_played() -> None:
    in_order = steady(range(100))
    at_us = in_order[51][1]
    swapped = [*in_order[:50], (51, at_us - 1), (50, at_us), *in_order[52:]]
    audio = play(swapped, 1_990_000)
    assert (audio.late_packets, audio.concealed_us) == (0, 0)


def test_concealment_is_silent_after_120_ms_and_an_interruption_from_150_ms_on() -> None:
    short = play(steady([0]), 30_000 + 30_000 + 140_000)
    assert (short.concealed_us, short.silent_us, short.interruptions) == (140_000, 20_000, 0)
    at_150 = play(steady([0]), 30_000 + 30_000 + 150_000)
    assert (at_150.interruptions, at_150.interrupted_us) == (1, 150_000)
    at_500 = play(steady([0]), 60_000 + 500_000)
    assert (at_500.interruptions, at_500.long_interrupted_us) == (1, 0)
    at_510 = play(steady([0]), 60_000 + 510_000)
    assert (at_510.interrupted_us, at_510.long_interrupted_us) == (510_000, 510_000)


def test_after_a_long_concealment_sound_waits_for_half_of_the_target() -> None:
    # 100 ms after frame 0 has ended, frames 1 to 3 come; 40 ms of sound are held with the third.
    arrivals = [(0, 30_000), (1, 155_000), (2, 165_000), (3, 185_000)]
    audio = play(arrivals, 191_000)
    # At 160 ms 5 ms are held; at 170 ms 20 + 5; at 180 ms 20 + 15; at 190 ms 40 + 5 of 80.
    assert audio.concealed_us == 130_000
    assert audio.played_frames == 2


def test_the_target_is_the_upper_end_of_the_bucket_of_the_largest_delay_in_half_a_second() -> None:
    late = [(n, at + (45_000 if n % 25 == 10 else 0)) for n, at in steady(range(60))]
    ordered, last = [], 0
    for number, at in late:
        last = max(last, at)
        ordered.append((number, last))
    assert play(ordered[:20], 500_000).target_us == 80_000  # before 500 ms are over
    assert play(ordered, 1_300_000).target_us == 60_000  # 45 ms are in the bucket of 40 to 60


@pytest.mark.parametrize(
    ("one_in", "target_ms"),
    [
        # A tenth comes 95 ms late: 60 ms of wait beyond the other target, 20, cost less than 10 %
        # of loss at 20 ms each. A hundredth is worth 20 ms, a thirtieth 67.
        (10, 100),
        (30, 100),
        (100, 20),
    ],
)
def test_reordered_packets_are_waited_for_where_their_loss_would_cost_more(
    one_in: int, target_ms: int
) -> None:
    late = [(n, at + 95_000 if n % one_in == 5 else at) for n, at in steady(range(1_000))]
    late.sort(key=lambda arrival: arrival[1])
    audio = play(late, 20_000_000)
    assert audio.underrun_target_us == 20_000
    assert audio.target_us == target_ms * 1_000


def test_the_playout_delay_settles_between_the_target_and_the_upper_limit() -> None:
    # A burst of lateness at the beginning, then a path without jitter: target 20, limit 40 ms.
    arrivals = [(n, max(at, 400_000)) for n, at in steady(range(3000))]
    audio = play(arrivals, 3000 * FRAME_US)
    assert audio.target_us == 20_000
    delay_us = audio.next_play_us - audio.next_number * FRAME_US - 30_000
    assert 20_000 <= delay_us < 40_000
    assert audio.removed_us > 0


def test_a_buffer_that_is_full_starts_again_with_what_came_last() -> None:
    arrivals = [(n, max(at, 9_000_000)) for n, at in steady(range(400)) if n > 0]
    audio = play([(0, 30_000), *arrivals], 9_000_001)
    assert audio.flushed_frames == 200
    assert audio.next_number >= 201


# --- Laws and twin --------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_order", [True, False])
@pytest.mark.parametrize("seed", range(24))
def test_the_kernels_hear_what_their_twin_hears(seed: int, keeps_order: bool) -> None:
    arrivals, frame_us, until_us = random_arrivals(seed, keeps_order=keeps_order)
    audio = play(arrivals, until_us, frame_us)
    heard = hear(arrivals, frame_us, until_us)
    for name in HEARD:
        assert audio[name] == getattr(heard, name), name


@pytest.mark.parametrize("keeps_order", [True, False])
@pytest.mark.parametrize("seed", range(24))
def test_the_target_is_that_of_the_twin_after_every_packet(seed: int, keeps_order: bool) -> None:
    arrivals, frame_us, _ = random_arrivals(seed, keeps_order=keeps_order)
    for count in range(1, len(arrivals), 20):
        audio = play(arrivals[:count], arrivals[count - 1][1] + 1, frame_us)
        assert audio.target_us == target_us(arrivals[:count], frame_us)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_heard_does_not_depend_on_when_it_is_asked_for(seed: int) -> None:
    arrivals, frame_us, until_us = random_arrivals(seed)
    audio = np.zeros(1, AUDIO)[0]
    audio_reset(audio, frame_us)
    asked_us = 0
    for number, at_us in arrivals:
        while asked_us < min(at_us, until_us):
            asked_us = min(asked_us + 7_001, at_us, until_us)
            audio_play_until(audio, asked_us)
        if at_us < until_us:
            audio_on_packet(audio, number, at_us)
    audio_play_until(audio, until_us)
    once = play(arrivals, until_us, frame_us)
    for name in HEARD:
        assert audio[name] == once[name], name


@pytest.mark.parametrize("keeps_order", [True, False])
@pytest.mark.parametrize("seed", range(24))
def test_sound_is_played_without_gap_or_overlap(seed: int, keeps_order: bool) -> None:
    arrivals, frame_us, until_us = random_arrivals(seed, keeps_order=keeps_order)
    audio = play(arrivals, until_us, frame_us)
    began_us = -(-arrivals[0][1] // 10_000) * 10_000
    frames_us = audio.played_frames * frame_us + audio.inserted_us - audio.removed_us
    assert audio.played_us == audio.concealed_us + frames_us
    assert audio.played_us == audio.next_play_us - began_us
    assert audio.silent_us <= audio.concealed_us
    assert audio.long_interrupted_us <= audio.interrupted_us <= audio.concealed_us
    assert audio.played_frames + audio.flushed_frames + audio.late_packets <= len(arrivals)


# --- Calls ----------------------------------------------------------------------------------------


def test_a_call_hears_the_audio_packets_that_arrived() -> None:
    lossy = PathConfig(loss=LossConfig(good_loss=0.05))
    call = OneCall(replace(NETWORK, forward=lossy), key=2)
    call.run_until(10.0)
    packets = call.packets
    heard = packets[(packets["kind"] == KIND_AUDIO) & (packets["fate"] == FATE_DELIVERED)]
    arrivals = [(int(p["send_us"]) // FRAME_US, int(p["arrival_us"])) for p in heard]
    twin = hear(arrivals, FRAME_US, call.now_us)
    for name in HEARD:
        assert call.flow.audio[name] == getattr(twin, name), name


def test_independent_loss_is_concealed_packet_by_packet() -> None:
    lossy = PathConfig(loss=LossConfig(good_loss=0.05))
    call = OneCall(replace(NETWORK, forward=lossy), key=4, packet_rows=None)
    call.run_until(60.0)
    audio, totals = call.flow.audio, call.flow.totals
    lost = totals.audio_lost_packets / totals.sent_packets[KIND_AUDIO]
    # Recorded Chromium calls conceal what is lost to within a tenth of it.
    assert audio.concealed_us / audio.played_us == pytest.approx(lost, rel=0.1)


def test_an_outage_of_two_seconds_is_one_interruption_of_about_that_length() -> None:
    out = PathConfig(outage=OutageConfig(from_s=5.0, until_s=7.0))
    call = OneCall(replace(NETWORK, forward=out), CallConfig(duration_s=10.0))
    call.run_until(10.0)
    audio = call.flow.audio
    assert audio.interruptions == 1
    assert audio.long_interrupted_us == pytest.approx(2_000_000, abs=150_000)
    assert audio.silent_us == pytest.approx(audio.long_interrupted_us - 120_000, abs=30_000)

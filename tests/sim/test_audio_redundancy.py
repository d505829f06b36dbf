"""Redundant audio (RED): what it costs, what it brings back, and how it is switched."""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.call_table import call_columns
from bwe_env.config import AudioConfig, CallConfig, LinkConfig, LossConfig, PathConfig
from bwe_env.network import Network
from bwe_env.sim.packet import FATE_DELIVERED, KIND_AUDIO
from bwe_env.sim.red import red_copies, red_payload_bytes
from bwe_env.sim.sender import media_budget
from bwe_env.trace import constant
from tests.reference.naive_audio import Packet, hear, target_us
from tests.sim.calls import PLAIN_VIDEO, OneCall
from tests.sim.hearing import FRAME_US, HEARD, play, random_arrivals

DELAY_US = 30_000

#: Opus at 32 kbps; IP, UDP and RTP headers.
FRAME_BYTES = 80
HEADER_BYTES = 28 + 12

NETWORK = Network(
    trace=constant(2e6, name="steady"),
    link=LinkConfig(queue_limit_s=0.3, loss_before_queue=True),
    forward=PathConfig(loss=LossConfig(good_loss=0.05)),
)


def talk(count: int, lost: Collection[int], copies: int) -> list[Packet]:
    """Packets that all take equally long; a few are lost, each repeats the frames before it."""
    return [
        (number, number * FRAME_US + DELAY_US, min(copies, number))
        for number in range(count)
        if number not in lost
    ]


def hear_talk(count: int, lost: Collection[int], copies: int) -> Any:
    """The AUDIO record after that, before the output asks for a frame after the last."""
    return play(talk(count, lost, copies), count * FRAME_US)


def make_call(redundancy: int, **changes: Any) -> OneCall:
    config = CallConfig(audio=AudioConfig(redundancy=redundancy), **changes)
    return OneCall(NETWORK, config, key=2)


def audio_packets(call: OneCall) -> NDArray[Any]:
    rows = call.packets
    return rows[rows["kind"] == KIND_AUDIO]


# --- The receiver, by hand ------------------------------------------------------------------------


def test_a_lost_frame_is_played_from_the_next_packet_and_nothing_is_concealed() -> None:
    lost = {50, 90, 130}
    audio = hear_talk(200, lost, copies=1)
    assert (audio.concealments, audio.recovered_frames, audio.late_packets) == (0, 3, 0)
    # Frame after frame: a frame is still there that all packets would have brought.
    assert audio.played_frames == hear_talk(200, (), copies=0).played_frames
    assert audio.played_us == audio.played_frames * FRAME_US + audio.inserted_us - audio.removed_us


def test_copies_of_frames_that_have_come_change_nothing() -> None:
    plain, redundant = hear_talk(200, (), copies=0), hear_talk(200, (), copies=2)
    for name in (*HEARD, "target_us"):
        assert redundant[name] == plain[name], name


def test_of_two_lost_frames_in_a_row_one_copy_leaves_the_first_concealed() -> None:
    lost = {50, 51, 120, 121, 190, 191}
    audio = hear_talk(300, lost, copies=1)
    assert (audio.concealments, audio.concealed_us) == (3, 3 * FRAME_US)
    assert (audio.recovered_frames, audio.late_packets) == (3, 0)


def test_of_two_lost_frames_in_a_row_two_copies_bring_back_both_once_they_are_waited_for() -> None:
    lost = {50, 51, 120, 121, 190, 191}
    audio = hear_talk(300, lost, copies=2)
    # The first copy of frame 50 is 40 ms late, and the buffer holds 30: one output is concealed.
    assert (audio.concealments, audio.concealed_us) == (1, 10_000)
    assert (audio.recovered_frames, audio.late_packets) == (6, 0)


def test_the_target_delay_grows_to_wait_for_copies_of_lost_frames() -> None:
    without = play(talk(200, {50}, copies=0), 200 * FRAME_US)
    audio = play(talk(200, {50}, copies=1), 200 * FRAME_US)
    assert without.target_us == 20_000
    # The copy came one frame later than its frame should have: the bucket of 20 to 40 ms.
    assert audio.target_us == 40_000
    assert audio.underrun_target_us == 20_000


def test_copies_of_a_frame_count_once_towards_the_target_however_late_they_are() -> None:
    # Packets 50 to 52 are lost: 53 brings frame 52 and 51, 54 brings 52 again.
    audio = play(talk(60, {50, 51, 52}, copies=2), 60 * FRAME_US)
    # 56 packets come in that time; all but the first, and two frames that only copies brought.
    assert audio.reorder_adds == 55 + 2


def test_a_copy_that_comes_too_late_counts_as_nothing() -> None:
    # Packet 50 is lost and 51 is held up, so that frame 51 is first heard of by packet 52, frame 50
    # is jumped over, and 51 is played by the copy before its packet comes at last.
    arrivals = talk(100, {50, 51}, copies=1)
    at_us = 55 * FRAME_US + DELAY_US
    arrivals = [*(p for p in arrivals if p[1] <= at_us), (51, at_us, 1),
                *(p for p in arrivals if p[1] > at_us)]  # fmt: skip
    audio = play(arrivals, 100 * FRAME_US)
    assert audio.recovered_frames == 1
    assert audio.concealed_us == FRAME_US
    assert audio.late_packets == 1  # packet 51 itself


def test_a_packet_that_was_only_late_takes_the_place_of_its_copy() -> None:
    at_us = 51 * FRAME_US + DELAY_US
    arrivals = talk(100, {50, 51}, copies=1)
    swapped = [*(p for p in arrivals if p[1] < at_us), (51, at_us - 1_000, 1), (50, at_us, 0),
               *(p for p in arrivals if p[1] > at_us)]  # fmt: skip
    audio = play(swapped, 100 * FRAME_US)
    assert (audio.recovered_frames, audio.late_packets, audio.concealed_us) == (0, 0, 0)
    # Its wait in the buffer began when its own packet came.
    by_copy = play([p for p in swapped if p[0] != 50], 100 * FRAME_US)
    assert by_copy.recovered_frames == 1
    assert by_copy.delay_sum_us - audio.delay_sum_us == 1_000


def test_the_receiver_takes_from_every_packet_what_that_packet_has() -> None:
    first = [p[:2] for p in talk(100, {50}, copies=0)]
    second = [p for p in talk(300, {50, 150, 250}, copies=1) if 100 <= p[0] < 200]
    third = [(*p[:2], 0) for p in talk(300, {250}, copies=0) if p[0] >= 200]
    audio = play([*first, *second, *third], 300 * FRAME_US)
    assert (audio.concealments, audio.concealed_us) == (2, 2 * FRAME_US)
    assert audio.recovered_frames == 1


# --- Law and twin ---------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2])
def test_independent_loss_conceals_its_power_of_the_copies_and_one(copies: int) -> None:
    chance = random.Random(5)
    count, loss = 60_000, 0.1
    lost = {number for number in range(1, count) if chance.random() < loss}
    audio = hear_talk(count, lost, copies)
    # Exactly the frames that were lost with all packets that repeat them, but for 10 ms now and
    # then while the buffer learns to wait.
    hopeless = sum(all(n + back in lost for back in range(copies + 1)) for n in lost)
    assert audio.concealed_us == pytest.approx(hopeless * FRAME_US, abs=2 * FRAME_US)
    # They are a share of loss ** (copies + 1), within three standard deviations; those of runs are
    # neighbours, which widens the deviation by up to (1 + loss) / (1 - loss) in the square.
    expected = count * loss ** (copies + 1)
    deviation = math.sqrt(expected * (1 + loss) / (1 - loss))
    assert audio.concealed_us / FRAME_US == pytest.approx(expected, abs=3 * deviation)


def redundant_arrivals(seed: int, *, keeps_order: bool) -> tuple[list[Packet], int, int]:
    """`random_arrivals` whose packets repeat none to two frames, as they like."""
    arrivals, frame_us, until_us = random_arrivals(seed, keeps_order=keeps_order)
    chance = random.Random(seed)
    first = min(number for number, _ in arrivals)
    packets: list[Packet] = [
        (number, at_us, chance.randint(0, min(2, number - first))) for number, at_us in arrivals
    ]
    return packets, frame_us, until_us


@pytest.mark.parametrize("keeps_order", [True, False])
@pytest.mark.parametrize("seed", range(16))
def test_the_kernels_hear_copies_as_their_twin_does(seed: int, keeps_order: bool) -> None:
    arrivals, frame_us, until_us = redundant_arrivals(seed, keeps_order=keeps_order)
    audio = play(arrivals, until_us, frame_us)
    heard = hear(arrivals, frame_us, until_us)
    for name in HEARD:
        assert audio[name] == getattr(heard, name), name
    frames_us = audio.played_frames * frame_us + audio.inserted_us - audio.removed_us
    assert audio.played_us == audio.concealed_us + frames_us
    counted = audio.played_frames + audio.flushed_frames + audio.late_packets
    assert counted <= len(arrivals) + audio.recovered_frames


@pytest.mark.parametrize("keeps_order", [True, False])
@pytest.mark.parametrize("seed", range(16))
def test_the_target_against_copies_is_that_of_the_twin(seed: int, keeps_order: bool) -> None:
    arrivals, frame_us, _ = redundant_arrivals(seed, keeps_order=keeps_order)
    for count in range(1, len(arrivals), 40):
        audio = play(arrivals[:count], arrivals[count - 1][1] + 1, frame_us)
        assert audio.target_us == target_us(arrivals[:count], frame_us)


# --- What it costs --------------------------------------------------------------------------------


def audio_packet_sizes(redundancy: int) -> NDArray[Any]:
    call = make_call(redundancy)
    call.run_until(2.0)
    packets = audio_packets(call)
    assert packets["repairs"].tolist() == [min(redundancy, n) for n in range(len(packets))]
    assert call.flow.totals.sent_bytes[KIND_AUDIO] == packets["size_bytes"].sum()
    sizes: NDArray[Any] = packets["size_bytes"]
    return sizes


def test_a_packet_grows_by_its_copies_and_their_headers() -> None:
    sizes = [audio_packet_sizes(redundancy) for redundancy in (0, 1, 2)]
    plain, own_header, block = FRAME_BYTES + HEADER_BYTES, 1, 4 + FRAME_BYTES
    assert set(sizes[0].tolist()) == {plain}
    # The first packet of a call has nothing to repeat, the second one frame.
    assert sizes[1][0] == plain + own_header
    assert set(sizes[1][1:].tolist()) == {plain + own_header + block}
    assert sizes[2][:2].tolist() == [plain + own_header, plain + own_header + block]
    assert set(sizes[2][2:].tolist()) == {plain + own_header + 2 * block}


def test_copies_that_a_packet_has_no_room_for_stay_away() -> None:
    # 1200 bytes hold headers of 40, a frame, and copies with 4 more each.
    assert red_copies(2, 384, HEADER_BYTES) == 2  # 384 + 2 * 388 = 1160
    assert red_copies(2, 385, HEADER_BYTES) == 1
    assert red_copies(2, 578, HEADER_BYTES) == 1  # 578 + 582 = 1160
    assert red_copies(2, 579, HEADER_BYTES) == 0
    assert red_payload_bytes(2, 0, 579) == 580  # still a RED packet
    # A block's length has 10 bits: longer frames leave as they are.
    assert red_payload_bytes(2, 0, 1023) == 1024
    assert (red_copies(1, 1024, 0), red_payload_bytes(1, 0, 1024)) == (0, 1024)


def test_video_gives_up_what_copies_take() -> None:
    call = make_call(0)
    target_bps = 1e6
    budgets_bps = []
    for redundancy in (0, 1, 2):
        call.flow.audio_redundancy = redundancy
        rate_bps, num_packets = media_budget(call.flow, target_bps)
        budgets_bps.append(rate_bps + 8.0 * 30.0 * HEADER_BYTES * num_packets)
    # 50 packets a second: 85 bytes more for the first copy, 84 for the second.
    assert -np.diff(budgets_bps) == pytest.approx([50 * 85 * 8, 50 * 84 * 8])


def test_all_that_is_sent_stays_at_the_target_whatever_audio_repeats() -> None:
    sent_bytes = []
    for redundancy in (0, 2):
        audio = AudioConfig(redundancy=redundancy)
        quiet = replace(NETWORK, forward=PathConfig())
        config = CallConfig(audio=audio, video=PLAIN_VIDEO)
        call = OneCall(quiet, config, mode="rate")
        call.run_until(10.0, 500_000)
        sent_bytes.append(int(call.flow.totals.sent_bytes.sum()))
    # To within a byte a frame; and 169 bytes fewer with the first packet, 84 with the second.
    assert sent_bytes[1] == pytest.approx(sent_bytes[0], abs=300 + 169 + 84)


# --- Calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("redundancy", [1, 2])
def test_a_call_hears_what_arrived_and_what_was_repeated(redundancy: int) -> None:
    call = make_call(redundancy)
    call.run_until(6.0)
    packets = audio_packets(call)
    heard = packets[packets["fate"] == FATE_DELIVERED]
    arrivals: list[Packet] = [
        (int(p["send_us"]) // FRAME_US, int(p["arrival_us"]), int(p["repairs"])) for p in heard
    ]
    twin = hear(arrivals, FRAME_US, call.now_us)
    assert twin.recovered_frames > 5
    for name in HEARD:
        assert call.flow.audio[name] == getattr(twin, name), name


def test_redundancy_can_be_switched_while_a_call_goes_on() -> None:
    call = make_call(0)
    audio = call.flow.audio
    spans = []
    for redundancy, until_s in ((0, 20.0), (1, 40.0), (0, 60.0)):
        call.flow.audio_redundancy = redundancy
        before = (int(audio.concealed_us), int(audio.recovered_frames))
        call.run_until(until_s)
        spans.append((audio.concealed_us - before[0], audio.recovered_frames - before[1]))
    (plain_us, none), (protected_us, recovered), (again_us, few) = spans
    # 5 % of 1000 packets are lost; protected, a twentieth of those.
    assert plain_us > 30 * FRAME_US < again_us
    assert protected_us < 10 * FRAME_US
    assert none == 0
    assert recovered > 30
    assert few <= 1  # from the last packet before
    packets = audio_packets(call)
    is_within = (packets["send_us"] > 20_000_000) & (packets["send_us"] <= 40_000_000)
    assert (packets["repairs"] == is_within).all()
    assert (packets["size_bytes"] == FRAME_BYTES + HEADER_BYTES + 85 * is_within).all()


def test_the_table_of_calls_says_how_many_frames_were_recovered() -> None:
    config = CallConfig(duration_s=5.0, audio=AudioConfig(redundancy=1))
    call = OneCall(NETWORK, config, key=2)
    steps = call.run_until(5.0)
    columns = call_columns(call.world, steps[:, np.newaxis], config)
    assert columns["audio_recovered_frames"][0] == call.flow.audio.recovered_frames > 0

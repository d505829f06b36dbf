"""What is lost is asked for and sent again, in time; what cannot be repaired is replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import CallConfig, LinkConfig, PathConfig
from bwe_env.network import Network
from bwe_env.sim.flow import CONTROLLER_EXTERNAL, SIDE_RECEIVER
from bwe_env.sim.packet import FATE_DELIVERED, FATE_RANDOM_LOSS, KIND_RTX, KIND_VIDEO
from bwe_env.sim.retransmit import RETRANSMIT, retransmit_reset, retransmit_take_rate
from bwe_env.trace import Trace, constant
from tests.sim.calls import PLAIN_VIDEO, SILENT, OneCall

ONE_WAY_US = 40_000
ROUND_TRIP_US = 2 * ONE_WAY_US

#: Roomy, 40 ms each way, random loss where the packet is sent.
NETWORK = Network(
    trace=constant(50e6),
    link=LinkConfig(loss_before_queue=True),
    forward=PathConfig(propagation_delay_s=0.04),
    reverse=PathConfig(propagation_delay_s=0.04),
)

#: One packet a frame.
SLOW_BPS = 200_000
#: Twenty packets a frame.
FAST_BPS = 6_000_000

#: How often the receiver looks at its list (kUpdateInterval, nack_requester.cc).
POLL_US = 20_000


def make_call(**changes: Any) -> OneCall:
    config = CallConfig(video=PLAIN_VIDEO, audio=SILENT, **changes)
    return OneCall(NETWORK, config, mode="rate", step_us=1_000)


def lose(call: OneCall, from_s: float, until_s: float, rate_bps: float) -> None:
    """Run to `from_s`, then lose everything that is sent before `until_s`."""
    call.run_until(from_s, rate_bps)
    call.set_forward_loss(1.0)
    call.run_until(until_s, rate_bps)
    call.set_forward_loss(0.0)


def repeats(call: OneCall) -> NDArray[np.int64]:
    """Sequence numbers of all retransmissions."""
    return np.flatnonzero(call.packets["kind"] == KIND_RTX)


def lost_video(call: OneCall) -> NDArray[np.int64]:
    rows = call.packets
    return np.flatnonzero((rows["kind"] == KIND_VIDEO) & (rows["fate"] == FATE_RANDOM_LOSS))


def test_a_lost_packet_is_repaired_one_round_trip_after_its_gap_is_seen() -> None:
    call = make_call()
    lose(call, 1.99, 2.01, SLOW_BPS)  # the frame of 2.0 s
    call.run_until(2.5, SLOW_BPS)
    rows = call.packets
    (lost,) = lost_video(call)
    (repeat,) = repeats(call)
    # The gap shows when the next frame arrives; NACK and repeat take a way each.
    next_arrival_us = rows["arrival_us"][lost + 1]
    assert rows["send_us"][lost] == 2_000_000
    assert rows["send_us"][lost + 1] == 2_033_333
    assert rows["send_us"][repeat] == next_arrival_us + ONE_WAY_US
    assert rows["repairs"][repeat] == repeat - lost
    assert rows["fate"][repeat] == FATE_DELIVERED
    assert rows["arrival_us"][repeat] == pytest.approx(next_arrival_us + ROUND_TRIP_US, abs=500)
    assert rows["is_repaired"][lost] == 1
    # Every frame was shown, late but whole: the gap was shorter than a freeze.
    encoder, receiver = call.flow.encoder, call.flow.receiver
    assert receiver.frames_shown >= encoder.next_frame - 2
    assert receiver.freeze_count == 0
    assert (encoder.key_frames, receiver.key_requests) == (1, 0)


def test_what_was_lost_before_the_first_arrival_is_replaced_by_a_key_frame() -> None:
    call = make_call()
    call.set_forward_loss(1.0)
    call.run_until(0.05, SLOW_BPS)  # the frames of 0 and 33 ms
    call.set_forward_loss(0.0)
    call.run_until(1.0, SLOW_BPS)
    assert len(lost_video(call)) == 2
    assert call.flow.repair.nacked_packets == 0
    assert len(repeats(call)) == 0
    # Nothing can be decoded without a key frame: it is asked for after 200 ms without one, at the
    # next look, and is here a round trip and at most a frame interval later.
    receiver = call.flow.receiver
    assert receiver.key_requests == 1
    assert 200_000 <= receiver.last_request_us <= 200_000 + POLL_US
    latest_us = receiver.last_request_us + ROUND_TRIP_US + 33_334 + 1_000
    assert receiver.first_shown_us <= latest_us


def test_the_picture_stands_until_the_repair_is_here() -> None:
    call = make_call()
    lose(call, 1.99, 2.01, SLOW_BPS)
    call.run_until(2.2, SLOW_BPS)
    rows = call.packets
    (lost,) = lost_video(call)
    (repeat,) = repeats(call)
    repaired_us = int(rows["arrival_us"][repeat])
    again = make_call()
    lose(again, 1.99, 2.01, SLOW_BPS)
    again.run_until((repaired_us - 1_000) * 1e-6, SLOW_BPS)
    assert again.flow.receiver.next_frame == rows["frame"][lost]
    shown = int(again.flow.receiver.frames_shown)
    again.run_until((repaired_us + 1_000) * 1e-6, SLOW_BPS)
    # All frames whose packets came in the meantime follow at once.
    waiting = (rows["arrival_us"] < repaired_us) & (rows["send_us"] > 2_000_000)
    waiting &= rows["kind"] == KIND_VIDEO
    assert again.flow.receiver.frames_shown - shown == 1 + waiting.sum()


def test_a_lost_repeat_is_asked_for_again_after_a_round_trip_at_the_next_look() -> None:
    call = make_call()
    lose(call, 1.99, 2.01, SLOW_BPS)
    call.run_until(2.1, SLOW_BPS)
    while len(repeats(call)) == 0:  # lose what is sent in the millisecond of the first repeat
        due_us = 2_033_333 + ROUND_TRIP_US
        is_due = abs(call.now_us + 500 - due_us) < 2_000
        call.set_forward_loss(float(is_due))
        call.step(SLOW_BPS)
    call.set_forward_loss(0.0)
    call.run_until(2.6, SLOW_BPS)
    rows = call.packets
    first, second = repeats(call)
    assert rows["fate"][first] == FATE_RANDOM_LOSS
    assert rows["fate"][second] == FATE_DELIVERED
    apart_us = rows["send_us"][second] - rows["send_us"][first]
    # RTCP has told the receiver of the round trip: 80 ms and the service of a packet.
    assert ROUND_TRIP_US <= apart_us <= ROUND_TRIP_US + POLL_US + 1_000
    assert call.flow.repair.nacked_packets == 2


def test_a_hole_too_large_to_repair_is_passed_by_a_key_frame_a_round_trip_later() -> None:
    call = make_call()
    lose(call, 1.99, 3.70, FAST_BPS)  # 51 frames of 21 packets: more than the list of 1000 holds
    call.run_until(4.1, FAST_BPS)
    rows, frames = call.packets, call.world.frames[0]
    lost = lost_video(call)
    assert len(lost) > 1000
    assert call.flow.receiver.key_requests == 1
    assert call.flow.encoder.key_frames == 2
    key = next(row for row in frames if row["is_key"] == 1 and row["number"] > 0)
    gap_seen_us = rows["arrival_us"][lost[-1] + 1]
    # The request takes a way, then the camera's next frame is a key frame.
    waited_us = int(key["capture_us"]) - gap_seen_us - ONE_WAY_US
    assert 0 <= waited_us <= 33_334
    packets = rows[(rows["frame"] == key["number"]) & (rows["kind"] == KIND_VIDEO)]
    assert (packets["fate"] == FATE_DELIVERED).all()
    assert call.flow.receiver.next_frame > key["number"]
    # One freeze: from the last frame before the hole until the key frame.
    shown_before_us = rows["arrival_us"][lost[0] - 1]
    assert call.flow.receiver.freeze_count == 1
    assert call.flow.receiver.freeze_us == packets["arrival_us"].max() - shown_before_us


def test_repeats_leave_before_the_frames_that_wait_in_the_pacer() -> None:
    call = make_call()
    lose(call, 1.99, 2.01, SLOW_BPS)
    call.run_until(2.05, SLOW_BPS)
    call.flow.encoder.key_frame_ratio = 20.0
    call.flow.encoder.is_key_requested = 1  # the frame of 2.0667 s takes 0.6 s to send
    call.run_until(2.6, SLOW_BPS)
    rows = call.packets
    (repeat,) = repeats(call)
    nack_us = rows["arrival_us"][lost_video(call)[0] + 1] + ONE_WAY_US
    large = rows["frame"][repeat - 1]
    assert rows["send_us"][repeat - 1] <= nack_us < rows["send_us"][repeat]
    assert rows["frame"][repeat + 1] == large  # frames in the queue since before the NACK
    behind = rows[repeat + 1 :]
    assert (behind["frame"] == large).sum() > 5


def test_a_link_flooded_for_ten_seconds_never_outgrows_its_rings() -> None:
    # Thirty times the capacity: hundreds of packets are missing and asked for at every look.
    network = Network(trace=constant(100_000), link=LinkConfig(queue_limit_s=0.5))
    call = OneCall(network, CallConfig(audio=SILENT), mode="rate")
    steps = call.run_until(10.0, 3_000_000)
    assert len(steps) == 100
    assert call.flow.repair.nacked_packets > 1_000


# --- What the sender may know ---------------------------------------------------------------------


def test_a_packet_is_repeated_at_most_once_a_round_trip_however_often_it_is_asked_for() -> None:
    call = make_call()
    lose(call, 1.99, 2.01, SLOW_BPS)
    # The receiver believes in a short round trip and asks at every look; the sender knows better.
    call.run_until(2.06, SLOW_BPS)
    call.set_forward_loss(1.0)  # no repeat gets through
    while call.now_us < 2_900_000:
        call.flow.receiver.rtt_us = 1_000
        call.step(SLOW_BPS)
    rows = call.packets
    mine = repeats(call)
    first = lost_video(call)[0]
    mine = mine[mine - rows["repairs"][mine] == first]
    assert call.flow.repair.nacked_packets > 2 * len(mine) > 4
    assert (np.diff(rows["send_us"][mine]) >= ROUND_TRIP_US + 5_000).all()
    # The newest repeat is noted at the packet.
    assert first - rows["repairs"][first] == mine[-1]


def test_a_repeat_that_was_on_its_way_is_sent_again_because_the_sender_cannot_see_it() -> None:
    call = make_call()
    lose(call, 1.99, 2.01, SLOW_BPS)
    while len(repeats(call)) == 0:
        call.flow.rtt_us = 1_000  # the sender does not guard, and the receiver asks at every look
        call.flow.receiver.rtt_us = 1_000
        call.step(SLOW_BPS)
    for _ in range(300):
        call.flow.rtt_us = 1_000
        call.step(SLOW_BPS)
    rows = call.packets
    mine = repeats(call)
    # A third would exceed the rate limit until the first is here.
    assert len(mine) == 2
    assert (rows["fate"][mine] == FATE_DELIVERED).all()
    assert call.flow.totals.duplicate_packets == len(mine) - 1
    # Counted once: the frame was shown once.
    assert call.flow.receiver.frames_shown <= call.flow.encoder.next_frame


def test_repeats_of_half_a_second_stay_within_the_target_rate() -> None:
    retransmit = np.zeros(1, RETRANSMIT)[0]
    retransmit_reset(retransmit)
    rate_bps, size_bytes = 400_000, 1_000
    taken_us = []
    for now_us in range(1_000_000, 4_000_000, 5_000):
        if retransmit_take_rate(retransmit, size_bytes, rate_bps, now_us):
            taken_us.append(now_us)
    # 400 kbps for 0.5 s are 25 packets; the first few come before there is a rate.
    times_us = np.array(taken_us)
    for now_us in range(2_000_000, 4_000_000, 5_000):
        inside = (times_us > now_us - 480_000) & (times_us <= now_us)
        assert inside.sum() <= 25
    assert len(taken_us) == pytest.approx(3.0 * 50, rel=0.1)
    assert retransmit.refused == 600 - len(taken_us)


def test_one_repeat_is_no_rate_and_forbids_no_second() -> None:
    """RateStatistics::Rate: no rate of one sample in a window that is not full yet."""
    retransmit = np.zeros(1, RETRANSMIT)[0]
    retransmit_reset(retransmit)
    rate_bps, size_bytes = 100_000, 1_000
    # 1000 bytes in 5 ms would be 1.6 Mbps; two in 10 ms are a rate of the same size, and too much.
    taken = [
        retransmit_take_rate(retransmit, size_bytes, rate_bps, now_us)
        for now_us in (1_000_000, 1_005_000, 1_010_000)
    ]
    assert taken == [True, True, False]
    # Half a second after the last of them the window is empty and one begins anew.
    taken = [
        retransmit_take_rate(retransmit, size_bytes, rate_bps, now_us)
        for now_us in (1_520_000, 1_530_000, 1_540_000)
    ]
    assert taken == [True, True, False]


def test_a_repeat_whose_packet_left_the_ring_while_it_waited_leaves_nothing_in_the_queue() -> None:
    # A window of one byte holds the pacer back; sound goes on and overwrites the lost packets.
    call = OneCall(NETWORK, CallConfig(video=PLAIN_VIDEO), step_us=10_000, packet_rows=256)
    call.flow.controller = CONTROLLER_EXTERNAL
    call.flow.estimator_side = SIDE_RECEIVER
    lose(call, 1.99, 2.01, 0.0)
    call.run_until(2.08)
    call.flow.pacer.cwnd_bytes = 1
    call.run_until(2.5)
    pacer = call.flow.pacer
    assert pacer.rtx_tail > pacer.rtx_head  # repeats wait
    call.run_until(10.0)  # 50 packets of sound a second
    assert pacer.rtx_tail > pacer.rtx_head
    pacer.cwnd_bytes = 0
    call.flow.encoder.pause_until_us = 60_000_000
    call.run_until(12.0)
    assert (pacer.queue_packets, pacer.rtx_tail - pacer.rtx_head) == (0, 0)
    assert (pacer.queue_bytes, pacer.queue_since_sum_us) == (0, 0)


def test_packets_that_the_socket_refused_are_given_up_for_a_key_frame() -> None:
    # Nothing leaves for 4 s behind a queue that takes all: the ring fills, the socket refuses.
    trace = Trace("gap", "pattern", "test", np.array([2_000_000, 4_000_000, 60_000_000]),
                  np.array([8e6, 0.0, 50e6]))  # fmt: skip
    network = Network(trace=trace, link=LinkConfig(queue_limit_bytes=10_000_000))
    config = CallConfig(video=PLAIN_VIDEO, max_rate_bps=6_000_000)
    call = OneCall(network, config, mode="rate", packet_rows=256)
    call.run_until(5.9, FAST_BPS)
    assert call.flow.totals.refused_packets > 0
    frame = int(call.flow.encoder.next_frame)
    call.run_until(7.5, FAST_BPS)
    receiver, encoder = call.flow.receiver, call.flow.encoder
    assert encoder.next_frame > frame + 30
    assert encoder.key_frames >= 2
    assert receiver.key_requests == 0  # the sender did not have to be asked
    assert encoder.next_frame - receiver.next_frame < 6
    assert receiver.needs_key == 0

"""What is lost is asked for and sent again, in time; what cannot be repaired is replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import CallConfig, LinkConfig, PathConfig
from bwe_env.network import Network
from bwe_env.sim.packet import FATE_DELIVERED, FATE_RANDOM_LOSS, KIND_RTX, KIND_VIDEO
from bwe_env.trace import constant
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
    lose(call, 1.99, 2.65, FAST_BPS)  # 20 frames of 21 packets: more than the list of 256 holds
    call.run_until(3.0, FAST_BPS)
    rows, frames = call.packets, call.world.frames[0]
    lost = lost_video(call)
    assert len(lost) > 256
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

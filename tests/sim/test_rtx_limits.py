"""What a sender may be told about repeats: their share of the rate, and the age of what it repeats.

At the defaults libwebrtc's own rules hold, which tests/sim/test_repair.py specifies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig, LinkConfig, PathConfig, RtxConfig, VideoConfig
from bwe_env.network import Network
from bwe_env.sim.packet import FATE_RANDOM_LOSS, KIND_RTX, KIND_VIDEO
from bwe_env.trace import constant
from tests.sim.calls import SILENT, OneCall

#: Roomy, 40 ms each way, random loss where the packet is sent.
NETWORK = Network(
    trace=constant(50e6),
    link=LinkConfig(loss_before_queue=True),
    forward=PathConfig(propagation_delay_s=0.04),
    reverse=PathConfig(propagation_delay_s=0.04),
)
ONE_WAY_US = 40_000

#: One packet a frame; a dozen.
SLOW_BPS = 200_000
FAST_BPS = 3_000_000


def make_call(rtx: RtxConfig | None = None, *, step_us: int = 1_000) -> OneCall:
    video = VideoConfig(
        encoder_lag_s=0.0,
        frame_size_sd=0.0,
        key_frame_ratio=1.0,
        jitter_buffer=False,
        rtx=rtx or RtxConfig(),
    )
    return OneCall(NETWORK, CallConfig(video=video, audio=SILENT), mode="rate", step_us=step_us)


def repeats(call: OneCall) -> NDArray[Any]:
    """Rows of all retransmissions."""
    return call.packets[call.packets["kind"] == KIND_RTX]


def lose_the_frame_of_two_seconds(call: OneCall) -> int:
    """Returns the lost packet's age when its NACK reaches the sender, in us."""
    call.run_until(1.99, SLOW_BPS)
    call.set_forward_loss(1.0)
    call.run_until(2.01, SLOW_BPS)
    call.set_forward_loss(0.0)
    call.run_until(2.08, SLOW_BPS)
    rows = call.packets
    (lost,) = np.flatnonzero((rows["kind"] == KIND_VIDEO) & (rows["fate"] == FATE_RANDOM_LOSS))
    assert rows["send_us"][lost] == 2_000_000
    # The next frame shows the gap.
    return int(rows["arrival_us"][lost + 1]) + ONE_WAY_US - 2_000_000


def test_a_packet_is_repeated_up_to_the_age_that_is_set_and_not_a_microsecond_later() -> None:
    for beyond_us, is_repeated in ((0, True), (1, False)):
        call = make_call()
        age_us = lose_the_frame_of_two_seconds(call)
        call.flow.rtx_max_age_us = age_us - beyond_us
        call.run_until(2.13, SLOW_BPS)
        assert call.flow.repair.nacked_packets == 1
        assert (len(repeats(call)) == 1) == is_repeated


def test_for_what_is_too_old_to_be_repeated_the_receiver_waits_until_it_wants_a_key_frame() -> None:
    # The age of the first request is 33 + 80 ms and the service of a packet.
    call = make_call(RtxConfig(max_age_s=0.1))
    lose_the_frame_of_two_seconds(call)
    call.run_until(4.9, SLOW_BPS)
    receiver = call.flow.receiver
    assert (len(repeats(call)), receiver.key_requests) == (0, 0)
    shown_us = int(receiver.last_shown_us)
    call.run_until(6.0, SLOW_BPS)
    # It knows nothing of the sender's rule: 3 s, and 20 ms to the next look.
    assert 3_000_000 <= receiver.last_request_us - shown_us <= 3_020_000
    assert (receiver.key_requests, call.flow.encoder.key_frames) == (1, 2)
    assert call.flow.encoder.next_frame - receiver.next_frame < 5


def test_an_age_of_zero_leaves_it_to_the_history() -> None:
    call = make_call()
    assert (call.flow.rtx_max_age_us, call.flow.rtx_rate_share) == (0, 1.0)
    lose_the_frame_of_two_seconds(call)
    call.run_until(2.5, SLOW_BPS)
    assert len(repeats(call)) == 1


def most_in_half_a_second(rows: NDArray[Any]) -> int:
    """Most bytes of repeats in any window; 20 ms less, the resolution of the sender's count."""
    times_us = rows["send_us"]
    window_us = 480_000
    return max(
        int(rows["size_bytes"][(times_us > end_us - window_us) & (times_us <= end_us)].sum())
        for end_us in times_us
    )


def lossy_repeats(share: float) -> tuple[OneCall, NDArray[Any]]:
    """Ten seconds at 3 Mbps; from 3 s on, when there is a rate to limit, a fifth is lost."""
    call = make_call(RtxConfig(rate_share=share), step_us=10_000)
    call.run_until(3.0, FAST_BPS)
    call.set_forward_loss(0.2)
    call.run_until(10.0, FAST_BPS)
    return call, repeats(call)


def test_repeats_of_half_a_second_stay_within_their_share_of_the_target_rate() -> None:
    whole, all_rows = lossy_repeats(1.0)
    assert whole.flow.retransmit.refused < 5  # a rate over a few ms is too much now and then
    for share in (0.05, 0.1):
        call, rows = lossy_repeats(share)
        limit_bytes = share * FAST_BPS * 0.5 / 8
        # Nearly all of it is used; 2 bytes of RTX header a repeat are sent, but not counted.
        assert 0.8 * limit_bytes < most_in_half_a_second(rows) <= 1.05 * limit_bytes
        assert call.flow.retransmit.refused > 100
        assert len(rows) < len(all_rows)


def test_the_share_can_be_changed_while_a_call_goes_on() -> None:
    call = make_call(RtxConfig(rate_share=0.05), step_us=10_000)
    call.run_until(3.0, FAST_BPS)
    call.set_forward_loss(0.1)
    call.run_until(6.0, FAST_BPS)
    refused = int(call.flow.retransmit.refused)
    assert refused > 50
    call.flow.rtx_rate_share = 1.0
    call.run_until(6.1, FAST_BPS)  # the requests under way
    refused = int(call.flow.retransmit.refused)
    call.run_until(9.0, FAST_BPS)
    assert call.flow.retransmit.refused == refused


def test_a_small_share_is_paid_for_in_frames() -> None:
    shown = [int(lossy_repeats(share)[0].flow.receiver.frames_shown) for share in (0.05, 1.0)]
    assert shown[0] < 0.5 * shown[1]

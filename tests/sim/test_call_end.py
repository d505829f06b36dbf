"""Silence is not smoothness, and hanging up does not pay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bwe_env.config import CallConfig, LinkConfig, PathConfig, VideoConfig
from bwe_env.network import Network
from bwe_env.sim.call import STATUS_ACTIVE, STATUS_DROPPED
from bwe_env.sim.packet import FATE_PENDING
from bwe_env.trace import Trace, constant
from tests.sim.calls import OneCall

ONE_WAY_S = 0.025


def with_outage(at_s: float, for_s: float, *, capacity_bps: float = 1e6) -> Network:
    """A network that goes silent for a while, with a queue that holds what is sent meanwhile."""
    times_s = np.array([at_s, for_s, 1_000.0])
    trace = Trace(
        "outage",
        "pattern",
        "test",
        (times_s * 1e6).astype(np.int64),
        np.array([capacity_bps, 0.0, capacity_bps]),
    )
    return Network(trace=trace, link=LinkConfig(queue_limit_bytes=1_000_000))


def test_a_call_drops_15_s_after_the_last_answer_and_is_charged_for_what_it_had_left() -> None:
    call = OneCall(with_outage(3.0, 500.0), CallConfig(duration_s=60.0))
    steps = call.run_until(60.0)
    # Checks go out at 0, 2.5, 5.0 ... s; the last answer is that of 2.5 s, after 50 ms and a queue.
    answered_us = int(call.flow.last_consent_us)
    assert 2_550_000 < answered_us < 2_700_000
    assert call.call.status == STATUS_DROPPED
    assert call.call.dropped_us == call.now_us == answered_us + 15_000_000
    last = steps[-1]
    assert last["time_s"] == call.now_us * 1e-6
    assert last["reward_drop"] == pytest.approx(-(60.0 - call.now_us * 1e-6))
    assert (steps["reward_drop"][:-1] == 0.0).all()
    # 12 s of silence and 42 s that never came: worse than any 60 s could have been in the call.
    assert steps["reward"].sum() < -42.0


def test_a_call_survives_an_outage_that_ends_before_consent_expires() -> None:
    # The last answer before comes at 2.55 s: until 17.55 s there is time.
    call = OneCall(with_outage(3.0, 13.0), CallConfig(duration_s=60.0))
    call.run_until(25.0)
    assert call.call.status == STATUS_ACTIVE
    assert call.flow.last_consent_us > 16_000_000


def test_in_a_long_outage_the_socket_refuses_what_its_ring_cannot_hold() -> None:
    network = with_outage(3.0, 12.0, capacity_bps=4e6)
    network = replace(network, link=LinkConfig(queue_limit_bytes=100_000_000))
    call = OneCall(network, CallConfig(max_rate_bps=2_000_000), mode="rate", packet_rows=None)
    call.run_until(14.9, 2_000_000)
    totals = call.flow.totals
    # Some 2 Mbps for 12 s are 3 MB; the ring is made for what 2 s may hold. The encoder rests while
    # the socket is full; audio goes on at 50 packets a second.
    assert totals.refused_packets > 300
    # All of it is stuck, but for what the queue dropped for a consent check that took its place.
    assert call.packet_rows - 10 <= totals.fate_packets[FATE_PENDING] <= call.packet_rows
    assert call.call.link.queue_bytes < 3_000_000 / 3
    refused = int(totals.refused_packets)
    call.run_until(25.0, 2_000_000)
    assert call.call.status == STATUS_ACTIVE
    assert call.flow.totals.refused_packets < refused + 500  # until the queue has drained a little
    # The picture has come back: with a key frame, since no retransmission can fill such a hole.
    assert call.flow.encoder.key_frames >= 2
    assert call.world.steps["frame_rate_hz"][0] == pytest.approx(30.0, abs=1.0)
    assert call.world.steps["frozen_ratio"][0] == 0.0


def test_a_call_that_never_hears_back_drops_15_s_after_its_start() -> None:
    call = OneCall(Network(trace=constant(1e6)), CallConfig(duration_s=60.0))
    call.set_reverse_loss(1.0)
    call.run_until(60.0)
    assert call.call.status == STATUS_DROPPED
    assert call.call.dropped_us == 15_000_000


def test_a_muted_camera_is_a_frozen_picture_from_the_first_moment() -> None:
    config = CallConfig(video=VideoConfig(enabled=False))
    call = OneCall(Network(trace=constant(5e6)), config)
    steps = call.run_until(20.0)
    # The gap shows itself as a freeze after 183 ms and is charged from its beginning, an interval
    # holding no more than its own length: one interval is always owed.
    assert steps["frozen_ratio"].tolist() == [0.0] + [1.0] * 199
    assert (steps["video_mos"] == 1.0).all()
    assert (steps["reward_quality"] == 0.0).all()
    assert (
        call.flow.receiver.freeze_count == 0
    )  # W3C counts at the end of a freeze, and there is none
    assert call.call.status == STATUS_ACTIVE


def test_an_outage_freezes_the_picture_for_as_long_as_it_lasts() -> None:
    outage_s = 4.0
    call = OneCall(with_outage(5.0, outage_s, capacity_bps=2e6), CallConfig(), mode="rate")
    steps = call.run_until(15.0, 500_000)
    frozen_s = steps["frozen_ratio"].sum() * 0.1
    # Up to a frame interval before, and the time that the queue of the outage takes to drain:
    # 4 s at 0.5 Mbps are 1 s at 2 Mbps, during which pictures come again, late but moving.
    assert outage_s <= frozen_s <= outage_s + 0.2
    assert call.flow.receiver.freeze_count == 1
    assert call.flow.receiver.freeze_us * 1e-6 == pytest.approx(frozen_s, abs=1e-6)
    during = (steps["time_s"] > 5.45) & (steps["time_s"] < 8.95)
    assert (steps["frozen_ratio"][during] == 1.0).all()
    assert (steps["one_way_delay_ms"][during] > 400.0).all()  # silence has a delay: it grows


def test_the_age_of_what_waits_is_the_delay_of_a_queue_from_which_nothing_leaves() -> None:
    call = OneCall(with_outage(2.0, 10.0), CallConfig(), mode="rate")
    steps = call.run_until(6.0, 300_000)
    during = steps["time_s"] > 2.25
    growth_ms = np.diff(steps["queue_delay_ms"][during])
    assert growth_ms == pytest.approx(100.0)
    growth_ms = np.diff(steps["one_way_delay_ms"][during])
    assert growth_ms == pytest.approx(100.0)


def test_a_frozen_second_is_worth_the_worst_picture_whoever_caused_it() -> None:
    call = OneCall(with_outage(5.0, 5.0), CallConfig())
    steps = call.run_until(10.0)
    during = (steps["time_s"] > 6.6) & (steps["time_s"] < 9.9)
    assert (steps["video_mos"][during] == 1.0).all()
    assert (steps["call_score"][during] < 1.0).all()
    assert (steps["reward"][during] < 0.0).all()


def test_jitter_and_propagation_alone_freeze_nothing() -> None:
    network = Network(trace=constant(5e6), forward=PathConfig(propagation_delay_s=0.3))
    steps = OneCall(network, CallConfig()).run_until(20.0)
    # The first picture takes 300 ms and the time of its packets.
    assert steps["frozen_ratio"][10:].sum() == 0.0
    assert 0.3 <= steps["frozen_ratio"].sum() * 0.1 < 0.6

"""When the receiver reports, what a lost report leaves unknown, and how old news gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bwe_env.config import CallConfig, FeedbackConfig, PathConfig, VideoConfig
from bwe_env.network import Network
from bwe_env.sim.packet import FATE_DELIVERED, REPORT_LOST, REPORT_NONE
from bwe_env.trace import constant
from tests.sim.calls import PLAIN_VIDEO, SILENT, OneCall

NETWORK = Network(
    trace=constant(50e6),
    forward=PathConfig(propagation_delay_s=0.03),
    reverse=PathConfig(propagation_delay_s=0.02),
)
REVERSE_US = 20_000


def make_call(**changes: Any) -> OneCall:
    config = CallConfig(video=PLAIN_VIDEO, audio=SILENT, **changes)
    return OneCall(NETWORK, config, mode="rate", step_us=1_000)


def reports(call: OneCall, until_s: float, rate_bps: float) -> list[tuple[int, int]]:
    """(when built, when it reached the sender, to the millisecond) of every report that does."""
    seen: list[tuple[int, int]] = []
    while call.now_us < until_s * 1e6:
        call.step(rate_bps)
        built_us = int(call.flow.report_built_us)
        if built_us > 0 and (not seen or built_us != seen[-1][0]):
            seen.append((built_us, call.now_us))
    return seen


@pytest.mark.parametrize(
    ("rate_bps", "interval_us"),
    [
        # 68 bytes in 5 % of the rate, never below 50 ms or above 250 ms.
        (2_000_000, 50_000),
        (217_600, 50_000),
        (108_800, 100_000),
        (60_000, 181_333),
        (43_520, 250_000),
        (30_000, 250_000),
    ],
)
def test_reports_come_as_often_as_five_percent_of_the_rate_can_pay_for(
    rate_bps: int, interval_us: int
) -> None:
    seen = reports(make_call(), 5.0, rate_bps)
    built_us = np.array([built for built, _ in seen])
    assert built_us[0] == 100_000
    assert np.diff(built_us).tolist() == [interval_us] * (len(built_us) - 1)
    assert len(built_us) >= (4_800_000 - 250_000) // interval_us
    # And each crosses the reverse path.
    assert {arrived - built for built, arrived in seen} <= {
        REVERSE_US + extra for extra in range(1_000)
    }


def test_a_fixed_interval_is_kept_whatever_the_rate() -> None:
    call = make_call(feedback=FeedbackConfig(interval_s=0.05))
    # The adaptive interval would be 109 ms. A frame comes each 33 ms: there is always news.
    built_us = [built for built, _ in reports(call, 2.0, 100_000)]
    assert built_us == list(range(50_000, 1_980_001, 50_000))


def test_nothing_is_reported_while_nothing_arrives() -> None:
    call = make_call()
    reports(call, 2.0, 1_000_000)
    call.set_forward_loss(1.0)
    silent = reports(call, 3.0, 1_000_000)
    # What was on its way when the loss began is told of; then there is nothing to tell.
    assert all(built_us <= 2_100_000 for built_us, _ in silent)
    assert call.flow.history.in_flight_bytes > 100_000  # the sender still waits for a word


def test_packets_of_a_lost_report_are_never_told_of_but_leave_the_bytes_in_flight() -> None:
    call = make_call()
    call.run_until(2.049, 1_000_000)
    call.set_reverse_loss(1.0)
    call.run_until(2.060, 1_000_000)  # the report of 2.05 s
    call.set_reverse_loss(0.0)
    assert call.flow.mailbox.lost == 1
    call.run_until(4.0, 1_000_000)
    rows, history = call.packets, call.flow.history
    unknown = np.flatnonzero(rows["report_state"][: history.acked_seq + 1] == REPORT_NONE)
    assert len(unknown) >= 4
    # Exactly those that arrived within the 50 ms before the lost report.
    arrivals_us = rows["arrival_us"]
    between = np.flatnonzero((arrivals_us > 2_000_000) & (arrivals_us <= 2_050_000))
    assert unknown.tolist() == between.tolist()
    assert (rows["fate"][unknown] == FATE_DELIVERED).all()
    assert history.in_flight_bytes == rows["size_bytes"][history.acked_seq + 1 :].sum()
    assert history.in_flight_bytes < 20_000  # 100 ms and a round trip at 1 Mbps
    # Unknown is not lost.
    assert not (rows["report_state"] == REPORT_LOST).any()
    assert call.world.steps["queue_loss_ratio"][0] == 0.0


def test_a_lost_packet_is_told_of_once_a_later_one_has_arrived() -> None:
    call = make_call()
    call.run_until(1.99, 1_000_000)
    call.set_forward_loss(1.0)
    call.run_until(2.034, 1_000_000)
    call.set_forward_loss(0.0)
    call.run_until(3.0, 1_000_000)
    rows = call.packets
    told = np.flatnonzero(rows["report_state"] == REPORT_LOST)
    assert len(told) > 0
    assert (rows["fate"][told] != FATE_DELIVERED).all()
    lost = np.flatnonzero(rows["fate"][: call.flow.history.acked_seq + 1] != FATE_DELIVERED)
    assert told.tolist() == lost.tolist()


def test_the_rtt_of_rtcp_is_both_propagation_delays_and_the_queue() -> None:
    call = make_call()
    call.run_until(3.0, 300_000)
    # 50 ms of propagation, and 1210 bytes at 50 Mbps.
    assert call.flow.rtt_us == pytest.approx(50_000, abs=500)
    assert call.flow.receiver.rtt_us == call.flow.rtt_us


def test_the_rtt_of_the_step_is_that_of_the_newest_report() -> None:
    call = OneCall(NETWORK, CallConfig(video=PLAIN_VIDEO, audio=SILENT), mode="rate")
    steps = call.run_until(5.0, 2_000_000)
    # The newest packet of a report waited up to a frame interval for it to be built.
    assert (steps["rtt_ms"][5:] >= 50.0).all()
    assert (steps["rtt_ms"][5:] <= 50.0 + 33.4 + 2.0).all()


def test_the_rtt_belongs_to_its_own_report_even_with_several_under_way() -> None:
    # Reports of each second take 1.6 s; from 5.5 s on packets take 1 s more.
    network = Network(
        trace=constant(20e6),
        forward=PathConfig(propagation_delay_s=0.02, delay_steps=((5.5, 1.0),)),
        reverse=PathConfig(propagation_delay_s=1.6),
    )
    call = OneCall(network, CallConfig(video=VideoConfig(enabled=False)), step_us=20_000)
    rtts_us: dict[int, int] = {}
    while call.now_us < 12_000_000:
        call.step()
        rtts_us.setdefault(int(call.flow.rtt_us), call.now_us)
    slack_us = 1_000  # service
    known = {rtt_us: at_us for rtt_us, at_us in rtts_us.items() if rtt_us != 100_000}
    assert [round(rtt_us, -4) for rtt_us in known] == [1_620_000, 2_620_000]
    # The first report that knows of a packet of after the step is that of 7 s.
    (_, changed_us) = known.values()
    assert 8_600_000 <= changed_us <= 8_600_000 + 20_000 + slack_us

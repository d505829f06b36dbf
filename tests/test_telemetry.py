"""Telemetry: rows worked by hand, and the same rows from the simulator and from a sender's log."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bwe_env.config import CallConfig, FeedbackConfig, JitterConfig, LossConfig, PathConfig
from bwe_env.errors import ConfigError
from bwe_env.estimator import NO_TIMEOUT_US, RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.logs.bins import SenderLog, telemetry_of
from bwe_env.logs.reports import Report
from bwe_env.network import Network
from bwe_env.rollout import record_calls
from bwe_env.sim._jit import NEVER
from bwe_env.telemetry import TELEMETRY_NAMES, TelemetryRecorder, empty_telemetry
from bwe_env.trace import constant

MS = 1_000

# --- By hand --------------------------------------------------------------------------------------


def recorder_after(*sends_ms: int) -> TelemetryRecorder:
    """One that has sent packets of 1000 bytes at these times."""
    recorder = TelemetryRecorder()
    for send_ms in sends_ms:
        recorder.on_packet_sent(1_000, send_ms * MS)
    return recorder


def tell(recorder: TelemetryRecorder, first: int, arrivals_ms: list[float | None], at: int) -> None:
    arrivals = [NEVER if a is None else round(a * MS) for a in arrivals_ms]
    recorder.on_feedback(first, np.array(arrivals, np.int64), at * MS)


def test_a_row_is_what_its_bin_adds_up_to() -> None:
    # Delays of 20, 30 and 24 ms by the receiver's clock, which is 500 ms ahead.
    recorder = recorder_after(0, 10, 20, 30)
    tell(recorder, 0, [520, 540, None, 554], at=70)
    row = recorder.end_bin(100 * MS, target_rate_bps=3e5)[0]
    expected = {
        "time_s": 0.1, "reports": 1, "sent_packets": 4, "sent_bytes": 4_000, "acked_packets": 3,
        "acked_bytes": 3_000, "lost_packets": 1, "loss_runs": 1,
        "queue_delay_ms": (0 + 10 + 4) / 3, "queue_delay_min_ms": 0.0, "queue_delay_max_ms": 10.0,
        "delay_variation_ms": (10 + 6) / 3, "loss_delay_ms": 10.0, "rtt_ms": 40.0,
        "target_rate_bps": 3e5,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    # The next bin's bytes arrived in the 20 ms since the newest arrival of the one before.
    recorder.on_packet_sent(1_000, 110 * MS)
    tell(recorder, 4, [574], at=170)
    assert recorder.end_bin(200 * MS)["acked_rate_bps"].item() == pytest.approx(8_000 / 0.020)


def test_a_run_of_losses_goes_on_across_the_border_of_two_reports() -> None:
    recorder = recorder_after(*range(0, 80, 10))
    tell(recorder, 0, [20, 45, None, None], at=90)  # one run, at 35 ms of delay
    tell(recorder, 4, [None, 70, None], at=95)  # its end, and another at 20 ms
    row = recorder.end_bin(100 * MS)[0]
    assert (row["lost_packets"], row["loss_runs"]) == (4, 2)
    assert row["loss_delay_ms"] == pytest.approx((15 + 0) / 2)  # above the smallest of 20 ms
    tell(recorder, 7, [None], at=130)  # still the second run, now in another bin
    row = recorder.end_bin(200 * MS)[0]
    assert (row["lost_packets"], row["loss_runs"]) == (1, 0)
    assert math.isnan(row["loss_delay_ms"])


def test_a_packet_reported_missing_and_then_received_is_lost_once_and_acknowledged_once() -> None:
    recorder = recorder_after(0, 10, 20)
    tell(recorder, 0, [20, None, 40], at=60)
    tell(recorder, 1, [55, 40], at=95)
    row = recorder.end_bin(100 * MS)[0]
    assert (row["lost_packets"], row["acked_packets"], row["acked_bytes"]) == (1, 3, 3_000)


def test_a_run_before_any_arrival_has_no_delay_to_be_located_by() -> None:
    recorder = recorder_after(0, 10)
    tell(recorder, 0, [None, 30], at=60)
    row = recorder.end_bin(100 * MS)[0]
    assert row["loss_runs"] == 1
    assert math.isnan(row["loss_delay_ms"])


def test_where_nothing_was_acknowledged_delays_are_unknown_and_counts_are_zero() -> None:
    recorder = recorder_after(0, 10)
    tell(recorder, 0, [20, 30], at=60)
    recorder.end_bin(100 * MS)
    row = recorder.end_bin(500 * MS)
    expected = empty_telemetry(1)
    expected["time_s"] = 0.5
    for name in TELEMETRY_NAMES:
        np.testing.assert_equal(row[name], expected[name], err_msg=name)


def test_feedback_on_packets_that_were_not_sent_is_refused() -> None:
    with pytest.raises(ConfigError, match="packets 0 to 2, but only packets 0 to 1 were sent"):
        tell(recorder_after(0, 10), 0, [20, 30, 40], at=60)
    with pytest.raises(ConfigError, match="ring_packets=12 must be a power of two"):
        TelemetryRecorder(ring_packets=12)


# --- Twin: the simulator's rows, from what its sender is told -------------------------------------


class Listener:
    """An estimator that keeps a log of all it is told; its target goes up and down."""

    def __init__(self) -> None:
        self.sent: list[SentPacket] = []
        self.reports: list[Report] = []

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        self.sent.append(packet)

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        if report.packets:
            first = report.packets[0].sent.seq
            # Those told of before are left out of what an estimator sees; they stay as they are.
            arrivals_us = np.full(report.packets[-1].sent.seq - first + 1, NEVER, np.int64)
            for result in report.packets:
                if result.arrival_time_us is not None:
                    arrivals_us[result.sent.seq - first] = result.arrival_time_us
            self.reports.append(Report(now_us, first, arrivals_us))
        return RateDecision(target_rate_bps=7e5 if now_us // 3_000_000 % 2 else 1.6e6)

    def on_timeout(self, now_us: int) -> RateDecision:
        return RateDecision(target_rate_bps=7e5)

    def next_timeout_us(self) -> int:
        return NO_TIMEOUT_US


LOSSY = PathConfig(propagation_delay_s=0.02, loss=LossConfig(good_loss=0.05))
NETWORKS = {
    "queue and random loss": Network(trace=constant(1e6), forward=LOSSY),
    "out of order": Network(
        trace=constant(2e6),
        forward=PathConfig(
            propagation_delay_s=0.05,
            jitter=JitterConfig(distribution="uniform", scale_s=0.02),
            keeps_order=False,
        ),
    ),
    "reports get lost": Network(
        trace=constant(1.2e6),
        reverse=PathConfig(propagation_delay_s=0.03, loss=LossConfig(good_loss=0.3)),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sender_s_log_gives_the_rows_that_the_simulator_gives(name: str) -> None:
    listeners: list[Listener] = []

    def listen() -> Listener:
        listeners.append(Listener())
        return listeners[-1]

    config = CallConfig(duration_s=12.0, feedback=FeedbackConfig(clock_skew_ppm=300.0))
    (call,) = record_calls([NETWORKS[name]], listen, call=config)
    (listener,) = listeners
    log = SenderLog(
        send_us=np.array([packet.send_time_us for packet in listener.sent], np.int64),
        size_bytes=np.array([packet.size_bytes for packet in listener.sent], np.int64),
        reports=listener.reports,
        target_time_us=np.zeros(0, np.int64),
        target_rate_bps=np.zeros(0),
    )
    # An estimator hears of a packet with the next report: of the last bin's, not of all.
    bins = listener.reports[-1].time_us // 100_000
    rows = telemetry_of(log, bins)
    assert rows["lost_packets"].sum() > 10
    for column in TELEMETRY_NAMES:
        if column != "target_rate_bps":
            np.testing.assert_array_equal(rows[column], call.telemetry[column][:bins], column)

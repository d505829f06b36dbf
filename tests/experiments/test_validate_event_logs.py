"""An event log goes through our controller, and what differs from the log is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from bwe_env.gcc import GccParameters
from bwe_env.logs import parse_rtc_event_log
from bwe_env.logs.rtc_event_log import ProbeClusterCreated
from experiments.event_log_replay import (
    loss_reports_of,
    probe_clusters_of,
    replay,
    rtts_of,
)
from experiments.recorded_client import MIN_ALLOCATED_BPS
from experiments.validate import main
from experiments.validate_event_logs import (
    ALLOWED,
    backed_off_bps,
    is_allowed,
    match_events,
    measures,
)
from tests.logs import event_logs as write

RECORDED = Path(__file__).resolve().parents[2] / "../shared/reference/chromium/eventlogs"


def test_a_round_trip_time_ends_at_the_receiver_report_and_leaves_out_its_delay() -> None:
    ntp = 0x0001_0002_0003_0004
    data = write.begin() + write.outgoing_rtcp(5000, write.sender_report(ntp))
    block = write.report_block(7, lost=0, highest_seq=9, lsr=0x0002_0003, dlsr=65_536 // 4)
    data += write.incoming_rtcp(5300, write.receiver_report(block))
    unknown = write.report_block(7, lost=0, highest_seq=9, lsr=5, dlsr=0)
    data += write.incoming_rtcp(5400, write.receiver_report(unknown))
    (sample,) = rtts_of(parse_rtc_event_log(data))
    assert (sample.time_us, sample.rtt_us) == (5_300_000, 50_000)


def test_a_loss_report_is_what_changed_since_the_stream_s_last_one() -> None:
    data = write.begin()
    for time_ms, lost, highest in ((100, 0, 50), (200, 3, 80), (300, 3, 80), (400, 9, 86)):
        block = write.report_block(7, lost=lost, highest_seq=highest)
        data += write.incoming_rtcp(time_ms, write.receiver_report(block))
    (report,) = loss_reports_of(parse_rtc_event_log(data))  # 6 lost of 6 says nothing
    assert (report.time_us, report.lost_packets, report.received_packets) == (200_000, 3, 27)


def test_a_cluster_runs_from_its_padding_until_it_has_its_bytes_and_bursts() -> None:
    times_ms = [0, 10, 10, 12, 13, 15, 20]
    data = write.begin() + write.outgoing(times_ms, list(range(7)), payload_bytes=500)
    packets = parse_rtc_event_log(data).outgoing
    packets.padding_bytes[1] = 255
    packets.payload_bytes[1] = 4
    cluster = ProbeClusterCreated(time_us=5_000, id=3, bitrate_bps=1, min_packets=3, min_bytes=1500)
    # Bursts at 10, 12 (and 13, told in two milliseconds) and 15: three bursts, 2,519 bytes.
    assert probe_clusters_of(packets, [cluster]).tolist() == [-1, 3, 3, 3, 3, 3, -1]
    packets.padding_bytes[1] = 0
    assert (probe_clusters_of(packets, [cluster]) == -1).all()


def test_events_match_one_to_one_and_only_when_near() -> None:
    assert match_events([0, 50, 900], [40, 300], within_us=100) == 1
    assert match_events([0, 1_000], [100, 1_100], within_us=100) == 2
    assert match_events([], [5]) == 0


def test_a_back_off_takes_85_percent_less_5_kbps_and_not_less_than_the_streams_need() -> None:
    parameters = GccParameters(min_total_allocated_bps=MIN_ALLOCATED_BPS)
    assert MIN_ALLOCATED_BPS == 84_400
    reached = backed_off_bps(np.array([1_000_000, 99_356]), parameters)
    assert reached.tolist() == [845_000, 84_400]


@pytest.mark.parametrize(
    ("measure", "value", "is_near"),
    [("state %", 95.0, True), ("state %", 94.9, False), ("delay p50 %", 2.1, False),
     ("probe max %", np.nan, True)],
)  # fmt: skip
def test_bounds_are_floors_or_ceilings_and_what_is_absent_is_allowed(
    measure: str, value: float, is_near: bool
) -> None:
    assert is_allowed(measure, value) == is_near


def call(state_of_last_update: int = 1) -> bytes:
    """A second of 50 packets a second over a path that adds nothing, one report per 100 ms.

    Without an acknowledged rate nothing but the start rate is known; updates are what our own
    controller makes of it, except for the state of the last one.
    """
    data = write.begin(1000) + write.outgoing([2000 + 20 * i for i in range(50)], list(range(50)))
    for report in range(10):
        arrivals_ms: list[int | None] = [640 + 20 * i for i in range(5 * report, 5 * report + 5)]
        data += write.incoming_rtcp(2110 + 100 * report, write.feedback(5 * report, arrivals_ms))
    log = parse_rtc_event_log(data + write.delay_update(2110, 300_000, 1))
    samples = replay(log, follows_log=False).samples
    for index, sample in enumerate(samples):
        state = sample.state if index < len(samples) - 1 else state_of_last_update
        data += write.delay_update(sample.time_us // 1000, sample.estimate_bps, state)
    return data


def test_a_log_of_our_own_making_agrees_throughout() -> None:
    row = measures([replay(parse_rtc_event_log(call()))])
    assert list(row) == list(ALLOWED)
    assert row["state %"] == 100.0
    assert row["delay p95 %"] == 0.0
    assert all(is_allowed(measure, value) for measure, value in row.items())


def test_a_difference_is_printed_with_its_time_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.rtceventlog.gz").write_bytes(gzip.compress(call(state_of_last_update=3)))
    assert main(["event-logs", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "90.00*" in out
    assert (
        "MISS mine: state %, recall %; first difference 2.010 s after the log began: "
        "detector normal instead of overusing" in out
    )


def test_agreement_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.rtceventlog.gz").write_bytes(gzip.compress(call()))
    assert main(["event-logs", str(tmp_path), "--call", "mine"]) == 0
    assert "1 of 1 calls within every bound (10 reports)" in capsys.readouterr().out


def test_wrong_input_is_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["event-logs", str(tmp_path)]) == 2
    assert "holds no NAME.rtceventlog.gz" in capsys.readouterr().err
    (tmp_path / "bad.rtceventlog.gz").write_bytes(gzip.compress(write.begin() + b"\x1a\x7f"))
    assert main(["event-logs", str(tmp_path)]) == 2
    assert "bad.rtceventlog.gz: byte 17: the log is truncated" in capsys.readouterr().err
    assert main(["event-logs", str(tmp_path), "--call", "bat"]) == 2
    assert "Did you mean 'bad'?" in capsys.readouterr().err


@pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded event logs are not at {RECORDED}")
def test_a_real_call_agrees_on_every_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["event-logs", str(RECORDED), "--call", "g_1M_q2s"]) == 0
    assert "*" not in capsys.readouterr().out

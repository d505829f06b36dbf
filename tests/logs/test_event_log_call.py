"""Bins from RTC event logs: hand-worked bytes, logs that break off, and a recorded call."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.errors import CallLogFormatError
from bwe_env.logs import RtcEventLog, event_log_call, parse_rtc_event_log
from bwe_env.logs.reports import reports_of
from bwe_env.sim._jit import NEVER
from bwe_env.telemetry import TELEMETRY_NAMES
from tests.logs import event_logs as write

DATA = Path(__file__).parents[1] / "data/chromium"
RECORDED = gzip.decompress((DATA / "c_loss05_2M_r2.rtceventlog.gz").read_bytes())

END = write.delimited(17, write.scalar(1, 99_000))


def loss_update(time_ms: int, bitrate_bps: int) -> bytes:
    fields = [(1, time_ms), (2, bitrate_bps), (3, 0), (4, 10)]
    return write.delimited(18, b"".join(write.scalar(*field) for field in fields))


def small_log() -> bytes:
    """Ten packets, one in 20 ms from 2000 ms on; one report per bin, at 2100 and 2200 ms."""
    data = write.begin() + write.outgoing([2000 + 20 * i for i in range(13)], list(range(7, 20)))
    data += write.incoming_rtcp(2100, write.feedback(7, [660, 680, None, 725]))
    return data + write.incoming_rtcp(2200, write.feedback(11, [745, 760, 780]))


# --- Feedback -------------------------------------------------------------------------------------


def test_feedback_is_counted_from_the_first_packet_and_leaves_out_what_was_not_sent() -> None:
    data = write.begin() + write.outgoing([2000, 2010, 2020], [65535, 65536, 65537])
    data += write.incoming_rtcp(2100, write.feedback(65534, [641, 650, None, 655]))
    data += write.incoming_rtcp(2200, write.feedback(1, [655, 660], reference_64ms=10))
    first, second = reports_of(parse_rtc_event_log(data))
    assert (first.time_us, first.first_seq) == (2_100_000, 0)  # 65534 was never sent
    assert first.arrivals_us.tolist() == [650_000, NEVER, 655_000]
    assert second.first_seq == 2
    assert second.arrivals_us.tolist() == [655_000]  # nor was 2


def test_feedback_on_numbers_missing_between_the_packets_is_left_out() -> None:
    data = write.begin() + write.outgoing([2000, 2010, 2020], [10, 13, 14])
    data += write.incoming_rtcp(2100, write.feedback(10, [650, 651, None, 653, 654]))
    (report,) = reports_of(parse_rtc_event_log(data))
    assert report.first_seq == 0
    assert report.arrivals_us.tolist() == [650_000, 653_000, 654_000]


# --- Bins -----------------------------------------------------------------------------------------


def test_bins_begin_with_the_first_packet_and_hold_what_their_reports_tell() -> None:
    data = small_log() + loss_update(1900, 300_000) + loss_update(2150, 400_000) + END
    call = event_log_call(parse_rtc_event_log(data), name="small")
    assert (call.name, call.source, call.interval_s) == ("small", "event log", 0.1)
    first, second = call.telemetry
    # 24 bytes of header, 1000 of payload, 28 of IP and UDP; at 2100 ms ends the first bin.
    assert (first["sent_packets"], first["sent_bytes"]) == (6, 6 * 1052)
    assert (first["acked_packets"], first["lost_packets"], first["loss_runs"]) == (3, 1, 1)
    assert first["rtt_ms"] == pytest.approx(2100 - 2060)
    # Packets sent at 0, 20 and 60 ms took 660, 660 and 665 ms by the two clocks.
    assert first["queue_delay_ms"] == pytest.approx(5 / 3)
    assert first["loss_delay_ms"] == pytest.approx(0.0)
    assert (second["acked_packets"], second["lost_packets"]) == (3, 0)
    assert second["acked_rate_bps"] == pytest.approx(3 * 1052 * 8 / 0.055)
    assert call.telemetry["target_rate_bps"].tolist() == [300_000, 400_000]
    assert call.capacity_bps is None
    assert call.warnings == ()


def test_a_route_tells_what_is_added_to_a_packet() -> None:
    route = [(1, 2030), (2, 1), (3, 48)]
    route_change = write.delimited(32, b"".join(write.scalar(*field) for field in route))
    again = [(1, 2150), (2, 1), (3, 28)]
    route_change += write.delimited(32, b"".join(write.scalar(*field) for field in again))
    call = event_log_call(parse_rtc_event_log(small_log() + route_change + END))
    assert call.telemetry["sent_bytes"].tolist() == [6 * 1072, 2 * 1072 + 3 * 1052]


def test_what_is_left_out_is_counted() -> None:
    data = write.begin() + write.outgoing([2000 + 20 * i for i in range(100)], list(range(100)))
    data += write.incoming_rtcp(2100, write.feedback(65534, [660, 680, 690, 700, 710]))
    data += write.incoming_rtcp(
        2110, write.feedback(5, [715, 716, 717])
    )  # 6 and 7 are not sent yet
    data += write.incoming_rtcp(9000, write.feedback(8, [900, 901]))
    call = event_log_call(parse_rtc_event_log(data + END))
    assert len(call.telemetry) == 19
    assert call.warnings == (
        "no loss-based updates: the target is unknown",
        "feedback tells 2 times of packets that the log lacks",
        "feedback tells 4 times of packets before they were sent, or after the end at 1.980 s",
        "46 packets were never reported",  # numbers 3, 4 and 6 to 49, of the first 0.98 s
    )
    assert np.isnan(call.telemetry["target_rate_bps"]).all()


def test_missing_numbers_are_counted_in_a_log_that_was_closed() -> None:
    data = write.begin() + write.outgoing([2000, 2050, 2100], [0, 4, 5])
    data += write.incoming_rtcp(2080, write.feedback(0, [660, 661, 662, 663, 664]))
    call = event_log_call(parse_rtc_event_log(data + END))
    assert "3 transport-wide numbers between those sent are not in the log" in call.warnings
    assert call.telemetry["acked_packets"].tolist() == [2]


def test_a_call_ends_with_a_minute_of_silence() -> None:
    times_ms = [2000 + 20 * i for i in range(10)]
    data = write.begin() + write.outgoing(times_ms, list(range(10)))
    data += write.outgoing([70_000, 70_020], [10, 11])
    data += write.incoming_rtcp(2100, write.feedback(0, [660, 680]))
    call = event_log_call(parse_rtc_event_log(data + END))
    assert len(call.telemetry) == 1
    assert any(w.startswith("2 packets after 0.180 s are left out") for w in call.warnings)


# --- Logs that break off --------------------------------------------------------------------------


def agree(part: np.ndarray, whole: np.ndarray, column: str) -> bool:
    return np.array_equal(part[column], whole[column][: len(part)], equal_nan=True)


WHOLE = event_log_call(parse_rtc_event_log(RECORDED)).telemetry


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(91, len(RECORDED) - 1))
def test_a_log_that_breaks_off_gives_the_first_bins_of_the_whole_one(length: int) -> None:
    log = parse_rtc_event_log(RECORDED[:length], allow_truncated=True)
    if not reports_of(log):
        with pytest.raises(CallLogFormatError, match="no packets|no transport-wide feedback"):
            event_log_call(log)
        return
    call = event_log_call(log)
    assert "the log breaks off" in call.warnings[0] or "was not closed" in call.warnings[0]
    for column in TELEMETRY_NAMES[:-1]:
        assert agree(call.telemetry, WHOLE, column), column
    target_bps = call.telemetry["target_rate_bps"]
    is_known = np.isfinite(target_bps)
    assert np.array_equal(target_bps[is_known], WHOLE["target_rate_bps"][: len(is_known)][is_known])
    if not is_known.all():
        assert any("the last target is unknown" in warning for warning in call.warnings)


def test_the_bytes_left_out_are_told(tmp_path: Path) -> None:
    path = tmp_path / "cut.rtceventlog"
    path.write_bytes(small_log() + loss_update(2100, 300_000)[:11])
    warnings = event_log_call(path).warnings
    assert warnings[0].startswith("the log breaks off: 11 bytes of an unfinished message")


def test_compressed_data_that_breaks_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cut.rtceventlog.gz"
    path.write_bytes(gzip.compress(RECORDED)[:-9])
    call = event_log_call(path)
    assert call.name == "cut"
    assert "the log breaks off" in call.warnings[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 8 * 20_000 - 1), min_size=1, max_size=4))
def test_flipped_bits_are_refused_or_leave_a_call(bits: list[int]) -> None:
    damaged = bytearray(RECORDED[:20_000])
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    try:
        call = event_log_call(parse_rtc_event_log(bytes(damaged), allow_truncated=True))
    except CallLogFormatError:
        return
    assert call.warnings
    assert (np.diff(call.telemetry["time_s"]) > 0).all()


# --- What is refused ------------------------------------------------------------------------------


def with_outgoing(**columns: np.ndarray) -> RtcEventLog:
    log = parse_rtc_event_log(small_log() + END)
    return dataclasses.replace(log, outgoing=dataclasses.replace(log.outgoing, **columns))


def test_a_clock_that_was_set_back_is_refused_with_the_place() -> None:
    times_us = np.array([2_000_000 + 20_000 * i for i in range(13)])
    times_us[9:] -= 1_500_000
    with pytest.raises(
        CallLogFormatError, match=r"packet 16 was sent at 0.680 s, one before it at 2.160 s"
    ):
        event_log_call(with_outgoing(time_us=times_us))
    times_us[9:] += 1_500_000 - 3_000  # within the disorder of several streams
    assert len(event_log_call(with_outgoing(time_us=times_us)).telemetry) == 2


def test_a_number_sent_twice_and_a_time_of_another_age_are_refused() -> None:
    seqs = np.array([7, 8, 9, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18])
    with pytest.raises(CallLogFormatError, match="number 9 was sent twice"):
        event_log_call(with_outgoing(transport_seq=seqs))
    times_us = np.array([2_000_000 + 20_000 * i for i in range(13)])
    times_us[-1] = 1 << 60
    with pytest.raises(CallLogFormatError, match="packet 19 was sent 1152921504607 s by the log"):
        event_log_call(with_outgoing(time_us=times_us))


def test_sizes_that_no_packet_has_are_refused() -> None:
    sizes = np.full(13, 1_000)
    sizes[4] = 1 << 40
    with pytest.raises(CallLogFormatError, match="packet 11 has 1099511627804 bytes"):
        event_log_call(with_outgoing(payload_bytes=sizes - 24))
    route = [(1, 2030), (2, 1), (3, (1 << 64) - 1)]
    change = write.delimited(32, b"".join(write.scalar(*field) for field in route))
    with pytest.raises(CallLogFormatError, match="adds 18446744073709551615 bytes"):
        event_log_call(parse_rtc_event_log(small_log() + change + END))


def test_targets_that_make_no_sense_are_counted_and_left_out() -> None:
    data = small_log() + loss_update(1900, 300_000) + loss_update(1950, 1 << 40)
    data += loss_update(1 << 50, 400_000) + END
    call = event_log_call(parse_rtc_event_log(data))
    assert call.telemetry["target_rate_bps"].tolist() == [300_000, 300_000]
    assert call.warnings == ("2 loss-based updates make no sense and are left out",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (write.begin(), "no packets with transport-wide numbers"),
        (write.begin() + write.outgoing([1, 9], [3, 4]), "no transport-wide feedback"),
        (
            write.begin()
            + write.outgoing([2000, 2050], [3, 4])
            + write.incoming_rtcp(2040, write.feedback(3, [660])),
            r"complete for 0.040 s and 1 reports",
        ),
    ],
)
def test_a_log_of_nothing_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(CallLogFormatError, match=message):
        event_log_call(parse_rtc_event_log(data))

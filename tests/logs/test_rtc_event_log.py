"""RTC event logs: differences, feedback and messages by hand-worked bytes, and real logs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from bwe_env.logs import (
    EventLogFormatError,
    TruncatedEventLogError,
    parse_rtc_event_log,
    read_rtc_event_log,
)
from bwe_env.logs.delta_encoding import decode_blobs, decode_deltas
from bwe_env.logs.rtc_event_log import DETECTOR_OVERUSING
from bwe_env.logs.rtcp import parse_rtcp, parse_transport_feedback
from bwe_env.logs.wire import Span
from tests.logs import event_logs as write

RECORDED = Path(__file__).resolve().parents[2] / "../shared/reference/chromium"


def span(content: bytes) -> Span:
    return Span(content, 0, len(content), "test.log")


# --- Differences ----------------------------------------------------------------------------------


def test_an_empty_string_repeats_the_base() -> None:
    assert decode_deltas(None, 7, 3).values.tolist() == [7, 7, 7, 7]
    assert not decode_deltas(None, None, 3).exists.any()


def test_unsigned_differences_follow_two_bits_of_kind_and_six_of_width() -> None:
    blob = write.pack("00 000010 001 111 000")  # 3 bits each: +1, +7, 0
    assert decode_deltas(span(blob), 100, 3).values.tolist() == [100, 101, 108, 108]


def test_signed_differences_are_twos_complement_and_values_wrap_at_their_width() -> None:
    blob = write.pack("01 000001 1 0 000011 11 01 01")  # 2 bits, signed, values of 4: -1, +1, +1
    assert decode_deltas(span(blob), 0, 3).values.tolist() == [0, 15, 0, 1]


def test_unsigned_differences_wrap_at_the_width_of_the_values() -> None:
    blob = write.pack("01 000011 0 0 001111 1111 0001")  # 4 bits, values of 16: +15, +1
    assert decode_deltas(span(blob), 65530, 2).values.tolist() == [65530, 9, 10]


def test_optional_values_take_a_difference_only_where_they_exist() -> None:
    blob = write.pack("01 000010 0 1 111111 101 010 100")  # exist: yes no yes; +2, +4
    column = decode_deltas(span(blob), 10, 3)
    assert column.exists.tolist() == [True, True, False, True]
    assert column.values[column.exists].tolist() == [10, 12, 16]


def test_without_a_base_the_first_value_stands_there_whole() -> None:
    # Exist: no yes yes; the varint 300 = 0xAC 0x02, then +1 in 1 bit.
    blob = write.pack("01 000000 0 1 111111 011 10101100 00000010 1")
    column = decode_deltas(span(blob), None, 3)
    assert column.exists.tolist() == [False, False, True, True]
    assert column.values[2:].tolist() == [300, 301]


def test_differences_of_64_bits_keep_all_of_them() -> None:
    blob = write.pack("00 111111" + f"{(1 << 64) - 5:064b}")
    assert decode_deltas(span(blob), 3, 1).values.tolist() == [3, (1 << 64) - 2]


def test_blobs_are_all_lengths_and_then_all_packets() -> None:
    parts = decode_blobs(span(b"\x02\x00\x03abcde"), 3)
    assert [part.content for part in parts] == [b"ab", b"", b"cde"]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (write.pack("00 000010 001"), "need 17 bits and have 16"),
        (write.pack("10 000010 001 111 000"), "encoding 2 of packed differences is unknown"),
        (write.pack("01 000011 0 0 000001 1111"), "differences of 4 bits between values of 2"),
    ],
)
def test_damaged_differences_are_refused(blob: bytes, message: str) -> None:
    with pytest.raises(EventLogFormatError, match=message):
        decode_deltas(span(blob), 0, 3)


# --- Transport-wide feedback ----------------------------------------------------------------------


def test_a_run_of_small_deltas_adds_up_in_quarters_of_a_millisecond() -> None:
    # First packet 300, 3 packets, reference 2 * 64 ms, count 9; run of 3 small deltas: 4, 0, 255.
    body = bytes([1, 44, 0, 3, 0, 0, 2, 9]) + write.pack("0 01 0000000000011") + bytes([4, 0, 255])
    feedback = parse_transport_feedback(span(body))
    assert (feedback.first_seq, feedback.feedback_count) == (300, 9)
    assert feedback.reference_us == 128_000
    assert feedback.has_arrived.tolist() == [True] * 3
    assert feedback.arrival_us.tolist() == [1_000, 1_000, 64_750]


def test_vectors_tell_of_lost_packets_and_of_arrivals_out_of_order() -> None:
    # Two-bit vector: small, lost, large, lost, small (2 unused). Deltas 8, -4 (two bytes), 0.
    body = bytes([0, 0, 0, 5, 0, 0, 0, 0]) + write.pack("1 1 01 00 10 00 01 00 00")
    body += bytes([8, 0xFF, 0xFC, 0])
    feedback = parse_transport_feedback(span(body))
    assert feedback.has_arrived.tolist() == [True, False, True, False, True]
    assert feedback.arrival_us.tolist() == [2_000, 0, 1_000, 0, 1_000]


def test_a_vector_of_one_bit_statuses_holds_14_packets() -> None:
    body = bytes([0, 0, 0, 15, 0, 0, 0, 0]) + write.pack("1 0 10000000000001")
    body += write.pack("0 01 0000000000001") + bytes([1, 2, 3])
    feedback = parse_transport_feedback(span(body))
    assert np.flatnonzero(feedback.has_arrived).tolist() == [0, 13, 14]
    assert feedback.arrival_us[[0, 13, 14]].tolist() == [250, 750, 1_500]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\0" * 7, "shorter than its header"),
        (bytes([0, 0, 0, 9, 0, 0, 0, 0]), "ends before its 9 packets do"),
        (bytes([0, 0, 0, 1, 0, 0, 0, 0, 0x20, 1]), "ends before its 1 packets do"),
        (bytes([0, 0, 0, 1, 0, 0, 0, 0, 0x60, 1]), "packet status 3 is reserved"),
    ],
)
def test_damaged_feedback_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(EventLogFormatError, match=message):
        parse_transport_feedback(span(body))


def test_a_compound_packet_holds_reports_and_feedback() -> None:
    block = write.report_block(7, lost=-2, highest_seq=70_000, lsr=0x12345678, dlsr=65_536)
    compound = write.sender_report(0xAABBCCDD00112233) + write.receiver_report(block)
    packet = parse_rtcp(span(compound + write.rtcp(206, 1, bytes(8)) + write.feedback(3, [700])))
    assert [report.ntp for report in packet.sender_reports] == [0xAABBCCDD00112233]
    (read,) = packet.report_blocks
    assert (read.ssrc, read.cumulative_lost, read.highest_seq) == (7, -2, 70_000)
    assert (read.last_sr_compact_ntp, read.delay_since_sr_compact_ntp) == (0x12345678, 65_536)
    assert packet.feedback[0].first_seq == 3
    assert packet.feedback[0].reference_us + packet.feedback[0].arrival_us[0] == 700_000


# --- Whole logs -----------------------------------------------------------------------------------


def test_packets_of_several_streams_come_in_the_order_of_their_transport_numbers() -> None:
    data = write.begin() + write.outgoing([2000, 2010], [65534, 65537], payload_bytes=1000)
    data += write.outgoing([2000, 2010], [65535, 65536], payload_bytes=80, ssrc=8)
    log = parse_rtc_event_log(data)
    assert log.begin_us == 1_000_000
    assert log.outgoing.time_us.tolist() == [2_000_000, 2_000_000, 2_010_000, 2_010_000]
    assert log.outgoing.transport_seq.tolist() == [65534, 65535, 65536, 65537]
    assert log.outgoing.ssrc.tolist() == [7, 8, 8, 7]
    assert log.outgoing.size_bytes.tolist() == [1024, 104, 104, 1024]


def test_every_kind_of_event_is_read() -> None:
    data = write.begin() + write.delay_update(1500, 300_000, 3)
    data += write.delimited(
        18, b"".join(write.scalar(*f) for f in [(1, 1600), (2, 9), (3, 26), (4, 20)])
    )
    cluster = [(1, 1100), (2, 1), (3, 900_000), (4, 5), (5, 1688)]
    data += write.delimited(21, b"".join(write.scalar(*item) for item in cluster))
    data += write.delimited(
        22, write.scalar(1, 1300) + write.scalar(2, 1) + write.scalar(3, 850_000)
    )
    data += write.delimited(23, write.scalar(1, 1200) + write.scalar(2, 1) + write.scalar(3, 3))
    data += write.delimited(24, write.scalar(1, 1700) + write.scalar(2, 1))
    data += write.delimited(28, write.scalar(1, 1050) + write.scalar(2, 1))
    data += write.delimited(32, write.scalar(1, 1060) + write.scalar(2, 1) + write.scalar(3, 38))
    data += write.delimited(99, b"unknown fields are skipped") + write.delimited(
        17, write.scalar(1, 1)
    )
    log = parse_rtc_event_log(data)
    assert log.delay_based.bitrate_bps.tolist() == [300_000]
    assert log.delay_based.detector_state.tolist() == [DETECTOR_OVERUSING]
    assert log.loss_based.time_us.tolist() == [1_600_000]
    assert log.loss_based.fraction_lost_q8.tolist() == [26]
    assert (log.probe_clusters[0].min_packets, log.probe_clusters[0].min_bytes) == (5, 1688)
    assert [(r.bitrate_bps, r.failure) for r in log.probe_results] == [
        (None, "timeout"),
        (850_000, None),
    ]
    assert log.alr_states[0].in_alr
    assert log.writable_us == 1_050_000
    assert (log.route_changes[0].is_connected, log.route_changes[0].overhead_bytes) == (True, 38)
    assert log.was_ended
    assert not log.is_truncated


def test_a_log_that_breaks_off_is_told_and_read_up_to_there_if_wanted(tmp_path: Path) -> None:
    whole = write.begin() + write.delay_update(1500, 300_000, 1)
    path = tmp_path / "cut.rtceventlog"
    path.write_bytes(whole + write.delay_update(1600, 400_000, 1)[:-2])
    with pytest.raises(TruncatedEventLogError, match=rf"cut.rtceventlog: byte {len(whole) + 3}: "):
        read_rtc_event_log(path)
    log = read_rtc_event_log(path, allow_truncated=True)
    assert log.is_truncated
    assert log.delay_based.bitrate_bps.tolist() == [300_000]


def test_a_gzipped_log_that_breaks_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cut.rtceventlog.gz"
    path.write_bytes(gzip.compress(write.begin())[:-6])
    with pytest.raises(TruncatedEventLogError, match="the compressed log is truncated"):
        read_rtc_event_log(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: the log is empty"),
        (b"\x00\x01", "byte 0: field number 0"),
        (write.scalar(1, 5), "byte 0: field 1 of the event stream is no message"),
        (write.delimited(19, write.scalar(1, 5)), "byte 0: there is no BeginLogEvent"),
        (write.begin() + write.delimited(19, write.scalar(2, 5)), "lacks its field 1"),
        (write.begin() + write.delimited(19, b"\x0c"), "byte 18: wire type 4"),
        (write.begin() + write.delimited(4, write.scalar(1, 5)), "lacks its packets"),
        (write.begin() + write.incoming_rtcp(5, b"\x40\xc8\0\0"), "RTCP version 1 instead of 2"),
        (write.begin() + write.incoming_rtcp(5, b"\x80\xc8\0\x09"), "40 bytes has 4 left"),
    ],
)
def test_what_is_no_log_is_refused_with_the_byte(data: bytes, message: str) -> None:
    with pytest.raises(EventLogFormatError, match=message):
        parse_rtc_event_log(data)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(EventLogFormatError, match=r"none.gz: the log cannot be read"):
        read_rtc_event_log(tmp_path / "none.gz")


@pytest.mark.skipif(
    not (RECORDED / "eventlogs").exists(), reason=f"the recorded calls are not at {RECORDED}"
)
def test_a_real_log_agrees_with_what_the_recorder_saw() -> None:
    log = read_rtc_event_log(RECORDED / "eventlogs/a_1000k_r2.rtceventlog.gz")
    with gzip.open(RECORDED / "runs/a_1000k_r2.json.gz", "rt") as text:
        run = json.load(text)
    events, packets = run["gcc_events"], run["packets_fwd"]
    assert log.delay_based.bitrate_bps.tolist() == events["delay_based"]["bps"]
    assert log.delay_based.detector_state.tolist() == events["delay_based"]["state"]
    assert log.loss_based.bitrate_bps.tolist() == events["loss_based"]["bps"]
    # Every packet that was logged went over the link, ten bytes of SRTP and IP/UDP heavier.
    length = {
        seq: size
        for seq, size, kind in zip(packets["twcc"], packets["len"], packets["kind"], strict=True)
        if kind == 2
    }
    on_link = [length[seq] for seq in log.outgoing.transport_seq.tolist()]
    assert set((np.array(on_link) - log.outgoing.size_bytes).tolist()) == {38}

"""Bins from dumps of webrtc-internals: hand-worked series, and a recorded dump."""

from __future__ import annotations

import copy
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.errors import CallLogFormatError, UnknownNameError
from bwe_env.logs import CallLog, webrtc_internals_call
from bwe_env.logs.webrtc_internals import webrtc_internals_from

DATA = Path(__file__).parents[1] / "data/chromium"
DUMP = DATA / "c_loss05_2M.webrtc_internals_dump.json.gz"

BEGIN_S = 1_700_000_000.0
KNOWN = {"time_s", "sent_packets", "sent_bytes", "lost_packets", "rtt_ms", "target_rate_bps"}


def series(kind: str, values: list[Any], begin_s: float = 0.0) -> dict[str, str]:
    start = datetime.fromtimestamp(BEGIN_S + begin_s, UTC).isoformat().replace("+00:00", "Z")
    return {"statsType": kind, "startTime": start, "endTime": start, "values": json.dumps(values)}


def stamps(times_s: list[float]) -> list[float]:
    return [1_000 * (BEGIN_S + time_s) for time_s in times_s]


def small_stats(times_s: list[float] | None = None) -> dict[str, Any]:
    """Five polls; the receiver's reports on video come at 0.9, 1.8, 1.8 (again), and 3.5 s."""
    polls = stamps([0, 1, 2, 3, 4] if times_s is None else times_s)
    stats: dict[str, dict[str, Any]] = {
        "OV-1": {
            "packetsSent": [100, 150, 230, 240, 300],
            "bytesSent": [100_000, 150_000, 230_000, 240_000, 300_000],
            "headerBytesSent": [1_000, 1_500, 2_300, 2_400, 3_000],
            "timestamp": polls,
        },
        "CPx": {
            "currentRoundTripTime": [0.05, 0.05, 0.07, 0.07, 0.07],
            "responsesReceived": [1, 1, 2, 2, 2],
            "availableOutgoingBitrate": [3e5, 4e5, 5e5, 6e5, 7e5],
            "bytesSent": [1, 2, 3, 4, 5],
            "packetsSent": [1, 2, 3, 4, 5],
            "timestamp": polls,
        },
        "RIV": {
            "packetsLost": [0, 3, 3, 10],
            "roundTripTime": [0.06, 0.061, 0.061, 0.09],
            "roundTripTimeMeasurements": [1, 2, 2, 3],
            "timestamp": stamps([0.9, 1.8, 1.8, 3.5]),
        },
    }
    kinds = {"OV-1": "outbound-rtp", "CPx": "candidate-pair", "RIV": "remote-inbound-rtp"}
    return {
        f"{name}-{member}": series(kinds[name], values, 0.9 if name == "RIV" else 0.0)
        for name, members in stats.items()
        for member, values in members.items()
    }


def dump(**connections: dict[str, Any]) -> dict[str, Any]:
    return {"PeerConnections": {name: {"stats": stats} for name, stats in connections.items()}}


def read(stats: dict[str, Any]) -> CallLog:
    return webrtc_internals_from(dump(only=stats), source="call.json")


def change(stats: dict[str, Any], key: str, values: list[Any]) -> dict[str, Any]:
    stats[key]["values"] = json.dumps(values)
    return stats


def without(stats: dict[str, Any], *ends: str) -> dict[str, Any]:
    return {key: value for key, value in stats.items() if not key.endswith(ends)}


# --- By hand --------------------------------------------------------------------------------------


def test_bins_are_the_differences_between_polls() -> None:
    call = read(small_stats())
    assert (call.name, call.source, call.interval_s) == ("call:only", "webrtc-internals", 1.0)
    rows = call.telemetry
    assert rows["time_s"].tolist() == [1, 2, 3, 4]
    assert rows["sent_packets"].tolist() == [50, 80, 10, 60]
    # Payload and RTP headers, and 28 bytes of IP and UDP for each packet.
    assert rows["sent_bytes"].tolist() == [50 * 1038, 80 * 1038, 10 * 1038, 60 * 1038]
    assert rows["target_rate_bps"].tolist() == [4e5, 5e5, 6e5, 7e5]
    assert call.warnings == ()


def test_what_a_dump_does_not_tell_stays_unknown() -> None:
    rows = read(small_stats()).telemetry
    for name in set(rows.dtype.names) - KNOWN:
        assert np.isnan(rows[name]).all(), name


def test_losses_are_counted_when_the_receiver_s_report_comes() -> None:
    # A report stays in the statistics until the next: at 1.8 s it is new, at 3 s no more.
    assert read(small_stats()).telemetry["lost_packets"].tolist() == [0, 3, 0, 7]


def test_a_round_trip_time_stands_in_the_bin_in_which_it_was_measured() -> None:
    # The pair's second response comes in the second bin; receiver reports fill the first and last.
    rtt_ms = read(small_stats()).telemetry["rtt_ms"]
    np.testing.assert_allclose(rtt_ms, [60, 70, np.nan, 90])


def test_without_stamps_samples_are_a_second_apart() -> None:
    call = read(without(small_stats(), "OV-1-timestamp", "CPx-timestamp", "RIV-timestamp"))
    assert call.telemetry["time_s"].tolist() == [1, 2, 3, 4]
    assert call.telemetry["lost_packets"].tolist() == [0, 3, 0, 7]


def test_a_stream_that_begins_later_has_counted_from_0_and_one_that_ends_counts_no_more() -> None:
    stats = small_stats()
    for member, values in (("packetsSent", [7, 9]), ("timestamp", stamps([2, 3]))):
        stats[f"OA-{member}"] = series("outbound-rtp", values, 2.0)
    assert read(stats).telemetry["sent_packets"].tolist() == [50, 87, 12, 60]


# --- What is left out -----------------------------------------------------------------------------


def test_a_gap_is_so_many_bins_of_which_nothing_is_known() -> None:
    call = read(small_stats([0, 1, 4.2, 5.2, 6.2]))
    rows = call.telemetry
    assert rows["time_s"].tolist() == pytest.approx([1, 1 + 3.2 / 3, 1 + 6.4 / 3, 4.2, 5.2, 6.2])
    np.testing.assert_array_equal(rows["sent_packets"], [50, np.nan, np.nan, np.nan, 10, 60])
    assert "1 gaps between samples, 3.2 s in all" in call.warnings[0]


def test_a_sample_told_twice_is_left_out_and_its_counts_are_not_lost() -> None:
    call = read(small_stats([0, 1, 1, 2, 3]))
    assert call.telemetry["time_s"].tolist() == [1, 2, 3]
    assert call.telemetry["sent_packets"].sum() == 200
    assert call.warnings == ("1 samples less than 0.5 s after the last are left out",)


def test_counters_that_fall_leave_their_bins_unknown() -> None:
    stats = change(small_stats(), "OV-1-packetsSent", [100, 150, 20, 30, 90])
    stats = change(stats, "RIV-packetsLost", [4, 3, 3, 10])
    call = read(stats)
    np.testing.assert_array_equal(call.telemetry["sent_packets"], [50, np.nan, 10, 60])
    np.testing.assert_array_equal(call.telemetry["lost_packets"], [4, np.nan, 0, 7])
    assert call.warnings == (
        "counters of what was sent fell 1 times; those bins are unknown",
        "packetsLost fell 1 times (packets came late); those bins are unknown",
    )


def test_samples_after_a_minute_without_any_are_left_out() -> None:
    call = read(small_stats([0, 1, 2, 3, 70]))
    assert len(call.telemetry) == 3
    assert call.warnings == ("1 samples after 3.0 s are left out: none came for 67 s",)


def test_members_that_are_missing_are_listed_and_unknown() -> None:
    call = read(without(small_stats(), "packetsLost", "headerBytesSent"))
    assert np.isnan(call.telemetry["lost_packets"]).all()
    assert "missing members: outbound-rtp: headerBytesSent; remote-inbound-rtp: packetsLost" in (
        call.warnings
    )
    assert "no packetsLost of remote-inbound-rtp: loss is unknown" in call.warnings


def test_where_streams_are_missing_the_transport_counts() -> None:
    stats = {key: value for key, value in small_stats().items() if not key.startswith("OV")}
    call = read(stats)
    assert call.telemetry["sent_packets"].tolist() == [1, 1, 1, 1]
    assert call.telemetry["sent_bytes"].tolist() == [29, 29, 29, 29]
    assert "packets sent are those of candidate-pair: RTCP and connectivity checks count, too" in (
        call.warnings
    )


def test_series_that_cannot_be_read_are_named() -> None:
    stats = small_stats()
    stats["CPx-availableOutgoingBitrate"]["values"] = "[3e5, "
    stats["CPx-responsesReceived"]["values"] = "[1, 2, 3, 4, 5, 6, 7]"  # more than stamps
    call = read(stats)
    assert call.warnings[-1] == (
        "2 series cannot be read: CPx-availableOutgoingBitrate, CPx-responsesReceived"
    )
    assert np.isnan(call.telemetry["target_rate_bps"]).all()


def test_of_several_connections_the_one_that_sends_most_is_read_or_the_one_asked_for() -> None:
    other = change(small_stats(), "OV-1-packetsSent", [1, 2, 3, 4, 5])
    both = {"1-1": other, "1-2": small_stats()}
    call = webrtc_internals_from(dump(**both), source="call.json")
    assert call.name == "call:1-2"
    assert call.warnings == ("of 2 peer connections, 1-1 (5 packets sent) are left out",)
    call = webrtc_internals_from(dump(**both), source="call.json", connection="1-1")
    assert call.telemetry["sent_packets"].tolist() == [1, 1, 1, 1]
    assert call.warnings == ()
    with pytest.raises(UnknownNameError, match="Known: 1-1, 1-2"):
        webrtc_internals_from(dump(**both), source="call.json", connection="1-3")


def test_the_pair_in_use_tells_the_target() -> None:
    stats = small_stats()
    for member, values in (("availableOutgoingBitrate", [1e6] * 5), ("bytesSent", [0] * 5)):
        stats[f"CPy-{member}"] = series("candidate-pair", values)
    selected = ["CPx", "CPx", "CPy", "CPy", "CPy"]
    stats["T01-selectedCandidatePairId"] = series("transport", selected)
    assert read(stats).telemetry["target_rate_bps"].tolist() == [4e5, 1e6, 1e6, 1e6]


# --- What is refused ------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_is_refused_with_the_sample() -> None:
    with pytest.raises(CallLogFormatError, match=r"sample 3 of CPx is 1.5 s before the one before"):
        read(small_stats([0, 1, 2, 0.5, 1.5]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it holds no PeerConnections"),
        ({"PeerConnections": {"1-1": {"updateLog": []}}}, "PeerConnections hold no stats"),
        (dump(a={}), "0 samples of statistics"),
        (
            dump(a=without(small_stats(), "packetsSent", "roundTripTime", "currentRoundTripTime")),
            "tells neither of packets sent",
        ),
    ],
)
def test_a_dump_of_nothing_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(CallLogFormatError, match=message):
        webrtc_internals_from(content, source="call.json")


STRANGE = (
    None, True, "x", "", -1, 0, 1 << 70, 1e300, [], {}, 0.5, "[null]", '["a"]', "[1e999]",
    "[NaN, NaN, 3, 4, 5]", "[[1], 2]", "9999-12-31T23:59:59Z", "[1e15, -1e15, 0, 1, 2]",
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2), st.sampled_from(STRANGE)),
                min_size=1, max_size=4))  # fmt: skip
def test_strange_values_anywhere_are_refused_or_leave_a_call(
    changes: list[tuple[int, int, object]],
) -> None:
    stats = copy.deepcopy(small_stats())
    for index, place, value in changes:
        key = list(stats)[index % len(stats)]
        if place == 0:
            stats[key] = value
        elif isinstance(stats[key], dict):
            stats[key][("values", "startTime")[place - 1]] = value
    try:
        call = read(stats)
    except CallLogFormatError:
        return
    assert (np.diff(call.telemetry["time_s"]) > 0).all()


# --- A recorded dump ------------------------------------------------------------------------------


def test_a_recorded_dump_tells_of_the_link_it_was_recorded_on() -> None:
    call = webrtc_internals_call(DUMP)
    rows = call.telemetry
    assert call.warnings == ()
    assert len(rows) == 29
    assert np.diff(rows["time_s"]) == pytest.approx(1.0, abs=0.02)
    # 2 Mbps and 5 % of loss over 20 ms each way; the encoder sends less than it may.
    assert 0.5e6 < rows["sent_bytes"].sum() * 8 / rows["time_s"][-1] < 2e6
    assert rows["lost_packets"].sum() / rows["sent_packets"].sum() == pytest.approx(0.05, abs=0.015)
    assert np.nanmin(rows["rtt_ms"]) == pytest.approx(41, abs=2)
    assert np.isfinite(rows["rtt_ms"]).mean() > 0.8


def test_sent_bytes_are_nearly_those_of_the_client_s_own_rate() -> None:
    connection = json.loads(gzip.decompress(DUMP.read_bytes()))["PeerConnections"]["7-1"]["stats"]
    rates_bps = np.array(json.loads(connection["T01-[bytesSent_in_bits/s]"]["values"]))
    rows = webrtc_internals_call(DUMP).telemetry
    # The transport counts RTCP, connectivity checks and SRTP's tags, but no IP and UDP headers.
    ours_bps = 8 * (rows["sent_bytes"] - 28 * rows["sent_packets"])
    shares = rates_bps[: len(rows)] / ours_bps
    assert np.median(shares) == pytest.approx(1.02, abs=0.02)

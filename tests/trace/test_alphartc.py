"""AlphaRTC traces keep what their player keeps, and glitches are cut only on request."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from bwe_env.config import PathConfig
from bwe_env.errors import TraceFormatError, UnknownNameError
from bwe_env.trace import read_alphartc


def write(directory: Path, segments: object, direction: str = "uplink") -> Path:
    path = directory / "t.json"
    path.write_text(json.dumps({"type": "video", direction: {"trace_pattern": segments}}))
    return path


def test_durations_are_milliseconds_and_capacities_kbps(tmp_path: Path) -> None:
    path = write(tmp_path, [{"duration": 200, "capacity": 300}, {"duration": 50.5, "capacity": 0}])
    read = read_alphartc(path, network_type="5G")
    assert read.trace.duration_us.tolist() == [200_000, 50_500]
    assert read.trace.capacity_bps.tolist() == [300_000, 0]
    assert (read.trace.name, read.trace.network_type) == ("t", "5G")
    assert read.loss_ratio is None
    assert read.rtt_ms is None
    network = read.network()
    assert network.trace is read.trace
    assert network.forward == network.reverse == PathConfig()


def test_loss_and_rtt_become_the_network_s_time_weighted_means(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segments = [
        {"duration": 100, "capacity": 300, "loss": 0.1, "jitter": 5},
        {"duration": 300, "capacity": 300, "rtt": 80},
        {"duration": 100, "capacity": 300},
        {"duration": 500, "capacity": 300, "rtt": 40},
    ]
    read = read_alphartc(write(tmp_path, segments), network_type="5G")
    assert read.loss_ratio is not None
    assert read.rtt_ms is not None
    assert read.loss_ratio.tolist() == [0.1, 0, 0, 0]
    assert read.rtt_ms.tolist() == [80, 80, 80, 40]  # the first known one holds before it, too
    with caplog.at_level(logging.WARNING):
        network = read.network()
    assert "rtt_ms varies between 40 and 80; the network takes its mean" in caplog.text
    assert "loss varies between 0 and 0.1" in caplog.text
    assert network.forward.propagation_delay_s == pytest.approx(0.030)
    assert network.reverse.propagation_delay_s == pytest.approx(0.030)
    assert network.forward.loss.mean_loss_ratio == pytest.approx(0.01)
    assert network.reverse.loss.mean_loss_ratio == 0.0
    assert network.forward.jitter.distribution == "none"  # the player ignores jitter


def test_constant_loss_is_taken_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segments = [{"duration": d, "capacity": 300, "loss": 0.07} for d in (33, 34, 35)]
    with caplog.at_level(logging.WARNING):
        network = read_alphartc(write(tmp_path, segments), network_type="5G").network()
    assert network.forward.loss.good_loss == 0.07
    assert not caplog.records


def test_the_other_direction_is_read_on_request(tmp_path: Path) -> None:
    path = write(tmp_path, [{"duration": 1, "capacity": 1}], "downlink")
    assert len(read_alphartc(path, network_type="5G", direction="downlink").trace) == 1
    with pytest.raises(TraceFormatError, match=r"expected uplink\.trace_pattern.* other direction"):
        read_alphartc(path, network_type="5G")
    with pytest.raises(UnknownNameError, match="direction 'upward'"):
        read_alphartc(path, network_type="5G", direction="upward")  # type: ignore[arg-type]


def test_glitches_are_cut_and_counted_only_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, [{"duration": 200, "capacity": c} for c in (300, 8e6, 0)])
    with caplog.at_level(logging.WARNING):
        kept = read_alphartc(path, network_type="5G")
    assert kept.trace.capacity_bps.tolist() == [3e5, 8e9, 0]
    assert "1 of 3 segments are above 1e+09 bps (up to 8e+09), probably glitches" in caplog.text
    assert "pass max_capacity_bps to cut them" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        cut = read_alphartc(path, network_type="5G", max_capacity_bps=1e8)
    assert cut.trace.capacity_bps.tolist() == [3e5, 1e8, 0]
    assert "1 of 3 segments are above 1e+08 bps (up to 8e+09), and were cut to it" in caplog.text
    caplog.clear()
    read_alphartc(write(tmp_path, [{"duration": 1, "capacity": 1}]), network_type="5G")
    assert not caplog.records


@pytest.mark.parametrize("limit", [0.0, -1.0, 1e13, float("nan")])
def test_a_meaningless_limit_is_refused(tmp_path: Path, limit: float) -> None:
    with pytest.raises(TraceFormatError, match=r"max_capacity_bps=.* must be between 1 and 1e\+12"):
        read_alphartc(tmp_path / "t.json", network_type="5G", max_capacity_bps=limit)


GOOD = {"duration": 200, "capacity": 300}


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (5, r"\[1\]: expected an object with duration and capacity, got 5"),
        ({"capacity": 3}, r"\[1\]: key 'duration' is missing; it holds capacity"),
        ({}, r"\[1\]: key 'duration' is missing; it holds nothing"),
        ({"duration": 3}, r"\[1\]: key 'capacity' is missing; it holds duration"),
        (GOOD | {"duration": 0}, r"\[1\]\.duration=0 must be > 0 milliseconds; remove the segm"),
        (GOOD | {"duration": -2}, r"\[1\]\.duration=-2 must be > 0 milliseconds"),
        (GOOD | {"capacity": -2}, r"\[1\]\.capacity=-2 kbps: capacity -2000 bps is negative; an"),
        (GOOD | {"capacity": float("nan")}, r"\[1\]\.capacity=nan must be a finite number"),
        (GOOD | {"capacity": "3"}, r"\[1\]\.capacity='3' must be a finite number"),
        (GOOD | {"capacity": True}, r"\[1\]\.capacity=True must be a finite number"),
        (GOOD | {"capacity": 1e10}, r"\[1\]\.capacity=1e\+10 kbps: .* above 1e\+12"),
        (GOOD | {"loss": 1.5}, r"\[1\]\.loss=1\.5 is outside 0\.\.\.1; it is a ratio, not a per"),
        (GOOD | {"rtt": -1}, r"\[1\]\.rtt=-1 is outside 0\.\.\.20000; it is in milliseconds"),
        (GOOD | {"rtt": None}, r"\[1\]\.rtt=None must be a finite number"),
    ],
)
def test_a_damaged_segment_is_refused_by_its_number(
    tmp_path: Path, segment: object, message: str
) -> None:
    path = write(tmp_path, [GOOD, segment])
    match = re.escape(str(path)) + r": uplink\.trace_pattern" + message
    with pytest.raises(TraceFormatError, match=match):
        read_alphartc(path, network_type="5G")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.json:1: not JSON"),
        ('{"uplink":\n {]}', r"t\.json:2: not JSON .*; mend the file"),
        ("[]", r"t\.json: expected uplink\.trace_pattern, a list of segments, got None"),
        ('{"uplink": {}}', r"expected uplink\.trace_pattern"),
        ('{"uplink": {"trace_pattern": []}}', r"a list of segments, got \[\]"),
        (
            '{"uplink": {"trace_pattern": [{"duration": 5, "capacity": 0}]}}',
            r"t\.json: every capacity is 0",
        ),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(TraceFormatError, match=message):
        read_alphartc(path, network_type="5G")

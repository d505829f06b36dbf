"""Bins from recorded runs: hand-worked packets, and the event log of the same call."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.errors import CallLogFormatError
from bwe_env.logs import CallLog, chromium_run_call, event_log_call
from bwe_env.logs.chromium_run import chromium_run_from

DATA = Path(__file__).parents[1] / "data/chromium"
RECORDED = Path(__file__).resolve().parents[2] / "../shared/reference/chromium"

#: SRTP's authentication tag (RFC 3711 §4.2): on the link, but in no size of libwebrtc's.
TAG_BYTES = 10

DELIVERED, QUEUE_DROP, IID_LOSS, BURST_LOSS = 0, 1, 2, 3
STUN, RTP, RTCP = 0, 2, 3


def small_run() -> dict[str, Any]:
    """Numbers from 65530 on, one in 20 ms from 50 ms on, over 30 ms.

    The fourth is dropped by the queue, the sixth lost by chance, the ninth overtaken. Reports leave
    at 125, 190, 240, 290 and 340 ms, a NACK at 195 ms.
    """
    count = 22
    fate, oneway_us = [DELIVERED] * count, [30_000] * count
    fate[3], fate[5] = QUEUE_DROP, IID_LOSS
    oneway_us[8] = 120_000
    oneway_us[3] = oneway_us[5] = -1
    queue_us = [10_000 if value >= 0 else -1 for value in oneway_us]
    packets = {
        "t_us": [50_000 + 20_000 * i for i in range(count)],
        "oneway_us": oneway_us,
        "queue_us": queue_us,
        "len": [1_000] * count,
        "kind": [RTP] * count,
        "fate": fate,
        "twcc": [(65_530 + i) % 65_536 for i in range(count)],
    }
    check = (10_000, 21_000, 1_000, 100, STUN, DELIVERED, 0)
    return {
        "meta": {"name": "small", "scenario": {"link": {"propr": 20}}},
        "packets_fwd": {
            name: [first, *packets[name]] for name, first in zip(packets, check, strict=True)
        },
        "packets_rev": {
            "t_us": [20_000, 125_000, 190_000, 195_000, 240_000, 290_000, 340_000],
            "len": [100, 66, 70, 58, 70, 70, 70],
            "kind": [STUN, *[RTCP] * 6],
            "pt": [0, *[205] * 6],
        },
        "link_100ms": {"capacity_bps": [1_000_000, 2_000_000, 2_000_000, 2_000_000, 2_000_000]},
        "sender_stats": {
            "candidate-pair": {
                "timestamp": [None, 0.1, 0.2],
                "availableOutgoingBitrate": [None, 300_000, 400_000],
            }
        },
    }


def read(run: dict[str, Any]) -> CallLog:
    return chromium_run_from(run, source="run.json")


# --- By hand --------------------------------------------------------------------------------------


def test_reports_tell_of_what_had_come_when_they_left() -> None:
    call = read(small_run())
    assert (call.name, call.source, call.interval_s) == ("small", "chromium run", 0.1)
    rows = call.telemetry
    # Media begins at 50 ms; packet i comes at 80 + 20 i ms. The reports tell of 0 to 2; of 4, 3
    # missing; of 6 and 7, 5 missing; of 9 and 10, 8 missing; of 8 (330 ms), 11 and 12; each 20 ms
    # later at the sender: 95, 160, 210, 260 and 310 ms after media began.
    assert rows["reports"].tolist() == [1, 1, 2, 1]
    assert rows["sent_packets"].tolist() == [6, 5, 5, 5]
    assert rows["sent_bytes"].tolist() == [6_000, 5_000, 5_000, 5_000]
    assert rows["acked_packets"].tolist() == [3, 1, 4, 3]
    assert rows["lost_packets"].tolist() == [0, 1, 2, 0]
    assert rows["loss_runs"].tolist() == [0, 1, 2, 0]
    assert rows["rtt_ms"].tolist() == pytest.approx([95 - 40, 160 - 80, 260 - 200, 310 - 240])
    assert rows["queue_delay_max_ms"].tolist() == pytest.approx([0, 0, 0, 90])


def test_the_truth_is_by_fate_and_what_is_merely_late_is_no_loss() -> None:
    call = read(small_run())
    assert call.reported_congestion_packets is not None
    assert call.reported_random_packets is not None
    assert call.reported_congestion_packets.tolist() == [0, 1, 0, 0]
    assert call.reported_random_packets.tolist() == [0, 0, 1, 0]
    assert call.telemetry["lost_packets"].sum() == 3


def test_the_link_and_the_target_are_told_per_bin_of_the_call() -> None:
    call = read(small_run())
    assert call.capacity_bps is not None
    assert call.queue_delay_ms is not None
    assert call.capacity_bps.tolist() == pytest.approx([1.5e6, 2e6, 2e6, 2e6])
    assert call.queue_delay_ms.tolist() == pytest.approx([10.0] * 4)
    assert call.telemetry["target_rate_bps"].tolist() == [300_000, 400_000, 400_000, 400_000]
    assert call.warnings == ("1 samples of the target are no numbers or go back in time",)


# --- What is left out or refused ------------------------------------------------------------------


def test_a_run_without_samples_of_the_target_is_read_with_a_warning() -> None:
    run = small_run()
    del run["sender_stats"]["candidate-pair"]["availableOutgoingBitrate"]
    call = read(run)
    assert np.isnan(call.telemetry["target_rate_bps"]).all()
    assert call.warnings == (
        "sender_stats.candidate-pair lacks availableOutgoingBitrate: the target is unknown",
    )


def test_packets_without_a_number_or_missing_on_the_link_are_counted() -> None:
    run = small_run()
    run["packets_fwd"]["twcc"][3] = -1
    call = read(run)
    assert "1 RTP packets without transport-wide numbers are left out" in call.warnings
    assert "1 transport-wide numbers between those sent are not in the log" in call.warnings
    assert call.telemetry["sent_packets"].sum() == 20


def test_what_comes_after_a_minute_of_silence_is_left_out() -> None:
    run = small_run()
    for name, column in run["packets_fwd"].items():
        column.append(column[-1] + (61_000_000 if name == "t_us" else 1 if name == "twcc" else 0))
    call = read(run)
    assert len(call.telemetry) == 4
    assert any(w.startswith("1 packets after 0.420 s are left out") for w in call.warnings)


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        (
            "t_us",
            5,
            1,
            "numbered 65534 at 0.000 s comes after 65533 at 0.110 s: numbers or the clock",
        ),
        ("twcc", 5, 65_532, "numbered 65532 at 0.130 s comes after 65533"),
        ("fate", 2, 7, "numbered 65531 has fate 7"),
        ("oneway_us", 2, -1, "has fate 0, oneway_us -1"),
        ("len", 2, 70_000, "oneway_us 30000 and len 70000"),
        ("len", 2, None, r"packets_fwd.len\[2\] is None, not a whole number"),
        ("len", 2, 1e300, r"packets_fwd.len\[2\] is 1e\+300"),
        ("len", 2, True, r"packets_fwd.len\[2\] is True"),
        ("kind", 2, "RTP", r"packets_fwd.kind\[2\] is 'RTP'"),
    ],
)
def test_values_that_make_no_sense_are_refused_with_their_place(
    column: str, row: int, value: object, message: str
) -> None:
    run = small_run()
    run["packets_fwd"][column][row] = value
    with pytest.raises(CallLogFormatError, match=message):
        read(run)


def test_columns_that_are_missing_or_break_off_are_refused_by_name() -> None:
    for path in ("meta", "packets_fwd.oneway_us", "packets_rev.pt", "link_100ms", "sender_stats"):
        run = small_run()
        *parents, last = path.split(".")
        table = run
        for parent in parents:
            table = table[parent]
        del table[last]
        with pytest.raises(CallLogFormatError, match=f"run.json: the member {path}"):
            read(run)
    run = small_run()
    run["packets_fwd"]["fate"].pop()
    with pytest.raises(CallLogFormatError, match="the columns of packets_fwd differ in length"):
        read(run)
    run = small_run()
    run["meta"]["scenario"]["link"]["propr"] = -20
    with pytest.raises(CallLogFormatError, match="propr is below 0 ms"):
        read(run)
    run = small_run()
    run["packets_rev"]["pt"] = [201] * 7
    with pytest.raises(CallLogFormatError, match="0.420 s with 0 reports"):
        read(run)


STRANGE = (None, True, "x", -1, 0, 1 << 70, 1e300, float("nan"), float("inf"), [], {}, 0.5)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_strange_values_anywhere_are_refused_or_leave_a_call(data: st.DataObject) -> None:
    run = copy.deepcopy(small_run())
    table: Any = run
    while True:
        keys = list(table) if isinstance(table, dict) else list(range(len(table)))
        key = data.draw(st.sampled_from(keys))
        inner = table[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 5)) == 0:
            break
        table = inner
    table[key] = data.draw(st.sampled_from(STRANGE))
    try:
        call = read(run)
    except CallLogFormatError:
        return
    assert (np.diff(call.telemetry["time_s"]) > 0).all()


# --- Twin: the event log of the same call ---------------------------------------------------------


def compare(run: CallLog, log: CallLog) -> None:
    """The packets on the link tell what the client itself logged.

    A report may miss a packet that came in its last millisecond, and the log tells whole
    milliseconds: so counts of single bins differ a little, and sums do not.
    """
    bins = min(len(run.telemetry), len(log.telemetry))
    ours, theirs = run.telemetry[:bins], log.telemetry[:bins]
    for column in ("reports", "sent_packets", "lost_packets", "loss_runs"):
        assert ours[column].sum() == theirs[column].sum(), column
    assert np.mean(ours["reports"] == theirs["reports"]) >= 0.95
    assert np.mean(ours["lost_packets"] == theirs["lost_packets"]) >= 0.96
    sent_bytes = ours["sent_bytes"].sum() - TAG_BYTES * ours["sent_packets"].sum()
    assert sent_bytes == theirs["sent_bytes"].sum()
    # Whatever one of them has not yet acknowledged, the other has in its next report.
    for column in ("sent_packets", "acked_packets", "lost_packets"):
        ahead = np.abs(np.cumsum(ours[column]) - np.cumsum(theirs[column]))
        assert ahead.max() <= 0.6 * max(theirs[column].max(), 10), column
    assert abs(ours["acked_packets"].sum() - theirs["acked_packets"].sum()) <= 2
    rate_ours = ours["acked_rate_bps"].mean() * (1 - TAG_BYTES * ours["acked_packets"].sum()
                                                 / ours["acked_bytes"].sum())  # fmt: skip
    assert rate_ours == pytest.approx(theirs["acked_rate_bps"].mean(), rel=0.005)
    for column, allowed_ms in (("rtt_ms", 1.5), ("queue_delay_ms", 6.0), ("loss_delay_ms", 6.0)):
        difference_ms = ours[column] - theirs[column]
        if np.isfinite(difference_ms).any():
            assert abs(np.nanmedian(difference_ms)) <= allowed_ms, column
            # Beside that, which one packet, the fastest of the call, sets.
            spread_ms = np.nanpercentile(difference_ms, 90) - np.nanpercentile(difference_ms, 10)
            assert spread_ms <= 5.0, column
    is_known = np.isfinite(ours["target_rate_bps"])
    changed = ours["target_rate_bps"][is_known] / theirs["target_rate_bps"][is_known]
    assert 0.99 <= np.median(changed) <= 1.01


def test_a_recorded_run_agrees_with_the_event_log_of_the_same_call() -> None:
    compare(
        chromium_run_call(DATA / "c_loss05_2M_r2.json.gz"),
        event_log_call(DATA / "c_loss05_2M_r2.rtceventlog.gz"),
    )


def test_the_truth_of_a_recorded_run_is_what_its_link_counted() -> None:
    path = DATA / "c_loss05_2M_r2.json.gz"
    call = chromium_run_call(path)
    link = json.loads(gzip.decompress(path.read_bytes()))["link_100ms"]
    assert call.reported_random_packets is not None
    assert call.reported_congestion_packets is not None
    assert call.queue_delay_ms is not None
    assert call.reported_random_packets.sum() == call.telemetry["lost_packets"].sum()
    assert call.reported_random_packets.sum() == pytest.approx(sum(link["drops_random"]), abs=5)
    assert call.reported_congestion_packets.sum() == sum(link["drops_queue"]) == 0
    assert np.all(call.capacity_bps == pytest.approx(2e6))
    waited_ms = np.average(link["queue_delay_mean_ms"], weights=link["pkts"])
    assert np.nanmean(call.queue_delay_ms) == pytest.approx(waited_ms, rel=0.1)


RUNS = sorted(path.name.removesuffix(".json.gz") for path in (RECORDED / "runs").glob("*.json.gz"))


@pytest.mark.slow
@pytest.mark.skipif(not RUNS, reason=f"the recorded calls are not at {RECORDED}")
@pytest.mark.parametrize("name", RUNS)
def test_every_recorded_run_agrees_with_its_event_log(name: str) -> None:
    compare(
        chromium_run_call(RECORDED / f"runs/{name}.json.gz"),
        event_log_call(RECORDED / f"eventlogs/{name}.rtceventlog.gz"),
    )

"""Columns that judge a finished call: readiness, last minute, bad experience, sound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bwe_env.call_table import call_columns
from bwe_env.config import CallConfig, LossConfig, OutageConfig, PathConfig
from bwe_env.network import Network
from bwe_env.quality import conversation_mos
from bwe_env.sim.packet import KIND_VIDEO
from bwe_env.talk_time import talk_time_s
from bwe_env.trace import constant, step
from tests.sim.calls import OneCall

NETWORK = Network(trace=constant(1.5e6, name="steady"))


def row_of(network: Network, duration_s: float) -> tuple[dict[str, Any], OneCall, Any]:
    """The columns of one GCC call, the call, and its STEP rows (NaN after a drop)."""
    config = CallConfig(duration_s=duration_s)
    call = OneCall(network, config, packet_rows=None, key=3)
    played = call.run_until(duration_s)
    steps = np.zeros(config.steps, dtype=played.dtype)
    steps["time_s"] = np.nan
    steps[: len(played)] = played
    columns = call_columns(call.world, steps[:, None], config)
    return {name: column[0] for name, column in columns.items()}, call, steps


def out(from_s: float, until_s: float) -> PathConfig:
    return PathConfig(outage=OutageConfig(from_s=from_s, until_s=until_s))


def test_a_good_call_is_ready_all_the_time_and_no_bad_experience() -> None:
    row, _, _ = row_of(NETWORK, 20.0)
    assert row["not_ready_s"] == 0.0
    assert not row["bad_experience"]
    assert row["audio_concealed_s"] < 0.2
    assert row["audio_long_interruption_ratio"] == 0.0
    assert np.isnan(row["last_minute_regression_v1"])
    assert np.isnan(row["last_minute_regression_v2"])


def test_a_silence_of_8_seconds_is_not_ready_for_3_of_them() -> None:
    row, _, _ = row_of(replace(NETWORK, forward=out(4.0, 12.0)), 20.0)
    # Packets of every 20 ms and a queue of some tens of ms: the silence is that of the outage.
    assert row["not_ready_s"] == pytest.approx(3.0, abs=0.15)
    assert row["bad_experience"]
    assert row["audio_long_interruption_ratio"] == pytest.approx(8.0 / 20.0, abs=0.03)


@pytest.mark.parametrize(("until_s", "counts"), [(4.15, False), (5.0, True), (60.0, True)])
def test_only_a_freeze_of_half_a_second_counts_as_long(until_s: float, counts: bool) -> None:
    row, _, _ = row_of(replace(NETWORK, forward=out(4.0, until_s)), 9.0)
    assert row["freeze_ratio"] > 0.02
    # The end of the last gap may not have found room in an interval of `freeze_ratio`.
    assert 0.0 <= row["freeze_ratio_above_500ms"] <= row["freeze_ratio"] + 0.2 / 9.0
    assert (row["freeze_ratio_above_500ms"] > 0.0) == counts
    if until_s == 60.0:
        assert row["freeze_ratio_above_500ms"] == pytest.approx(5.0 / 9.0, abs=0.01)


def test_a_gap_that_is_open_at_the_end_counts_whole_by_either_measure() -> None:
    row, call, _ = row_of(replace(NETWORK, forward=out(4.0, 60.0)), 9.0)
    receiver = call.flow.receiver
    open_s = 9.0 - receiver.last_shown_us * 1e-6
    assert open_s > 4.5
    earlier_s = receiver.closed_frozen_us * 1e-6
    assert row["freeze_ratio"] == pytest.approx((earlier_s + open_s) / 9.0, abs=1e-9)
    assert open_s / 9.0 <= row["freeze_ratio_above_500ms"] <= row["freeze_ratio"] + 1e-12


def test_an_open_silence_at_the_end_counts() -> None:
    row, _, _ = row_of(replace(NETWORK, forward=out(4.0, 60.0)), 12.0)
    assert row["not_ready_s"] == pytest.approx(12.0 - 4.0 - 5.0, abs=0.15)


def test_after_a_drop_nothing_is_ready_and_nobody_talks() -> None:
    row, call, _ = row_of(replace(NETWORK, forward=out(4.0, 100.0)), 40.0)
    assert row["dropped"]
    dropped_s = call.call.dropped_us * 1e-6
    assert row["not_ready_s"] == pytest.approx(40.0 - 4.0 - 5.0, abs=0.15)
    assert row["talk_time_s"] <= dropped_s
    assert row["bad_experience"]


def test_one_packet_in_twenty_concealed_is_a_bad_experience_by_itself() -> None:
    lossy = replace(NETWORK, forward=PathConfig(loss=LossConfig(good_loss=0.08)))
    row, call, _ = row_of(lossy, 30.0)
    assert row["audio_concealed_s"] > 0.05 * row["audio_played_s"]
    assert row["bad_experience"]
    audio = call.flow.audio
    delay_ms = (
        call.flow.totals.one_way_delay_sum_us / call.flow.totals.fate_packets[1]
        + audio.delay_sum_us / audio.played_frames
    ) * 1e-3
    assert row["audio_mos"] == pytest.approx(
        conversation_mos(
            row["audio_concealed_s"] / row["audio_played_s"],
            row["audio_burst_ratio"],
            delay_ms + 26.5,
        )
    )
    assert 1.0 <= row["audio_burst_ratio"] < 1.3  # independent loss


def test_video_sent_is_what_its_frames_hold() -> None:
    row, call, _ = row_of(NETWORK, 10.0)
    packets = int(call.flow.totals.sent_packets[KIND_VIDEO])
    bytes_sent = int(call.flow.totals.sent_bytes[KIND_VIDEO]) - packets * 40
    assert row["mean_video_sent_bps"] == 8 * bytes_sent / 10.0
    assert row["mean_media_bps"] <= row["mean_video_sent_bps"] < row["mean_sent_bps"]


@pytest.mark.parametrize(("late_bps", "falls"), [(1.5e6, False), (0.06e6, True)])
def test_a_call_whose_last_minute_is_bad_regresses_by_both_measures(
    late_bps: float, falls: bool
) -> None:
    trace = step(1.5e6, late_bps, at_s=121.0, duration_s=400.0, name="late")
    row, call, steps = row_of(Network(trace=trace), 180.0)
    scores = steps["call_score"][9::10]
    assert row["last_minute_regression_v1"] == (
        scores[:120].mean() - scores[120:].mean() >= 0.5 and scores[120:].mean() < 3.0
    )
    assert row["last_minute_regression_v1"] == falls
    assert row["last_minute_regression_v2"] == falls
    expected = talk_time_s(scores[None], 1.0, keys=[call.key], end_s=[180.0])
    assert row["talk_time_s"] == expected[0]

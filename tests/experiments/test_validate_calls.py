"""A recorded call and a simulated one are measured alike."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from experiments.call_media import lip_sync_ms, recorded_picture
from experiments.validate import main
from experiments.validate_calls import (
    ALLOWED,
    OF_PICTURE,
    REASONS,
    Course,
    agrees,
    measures,
    reason_of,
)

RECORDED = Path(__file__).resolve().parents[2] / "../shared/reference/chromium"


def course(target_bps: np.ndarray, capacity_bps: float = 1e6) -> Course:
    count = len(target_bps)
    return Course(
        time_s=0.2 * np.arange(1, count + 1),
        target_bps=target_bps,
        capacity_bps=np.full(count, capacity_bps),
        throughput_bps=0.9 * target_bps,
        queue_delay_ms=(10.0, 40.0),
        queue_loss=0.01,
        media={"frames/s": 29.0},
    )


def test_shares_of_capacity_are_means_after_20_seconds() -> None:
    target = np.full(300, 0.8e6)
    target[:100] = 0.0
    row = measures(course(target), [(0.0, 1e6)])
    assert row["target/cap"] == pytest.approx(0.8)
    assert row["thrput/cap"] == pytest.approx(0.72)
    assert row["queue loss %"] == pytest.approx(1.0)
    assert row["frames/s"] == 29.0
    assert np.isnan(row["target 90 % s"])
    assert np.isnan(row["drop s"])
    assert np.isnan(row["recover s"])


def test_a_fall_over_several_samples_is_one_back_off_and_a_small_one_is_none() -> None:
    target = np.full(400, 1e6)  # 80 s, 60 of them after the start
    target[150:] *= 0.9
    target[151:] *= 0.9
    target[250:] *= 0.9
    target[300:] *= 0.96
    assert measures(course(target), [(0.0, 1e6)])["backoffs/min"] == pytest.approx(2.0)


def test_reaction_times_are_counted_from_the_step() -> None:
    time_s = 0.2 * np.arange(1, 501)
    target = np.where(time_s < 41.1, 2e6, 0.4e6)
    target = np.where(time_s > 75.1, 1.9e6, target)
    row = measures(course(target, 2e6), [(0.0, 2e6), (40.0, 0.5e6), (70.0, 2e6)])
    assert row["drop s"] == pytest.approx(1.2)
    assert row["recover s"] == pytest.approx(5.2)
    assert row["target 90 % s"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("measure", "recorded", "simulated", "is_near"),
    [
        ("target/cap", 0.8, 0.87, True),
        ("target/cap", 0.8, 0.89, False),
        ("queue p95 ms", 40.0, 49.0, True),
        ("queue p95 ms", 40.0, 51.0, False),
        ("queue p95 ms", 3.0, 4.9, True),  # within 2 ms
        ("drop s", np.nan, np.nan, True),
        ("drop s", np.nan, 1.0, False),
    ],
)
def test_near_enough_is_a_share_or_a_floor(
    measure: str, recorded: float, simulated: float, is_near: bool
) -> None:
    assert agrees(measure, recorded, simulated) == is_near


def test_lip_sync_is_what_the_target_exceeds_its_least_by() -> None:
    audio = {
        "jitterBufferTargetDelay": [None, 6.0, 12.0],
        "jitterBufferMinimumDelay": 8.0,
        "jitterBufferEmittedCount": [0, 50, 100],
    }
    run = {"receiver_stats": {"t": [1.0, 2.0, 3.0], "inbound-rtp:audio": audio}}
    assert lip_sync_ms(run) == pytest.approx(40.0)
    assert "40 ms of the recorded target" in reason_of("a_call", "heard buffer ms", run)
    assert "40 ms" not in reason_of("a_call", "audio concealed %", run)


def test_a_directory_without_calls_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calls", str(tmp_path)]) == 2
    assert "runs/NAME.json.gz" in capsys.readouterr().err


@pytest.mark.skipif(
    not (RECORDED / "runs").exists(), reason=f"the recorded calls are not at {RECORDED}"
)
def test_a_real_call_shares_its_link_with_the_simulated_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["calls", str(RECORDED), "--call", "a_4000k", "--seeds", "2"])
    lines = {line[7:21].strip(): line for line in capsys.readouterr().out.splitlines()}
    missed = {measure for measure, line in lines.items() if "MISS" in line}
    assert missed <= {"queue p95 ms", "backoffs/min", "audio buffer m"}  # with their reasons
    assert all("; " in lines[measure] for measure in missed)
    assert code == (1 if missed else 0)


def test_a_run_that_is_no_recorded_call_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    for text in ("{}", "[]", "{"):
        (tmp_path / "runs/b_2M_rtt200.json.gz").write_bytes(gzip.compress(text.encode()))
        assert main(["calls", str(tmp_path)]) == 2
        assert "recorded call" in capsys.readouterr().err


# --- The picture ----------------------------------------------------------------------------------


def test_the_picture_of_a_recording_is_what_its_counters_say_at_the_end() -> None:
    run = {
        "sender_stats": {
            "outbound-rtp:video": {
                "bytesSent": [0, 900, 1_000],
                "retransmittedBytesSent": [0, 40, 50],
                "qpSum": 6_000,
                "framesEncoded": [None, 100, 200],
            }
        },
        "receiver_stats": {
            "inbound-rtp:video": {
                "freezeCount": [0, 1, None],
                "totalFreezesDuration": [0, 0.4, 0.4],
                "framesDecoded": 150,
                "totalInterFrameDelay": 5.0,
                "totalSquaredInterFrameDelay": 0.25,
                "jitterBufferDelay": 15.0,
                "jitterBufferEmittedCount": 150,
            }
        },
    }
    picture = recorded_picture(run)
    assert tuple(picture) == OF_PICTURE
    assert picture == pytest.approx(
        {
            "freezes": 1.0,
            "frozen s": 0.4,
            "frames/s": 30.0,
            "harmonic fps": 20.0,
            "RTX %": 5.0,
            "PLIs": 0.0,
            "mean QP": 30.0,
            "buffer ms": 100.0,
        }
    )


def test_every_measure_has_a_reason_to_miss() -> None:
    assert set(ALLOWED) <= set(REASONS)

"""The simulator goes where libwebrtc's own controller and pacer went, on the same link."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bwe_env.errors import ConfigError
from experiments.validate import main
from experiments.validate_closed_loop import (
    Profile,
    compare_samples,
    compare_seeds,
    read_series,
    recorded_losses,
    settled,
    simulate,
    simulate_losses,
)

DATA = Path(__file__).resolve().parents[1] / "data/gcc_closed"
RECORDED = Path(__file__).resolve().parents[2] / "../shared/reference/gcc/closed"


def profile(name: str, directory: Path = DATA) -> Profile:
    summary = json.loads((directory / "summary.json").read_text())
    return Profile.of(name, summary[name]["config"])


def test_a_capacity_drop_is_followed_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["closed-loop", str(DATA), "--profile", "drop_2M_500k"]) == 0
    _, row, summary = capsys.readouterr().out.splitlines()
    assert row.startswith("ok   drop_2M_500k")
    assert row.endswith("300 of 300 samples equal to the bit per second")
    assert summary.startswith("1 of 1 closed loops agree")


def test_ten_percent_loss_is_followed_bit_for_bit_when_the_same_packets_are_lost() -> None:
    lost = recorded_losses(DATA / "loss10_1M.events.csv.gz")
    _, recorded_bps = read_series(DATA / "loss10_1M.series.csv.gz")
    assert 60 < len(lost) < 120
    assert simulate_losses(profile("loss10_1M"), lost).tolist() == recorded_bps.tolist()


def test_the_same_loss_drawn_anew_goes_another_way() -> None:
    _, recorded_bps = read_series(DATA / "loss10_1M.series.csv.gz")
    first, second = simulate(profile("loss10_1M"), [0, 1])
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, recorded_bps)


def test_a_series_that_leaves_the_recording_is_a_miss_told_by_its_first_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in DATA.iterdir():
        shutil.copy(path, tmp_path)
    path = tmp_path / "drop_2M_500k.series.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    fields = lines[101].split(",")  # 10.1 s
    target_bps = int(fields[2])
    fields[2] = str(round(target_bps * 1.02))
    lines[101] = ",".join(fields)
    path.write_bytes(gzip.compress("".join(lines).encode()))
    assert main(["closed-loop", str(tmp_path), "--profile", "drop_2M_500k"]) == 1
    out = capsys.readouterr().out
    assert "MISS drop_2M_500k" in out
    assert "299 of 300 samples equal" in out
    assert f"first off at 10.1 s: {target_bps} instead of {fields[2]} bps" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--profile", "drop_2M_50k"], "drop_2M_500k"),
        (["--profile", "loss10_1M"], "seeds10.json"),
    ],
)
def test_what_cannot_be_compared_is_wrong_input(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["closed-loop", str(DATA), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_directory_without_recordings_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["closed-loop", str(tmp_path)]) == 2
    assert "summary.json" in capsys.readouterr().err


def test_the_worst_sample_decides_where_nothing_is_random() -> None:
    recorded = np.full(10, 1e6)
    simulated = recorded.copy()
    simulated[4] = 1.011e6
    times_s = np.arange(1, 11) / 10
    row = compare_samples("x", times_s, recorded, simulated)
    assert row.error == pytest.approx(0.011)
    assert not row.passes
    simulated[4] = 1.009e6
    assert compare_samples("x", times_s, recorded, simulated).passes


@pytest.mark.parametrize(
    ("sd_bps", "shift_bps", "passes"),
    [
        (50_000, 44_000, True),  # within 0.9 sd
        (50_000, 46_000, False),
        (1_000, 9_900, True),  # within 1 %
        (1_000, 10_100, False),
    ],
)
def test_the_mean_over_seeds_decides_where_chance_has_a_part(
    sd_bps: float, shift_bps: float, passes: bool
) -> None:
    times_s = np.arange(1, 901) / 10
    recorded = {"target_ss_mean": 1e6, "target_ss_sd": sd_bps}
    simulated = np.full((4, 900), 1e6 + shift_bps)
    simulated[:, times_s < 30] = 0.0  # the start does not count
    assert compare_seeds("x", times_s, recorded, simulated).passes == passes


def test_the_steady_state_begins_after_30_seconds() -> None:
    times_s = np.arange(1, 601) / 10
    assert times_s[settled(times_s)][0] == pytest.approx(30.1)


@pytest.mark.slow
@pytest.mark.skipif(
    not (RECORDED / "summary.json").exists(),
    reason=f"the recorded closed loops are not at {RECORDED}",
)
def test_recorded_closed_loops_agree_where_chance_has_no_part_and_scatter_where_it_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["closed-loop", str(RECORDED)])
    lines = capsys.readouterr().out.splitlines()[1:-1]
    apart = [re.search(r"([+-][0-9.]+) standard errors apart", line) for line in lines]
    exact = [line for line, found in zip(lines, apart, strict=True) if found is None]
    assert len(exact) == 29
    assert all(line.startswith("ok") for line in exact)
    # Means of ten against means of ten: none beyond what 21 draws of a standard normal show.
    deviations = np.array([float(found[1]) for found in apart if found is not None])
    assert len(deviations) == 21
    assert np.abs(deviations).max() < 3.5
    assert 0.4 < np.sqrt((deviations**2).mean()) < 1.6
    assert not any("first off" in line for line in lines)


def test_no_profiles_no_seeds_and_damaged_series_are_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("summary.json", "seeds10.json"):
        (tmp_path / name).write_text("{}")
    assert main(["closed-loop", str(tmp_path)]) == 2
    assert "holds no profiles" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text('{"x": {"config": {"rate": "0:1e6"}}}')
    assert main(["closed-loop", str(tmp_path)]) == 2
    assert "configuration of x" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["closed-loop", str(tmp_path), "--seeds", "0"])
    assert stopped.value.code == 2
    with gzip.open(tmp_path / "y.series.csv.gz", "wt") as lines:
        lines.write("t_s,target_bps\n")
    with pytest.raises(ConfigError, match="recorded series"):
        read_series(tmp_path / "y.series.csv.gz")

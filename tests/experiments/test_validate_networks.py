"""Both sides are measured by the definitions of the statistics page, and a miss is a miss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env.errors import ConfigError, TraceFormatError
from bwe_env.trace import Trace
from bwe_env.trace.recipes import RECIPES
from experiments import validate_networks
from experiments.capacity_statistics import pooled, run_lengths, session_of, step_means_bps
from experiments.validate import main
from experiments.validate_networks import (
    Comparison,
    Row,
    bootstrap_intervals,
    kind_of,
    measured_traces,
    synthetic_sessions,
)
from experiments.validate_paths import path_session, path_statistics

MEASURED = Path(__file__).resolve().parents[2] / "../shared/traces"


def trace_of(duration_s: list[float], capacity_bps: list[float]) -> Trace:
    duration_us = np.array([round(1e6 * seconds) for seconds in duration_s])
    return Trace("t", "3G", "test", duration_us, np.array(capacity_bps))


# --- Statistics, worked by hand -------------------------------------------------------------------


def test_a_step_is_the_time_weighted_mean_of_what_it_covers() -> None:
    # 0.5 s at 1, 1 s at 3, 1.3 s at 5 Mbps: steps of 1 s, the last 0.8 s belong to none.
    trace = trace_of([0.5, 1.0, 1.3], [1e6, 3e6, 5e6])
    assert step_means_bps(trace, 1.0) == pytest.approx([2e6, 4e6])


def test_runs_are_counted_up_to_both_ends() -> None:
    mask = np.array([True, True, False, True, False, False, True])
    assert run_lengths(mask).tolist() == [2, 1, 1]
    assert run_lengths(np.zeros(3, dtype=np.bool_)).tolist() == []


def test_outages_and_dips_are_runs_of_whole_steps() -> None:
    # Median 2 Mbps: below 1 Mbps is a dip, below 150 kbps an outage as well.
    capacity_bps = np.array([2.0, 0.1, 0.0, 2.0, 0.9, 2.0, 2.0, 0.149, 2.0, 2.0]) * 1e6
    session = session_of(capacity_bps, step_s=2.0)
    assert session.duration_s == 20.0
    assert session.outages_s.tolist() == [4.0, 2.0]
    assert session.num_dips == 3
    values = pooled([session])
    assert values["median Mbps"] == pytest.approx(2.0)
    assert values["outage share"] == pytest.approx(0.3)
    assert values["outage mean s"] == pytest.approx(3.0)
    assert values["outage p90 s"] == pytest.approx(3.8)
    assert values["dips/min"] == pytest.approx(9.0)
    assert math.isnan(values["acf 1 s"])  # between two steps


def test_steps_are_in_powers_of_two_and_capacity_is_floored_at_150_kbps() -> None:
    session = session_of(np.array([0.0, 150e3, 600e3, 300e3, 300e3]), step_s=1.0)
    assert session.changes_log2 == pytest.approx([0.0, 2.0, 1.0, 0.0])
    assert pooled([session])["step p50"] == pytest.approx(0.5)


def test_autocorrelation_pools_the_products_of_all_sessions() -> None:
    # Deviations +1 +1 -1 -1 in one session (products at 1 s: 1, -1, 1) and +2 -2 +2 -2 in the other
    # (-4, -4, -4): mean product -11/6 over mean square 20/8.
    first = session_of(1e6 * np.exp([1.0, 1.0, -1.0, -1.0]), step_s=1.0)
    second = session_of(8e6 * np.exp([2.0, -2.0, 2.0, -2.0]), step_s=1.0)
    values = pooled([first, second])
    assert values["acf 1 s"] == pytest.approx((-11 / 6) / (20 / 8))
    assert values["acf 2 s"] == pytest.approx((4 * (1.0 * -1.0) / 2 + 4 * 4.0 / 2) / 4 / (20 / 8))
    assert values["sd"] == pytest.approx(math.sqrt(20 / 8))
    assert math.isnan(values["acf 10 s"])  # longer than the sessions


def test_medians_are_averaged_as_logarithms() -> None:
    sessions = [session_of(np.full(3, rate), step_s=1.0) for rate in (1e6, 100e6)]
    values = pooled(sessions)
    assert values["median Mbps"] == pytest.approx(10.0)
    assert values["median spread"] == pytest.approx(1.0)  # one decade to either side
    assert math.isnan(values["outage mean s"])


def test_a_session_without_dynamics_is_refused() -> None:
    with pytest.raises(ConfigError, match="shorter than two steps"):
        session_of(np.array([1e6]), step_s=1.0)


def test_the_statistics_of_a_path_are_medians_over_its_sessions() -> None:
    first = path_session([10.0, 20.0, 30.0, 40.0, 50.0], 0.0)
    assert first.rtt_ms == 30.0
    assert first.spread_ms == pytest.approx(18.0)
    assert first.rtt_step_ms == 10.0
    second = path_session([50.0, 50.0, 50.0], 0.02)
    unknown = path_session([40.0, 41.0, 40.0], math.nan)
    values = path_statistics([first, second, unknown])
    assert values["RTT median ms"] == 40.0
    assert values["loss"] == pytest.approx(0.01)


# --- The rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "synthetic", "bound", "verdict"),
    [
        (0.5, 0.64, 0.15, "ok"),
        (0.5, 0.34, 0.15, "MISS"),
        (1.0, 1.25, math.nan, "ok"),
        (1.0, 0.79, math.nan, "off"),
        (1.0, 2.0, math.nan, "off"),
        (1.0, 0.49, math.nan, "MISS"),
        (1.0, 0.0, math.nan, "MISS"),
        (1.0, math.nan, math.nan, "MISS"),
        (0.0, 0.0, math.nan, "ok"),
    ],
)
def test_a_verdict_is_an_absolute_bound_or_a_factor(
    measured: float, synthetic: float, bound: float, verdict: str
) -> None:
    row = Row(name="x", measured=measured, synthetic=synthetic, bound=bound)
    assert row.verdict == verdict
    unjudged = Row(name="x", measured=measured, synthetic=synthetic, bound=bound, is_judged=False)
    assert unjudged.verdict == ""


@pytest.mark.parametrize(("num_off", "agrees"), [(1, True), (2, False)])
def test_one_statistic_in_five_may_be_off(num_off: int, agrees: bool) -> None:
    rows = [Row(name="x", measured=1.0, synthetic=1.5) for _ in range(num_off)]
    rows += [Row(name="y", measured=1.0, synthetic=1.0) for _ in range(5 - num_off)]
    # Bounds of their own do not fill the quota.
    rows += [Row(name="acf 1 s", measured=0.1, synthetic=0.1, bound=0.15) for _ in range(5)]
    assert Comparison("kind", rows).agrees == agrees


def test_one_miss_is_enough_to_differ() -> None:
    rows = [Row(name="y", measured=1.0, synthetic=1.0) for _ in range(20)]
    assert Comparison("kind", rows).agrees
    assert not Comparison("kind", [*rows, Row(name="x", measured=1.0, synthetic=2.1)]).agrees
    lag = Row(name="acf 1 s", measured=0.1, synthetic=0.3, bound=0.15)
    assert not Comparison("kind", [*rows, lag]).agrees


def test_the_bootstrap_draws_whole_recording_sessions() -> None:
    # Two sessions of two items each: a sample is all of the one, all of the other, or both.
    seen = set()

    def statistics_of(items: Any) -> dict[str, float]:
        seen.add(tuple(sorted(items)))
        return {"mean": float(np.mean([0.0 if i < 2 else 1.0 for i in items])), "none": math.nan}

    intervals = bootstrap_intervals(["a", "a", "b", "b"], statistics_of)
    assert seen == {(0, 0, 1, 1), (0, 1, 2, 3), (2, 2, 3, 3)}
    assert intervals["mean"] == (0.0, 1.0)
    assert math.isnan(intervals["none"][0])


# --- The command ----------------------------------------------------------------------------------


def write_directory(directory: Path, traces: dict[str, np.ndarray], **keys: Any) -> None:
    entries = []
    for name, capacity_bps in traces.items():
        lines = [f"{t},{rate:.0f}" for t, rate in enumerate(capacity_bps)]
        (directory / f"{name}.csv").write_text("\n".join(["time_s,capacity_bps", *lines]) + "\n")
        entry = {"name": name, "file": f"{name}.csv", "duration_s": len(capacity_bps)}
        entries.append({k: v for k, v in (entry | keys).items() if v is not None})
    (directory / "manifest.json").write_text(json.dumps(entries))


def synthetic_directory(directory: Path, kind: str, *, count: int = 40) -> None:
    like = [session_of(np.arange(1.0, 301.0), step_s=1.0)] * count
    recipe = RECIPES[kind]
    traces = validate_networks.synthetic_traces(
        validate_networks.Kind(kind), [f"own-{i}" for i in range(count)], duration_s=300.0
    )
    write_directory(
        directory,
        {trace.name: step_means_bps(trace, like[0].step_s) for trace in traces},
        network_type=recipe.network_type,
        direction=kind.rsplit("-", 1)[1],
    )


@pytest.fixture
def fewer_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the synthetic sessions: enough where nothing is close to its bound."""
    monkeypatch.setattr(validate_networks, "MIN_SYNTHETIC", 240)


@pytest.mark.usefixtures("fewer_sessions")
def test_a_recipe_agrees_with_its_own_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic_directory(tmp_path, "satellite-up")
    assert main(["networks", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "satellite-up: 40 recordings of 40 sessions, 3.3 h"
    assert any(line.startswith("1000 traces of 60 s are made in ") for line in lines)
    assert lines[-1].startswith("1 of 1 kinds agree in ")


@pytest.mark.usefixtures("fewer_sessions")
def test_recordings_unlike_the_recipe_miss_and_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    noise = {f"t{i}": 1e6 * np.exp(rng.normal(size=200)) for i in range(6)}
    write_directory(tmp_path, noise, network_type="3G", direction="down")
    assert main(["networks", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "MISS acf 1 s" in out
    assert "3G-down DIFFERS" in out
    assert out.splitlines()[-1].endswith("misses: 3G-down.")


def test_synthetic_sessions_are_as_long_as_the_measured_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validate_networks, "MIN_SYNTHETIC", 5)
    like = [session_of(np.arange(1.0, n), step_s=1.0) for n in (31, 61)]
    ours = synthetic_sessions("wifi-down", like)
    assert [session.duration_s for session in ours] == [30.0, 60.0] * 3


def test_recordings_are_told_apart_by_type_direction_and_millimetre_waves() -> None:
    entry = {"name": "x", "network_type": "5G", "direction": "down"}
    assert kind_of(entry, "here") == "5G-down"
    assert kind_of(entry | {"how_measured": "Verizon mmWave 5G"}, "here") == "5G-mmWave-down"
    assert kind_of(entry | {"network_type": "3G", "direction": "up"}, "here") == "3G-up"
    with pytest.raises(TraceFormatError, match="here: trace 'x' has no 'direction'"):
        kind_of({"name": "x", "network_type": "5G"}, "here")


def test_recordings_coarser_than_the_statistics_are_left_out(tmp_path: Path) -> None:
    write_directory(tmp_path, {"t": np.full(20, 1e6)}, network_type="3G", direction="up")
    assert len(measured_traces(tmp_path)["3G-up"]) == 1
    lines = ["time_s,capacity_bps", *(f"{5 * t},1000000" for t in range(20))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    entry = {"name": "t", "file": "t.csv", "duration_s": 100.0}
    entry |= {"network_type": "3G", "direction": "up"}
    (tmp_path / "manifest.json").write_text(json.dumps([entry]))
    assert measured_traces(tmp_path) == {}


def test_a_directory_that_does_not_exist_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["networks", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_directory_without_a_manifest_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["networks", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err


def test_a_trace_without_direction_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_directory(tmp_path, {"t": np.full(20, 1e6)}, network_type="3G")
    assert main(["networks", str(tmp_path)]) == 2
    assert "trace 't' has no 'direction'" in capsys.readouterr().err


def test_too_few_recordings_are_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = {f"t{i}": np.full(20, 1e6) for i in range(4)}
    write_directory(tmp_path, traces, network_type="3G", direction="down")
    assert main(["networks", str(tmp_path)]) == 2
    assert "no kind of network with 5 recordings or more" in capsys.readouterr().err


@pytest.mark.usefixtures("fewer_sessions")
@pytest.mark.parametrize(
    ("probes", "manifest", "message"),
    [
        ("", [{"file": "p.csv"}], "entry 0 needs the keys 'file' and 'network_type'"),
        ("time_s,ms\n0,1\n", None, "expected the header time_s,rtt_ms,loss_rate"),
        ("time_s,rtt_ms,loss_rate\n0,fast,0\n", None, "p.csv:2: rtt_ms='fast' is not a number"),
        ("time_s,rtt_ms,loss_rate\n0,-1.0,\n", None, "no probe was answered"),
    ],
)
def test_probes_that_cannot_be_read_are_wrong_input(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    probes: str,
    manifest: list[dict[str, str]] | None,
    message: str,
) -> None:
    synthetic_directory(tmp_path, "satellite-up", count=5)
    (tmp_path / "p.csv").write_text(probes)
    entries = manifest or [{"file": "p.csv", "network_type": "wifi"}]
    (tmp_path / "probes_manifest.json").write_text(json.dumps(entries))
    assert main(["networks", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


# --- Measured traces, where they are at hand ------------------------------------------------------

needs_traces = pytest.mark.skipif(
    not (MEASURED / "stats.json").exists(),
    reason=f"the measured traces are not at {MEASURED} (their licences forbid shipping them)",
)


@needs_traces
@pytest.mark.parametrize(
    ("kind", "class_name"), [("3G-up", "3G-up"), ("4G-LTE-up", "4G-up-mobile")]
)
def test_our_statistics_are_those_of_the_statistics_page(kind: str, class_name: str) -> None:
    # The two classes of which the directory holds every recording that the page is about.
    page = json.loads((MEASURED / "stats.json").read_text())["classes"][class_name]["step_1s"]
    traces = measured_traces(MEASURED)[kind]
    ours = pooled([session_of(step_means_bps(trace, 1.0), step_s=1.0) for trace in traces])
    assert len(traces) == page["n_traces"]
    # The page's rounding is 1e-3 in medians and autocorrelations and 1e-4 elsewhere; it takes the
    # mean of a lagged product over slightly other pairs.
    assert math.log10(ours["median Mbps"]) + 6.0 == pytest.approx(
        page["log10_session_median_bps"]["mean"], abs=1e-3
    )
    assert ours["median spread"] == pytest.approx(page["log10_session_median_bps"]["std"], abs=1e-3)
    assert ours["sd"] == pytest.approx(page["within_session_std_ln_capacity"]["pooled"], abs=1e-3)
    for lag_s in (1, 2, 10, 20):
        assert ours[f"acf {lag_s} s"] == pytest.approx(
            page["acf_ln_capacity"][f"{lag_s}s"], abs=6e-3
        )
    for percent in (50, 75, 90, 95, 99):
        assert ours[f"step p{percent}"] == pytest.approx(
            page["abs_step_log2_q"][f"p{percent}"], abs=2e-4
        )
    outages = page["outage_lt150kbps"]
    assert ours["outage share"] == pytest.approx(outages["time_frac"], abs=1e-4)
    assert ours["outage mean s"] == pytest.approx(outages["dur_mean_s"], abs=1e-2)
    assert ours["outage p90 s"] == pytest.approx(outages["dur_s_q"]["p90"], abs=1e-2)
    assert ours["dips/min"] == pytest.approx(page["dip_lt_half_median"]["per_min"], abs=1e-2)


@needs_traces
@pytest.mark.slow
def test_every_kind_of_network_agrees_with_the_measured_traces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["networks", str(MEASURED)]) == 0
    out = capsys.readouterr().out
    for kind in ("3G-down", "4G-LTE-up", "5G-mmWave-down", "wired-broadband-down", "wifi path"):
        assert f"{kind} agrees" in out

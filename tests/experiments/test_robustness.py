from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env.config import LinkConfig, LossConfig, PathConfig, RelayConfig
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.network import Network
from bwe_env.rollout import record_calls, run_calls
from bwe_env.trace import constant
from experiments.robustness import (
    RobustnessConfig,
    Task,
    labels,
    main,
    make_tasks,
    play_all,
    read_calls,
    robustness,
)
from experiments.robustness_networks import (
    Point,
    added_loss,
    feedback_outages,
    longer_round_trip,
    scaled_capacity,
)
from experiments.robustness_report import METRICS, result_columns, tables
from tests.experiments.inline_executor import InlineExecutor

NETWORK = Network(trace=constant(1_000_000.0, duration_s=60.0))


# --- Networks -------------------------------------------------------------------------------------


def test_a_longer_round_trip_stretches_every_delay_and_nothing_else() -> None:
    path = PathConfig(propagation_delay_s=0.02, delay_steps=((5.0, 0.1),))
    network = replace(NETWORK, forward=path, relay=RelayConfig(forward=path, reverse=path))
    longer = longer_round_trip(network, 3.0)
    for part in (longer.forward, longer.relay.forward, longer.relay.reverse):
        assert part.propagation_delay_s == pytest.approx(0.06)
        assert part.delay_steps == ((5.0, pytest.approx(0.3)),)
    assert longer.reverse.propagation_delay_s == pytest.approx(3 * 0.025)
    assert (longer.trace, longer.link) == (network.trace, network.link)


def test_a_scaled_capacity_keeps_the_time_that_the_queue_holds() -> None:
    link = LinkConfig(queue_limit_bytes=20_000, policer_rate_bps=500_000.0)
    scaled = scaled_capacity(replace(NETWORK, link=link), 0.25)
    assert scaled.trace.mean_bps == pytest.approx(250_000.0)
    assert scaled.name == NETWORK.name  # the same random streams
    assert scaled.link.queue_limit_bytes == 5_000
    assert scaled.link.policer_rate_bps == 125_000.0
    assert scaled_capacity(NETWORK, 2.0).link == NETWORK.link  # given in seconds already


def test_added_loss_acts_beside_the_networks_own() -> None:
    loss = LossConfig(good_loss=0.1, bad_loss=0.5, good_to_bad=0.01, bad_to_good=0.2)
    lossy = added_loss(replace(NETWORK, forward=PathConfig(loss=loss)), 0.2).forward.loss
    assert lossy.good_loss == pytest.approx(1 - 0.9 * 0.8)
    assert lossy.bad_loss == pytest.approx(1 - 0.5 * 0.8)
    assert (lossy.good_to_bad, lossy.bad_to_good) == (0.01, 0.2)
    timed = replace(NETWORK, forward=PathConfig(loss=LossConfig(good_loss=0.1, until_s=5.0)))
    with pytest.raises(ConfigError, match="replayed or timed"):
        added_loss(timed, 0.1)


def test_feedback_falls_silent_twice_in_a_call() -> None:
    (call,) = record_calls([feedback_outages(NETWORK, 5.0, 60.0)], "gcc", seeds=(0,))
    is_silent = call.telemetry["acked_packets"] == 0
    silent_s = call.steps["time_s"][is_silent]
    for begins_s in (20.0, 40.0):
        within = (silent_s > begins_s + 0.2) & (silent_s <= begins_s + 5.0)
        assert within.sum() >= 47
    assert (silent_s > 1.0).sum() <= 110  # and hardly at any other time


def test_a_relay_of_no_length_changes_nothing_by_itself() -> None:
    none = PathConfig(propagation_delay_s=0.0)
    relayed = replace(NETWORK, relay=RelayConfig(forward=none, reverse=none))
    plain, through = (run_calls([n], "gcc", seeds=(0,)) for n in (NETWORK, relayed))
    assert through["call_score"] == pytest.approx(plain["call_score"], abs=0.05)
    assert through["one_way_delay_ms_p95"] == pytest.approx(plain["one_way_delay_ms_p95"], rel=0.1)


def test_the_unchanged_networks_are_the_same_on_every_axis() -> None:
    for axis, value in (("rtt", 1.0), ("capacity", 1.0), ("loss", 0.0), ("outage", 0.0)):
        assert Point(axis=axis, value=value).apply(NETWORK, 60.0) is NETWORK


# --- The sweep ------------------------------------------------------------------------------------


def made_up(task: Task) -> dict[str, Any]:
    """Calls in which "low" loses a point of call score under loss, and "good" gains one."""
    rows = 12
    base = np.linspace(2.0, 4.0, rows)
    gain = {"gcc": 0.0, "good": 1.0, "low": -1.0 if task.point.axis == "loss" else 0.0}
    change = 0.0 if task.point.is_unchanged else gain[task.label]
    return {
        "network": np.array([f"n{row:02}" for row in range(rows)]),
        "network_type": np.array(["3G", "wifi"] * (rows // 2)),
        "seed": np.zeros(rows, dtype=np.int64),
        "call_score": base + change,
        "freeze_ratio": np.full(rows, 0.1) - 0.01 * change,
        "one_way_delay_ms_p95": np.full(rows, 100.0),
        "fallback_share": np.full(rows, 0.25 if task.label == "good" else np.nan),
    }


def config(tmp_path: Path, **changes: Any) -> RobustnessConfig:
    options: dict[str, Any] = {
        "estimators": ("gcc", "good=constant:500000", "low=constant:300000"),
        "out": tmp_path / "sweep",
        "axes": ("rtt", "loss"),
        "networks": 6,
    }
    return RobustnessConfig(**options | changes)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_says_where_a_controller_falls_below_gcc(tmp_path: Path) -> None:
    assert robustness(config(tmp_path), InlineExecutor(play=made_up, shuffle_seed=1)) == 0
    out = tmp_path / "sweep"
    rows = read(out / "robustness.csv")
    below = {(r["controller"], r["axis"], r["metric"]) for r in rows if r["below_gcc"] == "True"}
    assert below == {("low", "loss", "call score"), ("low", "loss", "freeze %")}
    assert len(rows) == 2 * (4 + 7) * len(METRICS)
    text = " ".join((out / "robustness.txt").read_text().split())
    assert "good is shown to fall below GCC in call score: not shown anywhere" in text
    assert "low is shown to fall below GCC in call score: added loss % 1, added loss % 2" in text
    assert "at most 6 Mbps for every controller" in text
    assert "25.0" in text
    assert sorted(path.name for path in out.glob("*.png")) == [
        "robustness-call_score.png",
        "robustness-freeze_ratio.png",
        "robustness-one_way_delay_ms_p95.png",
    ]


def test_an_interrupted_sweep_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole, broken = config(tmp_path / "a"), config(tmp_path / "b")
    robustness(whole, InlineExecutor(play=made_up))
    with pytest.raises(KeyboardInterrupt):
        robustness(broken, InlineExecutor(play=made_up, interrupt_after=5))
    rest = InlineExecutor(play=made_up)
    robustness(broken, rest)
    assert len(rest.items) == 3 * (1 + 3 + 6) - 5  # the unchanged networks once
    for name in ("robustness.csv", "robustness.txt", "robustness-call_score.png"):
        assert (whole.out / name).read_bytes() == (broken.out / name).read_bytes()


def test_another_sweep_does_not_go_on_with_the_calls_of_this_one(tmp_path: Path) -> None:
    robustness(config(tmp_path), InlineExecutor(play=made_up))
    with pytest.raises(ConfigError, match=r"a sweep with other networks"):
        robustness(config(tmp_path, networks=12), InlineExecutor(play=made_up))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        robustness(config(tmp_path, out=tmp_path / "notes"), InlineExecutor(play=made_up))


def test_labels_name_controllers_once_with_gcc_first() -> None:
    named = labels(["ppo=runs/ppo-001", "gcc", "guarded=guarded:runs/ppo-001", "constant:500000"])
    assert list(named.items()) == [
        ("gcc", "gcc"),
        ("ppo", "runs/ppo-001"),
        ("guarded", "guarded:runs/ppo-001"),
        ("constant:500000", "constant:500000"),
    ]
    with pytest.raises(ConfigError, match="twice"):
        labels(["a=x", "a=y"])
    with pytest.raises(ConfigError, match="LABEL=NAME"):
        labels(["runs/ppo-001"])


def test_wrong_axes_are_told_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--estimators", "gcc", "--out", str(tmp_path / "x"), "--axes", "capasity"]
    with pytest.raises(SystemExit):
        main(argv)
    assert "capacity" in capsys.readouterr().err


def test_damaged_calls_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text("network,seed\na\n")
    with pytest.raises(ArtifactError, match="Delete it"):
        read_calls(path)


def test_real_calls_are_played_and_read_back(tmp_path: Path) -> None:
    short = config(tmp_path, estimators=("gcc", "constant:300000"), axes=("loss",), duration_s=2.0)
    tasks = [t for t in make_tasks(short, labels(short.estimators)) if t.point.value in (0.0, 0.3)]
    (short.out / "calls").mkdir(parents=True)
    executor = InlineExecutor()
    play_all(tasks, short.out, executor)
    assert executor.is_closed
    sweep = {(t.point, t.label): read_calls(t.path(short.out)) for t in tasks}
    assert all(len(calls["network"]) == 6 for calls in sweep.values())
    assert np.isnan(next(iter(sweep.values()))["fallback_share"]).all()
    assert len(result_columns(sweep)["axis"]) == 2 * len(METRICS)
    assert tables(sweep, short)

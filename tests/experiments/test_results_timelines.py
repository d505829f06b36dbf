"""Which calls a page shows, and how it draws them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.rollout import RecordedCall
from bwe_env.trace.catalog import networks
from experiments import results_calls
from experiments.compare_results import Estimator, read_comparison, write_comparison
from experiments.report import main as report
from experiments.results_calls import ChosenCall, PlayedCall, chosen_calls, play
from experiments.results_data import Results, read_results
from experiments.results_timelines import LOSSES, frozen_spans, timeline_figures
from experiments.run_directory import config_to_dict
from experiments.tables import write_csv
from tests.experiments.compare_folder import made_up_calls, write_folder
from tests.experiments.pages import Page

CALL = CallConfig(duration_s=20.0)
COLUMNS = (
    "time_s",
    "capacity_bps",
    "target_rate_bps",
    "receive_rate_bps",
    "queue_delay_ms",
    "frozen_ratio",
    *(column for column, _, _ in LOSSES),
)


def _steps(count: int = 200) -> NDArray[Any]:
    """A made-up call: a fall of the capacity at 8 s, losses and a freeze after it."""
    steps = np.zeros(count, dtype=[(name, "f8") for name in COLUMNS])
    time_s = steps["time_s"] = 0.1 * np.arange(1, count + 1)
    steps["capacity_bps"] = np.where(time_s < 8.0, 2e6, 6e5)
    steps["target_rate_bps"] = np.where(time_s < 8.5, 1.8e6, 5e5) * (1 + 0.05 * np.sin(time_s))
    steps["receive_rate_bps"] = np.minimum(steps["target_rate_bps"], steps["capacity_bps"])
    steps["queue_delay_ms"] = 30.0 + 300.0 * np.exp(-((time_s - 9.0) ** 2))
    steps["queue_loss_ratio"] = np.where((time_s > 8.5) & (time_s < 9.5), 0.2, 0.0)
    steps["random_loss_ratio"] = np.where(np.arange(count) % 40 == 5, 0.03, 0.0)
    steps["frozen_ratio"] = np.where((time_s > 9.04) & (time_s < 10.06), 1.0, 0.0)
    return steps


def _results(folder: Path, scores: dict[str, tuple[str, float, float]]) -> Results:
    """Calls of PPO's first run and of GCC: network type and both scores by network."""
    write_folder(folder)
    rows = made_up_calls()
    first = {name: column[:1].repeat(4 * len(scores)) for name, column in rows.items()}
    lines = [
        (label, run, network, kind, score, seed)
        for network, (kind, ours, theirs) in scores.items()
        for label, run, score in (
            ("PPO", "/home/somebody/runs/ppo-001", ours),
            ("PPO", "/home/somebody/runs/ppo-002", 5.0),  # another run, and another seed,
            ("gcc", "gcc", theirs),
        )
        for seed in ((3, 4) if label == "gcc" else (3,))  # have no part in the choice
    ]
    names = ("estimator", "run", "network", "network_type", "call_score", "seed")
    columns = zip(*lines, strict=True)
    first |= {name: np.array(column) for name, column in zip(names, columns, strict=True)}
    first["contested"] = np.ones(len(lines))
    write_csv(folder / "calls.csv", first)
    return read_results(folder)


def test_the_best_the_worst_the_median_and_one_of_each_type_are_shown(tmp_path: Path) -> None:
    results = _results(
        tmp_path,
        {
            "a": ("3G", 3.0, 2.0),  # +1.0
            "b": ("3G", 2.0, 3.5),  # -1.5
            "c": ("wifi", 3.1, 3.0),  # +0.1
            "d": ("wifi", 3.3, 3.0),  # +0.3, in the middle
            "e": ("wifi", 3.9, 3.0),  # +0.9
            "f": ("5G", 3.4, 3.0),  # +0.4
            "g": ("3G", 3.0, 2.9),  # +0.1
        },
    )
    shown = {one.network: (one.reason, round(one.difference, 6)) for one in chosen_calls(results)}
    assert shown == {
        "a": ("best difference", 1.0),
        "b": ("worst difference", -1.5),
        "d": ("median difference", 0.3),  # which is that of wifi, too
        "g": ("median of 3G", 0.1),
        "f": ("median of 5G", 0.4),
    }


def test_frozen_spans_are_runs_of_frozen_intervals() -> None:
    assert frozen_spans(_steps()) == [pytest.approx((9.0, 10.0))]
    frozen = _steps(3)
    frozen["frozen_ratio"] = [1.0, np.nan, 0.5]
    assert frozen_spans(frozen) == [pytest.approx((0.0, 0.1)), pytest.approx((0.2, 0.3))]


def test_a_figure_shows_both_estimators_with_losses_by_cause_and_what_models_say() -> None:
    outputs = {"congestion": np.linspace(0, 1, 200), "random_loss": np.full(200, np.nan)}
    ours = PlayedCall(label="PPO", steps=_steps(), outputs=outputs, dropped=False)
    theirs = PlayedCall(label="gcc", steps=_steps(150), outputs={}, dropped=True)
    chosen = ChosenCall(network="n<1>", network_type="3G", reason="best", difference=0.5)
    figures = timeline_figures([chosen], {"n<1>": (ours, theirs)}, CALL)
    page = Page("".join(figures))
    told = [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img"]
    assert told[0].startswith("PPO on n<1>: received")
    assert told[1].endswith("dropped")
    assert "n<1> (3G): best, +0.50 in call score." in page.text
    for word in ("model: congestion", "model: random loss", "loss: queue overflow", "dropped"):
        assert word in page.text
    columns = [path["class"] for path in page.all("path") if "column" in path.get("class", "")]
    assert columns.count("column s1") == 2 * 9  # between 8.5 and 9.5 s, of both
    assert columns.count("column s3") == 5 + 4  # every fortieth
    assert "nan" not in "".join(figures).lower()


# --- Playing --------------------------------------------------------------------------------------


@pytest.fixture
def short(tmp_path: Path) -> Results:
    """A comparison of a constant rate with GCC on two synthetic networks."""
    names = [(n.name, n.network_type) for n in networks("test", count=2)]
    results = _results(tmp_path, {name: (kind, 3.0, 3.0) for name, kind in names})
    calls = {name: column.copy() for name, column in results.calls.items()}
    ours = calls["estimator"] == "PPO"
    calls["run"][ours] = np.where(calls["call_score"][ours] == 5.0, "constant:1", "constant:400000")
    write_csv(tmp_path / "calls.csv", calls)
    comparison = read_comparison(tmp_path)
    estimators = (
        Estimator(label="PPO", runs=("constant:400000", "constant:1")),
        *comparison.estimators[1:],
    )
    inputs = {"call": config_to_dict(CALL), "networks": {"count": 2}, "seeds": [3, 4]}
    fields = {**vars(comparison), "estimators": estimators, "inputs": inputs}
    fields.pop("_by_name", None)
    write_comparison(tmp_path, type(comparison)(**fields))
    return read_results(tmp_path)


def _recorder(factor: float) -> Any:
    def record(chosen: Any, controller: Any, **options: Any) -> Iterator[RecordedCall]:
        assert options["seeds"] == (3,)
        steps = _steps()
        steps["target_rate_bps"] *= factor
        for network in chosen:
            yield RecordedCall(
                network=network,
                seed=3,
                steps=steps,
                telemetry=np.zeros(200),
                probabilities=np.zeros((200, 0), dtype=np.float32),
                dropped=False,
            )

    return record


def test_a_call_that_is_not_the_table_s_is_refused(
    short: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = chosen_calls(short)
    short.calls["mean_target_bps"][:] = _steps()["target_rate_bps"].mean()
    monkeypatch.setattr(results_calls, "record_calls", _recorder(1.005))
    assert len(play(short, chosen, traces=None, num_threads=1)) == 2
    monkeypatch.setattr(results_calls, "record_calls", _recorder(1.02))
    with pytest.raises(ArtifactError, match="mean target rate of .* the simulator has changed"):
        play(short, chosen, traces=None, num_threads=1)


def test_networks_that_are_not_found_are_told_with_what_to_do(tmp_path: Path) -> None:
    results = _results(tmp_path, {"street-1": ("3G", 3.0, 2.0), "street-2": ("3G", 3.0, 2.0)})
    with pytest.raises(ConfigError, match="Give the directory of its traces with --traces"):
        play(results, chosen_calls(results), traces=None, num_threads=1)


@pytest.mark.slow
def test_the_calls_of_the_table_are_played_again_and_drawn(
    short: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.contenders import baseline
    from experiments.evaluation import Setting, run

    calls = {name: column.copy() for name, column in short.calls.items()}
    for label, name in (("PPO", "constant:400000"), ("gcc", "gcc")):
        played = run(
            baseline(name, CALL), networks("test", count=2), Setting(call=CALL, seeds=(3,))
        )
        for position, network in enumerate(played["network"]):
            row = (calls["estimator"] == label) & (calls["run"] == name) & (calls["seed"] == 3)
            for column in ("call_score", "mean_target_bps"):
                calls[column][row & (calls["network"] == network)] = played[column][position]
    write_csv(tmp_path / "calls.csv", calls)
    assert report(["results", str(tmp_path), "--threads", "1"]) == 0, capsys.readouterr().err
    first = (tmp_path / "results.html").read_bytes()
    page = Page(first.decode())
    figures = [f["id"] for f in page.all("figure") if f["id"].startswith("figure-timeline")]
    assert figures == ["figure-timeline-0", "figure-timeline-1"]
    assert "PPO on test-0000" in str(page.all("svg"))
    assert report(["results", str(tmp_path), "--threads", "2"]) == 0
    assert (tmp_path / "results.html").read_bytes() == first

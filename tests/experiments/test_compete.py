"""Measures on series made by hand, and the command from end to end on one link."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env.config import CallConfig, TcpTraffic
from bwe_env.rollout import CallSeries
from bwe_env.sim.step import STEP
from experiments import compete
from experiments.compete_games import TCP, Game, bottlenecks, games
from experiments.compete_measures import (
    DURATION_S,
    JOIN_S,
    MEASURES,
    SETTLED_S,
    fair_shares,
    measure,
    starvation,
)
from experiments.contenders import Contender, baseline

INTERVAL_S = 0.1
TIME_S = INTERVAL_S * np.arange(1, round(DURATION_S / INTERVAL_S) + 1)
Rate = Callable[[np.ndarray], Any]


def series(first: Rate, second: Rate, *, is_tcp: bool = False, dropped: bool = False) -> CallSeries:
    """A call of two rates, as functions of the time at which each interval ends."""
    steps = np.zeros(len(TIME_S), dtype=STEP)
    steps["time_s"] = TIME_S
    steps["rtt_ms"] = np.where(TIME_S > JOIN_S, 150.0, 100.0)
    steps["queue_delay_ms"] = np.where(TIME_S > SETTLED_S, 40.0, 900.0)
    steps["call_score"] = 2.0
    steps["call_score"][9::10] = 3.0  # rows in the middle of a second are not its score
    rates = np.array([rate(TIME_S) + 0.0 * TIME_S for rate in (first, second)])
    none = np.zeros((0, len(TIME_S)))
    return CallSeries(
        steps=steps,
        flow_rates_bps=rates[:1] if is_tcp else rates,
        source_rates_bps=rates[1:] if is_tcp else none,
        dropped=dropped,
        competing_steps=np.zeros((0, len(TIME_S)), dtype=STEP) if is_tcp else steps[None],
    )


def joining(before: float, after: float, at_s: float) -> Rate:
    return lambda time_s: np.where(time_s > at_s + 1e-6, after, before)


# --- Measures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity_bps", "limits_bps", "shares_bps"),
    [
        (2e6, (6e6, 6e6), (1e6, 1e6)),
        (5e6, (1.5e6, math.inf), (1.5e6, 3.5e6)),  # what one cannot use is the other's
        (5e6, (1.5e6, 2e6), (1.5e6, 2e6)),
        (5e6, (math.inf, 1e6), (4e6, 1e6)),
    ],
)
def test_fair_shares_are_max_min(
    capacity_bps: float, limits_bps: tuple[float, float], shares_bps: tuple[float, float]
) -> None:
    assert fair_shares(capacity_bps, limits_bps) == pytest.approx(shares_bps)


def test_a_flow_starves_when_it_has_less_than_a_tenth_of_its_share_for_more_than_five_seconds() -> (
    None
):
    rate_bps = np.full(600, 1e6)
    assert starvation(rate_bps, 1e6, INTERVAL_S) == (0, 0.0)
    rate_bps[100:150] = 0.0  # five seconds, of which the first is still warm in the mean
    assert starvation(rate_bps, 1e6, INTERVAL_S) == (0, 0.0)
    rate_bps[200:300] = 0.0
    rate_bps[400:480] = 99e3
    count, longest_s = starvation(rate_bps, 1e6, INTERVAL_S)
    assert count == 2
    # Means over a second are below 100 kbps from the tenth empty interval to the next full one.
    assert longest_s == pytest.approx(10.0 - 0.9 + 0.0, abs=0.11)
    rate_bps[400:480] = 101e3
    assert starvation(rate_bps, 1e6, INTERVAL_S)[0] == 1


def test_equals_are_fair_in_every_measure() -> None:
    equal = measure(series(joining(2e6, 1e6, JOIN_S), joining(0, 1e6, 40.0)), 2e6, (6e6, 6e6))
    assert set(equal) == set(MEASURES)
    expected = {
        "jain_index": 1.0,
        "throughput_ratio": 1.0,
        "first_share": 1.0,
        "second_share": 1.0,
        "utilisation": 1.0,
        "first_starved": 0.0,
        "second_starved": 1.0,  # before it sends, 10 s after it might
        "never_joined": 0.0,
        "queue_delay_ms_p95": 40.0,
        "rtt_growth": 1.5,
        "first_score": 3.0,
        "second_score": 3.0,
        "dropped": 0.0,
    }
    for name, value in expected.items():
        assert equal[name] == pytest.approx(value), name
    assert equal["join_s"] == pytest.approx(10.7, abs=0.11)  # 0.8 s more until the mean is there


def test_a_tyrant_and_who_never_joins_are_told_apart() -> None:
    for is_tcp in (False, True):
        values = measure(
            series(lambda t: 1.8e6 + 0 * t, joining(0, 0.06e6, JOIN_S), is_tcp=is_tcp),
            2e6,
            (6e6, math.inf if is_tcp else 6e6),
        )
        assert values["jain_index"] == pytest.approx(1.86**2 / (2 * (1.8**2 + 0.06**2)))
        assert values["throughput_ratio"] == pytest.approx(30.0)
        assert values["second_share"] == pytest.approx(0.06)
        assert (values["second_starved"], values["first_starved"]) == (1.0, 0.0)
        assert values["second_starved_s"] == pytest.approx(DURATION_S - JOIN_S)
        assert (values["join_s"], values["never_joined"]) == (pytest.approx(90.0), 1.0)
        assert math.isnan(values["second_score"]) == is_tcp


def test_a_call_that_drops_has_no_measures_but_that() -> None:
    values = measure(series(np.ones_like, np.ones_like, dropped=True), 2e6, (6e6, 6e6))
    assert values.pop("dropped") == 1.0
    assert all(math.isnan(value) for value in values.values())


# --- Games ----------------------------------------------------------------------------------------


def test_every_game_of_an_estimator_is_compared_to_gcc_in_its_part() -> None:
    call = CallConfig(duration_s=DURATION_S)
    gcc, fixed = baseline("gcc", call), baseline("constant:500000", call)
    names = [(game.name, reference.name) for game, reference in games(fixed, gcc)]
    assert names == [
        ("constant:500000, then constant:500000", "gcc, then gcc"),
        ("constant:500000, then gcc", "gcc, then gcc"),
        ("gcc, then constant:500000", "gcc, then gcc"),
        ("constant:500000, then CUBIC", "gcc, then CUBIC"),
        ("constant:500000, then Reno", "gcc, then Reno"),
        ("gcc, then gcc", "gcc, then gcc"),
        ("gcc, then CUBIC", "gcc, then CUBIC"),
        ("gcc, then Reno", "gcc, then Reno"),
    ]
    assert [game.name for game, _ in games(gcc, gcc)] == [name for name, _ in names[5:]]


def test_the_grid_has_a_queue_of_one_bdp_and_a_deep_one_on_every_path() -> None:
    grid = bottlenecks()
    assert len(grid) == len({link.name for link in grid}) == 12
    assert {link.capacity_bps for link in grid} == {1e6, 2e6, 5e6}
    assert {(link.rtt_s, link.queue_s) for link in grid} == {
        (0.04, 0.04),
        (0.04, 0.3),
        (0.1, 0.1),
        (0.1, 0.3),
    }


@pytest.mark.parametrize("second", ["call", *TCP])
def test_whoever_joins_does_so_at_30_s_over_the_same_link(second: str) -> None:
    link = bottlenecks()[1]
    joins = Contender(label="x", controller="gcc") if second == "call" else second
    network = link.network(joins)
    assert network.name == link.name
    assert network.link.queue_limit_s == 0.3
    assert network.forward.propagation_delay_s + network.reverse.propagation_delay_s == 0.04
    if second == "call":
        assert (network.competing_calls, network.competing_start_s) == (1, (JOIN_S,))
    else:
        (tcp,) = network.cross_traffic
        assert isinstance(tcp, TcpTraffic)
        assert (tcp.algorithm, tcp.rtt_s, tcp.start_s) == (TCP[second], 0.04, JOIN_S)


def test_differences_are_paired_by_link_and_leave_out_what_one_side_lacks() -> None:
    gcc, other = (Contender(label=name, controller="gcc") for name in ("gcc", "other"))
    pair = (Game(other, "CUBIC"), Game(gcc, "CUBIC"))
    shape = [(game.name, link) for game in pair for link in "abc"]
    columns = {
        "game": np.array([game for game, _ in shape]),
        "link": np.array([link for _, link in shape]),
        **{name: np.full(6, np.nan) for name in MEASURES},
    }
    columns["jain_index"] = np.array([0.9, 0.8, 0.7, 0.8, 0.7, 0.6])
    (difference,) = compete.differences(columns, [pair, (pair[1], pair[1])])
    assert difference.measure == "jain_index"
    assert difference.interval.mean == pytest.approx(0.1)
    assert difference.interval.low == pytest.approx(0.1)  # the links differ, not the difference


# --- The command ----------------------------------------------------------------------------------


def test_the_command_writes_every_call_and_every_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--estimator", "constant:300000", "--out", str(tmp_path / "games")]
    arguments += ["--seeds", "1", "--links", "1", "--num-threads", "1"]
    assert compete.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "constant:300000, then constant:300000" in printed
    assert (tmp_path / "games" / "tables.txt").read_text() in printed
    with (tmp_path / "games" / "games.csv").open() as file:
        rows = {row["game"]: row for row in csv.DictReader(file)}
    assert len(rows) == 8
    both = rows["constant:300000, then constant:300000"]
    assert float(both["jain_index"]) > 0.99
    assert float(both["utilisation"]) == pytest.approx(0.6, abs=0.08)
    # A call that does not take part in the search for shares leaves GCC the rest of 1 Mbps.
    beside_gcc = rows["constant:300000, then gcc"]
    assert float(beside_gcc["first_share"]) < 0.7
    assert float(beside_gcc["second_share"]) > float(beside_gcc["first_share"])
    with (tmp_path / "games" / "differences.csv").open() as file:
        compared = list(csv.DictReader(file))
    assert {row["reference"] for row in compared} == {
        "gcc, then gcc",
        "gcc, then CUBIC",
        "gcc, then Reno",
    }
    assert compete.main(arguments) == 2
    assert "exists already" in capsys.readouterr().err


def test_wrong_options_are_told() -> None:
    options = compete.CompeteConfig(estimator="gcc", out=Path("x"))
    for wrong in ({"seeds": 0}, {"num_threads": 0}, {"links": -1}):
        with pytest.raises(compete.ConfigError, match="must be at least"):
            replace(options, **wrong)

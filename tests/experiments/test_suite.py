"""Criteria on series made by hand, and the command from end to end on a shortened case."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env import rfc8867
from bwe_env.rfc8867 import RFC_8867, PublishedCase, published_case
from bwe_env.rollout import CallSeries
from bwe_env.sim.step import STEP
from experiments import rfc8867_criteria, suite
from experiments.contenders import baseline
from experiments.evaluate import main
from experiments.evaluation import Setting

INTERVAL_S = 0.1


def series(
    duration_s: float,
    *rates: Callable[[np.ndarray], Any],
    delay_ms: Callable[[np.ndarray], Any] = np.zeros_like,
    loss: Callable[[np.ndarray], Any] = np.zeros_like,
    tcp: Callable[[np.ndarray], Any] | None = None,
) -> CallSeries:
    """A call made of functions of the time at which each interval ends."""
    time_s = INTERVAL_S * np.arange(1, round(duration_s / INTERVAL_S) + 1)
    steps = np.zeros(len(time_s), dtype=STEP)
    steps["time_s"] = time_s
    steps["sent_rate_bps"] = 1e6
    steps["queue_delay_ms"] = delay_ms(time_s)
    steps["queue_loss_ratio"] = loss(time_s)
    sources = [tcp(time_s)] if tcp is not None else []
    return CallSeries(
        steps=steps,
        flow_rates_bps=np.array([rate(time_s) + 0.0 * time_s for rate in rates]),
        source_rates_bps=np.array(sources).reshape(len(sources), len(time_s)),
        dropped=False,
    )


def constant(rate_bps: float) -> Callable[[np.ndarray], Any]:
    return lambda time_s: np.full(len(time_s), rate_bps)


def step(before: float, after: float, at_s: float) -> Callable[[np.ndarray], Any]:
    return lambda time_s: np.where(time_s > at_s + 1e-6, after, before)


def measured(case: PublishedCase, call: CallSeries) -> dict[str, suite.Verdict]:
    """Verdicts by the first words of their statements."""
    return {" ".join(v.criterion.statement.split()[:3]): v for v in suite.judge(case, [call])}


def perfect(case: PublishedCase) -> CallSeries:
    """Every flow has its equal share of what can be used, from the first moment of a phase on."""
    parts = rfc8867_criteria.phases(case)

    def rate(number: int) -> Callable[[np.ndarray], Any]:
        def rates(time_s: np.ndarray) -> np.ndarray:
            values = np.zeros(len(time_s))
            for part in parts:
                if number in part.active:
                    inside = (time_s > part.from_s + 1e-6) & (time_s <= part.until_s + 1e-6)
                    values[inside] = part.usable_bps / len(part.active)
            return values

        return rates

    return series(case.call.duration_s, *(rate(number) for number in range(case.num_flows)))


# --- Measures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "index"), [([2, 2, 2], 1.0), ([1, 0, 0, 0], 0.25), ([1, 3], 16 / 20)]
)
def test_jain_index_is_one_for_equals_and_one_nth_for_a_tyrant(
    rates: list[float], index: float
) -> None:
    assert rfc8867_criteria.jain_index(rates) == pytest.approx(index)


def test_time_until_counts_from_the_change_to_the_first_whole_second_that_is_so() -> None:
    time_s = INTERVAL_S * np.arange(1, 201)
    is_so = (time_s > 12.0 + 1e-6) & (time_s <= 12.5 + 1e-6)  # half a second is too short
    assert rfc8867_criteria.time_until(time_s, is_so, 10.0, 20.0) == math.inf
    is_so |= time_s > 14.0 + 1e-6
    assert rfc8867_criteria.time_until(time_s, is_so, 10.0, 20.0) == pytest.approx(4.0)
    assert rfc8867_criteria.time_until(time_s, is_so, 15.0, 20.0) == pytest.approx(0.0)
    assert rfc8867_criteria.time_until(time_s, is_so, 10.0, 14.5) == math.inf
    assert math.isnan(rfc8867_criteria.time_until(time_s, is_so, 30.0, 40.0))


def test_variation_is_that_of_one_second_means() -> None:
    time_s = INTERVAL_S * np.arange(1, 401)
    jitter = np.where(np.arange(400) % 2 == 0, 0.5, 1.5)
    assert rfc8867_criteria.variation(time_s, jitter, 10.0, 40.0) == pytest.approx(0.0)
    seconds = np.repeat(np.where(np.arange(40) % 2 == 0, 0.8, 1.2), 10)
    assert rfc8867_criteria.variation(time_s, seconds, 10.0, 40.0) == pytest.approx(0.2)


def test_a_value_that_is_unknown_never_meets_a_criterion() -> None:
    for at_least in (True, False):
        criterion = rfc8867_criteria.Criterion(
            statement="", bound=1.0, at_least=at_least, measure=lambda _: math.nan
        )
        assert criterion.is_met(1.0)
        assert not criterion.is_met(math.nan)


# --- Timelines ------------------------------------------------------------------------------------


def test_phases_are_cut_at_capacities_starts_and_pauses() -> None:
    def told(name: str) -> list[tuple[float, float, float, int]]:
        parts = rfc8867_criteria.phases(published_case(name))
        return [(p.from_s, p.until_s, p.usable_bps / 1e6, len(p.active)) for p in parts]

    assert told("rfc8867-5.1-50ms") == [
        (0, 40, 1.0, 1),
        (40, 60, 1.5, 1),  # 2.5 Mbps, of which one flow uses 1.5 at most
        (60, 80, 0.6, 1),
        (80, 100, 1.0, 1),
    ]
    assert told("rfc8867-5.4") == [(0, 20, 1.5, 1), (20, 40, 3.0, 2), (40, 120, 3.5, 3)]
    assert told("rfc8867-5.6-300ms") == [(0, 5, 0.0, 0), (5, 120, 1.5, 1)]
    assert told("rfc8867-5.8") == [(0, 40, 3.5, 3), (40, 60, 3.0, 2), (60, 120, 3.5, 3)]


# --- Criteria -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["5.1-50ms", "5.1-100ms", "5.2", "5.3", "5.4", "5.5", "5.8"], ids=lambda name: name
)
def test_equal_shares_of_everything_at_once_meet_every_criterion(name: str) -> None:
    case = published_case(f"rfc8867-{name}")
    verdicts = suite.judge(case, [perfect(case)], [perfect(case)])
    assert len(verdicts) >= 5
    assert all(v.is_met for v in verdicts), [
        v.criterion.statement for v in verdicts if not v.is_met
    ]


@pytest.mark.parametrize("case", RFC_8867, ids=lambda case: case.name)
def test_silence_meets_neither_utilisation_nor_a_share(case: PublishedCase) -> None:
    silent = [constant(0.0)] * case.num_flows
    call = series(case.call.duration_s, *silent, tcp=constant(2e6))
    verdicts = suite.judge(case, [call], [perfect(case)])
    missed = [v.criterion.statement for v in verdicts if not v.is_met]
    assert any("media uses" in s or "keeps the least" in s for s in missed)


def test_a_flow_that_is_late_and_then_shy_misses_what_it_should_and_nothing_else() -> None:
    case = published_case("rfc8867-5.1-50ms")

    def delay_ms(time_s: np.ndarray) -> np.ndarray:
        return np.where((time_s > 60.3) & (time_s < 64.05), 250.0, 20.0)

    def rate(last_bps: float) -> Callable[[np.ndarray], Any]:
        def own(time_s: np.ndarray) -> np.ndarray:
            values = np.full(len(time_s), 0.95e6)
            values[time_s > 52.0 + 1e-6] = 1.4e6  # 12 s after the step up
            values[time_s > 60.0 + 1e-6] = 0.6e6
            values[time_s > 80.0 + 1e-6] = last_bps  # of 1 Mbps
            return values

        return own

    late = suite.judge(case, [series(100.0, rate(0.9e6), delay_ms=delay_ms)])
    shy = suite.judge(case, [series(100.0, rate(0.7e6), delay_ms=delay_ms)])
    used = rfc8867_criteria.utilisation([]).statement
    assert [late[0].criterion.statement, shy[0].criterion.statement] == [used, used]
    # The middle ones are queue delay, loss and steadiness; the last two follow up and down.
    # In the phase of 2.5 Mbps, 0.95 of the usable 1.5 Mbps counts for the first 2 settled seconds.
    assert late[0].measured == pytest.approx(100 * (2 * 0.95 + 8 * 1.4) / 10 / 1.5)
    assert shy[0].measured == pytest.approx(70.0)
    assert [verdict.is_met for verdict in late[1:3]] == [True, True]
    # One-second means reach 80 % of 1.5 Mbps when 0.6 s of them are at 1.4 Mbps.
    assert late[4].measured == pytest.approx(12.5)
    assert shy[4].measured == math.inf
    assert late[5].measured == shy[5].measured == pytest.approx(4.0)
    assert not any(verdict.is_met for verdict in (*late[4:], *shy[4:]))


def test_queue_delay_and_loss_count_over_settled_parts_only() -> None:
    case = published_case("rfc8867-5.1-50ms")
    own = perfect(case).flow_rates_bps[0]

    def unsettled(time_s: np.ndarray) -> np.ndarray:
        parts = rfc8867_criteria.phases(case)
        return np.array([any(p.from_s < t <= p.settled_s[0] + 1e-6 for p in parts) for t in time_s])

    for bad, met in ((unsettled, True), (lambda t: ~unsettled(t), False)):
        call = series(
            100.0,
            lambda _: own,
            delay_ms=lambda t, bad=bad: 200.0 * bad(t),
            loss=lambda t, bad=bad: 0.05 * bad(t),
        )
        verdicts = measured(case, call)
        assert verdicts["queue delay p95"].is_met is met
        assert verdicts["the queue drops"].is_met is met


def test_a_flow_that_stays_away_after_its_pause_never_resumes() -> None:
    case = published_case("rfc8867-5.8")
    others = [constant(1.2e6)] * 2
    for after_bps, resumed_s in ((1.0e6, 0.0), (0.3e6, math.inf)):
        own = step(1.1e6, after_bps, 60.0)
        verdict = measured(case, series(120.0, own, *others))["80% of its"]
        assert verdict.measured == resumed_s
        assert verdict.is_met is (resumed_s == 0.0)


def test_beside_tcp_the_least_rate_is_the_rfcs_number_and_the_share_is_ours() -> None:
    case = published_case("rfc8867-5.6-300ms")
    starved = measured(case, series(120.0, constant(0.15e6), tcp=constant(1.85e6)))
    assert starved["every media flow"].criterion.source == "ours"
    verdicts = suite.judge(case, [series(120.0, constant(0.15e6), tcp=constant(1.85e6))])
    least, share, *_, tcp = verdicts
    assert (least.criterion.source, least.measured, least.is_met) == ("RFC", 150.0, True)
    assert (share.measured, share.is_met) == (pytest.approx(15.0), False)
    assert (tcp.measured, tcp.is_met) == (pytest.approx(185.0), True)


def test_the_median_call_decides() -> None:
    case = published_case("rfc8867-5.6-300ms")
    calls = [series(120.0, constant(bps), tcp=constant(1e6)) for bps in (0.1e6, 0.9e6, 1.0e6)]
    share = suite.judge(case, calls)[1]
    assert share.measured == pytest.approx(90.0)
    assert share.is_met


# --- The command ----------------------------------------------------------------------------------


def short(case: PublishedCase) -> PublishedCase:
    """The first 30 s of a case."""
    return replace(case, call=replace(case.call, duration_s=30.0))


@pytest.fixture
def short_suite(monkeypatch: pytest.MonkeyPatch) -> tuple[PublishedCase, ...]:
    names = ("rfc8867-5.1-50ms", "rfc8867-5.3", "rfc8867-5.4", "rfc8867-5.6-300ms")
    cases = tuple(short(published_case(name)) for name in names)
    monkeypatch.setitem(rfc8867.SUITES, "rfc8867", cases)
    return cases


def run(*argv: str) -> int:
    return main([*argv, "--suite", "rfc8867", "--seeds", "2", "--num-threads", "1"])


def test_the_command_prints_every_case_with_its_verdicts(
    short_suite: tuple[PublishedCase, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "suite.csv"
    assert run("--estimator", "gcc", "--out", str(out)) == 0
    printed = capsys.readouterr().out
    for case in short_suite:
        assert f"{case.section} {case.title} ({case.name})" in printed
    assert "1 Mbps from 0 s" in printed
    assert "backward: as many, 2 Mbps from 0 s, 0.8 Mbps from 35 s" in printed
    assert "media uses >= 80% of what it can" in printed
    assert "criteria met\n" in printed
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {case.name for case in short_suite}
    assert {row["call"] for row in rows} == {"0", "1"}
    assert {row["number"] for row in rows} == {"RFC", "ours"}


def test_a_policy_that_meets_little_still_exits_with_0(
    short_suite: tuple[PublishedCase, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--estimator", "constant:200000") == 0
    printed = capsys.readouterr().out
    assert "NOT MET" in printed


@pytest.mark.parametrize("estimator", ["constant:200000", "gcc"])
def test_every_media_flow_of_a_case_is_under_the_same_controller(estimator: str) -> None:
    case = short(published_case("rfc8867-5.8"))  # three flows from the first moment on
    setting = Setting(call=case.call, seeds=(0, 1))
    verdicts = suite.play([case], baseline(estimator, case.call), setting)
    values = {v.criterion.statement.split()[0]: v.measured for v in verdicts}
    if estimator == "gcc":
        assert values["media"] > 80.0
    else:
        # Three times 200 of 3500 kbps; with GCC beside the first, most of them were in use.
        assert values["media"] == pytest.approx(100 * 600 / 3500, rel=0.15)
        assert values["Jain's"] > 0.98


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--estimator", "gcc", "--suite", "rfc8868"], "unknown suite 'rfc8868'. Did you mean"),
        (["--estimator", "gcc", "--suite", "x"], "Known: rfc8867."),
        (["--estimator", "gc", "--suite", "rfc8867"], "unknown estimator 'gc'"),
        (
            ["--estimator", "gcc", "--suite", "rfc8867", "--networks", "3", "--duration-s", "5"],
            "leave out --networks, --duration-s",
        ),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_message(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_a_controller_made_for_wider_rates_keeps_them_and_the_video_is_limited_instead() -> None:
    wanted = published_case("rfc8867-5.8").call
    known = replace(wanted, min_rate_bps=30_000, start_rate_bps=300_000, max_rate_bps=6_000_000)
    call = suite.fit_call(wanted, known)
    assert (call.min_rate_bps, call.max_rate_bps) == (30_000, 6_000_000)
    assert call.video.app_max_rate_bps == 1_500_000
    assert call.video.pause_from_s == 40.0
    assert call.duration_s == 120.0
    assert suite.fit_call(wanted, wanted) == wanted

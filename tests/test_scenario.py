"""Scenario files: what they mean, and what is said about wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bwe_env import run_calls
from bwe_env.config import (
    JitterConfig,
    LinkConfig,
    LossConfig,
    OnOffTraffic,
    PathConfig,
    RelayConfig,
    TcpTraffic,
)
from bwe_env.errors import BweEnvError, ConfigError, TraceFormatError, UnknownNameError
from bwe_env.scenario import read_scenario, read_scenarios
from bwe_env.sim.packet import KIND_VIDEO
from tests.sim.calls import OneCall

SHIPPED = Path(__file__).resolve().parents[1] / "experiments/scenarios.toml"
POINTS = {"time_s": [0, 30], "capacity_bps": [5e5, 1e5], "end_s": 60}


def write(path: Path, name: str = "it", **table: Any) -> Path:
    """A JSON file with one scenario: 60 s of two rates, unless the table says otherwise."""
    path = path / "scenarios.json"
    path.write_text(json.dumps({name: {"trace": POINTS, **table}}))
    return path


def test_a_scenario_is_a_network_and_a_call_with_defaults_for_what_is_left_out(
    tmp_path: Path,
) -> None:
    file = write(
        tmp_path,
        link={"queue_limit_bytes": 18_750},
        forward={"propagation_delay_s": 0.02, "loss": {"good_loss": 0.01}},
        relay={"reverse": {"propagation_delay_s": 0.1}},
        call={"duration_s": 20, "audio": {"rate_bps": 24_000}},
        description="two rates",
    )
    scenario = read_scenario(file, "it")
    network = scenario.network
    assert (scenario.name, network.name, scenario.description) == ("it", "it", "two rates")
    assert network.trace.capacity_at(40.0) == 1e5
    assert network.link == LinkConfig(queue_limit_bytes=18_750)
    assert network.forward == PathConfig(propagation_delay_s=0.02, loss=LossConfig(good_loss=0.01))
    assert network.reverse == PathConfig()
    assert network.relay == RelayConfig(reverse=PathConfig(propagation_delay_s=0.1))
    assert (scenario.call.duration_s, scenario.call.audio.rate_bps) == (20, 24_000)
    assert scenario.call.video.frame_rate_hz == 30.0


def test_others_in_the_queue_are_named_by_kind(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        cross_traffic=[
            {"kind": "on_off", "rate_bps": 2e5, "mean_off_s": 0},
            {"kind": "tcp", "algorithm": "reno", "start_s": 3},
        ],
        competing_calls=2,
        competing_start_s=[5],
        competing_added_delay_s=[0.01, 0.02],
    )
    network = read_scenario(file, "it").network
    assert network.cross_traffic == (
        OnOffTraffic(rate_bps=2e5, mean_off_s=0),
        TcpTraffic(algorithm="reno", start_s=3),
    )
    assert network.competing_calls == 2
    assert network.competing_start_s == (5,)
    assert network.competing_added_delay_s == (0.01, 0.02)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"cross_traffic": {"kind": "tcp"}}, "must be a list of tables"),
        ({"cross_traffic": [{"rate_bps": 1e5}]}, "with kind = 'on_off' or 'tcp'"),
        ({"cross_traffic": [{"kind": "udp"}]}, "on_off"),
        ({"cross_traffic": [{"kind": "tcp", "rtt_s": -1}]}, "cross_traffic 0: tcp.rtt_s=-1"),
        ({"cross_traffic": [{"kind": "tcp", "speed": 1}]}, "speed"),
        ({"competing_calls": 99}, "competing_calls=99 must be a whole number from 0 to"),
        ({"competing_calls": 1, "competing_start_s": [1, 2]}, "competing_start_s=(1, 2) must name"),
        ({"competing_calls": 1, "competing_start_s": 1}, "must be a list of numbers"),
    ],
)
def test_impossible_others_are_told_with_place_key_value_and_range(
    tmp_path: Path, table: dict[str, Any], told: str
) -> None:
    with pytest.raises(BweEnvError) as error:
        read_scenarios(write(tmp_path, **table))
    assert "scenario 'it'" in str(error.value)
    assert told in str(error.value)


def test_losses_are_replayed_from_a_list_or_from_a_file_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "losses.txt").write_text("# measured\n0010\n1 0\n")
    file = write(
        tmp_path,
        forward={"loss": {"replay": [0, 1]}},
        relay={"reverse": {"loss": {"replay": "losses.txt", "from_s": 5}}},
    )
    network = read_scenario(file, "it").network
    assert network.forward.loss == LossConfig(replay=(False, True))
    assert network.relay is not None
    expected = LossConfig(replay=(False, False, True, False, True, False), from_s=5)
    assert network.relay.reverse.loss == expected


def test_a_path_may_reorder_where_that_is_simulated(tmp_path: Path) -> None:
    jitter = {"distribution": "uniform", "scale_s": 0.03}
    reordering = {"jitter": jitter, "keeps_order": False}
    network = read_scenario(write(tmp_path, forward=reordering), "it").network
    assert network.forward == PathConfig(
        jitter=JitterConfig(distribution="uniform", scale_s=0.03), keeps_order=False
    )
    with pytest.raises(ConfigError, match=r"reverse.keeps_order=False .* Allowed: True"):
        read_scenario(write(tmp_path, reverse=reordering), "it")


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    as_json = write(tmp_path, call={"duration_s": 20})
    as_toml = tmp_path / "scenarios.toml"
    as_toml.write_text(
        "[it]\ncall = { duration_s = 20 }\n"
        "[it.trace]\ntime_s = [0, 30]\ncapacity_bps = [5e5, 1e5]\nend_s = 60\n"
    )
    first, second = read_scenario(as_json, "it"), read_scenario(as_toml, "it")
    assert first.call == second.call
    assert first.network.trace.digest == second.network.trace.digest


def test_a_trace_may_be_a_csv_file_beside_the_scenario_file(tmp_path: Path) -> None:
    (tmp_path / "link.csv").write_text("time_s,capacity_bps\n0,1000000\n60,2000000\n120,0\n")
    file = write(tmp_path, trace={"file": "link.csv", "network_type": "wifi"})
    network = read_scenario(file, "it").network
    assert network.network_type == "wifi"
    assert network.trace.capacity_at(70.0) == 2e6


def test_the_shipped_scenarios_can_be_played() -> None:
    scenarios = read_scenarios(SHIPPED)
    assert list(scenarios) == ["alternating", "relayed", "shared-with-tcp", "three-calls"]
    assert {scenario.network.path for scenario in scenarios.values()} == {"direct", "relay"}
    table = run_calls(
        [scenarios["alternating"].network], "gcc", call=scenarios["alternating"].call, seeds=(0,)
    )
    assert table["queue_loss_ratio"][0] > 0.0


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"links": {}}, UnknownNameError, "'links'. Did you mean 'link'"),
        ({"link": {"queue": 5}}, UnknownNameError, "unknown option queue of LinkConfig 'queue'"),
        (
            {"call": {"video": {"fps": 30}}},
            UnknownNameError,
            "it', call: unknown option video.fps of VideoConfig 'fps'",
        ),
        ({"trace": {**POINTS, "end": 60}}, UnknownNameError, "'end'. Did you mean 'end_s'"),
        (
            {"link": {"queue_limit_bytes": -1}},
            ConfigError,
            "it', link: queue_limit_bytes=-1 must be a finite number between 0 and 1e+09 bytes",
        ),
        ({"link": {"queue_limit_s": -0.3}}, ConfigError, "queue_limit_s=-0.3 must be"),
        (
            {"forward": {"loss": {"good_loss": 1.5}}},
            ConfigError,
            "it', forward: loss.good_loss=1.5 must be a finite number between 0 and 1",
        ),
        (
            {"relay": {"forward": {"loss": {"replay": [0, 1, 3]}}}},
            ConfigError,
            "it', relay: loss.replay: packet 2 is 3; each must be 0 (arrives) or 1 (lost)",
        ),
        ({"forward": {"loss": {"replay": "none.txt"}}}, TraceFormatError, "none.txt: no such file"),
        (
            {"relay": {"reverse": {"loss": {"bad_loss": -0.1}}}},
            ConfigError,
            "it', relay: loss.bad_loss=-0.1 must be a finite number between 0 and 1",
        ),
        (
            {"call": {"packets": {"mtu_bytes": 0}}},
            ConfigError,
            "it', call: mtu_bytes=0 must be a finite number between 400 and 1452 bytes",
        ),
        (
            {"forward": {"delay_steps": 5}},
            ConfigError,
            "it', forward: delay_steps=5 must be a list",
        ),
        (
            {"call": {"video": {"fec": {"protection": 0.5}}}},
            ConfigError,
            "it', call: fec.protection=0.5 must be a list",
        ),
        (
            {"call": {"video": {"fec": {"loss_knots": [0.0, "a"]}}}},
            ConfigError,
            "fec.loss_knots=(0.0, 'a') must be 1 to 8 rising numbers",
        ),
        ({"call": {"duration_s": "60"}}, ConfigError, "duration_s='60' must be a number"),
        ({"call": {"duration_s": float("nan")}}, ConfigError, "duration_s=nan must be a finite"),
        ({"call": {"duration_s": True}}, ConfigError, "duration_s=True must be a number"),
        ({"call": {"start_rate_bps": 1.5}}, ConfigError, "start_rate_bps=1.5 must be a whole"),
        ({"call": {"video": {"repair": 1}}}, ConfigError, "video.repair=1 must be true or false"),
        ({"call": {"video": 30}}, ConfigError, "video=30 must be a table with enabled"),
        (
            {"call": {"duration_s": 180}},
            ConfigError,
            "the trace lasts 60 s from start_s=0 on, but call.duration_s=180 s",
        ),
        ({"start_s": 10}, ConfigError, "the trace lasts 50 s from start_s=10 on"),
        ({"start_s": 60}, ConfigError, "start_s=60 must lie inside the trace"),
        ({"trace": None}, ConfigError, "trace: missing"),
        ({"trace": {"time_s": [0], "end_s": 9}}, ConfigError, "capacity_bps is missing"),
        ({"trace": {**POINTS, "file": "a.csv"}}, ConfigError, "give file or time_s, not both"),
        ({"trace": {**POINTS, "time_s": [0]}}, ConfigError, "time_s has 1 points and"),
        ({"trace": {**POINTS, "repeats": 1}}, ConfigError, "repeats=1 must be true or false"),
        ({"trace": {**POINTS, "capacity_bps": [1, "x"]}}, ConfigError, "='x' must be a number"),
        ({"trace": {**POINTS, "capacity_bps": [5e5, -1]}}, TraceFormatError, "is negative"),
        ({"trace": {"file": "none.csv"}}, TraceFormatError, "no such file"),
        ({"description": 3}, ConfigError, "description=3 must be text"),
    ],
)
def test_what_is_wrong_is_said_with_scenario_key_value_and_range(
    tmp_path: Path, table: dict[str, Any], error: type[BweEnvError], message: str
) -> None:
    file = write(tmp_path, **table)
    with pytest.raises(error) as raised:
        read_scenarios(file)
    assert message in str(raised.value)
    if error is not TraceFormatError:
        assert f"{file}: scenario 'it'" in str(raised.value)


def test_a_trace_that_repeats_may_be_shorter_than_the_call(tmp_path: Path) -> None:
    file = write(tmp_path, trace={**POINTS, "repeats": True}, call={"duration_s": 180})
    assert read_scenario(file, "it").call.duration_s == 180


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "", "NAME.toml or NAME.json"),
        ("a.json", "{", "not JSON"),
        ("a.toml", "[it", "not TOML"),
        ("a.json", "{}", "at least one scenario"),
        ("a.json", "[]", "at least one scenario"),
        ("a.json", '{"it": 5}', "expected a table with description"),
        ("a.json", '{"it": {}, "it": {}}', "'it' stands twice"),
        ("missing/a.json", None, "cannot be read"),
    ],
)
def test_a_file_that_holds_no_scenarios_is_refused_by_name(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_scenarios(file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)


def test_an_unknown_scenario_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'alternating'"):
        read_scenario(SHIPPED, "alternate")


@pytest.mark.parametrize("mtu_bytes", [600, 1200])
def test_no_packet_is_larger_than_the_mtu_and_its_headers(tmp_path: Path, mtu_bytes: int) -> None:
    file = write(tmp_path, call={"packets": {"mtu_bytes": mtu_bytes}})
    scenario = read_scenario(file, "it")
    call = OneCall(scenario.network, scenario.call)
    call.run_until(10.0)
    video = call.packets[call.packets["kind"] == KIND_VIDEO]
    assert mtu_bytes / 2 < video["size_bytes"].max() <= mtu_bytes + 28

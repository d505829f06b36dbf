from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.pretrained import FOLDER
from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError
from bwe_env.trace import networks
from experiments import compare
from experiments.compare_analysis import Options, compare_calls
from experiments.compare_blocks import BLOCK_NETWORKS, blocks_of, play
from experiments.compare_parts import BANDWIDTHS, METRICS, SCORE
from experiments.compare_results import (
    STATISTICS,
    Comparison,
    Estimator,
    read_comparison,
    write_comparison,
)
from experiments.compare_tables import tables
from experiments.evaluation import Setting
from experiments.tables import show
from tests.experiments.inline_executor import InlineExecutor

Table = dict[str, NDArray[Any]]

TYPES = ("3G", "4G-LTE", "wifi")
SETTING = Setting(call=CallConfig(duration_s=2.0), seeds=(0,))
NETWORKS = networks("test", count=BLOCK_NETWORKS + 3)
#: Enough resamples for what these tests look at.
QUICK = Options(resamples=200)
FILES = ("calls.csv", "summary.csv", "profiles.csv", "compare.json", "compare.txt")


def made_calls(score: float, *, freeze: float = 0.02, delay: float = 100.0, seed: int = 0) -> Table:
    """60 networks with 2 calls each; every fourth network is never short of capacity."""
    number = np.repeat(np.arange(60), 2)
    noise = np.random.default_rng(seed).normal(0.0, 0.02, size=120)
    table: Table = {s.column: np.ones(120) for s in METRICS}
    table |= {
        "network": np.array([f"n{i:03d}" for i in number]),
        "network_type": np.array(TYPES)[number % 3],
        "seed": np.tile([0, 1], 60),
        "contested": number % 4 != 0,
        "mean_capacity_bps": 100_000.0 * (1 + number),
        "call_score": score + 0.02 * number + noise,
        "freeze_ratio": np.full(120, freeze) * (1.0 + noise),
        "one_way_delay_ms_p95": np.full(120, delay) + noise,
    }
    return table


def made_comparison() -> Comparison:
    played = {
        "gcc": [made_calls(2.0)],
        "ppo": [
            made_calls(2.5, freeze=0.01, delay=90.0, seed=1),
            made_calls(2.4, freeze=0.01, delay=110.0, seed=2),
            made_calls(1.9, freeze=0.01, delay=90.0, seed=3),
        ],
        "oracle": [made_calls(3.0, freeze=0.0, delay=50.0, seed=4)],
        "oracle:0.5": [made_calls(2.2, freeze=0.0, delay=50.0, seed=5)],
    }
    runs = {"ppo": ("runs/a", "runs/b", "runs/c")}
    estimators = [Estimator(label=name, runs=runs.get(name, (name,))) for name in played]
    return compare_calls(played, estimators, title="made up", options=QUICK)


@pytest.fixture(scope="module")
def made() -> Comparison:
    return made_comparison()


def value(found: Comparison, *names: str) -> float:
    one = found.find(*names)
    assert one is not None
    return one.value


# --- What is found --------------------------------------------------------------------------------


def test_contested_calls_are_the_headline_and_all_stand_beside(made: Comparison) -> None:
    headlines = [s for s in made.subsets if not s.by]
    assert [(s.name, s.networks, s.num_calls) for s in headlines] == [
        ("contested", 45, 90),
        ("all", 60, 120),
    ]
    assert value(made, "gcc", "contested", SCORE, "mean") != value(
        made, "gcc", "all", SCORE, "mean"
    )


def test_network_types_and_bandwidths_divide_the_calls_of_their_subset(made: Comparison) -> None:
    for calls, networks_of in (("contested", 45), ("all", 60)):
        for by in ("network_type", "bandwidth"):
            parts = [s for s in made.subsets if s.calls == calls and s.by == by]
            assert sum(part.networks for part in parts) == networks_of
    bands = {s.part: s.networks for s in made.subsets if s.calls == "all" and s.by == "bandwidth"}
    # Capacities are 0.1, 0.2, … 6.0 Mbps; a class begins at its lower end.
    assert bands == dict(zip(BANDWIDTHS, (4, 5, 10, 20, 21), strict=True))


def test_values_are_in_the_units_people_read_and_statistics_are_the_known_ones(
    made: Comparison,
) -> None:
    assert value(made, "gcc", "all", "freeze_ratio", "mean") == pytest.approx(2.0, abs=0.02)
    assert value(made, "oracle", "all", SCORE, "difference") == pytest.approx(1.0, abs=0.02)
    assert {v.statistic for v in made.values} == set(STATISTICS)
    assert not [v for v in made.values if v.estimator == "gcc" and "difference" in v.statistic]


def test_the_best_oracle_closes_the_whole_gap_and_others_their_share(made: Comparison) -> None:
    assert made.oracle == "oracle"
    assert value(made, "oracle", "all", SCORE, "gap_closed") == pytest.approx(1.0)
    gain = value(made, "ppo", "all", SCORE, "difference")
    whole = value(made, "oracle", "all", SCORE, "difference")
    assert value(made, "ppo", "all", SCORE, "gap_closed") == pytest.approx(gain / whole)


def test_a_run_wins_only_with_a_better_score_fewer_freezes_and_no_higher_delay(
    made: Comparison,
) -> None:
    runs = {r.run: r.beats for r in made.runs if r.estimator == "ppo" and r.subset == "all"}
    assert runs == {"runs/a": True, "runs/b": False, "runs/c": False}  # b: delay, c: score


def test_lower_freezes_are_an_improvement_and_win_calls(made: Comparison) -> None:
    for statistic in ("probability_of_improvement", "share_won"):
        assert value(made, "oracle", "all", "freeze_ratio", statistic) == pytest.approx(1.0)
        assert value(made, "oracle", "all", "utilisation", statistic) == pytest.approx(0.5)


def test_non_inferiority_is_shown_per_type_and_refused_beyond_the_margin() -> None:
    worse = {"gcc": [made_calls(2.0)], "x": [made_calls(1.97)], "y": [made_calls(1.9)]}
    estimators = [Estimator(label=name, runs=(name,)) for name in worse]
    found = compare_calls(worse, estimators, title="", options=Options(resamples=1000))
    shown = {
        (row.estimator, row.subset): row.is_non_inferior
        for row in found.non_inferiority
        if row.metric == SCORE and row.subset.startswith("all")
    }
    assert shown == {
        (name, f"all/network_type/{kind}"): name == "x" for name in "xy" for kind in TYPES
    }
    for row in found.non_inferiority:
        assert row.p_holm >= row.p_value
        assert row.margin == (0.05 if row.metric == SCORE else 0.5)


def test_profiles_fall_from_one_to_zero(made: Comparison) -> None:
    for one in made.profiles:
        assert len(one.scores) == len(one.shares) == len(one.low) == len(one.high)
        assert one.shares[0] == pytest.approx(1.0)
        assert all(a >= b - 1e-9 for a, b in zip(one.shares, one.shares[1:], strict=False))
        for low, share, high in zip(one.low, one.shares, one.high, strict=True):
            assert low - 1e-9 <= share <= high + 1e-9


def test_an_estimator_that_is_added_changes_no_number_of_the_others(made: Comparison) -> None:
    played = {"gcc": [made_calls(2.0)], "oracle": [made_calls(3.0, freeze=0.0, delay=50.0, seed=4)]}
    estimators = [Estimator(label=name, runs=(name,)) for name in played]
    alone = compare_calls(played, estimators, title="", options=QUICK)
    before = {(v.estimator, v.subset, v.metric, v.statistic): v for v in alone.values}
    after = {(v.estimator, v.subset, v.metric, v.statistic): v for v in made.values}
    assert all(after[name] == v for name, v in before.items())


def test_calls_without_contention_are_compared_with_a_note() -> None:
    table = made_calls(2.0) | {"contested": np.zeros(120, dtype=bool)}
    found = compare_calls(
        {"gcc": [table]}, [Estimator(label="gcc", runs=("gcc",))], title="", options=QUICK
    )
    assert {s.calls for s in found.subsets} == {"all"}
    assert "contested" in found.notes[0]


def test_calls_of_other_networks_are_not_compared() -> None:
    other = made_calls(2.0)
    other["network"] = other["network"][::-1]
    estimators = [Estimator(label=name, runs=(name,)) for name in ("gcc", "x")]
    with pytest.raises(ConfigError, match="calls of 'x' are of other networks"):
        compare_calls({"gcc": [made_calls(2.0)], "x": [other]}, estimators, title="")


# --- Files ----------------------------------------------------------------------------------------


def test_a_comparison_is_read_back_as_it_was_written(made: Comparison, tmp_path: Path) -> None:
    write_comparison(tmp_path, made)
    assert read_comparison(tmp_path) == made
    first = (tmp_path / "compare.json").read_bytes()
    write_comparison(tmp_path, read_comparison(tmp_path))
    assert (tmp_path / "compare.json").read_bytes() == first


def test_unknown_ends_are_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    table = {name: column[:2] for name, column in made_calls(2.0).items()}
    found = compare_calls(
        {"gcc": [table]}, [Estimator(label="gcc", runs=("gcc",))], title="", options=QUICK
    )
    write_comparison(tmp_path, found)
    content = json.loads((tmp_path / "compare.json").read_text())
    assert content["values"][0]["low"] is None
    again = read_comparison(tmp_path).values[0]
    assert math.isnan(again.low)
    assert again.value == found.values[0].value


@pytest.mark.parametrize(
    ("change", "message"),
    [({"schema_version": 99}, "version 99"), ({"values": None}, "damaged"), ({"x": 1}, "damaged")],
)
def test_a_file_of_another_version_or_damaged_is_refused(
    change: Mapping[str, Any], message: str, made: Comparison, tmp_path: Path
) -> None:
    write_comparison(tmp_path, made)
    path = tmp_path / "compare.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=message):
        read_comparison(tmp_path)


def test_tables_say_who_wins_and_fit_on_the_page(made: Comparison, tmp_path: Path) -> None:
    show(*tables(made), file=tmp_path / "compare.txt")
    text = (tmp_path / "compare.txt").read_text()
    for word in ("contested", "all calls", "IQM", "gap closed", "1 of 3", "ppo - gcc", "P(improv"):
        assert word in text
    assert max(len(line) for line in text.splitlines()) <= 120


# --- Playing --------------------------------------------------------------------------------------


def fake_play(block: Any) -> Table:
    """A table of the right calls, from the block alone."""
    names = [network.name for network in block.networks for _ in block.setting.seeds]
    table = {name: column[:1].repeat(len(names)) for name, column in made_calls(2.0).items()}
    seeds = np.tile(block.setting.seeds, len(block.networks))
    types = [network.network_type for network in block.networks for _ in block.setting.seeds]
    score = 2.0 + 0.1 * len(block.name) + np.array([sum(map(ord, n)) % 17 for n in names])
    made = {"network": np.array(names), "seed": seeds, "network_type": np.array(types)}
    return table | made | {"call_score": score}


def played(directory: Path, executor: InlineExecutor, *names: str) -> dict[str, list[Any]]:
    estimators = [Estimator(label=name, runs=(name,)) for name in names]
    return play(estimators, NETWORKS, SETTING, directory=directory, executor=executor, quiet=True)


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    broken = InlineExecutor(interrupt_after=3, play=fake_play)
    with pytest.raises(KeyboardInterrupt):
        played(tmp_path, broken, "gcc", "oracle")
    rest = InlineExecutor(shuffle_seed=1, play=fake_play)
    resumed = played(tmp_path, rest, "gcc", "oracle")
    assert len(broken.items) + len(rest.items) == 2 * 2
    whole = played(tmp_path / "other", InlineExecutor(play=fake_play), "gcc", "oracle")
    for label, (table,) in whole.items():
        assert all(np.array_equal(table[name], resumed[label][0][name]) for name in table)
        assert table["network"].tolist() == [network.name for network in NETWORKS]


def test_an_added_estimator_is_the_only_one_to_be_played(tmp_path: Path) -> None:
    played(tmp_path, InlineExecutor(play=fake_play), "gcc")
    more = InlineExecutor(play=fake_play)
    played(tmp_path, more, "gcc", "oracle")
    assert {block.name for block in more.items} == {"oracle"}
    nothing = InlineExecutor(play=fake_play)
    played(tmp_path, nothing, "oracle", "gcc")
    assert nothing.items == []


def test_a_damaged_block_is_played_again(tmp_path: Path) -> None:
    played(tmp_path, InlineExecutor(play=fake_play), "gcc")
    next((tmp_path / "blocks").iterdir()).write_bytes(b"PK\x03\x04 cut off")
    again = InlineExecutor(play=fake_play)
    played(tmp_path, again, "gcc")
    assert len(again.items) == 1


def test_a_block_is_known_by_everything_its_calls_depend_on() -> None:
    def keys(name: str = "gcc", some: Sequence[Any] = NETWORKS, **changes: Any) -> list[str]:
        setting = Setting(**({"call": SETTING.call, "seeds": (0,)} | changes))
        return [block.key for block in blocks_of(name, some, setting)]

    plain = keys()
    assert keys() == plain
    assert keys(num_threads=2) == plain  # changes no result
    different = [
        keys("oracle"),
        keys("oracle:0.9"),
        keys("gcc-classic-loss"),
        keys(some=NETWORKS[::-1]),
        keys(seeds=(1,)),
        keys(call=CallConfig(duration_s=3.0)),
    ]
    known = [key for some in (plain, *different) for key in some]
    assert len(set(known)) == len(known)


# --- The command ----------------------------------------------------------------------------------


def test_estimators_are_names_labels_or_several_runs() -> None:
    given = ["gcc", "mine=constant:5", "ppo=runs/a,runs/b", "runs/ppo-001"]
    assert compare.read_estimators(given) == (
        Estimator(label="gcc", runs=("gcc",)),
        Estimator(label="mine", runs=("constant:5",)),
        Estimator(label="ppo", runs=("runs/a", "runs/b")),
        Estimator(label="ppo-001", runs=("runs/ppo-001",)),
    )


SMALL = ["--networks", "6", "--seeds", "1", "--duration-s", "2", "--resamples", "200"]


def run(out: Path, *estimators: str, options: Sequence[str] = ()) -> int:
    argv = ["--estimators", *estimators, *SMALL, "--workers", "1", "--out", str(out), *options]
    return compare.main(argv)


@pytest.mark.slow  # starts a process that loads the simulator
def test_the_command_plays_in_processes_and_writes_the_same_bytes_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(out, "gcc", "c=constant:300000,constant:600000", "oracle") == 0
    assert "P(improvement)" in capsys.readouterr().out
    first = {name: (out / name).read_bytes() for name in FILES}
    assert {path.name for path in out.iterdir()} == {*FILES, "blocks"}
    with (out / "calls.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows[::6]] == [
        "gcc",
        "constant:300000",
        "constant:600000",
        "oracle",
    ]
    assert {row["estimator"] for row in rows} == {"gcc", "c", "oracle"}
    assert run(out, "gcc", "c=constant:300000,constant:600000", "oracle") == 0
    assert {name: (out / name).read_bytes() for name in FILES} == first


@pytest.mark.parametrize(
    ("estimators", "options", "message"),
    [
        (["gcc", "no-such"], [], "unknown estimator 'no-such'"),
        (["gcc", "gcc"], [], "gcc is there twice"),
        (["gcc", "x="], [], "write NAME, LABEL=NAME"),
        (["gcc", "x=oracle,oracle"], [], "different runs"),
        (["oracle"], [], "unknown reference"),
        (["gcc"], ["--networks", "1"], "needs at least 2"),
        (["gcc"], ["--resamples", "1"], "resamples=1"),
        (["gcc"], ["--split", "no"], "unknown split"),
        (["gcc", "runs/no-such"], [], "unknown run directory"),
        (["gcc", "constant:9000000"], [], "outside the call's range"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_message(
    estimators: list[str],
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path / "out", *estimators, options=options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_an_unknown_reference_names_the_estimators() -> None:
    with pytest.raises(UnknownNameError, match="gcc"):
        compare_calls(
            {"gcc": [made_calls(2.0)]},
            [Estimator(label="gcc", runs=("gcc",))],
            title="",
            options=Options(reference="gc"),
        )


def test_blocks_are_known_by_what_is_in_a_policy_wherever_it_lies(tmp_path: Path) -> None:
    network = NETWORKS[:1]
    copy = tmp_path / "copy"
    shutil.copytree(FOLDER, copy)

    def key(name: str) -> str:
        return blocks_of(name, network, Setting(seeds=(0,)))[0].key

    assert key(str(copy)) == key("ppo")
    assert key(f"guarded:{copy}") not in (key("ppo"), key("gcc"))
    manifest = json.loads((copy / "policy.json").read_text())
    manifest["extra"]["note"] = "changed"
    (copy / "policy.json").write_text(json.dumps(manifest))
    assert key(str(copy)) != key("ppo")

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError
from bwe_env.metrics import CALL_COLUMNS, FIELD_METRICS
from bwe_env.network import Network
from bwe_env.trace import networks
from experiments.ab_arms import BaselineArm
from experiments.ab_blocks import (
    BLOCK_NETWORKS,
    Experiment,
    decode_calls,
    differences,
    encode_calls,
    open_directory,
    play_block,
    read_calls,
    trace_plays,
    waiting_blocks,
)
from experiments.ab_published import Published, directions, read_published
from experiments.ab_report import report
from experiments.ab_tables import Results
from experiments.ab_test import analyse, joined_calls, main, play, write_results
from tests.experiments.ab_calls import PLAIN, Table, noisy_table

T = TypeVar("T")
R = TypeVar("R")

CALL = CallConfig(duration_s=180.0)
#: More than one block.
COUNT = BLOCK_NETWORKS + 5
NETWORKS = networks("test", count=COUNT)


@dataclass(frozen=True, kw_only=True)
class MadeUpArm:
    """Calls out of thin air: as hard as the network's name says, times a factor."""

    name: str
    freeze_factor: float = 1.0

    def inputs(self, call: CallConfig) -> Mapping[str, Any]:
        return {"freeze_factor": self.freeze_factor}

    def play(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        call: CallConfig,
        progress: Callable[[int], None] | None = None,
    ) -> Table:
        pairs = [(network, seed) for network in networks for seed in seeds]
        table: Table = {
            "network": np.array([network.name for network, _ in pairs]),
            "network_type": np.array([network.network_type for network, _ in pairs]),
            "seed": np.array([seed for _, seed in pairs]),
        }
        table |= {name: np.full(len(pairs), value) for name, value in PLAIN.items()}
        table["duration_s"][:] = call.duration_s
        hardness = np.array([1.0 + int(network.name.split("-")[1]) % 7 for network, _ in pairs])
        noise = np.random.default_rng(sum(map(ord, self.name))).normal(0.0, 0.01, len(pairs))
        table["freeze_ratio"] = 0.001 * hardness * self.freeze_factor * (1.0 + noise)
        return table


class SerialExecutor:
    """Plays one block after the other; stops after `limit` as if somebody had pressed Ctrl-C."""

    def __init__(self, limit: int = 1_000) -> None:
        self.limit = limit
        self.played: list[str] = []

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        for position in reversed(range(len(items))):  # results come in any order
            if len(self.played) == self.limit:
                raise KeyboardInterrupt
            self.played.append(repr(items[position]))
            yield position, function(items[position])

    def close(self) -> None:
        pass


def experiment(**changes: Any) -> Experiment:
    plain: dict[str, Any] = {
        "arms": {
            "control": MadeUpArm(name="plain"),
            "treatment": MadeUpArm(name="tuned", freeze_factor=0.8),
            "placebo": MadeUpArm(name="shuffled"),
        },
        "networks": NETWORKS,
        "seeds": (0, 1),
        "call": CALL,
    }
    return Experiment(**(plain | changes))


def played(directory: Path, made: Experiment) -> dict[str, dict[str, NDArray[Any]]]:
    open_directory(directory, made)
    play(made, directory, SerialExecutor(), quiet=True)
    return read_calls(directory)


# --- Blocks and resuming --------------------------------------------------------------------------


def test_every_arm_meets_every_network_with_every_seed_in_one_order(tmp_path: Path) -> None:
    arms = played(tmp_path / "out", experiment())
    assert list(arms) == ["control", "treatment", "placebo"]
    for calls in arms.values():
        assert calls["network"].tolist() == [n.name for n in NETWORKS for _ in range(2)]
        assert calls["seed"].tolist() == [0, 1] * len(NETWORKS)


def test_an_interrupted_experiment_plays_only_what_is_missing_and_ends_the_same(
    tmp_path: Path,
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    made = experiment()
    played(whole, made)
    open_directory(resumed, made)
    first = SerialExecutor(limit=4)
    with pytest.raises(KeyboardInterrupt):
        play(made, resumed, first, quiet=True)
    with pytest.raises(ArtifactError, match="plays what is missing"):
        read_calls(resumed)
    open_directory(resumed, made)
    second = SerialExecutor()
    play(made, resumed, second, quiet=True)
    assert sorted(first.played + second.played) == sorted(map(repr, made.blocks()))
    assert len(second.played) == 2
    files = sorted(path.name for path in whole.iterdir())
    assert files == sorted(path.name for path in resumed.iterdir())
    for name in files:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()


def test_a_damaged_block_is_played_anew(tmp_path: Path) -> None:
    made = experiment()
    before = played(tmp_path, made)
    path = tmp_path / "calls-treatment-0001.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert [block.file for block in waiting_blocks(tmp_path, made)] == [path.name]
    after = played(tmp_path, made)
    np.testing.assert_array_equal(
        before["treatment"]["freeze_ratio"], after["treatment"]["freeze_ratio"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"call": CallConfig(duration_s=240.0)}, "call.duration_s is 180.0 there and 240.0 now"),
        ({"seeds": (0,)}, r"seeds is \[0, 1\] there and \[0\] now"),
        ({"networks": NETWORKS[:-1]}, f"networks.count is {COUNT} there and {COUNT - 1} now"),
        (
            {"arms": {"control": MadeUpArm(name="plain"), "treatment": MadeUpArm(name="tuned")}},
            "arms.treatment.inputs.freeze_factor is 0.8 there and 1.0 now",
        ),
        ({"directions": {"avg_sender_video_encode_fps": "higher"}}, "encode_fps is None there"),
    ],
)
def test_other_inputs_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    open_directory(tmp_path, experiment())
    with pytest.raises(ArtifactError, match=message):
        open_directory(tmp_path, experiment(**changes))


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and holds no experiment"):
        open_directory(tmp_path, experiment())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"call": CallConfig(duration_s=60.0)}, "at least 180 s"),
        ({"networks": NETWORKS[:1]}, "at least 2 networks"),
        ({"arms": {"control": MadeUpArm(name="plain")}}, "has a control and a treatment"),
        (
            {"arms": dict.fromkeys(("control", "treatment"), MadeUpArm(name="a"))},
            "different names",
        ),
    ],
)
def test_an_experiment_that_can_say_nothing_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(**changes)


def test_a_trace_shorter_than_the_call_is_counted_as_repeating() -> None:
    network = NETWORKS[0]  # 180 s
    assert trace_plays(network, CALL) == 1
    assert trace_plays(dataclasses.replace(network, start_s=30.0), CALL) == 2
    assert trace_plays(network, CallConfig(duration_s=361.0)) == 3


def test_calls_survive_the_disk_and_the_same_calls_are_the_same_bytes() -> None:
    table = MadeUpArm(name="a").play(NETWORKS[:3], (0,), CALL)
    table["dropped"] = np.array([True, False, True])
    content = encode_calls(table)
    assert content == encode_calls(table)
    decoded = decode_calls(content)
    assert decoded is not None
    assert set(decoded) == set(table)
    for name, column in table.items():
        np.testing.assert_array_equal(decoded[name], column)
    assert decode_calls(b"PK no archive") is None


def test_differences_name_the_innermost_key() -> None:
    there, now = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "e": 4}
    assert list(differences(there, now)) == [
        "a.c is 2 there and 3 now",
        "d is [1] there and None now",
        "e is None there and 4 now",
    ]


# --- Results --------------------------------------------------------------------------------------


def test_results_hold_tables_numbers_calls_and_a_picture(tmp_path: Path) -> None:
    made = experiment(call=CallConfig(duration_s=200.0))
    played(tmp_path, made)
    published = {"peer_video_freeze_percentage": Published(change_pct=-5, low_pct=-8, high_pct=-2)}
    results = analyse(tmp_path, published, resamples=2_000)
    write_results(tmp_path, results)
    text = " ".join((tmp_path / "results.txt").read_text().split())  # whatever lines it folds
    assert f"{2 * COUNT} of them outlast their trace, which then repeats" in text
    assert "guards of tuned" in text
    assert "-5.00 [-8.00, -2.00]" in text
    assert "The placebo shuffled does not win, as it must not." in text
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["metric"] for line in lines] == list(FIELD_METRICS) * 2
    freeze = next(line for line in lines if line["metric"] == "peer_video_freeze_percentage")
    assert float(freeze["change_pct"]) == pytest.approx(-20.0, abs=1.0)
    assert freeze["moves"] == "for"
    assert float(freeze["published_low_pct"]) == -8.0
    with (tmp_path / "calls.csv").open() as file:
        calls = list(csv.DictReader(file))
    assert len(calls) == 3 * 2 * COUNT
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_winning_placebo_takes_the_evidence_from_the_treatment() -> None:
    control = noisy_table(1_000, seed=1, noise=0.02)
    better = noisy_table(1_000, seed=2, noise=0.02, freeze_ratio=0.9)
    treatment = report(control, better, names=("plain", "tuned"), resamples=1_000)
    placebo = report(control, better, names=("plain", "shuffled"), resamples=1_000)
    results = Results(
        treatment=treatment, placebo=placebo, published={}, duration_s=180.0, repeating_calls=0
    )
    assert treatment.wins
    assert "the placebo shuffled WINS too" in results.conclusion
    assert "no evidence" in results.conclusion


def test_columns_that_one_arm_lacks_are_empty_there() -> None:
    joined = joined_calls(
        {
            "control": {"network": np.array(["a"]), "x": np.array([1.5])},
            "treatment": {
                "network": np.array(["a"]),
                "x": np.array([2.5]),
                "detected_type": np.array(["3G"]),
                "targeted_s": np.array([7.0]),
            },
        }
    )
    assert joined["arm"].tolist() == ["control", "treatment"]
    assert joined["x"].tolist() == [1.5, 2.5]
    assert joined["detected_type"].tolist() == ["", "3G"]
    assert joined["targeted_s"].tolist() == ["", 7.0]


# --- Published changes ----------------------------------------------------------------------------


def test_published_changes_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    header = "metric,change_pct,low_pct,high_pct\n"
    path.write_text(header + "connection_drop_rate,-10,-15,-5\ntotal_talk_time,0.5,,\n")
    read = read_published(path)
    assert read["connection_drop_rate"] == Published(change_pct=-10.0, low_pct=-15.0, high_pct=-5.0)
    assert np.isnan(read["total_talk_time"].low_pct)
    for text, message in (
        ("metric,change\n", "expected the header"),
        (header + "connection_drop_rate,-10,-5,-15\n", ":2: expected numbers with low_pct <="),
        (header + "connection_drop_rate,x,,\n", ":2: expected numbers"),
        (header + "total_talk_time,1,,\ntotal_talk_time,2,,\n", ":3: total_talk_time is there tw"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_published(path)
    path.write_text(header + "connection_drop,1,,\n")
    with pytest.raises(UnknownNameError, match="Did you mean 'connection_drop_rate'"):
        read_published(path)


def test_a_declaration_comes_before_what_was_published_and_harm_is_never_expected() -> None:
    published = {
        "avg_sender_video_encode_fps": Published(change_pct=2.0),
        "connection_drop_rate": Published(change_pct=3.0),
    }
    assert directions(published) == {"avg_sender_video_encode_fps": "higher"}
    found = directions(published, ["avg_video_sent_bitrate=lower"])
    assert found["avg_video_sent_bitrate"] == "lower"
    with pytest.raises(ConfigError, match="METRIC=higher"):
        directions({}, ["avg_video_sent_bitrate"])
    with pytest.raises(UnknownNameError):
        directions({}, ["bitrate=lower"])


# --- The command ----------------------------------------------------------------------------------


def test_a_baseline_arm_plays_real_calls_with_every_metric() -> None:
    arm = BaselineArm(baseline="constant:300000", label="slow")
    assert arm.name == "slow"
    assert arm.inputs(CALL)["baseline"] == "constant:300000"
    calls = arm.play(NETWORKS[:2], (0,), CallConfig(duration_s=3.0))
    assert set(calls) == set(CALL_COLUMNS)
    assert BaselineArm(baseline="gcc").inputs(CALL) != BaselineArm(
        baseline="gcc-classic-loss"
    ).inputs(CALL)
    made = experiment(arms={"control": arm, "treatment": BaselineArm(baseline="gcc")})
    assert len(made.blocks()) == 4


@pytest.mark.slow
def test_the_command_plays_resumes_and_analyses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "ab")
    command = ["--control", "gcc", "--treatment", "constant:200000", "--calls", "6", "--out", out]
    command += ["--resamples", "1000", "--workers", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "played 12 of 12 calls" in printed
    assert "constant:200000 does not win" in printed
    first = (tmp_path / "ab" / "results.csv").read_bytes()
    assert main(command) == 0
    assert "played 0 of 12 calls" in capsys.readouterr().out
    assert main(["--analyse", out, "--resamples", "1000"]) == 0
    assert (tmp_path / "ab" / "results.csv").read_bytes() == first
    assert main([*command, "--duration-s", "240"]) == 2
    assert "call.duration_s is 180.0 there and 240.0 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--control", "gcc"], "needs --control, --treatment and --out"),
        (["--analyse", "no/such"], "no A/B test in no/such"),
        (["--analyse", "x", "--out", "y"], "--analyse plays nothing"),
        (["--calls", "5", "--seeds", "2"], "must be a multiple of seeds=2"),
        (["--duration-s", "60"], "at least 180 s"),
        (["--treatment", "gc"], "Did you mean 'gcc'?"),
        (["--networks", "tets"], "Did you mean 'test'?"),
        (["--published", "no/such.csv"], "no/such.csv cannot be read"),
        (["--declare", "bitrate=up"], "must read METRIC=higher"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_message(
    tmp_path: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["--control", "gcc", "--treatment", "gcc-classic-loss", "--out", str(tmp_path / "x")]
    if argv[0] in ("--control", "--analyse"):
        plain = []
    assert main([*plain, *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_a_block_says_which_it_is_in_one_line() -> None:
    block = experiment().blocks()[1]
    assert repr(block) == "block 0 of treatment 'tuned'"
    assert len(play_block(block)["network"]) == block.num_calls

"""Collected calls hold what the simulator did, whoever collects them and however often it stops."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env import Network, run_calls
from bwe_env.config import CallConfig, LinkConfig, LossConfig, PathConfig
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.logs import CallLog
from bwe_env.rollout import record_calls
from bwe_env.telemetry import TELEMETRY_NAMES
from bwe_env.trace import constant
from experiments import collect
from experiments.collect import (
    CollectConfig,
    collect_simulated,
    dataset_key,
    log_files,
    logged_call,
    loss_process,
    main,
    simulated_call,
)
from experiments.collected_networks import SENDERS, collected_networks, sender_of
from experiments.dataset import (
    TRUTH_NAMES,
    DatasetCall,
    DatasetWriter,
    encode_shard,
    read_calls,
    read_manifest,
)
from tests.experiments.dataset_calls import quiet_telemetry

COUNTS = {"train": 12, "validation": 8, "test": 8}
RANDOM, CONGESTION = "reported_random_packets", "reported_congestion_packets"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def calls(small_dataset: Path) -> list[DatasetCall]:
    return read_calls(small_dataset, COUNTS)


# --- Which calls ----------------------------------------------------------------------------------


def test_each_network_of_a_split_has_one_call_and_no_network_stands_in_two_splits(
    small_dataset: Path,
) -> None:
    seen: set[str] = set()
    for split, count in COUNTS.items():
        names = [call.network for call in read_calls(small_dataset, [split])]
        assert sorted(names) == sorted(n.name for n in collected_networks(split, count))
        assert seen.isdisjoint(names)
        seen.update(names)


def test_a_stored_call_has_the_rows_that_its_senders_call_was_recorded_with(
    calls: list[DatasetCall],
) -> None:
    by_name = {call.network: call for call in calls}
    for network in collected_networks("train", 3):
        sender = sender_of(network.name)
        (recorded,) = record_calls([network], "gcc", call=sender.call)
        stored = by_name[network.name]
        for name in TELEMETRY_NAMES:
            np.testing.assert_array_equal(
                stored.telemetry[name], recorded.telemetry[name].astype(np.float32)
            )
        for name, column in zip(TRUTH_NAMES, _truth_columns(recorded.steps), strict=True):
            np.testing.assert_array_equal(stored.truth[name], column.astype(np.float32))
        assert (stored.sender, stored.seed) == (sender.name, recorded.seed)
        assert stored.source == "simulation"
        assert stored.network_type == network.network_type


def _truth_columns(steps: NDArray[Any]) -> list[NDArray[Any]]:
    return [steps["capacity_bps"], steps["queue_delay_ms"], steps[RANDOM], steps[CONGESTION]]


def test_calls_depend_neither_on_threads_nor_on_shards_nor_on_an_interruption(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "SHARD_CALLS", 5)
    config = CollectConfig(train=12, validation=8, test=8, out=tmp_path / "calls", threads=1)
    write, written = DatasetWriter.write, list[str]()

    def interrupted(
        writer: DatasetWriter, file: str, split: str, calls: Sequence[DatasetCall]
    ) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file)
        write(writer, file, split, calls)

    with monkeypatch.context() as context:
        context.setattr(DatasetWriter, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect_simulated(config, quiet=True)
    with pytest.raises(ArtifactError, match=r"has 10 calls of split train instead of 12"):
        read_calls(tmp_path / "calls", ["train"])
    resumed = collect_simulated(config, quiet=True)
    # A folder holds shards of one length: what was cut off goes on with it.
    assert read_manifest(resumed)["key"] != read_manifest(small_dataset)["key"]
    for split in COUNTS:
        both = [
            encode_shard(sorted(read_calls(directory, [split]), key=lambda call: call.network))
            for directory in (small_dataset, resumed)
        ]
        assert both[0] == both[1]


def test_only_what_is_not_whole_is_simulated_again_and_gives_the_same_bytes(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(small_dataset, tmp_path / "calls")
    (copy / "test-000.npz").write_bytes(b"damaged")
    simulated: list[str] = []
    simulate = collect._simulate

    def counted(networks: Sequence[Network], threads: int) -> Any:
        simulated.extend(network.name for network in networks)
        return simulate(networks, threads)

    monkeypatch.setattr(collect, "_simulate", counted)
    config = CollectConfig(train=12, validation=8, test=8, out=copy, threads=1)
    collect_simulated(config, quiet=True)
    assert simulated == [network.name for network in collected_networks("test", 8)]
    assert contents(copy) == contents(small_dataset)
    collect_simulated(config, quiet=True)
    assert len(simulated) == 8  # nothing more


def test_the_key_hangs_on_counts_senders_schema_and_simulator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = {"train": 2, "test": 1}
    key, recipe = dataset_key(counts)
    assert dataset_key(dict(reversed(counts.items()))) == (key, recipe)
    keys = {key, dataset_key({**counts, "train": 3})[0]}
    with monkeypatch.context() as context:
        other = dataclasses.replace(SENDERS[0].call, max_rate_bps=1_000_000)
        first = dataclasses.replace(SENDERS[0], call=other)
        context.setattr(collect, "SENDERS", (first, *SENDERS[1:]))
        keys.add(dataset_key(counts)[0])
    for name, value in (("SCHEMA_VERSION", 99), ("CACHE_DIRECTORY", Path("other"))):
        with monkeypatch.context() as context:
            context.setattr(collect, name, value)
            keys.add(dataset_key(counts)[0])
    assert len(keys) == 5
    assert dataset_key(counts)[0] == key


def test_other_counts_do_not_go_into_a_folder_that_is_there(small_dataset: Path) -> None:
    before = contents(small_dataset)
    config = CollectConfig(train=12, validation=8, test=9, out=small_dataset)
    with pytest.raises(ArtifactError, match=r"other inputs .*another --out"):
        collect_simulated(config, quiet=True)
    assert contents(small_dataset) == before


# --- Ground truth ---------------------------------------------------------------------------------


def test_in_every_bin_the_causes_are_those_of_packets_reported_missing(
    calls: list[DatasetCall],
) -> None:
    """A packet that is merely late is missing, too, and has neither cause."""
    total = np.zeros(2)
    for call in calls:
        by_cause = call.truth[RANDOM] + call.truth[CONGESTION]
        assert (by_cause <= call.telemetry["lost_packets"]).all()
        total += [call.truth[RANDOM].sum(), call.truth[CONGESTION].sum()]
    assert (total > 100).all()


def path(capacity_bps: float, **link: Any) -> Network:
    trace = dataclasses.replace(
        constant(capacity_bps, name=f"{capacity_bps}-{link}"), network_type="wifi"
    )
    return Network(trace=trace, link=LinkConfig(**link))


def with_loss(network: Network, loss: LossConfig) -> Network:
    return dataclasses.replace(network, forward=PathConfig(loss=loss))


#: Which causes each network has.
PLACES = {
    "queue": (path(400e3, queue_limit_bytes=7_500), (False, True)),
    "policer": (path(5e6, policer_rate_bps=400e3, policer_burst_bytes=8_000), (False, True)),
    "aqm": (path(400e3, queue_limit_s=1.0, discipline="codel"), (False, True)),
    "chance": (
        with_loss(path(20e6, queue_limit_s=1.0), LossConfig(good_loss=0.03)),
        (True, False),
    ),
    "both": (
        with_loss(path(400e3, queue_limit_bytes=7_500), LossConfig(good_loss=0.03)),
        (True, True),
    ),
    "neither": (path(20e6, queue_limit_s=1.0), (False, False)),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_cause_is_told_where_it_is_and_nowhere_else_and_adds_up_to_the_calls_losses(
    place: str,
) -> None:
    network, expected = PLACES[place]
    config = CallConfig(duration_s=20.0)
    (recorded,) = record_calls([network], "gcc", call=config)
    call = simulated_call(recorded, "default")
    found = call.truth[RANDOM].sum(), call.truth[CONGESTION].sum()
    assert (found[0] > 0, found[1] > 0) == expected
    table = run_calls([network], "gcc", call=config, seeds=(0,))
    sent = call.telemetry["sent_packets"]
    congestion_ratio = sum(table[f"{cause}_loss_ratio"][0] for cause in ("queue", "aqm", "policer"))
    for reported, ratio in zip(
        found, (table["random_loss_ratio"][0], congestion_ratio), strict=True
    ):
        lost = ratio * sent.sum()
        assert lost == pytest.approx(round(lost), abs=1e-6)
        # What was lost at the very end nobody has reported yet; all of it was sent in a second.
        assert lost - sent[-10:].sum() <= reported <= lost + 1e-6
        assert reported >= 0.9 * lost - 5


def test_loss_processes_have_their_names() -> None:
    network = path(1e6)
    assert loss_process(network) == "none"
    assert loss_process(with_loss(network, LossConfig(good_loss=0.02))) == "independent"
    gilbert = LossConfig(good_to_bad=0.01, bad_to_good=0.2)
    assert loss_process(with_loss(network, gilbert)) == "bursty"


def test_truth_is_finite_and_capacity_that_of_the_trace(calls: list[DatasetCall]) -> None:
    for call in calls:
        for name in TRUTH_NAMES:
            assert call.truth[name].shape == call.telemetry.shape
            assert np.isfinite(call.truth[name]).all()
            assert (call.truth[name] >= 0.0).all()
    (recorded,) = record_calls([path(3e6)], "gcc", call=CallConfig(duration_s=5.0))
    call = simulated_call(recorded, "default")
    np.testing.assert_allclose(call.truth["capacity_bps"], 3e6)


# --- Logs -----------------------------------------------------------------------------------------


def fake_log(path: Path) -> CallLog:
    """A log whose RTT is its first byte."""
    telemetry = quiet_telemetry(50)
    telemetry["rtt_ms"] = path.read_bytes()[0]
    return CallLog(
        name=path.stem,
        source="event log",
        telemetry=telemetry,
        interval_s=0.1,
        warnings=("odd",),
    )


@pytest.fixture
def reads_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> CallLog:
        if path.read_bytes().startswith(b"?"):
            raise ArtifactError(f"{path.name} is no log.")
        return fake_log(path)

    monkeypatch.setattr(collect, "read_call_log", read)


def test_what_a_log_cannot_tell_is_nan_and_its_causes_unknown(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(b"2")
    log = fake_log(tmp_path / "real.json")
    call = logged_call(log)
    assert not call.has_causes
    assert all(np.isnan(call.truth[name]).all() for name in TRUTH_NAMES)
    assert (call.network, call.source, call.loss_process) == ("real", "event log", "")
    told = dataclasses.replace(
        log, reported_random_packets=np.ones(50), reported_congestion_packets=np.zeros(50)
    )
    assert logged_call(told).has_causes


@pytest.mark.usefixtures("reads_logs")
def test_logs_become_the_split_logs_and_those_that_cannot_be_read_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    (logs / "deep").mkdir(parents=True)
    (logs / "b.json").write_bytes(b"2")
    (logs / "deep/a.gz").write_bytes(b"3")
    (logs / "readme.md").write_bytes(b"2")
    argv = ["--logs", str(logs), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    assert [call.network for call in read_calls(tmp_path / "out", ["logs"])] == ["b", "a"]
    (logs / "c.log").write_bytes(b"?")
    assert main([*argv[:2], "--out", str(tmp_path / "more")]) == 2
    error = capsys.readouterr().err
    assert "left out: c.log is no log." in error
    assert "warning: b.json: odd" in error
    assert len(read_calls(tmp_path / "more", ["logs"])) == 2


@pytest.mark.usefixtures("reads_logs")
def test_a_dataset_of_logs_is_known_by_what_is_in_them(tmp_path: Path) -> None:
    """Not by their names and sizes: a model's run would take the changed one for its own."""
    log = tmp_path / "a.json"
    keys: list[str] = []
    for content in (b"2", b"3", b"2"):
        log.write_bytes(content)
        out = tmp_path / f"out-{len(keys)}"
        assert main(["--logs", str(log), "--out", str(out)]) == 0
        keys.append(read_manifest(out)["key"])
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.usefixtures("reads_logs")
@pytest.mark.parametrize("content", [None, b"?"])
def test_no_log_at_all_is_an_error(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    if content is not None:
        (logs / "a.log").write_bytes(content)
    assert main(["--logs", str(logs), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_log_files_are_found_by_suffix_in_folders_and_taken_as_given_otherwise(
    tmp_path: Path,
) -> None:
    for name in ("b.log", "a.txt", "c.bin"):
        (tmp_path / name).touch()
    assert log_files([tmp_path]) == [tmp_path / "a.txt", tmp_path / "b.log"]
    assert log_files([tmp_path / "c.bin"]) == [tmp_path / "c.bin"]
    with pytest.raises(ConfigError, match="no such file or folder"):
        log_files([tmp_path / "nothing"])


# --- Command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--train", "0"], "--train must be at least 1"),
        (["--threads", "-1"], "--threads must not be negative"),
        (["--networks", "5"], "--networks"),
    ],
)
def test_wrong_options_end_with_code_2_and_one_message(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert message in capsys.readouterr().err


def test_the_command_tells_where_the_dataset_is_and_how_large(
    small_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = [word for name, count in COUNTS.items() for word in (f"--{name}", str(count))]
    assert main([*counts, "--out", str(small_dataset)]) == 0
    assert f"{small_dataset}: 28 calls, " in capsys.readouterr().out

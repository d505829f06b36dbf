"""A dataset gives back what was put in, resumes what was interrupted, refuses what it is not."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.errors import ArtifactError
from bwe_env.telemetry import TELEMETRY, TELEMETRY_NAMES
from experiments.dataset import (
    CALL_COLUMNS,
    SCHEMA_VERSION,
    TRUTH_NAMES,
    DatasetCall,
    DatasetWriter,
    decode_shard,
    encode_shard,
    read_calls,
    read_manifest,
    shards_of,
)
from experiments.run_directory import write_json
from tests.experiments.dataset_calls import drawn_call

CALLS = [
    drawn_call(
        "a", bins=40, network_type="3G", network_class="cellular-low", loss_process="bursty"
    ),
    drawn_call("longer name", bins=7, seed=2**40, sender="small", interval_s=0.05),
    drawn_call("ä/empty", bins=0),
    drawn_call("last", bins=12, network_type="wifi", loss_process="none"),
]
SPLIT_OF = {"test-000.npz": "test", "train-000.npz": "train", "train-001.npz": "train"}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def calls_of(file: str) -> list[DatasetCall]:
    return [drawn_call(f"{file}-{number}", bins=20) for number in range(3)]


def write_all(directory: Path, *, key: str = "k" * 64, only: tuple[str, ...] = ()) -> list[str]:
    """Write what is missing of three shards, as a collection does; returns what that was."""
    writer = DatasetWriter(directory, key=key, recipe={"made": "here"})
    missing = [file for file in SPLIT_OF if not writer.has(file)]
    for file in [file for file in missing if not only or file in only]:
        writer.write(file, SPLIT_OF[file], calls_of(file))
    return missing


def assert_same_calls(first: list[DatasetCall], second: list[DatasetCall]) -> None:
    """Equal in every column, numbers as float32 has them."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in CALL_COLUMNS:
            assert getattr(one, name) == getattr(other, name)
            assert type(getattr(one, name)) is type(getattr(other, name))
        assert one.telemetry.dtype == other.telemetry.dtype == TELEMETRY
        for name in TELEMETRY_NAMES:
            np.testing.assert_array_equal(
                one.telemetry[name].astype(np.float32), other.telemetry[name].astype(np.float32)
            )
        assert set(one.truth) == set(other.truth) == set(TRUTH_NAMES)
        for name in TRUTH_NAMES:
            np.testing.assert_array_equal(
                one.truth[name].astype(np.float32), other.truth[name].astype(np.float32)
            )


# --- Shards ---------------------------------------------------------------------------------------


def test_a_shard_gives_back_every_column_of_every_call() -> None:
    assert_same_calls(decode_shard(encode_shard(CALLS), Path("x.npz")), CALLS)


def test_the_same_calls_give_the_same_bytes_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = encode_shard(CALLS)
    monkeypatch.setattr("time.time", lambda: 2e9)  # zip files can hold the time of day
    again = [drawn_call("a", bins=40, network_type="3G", network_class="cellular-low",
                        loss_process="bursty"), *CALLS[1:]]  # fmt: skip
    assert encode_shard(again) == content
    assert encode_shard(CALLS[::-1]) != content
    assert encode_shard([*CALLS[:3], drawn_call("last", bins=12)]) != content


def test_numbers_are_stored_as_float32_and_no_array_holds_objects() -> None:
    with np.load(io.BytesIO(encode_shard(CALLS)), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    assert not any(array.dtype.hasobject for array in arrays.values())
    bins = {name: array for name, array in arrays.items() if name.startswith("bins/")}
    assert set(bins) == {f"bins/{name}" for name in (*TELEMETRY_NAMES, *TRUTH_NAMES)}
    assert {array.dtype for array in bins.values()} == {np.dtype(np.float32)}


def changed(change: Callable[[dict[str, NDArray[Any]]], object]) -> bytes:
    """The shard of `CALLS` with its arrays changed."""
    with np.load(io.BytesIO(encode_shard(CALLS)), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays)
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def shorter(name: str) -> Callable[[dict[str, NDArray[Any]]], None]:
    return lambda arrays: arrays.update({name: arrays[name][:-1]})


def with_flipped_byte() -> bytes:
    content = bytearray(encode_shard(CALLS))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"neither zip nor npy", id="another file"),
        pytest.param(encode_shard(CALLS)[:500], id="truncated"),
        pytest.param(with_flipped_byte(), id="flipped"),
        pytest.param(changed(lambda arrays: arrays.pop("bins/rtt_ms")), id="column missing"),
        pytest.param(changed(lambda arrays: arrays.pop("calls/seed")), id="of calls missing"),
        pytest.param(changed(shorter("bins/rtt_ms")), id="telemetry shorter"),
        pytest.param(changed(shorter("bins/capacity_bps")), id="truth shorter"),
        pytest.param(changed(shorter("calls/network")), id="names shorter"),
        pytest.param(changed(shorter("calls/bins")), id="bins of no call"),
    ],
)
def test_what_is_no_shard_is_refused_with_the_way_to_mend_it(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"broken\.npz is no shard .*Delete it"):
        decode_shard(content, Path("broken.npz"))


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_objects_are_refused_and_not_executed(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"

    def plant(arrays: dict[str, NDArray[Any]]) -> None:
        trap = np.empty(len(CALLS), dtype=object)
        trap[:] = [Trap(sprung) for _ in CALLS]
        arrays["calls/sender"] = trap

    content = changed(plant)
    with pytest.raises(ArtifactError, match="allow_pickle"):
        decode_shard(content, Path("broken.npz"))
    assert not sprung.exists()
    with np.load(io.BytesIO(content), allow_pickle=True) as archive:
        _ = archive["calls/sender"]
    assert sprung.exists()  # so the trap was one


# --- Directories ----------------------------------------------------------------------------------


def test_splits_are_read_apart_in_the_order_of_their_shards(tmp_path: Path) -> None:
    write_all(tmp_path)
    assert_same_calls(read_calls(tmp_path, ["test"]), calls_of("test-000.npz"))
    train = [*calls_of("train-000.npz"), *calls_of("train-001.npz")]
    assert_same_calls(read_calls(tmp_path, ["train"]), train)
    both = read_calls(tmp_path, ["train", "test"])
    assert_same_calls(both, [*calls_of("test-000.npz"), *train])


def test_the_manifest_describes_every_column_and_every_shard(tmp_path: Path) -> None:
    write_all(tmp_path)
    manifest = read_manifest(tmp_path)
    assert [c["name"] for c in manifest["bins"]] == [*TELEMETRY_NAMES, *TRUTH_NAMES]
    assert all(column["unit"] and column["doc"] for column in manifest["bins"])
    assert set(manifest["calls"]) == set(CALL_COLUMNS)
    assert manifest["recipe"] == {"made": "here"}
    for shard in shards_of(manifest):
        content = (tmp_path / shard.file).read_bytes()
        assert shard.sha256 == hashlib.sha256(content).hexdigest()
        assert (shard.split, shard.calls, shard.bins) == (SPLIT_OF[shard.file], 3, 60)


def test_an_interrupted_collection_gives_the_bytes_of_one_at_a_stretch(tmp_path: Path) -> None:
    write_all(tmp_path / "whole")
    assert write_all(tmp_path / "parts", only=("train-000.npz",)) == list(SPLIT_OF)
    assert write_all(tmp_path / "parts") == ["test-000.npz", "train-001.npz"]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert write_all(tmp_path / "parts") == []


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [delete, truncate, flip])
def test_a_shard_that_is_not_whole_is_refused_and_made_again_and_no_other(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    write_all(tmp_path)
    before = contents(tmp_path)
    damage(tmp_path / "train-001.npz")
    with pytest.raises(ArtifactError, match=r"train-001\.npz is missing or differs.*collect again"):
        read_calls(tmp_path, ["train"])
    assert len(read_calls(tmp_path, ["test"])) == 3
    kept = {
        name: (tmp_path / name).stat().st_mtime_ns for name in ("test-000.npz", "train-000.npz")
    }
    assert write_all(tmp_path) == ["train-001.npz"]
    assert contents(tmp_path) == before
    assert kept == {name: (tmp_path / name).stat().st_mtime_ns for name in kept}


def test_a_dataset_of_other_inputs_is_not_written_into(tmp_path: Path) -> None:
    write_all(tmp_path, key="a" * 64)
    before = contents(tmp_path)
    with pytest.raises(ArtifactError, match=r"key aaaaaaaaaaaa, now bbbbbbbbbbbb.*another --out"):
        DatasetWriter(tmp_path, key="b" * 64, recipe={})
    assert contents(tmp_path) == before


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_all(tmp_path, only=("train-000.npz",))
    with pytest.raises(ArtifactError, match=r"has 0 calls of split test .*collect again"):
        read_calls(tmp_path, ["train", "test"])


def test_half_a_split_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    """Its key is that of the whole, so that models of either would look alike."""
    writer = DatasetWriter(tmp_path, key="k" * 64, recipe={"counts": {"train": 6}})
    writer.write("train-000.npz", "train", calls_of("train-000.npz"))
    with pytest.raises(ArtifactError, match=r"has 3 calls of split train instead of 6 .*again"):
        read_calls(tmp_path, ["train"])
    writer.write("train-001.npz", "train", calls_of("train-001.npz"))
    assert len(read_calls(tmp_path, ["train"])) == 6


def test_a_folder_without_a_dataset_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no dataset in .*experiments\.collect makes one"):
        read_calls(tmp_path / "nowhere", ["train"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("format", "something else"), ("schema_version", SCHEMA_VERSION + 1), ("format", None)],
)
def test_another_format_or_schema_is_refused(tmp_path: Path, name: str, value: object) -> None:
    write_all(tmp_path)
    write_json(tmp_path / "manifest.json", {**read_manifest(tmp_path), name: value})
    with pytest.raises(ArtifactError, match=r"manifest\.json .*format"):
        read_calls(tmp_path, ["train"])
    with pytest.raises(ArtifactError, match=r"manifest\.json .*format"):
        write_all(tmp_path)  # nor is it overwritten


@pytest.mark.parametrize("text", ["{", "[]", "null", '"text"'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    write_all(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        read_calls(tmp_path, ["train"])


def test_a_manifest_is_written_after_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between the two, the shard is there, unknown, and made again."""

    def interrupt(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("experiments.dataset.write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_all(tmp_path)
    assert write_all(tmp_path) == list(SPLIT_OF)
    assert not list(tmp_path.glob("*.tmp"))


def test_shards_are_zip_files_of_npy_arrays_that_any_reader_opens() -> None:
    with zipfile.ZipFile(io.BytesIO(encode_shard(CALLS))) as archive:
        assert archive.testzip() is None
        assert all(name.endswith(".npy") for name in archive.namelist())
    assert json.dumps(CALL_COLUMNS)

"""Several processes at one store: real ones, on a real disk."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.artifact_store import Store
from experiments.manifest import Manifest
from experiments.transfer import transfer
from tests.experiments.store_writers import (
    add_again_and_again,
    add_many,
    add_one,
    collect_until,
    extend_list,
)
from tests.experiments.stored_models import MODEL, add_files, blobs, write_files

#: Longer than any of these processes takes, on a busy machine too.
PATIENCE_S = 60.0


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    return process


def finish(*processes: BaseProcess) -> None:
    for process in processes:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_writers_at_once_lose_nothing_and_store_common_content_once(tmp_path: Path) -> None:
    root = tmp_path / "store"
    finish(*[start(add_many, root, tmp_path, writer, 4) for writer in range(2)])
    store = Store(root, create=False)
    assert len(store.refs()) == len(set(store.refs().values())) == len(store.manifests()) == 8
    assert store.verify().problems == ()
    alone = Store(tmp_path / "alone")
    for writer in range(2):
        add_many(alone.root, tmp_path / "again", writer, 4)
    assert alone.refs() == store.refs()
    assert [path.name for path in blobs(alone)] == [path.name for path in blobs(store)]
    assert list((root / "tmp").iterdir()) == []


def test_compare_and_swap_keeps_the_entries_of_every_writer(tmp_path: Path) -> None:
    root = tmp_path / "store"
    finish(*[start(extend_list, root, tmp_path, writer, 8) for writer in range(2)])
    store = Store(root, create=False)
    entries = store.manifest(store.resolve("list")).metadata["entries"]
    assert sorted(entries) == sorted(f"{w}-{n}" for w in range(2) for n in range(8))
    # Each writer's own entries are in the order it made them.
    for writer in range(2):
        own = [entry for entry in entries if entry.startswith(f"{writer}-")]
        assert own == [f"{writer}-{number}" for number in range(8)]


def test_what_a_writer_relies_on_is_never_collected_however_old_it_was(tmp_path: Path) -> None:
    """A writer makes use of blobs that are old garbage while a collector looks for such."""
    folder = write_files(
        tmp_path / "model", {f"{i}.bin": np.random.default_rng(i).bytes(3000) for i in range(10)}
    )
    store = Store(tmp_path / "store")
    stop, idle = tmp_path / "stop", tmp_path / "idle"
    collector = start(collect_until, store.root, stop, 5.0)
    writer = start(add_again_and_again, store.root, folder, idle, 25)
    while writer.is_alive():
        with store.alone():
            if idle.exists():
                _age(store)
        time.sleep(0.001)
    stop.touch()
    finish(writer, collector)
    assert store.verify().problems == ()
    assert store.refs() == {"model": store.add(folder, **MODEL)}
    # Otherwise nothing was at stake.
    assert int(stop.read_text()) > 0


def _age(store: Store) -> None:
    then = time.time() - 10.0
    for path in (*blobs(store), *map(store.manifest_path, store.manifests())):
        os.utime(path, (then, then))


def test_a_writer_that_is_killed_leaves_a_sound_store_that_it_can_go_on_with(
    tmp_path: Path,
) -> None:
    files = {f"{i}.bin": np.random.default_rng(i).bytes(100_000) for i in range(3)}
    folder = write_files(tmp_path / "model", files)
    store = Store(tmp_path / "store")
    kept = add_files(store, tmp_path / "kept", {"a": b"kept"})
    store.set_ref("kept", kept)
    for enough_blobs in (2, 50):
        process = start(add_one, store.root, folder)
        until_s = time.monotonic() + PATIENCE_S
        while len(blobs(store)) < enough_blobs and time.monotonic() < until_s:
            time.sleep(0.0005)
        process.kill()
        process.join(PATIENCE_S)
        assert store.manifests() == [kept]
        assert store.verify().problems == ()
    before = {path: path.stat().st_ino for path in blobs(store)}
    digest = store.add(folder, **MODEL)
    # What the killed writers had brought to the disk was not written again.
    assert {path: path.stat().st_ino for path in before} == before
    assert transfer(store, Store(tmp_path / "other"), digest).blobs_sent == len(blobs(store)) - 1


def test_a_reader_sees_an_artifact_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    writer = start(add_many, store.root, tmp_path, 0, 8)
    seen: set[str] = set()
    while writer.is_alive():
        for digest in store.manifests():
            manifest: Manifest = store.manifest(digest)
            for member in manifest.members:
                assert sum(map(len, store.read_member(member))) == member.size_bytes
            seen.add(digest)
        for digest in store.refs().values():
            assert store.has_manifest(digest)
    finish(writer)
    assert seen <= set(store.manifests())
    assert len(store.manifests()) == 8


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_lock_keeps_collectors_alone_and_writers_together(
    tmp_path: Path, exclusive: bool
) -> None:
    store = Store(tmp_path / "store")
    with store.alone() if exclusive else store.shared():
        process = start(add_many, store.root, tmp_path, 0, 1)
        process.join(3.0 if exclusive else PATIENCE_S)
        assert process.is_alive() is exclusive
    finish(process)

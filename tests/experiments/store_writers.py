"""What writers in processes of their own do to a store."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from experiments.artifact_store import ABSENT, Store
from experiments.manifest import ReferenceChangedError
from tests.experiments.stored_models import MODEL, add_files, write_files


def add_many(root: Path, folder: Path, writer: int, count: int) -> None:
    """Artifacts of which half is common to all writers, each with a name of its own."""
    store = Store(root)
    common = np.random.default_rng(0).bytes(40_000)
    for number in range(count):
        own = np.random.default_rng([writer, number]).bytes(20_000)
        files = {"common.bin": common, "own.bin": own}
        digest = add_files(store, folder / f"{writer}-{number}", files)
        store.set_ref(f"writer-{writer}-{number}", digest, expected=ABSENT)


def extend_list(root: Path, folder: Path, writer: int, count: int) -> None:
    """Put entries into the list that one name stands for, by compare-and-swap."""
    store = Store(root)
    source = write_files(folder / f"list-{writer}", {"list.json": b"[]"})
    for number in range(count):
        while True:
            current = store.refs().get("list", ABSENT)
            entries = [] if current == ABSENT else store.manifest(current).metadata["entries"]
            metadata = {"entries": [*entries, f"{writer}-{number}"]}
            digest = store.add(source, **MODEL, metadata=metadata)
            try:
                store.set_ref("list", digest, expected=current)
                break
            except ReferenceChangedError:
                continue


def collect_until(root: Path, stop: Path, grace_s: float) -> None:
    """Collect garbage until a file appears; then write into it how many blobs were deleted."""
    store = Store(root)
    deleted = 0
    while not stop.exists():
        deleted += store.collect_garbage(grace_s).blobs_deleted
    stop.write_text(str(deleted))


def add_again_and_again(root: Path, folder: Path, idle: Path, rounds: int) -> None:
    """Add the same folder and forget it, so that its blobs are garbage and needed by turns.

    The file `idle` is there between two rounds; it never goes while somebody has the store alone.
    """
    store = Store(root)
    random = np.random.default_rng(0)
    for _ in range(rounds):
        with store.shared():
            idle.unlink(missing_ok=True)
        digest = store.add(folder, **MODEL)
        store.set_ref("model", digest)
        store.checkout(digest, folder.with_name("out"))
        store.delete_ref("model")
        idle.touch()
        time.sleep(random.uniform(0, 0.02))
    with store.shared():
        idle.unlink()
    store.set_ref("model", store.add(folder, **MODEL))


def add_one(root: Path, folder: Path) -> None:
    """Add a folder; the parent may end this process at any time."""
    Store(root).add(folder, **MODEL)

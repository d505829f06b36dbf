from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bwe_env.errors import ConfigError
from experiments.artifact_store import Store
from experiments.manifest import ArtifactRefused, digest_of
from experiments.store_measure import changed, example_model
from tests.experiments.measured_models import add_model
from tests.experiments.stored_models import MODEL, add_files, blobs, damage, visible

FILES = {"network_model.json": b"{}", "weights.bin": b"a" * 100}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make_old(store: Store, age_s: float = 1e6) -> None:
    """Everything in a store was written long ago."""
    then = time.time() - age_s
    for path in store.root.rglob("*"):
        os.utime(path, (then, then))


def test_garbage_is_what_no_name_reaches_and_nothing_else(store: Store, tmp_path: Path) -> None:
    model = example_model(0)
    first = add_model(store, tmp_path / "first", model)
    second = add_model(store, tmp_path / "second", changed(model, "heads.", 1))
    store.put_blob(b"of an interrupted transfer")
    store.set_ref("model", first)
    make_old(store)
    told = store.collect_garbage(3600, dry_run=True)
    assert store.manifests() == sorted([first, second])
    done = store.collect_garbage(3600)
    assert (done.blobs_deleted, done.manifests_deleted, done.bytes_deleted) == (
        told.blobs_deleted,
        told.manifests_deleted,
        told.bytes_deleted,
    )
    assert visible(store) == ([first], {"model": first})
    needed = {chunk.digest for chunk in store.manifest(first).chunks()}
    assert {path.name for path in blobs(store)} == needed
    assert (done.blobs_kept, done.manifests_deleted) == (len(needed), 1)
    assert done.bytes_kept == sum(path.stat().st_size for path in blobs(store))
    assert store.verify().problems == ()
    assert store.collect_garbage(3600).blobs_deleted == 0


def test_the_young_is_kept_although_no_name_reaches_it_yet(store: Store, tmp_path: Path) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    lone = store.put_blob(b"sent first")
    store.collect_garbage(3600)
    assert store.has_blob(lone)
    store.checkout(digest, tmp_path / "out")
    store.collect_garbage(0)
    assert not store.has_blob(lone)
    assert store.manifests() == []


@pytest.mark.parametrize("touch", ["put_blob", "lacking", "put_manifest", "add"])
def test_a_blob_that_somebody_relies_on_anew_is_young_again(
    store: Store, tmp_path: Path, touch: str
) -> None:
    digest = add_files(store, tmp_path / "model", {"a": b"abc"})
    data = store.manifest_bytes(digest)
    make_old(store)
    if touch == "put_blob":
        store.put_blob(b"abc")
    elif touch == "lacking":
        assert store.lacking([digest_of(b"abc")]) == []
    elif touch == "put_manifest":
        store.put_manifest(data)
    else:
        add_files(store, tmp_path / "again", {"a": b"abc"})
    store.collect_garbage(3600)
    assert store.has_blob(digest_of(b"abc"))
    assert store.has_manifest(digest) is (touch in ("put_manifest", "add"))


def test_leftovers_of_crashed_writers_are_deleted_when_they_are_old(store: Store) -> None:
    (store.root / "tmp/1-dead").write_bytes(b"half")
    (store.root / "damaged" / digest_of(b"x")).write_bytes(b"y")
    store.collect_garbage(3600)
    assert (store.root / "tmp/1-dead").exists()
    make_old(store)
    assert store.collect_garbage(3600).bytes_deleted == 5
    assert list((store.root / "tmp").iterdir()) == list((store.root / "damaged").iterdir()) == []


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_nothing_is_deleted_while_it_is_not_known_what_a_name_needs(
    store: Store, tmp_path: Path, harm: str
) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    store.set_ref("model", digest)
    if harm == "damaged":
        damage(store.manifest_path(digest), b"{}")
    else:
        store.manifest_path(digest).unlink()
    make_old(store)
    before = blobs(store)
    with pytest.raises(ArtifactRefused):
        store.collect_garbage(0)
    assert blobs(store) == before


@pytest.mark.parametrize("grace_s", [-1.0, float("nan")])
def test_a_grace_time_below_zero_is_refused(store: Store, grace_s: float) -> None:
    with pytest.raises(ConfigError, match="grace_s"):
        store.collect_garbage(grace_s)


def test_verifying_finds_every_damage_and_repairing_makes_room_for_a_new_copy(
    store: Store, tmp_path: Path
) -> None:
    files = {"a": b"first", "b": b"second", "c": b"third"}
    digest = add_files(store, tmp_path / "model", files)
    store.set_ref("model", digest)
    sound = store.verify()
    assert (sound.problems, sound.blobs, sound.manifests, sound.references) == ((), 3, 1, 1)
    assert sound.bytes_read == 16
    damage(store.blob_path(digest_of(b"first")), b"First")
    damage(store.blob_path(digest_of(b"second")), b"")
    store.blob_path(digest_of(b"third")).unlink()
    text = "\n".join(store.verify().problems)
    for expected in (digest_of(b"first"), digest_of(b"second")):
        assert f"blob {expected} refused" in text
    for path in files:
        assert f"{path!r} lacks sound blobs" in text
    assert store.verify(repair=True).set_aside == 2
    assert store.lacking(map(digest_of, files.values())) == list(map(digest_of, files.values()))
    assert store.add(tmp_path / "model", **MODEL) == digest
    assert store.verify().problems == ()


def test_a_name_without_its_artifact_is_a_problem(store: Store, tmp_path: Path) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    store.set_ref("model", digest)
    store.manifest_path(digest).unlink()
    assert store.verify().problems == (
        "reference 'model' stands for an artifact that is not there",
    )

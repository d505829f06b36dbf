from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from experiments.artifact_store import Store
from experiments.manifest import ArtifactRefused, NotInStoreError, digest_of
from experiments.signing import Signature
from experiments.store_measure import changed, example_model, model_shapes
from experiments.transfer import transfer
from tests.experiments.measured_models import add_model
from tests.experiments.stored_models import (
    add_files,
    blobs,
    damage,
    read_files,
    visible,
)

SIGNATURE = Signature("ab" * 32, "cd" * 64)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store(tmp_path / "target")


def test_the_first_transfer_sends_everything_and_the_second_nothing(
    source: Store, target: Store, tmp_path: Path
) -> None:
    digest = add_files(source, tmp_path / "model", {"a": b"abc", "b": b"abc", "c": b"defg"})
    source.put_signature(digest, SIGNATURE)
    manifest_bytes = len(source.manifest_bytes(digest))
    sizes: list[int] = []
    first = transfer(source, target, digest, progress=sizes.append)
    # "abc" twice is one blob.
    expected = 3 + 4 + manifest_bytes + len(SIGNATURE.to_bytes())
    assert (first.bytes_sent, first.blobs_sent, first.bytes_total) == (expected, 2, expected)
    assert sorted(sizes) == [3, 4]
    assert first.sent_ratio == 1.0
    assert first.seconds > 0
    second = transfer(source, target, digest)
    assert (second.bytes_sent, second.blobs_sent, second.bytes_total) == (0, 0, expected)
    assert target.signatures(digest) == [SIGNATURE]
    target.checkout(digest, tmp_path / "out")
    assert read_files(tmp_path / "out") == {"a": b"abc", "b": b"abc", "c": b"defg"}


def test_the_model_that_is_measured_is_one_that_the_project_builds() -> None:
    agents = pytest.importorskip("agents.network_model", reason="the train extra is not installed")
    config = agents.NetworkModelConfig(
        tasks=("random_loss", "congestion"), series_units=64, dense_units=90, shared_units=128
    )
    built = agents.NetworkModel(config).state_dict()
    assert {name: tuple(value.shape) for name, value in built.items()} == model_shapes()


def test_of_a_model_with_one_tensor_changed_a_twentieth_is_sent(
    source: Store, target: Store, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors", reason="the train extra is not installed")
    model = example_model(0)
    first = transfer(source, target, add_model(source, tmp_path / "first", model))
    assert 184_000 < first.bytes_sent < 190_000
    head = changed(model, "heads.congestion.weight", 1)
    second = transfer(source, target, add_model(source, tmp_path / "second", head))
    # The 512 bytes of the tensor lie in one chunk or two; beside them the manifest of 4 kB.
    assert second.blobs_sent in (1, 2)
    assert second.sent_ratio < 0.08
    layer = changed(model, "dense.0.weight", 1)  # 18,000 bytes of 185,000
    third = transfer(source, target, add_model(source, tmp_path / "third", layer))
    # At most a large chunk more at either end, and the manifest.
    assert third.sent_ratio < (18_000 + 2 * 16_384 + 4_500) / 185_000
    everything = example_model(2)
    fourth = transfer(source, target, add_model(source, tmp_path / "fourth", everything))
    # The header of the file, with names and shapes, stays.
    assert fourth.sent_ratio > 0.9


class Breaks:
    """A source whose connection breaks after some blobs."""

    def __init__(self, store: Store, after: int) -> None:
        self.store, self.left = store, after
        self.manifest_bytes, self.signatures = store.manifest_bytes, store.signatures

    def read_blob(self, digest: str) -> bytes:
        if self.left == 0:
            raise ConnectionResetError
        self.left -= 1
        return self.store.read_blob(digest)


@pytest.mark.parametrize("after", [0, 1, 17])
def test_an_interrupted_transfer_shows_nothing_and_goes_on_where_it_stopped(
    source: Store, target: Store, tmp_path: Path, after: int
) -> None:
    digest = add_files(source, tmp_path / "m", {"a": np.random.default_rng(0).bytes(150_000)})
    with pytest.raises(ConnectionResetError):
        transfer(Breaks(source, after), target, digest)
    assert visible(target) == ([], {})
    assert len(blobs(target)) == after
    report = transfer(source, target, digest)
    assert report.blobs_sent == len(blobs(source)) - after
    assert target.verify().problems == ()


class Recorder:
    """A target that writes down what arrives."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.arrived: list[str] = []
        self.lacking, self.has_manifest = store.lacking, store.has_manifest
        self.signatures = store.signatures

    def put_blob(self, data: bytes) -> str:
        self.arrived.append("blob")
        return self.store.put_blob(data)

    def put_manifest(self, data: bytes) -> str:
        self.arrived.append("manifest")
        return self.store.put_manifest(data)

    def put_signature(self, digest: str, signature: Signature) -> None:
        self.arrived.append("signature")
        self.store.put_signature(digest, signature)


def test_blobs_are_sent_first_the_manifest_then_and_signatures_last(
    source: Store, target: Store, tmp_path: Path
) -> None:
    digest = add_files(source, tmp_path / "model", {"a": b"1", "b": b"2"})
    source.put_signature(digest, SIGNATURE)
    recorder = Recorder(target)
    transfer(source, recorder, digest)
    assert recorder.arrived == ["blob", "blob", "manifest", "signature"]


@pytest.mark.parametrize("harm", ["flipped", "truncated", "gone"])
def test_a_damaged_source_is_refused_and_nothing_becomes_visible(
    source: Store, target: Store, tmp_path: Path, harm: str
) -> None:
    digest = add_files(source, tmp_path / "model", {"a": b"first", "b": b"second"})
    path = source.blob_path(digest_of(b"second"))
    if harm == "gone":
        path.unlink()
    else:
        damage(path, b"sec0nd" if harm == "flipped" else b"sec")
    with pytest.raises(ArtifactRefused):
        transfer(source, target, digest)
    assert visible(target) == ([], {})


class Lies:
    """A source that hands out something else than what it was asked for."""

    def __init__(self, store: Store, blob: bytes | None, manifest: bytes | None) -> None:
        self.store, self.blob, self.manifest = store, blob, manifest
        self.signatures = store.signatures

    def manifest_bytes(self, digest: str) -> bytes:
        return self.manifest or self.store.manifest_bytes(digest)

    def read_blob(self, digest: str) -> bytes:
        return self.blob or self.store.read_blob(digest)


def test_a_source_that_sends_something_else_is_refused(
    source: Store, target: Store, tmp_path: Path
) -> None:
    asked = add_files(source, tmp_path / "asked", {"a": b"asked"})
    other = add_files(source, tmp_path / "other", {"a": b"other"})
    for liar in (Lies(source, b"other", None), Lies(source, None, source.manifest_bytes(other))):
        with pytest.raises(ArtifactRefused, match="must be what its name says"):
            transfer(liar, target, asked)
    assert visible(target) == ([], {})
    assert blobs(target) == []


def test_a_blob_that_was_damaged_at_the_target_is_sent_again(
    source: Store, target: Store, tmp_path: Path
) -> None:
    digest = add_files(source, tmp_path / "model", {"a": b"first", "b": b"second"})
    target.put_blob(b"first")
    damage(target.blob_path(digest_of(b"first")), b"fir")
    report = transfer(source, target, digest)
    assert report.blobs_sent == 2
    assert target.verify().problems == ()


def test_a_target_that_lost_blobs_of_a_visible_artifact_gets_them_again(
    source: Store, target: Store, tmp_path: Path
) -> None:
    digest = add_files(source, tmp_path / "model", {"a": b"first", "b": b"second"})
    transfer(source, target, digest)
    target.blob_path(digest_of(b"first")).unlink()
    assert transfer(source, target, digest).blobs_sent == 1
    assert target.verify().problems == ()


def test_what_the_source_does_not_have_is_said(source: Store, target: Store) -> None:
    with pytest.raises(NotInStoreError):
        transfer(source, target, digest_of(b"nobody"))


class Forgetful(Recorder):
    """A target that says it has everything, and then has not."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.lacking = self.nothing  # type: ignore[assignment]

    def nothing(self, digests: Iterable[str]) -> list[str]:
        return []


def test_a_target_that_goes_on_lacking_ends_the_transfer(
    source: Store, target: Store, tmp_path: Path
) -> None:
    digest = add_files(source, tmp_path / "model", {"a": b"abc"})
    forgetful = Forgetful(target)
    with pytest.raises(ArtifactRefused, match="must be blobs of the store before"):
        transfer(source, forgetful, digest)
    assert forgetful.arrived == ["manifest", "manifest"]


def test_a_copy_by_other_means_is_a_store_too(source: Store, target: Store, tmp_path: Path) -> None:
    digest = add_files(source, tmp_path / "model", {"a": b"abc"})
    shutil.copytree(source.root, tmp_path / "copy")
    copy = Store(tmp_path / "copy", create=False)
    assert transfer(copy, target, digest).blobs_sent == 1

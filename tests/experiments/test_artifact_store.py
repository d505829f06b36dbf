from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env.errors import ArtifactError, UnknownNameError
from experiments.artifact_store import ABSENT, Store
from experiments.manifest import (
    MAX_ARTIFACT_BYTES,
    MAX_BLOB_BYTES,
    ArtifactRefused,
    BlobsLackingError,
    Chunk,
    Manifest,
    Member,
    NotInStoreError,
    ReferenceChangedError,
    digest_of,
)
from experiments.signing import Signature
from experiments.store_measure import changed, example_model
from tests.experiments.measured_models import add_model
from tests.experiments.stored_models import (
    MODEL,
    add_files,
    blobs,
    damage,
    read_files,
    visible,
    write_files,
)

FILES = {"network_model.json": b"{}", "weights/a.bin": b"a" * 100, "weights/b.bin": b""}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def random_bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


# -- blobs


def test_a_blob_is_named_by_its_sha256_and_stored_once(store: Store) -> None:
    digest = store.put_blob(b"abc")
    assert digest == hashlib.sha256(b"abc").hexdigest() == store.put_blob(b"abc")
    assert store.read_blob(digest) == store.blob_path(digest).read_bytes() == b"abc"
    assert blobs(store) == [store.blob_path(digest)]
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("data", [b"", bytes(MAX_BLOB_BYTES + 1)], ids=["empty", "too large"])
def test_a_blob_of_no_or_too_many_bytes_is_refused(
    store: Store, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ArtifactRefused, match=f"must be 1..{MAX_BLOB_BYTES} bytes"):
        store.put_blob(data)
    assert blobs(store) == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_no_text_but_a_digest_reaches_the_file_system(store: Store, text: str) -> None:
    for read in (store.read_blob, store.has_blob, store.manifest, store.has_manifest):
        with pytest.raises(ArtifactRefused, match="must be a SHA-256"):
            read(text)
    with pytest.raises(ArtifactRefused):
        store.lacking([text])


def test_lacking_tells_what_is_not_there_once_and_in_order(store: Store) -> None:
    here = store.put_blob(b"here")
    first, second = digest_of(b"1"), digest_of(b"2")
    for renew in (True, False):
        assert store.lacking([second, here, first, second], renew=renew) == [second, first]


@pytest.mark.parametrize("damaged", [b"", b"ab", b"abd"], ids=["empty", "truncated", "flipped"])
def test_a_damaged_blob_is_not_read_and_is_whole_after_it_was_put_again(
    store: Store, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    digest = store.put_blob(b"abc")
    damage(store.blob_path(digest), damaged)
    with pytest.raises(ArtifactRefused, match="must be what its name says"):
        store.read_blob(digest)
    assert len(caplog.messages) == 1
    store.put_blob(b"abc")
    assert store.read_blob(digest) == b"abc"


def test_a_sound_blob_is_not_set_aside(store: Store) -> None:
    """One process finds a blob damaged, another stores it anew, then the first sets it aside."""
    digest = store.put_blob(b"abc")
    store.set_aside(digest)
    assert store.read_blob(digest) == b"abc"
    assert list((store.root / "damaged").iterdir()) == []


def test_an_unknown_blob_or_manifest_is_told_from_a_damaged_one(store: Store) -> None:
    for read in (store.read_blob, store.manifest):
        with pytest.raises(NotInStoreError, match=r"must be in .*store"):
            read(digest_of(b"nobody"))


# -- adding


def test_the_digest_depends_on_content_alone(tmp_path: Path) -> None:
    """Not on folder, times, permissions, order of writing, empty folders, or the store."""
    first = write_files(tmp_path / "first", FILES)
    second = write_files(tmp_path / "elsewhere/second", dict(reversed(FILES.items())))
    (second / "empty").mkdir()
    for path in second.rglob("*"):
        os.utime(path, (1, 1))
    (second / "network_model.json").chmod(0o755)
    metadata = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    digests = [
        Store(tmp_path / f"store-{i}").add(folder, **MODEL, metadata=metadata[i])
        for i, folder in enumerate((first, second))
    ]
    assert digests[0] == digests[1]


def test_the_digest_of_a_known_folder_never_changes(store: Store, tmp_path: Path) -> None:
    files = {"a.json": b"{}", "b/c.bin": b"".join(b"%d," % i for i in range(20_000))}
    digest = store.add(write_files(tmp_path / "model", files), **MODEL, metadata={"seed": 1})
    assert digest == "fdefc9817610ca73f35039e3a3cc0c661bcc35ffbd708ad8b32951a330797dc4"


def test_what_was_added_comes_out_the_same(store: Store, tmp_path: Path) -> None:
    files = FILES | {"large.bin": random_bytes(300_000), "zeros.bin": bytes(100_000)}
    digest = add_files(store, tmp_path / "model", files)
    report = store.checkout(digest, tmp_path / "out")
    assert read_files(tmp_path / "out") == files
    assert (report.files_written, report.files_present) == (5, 0)
    assert report.bytes_written == sum(map(len, files.values()))


def test_a_single_file_is_an_artifact_of_one_member(store: Store, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "plans", {"plan.json": b"{}", "other.json": b"[]"})
    digest = store.add(folder / "plan.json", kind="configuration", architecture="targeting_plan")
    assert [member.path for member in store.manifest(digest).members] == ["plan.json"]


def test_equal_content_is_stored_once_within_and_between_artifacts(
    store: Store, tmp_path: Path
) -> None:
    model = example_model(0)
    add_model(store, tmp_path / "first", model)
    before = sum(path.stat().st_size for path in blobs(store))
    add_model(store, tmp_path / "second", changed(model, "heads.congestion.", 1))
    after = sum(path.stat().st_size for path in blobs(store))
    # 516 bytes changed: one chunk, of at most 16 KiB.
    assert 516 < after - before <= 2**14
    add_files(store, tmp_path / "third", {"a": b"same", "b": b"same"})
    assert sum(path.stat().st_size for path in blobs(store)) == after + 4


def _link_file(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "network_model.json")


def _link_folder(folder: Path) -> None:
    (folder / "link").symlink_to("/etc")


def _broken_link(folder: Path) -> None:
    (folder / "weights/link").symlink_to("nowhere")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def _named(name: str) -> Any:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")

    return write


def _case(folder: Path) -> None:
    (folder / "Network_Model.json").write_bytes(b"x")


def _deep(folder: Path) -> None:
    path = folder.joinpath(*["d"] * 20)
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x")


def _not_utf8(folder: Path) -> None:
    with open(os.fsencode(folder) + b"/\xff", "wb") as file:
        file.write(b"x")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_link_file, "link refused: 'a symbolic link' must be a file"),
        (_link_folder, "link refused: 'a symbolic link' must be a file"),
        (_broken_link, "weights/link refused: 'a symbolic link' must be a file"),
        (_pipe, "pipe refused: 'a device, pipe or socket' must be a file"),
        (_named("con.json"), "must not hold a device name"),
        (_named("a\\b"), 'must use "/" between folders'),
        (_named("x:y"), 'must use "/" between folders'),
        (_named("end. "), "must not hold a name that ends with"),
        (_named(unicodedata.normalize("NFD", "ä.json")), "must be text in Unicode NFC"),
        (_named("new\nline"), "must be text in Unicode NFC"),
        (_not_utf8, "must be text in Unicode NFC"),
        (_case, "must differ in more than case"),
        (_deep, "must not be deeper than 16"),
    ],
)
def test_a_folder_that_others_could_not_check_out_is_refused_and_nothing_stored(
    store: Store, tmp_path: Path, spoil: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_files(tmp_path / "model", FILES)
    spoil(folder)
    with pytest.raises(ArtifactRefused, match=re.escape(message)):
        store.add(folder, **MODEL)
    assert visible(store) == ([], {})
    assert blobs(store) == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "pickle"},
        {"kind": "virus"},
        {"metadata": {"loss": float("nan")}},
        {"metadata": {"x": 2**60}},
    ],
)
def test_wrong_labels_are_refused_before_a_byte_is_stored(
    store: Store, tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_files(tmp_path / "model", FILES)
    with pytest.raises(ArtifactRefused):
        store.add(folder, **{**MODEL, **change})
    assert blobs(store) == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_files_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactRefused):
        store.add(tmp_path / name, **MODEL)


def test_a_file_that_cannot_be_read_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_files(tmp_path / "model", FILES)
    real = os.open

    def no_permission(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path).name == "a.bin":  # root may read everything; so the system call says no
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", no_permission)
    with pytest.raises(ArtifactRefused, match=r"a\.bin refused: 'Permission denied' must be"):
        store.add(folder, **MODEL)
    assert visible(store) == ([], {})
    assert len(caplog.messages) == 1


def test_a_file_that_changes_while_it_is_read_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(tmp_path / "model", {"a.bin": random_bytes(50_000)})
    real = store.put_blob

    def put_while_another_writes(data: bytes) -> str:
        with (folder / "a.bin").open("ab") as file:
            file.write(b"more")
        return real(data)

    monkeypatch.setattr(store, "put_blob", put_while_another_writes)
    with pytest.raises(ArtifactRefused, match="must not be written while it is added"):
        store.add(folder, **MODEL)
    assert visible(store) == ([], {})


def test_a_folder_that_is_too_large_is_refused_before_it_is_read(
    store: Store, tmp_path: Path
) -> None:
    folder = write_files(tmp_path / "model", FILES)
    with (folder / "sparse.bin").open("wb") as file:
        file.truncate(MAX_ARTIFACT_BYTES)  # takes no room on the disk
    with pytest.raises(ArtifactRefused, match=f"at most {MAX_ARTIFACT_BYTES} bytes"):
        store.add(folder, **MODEL)
    assert blobs(store) == []


def test_a_store_is_not_put_into_itself(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "model", FILES)
    with pytest.raises(ArtifactRefused, match="must not be inside the folder"):
        Store(folder / "store").add(folder, **MODEL)


class FullDisk:
    """`os.write` until `writes` have been made, the last of them by half; then no room is left."""

    def __init__(self, writes: float) -> None:
        self.real = os.write
        self.left = writes
        self.count = 0

    def __call__(self, handle: int, data: Any) -> int:
        self.count += 1
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.real(handle, data[: max(1, len(data) // 2)] if self.left == 0 else data)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_a_full_disk_leaves_the_store_as_it_was_and_a_second_attempt_goes_on(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    share: float,
) -> None:
    kept = add_files(store, tmp_path / "kept", FILES)
    store.set_ref("kept", kept)
    before = visible(store)
    folder = write_files(tmp_path / "model", {"a.bin": random_bytes(150_000)})
    other = Store(tmp_path / "roomy")
    roomy = FullDisk(np.inf)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", roomy)
        expected = other.add(folder, **MODEL)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", FullDisk(round(share * roomy.count)))
        with pytest.raises(ArtifactRefused, match=r"'No space left on device' must have room"):
            store.add(folder, **MODEL)
    assert visible(store) == before
    assert store.verify().problems == ()
    assert list((store.root / "tmp").iterdir()) == []
    assert len(caplog.messages) == 1
    assert store.add(folder, **MODEL) == expected


# -- manifests


def one_file(data: bytes) -> Manifest:
    chunk = Chunk(digest_of(data), len(data))
    return Manifest(**MODEL, members=(Member("a", chunk.digest, len(data), (chunk,)),))


def test_a_manifest_is_visible_only_once_its_blobs_are_there(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = one_file(b"abc")
    with pytest.raises(BlobsLackingError) as refused:
        store.put_manifest(manifest.to_bytes())
    assert refused.value.seen == (digest_of(b"abc"),)
    assert visible(store) == ([], {})
    assert not store.has_manifest(manifest.digest)
    assert len(caplog.messages) == 1
    store.put_blob(b"abc")
    assert store.put_manifest(manifest.to_bytes()) == manifest.digest
    assert store.manifest(manifest.digest) == manifest
    assert store.manifest_bytes(manifest.digest) == manifest.to_bytes()


@pytest.mark.parametrize("damaged", [b"", b"ab", b"abd"], ids=["empty", "truncated", "flipped"])
def test_a_manifest_over_a_damaged_blob_is_refused_and_the_blob_asked_for_again(
    store: Store, damaged: bytes
) -> None:
    digest = store.put_blob(b"abc")
    damage(store.blob_path(digest), damaged)
    assert store.lacking([digest]) == []
    with pytest.raises(BlobsLackingError):
        store.put_manifest(one_file(b"abc").to_bytes())
    assert store.lacking([digest]) == [digest]
    assert (store.root / "damaged" / digest).read_bytes() == damaged
    store.put_blob(b"abc")
    store.put_manifest(one_file(b"abc").to_bytes())


def test_a_manifest_whose_size_is_not_the_blobs_is_refused(store: Store) -> None:
    digest = store.put_blob(b"abc")
    wrong = Manifest(**MODEL, members=(Member("a", digest, 2, (Chunk(digest, 2),)),))
    with pytest.raises(BlobsLackingError):
        store.put_manifest(wrong.to_bytes())
    assert visible(store) == ([], {})


def test_a_manifest_whose_chunks_do_not_make_its_file_is_refused(store: Store) -> None:
    chunks = tuple(Chunk(store.put_blob(data), len(data)) for data in (b"abc", b"def"))
    right = Member("a", digest_of(b"abcdef"), 6, chunks)
    wrong = Member("a", digest_of(b"abcdef"), 6, chunks[::-1])
    with pytest.raises(ArtifactRefused, match="member 'a' digest"):
        store.put_manifest(Manifest(**MODEL, members=(wrong,)).to_bytes())
    assert visible(store) == ([], {})
    store.put_manifest(Manifest(**MODEL, members=(right,)).to_bytes())


def test_a_damaged_manifest_is_refused(store: Store, tmp_path: Path) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    data = bytearray(store.manifest_bytes(digest))
    data[-3] ^= 1
    damage(store.manifest_path(digest), bytes(data))
    for read in (store.manifest, store.manifest_bytes):
        with pytest.raises(ArtifactRefused, match="must be what its name says"):
            read(digest)
    assert digest in "\n".join(store.verify().problems)
    add_files(store, tmp_path / "again", FILES)
    assert store.verify().problems == ()


# -- references


def test_a_name_stands_for_what_it_was_set_to_last(store: Store, tmp_path: Path) -> None:
    first = add_files(store, tmp_path / "first", {"a": b"1"})
    second = add_files(store, tmp_path / "second", {"a": b"2"})
    store.set_ref("model", first)
    store.set_ref("other", second)
    store.set_ref("model", second)
    assert store.refs() == {"model": second, "other": second}
    assert store.resolve("model") == second
    store.delete_ref("model")
    assert store.refs() == {"other": second}


def test_a_name_changes_only_from_what_the_caller_expects(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = add_files(store, tmp_path / "first", {"a": b"1"})
    second = add_files(store, tmp_path / "second", {"a": b"2"})
    store.set_ref("model", first, expected=ABSENT)
    for expected in (ABSENT, second):
        with pytest.raises(ReferenceChangedError) as refused:
            store.set_ref("model", second, expected=expected)
        assert refused.value.seen == first
        with pytest.raises(ReferenceChangedError):
            store.delete_ref("model", expected=expected)
    assert store.refs() == {"model": first}
    assert len(caplog.messages) == 4
    store.set_ref("model", second, expected=first)
    assert store.refs() == {"model": second}


def test_a_name_of_nothing_is_refused(store: Store, tmp_path: Path) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    with pytest.raises(NotInStoreError):
        store.set_ref("model", digest_of(b"nobody"))
    with pytest.raises(NotInStoreError):
        store.set_ref("model", store.put_blob(b"a blob"))
    assert store.refs() == {}
    store.set_ref("congestion", digest)
    with pytest.raises(UnknownNameError, match="Did you mean 'congestion'"):
        store.resolve("congestoin")
    with pytest.raises(UnknownNameError):
        store.delete_ref("nobody")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../up", "A", "ä", "a b", "a\n", "-a", "con", "nul.x", "a.", "f" * 64],
)
def test_a_name_that_is_no_file_name_everywhere_is_refused(
    store: Store, tmp_path: Path, name: str
) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    with pytest.raises(ArtifactRefused, match="reference name"):
        store.set_ref(name, digest)
    with pytest.raises(ArtifactRefused, match="reference name"):
        store.resolve(name)
    assert store.refs() == {}


@pytest.mark.parametrize("data", [b"", b"abc\n", b"\xff" * 64, b"../../etc/passwd"])
def test_a_damaged_reference_is_refused(store: Store, data: bytes) -> None:
    (store.root / "refs/model").write_bytes(data)
    with pytest.raises(ArtifactRefused, match="reference 'model'"):
        store.resolve("model")
    assert "reference 'model'" in store.verify().problems[0]
    with pytest.raises(ArtifactRefused):
        store.collect_garbage(0)


# -- checkout


def test_chosen_members_are_fetched_without_the_others_being_read(
    store: Store, tmp_path: Path
) -> None:
    files = {"small.json": b"{}", "large.bin": random_bytes(200_000)}
    digest = add_files(store, tmp_path / "model", files)
    large = store.manifest(digest).members[0]
    assert large.path == "large.bin"
    for chunk in large.chunks:
        store.blob_path(chunk.digest).unlink()
    store.checkout(digest, tmp_path / "out", ["small.json"])
    assert read_files(tmp_path / "out") == {"small.json": b"{}"}
    with pytest.raises(UnknownNameError, match="Did you mean 'small.json'"):
        store.checkout(digest, tmp_path / "out", ["smal.json"])


def test_members_fetched_later_join_those_that_are_there(store: Store, tmp_path: Path) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    store.checkout(digest, tmp_path / "out", ["network_model.json"])
    report = store.checkout(digest, tmp_path / "out")
    assert (report.files_written, report.files_present) == (2, 1)
    assert read_files(tmp_path / "out") == FILES
    assert store.checkout(digest, tmp_path / "out").files_written == 0


def test_other_content_is_replaced_only_on_demand(store: Store, tmp_path: Path) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    out = write_files(tmp_path / "out", {"weights/a.bin": b"mine", "notes.txt": b"mine"})
    with pytest.raises(ArtifactRefused, match="--overwrite"):
        store.checkout(digest, out)
    assert read_files(out) == {"weights/a.bin": b"mine", "notes.txt": b"mine"}
    store.checkout(digest, out, overwrite=True)
    assert read_files(out) == FILES | {"notes.txt": b"mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_place_of_a_folder_stays_and_nothing_is_written(
    store: Store, tmp_path: Path, overwrite: bool
) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    for there in ({"weights": b"mine"}, {"network_model.json/mine": b"mine"}):
        out = write_files(tmp_path / "-".join(there).replace("/", "-"), there)
        with pytest.raises(ArtifactRefused, match=r"must be .* absent"):
            store.checkout(digest, out, overwrite=overwrite)
        assert read_files(out) == there


def test_a_checkout_does_not_follow_links_out_of_its_folder(store: Store, tmp_path: Path) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    outside = write_files(tmp_path / "outside", {"a.bin": b"untouched"})
    out = tmp_path / "out"
    out.mkdir()
    (out / "weights").symlink_to(outside)
    with pytest.raises(ArtifactRefused, match="must not lead a checkout elsewhere"):
        store.checkout(digest, out, overwrite=True)
    assert read_files(outside) == {"a.bin": b"untouched"}


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("harm", ["flipped", "truncated", "gone"])
def test_nothing_appears_of_an_artifact_with_a_damaged_file(
    store: Store, tmp_path: Path, harm: str, is_there: bool
) -> None:
    files = {"a.bin": b"first", "z.bin": random_bytes(100_000)}
    digest = add_files(store, tmp_path / "model", files)
    last = store.blob_path(store.manifest(digest).members[-1].chunks[-1].digest)
    if harm == "gone":
        last.unlink()
    else:
        data = last.read_bytes()
        damage(last, data[:-1] if harm == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    out = tmp_path / "folder/out"
    if is_there:
        write_files(out, {"notes.txt": b"mine"})
    with pytest.raises(ArtifactRefused):
        store.checkout(digest, out)
    assert read_files(tmp_path / "folder") == ({"out/notes.txt": b"mine"} if is_there else {})


def test_a_full_disk_during_a_checkout_leaves_nothing_behind(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    digest = add_files(store, tmp_path / "model", FILES)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactRefused, match="No space left on device"):
        store.checkout(digest, tmp_path / "folder/out")
    assert read_files(tmp_path / "folder") == {}
    assert len(caplog.messages) == 1


# -- the folder


def test_a_store_is_where_it_was_made_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no store"):
        Store(tmp_path / "nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()
    write_files(tmp_path / "home", {"photo.png": b"x"})
    with pytest.raises(ArtifactError, match="give an empty folder"):
        Store(tmp_path / "home")
    assert read_files(tmp_path / "home") == {"photo.png": b"x"}
    store = Store(tmp_path / "store")
    digest = add_files(store, tmp_path / "model", FILES)
    assert Store(tmp_path / "store", create=False).manifests() == [digest]
    (tmp_path / "store/store.json").chmod(0o644)
    (tmp_path / "store/store.json").write_bytes(b'{"format":"bwe-env store 2"}\n')
    with pytest.raises(ArtifactError, match="which this version reads"):
        Store(tmp_path / "store")


def test_a_store_may_be_moved(store: Store, tmp_path: Path) -> None:
    digest = add_files(store, tmp_path / "model", FILES)
    store.set_ref("model", digest)
    shutil.move(store.root, tmp_path / "moved")
    moved = Store(tmp_path / "moved", create=False)
    assert visible(moved) == ([digest], {"model": digest})
    assert moved.verify().problems == ()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files need /proc")
def test_every_file_is_on_the_disk_before_it_has_its_name_and_blobs_before_their_manifest(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(tmp_path / "model", FILES)
    synced: list[Path] = []
    named: list[Path] = []
    replace = os.replace

    def record_sync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())

    def record_replace(source: Path, target: Path) -> None:
        assert source in synced
        if target.parent.parent.name == "manifests":
            assert {path.parent for path in named} | {store.root / "blobs"} <= set(synced)
        named.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    digest = store.add(folder, **MODEL)
    assert named[-1] == store.manifest_path(digest)
    assert synced[-2:] == [store.manifest_path(digest).parent, store.root / "manifests"]
    store.set_ref("model", digest)
    assert (named[-1], synced[-1]) == (store.root / "refs/model", store.root / "refs")


def test_a_store_that_need_not_last_holds_the_same_and_does_not_wait_for_the_disk(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(handle: int) -> None:
        pytest.fail("waits for the disk")

    expected = add_files(store, tmp_path / "model", FILES)
    monkeypatch.setattr(os, "fsync", waits)
    cache = Store(tmp_path / "cache", durable=False)
    digest = cache.add(tmp_path / "model", **MODEL)
    cache.set_ref("model", digest)
    cache.put_signature(digest, Signature("ab" * 32, "cd" * 64))
    assert digest == expected
    assert visible(cache) == ([expected], {"model": expected})
    assert cache.verify().problems == ()

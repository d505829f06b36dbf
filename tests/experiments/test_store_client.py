"""Fetching at call set-up: what comes, what it costs, and what a misbehaving server changes."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bwe_env.errors import ConfigError
from experiments.artifact_store import ABSENT, Store
from experiments.cache_store import CacheStore
from experiments.manifest import Chunk, digest_of
from experiments.partial_blobs import PartialBlobs
from experiments.reference_watcher import ReferenceWatcher
from experiments.refusals import ArtifactRefused, ReferenceChangedError
from experiments.remote_store import RemoteStore
from experiments.serve import listen, url_of
from experiments.server_connection import (
    Deadline,
    ServerAnswerError,
    ServerAwayError,
    ServerRefusedError,
)
from experiments.store_client import Delivered, DeliveryError, StoreClient
from tests.experiments.store_server import (
    TOKEN,
    Proxy,
    add_model,
    serving,
    unused_url,
    write_model,
)

SIZE_BYTES = 60_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def versions(folder: Path) -> list[Path]:
    """Folders of a model that differ in a few bytes; not to be written into."""
    return [
        write_model(folder / f"version-{n}", version=n, size_bytes=SIZE_BYTES) for n in range(3)
    ]


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return Store(folder / "store")


@pytest.fixture(scope="module")
def digests(store: Store, versions: list[Path]) -> list[str]:
    return [store.add(path, kind="model", architecture="network_model") for path in versions]


@pytest.fixture(scope="module")
def url(store: Store, digests: list[str]) -> Iterator[str]:
    del digests
    with serving(store) as url:
        yield url


@pytest.fixture
def name(request: pytest.FixtureRequest, store: Store, digests: list[str]) -> str:
    """A reference of the test's own, which names version 0."""
    name = digest_of(request.node.name.encode())[:12]
    store.set_ref(name, digests[0])
    return name


@pytest.fixture
def cache(tmp_path: Path) -> CacheStore:
    return CacheStore(tmp_path / "cache")


#: Long enough for a machine that is busy with other things; tests of the deadline have their own.
PATIENT_S = 20.0


def client_of(url: str, cache: Store, timeout_s: float = PATIENT_S) -> StoreClient:
    return StoreClient(url, cache, token=TOKEN, timeout_s=timeout_s)


def assert_is_version(delivered: Delivered, folder: Path) -> None:
    files = sorted(path.name for path in delivered.directory.iterdir())
    assert files == sorted(path.name for path in folder.iterdir())
    for file in files:
        assert (delivered.directory / file).read_bytes() == (folder / file).read_bytes()


def test_the_first_fetch_brings_everything_the_second_nothing_a_change_what_changed(
    url: str, name: str, cache: Store, store: Store, digests: list[str], versions: list[Path]
) -> None:
    client = client_of(url, cache)
    first = client.fetch(name, kind="model")
    assert (first.source, first.digest, first.reason) == ("server", digests[0], "")
    assert_is_version(first, versions[0])
    assert first.received_bytes > SIZE_BYTES
    second = client.fetch(name, kind="model")
    assert (second.source, second.received_bytes, second.received_blobs) == ("server", 0, 0)
    assert second.directory == first.directory
    store.set_ref(name, digests[1])
    third = client.fetch(name, kind="model")
    assert (third.source, third.digest) == ("server", digests[1])
    assert_is_version(third, versions[1])
    assert_is_version(first, versions[0])  # a call that has begun keeps its files
    assert 0 < third.received_bytes < SIZE_BYTES / 2
    assert 1 <= third.received_blobs <= 3


def test_two_processes_that_share_a_cache_load_things_once(
    url: str, name: str, cache: Store
) -> None:
    client_of(url, cache).fetch(name)
    again = client_of(url, CacheStore(cache.root)).fetch(name)
    assert (again.source, again.received_bytes) == ("server", 0)


def test_clients_that_fetch_at_once_all_get_the_whole_version(
    url: str, name: str, cache: Store, versions: list[Path]
) -> None:
    delivered: list[Delivered] = []

    def fetch() -> None:
        delivered.append(client_of(url, CacheStore(cache.root)).fetch(name))

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [item.source for item in delivered] == ["server"] * 6
    for item in delivered:
        assert_is_version(item, versions[0])
    assert cache.verify().problems == ()


def test_without_the_server_the_version_of_the_call_before_is_used_with_a_warning(
    url: str,
    name: str,
    cache: Store,
    digests: list[str],
    versions: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client_of(url, cache).fetch(name)
    away = client_of(unused_url(), cache).fetch(name, built_in=versions[2])
    assert (away.source, away.digest) == ("cache", digests[0])
    assert "Connection refused" in away.reason
    assert_is_version(away, versions[0])
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert digests[0] in warning.getMessage()
    assert "Connection refused" in warning.getMessage()


def test_without_server_and_cache_the_built_in_folder_is_used_and_without_it_an_error_says_so(
    cache: Store, versions: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(unused_url(), cache)
    delivered = client.fetch("plan", built_in=versions[2])
    assert (delivered.source, delivered.digest) == ("built-in", None)
    assert delivered.directory == versions[2]
    assert "using the built-in" in caplog.text
    with pytest.raises(DeliveryError, match="Hand in a built_in folder"):
        client.fetch("plan")
    with pytest.raises(ConfigError, match="no folder"):
        client.fetch("plan", built_in=versions[2] / "absent")


def test_a_reference_the_server_does_not_have_is_a_reason_to_fall_back(
    url: str, cache: Store, versions: list[Path]
) -> None:
    delivered = client_of(url, cache).fetch("absent-one", built_in=versions[0])
    assert delivered.source == "built-in"
    assert "404" in delivered.reason


def test_an_artifact_of_another_kind_is_refused_before_its_files_are_there(
    url: str, name: str, cache: Store, versions: list[Path]
) -> None:
    delivered = client_of(url, cache).fetch(name, kind="policy", built_in=versions[2])
    assert delivered.source == "built-in"
    assert "must be a policy" in delivered.reason
    with pytest.raises(ArtifactRefused, match="must be a policy"):
        client_of(url, cache).pull(name, kind="policy")


# -- servers that misbehave


@contextlib.contextmanager
def answering(answer: Callable[[int], bytes], pause_s: float = 0.0) -> Iterator[str]:
    """A server that says the same to everybody: `answer(0)`, `answer(1)`, … until b""."""
    with listen("127.0.0.1", 0) as listener:

        def serve_one(connection: object) -> None:
            with contextlib.suppress(OSError), connection:  # type: ignore[attr-defined]
                connection.recv(65_536)  # type: ignore[attr-defined]
                number = 0
                while piece := answer(number):
                    connection.sendall(piece)  # type: ignore[attr-defined]
                    number += 1
                    time.sleep(pause_s)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield url_of(listener)
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(2)


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
    "no JSON": http(b"<html>login</html>"),
    "a list": http(b"[]"),
    "another reference": http(b'{"digest": "' + b"a" * 64 + b'", "name": "other"}'),
    "no digest": http(b'{"digest": "../../etc/passwd", "name": "plan"}'),
    "a number for a digest": http(b'{"digest": 5, "name": "plan"}'),
    "304 for nothing": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "a redirect": http(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"),
    "an error": http(b'{"error": "out of order"}', "500 Internal Server Error"),
    "half an answer": http(b'{"digest": "').replace(b"Length: 12", b"Length: 500"),
    "deep JSON": http(b"[" * 100_000),
    "too much": http(b" " * 3_000_000),
    "a bomb": http(b"\x1f\x8b\x08", "200 OK", "Content-Encoding: gzip\r\n"),
    "odd bytes in a header": b"HTTP/1.1 200 OK\r\nX: \xff\x00\r\n\r\n",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_of_a_server_never_keeps_a_call_from_beginning(
    what: str, cache: Store, versions: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with answering(lambda number: GARBAGE[what] if number == 0 else b"") as url:
        delivered = client_of(url, cache).fetch("plan", built_in=versions[0])
    assert delivered.source == "built-in"
    assert len(delivered.reason) > 10
    assert "Traceback" not in caplog.text


SLOW = {
    "silent": lambda number: b"",  # accepts, and then says nothing until the pause is over
    "a header byte by byte": lambda number: b"HTTP/1.1 200 OK\r\nX: "[number : number + 1] or b"x",
    "a body byte by byte": lambda number: (
        b" " if number else http(b"", headers="").replace(b"Length: 0", b"Length: 9000")
    ),
}


@pytest.mark.parametrize("what", SLOW)
def test_a_set_up_is_over_at_its_deadline_however_slow_the_server_is(
    what: str, cache: Store, versions: list[Path]
) -> None:
    def answer(number: int) -> bytes:
        if what == "silent":
            time.sleep(3.0)
        return SLOW[what](number)

    with answering(answer, pause_s=0.05) as url:
        client = client_of(url, cache, timeout_s=1.0)
        delivered = client.fetch("plan", built_in=versions[0])
    assert delivered.source == "built-in"
    assert 0.5 < delivered.seconds <= 1.0
    assert "silent for" in delivered.reason or "it took longer" in delivered.reason


def test_a_cache_that_answers_slowly_does_not_make_a_set_up_late(
    url: str, name: str, cache: Store, versions: list[Path]
) -> None:
    with cache.alone():  # as a garbage collector that takes long
        delivered = client_of(url, cache, timeout_s=0.5).fetch(name, built_in=versions[1])
    assert (delivered.source, delivered.directory) == ("built-in", versions[1])
    assert delivered.seconds <= 0.5


def test_a_flipped_byte_is_refused_wherever_it_is(
    url: str, name: str, cache: Store, versions: list[Path]
) -> None:
    """One bit of the third kind of answer: reference, manifest, blobs."""
    for kind in (b'{"digest"', b'"members"', b"octet-stream"):

        def spoil(data: bytes, kind: bytes = kind) -> bytes:
            return data[:-1] + bytes([data[-1] ^ 1]) if kind in data else data

        with Proxy(url, spoil=spoil) as proxy:
            delivered = client_of(proxy.url, cache).fetch(name, built_in=versions[2])
        assert delivered.source == "built-in", kind
    with pytest.raises(Exception, match="unknown reference"):
        cache.resolve(name)
    assert cache.verify().problems == ()
    assert_is_version(client_of(url, cache).fetch(name), versions[0])


def test_a_download_cut_half_way_goes_on_where_it_stopped(
    url: str, name: str, cache: Store, versions: list[Path]
) -> None:
    with Proxy(url, cut_after_bytes=lambda number: 30_000 if number == 0 else None) as proxy:
        delivered = client_of(proxy.url, cache).fetch(name)
        assert proxy.connections >= 2
        sent_bytes = proxy.sent_bytes
    assert delivered.source == "server"
    assert_is_version(delivered, versions[0])
    # Once, and little more: heads of answers, and what the cut connection had in flight.
    assert sent_bytes < 1.2 * SIZE_BYTES


def test_a_link_that_ends_every_set_up_inside_a_blob_gets_it_in_the_end(
    tmp_path: Path, versions: list[Path], folder: Path
) -> None:
    """One blob of 8 kB over connections that carry 2 kB each: only beginnings that last help."""
    del versions
    server = Store(tmp_path / "server")
    (tmp_path / "model").mkdir()
    content = bytes(range(256)) * 31
    (tmp_path / "model/weights.bin").write_bytes(content)
    server.set_ref(
        "plan", server.add(tmp_path / "model", kind="model", architecture="network_model")
    )
    cache = CacheStore(tmp_path / "cache")
    with (
        serving(server) as url,
        Proxy(url, cut_after_bytes=lambda number: 2_500) as proxy,
    ):
        delivered = client_of(proxy.url, cache).fetch("plan", built_in=folder)
        connections = proxy.connections
    assert delivered.source == "server"
    assert (delivered.directory / "weights.bin").read_bytes() == content
    assert connections >= 4
    assert list((cache.root / "partial").iterdir()) == []


def test_a_wrong_beginning_of_a_blob_is_found_out_and_loaded_anew(
    url: str, name: str, cache: Store, store: Store, digests: list[str], versions: list[Path]
) -> None:
    chunk = next(store.manifest(digests[0]).chunks())
    partial = PartialBlobs(cache.root / "partial", cache.root / "tmp")
    partial.save(chunk, b"w" * (chunk.size_bytes - 1))
    delivered = client_of(url, cache).fetch(name)
    assert delivered.source == "server"
    assert_is_version(delivered, versions[0])
    assert partial.load(chunk) == b""


def test_damaged_files_of_the_cache_are_mended_before_they_are_handed_out(
    url: str, name: str, cache: Store, versions: list[Path], store: Store, digests: list[str]
) -> None:
    client = client_of(url, cache)
    first = client.fetch(name)
    (first.directory / "weights.bin").unlink()
    (first.directory / "weights.bin").write_bytes(b"damaged")
    assert_is_version(client.fetch(name), versions[0])
    # The blobs too: what is left of them is refused, and comes again from the server.
    shutil.rmtree(first.directory)
    chunk = next(store.manifest(digests[0]).chunks())
    path = cache.blob_path(chunk.digest)
    path.unlink()
    path.write_bytes(b"damaged")
    mended = client.fetch(name)
    assert mended.source == "server"
    assert mended.received_blobs == 1
    assert_is_version(mended, versions[0])


def test_with_trusted_keys_only_what_they_signed_is_used(
    tmp_path: Path, url: str, name: str, store: Store, digests: list[str], versions: list[Path]
) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra [sign]")
    from experiments.signing import generate_key, sign

    key = generate_key(tmp_path / "key.pem")
    stranger = generate_key(tmp_path / "stranger.pem")
    data = store.manifest_bytes(digests[0])
    store.put_signature(digests[0], sign(data, tmp_path / "key.pem"))

    def fetch(cache: str, trusted: str) -> Delivered:
        client = StoreClient(
            url, CacheStore(tmp_path / cache), trusted_keys=[trusted], timeout_s=PATIENT_S
        )
        return client.fetch(name, built_in=versions[2])

    assert fetch("mine", key).source == "server"
    assert fetch("mine", key).received_bytes == 0
    refused = fetch("other", stranger)
    assert refused.source == "built-in"
    assert "trusted" in refused.reason
    # A version in the cache is of no more use than one of the server.
    assert fetch("mine", stranger).source == "built-in"


# -- pushing


def test_a_push_sends_what_is_lacking_once_and_names_it(
    tmp_path: Path, versions: list[Path]
) -> None:
    server = Store(tmp_path / "server")
    mine = CacheStore(tmp_path / "mine")
    with serving(server) as url:
        client = client_of(url, mine)

        def push(version: int) -> tuple[int, int, str | None]:
            report = client.push(
                versions[version], "plan", kind="model", architecture="network_model"
            )
            assert server.resolve("plan") == report.digest
            return report.sent_bytes, report.sent_blobs, report.replaced

        first = push(0)
        assert SIZE_BYTES < first[0] < 1.1 * SIZE_BYTES
        assert first[2] is None
        zeroth = server.resolve("plan")
        assert push(0) == (0, 0, zeroth)
        changed = push(1)
        assert changed[0] < SIZE_BYTES / 2
        assert 1 <= changed[1] <= 3
        assert changed[2] == zeroth
    server.checkout(server.resolve("plan"), tmp_path / "out")
    assert (tmp_path / "out/weights.bin").read_bytes() == (versions[1] / "weights.bin").read_bytes()


def test_a_push_cut_half_way_goes_on_where_it_stopped(tmp_path: Path, versions: list[Path]) -> None:
    server = Store(tmp_path / "server")
    mine = CacheStore(tmp_path / "mine")
    digest = mine.add(versions[0], kind="model", architecture="network_model")
    with (
        serving(server) as url,
        Proxy(
            url,
            cut_after_bytes=lambda number: 30_000 if number == 0 else None,
            does_cut_requests=True,
        ) as proxy,
    ):
        report = client_of(proxy.url, mine).push(digest, "plan")
    assert report.attempts == 2
    assert server.resolve("plan") == digest
    # What the server had taken when the connection ended was not sent again.
    assert report.sent_bytes <= report.total_bytes
    assert server.verify().problems == ()


def test_a_push_never_undoes_somebody_elses(
    url: str, name: str, cache: Store, store: Store, digests: list[str], versions: list[Path]
) -> None:
    client = client_of(url, cache)
    mine = cache.add(versions[2], kind="model", architecture="network_model")
    store.set_ref(name, digests[1])
    for expected in (digests[0], ABSENT):
        with pytest.raises(ReferenceChangedError):
            client.push(mine, name, expected=expected)
    assert store.resolve(name) == digests[1]
    assert client.push(mine, name, expected=digests[1]).replaced == digests[1]
    assert store.resolve(name) == mine


def test_without_the_right_token_nothing_is_pushed(
    url: str, name: str, cache: Store, store: Store, digests: list[str], tmp_path: Path
) -> None:
    mine = add_model(cache, tmp_path / "mine", version=9, size_bytes=9_000)
    for token in (None, "x" * 30):
        with pytest.raises(ServerRefusedError, match="401"):
            StoreClient(url, cache, token=token).push(mine, name)
    assert store.resolve(name) == digests[0]
    with pytest.raises(ConfigError, match="kind and architecture"):
        client_of(url, cache).push(tmp_path / "mine", name)


# -- parts


def test_a_reference_that_changes_reaches_calls_set_up_afterwards_without_waiting(
    url: str, name: str, cache: Store, store: Store, digests: list[str], versions: list[Path]
) -> None:
    with ReferenceWatcher(client_of(url, cache), name, kind="model") as watcher:
        call = watcher.newest()
        assert call.digest == digests[0]
        store.set_ref(name, digests[1])
        wait_for(lambda: watcher.newest().digest == digests[1])
        assert_is_version(watcher.newest(), versions[1])
        assert_is_version(call, versions[0])
    assert watcher.newest().digest == digests[1]


def test_a_watcher_outlives_the_server_and_finds_it_again(
    tmp_path: Path, cache: Store, digests: list[str], versions: list[Path], store: Store
) -> None:
    del tmp_path
    store.set_ref("coming", digests[0])
    with listen("127.0.0.1", 0) as listener:
        address = url_of(listener)
    port = int(address.rsplit(":", 1)[1])
    client = client_of(address, cache)
    with ReferenceWatcher(client, "coming", built_in=versions[2]) as watcher:
        assert watcher.newest().source == "built-in"
        from experiments.serve import make_server
        from experiments.serve_app import make_app

        server = make_server(make_app(store))
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listen("127.0.0.1", port)]}
        )
        thread.start()
        wait_for(lambda: watcher.newest().source == "server")
        server.should_exit = True
        thread.join()
        assert watcher.newest().digest == digests[0]


def wait_for(holds: Callable[[], bool], timeout_s: float = PATIENT_S) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it did not come about in time"
        time.sleep(0.02)


def test_tidying_deletes_what_no_reference_names_and_nothing_else(
    url: str, name: str, cache: Store, store: Store, digests: list[str], versions: list[Path]
) -> None:
    client = client_of(url, cache)
    old = client.fetch(name)
    store.set_ref(name, digests[1])
    new = client.fetch(name)
    client.tidy(grace_s=3_600.0)
    assert old.directory.exists()
    client.tidy(grace_s=0.0)
    assert not old.directory.exists()
    assert_is_version(new, versions[1])
    assert client.fetch(name).received_bytes == 0


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "127.0.0.1:8600", "http://[::1"])
def test_what_is_no_url_is_told_before_a_call_needs_it(url: str, cache: Store) -> None:
    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        StoreClient(url, cache)


def test_a_deadline_is_up_when_its_time_is_or_when_somebody_says_so() -> None:
    deadline = Deadline(100.0)
    assert 99.0 < deadline.left_s() <= 100.0
    deadline.cancel()
    for is_up in (deadline, Deadline(0.0)):
        with pytest.raises(ServerAwayError, match="up"):
            is_up.left_s()


def test_a_blob_that_is_longer_or_shorter_than_announced_is_refused(url: str, store: Store) -> None:
    digest = store.put_blob(b"twelve bytes")
    with RemoteStore(url) as remote:
        for size_bytes in (11, 13):
            with pytest.raises(ServerAnswerError):
                list(remote.read_blobs([Chunk(digest, size_bytes)]))
        [(_, data)] = list(remote.read_blobs([Chunk(digest, 12)]))
    assert data == b"twelve bytes"

"""Fetching at call set-up and pushing, with a server that does what it should."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bwe_env.errors import ConfigError
from experiments.artifact_store import ABSENT, Store
from experiments.manifest import Chunk, digest_of
from experiments.partial_blobs import PartialBlobs
from experiments.reference_watcher import ReferenceWatcher
from experiments.refusals import ArtifactRefused, ReferenceChangedError
from experiments.serve import listen, url_of
from experiments.server_connection import (
    Deadline,
    ServerAwayError,
    ServerRefusedError,
)
from experiments.store_client import Delivered, StoreClient
from tests.experiments.store_server import (
    ServedModels,
    add_model,
    assert_is_version,
    client_of,
    serving,
    serving_models,
    wait_for,
)

SIZE_BYTES = 60_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModels]:
    with serving_models(tmp_path_factory.mktemp("served"), size_bytes=SIZE_BYTES) as served:
        yield served


@pytest.fixture
def name(request: pytest.FixtureRequest, served: ServedModels) -> str:
    """A reference of the test's own, which names version 0."""
    name = digest_of(request.node.name.encode())[:12]
    served.store.set_ref(name, served.digests[0])
    return name


@pytest.fixture
def cache(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", durable=False)


def test_the_first_fetch_brings_everything_the_second_nothing_a_change_what_changed(
    served: ServedModels, name: str, cache: Store
) -> None:
    client = client_of(served.url, cache)
    first = client.fetch(name, kind="model")
    assert (first.source, first.digest, first.reason) == ("server", served.digests[0], "")
    assert_is_version(first, served.versions[0])
    assert first.received_bytes > SIZE_BYTES
    second = client.fetch(name, kind="model")
    assert (second.source, second.received_bytes, second.received_blobs) == ("server", 0, 0)
    assert second.directory == first.directory
    served.store.set_ref(name, served.digests[1])
    third = client.fetch(name, kind="model")
    assert (third.source, third.digest) == ("server", served.digests[1])
    assert_is_version(third, served.versions[1])
    assert_is_version(first, served.versions[0])  # a call that has begun keeps its files
    assert 0 < third.received_bytes < SIZE_BYTES / 2
    assert 1 <= third.received_blobs <= 3


def test_two_processes_that_share_a_cache_load_things_once(
    served: ServedModels, name: str, cache: Store
) -> None:
    client_of(served.url, cache).fetch(name)
    again = client_of(served.url, Store(cache.root, durable=False)).fetch(name)
    assert (again.source, again.received_bytes) == ("server", 0)


def test_clients_that_fetch_at_once_all_get_the_whole_version(
    served: ServedModels, name: str, cache: Store
) -> None:
    delivered: list[Delivered] = []

    def fetch() -> None:
        delivered.append(client_of(served.url, Store(cache.root, durable=False)).fetch(name))

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [item.source for item in delivered] == ["server"] * 6
    for item in delivered:
        assert_is_version(item, served.versions[0])
    assert cache.verify().problems == ()


def test_an_artifact_of_another_kind_is_refused_before_its_files_are_there(
    served: ServedModels, name: str, cache: Store
) -> None:
    delivered = client_of(served.url, cache).fetch(name, kind="policy", built_in=served.versions[2])
    assert delivered.source == "built-in"
    assert "must be a policy" in delivered.reason
    with pytest.raises(ArtifactRefused, match="must be a policy"):
        client_of(served.url, cache).pull(name, kind="policy")


def test_a_push_sends_what_is_lacking_once_and_names_it(
    served: ServedModels, tmp_path: Path
) -> None:
    server = Store(tmp_path / "server", durable=False)
    mine = Store(tmp_path / "mine", durable=False)
    with serving(server) as url:
        client = client_of(url, mine)

        def push(version: int) -> tuple[int, int, str | None]:
            report = client.push(
                served.versions[version], "plan", kind="model", architecture="network_model"
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
    assert (tmp_path / "out/weights.bin").read_bytes() == (
        served.versions[1] / "weights.bin"
    ).read_bytes()


def test_a_push_never_undoes_somebody_elses(served: ServedModels, name: str, cache: Store) -> None:
    client = client_of(served.url, cache)
    mine = cache.add(served.versions[2], kind="model", architecture="network_model")
    served.store.set_ref(name, served.digests[1])
    for expected in (served.digests[0], ABSENT):
        with pytest.raises(ReferenceChangedError):
            client.push(mine, name, expected=expected)
    assert served.store.resolve(name) == served.digests[1]
    assert client.push(mine, name, expected=served.digests[1]).replaced == served.digests[1]
    assert served.store.resolve(name) == mine


def test_without_the_right_token_nothing_is_pushed(
    served: ServedModels, name: str, cache: Store, tmp_path: Path
) -> None:
    mine = add_model(cache, tmp_path / "mine", version=9, size_bytes=9_000)
    for token in (None, "x" * 30):
        with pytest.raises(ServerRefusedError, match="401"):
            StoreClient(served.url, cache, token=token).push(mine, name)
    assert served.store.resolve(name) == served.digests[0]
    with pytest.raises(ConfigError, match="kind and architecture"):
        client_of(served.url, cache).push(tmp_path / "mine", name)


def test_a_reference_that_changes_reaches_calls_set_up_afterwards_without_waiting(
    served: ServedModels, name: str, cache: Store
) -> None:
    with ReferenceWatcher(client_of(served.url, cache), name, kind="model") as watcher:
        call = watcher.newest()
        assert call.digest == served.digests[0]
        served.store.set_ref(name, served.digests[1])
        wait_for(lambda: watcher.newest().digest == served.digests[1])
        assert_is_version(watcher.newest(), served.versions[1])
        assert_is_version(call, served.versions[0])
    assert watcher.newest().digest == served.digests[1]


def test_a_watcher_outlives_the_server_and_finds_it_again(
    served: ServedModels, cache: Store
) -> None:
    served.store.set_ref("coming", served.digests[0])
    with listen("127.0.0.1", 0) as listener:
        address = url_of(listener)
    port = int(address.rsplit(":", 1)[1])
    client = client_of(address, cache)
    with ReferenceWatcher(client, "coming", built_in=served.versions[2]) as watcher:
        assert watcher.newest().source == "built-in"
        with serving(served.store, port=port):
            wait_for(lambda: watcher.newest().source == "server")
        assert watcher.newest().digest == served.digests[0]


def test_tidying_deletes_what_no_reference_names_and_nothing_else(
    served: ServedModels, name: str, cache: Store
) -> None:
    client = client_of(served.url, cache)
    old = client.fetch(name)
    served.store.set_ref(name, served.digests[1])
    new = client.fetch(name)
    partial = PartialBlobs(cache)
    chunk = Chunk(digest_of(b"whole"), 5)
    partial.save(chunk, b"wh")
    client.tidy(grace_s=3_600.0)
    assert old.directory.exists()
    assert partial.load(chunk) == b"wh"
    client.tidy(grace_s=0.0)
    assert not old.directory.exists()
    assert partial.load(chunk) == b""
    assert_is_version(new, served.versions[1])
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
        with pytest.raises(ServerAwayError, match="no time"):
            is_up.left_s()

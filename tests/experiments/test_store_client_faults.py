"""Fetching and pushing when server, network or cache do not do what they should."""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bwe_env.errors import ConfigError
from experiments.artifact_store import Store
from experiments.manifest import Chunk, digest_of
from experiments.partial_blobs import PartialBlobs
from experiments.remote_store import RemoteStore
from experiments.server_connection import (
    ServerAnswerError,
)
from experiments.store_client import Delivered, DeliveryError, StoreClient
from tests.experiments.store_server import (
    PATIENT_S,
    Proxy,
    ServedModels,
    answering,
    assert_is_version,
    client_of,
    serving,
    serving_models,
    unused_url,
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


def test_without_the_server_the_version_of_the_call_before_is_used_with_a_warning(
    served: ServedModels, name: str, cache: Store, caplog: pytest.LogCaptureFixture
) -> None:
    client_of(served.url, cache).fetch(name)
    away = client_of(unused_url(), cache).fetch(name, built_in=served.versions[2])
    assert (away.source, away.digest) == ("cache", served.digests[0])
    assert "Connection refused" in away.reason
    assert_is_version(away, served.versions[0])
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert served.digests[0] in warning.getMessage()
    assert "Connection refused" in warning.getMessage()


def test_without_server_and_cache_the_built_in_folder_is_used_and_without_it_an_error_says_so(
    served: ServedModels, cache: Store, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(unused_url(), cache)
    delivered = client.fetch("plan", built_in=served.versions[2])
    assert (delivered.source, delivered.digest) == ("built-in", None)
    assert delivered.directory == served.versions[2]
    assert "using the built-in" in caplog.text
    with pytest.raises(DeliveryError, match="Hand in a built_in folder"):
        client.fetch("plan")
    with pytest.raises(ConfigError, match="no folder"):
        client.fetch("plan", built_in=served.versions[2] / "absent")


def test_a_reference_the_server_does_not_have_is_a_reason_to_fall_back(
    served: ServedModels, cache: Store
) -> None:
    delivered = client_of(served.url, cache).fetch("absent-one", built_in=served.versions[0])
    assert delivered.source == "built-in"
    assert "404" in delivered.reason


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
    served: ServedModels, what: str, cache: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with answering(lambda number: GARBAGE[what] if number == 0 else b"") as url:
        delivered = client_of(url, cache).fetch("plan", built_in=served.versions[0])
    assert delivered.source == "built-in"
    assert len(delivered.reason) > 10
    assert "Traceback" not in caplog.text


SLOW = {
    "silent": (b"", b""),
    "a header byte by byte": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "a body byte by byte": (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b" "),
}


@pytest.mark.parametrize("what", SLOW)
def test_a_set_up_is_over_at_its_deadline_however_slow_the_server_is(
    served: ServedModels, what: str, cache: Store
) -> None:
    first, then = SLOW[what]
    is_over = threading.Event()

    def answer(number: int) -> bytes:
        if not first:
            is_over.wait(PATIENT_S)
        return then if number else first

    with answering(answer, pause_s=0.05) as url:
        client = client_of(url, cache, timeout_s=1.0)
        delivered = client.fetch("plan", built_in=served.versions[0])
        is_over.set()
    assert delivered.source == "built-in"
    assert 0.5 < delivered.seconds <= 1.0
    assert re.search("silent for 0.9 s|longer than the 0.9 s|no time", delivered.reason)


def test_a_cache_that_answers_slowly_does_not_make_a_set_up_late(
    served: ServedModels, name: str, cache: Store
) -> None:
    with cache.alone():  # as a garbage collector that takes long
        delivered = client_of(served.url, cache, timeout_s=0.5).fetch(
            name, built_in=served.versions[1]
        )
    assert (delivered.source, delivered.directory) == ("built-in", served.versions[1])
    assert delivered.seconds <= 0.5


@pytest.mark.parametrize("where", ["reference", "manifest", "blob"])
def test_a_flipped_byte_is_refused_wherever_it_is(
    served: ServedModels, name: str, cache: Store, where: str
) -> None:
    passage, reason = {
        "reference": (served.digests[0][:16].encode(), "404"),
        "manifest": (b'"weights.bin"', "came as other bytes"),
        "blob": ((served.versions[0] / "weights.bin").read_bytes()[20_000:20_016], "other bytes"),
    }[where]

    def flip(data: bytes) -> bytes:
        return data.replace(passage, bytes([passage[0] ^ 1]) + passage[1:])

    with Proxy(served.url, spoil=flip) as proxy:
        delivered = client_of(proxy.url, cache).fetch(name, built_in=served.versions[2])
    assert delivered.source == "built-in"
    assert reason in delivered.reason
    assert cache.refs() == {}
    assert cache.verify().problems == ()
    assert_is_version(client_of(served.url, cache).fetch(name), served.versions[0])


def test_a_download_cut_half_way_goes_on_where_it_stopped(
    served: ServedModels, name: str, cache: Store
) -> None:
    with Proxy(served.url, cut_after_bytes=lambda number: 30_000 if number == 0 else None) as proxy:
        delivered = client_of(proxy.url, cache).fetch(name)
        assert proxy.connections >= 2
        sent_bytes = proxy.sent_bytes
    assert delivered.source == "server"
    assert_is_version(delivered, served.versions[0])
    # Once, and little more: heads of answers, and what the cut connection had in flight.
    assert sent_bytes < 1.2 * SIZE_BYTES


def test_a_link_that_ends_every_set_up_inside_a_blob_gets_it_in_the_end(tmp_path: Path) -> None:
    """One blob of 8 kB over connections that carry 2 kB each: only beginnings that last help."""
    server = Store(tmp_path / "server", durable=False)
    (tmp_path / "model").mkdir()
    content = bytes(range(256)) * 31
    (tmp_path / "model/weights.bin").write_bytes(content)
    server.set_ref(
        "plan", server.add(tmp_path / "model", kind="model", architecture="network_model")
    )
    cache = Store(tmp_path / "cache", durable=False)
    with (
        serving(server) as url,
        Proxy(url, cut_after_bytes=lambda number: 2_500) as proxy,
    ):
        delivered = client_of(proxy.url, cache).fetch("plan")
        connections = proxy.connections
    assert delivered.source == "server"
    assert (delivered.directory / "weights.bin").read_bytes() == content
    assert connections >= 4
    assert list((cache.root / "partial").iterdir()) == []


def test_a_wrong_beginning_of_a_blob_is_found_out_and_loaded_anew(
    served: ServedModels, name: str, cache: Store
) -> None:
    chunk = next(served.store.manifest(served.digests[0]).chunks())
    partial = PartialBlobs(cache)
    partial.save(chunk, b"w" * (chunk.size_bytes - 1))
    delivered = client_of(served.url, cache).fetch(name)
    assert delivered.source == "server"
    assert_is_version(delivered, served.versions[0])
    assert partial.load(chunk) == b""


def test_damaged_files_of_the_cache_are_mended_before_they_are_handed_out(
    served: ServedModels, name: str, cache: Store
) -> None:
    client = client_of(served.url, cache)
    first = client.fetch(name)
    (first.directory / "weights.bin").unlink()
    (first.directory / "weights.bin").write_bytes(b"damaged")
    assert_is_version(client.fetch(name), served.versions[0])
    # The blobs too: what is left of them is refused, and comes again from the server.
    shutil.rmtree(first.directory)
    chunk = next(served.store.manifest(served.digests[0]).chunks())
    path = cache.blob_path(chunk.digest)
    path.unlink()
    path.write_bytes(b"damaged")
    mended = client.fetch(name)
    assert mended.source == "server"
    assert mended.received_blobs == 1
    assert_is_version(mended, served.versions[0])


def test_with_trusted_keys_only_what_they_signed_is_used(
    served: ServedModels, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra [sign]")
    from experiments.signing import generate_key, sign

    key = generate_key(tmp_path / "key.pem")
    stranger = generate_key(tmp_path / "stranger.pem")
    data = served.store.manifest_bytes(served.digests[0])
    served.store.put_signature(served.digests[0], sign(data, tmp_path / "key.pem"))

    def fetch(cache: str, trusted: str) -> Delivered:
        client = StoreClient(
            served.url,
            Store(tmp_path / cache, durable=False),
            trusted_keys=[trusted],
            timeout_s=PATIENT_S,
        )
        return client.fetch(name, built_in=served.versions[2])

    assert fetch("mine", key).source == "server"
    assert fetch("mine", key).received_bytes == 0
    refused = fetch("other", stranger)
    assert refused.source == "built-in"
    assert "trusted" in refused.reason
    # A version in the cache is of no more use than one of the server.
    assert fetch("mine", stranger).source == "built-in"


def test_a_push_cut_half_way_goes_on_where_it_stopped(served: ServedModels, tmp_path: Path) -> None:
    server = Store(tmp_path / "server", durable=False)
    mine = Store(tmp_path / "mine", durable=False)
    digest = mine.add(served.versions[0], kind="model", architecture="network_model")
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


def test_a_blob_that_is_longer_or_shorter_than_announced_is_refused(served: ServedModels) -> None:
    digest = served.store.put_blob(b"twelve bytes")
    with RemoteStore(served.url) as remote:
        for size_bytes in (11, 13):
            with pytest.raises(ServerAnswerError):
                list(remote.read_blobs([Chunk(digest, size_bytes)]))
        [(_, data)] = list(remote.read_blobs([Chunk(digest, 12)]))
    assert data == b"twelve bytes"

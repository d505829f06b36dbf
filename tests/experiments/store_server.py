"""A server of a store in a thread, and a proxy in front of it that spoils what it passes on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.artifact_store import Store
from experiments.serve import listen, make_server, url_of
from experiments.serve_app import ServeLimits, make_app
from experiments.store_client import Delivered, StoreClient

TOKEN = "a-token-of-the-tests-0123456789"
#: Long enough for a machine that is busy with other things; tests of deadlines have their own.
PATIENT_S = 20.0


@contextlib.contextmanager
def serving(
    store: Store, *, token: str | None = TOKEN, limits: ServeLimits | None = None, port: int = 0
) -> Iterator[str]:
    """A server on a loopback port, by default a free one; yields its URL."""
    listener = listen("127.0.0.1", port)
    server = make_server(make_app(store, token=token, limits=limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join(10.0)
        assert not thread.is_alive()


def unused_url() -> str:
    """A loopback address where nobody listens."""
    with listen("127.0.0.1", 0) as listener:
        return url_of(listener)


def write_model(folder: Path, *, version: int = 0, size_bytes: int = 300_000) -> Path:
    """A folder like that of a small model; another `version` differs in a few bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = np.random.default_rng(7).integers(0, 256, size_bytes, dtype=np.uint8)
    weights[size_bytes // 2] ^= version
    (folder / "weights.bin").write_bytes(weights.tobytes())
    (folder / "model.json").write_text(f'{{"version": {version}}}')
    return folder


def add_model(store: Store, folder: Path, *, version: int = 0, size_bytes: int = 300_000) -> str:
    """The digest of such a model, put into a store."""
    write_model(folder, version=version, size_bytes=size_bytes)
    return store.add(folder, kind="model", architecture="network_model")


class Proxy:
    """A TCP proxy on a loopback port.

    Attributes:
        connections: how many there were.
        sent_bytes: passed on to clients, all connections together.
    """

    def __init__(
        self,
        upstream_url: str,
        *,
        cut_after_bytes: Callable[[int], int | None] = lambda number: None,
        spoil: Callable[[bytes], bytes] = lambda data: data,
        does_cut_requests: bool = False,
    ) -> None:
        """Start.

        Args:
            cut_after_bytes: by the number of the connection, from 0: after how many bytes to close
                it; None never.
            spoil: applied to each piece passed on to the client.
            does_cut_requests: count the bytes of requests instead of those of answers.
        """
        host, port = upstream_url.removeprefix("http://").split(":")
        self._upstream = (host, int(port))
        self._cut_after_bytes = cut_after_bytes
        self._spoil = spoil
        self._does_cut_requests = does_cut_requests
        self._listener = listen("127.0.0.1", 0)
        self.url = url_of(self._listener)
        self.connections = 0
        self.sent_bytes = 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *unused: object) -> None:
        hang_up(self._listener)
        self._threads[0].join()
        self._listener.close()
        for end in self._ends:
            hang_up(end)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(self._upstream)
                limit = self._cut_after_bytes(self.connections)
                self.connections += 1
                self._ends += [client, upstream]
                limits = (limit, None) if self._does_cut_requests else (None, limit)
                for arguments in (
                    (client, upstream, limits[0], False),
                    (upstream, client, limits[1], True),
                ):
                    thread = threading.Thread(target=self._pass_on, args=arguments)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, limit: int | None, is_answer: bool
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_answer:
                    data = self._spoil(data)
                if limit is not None:
                    data = data[: limit - passed]
                target.sendall(data)
                passed += len(data)
                self.sent_bytes += len(data) if is_answer else 0
                if passed == limit:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def hang_up(end: socket.socket) -> None:
    """Close a socket though a thread waits for it: close() alone would leave the thread waiting."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def answering(answer: Callable[[int], bytes], *, pause_s: float = 0.0) -> Iterator[str]:
    """A server that says the same to everybody: `answer(0)`, `answer(1)`, … until b""."""
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    def serve_one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65_536)
            number = 0
            while not is_over.is_set() and (piece := answer(number)):
                connection.sendall(piece)
                number += 1
                is_over.wait(pause_s)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=serve_one, args=(connection,)))
                threads[-1].start()

    with listen("127.0.0.1", 0) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield url_of(listener)
        finally:
            is_over.set()
            hang_up(listener)
            for thread in (accepting, *threads):
                thread.join()


@dataclass(frozen=True)
class ServedModels:
    """A server with three versions of a model, which differ in a few bytes."""

    url: str
    store: Store
    versions: list[Path]
    """their folders, not to be written into"""
    digests: list[str]


@contextlib.contextmanager
def serving_models(folder: Path, *, size_bytes: int) -> Iterator[ServedModels]:
    """A server in a folder of its own."""
    store = Store(folder / "store", durable=False)
    versions = [
        write_model(folder / f"version-{n}", version=n, size_bytes=size_bytes) for n in range(3)
    ]
    digests = [store.add(path, kind="model", architecture="network_model") for path in versions]
    with serving(store) as url:
        yield ServedModels(url, store, versions, digests)


def client_of(url: str, cache: Store, *, timeout_s: float = PATIENT_S) -> StoreClient:
    """A client that may write."""
    return StoreClient(url, cache, token=TOKEN, timeout_s=timeout_s)


def assert_is_version(delivered: Delivered, folder: Path) -> None:
    """The files that were delivered are those of this folder, and no others."""
    files = sorted(path.name for path in delivered.directory.iterdir())
    assert files == sorted(path.name for path in folder.iterdir())
    for file in files:
        assert (delivered.directory / file).read_bytes() == (folder / file).read_bytes()


def wait_for(holds: Callable[[], bool]) -> None:
    """Until a condition holds."""
    end_s = time.monotonic() + PATIENT_S
    while not holds():
        assert time.monotonic() < end_s, "it did not come about in time"
        time.sleep(0.01)

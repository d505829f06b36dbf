"""A server of a store in a thread, and a proxy in front of it that spoils what it passes on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from experiments.artifact_store import Store
from experiments.serve import listen, make_server, url_of
from experiments.serve_app import ServeLimits, make_app

TOKEN = "a-token-of-the-tests-0123456789"


@contextlib.contextmanager
def serving(
    store: Store, *, token: str | None = TOKEN, limits: ServeLimits | None = None
) -> Iterator[str]:
    """A server on a free loopback port; yields its URL."""
    listener = listen("127.0.0.1", 0)
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
        pause_s: float = 0.0,
        piece_bytes: int = 65_536,
        does_cut_requests: bool = False,
    ) -> None:
        """Start.

        Args:
            cut_after_bytes: by the number of the connection, from 0: after how many bytes to close
                it; None never.
            spoil: applied to each piece passed on to the client.
            pause_s, piece_bytes: how slowly it is passed on.
            does_cut_requests: count the bytes of requests instead of those of answers.
        """
        host, port = upstream_url.removeprefix("http://").split(":")
        self._upstream = (host, int(port))
        self._cut_after_bytes = cut_after_bytes
        self._spoil = spoil
        self._pause_s = pause_s
        self._piece_bytes = piece_bytes
        self._does_cut_requests = does_cut_requests
        self._listener = listen("127.0.0.1", 0)
        self.url = url_of(self._listener)
        self.connections = 0
        self.sent_bytes = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *unused: object) -> None:
        # close() alone would leave the thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                limit = self._cut_after_bytes(self.connections)
                self.connections += 1
                upstream = socket.create_connection(self._upstream)
                limits = (limit, None) if self._does_cut_requests else (None, limit)
                for source, target, most, is_answer in (
                    (client, upstream, limits[0], False),
                    (upstream, client, limits[1], True),
                ):
                    threading.Thread(
                        target=self._pass_on, args=(source, target, most, is_answer), daemon=True
                    ).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, limit: int | None, is_answer: bool
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(self._piece_bytes if is_answer else 65_536):
                if is_answer:
                    data = self._spoil(data)
                    time.sleep(self._pause_s)
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

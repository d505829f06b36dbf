"""Serve a store over HTTP, so that calls fetch their settings and models when they are set up.

    python -m experiments.serve --store STORE
    python -m experiments.serve --store STORE --token-file TOKEN --port 8600

It listens on the loopback address, and nobody can write, unless told otherwise. A token for writers
comes from a file or from the environment variable BWE_STORE_TOKEN, never from the command line,
which other users of the machine can read. There is no TLS here: before other machines are let in
(`--host`), put a proxy with TLS in front, or the token travels in the clear.

Ctrl-C or SIGTERM ends it: requests under way are finished, streams of events are closed.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bwe_env.errors import ConfigError
from experiments.artifact_store import Store
from experiments.cli import run_command

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

LOG = logging.getLogger("experiments.serve")

TOKEN_VARIABLE = "BWE_STORE_TOKEN"
#: Shortest token, characters. 22 of base64 are 128 bits, the least that RFC 6749 §10.10 asks for.
MIN_TOKEN_CHARACTERS = 22
#: Connections at a time; each may hold one body. Ours.
MAX_CONNECTIONS = 256
#: For requests under way when the server is told to stop, seconds. Ours.
SHUTDOWN_S = 5


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve a store over HTTP."""

    store: Path
    """folder of the store; made by experiments.store"""
    host: str = "127.0.0.1"
    """address to listen on; any but a loopback address lets other machines in"""
    port: int = 8600
    """0 takes a free one, which is printed"""
    token_file: Path | None = None
    """file with the token of writers; without it and BWE_STORE_TOKEN the server is read-only"""
    until_input_ends: bool = False
    """end, too, when the standard input does: with the program that holds its other end"""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"--port {self.port} must be within 0..65535; 0 takes a free one.")


def read_token(path: Path | None) -> str | None:
    """The token of writers: from the file, else from the environment, else none.

    Raises:
        ConfigError: the file cannot be read, others can read it, or the token is too short.
    """
    if path is None:
        token, origin = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if token is None:
            return None
    else:
        token, origin = _token_of_file(path), str(path)
    token = token.strip()
    if len(token) < MIN_TOKEN_CHARACTERS or not all("!" <= character <= "~" for character in token):
        raise ConfigError(
            f"the token of {origin} must be at least {MIN_TOKEN_CHARACTERS} visible ASCII "
            'characters. Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return token


def _token_of_file(path: Path) -> str:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"other users can read or write {path}. Mend it: chmod 600 {path}")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path} cannot be read: {error}.") from error


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that the port is known before the server runs.

    Raises:
        ConfigError: the address is not one of this machine, or taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}. Give an address of this "
            "machine and a free port; --port 0 finds one."
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where clients of this machine reach the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: Starlette) -> uvicorn.Server:
    """The server around the application; `run` it with sockets, end it by `should_exit`."""
    import uvicorn

    from experiments.serve_protocol import PunctualProtocol

    class StoreServer(uvicorn.Server):
        """Ends the streams of events first, for which it would wait otherwise."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.feed.close()
            await super().shutdown(sockets)

    return StoreServer(
        uvicorn.Config(
            app,
            # One parser whatever else is installed: what it refuses is tested.
            http=PunctualProtocol,
            ws="none",
            lifespan="off",
            access_log=False,  # `serve_requests.RequestLog` writes the line
            log_config=None,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )


def _end_with_input(server: uvicorn.Server) -> None:
    """Tell a server to stop once nobody holds the other end of the standard input any more."""

    def wait() -> None:
        # Not sys.stdin.read(): it would hold a lock that Python wants when it ends otherwise.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        server.should_exit = True

    threading.Thread(target=wait, name="wait for the end of the input", daemon=True).start()


def _set_up_log() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    # What the store refuses is quoted in the line of the request.
    logging.getLogger("experiments.refusals").setLevel(logging.ERROR)
    # Starting and stopping are told here; what clients do to HTTP, at level WARNING, stays.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _warn_of_strangers(host: str, *, has_token: bool) -> None:
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        danger = "read the store, and see the token in the clear" if has_token else "read the store"
        LOG.warning("listening on %s: other machines can %s.", host, danger)


def serve(config: ServeConfig) -> int:
    """Run the command; returns its exit code once the server was told to stop."""
    try:
        from experiments.serve_app import make_app
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'serving needs {error.name}. Install it: pip install -c constraints.txt -e ".[serve]"'
        ) from error
    store = Store(config.store, create=False)
    token = read_token(config.token_file)
    listener = listen(config.host, config.port)
    _set_up_log()
    _warn_of_strangers(config.host, has_token=token is not None)
    server = make_server(make_app(store, token=token))

    def stop(number: int, frame: object) -> None:
        # Before the server runs; afterwards it raises the signal again, which is no failure.
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    if config.until_input_ends:
        _end_with_input(server)
    mode = "read-only" if token is None else "writable with the token"
    print(f"serving {config.store} at {url_of(listener)} ({mode})", flush=True)
    server.run(sockets=[listener])
    print("stopped", flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.serve``."""
    return run_command(serve, ServeConfig, module="experiments.serve", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

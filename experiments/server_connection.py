"""One client's connection to a server: requests out, bounded answers in, an end in sight.

Nothing here knows what the answers mean (`experiments.remote_store` does).
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from bwe_env.errors import BweEnvError, ConfigError
from experiments.artifact_store import ABSENT
from experiments.canonical_json import parse_json
from experiments.refusals import ArtifactRefused, BlobsLackingError, ReferenceChangedError

if TYPE_CHECKING:
    import httpx

#: The longest wait for one connection, or for the next piece of an answer, seconds. Ours.
OPERATION_TIMEOUT_S = 30.0
#: Answers that are neither blobs nor manifests: a reference, an error, a list of digests. Ours.
MAX_ANSWER_BYTES = 2**20
#: What is quoted of an error that a server sent, characters. Ours.
QUOTED_CHARACTERS = 300


class ServerError(BweEnvError, RuntimeError):
    """A server did not give what it was asked for."""


class ServerAwayError(ServerError):
    """No answer, half of one, or one that says to come back later: worth another try."""


class ServerRefusedError(ServerError):
    """The server understood, and will not: another try would end the same way.

    Attributes:
        status: HTTP status code, 400..499.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerAnswerError(ServerError):
    """An answer that no store gives: other bytes than asked for, or no sense."""


class Deadline:
    """When something has to be over; another thread may end it sooner."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._end_s = time.monotonic() + seconds
        self._is_cancelled = threading.Event()

    def cancel(self) -> None:
        """Let the time be up now."""
        self._is_cancelled.set()

    def left_s(self) -> float:
        """Seconds that are left, > 0.

        Raises:
            ServerAwayError: none are.
        """
        left_s = self._end_s - time.monotonic()
        if left_s <= 0 or self._is_cancelled.is_set():
            raise ServerAwayError("there is no time left for it")
        return left_s


class ServerConnection:
    """Requests to one server, one after the other. Any thread may `close` it.

    Attributes:
        received_bytes: of bodies, so far; without HTTP's own lines.
    """

    def __init__(self, url: str, *, token: str | None, deadline: Deadline) -> None:
        self.received_bytes = 0
        self.deadline = deadline
        self.url = url.rstrip("/")
        self._http = _make_client(self.url, token)
        self._is_closed = False
        self._stream: Any = None  # httpcore's NetworkStream of the request under way

    def close(self) -> None:
        """End the connection, also under a request of another thread."""
        self._is_closed = True
        stream = self._stream
        if stream is not None:
            # A thread that waits for this socket wakes up only if it is shut down, not closed.
            with contextlib.suppress(OSError, AttributeError):
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._http.close()

    @contextlib.contextmanager
    def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        also: Collection[int] = (),
    ) -> Iterator[httpx.Response]:
        """Send a request, and have its answer while it arrives.

        Args:
            also: status codes that are answers too, besides 200 and 201.

        Raises:
            ServerError: no answer, or another status.
            BlobsLackingError: 409; ReferenceChangedError: 412.
        """
        import httpx

        timeout_s = min(OPERATION_TIMEOUT_S, self.deadline.left_s())
        try:
            with self._http.stream(
                method, self.url + path, headers=headers, content=content, timeout=timeout_s
            ) as response:
                self._stream = response.extensions.get("network_stream")
                if self._is_closed:  # before there was a stream to shut down
                    raise ServerAwayError(f"the connection to {self.url} was closed here")
                if response.status_code not in (200, 201, *also):
                    raise self._refusal(response)
                yield response
        except httpx.TimeoutException as error:
            message = f"{self.url} was silent for {timeout_s:.1f} s"
            raise ServerAwayError(message) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            message = f"{self.url} is away ({type(error).__name__}: {error})"
            raise ServerAwayError(message) from error
        finally:
            self._stream = None

    def send(self, path: str, content: bytes, *, headers: dict[str, str] | None = None) -> None:
        """PUT, and read the answer.

        Raises:
            ServerError, BlobsLackingError, ReferenceChangedError: the server did not take it.
        """
        with self.exchange("PUT", path, headers=headers, content=content) as response:
            self.read(response, MAX_ANSWER_BYTES)

    def _refusal(self, response: httpx.Response) -> Exception:
        """What a status that is no answer means."""
        status = response.status_code
        try:
            said = str(self.json(response).get("error", ""))[:QUOTED_CHARACTERS]
        except ServerAnswerError:
            said = "without a message"
        message = f"{self.url} answered {status}: {said}"
        if status == 409:
            return BlobsLackingError("manifest", message, "must be sent after its blobs")
        if status == 412:
            now = response.headers.get("ETag", "").strip('"') or ABSENT
            return ReferenceChangedError("reference", now, "is not what it was expected to be")
        if 400 <= status < 500 and status != 408:
            return ServerRefusedError(message, status)
        return ServerAwayError(message) if status >= 500 else ServerAnswerError(message)

    def pieces(self, response: httpx.Response) -> Iterator[bytes]:
        """A body as it arrives; as sent, so that nothing is unpacked into more than it was."""
        for piece in response.iter_raw():
            self.deadline.left_s()
            self.received_bytes += len(piece)
            yield piece

    def read(self, response: httpx.Response, limit_bytes: int) -> bytes:
        """A body of at most `limit_bytes`."""
        body = bytearray()
        for piece in self.pieces(response):
            body += piece
            if len(body) > limit_bytes:
                raise ServerAnswerError(f"an answer is longer than {limit_bytes} bytes")
        return bytes(body)

    def json(self, response: httpx.Response) -> dict[str, Any]:
        """A short body that is a JSON object."""
        return parsed_answer(self.read(response, MAX_ANSWER_BYTES))


def _make_client(url: str, token: str | None) -> httpx.Client:
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"asking a server needs {error.name}. Install it: pip install -c constraints.txt "
            '-e ".[serve]"'
        ) from error
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{url!r} is no URL ({error}); give http://HOST:PORT.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{url!r} is no URL of a server; give http://HOST:PORT.")
    headers = {"Accept-Encoding": "identity", "User-Agent": "bwe-env"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    # The store is asked directly: no proxy of the environment, no passwords of ~/.netrc, no
    # redirects. Loading certificates takes tens of milliseconds, for which plain HTTP has no use.
    return httpx.Client(headers=headers, trust_env=False, verify=parsed.scheme == "https")


def parsed_answer(data: bytes) -> dict[str, Any]:
    """An answer as a JSON object.

    Raises:
        ServerAnswerError: it is none.
    """
    try:
        content = parse_json(data)
    except ArtifactRefused as error:
        raise ServerAnswerError(f"an answer is no JSON: {data[:80]!r}") from error
    if not isinstance(content, dict):
        raise ServerAnswerError(f"an answer is no JSON object: {data[:80]!r}")
    return content

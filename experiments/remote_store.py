"""A store behind a server (`experiments.serve`): requests out, checked answers in.

It has the methods of `Store` that `experiments.transfer` needs, so that artifacts are sent to a
server as they are copied between folders. Whatever the server answers, nothing is handed on that
does not have the digest it was asked for, and nothing larger than announced is read.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from experiments.artifact_store import ABSENT, check_reference
from experiments.canonical_json import MAX_JSON_BYTES, canonical_json
from experiments.manifest import MAX_BLOB_BYTES, Chunk, check_digest, digest_of
from experiments.server_connection import (
    MAX_ANSWER_BYTES,
    Deadline,
    ServerAnswerError,
    ServerAwayError,
    ServerConnection,
    ServerRefusedError,
    parsed_answer,
)
from experiments.signing import Signature

if TYPE_CHECKING:
    import httpx

#: Digests in one request; half of what a server takes (`serve_app.ServeLimits`). Ours.
DIGESTS_PER_REQUEST = 5_000
#: Signatures beside one manifest are some 300 bytes each. Ours.
MAX_SIGNATURES = 1_000


class RemoteStore:
    """One connection to one server. Not for several threads at once, but any may `close` it.

    Attributes:
        sent_bytes: of blobs, manifests and signatures.
        sent_blobs: how many blobs.
        unfinished: the blob that the last `read_blobs` or `read_rest` did not read to its end.
    """

    def __init__(
        self, url: str, *, token: str | None = None, deadline: Deadline | None = None
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the server, ``http://HOST:PORT``.
            token: that of its writers.
            deadline: of everything that is asked here.

        Raises:
            ConfigError: no such URL can be, or a package is missing.
        """
        self.sent_bytes = 0
        self.sent_blobs = 0
        self.unfinished: tuple[Chunk, bytes] | None = None
        self._connection = ServerConnection(url, token=token, deadline=deadline or Deadline())

    def __enter__(self) -> RemoteStore:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, also under a request of another thread."""
        self._connection.close()

    @property
    def received_bytes(self) -> int:
        """Bodies that came so far; without HTTP's own lines."""
        return self._connection.received_bytes

    # -- references

    def changed_reference(self, name: str, known: str | None) -> str | None:
        """The digest of a reference; None if it still is the one that is known.

        Raises:
            ServerError: the server is away, has no such reference, or answers nonsense.
        """
        headers = {"If-None-Match": f'"{known}"'} if known else {}
        path = f"/refs/{check_reference(name)}"
        with self._connection.exchange(
            "GET", path, headers=headers, also=(304,) if known else ()
        ) as response:
            if response.status_code == 304:
                return None
            return _digest_in(self._connection.json(response), name)

    def set_ref(self, name: str, digest: str, *, expected: str) -> None:
        """Let a reference name another artifact.

        Args:
            expected: the digest it has to have until now, or `ABSENT`.

        Raises:
            ReferenceChangedError: it is something else by now.
            ServerError: any other failure.
        """
        if expected == ABSENT:
            condition = {"If-None-Match": "*"}
        else:
            condition = {"If-Match": f'"{expected}"'}
        content = canonical_json({"digest": digest})
        self._connection.send(f"/refs/{check_reference(name)}", content, headers=condition)

    def follow(self, name: str) -> Generator[str, None, None]:
        """Every digest of a reference from now on, the present one first.

        Ends with `ServerAwayError` when the server stops, and with any `ServerError`.
        """
        with self._connection.exchange("GET", f"/refs/{check_reference(name)}/events") as response:
            line = b""
            for piece in self._connection.pieces(response):
                *lines, line = (line + piece).split(b"\n")
                if len(line) > MAX_ANSWER_BYTES:
                    raise ServerAnswerError("a line of events does not end")
                for whole in lines:
                    if whole.startswith(b"data: "):
                        yield _digest_in(parsed_answer(whole[6:]), name)
        raise ServerAwayError(f"{self._connection.url} ended its events")

    # -- artifacts

    def has_manifest(self, digest: str) -> bool:
        """Whether the artifact is visible there."""
        try:
            with self._connection.exchange("HEAD", f"/manifests/{digest}"):
                return True
        except ServerRefusedError as error:
            if error.status == 404:
                return False
            raise

    def manifest_bytes(self, digest: str) -> bytes:
        """A manifest as it is signed, of the digest asked for; not yet checked otherwise."""
        with self._connection.exchange("GET", f"/manifests/{digest}") as response:
            data = self._connection.read(response, MAX_JSON_BYTES)
        return _checked(data, digest, "manifest")

    def put_manifest(self, data: bytes) -> str:
        """Make an artifact visible whose blobs are all there.

        Raises:
            BlobsLackingError: they are not.
            ServerError: any other failure.
        """
        digest = digest_of(data)
        self._connection.send(f"/manifests/{digest}", data)
        self.sent_bytes += len(data)
        return digest

    def signatures(self, digest: str) -> list[Signature]:
        """Those beside a manifest; none where there is no such manifest."""
        try:
            with self._connection.exchange("GET", f"/manifests/{digest}/signatures") as response:
                content = self._connection.json(response)
        except ServerRefusedError as error:
            if error.status == 404:
                return []
            raise
        listed = content.get("signatures")
        if not isinstance(listed, list) or len(listed) > MAX_SIGNATURES:
            raise ServerAnswerError("signatures must be a list")
        return [Signature.from_bytes(canonical_json(item)) for item in listed]

    def put_signature(self, digest: str, signature: Signature) -> None:
        """Put one beside a manifest that is there."""
        data = signature.to_bytes()
        self._connection.send(f"/manifests/{digest}/signatures", data)
        self.sent_bytes += len(data)

    # -- blobs

    def lacking(self, digests: Iterable[str]) -> list[str]:
        """Those of the digests that are no blobs there."""
        lacking: list[str] = []
        for asked in _portions(list(dict.fromkeys(digests))):
            content = canonical_json({"digests": asked})
            with self._connection.exchange("POST", "/lacking", content=content) as response:
                answer = self._connection.json(response).get("lacking")
            if not isinstance(answer, list) or not set(map(str, answer)) <= set(asked):
                raise ServerAnswerError("lacking must be a list of the digests asked about")
            lacking += answer
        return lacking

    def put_blob(self, data: bytes) -> str:
        """Store a blob there."""
        digest = digest_of(data)
        self._connection.send(f"/blobs/{digest}", data)
        self.sent_bytes += len(data)
        self.sent_blobs += 1
        return digest

    def read_blob(self, digest: str) -> bytes:
        """The bytes of a blob, checked."""
        with self._connection.exchange("GET", f"/blobs/{digest}") as response:
            return _checked(self._connection.read(response, MAX_BLOB_BYTES), digest, "blob")

    def read_blobs(self, chunks: Sequence[Chunk]) -> Generator[tuple[Chunk, bytes], None, None]:
        """Blobs in the order given, each checked, as they arrive: one round trip for all.

        Raises:
            ServerError: the blobs before it are good; of the one under way, `unfinished` has what
                there is.
        """
        self.unfinished = None
        for asked in _portions(chunks):
            content = canonical_json({"digests": [chunk.digest for chunk in asked]})
            with self._connection.exchange("POST", "/blobs", content=content) as response:
                yield from self._split(response, asked)

    def read_rest(self, chunk: Chunk, begun: bytes) -> bytes:
        """A blob of which some bytes are here already.

        Raises:
            ServerError: as in `read_blobs`; `ServerAnswerError` also where `begun` was wrong.
        """
        headers = {"Range": f"bytes={len(begun)}-", "If-Range": f'"{chunk.digest}"'}
        path = f"/blobs/{chunk.digest}"
        with self._connection.exchange("GET", path, headers=headers, also=(206,)) as response:
            before = begun if response.status_code == 206 else b""
            [(_, data)] = self._split(response, [chunk], before)
        return data

    def _split(
        self, response: httpx.Response, chunks: Sequence[Chunk], before: bytes = b""
    ) -> Iterator[tuple[Chunk, bytes]]:
        """Cut a body into blobs, whose sizes are known."""
        buffer = bytearray(before)
        pieces = self._connection.pieces(response)
        for chunk in chunks:
            try:
                while len(buffer) < chunk.size_bytes:
                    buffer += next(pieces)
            except StopIteration:
                raise ServerAnswerError(f"the blobs end inside {chunk.digest}") from None
            except Exception:
                self.unfinished = (chunk, bytes(buffer))
                raise
            data = bytes(buffer[: chunk.size_bytes])
            del buffer[: chunk.size_bytes]
            yield chunk, _checked(data, chunk.digest, "blob")
        if buffer or any(pieces):
            raise ServerAnswerError("more bytes came than the blobs have")


def _digest_in(content: dict[str, Any], name: str) -> str:
    if content.get("name") != name:
        raise ServerAnswerError(f"the answer is about {content.get('name')!r}, not {name!r}")
    return check_digest(content.get("digest"), f"reference {name!r}")


def _checked(data: bytes, digest: str, what: str) -> bytes:
    seen = digest_of(data)
    if seen != digest:
        raise ServerAnswerError(f"{what} {digest} came as other bytes, of digest {seen}")
    return data


def _portions(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), DIGESTS_PER_REQUEST):
        yield items[first : first + DIGESTS_PER_REQUEST]

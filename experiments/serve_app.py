"""The store over HTTP: a Starlette application, without a socket or a process of its own.

===============================  ===================================================================
``GET /refs``                    every reference with its digest
``GET /refs/NAME``               one reference; its digest is the entity tag (304 if it is known)
``PUT /refs/NAME``               point it at a manifest, ``{"digest": …}``, with If-Match or
                                 If-None-Match: *, so that nobody's change is lost
``GET /refs/NAME/events``        server-sent events: the digest now, and every later one
``GET|PUT /manifests/DIGEST``    a manifest as its canonical bytes
``GET|PUT …/DIGEST/signatures``  those beside a manifest; PUT adds one
``GET|PUT /blobs/DIGEST``        a blob; GET takes Range
``POST /blobs``                  many blobs, one behind the other, ``{"digests": […]}``: one round
                                 trip at call set-up, however many there are
``POST /lacking``                those of ``{"digests": […]}`` that the store does not hold
===============================  ===================================================================

Errors are ``{"error": message}``. Whatever a client sends, the store changes only by a PUT with the
token, and then only by bytes that have the digest they were sent for.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bwe_env.errors import UnknownNameError
from experiments.artifact_store import ABSENT, Store, check_reference
from experiments.manifest import (
    MAX_BLOB_BYTES,
    MAX_JSON_BYTES,
    ArtifactRefused,
    BlobsLackingError,
    NotInStoreError,
    ReferenceChangedError,
    check_digest,
    digest_of,
)
from experiments.serve_feed import ReferenceFeed
from experiments.serve_http import (
    RequestRefused,
    byte_range,
    check_condition,
    check_token,
    entity_tag,
    is_known,
    range_header,
    unchanging,
)
from experiments.serve_requests import ERROR_HANDLERS, RequestLog, json_object, read_body
from experiments.signing import Signature

R = TypeVar("R")
Endpoint = Callable[[Request], Awaitable[Response]]

BYTES = "application/octet-stream"
#: One signature as JSON has 268 bytes (`experiments.signing`). Ours.
MAX_SIGNATURE_BYTES = 1_000
#: Blobs of an answer are handed over in pieces of at least this size. Ours.
PIECE_BYTES = 256 * 2**10


@dataclass(frozen=True, kw_only=True)
class ServeLimits:
    """What one client may ask of the server. All ours."""

    max_digests: int = 10_000
    """in one POST; a dataset of 600 MB has as many chunks"""
    body_timeout_s: float = 60.0
    """for a whole body; the largest manifest then needs 2.2 Mb/s, the largest blob 0.14 Mb/s"""
    max_followers: int = 64
    """streams of events at a time"""
    poll_s: float = 0.25
    """how soon a reference changed by another process is seen"""
    heartbeat_s: float = 5.0
    """between two signs of life in a stream of events"""

    @property
    def max_json_bytes(self) -> int:
        """A list of `max_digests`, with quotes, comma and space."""
        return 100 + 68 * self.max_digests


async def ask_store(
    function: Callable[..., R], *arguments: Any, at_fault: int = 500, **options: Any
) -> R:
    """A call of the store, which blocks, in a thread.

    Args:
        at_fault: status of a refusal for what the content is: 500 where the store holds it (it is
            damaged), 422 where the client sent it.

    Raises:
        RequestRefused: the store refused.
    """
    try:
        return await run_in_threadpool(function, *arguments, **options)
    except (UnknownNameError, NotInStoreError) as error:
        raise RequestRefused(404, str(error)) from error
    except BlobsLackingError as error:
        raise RequestRefused(409, str(error)) from error
    except ReferenceChangedError as error:
        raise RequestRefused(412, str(error)) from error
    except ArtifactRefused as error:
        # An OSError behind it: the disk is full or broken, which is no fault of the client's.
        status = 507 if isinstance(error.__cause__, OSError) else at_fault
        raise RequestRefused(status, str(error)) from error


class StoreRoutes:
    """The endpoints over one store.

    Args:
        token: what writers must show; without it the server is read-only.
    """

    def __init__(self, store: Store, *, token: str | None, limits: ServeLimits) -> None:
        self.feed = ReferenceFeed(
            self._digest_of, poll_s=limits.poll_s, heartbeat_s=limits.heartbeat_s
        )
        self._store = store
        self._token = token
        self._limits = limits

    def routes(self) -> list[Route]:
        """Paths, methods and endpoints."""
        return [
            _route("/refs", GET=self.list_references),
            _route("/refs/{name}", GET=self.read_reference, PUT=self.write_reference),
            _route("/refs/{name}/events", GET=self.follow_reference),
            _route("/manifests/{digest}", GET=self.read_manifest, PUT=self.write_manifest),
            _route(
                "/manifests/{digest}/signatures",
                GET=self.read_signatures,
                PUT=self.write_signature,
            ),
            _route("/blobs", POST=self.read_blobs),
            _route("/blobs/{digest}", GET=self.read_blob, PUT=self.write_blob),
            _route("/lacking", POST=self.list_lacking),
        ]

    async def list_references(self, request: Request) -> Response:
        """``{"refs": {NAME: DIGEST}}``."""
        return JSONResponse({"refs": await ask_store(self._store.refs)})

    async def read_reference(self, request: Request) -> Response:
        """``{"digest": …, "name": …}``, or 304 for a client that names the digest."""
        name = _checked(check_reference, request.path_params["name"])
        digest = await ask_store(self._store.resolve, name)
        # A reference can change at any time: it may be kept, but not used without asking.
        headers = {"ETag": entity_tag(digest), "Cache-Control": "no-cache"}
        if is_known(request.headers, digest):
            return Response(status_code=304, headers=headers)
        return JSONResponse({"digest": digest, "name": name}, headers=headers)

    async def write_reference(self, request: Request) -> Response:
        """Point a reference at a manifest, if it still is what the writer saw."""
        check_token(request.headers, self._token)
        name = _checked(check_reference, request.path_params["name"])
        body = await self._body(request, self._limits.max_json_bytes)
        digest = _checked(check_digest, json_object(body, {"digest"})["digest"])
        seen = await run_in_threadpool(self._digest_of, name)
        check_condition(request.headers, seen)
        await ask_store(self._store.set_ref, name, digest, expected=seen or ABSENT)
        self.feed.nudge()
        headers = {"ETag": entity_tag(digest)}
        return JSONResponse({"digest": digest, "name": name}, 200 if seen else 201, headers)

    async def follow_reference(self, request: Request) -> Response:
        """Server-sent events; a browser's EventSource and `store_client` read them."""
        name = _checked(check_reference, request.path_params["name"])
        await ask_store(self._store.resolve, name)
        if self.feed.followers >= self._limits.max_followers:
            raise RequestRefused(
                503,
                f"{self.feed.followers} clients follow references, no more may.",
                {"Retry-After": "30"},
            )
        known = request.headers.get("last-event-id")
        return StreamingResponse(
            self.feed.events(name, known),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    async def read_manifest(self, request: Request) -> Response:
        """The canonical bytes of a manifest."""
        digest = _checked(check_digest, request.path_params["digest"])
        data = await ask_store(self._store.manifest_bytes, digest)
        if is_known(request.headers, digest):
            return Response(status_code=304, headers=unchanging(digest))
        return Response(data, 200, unchanging(digest), "application/json")

    async def write_manifest(self, request: Request) -> Response:
        """Take a manifest whose blobs are all there."""
        check_token(request.headers, self._token)
        digest = _checked(check_digest, request.path_params["digest"])
        body = await self._body(request, MAX_JSON_BYTES)
        _check_content(body, digest)
        await ask_store(self._store.put_manifest, body, at_fault=422)
        return JSONResponse({"digest": digest}, 201, unchanging(digest))

    async def read_signatures(self, request: Request) -> Response:
        """``{"signatures": […]}``, each as `experiments.signing` writes it."""
        digest = _checked(check_digest, request.path_params["digest"])
        await ask_store(self._store.manifest_bytes, digest)
        signatures = await ask_store(self._store.signatures, digest)
        return JSONResponse({"signatures": [json.loads(item.to_bytes()) for item in signatures]})

    async def write_signature(self, request: Request) -> Response:
        """Put a signature beside a manifest; whether to trust its key is the reader's decision."""
        check_token(request.headers, self._token)
        digest = _checked(check_digest, request.path_params["digest"])
        body = await self._body(request, MAX_SIGNATURE_BYTES)
        signature = await ask_store(Signature.from_bytes, body, at_fault=422)
        await ask_store(self._store.put_signature, digest, signature, at_fault=422)
        return JSONResponse({"key": signature.key}, 201)

    async def read_blob(self, request: Request) -> Response:
        """A blob or a part of it."""
        digest = _checked(check_digest, request.path_params["digest"])
        # Read whole and verified, also for a part: nothing damaged leaves the store.
        data = await ask_store(self._store.read_blob, digest)
        headers = {**unchanging(digest), "Accept-Ranges": "bytes"}
        if is_known(request.headers, digest):
            return Response(status_code=304, headers=headers)
        asked = range_header(request.headers, digest) if request.method == "GET" else None
        span = byte_range(asked, len(data))
        if span is None:
            return Response(data, 200, headers, BYTES)
        start, stop = span
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return Response(data[start:stop], 206, headers, BYTES)

    async def write_blob(self, request: Request) -> Response:
        """Take a blob, if it has the digest it is sent for."""
        check_token(request.headers, self._token)
        digest = _checked(check_digest, request.path_params["digest"])
        body = await self._body(request, MAX_BLOB_BYTES)
        _check_content(body, digest)
        await ask_store(self._store.put_blob, body, at_fault=422)
        return JSONResponse({"digest": digest}, 201, unchanging(digest))

    async def read_blobs(self, request: Request) -> Response:
        """Many blobs in one answer: their lengths are in the manifest that names them."""
        digests = await self._digests(request)
        if len(set(digests)) < len(digests):
            raise RequestRefused(400, "ask for each blob once; a file may need it more often.")
        lacking = await run_in_threadpool(self._lacking, digests)
        if lacking:
            message = f"{len(lacking)} of {len(digests)} blobs are not here, first {lacking[0]}."
            raise RequestRefused(404, message)
        size_bytes = await run_in_threadpool(self._size_bytes, digests)
        headers = {"Content-Length": str(size_bytes), "Cache-Control": "no-store"}
        return StreamingResponse(self._pieces(digests), 200, headers, BYTES)

    async def list_lacking(self, request: Request) -> Response:
        """``{"lacking": […]}``, in the order asked, once each."""
        digests = await self._digests(request)
        # A writer builds on the answer: what is there is kept for it. A reader changes nothing.
        is_writer = self._token is not None and "authorization" in request.headers
        if is_writer:
            check_token(request.headers, self._token)
        ask = self._store.lacking if is_writer else self._lacking
        return JSONResponse({"lacking": await ask_store(ask, digests)})

    def _lacking(self, digests: list[str]) -> list[str]:
        return [d for d in dict.fromkeys(digests) if not self._store.has_blob(d)]

    def _digest_of(self, name: str) -> str | None:
        """What a reference names now; None where there is none of that name."""
        try:
            return self._store.resolve(name)
        except UnknownNameError:
            return None

    def _size_bytes(self, digests: list[str]) -> int:
        return sum(self._store.blob_path(digest).stat().st_size for digest in digests)

    def _pieces(self, digests: list[str]) -> Iterator[bytes]:
        """The blobs one after the other, small ones together: each piece costs a thread switch."""
        piece = bytearray()
        for digest in digests:
            piece += self._store.read_blob(digest)
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)

    async def _body(self, request: Request, limit_bytes: int) -> bytes:
        return await read_body(request, limit_bytes, timeout_s=self._limits.body_timeout_s)

    async def _digests(self, request: Request) -> list[str]:
        """The digests that a POST asks about."""
        body = await self._body(request, self._limits.max_json_bytes)
        digests = json_object(body, {"digests"})["digests"]
        if not isinstance(digests, list) or len(digests) > self._limits.max_digests:
            raise RequestRefused(
                400, f"digests must be a list of at most {self._limits.max_digests}."
            )
        return [_checked(check_digest, digest) for digest in digests]


def _route(path: str, **endpoints: Endpoint) -> Route:
    """One path and its methods; the answer to any other method then names them all."""

    async def endpoint(request: Request) -> Response:
        # A HEAD is a GET whose body the server leaves out.
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, endpoint, methods=list(endpoints))


def _checked(check: Callable[[Any], str], text: object) -> str:
    """A digest or name that the client sent, if the store's `check` takes it."""
    try:
        return check(text)
    except ArtifactRefused as refusal:
        raise RequestRefused(400, str(refusal)) from refusal


def _check_content(body: bytes, digest: str) -> None:
    """Refuse bytes that are not those they were sent for."""
    seen = digest_of(body)
    if seen != digest:
        raise RequestRefused(
            422,
            f"the {len(body)} bytes have the digest {seen}, not {digest}: they changed on the way, "
            "or belong elsewhere. Send them again.",
        )


def make_app(
    store: Store, *, token: str | None = None, limits: ServeLimits | None = None
) -> Starlette:
    """The application; ``app.state.feed.close()`` ends its streams before it stops.

    Args:
        token: without it nobody can write.
    """
    routes = StoreRoutes(store, token=token, limits=limits or ServeLimits())
    app = Starlette(
        routes=routes.routes(),
        middleware=[Middleware(RequestLog)],
        exception_handlers=ERROR_HANDLERS,
    )
    # A redirect would be built from the Host header, which is the client's.
    app.router.redirect_slashes = False
    app.state.feed = routes.feed
    return app

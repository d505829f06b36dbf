"""What every request to the store goes through: the log, plain paths, bounded bodies, errors.

A body is counted while it arrives, whatever Content-Length says; a
refusal becomes ``{"error": message}``; and the log has exactly one line per request.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bwe_env.units import s_to_ms
from experiments.canonical_json import parse_json
from experiments.refusals import ArtifactRefused
from experiments.serve_http import RequestRefused

LOG = logging.getLogger("experiments.serve")

#: A path that needs no second reading: no escapes, backslashes or empty parts. Digests and names of
#: references are made of fewer letters. Ours.
_PLAIN_PATH = re.compile(rb"/|(/[A-Za-z0-9._-]+)+")
#: Longest message of a refusal kept in the log, characters; some quote what the client sent. Ours.
_LOGGED_CHARACTERS = 400


def check_path(raw_path: bytes) -> None:
    """Refuse what could be read in two ways: ``%2e%2e``, ``//``, ``..``, backslashes.

    Raises:
        RequestRefused: 400, the path is not made of plain names between single slashes.
    """
    parts = raw_path.split(b"/")
    if not _PLAIN_PATH.fullmatch(raw_path) or b".." in parts or b"." in parts:
        raise RequestRefused(
            400,
            f"path {raw_path[:120].decode('ascii', 'replace')!r} is not plain: names of letters, "
            "digits, '.', '_' and '-' between single slashes, without escapes.",
        )


async def read_body(request: Request, limit_bytes: int, *, timeout_s: float) -> bytes:
    """The body, never more than `limit_bytes` of it in memory.

    Raises:
        RequestRefused: 413 it is longer, or says that it will be; 408 it came too slowly; 400 the
            client went away before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:18]) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                if len(body) + len(piece) > limit_bytes:
                    raise _too_large(limit_bytes)
                body += piece
    except TimeoutError:
        message = f"only {len(body)} bytes of the body came within {timeout_s:g} s."
        raise RequestRefused(408, message) from None
    except ClientDisconnect:
        message = f"the connection ended after {len(body)} bytes, inside the body."
        raise RequestRefused(400, message) from None
    return bytes(body)


def _too_large(limit_bytes: int) -> RequestRefused:
    return RequestRefused(413, f"the body is longer than the {limit_bytes} bytes allowed here.")


def json_object(body: bytes, keys: set[str]) -> dict[str, Any]:
    """A body as a JSON object with exactly these keys.

    Raises:
        RequestRefused: 400, it is not.
    """
    try:
        content = parse_json(body)
    except ArtifactRefused as refusal:
        raise RequestRefused(400, f"the body is no JSON for us. {refusal}") from None
    if not isinstance(content, dict) or set(content) != keys:
        wanted = ", ".join(sorted(keys))
        seen = sorted(content)[:10] if isinstance(content, dict) else type(content).__name__
        raise RequestRefused(
            400, f"the body must be a JSON object with exactly: {wanted}. It has {seen!r}."
        )
    return content


class RequestLog:
    """ASGI middleware: one line of the log per request, and plain paths only.

    The line has the client, the request, the status, the bytes and milliseconds, and for a refusal
    its message. It quotes the path as it was sent, which holds no line breaks (RFC 9112 §3).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        line = {"status": 500, "bytes": 0}

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
            line["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._served(scope, receive, counting_send)
        finally:
            self._log(scope, line["status"], line["bytes"], time.perf_counter() - started)

    async def _served(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_path(scope["raw_path"])
        except RequestRefused as refusal:
            response = refusal_response(Request(scope, receive), refusal)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    @staticmethod
    def _log(scope: Scope, status: int, size_bytes: int, seconds: float) -> None:
        client = scope.get("client") or ("?", 0)
        reason = str(scope.get("state", {}).get("refusal", ""))[:_LOGGED_CHARACTERS]
        LOG.log(
            logging.INFO if status < HTTPStatus.BAD_REQUEST else logging.WARNING,
            "%s:%d %s %s %d, %d bytes, %.1f ms%s",
            client[0],
            client[1],
            scope["method"][:20],
            scope["raw_path"][:200].decode("ascii", "replace"),
            status,
            size_bytes,
            s_to_ms(seconds),
            f": {reason}" if reason else "",
        )


def refusal_response(request: Request, refusal: RequestRefused) -> Response:
    """The answer to a request that is not carried out, which the log line then quotes."""
    request.state.refusal = refusal
    headers = dict(refusal.headers)
    if request.method not in ("GET", "HEAD"):
        # The rest of a refused body is not read: the next request could not be told from it.
        headers["Connection"] = "close"
    return JSONResponse({"error": str(refusal)}, refusal.status, headers)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return refusal_response(request, error)


def _not_routed(request: Request, error: Exception) -> Response:
    """No such path, or no such method there."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    if allowed:
        message = f"{request.method[:20]} is not possible here. Allowed: {allowed}."
    else:
        message = (
            "there is nothing under this path. The store has /refs, /refs/NAME, /refs/NAME/events, "
            "/manifests/DIGEST, /blobs, /blobs/DIGEST and /lacking."
        )
    headers = dict(error.headers or {})
    return refusal_response(request, RequestRefused(error.status_code, message, headers))


def _broken(request: Request, error: Exception) -> Response:
    """A fault of ours; the log has the traceback."""
    message = "the server failed at this request; its log says why."
    return refusal_response(request, RequestRefused(500, message))


#: By exception class, as Starlette takes them.
ERROR_HANDLERS: dict[Any, Callable[[Request, Exception], Response]] = {
    RequestRefused: _refused,
    HTTPException: _not_routed,
    Exception: _broken,
}

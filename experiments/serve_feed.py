"""Live references: whoever follows one is told as soon as it names another digest."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool


class ReferenceFeed:
    """The versions of references, for any number of followers in one event loop.

    A write through this server is told at once (`nudge`); one by another process, as of the
    store's command line, within `poll_s`.

    Attributes:
        followers: how many are following now.
    """

    def __init__(
        self, resolve: Callable[[str], str | None], *, poll_s: float, heartbeat_s: float
    ) -> None:
        self.followers = 0
        self._resolve = resolve
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s
        self._changed = asyncio.Event()
        self._is_closed = False

    def nudge(self) -> None:
        """Make every follower look now. Called in the event loop."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End every feed, so that the server can stop. Called in the event loop."""
        self._is_closed = True
        self.nudge()

    async def events(self, name: str, known: str | None) -> AsyncIterator[bytes]:
        """Server-sent events (HTML standard §9.2) of one reference, until `close`.

        Args:
            known: the digest the follower has already (Last-Event-ID), or None.

        Yields:
            ``id: DIGEST``, ``data: {"name": …, "digest": …}`` for every digest that is not the one
            before, and a comment every `heartbeat_s`, by which a follower sees that the server
            lives and the server that a follower has gone.
        """
        self.followers += 1
        try:
            yield b": following\n\n"
            said_s = time.monotonic()
            while not self._is_closed:
                changed = self._changed  # before looking: a change in between is not missed
                digest = await run_in_threadpool(self._resolve, name)
                if digest is not None and digest != known:
                    known, said_s = digest, time.monotonic()
                    yield _event(name, digest)
                elif time.monotonic() - said_s >= self._heartbeat_s:
                    said_s = time.monotonic()
                    yield b": still here\n\n"
                await _wait(changed, self._poll_s)
        finally:
            self.followers -= 1


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event is set, but no longer than `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass


def _event(name: str, digest: str) -> bytes:
    data = json.dumps({"name": name, "digest": digest}, sort_keys=True)
    return f"id: {digest}\ndata: {data}\n\n".encode()

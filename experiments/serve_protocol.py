"""HTTP/1.1 as uvicorn and h11 speak it, without the patience for clients that never ask."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: For the head of a request, seconds from the connection or the answer before. Ours.
HEAD_TIMEOUT_S = 10.0


class PunctualProtocol(H11Protocol):
    """Closes a connection whose next request does not begin in time.

    uvicorn bounds the silence between two requests, not the wait for the first one nor a head that
    comes byte by byte; a few hundred such connections would keep everybody else out.
    """

    head_timeout_s = HEAD_TIMEOUT_S
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect_head()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._expect_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._check, self.cycle)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()

    def _check(self, previous: Any) -> None:
        # Each request has its own cycle: the same one as before means that none has begun.
        if self.cycle is previous and not self.transport.is_closing():
            self.logger.warning("%s sent no request within %g s.", self.client, self.head_timeout_s)
            self.transport.close()

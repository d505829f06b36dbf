"""The newest version of a reference, kept at hand by a thread: calls get it without waiting.

    with ReferenceWatcher(client, "congestion", built_in=Path("shipped/congestion")) as watcher:
        settings = read_settings(watcher.newest().directory)

The server tells of each change (server-sent events), and the files are loaded at once, before a
call needs them. A call that has begun keeps the folder it was given.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path

from bwe_env.errors import BweEnvError
from experiments.manifest import Kind
from experiments.remote_store import RemoteStore
from experiments.server_connection import ServerAwayError
from experiments.store_client import Delivered, StoreClient

_LOG = logging.getLogger(__name__)

#: Pause after the server was away, seconds, and the longest it is doubled to. Ours.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
#: For the thread to end, seconds; one that waits for a new connection ends by itself later. Ours.
JOIN_S = 1.0


class ReferenceWatcher:
    """Follows one reference until it is closed."""

    def __init__(
        self,
        client: StoreClient,
        reference: str,
        *,
        kind: Kind | None = None,
        built_in: Path | None = None,
    ) -> None:
        """Fetch once, and then follow.

        Raises:
            As `StoreClient.fetch`.
        """
        self._client = client
        self._reference = reference
        self._kind = kind
        self._newest = client.fetch(reference, kind=kind, built_in=built_in)
        self._remote: RemoteStore | None = None
        self._has_heard = False
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {reference}", daemon=True)
        self._thread.start()

    def __enter__(self) -> ReferenceWatcher:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def newest(self) -> Delivered:
        """The newest version that is here. Does not wait."""
        return self._newest

    def close(self) -> None:
        """Stop following; `newest` stays what it is."""
        self._is_closed.set()
        if self._remote is not None:
            self._remote.close()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        is_news = True
        while not self._is_closed.is_set():
            self._has_heard = False
            try:
                self._follow()
            except Exception as error:
                self._report(error, is_news=is_news or self._has_heard)
            is_news = False
            pause_s = FIRST_PAUSE_S if self._has_heard else min(2 * pause_s, LONGEST_PAUSE_S)
            self._is_closed.wait(pause_s)

    def _follow(self) -> None:
        """Take every version that the server tells of, until it stops.

        Raises:
            ServerError: it did.
        """
        with RemoteStore(self._client.url) as remote:
            self._remote = remote
            if self._is_closed.is_set():
                return
            with contextlib.closing(remote.follow(self._reference)) as digests:
                for digest in digests:
                    self._has_heard = True
                    if self._is_closed.is_set():
                        return
                    if digest != self._newest.digest or self._newest.source != "server":
                        self._newest = self._client.pull(self._reference, kind=self._kind)
                        _LOG.info("reference %r: now %s", self._reference, self._newest.digest)

    def _report(self, error: Exception, *, is_news: bool) -> None:
        """One warning when the server goes, not one for every attempt to find it again."""
        if self._is_closed.is_set():
            return
        if not isinstance(error, BweEnvError):
            _LOG.error("reference %r: following failed", self._reference, exc_info=error)
        elif is_news or not isinstance(error, ServerAwayError):
            _LOG.warning(
                "reference %r: keeping %s, because %s",
                self._reference,
                self._newest.digest or self._newest.directory,
                error,
            )

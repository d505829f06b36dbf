"""Settings and models at call set-up: the newest of the server, or the best there is, in time.

    client = StoreClient("http://127.0.0.1:8600", Store(Path("cache"), durable=False))
    delivered = client.fetch("congestion", built_in=Path("shipped/congestion"))
    model = load_network_model(delivered.directory)

A call asks the server for what a reference names now, takes over what of it the cache lacks, and
opens nothing that was not checked to the last byte. If the server is away, slow or talks nonsense,
the call begins all the same: with the version of the call before, or with one that came with the
program, and a warning says which and why. `fetch` never takes longer than its deadline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bwe_env.errors import BweEnvError, ConfigError, UnknownNameError
from experiments.artifact_store import Store, check_reference
from experiments.manifest import Chunk, Kind, Manifest
from experiments.partial_blobs import PartialBlobs
from experiments.refusals import ArtifactRefused, BlobsLackingError, refuse
from experiments.remote_store import RemoteStore
from experiments.server_connection import (
    Deadline,
    ServerAnswerError,
    ServerAwayError,
)
from experiments.signing import check_signed
from experiments.store_push import PushReport, push

_LOG = logging.getLogger(__name__)

#: For a whole `fetch`, seconds: less than it takes to answer a call that rings. Ours.
DEFAULT_TIMEOUT_S = 2.0
#: Of that, kept back to hand over the fallback, seconds: 53 ms with 15 processes on 2 cores. Ours.
MARGIN_S = 0.1
#: How often blobs of the cache may turn out damaged while an artifact is put together. Ours.
MAX_REPAIRS = 3


class DeliveryError(BweEnvError, RuntimeError):
    """There is no version at all: none of the server, of the cache, or built in."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A version to use in this call."""

    reference: str
    digest: str | None
    """of its manifest; None for a built-in one, which is no artifact"""
    directory: Path
    """its files, not to be written into"""
    source: Literal["server", "cache", "built-in"]
    """who says that it is the one to use; "server" also where the files were here already"""
    reason: str = ""
    """why the server does not say so; empty where it does"""
    received_bytes: int = 0
    """bodies of answers"""
    received_blobs: int = 0
    seconds: float = 0.0


class _SetUp:
    """One `fetch` while it goes on: written by its thread, read by who waits for it."""

    def __init__(self, reference: str, kind: Kind | None, seconds: float) -> None:
        self.reference = reference
        self.kind = kind
        self.deadline = Deadline(seconds)
        self.cached: Delivered | None = None
        self.newest: Delivered | None = None
        self.reason = f"it took longer than the {seconds:g} s there are"
        self.remote: RemoteStore | None = None
        self.is_over = threading.Event()
        self._is_abandoned = False

    def fail(self, reason: str) -> None:
        """Note why there is no newer version; what breaks because it is abandoned is no reason."""
        if not self._is_abandoned:
            self.reason = reason

    def abandon(self) -> None:
        """Stop loading: from now on the call needs the network for itself."""
        self._is_abandoned = True
        self.deadline.cancel()
        if self.remote is not None:
            self.remote.close()


class StoreClient:
    """Fetches from one server into one cache. Threads and processes may share the cache.

    The cache's references are what this server said last, so that each server needs its own cache.
    """

    def __init__(
        self,
        url: str,
        cache: Store,
        *,
        token: str | None = None,
        trusted_keys: Collection[str] = (),
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Prepare; the server is not asked yet.

        Args:
            url: ``http://HOST:PORT`` of `experiments.serve`.
            cache: a store of this machine; `durable=False` makes a first fetch five times as fast.
            token: to `push`.
            trusted_keys: public keys (`experiments.signing`); if there are any, only what one of
                them signed is used, of the server or of the cache.
            timeout_s: within which `fetch` returns, > 0.2 s.

        Raises:
            ConfigError: no such URL can be, a package is missing, or the time is too short.
        """
        if not timeout_s > 2 * MARGIN_S:
            raise ConfigError(f"timeout_s={timeout_s} must be more than {2 * MARGIN_S:g} s.")
        RemoteStore(url).close()  # a mistake in the URL is found before a call needs it
        self.url = url
        self.cache = cache
        self.timeout_s = timeout_s
        self._token = token
        self._trusted = frozenset(trusted_keys) or None
        self._checkouts = cache.root / "checkouts"
        self._partial = PartialBlobs(cache)

    def fetch(
        self, reference: str, *, kind: Kind | None = None, built_in: Path | None = None
    ) -> Delivered:
        """The version to use in a call that is being set up, within `timeout_s`.

        Args:
            reference: name on the server.
            kind: what it has to be; None takes any.
            built_in: a folder to use if there is nothing else.

        Raises:
            ArtifactRefused: no reference has such a name.
            ConfigError: `built_in` is no folder.
            DeliveryError: neither the server, nor the cache, nor `built_in` has anything.
        """
        started_s = time.perf_counter()
        check_reference(reference)
        if built_in is not None and not built_in.is_dir():
            raise ConfigError(f"built_in={built_in} is no folder; give one that ships with you.")
        set_up = _SetUp(reference, kind, self.timeout_s - MARGIN_S)
        # A thread, because no timeout of a socket bounds a name service, a disk, or an answer
        # that comes byte by byte.
        name = f"fetch {reference}"
        threading.Thread(target=self._run, args=(set_up,), name=name, daemon=True).start()
        if not set_up.is_over.wait(self.timeout_s - MARGIN_S):
            set_up.abandon()
        chosen = set_up.newest or _fallback(set_up, built_in)
        return replace(chosen, seconds=time.perf_counter() - started_s)

    def pull(self, reference: str, *, kind: Kind | None = None) -> Delivered:
        """The newest version, however long it takes, or an error: for datasets, and for watchers.

        Raises:
            ServerError: the server is away, or answers nonsense.
            ArtifactRefused: what it has is refused.
        """
        started_s = time.perf_counter()
        set_up = _SetUp(check_reference(reference), kind, float("inf"))
        set_up.cached = self._cached(set_up)
        return replace(self._newest(set_up), seconds=time.perf_counter() - started_s)

    def push(
        self,
        what: str | Path,
        reference: str,
        *,
        kind: Kind | None = None,
        architecture: str = "",
        metadata: Mapping[str, Any] | None = None,
        expected: str | None = None,
    ) -> PushReport:
        """Send an artifact, only what the server lacks of it, and let the reference name it.

        Args:
            what: digest of an artifact of the cache, or a folder to add to it first.
            kind, architecture, metadata: of a folder, as for `Store.add`.
            expected: what the reference has to name until now (`artifact_store.ABSENT`: nothing);
                None for what it names when the push begins.

        Raises:
            ServerError: interrupted for good; what arrived stays, and another push goes on there.
            ReferenceChangedError: somebody else changed the reference; it is theirs.
            ArtifactRefused: the artifact is refused, here or there.
        """
        if isinstance(what, Path):
            if kind is None:
                raise ConfigError("pushing a folder needs its kind and architecture.")
            what = self.cache.add(what, kind=kind, architecture=architecture, metadata=metadata)
        with RemoteStore(self.url, token=self._token) as remote:
            return push(self.cache, remote, what, reference, expected=expected)

    def tidy(self, grace_s: float) -> None:
        """Delete from the cache what no reference names and no call got for `grace_s` seconds."""
        self.cache.collect_garbage(grace_s)
        oldest_s = time.time() - grace_s
        named = set(self.cache.refs().values())
        for folder in self._checkouts.glob("*"):
            if folder.name not in named and folder.stat().st_mtime <= oldest_s:
                shutil.rmtree(folder)
        self._partial.drop_older(oldest_s)

    # -- in the thread of a set-up

    def _run(self, set_up: _SetUp) -> None:
        try:
            set_up.cached = self._cached(set_up)
            set_up.newest = self._newest(set_up)
        except BweEnvError as error:
            set_up.fail(str(error))
        except Exception as error:
            # A call must begin whatever a server does to us; the traceback is for whoever mends it.
            _LOG.exception("reference %r: the set-up failed", set_up.reference)
            set_up.fail(f"{type(error).__name__}: {error}")
        finally:
            set_up.is_over.set()

    def _cached(self, set_up: _SetUp) -> Delivered | None:
        """The version of the call before, checked to the last byte; None if there is none."""
        try:
            digest = self.cache.resolve(set_up.reference)
            return self._checked_out(set_up, digest, "cache")
        except UnknownNameError:
            return None
        except ArtifactRefused as error:
            _LOG.warning("reference %r: the cache is of no use: %s", set_up.reference, error)
            return None

    def _newest(self, set_up: _SetUp) -> Delivered:
        """What the server names, in the cache and checked out."""
        cached = set_up.cached
        with RemoteStore(self.url, deadline=set_up.deadline) as remote:
            set_up.remote = remote
            known = None if cached is None else cached.digest
            digest = remote.changed_reference(set_up.reference, known)
            if cached is not None and digest in (None, cached.digest):
                newest, blobs = replace(cached, source="server"), 0
            else:
                assert digest is not None
                blobs = self._obtain(remote, digest)
                newest = self._checked_out(set_up, digest, "server")
                self.cache.set_ref(set_up.reference, digest)
            return replace(newest, received_bytes=remote.received_bytes, received_blobs=blobs)

    def _checked_out(
        self, set_up: _SetUp, digest: str, source: Literal["server", "cache"]
    ) -> Delivered:
        """The files of an artifact of the cache, each byte checked now.

        Raises:
            ArtifactRefused: damaged, not signed by a trusted key, or of another kind.
        """
        _check_kind(self.cache.manifest(digest), set_up)
        directory = self._checkouts / digest
        try:
            self.cache.checkout(digest, directory, overwrite=True, trusted=self._trusted)
        except ArtifactRefused:
            # Once more: another process may just have made the folder.
            self.cache.checkout(digest, directory, overwrite=True, trusted=self._trusted)
        os.utime(directory)  # young again for `tidy`
        return Delivered(
            reference=set_up.reference, digest=digest, directory=directory, source=source
        )

    def _obtain(self, remote: RemoteStore, digest: str) -> int:
        """Bring an artifact into the cache; returns how many blobs came.

        Raises:
            ServerError: it did not come whole; what came stays for the next time.
            ArtifactRefused: it is refused.
        """
        data = remote.manifest_bytes(digest)
        manifest = Manifest.from_bytes(data)
        signatures = remote.signatures(digest) if self._trusted else []
        if self._trusted:
            check_signed(data, signatures, self._trusted)
        chunks = {chunk.digest: chunk for chunk in manifest.chunks()}
        count = 0
        for _ in range(MAX_REPAIRS):
            lacking = self.cache.lacking(chunks)
            self._download(remote, {digest: chunks[digest] for digest in lacking})
            count += len(lacking)
            # Lacking again: blobs of the cache were damaged, and have been set aside.
            with contextlib.suppress(BlobsLackingError):
                self.cache.put_manifest(data)
                break
        for signature in signatures:
            self.cache.put_signature(digest, signature)
        return count

    def _download(self, remote: RemoteStore, chunks: dict[str, Chunk]) -> None:
        """Get blobs, and go on after a cut as long as each attempt brings something."""
        while chunks:
            before_bytes = remote.received_bytes
            try:
                self._download_once(remote, chunks)
            except ServerAwayError as error:
                if remote.unfinished is not None:
                    self._partial.save(*remote.unfinished)
                if remote.received_bytes == before_bytes:
                    raise
                _LOG.info("%s; %d blobs to go", error, len(chunks))

    def _download_once(self, remote: RemoteStore, chunks: dict[str, Chunk]) -> None:
        """Get blobs, and take those that came out of `chunks`."""
        for chunk in list(chunks.values()):
            begun = self._partial.load(chunk)
            if begun:
                # Wrong beginnings are found out now, and must not be found a second time.
                with contextlib.suppress(ServerAnswerError):
                    self.cache.put_blob(remote.read_rest(chunk, begun))
                    del chunks[chunk.digest]
                self._partial.drop(chunk)
        with contextlib.closing(remote.read_blobs(list(chunks.values()))) as blobs:
            for chunk, data in blobs:
                self.cache.put_blob(data)
                del chunks[chunk.digest]


def _check_kind(manifest: Manifest, set_up: _SetUp) -> None:
    if set_up.kind is not None and manifest.kind != set_up.kind:
        refuse(f"reference {set_up.reference!r}", manifest.kind, f"must be a {set_up.kind}")


def _fallback(set_up: _SetUp, built_in: Path | None) -> Delivered:
    """What to use without the server, with a warning that says so.

    Raises:
        DeliveryError: there is nothing.
    """
    chosen = set_up.cached
    if chosen is None and built_in is not None:
        chosen = Delivered(
            reference=set_up.reference, digest=None, directory=built_in, source="built-in"
        )
    if chosen is None:
        raise DeliveryError(
            f"reference {set_up.reference!r}: {set_up.reason}; and the cache has no version. Hand "
            "in a built_in folder, or fetch once while the server is there."
        )
    what = f"cached version {chosen.digest}" if chosen.digest else f"built-in {chosen.directory}"
    _LOG.warning("reference %r: using the %s, because %s", set_up.reference, what, set_up.reason)
    return replace(chosen, reason=set_up.reason)

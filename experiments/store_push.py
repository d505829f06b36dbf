"""An artifact from a store of this machine to a server, where a reference names it from then on."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from experiments.artifact_store import ABSENT, Store
from experiments.refusals import ReferenceChangedError
from experiments.remote_store import RemoteStore
from experiments.server_connection import ServerAwayError, ServerRefusedError
from experiments.transfer import transfer

_LOG = logging.getLogger(__name__)

#: Attempts while the connection keeps ending; the pause before the second, then doubled. Ours.
MAX_ATTEMPTS = 4
PAUSE_S = 0.2


@dataclass(frozen=True, kw_only=True)
class PushReport:
    """What a push cost."""

    digest: str
    reference: str
    replaced: str | None
    """what the reference named before; None for nothing"""
    sent_bytes: int
    """blobs, manifest and signatures that the server took"""
    sent_blobs: int
    total_bytes: int
    """what a server that has nothing would have been sent"""
    attempts: int
    seconds: float


def push(
    source: Store, remote: RemoteStore, digest: str, reference: str, *, expected: str | None
) -> PushReport:
    """See `StoreClient.push`."""
    started_s = time.perf_counter()
    attempts = 0
    while True:
        attempts += 1
        try:
            if expected is None:
                expected = _named_now(remote, reference)
            total_bytes = transfer(source, remote, digest).bytes_total
            _name(remote, reference, digest, expected)
            break
        except ServerAwayError as error:
            if attempts == MAX_ATTEMPTS:
                raise
            _LOG.warning("push of %s: %s; trying again", digest, error)
            time.sleep(PAUSE_S * 2 ** (attempts - 1))
    return PushReport(
        digest=digest,
        reference=reference,
        replaced=None if expected == ABSENT else expected,
        sent_bytes=remote.sent_bytes,
        sent_blobs=remote.sent_blobs,
        total_bytes=total_bytes,
        attempts=attempts,
        seconds=time.perf_counter() - started_s,
    )


def _named_now(remote: RemoteStore, reference: str) -> str:
    """What the reference names on the server, or `ABSENT`."""
    try:
        return remote.changed_reference(reference, None) or ABSENT
    except ServerRefusedError as error:
        if error.status == 404:
            return ABSENT
        raise


def _name(remote: RemoteStore, reference: str, digest: str, expected: str) -> None:
    """Change the reference, unless it is as wanted."""
    if expected == digest:
        return
    try:
        remote.set_ref(reference, digest, expected=expected)
    except ReferenceChangedError as error:
        # The answer to an earlier attempt of ours may have been lost on its way.
        if error.seen != digest:
            raise

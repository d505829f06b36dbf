"""How a store says no: what was seen, what is allowed, and a line in the log."""

from __future__ import annotations

import logging
import reprlib
from typing import NoReturn

from bwe_env.errors import ArtifactError

_LOG = logging.getLogger(__name__)
# A command line tells its user once; a server says where its log goes.
_LOG.addHandler(logging.NullHandler())

#: Characters of one text in a value that a message repeats; of the whole value twice as many. Ours.
SHOWN_CHARACTERS = 100


class ArtifactRefused(ArtifactError):  # noqa: N818 - reads as what happened: "was refused"
    """Content that a store does not take, or does not hand out.

    Attributes:
        where: the path or field at fault.
        seen: the value found there.
        allowed: what it must be, a clause.
        remedy: what to do next, a sentence; may be empty.
    """

    def __init__(self, where: str, seen: object, allowed: str, remedy: str = "") -> None:
        super().__init__(where, seen, allowed, remedy)
        self.where = where
        self.seen = seen
        self.allowed = allowed
        self.remedy = remedy

    def __str__(self) -> str:
        where = self.where[: 2 * SHOWN_CHARACTERS]
        text = f"{where} refused: {_short(self.seen)} {self.allowed}."
        return f"{text} {self.remedy}" if self.remedy else text


class NotInStoreError(ArtifactRefused):
    """A digest that a store does not hold."""


class BlobsLackingError(ArtifactRefused):
    """A manifest whose blobs are not all there; `seen` are the digests to send first."""


class ReferenceChangedError(ArtifactRefused):
    """A reference that is no longer what the caller expected; `seen` is what it is now."""


def refuse(
    where: str,
    seen: object,
    allowed: str,
    remedy: str = "",
    *,
    error: type[ArtifactRefused] = ArtifactRefused,
    cause: BaseException | None = None,
) -> NoReturn:
    """Write the refusal into the log and raise it.

    Raises:
        ArtifactRefused: always; of the class `error`.
    """
    refusal = error(where, seen, allowed, remedy)
    _LOG.warning("%s", refusal)
    raise refusal from cause


def _short(value: object) -> str:
    """A value as one line of bounded length, whatever somebody sent."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = shortened.maxlong = SHOWN_CHARACTERS
    text = shortened.repr(value)
    return text if len(text) <= 2 * SHOWN_CHARACTERS else text[: 2 * SHOWN_CHARACTERS] + "…"

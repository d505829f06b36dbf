"""What reading any recording can end in, as one message."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bwe_env.errors import ConfigError

#: What damaged, cut or foreign files raise while they are unpacked, parsed and translated.
READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    zlib.error,
)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn all that a damaged file raises into a `ConfigError` that names it.

    Args:
        what: the kind of file it should be, such as "a recorded series".
    """
    try:
        yield
    except ConfigError:
        raise
    except READ_ERRORS as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConfigError(f"{path} cannot be read as {what} ({reason}).") from error


def positive_int(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value

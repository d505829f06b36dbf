"""What reading any recording can end in, as one message."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def stats_column(table: Mapping[str, Any], name: str, length: int) -> NDArray[np.float64]:
    """A column of recorded getStats(); one that never changed is stored as a number."""
    values = table[name]
    if not isinstance(values, list):
        values = [values] * length
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

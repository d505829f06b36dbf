"""Random numbers that are a pure function of words: the same on every machine and numpy version.

`numpy.random.Generator` may change its streams between numpy versions (NEP 19); the raw words of a
bit generator may not. So a SHA-256 of the words keys Philox, and only its raw words are used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_TO_UNIT = 1.0 / (1 << 53)

T = TypeVar("T")


def uniforms(count: int, *words: str | int) -> NDArray[np.float64]:
    """`count` uniform doubles in [0, 1) with 53 random bits, keyed by `words`.

    A longer draw begins with the shorter one.
    """
    digest = hashlib.sha256("\0".join(str(word) for word in words).encode()).digest()
    raw = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * _TO_UNIT


def normal_pair(
    u: NDArray[np.float64], v: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two independent standard normals of two independent uniforms each (Box-Muller)."""
    radius = np.sqrt(-2.0 * np.log1p(-u))
    angle = 2.0 * np.pi * v
    return radius * np.cos(angle), radius * np.sin(angle)


def between(bounds: tuple[float, float], u: float) -> float:
    """Uniform between two bounds, of a uniform `u` in [0, 1)."""
    return bounds[0] + (bounds[1] - bounds[0]) * u


def log_between(bounds: tuple[float, float], u: float) -> float:
    """Log-uniform between two bounds > 0, of a uniform `u` in [0, 1)."""
    return bounds[0] * math.exp(math.log(bounds[1] / bounds[0]) * u)


def one_of(values: Sequence[T], u: float) -> T:
    """One of equally likely values, of a uniform `u` in [0, 1)."""
    return values[int(u * len(values))]

"""How long a simulated user talks: a hazard of hanging up that grows as the call gets worse.

Every second the user hangs up with the hazard ``h0 exp(beta (3.5 - MOS))``, MOS being the mean call
score of the last 10 s: one point less on the scale doubles the hazard, and at 3.5 a call would last
ten minutes on average. Both numbers are ours, chosen before any experiment and fixed. That worse
calls end earlier, with proportional hazards, is what measurements of Skype calls found (Chen et
al., "Quantifying Skype user satisfaction", SIGCOMM 2006); their covariates were rates and jitter,
so none of their numbers apply.

A user's patience is one random number per call, a function of the call's key alone: two controllers
on the same network and seed meet the same user. Talk time follows from the score by construction.
It says what a difference in score is worth, and is no further evidence for it.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: h0, hazard of hanging up at a score of `NEUTRAL_MOS`, 1/s. Ours.
BASE_HAZARD_PER_S = 1.0 / 600.0
#: beta: how much a point of the score matters. Ours.
HAZARD_PER_MOS = math.log(2.0)
NEUTRAL_MOS = 3.5
#: What the user remembers. Ours.
MEMORY_S = 10.0


def patience(key: int) -> float:
    """Cumulative hazard at which the user of the call with this key hangs up: exponential, mean 1.

    Returns:
        More than 0, at most 36.8.
    """
    digest = hashlib.sha256(f"bwe_env user\n{key}".encode()).digest()
    share = (int.from_bytes(digest[:8], "little") >> 11) + 0.5
    return -math.log(share / (1 << 53))


def hazard_per_s(scores: ArrayLike, second_s: float) -> NDArray[np.float64]:
    """Hazard during each second, from the mean score of the seconds that are remembered.

    Args:
        scores: shape (..., seconds), MOS.
        second_s: length of each.
    """
    values = np.asarray(scores, dtype=np.float64)
    count = max(1, round(MEMORY_S / second_s))
    sums = np.cumsum(values, axis=-1)
    earlier = np.zeros_like(sums)
    earlier[..., count:] = sums[..., :-count]
    remembered = np.minimum(count, 1 + np.arange(values.shape[-1]))
    means = (sums - earlier) / remembered
    hazard: NDArray[np.float64] = BASE_HAZARD_PER_S * np.exp(HAZARD_PER_MOS * (NEUTRAL_MOS - means))
    return hazard


def talk_time_s(
    scores: ArrayLike, second_s: float, *, keys: ArrayLike, end_s: ArrayLike
) -> NDArray[np.float64]:
    """How long each call is talked on.

    Args:
        scores: call score of each second, shape (calls, seconds).
        second_s: length of each.
        keys: of the calls, shape (calls,).
        end_s: when each dropped, or its scheduled length, shape (calls,). What is left of a last,
            unscored second keeps the hazard of the one before.

    Returns:
        Shape (calls,), 0 to `end_s`.
    """
    hazard = hazard_per_s(scores, second_s)
    hazard = np.concatenate([hazard, hazard[:, -1:]], axis=1)
    reached = np.cumsum(hazard * second_s, axis=1)
    wanted = np.array([patience(int(key)) for key in np.asarray(keys)])[:, None]
    hangs_up = reached >= wanted
    second = np.argmax(hangs_up, axis=1)[:, None]
    over = np.take_along_axis(reached, second, axis=1) - wanted
    at_s = (second + 1) * second_s - over / np.take_along_axis(hazard, second, axis=1)
    talked_s = np.where(hangs_up.any(axis=1), at_s[:, 0], np.inf)
    result: NDArray[np.float64] = np.minimum(talked_s, np.asarray(end_s, dtype=np.float64))
    return result

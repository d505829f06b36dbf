"""Actions: one number in [-1, 1] per call and decision interval.

Mode ``rate``: -1 is the lowest, +1 the highest target rate, on a logarithmic scale. Mode ``scale``:
GCC's own target times ``2 ** action``, so 0 leaves GCC exactly as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bwe_env.errors import ActionError, unknown_name

#: Mode `scale` covers half to twice GCC's target.
SCALE_BASE = 2.0

ACTION_MODES = ("rate", "scale")


def check_action_mode(mode: str) -> None:
    """Raise `UnknownNameError` unless `mode` is one of `ACTION_MODES`."""
    if mode not in ACTION_MODES:
        raise unknown_name("action_mode", mode, ACTION_MODES)


def action_to_rate(
    action: ArrayLike, min_rate_bps: float, max_rate_bps: float
) -> NDArray[np.float64]:
    """Target rate in bps of actions in [-1, 1], any shape."""
    if not isinstance(action, float):  # a plain number stays one: four times as fast
        action = np.asarray(action, dtype=np.float64)
    # np.power for both: math.pow may differ from it in the last bit.
    rates: NDArray[np.float64] = min_rate_bps * np.power(
        max_rate_bps / min_rate_bps, (action + 1.0) / 2.0
    )
    return rates


def rate_to_action(
    rate_bps: ArrayLike, min_rate_bps: float, max_rate_bps: float
) -> NDArray[np.float64]:
    """The action that asks for a rate; rates outside the range are clipped to it."""
    rates = np.clip(np.asarray(rate_bps, dtype=np.float64), min_rate_bps, max_rate_bps)
    actions: NDArray[np.float64] = (
        2.0 * np.log(rates / min_rate_bps) / np.log(max_rate_bps / min_rate_bps) - 1.0
    )
    return actions


def action_to_scale(action: ArrayLike) -> NDArray[np.float64]:
    """Factor on GCC's target of actions in [-1, 1], any shape; exactly 1.0 at 0."""
    scales: NDArray[np.float64] = np.power(SCALE_BASE, action, dtype=np.float64)
    return scales


def check_action(action: Any) -> tuple[float, bool]:
    """`check_actions` for one environment: an action of shape (1,) alone."""
    if isinstance(action, np.ndarray) and action.shape == (1,) and action.dtype.kind == "f":
        value = float(action[0])
        if -1.0 <= value <= 1.0:
            return value, False
    values, was_clipped = check_actions([action], 1)
    return float(values[0]), bool(was_clipped[0])


def check_actions(
    actions: ArrayLike, num_envs: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Validate a batch of actions.

    Returns:
        Clipped actions of shape (num_envs,), and which of them had to be clipped.

    Raises:
        ActionError: wrong shape, not numeric, NaN or infinite.
    """
    try:
        array = np.asarray(actions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ActionError(f"actions must be numbers, got {actions!r}.") from error
    if array.shape != (num_envs, 1):
        raise ActionError(
            f"actions have shape {array.shape}, expected {(num_envs, 1)}: a number in [-1, 1] per "
            "environment."
        )
    flat = array[:, 0]
    clipped = np.minimum(np.maximum(flat, -1.0), 1.0)
    was_clipped = clipped != flat  # so are NaN and the infinities
    if was_clipped.any() and not np.isfinite(flat).all():
        bad = int(np.flatnonzero(~np.isfinite(flat))[0])
        value = "NaN" if np.isnan(flat[bad]) else "infinite"
        raise ActionError(
            f"action of environment {bad} is {value}; the policy has diverged (check learning "
            "rate and observation) or the action was never set."
        )
    return clipped, was_clipped

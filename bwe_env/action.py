"""Actions: numbers in [-1, 1], one per call and decision interval, or one per parameter of GCC.

Mode ``rate``: -1 is the lowest, +1 the highest target rate, on a logarithmic scale. Mode ``scale``:
GCC's own target times ``2 ** action``. Mode ``config``: GCC drives, and each number sets one of
`CONFIG_PARAMETERS` for the interval that begins. In the last two, 0 leaves GCC exactly as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bwe_env.errors import ActionError, ConfigError, unknown_name

if TYPE_CHECKING:
    from bwe_env.config import CallConfig
    from bwe_env.gcc import GccParameters

#: Mode `scale` covers half to twice GCC's target.
SCALE_BASE = 2.0

ActionMode = Literal["rate", "scale", "config"]
ACTION_MODES: tuple[str, ...] = get_args(ActionMode)


@dataclass(frozen=True, kw_only=True)
class ConfigParameter:
    """A parameter of GCC that mode ``config`` sets, and between which ends."""

    name: str
    """field of `bwe_env.gcc.GccParameters`"""
    low: float
    """at action -1"""
    high: float
    """at action +1; 0 is what the environment's GCC was made with"""
    why: str
    """what it trades"""


#: What mode ``config`` sets, in the order of the action's numbers; all on a logarithmic scale. The
#: ranges are ours: those of the offline search (experiments/tuning_space.py), as far as a running
#: call can take them and one number each matters most.
CONFIG_PARAMETERS = (
    ConfigParameter(
        name="pacing_factor", low=1.0, high=3.0, why="frames that leave at once against bursts"
    ),
    ConfigParameter(
        name="cwnd_queue_s", low=0.03, high=1.0, why="frames dropped early against a longer queue"
    ),
    ConfigParameter(
        name="decrease_factor", low=0.6, high=0.97, why="depth of a back-off after over-use"
    ),
    ConfigParameter(
        name="increase_factor_per_s", low=1.02, high=1.5, why="growth towards unknown capacity"
    ),
    ConfigParameter(
        name="min_additive_increase_bps_per_s",
        low=1_000.0,
        high=200_000.0,
        why="growth near the link's capacity",
    ),
    ConfigParameter(
        name="trendline_gain", low=1.0, high=10.0, why="a deaf detector against a nervous one"
    ),
    ConfigParameter(
        name="bandwidth_bias", low=5e-5, high=5e-3, why="trust in the rate against fear of loss"
    ),
    ConfigParameter(
        name="instant_bound_loss_offset", low=0.02, high=0.3, why="loss that is borne at once"
    ),
)


def action_size(mode: str) -> int:
    """Numbers that an action of this mode has.

    Raises:
        UnknownNameError: unless `mode` is one of `ACTION_MODES`.
    """
    check_action_mode(mode)
    return len(CONFIG_PARAMETERS) if mode == "config" else 1


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


def action_to_parameters(actions: NDArray[np.float64], gcc: GccParameters) -> NDArray[np.float64]:
    """Values of `CONFIG_PARAMETERS`, shape (calls, parameters), of actions of that shape.

    Args:
        gcc: what action 0 stands for.

    Raises:
        ConfigError: one of its values is not within what the actions reach.
    """
    low = np.array([parameter.low for parameter in CONFIG_PARAMETERS])
    high = np.array([parameter.high for parameter in CONFIG_PARAMETERS])
    middle = np.array([float(getattr(gcc, parameter.name)) for parameter in CONFIG_PARAMETERS])
    for parameter, value in zip(CONFIG_PARAMETERS, middle, strict=True):
        if not parameter.low <= value <= parameter.high:
            raise ConfigError(
                f"gcc.{parameter.name}={value:g} is what action 0 stands for in mode 'config', and "
                f"must lie between {parameter.low:g} and {parameter.high:g} there."
            )
    end = np.where(actions < 0.0, low, high)
    values: NDArray[np.float64] = middle * np.power(end / middle, np.abs(actions))
    return values


def action_to_values(
    mode: str, actions: NDArray[np.float64], call: CallConfig, gcc: GccParameters
) -> NDArray[np.float64]:
    """What the compiled core is given for checked actions of shape (calls, numbers).

    Returns:
        Rates in bps or factors, shape (calls,); or values of parameters, shape (calls, numbers).
    """
    if mode == "config":
        return action_to_parameters(actions, gcc)
    if mode == "scale":
        return action_to_scale(actions[:, 0])
    return action_to_rate(actions[:, 0], call.min_rate_bps, call.max_rate_bps)


def is_plain_action(action: Any) -> bool:
    """One float in [-1, 1] in an array: what needs no further look."""
    return (
        isinstance(action, np.ndarray)
        and action.shape == (1,)
        and action.dtype.kind == "f"
        and bool(-1.0 <= action[0] <= 1.0)
    )


def check_actions(
    actions: ArrayLike, num_envs: int, size: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Validate a batch of actions.

    Returns:
        Clipped actions of shape (num_envs, size), and for which calls they had to be clipped.

    Raises:
        ActionError: wrong shape, not numeric, NaN or infinite.
    """
    try:
        array = np.asarray(actions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ActionError(f"actions must be numbers, got {actions!r}.") from error
    if array.shape != (num_envs, size):
        raise ActionError(
            f"actions have shape {array.shape}, expected {(num_envs, size)}: {size} number(s) in "
            "[-1, 1] per environment."
        )
    clipped = np.minimum(np.maximum(array, -1.0), 1.0)
    was_clipped = (clipped != array).any(axis=1)  # so are NaN and the infinities
    if was_clipped.any() and not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        value = "NaN" if np.isnan(array[bad]).any() else "infinite"
        raise ActionError(
            f"action of environment {bad} is {value}; the policy has diverged (check learning "
            "rate and observation) or the action was never set."
        )
    return clipped, was_clipped

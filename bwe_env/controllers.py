"""What may set the rate of a call: the compiled GCC, a policy, or estimators made by a factory."""

from __future__ import annotations

from typing import Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from bwe_env.action import action_size, action_to_values, check_actions
from bwe_env.config import CallConfig
from bwe_env.errors import unknown_name
from bwe_env.estimator import EstimatorFactory, RatePolicy
from bwe_env.gcc import GccParameters
from bwe_env.sim.flow import CONTROLLER_ACTION, CONTROLLER_EXTERNAL, CONTROLLER_GCC
from bwe_env.truth import GroundTruth

Controller = Literal["gcc"] | RatePolicy | EstimatorFactory


def check_controller(controller: Controller) -> None:
    """Raise `UnknownNameError` for a name other than "gcc"."""
    if isinstance(controller, str) and controller != "gcc":
        raise unknown_name("controller", controller, ("gcc",))


def is_policy(controller: Controller) -> TypeGuard[RatePolicy]:
    """Decides once per interval for a whole batch."""
    return hasattr(controller, "act")


def is_factory(controller: Controller) -> TypeGuard[EstimatorFactory]:
    """Makes one estimator for each call."""
    return callable(controller) and not is_policy(controller)


def controller_id(controller: Controller) -> int:
    """What a flow's field `controller` says (`bwe_env.sim.flow.CONTROLLER_…`)."""
    if is_policy(controller):
        return CONTROLLER_ACTION if controller.action_mode == "rate" else CONTROLLER_GCC
    return CONTROLLER_EXTERNAL if is_factory(controller) else CONTROLLER_GCC


def decided(
    policy: RatePolicy,
    history: NDArray[np.float32],
    truth: GroundTruth,
    call: CallConfig,
    gcc: GccParameters,
) -> NDArray[np.float64]:
    """What a policy asks for, as the compiled core is given it.

    Args:
        history: what it sees, shape (flows, intervals, features).
        truth: of the calls of these flows.

    Raises:
        ActionError: actions that are no numbers, or not as many as there are flows.
    """
    observation = history.reshape(len(history), -1).copy()
    mode = policy.action_mode
    actions, _ = check_actions(policy.act(observation, truth), len(history), action_size(mode))
    return action_to_values(mode, actions, call, gcc)

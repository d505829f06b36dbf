"""Who the competing calls of a network are, when they are more than calls under the same GCC.

A network's competing calls are set up like the call itself and run under GCC, unless a rollout is
given a `Competitor`. Then that controller drives them: each flow has an observation history of its
own, made by the kernels that make the call's, at the call's own decision times. What counts from
the beginning (the call's age, minima, averages, an estimator's clock) counts from the beginning of
that flow.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.action import CONFIG_PARAMETERS
from bwe_env.config import CallConfig
from bwe_env.controllers import (
    Controller,
    check_controller,
    controller_id,
    decided,
    is_factory,
    is_policy,
)
from bwe_env.errors import ConfigError
from bwe_env.estimator import EstimatorFactory, RatePolicy
from bwe_env.gcc import GccParameters
from bwe_env.gcc.parameters import fill_gcc_parameters
from bwe_env.observation import NUM_FEATURES, ObservationConfig
from bwe_env.sim.batch import CORE_MODES, MODE_CONFIG, MODE_NONE
from bwe_env.sim.competition import begin_competing, decide_flows, finish_competing
from bwe_env.sim.settings import set_parameters, settings_changed
from bwe_env.sim.state import World
from bwe_env.sim.step import STEP
from bwe_env.telemetry import TELEMETRY, NetworkModels
from bwe_env.truth import GroundTruth


@dataclass(frozen=True, kw_only=True)
class Competitor:
    """The controller of all competing calls of a rollout, with what it needs."""

    controller: Controller = "gcc"
    """a policy is copied, so that its state is not that of the call's own; and once more for
    competing calls that begin at another time"""
    gcc: GccParameters = field(default_factory=GccParameters)
    """of the competing calls' GCC (also of the one that a policy observes)"""
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    """what a policy sees"""
    network_models: NetworkModels | None = None
    """copied, too; intervals of 0.1 s"""


@dataclass(frozen=True)
class _Group:
    """Competing calls that begin at the same time: one batch for one copy of the policy."""

    policy: RatePolicy
    start_us: int
    envs: NDArray[np.int64]
    rows: NDArray[np.int64]
    """number of each flow within its call, less one"""
    truth: GroundTruth
    """of each flow's call"""


class Competition:
    """The competing calls of a world, from the reset of its calls to their end.

    `prepare` before the calls are reset, `begin` after; then `decide` before and `finish` after
    each interval.

    Args:
        world: its calls may have different numbers of competing calls, or none.

    Attributes:
        steps: STEP rows of the newest interval, shape (num_envs, competing calls).

    Raises:
        UnknownNameError: a controller's name other than "gcc".
        ConfigError: a policy, or network models, that cannot be copied.
    """

    def __init__(self, world: World, competitor: Competitor, call: CallConfig) -> None:
        check_controller(competitor.controller)
        self._world, self._competitor, self._call = world, competitor, call
        self._models = _copied(competitor.network_models)
        shape = (world.num_envs, world.flows_per_call - 1)
        seen = competitor.observation.shape(self._models)
        self.steps = np.zeros(shape, dtype=STEP)
        self._telemetry = np.zeros(shape, dtype=TELEMETRY)
        self._history = np.zeros((*shape, *seen), dtype=np.float32)
        self._values = np.zeros(shape)
        self._groups: list[_Group] = []
        self._mode = MODE_NONE
        if is_policy(competitor.controller):
            self._mode = CORE_MODES[competitor.controller.action_mode]
        self._flows = world.flows.reshape(world.num_envs, -1)[:, 1:]

    @property
    def factory(self) -> EstimatorFactory | None:
        """Makes the competing calls' estimators, if that is what drives them."""
        controller = self._competitor.controller
        return controller if is_factory(controller) else None

    @property
    def has_begun(self) -> NDArray[np.bool_]:
        """Which competing calls have had an interval, shape (num_envs, competing calls)."""
        begun: NDArray[np.bool_] = self._is_there() & (
            self._flows["start_us"] < self._world.calls["now_us"][:, None]
        )
        return begun

    @property
    def observations(self) -> NDArray[np.float32]:
        """What each sees now, shape (num_envs, competing calls, intervals, features), a copy."""
        return self._history.copy()

    def prepare(self) -> None:
        """Put the controller in charge of calls that are about to be reset."""
        self._flows["controller"] = controller_id(self._competitor.controller)
        fill_gcc_parameters(self._flows["gcc_parameters"], self._competitor.gcc)

    def begin(self) -> None:
        """The world's calls have been reset."""
        world = self._world
        begin_competing(world.calls, world.flows, self.steps, self._history, self._telemetry)
        if self._models is not None:
            self._models.reset(self.steps.size)
            self._history[..., NUM_FEATURES:] = -1.0  # probability 0: nothing seen yet
        controller = self._competitor.controller
        self._groups = self._grouped(controller) if is_policy(controller) else []

    def _is_there(self) -> NDArray[np.bool_]:
        numbers = np.arange(1, self._world.flows_per_call)
        there: NDArray[np.bool_] = numbers < self._world.calls["num_flows"][:, None]
        return there

    def _grouped(self, policy: RatePolicy) -> list[_Group]:
        """All competing calls by the time of their start."""
        starts_us, is_there = self._flows["start_us"], self._is_there()
        groups = []
        for start_us in np.unique(starts_us[is_there]).tolist():
            envs, rows = np.nonzero(is_there & (starts_us == start_us))
            truth = GroundTruth(self._world, envs)
            group = _Group(_copied(policy), start_us, envs, rows, truth)
            group.policy.reset(len(envs))
            groups.append(group)
        return groups

    def decide(self, active: NDArray[np.bool_]) -> None:
        """Ask for the rates of the interval that begins now, and let them act.

        Args:
            active: calls that go on, shape (num_envs,).
        """
        world = self._world
        now_us = int(world.calls["now_us"][active].max(initial=0))
        for group in self._groups:
            if group.start_us <= now_us:
                self._ask(group, active, now_us)
        if self._groups and self._mode != MODE_CONFIG:
            last = world.flows_per_call
            decide_flows(world.calls, world.flows, self._mode, self._values, 1, last, active)

    def _ask(self, group: _Group, active: NDArray[np.bool_], now_us: int) -> None:
        values = decided(
            group.policy,
            self._history[group.envs, group.rows],
            group.truth,
            self._call,
            self._competitor.gcc,
        )
        if self._mode != MODE_CONFIG:
            self._values[group.envs, group.rows] = values
            return
        flows = self._world.flows
        chosen = np.zeros(len(flows), dtype=np.bool_)
        indices = group.envs * self._world.flows_per_call + 1 + group.rows
        chosen[indices[active[group.envs]]] = True
        every = np.zeros((len(flows), len(CONFIG_PARAMETERS)))
        every[indices] = values
        set_parameters(flows, [p.name for p in CONFIG_PARAMETERS], every, chosen)
        for index in np.flatnonzero(chosen).tolist():
            settings_changed(flows, index, now_us)

    def finish(self, active: NDArray[np.bool_], *, interval_us: int, duration_us: int) -> None:
        """Judge and observe the interval that has just ended.

        Args:
            active: calls that have run in it, shape (num_envs,).
        """
        world = self._world
        finish_competing(
            world.calls,
            world.flows,
            world.packets,
            world.queues,
            world.steps,
            self.steps,
            self._history,
            self._telemetry,
            world.weights,
            interval_us,
            duration_us,
            active,
        )
        if self._models is not None:
            is_seen = active[:, None] & self.has_begun
            outputs = self._models.update(self._telemetry.reshape(-1), is_seen.reshape(-1))
            newest = 2.0 * outputs.reshape(*self.steps.shape, -1) - 1.0
            self._history[is_seen, -1, NUM_FEATURES:] = newest[is_seen]


def _copied(original: Any) -> Any:
    """A copy with a state of its own.

    Raises:
        ConfigError: it refuses to be copied.
    """
    try:
        return copy.deepcopy(original)
    except Exception as error:
        raise ConfigError(
            f"{type(original).__name__} cannot drive competing calls: each group of them needs a "
            f"copy of its own, and copy.deepcopy says {error!r}. Give the class a __deepcopy__."
        ) from error

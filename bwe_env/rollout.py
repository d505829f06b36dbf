"""Whole calls, many at once: a controller on networks, one row of metrics per call.

A call's randomness is a function of its network's name and its seed alone, so two controllers on
the same networks and seeds meet the same losses and jitter, and a result depends neither on the
batch size nor on the number of threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bwe_env.call_table import call_columns
from bwe_env.competition import Competition, Competitor
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
from bwe_env.estimator import RatePolicy
from bwe_env.external import ExternalEstimators
from bwe_env.gcc import GccParameters
from bwe_env.metrics import CALL_COLUMNS
from bwe_env.network import Network
from bwe_env.network_features import BIN_S
from bwe_env.observation import NUM_FEATURES, ObservationConfig
from bwe_env.reward import RewardConfig
from bwe_env.sim.batch import CORE_MODES, MODE_NONE
from bwe_env.sim.call import STATUS_DROPPED
from bwe_env.sim.packet import FATE_DELIVERED
from bwe_env.sim.state import World
from bwe_env.sim.step import STEP
from bwe_env.targeting import SettingsPolicy
from bwe_env.telemetry import TELEMETRY, NetworkModels
from bwe_env.truth import GroundTruth
from bwe_env.units import BITS_PER_BYTE, s_to_us

__all__ = [
    "CallSeries",
    "Competitor",
    "Controller",
    "RecordedCall",
    "call_key",
    "check_models_interval",
    "check_targetable",
    "record_calls",
    "run_calls",
    "run_series",
]


def call_key(network: str, seed: int) -> int:
    """The 63-bit key of a call's random streams."""
    digest = hashlib.sha256(f"bwe_env call\n{network}\n{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def run_calls(
    networks: Sequence[Network],
    controller: Controller,
    *,
    call: CallConfig | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    reward: RewardConfig | None = None,
    observation: ObservationConfig | None = None,
    gcc: GccParameters | None = None,
    network_models: NetworkModels | None = None,
    targeting: SettingsPolicy | None = None,
    competitor: Competitor | None = None,
    num_threads: int = 1,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
    on_call: Callable[[NDArray[Any]], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Run every network with every seed.

    Args:
        controller: "gcc" for the compiled GCC; a `RatePolicy`, asked once per interval for a whole
            batch; or a factory of `BandwidthEstimator`, asked at every report of every call.
        network_models: what they say is part of a `RatePolicy`'s observation; intervals of 0.1 s.
        targeting: changes the senders' settings while calls go on; intervals of 0.1 s.
        competitor: drives the competing calls that networks have; without it they are under GCC
            with the parameters `gcc`.
        progress: called with the number of calls that have just been finished.
        on_call: called once per row of the result, in their order, with the call's STEP rows (see
            `RecordedCall.steps`).

    Returns:
        Columns of `bwe_env.metrics.CALL_COLUMNS`, and those that targeting adds; one row per call,
        networks outermost.

    Raises:
        UnknownNameError: a controller's name other than "gcc".
        ConfigError: no networks or no seeds; or network models or targeting, and intervals other
            than theirs.
    """
    call = call or CallConfig()
    tables: list[dict[str, NDArray[Any]]] = []
    for played in _play(
        networks,
        controller,
        call=call,
        seeds=seeds,
        reward=reward,
        observation=observation,
        gcc=gcc,
        network_models=network_models,
        targeting=targeting,
        competitor=competitor,
        num_threads=num_threads,
        batch_size=batch_size,
    ):
        chosen = [networks[index] for index, _ in played.pairs]
        table: dict[str, NDArray[Any]] = {
            "network": np.array([network.name for network in chosen]),
            "network_type": np.array([network.network_type for network in chosen]),
            "seed": np.array([seed for _, seed in played.pairs], dtype=np.int64),
            "path": np.array([network.path for network in chosen]),
        }
        table |= call_columns(played.world, played.steps, call)
        tables.append({name: table[name] for name in CALL_COLUMNS})
        if targeting is not None:
            tables[-1] |= targeting.call_columns()
        if on_call is not None:
            for env in range(len(chosen)):
                on_call(played.steps_of(env))
        if progress is not None:
            progress(len(played.pairs))
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One call, interval by interval; a dropped call has fewer."""

    network: Network
    seed: int
    steps: NDArray[Any]
    """STEP rows, as `info` shows them: ground truth; shape (intervals,)"""
    telemetry: NDArray[Any]
    """what its sender knows of each interval, dtype `bwe_env.telemetry.TELEMETRY`, same shape"""
    probabilities: NDArray[np.float32]
    """what network models said after each interval, shape (intervals, their outputs)"""
    dropped: bool


def record_calls(
    networks: Sequence[Network],
    controller: Controller,
    *,
    call: CallConfig | None = None,
    seeds: Sequence[int] = (0,),
    reward: RewardConfig | None = None,
    observation: ObservationConfig | None = None,
    gcc: GccParameters | None = None,
    network_models: NetworkModels | None = None,
    targeting: SettingsPolicy | None = None,
    competitor: Competitor | None = None,
    num_threads: int = 1,
    batch_size: int = 64,
) -> Iterator[RecordedCall]:
    """The calls that `run_calls` would run, as time series; as few at once as a batch holds.

    Raises:
        UnknownNameError: a controller's name other than "gcc".
        ConfigError: no networks or no seeds, or network models and intervals other than theirs.
    """
    for played in _play(
        networks,
        controller,
        call=call or CallConfig(),
        seeds=seeds,
        reward=reward,
        observation=observation,
        gcc=gcc,
        network_models=network_models,
        targeting=targeting,
        competitor=competitor,
        num_threads=num_threads,
        batch_size=batch_size,
    ):
        dropped = played.world.calls["status"] == STATUS_DROPPED
        for env, (index, seed) in enumerate(played.pairs):
            has_run = ~np.isnan(played.steps["time_s"][:, env])
            yield RecordedCall(
                network=networks[index],
                seed=seed,
                steps=played.steps[has_run, env],
                telemetry=played.telemetry[has_run, env],
                probabilities=played.probabilities[has_run, env],
                dropped=bool(dropped[env]),
            )


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Calls that have just been played to their end."""

    pairs: Sequence[tuple[int, int]]
    """network's position and seed of each"""
    world: World
    steps: NDArray[Any]
    """STEP rows, shape (intervals, calls); `time_s` is NaN where a call had dropped"""
    telemetry: NDArray[Any]
    """TELEMETRY rows, same shape"""
    probabilities: NDArray[np.float32]
    """of network models, shape (intervals, calls, outputs)"""

    def steps_of(self, env: int) -> NDArray[Any]:
        """STEP rows of the intervals that one call had."""
        played = ~np.isnan(self.steps["time_s"][:, env])
        rows: NDArray[Any] = self.steps[played, env]
        return rows


def _play(
    networks: Sequence[Network],
    controller: Controller,
    *,
    call: CallConfig,
    seeds: Sequence[int],
    reward: RewardConfig | None,
    observation: ObservationConfig | None,
    gcc: GccParameters | None,
    network_models: NetworkModels | None,
    targeting: SettingsPolicy | None,
    competitor: Competitor | None,
    num_threads: int,
    batch_size: int,
) -> Iterator[_Batch]:
    """Run every network with every seed, a batch at a time, networks outermost."""
    check_controller(controller)
    check_targetable(targeting, getattr(controller, "action_mode", "rate"))
    if targeting is not None and competitor is not None and is_factory(competitor.controller):
        raise ConfigError(
            "targeting beside competing calls under a Python estimator is not simulated; let them "
            "be under GCC or a policy, or leave targeting out."
        )
    gcc = gcc or GccParameters()
    if len(networks) == 0 or len(seeds) == 0:
        raise ConfigError("calls need at least one network and one seed.")
    pairs = [(index, seed) for index in range(len(networks)) for seed in seeds]
    world: World | None = None
    competition: Competition | None = None
    with ThreadPoolExecutor(max(1, num_threads - 1), "bwe_env") as threads:
        for first in range(0, len(pairs), batch_size):
            batch = pairs[first : first + batch_size]
            if world is None or world.num_envs != len(batch):
                world = _make_world(
                    len(batch),
                    networks,
                    controller,
                    call,
                    reward,
                    observation,
                    gcc,
                    network_models,
                    targeting,
                )
                competition = _make_competition(world, competitor, call)
            if network_models is not None:
                network_models.reset(len(batch))
            if targeting is not None:
                targeting.reset(len(batch))
            keys = [(index, call_key(networks[index].name, seed)) for index, seed in batch]
            _reset_calls(world, keys, competition)
            series = _run_batch(world, controller, call, gcc, competition, threads, num_threads)
            yield _Batch(pairs=batch, world=world, **series)


def _make_world(
    num_envs: int,
    networks: Sequence[Network],
    controller: Controller,
    call: CallConfig,
    reward: RewardConfig | None,
    observation: ObservationConfig | None,
    gcc: GccParameters,
    network_models: NetworkModels | None,
    targeting: SettingsPolicy | None = None,
) -> World:
    check_models_interval(network_models or targeting, call.interval_s)
    return World.make(
        num_envs,
        networks,
        call,
        gcc=gcc,
        reward=reward or RewardConfig(),
        observation=observation or ObservationConfig(),
        controller=controller_id(controller),
        models=network_models,
        targeting=targeting,
    )


def _make_competition(
    world: World, competitor: Competitor | None, call: CallConfig
) -> Competition | None:
    if competitor is None:
        return None
    check_models_interval(competitor.network_models, call.interval_s)
    return Competition(world, competitor, call)


def _reset_calls(
    world: World, keys: Sequence[tuple[int, int]], competition: Competition | None
) -> None:
    """Begin every call: the position of its network, and its key."""
    if competition is not None:
        competition.prepare()
    for env, (network, key) in enumerate(keys):
        world.reset(env, network, key)
    if competition is not None:
        competition.begin()


def check_targetable(targeting: SettingsPolicy | None, action_mode: str) -> None:
    """Raise `ConfigError` where targeting and an action would both set GCC's parameters."""
    if targeting is not None and action_mode == "config":
        raise ConfigError(
            "targeting and actions in mode 'config' both set GCC's parameters. Use action_mode "
            "'rate' or 'scale' with targeting."
        )


def check_models_interval(models: NetworkModels | SettingsPolicy | None, interval_s: float) -> None:
    """Raise `ConfigError` where models would meet intervals of another length than their bins."""
    if models is not None and interval_s != BIN_S:
        raise ConfigError(
            f"network_models and targeting know intervals of {BIN_S:g} s, the calls have "
            f"interval_s={interval_s:g}: their features would mean something else. Give "
            f"interval_s={BIN_S:g}, or none of them."
        )


@dataclass(frozen=True, kw_only=True)
class CallSeries:
    """One call, interval by interval, with everybody who shares its queue.

    All arrays have one column per interval that was played; a dropped call has fewer.
    """

    steps: NDArray[Any]
    """STEP rows of the call itself, as `info` shows them"""
    flow_rates_bps: NDArray[np.float64]
    """what arrived, on the wire: the call's own media first, then those of competing calls"""
    source_rates_bps: NDArray[np.float64]
    """what sources of cross traffic got through the bottleneck, on the wire"""
    dropped: bool
    """whether the call itself dropped"""
    competing_steps: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 0), dtype=STEP))
    """STEP rows of the competing calls, one row each, where a `Competitor` drove them; `time_s` is
    NaN in intervals before a call begins, and nothing is charged for one that hangs up"""

    @property
    def time_s(self) -> NDArray[np.float64]:
        """Ends of the intervals, since the call began."""
        return np.asarray(self.steps["time_s"], dtype=np.float64)


def run_series(
    network: Network,
    controller: Controller,
    *,
    backward: Network | None = None,
    call: CallConfig | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    reward: RewardConfig | None = None,
    observation: ObservationConfig | None = None,
    gcc: GccParameters | None = None,
    network_models: NetworkModels | None = None,
    competitor: Competitor | None = None,
    num_threads: int = 1,
) -> list[CallSeries]:
    """The calls that `run_calls` would run on one network, one series per seed.

    Args:
        backward: carries media the other way under the same controller. Each direction's feedback
            then waits behind the other's media: what the queue holds at the end of an interval is
            its delay in the next. It takes no capacity itself and is not lost there.
        competitor: drives the competing calls of either network; see `run_calls`.

    Returns:
        Series of the forward direction.

    Raises:
        UnknownNameError: a controller's name other than "gcc".
        ConfigError: no seeds, hand-overs on the way back of media in both directions, or network
            models and intervals other than theirs.
    """
    check_controller(controller)
    if len(seeds) == 0:
        raise ConfigError("run_series needs at least one seed.")
    if backward is not None and (network.reverse.delay_steps or backward.reverse.delay_steps):
        raise ConfigError(
            "the queue of the other direction sets the delay of feedback, so reverse.delay_steps "
            "has no place with backward; leave it out of both networks."
        )
    call, gcc = call or CallConfig(), gcc or GccParameters()
    networks = [network] if backward is None else [network, backward]
    num_envs = len(networks) * len(seeds)
    world = _make_world(
        num_envs, networks, controller, call, reward, observation, gcc, network_models
    )
    if network_models is not None:
        network_models.reset(num_envs)
    competition = _make_competition(world, competitor, call)
    # All forward, then all backward.
    keys = [(i, call_key(n.name, seed)) for i, n in enumerate(networks) for seed in seeds]
    _reset_calls(world, keys, competition)
    num_sources = len(network.cross_traffic)
    flow_bytes = np.zeros((call.steps + 1, num_envs, world.flows_per_call))
    source_bytes = np.zeros((call.steps + 1, num_envs, num_sources))
    others = 0 if competition is None else world.flows_per_call - 1
    competing_steps = np.zeros((call.steps, num_envs, others), dtype=STEP)

    def watch(position: int) -> None:
        arrived = world.flows["totals"]["fate_bytes"][:, FATE_DELIVERED]
        flow_bytes[position + 1] = arrived.reshape(num_envs, -1)
        source_bytes[position + 1] = world.sources["departed_bytes"][:, :num_sources]
        if competition is not None:
            competing_steps[position] = competition.steps
            competing_steps["time_s"][position, ~competition.has_begun] = np.nan
        if backward is not None:
            _delay_feedback(world)

    with ThreadPoolExecutor(max(1, num_threads - 1), "bwe_env") as threads:
        played_to_end = _run_batch(
            world, controller, call, gcc, competition, threads, num_threads, watch
        )
    steps = played_to_end["steps"]
    to_bps = BITS_PER_BYTE / call.interval_s
    series = []
    for env in range(len(seeds)):
        played = ~np.isnan(steps["time_s"][:, env])
        series.append(
            CallSeries(
                steps=steps[played, env],
                flow_rates_bps=to_bps * np.diff(flow_bytes[:, env], axis=0)[played].T,
                source_rates_bps=to_bps * np.diff(source_bytes[:, env], axis=0)[played].T,
                dropped=bool(world.calls["status"][env] == STATUS_DROPPED),
                competing_steps=competing_steps[played, env].T,
            )
        )
    return series


def _delay_feedback(world: World) -> None:
    """Let the feedback of each call wait behind what its counterpart, half a batch away, queues."""
    queued_bits = BITS_PER_BYTE * world.calls["link"]["queue_bytes"]
    capacity_bps = np.maximum(world.present_capacity_bps(), 1.0)
    waiting_us = (s_to_us(1.0) * queued_bits / capacity_bps).astype(np.int64)
    world.calls["reverse"]["delay"]["added_us"] = np.roll(waiting_us, world.num_envs // 2)


def _run_batch(
    world: World,
    controller: Controller,
    call: CallConfig,
    gcc: GccParameters,
    competition: Competition | None,
    threads: ThreadPoolExecutor,
    num_threads: int,
    watch: Callable[[int], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Run the batch to its end; returns what `_Batch` holds of each interval.

    Args:
        watch: called with each interval's position at its end.
    """
    interval_us = s_to_us(call.interval_s)
    duration_us = call.steps * interval_us
    steps = np.zeros((call.steps, world.num_envs), dtype=world.steps.dtype)
    steps["time_s"] = np.nan  # until the interval has been played: a dropped call has no more
    telemetry = np.zeros(steps.shape, dtype=TELEMETRY)
    num_outputs = world.history.shape[2] - NUM_FEATURES
    probabilities = np.zeros((*steps.shape, num_outputs), dtype=np.float32)
    decisions = np.zeros(world.num_envs)
    mode = MODE_NONE
    truth = GroundTruth(world)
    if is_policy(controller):
        controller.reset(world.num_envs)
        mode = CORE_MODES[controller.action_mode]
    estimators = _make_estimators(world, controller, competition, call)
    parts = min(num_threads, world.num_envs)
    for position in range(call.steps):
        active = world.calls["status"] != STATUS_DROPPED
        if not active.any():
            break
        if mode != MODE_NONE:
            policy = cast(RatePolicy, controller)
            decisions = decided(policy, world.history, truth, call, gcc)
        if competition is not None:
            competition.decide(active)
        if estimators is not None:
            world.decide(mode, decisions, active)
            estimators.advance((position + 1) * interval_us)
        world.step(
            MODE_NONE if estimators is not None else mode,
            decisions,
            active,
            interval_us=interval_us,
            duration_us=duration_us,
            threads=threads,
            num_threads=parts,
        )
        if competition is not None:
            competition.finish(active, interval_us=interval_us, duration_us=duration_us)
        steps[position] = world.steps
        telemetry[position] = world.telemetry
        probabilities[position] = 0.5 + 0.5 * world.history[:, -1, NUM_FEATURES:]
        steps["time_s"][position, ~active] = np.nan  # no such interval: the call had dropped
        if watch is not None:
            watch(position)
    return {"steps": steps, "telemetry": telemetry, "probabilities": probabilities}


def _make_estimators(
    world: World, controller: Controller, competition: Competition | None, call: CallConfig
) -> ExternalEstimators | None:
    own = controller if is_factory(controller) else None
    others = None if competition is None else competition.factory
    if own is None and others is None:
        return None
    return ExternalEstimators(world, own, call, competing=others)

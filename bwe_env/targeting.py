"""Network targeting: what a sender does once it knows something about its network.

A `TargetingPlan` is tuned offline and delivered when a call is set up. In the call, something that
follows it (`NetworkModels`: learned models, or hand-tuned rules) says after every interval how
likely it is that losses are random, that congestion is coming, and what kind of network it is.
`Targeting` turns that into settings of the sender and a factor on GCC's target:

- *type*: the settings tuned for it, once its smoothed probability is high enough;
- *random loss*: settings that hold the rate and protect the picture, where the call is fast enough;
- *congestion to come*: a lower rate until the alarm has been silent for a while.

They add up in this order: the later ones overrule what they share with those before.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import from_mapping
from bwe_env.errors import ArtifactError, BweEnvError, ConfigError, unknown_name
from bwe_env.labels import NETWORK_CLASSES
from bwe_env.network_features import BIN_S
from bwe_env.sender_settings import SETTING_NAMES, SenderSettings
from bwe_env.telemetry import NetworkModels

#: Version of the JSON form; another one is refused.
PLAN_VERSION = 1
#: `Targeting.detected_types` before anything has been detected.
NO_TYPE = -1
#: Sender settings are smaller; a whole number far beyond has no float to be compared with.
_LARGEST = 1e18
#: Output of `NetworkModels` for each kind of network.
_TYPE_OUTPUTS = tuple(f"network_type:{name}" for name in NETWORK_CLASSES)

Overrides = Mapping[str, Any]


def _set_number(response: Any, name: str, low: float, high: float) -> None:
    """Check a field of a frozen response, and keep it as a float: 1 and 1.0 give equal bytes."""
    value = getattr(response, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r} must be a number from {low:g} to {high:g}.")
    object.__setattr__(response, name, float(value))


def _plain(name: str, value: Any) -> Any:
    """A JSON value in the one form in which plans keep it: whole numbers as int, lists as tuple."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)) and -_LARGEST <= value <= _LARGEST:  # NaN is not
        return int(value) if value == int(value) else value
    if isinstance(value, (list, tuple)) and not any(isinstance(p, (list, tuple)) for p in value):
        return tuple(_plain(name, part) for part in value)
    raise ConfigError(
        f"{name}={value!r:.40} must be a finite number up to {_LARGEST:g}, a word, True or "
        "False, or a list of numbers."
    )


def _checked_overrides(name: str, overrides: Overrides) -> dict[str, Any]:
    if not isinstance(overrides, Mapping):
        raise ConfigError(f"{name}={overrides!r} must map names of sender settings to values.")
    for key in overrides:
        if key not in SETTING_NAMES:
            raise unknown_name(f"sender setting in {name}", key, SETTING_NAMES)
    return {key: _plain(f"{name}.{key}", value) for key, value in sorted(overrides.items())}


@dataclass(frozen=True, kw_only=True)
class TypeResponse:
    """What is set once the kind of network is known."""

    settings: Mapping[str, Overrides] = field(default_factory=dict)
    """by name of `bwe_env.labels.NETWORK_CLASSES`; a type that is missing keeps the base"""
    smoothing_s: float = 10.0
    """time constant of the mean over past probabilities"""
    confidence: float = 0.5
    """of the smoothed probability, from which on a type counts as detected"""
    earliest_s: float = 5.0
    """no detection before; a model knows little of a call that has just begun"""

    def __post_init__(self) -> None:
        if not isinstance(self.settings, Mapping):
            raise ConfigError(
                f"network_type.settings={self.settings!r} must map network types to settings."
            )
        for name in self.settings:
            if name not in NETWORK_CLASSES:
                raise unknown_name("network type", name, NETWORK_CLASSES)
        checked = {
            name: _checked_overrides(f"network_type.settings.{name}", overrides)
            for name, overrides in sorted(self.settings.items())
        }
        object.__setattr__(self, "settings", checked)
        _set_number(self, "smoothing_s", 0.0, 600.0)
        _set_number(self, "confidence", 0.0, 1.0)
        _set_number(self, "earliest_s", 0.0, 600.0)


@dataclass(frozen=True, kw_only=True)
class AlarmResponse:
    """What is set while an alarm is on: for random loss, or for congestion to come."""

    settings: Overrides = field(default_factory=dict)
    rate_scale: float = 1.0
    """factor on GCC's target"""
    threshold: float = 0.5
    """probability that sets the alarm off"""
    hold_s: float = 5.0
    """how long it stays on after the last interval above the threshold"""
    min_rate_bps: float = 0.0
    """it only goes off where at least this much was acknowledged on average over 3 s"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", _checked_overrides("settings", self.settings))
        _set_number(self, "rate_scale", 0.1, 2.0)
        _set_number(self, "threshold", 0.0, 1.0)
        _set_number(self, "hold_s", 0.0, 600.0)
        _set_number(self, "min_rate_bps", 0.0, 1e9)


@dataclass(frozen=True, kw_only=True)
class TargetingPlan:
    """A delivered configuration: what to set at call set-up, and what when something is known."""

    version: int = PLAN_VERSION
    base: Overrides = field(default_factory=dict)
    """from the beginning of the call, on top of the sender's own settings"""
    network_type: TypeResponse | None = None
    random_loss: AlarmResponse | None = None
    congestion: AlarmResponse | None = None

    def __post_init__(self) -> None:
        if self.version != PLAN_VERSION:
            raise ConfigError(
                f"version={self.version!r} of a targeting plan is not known; this program reads "
                f"version {PLAN_VERSION}."
            )
        object.__setattr__(self, "version", PLAN_VERSION)  # 1.0 is written as 1, too
        object.__setattr__(self, "base", _checked_overrides("base", self.base))
        # Parts of a JSON form are mappings still.
        parts = (
            ("network_type", TypeResponse),
            ("random_loss", AlarmResponse),
            ("congestion", AlarmResponse),
        )
        for name, cls in parts:
            part = getattr(self, name)
            if isinstance(part, Mapping):
                object.__setattr__(self, name, from_mapping(cls, part))
            elif part is not None and not isinstance(part, cls):
                raise ConfigError(f"{name}={part!r} must be a mapping of {cls.__name__}'s fields.")

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it needs to be told, as `NetworkModels.outputs` names it."""
        alarms = tuple(name for name in ("random_loss", "congestion") if getattr(self, name))
        return (*alarms, *(_TYPE_OUTPUTS if self.network_type else ()))

    @classmethod
    def read(cls, path: str | Path) -> TargetingPlan:
        """A plan that `write` wrote.

        Raises:
            ArtifactError: it cannot be read, is no JSON, or says something that no plan can.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path} is damaged, it is no JSON: {error}.") from error
        if not isinstance(values, Mapping):
            raise ArtifactError(f"{path} must hold a JSON object with the fields of a plan.")
        try:
            return from_mapping(cls, values)
        except (BweEnvError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{path} is no targeting plan: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write it as JSON; equal plans give equal bytes."""
        text = json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")


class SettingsPolicy(Protocol):
    """Changes senders' settings while their calls go on; see `Targeting`."""

    @property
    def settings(self) -> Sequence[SenderSettings]:
        """Those there are; the first is in force when a call begins."""

    def reset(self, num_envs: int) -> None:
        """`num_envs` calls begin."""

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""

    def update(
        self, telemetry: NDArray[Any], active: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Decide for the interval that begins.

        Args:
            telemetry: of the one that ends, dtype `bwe_env.telemetry.TELEMETRY`, shape (num_envs,).
            active: bool, shape (num_envs,); the others are left as they are.

        Returns:
            For each call, which of `settings` is in force, and the factor on GCC's target.
        """

    def call_columns(self) -> dict[str, NDArray[Any]]:
        """What it did in the calls that have just been played: columns beside those of metrics."""


#: Time over which the rate is averaged for `AlarmResponse.min_rate_bps`. Ours.
RATE_S = 3.0


class Targeting:
    """A `SettingsPolicy` that follows a plan.

    Args:
        plan: what to do.
        models: what says how likely everything is that the plan asks for.
        base: the sender's own settings, which `plan.base` changes first.

    Raises:
        ConfigError: the models lack an answer that the plan needs, or a running call cannot take
            some of its settings.
    """

    def __init__(
        self, plan: TargetingPlan, models: NetworkModels, *, base: SenderSettings | None = None
    ) -> None:
        self.plan = plan
        self.models = models
        missing = [name for name in plan.outputs if name not in models.outputs]
        if missing:
            raise ConfigError(
                f"the plan needs {', '.join(missing)}; these models only say "
                f"{', '.join(models.outputs)}. Deliver the plan with models of those tasks."
            )
        self._columns = {name: models.outputs.index(name) for name in plan.outputs}
        self._types = np.array([self._columns.get(name, 0) for name in _TYPE_OUTPUTS])
        self._settings = _combinations(plan, base or SenderSettings())
        self._differs = np.array([one != self._settings[0] for one in self._settings])
        self.reset(0)

    @property
    def settings(self) -> tuple[SenderSettings, ...]:
        """The settings of every type (none first), each with every set of alarms."""
        return self._settings

    def reset(self, num_envs: int) -> None:
        """`num_envs` calls begin."""
        self.models.reset(num_envs)
        self._time_s = np.zeros(num_envs)
        self._smoothed = np.zeros((num_envs, len(NETWORK_CLASSES)))
        self._rate_bps = np.zeros(num_envs)
        self._until_s = np.full((num_envs, 2), -1.0)  # when the alarms end: loss, congestion
        self.detected_types = np.full(num_envs, NO_TYPE)
        self._is_targeted = np.zeros(num_envs, dtype=np.bool_)  # in the interval that goes on
        self._targeted_s = np.zeros(num_envs)

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""
        self.models.restart(env)
        for column in (self._time_s, self._smoothed, self._rate_bps, self._targeted_s):
            column[env] = 0.0
        self._until_s[env] = -1.0
        self._is_targeted[env] = False
        self.detected_types[env] = NO_TYPE

    def update(
        self, telemetry: NDArray[Any], active: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `SettingsPolicy.update`."""
        probabilities = self.models.update(telemetry, active)
        self._time_s[active] += BIN_S
        self._targeted_s[active & self._is_targeted] += BIN_S
        weight = BIN_S / (RATE_S + BIN_S)
        acked_bps = np.nan_to_num(telemetry["acked_bytes"]) * 8.0 / BIN_S
        self._rate_bps[active] += weight * (acked_bps - self._rate_bps)[active]
        choice = np.zeros(len(active), dtype=np.int64)
        scale = np.ones(len(active))
        if self.plan.network_type is not None:
            self._detect(self.plan.network_type, probabilities[:, self._types], active)
            choice += len(_ALARMS) * (self.detected_types + 1)
        for position, (name, bit) in enumerate((("random_loss", 1), ("congestion", 2))):
            response: AlarmResponse | None = getattr(self.plan, name)
            if response is not None:
                probability = probabilities[:, self._columns[name]]
                is_on = self._alarm(response, position, probability, active)
                choice += bit * is_on
                scale[is_on] *= response.rate_scale
        self._is_targeted[active] = (self._differs[choice] | (scale != 1.0))[active]
        return choice, scale

    def call_columns(self) -> dict[str, NDArray[Any]]:
        """See `SettingsPolicy.call_columns`; shape (num_envs,) each.

        ``detected_type`` is the network type at the end, "" for none; ``targeted_s`` the time that
        other settings than those of the beginning, or a factor, were in force.
        """
        names = np.array(["", *NETWORK_CLASSES])
        return {
            "detected_type": names[self.detected_types + 1],
            "targeted_s": self._targeted_s.copy(),
        }

    def _detect(
        self, response: TypeResponse, probabilities: NDArray[np.float32], active: NDArray[np.bool_]
    ) -> None:
        """Smooth the probabilities of the types, and note which type is likely enough."""
        # A plain mean at first, so that the first interval does not stand for all of the past.
        span_s = np.minimum(self._time_s, response.smoothing_s)
        weight = BIN_S / np.maximum(span_s, BIN_S)
        change = weight[:, None] * (probabilities - self._smoothed)
        self._smoothed[active] += change[active]
        best = self._smoothed.argmax(axis=1)
        is_sure = np.take_along_axis(self._smoothed, best[:, None], axis=1)[:, 0]
        is_new = active & (is_sure >= response.confidence)
        # Times are sums of intervals: half of one more for what rounding leaves.
        is_new &= self._time_s + 0.5 * BIN_S >= response.earliest_s
        self.detected_types[is_new] = best[is_new]

    def _alarm(
        self,
        response: AlarmResponse,
        position: int,
        probability: NDArray[np.float32],
        active: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Whether the alarm is on, shape (num_envs,)."""
        is_raised = active & (probability >= response.threshold)
        is_raised &= self._rate_bps >= response.min_rate_bps
        until_s = self._until_s[:, position]
        until_s[is_raised] = self._time_s[is_raised] + response.hold_s
        # As for types: half an interval for what rounding leaves.
        is_on: NDArray[np.bool_] = is_raised | (self._time_s + 0.5 * BIN_S < until_s)
        return is_on


#: Which alarms are on, in the order of the settings of one type: bit 0 random loss, bit 1
#: congestion.
_ALARMS = ((), ("random_loss",), ("congestion",), ("random_loss", "congestion"))


def _combinations(plan: TargetingPlan, base: SenderSettings) -> tuple[SenderSettings, ...]:
    """The settings of every type (none first) with every set of alarms, in `_ALARMS`' order."""
    start = base.with_overrides(plan.base)
    types: Mapping[str, Overrides] = plan.network_type.settings if plan.network_type else {}
    names = ("", *NETWORK_CLASSES) if plan.network_type else ("",)
    combinations = []
    for name in names:
        for alarms in _ALARMS:
            overrides = dict(types.get(name, {}))
            for alarm in alarms:
                response: AlarmResponse | None = getattr(plan, alarm)
                overrides |= response.settings if response else {}
            settings = start.with_overrides(overrides)
            start.check_reachable(" with ".join((name or "any type", *alarms)), settings)
            combinations.append(settings)
    return tuple(combinations)

"""Network targeting driven by hand-tuned rules: the baseline of `agents.targeting`.

It follows the same plans; what the network is doing is said by rules of `baselines.network_rules`
in place of models. A rule's score becomes a probability by a logistic curve that is fitted on the
windows that the rule was tuned on, so that a threshold of the plan means the same for both.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines import network_rules, network_type_rules
from baselines.network_rules import ClassRule, ScoreRule
from bwe_env.config import from_mapping
from bwe_env.errors import ArtifactError, ConfigError, unknown_name
from bwe_env.labels import ELIGIBLE_LOST_PACKETS, NETWORK_CLASSES, PAST_S
from bwe_env.network_features import BIN_S, MAX_WINDOW_BINS, SECOND_BINS, FeatureStream
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import Targeting, TargetingPlan

PLAN_FILE = "plan.json"
RULES_FILE = "rules.json"

#: Rules that a file may name.
_RULES: dict[str, type[Any]] = {
    cls.__name__: cls
    for module in (network_rules, network_type_rules)
    for cls in vars(module).values()
    if isinstance(cls, type)
    and dataclasses.is_dataclass(cls)
    and (hasattr(cls, "score") or hasattr(cls, "classify"))
}
#: Whatever a rule is tuned to, it is smaller; an int beyond has no float.
_LARGEST = 1e300
#: Windows of the questions, as the models of a single task have them.
_WINDOW_BINS = {
    "random_loss": MAX_WINDOW_BINS,
    "congestion": round(PAST_S / BIN_S),
    "network_type": MAX_WINDOW_BINS,
}


@dataclass(frozen=True, kw_only=True)
class AnsweringRule:
    """A tuned rule and what its score means."""

    rule: ScoreRule | ClassRule
    slope: float = 1.0
    """probability = 1 / (1 + exp(-(slope * score + offset))); a class has probability 1"""
    offset: float = 0.0

    def __post_init__(self) -> None:
        for name in ("slope", "offset"):
            _require_finite(name, getattr(self, name))
            object.__setattr__(self, name, float(getattr(self, name)))

    def to_mapping(self) -> dict[str, Any]:
        """Its JSON form."""
        values: dict[str, Any] = dataclasses.asdict(self.rule)  # type: ignore[call-overload]
        return {
            "rule": type(self.rule).__name__,
            # All of them floats: 1 and 1.0 give equal bytes.
            "values": {name: np.asarray(value, float).tolist() for name, value in values.items()},
            "slope": self.slope,
            "offset": self.offset,
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> AnsweringRule:
        """The rule of a JSON form.

        Raises:
            UnknownNameError: a rule that there is not, or a value that it does not have.
            ConfigError: something is missing, or no finite number.
        """
        for name in ("rule", "values", "slope", "offset"):
            if not isinstance(values, Mapping) or name not in values:
                raise ConfigError(f"a rule needs {name!r}; write it with write_rules.")
        if not isinstance(values["values"], Mapping):
            raise ConfigError(f"values={values['values']!r} must map names to numbers.")
        name = values["rule"]
        if name not in _RULES:
            raise unknown_name("rule", name, _RULES)
        lists = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values["values"].items()
        }
        rule: Any = from_mapping(_RULES[name], lists)
        for field in dataclasses.fields(rule):
            _require_like(f"{name}.{field.name}", getattr(rule, field.name), field.default)
        return cls(rule=rule, slope=values["slope"], offset=values["offset"])


def _require_finite(name: str, value: object) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and -_LARGEST <= value <= _LARGEST):  # type: ignore[operator]
        raise ConfigError(f"{name}={value!r} must be a finite number.")


def _require_like(name: str, value: object, default: object) -> None:
    """Raise `ConfigError` unless a rule's value is a number, or as many as its default has."""
    if isinstance(default, tuple):
        if not isinstance(value, tuple) or len(value) != len(default):
            raise ConfigError(f"{name}={value!r} must be a list of {len(default)} numbers.")
        for part in value:
            _require_finite(name, part)
    else:
        _require_finite(name, value)


class RuleModels:
    """Rules in the place of models: a `bwe_env.telemetry.NetworkModels`.

    Args:
        rules: by task: ``random_loss``, ``congestion``, ``network_type``.

    Raises:
        UnknownNameError: another task.
        ConfigError: no rule, or one that does not answer its task.
    """

    def __init__(self, rules: Mapping[str, AnsweringRule]) -> None:
        for task, answering in rules.items():
            if task not in _WINDOW_BINS:
                raise unknown_name("task of a rule", task, _WINDOW_BINS)
            wanted = "classify" if task == "network_type" else "score"
            if not hasattr(answering.rule, wanted):
                raise ConfigError(
                    f"{type(answering.rule).__name__} does not answer {task}: that takes a rule "
                    f"with {wanted}()."
                )
        if not rules:
            raise ConfigError("RuleModels needs at least one rule.")
        self._rules = dict(rules)
        self._windows = sorted({_WINDOW_BINS[task] for task in rules})
        self.outputs = tuple(
            name
            for task in rules
            for name in (
                [f"network_type:{kind}" for kind in NETWORK_CLASSES]
                if task == "network_type"
                else [task]
            )
        )
        self.reset(1)

    def reset(self, num_envs: int) -> None:
        """`num_envs` calls begin."""
        self._features = FeatureStream(num_envs, windows=self._windows)
        self._lost = np.zeros((SECOND_BINS, num_envs))
        self._bins = 0

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""
        self._features.restart(env)
        self._lost[:, env] = 0.0

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Take the newest bin of every active call; see `bwe_env.telemetry.NetworkModels`.

        As for models, whether loss is random is only asked while packets are being lost.
        """
        self._features.push(telemetry, active)
        slot = self._bins % SECOND_BINS
        self._lost[slot, active] = telemetry["lost_packets"][active]
        self._bins += 1
        is_losing = self._lost.sum(axis=0) >= ELIGIBLE_LOST_PACKETS
        columns = []
        for task, answering in self._rules.items():
            dense = self._features.dense[self._windows.index(_WINDOW_BINS[task])]
            if task == "network_type":
                kinds = answering.rule.classify(dense)  # type: ignore[union-attr]
                columns.append(np.eye(len(NETWORK_CLASSES))[kinds])
                continue
            score = answering.rule.score(dense)  # type: ignore[union-attr]
            probability = _logistic(answering.slope * score + answering.offset)
            if task == "random_loss":
                probability = np.where(is_losing, probability, 0.0)
            columns.append(probability[:, None])
        return np.concatenate(columns, axis=1).astype(np.float32)


def _logistic(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without overflow for log-odds of any size."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * log_odds)))


def write_rules(directory: str | Path, rules: Mapping[str, AnsweringRule]) -> None:
    """Write rules beside a plan; equal rules give equal bytes."""
    forms = {task: rule.to_mapping() for task, rule in rules.items()}
    text = json.dumps(forms, indent=1, sort_keys=True)
    (Path(directory) / RULES_FILE).write_text(text + "\n", encoding="utf-8")


def load_targeted(directory: str | Path, *, base: SenderSettings | None = None) -> Targeting:
    """What a folder with ``plan.json`` and ``rules.json`` says, ready to follow calls.

    Args:
        base: the sender's own settings; libwebrtc's by default.

    Raises:
        ArtifactError: a file that is missing or damaged.
        ConfigError: the rules cannot answer what the plan asks, or a running call cannot take some
            of the plan's settings.
    """
    path = Path(directory) / RULES_FILE
    plan = TargetingPlan.read(Path(directory) / PLAN_FILE)
    try:
        forms = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(forms, Mapping):
            raise ConfigError("it must be a JSON object with one rule for each task.")
        models = RuleModels({task: AnsweringRule.from_mapping(f) for task, f in forms.items()})
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, RecursionError) as error:  # ours are ValueErrors
        raise ArtifactError(f"{path} holds no rules: {error}") from error
    return Targeting(plan, models, base=base)

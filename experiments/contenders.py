"""Controllers that comparisons play, by name: a baseline, a training run, or an exported policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import baselines
from bwe_env.competition import Competitor
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError, UnknownNameError, unknown_name
from bwe_env.gcc import GccParameters
from bwe_env.observation import ObservationConfig
from bwe_env.rollout import Controller
from experiments.delivered_models import load_models
from experiments.run_directory import ENVIRONMENT, RunDirectory

if TYPE_CHECKING:
    from agents.policy_estimator import PolicyEstimator

#: File of an exported policy, by which its folder is known.
_POLICY_FILE = "policy.json"
#: The name of the policy that comes with the project.
PRETRAINED = "ppo"
#: Before the name of a trained policy: with GCC behind it.
GUARDED_PREFIX = "guarded:"
#: What a model of the MMSys'24 challenge is named by, followed by its path.
ONNX_PREFIX = "onnx:"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A controller with all that its calls need, and the name it has in tables."""

    label: str
    controller: Controller
    gcc: GccParameters = field(default_factory=GccParameters)
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    network_models: Any = None
    """a `bwe_env.NetworkModels` whose answers are part of the observation"""

    @property
    def competitor(self) -> Competitor:
        """The same as the controller of competing calls."""
        return Competitor(
            controller=self.controller,
            gcc=self.gcc,
            observation=self.observation,
            network_models=self.network_models,
        )


def baseline(name: str, call: CallConfig, *, label: str | None = None) -> Contender:
    """A contender from the registry of baselines."""
    made = baselines.make(name, call=call)
    return Contender(label=label or name, controller=made.controller, gcc=made.gcc)


def policy_contender(policy: PolicyEstimator, *, label: str) -> Contender:
    """A trained policy with what it was trained to see.

    Raises:
        ArtifactError: its network models are no longer those that are delivered.
    """
    setting = policy.setting
    models = load_models(
        setting.network_models,
        period_bins=setting.network_model_period_bins,
        digests=setting.network_model_digests,
    )
    return Contender(
        label=label,
        controller=policy,
        gcc=setting.gcc,
        observation=setting.observation,
        network_models=models,
    )


def find_contender(name: str, call: CallConfig, *, label: str | None = None) -> Contender:
    """The controller a name means.

    Args:
        name: of a baseline; ``ppo``, the policy that comes with the project; a run directory of
            ``experiments.train``, whose selected policy is meant; a folder with an exported policy;
            or ``onnx:PATH``, a model of the MMSys'24 challenge, which asks for the rate from the
            receiver's side. ``guarded:`` before a policy lets GCC take over where it is not at home
            (`agents.guard`).
        call: the calls it will play.

    Raises:
        UnknownNameError: neither a baseline nor an existing directory.
        ArtifactError: a directory without a policy that fits this version, or no such ONNX model.
        ConfigError: the policy was trained for another range of rates, or a baseline is guarded.
    """
    if name.startswith(ONNX_PREFIX):
        return onnx_contender(name.removeprefix(ONNX_PREFIX), call, label=label or name)
    if name.startswith(GUARDED_PREFIX):
        inner = find_contender(name.removeprefix(GUARDED_PREFIX), call, label=label or name)
        return _guarded(inner, name)
    folder = policy_folder(name)
    if folder is None:
        try:
            return baseline(name, call, label=label)
        except UnknownNameError:
            raise unknown_estimator(name) from None
    from agents.export import load_policy

    policy = load_policy(folder, environment=ENVIRONMENT)
    policy.setting.check_call(call, name)
    return policy_contender(policy, label=label or name)


def policy_folder(name: str) -> Path | None:
    """Where the policy is that a name means, guarded or not; None if it means no policy.

    Raises:
        UnknownNameError: a path that is no run directory and has no policy.
    """
    name = name.removeprefix(GUARDED_PREFIX)
    if name == PRETRAINED:
        from agents.pretrained import FOLDER

        return FOLDER
    if not is_directory(name):
        return None
    folder = Path(name)
    return folder if (folder / _POLICY_FILE).is_file() else RunDirectory.open(name).policy


def onnx_contender(path: str, call: CallConfig, *, label: str) -> Contender:
    """A model of the MMSys'24 challenge; see `agents.onnx_estimator`.

    Raises:
        ArtifactError: no such model, or onnxruntime is not installed.
    """
    from agents.onnx_estimator import OnnxEstimator

    factory = partial(OnnxEstimator, path, call=call)
    factory()  # what is wrong with the model is said now, not by every call
    return Contender(label=label, controller=factory)


def _guarded(contender: Contender, name: str) -> Contender:
    from agents.guard import GuardedPolicy
    from agents.policy_estimator import PolicyEstimator

    policy: Any = contender.controller
    if not isinstance(policy, PolicyEstimator):
        raise ConfigError(
            f"{name!r}: only a trained policy can be guarded. Give {GUARDED_PREFIX}RUN_DIR."
        )
    return replace(contender, controller=GuardedPolicy(policy))


def is_directory(name: str) -> bool:
    """A path, with ``guarded:`` before it or not, rather than a baseline or an ONNX model."""
    path = name.removeprefix(GUARDED_PREFIX)
    return not path.startswith(ONNX_PREFIX) and (Path(path).is_dir() or "/" in path)


def unknown_estimator(name: str) -> UnknownNameError:
    """The error for a name that is neither a baseline nor a directory."""
    return unknown_name("estimator", name, (*baselines.NAMES, PRETRAINED, "onnx:PATH", "RUN_DIR"))

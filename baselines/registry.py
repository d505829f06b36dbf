"""From a name such as ``"gcc"`` or ``"constant:500000"`` to a controller that can run calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from baselines.aimd_loss import AimdLoss
from baselines.bbr import Bbr
from baselines.constant import DEFAULT_RATE_BPS, ConstantRate
from baselines.copa import Copa
from baselines.future_oracle import DEFAULT_HEADROOM_RATIO as FUTURE_HEADROOM_RATIO
from baselines.future_oracle import FutureOracle
from baselines.gcc import PRESETS
from baselines.nada import Nada
from baselines.oracle import DEFAULT_HEADROOM_RATIO, Oracle
from baselines.scream import Scream
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError, unknown_name
from bwe_env.estimator import BandwidthEstimator, EstimatorFactory, RatePolicy
from bwe_env.gcc import GccParameters

#: Hand-tuned controllers as estimators; each takes the call it is for as keyword `call`.
ESTIMATORS: Mapping[str, Callable[..., BandwidthEstimator]] = {
    "aimd-loss": AimdLoss,
    "bbr": Bbr,
    "copa": Copa,
    "nada": Nada,
    "scream": Scream,
}

#: What a user may write, with its default argument where one may follow a colon.
NAMES = (
    *PRESETS,
    *ESTIMATORS,
    "constant",
    "constant:RATE_BPS",
    "oracle",
    "oracle:HEADROOM_RATIO",
    "oracle-future",
    "oracle-future:HEADROOM_RATIO",
)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A controller and what `bwe_env.rollout.run_calls` needs to run it."""

    name: str
    """as given to `make`"""
    controller: Literal["gcc"] | RatePolicy | EstimatorFactory
    """GCC in the compiled loop, a rate policy, or what makes an estimator for each call"""
    gcc: GccParameters = field(default_factory=GccParameters)
    """GCC's parameters (also those of the GCC that a policy observes)"""


def make(name: str, *, call: CallConfig | None = None) -> Baseline:
    """The baseline called `name`.

    Args:
        name: one of `NAMES`; an argument follows a colon, as in ``"constant:500000"`` (bps) or
            ``"oracle:0.9"`` (share of the capacity) or ``"oracle-future:0.9"`` (of what fits).
        call: the calls it will run; a constant rate must lie between their minimum and maximum.

    Raises:
        UnknownNameError: no such baseline; the known ones are listed.
        ConfigError: the argument is no number, or out of range.
    """
    call = call or CallConfig()
    kind, colon, argument = name.partition(":")
    if colon and (kind in PRESETS or kind in ESTIMATORS):
        raise ConfigError(f"baseline {kind!r} takes no argument, got {argument!r}; write {kind!r}.")
    if kind in PRESETS:
        return Baseline(name=name, controller="gcc", gcc=PRESETS[kind])
    if kind in ESTIMATORS:
        return Baseline(name=name, controller=partial(ESTIMATORS[kind], call=call))
    if kind == "constant":
        rate_bps = _argument(name, argument, "bits per second") if colon else DEFAULT_RATE_BPS
        return Baseline(name=name, controller=ConstantRate(rate_bps, call=call))
    if kind == "oracle":
        headroom = _argument(name, argument, "a share") if colon else DEFAULT_HEADROOM_RATIO
        return Baseline(name=name, controller=Oracle(headroom_ratio=headroom, call=call))
    if kind == "oracle-future":
        headroom = _argument(name, argument, "a share") if colon else FUTURE_HEADROOM_RATIO
        return Baseline(name=name, controller=FutureOracle(headroom_ratio=headroom, call=call))
    raise unknown_name("baseline", name, NAMES)


def _argument(name: str, text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            f"baseline {name!r}: {text!r} is no finite number ({unit}). Known: {', '.join(NAMES)}."
        )
    return value

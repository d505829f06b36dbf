"""How much an experiment could have seen, and how many networks it takes to see what it saw.

On the scale of ``log(treatment / control)`` an estimate is nearly normal; its standard error is
that of the bootstrap and falls with the square root of the number of networks. The two-sided test
is at 5 %, for one row by itself; Holm's strictest step over 12 rows takes 1.7 times the networks.

The power at the *observed* effect is a restatement of the p-value and no evidence of its own: it
serves to plan the next experiment. What this one could see is the detectable change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from experiments.ab_statistics import ALPHA, Change

#: Chance of finding an effect that an experiment is planned for. Convention (J. Cohen 1988).
WANTED_POWER = 0.8

_NORMAL = NormalDist()
_CRITICAL = _NORMAL.inv_cdf(1.0 - ALPHA / 2.0)
_WANTED = _CRITICAL + _NORMAL.inv_cdf(WANTED_POWER)


@dataclass(frozen=True, kw_only=True)
class Power:
    """What a row's spread means for experiments like it."""

    power: float
    """chance that such an experiment finds an effect as large as the observed; NaN if unknown"""
    networks_needed: float
    """networks for a power of 80 % at the observed effect, each with as many calls as here; whole,
    infinite if nothing moved, NaN if unknown"""
    detectable_pct: float
    """the smallest rise that this experiment finds with a power of 80 %; percent, NaN if unknown"""


def power_of(change: Change) -> Power:
    """Power at the observed effect and spread."""
    ratio = 1.0 + change.change_pct / 100.0
    if not (ratio > 0.0 and change.log_se > 0.0):
        return Power(power=math.nan, networks_needed=math.nan, detectable_pct=math.nan)
    effect = abs(math.log(ratio)) / change.log_se
    return Power(
        power=_NORMAL.cdf(effect - _CRITICAL) + _NORMAL.cdf(-effect - _CRITICAL),
        networks_needed=networks_needed(effect, change.networks),
        detectable_pct=100.0 * math.expm1(_WANTED * change.log_se),
    )


def networks_needed(effect: float, networks: int) -> float:
    """Networks for a power of 80 %.

    Args:
        effect: in standard errors of an experiment with `networks` networks, >= 0.
    """
    if effect == 0.0:
        return math.inf
    return float(math.ceil(networks * (_WANTED / effect) ** 2))

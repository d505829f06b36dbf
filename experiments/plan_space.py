"""What is tuned about each targeting plan: its numbers, their ranges, and what they trade.

A plan is only worth the name if it needs to know its network: settings that are better everywhere
belong into GCC's defaults. So each plan is made of two sides. One takes what there is to take (a
faster ramp-up, a rate that is held under loss, a shallow back-off); the other gives way (a narrow
window, deep back-offs, parity), and which of the two is right is what the models say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bwe_env.config import from_mapping
from bwe_env.gcc import GccParameters
from bwe_env.targeting import TargetingPlan

if TYPE_CHECKING:
    from optuna import Trial

#: Significant digits of a tuned number. Ours.
DIGITS = 3

Value = int | float
Path = tuple[str, ...]
"""where a plan's JSON form keeps a value"""


@dataclass(frozen=True, kw_only=True)
class PlanKnob:
    """One number of a plan that is tuned."""

    path: Path
    low: float
    high: float
    log: bool = True
    """searched by ratio rather than by difference"""
    whole: bool = False
    """a whole number"""

    @property
    def name(self) -> str:
        """As studies call it."""
        return "/".join(self.path)

    def suggest(self, trial: Trial) -> Value:
        """A value for this trial, rounded."""
        value = trial.suggest_float(self.name, self.low, self.high, log=self.log)
        rounded = min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)
        return round(rounded) if self.whole else rounded


@dataclass(frozen=True, kw_only=True)
class PlanSpace:
    """All plans of one kind."""

    fixed: Mapping[Path, Any]
    """what every plan has"""
    knobs: Sequence[PlanKnob]

    def suggest(self, trial: Trial) -> TargetingPlan:
        """A plan for this trial."""
        return self.plan({knob.path: knob.suggest(trial) for knob in self.knobs})

    def plan(self, values: Mapping[Path, Value]) -> TargetingPlan:
        """The plan with these values."""
        form: dict[str, Any] = {}
        for path, value in {**self.fixed, **values}.items():
            place = form
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = value
        return from_mapping(TargetingPlan, form)


def _knob(*path: str, low: float, high: float, log: bool = True, whole: bool = False) -> PlanKnob:
    return PlanKnob(path=path, low=low, high=high, log=log, whole=whole)


def _rate_control(
    *place: str, additive: tuple[float, float], increase: tuple[float, float]
) -> tuple[PlanKnob, ...]:
    """How fast the rate rises, when it yields, and how far."""
    return (
        _knob(*place, "gcc.decrease_factor", low=0.7, high=0.97, log=False),
        _knob(
            *place,
            "gcc.min_additive_increase_bps_per_s",
            low=additive[0],
            high=additive[1],
            whole=True,
        ),
        _knob(*place, "gcc.increase_factor_per_s", low=increase[0], high=increase[1], log=False),
        _knob(*place, "gcc.overuse_time_ms", low=2.0, high=60.0),
        _knob(*place, "gcc.trendline_gain", low=1.5, high=10.0),
    )


_CONGESTION = ("congestion", "settings")
_LOSS = ("random_loss", "settings")


def _type(name: str) -> Path:
    return ("network_type", "settings", name)


#: By name of the plan.
SPACES: dict[str, PlanSpace] = {
    # Without an alarm the rate rises fast and yields late; a predicted congestion makes it yield
    # early, empty the queue fast (pacing, a narrow window) and wait.
    "congestion": PlanSpace(
        fixed={(*_CONGESTION, "gcc.cwnd_min_bytes"): GccParameters.cwnd_min_bytes},
        knobs=(
            *_rate_control("base", additive=(4e3, 3e5), increase=(1.05, 1.6)),
            _knob("base", "gcc.cwnd_min_bytes", low=3e3, high=6e4, whole=True),
            *_rate_control(*_CONGESTION, additive=(1e3, 6e4), increase=(1.0, 1.15)),
            _knob(*_CONGESTION, "gcc.pacing_factor", low=1.1, high=2.5, log=False),
            _knob(*_CONGESTION, "gcc.cwnd_queue_s", low=0.03, high=0.35),
            _knob("congestion", "rate_scale", low=0.6, high=1.0, log=False),
            _knob("congestion", "threshold", low=0.15, high=0.9, log=False),
            _knob("congestion", "hold_s", low=0.3, high=6.0),
        ),
    ),
    # Under random loss the rate is held and ramps up by the link's capacity, and picture and sound
    # are protected.
    "random-loss": PlanSpace(
        fixed={(*_LOSS, "fec.enabled"): True, (*_LOSS, "audio_redundancy"): 2},
        knobs=(
            *_rate_control(*_LOSS, additive=(4e3, 1e6), increase=(1.05, 1.6)),
            _knob(*_LOSS, "fec.min_protection", low=0.02, high=0.4),
            _knob(*_LOSS, "gcc.instant_bound_loss_offset", low=0.05, high=0.4),
            _knob(*_LOSS, "gcc.inherent_loss_max_offset", low=0.05, high=0.3),
            _knob(*_LOSS, "gcc.bias_loss_threshold", low=0.2, high=0.6, log=False),
            _knob(*_LOSS, "gcc.hold_max_s", low=0.3, high=60.0),
            _knob(*_LOSS, "gcc.rampup_factor", low=1.2, high=4.0),
            _knob(*_LOSS, "gcc.pacing_factor", low=1.1, high=2.5, log=False),
            _knob(*_LOSS, "gcc.cwnd_queue_s", low=0.06, high=0.5),
            _knob("random_loss", "threshold", low=0.3, high=0.95, log=False),
            _knob("random_loss", "hold_s", low=1.0, high=20.0),
        ),
    ),
    # Slow cellular links yield to every sign of a queue, if need be by dropping frames; fast ones
    # keep their frames, have a window that never closes for good, and ramp up by hundreds of kbps
    # per second: a slow one would drown in it.
    "cellular": PlanSpace(
        fixed={(*_type("cellular-high"), "gcc.cwnd_drop_frames"): False},
        knobs=(
            _knob(*_type("cellular-high"), "gcc.cwnd_min_bytes", low=3e3, high=6e4, whole=True),
            *(
                knob
                for name, additive in (("cellular-low", (1e3, 6e4)), ("cellular-high", (4e3, 1e6)))
                for knob in (
                    *_rate_control(*_type(name), additive=additive, increase=(1.0, 1.6)),
                    _knob(
                        *_type(name), "gcc.increase_limit_extra_bps", low=1e4, high=6e5, whole=True
                    ),
                    _knob(*_type(name), "gcc.threshold_gain_up", low=0.002, high=0.03),
                    _knob(*_type(name), "gcc.pacing_factor", low=1.1, high=2.5, log=False),
                    _knob(*_type(name), "gcc.cwnd_queue_s", low=0.03, high=0.5),
                )
            ),
        ),
    ),
}

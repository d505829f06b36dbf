"""What is tuned, in one table: names, ranges and why.

Names are those of `bwe_env.sender_settings`. Only what a running call can take over is in it: a
tuned configuration is applied when the network's type has been found out, in mid-call. Settings
that only audio notices are not: trials are judged by video. `rtx.max_age_s` is not either: 0 stands
for no limit there, so that a search would find the strictest limit beside none at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bwe_env.errors import ConfigError
from bwe_env.sender_settings import FIXED_IN_CALL, SETTING_NAMES, SenderSettings

if TYPE_CHECKING:
    from optuna import Trial

#: Significant digits of a tuned number: more than calls could tell apart, and easy to read. Ours.
DIGITS = 4

Value = bool | int | float


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One dimension of the search."""

    name: str
    """dotted name of the setting"""
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    """searched by ratio rather than by difference"""
    cell: int | None = None
    """of a setting that is a table: the one number of it that is tuned, counted from 0"""
    why: str
    """what it trades"""

    def __post_init__(self) -> None:
        if self.name not in SETTING_NAMES or self.name.removeprefix("gcc.") in FIXED_IN_CALL:
            raise ConfigError(f"{self.name!r} is no setting that a running call can take over.")
        if not (self.low <= float(self.default) <= self.high):
            raise ConfigError(
                f"{self.name}: the default {self.default!r} is outside of {self.low:g} to "
                f"{self.high:g}, and the search has to begin with it."
            )

    @property
    def default(self) -> Value:
        """What an untuned sender has."""
        value = SenderSettings().value(self.name)
        default: Value = value if self.cell is None else value[self.cell]
        return default

    def suggest(self, trial: Trial) -> Value:
        """A value for this trial, as its sampler likes it."""
        if isinstance(self.default, bool):
            return bool(trial.suggest_categorical(self.name, [False, True]))
        if isinstance(self.default, int):
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def override(self, value: Value) -> Any:
        """The setting as a plain JSON value, rounded to `DIGITS`, but never out of range."""
        if not isinstance(self.default, bool):
            value = min(max(_rounded(value), self.low), self.high)
            value = round(value) if isinstance(self.default, int) else float(value)
        if self.cell is None:
            return value
        table = list(SenderSettings().value(self.name))
        table[self.cell] = value
        return table


def _rounded(value: float) -> float:
    if value == 0.0:
        return 0.0
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


#: The search space.
KNOBS: tuple[Knob, ...] = (
    # Delay-based estimation: how soon it yields, how deep, how fast it comes back.
    Knob(
        name="gcc.decrease_factor",
        low=0.7,
        high=0.98,
        why="depth of a back-off: a drained queue against a rate that need not be won back",
    ),
    Knob(
        name="gcc.decrease_extra_bps",
        low=0,
        high=20_000,
        why="what a back-off takes on top: much of a rate of 100 kbps, nothing of one of 5 Mbps",
    ),
    Knob(
        name="gcc.increase_factor_per_s",
        low=1.02,
        high=1.5,
        why="how fast free capacity is found while nothing is known of it",
    ),
    Knob(
        name="gcc.min_additive_increase_bps_per_s",
        low=1_000,
        high=200_000,
        log=True,
        why="growth near the link's capacity: its recovery after a back-off against the next one",
    ),
    Knob(
        name="gcc.detector_delay_s",
        low=0.01,
        high=0.5,
        log=True,
        why="growth near the link's capacity as well, faster for a shorter one and a short RTT",
    ),
    Knob(
        name="gcc.link_capacity_deviations",
        low=0.5,
        high=8.0,
        log=True,
        why="how well the link's capacity must be known for growth to slow down",
    ),
    Knob(
        name="gcc.increase_limit_factor",
        low=1.1,
        high=3.0,
        why="how far the target may run ahead of what arrives",
    ),
    Knob(
        name="gcc.threshold_gain_up",
        low=0.001,
        high=0.05,
        log=True,
        why="how fast the detector gets used to delay: jitter of radio links, competing TCP",
    ),
    Knob(
        name="gcc.overuse_time_ms",
        low=2.0,
        high=100.0,
        log=True,
        why="patience with a growing delay: grants and hand-overs look like queues for a moment",
    ),
    Knob(
        name="gcc.trendline_gain",
        low=1.0,
        high=10.0,
        log=True,
        why="sensitivity to a growing delay",
    ),
    # Loss-based estimation: how much loss is taken for the network's own.
    Knob(
        name="gcc.bandwidth_bias",
        low=0.00005,
        high=0.005,
        log=True,
        why="loss that is borne at an unchanged rate, more of it the higher the rate",
    ),
    Knob(
        name="gcc.instant_bound_loss_offset",
        low=0.02,
        high=0.3,
        log=True,
        why="loss from which on the rate is cut at once: a full queue against random loss",
    ),
    # Probing and the congestion window.
    Knob(
        name="gcc.further_probe_scale",
        low=1.2,
        high=4.0,
        why="how boldly probing goes on: capacity found at once against a filled queue",
    ),
    Knob(
        name="gcc.drop_probe_scale",
        low=0.5,
        high=1.5,
        why="rate that is probed for after a large drop: links that come back as they went",
    ),
    Knob(
        name="gcc.cwnd_queue_s",
        low=0.05,
        high=1.0,
        log=True,
        why="queue from which on frames are dropped at the encoder",
    ),
    # Across layers: pacing and redundancy.
    Knob(
        name="gcc.pacing_factor",
        low=1.0,
        high=2.5,
        why="bursts of frames: less delay in the pacer against more in the bottleneck",
    ),
    Knob(
        name="burst_interval_s",
        low=0.005,
        high=0.04,
        log=True,
        why="the pacer's bursts: what a shallow queue or a policer takes at once",
    ),
    Knob(
        name="queue_time_limit_s",
        low=0.3,
        high=2.0,
        log=True,
        why="how far the pacer may lag behind before it goes above its rate",
    ),
    Knob(
        name="rtx.rate_share",
        low=0.05,
        high=1.0,
        log=True,
        why="share of the rate that may go into sending again: repair against a fuller queue",
    ),
    Knob(name="fec.enabled", why="parity instead of waiting for a retransmission"),
    Knob(
        name="fec.protection",
        low=0.1,
        high=0.5,
        cell=3,
        why="share of parity at high loss and a round trip of 20 ms or more",
    ),
    Knob(
        name="fec.min_protection",
        low=0.02,
        high=0.4,
        log=True,
        why="share of parity as soon as there is loss: its price at low rates",
    ),
)


def suggest(trial: Trial, knobs: Sequence[Knob] = KNOBS) -> dict[str, Value]:
    """A value for every knob, by name."""
    return {knob.name: knob.suggest(trial) for knob in knobs}


def default_values(knobs: Sequence[Knob] = KNOBS) -> dict[str, Value]:
    """The untuned value of every knob: where a search begins."""
    return {knob.name: knob.default for knob in knobs}


def overrides_of(values: Mapping[str, Value], knobs: Sequence[Knob] = KNOBS) -> dict[str, Any]:
    """What a sender is told: plain JSON values of the settings that differ from the default."""
    told = {knob.name: knob.override(values[knob.name]) for knob in knobs}
    untuned = {knob.name: knob.override(knob.default) for knob in knobs}
    changed = {name: value for name, value in told.items() if value != untuned[name]}
    if not told.get("fec.enabled", True):  # its numbers say nothing while it is off
        changed = {name: value for name, value in changed.items() if not name.startswith("fec.")}
    return changed

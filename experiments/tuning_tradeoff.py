"""What one configuration for everybody trades between slow and fast networks, and in words.

See `experiments.tradeoff`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bwe_env.units import bps_to_mbps
from experiments.stats import Interval

#: Networks that a call fills, and networks that could carry more than most calls use. Satellites
#: are neither: what freezes them is outages.
LOW_CLASSES = ("cellular-low",)
HIGH_CLASSES = ("cellular-high", "wifi", "wired")
#: Rank correlation, from which on a gain is said to have a price. Ours: a quarter of the variance
#: of the ranks would be 0.5, none 0; with 240 trials 0.13 is significant.
PRICE_CORRELATION = 0.2


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A measured column as the picture shows it."""

    label: str
    factor: float
    digits: int


AXES = {
    "freeze_ratio": Axis(label="frozen time (%)", factor=100.0, digits=2),
    "bad_experience": Axis(label="calls with a bad experience (%)", factor=100.0, digits=1),
    "dropped": Axis(label="dropped calls (%)", factor=100.0, digits=2),
    "video_mos": Axis(label="video quality (MOS)", factor=1.0, digits=2),
    "call_score": Axis(label="call score (MOS)", factor=1.0, digits=2),
    "mean_media_bps": Axis(label="shown video (Mbps)", factor=bps_to_mbps(1.0), digits=2),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a configuration lies in the picture, in the units of the axes."""

    reliability: float
    """of low-bandwidth networks; less is better"""
    quality: float
    """of high-bandwidth networks; more is better"""

    def is_as_good_as(self, other: Place) -> bool:
        """In both."""
        return self.reliability <= other.reliability and self.quality >= other.quality


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """What is drawn. All places but the held-out ones are on the networks of the search."""

    reliability: str
    quality: str
    trials: tuple[Place, ...]
    """every trial of the global search; the first is the default"""
    is_feasible: tuple[bool, ...]
    """whether its delay was allowed"""
    chosen: Place
    """the global configuration that was chosen"""
    per_type: Place
    """each class under its own configuration"""
    held_out: Mapping[str, tuple[Interval, Interval]]
    """on test networks: difference to the default in `reliability` of low-bandwidth networks and in
    `quality` of high-bandwidth ones, by what was tuned for"""

    @property
    def default(self) -> Place:
        """The untuned configuration."""
        return self.trials[0]

    @property
    def price(self) -> float:
        """Rank correlation over trials of quality gained there and reliability lost here, -1…1."""
        return rank_correlation(
            np.array([place.quality for place in self.trials]),
            np.array([place.reliability for place in self.trials]),
        )


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's; 0 where one of them does not vary. Equal values share their mean rank."""
    ranks = [_ranks(values) for values in (first, second)]
    if min(np.ptp(its) for its in ranks) == 0.0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2.0)[inverse]
    return ranks


# --- In words -------------------------------------------------------------------------------------


def told(found: Tradeoff) -> str:
    """What the data says, in four sentences or so."""
    default, trials = found.default, found.trials[1:]
    better = [place for place in trials if place.quality > default.quality]
    paying = [place for place in better if place.reliability > default.reliability]
    lines = [
        f"{len(trials)} global trials against the default, on the networks of the search "
        f"(low-bandwidth: {', '.join(LOW_CLASSES)}; high-bandwidth: {', '.join(HIGH_CLASSES)}).",
        f"{len(better)} of them raise {_words(found.quality)} of high-bandwidth networks; "
        f"{len(paying)} of these also raise {_words(found.reliability)} of low-bandwidth networks.",
        f"Rank correlation of the two over all trials: {found.price:+.2f}. {_verdict(found)}",
        _per_type_told(found),
    ]
    for target, (reliability, quality) in found.held_out.items():
        lines.append(
            f"On test networks, {target} against the default: {_words(found.reliability)} of "
            f"low-bandwidth networks {reliability.text(AXES[found.reliability].digits)}, "
            f"{_words(found.quality)} of high-bandwidth networks "
            f"{quality.text(AXES[found.quality].digits)} (95 % intervals)."
        )
    return "\n".join(lines)


def _words(column: str) -> str:
    return AXES[column].label


def _verdict(found: Tradeoff) -> str:
    if found.price >= PRICE_CORRELATION:
        return "A global change that helps the one tends to cost the other."
    if found.price <= -PRICE_CORRELATION:
        return "There is no such price here: what helps the one tends to help the other."
    return "The data shows no such price: the two hardly move together."


def _per_type_told(found: Tradeoff) -> str:
    """How the combination of each type's own stands among the global ones."""
    as_good = sum(place.is_as_good_as(found.per_type) for place in found.trials)
    beaten = "none" if as_good == 0 else str(as_good)
    place, default = found.per_type, found.default
    return (
        f"Each type under its own configuration: {place.reliability - default.reliability:+.2f} in "
        f"{_words(found.reliability)} there and {place.quality - default.quality:+.2f} in "
        f"{_words(found.quality)} here; of the global trials, {beaten} is as good in both."
    )

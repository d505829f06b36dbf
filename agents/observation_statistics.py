"""What a policy saw in training, in a few numbers: how far an observation is from it.

The statistic is a Mahalanobis distance per feature (ours): of the newest interval's features f,
``sqrt((f - mean)' (covariance + ridge)^-1 (f - mean) / number of features)``, about 1 for an
ordinary interval. Unlike a range per feature it sees what is odd together only: much loss at an
empty queue, a long round trip with hardly a packet under way.

Half of the training calls give mean and covariance, the other half the quantiles of the distance:
on calls like those, a threshold at quantile q is exceeded in a share 1 - q of the intervals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import from_mapping
from bwe_env.errors import ConfigError
from bwe_env.feature_scale import unscaled
from bwe_env.observation import FEATURE_NAMES, FEATURES, NUM_FEATURES

#: Features the distance is taken over. Not the time: a call may last longer than those in training.
SCORED_FEATURES = tuple(name for name in FEATURE_NAMES if name != "call_time")
_SCORED = [FEATURE_NAMES.index(name) for name in SCORED_FEATURES]
_CALL_TIME = FEATURE_NAMES.index("call_time")

#: Before, features stand at values that mean "no report yet", and no statistic fits. Ours.
WARM_UP_S = 2.0
#: Added to the variances: a spread of 3 % of a feature's range counts as none. Ours.
RIDGE = 1e-3
#: Quantiles of the distance that are kept. Ours.
LEVELS = (0.5, 0.9, 0.99, 0.999, 0.9999)


@dataclass(frozen=True, kw_only=True)
class ObservationStatistics:
    """Mean, inverse covariance and quantiles of the distance on training calls."""

    features: tuple[str, ...]
    """names, in the order of the numbers"""
    mean: tuple[float, ...]
    """of each scaled feature"""
    precision: tuple[tuple[float, ...], ...]
    """inverse of the covariance with the ridge"""
    levels: tuple[float, ...]
    """shares of intervals"""
    quantiles: tuple[float, ...]
    """distance below which that share lies"""
    calls: int
    """that were looked at, both halves together"""
    guarded_share: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """share of the intervals of those calls in which the default guard would have stepped in, by
    its reason, and "any": its false triggers"""

    def __post_init__(self) -> None:
        for name in ("features", "mean", "levels", "quantiles"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "precision", tuple(tuple(row) for row in self.precision))
        if self.features != SCORED_FEATURES:
            raise ConfigError(
                f"the statistics are of the features {', '.join(self.features)}; this version "
                f"scores {', '.join(SCORED_FEATURES)}. Measure them anew: python -m "
                "experiments.policy_statistics RUN."
            )
        shape = np.shape(self.precision)
        size = len(SCORED_FEATURES)
        if (
            len(self.mean) != size
            or shape != (size, size)
            or len(self.levels) != len(self.quantiles)
        ):
            raise ConfigError(
                f"statistics of {size} features need as many means and {size}x{size} precisions, "
                f"got {len(self.mean)} and {shape}, and one quantile per level."
            )

    @classmethod
    def from_json(cls, values: Any) -> ObservationStatistics:
        """What `to_json` gave.

        Raises:
            ConfigError: unknown names, or other features.
        """
        return from_mapping(cls, values)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)

    def quantile(self, level: float) -> float:
        """The distance that a share `level` of the intervals stays below.

        Raises:
            ConfigError: it was not kept.
        """
        if level not in self.levels:
            known = ", ".join(f"{known:g}" for known in self.levels)
            raise ConfigError(f"no quantile was kept for level {level!r}; choose one of {known}.")
        return self.quantiles[self.levels.index(level)]

    def score(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Distance of each interval, shape (rows,); 0 within the warm-up of a call.

        Args:
            features: all features as observed, in [-1, 1], shape (rows, NUM_FEATURES).
        """
        away = features[:, _SCORED].astype(np.float64) - np.array(self.mean)
        squares = np.einsum("ri,ij,rj->r", away, np.array(self.precision), away)
        scores = np.sqrt(np.maximum(squares, 0.0) / len(self.mean))
        return np.where(is_warm(features), scores, 0.0)


def is_warm(features: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which rows lie behind the warm-up of their call."""
    time_s = unscaled(FEATURES[_CALL_TIME], features[:, _CALL_TIME])
    return np.asarray(time_s > WARM_UP_S)


def newest_features(observation: NDArray[np.floating[Any]], history: int) -> NDArray[np.float32]:
    """The newest interval's features, without answers of network models.

    Args:
        observation: shape (calls, length), as the environment gives it.
        history: intervals in it.

    Returns:
        Shape (calls, NUM_FEATURES).
    """
    intervals = observation.reshape(len(observation), history, -1)
    return np.asarray(intervals[:, -1, :NUM_FEATURES], dtype=np.float32)


def measure_statistics(calls: Sequence[NDArray[np.float32]]) -> ObservationStatistics:
    """Statistics of whole calls.

    Args:
        calls: features of each, shape (intervals, NUM_FEATURES).

    Raises:
        ConfigError: fewer than two calls, or calls that end within the warm-up.
    """
    # By chance: in lists of networks, every second one may be of the same few types.
    order = np.random.default_rng(0).permutation(len(calls))
    fitted, judged = ([calls[i] for i in order[part::2]] for part in (0, 1))
    if not judged:
        raise ConfigError(f"{len(calls)} call(s) cannot be halved; give at least 2.")
    rows = np.concatenate(fitted)
    rows = rows[is_warm(rows)][:, _SCORED].astype(np.float64)
    if len(rows) < 2:
        raise ConfigError(f"calls that end within {WARM_UP_S:g} s tell nothing; give longer ones.")
    covariance = np.cov(rows, rowvar=False) + RIDGE * np.eye(len(_SCORED))
    statistics = ObservationStatistics(
        features=SCORED_FEATURES,
        mean=tuple(rows.mean(axis=0).tolist()),
        precision=tuple(map(tuple, np.linalg.inv(covariance).tolist())),
        levels=LEVELS,
        quantiles=(0.0,) * len(LEVELS),
        calls=len(calls),
    )
    others = np.concatenate(judged)
    scores = statistics.score(others[is_warm(others)])
    quantiles = np.quantile(scores, LEVELS)
    return dataclasses.replace(statistics, quantiles=tuple(quantiles.tolist()))

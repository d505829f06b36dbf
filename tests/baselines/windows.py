"""Windows to put before rules, and how their answers are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.feature_scale import scaled
from bwe_env.labels import NETWORK_CLASSES
from bwe_env.network_features import DENSE_FEATURES, DENSE_NAMES, NUM_DENSE
from experiments.classification import macro_f1, pr_auc


def window(**values: float) -> NDArray[np.float32]:
    """A window's features, shape (NUM_DENSE,): the lowest, but for those given in their unit."""
    dense = np.full(NUM_DENSE, -1.0, dtype=np.float32)
    for name, value in values.items():
        index = DENSE_NAMES.index(name)
        row = DENSE_FEATURES[index]
        dense[index] = scaled(value, row.low, row.high, row.scale == "log", row.span)
    return dense


def random_windows(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, NUM_DENSE)).astype(np.float32)


def precision(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
    return float(pr_auc(scores, labels == 1, np.ones((1, len(labels))))[0])


def mean_f1(classes: NDArray[Any], labels: NDArray[np.int64]) -> float:
    ones = np.ones((1, len(labels)))
    return float(macro_f1(classes, labels, ones, len(NETWORK_CLASSES))[0])

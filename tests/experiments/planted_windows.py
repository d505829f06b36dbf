"""Windows of no call, whose answer is planted in two of their features."""

from __future__ import annotations

import numpy as np

from agents.network_tasks import task_of
from bwe_env.network_features import NUM_DENSE, NUM_SERIES
from experiments.samples import Samples


def planted(
    task: str,
    *,
    count: int = 300,
    seed: int = 0,
    window_bins: int | None = None,
    noise: float = 0.3,
    share: float = 0.5,
) -> Samples:
    """Windows whose first dense feature and last bin of the first series tell the answer.

    Args:
        share: of positives, or of class 0, the others alike.
    """
    generator = np.random.default_rng([seed, *task.encode()])
    bins = window_bins or task_of(task).window_bins
    num_classes = max(2, len(task_of(task).classes))
    others = (1.0 - share) / (num_classes - 1)
    chances = [1.0 - share, share] if num_classes == 2 else [share] + [others] * (num_classes - 1)
    labels = generator.choice(num_classes, size=count, p=chances)
    place = 2.0 * labels / (num_classes - 1) - 1.0
    dense = generator.normal(scale=0.3, size=(count, NUM_DENSE))
    dense[:, 0] = place + noise * generator.normal(size=count)
    series = generator.normal(scale=0.3, size=(count, bins, NUM_SERIES))
    series[:, -1, 0] = place + noise * generator.normal(size=count)
    return Samples(
        task=task,
        window_bins=bins,
        series=series.reshape(-1, NUM_SERIES).astype(np.float32),
        first_row=np.arange(count) * bins,
        dense=dense.astype(np.float32),
        labels=labels,
        is_special=np.zeros(count, dtype=np.bool_),
        network=np.arange(count),
        call=np.arange(count),
        bin=np.zeros(count, dtype=np.int64),
        networks=tuple(f"n{i:04d}" for i in range(count)),
        types=("3G",) * count,
    )

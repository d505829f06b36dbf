"""How features are mapped to [-1, 1]: by the range and scale of a table, not by a normaliser.

A trained model or policy then carries no statistics of the data that it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bwe_env.sim._jit import kernel

Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Feature:
    """One row of a table of features."""

    name: str
    unit: str
    low: float
    high: float
    scale: Scale
    doc: str

    @property
    def span(self) -> float:
        """What the range is long, on its scale."""
        return math.log(self.high / self.low) if self.scale == "log" else self.high - self.low


def markdown_table(features: Sequence[Feature]) -> str:
    """The table as Markdown, for docstrings and documents."""
    lines = ["| feature | unit | low | high | scale | meaning |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {f.name} | {f.unit} | {f.low:g} | {f.high:g} | {f.scale} | {f.doc} |" for f in features
    ]
    return "\n".join(lines)


@kernel
def scaled(value: float, low: float, high: float, is_log: bool, span: float) -> float:
    """`value`, clipped to [low, high], on [-1, 1]; see `Feature`."""
    bounded = min(high, max(low, value))
    if bounded == low:
        return -1.0
    if is_log:
        return 2.0 * math.log(bounded / low) / span - 1.0
    return 2.0 * (bounded - low) / span - 1.0


def unscaled(feature: Feature, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Values of a feature in its unit, from [-1, 1]: undoes `scaled`.

    What was clipped comes back as the end of the range. From float32 the numbers have a relative
    error of some 1e-6 on a logarithmic scale.

    Args:
        values: of any shape.
    """
    share = (np.asarray(values, dtype=np.float64) + 1.0) / 2.0
    if feature.scale == "log":
        return feature.low * np.exp(share * feature.span)
    return feature.low + share * feature.span

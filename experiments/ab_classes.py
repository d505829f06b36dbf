"""Sums of a metric whose classes are not to be compared with each other, such as picture sizes.

An arm that sends smaller pictures has finer quantisers without being better. Both arms are given
the same mix of classes (`bwe_env.metrics.at_equal_classes`), in the whole sample and in each of its
resamples anew: the mix is estimated from the same calls, and the interval has to say so. A class
that only one arm has is left out, and the report tells how many of the frames that takes.

What this does not do: within a class, the frames of the two arms may come from different calls. An
arm that goes up to the next size earlier leaves the smaller one with the harder calls. And where
the size follows the rate smoothly (``VideoConfig.picture_size="smooth"``), size and quantiser are
two functions of one rate: at equal sizes there is little left to differ, and the row says little.

On 40 networks whose arms have 20 and 60 % small pictures and no other difference, p < 0.05 came in
8 % of 1,000 experiments (see tests/experiments/test_ab_classes.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bwe_env.metrics import FieldMetric, at_equal_classes, equal_class_weights, weighted_classes
from experiments.ab_pairs import PairedCalls, PairedSums, paired_sums


@dataclass(frozen=True, kw_only=True)
class ClassSums(PairedSums):
    """A metric of both arms, network by network, with the classes weighted alike in both arms."""

    classes: NDArray[np.float64]
    """sums before that, shape (networks, 2 arms, classes, 2)"""
    counted: str
    """column of the denominators"""
    left_out_ratio: float
    """share of both arms' denominators in classes that only one arm has"""

    @property
    def differing(self) -> int:
        """Networks on which the two arms are not the same, whatever the weights make of them."""
        differs: NDArray[np.bool_] = self.classes[:, 0] != self.classes[:, 1]
        return int(differs.any(axis=(1, 2)).sum())

    @property
    def columns(self) -> NDArray[np.float64]:
        """Every sum of every class, shape (networks, 4 * classes)."""
        return self.classes.reshape(len(self.classes), -1)

    def resampled(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """The four sums of each resample, with its own weights of the classes."""
        classes = means.reshape(len(means), *self.classes.shape[1:])
        equal = at_equal_classes(classes[:, 0], classes[:, 1])
        return np.concatenate([equal.control, equal.treatment], axis=1)

    @property
    def note(self) -> str:
        """What was left out."""
        if self.left_out_ratio == 0.0:
            return ""
        share = f"{100.0 * self.left_out_ratio:.3g} % of {self.counted}"
        return f"{share} left out, as they are in classes that only one arm has"


def sums_of(pairs: PairedCalls, metric: FieldMetric) -> PairedSums:
    """Sums per network of what a field metric is made of, its classes weighted if it has any."""
    if not metric.classes:
        return paired_sums(pairs, metric)
    sums = [
        paired_sums(pairs, dataclasses.replace(metric, column=column, per=per, classes=()))
        for column, per in metric.class_columns
    ]
    return _weighted(sums, str(metric.per))


def _weighted(sums: Sequence[PairedSums], counted: str) -> ClassSums:
    """Sums over all classes, from those of each."""
    arms = [np.stack([getattr(s, arm) for s in sums], axis=1) for arm in ("control", "treatment")]
    totals = [arm.sum(axis=0) for arm in arms]
    weights = equal_class_weights(totals[0][:, 1], totals[1][:, 1])
    control, treatment = (weighted_classes(a, w) for a, w in zip(arms, weights, strict=True))
    # Numbers of frames are defined in every call, so the pairs are the same in all classes.
    return ClassSums(
        types=sums[0].types,
        control=control,
        treatment=treatment,
        calls=sums[0].calls,
        undefined_control=sums[0].undefined_control,
        undefined_treatment=sums[0].undefined_treatment,
        classes=np.stack(arms, axis=1),
        counted=counted,
        left_out_ratio=float(at_equal_classes(*totals).left_out_ratio),
    )

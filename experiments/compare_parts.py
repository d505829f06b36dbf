"""Calls of several estimators as arrays, whole and in subsets, each with its resamples of networks.

Which calls are contested, and how much capacity a network has, is read from the reference's calls:
a call that was dropped early has seen less of its network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.units import bps_to_mbps
from experiments.compare_results import Subset
from experiments.compare_statistics import (
    Array,
    Draws,
    Sampled,
    difference,
    draw_networks,
    draw_runs,
    mean,
    per_network,
)
from experiments.evaluation import SHOWN, Calls, Shown

SCORE, FREEZE, DELAY = "call_score", "freeze_ratio", "one_way_delay_ms_p95"
_COLUMNS = {shown.column: shown for shown in SHOWN}
#: What is compared, in the order of tables.
METRICS = (
    _COLUMNS[SCORE],
    _COLUMNS[FREEZE],
    _COLUMNS[DELAY],
    Shown(column="mean_media_bps", header="media kbps", factor=1e-3, digits=0),
    _COLUMNS["utilisation"],
    _COLUMNS["mean_reward"],
    Shown(column="dropped", header="dropped %", factor=100.0, digits=2),
)
#: The same by their columns.
BY_COLUMN = {shown.column: shown for shown in METRICS}
#: Upper ends of the classes of mean capacity, in Mbps; the last class has none. Ours.
BANDWIDTH_ENDS_MBPS = (0.5, 1.0, 2.0, 4.0)
BANDWIDTHS = ("< 0.5 Mbps", "0.5-1 Mbps", "1-2 Mbps", "2-4 Mbps", "> 4 Mbps")


@dataclass(frozen=True)
class Part:
    """Calls of one subset as arrays, with the resamples of its networks."""

    subset: Subset
    calls: Mapping[str, Mapping[str, Array]]
    """by label and column: shape (training runs, networks, seeds); NaN where it is undefined or the
    call is none of the subset's"""
    runs: Mapping[str, Array]
    """by label: weights of training runs in every resample"""
    draws: Draws
    equal: Draws | None
    """every type weighs the same; None for a part of one type or bandwidth"""
    values: dict[tuple[str, str], Array] = field(default_factory=dict)

    def of(self, label: str, column: str) -> Array:
        """Means over seeds, shape (training runs, networks)."""
        if (label, column) not in self.values:
            self.values[label, column] = per_network(self.calls[label][column])
        return self.values[label, column]

    def mean(self, label: str, column: str, draws: Draws | None = None) -> Sampled:
        """Mean of an estimator."""
        return mean(self.of(label, column), draws or self.draws, self.runs[label])

    def difference(
        self, label: str, other: str, column: str, draws: Draws | None = None
    ) -> Sampled:
        """Mean paired difference of two estimators."""
        pair = self.of(label, column), self.of(other, column)
        return difference(*pair, draws or self.draws, self.runs[label], self.runs[other])


class CallTable:
    """All calls as arrays of shape (training runs, networks, seeds)."""

    def __init__(
        self, played: Mapping[str, Sequence[Calls]], *, reference: str, resamples: int
    ) -> None:
        """Arguments as for `experiments.compare_analysis.compare_calls`.

        Raises:
            ConfigError: tables of different calls.
        """
        first = played[reference][0]
        _check_paired(played, first)
        networks = first["network"]
        seeds = int(np.argmax(networks != networks[0])) or len(networks)
        self._resamples = resamples
        self._shape = len(networks) // seeds, seeds
        self._types = first["network_type"].reshape(self._shape)[:, 0].astype(str)
        self._capacity_mbps = bps_to_mbps(
            first["mean_capacity_bps"].reshape(self._shape).mean(axis=1)
        )
        self._is_contested = first["contested"].reshape(self._shape).astype(bool)
        self._calls = {
            label: {s.column: self._stacked(tables, s.column) for s in METRICS}
            for label, tables in played.items()
        }
        self._runs = {
            label: draw_runs(label, len(tables), resamples=resamples)
            for label, tables in played.items()
        }

    def _stacked(self, tables: Sequence[Calls], column: str) -> Array:
        stacked = np.stack([table[column].reshape(self._shape) for table in tables])
        return stacked.astype(np.float64)

    def headline_parts(self) -> tuple[list[Part], list[str]]:
        """The contested calls and all of them; without contested ones, a note says so."""
        everything = self._part("all", np.ones(self._shape, dtype=bool))
        if self._is_contested.any(axis=1).sum() < 2:
            note = (
                "contested: fewer than two networks; the capacity never falls below the maximum "
                "rate elsewhere, where any controller can send at the maximum"
            )
            return [everything], [note]
        return [self._part("contested", self._is_contested), everything], []

    def parts_by(self, part: Part, by: str) -> list[Part]:
        """The same calls by network type or bandwidth."""
        calls = part.subset.calls
        chosen = self._is_contested if calls == "contested" else np.ones(self._shape, dtype=bool)
        names = self._types if by == "network_type" else self._bandwidths()
        known = sorted(set(names.tolist())) if by == "network_type" else BANDWIDTHS
        parts = []
        for name in known:
            inside = chosen & (names == name)[:, None]
            if inside.any():
                parts.append(self._part(calls, inside, by=by, part=name))
        return parts

    def _bandwidths(self) -> NDArray[np.str_]:
        classes = np.digitize(self._capacity_mbps, BANDWIDTH_ENDS_MBPS)
        return np.asarray(np.array(BANDWIDTHS)[classes])

    def _part(self, calls: str, chosen: NDArray[np.bool_], *, by: str = "", part: str = "") -> Part:
        rows = chosen.any(axis=1)
        kept, types = chosen[rows], self._types[rows]
        subset = Subset(
            name="/".join(filter(None, (calls, by, part))),
            calls=calls,
            by=by,
            part=part,
            networks=int(rows.sum()),
            num_calls=int(chosen.sum()),
        )
        arrays = {
            label: {
                name: np.where(kept, values[:, rows], np.nan) for name, values in columns.items()
            }
            for label, columns in self._calls.items()
        }
        resamples = self._resamples
        return Part(
            subset,
            arrays,
            self._runs,
            draw_networks(types, equal_types=False, resamples=resamples),
            None if by else draw_networks(types, equal_types=True, resamples=resamples),
        )


def _check_paired(played: Mapping[str, Sequence[Calls]], first: Calls) -> None:
    for label, tables in played.items():
        for table in tables:
            if any(not np.array_equal(table[key], first[key]) for key in ("network", "seed")):
                raise ConfigError(
                    f"the calls of {label!r} are of other networks or seeds than the reference's; "
                    "a paired comparison needs the same ones."
                )

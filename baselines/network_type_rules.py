"""Rules for the kind of network a call runs on; see `baselines.network_rules`.

No rule can be sure: a good cellular network, a satellite's and a busy Wi-Fi look alike from within
one call. What tells them apart are how long the way is, how much it carries and how steadily.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baselines.network_rules import Dense, Floats, measured
from bwe_env.labels import NETWORK_CLASSES

_CLASS = {name: index for index, name in enumerate(NETWORK_CLASSES)}


@dataclass(frozen=True, kw_only=True)
class TypeTree:
    """Thresholds asked one after the other, the clearest case first. Ours.

    1. Slow, by a long way: a low cellular rate.
    2. A short way without jitter: a wire.
    3. The RTT is high in many bins though nothing stands in a queue for long: a satellite's
       schedule.
    4. A short way: Wi-Fi in front of a wire. Else: a good cellular network.
    """

    slow_bps: float = 600e3
    """largest rate delivered in the window"""
    slow_floor_ms: float = 50.0
    """RTT floor"""
    wire_floor_ms: float = 40.0
    wire_variation_ms: float = 6.0
    satellite_spike_share: float = 0.3
    """of the window's bins"""
    wifi_floor_ms: float = 45.0

    def classify(self, dense: Dense) -> NDArray[np.int64]:
        """Position in `bwe_env.labels.NETWORK_CLASSES`."""
        floor_ms = measured(dense, "rtt_floor")
        is_slow = measured(dense, "acked_rate_max_w") < self.slow_bps
        is_still = measured(dense, "delay_variation_w") < self.wire_variation_ms
        is_spiky = measured(dense, "spike_bins_w") >= self.satellite_spike_share
        cases = {
            "cellular-low": is_slow & (floor_ms >= self.slow_floor_ms),
            "wired": is_still & (floor_ms < self.wire_floor_ms),
            "satellite": is_spiky,
            "wifi": floor_ms < self.wifi_floor_ms,
        }
        classes = [_CLASS[name] for name in cases]
        kind = np.select(list(cases.values()), classes, _CLASS["cellular-high"])
        return kind.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class TypicalValuesRule:
    """The kind of network whose typical values are nearest. Ours.

    Each tuple has one value per class of `bwe_env.labels.NETWORK_CLASSES`. Distances are squared
    and in doublings, those of a share in the share itself, and weighted against the RTT floor's.
    """

    floor_ms: tuple[float, ...] = (86.0, 58.0, 40.0, 32.0, 59.0)
    """RTT floor"""
    best_bps: tuple[float, ...] = (0.36e6, 1.1e6, 0.8e6, 1.0e6, 0.82e6)
    """largest rate delivered in the window"""
    variation_ms: tuple[float, ...] = (11.7, 6.6, 7.0, 5.2, 10.4)
    """of the delay, from packet to packet"""
    spike_share: tuple[float, ...] = (0.35, 0.18, 0.12, 0.06, 0.5)
    """of the window's bins: RTT high above its floor"""
    best_weight: float = 0.3
    variation_weight: float = 0.3
    spike_weight: float = 8.0

    @classmethod
    def measure(cls, dense: Dense, labels: NDArray[np.int64]) -> TypicalValuesRule:
        """With the medians of windows of each class as typical values.

        Args:
            labels: position of the class, shape (n,). A class that is missing keeps its default.
        """
        typical = cls()
        columns = {field: list(getattr(typical, field)) for field in _MEASURED}
        for field, name in _MEASURED.items():
            values = measured(dense, name)
            for kind in np.unique(labels):
                columns[field][kind] = float(f"{np.median(values[labels == kind]):.3g}")
        values_of = {field: tuple(column) for field, column in columns.items()}
        return dataclasses.replace(typical, **values_of)  # type: ignore[arg-type]

    def classify(self, dense: Dense) -> NDArray[np.int64]:
        """Position in `bwe_env.labels.NETWORK_CLASSES`."""

        def doubled(field: str) -> Floats:
            values = measured(dense, _MEASURED[field])[..., None]
            squared: Floats = np.log2(values / np.array(getattr(self, field))) ** 2
            return squared

        spikes = measured(dense, _MEASURED["spike_share"])[..., None]
        distance = (
            doubled("floor_ms")
            + self.best_weight * doubled("best_bps")
            + self.variation_weight * doubled("variation_ms")
            + self.spike_weight * (spikes - np.array(self.spike_share)) ** 2
        )
        nearest: NDArray[np.int64] = np.argmin(distance, axis=-1)
        return nearest


#: Typical value to the feature that it is one of.
_MEASURED = {
    "floor_ms": "rtt_floor",
    "best_bps": "acked_rate_max_w",
    "variation_ms": "delay_variation_w",
    "spike_share": "spike_bins_w",
}

"""Calls of a dataset whose telemetry is drawn, not simulated: quick, and with every column used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.telemetry import TELEMETRY_NAMES, empty_telemetry
from experiments.dataset import TRUTH_NAMES, DatasetCall


def quiet_telemetry(bins: int) -> NDArray[Any]:
    """A call in which 20 packets arrive in each bin with an RTT of 50 ms and nothing is lost."""
    rows = empty_telemetry(bins)
    rows["time_s"] = 0.1 * np.arange(1, bins + 1)
    for name in ("reports", "sent_packets", "acked_packets"):
        rows[name] = 20.0
    rows["sent_bytes"] = rows["acked_bytes"] = 24_000.0
    rows["acked_rate_bps"] = 1.92e6
    for name in ("queue_delay_ms", "queue_delay_min_ms", "queue_delay_max_ms"):
        rows[name] = 1.0
    rows["delay_variation_ms"] = 0.5
    rows["rtt_ms"] = 50.0
    rows["target_rate_bps"] = 2e6
    return rows


def quiet_truth(bins: int) -> dict[str, NDArray[np.float64]]:
    """Its ground truth."""
    truth = {name: np.zeros(bins) for name in TRUTH_NAMES}
    truth["capacity_bps"][:] = 3e6
    return truth


def lose(call: DatasetCall, bins: Any, *, by_chance: int = 0, by_load: int = 0) -> None:
    """Let packets be reported missing in some bins, each in a run of its own."""
    call.telemetry["lost_packets"][bins] += by_chance + by_load
    call.telemetry["loss_runs"][bins] += by_chance + by_load
    call.telemetry["loss_delay_ms"][bins] = 1.0
    call.telemetry["loss_gap_ms"][bins] = 5.0
    call.truth["reported_random_packets"][bins] += by_chance
    call.truth["reported_congestion_packets"][bins] += by_load


def quiet_call(network: str, *, bins: int = 600, **described: Any) -> DatasetCall:
    """`quiet_telemetry` as a call of the dataset; `lose` and a spike make more of it."""
    return DatasetCall(
        network=network,
        source="simulation",
        telemetry=quiet_telemetry(bins),
        truth=quiet_truth(bins),
        **{"network_type": "wifi", "network_class": "wifi", **described},
    )


def drawn_call(network: str, *, bins: int = 30, seed: int = 0, **described: Any) -> DatasetCall:
    """A call with another number in every place, a fifth of them unknown."""
    generator = np.random.default_rng([seed, len(network), *network.encode()])
    rows = empty_telemetry(bins)
    for name in TELEMETRY_NAMES:
        values = generator.normal(scale=1e5, size=bins)
        rows[name] = np.where(generator.random(bins) < 0.2, np.nan, values)
    truth = {name: generator.normal(scale=1e7, size=bins) for name in TRUTH_NAMES}
    return DatasetCall(
        network=network, source="simulation", telemetry=rows, truth=truth, seed=seed, **described
    )

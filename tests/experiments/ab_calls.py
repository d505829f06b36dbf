"""Made-up tables of calls whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.metrics import FIELD_METRICS, PICTURE_CLASSES

TYPES = np.array(["3G", "4G-LTE", "5G", "wifi"])

#: What a table has of every metric unless told otherwise.
PLAIN = {
    "duration_s": 180.0,
    "dropped": 0.0,
    "not_ready_s": 1.0,
    "last_minute_regression_v1": 0.0,
    "last_minute_regression_v2": 0.0,
    "bad_experience": 0.0,
    "freeze_ratio": 0.02,
    "freeze_ratio_above_500ms": 0.01,
    "audio_concealed_s": 2.0,
    "audio_played_s": 170.0,
    "talk_time_s": 150.0,
    "frames_encoded": 1000.0 * len(PICTURE_CLASSES),
    **{f"frames_encoded_{name}": 1000.0 for name in PICTURE_CLASSES},
    **{f"video_qp_sum_{name}": 40_000.0 for name in PICTURE_CLASSES},
    "video_mos": 3.5,
    "mean_video_sent_bps": 1e6,
    "one_way_delay_ms_p95": 80.0,
}

Table = dict[str, NDArray[Any]]


def calls_table(networks: int = 40, *, seeds: int = 1, **columns: Any) -> Table:
    """One row per network and seed, networks outermost; types in turn."""
    rows = networks * seeds
    number = np.repeat(np.arange(networks), seeds)
    table: Table = {
        "network": np.array([f"n{i:05d}" for i in number]),
        "network_type": TYPES[number % len(TYPES)],
        "seed": np.tile(np.arange(seeds), networks),
    }
    for name, value in (PLAIN | columns).items():
        table[name] = np.broadcast_to(np.asarray(value, dtype=np.float64), (rows,)).copy()
    return table


def noisy_table(
    networks: int = 40, *, seeds: int = 1, seed: int = 0, noise: float = 0.1, **factors: float
) -> Table:
    """Every continuous column scattered log-normally, then multiplied by its factor.

    Networks are as hard in every table, whatever the `seed`, as in arms that meet the same calls.
    """
    rows = networks * seeds
    hardness = np.random.default_rng(99).lognormal(0.0, 0.5, size=rows)
    generator = np.random.default_rng(seed)
    used = {above for m in FIELD_METRICS.values() for above, _ in m.class_columns}
    used.add("one_way_delay_ms_p95")
    columns = {}
    for name in sorted(used):
        if PLAIN[name] == 0.0:
            continue
        scatter = generator.lognormal(0.0, noise, size=rows)
        columns[name] = PLAIN[name] * hardness * scatter * factors.get(name, 1.0)
    return calls_table(networks, seeds=seeds, **columns)

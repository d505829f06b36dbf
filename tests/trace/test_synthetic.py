"""Synthetic capacity against the statistics of measured capacity, kind by kind.

The numbers are quoted, so that the comparison runs where the traces are not at hand; it follows the
definitions of STATS: means over 1 s, capacity floored at 150 kbps before the logarithm, deviations
from the session's mean pooled over sessions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.trace.recipes import CONGESTED_MEDIAN_BPS, RECIPES, STEP_S
from bwe_env.trace.synthetic import CUTOFF_BPS, QUANTUM_BPS, synthetic_capacity_bps

Floats = NDArray[np.float64]

OUTAGE_BPS = 150e3
SESSIONS = 160
SESSION_S = 300.0  # the chunks behind STATS last about five minutes


class Statistics(NamedTuple):
    log10_median: float
    sd: float  # of ln(capacity) within sessions
    acf: tuple[float, float, float, float]  # of ln(capacity) at 1, 2, 10, 20 s
    steps: tuple[float, float, float]  # |delta log2| p50, p90, p95
    outage_ratio: float
    outage_s: float  # mean duration
    dips_per_min: float  # below half the session median


# The measured traces, by `python -m experiments.validate networks DIRECTORY`. The satellite uplink
# has no outages worth the name.
MEASURED = {
    "3G-down": Statistics(
        6.013, 0.71, (0.87, 0.76, 0.45, 0.29), (0.18, 0.74, 1.08), 0.086, 4.9, 2.52
    ),
    "3G-up": Statistics(
        5.983, 0.61, (0.79, 0.67, 0.32, 0.13), (0.18, 0.92, 1.32), 0.072, 3.5, 3.10
    ),
    "4G-LTE-down": Statistics(
        7.045, 0.93, (0.68, 0.63, 0.37, 0.24), (0.21, 1.01, 1.95), 0.042, 2.2, 3.00
    ),
    "4G-LTE-up": Statistics(
        6.188, 0.68, (0.75, 0.57, 0.30, 0.25), (0.15, 0.97, 1.49), 0.094, 4.3, 2.81
    ),
    "5G-down": Statistics(
        7.470, 1.34, (0.63, 0.51, 0.25, 0.16), (0.30, 2.19, 4.43), 0.043, 1.7, 4.49
    ),
    "5G-mmWave-down": Statistics(
        8.388, 1.82, (0.76, 0.56, 0.22, 0.08), (0.22, 2.19, 3.99), 0.032, 1.9, 2.97
    ),
    "5G-up": Statistics(
        7.331, 1.08, (0.80, 0.72, 0.27, 0.01), (0.19, 1.17, 2.32), 0.038, 1.8, 2.84
    ),
    "wifi-down": Statistics(
        7.286, 0.71, (0.85, 0.72, 0.41, 0.32), (0.13, 0.63, 0.98), 0.003, 1.2, 1.60
    ),
    "satellite-down": Statistics(
        7.772, 1.88, (0.84, 0.75, 0.35, 0.20), (0.22, 1.33, 2.57), 0.116, 7.2, 3.08
    ),
}


def capacity(kind: str, *, congested: bool = False) -> Floats:
    """Sessions of one kind at the native step, shape (SESSIONS, steps)."""
    names = [f"statistics-{kind}-{i}" for i in range(SESSIONS)]
    return synthetic_capacity_bps(RECIPES[kind], names, duration_s=SESSION_S, congested=congested)


def per_second(capacity_bps: Floats) -> Floats:
    return capacity_bps.reshape(len(capacity_bps), -1, round(1.0 / STEP_S)).mean(axis=2)


def run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs of True in each row."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(int), axis=1)
    return np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]


def autocorrelation(series: Floats, lag: int) -> float:
    deviation = series - series.mean(axis=1, keepdims=True)
    return float((deviation[:, lag:] * deviation[:, :-lag]).mean() / (deviation**2).mean())


def statistics_of(seconds: Floats) -> Statistics:
    logs = np.log(np.maximum(seconds, OUTAGE_BPS))
    median = np.median(seconds, axis=1, keepdims=True)
    steps = np.abs(np.diff(logs, axis=1)) / np.log(2.0)
    outages = run_lengths(seconds < OUTAGE_BPS)
    return Statistics(
        log10_median=float(np.log10(median[median > 0]).mean()),
        sd=float((logs - logs.mean(axis=1, keepdims=True)).std()),
        acf=tuple(autocorrelation(logs, lag) for lag in (1, 2, 10, 20)),  # type: ignore[arg-type]
        steps=tuple(np.percentile(steps, (50, 90, 95))),  # type: ignore[arg-type]
        outage_ratio=float((seconds < OUTAGE_BPS).mean()),
        outage_s=float(outages.mean()) if len(outages) else 0.0,
        dips_per_min=60.0 * len(run_lengths(seconds < 0.5 * median)) / seconds.size,
    )


@pytest.mark.parametrize("kind", MEASURED)
def test_radio_and_satellite_capacity_moves_as_measured_capacity_does(kind: str) -> None:
    measured = MEASURED[kind]
    found = statistics_of(per_second(capacity(kind)))
    # Three standard errors of 160 sessions whose medians spread by up to 0.6 decades.
    assert found.log10_median == pytest.approx(measured.log10_median, abs=0.15)
    assert found.sd == pytest.approx(measured.sd, rel=0.2)
    assert found.acf == pytest.approx(measured.acf, abs=0.2)
    # The rule of `experiments.validate networks` is 1.25 for four in five and 2 for the fifth, with
    # 1000 sessions. The median step of 4G up is the farthest off (its 8 recordings say 0.11-0.34).
    for ours, theirs in zip(found.steps, measured.steps, strict=True):
        assert 0.7 < ours / theirs < 1.6
    assert 0.75 < found.dips_per_min / measured.dips_per_min < 1.3
    # Rare events of heavy-tailed length: 160 sessions know their share to about 0.03. Runs are
    # counted in whole seconds, so short ones (WiFi) cannot be told to better than 0.7 s.
    assert found.outage_ratio == pytest.approx(measured.outage_ratio, abs=0.03)
    assert found.outage_s == pytest.approx(measured.outage_s, rel=0.35, abs=0.7)


# STATS section 2, 200 ms step: |delta log2| p50 and p90; stats.json: dips per minute.
@pytest.mark.parametrize(
    ("kind", "p50", "p90", "dips_per_min"),
    [
        ("4G-LTE-down", 0.24, 1.06, 16.0),
        ("4G-LTE-up", 0.23, 0.83, 10.9),
        ("wifi-down", 0.12, 0.67, 9.0),
    ],
)
def test_within_a_second_links_move_as_the_200_ms_recordings_do(
    kind: str, p50: float, p90: float, dips_per_min: float
) -> None:
    capacity_bps = capacity(kind)
    logs = np.log(np.maximum(capacity_bps, OUTAGE_BPS))
    steps = np.abs(np.diff(logs, axis=1)) / np.log(2.0)
    found = np.percentile(steps, (50, 90))
    assert 0.7 < found[0] / p50 < 1.3
    assert 0.7 < found[1] / p90 < 1.3
    median = np.median(capacity_bps, axis=1, keepdims=True)
    minutes = SESSIONS * SESSION_S / 60.0
    dips = len(run_lengths(capacity_bps < 0.5 * median)) / minutes
    assert 0.7 < dips / dips_per_min < 1.3


def test_satellite_uplink_dips_every_five_seconds_and_hardly_ever_fails() -> None:
    seconds = per_second(capacity("satellite-up"))
    logs = np.log(np.maximum(seconds, OUTAGE_BPS))
    found = statistics_of(seconds)
    assert found.log10_median == pytest.approx(7.052, abs=0.1)  # experiments.validate networks
    assert found.sd == pytest.approx(0.21, rel=0.25)  # STATS section 2
    assert found.outage_ratio < 0.001  # STATS section 3
    # STATS section 2 and 7: 0.38 at 1 s; 0.48/0.35/0.28 at 5/10/15 s, 0.0-0.1 in between.
    for lag, expected in ((1, 0.38), (5, 0.48), (10, 0.35), (15, 0.28), (3, 0.05), (8, 0.05)):
        assert autocorrelation(logs, lag) == pytest.approx(expected, abs=0.15)


def test_wired_capacity_is_constant_but_for_cross_traffic() -> None:
    capacity_bps = capacity("wired-line")
    medians = np.median(capacity_bps, axis=1)
    # STATS section 7, "Wired broadband capacity": 10^(7.0 +- 0.4), clipped to 0.7-100 Mbps; noise
    # of 0.03-0.1; 0.5-2 dips a minute to 0.2-0.7, 2-6 s long.
    assert np.log10(medians).mean() == pytest.approx(7.0, abs=0.12)
    assert np.log10(medians).std() == pytest.approx(0.4, abs=0.1)
    assert 0.69e6 < medians.min() < medians.max() <= 100e6
    ln_ratio = np.log(capacity_bps / medians[:, None])
    quiet = ln_ratio > -0.3  # three sd of the strongest noise
    assert 0.03 < np.std(ln_ratio[quiet]) < 0.1
    dips = run_lengths(~quiet)
    assert 0.4 < len(dips) / (SESSIONS * SESSION_S / 60.0) < 1.8
    # A dip to 0.7 may touch the threshold, so some come in pieces; adjacent ones join.
    assert 2.0 < STEP_S * np.percentile(dips, 75) < 6.0
    assert np.exp(ln_ratio.min()) > 0.2 * 0.6


@pytest.mark.parametrize("kind", RECIPES)
def test_capacity_is_a_whole_number_of_kbps_up_to_the_kind_s_maximum_or_0(kind: str) -> None:
    capacity_bps = capacity(kind)
    assert np.array_equal(capacity_bps % QUANTUM_BPS, np.zeros_like(capacity_bps))
    assert capacity_bps.max() <= RECIPES[kind].max_bps
    positive = capacity_bps[capacity_bps > 0]
    assert positive.min() >= CUTOFF_BPS
    assert (capacity_bps > 0).any(axis=1).all()


@pytest.mark.parametrize("kind", RECIPES)
def test_congestion_moves_the_median_and_leaves_the_shape(kind: str) -> None:
    plain, congested = capacity(kind), capacity(kind, congested=True)
    low, high = np.log10(CONGESTED_MEDIAN_BPS)
    medians = np.median(congested, axis=1)
    assert np.log10(medians[medians > 0]).mean() == pytest.approx((low + high) / 2, abs=0.2)
    # The same name moves the same way: one factor scales all steps of a session but outages, which
    # are absolute, and what the kind's maximum cut. 2 %: rounding to 1 kbps of over 150 kbps.
    usual = np.minimum(plain, congested) > OUTAGE_BPS
    usual &= np.maximum(plain, congested) < RECIPES[kind].max_bps
    for one, other, mask in zip(plain, congested, usual, strict=True):
        factors = one[mask] / other[mask]
        assert factors.max(initial=0.0) <= 1.02 * factors.min(initial=np.inf)

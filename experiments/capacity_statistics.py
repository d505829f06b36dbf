"""How capacity moves, in numbers: the statistics by which measured and synthetic traces compare.

The definitions are those of the statistics page (``STATS.md``) of the directory of measured traces:
means over steps of 1 s (2 s for wired networks), capacity floored at 150 kbps before the logarithm,
deviations from the session's own mean, everything pooled over sessions. A step below 150 kbps is
an outage, one below half the session's median a dip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.trace.recipes import OUTAGE_BPS
from bwe_env.trace.trace import Trace
from bwe_env.units import bps_to_mbps, s_to_us

Floats = NDArray[np.float64]

#: Where the autocorrelation of ln(capacity) is read.
LAGS_S = (1, 2, 10, 20)
#: Of |log2(capacity now / capacity a step ago)|.
STEP_PERCENTS = (50, 75, 90, 95, 99)
#: A dip leaves less than this share of the session's median.
DIP_RATIO = 0.5


@dataclass(frozen=True)
class Session:
    """What one session adds to the statistics of its kind of network."""

    step_s: float
    median_bps: float
    deviations: Floats
    """of ln(capacity) from its mean over the session, shape (steps,)"""
    changes_log2: Floats
    """from one step to the next, shape (steps - 1,), >= 0"""
    outages_s: Floats
    """length of each outage"""
    num_dips: int

    @property
    def duration_s(self) -> float:
        """Whole steps only."""
        return len(self.deviations) * self.step_s


def step_means_bps(trace: Trace, step_s: float) -> Floats:
    """Mean capacity over each whole step of a trace, shape (steps,)."""
    step_us = s_to_us(step_s)
    edges_us = np.arange(0, trace.period_us + 1, step_us)
    ends_us = np.append(trace.start_us, trace.period_us)
    delivered = np.append(0.0, np.cumsum(trace.capacity_bps * trace.duration_us))
    return np.asarray(np.diff(np.interp(edges_us, ends_us, delivered)) / step_us)


def run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs of True, in order."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int64), [0]]))
    return np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)


def session_of(capacity_bps: Floats, *, step_s: float) -> Session:
    """Take one session apart.

    Args:
        capacity_bps: mean of each step, shape (steps,).

    Raises:
        ConfigError: fewer than two steps, of which nothing can be said.
    """
    if len(capacity_bps) < 2:
        raise ConfigError(
            f"a session of {len(capacity_bps)} steps of {step_s:g} s has no dynamics; "
            "leave traces shorter than two steps out."
        )
    logs = np.log(np.maximum(capacity_bps, OUTAGE_BPS))
    median_bps = float(np.median(capacity_bps))
    return Session(
        step_s=step_s,
        median_bps=median_bps,
        deviations=logs - logs.mean(),
        changes_log2=np.abs(np.diff(logs)) / math.log(2.0),
        outages_s=run_lengths(capacity_bps < OUTAGE_BPS) * step_s,
        num_dips=len(run_lengths(capacity_bps < DIP_RATIO * median_bps)),
    )


def pooled(sessions: Sequence[Session]) -> dict[str, float]:
    """Every statistic of a kind of network over its sessions, which share one step.

    Returns:
        By name. ``median Mbps`` is the geometric mean of the session medians (those of 0 left out),
        ``median spread`` the sd of their log10; ``sd`` and ``acf`` are of ln(capacity), ``step`` of
        log2. NaN is what these sessions cannot tell: a lag between two steps, or the length of
        outages where there are none.
    """
    medians_bps = np.array([session.median_bps for session in sessions])
    log10_medians = np.log10(medians_bps[medians_bps > 0])
    duration_s = sum(session.duration_s for session in sessions)
    deviations = [session.deviations for session in sessions]
    variance = float(np.mean(np.concatenate(deviations) ** 2))
    changes_log2 = np.concatenate([session.changes_log2 for session in sessions])
    outages_s = np.concatenate([session.outages_s for session in sessions])
    step_s = sessions[0].step_s
    values = {
        "median Mbps": bps_to_mbps(float(10.0 ** log10_medians.mean())),
        "median spread": float(log10_medians.std()),
        "sd": math.sqrt(variance),
    }
    for lag_s in LAGS_S:
        covariance = _lagged_mean(deviations, lag_s / step_s)
        values[f"acf {lag_s} s"] = covariance / variance if variance > 0.0 else math.nan
    for percent in STEP_PERCENTS:
        values[f"step p{percent}"] = float(np.percentile(changes_log2, percent))
    values["outage share"] = float(outages_s.sum()) / duration_s
    values["outage mean s"] = float(outages_s.mean()) if len(outages_s) else math.nan
    values["outage p90 s"] = float(np.percentile(outages_s, 90)) if len(outages_s) else math.nan
    values["dips/min"] = 60.0 * sum(session.num_dips for session in sessions) / duration_s
    return values


def _lagged_mean(deviations: Sequence[Floats], lag_steps: float) -> float:
    """Mean product of two deviations so far apart, over all such pairs of all sessions."""
    lag = round(lag_steps)
    if lag != lag_steps:
        return math.nan
    long_enough = [values for values in deviations if len(values) > lag]
    pairs = sum(len(values) - lag for values in long_enough)
    total = sum(float(np.dot(values[lag:], values[:-lag])) for values in long_enough)
    return total / pairs if pairs else math.nan

"""Round-trip times and loss of synthetic paths beside probes of links without load.

The probes of a directory (``probes_manifest.json``) were sent to a server at the edge of the access
network (WiFi, wired, satellite) or across it (cellular). The synthetic side is the same stretch of
path: without the wide area network that a call crosses on top. Per session both give the median
RTT and how far its 95th percentile lies above that; compared are the medians over sessions, and the
mean share of lost probes. Queue sizes are shown only: nobody recorded them.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import LinkConfig
from bwe_env.errors import TraceFormatError
from bwe_env.network import Network
from bwe_env.trace import Trace, draw_network
from bwe_env.trace.files import number, read_json, read_text
from bwe_env.trace.paths import PATH_RECIPES
from bwe_env.units import s_to_ms, s_to_us

#: Network types of the probes that stand for each of ours. Most cellular recordings do not say
#: whether they ran over 4G or 5G.
PROBE_TYPES = {
    "4G-LTE": ("cellular-4G/5G",),
    "5G": ("cellular-4G/5G", "5G-NSA", "5G-SA"),
    "wifi": ("wifi",),
    "wired-broadband": ("wired-broadband",),
    "satellite": ("satellite",),
}
#: Paths drawn per type, and probes on each: the numbers then move by 2 % from draw to draw.
NUM_PATHS = 1000
NUM_PROBES = 300
#: Most of the measured ones are 0.2 s apart.
PROBE_INTERVAL_S = 0.2
#: Largest difference of mean loss. It is as wide as the mean itself, which hangs on single
#: sessions: of the cellular ones 1 in 6 lost anything, in coverage holes that traces have as
#: outages.
LOSS_BOUND = 0.01


@dataclass(frozen=True)
class PathSession:
    """What probes tell of one path."""

    rtt_ms: float
    """median"""
    spread_ms: float
    """95th percentile of the RTT above its median"""
    rtt_step_ms: float
    """mean absolute difference of successive RTTs"""
    loss_ratio: float
    """NaN if losses were not recorded"""


def path_session(rtts_ms: Sequence[float], loss_ratio: float) -> PathSession:
    """Take one session apart; `rtts_ms` are those of the probes that came back, in order."""
    median, high = np.percentile(rtts_ms, (50, 95)).tolist()
    steps_ms = np.abs(np.diff(rtts_ms))
    return PathSession(
        rtt_ms=median,
        spread_ms=high - median,
        rtt_step_ms=float(steps_ms.mean()) if len(steps_ms) else math.nan,
        loss_ratio=loss_ratio,
    )


def path_statistics(sessions: Sequence[PathSession]) -> dict[str, float]:
    """Medians over sessions, and the mean of their loss (NaN where nobody recorded any)."""
    losses = [s.loss_ratio for s in sessions if not math.isnan(s.loss_ratio)]
    return {
        "RTT median ms": float(np.median([s.rtt_ms for s in sessions])),
        "RTT p95-p50 ms": float(np.median([s.spread_ms for s in sessions])),
        "RTT step ms": float(np.median([s.rtt_step_ms for s in sessions])),
        "loss": float(np.mean(losses)) if losses else math.nan,
    }


def measured_paths(directory: Path) -> dict[str, list[PathSession]]:
    """Probe sessions by our network type; empty where the directory has no probes."""
    manifest = directory / "probes_manifest.json"
    if not manifest.exists():
        return {}
    entries = read_json(manifest)
    sessions: dict[str, list[PathSession]] = defaultdict(list)
    for i, entry in enumerate(entries):
        if not (isinstance(entry, dict) and {"file", "network_type"} <= entry.keys()):
            raise TraceFormatError(
                f"{manifest}: entry {i} needs the keys 'file' and 'network_type'; mend the file."
            )
        session = _read_probes(directory / entry["file"])
        for network_type, probed in PROBE_TYPES.items():
            if entry["network_type"] in probed:
                sessions[network_type].append(session)
    return dict(sessions)


def _read_probes(path: Path) -> PathSession:
    rows = list(csv.DictReader(read_text(path).splitlines()))
    if not rows or not {"rtt_ms", "loss_rate"} <= rows[0].keys():
        raise TraceFormatError(
            f"{path}: expected the header time_s,rtt_ms,loss_rate and a line per probe."
        )
    where = [f"{path}:{line}" for line in range(2, 2 + len(rows))]
    rtts_ms = [
        number(row["rtt_ms"], f"{place}: rtt_ms")
        for row, place in zip(rows, where, strict=True)
        if row["rtt_ms"]
    ]
    losses = [
        number(row["loss_rate"], f"{place}: loss_rate")
        for row, place in zip(rows, where, strict=True)
        if row["loss_rate"]
    ]
    # -1 is the mark of a probe that was never answered.
    answered_ms = [rtt_ms for rtt_ms in rtts_ms if rtt_ms > 0.0]
    if not answered_ms:
        raise TraceFormatError(f"{path}: no probe was answered; leave the file out.")
    return path_session(answered_ms, float(np.mean(losses)) if losses else math.nan)


def synthetic_networks(network_type: str) -> list[Network]:
    """Access paths of a type, on a capacity that no probe feels."""
    duration_us, capacity_bps = np.array([s_to_us(1.0)]), np.array([10e6])
    return [
        draw_network(
            Trace(f"validation-{i}", network_type, "validation", duration_us, capacity_bps),
            access_only=True,
        )
        for i in range(NUM_PATHS)
    ]


def synthetic_paths(networks: Sequence[Network], *, seed: int = 0) -> list[PathSession]:
    """The same probes on our own paths. They are too far apart for one to wait for another, but not
    for the next grant, and hand-overs pass them by.
    """
    rng = np.random.default_rng(seed)
    sent_s = np.arange(NUM_PROBES) * PROBE_INTERVAL_S
    sessions = []
    for network in networks:
        both = (network.forward, network.reverse)
        rtts_s = _grant_waits_s(network.link, rng)
        for path in both:
            jitter_s = rng.normal(path.jitter.mean_s, path.jitter.scale_s, NUM_PROBES)
            added_s = np.array([0.0, *(added_s for _, added_s in path.delay_steps)])
            steps_taken = np.searchsorted([at_s for at_s, _ in path.delay_steps], sent_s, "right")
            rtts_s += path.propagation_delay_s + np.maximum(jitter_s, 0.0) + added_s[steps_taken]
        arrives = math.prod(1.0 - path.loss.mean_loss_ratio for path in both)
        sessions.append(path_session([s_to_ms(rtt_s) for rtt_s in rtts_s.tolist()], 1.0 - arrives))
    return sessions


def _grant_waits_s(link: LinkConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """How long each probe, at any time of any interval, waits for the next grant."""
    if link.grant_interval_s == 0.0:
        return np.zeros(NUM_PROBES)
    numbers = np.arange(NUM_PROBES + 1)[:, None] * 2 + np.arange(2)
    grants = (numbers + link.grant_spread * rng.uniform(size=numbers.shape)).ravel()
    times = 2.0 * np.arange(NUM_PROBES) + 1.0 + rng.uniform(size=NUM_PROBES)
    waits: NDArray[np.float64] = grants[np.searchsorted(grants, times)] - times
    return waits * link.grant_interval_s


def queue_quantiles_s(network_type: str) -> tuple[float, float, float]:
    """p10, p50 and p90 of how long a queue takes to empty; log-uniform between its bounds."""
    low, high = PATH_RECIPES[network_type].queue_s
    p10, p50, p90 = (low * (high / low) ** share for share in (0.1, 0.5, 0.9))
    return p10, p50, p90

"""Network models in calls: in shadow mode, on the alternating link, and what they cost.

In shadow mode GCC drives and the models watch: their predictions are scored once the future that
they speak of has passed, and nobody acts on them, since acting erases its own positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.online_models import OnlineModels
from baselines.oracle import Oracle
from bwe_env.network import Network
from bwe_env.network_features import BIN_S
from bwe_env.rollout import Controller, RecordedCall, record_calls
from bwe_env.scenario import read_scenarios
from experiments.collect import by_sender, simulated_call
from experiments.dataset import DatasetCall
from experiments.samples import telemetry_labels

#: The alternating link, as described where anybody can play it.
SCENARIOS = Path(__file__).with_name("scenarios.toml")
ALTERNATING = "alternating"
#: Its capacity changes that often, down first.
HALF_PERIOD_S = 30.0
#: A capacity falls if it loses two fifths within a bin. Ours.
FALL_RATIO = 0.6
#: Calls on it. Ours: 60 falls of the capacity.
ALTERNATING_SEEDS = 20
#: An alarm ends when the probability has been below the threshold for so long, and is raised anew
#: after `HORIZON_BINS`. Ours: bins in which it wavers around the threshold are one alarm.
ALARM_GAP_BINS = 10
#: An alarm is right if what it foretells comes within the 4 s that predictions speak of.
HORIZON_BINS = 40


def shadow_calls(
    networks: Sequence[Network], models: OnlineModels, *, threads: int
) -> tuple[list[DatasetCall], list[NDArray[np.float32]]]:
    """Calls under GCC on collected networks, and what the models said in them, bin by bin."""
    calls, probabilities = [], []
    for sender, chosen in by_sender(networks):
        for call in record_calls(
            chosen, "gcc", call=sender.call, network_models=models, num_threads=threads
        ):
            calls.append(simulated_call(call, sender.name))
            probabilities.append(call.probabilities)
    return calls, probabilities


# --- The alternating link -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fall:
    """One fall of the capacity, in seconds since the call began."""

    time_s: float
    first_loss_s: float
    """when a report first told of a loss after it; NaN if none did before the next step"""
    alarm_s: float
    """when the first alarm after it began (or one went on that had begun before); NaN if none"""

    @property
    def lead_s(self) -> float:
        """How much earlier the alarm was; NaN without either."""
        return self.first_loss_s - self.alarm_s


def alarm_starts(scores: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """Bins at which alarms begin: above the threshold, and not within the second before.

    One that goes on is raised anew every 4 s, since it speaks of no more. So always firing counts
    as many alarms, and not as a single long one that would look good.
    """
    starts: list[int] = []
    last = -1
    for index in np.flatnonzero(scores >= threshold).tolist():
        goes_on = len(starts) > 0 and index - last <= ALARM_GAP_BINS
        if not goes_on or index - starts[-1] >= HORIZON_BINS:
            starts.append(index)
        last = index
    return np.array(starts, dtype=np.int64)


def capacity_falls_s(
    time_s: NDArray[np.floating], capacity_bps: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Where a known capacity falls: beginnings of the bins with at most `FALL_RATIO` of the last.

    Args:
        time_s: ends of the bins, shape (bins,).
        capacity_bps: mean of each bin. A fall within a bin may show in two; the first counts.
    """
    is_fall = capacity_bps[1:] <= FALL_RATIO * capacity_bps[:-1]
    first = np.flatnonzero(is_fall & ~np.concatenate([[False], is_fall[:-1]])[: len(is_fall)])
    starts: NDArray[np.float64] = np.asarray(time_s, dtype=np.float64)[first]
    return starts


def falls_of(
    telemetry: NDArray[Any],
    scores: NDArray[np.floating],
    threshold: float,
    *,
    times_s: Sequence[float] | NDArray[np.float64] | None = None,
) -> list[Fall]:
    """How early each fall of the capacity was foretold within the half period after it.

    Args:
        telemetry: of a call on it, dtype `TELEMETRY`, shape (bins,).
        scores: shape (bins,), known at the end of each bin.
        times_s: of the falls; by default those of the alternating link.
    """
    end_s = telemetry["time_s"]
    falls = []
    lasted_s = float(end_s[-1]) if len(end_s) else 0.0
    if times_s is None:
        times_s = np.arange(HALF_PERIOD_S, lasted_s, 2 * HALF_PERIOD_S)
    for time_s in times_s:
        inside = (end_s > time_s) & (end_s <= time_s + HALF_PERIOD_S)
        lossy = inside & (telemetry["lost_packets"] > 0)
        alarmed = inside & (scores >= threshold)
        falls.append(
            Fall(
                time_s=float(time_s),
                first_loss_s=float(end_s[lossy][0]) if lossy.any() else float("nan"),
                alarm_s=float(end_s[alarmed][0]) if alarmed.any() else float("nan"),
            )
        )
    return falls


def false_alarms(telemetry: NDArray[Any], scores: NDArray[np.floating], threshold: float) -> int:
    """Alarms after which neither losses nor a growing RTT came within 4 s.

    An alarm that comes before the second spiking bin, which the label asks for, is not false for
    being early. Alarms in the last 4 s of a call are left out.
    """
    return _false_alarms(telemetry_labels(telemetry).is_followed, scores, threshold)


def _false_alarms(
    is_followed: NDArray[np.bool_], scores: NDArray[np.floating], threshold: float
) -> int:
    starts = alarm_starts(scores, threshold)
    starts = starts[starts < len(scores) - HORIZON_BINS]
    return int((~is_followed[starts]).sum())


def threshold_for_false_alarms(
    is_followed: Sequence[NDArray[np.bool_]],
    scores: Sequence[NDArray[np.floating]],
    *,
    per_minute: float,
) -> float:
    """The smallest of 200 thresholds with at most so many false alarms a minute in these calls.

    So do all larger ones. 1 where even that has more.
    """
    minutes = sum(len(rows) for rows in scores) * BIN_S / 60.0
    quiet = 1.0
    # From above: alarms that grow together can make a lower threshold quiet again, and useless.
    for threshold in np.linspace(1.0, 0.0, 201)[:-1]:
        alarms = sum(
            _false_alarms(followed, rows, threshold)
            for rows, followed in zip(scores, is_followed, strict=True)
        )
        if alarms > per_minute * minutes:
            break
        quiet = float(threshold)
    return quiet


def alternating_calls(models: OnlineModels, *, threads: int) -> list[RecordedCall]:
    """Calls of 180 s on the alternating link under GCC, the models watching."""
    scenario = read_scenarios(SCENARIOS)[ALTERNATING]
    return list(
        record_calls(
            [scenario.network],
            "gcc",
            call=scenario.call,
            seeds=range(ALTERNATING_SEEDS),
            network_models=models,
            num_threads=threads,
        )
    )


# --- What GCC does itself -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CongestionShare:
    """How often calls are congested under one controller, by network."""

    controller: str
    positive_ratio: NDArray[np.float64]
    """of scored bins, shape (networks,)"""
    queue_loss_ratio: NDArray[np.float64]
    """packets lost to queue, AQM or policer of all reported, shape (networks,)"""


def congestion_shares(networks: Sequence[Network], *, threads: int) -> list[CongestionShare]:
    """Congestion on the same networks under GCC and at the oracle's rate (default headroom)."""
    shares = []
    for name in ("gcc", "oracle"):
        by_network = {}
        for sender, chosen in by_sender(networks):
            controller: Controller = "gcc" if name == "gcc" else Oracle(call=sender.call)
            calls = record_calls(chosen, controller, call=sender.call, num_threads=threads)
            by_network.update({call.network.name: _congestion_of(call) for call in calls})
        rows = np.array([by_network[network.name] for network in networks])
        shares.append(
            CongestionShare(controller=name, positive_ratio=rows[:, 0], queue_loss_ratio=rows[:, 1])
        )
    return shares


def _congestion_of(call: RecordedCall) -> tuple[float, float]:
    telemetry = call.telemetry
    reported = telemetry["lost_packets"] + telemetry["acked_packets"]
    labels = telemetry_labels(telemetry)
    scored = labels.is_scored
    positive = float(labels.is_positive[scored].mean()) if scored.any() else float("nan")
    queue_lost = float(call.steps["reported_congestion_packets"].sum())
    return positive, queue_lost / max(1.0, float(reported.sum()))

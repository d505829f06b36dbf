"""One configuration on a list of networks: what workers play, and what a trial is judged by.

A trial plays the same networks and seeds as every other and as the default, so that two trials
differ in nothing but their configuration. It is judged by the quality of what is seen (up), by
frozen time, what a dropped call did not deliver included (down), and by delay, which must not be
above the default's: the quality of a picture can be bought with delay, and that is no gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from bwe_env.gcc import GccParameters
from bwe_env.metrics import KEY_COLUMNS
from bwe_env.rollout import run_calls
from bwe_env.sender_settings import SenderSettings
from experiments.tuning_networks import NetworkList, class_of

#: Columns of calls that trials are judged by and results show.
MEASURED = (
    "call_score",
    "video_mos",
    "freeze_ratio",
    "one_way_delay_ms_p95",
    "mean_media_bps",
    "utilisation",
    "bad_experience",
    "dropped",
)
#: What the search optimises, and which way is up.
OBJECTIVES = {"video_mos": "maximize", "freeze_ratio": "minimize"}

Calls = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Calls that a worker plays."""

    networks: NetworkList
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """of the default `SenderSettings`, plain JSON values by dotted name"""
    seeds: tuple[int, ...] = (0,)
    duration_s: float = 60.0


def play(task: Task) -> dict[str, NDArray[Any]]:
    """The calls of a task as columns: those that name them, `network_class`, and `MEASURED`."""
    call = CallConfig(duration_s=task.duration_s)
    settings = SenderSettings.of(call, GccParameters()).with_overrides(task.overrides)
    networks = task.networks.networks(task.duration_s)
    calls = run_calls(
        networks, "gcc", call=settings.applied_to(call), seeds=task.seeds, gcc=settings.gcc
    )
    classes = {network.name: class_of(network, task.duration_s) for network in networks}
    return {
        **{name: calls[name] for name in KEY_COLUMNS},
        "network_class": np.array([classes[name] for name in calls["network"].tolist()]),
        **{name: calls[name] for name in MEASURED},
    }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial came to."""

    classes: Mapping[str, Mapping[str, float]]
    """mean of each measured column over the calls of each network class"""
    delay_ratio: float
    """95th percentile of the one-way delay over the default's: geometric mean over calls, because a
    few calls in outage would decide any other mean"""

    def objectives(self) -> tuple[float, ...]:
        """Means over classes, each class counting alike."""
        return tuple(self.mean(name) for name in OBJECTIVES)

    def mean(self, column: str) -> float:
        """Mean over classes of a measured column."""
        return float(np.mean([means[column] for means in self.classes.values()]))


def outcome(calls: Calls, default: Calls) -> Outcome:
    """Judge the calls of a trial beside those of the default, on the same networks and seeds."""
    names = sorted(set(calls["network_class"].tolist()))
    rows = {name: calls["network_class"] == name for name in names}
    ratios = [_delay_log_ratio(calls, default, rows[name]) for name in names]
    return Outcome(
        classes={
            name: {column: _mean(calls[column][rows[name]]) for column in MEASURED}
            for name in names
        },
        delay_ratio=float(np.exp(np.mean(ratios))),
    )


def _mean(values: NDArray[Any]) -> float:
    """Mean of the calls that have a value: one that nothing arrived in has no delay."""
    defined = np.asarray(values, dtype=np.float64)
    defined = defined[np.isfinite(defined)]
    return float(defined.mean()) if len(defined) else float("nan")


def _delay_log_ratio(calls: Calls, default: Calls, rows: NDArray[np.bool_]) -> float:
    column = "one_way_delay_ms_p95"
    ours, theirs = (np.asarray(side[column][rows], dtype=np.float64) for side in (calls, default))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.log(ours / theirs)
    ratios = ratios[np.isfinite(ratios)]
    return float(ratios.mean()) if len(ratios) else 0.0


def merged(parts: Sequence[Calls]) -> dict[str, NDArray[Any]]:
    """The calls of several tables in one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

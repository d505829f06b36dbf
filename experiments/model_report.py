"""Everything that is reported of network models, as values: `model_page` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.model_online import CongestionShare, Fall
from experiments.model_scores import Contest, Importance, OperatingPoint
from experiments.stats import Interval

#: Names of contestants: the task's own model, the one of all tasks, hand-tuned ones.
MODEL, MULTI, RULE, BITRATE = "model", "multi-task", "rule", "bitrate only"
#: And those that see a part of the inputs, by which.
ABLATIONS = {"series": "series only", "dense": "dense only"}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What the curves of one task are drawn from: answers on the windows of its headline subset."""

    task: str
    subset: str
    labels: NDArray[np.bool_]
    scores: Mapping[str, NDArray[np.floating]]
    """by contestant; of several seeds that of the first"""
    probabilities: NDArray[np.floating]
    """the model's, calibrated: of yes, or of the likeliest class"""
    is_right: NDArray[np.bool_]
    """what the probability is of: that the answer is yes, or that the likeliest class is right"""
    point: OperatingPoint | None
    """of the threshold found on validation networks"""


@dataclass(frozen=True, kw_only=True)
class ConfusionTable:
    """Counts by true class (row) and named class (column), of the first seed's model or a rule."""

    contestant: str
    classes: Sequence[str]
    counts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class OnlineRow:
    """One metric, from the dataset and from calls in shadow mode on the same networks."""

    task: str
    subset: str
    metric: str
    offline: Interval
    online: Interval
    truth: str
    """who knows the answer: "the call's own future", or "the simulator alone\""""


@dataclass(frozen=True, kw_only=True)
class Alternating:
    """Predictions on the link of 500 and 100 kbps by turns."""

    time_s: NDArray[np.float64]
    """of one call's bins, as the four series below"""
    capacity_bps: NDArray[np.float64]
    target_rate_bps: NDArray[np.float64]
    rtt_ms: NDArray[np.float64]
    lost_packets: NDArray[np.float64]
    scores: NDArray[np.float64]
    """the first seed's model"""
    threshold: float
    """found on validation networks: at most one false alarm a minute there"""
    falls: Sequence[Sequence[Fall]]
    """of all calls, by seed of the model"""
    false_alarms_per_minute: Sequence[float]
    """by seed of the model"""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A window of 4 s and the 4 s after it, with its label."""

    network: str
    title: str
    time_s: NDArray[np.float64]
    """of the bins, 0 at the end of the window"""
    rtt_ms: NDArray[np.float64]
    floor_ms: float
    lost_packets: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """What models weigh and take."""

    name: str
    parameters: int
    file_bytes: int
    inference_ms: float
    """of 64 calls per interval, features included"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What inference costs in the environment and for one stream."""

    models_ms: float
    """per interval of 64 calls, multi-task model, features included"""
    simulation_ms: float
    """of the same calls without models, one thread"""
    onnx_us: Mapping[str, float]
    """by model: one window through onnxruntime on one thread; empty where it is not installed"""


@dataclass(frozen=True, kw_only=True)
class LogScores:
    """Random loss on logs of real calls, whose cause is constant within each."""

    contests: Sequence[Contest]
    runs: Sequence[tuple[str, int, float, float]]
    """(name, episodes, share of random ones, mean probability of random)"""
    falls: Sequence[tuple[str, int, Fall]] = ()
    """(name, seed of the model, fall of the capacity) where the log knows the capacity"""
    false_alarms_per_minute: Sequence[float] = ()
    """of congestion, over all these logs, by seed of the model"""


@dataclass(kw_only=True)
class ModelReport:
    """All of it. Parts that were not asked for are empty."""

    command: str
    dataset: str
    models: Mapping[str, Sequence[str]]
    """folders of the models by name, e.g. "random_loss", "multi", "random_loss-series\""""
    contests: list[Contest] = field(default_factory=list)
    contestants: Mapping[str, str] = field(default_factory=dict)
    """what stands behind a contestant's name, e.g. the rule with its tuned parameters"""
    differences: list[tuple[Contest, str, str]] = field(default_factory=list)
    """(contest, one, other): reported as one minus other with its interval"""
    curves: list[Curves] = field(default_factory=list)
    confusions: list[ConfusionTable] = field(default_factory=list)
    importances: dict[str, list[Importance]] = field(default_factory=dict)
    calibration_errors: dict[str, list[float]] = field(default_factory=dict)
    """by task, one for each seed"""
    online: list[OnlineRow] = field(default_factory=list)
    alternating: Alternating | None = None
    shares: list[CongestionShare] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    sizes: list[SizeRow] = field(default_factory=list)
    cost: Cost | None = None
    logs: LogScores | None = None
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The numbers of the tables, for other programs."""
        rows = [
            {
                "task": contest.task,
                "subset": contest.subset,
                "metric": contest.metric,
                "contestant": name,
                "windows": contest.windows,
                "networks": contest.networks,
                **vars(contest.interval(name)),
                "by_seed": list(contest.by_seed[name]),
            }
            for contest in self.contests + list(self.logs.contests if self.logs else [])
            for name in contest.values
        ]
        differences = [
            {
                "task": contest.task,
                "subset": contest.subset,
                "metric": contest.metric,
                "difference": f"{one} - {other}",
                **vars(contest.difference(one, other)),
            }
            for contest, one, other in self.differences
        ]
        return {"command": self.command, "scores": rows, "differences": differences}

"""One plan on its networks, beside the control and beside its own placebo.

A trial plays the treatment on the same calls as every other trial, keeps what the models said, and
plays the placebo with it. It is judged by relative changes from the control, as the A/B test it is
made for will be: what it wants to change, what must not become worse, and whether the placebo
*fails*: breaks a guard, or moves something the wrong way. A plan whose placebo does not fail does
not need to know its network.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.online_models import OnlineModels
from agents.targeting import PERIOD_BINS
from bwe_env.config import CallConfig, from_mapping
from bwe_env.network import Network
from bwe_env.rollout import run_calls
from bwe_env.targeting import SettingsPolicy, Targeting, TargetingPlan
from experiments.published_experiments import CALL, PublishedExperiment, experiment_of
from experiments.recorded_answers import RecordingModels, ShuffledModels
from experiments.targeted_arms import BATCH_CALLS
from experiments.tuning_networks import class_of

#: What a guard looks at, and the sign that makes a rise a harm (`experiments.ab_guards`).
GUARDED = {"freeze_ratio": 1.0, "one_way_delay_ms_p95": 1.0, "video_mos": -1.0}
#: Columns that say how well a call went, and the sign that makes a rise a gain: by experiment.
WANTED: Mapping[str, Mapping[str, float]] = {
    "congestion": {
        "freeze_ratio": -1.0,
        "freeze_ratio_above_500ms": -1.0,
        "bad_experience": -1.0,
        "call_score": 1.0,
    },
    "random-loss": {
        "freeze_ratio": -1.0,
        "freeze_ratio_above_500ms": -1.0,
        "audio_concealed_s": -1.0,
    },
    "cellular-low": {
        "freeze_ratio": -1.0,
        "audio_concealed_s": -1.0,
        "call_score": 1.0,
    },
    "cellular-high": {
        "frames_encoded": 1.0,
        "video_qp": -1.0,
        "video_mos": 1.0,
        "mean_video_sent_bps": 1.0,
    },
}

Calls = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class PlanTask:
    """What a worker plays: a plan, its placebo, and the control."""

    experiments: tuple[str, ...]
    """names; they share their networks"""
    models: tuple[str, ...]
    """folders of the models that the plan asks"""
    split: str
    count: int
    """networks"""
    duration_s: float
    plan: Mapping[str, Any]
    """its JSON form"""


@dataclass(frozen=True, kw_only=True)
class PlanOutcome:
    """Relative changes from the control in percent, by experiment and column."""

    treatment: Mapping[str, Mapping[str, float]]
    placebo: Mapping[str, Mapping[str, float]]

    def gain(self, experiment: str) -> float:
        """Mean change of the wanted columns, the better the higher; percent."""
        changes = self.treatment[experiment]
        wanted = WANTED[experiment]
        return float(np.mean([sign * changes[name] for name, sign in wanted.items()]))

    def harm(self, experiment: str, *, of_placebo: bool = False) -> float:
        """The largest change to the worse of what is guarded, percent; below 0 for none."""
        changes = (self.placebo if of_placebo else self.treatment)[experiment]
        return max(sign * changes[name] for name, sign in GUARDED.items())

    def least(self, experiment: str, *, of_placebo: bool = False) -> float:
        """The smallest gain of a wanted column, percent; below 0 if one moves the wrong way."""
        changes = (self.placebo if of_placebo else self.treatment)[experiment]
        return min(sign * changes[name] for name, sign in WANTED[experiment].items())


def play_plan(task: PlanTask) -> PlanOutcome:
    """Play a trial; runs in a worker, which keeps the control's calls for the next one."""
    experiments = [experiment_of(name) for name in task.experiments]
    key = (task.experiments, task.split, task.count, task.duration_s)
    networks, control = _control(*key)
    models = OnlineModels.load(*task.models, period_bins=PERIOD_BINS)
    plan = from_mapping(TargetingPlan, task.plan)
    recording = RecordingModels(models)
    treated = _play(networks, task.duration_s, Targeting(plan, recording))
    recording.finish()
    shuffled = ShuffledModels(models.outputs, recording.batches, seed=0)
    placebo = _play(networks, task.duration_s, Targeting(plan, shuffled))
    rows = {experiment.name: segment(experiment, networks) for experiment in experiments}
    return PlanOutcome(
        treatment={name: _changes(treated, control, mask) for name, mask in rows.items()},
        placebo={name: _changes(placebo, control, mask) for name, mask in rows.items()},
    )


@functools.lru_cache(maxsize=2)
def _control(
    experiments: tuple[str, ...], split: str, count: int, duration_s: float
) -> tuple[Sequence[Network], Calls]:
    networks = experiment_of(experiments[0]).networks(split, count)
    return networks, _play(networks, duration_s, None)


def _play(
    networks: Sequence[Network], duration_s: float, targeting: SettingsPolicy | None
) -> Calls:
    return run_calls(
        networks,
        "gcc",
        call=CallConfig(duration_s=duration_s),
        seeds=(0,),
        targeting=targeting,
        batch_size=BATCH_CALLS,
    )


def segment(experiment: PublishedExperiment, networks: Sequence[Network]) -> NDArray[np.bool_]:
    """Which of the networks an experiment's rows are taken from, shape (networks,)."""
    return np.array(
        [
            not experiment.segment or class_of(network, CALL.duration_s) == experiment.segment
            for network in networks
        ]
    )


def _changes(calls: Calls, control: Calls, rows: NDArray[np.bool_]) -> dict[str, float]:
    names = {*GUARDED, *(name for wanted in WANTED.values() for name in wanted)}
    means = {
        name: [float(np.nanmean(side[name][rows])) for side in (calls, control)] for name in names
    }
    return {name: _change_pct(*pair) for name, pair in sorted(means.items())}


def _change_pct(ours: float, theirs: float) -> float:
    """Relative change; where the control has none of it, 0 for as little and 100 for any more."""
    if theirs == 0.0:
        return 0.0 if ours == 0.0 else 100.0
    return 100.0 * (ours / theirs - 1.0)


@dataclass(frozen=True, kw_only=True)
class PlanStudy:
    """A plan that is tuned, and what it is tuned for."""

    experiments: tuple[str, ...]
    """names; one objective each"""
    models: tuple[str, ...]
    """tasks of `agents.network_tasks.TASKS` that it asks"""


#: By name of the plan.
STUDIES = {
    "congestion": PlanStudy(experiments=("congestion",), models=("congestion",)),
    "random-loss": PlanStudy(experiments=("random-loss",), models=("random_loss",)),
    "cellular": PlanStudy(experiments=("cellular-low", "cellular-high"), models=("network_type",)),
}


def model_folders(models: Path, study: PlanStudy) -> tuple[str, ...]:
    """Folders of a study's models, each named after its task."""
    return tuple(str(models / task) for task in study.models)

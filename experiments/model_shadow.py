"""Models in shadow mode on test networks, on the alternating link, and GCC's own congestion."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.network_model import NetworkModel
from agents.network_tasks import task_of
from agents.online_models import OnlineModels
from bwe_env.errors import ConfigError
from bwe_env.network import Network
from bwe_env.network_features import BIN_S
from experiments.collected_networks import collected_networks
from experiments.dataset import DatasetCall
from experiments.model_online import (
    alternating_calls,
    congestion_shares,
    falls_of,
    false_alarms,
    shadow_calls,
    threshold_for_false_alarms,
)
from experiments.model_report import MODEL, Alternating, OnlineRow
from experiments.model_runs import FittedRun, Study
from experiments.model_scores import hold
from experiments.model_tasks import scored_calls, subsets
from experiments.samples import Samples, make_samples, telemetry_labels

#: A call with fewer lost by chance is said to have no random loss; a call of 60 s has some thousand
#: packets. Ours.
FEW_RANDOM_PACKETS = 20
#: Links that are called slow when GCC's own part in congestion is told: mean capacity below it.
LOW_BPS = 2e6


def _online_samples(
    task: str,
    calls: Sequence[DatasetCall],
    probabilities: Sequence[NDArray[np.float32]],
    columns: slice,
) -> tuple[Samples, NDArray[Any], list[DatasetCall]]:
    """Windows of shadow calls as they are scored, and what was said at the end of each."""
    chosen = [index for index, call in enumerate(calls) if call in scored_calls(task, [call])]
    kept = [calls[index] for index in chosen]
    samples = make_samples(task, kept, learn=False)
    said = np.stack(
        [
            probabilities[chosen[call]][bin_, columns]
            for call, bin_ in zip(samples.call, samples.bin, strict=True)
        ]
    )
    answers = said[:, 0] if task_of(task).is_binary else said.argmax(axis=1)
    return samples, answers, kept


def study_online(study: Study) -> None:
    """Shadow mode on the test networks, the alternating link, and GCC against the oracle."""
    single = [study.run(task) for task in study.tasks]
    runs = [run for run in single if run is not None]
    if not runs:
        return
    networks = collected_networks("test", study.counts["test"])
    by_task: dict[str, list[tuple[Samples, NDArray[Any], list[DatasetCall]]]] = {}
    num_seeds = min(len(run.models) for run in runs)
    for seed in range(num_seeds):
        print(f"shadow mode, models of seed {seed} …", flush=True)
        models = OnlineModels([run.models[seed] for run in runs])
        calls, said = shadow_calls(networks, models, threads=study.threads)
        for run in runs:
            task = run.tasks[0]
            first = models.outputs.index(task_of(task).outputs[0])
            columns = slice(first, first + len(task_of(task).outputs))
            by_task.setdefault(task, []).append(_online_samples(task, calls, said, columns))
    for task, rows in by_task.items():
        _add_online_rows(study, task, rows)
    congestion = study.run("congestion")
    if congestion is not None:
        study.thresholds = [_alarm_threshold(study, model) for model in congestion.models]
        _study_alternating(study, congestion)
        low = [n for n in networks if n.trace.mean_bps < LOW_BPS and has_link_for_itself(n)]
        study.report.shares += congestion_shares(low, threads=study.threads)
        study.report.notes.append(
            f"GCC and the oracle were compared on the {len(low)} test networks whose mean capacity "
            f"is below {LOW_BPS / 1e6:g} Mbps and on which the call has the link for itself: the "
            "oracle knows the capacity, not its share of it."
        )


def has_link_for_itself(network: Network) -> bool:
    """Whether a call may send what the capacity allows: no others in the queue, no policer."""
    is_shared = bool(network.cross_traffic) or network.competing_calls > 0
    return not is_shared and network.link.policer_rate_bps == 0.0


def _add_online_rows(
    study: Study, task: str, rows: Sequence[tuple[Samples, NDArray[Any], list[DatasetCall]]]
) -> None:
    samples, _, kept = rows[0]
    parts = subsets(samples, kept)
    headline = next(iter(parts))
    keep = np.ones(len(samples), dtype=np.bool_)
    if task == "congestion":
        keep = samples.is_special
    contests = hold(
        parts[headline], {MODEL: [answers[keep] for _, answers, _ in rows]}, subset=headline
    )
    truth = "the call's own future" if task == "congestion" else "the simulator alone"
    for contest in contests:
        offline = next(
            c
            for c in study.report.contests
            if (c.task, c.subset, c.metric) == (task, headline, contest.metric)
        )
        study.report.online.append(
            OnlineRow(
                task=task,
                subset=headline,
                metric=contest.metric,
                offline=offline.interval(MODEL),
                online=contest.interval(MODEL),
                truth=truth,
            )
        )


def _alarm_threshold(study: Study, model: NetworkModel) -> float:
    """Found in calls on the validation networks: at most one false alarm a minute there.

    Of calls with hardly any random loss: where it goes on, the label has no false alarm, and an
    alarm that is held against the losses of queues alone has few that are right.
    """
    networks = collected_networks("validation", study.counts["validation"])
    calls, said = shadow_calls(networks, OnlineModels([model]), threads=study.threads)
    kept = [
        (telemetry_labels(call.telemetry).is_followed, rows[:, 0])
        for call, rows in zip(calls, said, strict=True)
        if call.truth["reported_random_packets"].sum() < FEW_RANDOM_PACKETS
    ]
    if not kept:
        raise ConfigError("alarms need validation calls without random loss; collect more of them.")
    is_followed, scores = zip(*kept, strict=True)
    return threshold_for_false_alarms(is_followed, scores, per_minute=1.0)


def _study_alternating(study: Study, run: FittedRun) -> None:
    falls, rates = [], []
    drawn: Alternating | None = None
    for model, threshold in zip(run.models, study.thresholds, strict=True):
        models = OnlineModels([model])
        played = alternating_calls(models, threads=study.threads)
        of_model, alarms, minutes = [], 0, 0.0
        for call in played:
            scores = call.probabilities[:, 0]
            of_model += falls_of(call.telemetry, scores, threshold)
            alarms += false_alarms(call.telemetry, scores, threshold)
            minutes += len(call.telemetry) * BIN_S / 60.0
        falls.append(of_model)
        rates.append(alarms / minutes)
        if drawn is None:
            drawn = _drawn_call(played[0], threshold)
    assert drawn is not None
    study.report.alternating = dataclasses.replace(
        drawn, falls=falls, false_alarms_per_minute=rates
    )


def _drawn_call(call: Any, threshold: float) -> Alternating:
    return Alternating(
        time_s=call.telemetry["time_s"],
        capacity_bps=call.steps["capacity_bps"],
        target_rate_bps=call.telemetry["target_rate_bps"],
        rtt_ms=call.telemetry["rtt_ms"],
        lost_packets=call.telemetry["lost_packets"],
        scores=call.probabilities[:, 0],
        threshold=threshold,
        falls=(),
        false_alarms_per_minute=(),
    )

"""Score runs of `experiments.fit` on test networks: fills a `ModelReport`.

Thresholds are found on validation networks, rules are tuned on train networks; of the test networks
nothing is chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.network_model import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    NetworkModel,
    load_network_model,
)
from agents.network_tasks import TASKS, task_of
from agents.online_models import OnlineModels
from baselines.rules import BitrateControl, tune
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.labels import congestion_labels
from experiments.classification import confusion, macro_f1, pr_auc
from experiments.collect import CollectConfig, collect_logs, collect_simulated
from experiments.collected_networks import collected_networks
from experiments.dataset import DatasetCall, read_calls, read_manifest
from experiments.fit import FitConfig, model_folders, run_key
from experiments.model_online import (
    alternating_calls,
    congestion_shares,
    falls_of,
    false_alarms,
    inference_ms,
    shadow_calls,
    threshold_for_false_alarms,
)
from experiments.model_report import (
    Alternating,
    ConfusionTable,
    Cost,
    Curves,
    Example,
    LogScores,
    ModelReport,
    OnlineRow,
    SizeRow,
)
from experiments.model_scores import (
    Answers,
    Contest,
    answers_of,
    calibration_errors,
    hold,
    operating_point,
    permutation_importance,
    subset_of,
    threshold_of_best_f1,
)
from experiments.model_training import predict
from experiments.run_directory import RunDirectory
from experiments.samples import Samples, has_both_causes, make_samples

#: Names of contestants.
MODEL, MULTI, RULE, BITRATE = "model", "multi-task", "rule", "bitrate only"
ABLATIONS = {"series": "series only", "dense": "dense only"}


@dataclass(frozen=True, kw_only=True)
class FittedRun:
    """The models of one run, one for each seed."""

    name: str
    """of its folder, without the number"""
    path: Path
    tasks: tuple[str, ...]
    inputs: str
    folders: tuple[Path, ...]
    models: tuple[NetworkModel, ...]

    @property
    def is_multi(self) -> bool:
        """Whether its models answer several questions."""
        return len(self.tasks) > 1


def load_run(path: Path) -> FittedRun:
    """A run of `experiments.fit` with its models.

    Raises:
        ArtifactError: no such run, or it has no models.
    """
    config = RunDirectory.open(path).load_config(FitConfig)
    folders = model_folders(path)
    return FittedRun(
        name=config.run_name,
        path=path,
        tasks=config.tasks,
        inputs=config.inputs,
        folders=tuple(folders),
        models=tuple(load_network_model(folder) for folder in folders),
    )


@dataclass(kw_only=True)
class Study:
    """What all parts of a report need."""

    runs: Sequence[FittedRun]
    calls: Mapping[str, Sequence[DatasetCall]]
    """by split"""
    counts: Mapping[str, int]
    """networks of each split"""
    report: ModelReport
    threads: int
    rules: dict[str, Any] = field(default_factory=dict)

    def run(self, task: str, inputs: str = "both") -> FittedRun | None:
        """The single-task run of a task, if there is one."""
        for run in self.runs:
            if run.tasks == (task,) and run.inputs == inputs:
                return run
        return None

    @property
    def multi(self) -> FittedRun | None:
        """The multi-task run."""
        return next((run for run in self.runs if run.is_multi and run.inputs == "both"), None)

    @property
    def tasks(self) -> list[str]:
        """Tasks with a single-task run on both inputs."""
        return [task for task in TASKS if self.run(task) is not None]


def study_models(
    paths: Sequence[Path],
    *,
    dataset: Path | None,
    logs: Sequence[Path],
    online: bool,
    threads: int,
    command: str,
) -> ModelReport:
    """Score the models of these runs.

    Raises:
        ArtifactError: a run without models, or one that was trained from another dataset.
    """
    runs = [load_run(path) for path in paths]
    directory = dataset or collect_simulated(CollectConfig())
    manifest = read_manifest(directory)
    for run in runs:
        if run_key(run.path) != manifest["key"]:
            raise ArtifactError(
                f"{run.path} was trained from another dataset than {directory}, so its test "
                "networks may have been trained on. Give the right one with --dataset."
            )
    study = Study(
        runs=runs,
        calls={split: read_calls(directory, [split]) for split in ("train", "validation", "test")},
        counts=manifest["recipe"]["counts"],
        report=ModelReport(
            command=command,
            dataset=str(directory),
            models={run.path.name: [str(folder) for folder in run.folders] for run in runs},
        ),
        threads=threads,
    )
    for task in study.tasks:
        print(f"scoring {task} …", flush=True)
        _study_task(study, task)
    if study.run("congestion") is not None:
        study.report.examples += congestion_examples(study.calls["test"])
    _study_sizes(study)
    if logs and study.run("random_loss") is not None:
        _study_logs(study, logs)
    if online:
        _study_online(study)
    return study.report


# --- One task -------------------------------------------------------------------------------------


def scored_calls(task: str, calls: Sequence[DatasetCall]) -> list[DatasetCall]:
    """The calls that a task's headline is taken from: random loss wants both causes in a call."""
    return [call for call in calls if task != "random_loss" or has_both_causes(call)]


def subsets(samples: Samples, calls: Sequence[DatasetCall]) -> dict[str, Samples]:
    """Subsets of the windows that scores are told of; the first is the headline."""
    if samples.task == "random_loss":
        return {
            "calls with both causes": samples,
            "the same, mixed episodes left out": subset_of(samples, ~samples.is_special),
        }
    if samples.task == "congestion":
        after_spike = subset_of(samples, samples.is_special)
        return {
            "after a spike": after_spike,
            "all": samples,
            "after a spike, losses of queues only": by_queue(after_spike, calls),
        }
    return {"all": samples}


def by_queue(samples: Samples, calls: Sequence[DatasetCall]) -> Samples:
    """The same windows of congestion, labelled by the losses of queues, AQM and policers alone."""
    labels = samples.labels.copy()
    for index in np.unique(samples.call):
        telemetry = calls[index].telemetry
        by_cause = congestion_labels(
            telemetry["rtt_ms"],
            calls[index].truth["reported_congestion_packets"],
            reported_packets=telemetry["lost_packets"] + telemetry["acked_packets"],
        )
        rows = samples.call == index
        labels[rows] = by_cause.is_positive[samples.bin[rows]]
    return dataclasses.replace(samples, labels=labels)


def _tuned_rule(study: Study, task: str) -> Any:
    train = make_samples(task, study.calls["train"], learn=True)
    if task == "congestion":
        train = subset_of(train, train.is_special)  # the headline's windows

    def objective(answers: NDArray[Any], labels: NDArray[np.int64]) -> float:
        once = np.ones((1, len(labels)))
        if task_of(task).is_binary:
            return float(pr_auc(answers, labels == 1, once)[0])
        classes = len(task_of(task).classes)
        return float(macro_f1(answers, labels, once, classes)[0])

    return tune(task, train.dense, train.labels, objective)


def _rule_answers(rule: Any, samples: Samples) -> NDArray[Any]:
    is_binary = task_of(samples.task).is_binary
    return np.asarray(rule.score(samples.dense) if is_binary else rule.classify(samples.dense))


def _study_task(study: Study, task: str) -> None:
    run = study.run(task)
    assert run is not None
    calls = scored_calls(task, study.calls["test"])
    samples = make_samples(task, calls, learn=False)
    rule = study.rules[task] = _tuned_rule(study, task)
    report = study.report
    report.contestants = {**report.contestants, f"{RULE} ({task})": str(rule)}
    contestants: dict[str, Callable[[Samples], Answers]] = {
        MODEL: lambda part: answers_of(run.models, part),
        RULE: lambda part: [_rule_answers(rule, part)],
    }
    if task == "random_loss":
        train = make_samples(task, study.calls["train"], learn=True)
        control = BitrateControl.fit(train.dense, train.labels)
        contestants[BITRATE] = lambda part: [control.score(part.dense)]
    for inputs, name in ABLATIONS.items():
        other = study.run(task, inputs)
        if other is not None:
            contestants[name] = lambda part, models=other.models: answers_of(models, part)  # type: ignore[misc]
    wide = None
    if study.multi is not None:
        window_bins = study.multi.models[0].config.window_bins
        wide = make_samples(task, calls, learn=False, window_bins=window_bins)
    for position, (subset, part) in enumerate(subsets(samples, calls).items()):
        answers = {name: answer(part) for name, answer in contestants.items()}
        if study.multi is not None and wide is not None:
            same = list(subsets(wide, calls).values())[position]
            answers[MULTI] = answers_of(study.multi.models, same)
        contests = hold(part, answers, subset=subset)
        report.contests += contests
        for contest in contests:
            others = [name for name in contest.values if name != MODEL]
            report.differences += [(contest, MODEL, name) for name in others]
        if position == 0:
            _draw(study, run, part, subset, answers)
    report.importances[task] = permutation_importance(run.models[0], samples)
    report.calibration_errors[task] = calibration_errors(run.models, samples)


def _draw(
    study: Study,
    run: FittedRun,
    samples: Samples,
    subset: str,
    answers: Mapping[str, Answers],
) -> None:
    """Keep what the curves and tables of the headline are drawn from."""
    task = samples.task
    probabilities = predict(run.models[0], samples)
    if not task_of(task).is_binary:
        classes = task_of(task).classes
        for name in (MODEL, RULE):
            counts = confusion(np.asarray(answers[name][0]), samples.labels, len(classes))
            table = ConfusionTable(contestant=name, classes=classes, counts=counts)
            study.report.confusions.append(table)
        is_right = probabilities.argmax(axis=1) == samples.labels
        study.report.curves.append(
            Curves(
                task=task,
                subset=subset,
                labels=is_right,
                scores={},
                probabilities=probabilities.max(axis=1),
                is_right=is_right,
                point=None,
            )
        )
        return
    validation = make_samples(task, scored_calls(task, study.calls["validation"]), learn=False)
    if task == "congestion":
        validation = subset_of(validation, validation.is_special)
    known = predict(run.models[0], validation)[:, 0]
    threshold = threshold_of_best_f1(known, validation.labels == 1)
    is_positive = samples.labels == 1
    study.report.curves.append(
        Curves(
            task=task,
            subset=subset,
            labels=is_positive,
            scores={name: np.asarray(answer[0]) for name, answer in answers.items()},
            probabilities=probabilities[:, 0],
            is_right=is_positive,
            point=operating_point(probabilities[:, 0], is_positive, threshold),
        )
    )


def congestion_examples(calls: Sequence[DatasetCall], *, of_each: int = 2) -> list[Example]:
    """Windows of each kind: positive, negative after a spike, negative without one."""
    found: dict[str, list[Example]] = {}
    for call in calls:
        samples_bins, labels = _scored_congestion(call)
        for title, wanted in (
            ("positive", labels.is_positive),
            ("negative: a spike, and nothing followed", labels.had_spike & ~labels.is_followed),
            ("negative: losses followed, but no spike", ~labels.had_spike & labels.is_followed),
        ):
            bins = samples_bins[wanted[samples_bins]]
            examples = found.setdefault(title, [])
            if len(bins) and len(examples) < of_each:
                examples.append(_example(call, int(bins[len(bins) // 2]), title))
    return [example for examples in found.values() for example in examples]


def _scored_congestion(call: DatasetCall) -> tuple[NDArray[np.int64], Any]:
    from experiments.model_online import telemetry_labels

    labels = telemetry_labels(call.telemetry)
    return np.flatnonzero(labels.is_scored), labels


def _example(call: DatasetCall, end: int, title: str) -> Example:
    rows = slice(max(0, end - 39), end + 41)
    rtt_ms = call.telemetry["rtt_ms"]
    return Example(
        network=call.network,
        title=title,
        time_s=call.telemetry["time_s"][rows] - call.telemetry["time_s"][end],
        rtt_ms=rtt_ms[rows],
        floor_ms=float(np.nanmin(rtt_ms[max(0, end - 299) : end + 1])),
        lost_packets=call.telemetry["lost_packets"][rows],
    )


# --- Size and cost --------------------------------------------------------------------------------


def _file_bytes(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in (WEIGHTS_FILE, MANIFEST_FILE))


def _study_sizes(study: Study) -> None:
    """Parameters, bytes and time of the single-task models together, and of the multi-task one."""
    networks = collected_networks("validation", 64)
    rows = []
    chosen = {f"single-task {task}": [study.run(task)] for task in study.tasks}
    if len(study.tasks) == len(TASKS):
        chosen["all single-task models"] = [study.run(task) for task in study.tasks]
    if study.multi is not None:
        chosen["multi-task model"] = [study.multi]
    simulation_ms = 0.0
    for name, runs in chosen.items():
        models = [run.models[0] for run in runs if run is not None]
        folders = [run.folders[0] for run in runs if run is not None]
        took_ms, simulation_ms = inference_ms(models, networks)
        rows.append(
            SizeRow(
                name=name,
                parameters=sum(model.num_parameters for model in models),
                file_bytes=sum(_file_bytes(folder) for folder in folders),
                inference_ms=took_ms,
            )
        )
    study.report.sizes += rows
    study.report.cost = Cost(
        models_ms=rows[-1].inference_ms,
        simulation_ms=simulation_ms,
        onnx_us=onnx_times_us(study),
    )


def onnx_times_us(study: Study) -> dict[str, float]:
    """Microseconds for one window of one stream through onnxruntime, one thread; the median."""
    import tempfile
    import time

    from agents.network_model import export_onnx
    from bwe_env.network_features import NUM_DENSE, NUM_SERIES

    try:
        import onnxruntime
    except ImportError:
        study.report.notes.append(
            "onnxruntime is not installed, so one stream was not timed: "
            'pip install -c constraints.txt -e ".[export]".'
        )
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    times = {}
    for run in study.runs:
        if run.inputs != "both":
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(run.models[0], path)
            session = onnxruntime.InferenceSession(path.read_bytes(), options)
        bins = run.models[0].config.window_bins
        inputs = {
            "series": np.zeros((1, bins, NUM_SERIES), dtype=np.float32),
            "dense": np.zeros((1, NUM_DENSE), dtype=np.float32),
        }
        seconds = []
        for _ in range(300):
            started = time.perf_counter()
            session.run(None, inputs)
            seconds.append(time.perf_counter() - started)
        times[run.name] = 1e6 * float(np.median(seconds))
    return times


# --- In calls -------------------------------------------------------------------------------------


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


def _study_online(study: Study) -> None:
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
        _study_alternating(study, congestion)
        low = [n for n in networks if n.trace.mean_bps < LOW_BPS]
        study.report.shares += congestion_shares(low, threads=study.threads)


#: Links that are called slow when GCC's own part in congestion is told: mean capacity below it.
LOW_BPS = 2e6


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


def _study_alternating(study: Study, run: FittedRun) -> None:
    validation = collected_networks("validation", study.counts["validation"])
    falls, rates = [], []
    drawn: Alternating | None = None
    for model in run.models:
        models = OnlineModels([model])
        calls, said = shadow_calls(validation, models, threads=study.threads)
        threshold = threshold_for_false_alarms(
            [call.telemetry for call in calls], [rows[:, 0] for rows in said], per_minute=1.0
        )
        played = alternating_calls(models, threads=study.threads)
        of_model, alarms, minutes = [], 0, 0.0
        for call in played:
            scores = call.probabilities[:, 0]
            of_model += falls_of(call.telemetry, scores, threshold)
            alarms += false_alarms(call.telemetry, scores, threshold)
            minutes += len(call.telemetry) * 0.1 / 60.0
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


# --- Logs of real calls ---------------------------------------------------------------------------


def _study_logs(study: Study, logs: Sequence[Path]) -> None:
    """Random loss in logs that know the causes; nothing of them was trained on."""
    directory, _ = collect_logs(CollectConfig(logs=tuple(logs)))
    calls = [
        call
        for call in read_calls(directory, ["logs"])
        if call.has_causes and call.interval_s == 0.1
    ]
    if not calls:
        raise ConfigError("none of the --logs knows why its packets were lost.")
    run = study.run("random_loss")
    assert run is not None
    samples = make_samples("random_loss", calls, learn=False)
    answers = answers_of(run.models, samples)
    rule = study.rules["random_loss"]
    contests: list[Contest] = []
    if len(np.unique(samples.labels)) == 2:
        contests = hold(
            samples, {MODEL: answers, RULE: [_rule_answers(rule, samples)]}, subset="logs"
        )
    runs = []
    for index in np.unique(samples.call):
        rows = samples.call == index
        runs.append(
            (
                calls[index].network,
                int(rows.sum()),
                float(samples.labels[rows].mean()),
                float(np.mean([answer[rows].mean() for answer in answers])),
            )
        )
    study.report.logs = LogScores(contests=contests, runs=runs)

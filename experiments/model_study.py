"""Score runs of `experiments.fit` on test networks: fills a `ModelReport`.

Thresholds are found on validation networks, rules are tuned on train networks; of the test networks
nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bwe_env.errors import ArtifactError
from experiments.collect import CollectConfig, collect_simulated
from experiments.dataset import read_calls, read_manifest
from experiments.fit import run_key
from experiments.model_costs import study_sizes
from experiments.model_logs import study_logs
from experiments.model_report import ModelReport
from experiments.model_runs import Study, load_run
from experiments.model_shadow import study_online
from experiments.model_tasks import congestion_examples, study_task


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
        study_task(study, task)
    if study.run("congestion") is not None:
        study.report.examples += congestion_examples(study.calls["test"])
    study_sizes(study)
    if online:
        study_online(study)
    if logs and study.run("random_loss") is not None:
        study_logs(study, logs)
    return study.report

"""What a report tells of a task's model, on calls whose spikes and losses are planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agents.network_model import NetworkModel, NetworkModelConfig
from experiments.dataset import DatasetCall
from experiments.model_report import MODEL, RULE, ModelReport
from experiments.model_runs import FittedRun, Study
from experiments.model_scores import calibration_errors, permutation_importance
from experiments.model_tasks import study_task, subsets
from experiments.samples import make_samples
from tests.experiments.dataset_calls import lose, quiet_call

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def spiking_call(network: str, *, followed: bool) -> DatasetCall:
    """Three spikes of the RTT, then half a minute of rest; losses after each spike or none."""
    call = quiet_call(network)
    for bin_ in (100, 160, 220):
        call.telemetry["rtt_ms"][bin_ : bin_ + 5] = 120.0
        if followed:
            lose(call, slice(bin_ + 30, bin_ + 35), by_load=4)
    return call


@pytest.fixture(scope="module")
def study() -> Study:
    torch.manual_seed(0)
    config = NetworkModelConfig(tasks=("congestion",))
    run = FittedRun(
        name="congestion",
        path=Path("congestion-1"),
        tasks=config.tasks,
        inputs="both",
        folders=(Path("seed-0"), Path("seed-1")),
        models=(NetworkModel(config).eval(), NetworkModel(config).eval()),
    )
    calls = {
        split: [spiking_call(f"{split}-{number}", followed=bool(number % 2)) for number in range(4)]
        for split in ("train", "validation", "test")
    }
    report = ModelReport(command="", dataset="", models={})
    study = Study(runs=[run], calls=calls, counts={}, report=report, threads=1)
    study_task(study, "congestion")
    return study


def test_the_headline_of_congestion_is_of_windows_after_a_spike(study: Study) -> None:
    samples = make_samples("congestion", study.calls["test"], learn=False)
    parts = subsets(samples, study.calls["test"])
    assert list(parts) == ["after a spike", "all", "after a spike, losses of queues only"]
    assert 0 < len(parts["after a spike"]) < len(parts["all"]) == len(samples)
    told = {contest.subset: contest.windows for contest in study.report.contests}
    assert told == {name: len(part) for name, part in parts.items()}
    assert set(study.report.contests[0].values) == {MODEL, RULE}


def test_curves_calibration_and_importances_are_of_the_same_windows(study: Study) -> None:
    """Windows without a spike are easily told: errors over them, too, would look too small."""
    models = study.runs[0].models
    samples = make_samples("congestion", study.calls["test"], learn=False)
    headline = subsets(samples, study.calls["test"])["after a spike"]
    (curves,) = study.report.curves
    assert np.array_equal(curves.labels, headline.labels == 1)
    errors = study.report.calibration_errors["congestion"]
    assert errors == pytest.approx(calibration_errors(models, headline))
    assert errors != pytest.approx(calibration_errors(models, samples))
    importances = study.report.importances["congestion"]
    assert importances == permutation_importance(models[0], headline)
    assert importances != permutation_importance(models[0], samples)

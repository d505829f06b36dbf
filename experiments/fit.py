"""Fit network models: ``python -m experiments.fit --task random_loss``.

Without a dataset at hand it collects one first (`experiments.collect`, about two minutes, kept
under ``runs/datasets`` and found again). Every seed trains a model on the train networks, stops and
calibrates it on the validation networks, and writes ``RUN/seed-N/network_model.*``. Test networks
are left to ``python -m experiments.report models``. After Ctrl-C the seeds that are done stay, and
``--resume RUN`` trains the others.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agents.network_tasks import TASKS, window_of
from bwe_env.errors import ArtifactError, ConfigError
from experiments.cli import run_command
from experiments.collect import CollectConfig, collect_simulated
from experiments.dataset import read_calls, read_manifest
from experiments.run_directory import RunDirectory, write_json

# Read when torch loads OpenMP: its threads would spin while they wait for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from agents.network_model import NetworkModelConfig
    from experiments.model_training import TrainedModel, Training
    from experiments.samples import Samples

#: ``--task`` of the model that answers all questions.
MULTI = "multi"
#: Units of the dense and the shared layer. Ours: twice as many hardly help one task; several share
#: more, and stay below half of what their models weigh together.
SINGLE_UNITS, MULTI_UNITS = 64, 96


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Train models that say what the network of a call is doing."""

    task: Literal["random_loss", "congestion", "network_type", "bursty_loss", "multi"] = (
        "random_loss"
    )
    """one question, or all of them with one shared representation"""
    inputs: Literal["both", "series", "dense"] = "both"
    """what the model sees: the LSTM's series, the dense features, or both"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one model each"""
    dataset: Path | None = None
    """a folder made by experiments.collect; by default that of its own defaults, made if missing"""
    dense_units: int | None = None
    """by default 64, and 96 where several tasks share them"""
    shared_units: int | None = None
    """of the layer in front of the heads, in the same way"""
    epochs: int = 24
    """at most, over the windows"""
    patience: int = 8
    """epochs without a better validation loss before training stops"""
    batch_size: int = 512
    """windows per step of the task with most of them"""
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    onnx: bool = False
    """write network_model.onnx, too (needs the export extra)"""
    torch_threads: int = 1
    """an LSTM this small gains little from a second one; the last bits of the weights depend on
    it"""
    runs_dir: Path = Path("runs")
    """where run directories are made"""
    resume: Path | None = None
    """go on with this run; its own configuration is used"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if self.dataset is not None:
            object.__setattr__(self, "dataset", Path(self.dataset))  # text in config.json
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds={self.seeds} must be different whole numbers, 0 or more.")
        if self.torch_threads < 1:
            raise ConfigError("torch_threads must be at least 1.")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The questions that the model answers."""
        return tuple(TASKS) if self.task == MULTI else (self.task,)

    def model_config(self) -> NetworkModelConfig:
        """The architecture."""
        from agents.network_model import NetworkModelConfig

        units = MULTI_UNITS if self.task == MULTI else SINGLE_UNITS
        return NetworkModelConfig(
            tasks=self.tasks,
            inputs=self.inputs,
            dense_units=units if self.dense_units is None else self.dense_units,
            shared_units=units if self.shared_units is None else self.shared_units,
        )

    @property
    def run_name(self) -> str:
        """What the run's folder is called, without its number."""
        return self.task if self.inputs == "both" else f"{self.task}-{self.inputs}"

    def training(self) -> Training:
        """The options that the training itself reads."""
        from experiments.model_training import Training

        names = [f.name for f in dataclasses.fields(Training)]
        return Training(**{name: getattr(self, name) for name in names})


@dataclass(kw_only=True)
class FitData:
    """Windows to learn from and to stop on, by task, and the dataset that they come from."""

    dataset: Path
    key: str
    train: dict[str, Samples] = field(default_factory=dict)
    validation: dict[str, Samples] = field(default_factory=dict)


def dataset_of(config: FitConfig) -> Path:
    """The folder of the dataset, collected if need be."""
    if config.dataset is not None:
        return config.dataset
    print("dataset: looking for one, or collecting it (about two minutes) …", flush=True)
    return collect_simulated(CollectConfig())


def load_data(config: FitConfig, dataset: Path) -> FitData:
    """Cut the windows."""
    from experiments.samples import make_samples

    data = FitData(dataset=dataset, key=read_manifest(dataset)["key"])
    window_bins = window_of(config.tasks)
    for split, samples in (("train", data.train), ("validation", data.validation)):
        calls = read_calls(dataset, [split])
        for task in config.tasks:
            samples[task] = make_samples(task, calls, learn=True, window_bins=window_bins)
            print(f"{split}: {len(samples[task])} windows of {task} from {len(calls)} calls")
    return data


def fit(config: FitConfig) -> int:
    """Run the command; returns its exit code."""
    import torch

    if config.resume is not None:
        run = RunDirectory.open(config.resume)
        config = dataclasses.replace(run.load_config(FitConfig), resume=config.resume)
    config.training()  # refuses what it cannot be before any work is done
    dataset = dataset_of(config)
    if config.resume is not None:
        _check_dataset(run, dataset)
    torch.set_num_threads(config.torch_threads)
    data = load_data(config, dataset)
    if config.resume is None:
        run = RunDirectory.create(
            config.runs_dir,
            config.run_name,
            config,
            seeds={f"model {seed}": seed for seed in config.seeds},
            networks={"dataset": data.key},
        )
    else:
        run.note_resume()
    for seed in config.seeds:
        folder = run.path / f"seed-{seed}"
        if (folder / "network_model.json").exists():
            print(f"seed {seed}: done before, {folder}")
            continue
        _fit_seed(config, data, run, seed)
    print(f"models: {run.path}; score them with python -m experiments.report models {run.path}")
    return 0


def _check_dataset(run: RunDirectory, dataset: Path) -> None:
    run.check_same()
    before, now = run_key(run.path), str(read_manifest(dataset)["key"])
    if before != now:
        raise ArtifactError(
            f"{run.path} was fitted on dataset {before[:12]}, {dataset} is {now[:12]}: its seeds "
            "would not compare. Restore the dataset (or the commit that collected it, named in "
            "run.json), or start a new run."
        )


def _fit_seed(config: FitConfig, data: FitData, run: RunDirectory, seed: int) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    from agents.network_model import export_onnx, save_network_model
    from experiments.model_training import train_model

    started = time.perf_counter()
    events = run.tensorboard / f"seed-{seed}"
    shutil.rmtree(events, ignore_errors=True)  # of an attempt that was interrupted
    bar = tqdm(total=config.epochs, desc=f"seed {seed}", unit=" epochs", disable=None, leave=False)
    with bar, SummaryWriter(str(events)) as writer:
        result = train_model(
            config.model_config(),
            data.train,
            data.validation,
            training=config.training(),
            seed=seed,
            on_epoch=_reporter(bar, writer),
        )
        scores = validation_scores(result, data.validation)
        for name, value in scores.items():
            writer.add_scalar(f"validation/{name}", value, result.best_epoch)
    folder = run.path / f"seed-{seed}"
    extra = {
        "best_epoch": result.best_epoch,
        "dataset": data.key,
        "epochs": result.epochs,
        "seed": seed,
        "validation": scores,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "history.json", {"epochs": result.history})
    if config.onnx:
        export_onnx(result.model, folder / "network_model.onnx")
    save_network_model(folder, result.model, extra=extra)
    told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    print(
        f"seed {seed}: {result.model.num_parameters} parameters, best epoch {result.best_epoch} of "
        f"{result.epochs}, {time.perf_counter() - started:.0f} s; validation {told}",
        flush=True,
    )


def _reporter(bar: Any, writer: Any) -> Callable[[int, Mapping[str, float]], None]:
    def on_epoch(epoch: int, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            writer.add_scalar(name, value, epoch)
        bar.set_postfix_str(f"validation loss {losses['validation/loss']:.4f}")
        bar.update()

    return on_epoch


def validation_scores(result: TrainedModel, validation: Mapping[str, Samples]) -> dict[str, float]:
    """ROC-AUC or macro F1 of each task on the validation windows."""
    import numpy as np

    from experiments.classification import macro_f1, roc_auc
    from experiments.model_training import predict

    scores = {}
    for name, samples in validation.items():
        probabilities = predict(result.model, samples)
        once = np.ones((1, len(samples)))
        if TASKS[name].is_binary:
            value = roc_auc(probabilities[:, 0], samples.labels == 1, once)[0]
            scores[f"{name}/roc_auc"] = float(value)
        else:
            classes = len(TASKS[name].classes)
            value = macro_f1(probabilities.argmax(axis=1), samples.labels, once, classes)[0]
            scores[f"{name}/macro_f1"] = float(value)
    return scores


def model_folders(run: Path) -> list[Path]:
    """The folders of a run's models, by seed.

    Raises:
        ArtifactError: it has none.
    """
    folders = [path.parent for path in run.glob("seed-*/network_model.json")]
    if not folders:
        raise ArtifactError(
            f"{run} holds no network models; python -m experiments.fit makes such runs, and "
            f"--resume {run} goes on with one that was interrupted."
        )
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("seed-")))


def run_key(run: Path) -> str:
    """Key of the dataset that a run's models were trained on.

    Raises:
        ArtifactError: no such run, or one of something else.
    """
    networks = RunDirectory.open(run).record.get("networks", {})
    if "dataset" not in networks:
        raise ArtifactError(f"{run} is no run of python -m experiments.fit.")
    return str(networks["dataset"])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.fit``."""
    return run_command(fit, FitConfig, module="experiments.fit", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

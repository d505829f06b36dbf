"""What network models weigh and take: parameters, bytes, time in calls and for one stream."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.network_model import MANIFEST_FILE, WEIGHTS_FILE, NetworkModel, export_onnx
from agents.network_tasks import TASKS
from agents.online_models import OnlineModels
from bwe_env.network import Network
from bwe_env.network_features import NUM_DENSE, NUM_SERIES
from bwe_env.rollout import record_calls
from experiments.collected_networks import collected_networks
from experiments.model_report import Cost, SizeRow
from experiments.model_runs import Study


def inference_ms(
    models: Sequence[NetworkModel], networks: Sequence[Network], *, num_envs: int = 64
) -> tuple[float, float]:
    """Milliseconds per interval of `num_envs` calls: of the models, and of the simulation alone.

    Of the same calls in one process, the simulation on one thread: the median over the intervals
    for the models, features included, and the mean for the simulation.
    """
    watched = _Stopwatch(OnlineModels(models))
    chosen = [networks[index % len(networks)] for index in range(num_envs)]
    list(record_calls(chosen, "gcc", batch_size=num_envs))  # compiles, and warms caches
    started = time.perf_counter()
    calls = list(record_calls(chosen, "gcc", batch_size=num_envs))
    alone_s = time.perf_counter() - started
    intervals = max(len(call.telemetry) for call in calls)
    list(record_calls(chosen, "gcc", batch_size=num_envs, network_models=watched))
    return 1e3 * float(np.median(watched.seconds)), 1e3 * alone_s / intervals


class _Stopwatch:
    """Network models that are timed."""

    def __init__(self, models: OnlineModels) -> None:
        self._models = models
        self.outputs = models.outputs
        self.seconds: list[float] = []

    def reset(self, num_envs: int) -> None:
        self._models.reset(num_envs)

    def restart(self, env: int) -> None:
        self._models.restart(env)

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        started = time.perf_counter()
        outputs = self._models.update(telemetry, active)
        self.seconds.append(time.perf_counter() - started)
        return outputs


def file_bytes(folder: Path) -> int:
    """What a model takes to download: its weights and its manifest."""
    return sum((folder / name).stat().st_size for name in (WEIGHTS_FILE, MANIFEST_FILE))


def study_sizes(study: Study) -> None:
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
                file_bytes=sum(file_bytes(folder) for folder in folders),
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

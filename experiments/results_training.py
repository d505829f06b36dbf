"""Training curves of runs: how validation and reward grew, mean and spread over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ArtifactError
from experiments.page import ReportTable, figure_html
from experiments.results_data import read_rows
from experiments.run_directory import RunDirectory, fingerprint
from experiments.svg import Axis, Plot, legend

WIDTH = 372.0
#: Options of a training that do not make it another training.
_NOT_TRAINING = ("seed", "name", "runs_dir", "num_threads", "resume")

#: What is drawn: file pattern, column of steps, column, label.
CURVES = (
    ("validations*.csv", "steps", "call_score", "validation call score, MOS"),
    ("validations*.csv", "steps", "mean_reward", "validation reward, 1/s"),
    ("progress*.csv", "time/total_timesteps", "rollout/ep_rew_mean", "training reward per call"),
)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A column of one run over its steps."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Runs that differ in their seed alone."""

    name: str
    seeds: tuple[int, ...]
    curves: Mapping[str, tuple[Curve, ...]]
    """one per run, by label of `CURVES`"""


def read_trainings(runs: Sequence[Path]) -> list[Training]:
    """The runs, those of the same configuration together, in the order of their first.

    Raises:
        UnknownNameError: a run directory does not exist.
        ArtifactError: a folder is no run, or its tables cannot be read.
    """
    groups: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in runs:
        run = RunDirectory.open(path)
        config = json.loads((run.path / "config.json").read_text())
        key = fingerprint({k: v for k, v in config.items() if k not in _NOT_TRAINING})
        groups.setdefault(key, []).append((run.path, config))
    return [_training(members) for members in groups.values()]


def _training(members: Sequence[tuple[Path, dict[str, Any]]]) -> Training:
    curves = {
        label: tuple(c for path, _ in members if (c := _read_curve(path, *where)) is not None)
        for *where, label in CURVES
    }
    return Training(
        name=str(members[0][1].get("name", members[0][0].name)),
        seeds=tuple(int(config.get("seed", 0)) for _, config in members),
        curves={label: found for label, found in curves.items() if found},
    )


def _read_curve(path: Path, pattern: str, steps: str, column: str) -> Curve | None:
    """A column over steps, of all parts of a run that was taken up again; None without values."""
    points: dict[float, float] = {}
    # A run that was resumed repeats steps after its checkpoint; what it did later stands.
    for file in sorted(path.glob(pattern), key=_part):
        rows = read_rows(file)
        if steps not in rows or column not in rows:
            continue
        try:
            at, values = (np.array(rows[name], dtype=np.float64) for name in (steps, column))
        except ValueError as error:
            raise ArtifactError(f"{path.name}/{file.name} is damaged: {error}.") from error
        is_known = np.isfinite(at) & np.isfinite(values)
        points |= dict(zip(at[is_known].tolist(), values[is_known].tolist(), strict=True))
    if not points:
        return None
    ordered = sorted(points)
    return Curve(steps=np.array(ordered), values=np.array([points[step] for step in ordered]))


def _part(file: Path) -> int:
    """0 for ``progress.csv``, n for ``progress-n.csv``."""
    number = file.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def over_seeds(
    curves: Sequence[Curve],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, least and most of several curves, where all of them have been.

    Returns:
        Steps, means, least, most, each of shape (n,). Between its points a curve is straight.
    """
    first = max(float(curve.steps[0]) for curve in curves)
    last = min(float(curve.steps[-1]) for curve in curves)
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    values = np.array([np.interp(steps, curve.steps, curve.values) for curve in curves])
    if len(steps) == 0:
        return steps, steps, steps, steps
    return steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def training_figures(trainings: Sequence[Training]) -> list[str]:
    """One figure per label of `CURVES` that any training has, below a shared legend."""
    series = [f"s{i}" + (" main" if i == 0 else "") for i in range(len(trainings))]
    figures = [legend(zip((t.name for t in trainings), series, strict=True))]
    for *_, label in CURVES:
        drawn = [
            (training.name, s, over_seeds(training.curves[label]))
            for training, s in zip(trainings, series, strict=True)
            if label in training.curves
        ]
        drawn = [one for one in drawn if len(one[2][0])]
        if drawn:
            figures.append(_figure(label, drawn))
    return figures


def _figure(label: str, drawn: Sequence[tuple[str, str, tuple[NDArray[np.float64], ...]]]) -> str:
    lows = [float(least.min()) for *_, (_, _, least, _) in drawn]
    highs = [float(most.max()) for *_, (_, _, _, most) in drawn]
    margin = 0.05 * (max(highs) - min(lows)) or 0.1
    plot = Plot(
        x=Axis(low=0.0, high=max(float(s[-1]) for *_, (s, *_) in drawn) / 1e6, label="steps, M"),
        y=Axis(low=min(lows) - margin, high=max(highs) + margin, label=label),
        width=WIDTH,
    )
    for name, series, (steps, means, least, most) in reversed(drawn):
        plot.area(steps / 1e6, least, most, f"area {series}")
        plot.curve(steps / 1e6, means, series, label=name)
    told = "; ".join(f"{name} ends at {means[-1]:.3g}" for name, _, (_, means, _, _) in drawn)
    name = "training-" + label.partition(",")[0].replace(" ", "-")
    caption = "Mean over seeds; the band goes from the least to the most."
    return figure_html(
        name, plot.svg(f"{label} over training steps: {told}"), caption, round(WIDTH)
    )


def training_table(trainings: Sequence[Training]) -> ReportTable:
    """Seeds and the last values of each training."""
    rows = []
    for training in trainings:
        cells = []
        for *_, label in CURVES:
            ends = [f"{c.values[-1]:.3f}" for c in training.curves.get(label, ())]
            cells.append(", ".join(ends) or "–")
        rows.append([training.name, ", ".join(map(str, training.seeds)), *cells])
    return ReportTable(
        title="Where trainings ended",
        header=["training", "seeds", *(label for *_, label in CURVES)],
        rows=rows,
        caption="Last values by seed.",
    )

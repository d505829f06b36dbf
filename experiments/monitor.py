"""After roll-out: do today's calls still look like those a configuration was tuned for?

    python -m experiments.monitor --reference runs/ab/tuned --now runs/ab/week-7 \
        --logdir runs/monitor --step 7

Each of the two folders holds an A/B test (its `--arm` is taken) or a ``calls.csv`` with the columns
of `bwe_env.metrics.CALL_COLUMNS` and ``detected_type``, the network type the sender found. The
report says per detected type whether it comes as often as in the reference, and whether its metrics
are still what they were. It is printed and written to `--logdir` (monitor.txt, shares.csv,
drift.csv), with scalars for TensorBoard at `--step`. Exit code 0 whether anything drifted or not.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.metrics import FIELD_METRICS
from experiments.ab_blocks import MANIFEST_FILE, read_calls
from experiments.ab_pairs import needed_columns
from experiments.ab_statistics import AB_RESAMPLES
from experiments.ab_tables import change_text, number, p_text
from experiments.cli import run_command
from experiments.evaluation import with_range
from experiments.monitor_statistics import (
    ALL,
    MIN_NETWORKS,
    Drift,
    Mix,
    compared_types,
    drifts,
    mix_of,
)
from experiments.tables import make_table, show, write_csv

#: Columns of text; all others of a table of calls are numbers.
TEXT_COLUMNS = ("arm", "network", "network_type", "path", "detected_type")


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """Compare today's calls with those of a reference run."""

    reference: str
    """folder of the reference's calls"""
    now: str
    """folder of today's calls"""
    logdir: str
    """folder of the report and of TensorBoard's event files"""
    arm: str = "treatment"
    """of a folder that holds an A/B test"""
    step: int = 0
    """where the scalars stand on TensorBoard's axis, e.g. the week"""
    resamples: int = AB_RESAMPLES
    """of the bootstrap"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.monitor``."""
    return run_command(monitor, MonitorConfig, module="experiments.monitor", argv=argv)


def monitor(config: MonitorConfig) -> int:
    """Compare, print, write."""
    if config.step < 0:
        raise ConfigError(f"step={config.step} must be at least 0.")
    reference, now = (read_table(Path(d), config.arm) for d in (config.reference, config.now))
    mix = mix_of(reference, now, resamples=config.resamples)
    rows = drifts(reference, now, resamples=config.resamples)
    fits = verdicts(mix, rows, compared_types(reference, now))
    logdir = Path(config.logdir)
    logdir.mkdir(parents=True, exist_ok=True)
    show(*tables(mix, rows, fits), file=logdir / "monitor.txt")
    write_csv(logdir / "shares.csv", share_columns(mix, fits))
    write_csv(logdir / "drift.csv", drift_columns(rows))
    write_scalars(logdir, mix, rows, step=config.step)
    return 0


# --- Tables of calls ------------------------------------------------------------------------------


def read_table(directory: Path, arm: str) -> dict[str, NDArray[Any]]:
    """The calls of a folder, by column.

    Raises:
        ArtifactError: no calls, or calls without a column that is needed.
    """
    if (directory / MANIFEST_FILE).exists():
        arms = read_calls(directory)
        if arm not in arms:
            raise ArtifactError(f"{directory} has no arm {arm!r}; it has {', '.join(arms)}.")
        calls = arms[arm]
    else:
        calls = _of_arm(directory, _read_csv(directory / "calls.csv"), arm)
    needed = {"network", "network_type", "detected_type"} | needed_columns(FIELD_METRICS.values())
    if missing := sorted(needed - set(calls)):
        raise ArtifactError(
            f"{directory}: the calls have no columns {', '.join(missing)}. Monitoring needs the "
            "type that the sender detected: play with targeting, which adds it."
        )
    return calls


def _of_arm(directory: Path, calls: dict[str, NDArray[Any]], arm: str) -> dict[str, NDArray[Any]]:
    """The calls of one arm, where a table tells arms apart."""
    if "arm" not in calls:
        return calls
    if arm not in calls["arm"]:
        known = ", ".join(sorted(set(calls["arm"].tolist())))
        raise ArtifactError(f"{directory} has no arm {arm!r}; it has {known}.")
    return {name: column[calls["arm"] == arm] for name, column in calls.items()}


def _read_csv(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
    except OSError as error:
        raise ArtifactError(
            f"no calls in {path.parent}: {path.name} cannot be read ({error.strerror}). Give the "
            "folder of an A/B test, or one with calls.csv."
        ) from error
    if not lines:
        raise ArtifactError(f"{path} holds no calls.")
    return {name: _column(path, name, [line[name] for line in lines]) for name in lines[0]}


def _column(path: Path, name: str, texts: list[str]) -> NDArray[Any]:
    if name in TEXT_COLUMNS:
        return np.array(texts)
    flags = {"True": 1.0, "False": 0.0, "": math.nan}
    try:
        return np.array([flags[t] if t in flags else float(t) for t in texts])
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: column {name} must hold numbers: {error}.") from error


# --- What is reported -----------------------------------------------------------------------------


def verdicts(mix: Mix, rows: Sequence[Drift], compared: Sequence[str]) -> dict[str, str]:
    """By type, whether its configuration still fits, in words."""
    found = {}
    for name in (*(share.name for share in mix.shares), ALL):
        flagged = [r.change.metric.name for r in rows if r.type_name == name and r.is_flagged]
        if name not in (*compared, ALL):
            found[name] = f"too few calls: fewer than {MIN_NETWORKS} networks in a table"
        elif flagged:
            found[name] = f"has drifted: {', '.join(flagged)}"
        else:
            found[name] = "no drift found"
    return found


def tables(mix: Mix, rows: Sequence[Drift], fits: dict[str, str]) -> list[Any]:
    """Everything that is printed, top to bottom."""
    shares = [
        [
            share.name,
            number(100.0 * share.reference, 1),
            number(100.0 * share.now, 1),
            with_range(share.change, 1),
            fits[share.name],
        ]
        for share in mix.shares
    ]
    shares.append([ALL, "100.0", "100.0", "-", fits[ALL]])
    verdict = "the mix of types has drifted" if mix.has_drifted else "the mix of types holds"
    return [
        make_table(
            "detected network types",
            ["type", "reference %", "now %", "change, points [95 %]", "its configuration"],
            shares,
        ),
        f"{verdict}: population stability index {mix.index:.3f} [{mix.low:.3f}, {mix.high:.3f}] "
        f"({mix.size}), permutation p = {p_text(mix.p_value)}",
        "",
        make_table(
            "change of each metric from the reference to now",
            ["type", "metric", "reference", "now", "change % [95 %]", "p (Holm)", ""],
            [_drift_cells(row) for row in rows],
            caption="unpaired bootstrap over networks; Holm over all rows but those marked (r)",
        ),
    ]


def _drift_cells(row: Drift) -> list[str]:
    change = row.change
    return [
        row.type_name,
        change.metric.name + ("" if row.counts else " (r)"),
        number(change.control),
        number(change.treatment),
        change_text(change),
        p_text(row.p_holm),
        "drifted" if row.is_flagged else "",
    ]


def share_columns(mix: Mix, fits: dict[str, str]) -> dict[str, list[Any]]:
    """One row per detected type; the index of the whole mix beside each."""
    shares = mix.shares
    return {
        "detected_type": [share.name for share in shares],
        "reference_share": [share.reference for share in shares],
        "now_share": [share.now for share in shares],
        "change_points": [share.change.mean for share in shares],
        "low_points": [share.change.low for share in shares],
        "high_points": [share.change.high for share in shares],
        "verdict": [fits[share.name] for share in shares],
        "stability_index": [mix.index] * len(shares),
        "stability_p_value": [mix.p_value] * len(shares),
    }


def drift_columns(rows: Sequence[Drift]) -> dict[str, list[Any]]:
    """One row per type and metric."""
    return {
        "detected_type": [row.type_name for row in rows],
        "metric": [row.change.metric.name for row in rows],
        "reference": [row.change.control for row in rows],
        "now": [row.change.treatment for row in rows],
        "change_pct": [row.change.change_pct for row in rows],
        "low_pct": [row.change.low_pct for row in rows],
        "high_pct": [row.change.high_pct for row in rows],
        "p_value": [row.change.p_value for row in rows],
        "p_holm": [row.p_holm for row in rows],
        "flagged": [int(row.is_flagged) for row in rows],
        "note": [row.change.note for row in rows],
    }


def write_scalars(logdir: Path, mix: Mix, rows: Sequence[Drift], *, step: int) -> None:
    """Shares, the index, and every defined change, for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(logdir)) as writer:
        writer.add_scalar("mix/stability_index", mix.index, step)
        writer.add_scalar("mix/p_value", mix.p_value, step)
        writer.add_scalar("drift/flagged", sum(row.is_flagged for row in rows), step)
        for share in mix.shares:
            writer.add_scalar(f"share/{share.name}", share.now, step)
        for row in rows:
            if row.change.is_defined:
                tag = f"change_pct/{row.type_name}/{row.change.metric.name}"
                writer.add_scalar(tag, row.change.change_pct, step)


if __name__ == "__main__":
    sys.exit(main())

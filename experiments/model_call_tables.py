"""Tables of a `ModelReport` about calls, size, cost, and logs of real calls; see `model_tables`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.model_online import CongestionShare, Fall
from experiments.model_report import (
    MULTI,
    Alternating,
    Cost,
    LogScores,
    ModelReport,
    SizeRow,
)
from experiments.model_tables import (
    INTERVAL_TEXT,
    SURE_TEXT,
    contest_table,
    difference_cell,
    interval_cell,
    number,
    percent,
    task_title,
)
from experiments.page import ReportTable
from experiments.stats import Interval, mean_interval

# --- Calls ----------------------------------------------------------------------------------------


def leads_s(falls: Iterable[Fall]) -> NDArray[np.float64]:
    """Lead times of the falls that had both a loss and an alarm, shape (n,)."""
    values = np.array([fall.lead_s for fall in falls], dtype=np.float64)
    return values[np.isfinite(values)]


def lead_tables(alternating: Alternating) -> list[ReportTable]:
    """How early the falls of the alternating link were foretold, by seed of the model."""
    rows = []
    for seed, falls in enumerate(alternating.falls):
        leads = leads_s(falls)
        quantiles = np.quantile(leads, [0.1, 0.5, 0.9]) if len(leads) else np.full(3, np.nan)
        lossy = sum(math.isfinite(fall.first_loss_s) for fall in falls)
        early = int((leads > 0.0).sum())
        rows.append(
            [
                str(seed),
                number(quantiles[1], 2),
                f"{number(quantiles[0], 2)} to {number(quantiles[2], 2)}",
                f"{early} of {lossy} ({percent(early / lossy if lossy else math.nan)})",
                f"{sum(math.isnan(fall.alarm_s) for fall in falls)} of {len(falls)}",
                number(alternating.false_alarms_per_minute[seed], 2),
            ]
        )
    if not rows:
        return []
    header = ["Seed", "Median lead (s)", "10 to 90 % (s)", "Alarm before the first loss"]
    return [
        ReportTable(
            title="Lead time on the alternating link",
            header=[*header, "Falls without alarm", "False alarms per minute"],
            rows=rows,
            caption="Time from the alarm to the first report of a loss, over the falls of the "
            "capacity that had both; negative where the alarm came after it.",
        )
    ]


def share_tables(shares: Sequence[CongestionShare]) -> list[ReportTable]:
    """Congestion by controller on the same networks, and what the first has more of it.

    All networks are one stratum: their types do not stand in the report.
    """
    if not shares:
        return []
    names = [share.controller for share in shares]
    header = ["Share (%)", *names, *(f"{names[0]} − {name}" for name in names[1:])]
    rows = []
    for title, attribute in (
        ("bins with congestion to come", "positive_ratio"),
        ("packets lost to queues", "queue_loss_ratio"),
    ):
        columns = [getattr(share, attribute) for share in shares]
        differences = [columns[0] - column for column in columns[1:]]
        rows.append(
            [
                title,
                *(interval_cell(i, digits=2, scale=100.0) for i in _means(columns)),
                *(difference_cell(i, digits=2, scale=100.0) for i in _means(differences)),
            ]
        )
    return [
        ReportTable(
            title="Congestion that the controller causes itself",
            header=header,
            rows=rows,
            caption=f"Mean [95 % interval] over {len(shares[0].positive_ratio):,} networks, "
            f"differences paired by network, in percent and percentage points. {SURE_TEXT}",
        )
    ]


def _means(columns: Sequence[NDArray[np.float64]]) -> list[Interval]:
    nothing = Interval(mean=math.nan, low=-math.inf, high=math.inf, networks=0)
    return [
        mean_interval(column, np.zeros(len(column))) if np.isfinite(column).any() else nothing
        for column in columns
    ]


def online_tables(report: ModelReport) -> list[ReportTable]:
    """Scores from the dataset beside those from calls in shadow mode."""
    if not report.online:
        return []
    rows = [
        [
            f"{task_title(row.task)}: {row.metric}",
            row.subset,
            interval_cell(row.offline),
            interval_cell(row.online),
            row.truth,
        ]
        for row in report.online
    ]
    return [
        ReportTable(
            title="Offline and online (0 to 1)",
            header=["Score", "Windows", "From the dataset", "In calls", "Who knows the truth"],
            rows=rows,
            caption=INTERVAL_TEXT,
        )
    ]


# --- Size and cost --------------------------------------------------------------------------------


def size_tables(sizes: Sequence[SizeRow]) -> list[ReportTable]:
    """What models weigh and take, beside the multi-task one where there is one."""
    if not sizes:
        return []
    multi = next((row for row in sizes if row.name.startswith(MULTI)), None)
    columns = {
        "Parameters": ("parameters", 0),
        "Files (bytes)": ("file_bytes", 0),
        "Time (ms per interval of 64 calls)": ("inference_ms", 2),
    }
    rows = []
    for row in sizes:
        cells = [row.name]
        for name, digits in columns.values():
            value = float(getattr(row, name))
            cell = number(value, digits)
            if multi is not None and row is not multi:
                cell += f" (×{number(value / float(getattr(multi, name)), 2)})"
            cells.append(cell)
        rows.append(cells)
    caption = "" if multi is None else f"In brackets: times that of the {multi.name}. "
    return [
        ReportTable(
            title="Size and time",
            header=["Model", *columns],
            rows=rows,
            caption=f"{caption}Models of one seed; the time includes the features.",
        )
    ]


def cost_tables(cost: Cost | None) -> list[ReportTable]:
    """What inference costs."""
    if cost is None:
        return []
    rows = [
        ["Models, interval of 64 calls, features included", number(cost.models_ms, 2, "ms")],
        ["Simulation alone, the same calls, one thread", number(cost.simulation_ms, 2, "ms")],
        [
            "Models in relation to the simulation",
            percent(cost.models_ms / cost.simulation_ms if cost.simulation_ms > 0 else math.nan),
        ],
    ]
    rows += [
        [f"{name}: one window through onnxruntime, one thread", number(value, 0, "µs")]
        for name, value in cost.onnx_us.items()
    ]
    return [ReportTable(title="Cost of inference", header=["What", "Cost"], rows=rows)]


# --- Logs of real calls ---------------------------------------------------------------------------


def log_tables(logs: LogScores | None) -> list[ReportTable]:
    """Random loss on logs of real calls: scores over them, and each run."""
    if logs is None:
        return []
    tables = [contest_table("Logs of real calls", logs.contests)] if logs.contests else []
    if logs.runs:
        rows = [
            [name, f"{episodes:,}", percent(random), number(probability)]
            for name, episodes, random, probability in logs.runs
        ]
        tables.append(
            ReportTable(
                title="Random loss by run",
                header=[
                    "Run",
                    "Loss episodes",
                    "Random ones (%)",
                    "Mean probability of random (0 to 1)",
                ],
                rows=rows,
                caption=f"{len(logs.runs)} independent runs; the cause is constant within each, so "
                "episodes of one run are no independent samples.",
            )
        )
    return tables + _log_alarm_tables(logs)


def _log_alarm_tables(logs: LogScores) -> list[ReportTable]:
    """Falls of the capacity in logs that know it."""
    if not logs.falls:
        return []
    rows = [
        [
            name,
            number(fall.time_s, 1),
            str(seed),
            number(fall.alarm_s - fall.time_s, 2),
            number(fall.first_loss_s - fall.time_s, 2),
            number(fall.lead_s, 2),
        ]
        for name, seed, fall in logs.falls
    ]
    rates = ", ".join(number(rate, 2) for rate in logs.false_alarms_per_minute)
    return [
        ReportTable(
            title="Falls of the capacity by run",
            header=["Run", "Fall at (s)", "Seed", "Alarm after (s)", "Loss after (s)", "Lead (s)"],
            rows=rows,
            caption=f"False alarms per minute over all runs, by seed: {rates}.",
        )
    ]

"""Tables of a `ModelReport`, as text cells: the page and the terminal show the same ones.

A part of the report that is empty gives no table; a number that is not known stands as "–".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.model_report import ABLATIONS, MODEL, ModelReport
from experiments.model_scores import Contest
from experiments.page import SURE, UNKNOWN, ReportTable
from experiments.stats import Interval

SURE_TEXT = "* the 95 % interval excludes zero, without a correction for how many there are."
INTERVAL_TEXT = "Mean over seeds [95 % interval over networks]."


# --- Cells ----------------------------------------------------------------------------------------


def number(value: float, digits: int = 3, unit: str = "") -> str:
    """A number with its unit, or "–" where it is not finite."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.{digits}f}" + (f" {unit}" if unit else "")


def percent(ratio: float, digits: int = 1) -> str:
    """A ratio in percent."""
    return number(100.0 * ratio, digits, "%")


def interval_cell(interval: Interval, *, digits: int = 3, scale: float = 1.0) -> str:
    """``mean [low, high]`` of a score."""
    mean, low, high = (
        number(scale * value, digits) for value in (interval.mean, interval.low, interval.high)
    )
    return UNKNOWN if mean == UNKNOWN else f"{mean} [{low}, {high}]"


def difference_cell(interval: Interval, *, digits: int = 3, scale: float = 1.0) -> str:
    """``+mean [+low, +high]``, marked where the interval excludes zero."""
    ends = (interval.mean, interval.low, interval.high)
    texts = [f"{scale * v:+.{digits}f}" if math.isfinite(v) else UNKNOWN for v in ends]
    if texts[0] == UNKNOWN:
        return UNKNOWN
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" + (SURE if interval.excludes_zero else "")


def seeds_cell(values: Iterable[float], digits: int = 3) -> str:
    """Values of each seed."""
    return ", ".join(number(value, digits) for value in values)


def task_title(task: str) -> str:
    """A task's name in words."""
    return task.replace("_", " ").capitalize()


def windows_text(contest: Contest) -> str:
    """How much was scored."""
    text = f"{contest.windows:,} windows of {contest.networks:,} networks"
    if math.isfinite(contest.positive_ratio):
        text += f", {percent(contest.positive_ratio)} of them positive"
    return text + "."


# --- Scores ---------------------------------------------------------------------------------------


def tasks_of(report: ModelReport) -> list[str]:
    """Tasks that something is told of, in the order in which they come."""
    names = [contest.task for contest in report.contests]
    names += [curves.task for curves in report.curves]
    return list(dict.fromkeys([*names, *report.importances, *report.calibration_errors]))


def headline_subset(report: ModelReport, task: str) -> str | None:
    """The windows that a task's curves are drawn from, or else those that are scored first."""
    subsets = [curves.subset for curves in report.curves if curves.task == task]
    subsets += [contest.subset for contest in report.contests if contest.task == task]
    return subsets[0] if subsets else None


def is_headline(report: ModelReport, contest: Contest) -> bool:
    """Whether a contest is what a task is claimed by."""
    return contest.subset == headline_subset(report, contest.task)


def _main_contestant(contest: Contest) -> str:
    return MODEL if MODEL in contest.values else next(iter(contest.values))


def headline_tables(report: ModelReport) -> list[ReportTable]:
    """What is claimed of the models."""
    contests = [c for c in report.contests if c.values and is_headline(report, c)]
    if not contests:
        return []
    rows = []
    for contest in contests:
        name = _main_contestant(contest)
        rows.append(
            [
                f"{task_title(contest.task)}: {contest.metric}",
                contest.subset,
                interval_cell(contest.interval(name)),
                seeds_cell(contest.by_seed[name]),
                f"{contest.networks:,}",
                f"{contest.windows:,}",
            ]
        )
    scores = ReportTable(
        title="Scores of the models (0 to 1)",
        header=["Score", "Windows", "Mean [95 % interval]", "By seed", "Networks", "Count"],
        rows=rows,
        caption=f"{INTERVAL_TEXT} Networks and count of windows say what was scored.",
    )
    headlines = [d for d in report.differences if is_headline(report, d[0])]
    return [scores, *_difference_tables("Differences (points of score)", headlines)]


def _difference_tables(
    title: str, differences: Sequence[tuple[Contest, str, str]]
) -> list[ReportTable]:
    if not differences:
        return []
    rows = [
        [
            f"{task_title(contest.task)}: {contest.metric}",
            contest.subset,
            f"{one} − {other}",
            difference_cell(contest.difference(one, other)),
        ]
        for contest, one, other in differences
    ]
    return [
        ReportTable(
            title=title,
            header=["Score", "Windows", "Difference", "Mean [95 % interval]"],
            rows=rows,
            caption=f"{INTERVAL_TEXT} {SURE_TEXT}",
        )
    ]


def contestant_tables(report: ModelReport) -> list[ReportTable]:
    """What stands behind the names."""
    if not report.contestants:
        return []
    rows = [[name, text] for name, text in report.contestants.items()]
    return [ReportTable(title="Contestants", header=["Name", "What it is"], rows=rows)]


def contest_table(title: str, contests: Sequence[Contest]) -> ReportTable:
    """Contests on the same windows, one row for each contestant."""
    header = ["Contestant"]
    for contest in contests:
        header += [contest.metric, f"{contest.metric} by seed"]
    names = dict.fromkeys(name for contest in contests for name in contest.values)
    rows = []
    for name in names:
        row = [name]
        for contest in contests:
            is_in = name in contest.values
            row.append(interval_cell(contest.interval(name)) if is_in else UNKNOWN)
            row.append(seeds_cell(contest.by_seed[name]) if is_in else UNKNOWN)
        rows.append(row)
    return ReportTable(
        title=title,
        header=header,
        rows=rows,
        caption=f"{windows_text(contests[0])} Scores from 0 to 1. {INTERVAL_TEXT}",
    )


def score_tables(report: ModelReport, task: str) -> list[ReportTable]:
    """All contestants of a task, one table for each set of windows."""
    by_subset: dict[str, list[Contest]] = {}
    for contest in report.contests:
        if contest.task == task:
            by_subset.setdefault(contest.subset, []).append(contest)
    return [
        contest_table(f"{task_title(task)}, windows: {subset}", contests)
        for subset, contests in by_subset.items()
    ]


def difference_tables(report: ModelReport, task: str) -> list[ReportTable]:
    """Differences of a task's contestants."""
    chosen = [difference for difference in report.differences if difference[0].task == task]
    return _difference_tables(f"{task_title(task)}: differences (points of score)", chosen)


def calibration_tables(report: ModelReport, task: str) -> list[ReportTable]:
    """How far probabilities are from frequencies."""
    errors = report.calibration_errors.get(task, [])
    if not errors:
        return []
    row = [task_title(task), number(float(np.mean(errors))), seeds_cell(errors)]
    return [
        ReportTable(
            title="Expected calibration error (0 to 1)",
            header=["Task", "Mean", "By seed"],
            rows=[row],
            caption="Mean distance of frequency and probability over 15 bins of equal counts.",
        )
    ]


def versus_tables(
    report: ModelReport, title: str, others: Sequence[str], caption: str
) -> list[ReportTable]:
    """The model against other contestants, on what its task is claimed by."""
    rows = []
    for contest in report.contests:
        for other in others if is_headline(report, contest) else ():
            if MODEL in contest.values and other in contest.values:
                rows.append(
                    [
                        f"{task_title(contest.task)}: {contest.metric}",
                        contest.subset,
                        interval_cell(contest.interval(MODEL)),
                        other,
                        interval_cell(contest.interval(other)),
                        difference_cell(contest.difference(MODEL, other)),
                    ]
                )
    if not rows:
        return []
    header = ["Score (0 to 1)", "Windows", "Model", "Other", "Score of other", "Model − other"]
    return [ReportTable(title=title, header=header, rows=rows, caption=caption)]


def ablation_tables(report: ModelReport) -> list[ReportTable]:
    """The model against those that see a part of its inputs."""
    caption = f"{INTERVAL_TEXT} {SURE_TEXT}"
    return versus_tables(report, "Inputs left out", tuple(ABLATIONS.values()), caption)


def model_tables(report: ModelReport) -> list[ReportTable]:
    """The folders that were scored."""
    if not report.models:
        return []
    rows = [[name, ", ".join(folders)] for name, folders in report.models.items()]
    return [ReportTable(title="Models that were scored", header=["Name", "Folders"], rows=rows)]

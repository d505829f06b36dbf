"""Sections of the page of network models: what stands in each, and how to read it.

A section without tables, pictures and lines does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from agents.network_tasks import TASKS
from experiments import page
from experiments.model_call_tables import (
    cost_tables,
    lead_tables,
    log_tables,
    online_tables,
    share_tables,
    size_tables,
)
from experiments.model_course_figures import alternating_pictures, example_picture
from experiments.model_figures import (
    Picture,
    confusion_picture,
    curve_pictures,
    importance_picture,
    reliability_picture,
)
from experiments.model_report import MULTI, ConfusionTable, ModelReport
from experiments.model_tables import (
    INTERVAL_TEXT,
    SURE_TEXT,
    ablation_tables,
    calibration_tables,
    contestant_tables,
    difference_tables,
    headline_tables,
    model_tables,
    score_tables,
    task_title,
    tasks_of,
    versus_tables,
)

#: Draws the pictures of a section: only a page needs them.
Draw = Callable[[], Iterable[Picture | None]]

SUMMARY_TEXT = """What is claimed of network models, on networks that nothing was trained or chosen
on. Intervals are over networks, not over windows; scores of several training seeds are averaged."""
EXAMPLES_TEXT = """What counts as congestion to come: the RTT spiked within the past 4 s (the dashed
line, in at least two bins of 0.1 s), and losses or a growing RTT follow within the next 4 s."""
ALTERNATING_TEXT = """The capacity is 500 and 100 kbps by turns, 30 s each. The model watches and
nobody acts on it. An alarm is a prediction at or above the threshold, which was found on validation
networks; one that goes on counts anew every 4 s. It is false if neither losses nor a growing RTT
come within 4 s."""
SHARES_TEXT = """Some congestion is the sender's own doing. The same networks are played under GCC
and at the rate that an oracle knows to fit; what GCC has more of is what it causes itself."""
ONLINE_TEXT = """In shadow mode GCC drives, the models predict in the call as it goes on, and nobody
acts on what they say, since acting erases its own positives. The truth about congestion comes from
the call's own future, about the rest from the simulator alone."""
LOGS_TEXT = """Random loss on recordings of real calls, none of which was trained on."""


@dataclass(frozen=True, kw_only=True)
class Section(page.Section):
    """A part of the page, with what draws its figures."""

    draw: Draw = tuple


def report_sections(report: ModelReport) -> list[Section]:
    """All sections that the report has something for."""
    sections = [
        *_when(
            report.contests or report.contestants,
            Section(
                anchor="summary",
                title="Summary",
                text=SUMMARY_TEXT,
                tables=[*headline_tables(report), *contestant_tables(report)],
            ),
        ),
        *(_task_section(report, task) for task in tasks_of(report)),
        *_when(other_confusions(report), _confusion_section(report)),
        *_congestion_sections(report),
        *_when(
            report.online,
            Section(
                anchor="online",
                title="Offline and online",
                text=ONLINE_TEXT,
                tables=online_tables(report),
            ),
        ),
        *_size_sections(report),
    ]
    return sections + _last_sections(report)


def _when(content: object, section: Section) -> list[Section]:
    return [section] if content else []


# --- Tasks ----------------------------------------------------------------------------------------


def confusions_of(report: ModelReport, task: str) -> list[ConfusionTable]:
    """Tables with the classes of a task: they do not say themselves whose they are."""
    if task not in TASKS or not TASKS[task].classes:
        return []
    return [t for t in report.confusions if tuple(t.classes) == TASKS[task].classes]


def other_confusions(report: ModelReport) -> list[ConfusionTable]:
    """Tables that are shown with no task."""
    shown = [id(t) for task in tasks_of(report) for t in confusions_of(report, task)]
    return [table for table in report.confusions if id(table) not in shown]


def _task_section(report: ModelReport, task: str) -> Section:
    return Section(
        anchor=task.replace("_", "-"),
        title=task_title(task),
        text=TASKS[task].question if task in TASKS else "",
        tables=[
            *score_tables(report, task),
            *difference_tables(report, task),
            *calibration_tables(report, task),
        ],
        draw=partial(_task_pictures, report, task),
    )


def _task_pictures(report: ModelReport, task: str) -> Iterable[Picture | None]:
    for curves in report.curves:
        if curves.task == task:
            yield from curve_pictures(curves)
            yield reliability_picture(curves, report.calibration_errors.get(task, []))
    for table in confusions_of(report, task):
        yield confusion_picture(task, table)
    is_binary = task not in TASKS or TASKS[task].is_binary
    metric = "ROC-AUC" if is_binary else "macro F1"
    yield importance_picture(task, report.importances.get(task, []), metric)


def _confusion_section(report: ModelReport) -> Section:
    def draw() -> Iterable[Picture]:
        for index, table in enumerate(other_confusions(report)):
            yield confusion_picture(f"other-{index}", table)

    return Section(anchor="confusions", title="Confusions", draw=draw)


# --- Congestion in calls --------------------------------------------------------------------------


def _congestion_sections(report: ModelReport) -> list[Section]:
    alternating = report.alternating
    sections = _when(
        report.examples,
        Section(
            anchor="examples",
            title="Examples of congestion to come",
            text=EXAMPLES_TEXT,
            draw=lambda: [example_picture(*pair) for pair in enumerate(report.examples)],
        ),
    )
    if alternating is not None:
        sections.append(
            Section(
                anchor="alternating",
                title="The alternating link",
                text=ALTERNATING_TEXT,
                tables=lead_tables(alternating),
                draw=partial(alternating_pictures, alternating),
            )
        )
    shares = Section(
        anchor="self-made",
        title="Congestion that GCC causes itself",
        text=SHARES_TEXT,
        tables=share_tables(report.shares),
    )
    return sections + _when(report.shares, shares)


# --- Inputs, tasks together, cost -----------------------------------------------------------------


def _size_sections(report: ModelReport) -> list[Section]:
    ablations = ablation_tables(report)
    caption = f"{INTERVAL_TEXT} {SURE_TEXT}"
    multi = [
        *versus_tables(report, "One model for all tasks, or one for each", [MULTI], caption),
        *size_tables(report.sizes),
    ]
    costs = cost_tables(report.cost)
    return [
        *_when(ablations, Section(anchor="ablations", title="Ablations", tables=ablations)),
        *_when(multi, Section(anchor="multi-task", title="Multi-task model", tables=multi)),
        *_when(costs, Section(anchor="cost", title="Cost", tables=costs)),
    ]


def _last_sections(report: ModelReport) -> list[Section]:
    logs, models = log_tables(report.logs), model_tables(report)
    return [
        *_when(logs, Section(anchor="logs", title="Real calls", text=LOGS_TEXT, tables=logs)),
        *_when(report.notes, Section(anchor="notes", title="Notes", lines=report.notes)),
        *_when(models, Section(anchor="models", title="Models", tables=models)),
    ]

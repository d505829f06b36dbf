"""The page of a comparison: tables, figures, timelines, how it was made; one file, no requests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bwe_env.config import CallConfig, from_mapping
from experiments.page import ReportTable, Section, page_html
from experiments.results_calls import chosen_calls, first_seed, play
from experiments.results_data import Results, read_results
from experiments.results_figures import (
    chance_figures,
    difference_figures,
    distribution_figures,
    part_figures,
    profile_figures,
)
from experiments.results_folders import read_folder
from experiments.results_tables import (
    agent_part_table,
    difference_table,
    non_inferiority_tables,
    part_table,
    parts_of,
    present,
    run_name,
    run_table,
    score_table,
    summary_table,
)
from experiments.results_timelines import STYLE as TIMELINE_STYLE
from experiments.results_timelines import timeline_figures
from experiments.results_training import read_trainings, training_figures, training_table
from experiments.run_directory import package_versions
from experiments.svg import STYLE as PLOT_STYLE

PAGE_FILE = "results.html"

SUMMARY_TEXT = """Means over networks; calls of several seeds are averaged within theirs."""
CONTESTED_TEXT = """The headline is capacity-limited calls, whose capacity falls below the highest
rate for some of the time: on the others any estimator can send at the maximum."""
DIFFERENCES_TEXT = """Each estimator against {reference} on the same calls: dots are mean
differences over networks, bars their 95 % intervals; a full dot's interval excludes zero."""
CHANCES_TEXT = """How often an estimator is better than {reference}, and by how much of what an
oracle gains."""
DISTRIBUTIONS_TEXT = """Cumulative distributions over the headline's calls: how many calls are at or
below each value. Means hide the bad calls; these do not."""
PROFILES_TEXT = """Share of calls that score above each threshold. A curve that lies above another
everywhere is better whatever one calls good enough."""
TYPES_TEXT = """The same calls by the kind of network."""
BANDWIDTH_TEXT = """The same calls by the mean capacity of their network."""
TIMELINES_TEXT = """{agent} and {reference} on the same call of seed {seed}, at the same scale.
Calls were chosen by rule: the best, the worst and the median difference in call score among
capacity-limited calls, and the median one of each network type."""
TRAINING_TEXT = """Validation is on networks that are neither trained nor tested on. Trainings of
the same configuration are taken together, whatever their seed."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the page is made from."""

    comparison: Path
    """folder of ``python -m experiments.compare``"""
    traces: Path | None = None
    """measured traces that the comparison was made on; synthetic networks without them"""
    runs: tuple[Path, ...] = ()
    ablations: Path | None = None
    robustness: Path | None = None
    timelines: bool = True
    num_threads: int = 2

    @property
    def command(self) -> str:
        """What was typed, with folders by their names."""
        words = ["python -m experiments.report results", _name(self.comparison)]
        for option, paths in (
            ("--traces", [self.traces]),
            ("--runs", self.runs),
            ("--ablations", [self.ablations]),
            ("--robustness", [self.robustness]),
        ):
            named = [_name(path) for path in paths if path is not None]
            words += [option, *named] if named else []
        return " ".join([*words, *([] if self.timelines else ["--no-timelines"])])


def _name(path: Path) -> str:
    """The last part of a path: where it lies is nobody's business."""
    return path.resolve().name


#: A section with the HTML of its figures.
Drawn = tuple[Section, Sequence[str]]


def write_page(sources: Sources, out: Path) -> Path:
    """Write the page, whole or not at all; the same bytes for the same sources.

    Args:
        out: the HTML file; its folder is made, an older file is replaced.

    Returns:
        `out`.

    Raises:
        ArtifactError, ConfigError: a source is missing or damaged.
    """
    results = read_results(sources.comparison)
    sections = [
        drawn
        for drawn in _sections(results, sources)
        if drawn[0].tables or drawn[1] or drawn[0].lines
    ]
    page = page_html(
        "Results", escape(results.comparison.title), sections, style=PLOT_STYLE + TIMELINE_STYLE
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, out)
    return out


def _sections(results: Results, sources: Sources) -> list[Drawn]:
    return [
        *_overall_sections(results),
        *_part_sections(results),
        *([_timeline_section(results, sources)] if sources.timelines else []),
        *([_training_section(sources.runs)] if sources.runs else []),
        *_folder_sections(sources),
        _made_section(results, sources),
    ]


def _overall_sections(results: Results) -> list[Drawn]:
    comparison = results.comparison
    names = {"reference": comparison.reference}
    overall = [subset for subset in comparison.subsets if not subset.by]
    headline = overall[0]
    summary = SUMMARY_TEXT + (f" {CONTESTED_TEXT}" if headline.calls == "contested" else "")
    summaries = [summary_table(results, subset) for subset in overall]
    differences = present([difference_table(results, subset) for subset in overall])
    chances = present([score_table(results, headline), run_table(results)])
    return [
        (_section("summary", "Summary", summary, summaries), ()),
        (
            _section("differences", "Differences", DIFFERENCES_TEXT.format(**names), differences),
            difference_figures(results, headline),
        ),
        (
            _section("chances", "How often better", CHANCES_TEXT.format(**names), chances),
            chance_figures(results, headline),
        ),
        (
            _section("distributions", "Distributions", DISTRIBUTIONS_TEXT),
            distribution_figures(results),
        ),
        (_section("profiles", "Performance profiles", PROFILES_TEXT), profile_figures(results)),
    ]


def _part_sections(results: Results) -> list[Drawn]:
    sections: list[Drawn] = []
    for by, title, text in (
        ("network_type", "Network types", TYPES_TEXT),
        ("bandwidth", "Bandwidth classes", BANDWIDTH_TEXT),
    ):
        if not parts_of(results, by):
            continue
        tables = present([part_table(results, by), agent_part_table(results, by)])
        tables += non_inferiority_tables(results) if by == "network_type" else []
        section = _section(by.replace("_", "-"), title, text, tables)
        sections.append((section, part_figures(results, by)))
    return sections


def _timeline_section(results: Results, sources: Sources) -> Drawn:
    chosen = chosen_calls(results)
    played = play(results, chosen, traces=sources.traces, num_threads=sources.num_threads)
    call = from_mapping(CallConfig, results.comparison.inputs["call"])
    text = TIMELINES_TEXT.format(
        agent=results.agent, reference=results.comparison.reference, seed=first_seed(results)
    )
    return _section("timelines", "Calls", text), timeline_figures(chosen, played, call)


def _training_section(runs: Sequence[Path]) -> Drawn:
    trainings = read_trainings(runs)
    section = _section("training", "Training", TRAINING_TEXT, [training_table(trainings)])
    return section, training_figures(trainings)


def _folder_sections(sources: Sources) -> list[Drawn]:
    sections: list[Drawn] = []
    for title, folder in (("Ablations", sources.ablations), ("Robustness", sources.robustness)):
        if folder is not None:
            content = read_folder(folder)
            section = _section(title.lower(), title, "", content.tables)
            sections.append((section, content.figures))
    return sections


def _made_section(results: Results, sources: Sources) -> Drawn:
    """How the page was made."""
    inputs = results.comparison.inputs
    networks = inputs.get("networks", {})
    runs = [
        f"{e.label}: {', '.join(run_name(run) for run in e.runs)}"
        for e in results.comparison.estimators
    ]
    lines = [
        f"Command: {sources.command}",
        f"Estimators: {'; '.join(runs)}",
        f"Seeds: {', '.join(map(str, inputs.get('seeds', ['unknown'])))}",
        f"Networks: {networks.get('count', 'unknown')}, digest {networks.get('digest', 'unknown')}",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in sorted(package_versions().items())),
        *(f"SHA-256 of {name}: {digest}" for name, digest in sorted(results.digests.items())),
        *results.comparison.notes,
    ]
    return Section(anchor="made", title="How this was made", lines=lines), ()


def _section(anchor: str, title: str, text: str, tables: Sequence[ReportTable] = ()) -> Section:
    return Section(anchor=anchor, title=title, text=text, tables=tables)

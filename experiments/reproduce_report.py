"""The published rows beside ours, with guards, the placebo, the rules and the headroom."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.metrics import FIELD_METRICS
from experiments.ab_blocks import read_calls, read_manifest
from experiments.ab_power import power_of
from experiments.ab_report import Report, report
from experiments.ab_statistics import NOT_COUNTED, Row
from experiments.ab_tables import change_text, guard_bound, p_text
from experiments.evaluation import Calls
from experiments.plan_trials import STUDIES, segment
from experiments.published_experiments import PublishedExperiment, experiment_of
from experiments.tables import make_table, show, write_csv

#: Roles of the arms.
CONTROL, TREATMENT, PLACEBO, RULES = "control", "treatment", "placebo", "rules"

#: What may be said of a row: whether it moved as published.
AS_PUBLISHED, AGAINST, NOT_SHOWN = "as published", "AGAINST", "NOT SHOWN"


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """One published experiment and what came of repeating it."""

    experiment: PublishedExperiment
    treatment: Report
    """against the control, as are all but `over_rules`"""
    placebo: Report
    rules: Report
    over_rules: Report
    """models against rules"""
    headroom: tuple[Report, ...]
    """of further arms"""
    detected: Mapping[str, float]
    """share of the treatment's calls by the network type that was detected at their end"""
    delivered: Mapping[str, int] = field(default_factory=dict)
    """the treatment's calls by the digest of what was delivered to them"""
    placebo_is_harmless: bool = True
    """whether the placebo's guards hold on all the calls that it was played on: those of this
    experiment and of others of the same plan. An arm that harms some calls is not rolled out for
    the sake of others"""

    placebo_is_harmful: bool = False
    """whether one of these guards fails: not merely undecided, as it is on few calls"""

    @property
    def placebo_is_open(self) -> bool:
        """Whether it gains, and only undecided guards keep it from winning: more calls may tell."""
        return self.placebo.gains and not self.placebo_is_harmless and not self.placebo_is_harmful

    @property
    def placebo_wins(self) -> bool:
        """Whether it is better than the control here, and harms nobody anywhere."""
        return self.placebo.gains and self.placebo_is_harmless

    def counted(self) -> Iterator[Row]:
        """Published rows that are evidence."""
        for row in self.treatment.rows:
            if row.change.metric.name not in NOT_COUNTED:
                yield row


def verdict(row: Row) -> str:
    """Whether a row moved as published, significantly."""
    return {"for": AS_PUBLISHED, "against": AGAINST, "": NOT_SHOWN}[row.moves]


def reason(row: Row) -> str:
    """Why a counted row is not shown to move as published; what else there is to know of it."""
    if not row.counts or not row.change.is_defined or row.moves:
        return row.change.note
    is_up = row.change.change_pct > 0.0
    needed = power_of(row.change).networks_needed
    if row.change.change_pct == 0.0:
        why = "does not move"
    elif is_up != (row.direction == "higher"):
        why = "moves the other way, by chance or not"
    elif math.isfinite(needed):
        # For one row by itself: Holm takes more (experiments.ab_power).
        why = f"so small a change takes {needed:,.0f} networks or more to show"
    else:
        why = "how many networks it takes to show is unknown"
    return "; ".join(filter(None, (why, row.change.note)))


def reproduced(folder: Path, experiment: PublishedExperiment, *, split: str) -> Reproduced:
    """Compare the arms of a finished test.

    Raises:
        ArtifactError: it is not finished.
    """
    inputs = read_manifest(folder)["inputs"]
    networks = experiment.networks(split, inputs["networks"]["count"])
    of_segment = {
        network.name
        for network, is_in in zip(networks, segment(experiment, networks), strict=True)
        if is_in
    }
    names = {role: arm["name"] for role, arm in inputs["arms"].items()}
    arms = {role: _rows(calls, of_segment) for role, calls in read_calls(folder).items()}

    def against(role: str, other: str = CONTROL) -> Report:
        return report(
            arms[other],
            arms[role],
            names=(names[other], names[role]),
            metrics=tuple(FIELD_METRICS[name] for name in experiment.rows),
            directions={name: row.direction for name, row in experiment.rows.items()},
        )

    known = {CONTROL, TREATMENT, PLACEBO, RULES}
    types = _counts(arms[TREATMENT]["detected_type"])
    return Reproduced(
        experiment=experiment,
        treatment=against(TREATMENT),
        placebo=against(PLACEBO),
        rules=against(RULES),
        over_rules=against(TREATMENT, RULES),
        headroom=tuple(against(role) for role in arms if role not in known),
        detected={name or "none": count / sum(types.values()) for name, count in types.items()},
        delivered=_counts(arms[TREATMENT]["configuration"]),
    )


def _counts(column: NDArray[Any]) -> dict[str, int]:
    """How often each value is there."""
    values, counts = np.unique(column, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _rows(calls: Calls, networks: Collection[str]) -> dict[str, Any]:
    """The calls on some networks."""
    is_in = np.array([name in networks for name in calls["network"].tolist()])
    return {name: column[is_in] for name, column in calls.items()}


def report_all(out: Path, plans: Sequence[str], *, split: str) -> list[Reproduced]:
    """Print and write everything about the tests of these plans."""
    found: list[Reproduced] = []
    for plan in plans:
        its = [
            reproduced(out / plan, experiment_of(n), split=split) for n in STUDIES[plan].experiments
        ]
        harmless = all(one.placebo.harmless for one in its)
        harmful = any(guard.state == "fails" for one in its for guard in one.placebo.guards)
        found += [
            dataclasses.replace(one, placebo_is_harmless=harmless, placebo_is_harmful=harmful)
            for one in its
        ]
    show(*tables(found), file=out / "results.txt")
    write_csv(out / "results.csv", result_columns(found))
    return found


# --- Tables ---------------------------------------------------------------------------------------


def tables(found: Sequence[Reproduced]) -> list[Any]:
    """Everything that is printed, top to bottom."""
    shown: list[Any] = []
    for its in found:
        shown += [_rows_table(its), "", _arms_table(its), "", *_sentences(its), ""]
    return [*shown, conclusion(found)]


def _rows_table(its: Reproduced) -> Any:
    lines = []
    for row in its.treatment.rows:
        name = row.change.metric.name
        counts = name not in NOT_COUNTED
        lines.append(
            [
                name,
                change_text(its.experiment.rows[name]),
                change_text(row.change),
                p_text(row.p_holm) if counts else "not counted",
                verdict(row) if counts else "reported",
                reason(row),
            ]
        )
    experiment = its.experiment
    return make_table(
        f"{experiment.title}: {its.treatment.calls} calls per arm, {experiment.population}",
        ["metric", "published %", "ours % [95 %]", "p (Holm)", "verdict", "note"],
        lines,
        caption=(
            "relative change from GCC (libwebrtc M150) to GCC targeted by models; 'as published': "
            "moves in the published direction with a Holm-adjusted p < 0.05"
        ),
    )


def _arms_table(its: Reproduced) -> Any:
    """Every arm against the control, and models against rules: rows, guards, whether it wins."""
    reports = [its.treatment, its.placebo, its.rules, *its.headroom, its.over_rules]
    header = ["", *(f"{r.treatment} / {r.control}" for r in reports)]
    lines = []
    for position, row in enumerate(its.treatment.rows):
        cells = [change_text(r.rows[position].change) + _star(r.rows[position]) for r in reports]
        lines.append([row.change.metric.name, *cells])
    for position, guard in enumerate(its.treatment.guards):
        cells = []
        for r in reports:
            its_guard = r.guards[position]
            cells.append(f"{its_guard.state} ({guard_bound(its_guard)})")
        lines.append([f"guard: {guard.name}", *cells])
    lines.append(["wins", *("yes" if r.wins else "no" for r in reports)])
    return make_table("all arms, relative change in % [95 %]", header, lines)


def _star(row: Row) -> str:
    return " *" if row.is_significant else ""


def _sentences(its: Reproduced) -> list[str]:
    placebo = "does not win, as wanted"
    if its.placebo_wins:
        placebo = "WINS, so the gain is no evidence"
    elif its.placebo_is_open:
        placebo = "GAINS, and guards that are undecided alone keep it from winning"
    lines = [f"The placebo {placebo}. {its.placebo.verdict}"]
    better = [r.change.metric.name for r in its.over_rules.rows if r.moves == "for"]
    worse = [r.change.metric.name for r in its.over_rules.rows if r.moves == "against"]
    lines.append(
        f"Models against hand-tuned rules on the same plan: better in {', '.join(better) or 'none'}"
        f"; worse in {', '.join(worse) or 'none'} of {len(its.over_rules.rows)} rows."
    )
    ways = ", ".join(f"{name[:12]} in {count} calls" for name, count in its.delivered.items())
    lines.append(f"Configuration of the treatment, as delivered at set-up: {ways or 'unknown'}.")
    if set(its.detected) != {"none"}:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in its.detected.items())
        lines.append(f"Detected type at the end of the call: {shares}.")
    return lines


def conclusion(found: Sequence[Reproduced]) -> str:
    """How many rows came out as published."""
    verdicts = [verdict(row) for its in found for row in its.counted()]
    broken = [
        f"{its.experiment.name}: {guard.name} {guard.state}"
        for its in found
        for guard in its.treatment.guards
        if guard.state != "holds"
    ]
    placebos = [its.experiment.name for its in found if its.placebo_wins]
    doubtful = [its.experiment.name for its in found if its.placebo_is_open]
    return (
        f"{verdicts.count(AS_PUBLISHED)} of {len(verdicts)} counted rows move as published, "
        f"{verdicts.count(AGAINST)} significantly against it, {verdicts.count(NOT_SHOWN)} not "
        f"shown. Guards that do not hold: {'; '.join(broken) or 'none'}. Placebos that win: "
        f"{', '.join(placebos) or 'none'}. Placebos that gain and are kept from winning by "
        f"undecided guards alone: {', '.join(doubtful) or 'none'}."
    )


def result_columns(found: Sequence[Reproduced]) -> dict[str, list[object]]:
    """One line per experiment, comparison and row."""
    columns: dict[str, list[object]] = {}
    for its in found:
        for r in (its.treatment, its.placebo, its.rules, *its.headroom, its.over_rules):
            for row in r.rows:
                name = row.change.metric.name
                published = its.experiment.rows[name]
                line = {
                    "experiment": its.experiment.name,
                    "arm": r.treatment,
                    "against": r.control,
                    "metric": name,
                    "published_pct": published.change_pct,
                    "change_pct": row.change.change_pct,
                    "low_pct": row.change.low_pct,
                    "high_pct": row.change.high_pct,
                    "p_value": row.change.p_value,
                    "p_holm": row.p_holm if math.isfinite(row.p_holm) else "",
                    "moves": row.moves,
                    "calls": r.calls,
                    "networks": r.networks,
                }
                for key, value in line.items():
                    columns.setdefault(key, []).append(value)
    return columns

"""Play a suite of published test cases, and tell which of their criteria were met.

Not meeting a criterion is a result, not an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bwe_env.config import CallConfig
from bwe_env.rfc8867 import MAX_JITTER_S, MAX_MEDIA_BPS, MIN_MEDIA_BPS, PublishedCase
from bwe_env.rollout import CallSeries, run_series
from bwe_env.units import bps_to_kbps, s_to_ms
from experiments.contenders import Contender
from experiments.evaluation import Setting
from experiments.rfc8867_criteria import Criterion, criteria
from experiments.tables import make_table


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One criterion of one case, measured."""

    case: PublishedCase
    criterion: Criterion
    values: tuple[float, ...]
    """one per call"""

    @property
    def measured(self) -> float:
        """The median call; NaN when a call has no value."""
        return float(np.median(self.values))

    @property
    def is_met(self) -> bool:
        """Whether the median call meets it."""
        return self.criterion.is_met(self.measured)


def judge(
    case: PublishedCase, calls: Sequence[CallSeries], reference: Sequence[CallSeries] = ()
) -> list[Verdict]:
    """Every criterion of a case over its calls; see `criteria`."""
    return [
        Verdict(
            case=case,
            criterion=criterion,
            values=tuple(criterion.measure(series) for series in calls),
        )
        for criterion in criteria(case, reference)
    ]


def play(
    cases: Sequence[PublishedCase],
    contender: Contender,
    setting: Setting,
    *,
    progress: Callable[[int], None] | None = None,
) -> list[Verdict]:
    """Run and judge all cases; every media flow is under the same controller, as the RFC has it.

    Args:
        setting: of its call only the range of rates and the interval of decisions count; the rest
            is the case's.
    """

    def run(case: PublishedCase) -> list[CallSeries]:
        return run_series(
            case.network,
            contender.controller,
            backward=case.backward,
            call=fit_call(case.call, setting.call),
            seeds=setting.seeds,
            reward=setting.reward,
            observation=contender.observation,
            gcc=contender.gcc,
            network_models=contender.network_models,
            competitor=contender.competitor,
            num_threads=setting.num_threads,
        )

    verdicts = []
    for case in cases:
        reference = run(case.unimpaired()) if case.backward is not None else ()
        verdicts.extend(judge(case, run(case), reference))
        if progress is not None:
            progress(1)
    return verdicts


def fit_call(wanted: CallConfig, known: CallConfig) -> CallConfig:
    """The call of a case in the range of rates that a controller was made for.

    Where that is wider than the case's media, the application limits the video instead.
    """
    video = wanted.video
    if known.max_rate_bps > MAX_MEDIA_BPS:
        video = replace(video, app_max_rate_bps=MAX_MEDIA_BPS)
    return replace(
        wanted,
        min_rate_bps=known.min_rate_bps,
        start_rate_bps=known.start_rate_bps,
        max_rate_bps=known.max_rate_bps,
        interval_s=known.interval_s,
        video=video,
    )


def told_media(known: CallConfig) -> str:
    """What all cases have in common; `known` is as for `fit_call`."""
    rates = f"media {bps_to_kbps(MIN_MEDIA_BPS):g} to {bps_to_kbps(MAX_MEDIA_BPS):g} kbps per flow"
    if known.max_rate_bps > MAX_MEDIA_BPS:
        rates = (
            f"video at most {bps_to_kbps(MAX_MEDIA_BPS):g} kbps per flow, target rates "
            f"{bps_to_kbps(known.min_rate_bps):g} to {bps_to_kbps(known.max_rate_bps):g} kbps as "
            "the policy was trained for"
        )
    return f"{rates}; jitter within {s_to_ms(MAX_JITTER_S):g} ms, tail drop, no other loss"


def report(
    cases: Sequence[PublishedCase], verdicts: Sequence[Verdict], contender: Contender
) -> list[Any]:
    """A table per case, and a last line that counts."""
    items: list[Any] = []
    for case in cases:
        title = f"{case.section} {case.title} ({case.name})\n{case.parameters}"
        notes = case.departures
        rows = verdict_rows([v for v in verdicts if v.case is case])
        caption = f"departs from the RFC: {'; '.join(notes)}" if notes else ""
        items.append(make_table(title, VERDICT_HEADER, rows, caption=caption))
    met = sum(verdict.is_met for verdict in verdicts)
    items.append(f"{contender.label}: {met} of {len(verdicts)} criteria met")
    return items


def verdict_rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """Cells of the table, with the header of `VERDICT_HEADER`."""
    return [
        [
            verdict.criterion.statement,
            verdict.criterion.source,
            _told(verdict),
            "met" if verdict.is_met else "NOT MET",
        ]
        for verdict in verdicts
    ]


VERDICT_HEADER = ("criterion", "number", "measured (range)", "verdict")


def _told(verdict: Verdict) -> str:
    digits, unit = verdict.criterion.digits, verdict.criterion.unit

    def told(value: float) -> str:
        return "never" if math.isinf(value) else f"{value:.{digits}f}"

    if math.isnan(verdict.measured):
        return "nothing to measure"
    if math.isinf(verdict.measured):
        unit = ""
    span = f"({told(min(verdict.values))} to {told(max(verdict.values))})"
    return " ".join(filter(None, (told(verdict.measured), unit, span)))


def columns(verdicts: Sequence[Verdict]) -> dict[str, list[Any]]:
    """One row per criterion and call, for a CSV file."""
    rows = [
        (v.case.name, v.criterion.statement, v.criterion.source, index, value, v.criterion.unit)
        for v in verdicts
        for index, value in enumerate(v.values)
    ]
    names = ("case", "criterion", "number", "call", "value", "unit")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}

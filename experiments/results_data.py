"""What a page of results is made from: a folder of ``python -m experiments.compare``, read once."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ArtifactError
from experiments.compare_results import COMPARISON_FILE, ComparedMetric, Comparison, read_comparison
from experiments.evaluation import Calls, select
from experiments.svg import NUM_COLORS, NUM_SERIES

CALLS_FILE = "calls.csv"
#: Columns of words; all others are numbers.
_WORDS = ("estimator", "run", "network", "network_type", "path")
#: How flags are written, as numbers.
_FLAGS = {"False": "0", "True": "1"}


@dataclass(frozen=True, kw_only=True)
class Results:
    """A comparison with the calls behind it."""

    comparison: Comparison
    calls: Calls
    """columns of calls.csv, one row per call, estimator and run"""
    digests: Mapping[str, str]
    """SHA-256 of each file that was read, by its name"""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Estimators, in the order of the comparison."""
        return tuple(estimator.label for estimator in self.comparison.estimators)

    @cached_property
    def agent(self) -> str | None:
        """The learned estimator that the page is about; None where nothing was learned.

        It is the first that was trained (its runs are folders, or the delivered ``ppo``), and
        without one the first that is neither the reference nor an oracle.
        """
        candidates = [
            estimator
            for estimator in self.comparison.estimators
            if estimator.label != self.comparison.reference and not self.is_oracle(estimator.label)
        ]
        learned = [e for e in candidates if any("/" in run or run == "ppo" for run in e.runs)]
        return next((estimator.label for estimator in (*learned, *candidates)), None)

    def is_oracle(self, label: str) -> bool:
        """Whether an estimator knows what none can know."""
        runs = next(e.runs for e in self.comparison.estimators if e.label == label)
        return label == self.comparison.oracle or any(run.startswith("oracle") for run in runs)

    @cached_property
    def series(self) -> dict[str, str]:
        """Classes of each estimator's lines: the agent's and the reference's stand out."""
        main = [label for label in (self.agent, self.comparison.reference) if label is not None]
        series = {label: f"s{i} main" for i, label in enumerate(main)}
        others = [label for label in self.labels if label not in series]
        # Theirs are the first two of each round of colours, and nobody else's.
        rest = [i for i in range(NUM_SERIES) if i % NUM_COLORS >= len(main)]
        return series | {label: f"s{rest[i % len(rest)]}" for i, label in enumerate(others)}

    def of(self, label: str) -> Calls:
        """The calls of one estimator."""
        return select(self.calls, self.calls["estimator"] == label)

    def headline(self, label: str) -> Calls:
        """The calls of one estimator that the headline is about, as the reference's calls tell."""
        calls, reference = self.of(label), self.of(self.comparison.reference)
        if self.comparison.subsets[0].calls != "contested":
            return calls
        contested = select(reference, reference["contested"] > 0)
        keys = set(zip(contested["network"].tolist(), contested["seed"].tolist(), strict=True))
        own = zip(calls["network"].tolist(), calls["seed"].tolist(), strict=True)
        return select(calls, np.array([key in keys for key in own], dtype=bool))

    def metric(self, name: str) -> ComparedMetric:
        """The compared metric of that name."""
        return next(metric for metric in self.comparison.metrics if metric.name == name)


def read_results(directory: Path) -> Results:
    """Read ``compare.json`` and ``calls.csv``.

    Raises:
        ArtifactError: one of them is missing or damaged.
    """
    comparison = read_comparison(directory)
    calls = _read_calls(directory / CALLS_FILE)
    known = {estimator.label for estimator in comparison.estimators}
    strangers = set(calls["estimator"].tolist()) - known
    if strangers:
        raise ArtifactError(
            f"{directory / CALLS_FILE} has calls of {', '.join(sorted(strangers))}, "
            f"{COMPARISON_FILE} has not: they belong to two comparisons. Run the comparison again."
        )
    files = (COMPARISON_FILE, CALLS_FILE)
    digests = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in files}
    return Results(comparison=comparison, calls=calls, digests=digests)


def _read_calls(path: Path) -> dict[str, NDArray[Any]]:
    rows = read_rows(path)
    missing = {*_WORDS, "seed", "contested", "call_score", "mean_target_bps"} - set(rows)
    if missing:
        raise ArtifactError(
            f"{path} lacks the columns {', '.join(sorted(missing))}. Run the comparison again."
        )
    try:
        return {
            name: np.array(cells)
            if name in _WORDS
            else np.array([_FLAGS.get(cell, cell) for cell in cells], dtype=np.float64)
            for name, cells in rows.items()
        }
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: {error}. Run the comparison again.") from error


def read_rows(path: Path) -> dict[str, list[str]]:
    """A CSV file as equally long columns of text; an empty cell of a number is ``nan``.

    Raises:
        ArtifactError: it cannot be read, or its rows are not of one length.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
        return {
            name: [cell if cell or name in _WORDS else "nan" for cell in column]
            for name, column in zip(header, columns, strict=True)
        }
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is no table: {error}. Write it again.") from error

"""Several controllers on the same calls: one table, one CSV of all calls, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bwe_env.network import Network
from experiments.contenders import Contender
from experiments.evaluation import (
    SHOWN,
    Calls,
    Setting,
    difference,
    interval,
    run,
    with_range,
)
from experiments.tables import make_table, show, write_csv


def compare(
    contenders: Sequence[Contender],
    networks: Sequence[Network],
    setting: Setting,
    *,
    directory: Path,
    title: str,
) -> dict[str, Calls]:
    """Play every call with every contender; print the table and write it into `directory`.

    Writes ``test_calls.csv`` (one row per call and controller), ``results.csv`` (one row per
    controller and metric, with intervals) and ``results.txt`` (the table as printed).

    Args:
        contenders: the first is the one whose differences to the others are taken.
    """
    results = {c.label: run(c, networks, setting) for c in contenders}
    write_csv(directory / "test_calls.csv", _all_calls(results))
    write_csv(directory / "results.csv", _result_columns(results))
    show(*_tables(results, title), file=directory / "results.txt")
    return results


def _all_calls(results: dict[str, Calls]) -> dict[str, np.ndarray]:
    first = next(iter(results.values()))
    labels = [np.repeat(label, len(calls["network"])) for label, calls in results.items()]
    columns = {"controller": np.concatenate(labels)}
    for name in first:
        columns[name] = np.concatenate([calls[name] for calls in results.values()])
    return columns


def _tables(results: dict[str, Calls], title: str) -> list[object]:
    headers = [shown.header for shown in SHOWN]
    means = [
        [label, *(with_range(interval(calls, shown), shown.digits) for shown in SHOWN)]
        for label, calls in results.items()
    ]
    first, *others = results
    differences = []
    for other in others:
        cells = []
        for shown in SHOWN:
            value = difference(results[first], results[other], shown)
            cells.append(value.text(shown.digits) + (" *" if value.excludes_zero else ""))
        differences.append([f"{first} - {other}", *cells])
    return [
        make_table(title, ["controller", *headers], means),
        make_table(
            "paired difference on the same calls (* the interval excludes 0)",
            ["difference", *headers],
            differences,
        ),
    ]


def _result_columns(results: dict[str, Calls]) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {
        name: [] for name in ("controller", "minus", "metric", "mean", "low", "high", "networks")
    }
    first, *others = results
    pairs = [(label, None) for label in results] + [(first, other) for other in others]
    for label, other in pairs:
        for shown in SHOWN:
            if other is None:
                value = interval(results[label], shown)
            else:
                value = difference(results[label], results[other], shown)
            row = (label, other or "", shown.header, value.mean, value.low, value.high)
            for name, cell in zip(columns, (*row, value.networks), strict=True):
                columns[name].append(cell)
    return columns

"""Published changes of an A/B test, to stand beside those measured here.

A CSV file with the header ``metric,change_pct,low_pct,high_pct``: a name of
`bwe_env.metrics.FIELD_METRICS`, the relative change in percent, and the ends of its 95 % interval
(both empty where none was published).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.metrics import FIELD_METRICS, Better

HEADER = ("metric", "change_pct", "low_pct", "high_pct")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published change, percent."""

    change_pct: float
    low_pct: float = math.nan
    """NaN where no interval was published"""
    high_pct: float = math.nan

    @property
    def direction(self) -> Better:
        """Where the metric moved."""
        if self.change_pct == 0.0:
            return "neither"
        return "higher" if self.change_pct > 0.0 else "lower"


def read_published(path: Path) -> dict[str, Published]:
    """The published changes of a file, by metric.

    Raises:
        ConfigError: no such file, or a line that means nothing.
        UnknownNameError: a metric that nobody defined.
    """
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
            header = tuple(reader.fieldnames or ())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    if header != HEADER:
        raise ConfigError(
            f"{path}: expected the header {','.join(HEADER)}, got {','.join(header)}."
        )
    published: dict[str, Published] = {}
    for number, line in enumerate(lines, start=2):
        if line["metric"] not in FIELD_METRICS:
            raise unknown_name(f"metric in {path}:{number}", line["metric"], FIELD_METRICS)
        if line["metric"] in published:
            raise ConfigError(f"{path}:{number}: {line['metric']} is there twice; give it once.")
        published[line["metric"]] = _published(path, number, line)
    return published


def _published(path: Path, number: int, line: Mapping[str, str | None]) -> Published:
    try:
        values = [float(line[name] or "nan") for name in HEADER[1:]]
    except (TypeError, ValueError):
        values = [math.nan] * 3
    change, low, high = values
    has_interval = not math.isnan(low) and not math.isnan(high)
    is_without = math.isnan(low) and math.isnan(high)
    if not math.isfinite(change) or not (is_without or (has_interval and low <= change <= high)):
        raise ConfigError(
            f"{path}:{number}: expected numbers with low_pct <= change_pct <= high_pct, or both "
            f"ends empty; got {', '.join(str(line[name]) for name in HEADER[1:])}."
        )
    return Published(change_pct=change, low_pct=low, high_pct=high)


def directions(
    published: Mapping[str, Published], declared: Iterable[str] = ()
) -> dict[str, Better]:
    """Where an arm is expected to move each metric, as far as that is not plain.

    A declaration decides. Without one, the direction that is better for the user does, whatever was
    published; the published one is taken for metrics that are neither better nor worse by nature.

    Args:
        declared: each ``METRIC=higher``, ``=lower`` or ``=neither``.

    Raises:
        ConfigError: a declaration of another form.
        UnknownNameError: a metric that nobody defined.
    """
    found: dict[str, Better] = {
        name: change.direction
        for name, change in published.items()
        if FIELD_METRICS[name].better == "neither"
    }
    options: dict[str, Better] = {"higher": "higher", "lower": "lower", "neither": "neither"}
    for text in declared:
        name, _, direction = text.partition("=")
        if direction not in options:
            raise ConfigError(f"--declare {text!r} must read METRIC=higher, =lower or =neither.")
        if name not in FIELD_METRICS:
            raise unknown_name("metric", name, FIELD_METRICS)
        found[name] = options[direction]
    return found

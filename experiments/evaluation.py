"""Running controllers on networks, and what the resulting tables of calls say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.competition import Competitor
from bwe_env.config import CallConfig
from bwe_env.metrics import FIELD_METRICS, FieldMetric
from bwe_env.network import Network
from bwe_env.render import TIMELINE_COLUMNS, Timeline
from bwe_env.reward import RewardConfig
from bwe_env.rollout import record_calls, run_calls
from experiments.contenders import Contender
from experiments.stats import (
    Interval,
    mean_interval,
    paired_difference,
    per_network,
    ratio_interval,
)

Calls = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all controllers of a comparison share."""

    call: CallConfig = field(default_factory=CallConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    seeds: tuple[int, ...] = (0, 1, 2)
    """every network meets each of them once per controller"""
    num_threads: int = 1
    """results do not depend on it"""


def run(
    contender: Contender,
    networks: Sequence[Network],
    setting: Setting,
    *,
    progress: Callable[[int], None] | None = None,
    on_call: Callable[[NDArray[Any]], None] | None = None,
) -> Calls:
    """One row per network and seed, as columns (see `bwe_env.metrics.CALL_COLUMNS`).

    Args:
        progress: called with the number of calls that have just been finished.
        on_call: called with the STEP rows of each call, in the order of the result.
    """
    return run_calls(
        networks,
        contender.controller,
        call=setting.call,
        seeds=setting.seeds,
        reward=setting.reward,
        observation=contender.observation,
        gcc=contender.gcc,
        network_models=contender.network_models,
        # Of the others in the queue, the same for all contenders: GCC as it comes.
        competitor=Competitor() if any(n.competing_calls for n in networks) else None,
        num_threads=setting.num_threads,
        progress=progress,
        on_call=on_call,
    )


def timeline(contender: Contender, network: Network, setting: Setting) -> Timeline:
    """The call of `run` on this network with the first seed, interval by interval."""
    (played,) = record_calls(
        [network],
        contender.controller,
        call=setting.call,
        seeds=setting.seeds[:1],
        reward=setting.reward,
        observation=contender.observation,
        gcc=contender.gcc,
        network_models=contender.network_models,
    )
    return timeline_of(played.steps, network, setting)


def timeline_of(steps: NDArray[Any], network: Network, setting: Setting) -> Timeline:
    """A call that has been played, for a picture.

    Args:
        steps: its STEP rows.
        network: it was played on.
        setting: it was played in.
    """
    picture = Timeline(
        network.name,
        network_type=network.network_type,
        duration_s=setting.call.duration_s,
        max_rate_bps=setting.call.max_rate_bps,
    )
    for row in steps:
        picture.append({name: float(row[name]) for name in TIMELINE_COLUMNS})
    return picture


def best_contender(
    contenders: Iterable[Contender], networks: Sequence[Network], setting: Setting
) -> Contender:
    """The one with the highest mean reward over `networks` (validation ones, that is)."""
    return max(contenders, key=lambda c: float(np.mean(run(c, networks, setting)["mean_reward"])))


# --- What tables show -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A column of calls as people read it."""

    column: str
    header: str
    factor: float = 1.0
    digits: int = 2


#: What every table of results shows, in this order.
SHOWN = (
    Shown(column="mean_reward", header="reward/s", digits=3),
    Shown(column="call_score", header="call score", digits=2),
    Shown(column="freeze_ratio", header="freeze %", factor=100.0, digits=2),
    Shown(column="one_way_delay_ms_p95", header="delay p95 ms", digits=0),
    Shown(column="utilisation", header="utilisation %", factor=100.0, digits=1),
)


def select(calls: Calls, rows: NDArray[np.bool_]) -> Calls:
    """The calls for which `rows` is true."""
    return {name: column[rows] for name, column in calls.items()}


def interval(calls: Calls, shown: Shown) -> Interval:
    """Mean over networks of a shown column, in the unit people read."""
    table = per_network(calls["network"], calls["network_type"], calls[shown.column])
    return mean_interval(table.values * shown.factor, table.types)


def difference(first: Calls, second: Calls, shown: Shown) -> Interval:
    """Mean over networks of ``first - second`` of a shown column, paired."""
    tables = [
        per_network(calls["network"], calls["network_type"], calls[shown.column])
        for calls in (first, second)
    ]
    scaled = [dataclasses.replace(t, values=t.values * shown.factor) for t in tables]
    return paired_difference(*scaled)


def with_range(value: Interval, digits: int) -> str:
    """``mean [low, high]`` without signs."""
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def summary_rows(calls: Calls) -> list[list[str]]:
    """One row per network type and one for all, with the header of `summary_header`."""
    types = sorted(set(calls["network_type"].tolist()))
    rows = [_summary_row(name, select(calls, calls["network_type"] == name)) for name in types]
    if len(types) > 1:
        rows.append(_summary_row("all", calls))
    return rows


def summary_header() -> list[str]:
    """Names of the columns of `summary_rows`."""
    return ["network type", "networks", "calls", *(s.header for s in SHOWN), "dropped"]


def _summary_row(name: str, calls: Calls) -> list[str]:
    cells = [with_range(interval(calls, shown), shown.digits) for shown in SHOWN]
    networks = len(set(calls["network"].tolist()))
    count = len(calls["network"])
    return [name, str(networks), str(count), *cells, str(int(np.sum(calls["dropped"])))]


def call_row(name: str, calls: Calls) -> list[str]:
    """Means and ranges over calls on one network, with the header of `call_header`."""
    cells = []
    for shown in SHOWN:
        values = shown.factor * calls[shown.column]
        low, mean, high = (
            f"{v:.{shown.digits}f}" for v in (min(values), values.mean(), max(values))
        )
        cells.append(mean if low == high else f"{mean} ({low} to {high})")
    return [name, str(len(calls["network"])), *cells, str(int(np.sum(calls["dropped"])))]


def call_header() -> list[str]:
    """Names of the columns of `call_row`."""
    return ["scenario", "calls", *(s.header for s in SHOWN), "dropped"]


def field_interval(calls: Calls, metric: FieldMetric) -> Interval | None:
    """A metric by its field's name over networks; None where no call has it."""
    keys = calls["network"], calls["network_type"]
    column = per_network(*keys, calls[metric.column])
    values = column.values * metric.factor
    if not np.isfinite(values).any():
        return None
    if metric.per is None:
        return mean_interval(values, column.types)
    per = per_network(*keys, calls[metric.per])
    if not np.nansum(per.values) > 0.0:
        return None
    return ratio_interval(values, per.values, column.types)


def field_rows(calls: Calls) -> list[list[str]]:
    """One row per metric of `bwe_env.metrics.FIELD_METRICS`, with the header of `field_header`."""
    rows = []
    for metric in FIELD_METRICS.values():
        value = field_interval(calls, metric)
        text = "-" if value is None else with_range(value, 2)
        rows.append([metric.name, metric.unit, metric.better, text])
    return rows


def field_header() -> list[str]:
    """Names of the columns of `field_rows`."""
    return ["metric", "unit", "better", "mean"]

"""Two in one queue: a controller with its like, with GCC, and with TCP.

    python -m experiments.compete --estimator PPO=runs/ppo-001 --out DIR
    python -m experiments.compete --estimator gcc --out DIR

The first call has a link for itself for 30 s; then somebody joins it: a call under the same
controller, one under GCC (and the other way round), or a CUBIC or Reno flow. Every game is compared
with the one in which GCC plays the estimator's part, on the same links with the same seeds. What is
measured, and whose numbers the limits are: `experiments.compete_measures`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from experiments.cli import run_command
from experiments.compete_games import Game, bottlenecks, games, play
from experiments.compete_measures import (
    DURATION_S,
    JOIN_S,
    MAX_RTT_GROWTH,
    MAX_THROUGHPUT_RATIO,
    MEASURES,
    SETTLED_S,
)
from experiments.contenders import baseline, find_contender
from experiments.evaluation import Setting
from experiments.stats import Interval, PerNetwork, paired_difference, per_network
from experiments.tables import make_table, refuse_existing, show, write_csv

#: Files in the folder of --out.
GAMES_CSV, DIFFERENCES_CSV, TABLES = "games.csv", "differences.csv", "tables.txt"


@dataclass(frozen=True, kw_only=True)
class CompeteConfig:
    """Let a controller share a queue with itself, with GCC and with TCP."""

    estimator: str
    """a baseline, ppo, or a run directory; LABEL=NAME names it in tables"""
    out: Path
    """folder for games.csv (one row per game, link and seed), differences.csv and tables.txt"""
    seeds: int = 3
    """calls per game and link, with the seeds 0, 1, …"""
    max_rate_bps: int = 6_000_000
    """highest target rate of a call"""
    links: int = 0
    """only the first so many of the grid, for a quick look; 0 for all"""
    overwrite: bool = False
    """replace the files of --out if they exist"""
    num_threads: int = 2
    """threads of the simulator; results do not depend on it"""

    def __post_init__(self) -> None:
        for name in ("seeds", "num_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.links < 0:
            raise ConfigError(f"links={self.links} must be at least 0.")


def compete(config: CompeteConfig) -> int:
    """Run the command; returns its exit code."""
    started_s = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    for name in (GAMES_CSV, DIFFERENCES_CSV, TABLES):
        refuse_existing(config.out / name, overwrite=config.overwrite)
    call = CallConfig(duration_s=DURATION_S, max_rate_bps=config.max_rate_bps)
    label, _, name = config.estimator.rpartition("=")
    estimator = find_contender(name, call, label=label or None)
    gcc = baseline("gcc", call)
    pairs = games(estimator, gcc)
    columns = _play_all([game for game, _ in pairs], config, call)
    compared = differences(columns, pairs)
    write_csv(config.out / GAMES_CSV, columns)
    write_csv(config.out / DIFFERENCES_CSV, difference_columns(compared))
    show(*tables(columns, pairs, compared, config), file=config.out / TABLES)
    seconds = time.monotonic() - started_s
    print(f"{len(columns['seed'])} calls in {seconds:.1f} s; all of them in {config.out}")
    return 0


def _play_all(
    played: Sequence[Game], config: CompeteConfig, call: CallConfig
) -> dict[str, NDArray[Any]]:
    from tqdm import tqdm

    links = bottlenecks()[: config.links or None]
    seeds = tuple(range(config.seeds))
    setting = Setting(call=call, seeds=seeds, num_threads=config.num_threads)
    total = len(played) * len(links) * len(seeds)
    rows: list[dict[str, Any]] = []
    with tqdm(total=total, unit="call", disable=None, leave=False) as bar:
        for game in played:
            rows.extend(play(game, links, setting, progress=bar.update))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# --- What the table of games says -----------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A measure of a game less that of the game it is compared to."""

    game: str
    reference: str
    measure: str
    interval: Interval


def of_game(columns: Mapping[str, NDArray[Any]], game: str, measure: str) -> PerNetwork:
    """A measure on each link, averaged over seeds."""
    rows = columns["game"] == game
    links = columns["link"][rows]
    return per_network(links, np.full(len(links), "link"), columns[measure][rows])


def differences(
    columns: Mapping[str, NDArray[Any]], pairs: Sequence[tuple[Game, Game]]
) -> list[Difference]:
    """Every game against its reference, paired by link; measures that either lacks are left out."""
    found = []
    for game, reference in pairs:
        if game.name == reference.name:
            continue
        for name in MEASURES:
            sides = [of_game(columns, g.name, name) for g in (game, reference)]
            if np.isfinite(sides[0].values - sides[1].values).any():
                found.append(Difference(game.name, reference.name, name, paired_difference(*sides)))
    return found


def difference_columns(compared: Sequence[Difference]) -> dict[str, list[Any]]:
    """One row per game and measure, for a CSV file."""
    return {
        "game": [d.game for d in compared],
        "reference": [d.reference for d in compared],
        "measure": [d.measure for d in compared],
        "mean": [d.interval.mean for d in compared],
        "low": [d.interval.low for d in compared],
        "high": [d.interval.high for d in compared],
        "links": [d.interval.networks for d in compared],
    }


@dataclass(frozen=True)
class _Shown:
    header: str
    measures: tuple[str, ...]
    """written behind each other"""
    digits: int = 2
    factor: float = 1.0


_SHOWN = (
    _Shown("Jain", ("jain_index",)),
    _Shown("fair share % first / second", ("first_share", "second_share"), 0, 100.0),
    _Shown("starved first / second", ("first_starved", "second_starved"), 2),
    _Shown("use %", ("utilisation",), 0, 100.0),
    _Shown("join s", ("join_s",), 1),
    _Shown("never joins %", ("never_joined",), 0, 100.0),
    _Shown("queue p95 ms", ("queue_delay_ms_p95",), 0),
    _Shown("RTT grows", ("rtt_growth",), 1),
    _Shown("score first / second", ("first_score", "second_score"), 2),
)


def tables(
    columns: Mapping[str, NDArray[Any]],
    pairs: Sequence[tuple[Game, Game]],
    compared: Sequence[Difference],
    config: CompeteConfig,
) -> list[Any]:
    """Means of every game, the worst that happened, and the differences to GCC."""
    number = len(set(columns["link"].tolist()))
    title = (
        f"{config.estimator}: the second joins at {JOIN_S:g} s; means over {number} links, "
        f"{config.seeds} calls each, of {SETTLED_S:g} to {DURATION_S:g} s"
    )
    caption = (
        "fair share: max-min; starved: spells per call, from the join on; join: until 80 % of the "
        "fair share, the rest of the call where that never comes; RTT grows: over before the join"
    )
    names = [game.name for game, _ in pairs]
    rows = [[name, *(_cell(columns, name, shown) for shown in _SHOWN)] for name in names]
    made = [make_table(title, ["game", *(s.header for s in _SHOWN)], rows, caption=caption)]
    made.append(_worst_table(columns, names))
    if compared:
        made.append(_difference_table(compared))
    return made


def _cell(columns: Mapping[str, NDArray[Any]], game: str, shown: _Shown) -> str:
    texts = []
    for name in shown.measures:
        values = of_game(columns, game, name).values
        known = values[np.isfinite(values)]
        texts.append(f"{shown.factor * known.mean():.{shown.digits}f}" if len(known) else "-")
    return " / ".join(texts)


def _worst_table(columns: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Any:
    """What single calls came to: extremes hide in means."""
    rows = []
    for name in names:
        chosen = {key: column[columns["game"] == name] for key, column in columns.items()}
        ratios = chosen["throughput_ratio"]
        worst = "-"
        if np.isfinite(chosen["jain_index"]).any():
            row = int(np.nanargmin(chosen["jain_index"]))
            worst = f"{chosen['jain_index'][row]:.2f} ({chosen['link'][row]})"
        starved_s = [
            np.nanmax(chosen[f"{who}_starved_s"], initial=0.0) for who in ("first", "second")
        ]
        rows.append(
            [
                name,
                worst,
                " / ".join(f"{seconds:.1f}" for seconds in starved_s),
                f"{100.0 * np.mean(ratios > MAX_THROUGHPUT_RATIO):.0f}",
                f"{100.0 * np.mean(chosen['rtt_growth'] >= MAX_RTT_GROWTH):.0f}",
                str(int(chosen["dropped"].sum())),
            ]
        )
    header = ["game", "least Jain (where)", "longest starved s first / second"]
    header += [f"% over {MAX_THROUGHPUT_RATIO:g} : 1", f"% RTT x {MAX_RTT_GROWTH:g}", "dropped"]
    return make_table("the worst, and RFC 8868's limits of unfairness", header, rows)


_COMPARED = (
    _Shown("Jain", ("jain_index",)),
    _Shown("first share %", ("first_share",), 0, 100.0),
    _Shown("second share %", ("second_share",), 0, 100.0),
    _Shown("join s", ("join_s",), 0),
    _Shown("queue p95 ms", ("queue_delay_ms_p95",), 0),
    _Shown("first score", ("first_score",)),
    _Shown("second score", ("second_score",)),
)


def _difference_table(compared: Sequence[Difference]) -> Any:
    found = {(one.game, one.measure): one.interval for one in compared}
    rows = []
    for game in dict.fromkeys(one.game for one in compared):
        intervals = [(found.get((game, shown.measures[0])), shown) for shown in _COMPARED]
        rows.append([game, *(_told(interval, shown) for interval, shown in intervals)])
    title = "less what it is with GCC in the estimator's place, paired by link"
    header = ["game", *(shown.header for shown in _COMPARED)]
    return make_table(title, header, rows, caption="[95 % bootstrap interval over links]")


def _told(interval: Interval | None, shown: _Shown) -> str:
    if interval is None:
        return "-"
    ends = (interval.mean, interval.low, interval.high)
    mean, low, high = (f"{shown.factor * value:+.{shown.digits}f}" for value in ends)
    return f"{mean} [{low}, {high}]"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.compete``."""
    return run_command(compete, CompeteConfig, module="experiments.compete", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

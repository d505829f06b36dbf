"""One configuration for everybody against one per kind of network, in one picture.

``python -m experiments.tradeoff runs/tune --out tradeoff.png``

Whoever tunes one configuration for all networks moves along a line: what fast networks gain in
quality, slow ones pay for with freezes. The picture puts every trial of the search for one "global"
configuration (`experiments.tune`) by what it does to both, and beside them what the configurations
of each type do together. Whether there is such a price is told from the data, in words as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from bwe_env.errors import ArtifactError
from experiments.cli import run_command
from experiments.stats import Interval
from experiments.tables import refuse_existing
from experiments.tuning_networks import GLOBAL, NetworkList
from experiments.tuning_tradeoff import AXES, HIGH_CLASSES, LOW_CLASSES, Place, Tradeoff, told
from experiments.tuning_trials import MEASURED, Task, play

Reliability = Literal["freeze_ratio", "bad_experience", "dropped"]
Quality = Literal["video_mos", "mean_media_bps", "call_score"]


@dataclass(frozen=True, kw_only=True)
class TradeoffConfig:
    """Draw what a global configuration trades, and what one per type does instead."""

    tune_dir: Annotated[Path, tyro.conf.Positional]
    """folder that experiments.tune made, with "global" among its targets"""
    out: Path
    """PNG file"""
    reliability: Reliability = "freeze_ratio"
    """what low-bandwidth networks are judged by; less is better"""
    quality: Quality = "video_mos"
    """what high-bandwidth networks are judged by; more is better"""
    storage: str | None = None
    """URL of the study's database, if it is not the journal in the folder"""
    overwrite: bool = False
    """replace the file of --out if it exists"""


def tradeoff(config: TradeoffConfig) -> int:
    """Run the command; returns its exit code."""
    from experiments.tuning_figures import tradeoff_picture

    refuse_existing(config.out, overwrite=config.overwrite)
    found = load_tradeoff(config)
    text = told(found)
    config.out.write_bytes(tradeoff_picture(found).png)
    config.out.with_suffix(".txt").write_text(text + "\n")
    print(f"{text}\n\n{config.out}, {config.out.with_suffix('.txt')}")
    return 0


# --- From the folder of a tuning ------------------------------------------------------------------


def load_tradeoff(config: TradeoffConfig) -> Tradeoff:
    """Read the global search, and play what was chosen for each type on its networks.

    Raises:
        ArtifactError: the folder holds no finished tuning with a global search.
    """
    from experiments.tuning_study import finished_trials

    configuration = _configuration(config.tune_dir)
    finished = finished_trials(config.storage or config.tune_dir / "study.log", GLOBAL)
    position = configuration["targets"][GLOBAL]["trial"]
    if not position < len(finished):
        raise ArtifactError(
            f"{config.tune_dir} has {len(finished)} global trials, and its configuration.json "
            f"chose trial {position}; give the storage it was made with (--storage)."
        )
    places = [_place(trial.outcome.classes, config) for trial in finished]
    return Tradeoff(
        reliability=config.reliability,
        quality=config.quality,
        trials=tuple(places),
        is_feasible=tuple(trial.is_feasible for trial in finished),
        chosen=places[position],
        per_type=_place(_per_type_means(configuration), config),
        held_out=_held_out(config),
    )


def _configuration(directory: Path) -> dict[str, Any]:
    path = directory / "configuration.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        names = set(content["overrides"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}). Give a folder that python -m experiments.tune has "
            "finished."
        ) from error
    if missing := {GLOBAL, *LOW_CLASSES, *HIGH_CLASSES} - names:
        raise ArtifactError(
            f"{path} holds nothing for {', '.join(sorted(missing))}; tune for them as well "
            "(--targets)."
        )
    return content


def _place(classes: Mapping[str, Mapping[str, float]], config: TradeoffConfig) -> Place:
    def mean(names: Sequence[str], column: str) -> float:
        return AXES[column].factor * float(np.mean([classes[name][column] for name in names]))

    return Place(
        reliability=mean(LOW_CLASSES, config.reliability),
        quality=mean(HIGH_CLASSES, config.quality),
    )


def _per_type_means(configuration: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Each class of the global search's networks under its own configuration."""
    inputs = configuration["inputs"]
    training = inputs["networks"][GLOBAL]["train"]
    whole = NetworkList(split="train", target=GLOBAL, count=training["count"])
    means: dict[str, dict[str, float]] = {}
    for name in (*LOW_CLASSES, *HIGH_CLASSES):
        networks = NetworkList(
            split="train", target=name, count=training["count"] // len(whole.classes)
        )
        task = Task(
            networks=networks,
            overrides=configuration["overrides"][name],
            seeds=tuple(training["seeds"]),
            duration_s=inputs["duration_s"],
        )
        calls = play(task)
        means[name] = {column: float(np.nanmean(calls[column])) for column in MEASURED}
    return means


def _held_out(config: TradeoffConfig) -> dict[str, tuple[Interval, Interval]]:
    from experiments.tuning_choice import DEFAULT, PER_TYPE, difference
    from experiments.tuning_results import read_tests

    tests = read_tests(config.tune_dir / "test_calls.csv")

    def gained(target: str, names: Sequence[str], column: str) -> Interval:
        sides = (tests.everywhere(side, names) for side in (target, DEFAULT))
        return _scaled(difference(*sides, [column]).columns[column], AXES[column].factor)

    return {
        target: (
            gained(target, LOW_CLASSES, config.reliability),
            gained(target, HIGH_CLASSES, config.quality),
        )
        for target in (GLOBAL, PER_TYPE)
    }


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(
        mean=factor * interval.mean,
        low=factor * interval.low,
        high=factor * interval.high,
        networks=interval.networks,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.tradeoff``."""
    return run_command(tradeoff, TradeoffConfig, module="experiments.tradeoff", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

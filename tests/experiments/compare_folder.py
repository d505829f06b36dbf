"""A folder as ``python -m experiments.compare`` writes it, of made-up calls."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from experiments.compare_results import (
    ComparedMetric,
    Comparison,
    Estimator,
    NonInferiority,
    Profile,
    RunOutcome,
    Subset,
    Value,
    write_comparison,
)
from experiments.run_directory import config_to_dict
from experiments.tables import write_csv

METRICS = (
    ComparedMetric(name="call_score", header="call score", factor=1.0, digits=2, better="higher"),
    ComparedMetric(name="freeze_ratio", header="freeze %", factor=100.0, digits=2, better="lower"),
    ComparedMetric(
        name="one_way_delay_ms_p95", header="delay p95 ms", factor=1.0, digits=0, better="lower"
    ),
    ComparedMetric(
        name="mean_media_bps", header="media kbps", factor=1e-3, digits=0, better="higher"
    ),
)
ESTIMATORS = (
    Estimator(label="PPO", runs=("/home/somebody/runs/ppo-001", "/home/somebody/runs/ppo-002")),
    Estimator(label="gcc", runs=("gcc",)),
    Estimator(label="nada", runs=("nada",)),
    Estimator(label="scream", runs=("scream",)),
    Estimator(label="<b>bbr</b>", runs=("bbr",)),
    Estimator(label="aimd", runs=("aimd",)),
    Estimator(label="copa", runs=("copa",)),
    Estimator(label="constant:500000", runs=("constant:500000",)),
    Estimator(label="oracle:0.9", runs=("oracle:0.9",)),
)
#: How much better than GCC each is, in MOS, and its usual share of freezes.
GAINS = {"PPO": 0.30, "gcc": 0.0, "nada": 0.05, "scream": -0.02, "aimd": -0.4, "oracle:0.9": 0.55}
TYPES = ("3G", "4G-LTE", "5G", "ethernet", "satellite", "wifi")
BANDWIDTHS = ("< 0.5 Mbps", "0.5-1 Mbps", "1-2 Mbps", "2-4 Mbps", "> 4 Mbps")
SEEDS = (0, 1)


def made_up_calls(per_type: int = 5) -> dict[str, NDArray[Any]]:
    """Calls of all estimators and runs on the same networks, one row each."""
    rng = np.random.default_rng(7)
    rows: dict[str, list[Any]] = {}
    networks = [(f"test-{t}-{i:02d}", t) for t in TYPES for i in range(per_type)]
    luck = {
        (name, seed): rng.normal(3.0, 0.6) for (name, _), seed in itertools.product(networks, SEEDS)
    }
    for estimator in ESTIMATORS:
        for run, (network, kind), seed in itertools.product(estimator.runs, networks, SEEDS):
            gain = GAINS.get(estimator.label, -0.1)
            score = float(np.clip(luck[network, seed] + gain + rng.normal(0.0, 0.15), 1.0, 4.8))
            row = {
                "estimator": estimator.label,
                "run": run,
                "network": network,
                "network_type": kind,
                "path": "direct",
                "seed": seed,
                "contested": kind != "ethernet",
                "dropped": False,
                "call_score": score,
                "freeze_ratio": float(np.clip((4.5 - score) / 30 + rng.normal(0, 0.01), 0, 1)),
                "one_way_delay_ms_p95": float(np.exp(6.5 - 0.5 * score + rng.normal(0, 0.1))),
                "mean_target_bps": 5e5 * score,
                "mean_media_bps": 4e5 * score,
            }
            for name, value in row.items():
                rows.setdefault(name, []).append(value)
    return {name: np.array(column) for name, column in rows.items()}


def _subsets(calls: Mapping[str, NDArray[Any]]) -> list[Subset]:
    subsets = []
    for which in ("contested", "all"):
        subsets.append(Subset(name=which, calls=which, networks=25, num_calls=50))
        for by, parts in (("network_type", TYPES), ("bandwidth", BANDWIDTHS)):
            for part in parts:
                if which == "contested" and part == "ethernet":
                    continue
                subsets.append(
                    Subset(
                        name=f"{which}/{by}/{part}",
                        calls=which,
                        by=by,
                        part=part,
                        networks=5,
                        num_calls=10,
                    )
                )
    return subsets


def _mean(calls: Mapping[str, NDArray[Any]], label: str, subset: Subset, m: ComparedMetric) -> Any:
    is_in = calls["estimator"] == label
    if subset.by == "network_type":
        is_in &= calls["network_type"] == subset.part
    if subset.by == "bandwidth":
        is_in &= np.arange(len(is_in)) % len(BANDWIDTHS) == BANDWIDTHS.index(subset.part)
    if subset.calls == "contested":
        is_in &= calls["contested"] == 1
    values = m.factor * calls[m.name][is_in].astype(np.float64)
    return values.mean(), 2.0 * values.std() / np.sqrt(len(values))


def _values(calls: Mapping[str, NDArray[Any]], subsets: Sequence[Subset]) -> list[Value]:
    found = []

    def add(
        estimator: str, subset: Subset, metric: str, statistic: str, mean: float, half: float
    ) -> None:
        found.append(
            Value(
                estimator=estimator,
                subset=subset.name,
                metric=metric,
                statistic=statistic,
                value=float(mean),
                low=float(mean - half),
                high=float(mean + half),
            )
        )

    for estimator, subset, m in itertools.product(ESTIMATORS, subsets, METRICS):
        label = estimator.label
        mean, half = _mean(calls, label, subset, m)
        add(label, subset, m.name, "mean", mean, half)
        if label != "gcc":
            add(
                label,
                subset,
                m.name,
                "difference",
                mean - _mean(calls, "gcc", subset, m)[0],
                half / 4,
            )
        if subset.by or m.name != "call_score":
            continue
        for statistic in ("mean_equal_types", "iqm", "iqm_equal_types"):
            add(label, subset, m.name, statistic, mean + 0.01, half)
        if label != "gcc":
            gain = GAINS.get(label, -0.1)
            for statistic in ("probability_of_improvement", "share_won"):
                add(label, subset, m.name, statistic, 0.5 + 0.6 * gain, 0.05)
            add(label, subset, m.name, "gap_closed", gain / 0.55, 0.1)
    return found


def _profiles(calls: Mapping[str, NDArray[Any]]) -> list[Profile]:
    scores = np.arange(1.0, 5.01, 0.1).round(1)
    found = []
    for estimator, which in itertools.product(ESTIMATORS, ("contested", "all")):
        is_in = calls["estimator"] == estimator.label
        if which == "contested":
            is_in &= calls["contested"] == 1
        values = calls["call_score"][is_in]
        shares = (values[:, None] > scores).mean(axis=0)
        found.append(
            Profile(
                estimator=estimator.label,
                subset=which,
                metric="call_score",
                scores=tuple(scores.tolist()),
                shares=tuple(shares.tolist()),
                low=tuple(np.clip(shares - 0.06, 0, 1).tolist()),
                high=tuple(np.clip(shares + 0.06, 0, 1).tolist()),
            )
        )
    return found


def made_up_comparison(calls: Mapping[str, NDArray[Any]]) -> Comparison:
    """What is said about the calls; the statistics are plausible and not those of the project."""
    subsets = _subsets(calls)
    return Comparison(
        title="Synthetic test networks, at most 6 Mbps, calls of 20 s <planted & escaped>",
        inputs={
            "call": config_to_dict(CallConfig(duration_s=20.0)),
            "networks": {"count": 30, "digest": "ab" * 32},
            "seeds": list(SEEDS),
        },
        reference="gcc",
        oracle="oracle:0.9",
        estimators=ESTIMATORS,
        metrics=METRICS,
        subsets=tuple(subsets),
        values=tuple(_values(calls, subsets)),
        profiles=tuple(_profiles(calls)),
        non_inferiority=tuple(
            NonInferiority(
                estimator="PPO",
                subset=f"all/network_type/{part}",
                metric="call_score",
                difference=0.3,
                low=0.1,
                high=0.5,
                margin=0.05,
                p_value=0.001,
                p_holm=0.00617,
                is_non_inferior=part != "satellite",
            )
            for part in TYPES
        ),
        runs=tuple(
            RunOutcome(
                estimator="PPO",
                run=run,
                subset="contested",
                score=0.31,
                score_low=0.2,
                score_high=0.4,
                freeze=-1.25,
                delay=-37.0,
                beats=run.endswith("1"),
            )
            for run in ESTIMATORS[0].runs
        ),
        notes=("A planted note.",),
    )


def write_folder(directory: Path, **changes: Any) -> Path:
    """Write the folder.

    Args:
        changes: fields of the comparison to replace.
    """
    directory.mkdir(parents=True, exist_ok=True)
    calls = made_up_calls()
    write_csv(directory / "calls.csv", calls)
    write_comparison(directory, dataclasses.replace(made_up_comparison(calls), **changes))
    return directory


def write_run(root: Path, name: str, *, seed: int, ends_at: float) -> Path:
    """A finished training run: what a page reads of it."""
    from experiments.run_directory import RunDirectory

    @dataclasses.dataclass(frozen=True)
    class Config:
        name: str
        seed: int
        total_steps: int = 2_000_000

    run = RunDirectory.create(root, name, Config(name=name, seed=seed), seeds={"seed": seed})
    steps = np.linspace(5e5, 2e6, 4)
    scores = ends_at - 0.2 * (4 - np.arange(1, 5))
    write_csv(
        run.path / "validations.csv",
        {"steps": steps, "mean_reward": scores / 6, "call_score": scores},
    )
    progress = {"time/total_timesteps": steps, "rollout/ep_rew_mean": ["", *(10 * scores[1:])]}
    write_csv(run.path / "progress.csv", progress)
    return run.path

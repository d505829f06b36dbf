"""Which calls a page of results shows, and playing them again with the agent and the reference.

Of all capacity-limited calls with the comparison's first seed: the one where the agent gains most
in call score, the one where it loses most, the median one, and the median one of every network
type. Chosen by rule, so that nobody can choose the pretty ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig, from_mapping
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.network import Network
from bwe_env.rollout import RecordedCall, record_calls
from experiments.contenders import Contender, find_contender
from experiments.evaluation import select
from experiments.networks import SPLITS, named_networks
from experiments.results_data import Results
from experiments.results_tables import SCORE

#: Relative difference of mean target rates up to which two calls are the same: policies round
#: otherwise in batches of other sizes; another policy or simulator differs by more. Ours.
SAME_RATIO = 0.01


@dataclass(frozen=True, kw_only=True)
class ChosenCall:
    """A call that is shown, and why."""

    network: str
    network_type: str
    reason: str
    difference: float
    """call score of the agent minus that of the reference"""


@dataclass(frozen=True, kw_only=True)
class PlayedCall:
    """A chosen call as one estimator played it."""

    label: str
    steps: NDArray[Any]
    outputs: dict[str, NDArray[np.floating]]
    """probabilities of network models by name, as long as `steps`; empty without models"""
    dropped: bool


# --- Choosing -------------------------------------------------------------------------------------


def chosen_calls(results: Results) -> list[ChosenCall]:
    """The calls to show, each once, with the first reason that it was chosen for.

    Returns:
        An empty list where there is no agent.
    """
    if results.agent is None:
        return []
    agent = _first_calls(results, results.agent)
    reference = _first_calls(results, results.comparison.reference)
    shared = sorted(set(agent) & set(reference))
    ranked = sorted(shared, key=lambda n: (agent[n][1] - reference[n][1], n))
    if not ranked:
        return []
    reasons = {"best difference": ranked[-1], "worst difference": ranked[0]}
    reasons["median difference"] = _median(ranked)
    for network_type in sorted({agent[name][0] for name in ranked}):
        of_type = [name for name in ranked if agent[name][0] == network_type]
        reasons[f"median of {network_type}"] = _median(of_type)
    chosen: dict[str, ChosenCall] = {}
    for reason, name in reasons.items():
        difference = agent[name][1] - reference[name][1]
        call = ChosenCall(
            network=name, network_type=agent[name][0], reason=reason, difference=difference
        )
        chosen.setdefault(name, call)
    return list(chosen.values())


def _median(ranked: Sequence[str]) -> str:
    return ranked[(len(ranked) - 1) // 2]


def first_seed(results: Results) -> int:
    """The seed whose calls are shown."""
    return int(results.calls["seed"].min())


def _first_calls(results: Results, label: str, column: str = SCORE) -> dict[str, tuple[str, float]]:
    """Network type and a column by network, of an estimator's first run and the first seed.

    Capacity-limited calls only, unless there are none.
    """
    calls = results.of(label)
    calls = select(calls, calls["seed"] == first_seed(results))
    calls = select(calls, calls["run"] == _first_run(results, label))
    if (results.calls["contested"] > 0).any():
        calls = select(calls, calls["contested"] > 0)
    columns = (calls["network"], calls["network_type"], calls[column])
    return {
        name: (kind, score)
        for name, kind, score in zip(*(c.tolist() for c in columns), strict=True)
    }


def _first_run(results: Results, label: str) -> str:
    return next(e.runs[0] for e in results.comparison.estimators if e.label == label)


# --- Playing --------------------------------------------------------------------------------------


def play(
    results: Results, chosen: Sequence[ChosenCall], *, traces: Path | None, num_threads: int
) -> dict[str, tuple[PlayedCall, PlayedCall]]:
    """Play the chosen calls with the agent and the reference.

    Args:
        traces: where measured networks lie; None where the comparison is on synthetic ones.

    Returns:
        Both by the network's name, the agent first.

    Raises:
        ConfigError: networks are not found.
        ArtifactError: what was played is not what the comparison's table says.
    """
    if results.agent is None or not chosen:
        return {}
    networks = _networks(results, [call.network for call in chosen], traces)
    call = from_mapping(CallConfig, results.comparison.inputs["call"])
    played = []
    for label in (results.agent, results.comparison.reference):
        contender = find_contender(_first_run(results, label), call, label=label)
        played.append(_played(results, contender, networks, call, num_threads))
    return {call.network: (played[0][call.network], played[1][call.network]) for call in chosen}


def _networks(results: Results, names: Sequence[str], traces: Path | None) -> list[Network]:
    count = int(results.comparison.inputs["networks"]["count"])
    # Names of synthetic networks begin with their split.
    split = "all" if traces is not None else names[0].partition("-")[0]
    if traces is None and split not in SPLITS:
        known: dict[str, Network] = {}
    else:
        known = {n.name: n for n in named_networks(traces=traces, split=split, count=count)}
    missing = [name for name in names if name not in known]
    if missing:
        where = f"{traces.name} has" if traces is not None else "a synthetic split has"
        raise ConfigError(
            f"{where} no network {missing[0]!r} of the comparison, so its calls cannot be shown. "
            "Give the directory of its traces with --traces, or leave them out with --no-timelines."
        )
    return [known[name] for name in names]


def _played(
    results: Results,
    contender: Contender,
    networks: Sequence[Network],
    call: CallConfig,
    num_threads: int,
) -> dict[str, PlayedCall]:
    names = getattr(contender.network_models, "outputs", ())
    recorded = record_calls(
        networks,
        contender.controller,
        call=call,
        seeds=(first_seed(results),),
        observation=contender.observation,
        gcc=contender.gcc,
        network_models=contender.network_models,
        num_threads=num_threads,
    )
    told_bps = _first_calls(results, contender.label, "mean_target_bps")
    played = {}
    for one in recorded:
        _check_same(one, told_bps[one.network.name][1], contender.label)
        outputs = {name: one.probabilities[:, i] for i, name in enumerate(names)}
        played[one.network.name] = PlayedCall(
            label=contender.label, steps=one.steps, outputs=outputs, dropped=one.dropped
        )
    return played


def _check_same(one: RecordedCall, told_bps: float, label: str) -> None:
    """A figure beside a table must be of the call in the table."""
    now_bps = float(np.mean(one.steps["target_rate_bps"]))
    if abs(now_bps - told_bps) > SAME_RATIO * told_bps:
        raise ArtifactError(
            f"{label} on {one.network.name} has a mean target rate of {now_bps:.0f} bps now and of "
            f"{told_bps:.0f} in the comparison: the policy or the simulator has changed since. Run "
            "the comparison again, or leave the timelines out with --no-timelines."
        )

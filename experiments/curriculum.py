"""The curriculum of a training run: GCC's reward measured at its start, and kept in its folder.

``RUN/curriculum.json`` holds, per training network, what GCC reached and what the agent reached in
its last calls: a record to read, and what a resumed run goes on from. It is written after every
rollout, so it may know of calls a little younger than the checkpoint beside it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agents.curriculum import GapCurriculum
from bwe_env.errors import ArtifactError
from bwe_env.network import Network
from bwe_env.units import us_to_s
from experiments import evaluation
from experiments.contenders import baseline
from experiments.run_directory import RunDirectory, write_json

if TYPE_CHECKING:
    from agents.curriculum_callback import CurriculumCallback
    from experiments.train import TrainConfig

FILE = "curriculum.json"

#: Places in its trace from which GCC plays each network, where training calls begin anywhere. Three
#: calls of 60 s meet the 180 s of a synthetic trace once. Ours.
BASELINE_STARTS = 3


def make_curriculum(
    config: TrainConfig, run: RunDirectory, networks: Sequence[Network]
) -> GapCurriculum | None:
    """The curriculum as the run left it, or a new one; None where the run has none."""
    if config.curriculum == "none":
        return None
    path = run.path / FILE
    if path.is_file():
        return read_curriculum(path)
    print("curriculum: playing the training networks with GCC …", flush=True)
    started_s = time.monotonic()
    rewards = baseline_rewards(config, networks)
    print(
        f"curriculum: GCC has {rewards.mean():.4f}/s on {len(networks)} training networks "
        f"(measured in {time.monotonic() - started_s:.0f} s)",
        flush=True,
    )
    curriculum = GapCurriculum(rewards)
    write_curriculum(path, curriculum, networks)
    return curriculum


def baseline_rewards(config: TrainConfig, networks: Sequence[Network]) -> NDArray[np.float64]:
    """GCC's reward per second on each network, shape (networks,): the same whenever it is asked.

    It is the GCC that the agent is validated against. Networks are played as they are, also where
    training scales their capacity, delay and queue: an agent that lags only because its call was
    made harder counts as lagging, on all networks alike.
    """
    from experiments.train import setting_of

    starts = BASELINE_STARTS if config.randomisation.random_start else 1
    begun = [_started(network, part / starts) for network in networks for part in range(starts)]
    calls = evaluation.run(baseline("gcc", config.call), begun, setting_of(config, (0,)))
    by_network: NDArray[np.float64] = calls["mean_reward"].reshape(len(networks), starts)
    return by_network.mean(axis=1)  # type: ignore[no-any-return]


def _started(network: Network, share: float) -> Network:
    """The network with calls that begin `share` of its trace later."""
    later_s = share * us_to_s(network.trace.period_us)
    return dataclasses.replace(network, start_s=network.start_s + later_s)


def curriculum_callbacks(
    curriculum: GapCurriculum | None, run: RunDirectory, networks: Sequence[Network]
) -> list[CurriculumCallback]:
    """What shows and keeps the curriculum while the agent learns; nothing where there is none."""
    if curriculum is None:
        return []
    from agents.curriculum_callback import CurriculumCallback

    types = [network.network_type for network in networks]
    path = run.path / FILE
    return [
        CurriculumCallback(
            curriculum, types, keep=lambda current: write_curriculum(path, current, networks)
        )
    ]


def write_curriculum(path: Path, curriculum: GapCurriculum, networks: Sequence[Network]) -> None:
    """Write the state with the names and types of the networks, whole or not at all."""
    columns = {
        "networks": [network.name for network in networks],
        "network_types": [network.network_type for network in networks],
    }
    write_json(path, columns | curriculum.state)


def read_curriculum(path: Path) -> GapCurriculum:
    """A curriculum that goes on where it was written.

    Raises:
        ArtifactError: the file is damaged.
    """
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        curriculum = GapCurriculum(state["baseline_rewards"])
        curriculum.restore(state)
    except (ArtifactError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is damaged: {error!r}. Remove it to let the curriculum begin anew."
        ) from error
    return curriculum

"""The curriculum of a training run: what GCC reached, kept in the run and gone on from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.curriculum import GapCurriculum
from agents.ppo import PpoConfig
from agents.tags import explains
from bwe_env import run_calls
from bwe_env.config import CallConfig, RandomisationConfig
from bwe_env.errors import ArtifactError, BweEnvError
from experiments.contenders import baseline
from experiments.curriculum import baseline_rewards, read_curriculum, write_curriculum
from experiments.networks import synthetic_sets
from experiments.run_directory import RunDirectory
from experiments.train import TrainConfig, learn_run
from tests.experiments.test_train import read_events

#: 128 decisions in each of 8 calls side by side; calls of 4 s end after 40.
CONFIG = TrainConfig(
    curriculum="gap",
    total_steps=1024,
    validate_every_steps=512,
    train_networks=6,
    validation_networks=6,
    test_networks=6,
    num_threads=1,
    call=CallConfig(duration_s=4.0),
    ppo=PpoConfig(num_envs=8, n_steps=32, batch_size=256, n_epochs=1, torch_threads=1),
)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = learn_run(replace(CONFIG, runs_dir=str(tmp_path_factory.mktemp("runs"))))
    assert run is not None
    return run


def kept(run: RunDirectory) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.path / "curriculum.json").read_text())
    return content


def test_a_run_keeps_what_gcc_and_the_agent_reached_on_each_training_network(
    learnt: RunDirectory,
) -> None:
    content = kept(learnt)
    train = synthetic_sets(train=6, validation=1, test=1).train
    assert content["networks"] == [network.name for network in train]
    assert content["network_types"] == [network.network_type for network in train]
    assert content["baseline_rewards"] == baseline_rewards(CONFIG, train).tolist()
    # First calls do not count; then one ends every 40 of the 128 steps.
    assert sum(content["calls"]) == sum((128 - first) // 40 for first in range(5, 45, 5))
    assert learnt.load_config(TrainConfig).curriculum == "gap"


def test_tensorboard_shows_the_curriculum_and_explains_it(learnt: RunDirectory) -> None:
    tags = [t for t in read_events(learnt.path).Tags()["scalars"] if t.startswith("curriculum/")]
    names = {"mean_gap", "effective_networks", "top_type_share", "played_ratio"}
    assert set(tags) == {f"curriculum/{name}" for name in names}
    assert all(map(explains, tags))


def test_a_resumed_run_goes_on_with_what_it_knows_and_measures_nothing_anew(
    learnt: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept(learnt)
    monkeypatch.setattr("experiments.curriculum.baseline_rewards", None)  # cannot be called
    assert learn_run(TrainConfig(resume=str(learnt.path), total_steps=2048)) is not None
    after = kept(learnt)
    assert after["baseline_rewards"] == before["baseline_rewards"]
    gained = np.subtract(after["calls"], before["calls"])
    assert (gained >= 0).all()
    assert gained.sum() > 0


def test_gcc_plays_from_three_places_of_a_trace_where_training_calls_begin_anywhere() -> None:
    (network,) = synthetic_sets(train=1, validation=1, test=1).train
    gcc = baseline("gcc", CONFIG.call)
    begun = [replace(network, start_s=start_s) for start_s in (0.0, 60.0, 120.0)]
    each = run_calls(begun, "gcc", call=CONFIG.call, seeds=(0,), gcc=gcc.gcc)["mean_reward"]
    assert len(set(each.tolist())) > 1
    np.testing.assert_allclose(baseline_rewards(CONFIG, [network]), [each.mean()])
    from_the_start = replace(CONFIG, randomisation=RandomisationConfig())
    np.testing.assert_array_equal(baseline_rewards(from_the_start, [network]), each[:1])


def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "curriculum.json"
    write_curriculum(
        path, GapCurriculum([0.5]), synthetic_sets(train=1, validation=1, test=1).train
    )
    assert read_curriculum(path).state["calls"] == [0]
    for text in ("{", "{}", '{"baseline_rewards": [1.0], "agent_rewards": [null], "calls": [3]}'):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=r"curriculum\.json is damaged.*Remove it"):
            read_curriculum(path)


def test_an_unknown_curriculum_is_refused() -> None:
    with pytest.raises(BweEnvError, match="gap"):
        TrainConfig(curriculum="gaps")  # type: ignore[arg-type]

"""Studies: variants of the agent, trained with several seeds, then compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.export import load_policy
from bwe_env.config import from_mapping
from bwe_env.errors import ConfigError
from experiments import study
from experiments.run_directory import ENVIRONMENT, config_to_dict
from experiments.study import STUDIES, StudyConfig, Training, train_one, trainings
from experiments.train import TrainConfig

#: Of a run that takes seconds.
TINY: dict[str, Any] = {
    "total_steps": 256,
    "validate_every_steps": 128,
    "train_networks": 6,
    "validation_networks": 6,
    "test_networks": 6,
    "call": {"duration_s": 4.0},
    "ppo": {"num_envs": 8, "n_steps": 16, "batch_size": 64, "n_epochs": 1, "torch_threads": 1},
}


def test_every_variant_is_a_valid_run_and_no_two_of_a_study_are_the_same() -> None:
    for name, variants in STUDIES.items():
        configs = []
        for changes in variants.values():
            values = study._merged(config_to_dict(TrainConfig()), changes)
            configs.append(from_mapping(TrainConfig, values))
        assert len(set(map(repr, configs))) == len(configs), name
        assert configs[0] == TrainConfig()  # the others are compared with the default agent
        assert not any(c in "=," for label in variants for c in label)  # compare's own signs


def test_a_study_trains_each_variant_once_per_seed_in_a_folder_of_its_own(tmp_path: Path) -> None:
    config = StudyConfig(study="features", out=tmp_path, seeds=3, total_steps=1000)
    runs = trainings(config)
    assert len(runs) == 3 * len(STUDIES["features"])
    assert len({run.path for run in runs}) == len(runs)
    assert [run.seed for run in runs[:3]] == [0, 1, 2]
    assert all(run.changes["total_steps"] == 1000 for run in runs)
    assert {run.variant for run in runs} == set(STUDIES["features"])


def test_changes_reach_into_nested_values_and_leave_the_rest() -> None:
    merged = study._merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 5}})
    assert merged == {"a": 1, "b": {"c": 5, "d": 3}}


def test_a_run_learns_to_its_end_once_and_says_so(tmp_path: Path) -> None:
    run = Training(variant="PPO", seed=4, folder=tmp_path / "ppo", changes=TINY)
    assert not run.is_finished
    said = train_one(run)
    assert "validation reward" in said
    assert run.is_finished
    load_policy(run.path / "policy", environment=ENVIRONMENT)
    config = json.loads((run.path / "config.json").read_text())
    assert (config["seed"], config["num_threads"], config["total_steps"]) == (4, 1, 256)
    assert "run directory" in (tmp_path / "ppo" / "seed-4.log").read_text()

    asked: list[Any] = []

    class Refusing:
        def map(self, function: Any, items: Any) -> Any:
            asked.extend(items)
            return iter(())

        def close(self) -> None:
            pass

    other = Training(variant="PPO", seed=5, folder=tmp_path / "ppo", changes=TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "make_executor", lambda workers: Refusing())
        study.train_missing([run, other], workers=1)
        assert asked == [other]
        study.train_missing([run], workers=1)
    assert asked == [other]


def test_a_run_that_was_stopped_goes_on_and_one_without_a_checkpoint_is_told(
    tmp_path: Path,
) -> None:
    run = Training(variant="PPO", seed=0, folder=tmp_path, changes=TINY)
    train_one(run)
    longer = Training(variant="PPO", seed=0, folder=tmp_path, changes={**TINY, "total_steps": 384})
    with pytest.raises(ConfigError, match="other options"):
        _ = longer.is_finished
    (run.path / "finished.json").unlink()
    train_one(longer)
    record = json.loads((run.path / "run.json").read_text())
    assert len(record["resumed"]) == 1
    assert longer.is_finished
    (run.path / "checkpoints" / "last.zip").unlink()
    with pytest.raises(ConfigError, match="remove that folder"):
        train_one(longer)


@pytest.mark.parametrize(
    ("option", "value"), [("seeds", 0), ("test_networks", 0), ("test_seeds", 0), ("workers", -1)]
)
def test_counts_below_one_are_refused(option: str, value: int) -> None:
    with pytest.raises(ConfigError, match=option.replace("_", "-")):
        StudyConfig(study="headline", **{option: value})

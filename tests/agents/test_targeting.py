"""A delivered folder: a plan and the models it needs, read together or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agents.network_model import NetworkModel, NetworkModelConfig, save_network_model
from agents.targeting import MODELS_FOLDER, PLAN_FILE, load_targeting
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import AlarmResponse, TargetingPlan

PLAN = TargetingPlan(
    base={"gcc.decrease_factor": 0.8},
    congestion=AlarmResponse(rate_scale=0.7),
    random_loss=AlarmResponse(settings={"fec.enabled": True}),
)


def deliver(folder: Path, plan: TargetingPlan, *tasks: str) -> Path:
    """A delivered folder with one model for each task."""
    folder.mkdir(exist_ok=True)
    plan.write(folder / PLAN_FILE)
    for task in tasks:
        torch.manual_seed(0)
        model = NetworkModel(NetworkModelConfig(tasks=(task,)))
        (folder / MODELS_FOLDER / task).mkdir(parents=True)
        save_network_model(folder / MODELS_FOLDER / task, model)
    return folder


def test_a_delivered_folder_has_its_plan_and_models(tmp_path: Path) -> None:
    folder = deliver(tmp_path, PLAN, "congestion", "random_loss")
    (folder / MODELS_FOLDER / "README").write_text("no model, and no folder\n", encoding="utf-8")
    targeting = load_targeting(folder)
    assert targeting.plan == PLAN
    assert set(targeting.models.outputs) == {"congestion", "random_loss"}
    assert targeting.settings[0] == SenderSettings().with_overrides(PLAN.base)


def test_a_plan_goes_on_top_of_the_senders_own_settings(tmp_path: Path) -> None:
    folder = deliver(tmp_path, PLAN, "congestion", "random_loss")
    own = SenderSettings().with_overrides({"gcc.decrease_factor": 0.5, "audio_redundancy": 1})
    first = load_targeting(folder, base=own).settings[0]
    assert (first.gcc.decrease_factor, first.audio_redundancy) == (0.8, 1)


def test_a_folder_without_plan_or_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"plan\.json cannot be read"):
        load_targeting(tmp_path / "nowhere")
    deliver(tmp_path, PLAN)
    with pytest.raises(ArtifactError, match="holds no model.*experiments.fit"):
        load_targeting(tmp_path)


def test_models_that_do_not_answer_the_plan_are_refused(tmp_path: Path) -> None:
    folder = deliver(tmp_path, PLAN, "congestion")
    with pytest.raises(ConfigError, match="needs random_loss; these models only say congestion"):
        load_targeting(folder)


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    folder = deliver(tmp_path, PLAN, "congestion", "random_loss")
    for path in (folder / MODELS_FOLDER / "congestion").iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="congestion"):
        load_targeting(folder)

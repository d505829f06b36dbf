from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.export import load_policy, save_policy
from agents.policy_estimator import MlpArchitecture, PolicyEstimator
from agents.policy_setting import PolicySetting
from experiments.export import main
from experiments.run_directory import ENVIRONMENT, RunDirectory
from experiments.train import TrainConfig


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """What a run leaves: a policy, two parts of validations, a final table."""
    command = ["python", "-m", "experiments.train", "--seed", "7", "--name", "a b"]
    made = RunDirectory.create(
        tmp_path / "runs",
        "ppo",
        TrainConfig(seed=7),
        seeds={"seed": 7, "training_calls": 123},
        networks={"train": "aa11", "validation": "bb22"},
        command=command,
    )
    torch.manual_seed(0)
    architecture = MlpArchitecture(inputs=105, hidden_sizes=(8,), outputs=1)
    policy = PolicyEstimator(architecture.build(), architecture, setting=PolicySetting())
    extra = {"steps": 4096, "validation_reward": 0.321}
    save_policy(made.policy, policy, environment=ENVIRONMENT, extra=extra)
    (made.path / "validations.csv").write_text("steps,mean_reward\n2048.0,0.25\n4096.0,0.321\n")
    (made.path / "validations-1.csv").write_text("steps,mean_reward\n6144.0,0.3111\n")
    (made.path / "compare.txt").write_text("PPO - gcc  +0.123\n")
    return made


def test_an_exported_folder_holds_the_policy_bit_for_bit(run: RunDirectory, tmp_path: Path) -> None:
    assert main([str(run.path), "--out", str(tmp_path / "mine")]) == 0
    rows = np.random.default_rng(0).uniform(-1, 1, (3, 105)).astype(np.float32)
    actions = [
        load_policy(folder, environment=ENVIRONMENT).act(rows, None)
        for folder in (run.policy, tmp_path / "mine")
    ]
    np.testing.assert_array_equal(*actions)


def test_the_model_card_tells_how_the_policy_came_about(run: RunDirectory, tmp_path: Path) -> None:
    assert main([str(run.path), "--out", str(tmp_path / "mine")]) == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    for fact in (
        "# Policy of ppo-001",
        "python -m experiments.train --seed 7 --name 'a b'",
        "seeds: seed 7, training_calls 123",
        "torch 2.",
        "train networks: aa11",
        "after 4,096 decisions",
        "| 4,096 | 0.321 |",
        "| 6,144 | 0.3111 |",
        "PPO - gcc  +0.123",
        "30 to 6000 kbps",
        ENVIRONMENT,
    ):
        assert fact in card
    assert card.index("| 2,048 |") < card.index("| 4,096 |") < card.index("| 6,144 |")


def test_what_exists_stays_unless_told_otherwise(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "README.md").write_text("my notes")
    assert main([str(run.path), "--out", str(folder)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == "my notes"
    assert main([str(run.path), "--out", str(folder), "--overwrite"]) == 0
    assert "# Policy of" in (folder / "README.md").read_text()


def test_an_export_of_nothing_or_of_no_run_says_what_to_give(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(run.path)])
    assert "--out FOLDER" in capsys.readouterr().err
    shutil.rmtree(run.policy)
    assert main([str(run.path), "--out", str(tmp_path / "mine")]) == 2
    assert "no policy in" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_run_becomes_an_onnx_file(run: RunDirectory, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    assert main([str(run.path), "--onnx", str(tmp_path / "policy.onnx")]) == 0
    rows = np.random.default_rng(0).uniform(-1, 1, (1, 105)).astype(np.float32)
    (action,) = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx")).run(None, {"obs": rows})
    expected = load_policy(run.policy, environment=ENVIRONMENT).act(rows, None)
    np.testing.assert_allclose(action, expected, rtol=1e-5, atol=1e-6)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, make_output_format

from agents.callbacks import (
    VALIDATION_COLUMNS,
    ExplorationCallback,
    HyperparameterCallback,
    ProgressCallback,
    StepMetricsCallback,
    Validation,
    ValidationCallback,
    flatten,
)
from agents.export import load_policy, read_manifest
from agents.policy_estimator import PolicyEstimator
from agents.policy_setting import PolicySetting
from agents.ppo import PpoConfig, load_ppo, make_ppo
from agents.sb3_vec_env import Sb3VecEnv
from bwe_env.render import TIMELINE_COLUMNS, Timeline
from tests.agents.counting_env import CountingVectorEnv

ENVIRONMENT = "BandwidthEstimation-v0"
CONFIG = PpoConfig(num_envs=4, n_steps=8, batch_size=32, torch_threads=1)


def calls(reward: float) -> dict[str, np.ndarray]:
    columns = {name: np.array([1.0, 3.0, np.nan]) for name in VALIDATION_COLUMNS}
    return columns | {"mean_reward": np.array([reward, reward])}


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Any]:
    model = make_ppo(Sb3VecEnv(CountingVectorEnv(4, length=8)), CONFIG, seed=1)
    formats = [make_output_format(name, str(tmp_path)) for name in ("tensorboard", "csv")]
    model.set_logger(Logger(str(tmp_path), formats))
    yield model
    model.logger.close()


def read_scalars(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars | {f"image:{tag}": [] for tag in events.Tags()["images"]}


def validation_callback(folder: Path, rewards: list[float], **options: Any) -> ValidationCallback:
    remaining = iter(rewards)
    defaults: dict[str, Any] = {
        "every_steps": 64,
        "policy_directory": folder / "policy",
        "checkpoint": folder / "last.zip",
        "environment": ENVIRONMENT,
        "setting": PolicySetting(),
        "report": lambda line: None,
    }
    validation = Validation(run=lambda policy: calls(next(remaining)), gcc=lambda: calls(0.5))
    return ValidationCallback(validation, **(defaults | options))


def test_metrics_of_training_calls_go_to_bwe_and_terms_of_the_reward_to_reward(
    tmp_path: Path, model: Any
) -> None:
    model.learn(64, callback=StepMetricsCallback(), log_interval=1)
    scalars = read_scalars(tmp_path)
    # Calls of 8 steps and rollouts of 8 steps: each rollout sees steps 1…8 once.
    assert scalars["bwe/video_mos"] == pytest.approx([4.5, 4.5])
    assert scalars["reward/quality"] == pytest.approx([0.45, 0.45])
    assert scalars["bwe/queue_delay_ms"] == pytest.approx([50.0, 50.0])
    assert not any("time_s" in tag for tag in scalars)


def test_the_policy_with_the_best_validation_reward_is_kept_not_the_last(
    tmp_path: Path, model: Any
) -> None:
    callback = validation_callback(tmp_path, [0.1, 0.9, 0.3])
    model.learn(192, callback=callback)
    extra = read_manifest(tmp_path / "policy")["extra"]
    assert [row["steps"] for row in callback.history] == [64, 128, 192]
    assert extra == {"steps": 128, "validation_reward": 0.9}
    assert callback.best_reward == 0.9
    policy = load_policy(tmp_path / "policy", environment=ENVIRONMENT)
    now = PolicyEstimator.from_sb3(model.policy, setting=PolicySetting())
    rows = np.ones((2, 3), dtype=np.float32)
    assert not np.array_equal(policy.act(rows, np.zeros(2)), now.act(rows, np.zeros(2)))


def test_a_resumed_run_keeps_the_best_policy_of_its_first_part(tmp_path: Path, model: Any) -> None:
    model.learn(64, callback=validation_callback(tmp_path, [0.8]))
    model.learn(
        64,
        callback=validation_callback(tmp_path, [0.7], best_reward=0.8),
        reset_num_timesteps=False,
    )
    assert read_manifest(tmp_path / "policy")["extra"]["validation_reward"] == 0.8


def test_validation_tags_show_the_difference_to_gcc_on_the_same_calls(
    tmp_path: Path, model: Any
) -> None:
    model.learn(64, callback=validation_callback(tmp_path, [0.75]))
    scalars = read_scalars(tmp_path)
    assert scalars["validation/mean_reward"] == pytest.approx([0.75])
    assert scalars["validation_minus_gcc/mean_reward"] == pytest.approx([0.25])
    assert scalars["validation/utilisation"] == pytest.approx([2.0])
    assert scalars["validation_minus_gcc/utilisation"] == pytest.approx([0.0])


def test_every_validation_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, model: Any) -> None:
    model.learn(96, callback=validation_callback(tmp_path, [0.1, 0.2]))
    loaded = load_ppo(tmp_path / "last.zip", Sb3VecEnv(CountingVectorEnv(4)), CONFIG)
    assert loaded.num_timesteps == 96
    assert not (tmp_path / "last.tmp.zip").exists()


def test_the_report_says_reward_difference_and_whether_it_is_the_best(
    tmp_path: Path, model: Any
) -> None:
    lines: list[str] = []
    model.learn(128, callback=validation_callback(tmp_path, [0.75, 0.25], report=lines.append))
    assert lines == [
        "        64 steps: validation reward 0.7500/s (+0.2500 against GCC), best so far",
        "       128 steps: validation reward 0.2500/s (-0.2500 against GCC)",
    ]


def test_a_call_of_the_policy_is_drawn_into_tensorboard(tmp_path: Path, model: Any) -> None:
    timeline = Timeline("a network", duration_s=1.0, max_rate_bps=1e6)
    for i in range(1, 11):
        timeline.append(dict.fromkeys(TIMELINE_COLUMNS, 0.5) | {"time_s": 0.1 * i})
    callback = validation_callback(tmp_path, [0.1])
    callback._validation = Validation(
        run=lambda policy: calls(0.1), gcc=lambda: calls(0.5), timeline=lambda policy: timeline
    )
    model.learn(64, callback=callback)
    assert "image:call/timeline" in read_scalars(tmp_path)


def test_hyper_parameters_reach_the_hparams_tab(tmp_path: Path, model: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    model.learn(32, callback=HyperparameterCallback({"ppo": {"gamma": 0.98}, "seeds": [1, 2]}))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    content = events.PluginTagToContent(metadata.PLUGIN_NAME)[metadata.SESSION_START_INFO_TAG]
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["ppo.gamma"].number_value == 0.98
    assert start.hparams["seeds"].string_value == "[1, 2]"


def test_nested_options_are_flattened_with_dots() -> None:
    assert flatten({"a": 1, "b": {"c": True, "d": {"e": None}}}) == {
        "a": 1,
        "b.c": True,
        "b.d.e": "None",
    }


def test_without_a_terminal_progress_is_told_in_lines(
    model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model.learn(64, callback=ProgressCallback(64, line_every_s=0.0))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "32 of 64 steps" in lines[0]
    assert "64 of 64 steps" in lines[1]


def test_exploration_noise_falls_linearly_whatever_the_optimizer_does(model: Any) -> None:
    seen: list[float] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(float(self.model.policy.log_std[0]))
            return True

    model.learn(64, callback=[ExplorationCallback(-1.0, -3.0), Watch()])
    first_steps = seen[:: model.n_steps]
    expected = np.linspace(-1.0, -3.0, len(first_steps), endpoint=False)
    assert len(first_steps) >= 2
    np.testing.assert_allclose(first_steps, expected, atol=1e-6)

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, make_output_format

from agents.callbacks import (
    HPARAM_METRICS,
    PICTURE_HEIGHT,
    PICTURE_WIDTH,
    DescriptionCallback,
    ExplorationCallback,
    ProgressCallback,
    StepMetricsCallback,
    Validation,
    ValidationCallback,
    ValidationCalls,
    flatten,
    shown_calls,
    write_final_metrics,
)
from agents.export import load_policy, read_manifest
from agents.policy_estimator import PolicyEstimator
from agents.policy_setting import PolicySetting
from agents.ppo import PpoConfig, load_ppo, make_ppo
from agents.sb3_vec_env import Sb3VecEnv
from agents.tags import CALL_TAGS, explains, explanation
from bwe_env.render import TIMELINE_COLUMNS, Timeline, stacked
from tests.agents.counting_env import CountingVectorEnv

ENVIRONMENT = "BandwidthEstimation-v0"
CONFIG = PpoConfig(num_envs=4, n_steps=8, batch_size=32, torch_threads=1)


def calls(reward: float) -> dict[str, np.ndarray]:
    columns = {name: np.array([1.0, 3.0, np.nan]) for name in CALL_TAGS}
    return columns | {"mean_reward": np.array([reward, reward])}


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Any]:
    model = make_ppo(Sb3VecEnv(CountingVectorEnv(4, length=8)), CONFIG, seed=1)
    formats = [make_output_format(name, str(tmp_path)) for name in ("tensorboard", "csv")]
    model.set_logger(Logger(str(tmp_path), formats))
    yield model
    model.logger.close()


def read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def read_scalars(folder: Path) -> dict[str, list[float]]:
    events = read_events(folder)
    return {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def read_pictures(folder: Path) -> dict[str, list[np.ndarray]]:
    events = read_events(folder)
    return {
        tag: [np.array(Image.open(BytesIO(e.encoded_image_string))) for e in events.Images(tag)]
        for tag in events.Tags()["images"]
    }


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
    validation = Validation(
        run=lambda policy: ValidationCalls(columns=calls(next(remaining) if policy else 0.5))
    )
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


def test_the_calls_drawn_are_those_that_gain_least_middle_and_most_over_gcc() -> None:
    gcc = {"mean_reward": np.array([0.5, 0.9, 0.1, 0.4])}
    agent = {"mean_reward": np.array([0.6, 0.8, 0.6, 0.4])}  # +0.1, -0.1, +0.5, 0.0
    assert shown_calls(agent, gcc) == {"worst": 1, "median": 3, "best": 2}
    assert shown_calls({"mean_reward": np.ones(1)}, {"mean_reward": np.zeros(1)}) == {
        "worst": 0,
        "median": 0,
        "best": 0,
    }


def made_up_timeline(network: str, rate_bps: float) -> Timeline:
    timeline = Timeline(network, duration_s=1.0, max_rate_bps=1e6)
    for i in range(1, 11):
        row = dict.fromkeys(TIMELINE_COLUMNS, 0.5) | {"time_s": 0.1 * i}
        timeline.append(row | {"target_rate_bps": rate_bps})
    return timeline


def test_worst_median_and_best_call_are_drawn_with_the_agent_above_gcc(
    tmp_path: Path, model: Any
) -> None:
    names = np.array(["poor", "fair", "good"])

    def run(policy: PolicyEstimator | None) -> ValidationCalls:
        columns = {name: np.ones(3) for name in CALL_TAGS}
        columns["mean_reward"] = np.array([0.1, 0.2, 0.3]) if policy else np.zeros(3)
        columns |= {"network": names, "duration_s": np.ones(3)}
        rate_bps = 8e5 if policy else 2e5
        steps = [np.array([(rate_bps + call,)], dtype=[("rate", "f8")]) for call in range(3)]
        return ValidationCalls(columns=columns, steps=steps)

    def timeline(network: str, steps: np.ndarray) -> Timeline:
        return made_up_timeline(network, float(steps["rate"][0]))

    callback = validation_callback(tmp_path, [])
    callback._validation = Validation(run=run, timeline=timeline)
    model.learn(128, callback=callback)
    pictures = read_pictures(tmp_path)
    assert set(pictures) == {"call/worst", "call/median", "call/best"}
    for call, tag in enumerate(("worst", "median", "best")):
        agent = made_up_timeline(f"PPO: {names[call]}", 8e5 + call)
        gcc = made_up_timeline(f"GCC: {names[call]}", 2e5 + call)
        expected = stacked([agent, gcc], PICTURE_WIDTH, PICTURE_HEIGHT)
        assert len(pictures[f"call/{tag}"]) == 2
        assert all(np.array_equal(picture, expected) for picture in pictures[f"call/{tag}"])


def test_terms_of_the_reward_are_summed_over_calls_per_scheduled_second() -> None:
    # Two calls of 10 s; the second dropped after one interval.
    names = [("reward", "f8"), ("reward_quality", "f8"), ("reward_rate_change", "f8")]
    steps = [
        np.array([(2.0, 4.0, -2.0), (3.0, 4.0, -1.0)], dtype=names),
        np.array([(-1.0, 0.0, -1.0)], dtype=names),
    ]
    columns = {"duration_s": np.array([10.0, 10.0]), "mean_reward": np.array([0.5, -0.1])}
    terms = ValidationCalls(columns=columns, steps=steps).reward_terms()
    assert terms == {"quality": pytest.approx(0.4), "rate_change": pytest.approx(-0.2)}
    assert sum(terms.values()) == pytest.approx(columns["mean_reward"].mean())


def test_terms_of_the_validation_reward_stand_beside_their_difference_to_gcc(
    tmp_path: Path, model: Any
) -> None:
    def run(policy: PolicyEstimator | None) -> ValidationCalls:
        steps = np.array(
            [(0.75 if policy else 0.5, -0.25)],
            dtype=[("reward_quality", "f8"), ("reward_delay", "f8")],
        )
        columns = calls(0.5) | {"duration_s": np.ones(1)}
        return ValidationCalls(columns=columns, steps=[steps])

    callback = validation_callback(tmp_path, [])
    callback._validation = Validation(run=run)
    model.learn(64, callback=callback)
    scalars = read_scalars(tmp_path)
    assert scalars["validation_reward/quality"] == [0.75]
    assert scalars["validation_reward/delay"] == [-0.25]
    assert scalars["validation_reward_minus_gcc/quality"] == [0.25]
    assert scalars["validation_reward_minus_gcc/delay"] == [0.0]


def test_hyper_parameters_reach_the_hparams_tab_with_the_names_of_their_final_metrics(
    tmp_path: Path, model: Any
) -> None:
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    model.learn(32, callback=DescriptionCallback({"ppo": {"gamma": 0.98}, "seeds": [1, 2]}))
    content = read_events(tmp_path).PluginTagToContent(metadata.PLUGIN_NAME)
    start, experiment = (
        plugin_data_pb2.HParamsPluginData.FromString(content[tag])
        for tag in (metadata.SESSION_START_INFO_TAG, metadata.EXPERIMENT_TAG)
    )
    assert start.session_start_info.hparams["ppo.gamma"].number_value == 0.98
    assert start.session_start_info.hparams["seeds"].string_value == "[1, 2]"
    named = {info.name.tag for info in experiment.experiment.metric_infos}
    assert named == set(HPARAM_METRICS)
    for column in ("call_score", "freeze_ratio", "one_way_delay_ms_p95"):
        assert {f"test/{column}", f"test_minus_gcc/{column}"} <= named
    # Only named so far: a value of 0 would be mistaken for a result.
    assert not set(HPARAM_METRICS) & set(read_scalars(tmp_path))


def test_final_metrics_are_means_over_calls_and_differences_to_gcc_at_the_policys_step(
    tmp_path: Path,
) -> None:
    agent = {name: np.array([1.0, 3.0, np.nan]) for name in CALL_TAGS}
    gcc = {name: np.array([0.5, 0.5, 0.5]) for name in CALL_TAGS}
    write_final_metrics(tmp_path, agent, gcc, steps=4096)
    events = read_events(tmp_path)
    for column in CALL_TAGS:
        (value,), (difference,) = (
            events.Scalars(f"{group}/{column}") for group in ("test", "test_minus_gcc")
        )
        assert (value.step, value.value) == (4096, 2.0)
        assert (difference.step, difference.value) == (4096, 1.5)
    assert set(events.Tags()["scalars"]) == {
        tag for tag in HPARAM_METRICS if tag.startswith("test")
    }


def test_a_text_panel_says_what_each_tag_means(tmp_path: Path, model: Any) -> None:
    model.learn(32, callback=DescriptionCallback({}))
    (event,) = read_events(tmp_path).Tensors("about/tags/text_summary")
    (text,) = event.tensor_proto.string_val
    assert text.decode() == explanation()


def test_every_tag_that_can_be_sorted_by_is_explained_and_made_up_ones_are_not() -> None:
    assert all(explains(tag) for tag in HPARAM_METRICS)
    for tag in ("bwe/rtt_ms", "reward/drop", "call/best", "train/std", "validation_reward/loss"):
        assert explains(tag)
    for tag in ("bwe/no_such", "reward/NAME", "call/timeline", "validation/drop", "test/…", "x"):
        assert not explains(tag)


def test_the_explanation_is_made_of_whole_tables_of_two_columns() -> None:
    for line in explanation().splitlines():
        assert line == "" or line.count("|") == 3


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
            seen.append(float(self.model.policy.log_std[0].detach()))
            return True

    model.learn(64, callback=[ExplorationCallback(-1.0, -3.0), Watch()])
    first_steps = seen[:: model.n_steps]
    expected = np.linspace(-1.0, -3.0, len(first_steps), endpoint=False)
    assert len(first_steps) >= 2
    np.testing.assert_allclose(first_steps, expected, atol=1e-6)

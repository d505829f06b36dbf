"""Network models: shapes, artifacts, and the same answers online as on records."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from agents.network_model import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    NetworkModel,
    NetworkModelConfig,
    export_onnx,
    load_network_model,
    save_network_model,
)
from agents.network_tasks import TASKS, task_of, window_of
from agents.online_models import OnlineModels, follow_log
from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError
from bwe_env.labels import ELIGIBLE_LOST_PACKETS
from bwe_env.network_features import NUM_DENSE, NUM_SERIES, call_features, series_windows
from bwe_env.observation import NUM_FEATURES
from bwe_env.rollout import record_calls, run_calls, run_series
from bwe_env.telemetry import TELEMETRY
from bwe_env.trace import networks
from bwe_env.vector_env import BandwidthEstimationVectorEnv

SHORT = CallConfig(duration_s=6.0)


def model_of(*tasks: str, seed: int = 0, inputs: str = "both") -> NetworkModel:
    torch.manual_seed(seed)
    return NetworkModel(NetworkModelConfig(tasks=tasks, inputs=inputs)).eval()


@pytest.fixture(scope="module")
def some_networks():
    return networks("validation", count=6)


@pytest.fixture(scope="module")
def recorded(some_networks):
    return list(record_calls(some_networks, "gcc", call=SHORT))


# --- The model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", ["both", "series", "dense"])
def test_probabilities_of_every_task_are_probabilities(inputs):
    model = model_of(*TASKS, inputs=inputs)
    generator = torch.Generator().manual_seed(1)
    series = torch.randn(7, model.config.window_bins, NUM_SERIES, generator=generator)
    outputs = model(series, torch.randn(7, NUM_DENSE, generator=generator))
    assert outputs.shape == (7, len(model.config.outputs))
    assert ((outputs >= 0.0) & (outputs <= 1.0)).all()
    types = [name.startswith("network_type:") for name in model.config.outputs]
    assert torch.allclose(outputs[:, types].sum(dim=1), torch.ones(7))


def test_inputs_that_are_left_out_change_nothing():
    series = torch.randn(3, 100, NUM_SERIES)
    dense = torch.randn(3, NUM_DENSE)
    only_series, only_dense = (model_of("random_loss", inputs=i) for i in ("series", "dense"))
    assert torch.equal(only_series(series, dense), only_series(series, dense + 1.0))
    assert torch.equal(only_dense(series, dense), only_dense(series + 1.0, dense))


def test_the_time_series_becomes_a_vector_of_16():
    assert model_of("random_loss").lstm.hidden_size == 16


def test_a_model_sees_what_its_most_curious_task_needs():
    assert window_of(["congestion"]) == 40
    assert window_of(["congestion", "random_loss"]) == 100
    assert task_of("network_type").outputs[0] == "network_type:cellular-low"
    with pytest.raises(UnknownNameError, match="random_loss"):
        task_of("random_los")


def test_calibration_is_part_of_the_probabilities():
    model = model_of("random_loss")
    series, dense = torch.randn(4, 100, NUM_SERIES), torch.randn(4, NUM_DENSE)
    logits = model.logits(series, dense)["random_loss"]
    model.scale[0], model.offset[0] = 2.0, -0.5
    assert torch.allclose(model(series, dense), torch.sigmoid(2.0 * logits - 0.5))


@pytest.mark.parametrize("tasks", [(), ("congestion", "congestion")])
def test_no_task_or_one_twice_is_refused(tasks):
    with pytest.raises(ConfigError, match="one task or several different ones"):
        NetworkModelConfig(tasks=tasks)


# --- Artifacts ------------------------------------------------------------------------------------


def test_a_saved_model_answers_as_before(tmp_path):
    model = model_of(*TASKS)
    model.scale[1], model.offset[0] = 1.7, 0.3
    save_network_model(tmp_path, model, extra={"seed": 3})
    loaded = load_network_model(tmp_path)
    series, dense = torch.randn(5, 100, NUM_SERIES), torch.randn(5, NUM_DENSE)
    assert torch.equal(model(series, dense), loaded(series, dense))
    assert json.loads((tmp_path / MANIFEST_FILE).read_text())["extra"] == {"seed": 3}


def test_a_model_saved_twice_is_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_network_model(tmp_path / name, model_of("congestion"))
    for file in (WEIGHTS_FILE, MANIFEST_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def change(folder, **values):
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "something else"}, "has format 'something else'"),
        ({"features_version": 99}, "version 99 of the features.*Train anew"),
        ({"sha256": "0" * 64}, "is damaged: its SHA-256"),
        ({"config": {"tasks": ["random_loss"], "shared_units": 3}}, "do not fit"),
        ({"config": {"tasks": ["nonsense"]}}, "do not fit.*nonsense"),
    ],
)
def test_an_artifact_that_is_not_what_it_says_is_refused(tmp_path, values, message):
    save_network_model(tmp_path, model_of("random_loss"))
    change(tmp_path, **values)
    with pytest.raises(ArtifactError, match=message):
        load_network_model(tmp_path)


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path):
    with pytest.raises(ArtifactError, match=r"no network model in.*experiments\.fit"):
        load_network_model(tmp_path)


def test_onnx_answers_as_the_model_does(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    model = model_of(*TASKS)
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    series = np.random.default_rng(0).normal(size=(3, 100, NUM_SERIES)).astype(np.float32)
    dense = np.random.default_rng(1).normal(size=(3, NUM_DENSE)).astype(np.float32)
    [answer] = session.run(None, {"series": series, "dense": dense})
    expected = model(torch.from_numpy(series), torch.from_numpy(dense)).detach().numpy()
    assert np.allclose(answer, expected, atol=1e-5)  # another order of sums


# --- Online ---------------------------------------------------------------------------------------


def test_a_model_over_a_record_says_what_it_says_of_each_window(recorded):
    model = model_of("network_type")
    telemetry = recorded[1].telemetry
    said = follow_log(OnlineModels([model]), telemetry)
    at = np.arange(len(telemetry))
    series, dense = call_features(telemetry, at, window_bins=100)
    windows = series_windows(series, at, window_bins=100)
    expected = model(torch.from_numpy(windows), torch.from_numpy(dense)).detach().numpy()
    assert np.allclose(said, expected, atol=1e-6)  # another batch size sums in another order


def test_questions_about_loss_have_the_answer_0_while_nothing_is_lost(recorded):
    models = OnlineModels([model_of("random_loss"), model_of("congestion")])
    seen = set()
    for call in recorded:
        said = follow_log(models, call.telemetry)
        lost = np.convolve(call.telemetry["lost_packets"], np.ones(10))[: len(said)]
        is_losing = lost >= ELIGIBLE_LOST_PACKETS
        assert (said[~is_losing, 0] == 0.0).all()
        assert (said[is_losing, 0] > 0.0).all()
        assert (said[:, 1] > 0.0).all()
        seen |= set(is_losing.tolist())
    assert seen == {False, True}


def test_models_in_calls_say_what_they_say_over_their_records(some_networks, recorded):
    models = OnlineModels([model_of(*TASKS)])
    calls = list(record_calls(some_networks, "gcc", call=SHORT, network_models=models))
    for call, without in zip(calls, recorded, strict=True):
        assert np.array_equal(call.telemetry, without.telemetry, equal_nan=False) or all(
            np.array_equal(call.telemetry[n], without.telemetry[n], equal_nan=True)
            for n in TELEMETRY.names
        )
        said = follow_log(models, call.telemetry)
        assert np.allclose(call.probabilities, said, atol=1e-6)


@pytest.mark.parametrize("interval_s", [0.05, 1.0])
def test_a_log_with_bins_of_another_length_is_refused(interval_s):
    rows = np.zeros(30, dtype=TELEMETRY)
    rows["time_s"] = interval_s * np.arange(1, 31)
    with pytest.raises(ConfigError, match=f"bin 0 lasts {interval_s:g} s"):
        follow_log(OnlineModels([model_of("congestion")]), rows)


def test_a_log_that_begins_within_a_call_or_lacks_bins_is_refused():
    models = OnlineModels([model_of("congestion")])
    rows = np.zeros(30, dtype=TELEMETRY)
    rows["time_s"] = np.float32(0.1) * np.arange(1, 31)
    with pytest.raises(ConfigError, match=r"bin 0 lasts 1\.1 s"):
        follow_log(models, rows[10:])
    with pytest.raises(ConfigError, match=r"bin 9 lasts 0\.2 s"):
        follow_log(models, np.delete(rows, 9))
    rows["time_s"][-1] += 0.4
    with pytest.raises(ConfigError, match=r"bin 29 lasts 0\.5 s"):
        follow_log(models, rows)


def test_a_log_that_cannot_tell_what_was_lost_is_refused():
    rows = np.zeros(30, dtype=TELEMETRY)
    rows["time_s"] = 0.1 * np.arange(1, 31)
    rows["lost_packets"][4] = np.nan
    with pytest.raises(ConfigError, match="lost_packets of bin 4 is not known"):
        follow_log(OnlineModels([model_of("congestion")]), rows)


def test_two_models_with_one_output_are_refused():
    with pytest.raises(ConfigError, match="answer the same question"):
        OnlineModels([model_of("congestion"), model_of("congestion", "random_loss")])
    with pytest.raises(ConfigError, match="at least one"):
        OnlineModels([])


# --- In the environment ---------------------------------------------------------------------------


def make_env(some_networks, num_envs: int, **options) -> BandwidthEstimationVectorEnv:
    models = OnlineModels([model_of("random_loss", "congestion")])
    return BandwidthEstimationVectorEnv(
        num_envs, networks=some_networks, call=SHORT, network_models=models, **options
    )


def test_intervals_that_models_do_not_know_are_refused(some_networks):
    models = OnlineModels([model_of("congestion")])
    call = CallConfig(duration_s=6.0, interval_s=0.06)
    with pytest.raises(ConfigError, match=r"interval_s=0\.06"):
        BandwidthEstimationVectorEnv(2, networks=some_networks, call=call, network_models=models)
    with pytest.raises(ConfigError, match=r"interval_s=0\.06"):
        run_calls(some_networks, "gcc", call=call, network_models=models)
    with pytest.raises(ConfigError, match=r"interval_s=0\.06"):
        run_series(some_networks[0], "gcc", call=call, network_models=models)


def test_what_models_say_stands_behind_the_features_of_each_interval(some_networks):
    env = make_env(some_networks, 3)
    plain = BandwidthEstimationVectorEnv(3, networks=some_networks, call=SHORT)
    width = NUM_FEATURES + 2
    assert env.single_observation_space.shape == (10 * width,)
    observation, _ = env.reset(seed=4)
    base, _ = plain.reset(seed=4)
    shown = observation.reshape(3, 10, width)
    assert (shown[:, :, NUM_FEATURES:] == -1.0).all()  # probability 0 before the first interval
    history = []
    for _ in range(30):
        action = np.full((3, 1), 0.3)
        observation, *_ = env.step(action)
        base, *_ = plain.step(action)
        shown = observation.reshape(3, 10, width)
        assert np.array_equal(shown[:, :, :NUM_FEATURES], base.reshape(3, 10, NUM_FEATURES))
        history.append(shown[:, -1, NUM_FEATURES:])
        assert env.observation_space.contains(observation)
    assert np.array_equal(shown[:, :, NUM_FEATURES:], np.stack(history[-10:], axis=1))
    assert (np.stack(history)[:, :, 1] > -1.0).all()


def test_a_sub_environment_with_models_is_the_single_one(some_networks):
    env = make_env(some_networks, 3)
    alone = make_env(some_networks, 1)
    together, _ = env.reset(seed=9)
    single, _ = alone.reset(seed=11)
    assert np.array_equal(together[2], single[0])
    for _ in range(20):
        together, *_ = env.step(np.full((3, 1), -0.2))
        single, *_ = alone.step(np.full((1, 1), -0.2))
        assert np.allclose(together[2], single[0], atol=1e-6)  # sums of a batch


def test_a_call_that_begins_anew_forgets_what_the_models_had_seen(some_networks):
    env = make_env(some_networks, 2, autoreset_mode="same_step")
    first, _ = env.reset(seed=5)
    over = np.zeros(2, dtype=np.bool_)
    while not over.any():
        first, _, terminated, truncated, info = env.step(np.zeros((2, 1)))
        over = terminated | truncated
    newest = first.reshape(2, 10, -1)[:, :, NUM_FEATURES:]
    assert (newest[over] == -1.0).all()
    last = info["final_obs"][int(np.flatnonzero(over)[0])].reshape(10, -1)
    assert (last[:, NUM_FEATURES + 1] > -1.0).all()


def test_an_environment_with_models_can_be_pickled(some_networks):
    env = make_env(some_networks, 2)
    env.reset(seed=1)
    copied = pickle.loads(pickle.dumps(env))
    action = np.zeros((2, 1))
    for _ in range(5):
        assert np.array_equal(env.step(action)[0], copied.step(action)[0])


class _Watching:
    """A policy that keeps what it is shown."""

    action_mode = "rate"

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def reset(self, num_envs: int) -> None:
        self.seen.clear()

    def act(self, observation, truth):
        self.seen.append(observation)
        return np.zeros((len(observation), 1), dtype=np.float32)


def test_policies_in_rollouts_are_shown_what_models_say(some_networks):
    policy = _Watching()
    models = OnlineModels([model_of("congestion")])
    run_calls(some_networks[:2], policy, call=SHORT, seeds=(0,), network_models=models)
    assert policy.seen[0].shape == (2, 10 * (NUM_FEATURES + 1))
    assert (policy.seen[-1].reshape(2, 10, -1)[:, -1, NUM_FEATURES] > -1.0).all()

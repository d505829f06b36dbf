from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.export import load_policy, save_policy
from agents.policy_estimator import BATCH_ROWS, MlpArchitecture, PolicyEstimator
from agents.policy_setting import PolicySetting
from agents.ppo import PpoConfig, make_ppo
from agents.sb3_vec_env import Sb3VecEnv
from bwe_env.errors import ArtifactError
from tests.agents.counting_env import CountingVectorEnv

ENVIRONMENT = "BandwidthEstimation-v0"


@pytest.fixture
def policy() -> PolicyEstimator:
    torch.manual_seed(3)
    architecture = MlpArchitecture(inputs=40, hidden_sizes=(64, 64), outputs=1)
    return PolicyEstimator(architecture.build(), architecture, setting=PolicySetting())


def observations(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-3, 3, (rows, 40)).astype(np.float32)


def act(policy: PolicyEstimator, rows: np.ndarray) -> np.ndarray:
    return policy.act(rows, np.zeros(len(rows)))


def test_a_calls_actions_are_the_same_bits_whoever_runs_beside_it(policy: PolicyEstimator) -> None:
    rows = observations(3 * BATCH_ROWS + 7)
    together = act(policy, rows)
    alone = np.concatenate([act(policy, rows[i : i + 1]) for i in range(len(rows))])
    shuffle = np.random.default_rng(1).permutation(len(rows))
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[shuffle], act(policy, rows[shuffle]))


def test_actions_are_finite_float32_in_the_box(policy: PolicyEstimator) -> None:
    actions = act(policy, observations(10) * 1e4)
    assert actions.dtype == np.float32
    assert actions.shape == (10, 1)
    assert np.abs(actions).max() <= 1.0


def test_a_policy_comes_back_from_disk_bit_for_bit(policy: PolicyEstimator, tmp_path: Path) -> None:
    save_policy(tmp_path, policy, environment=ENVIRONMENT, extra={"steps": 5})
    loaded = load_policy(tmp_path, environment=ENVIRONMENT)
    rows = observations(9)
    np.testing.assert_array_equal(act(policy, rows), act(loaded, rows))
    assert loaded.setting == policy.setting
    assert loaded.architecture == policy.architecture
    assert json.loads((tmp_path / "policy.json").read_text())["extra"] == {"steps": 5}


def test_the_actor_taken_from_sb3_acts_as_its_deterministic_prediction_and_is_a_copy() -> None:
    env = Sb3VecEnv(CountingVectorEnv(4))
    config = PpoConfig(num_envs=4, n_steps=8, batch_size=32, hidden_sizes=(16, 8))
    model = make_ppo(env, config, seed=1)
    estimator = PolicyEstimator.from_sb3(model.policy, setting=PolicySetting())
    rows = np.random.default_rng(2).uniform(0, 2, (5, 3)).astype(np.float32)
    before = estimator.act(rows, np.zeros(5))
    expected, _ = model.predict(rows, deterministic=True)
    # Another batch size rounds the last bits otherwise.
    np.testing.assert_allclose(before, expected, rtol=1e-5, atol=1e-6)
    assert estimator.architecture.hidden_sizes == (16, 8)
    model.learn(64)
    np.testing.assert_array_equal(before, estimator.act(rows, np.zeros(5)))
    assert not np.allclose(before, model.predict(rows, deterministic=True)[0])


def test_a_policy_of_another_environment_version_is_refused(
    policy: PolicyEstimator, tmp_path: Path
) -> None:
    save_policy(tmp_path, policy, environment=ENVIRONMENT)
    with pytest.raises(ArtifactError, match=r"trained in .*-v0.*this is .*-v1.*Train anew"):
        load_policy(tmp_path, environment="BandwidthEstimation-v1")


def test_weights_that_do_not_match_their_digest_are_refused(
    policy: PolicyEstimator, tmp_path: Path
) -> None:
    save_policy(tmp_path, policy, environment=ENVIRONMENT)
    weights = bytearray((tmp_path / "policy.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "policy.safetensors").write_bytes(bytes(weights))
    with pytest.raises(ArtifactError, match="damaged: its SHA-256"):
        load_policy(tmp_path, environment=ENVIRONMENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "bwe-env policy 99"}, "has format"),
        ({"architecture": "pickle"}, "allowed: mlp"),
        ({"mlp": {"inputs": 41, "hidden_sizes": [64, 64], "outputs": 1}}, "do not fit"),
        ({"mlp": {"inputs": 40, "hidden_sizes": [64, 64], "outputs": 1, "run": "x"}}, "do not fit"),
        ({"mlp": {"inputs": 40, "hidden_sizes": [64], "outputs": 1, "activation": "exec"}}, "tanh"),
        ({"mlp": {"inputs": -1, "hidden_sizes": [64], "outputs": 1}}, "layer sizes"),
    ],
)
def test_a_manifest_outside_the_allow_list_is_refused(
    policy: PolicyEstimator, tmp_path: Path, change: dict, message: str
) -> None:
    save_policy(tmp_path, policy, environment=ENVIRONMENT)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=message):
        load_policy(tmp_path, environment=ENVIRONMENT)


@pytest.mark.parametrize("content", [None, "not json", "[1]"])
def test_a_folder_without_a_readable_policy_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "policy.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"no policy in|damaged|has format"):
        load_policy(tmp_path, environment=ENVIRONMENT)


def test_observations_of_another_length_are_refused(policy: PolicyEstimator) -> None:
    with pytest.raises(ArtifactError, match="length 40, these have 41"):
        policy.act(np.zeros((2, 41), dtype=np.float32), np.zeros(2))


@pytest.mark.parametrize("change", [{"hidden_sizes": ["x"]}, {"outputs": -1}, {"inputs": "many"}])
def test_a_manifest_that_makes_no_network_is_refused(
    policy: PolicyEstimator, tmp_path: Path, change: dict[str, object]
) -> None:
    save_policy(tmp_path, policy, environment=ENVIRONMENT)
    manifest = json.loads((tmp_path / "policy.json").read_text())
    manifest["mlp"] |= change
    (tmp_path / "policy.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError):
        load_policy(tmp_path, environment=ENVIRONMENT)

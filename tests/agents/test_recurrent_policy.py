from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from agents.export import load_policy, save_policy
from agents.lstm_policy import FastLstmPolicy
from agents.policy_estimator import BATCH_ROWS, PolicyEstimator
from agents.policy_setting import PolicySetting
from agents.ppo import PpoConfig, estimator_of, load_ppo, make_ppo
from agents.recurrent_policy import LstmArchitecture, RecurrentPolicyEstimator
from agents.sb3_vec_env import Sb3VecEnv
from bwe_env.errors import ActionError, ArtifactError
from tests.agents.counting_env import CountingVectorEnv

ENVIRONMENT = "BandwidthEstimation-v0"
CONFIG = PpoConfig(
    num_envs=4, n_steps=8, batch_size=32, hidden_sizes=(16, 8), memory="lstm", lstm_size=12
)


@pytest.fixture
def policy() -> RecurrentPolicyEstimator:
    torch.manual_seed(3)
    architecture = LstmArchitecture(inputs=21, lstm_size=32, hidden_sizes=(24,), outputs=1)
    return RecurrentPolicyEstimator(architecture.build(), architecture, setting=PolicySetting())


def observations(steps: int, calls: int, width: int = 21) -> np.ndarray:
    shape = (steps, calls, width)
    return np.random.default_rng(0).uniform(-3, 3, shape).astype(np.float32)


def play(policy: PolicyEstimator, series: np.ndarray) -> np.ndarray:
    """Actions of whole calls, shape (steps, calls, 1)."""
    policy.reset(series.shape[1])
    return np.stack([policy.act(rows, None) for rows in series])


def test_a_calls_actions_are_the_same_bits_whoever_runs_beside_it(
    policy: RecurrentPolicyEstimator,
) -> None:
    series = observations(6, BATCH_ROWS + 7)
    together = play(policy, series)
    for call in (0, 5, BATCH_ROWS - 1, BATCH_ROWS, BATCH_ROWS + 6):
        np.testing.assert_array_equal(together[:, call], play(policy, series[:, [call]])[:, 0])
    shuffle = np.random.default_rng(1).permutation(series.shape[1])
    np.testing.assert_array_equal(together[:, shuffle], play(policy, series[:, shuffle]))


def test_what_came_before_changes_the_action_until_the_call_ends(
    policy: RecurrentPolicyEstimator,
) -> None:
    series = observations(3, 2)
    fresh = play(policy, series[2:])
    assert not np.allclose(play(policy, series)[2], fresh[0])
    np.testing.assert_array_equal(play(policy, series[2:]), fresh)


def test_a_restarted_call_begins_anew_and_the_others_go_on(
    policy: RecurrentPolicyEstimator,
) -> None:
    series = observations(3, 2)
    whole = play(policy, series)
    fresh = play(policy, series[2:])
    policy.reset(2)
    policy.act(series[0], None)
    policy.act(series[1], None)
    policy.restart(1)
    last = policy.act(series[2], None)
    np.testing.assert_array_equal(last[0], whole[2, 0])
    np.testing.assert_array_equal(last[1], fresh[0, 1])


def test_another_number_of_calls_than_reset_was_told_is_refused(
    policy: RecurrentPolicyEstimator,
) -> None:
    policy.reset(3)
    with pytest.raises(ActionError, match=r"2 observations for 3 calls.*reset\(2\)"):
        policy.act(observations(1, 2)[0], None)


def test_the_actor_taken_from_training_acts_as_its_deterministic_prediction_and_is_a_copy() -> None:
    model = make_ppo(Sb3VecEnv(CountingVectorEnv(4)), CONFIG, seed=1)
    assert isinstance(model, RecurrentPPO)
    estimator = estimator_of(model.policy, setting=PolicySetting())
    assert isinstance(estimator, RecurrentPolicyEstimator)
    series = observations(4, 5, width=3)
    before = play(estimator, series)
    state = None
    for step, rows in enumerate(series):
        starts = np.full(5, step == 0)
        expected, state = model.predict(rows, state=state, episode_start=starts, deterministic=True)
        # Another batch size rounds the last bits otherwise.
        np.testing.assert_allclose(before[step], expected, rtol=1e-5, atol=1e-6)
    model.learn(64)
    np.testing.assert_array_equal(before, play(estimator, series))
    assert not np.allclose(
        before, play(estimator_of(model.policy, setting=PolicySetting()), series)
    )


def test_whole_sequences_give_what_the_library_computes_interval_by_interval() -> None:
    torch.manual_seed(5)
    lstm = torch.nn.LSTM(3, 7)
    features = torch.randn(4 * 6, 3)
    states = (torch.randn(1, 4, 7), torch.randn(1, 4, 7))
    at_front = torch.zeros(4, 6)
    at_front[[0, 2], 0] = 1.0
    within = at_front.clone()
    within[1, 3] = 1.0
    for starts in (torch.zeros(4, 6), at_front, within):
        arguments = (features, states, starts.flatten(), lstm)
        ours, our_state = FastLstmPolicy._process_sequence(*arguments)
        theirs, their_state = RecurrentActorCriticPolicy._process_sequence(*arguments)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(our_state, their_state)


def test_sequences_of_a_rollout_begin_calls_at_their_front_only() -> None:
    env = Sb3VecEnv(CountingVectorEnv(4, length=5, drop_at=3), stagger_steps=5)
    model = make_ppo(env, CONFIG, seed=1)
    model.learn(32)
    for batch in model.rollout_buffer.get(CONFIG.batch_size):
        starts = batch.episode_starts.reshape(batch.lstm_states.pi[0].shape[1], -1)
        assert starts[:, 0].sum() > 4
        assert not starts[:, 1:].any()


def test_the_ratio_of_the_first_update_is_one() -> None:
    """The states kept with a rollout are those with which it was played."""
    env = Sb3VecEnv(CountingVectorEnv(4, length=5), stagger_steps=5)
    model = make_ppo(env, CONFIG, seed=1)
    _, callback = model._setup_learn(32)
    model.collect_rollouts(env, callback, model.rollout_buffer, CONFIG.n_steps)
    for batch in model.rollout_buffer.get(CONFIG.batch_size):
        assert isinstance(batch.lstm_states, RNNStates)
        _, log_prob, _ = model.policy.evaluate_actions(
            batch.observations, batch.actions, batch.lstm_states, batch.episode_starts
        )
        real = batch.mask > 0.5
        torch.testing.assert_close(log_prob[real], batch.old_log_prob[real], rtol=1e-4, atol=1e-5)


def test_a_saved_recurrent_agent_goes_on_with_its_weights_optimizer_and_count(
    tmp_path: Path,
) -> None:
    model = make_ppo(Sb3VecEnv(CountingVectorEnv(4)), CONFIG, seed=1)
    model.learn(64)
    model.save(tmp_path / "last.zip")
    loaded = load_ppo(tmp_path / "last.zip", Sb3VecEnv(CountingVectorEnv(4)), CONFIG)
    assert loaded.num_timesteps == 64
    assert loaded.policy.optimizer.state_dict()["step"] == 2 * CONFIG.n_epochs
    weights = loaded.policy.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in model.policy.state_dict().items())
    loaded.learn(32, reset_num_timesteps=False)
    assert loaded.num_timesteps == 96


def test_a_recurrent_policy_comes_back_from_disk_bit_for_bit(
    policy: RecurrentPolicyEstimator, tmp_path: Path
) -> None:
    save_policy(tmp_path, policy, environment=ENVIRONMENT)
    loaded = load_policy(tmp_path, environment=ENVIRONMENT)
    series = observations(4, 9)
    np.testing.assert_array_equal(play(policy, series), play(loaded, series))
    assert isinstance(loaded, RecurrentPolicyEstimator)
    assert loaded.architecture == policy.architecture


SHAPE = {"inputs": 21, "lstm_size": 32, "hidden_sizes": [24], "outputs": 1, "activation": "tanh"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "mlp"}, "do not fit"),
        ({"architecture": "gru"}, "allowed: mlp, lstm"),
        ({"lstm": SHAPE | {"lstm_size": 33}}, "do not fit"),
        ({"lstm": SHAPE | {"run": "x"}}, "do not fit"),
        ({"lstm": SHAPE | {"lstm_size": 10**9}}, r"1\.\.4096"),
        ({"lstm": SHAPE | {"inputs": "exec"}}, "whole number"),
        ({"lstm": SHAPE | {"activation": "exec"}}, "tanh"),
    ],
)
def test_a_recurrent_manifest_outside_the_allow_list_is_refused(
    policy: RecurrentPolicyEstimator, tmp_path: Path, change: dict, message: str
) -> None:
    save_policy(tmp_path, policy, environment=ENVIRONMENT)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=message):
        load_policy(tmp_path, environment=ENVIRONMENT)

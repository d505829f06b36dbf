"""The environment's contract with Gymnasium, Stable-Baselines3 and its own vector form."""

from __future__ import annotations

import copy
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import bwe_env
from bwe_env.action import CONFIG_PARAMETERS, rate_to_action
from bwe_env.config import (
    CallConfig,
    FecConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    OnOffTraffic,
    PathConfig,
    RelayConfig,
    TcpTraffic,
    VideoConfig,
)
from bwe_env.errors import ActionError, BweEnvError, ConfigError, UnknownNameError
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.observation import FEATURES, NUM_FEATURES
from bwe_env.trace import constant, networks, square, step
from bwe_env.truth import GroundTruth
from bwe_env.vector_env import INFO_KEYS, BandwidthEstimationVectorEnv

ID = "BandwidthEstimation-v0"
SHORT = CallConfig(duration_s=6.0)


@pytest.fixture(scope="module")
def some_networks() -> list[Network]:
    return networks("validation", count=12)


def random_actions(steps: int, num_envs: int) -> np.ndarray:
    generator = np.random.default_rng(5)
    return generator.uniform(-1.0, 1.0, (steps, num_envs, 1)).astype(np.float32)


@pytest.mark.parametrize("action_mode", ["rate", "scale"])
def test_gymnasium_check_env_passes_without_a_warning(some_networks, action_mode):
    env = gymnasium.make(
        ID, networks=some_networks, action_mode=action_mode, render_mode="rgb_array"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_sb3_check_env_passes_without_a_warning(some_networks):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gymnasium.make(ID, networks=some_networks).unwrapped)


def test_make_vec_gives_the_native_vector_environment(some_networks):
    env = gymnasium.make_vec(ID, num_envs=3, networks=some_networks)
    assert isinstance(env.unwrapped, BandwidthEstimationVectorEnv)
    assert env.num_envs == 3
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    env.close()
    env.close()


def test_the_module_prefixed_id_registers_by_itself(some_networks):
    env = gymnasium.make(f"bwe_env:{ID}", networks=some_networks)
    assert env.spec is not None
    assert env.spec.max_episode_steps is None


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("action_mode", ["rate", "scale"])
def test_sub_env_i_is_the_single_env_seeded_s_plus_i_bit_for_bit(
    some_networks, num_threads, action_mode
):
    seed, num_envs = 7, 5
    arguments = {"networks": some_networks, "call": SHORT, "action_mode": action_mode}
    vector = BandwidthEstimationVectorEnv(num_envs, num_threads=num_threads, **arguments)
    actions = random_actions(130, num_envs)
    observation, info = vector.reset(seed=seed)
    rows = [(observation, np.zeros(num_envs), np.zeros(num_envs, bool), info)]
    for action in actions:
        observation, reward, terminated, truncated, info = vector.step(action)
        rows.append((observation, reward, terminated | truncated, info))
    assert sum(row[2].sum() for row in rows) == 2 * num_envs  # 60 steps and a reset, twice
    for i in range(num_envs):
        single = gymnasium.make(ID, **arguments)
        observation, info = single.reset(seed=seed + i)
        reward, is_over = 0.0, False
        for position, (observations, rewards, overs, infos) in enumerate(rows):
            if position > 0 and is_over:  # the vector env spends a step on its reset
                observation, info = single.reset()
                reward, is_over = 0.0, False
            elif position > 0:
                observation, reward, terminated, truncated, info = single.step(
                    actions[position - 1, i]
                )
                is_over = terminated or truncated
            assert np.array_equal(observation, observations[i]), position
            assert reward == rewards[i]
            assert is_over == overs[i]
            assert {name: infos[name][i] for name in INFO_KEYS} == info


#: Everything that can be on at once: others in the queue, a relay, chance, an AQM, a policer.
CROWDED = Network(
    trace=square(4e6, 3e5, half_period_s=1.3),
    start_s=0.4,
    link=LinkConfig(
        discipline="codel", policer_rate_bps=5e6, max_wait_s=0.5, grant_interval_s=0.008
    ),
    forward=PathConfig(
        jitter=JitterConfig(distribution="normal", scale_s=0.01, correlation=0.5),
        loss=LossConfig(good_loss=0.01, bad_loss=0.6, good_to_bad=0.02, bad_to_good=0.2),
        delay_steps=((2.0, 0.05), (4.0, 0.0)),
    ),
    reverse=PathConfig(loss=LossConfig(good_loss=0.05)),
    relay=RelayConfig(forward=PathConfig(loss=LossConfig(good_loss=0.01))),
    cross_traffic=(TcpTraffic(), OnOffTraffic(mean_on_s=0.5, mean_off_s=0.5)),
    competing_calls=2,
    competing_start_s=(0.0, 1.5),
    competing_added_delay_s=(0.02,),
)
#: It drops some three seconds after its end.
DYING = Network(trace=step(2e6, 0.0, at_s=2.0, duration_s=1_000.0))
PIE = Network(trace=constant(8e5), link=LinkConfig(discipline="pie", queue_limit_bytes=40_000))


@pytest.mark.parametrize("action_mode", ["rate", "scale"])
def test_a_reused_env_is_a_fresh_one_bit_for_bit_whatever_was_called_before(action_mode):
    call = CallConfig(
        duration_s=6.0,
        drop_timeout_s=3.0,
        consent_interval_s=0.3,
        video=VideoConfig(
            fec=FecConfig(enabled=True), picture_size="ladder", scene_change_interval_s=2.0
        ),
    )
    a_network = (CROWDED, DYING, PIE)
    arguments = {"networks": a_network, "call": call, "action_mode": action_mode}
    actions = random_actions(60, 1)[:, 0]

    def play(env, network: int) -> list[bytes]:
        observation, info = env.reset(seed=11, options={"network_index": network})
        rows = [(observation.tobytes(), tuple(info.values()))]
        for action in actions:
            observation, reward, terminated, truncated, info = env.step(action)
            rows.append((observation.tobytes(), reward, tuple(info.values())))
            if terminated or truncated:
                break
        return [repr(row).encode() for row in rows]

    fresh = [play(gymnasium.make(ID, **arguments), network) for network in range(3)]
    assert [len(rows) == 61 for rows in fresh] == [True, False, True]
    reused = gymnasium.make(ID, **arguments)
    for network in (0, 1, 0, 2, 1, 2, 0, 0):
        assert play(reused, network) == fresh[network], network


def test_autoreset_modes_visit_the_same_states(some_networks):
    """Same-step gives at the end what next-step gives one step later; disabled stops there."""
    arguments = {"networks": some_networks, "call": SHORT}
    actions = random_actions(61, 4)
    next_step = BandwidthEstimationVectorEnv(4, **arguments)
    same_step = BandwidthEstimationVectorEnv(4, autoreset_mode="same_step", **arguments)
    disabled = BandwidthEstimationVectorEnv(4, autoreset_mode="disabled", **arguments)
    for env in (next_step, same_step, disabled):
        env.reset(seed=3)
    for action in actions[:60]:
        last_next, last_same, last_disabled = (
            env.step(action) for env in (next_step, same_step, disabled)
        )
    assert last_next[3].all()
    assert last_same[3].all()
    assert last_disabled[3].all()
    final = np.stack(last_same[4]["final_obs"])
    assert np.array_equal(final, last_next[0])
    assert np.array_equal(final, last_disabled[0])
    for name in INFO_KEYS:
        assert np.array_equal(last_same[4]["final_info"][name], last_next[4][name])
    after = next_step.step(actions[60])
    assert np.array_equal(after[0], last_same[0])
    assert not after[1].any()
    assert not after[2].any()
    assert not after[3].any()
    with pytest.raises(ResetNeeded, match="reset_mask"):
        disabled.step(actions[60])
    mask = np.array([True, False, True, True])
    observation, _ = disabled.reset(options={"reset_mask": mask})
    assert np.array_equal(observation[mask], after[0][mask])
    assert np.array_equal(observation[1], last_disabled[0][1])


def test_returned_arrays_are_never_written_again(some_networks):
    env = BandwidthEstimationVectorEnv(3, networks=some_networks, call=SHORT)
    first = env.reset(seed=1)
    kept = [first[0].copy(), {k: np.copy(v) for k, v in first[1].items()}]
    second = env.step(np.zeros((3, 1), np.float32))
    second_kept = [np.copy(part) for part in second[:4]]
    env.step(np.ones((3, 1), np.float32))
    assert np.array_equal(first[0], kept[0])
    assert all(np.array_equal(first[1][k], v) for k, v in kept[1].items())
    assert all(np.array_equal(a, b) for a, b in zip(second[:4], second_kept, strict=True))


def test_info_has_the_same_keys_at_reset_and_at_every_step(some_networks):
    env = gymnasium.make(ID, networks=some_networks, call=SHORT)
    _, at_reset = env.reset(seed=0)
    _, _, _, _, at_step = env.step(np.zeros(1, np.float32))
    assert set(at_reset) == set(at_step) == set(INFO_KEYS)


def test_reward_is_the_sum_of_the_terms_in_info(some_networks):
    env = BandwidthEstimationVectorEnv(8, networks=some_networks, call=SHORT)
    env.reset(seed=2)
    for action in random_actions(59, 8):
        _, reward, _, _, info = env.step(action)
        terms = sum(info[name] for name in INFO_KEYS if name.startswith("reward_"))
        assert np.allclose(terms, reward, atol=1e-12)
        assert (np.abs(reward) <= SHORT.interval_s + 1e-9).all()


def test_observations_stay_in_their_box_and_name_every_feature(some_networks):
    seen = []
    for action_mode in ("rate", "scale"):
        env = BandwidthEstimationVectorEnv(12, networks=some_networks, action_mode=action_mode)
        observation, _ = env.reset(seed=2, options={"network_index": np.arange(12)})
        assert env.single_observation_space.shape == (10 * NUM_FEATURES,)
        seen.append(observation)
        for action in random_actions(300, 12):
            seen.append(env.step(action)[0])
    stacked = np.stack(seen)
    assert stacked.min() >= -1.0
    assert stacked.max() <= 1.0
    newest = stacked[..., -NUM_FEATURES:].reshape(-1, NUM_FEATURES)
    is_constant = newest.max(axis=0) == newest.min(axis=0)
    # Only an application limit takes a call into ALR, and these have none.
    assert {FEATURES[i].name for i in np.flatnonzero(is_constant)} <= {"gcc_in_alr"}


def test_scale_zero_is_gcc_bit_for_bit(some_networks):
    rows = bwe_env.run_calls(some_networks[:3], "gcc", seeds=(0,), call=SHORT)

    class ScaleOne:
        action_mode = "scale"

        def reset(self, num_envs: int) -> None:
            self.num_envs = num_envs

        def act(self, observation: np.ndarray, truth: GroundTruth) -> np.ndarray:
            return np.zeros((self.num_envs, 1), np.float32)

    scaled = bwe_env.run_calls(some_networks[:3], ScaleOne(), seeds=(0,), call=SHORT)
    for name, column in rows.items():
        assert column.tobytes() == scaled[name].tobytes(), name


def test_config_zero_is_gcc_bit_for_bit_and_other_actions_last_for_their_call_only(some_networks):
    rows = bwe_env.run_calls(some_networks[:3], "gcc", seeds=(0,), call=SHORT)
    size = len(CONFIG_PARAMETERS)

    class Config:
        action_mode = "config"

        def __init__(self, value: float) -> None:
            self.value = value

        def reset(self, num_envs: int) -> None:
            self.num_envs = num_envs

        def act(self, observation: np.ndarray, truth: GroundTruth) -> np.ndarray:
            return np.full((self.num_envs, size), self.value, np.float32)

    zero = bwe_env.run_calls(some_networks[:3], Config(0.0), seeds=(0,), call=SHORT)
    for name, column in rows.items():
        assert column.tobytes() == zero[name].tobytes(), name
    other = bwe_env.run_calls(some_networks[:3], Config(0.7), seeds=(0,), call=SHORT)
    assert not np.array_equal(other["call_score"], rows["call_score"])

    env = BandwidthEstimationVectorEnv(
        1, networks=some_networks[:1], call=SHORT, action_mode="config"
    )
    env.reset(seed=3)
    first = [env.step(np.zeros((1, size), np.float32))[1][0] for _ in range(20)]
    env.step(np.ones((1, size), np.float32))
    env.reset(seed=3)
    again = [env.step(np.zeros((1, size), np.float32))[1][0] for _ in range(20)]
    assert first == again


def test_one_call_of_mode_config_is_the_vector_env_with_one(some_networks):
    options = {"networks": some_networks[:2], "call": SHORT, "action_mode": "config"}
    single = bwe_env.BandwidthEstimationEnv(**options)
    vector = BandwidthEstimationVectorEnv(1, **options)
    assert single.action_space.shape == (len(CONFIG_PARAMETERS),)
    single.reset(seed=1)
    vector.reset(seed=1)
    for _ in range(10):
        action = single.action_space.sample()
        left, right = single.step(action), vector.step(action[None])
        np.testing.assert_array_equal(left[0], right[0][0])
        assert left[1] == right[1][0]


@pytest.mark.parametrize("mode", ["rate", "scale"])
def test_a_set_or_scaled_rate_is_held_back_by_the_window_of_what_it_has_in_flight(mode):
    # A fifth above the capacity, or twice GCC's target: without a window, the queue stays full.
    network = Network(trace=constant(500e3), link=LinkConfig(queue_limit_bytes=60_000))

    class Above:
        action_mode = mode

        def reset(self, num_envs: int) -> None:
            self.num_envs = num_envs

        def act(self, observation: np.ndarray, truth: GroundTruth) -> np.ndarray:
            call = CallConfig()
            rate = float(rate_to_action(600e3, call.min_rate_bps, call.max_rate_bps))
            return np.full((self.num_envs, 1), rate if mode == "rate" else 1.0, np.float32)

    def play(**gcc: float) -> dict[str, np.ndarray]:
        parameters = GccParameters(**gcc)
        call = CallConfig(duration_s=20.0)
        return bwe_env.run_calls([network], Above(), seeds=(0,), call=call, gcc=parameters)

    free, held = play(cwnd_enabled=False), play(cwnd_queue_s=0.05)
    assert free["queue_loss_ratio"][0] > 0.05
    assert held["queue_loss_ratio"][0] < 0.7 * free["queue_loss_ratio"][0]
    assert held["freeze_ratio"][0] < 0.9 * free["freeze_ratio"][0]
    assert held["call_score"][0] > free["call_score"][0] + 0.5


def test_targeting_and_config_actions_do_not_mix(some_networks):
    with pytest.raises(ConfigError, match="both set GCC's parameters"):
        BandwidthEstimationVectorEnv(
            1, networks=some_networks[:1], action_mode="config", targeting=object()
        )


def test_the_shadow_gcc_of_mode_rate_sends_no_probes():
    env = BandwidthEstimationVectorEnv(1, networks=[Network(trace=constant(5e6))], call=SHORT)
    env.reset(seed=0)
    for _ in range(59):
        _, _, _, _, info = env.step(np.full((1, 1), -0.2, np.float32))
        assert info["sent_rate_bps"][0] < 2.2 * info["target_rate_bps"][0]  # a key frame's burst
    assert info["gcc_target_rate_bps"][0] > 0


# --- Bad input ------------------------------------------------------------------------------------


@pytest.fixture
def small_env() -> BandwidthEstimationVectorEnv:
    env = BandwidthEstimationVectorEnv(2, networks=[Network(trace=constant(1e6))], call=SHORT)
    env.reset(seed=0)
    return env


def test_a_nan_action_is_refused_with_its_environment(small_env):
    with pytest.raises(ActionError, match="environment 1 is NaN"):
        small_env.step(np.array([[0.0], [np.nan]]))


@pytest.mark.parametrize("action", [[[np.inf], [0.0]], [[1.0], [2.0, 3.0]], [["a"], [0.0]]])
def test_an_infinite_ragged_or_worded_action_is_refused(small_env, action):
    with pytest.raises(ActionError, match=r"infinite|must be numbers"):
        small_env.step(action)


def test_masked_first_resets_add_up(some_networks):
    env = BandwidthEstimationVectorEnv(2, networks=some_networks, call=SHORT)
    env.reset(seed=0, options={"reset_mask": np.array([True, False])})
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((2, 1)))
    env.reset(seed=0, options={"reset_mask": np.array([False, True])})
    assert env.step(np.zeros((2, 1)))[0].shape[0] == 2


def test_an_env_with_threads_can_be_copied(some_networks):
    env = BandwidthEstimationVectorEnv(4, networks=some_networks, call=SHORT, num_threads=2)
    env.reset(seed=0)
    action = np.zeros((4, 1))
    env.step(action)
    twin = copy.deepcopy(env)
    assert np.array_equal(env.step(action)[0], twin.step(action)[0])


@pytest.mark.parametrize("shape", [(2,), (1, 1), (2, 2), (3, 1)])
def test_an_action_of_the_wrong_shape_is_refused(small_env, shape):
    with pytest.raises(ActionError, match=r"expected \(2, 1\)"):
        small_env.step(np.zeros(shape))


def test_a_refused_action_changes_nothing(small_env):
    twin = BandwidthEstimationVectorEnv(2, networks=[Network(trace=constant(1e6))], call=SHORT)
    twin.reset(seed=0)
    with pytest.raises(ActionError):
        small_env.step(np.full((2, 1), np.nan))
    good = np.zeros((2, 1), np.float32)
    assert np.array_equal(small_env.step(good)[0], twin.step(good)[0])


@pytest.mark.parametrize(("action", "edge"), [(3.0, 1.0), (-50.0, -1.0), (1e30, 1.0)])
def test_finite_actions_outside_the_box_are_clipped_and_counted(small_env, action, edge):
    twin = BandwidthEstimationVectorEnv(2, networks=[Network(trace=constant(1e6))], call=SHORT)
    twin.reset(seed=0)
    out = small_env.step(np.array([[action], [0.0]]))
    at_edge = twin.step(np.array([[edge], [0.0]]))
    assert np.array_equal(out[0], at_edge[0])
    assert out[4]["clipped_actions"].tolist() == [1.0, 0.0]
    assert at_edge[4]["clipped_actions"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": "trian"}, "Did you mean 'train'"),
        ({"networks": []}, "non-empty"),
        ({"action_mode": "rates"}, "Did you mean 'rate'"),
        ({"autoreset_mode": "never"}, "unknown autoreset_mode"),
        ({"render_mode": "human3d"}, "unknown render_mode"),
        ({"call": {"duraton_s": 3}}, "Did you mean 'duration_s'"),
        ({"call": {"interval_s": float("nan")}}, "interval_s=nan"),
        ({"call": {"min_rate_bps": 900_000}}, "min_rate_bps <= start_rate_bps"),
        ({"reward": {"delay": 0.9}}, "add up to"),
        ({"observation": {"history": 0}}, "history=0"),
        ({"gcc": {"bta": 1}}, "unknown option of GccParameters"),
        ({"num_threads": 0}, "num_threads=0"),
        ({"max_episode_steps": 0}, "max_episode_steps=0"),
        ({"num_envs": 0}, "num_envs=0"),
    ],
)
def test_an_unknown_or_impossible_option_says_what_is_allowed(options, message):
    arguments = {"num_envs": 1, "networks": [Network(trace=constant(1e6))], **options}
    with pytest.raises(BweEnvError, match=message):
        BandwidthEstimationVectorEnv(**arguments)


def test_stepping_before_reset_says_so():
    env = BandwidthEstimationVectorEnv(1, networks=[Network(trace=constant(1e6))])
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(np.zeros((1, 1)))


def test_reset_options_are_checked(small_env):
    with pytest.raises(UnknownNameError, match="reset_mask"):
        small_env.reset(options={"reset_masks": None})
    with pytest.raises(ConfigError, match="0 to 0"):
        small_env.reset(options={"network_index": 1})
    with pytest.raises(ConfigError, match="booleans"):
        small_env.reset(options={"reset_mask": np.array([1, 0])})


# --- Pictures -------------------------------------------------------------------------------------


def test_rgb_array_and_ansi_show_the_call(small_env):
    networks_ = [Network(trace=constant(1e6))]
    picture = gymnasium.make(ID, networks=networks_, call=SHORT, render_mode="rgb_array")
    text = gymnasium.make(ID, networks=networks_, call=SHORT, render_mode="ansi")
    for env in (picture, text):
        env.reset(seed=0)
        env.step(np.zeros(1, np.float32))
    before = picture.render()
    picture.step(np.zeros(1, np.float32))
    after = picture.render()
    assert before.shape == after.shape
    assert before.dtype == np.uint8
    assert not np.array_equal(before, after)
    assert "target" in text.render()


# --- Dynamics -------------------------------------------------------------------------------------


def test_an_unpickled_env_has_the_record_types_that_its_kernels_were_compiled_for(some_networks):
    # An equal type that is another object works, but slows every call of a kernel.
    env = BandwidthEstimationVectorEnv(2, networks=some_networks, call=SHORT)
    env.reset(seed=3)
    copied = pickle.loads(pickle.dumps(env))
    arrays = {
        name: value
        for name, value in vars(env._world).items()
        if getattr(value, "dtype", None) and value.dtype.names
    }
    assert "weights" in arrays
    assert all(vars(copied._world)[name].dtype is array.dtype for name, array in arrays.items())
    action = np.zeros((2, 1))
    assert np.array_equal(env.step(action)[0], copied.step(action)[0])


#: Changed dynamics, observations or rewards change this number, and must bump the version of the
#: environment and say so in its Version History.
FINGERPRINT = [-37963.06618072, 19.25436925, 517.67712]


def test_fingerprint_of_a_fixed_rollout_is_that_of_this_version(some_networks):
    env = BandwidthEstimationVectorEnv(12, networks=some_networks, call=SHORT)
    env.reset(seed=11, options={"network_index": np.arange(12)})
    total = np.zeros(3)
    for action in random_actions(60, 12):
        observation, reward, _, _, info = env.step(action)
        total += (
            observation.sum(dtype=np.float64),
            reward.sum(),
            info["receive_rate_bps"].sum() / 1e6,
        )
    assert total.tolist() == pytest.approx(FINGERPRINT, rel=1e-6)

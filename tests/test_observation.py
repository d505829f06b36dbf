"""The table of features and how values are mapped."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bwe_env
from bwe_env import observation
from bwe_env.network import Network
from bwe_env.observation import FEATURE_NAMES, FEATURES, ObservationConfig, feature_table
from bwe_env.trace import constant
from bwe_env.vector_env import BandwidthEstimationVectorEnv


def test_every_feature_has_a_range_and_a_meaning():
    assert len(set(FEATURE_NAMES)) == len(FEATURES)
    for feature in FEATURES:
        assert feature.low < feature.high
        assert feature.doc
        assert feature.scale == "linear" or feature.low > 0.0


def test_the_environments_docstring_shows_the_table():
    table = feature_table()
    documented = bwe_env.BandwidthEstimationEnv.__doc__
    assert all(line.strip() in documented for line in table.splitlines())


@pytest.mark.parametrize("name", FEATURE_NAMES)
def test_low_and_high_map_to_the_ends_of_the_box(name):
    index = FEATURE_NAMES.index(name)
    feature = FEATURES[index]
    ends = [observation._normalise(index, value) for value in (feature.low, feature.high)]
    assert ends == pytest.approx([-1.0, 1.0])
    outside = [observation._normalise(index, value) for value in (-1e30, 1e30)]
    assert outside == pytest.approx([-1.0, 1.0])


def feature(row: np.ndarray, name: str) -> float:
    """A feature of the newest interval, in its own unit."""
    index = FEATURE_NAMES.index(name)
    spec = FEATURES[index]
    share = (row[-len(FEATURES) :][index] + 1.0) / 2.0
    if spec.scale == "log":
        return spec.low * (spec.high / spec.low) ** share
    return spec.low + share * (spec.high - spec.low)


def test_features_say_what_the_call_does():
    """A constant 1 Mbps on a clean 2 Mbps link with 25 ms each way, after five seconds."""
    env = BandwidthEstimationVectorEnv(1, networks=[Network(trace=constant(2e6))])
    row, _ = env.reset(seed=0)
    action = bwe_env.action.rate_to_action(1e6, 30e3, 6e6).reshape(1, 1)
    for _ in range(50):
        row, _, _, _, info = env.step(action)
    row = row[0]
    assert feature(row, "target_rate") == pytest.approx(1e6, rel=1e-3)
    assert feature(row, "sent_rate") == pytest.approx(info["sent_rate_bps"][0], rel=1e-3)
    assert feature(row, "acked_rate") == pytest.approx(1e6, rel=0.3)
    # Two times 25 ms, a burst's service, and up to 50 ms until the receiver reports.
    assert 50.0 < feature(row, "rtt") < 130.0
    assert feature(row, "base_rtt") <= feature(row, "rtt")
    assert feature(row, "queue_delay") < 40.0
    assert feature(row, "loss_ratio") == pytest.approx(0.002)  # none: the low end
    assert feature(row, "report_age") <= 50.0
    assert feature(row, "call_time") == pytest.approx(5.0, rel=1e-3)


def test_the_history_is_the_last_rows_newest_last():
    env = BandwidthEstimationVectorEnv(
        1, networks=[Network(trace=constant(2e6))], observation=ObservationConfig(history=3)
    )
    row, _ = env.reset(seed=0)
    frames = [row.reshape(3, -1)]
    assert (frames[0][0] == frames[0][2]).all()  # nothing but the start is known
    for _ in range(4):
        frames.append(env.step(np.zeros((1, 1)))[0].reshape(3, -1))
    for older, newer in itertools.pairwise(frames):
        assert np.array_equal(older[1:], newer[:2])


def test_nothing_is_known_before_the_first_report():
    """Ground truth must not leak: a lossy, slow network looks like any other at t = 0."""
    from bwe_env.config import LossConfig, PathConfig

    bad = PathConfig(propagation_delay_s=0.3, loss=LossConfig(good_loss=0.3))
    rows = []
    for forward in (PathConfig(), bad):
        network = Network(trace=constant(2e6), forward=forward)
        env = BandwidthEstimationVectorEnv(1, networks=[network])
        rows.append(env.reset(seed=0)[0])
    assert np.array_equal(rows[0], rows[1])

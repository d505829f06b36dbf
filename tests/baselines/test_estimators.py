"""Every hand-tuned estimator of the registry in calls that are rough."""

from __future__ import annotations

import logging

import pytest

from baselines import make
from baselines.registry import ESTIMATORS
from bwe_env.config import CallConfig, JitterConfig, LinkConfig, LossConfig, PathConfig
from bwe_env.network import Network
from bwe_env.rollout import record_calls
from bwe_env.trace import constant, square

CALL = CallConfig(duration_s=12.0, min_rate_bps=50_000, max_rate_bps=2_000_000)
JITTER = JitterConfig(distribution="uniform", scale_s=0.05)
ROUGH = (
    Network(trace=square(2e6, 0.0, half_period_s=2.0), link=LinkConfig(queue_limit_s=3.0)),
    Network(trace=constant(80e3, name="narrow")),
    Network(
        trace=constant(1e6, name="overtaking"),
        forward=PathConfig(propagation_delay_s=0.02, jitter=JITTER, keeps_order=False),
    ),
    Network(trace=constant(1e6, name="deaf"), reverse=PathConfig(loss=LossConfig(good_loss=0.6))),
    Network(
        trace=constant(1e6, name="bursts of loss"),
        forward=PathConfig(loss=LossConfig(good_to_bad=0.02, bad_to_good=0.1)),
    ),
    Network(
        trace=constant(50e6, name="at once"),
        forward=PathConfig(propagation_delay_s=0.0),
        reverse=PathConfig(propagation_delay_s=0.0),
    ),
)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_finishes_rough_calls_within_their_range(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="bwe_env.external"):
        calls = list(record_calls(ROUGH, make(name, call=CALL).controller, call=CALL))
    assert not caplog.records
    for played in calls:
        assert not played.dropped, played.network.name
        target_bps = played.steps["target_rate_bps"]
        assert target_bps.min() >= CALL.min_rate_bps, played.network.name
        assert target_bps.max() <= CALL.max_rate_bps, played.network.name
    at_once = calls[-1].steps["target_rate_bps"]
    assert at_once[-1] > CALL.start_rate_bps, "room above the start rate is not used"

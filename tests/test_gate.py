"""The gate: what no reward may allow. Degenerate policies score below GCC, per kind of network.

On the whole media path: sound, repeats, jitter buffer and frame skipping are on by default; FEC and
a ladder of picture sizes are a variant.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bwe_env.action import rate_to_action
from bwe_env.config import CallConfig, FecConfig, VideoConfig
from bwe_env.estimator import NO_TIMEOUT_US, RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.network import Network
from bwe_env.rollout import run_calls
from bwe_env.trace import networks
from bwe_env.truth import GroundTruth

CALL = CallConfig()
LADDER = replace(CALL, video=VideoConfig(fec=FecConfig(enabled=True), picture_size="ladder"))
SCORES = ("mean_reward", "call_score")
Calls = dict[str, np.ndarray]


class Policy:
    """Actions as a function of the interval's number and the present capacity."""

    def __init__(
        self, action: Callable[[int, np.ndarray], object], action_mode: str = "rate"
    ) -> None:
        self.action_mode = action_mode
        self._action = action
        self._interval = 0

    def reset(self, num_envs: int) -> None:
        self._interval = 0

    def act(self, observation: np.ndarray, truth: GroundTruth) -> np.ndarray:
        capacity_bps = truth.capacity_bps
        actions = np.broadcast_to(self._action(self._interval, capacity_bps), capacity_bps.shape)
        self._interval += 1
        return actions.astype(np.float32)[:, None]


class HangsUp:
    """Sends fairly for five seconds, then fails, which drops its call."""

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None: ...

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        if now_us > 5_000_000:
            raise RuntimeError("hangs up")
        return RateDecision(target_rate_bps=500_000)

    def on_timeout(self, now_us: int) -> RateDecision:
        return RateDecision(target_rate_bps=500_000)

    def next_timeout_us(self) -> int:
        return NO_TIMEOUT_US


def constant(rate_bps: float) -> Policy:
    return Policy(
        lambda interval, capacity: rate_to_action(rate_bps, CALL.min_rate_bps, CALL.max_rate_bps)
    )


def bang_bang(period: int) -> Policy:
    return Policy(lambda interval, capacity: 1.0 if interval // period % 2 else -1.0)


def oracle(headroom: float) -> Policy:
    return Policy(
        lambda interval, capacity: rate_to_action(
            headroom * capacity, CALL.min_rate_bps, CALL.max_rate_bps
        )
    )


def scaled_gcc(action: float) -> Policy:
    return Policy(lambda interval, capacity: action, "scale")


DEGENERATE = {
    "constant minimum": constant(CALL.min_rate_bps),
    "constant maximum": constant(CALL.max_rate_bps),
    "bang-bang every 0.1 s": bang_bang(1),
    "bang-bang every 0.5 s": bang_bang(5),
    "bang-bang every 2 s": bang_bang(20),
    "drop early": HangsUp,
}
REASONABLE = {
    **{f"constant {rate:g}": constant(rate) for rate in (1e5, 3e5, 5e5, 1e6, 2e6, 4e6)},
    **{f"oracle {headroom}": oracle(headroom) for headroom in (0.6, 0.8, 0.9, 1.0, 1.1)},
    **{f"gcc scale {action}": scaled_gcc(action) for action in (-1.0, -0.5, 0.3, 0.6)},
}


@pytest.fixture(scope="module")
def gate_networks() -> list[Network]:
    return networks("validation", count=36)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(CALL, id="default"),
        pytest.param(LADDER, id="fec and ladder", marks=pytest.mark.slow),
    ],
)
def calls(gate_networks: list[Network], request: pytest.FixtureRequest) -> dict[str, Calls]:
    """Every policy on every network, one seed."""
    logging.getLogger("bwe_env.external").setLevel(logging.ERROR)
    call: CallConfig = request.param
    policies = {"gcc": "gcc", **DEGENERATE, **REASONABLE}
    tables = {
        name: run_calls(gate_networks, p, seeds=(0,), call=call) for name, p in policies.items()
    }
    muted = replace(call, video=replace(call.video, enabled=False))
    tables["mute the video"] = run_calls(gate_networks, "gcc", seeds=(0,), call=muted)
    return tables


def test_the_gate_runs_on_the_whole_media_path(calls):
    """Each part of it is on, and acts somewhere."""
    gcc = calls["gcc"]
    for name in ("rtx_packets", "nacks", "audio_played_s", "jitter_buffer_delay_ms", "plis"):
        assert gcc[name].sum() > 0, name
    assert (gcc["jitter_buffer_delay_ms"] > 10.0).all()  # kOperatingSystemJitter alone
    skipped = (
        CALL.video.frame_rate_hz * CALL.duration_s - calls["constant minimum"]["frames_encoded"]
    )
    assert (skipped > 0.3 * CALL.video.frame_rate_hz * CALL.duration_s).all()


@pytest.mark.parametrize("name", [*DEGENERATE, "mute the video"])
@pytest.mark.parametrize("score", SCORES)
def test_degenerate_policies_score_below_gcc_on_every_kind_of_network(calls, name, score):
    types = calls["gcc"]["network_type"]
    for network_type in sorted(set(types.tolist())):
        rows = types == network_type
        assert calls[name][score][rows].mean() < calls["gcc"][score][rows].mean(), network_type


def test_reward_ranks_policies_as_the_call_score_does(calls):
    """Spearman's rank correlation over the population, on every kind of network and over all."""
    types = calls["gcc"]["network_type"]
    for rows in [types == name for name in sorted(set(types.tolist()))] + [types != ""]:
        ranks = [
            np.argsort(np.argsort([table[score][rows].mean() for table in calls.values()]))
            for score in SCORES
        ]
        assert np.corrcoef(ranks[0], ranks[1])[0, 1] >= 0.9


def test_hanging_up_never_pays(calls):
    """A dropped call scores below the same policy's undropped one, second for second."""
    dropped = calls["drop early"]
    assert dropped["dropped"].all()
    stayed = calls["constant 500000"]
    assert (dropped["mean_reward"] < stayed["mean_reward"]).all()
    assert (dropped["call_score"] < stayed["call_score"]).all()

"""Calls through a relay: delays add up, losses of its hops strike, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bwe_env.config import (
    CallConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    OutageConfig,
    PathConfig,
    RelayConfig,
)
from bwe_env.network import Network
from bwe_env.rollout import run_calls
from bwe_env.sim.packet import FATE_DELIVERED, FATE_PENDING, FATE_RANDOM_LOSS
from bwe_env.trace import constant
from tests.sim.calls import OneCall

DIRECT = Network(trace=constant(1e6, name="steady"))
NOWHERE = PathConfig(propagation_delay_s=0.0)


def through(forward: PathConfig = NOWHERE, reverse: PathConfig = NOWHERE) -> Network:
    return replace(DIRECT, relay=RelayConfig(forward=forward, reverse=reverse))


def test_a_relay_at_no_distance_is_no_relay_bit_for_bit() -> None:
    calls = [OneCall(network, key=5) for network in (DIRECT, through())]
    rows = [call.run_until(10.0).tobytes() for call in calls]
    assert rows[0] == rows[1]
    assert calls[0].packets.tobytes() == calls[1].packets.tobytes()


def test_delays_of_both_hops_add_up_in_both_directions() -> None:
    far = through(PathConfig(propagation_delay_s=0.04), PathConfig(propagation_delay_s=0.07))
    delays_us, answers_us = [], []
    for network in (DIRECT, far):
        call = OneCall(network, key=5, step_us=1_000)
        while call.flow.mailbox.head == 0:
            call.step()
        answers_us.append(call.now_us)
        first = call.packets[0]
        delays_us.append(int(first["arrival_us"] - first["send_us"]))
    assert delays_us[1] - delays_us[0] == 40_000
    # The first answer is that to the consent check of t = 0.
    assert answers_us[1] - answers_us[0] == 110_000


def test_the_rtt_is_that_of_four_hops() -> None:
    hop = PathConfig(propagation_delay_s=0.03)
    row = OneCall(through(hop, hop), key=5).run_until(20.0)[-1]
    # 25 + 30 ms forward, as much back, and the queue.
    assert 110.0 <= row["rtt_ms"] < 110.0 + 100.0


@pytest.mark.parametrize("loss_before_queue", [False, True])
def test_losses_behind_the_relay_are_random_losses_at_its_rate(loss_before_queue: bool) -> None:
    network = through(PathConfig(propagation_delay_s=0.0, loss=LossConfig(good_loss=0.04)))
    link = replace(network.link, loss_before_queue=loss_before_queue)
    call = OneCall(replace(network, link=link), key=5)
    call.run_until(30.0)
    fates = call.packets["fate"]
    lost = (fates == FATE_RANDOM_LOSS).sum()
    count = lost + (fates == FATE_DELIVERED).sum()
    assert lost / count == pytest.approx(0.04, abs=4 * (0.04 * 0.96 / count) ** 0.5)


@pytest.mark.parametrize("loss_before_queue", [False, True])
@pytest.mark.parametrize("behind_relay", [False, True])
def test_a_call_loses_the_packets_that_a_replay_names_as_random_losses(
    loss_before_queue: bool, behind_relay: bool
) -> None:
    sequence = np.random.default_rng(3).random(61) < 0.1
    lossy = PathConfig(loss=LossConfig(replay=tuple(sequence.tolist())))
    network = through(lossy) if behind_relay else replace(through(), forward=lossy, relay=None)
    link = LinkConfig(queue_limit_s=5.0, loss_before_queue=loss_before_queue)
    call = OneCall(replace(network, link=link), CallConfig(consent_interval_s=0.0))
    call.run_until(20.0)
    fates = call.packets["fate"]
    known = int(np.argmax(fates == FATE_PENDING))  # the first that is still under way
    assert known > 1_000
    expected = np.where(np.resize(sequence, known), FATE_RANDOM_LOSS, FATE_DELIVERED)
    assert fates[:known].tolist() == expected.tolist()
    assert call.flow.totals.fate_packets[FATE_RANDOM_LOSS] == (fates == FATE_RANDOM_LOSS).sum()


def test_messages_lost_behind_the_relay_do_not_arrive() -> None:
    call = OneCall(through(reverse=PathConfig(loss=LossConfig(good_loss=1.0))), key=5)
    call.run_until(3.0)
    assert call.flow.mailbox.head == call.flow.mailbox.tail == 0
    assert call.flow.mailbox.lost > 10
    assert call.flow.monitor.rtt_us == 0


def test_an_outage_of_the_relay_drops_the_call_like_any_other() -> None:
    dead = through(PathConfig(outage=OutageConfig(from_s=3.0, until_s=100.0)))
    (dropped,) = run_calls([dead], "gcc", call=CallConfig(duration_s=30.0), seeds=(0,))["dropped"]
    assert dropped


def test_jitter_of_both_hops_keeps_the_order_of_packets() -> None:
    shaky = PathConfig(jitter=JitterConfig(distribution="uniform", scale_s=0.02))
    call = OneCall(replace(through(shaky, shaky), forward=shaky), key=5)
    call.run_until(5.0)
    packets = call.packets[call.packets["fate"] == FATE_DELIVERED]
    assert (np.diff(packets["arrival_us"]) >= 0).all()
    delays_us = packets["arrival_us"] - packets["send_us"]
    assert delays_us.max() - delays_us.min() > 40_000


def test_every_call_says_which_path_it_took() -> None:
    networks = [DIRECT, replace(through(), trace=constant(1e6, name="relayed"))]
    table = run_calls(networks, "gcc", call=CallConfig(duration_s=2.0), seeds=(0, 1))
    assert table["path"].tolist() == ["direct"] * 2 + ["relay"] * 2

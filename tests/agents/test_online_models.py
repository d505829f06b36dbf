"""Models that are asked at every so many bins: when, what stands in between, and what they see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agents.network_model import NetworkModel, NetworkModelConfig
from agents.online_models import OnlineModels, follow_log
from bwe_env.errors import ConfigError
from bwe_env.telemetry import empty_telemetry

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BINS = 45


@pytest.fixture
def one_torch_thread() -> Any:
    """Small models on busy machines: threads of torch would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(*tasks: str, seed: int = 0) -> NetworkModel:
    torch.manual_seed(seed)
    return NetworkModel(NetworkModelConfig(tasks=tasks)).eval()


def call_of(seed: int, bins: int = BINS) -> NDArray[Any]:
    """Telemetry of a call in which rates, delays and losses come and go."""
    random = np.random.default_rng(seed)
    rows = empty_telemetry(bins)
    rows["time_s"] = 0.1 * np.arange(1, bins + 1)
    rows["reports"] = 1.0
    rows["sent_packets"] = random.integers(5, 40, bins)
    rows["acked_packets"] = rows["sent_packets"]
    rows["sent_bytes"] = rows["acked_bytes"] = 1000.0 * rows["sent_packets"]
    rows["acked_rate_bps"] = 8.0 * rows["acked_bytes"] / 0.1
    delay_ms = random.uniform(0.0, 200.0, bins)
    for name in ("queue_delay_ms", "queue_delay_min_ms", "queue_delay_max_ms"):
        rows[name] = delay_ms
    rows["delay_variation_ms"] = 3.0
    rows["rtt_ms"] = 40.0 + delay_ms
    rows["target_rate_bps"] = 1e6
    rows["lost_packets"] = np.where(random.random(bins) < 0.2, 2.0, 0.0)
    rows["loss_runs"] = np.minimum(rows["lost_packets"], 1.0)
    return rows


def follow(models: OnlineModels, calls: list[NDArray[Any]], active: NDArray[Any]) -> NDArray[Any]:
    """What is said of calls side by side, shape (bins, calls, outputs).

    Args:
        active: shape (bins, calls); a call's next bin is taken when it is active.
    """
    models.reset(len(calls))
    at = np.zeros(len(calls), dtype=np.int64)
    said = []
    for is_active in active:
        rows = np.stack([call[min(i, len(call) - 1)] for call, i in zip(calls, at, strict=True)])
        said.append(models.update(rows, is_active))
        at += is_active
    return np.array(said)


@pytest.mark.parametrize("period_bins", [1, 2, 3, 7])
def test_answers_come_at_every_so_many_bins_and_stand_in_between(period_bins: int) -> None:
    """Each is the answer of a model that is asked at every bin: it has seen all of them."""
    model = model_of("network_type", "congestion")
    call = call_of(1)
    at_every_bin = follow_log(OnlineModels([model]), call)
    said = follow_log(OnlineModels([model], period_bins=period_bins), call)
    assert len(np.unique(at_every_bin[:, 0])) > BINS // 2, "answers that never change prove nothing"
    newest = np.arange(BINS) // period_bins * period_bins
    assert np.array_equal(said, at_every_bin[newest])


def test_an_answer_about_loss_does_not_outlive_the_loss() -> None:
    model = model_of("random_loss")
    call = call_of(2)
    call["lost_packets"] = call["loss_runs"] = 0.0
    call["lost_packets"][11], call["loss_runs"][11] = 3.0, 1.0  # counts as loss in bins 11 to 20
    said = follow_log(OnlineModels([model], period_bins=4), call)[:, 0]
    # Asked at bins 12, 16 and 20; before 12 nobody was, after 20 nothing is lost.
    assert (said[:12] == 0.0).all()
    assert (said[12:21] > 0.0).all()
    assert (said[21:] == 0.0).all()
    assert said[12] == said[15]
    assert said[16] == said[19]


@pytest.mark.parametrize("period_bins", [1, 2, 3])
def test_an_answer_does_not_depend_on_which_other_calls_there_are(period_bins: int) -> None:
    model = model_of("network_type", "congestion", "random_loss")
    calls = [call_of(seed) for seed in (3, 4, 5)]
    together = follow(
        OnlineModels([model], period_bins=period_bins), calls, np.ones((BINS, 3), np.bool_)
    )
    for env, call in enumerate(calls):
        alone = follow_log(OnlineModels([model], period_bins=period_bins), call)
        # Sums of another batch size are rounded in another order.
        assert np.allclose(together[:, env], alone, atol=1e-5)


def test_a_call_that_pauses_or_begins_anew_keeps_its_own_count() -> None:
    model = model_of("congestion")
    calls = [call_of(6), call_of(7)]
    active = np.ones((BINS, 2), np.bool_)
    active[5:9, 1] = False
    said = follow(OnlineModels([model], period_bins=3), calls, active)[:, 1, 0]
    alone = follow_log(OnlineModels([model], period_bins=3), calls[1])[:, 0]
    own = said[active[:, 1]]
    # While it stands still, its newest bin is repeated: answers differ, but come when they are due.
    assert np.array_equal(own, own[np.arange(len(own)) // 3 * 3])
    assert (np.diff(own[::3]) != 0.0).mean() > 0.8

    models = OnlineModels([model], period_bins=3)
    models.reset(2)
    both = np.ones(2, np.bool_)
    for position in range(10):
        models.update(np.stack([call[position] for call in calls]), both)
    models.restart(1)
    anew = [
        models.update(np.stack([calls[0][10 + position], calls[1][position]]), both)[1, 0]
        for position in range(12)
    ]
    assert np.allclose(anew, alone[:12], atol=1e-5)


@pytest.mark.parametrize("period_bins", [0, -1, 1.5, "2"])
def test_a_period_below_one_bin_is_refused(period_bins: Any) -> None:
    with pytest.raises(ConfigError, match="period_bins=.* whole number, at least 1"):
        OnlineModels([model_of("congestion")], period_bins=period_bins)

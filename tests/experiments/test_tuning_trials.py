"""What a trial plays and is judged by."""

from __future__ import annotations

import numpy as np
import pytest

from bwe_env.config import CallConfig
from bwe_env.gcc import GccParameters
from bwe_env.rollout import run_calls
from experiments.tuning_networks import NetworkList
from experiments.tuning_trials import MEASURED, Task, merged, outcome, play

NETWORKS = NetworkList(split="train", target="wifi", count=4)


def test_no_overrides_play_plain_gcc_bit_for_bit():
    calls = play(Task(networks=NETWORKS, duration_s=10.0, seeds=(0, 1)))
    plain = run_calls(
        NETWORKS.networks(10.0), "gcc", call=CallConfig(duration_s=10.0), seeds=(0, 1)
    )
    assert calls["network_class"].tolist() == ["wifi"] * 8
    for name in ("network", "seed", *MEASURED):
        np.testing.assert_array_equal(calls[name], plain[name])


def test_overrides_reach_gcc_the_pacer_and_fec():
    overrides = {
        "gcc.decrease_factor": 0.7,
        "burst_interval_s": 0.01,
        "fec.enabled": True,
        "fec.protection": [0.0, 0.2, 0.0, 0.4],
    }
    calls = play(Task(networks=NETWORKS, duration_s=10.0, overrides=overrides))
    call = CallConfig(duration_s=10.0)
    fec = {"enabled": True, "protection": (0.0, 0.2, 0.0, 0.4)}
    by_hand = run_calls(
        NETWORKS.networks(10.0),
        "gcc",
        call=_replaced(call, fec=fec, burst_interval_s=0.01),
        seeds=(0,),
        gcc=GccParameters(decrease_factor=0.7),
    )
    np.testing.assert_array_equal(calls["call_score"], by_hand["call_score"])


def _replaced(call: CallConfig, *, fec: dict, burst_interval_s: float) -> CallConfig:
    import dataclasses

    video = dataclasses.replace(call.video, fec=dataclasses.replace(call.video.fec, **fec))
    packets = dataclasses.replace(call.packets, burst_interval_s=burst_interval_s)
    return dataclasses.replace(call, video=video, packets=packets)


def table(classes: list[str], **columns: list[float]) -> dict[str, np.ndarray]:
    """Calls with zeros where nothing is given."""
    zeros = {name: np.zeros(len(classes)) for name in MEASURED}
    given = {name: np.array(values) for name, values in columns.items()}
    return {"network_class": np.array(classes), **zeros, **given}


def test_every_class_counts_alike_whatever_its_number_of_calls():
    classes = ["wifi", "wired", "wired", "wired"]
    calls = table(
        classes,
        video_mos=[2.0, 4.0, 4.0, 4.0],
        freeze_ratio=[0.3, 0.1, 0.2, 0.0],
        one_way_delay_ms_p95=[50.0] * 4,
    )
    found = outcome(calls, calls)
    assert found.classes["wired"]["video_mos"] == 4.0
    assert found.objectives() == (pytest.approx(3.0), pytest.approx(0.2))
    assert found.delay_ratio == 1.0


def test_the_delay_ratio_is_a_geometric_mean_over_calls():
    default = table(["wifi"] * 2, one_way_delay_ms_p95=[50.0, 100.0])
    calls = table(["wifi"] * 2, one_way_delay_ms_p95=[100.0, 200.0 / 4.0])
    assert outcome(calls, default).delay_ratio == pytest.approx(1.0)  # sqrt(2 · 1/2)
    worse = table(["wifi"] * 2, one_way_delay_ms_p95=[100.0, 800.0])
    assert outcome(worse, default).delay_ratio == pytest.approx(4.0)  # sqrt(2 · 8)


def test_a_call_in_which_nothing_arrived_has_no_delay_and_does_not_count_for_it():
    default = table(["wifi"] * 2, one_way_delay_ms_p95=[50.0, 100.0])
    calls = table(["wifi"] * 2, one_way_delay_ms_p95=[75.0, np.nan], freeze_ratio=[0.0, 1.0])
    found = outcome(calls, default)
    assert found.delay_ratio == pytest.approx(1.5)
    assert found.mean("one_way_delay_ms_p95") == 75.0
    assert found.mean("freeze_ratio") == 0.5


def test_tables_are_joined_in_order():
    first, second = table(["a"], video_mos=[1.0]), table(["b", "c"], video_mos=[2.0, 3.0])
    joined = merged([first, second])
    assert joined["network_class"].tolist() == ["a", "b", "c"]
    assert joined["video_mos"].tolist() == [1.0, 2.0, 3.0]

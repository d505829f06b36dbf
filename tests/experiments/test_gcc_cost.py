"""The cost is that of the work the controller did in the call."""

from __future__ import annotations

import pytest

from experiments import gcc_cost as module
from experiments.gcc_cost import gcc_cost, record_call


def test_the_cost_is_that_of_a_call_and_its_parts_are_parts_of_it() -> None:
    cost = gcc_cost(capacity_bps=1e6, duration_s=20.0, repeats=3)
    assert cost.reports == pytest.approx(20.0 / 0.05, rel=0.05)
    assert 3.0 < cost.packets_per_report < 5.0
    assert 0.0 < cost.other_us < cost.call_us
    assert cost.loss_based_us < cost.call_us


def test_a_replay_that_did_other_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = record_call(capacity_bps=1e6, duration_s=10.0)
    recorder.arrivals_us = dict.fromkeys(recorder.arrivals_us, 10**9)
    monkeypatch.setattr(module, "record_call", lambda **_: recorder)
    with pytest.raises(RuntimeError, match="not the same work"):
        gcc_cost(capacity_bps=1e6, duration_s=10.0, repeats=1)

"""What tuning writes, and reads back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.tuning_choice import TestCalls
from experiments.tuning_results import read_tests, write_tests
from experiments.tuning_trials import MEASURED


def test_calls_on_test_networks_come_back_as_they_were_flags_included(tmp_path: Path) -> None:
    numbers = {name: np.array([0.25, 1.5]) for name in MEASURED}
    calls = {
        "network": np.array(["a", "b"]),
        "network_type": np.array(["wifi", "wifi"]),
        "seed": np.array([0, 1]),
        "network_class": np.array(["wifi", "wifi"]),
        **numbers,
        "bad_experience": np.array([True, False]),  # as `run_calls` has them
        "dropped": np.array([False, True]),
    }
    write_tests(tmp_path / "calls.csv", TestCalls(calls={("default", "wifi"): calls}))
    back = read_tests(tmp_path / "calls.csv").calls["default", "wifi"]
    assert back.keys() == calls.keys()
    for name, column in calls.items():
        assert back[name].tolist() == column.tolist(), name

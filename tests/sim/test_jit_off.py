"""Compiled code says exactly what the same Python says without the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bwe_env.sim.packet import FATE_DELIVERED, PACKET, REPORT_RECEIVED
from tests.sim.fixed_calls import play

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The fixed calls, run by Python alone."""
    path = tmp_path_factory.mktemp("jit_off") / "calls.npz"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.sim.fixed_calls", str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("mode", ["rate", "scale", "crowded", "overtaking", "protected"])
def test_a_call_is_the_same_with_the_compiler_and_without_bit_for_bit(
    mode: str, plain: dict[str, np.ndarray]
) -> None:
    compiled = play(mode)
    without = {
        name.removeprefix(f"{mode}."): array
        for name, array in plain.items()
        if name.startswith(f"{mode}.")
    }
    assert without.keys() == compiled.keys()
    for name, array in compiled.items():
        assert array.dtype == without[name].dtype, name
        assert array.tobytes() == without[name].tobytes(), name


def test_the_compared_calls_lose_repair_freeze_and_probe() -> None:
    """Equality of calls in which nothing happens would prove nothing."""
    rate, scale = play("rate"), play("scale")
    for columns in (rate, scale):
        for name in (
            "random_loss_ratio",
            "queue_loss_ratio",
            "rtx_packets",
            "fec_packets",
            "freeze_count",
        ):
            assert columns[name].max() > 0, name
        assert columns["key_frames"].min() > 1
    assert not np.array_equal(rate["rewards"], scale["rewards"])
    crowded = play("crowded")
    assert (crowded["cross_traffic_bps"] > 1e5).all()
    assert crowded["aqm_loss_ratio"].max() > 0
    overtaking = play("overtaking")
    for rows in overtaking["packets"].view(PACKET).reshape(2, -1):
        delivered = rows[(rows["fate"] == FATE_DELIVERED) & (rows["arrival_us"] > 0)]
        assert (np.diff(delivered["arrival_us"]) < 0).sum() > 20
        assert (delivered["report_state"] == REPORT_RECEIVED).any()
    protected = play("protected")
    assert protected["audio_recovered_frames"].max() > 3
    assert 0 < protected["rtx_packets"].sum() < overtaking["rtx_packets"].sum()

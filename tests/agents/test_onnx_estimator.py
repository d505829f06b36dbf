"""A model of the MMSys'24 challenge as an estimator: a scripted model, and the published ones."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents import onnx_estimator
from agents.onnx_estimator import OnnxEstimator
from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError
from bwe_env.estimator import NO_TIMEOUT_US, BandwidthEstimator
from bwe_env.feedback import FeedbackReport, PacketResult, SentPacket
from bwe_env.mmsys24 import Mmsys24Observer
from experiments.contenders import find_contender

CALL = CallConfig(min_rate_bps=50_000, max_rate_bps=4_000_000, start_rate_bps=300_000)
PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared/reference/mmsys24"


class ScriptedSession:
    """Stands in for onnxruntime's: answers a script, and counts in its hidden state."""

    answers: tuple[float, ...] = ()
    obs_size = 150
    asked: list[dict[str, np.ndarray]]

    def __init__(self, path: str, options: Any, providers: list[str]) -> None:
        if Path(path).read_text() == "damaged":
            raise RuntimeError("no protobuf")
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
        type(self).asked = []

    def get_inputs(self) -> list[SimpleNamespace]:
        shapes = {
            "obs": [1, 1, self.obs_size],
            "hidden_states": [1, 3],
            "cell_states": [1, 3],
        }
        return [SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in ("output", "state_out", "cell_out")]

    def run(self, outputs: tuple[str, ...], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert outputs == ("output", "state_out", "cell_out")
        self.asked.append(inputs)
        mean_bps = self.answers[int(inputs["hidden_states"][0, 0])]
        output = np.array([[[mean_bps, 1e5]]], dtype=np.float32)
        return [output, inputs["hidden_states"] + 1, inputs["cell_states"] - 1]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The path of a model that `ScriptedSession` plays."""
    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=ScriptedSession)
    monkeypatch.setattr(onnx_estimator, "_onnxruntime", lambda: runtime)
    onnx_estimator._session.cache_clear()
    path = tmp_path / "model.onnx"
    path.write_text("scripted")
    yield path
    onnx_estimator._session.cache_clear()


def a_report(now_ms: int, *arrivals: tuple[int, int]) -> FeedbackReport:
    """Packets by sequence number and arrival in ms, 1000 bytes each, sent 20 ms before."""
    packets = tuple(
        PacketResult(SentPacket(seq, 1000 * (ms - 20), 1000), 1000 * ms) for seq, ms in arrivals
    )
    return FeedbackReport(built_us=1000 * now_ms, packets=packets, bytes_in_flight=0)


def test_the_mean_is_the_target_within_the_calls_range(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedSession, "answers", (2e4, 7e5, 9e6, -1.0))
    estimator = OnnxEstimator(model, call=CALL)
    assert isinstance(estimator, BandwidthEstimator)
    assert (estimator.side, estimator.interval_s) == ("receiver", 0.06)
    assert estimator.next_timeout_us() == NO_TIMEOUT_US
    targets = [
        estimator.on_feedback(a_report(60 * n, (n, 60 * n - 5)), 60_000 * n).target_rate_bps
        for n in (1, 2, 3, 4)
    ]
    assert targets == [50_000, 700_000, 4_000_000, 50_000]


def test_it_sees_the_observation_and_its_own_state_of_the_last_time(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedSession, "answers", (1e6, 1e6))
    estimator, observer = OnnxEstimator(model, call=CALL), Mmsys24Observer()
    other = OnnxEstimator(model, call=CALL)  # shares the session, not the state
    for number, report in enumerate((a_report(60, (0, 40), (1, 50)), a_report(120, (4, 110)))):
        observer.add(report.packets)
        estimator.on_feedback(report, report.built_us)
        asked = ScriptedSession.asked[-1]
        assert asked["obs"].shape == (1, 1, 150)
        assert asked["obs"].dtype == np.float32
        np.testing.assert_array_equal(asked["obs"][0, 0], observer.observation())
        np.testing.assert_array_equal(asked["hidden_states"], np.full((1, 3), number))
        np.testing.assert_array_equal(asked["cell_states"], np.full((1, 3), -number))
    other.on_feedback(a_report(60, (0, 40)), 60_000)
    np.testing.assert_array_equal(ScriptedSession.asked[-1]["hidden_states"], np.zeros((1, 3)))


def test_until_something_arrives_it_keeps_the_start_rate_and_is_not_asked(model: Path) -> None:
    estimator = OnnxEstimator(model, call=CALL)
    assert estimator.on_feedback(a_report(60), 60_000).target_rate_bps == CALL.start_rate_bps
    assert estimator.on_timeout(70_000).target_rate_bps == CALL.start_rate_bps
    assert ScriptedSession.asked == []


def test_an_answer_that_is_no_number_is_an_error_of_this_call(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedSession, "answers", (float("nan"),))
    with pytest.raises(ArtifactError, match="the model answered nan; it must be finite"):
        OnnxEstimator(model, call=CALL).on_feedback(a_report(60, (0, 40)), 60_000)


def test_what_is_no_model_of_the_challenge_is_told_apart(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        OnnxEstimator(model.parent / "other.onnx", call=CALL)
    damaged = model.parent / "damaged.onnx"
    damaged.write_text("damaged")
    with pytest.raises(ArtifactError, match="no ONNX model that can be run: no protobuf"):
        OnnxEstimator(damaged, call=CALL)
    monkeypatch.setattr(ScriptedSession, "obs_size", 210)
    with pytest.raises(ArtifactError, match=r"its obs has 150 numbers; this one takes .*210"):
        OnnxEstimator(model, call=CALL)


def test_without_onnxruntime_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnx_estimator._session.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtifactError, match=r"onnxruntime: pip install .*export"):
        OnnxEstimator("model.onnx", call=CALL)


def test_a_contender_is_named_by_its_path_and_is_refused_before_any_call(model: Path) -> None:
    contender = find_contender(f"onnx:{model}", CALL)
    assert contender.label == f"onnx:{model}"
    factory = pickle.loads(pickle.dumps(contender.controller))
    assert isinstance(factory(), OnnxEstimator)
    with pytest.raises(ArtifactError, match="no such file"):
        find_contender("onnx:missing/model.onnx", CALL)


@pytest.mark.parametrize("name", ["baseline_offline_rl", "farc_2nd"])
def test_published_models_ask_for_more_than_arrives_until_it_queues(name: str) -> None:
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    path = PUBLISHED / f"{name}.onnx"
    if not path.is_file():
        pytest.skip("published models are not part of this repository")
    onnx_estimator._session.cache_clear()
    call = CallConfig(min_rate_bps=10_000, max_rate_bps=50_000_000, start_rate_bps=300_000)

    def last_target_bps(*, queue_ms_per_s: float) -> float:
        """After 9 s of 8 packets of 1100 bytes in each interval, 1.17 Mbps."""
        estimator, target_bps = OnnxEstimator(path, call=call), 0.0
        for interval in range(150):
            now_us = 60_000 * (interval + 1)
            packets = []
            for index in range(8):
                arrival_us = now_us - 7_500 * (7 - index)
                queued_us = int(1e-3 * arrival_us * queue_ms_per_s)
                sent = SentPacket(8 * interval + index, arrival_us - 30_000 - queued_us, 1100)
                packets.append(PacketResult(sent, arrival_us))
            report = FeedbackReport(built_us=now_us, packets=tuple(packets), bytes_in_flight=0)
            target_bps = estimator.on_feedback(report, now_us).target_rate_bps
        return target_bps

    arriving_bps = 8 * 8 * 1100 / 0.06
    assert last_target_bps(queue_ms_per_s=0.0) > 1.5 * arriving_bps
    assert call.min_rate_bps < last_target_bps(queue_ms_per_s=60.0) < arriving_bps

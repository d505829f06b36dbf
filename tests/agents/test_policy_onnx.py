from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.export import export_policy_onnx
from agents.policy_estimator import MlpArchitecture, PolicyEstimator
from agents.policy_setting import PolicySetting
from agents.recurrent_policy import LstmArchitecture, RecurrentPolicyEstimator
from bwe_env.errors import ConfigError
from bwe_env.observation import FEATURE_NAMES, ObservationConfig

SETTING = PolicySetting(observation=ObservationConfig(history=1), max_rate_bps=2_500_000)
NO_EXTRA = "the export extra is not installed"


def make(kind: str) -> PolicyEstimator:
    torch.manual_seed(4)
    if kind == "mlp":
        mlp = MlpArchitecture(inputs=21, hidden_sizes=(16, 8), outputs=1, activation="relu")
        return PolicyEstimator(mlp.build(), mlp, setting=SETTING)
    lstm = LstmArchitecture(inputs=21, lstm_size=12, hidden_sizes=(8,), outputs=1)
    return RecurrentPolicyEstimator(lstm.build(), lstm, setting=SETTING)


def open_session(policy: PolicyEstimator, path: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime", reason=NO_EXTRA)
    pytest.importorskip("onnxscript", reason=NO_EXTRA)
    export_policy_onnx(policy, path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_onnx_acts_as_the_policy_does_through_a_whole_call(kind: str, tmp_path: Path) -> None:
    policy = make(kind)
    session = open_session(policy, tmp_path / "policy.onnx")
    generator = np.random.default_rng(0)
    policy.reset(1)
    state = [np.zeros((1, 12), dtype=np.float32)] * 2 if kind == "lstm" else []
    names = [given.name for given in session.get_inputs()]
    for step in range(20):
        # Grows until the action has to be clipped.
        rows = generator.uniform(-1 - step, 1 + step, (1, 21)).astype(np.float32)
        action, *state = session.run(None, dict(zip(names, [rows, *state], strict=True)))
        assert action.shape == (1, 1)
        np.testing.assert_allclose(action, policy.act(rows, None), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs"),
    [
        ("mlp", ["obs"], ["action"]),
        ("lstm", ["obs", "hidden", "cell"], ["action", "hidden_out", "cell_out"]),
    ],
)
def test_an_onnx_file_tells_what_the_policy_sees_and_sets(
    kind: str, inputs: list[str], outputs: list[str], tmp_path: Path
) -> None:
    policy = make(kind)
    session = open_session(policy, tmp_path / "policy.onnx")
    assert [given.name for given in session.get_inputs()] == inputs
    assert [answer.name for answer in session.get_outputs()] == outputs
    assert session.get_inputs()[0].shape == [1, 21]
    told = session.get_modelmeta().custom_metadata_map
    assert PolicySetting.from_json(json.loads(told["setting"])) == SETTING
    assert json.loads(told["features"]) == list(FEATURE_NAMES)
    assert list(json.loads(told["architecture"])) == [kind]


def test_without_the_packages_the_error_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install .*\[export\]"):
        export_policy_onnx(make("mlp"), tmp_path / "policy.onnx")

"""The policy that comes with the project."""

from __future__ import annotations

import json

import numpy as np
import pytest

from agents.pretrained import ENVIRONMENT, FOLDER, default_policy
from bwe_env import BandwidthEstimationVectorEnv, run_calls
from bwe_env.config import CallConfig
from bwe_env.trace import networks
from experiments import run_directory
from experiments.contenders import find_contender


def test_it_belongs_to_this_environment_and_its_folder_is_small_and_holds_no_code() -> None:
    assert ENVIRONMENT == run_directory.ENVIRONMENT
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(sizes) == {"README.md", "policy.json", "policy.onnx", "policy.safetensors"}
    assert sum(sizes.values()) < 300_000
    # No traces of where it was made.
    assert not any(b"site-packages" in path.read_bytes() for path in FOLDER.iterdir())


def test_its_model_card_says_how_it_was_trained_and_selected() -> None:
    card = (FOLDER / "README.md").read_text()
    seed = 1
    for word in ("python -m experiments.train", f"--seed {seed}", "validation", "test networks"):
        assert word in card
    assert not any(place in card for place in ("/tmp", "/home", "/work"))


def test_it_plays_calls_in_one_line() -> None:
    policy = default_policy()
    some = list(networks("validation", count=2))
    call = CallConfig(duration_s=5.0)
    calls = run_calls(some, policy, call=call, seeds=(0,), **policy.setting.options())
    assert np.isfinite(calls["call_score"]).all()
    contender = find_contender("ppo", call)
    assert contender.label == "ppo"
    again = run_calls(
        some,
        contender.controller,
        call=call,
        seeds=(0,),
        observation=contender.observation,
        gcc=contender.gcc,
    )
    np.testing.assert_array_equal(calls["call_score"], again["call_score"])


def test_its_onnx_form_answers_as_it_does() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    policy = default_policy()
    session = onnxruntime.InferenceSession(str(FOLDER / "policy.onnx"))
    told = json.loads(session.get_modelmeta().custom_metadata_map["setting"])
    assert told == json.loads(json.dumps(policy.setting.to_json()))
    env = BandwidthEstimationVectorEnv(
        4, networks=list(networks("validation", count=4)), observation=policy.setting.observation
    )
    rows, _ = env.reset(seed=0)
    for _ in range(10):
        expected = policy.act(rows, env.truth)
        name = session.get_inputs()[0].name
        answers = [session.run(None, {name: row[None]})[0][0] for row in rows]
        np.testing.assert_allclose(np.clip(answers, -1.0, 1.0), expected, atol=1e-5)
        rows = env.step(expected)[0]

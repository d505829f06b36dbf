"""What models take is measured in the calls that they follow."""

from __future__ import annotations

import numpy as np
import torch

from agents.network_model import NetworkModel, NetworkModelConfig, save_network_model
from experiments.collected_networks import collected_networks
from experiments.model_costs import file_bytes, inference_ms


def model_of(*tasks: str) -> NetworkModel:
    torch.manual_seed(0)
    return NetworkModel(NetworkModelConfig(tasks=tasks)).eval()


def test_times_are_those_of_models_and_of_the_simulation_apart() -> None:
    networks = collected_networks("test", 2)
    slow = model_of("congestion", "random_loss")
    calls = 0

    def count(*arguments: object) -> None:
        nonlocal calls
        calls += 1

    slow.register_forward_hook(count)
    models_ms, simulation_ms = inference_ms([slow], networks, num_envs=2)
    assert calls >= 500  # once per interval of 60 s, or what calls that drop leave of it
    assert models_ms > 0.0
    assert simulation_ms > 0.0
    assert np.isfinite(models_ms + simulation_ms)


def test_a_model_weighs_what_its_two_files_weigh(tmp_path) -> None:
    save_network_model(tmp_path, model_of("congestion"))
    (tmp_path / "history.json").write_text("not part of it")
    weights, manifest = tmp_path / "network_model.safetensors", tmp_path / "network_model.json"
    assert file_bytes(tmp_path) == len(weights.read_bytes()) + len(manifest.read_bytes())

"""What several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.collect import CollectConfig, collect_simulated


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls on 12 train, 8 validation and 8 test networks; not to be written into."""
    out = tmp_path_factory.mktemp("datasets") / "calls"
    return collect_simulated(
        CollectConfig(train=12, validation=8, test=8, out=out, threads=2), quiet=True
    )


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Small models gain nothing from threads, which spin while other processes want their core."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

"""Building what is delivered: what an interrupted build finds again."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import reproduce_build
from experiments.fit import FitConfig


def test_models_of_a_build_are_found_again_after_its_folder_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(config: FitConfig) -> None:
        folder = config.runs_dir / f"{config.run_name}-001" / "seed-0"
        folder.mkdir(parents=True)
        (folder / "network_model.json").write_text("{}")

    monkeypatch.setattr(reproduce_build, "fit", fit)
    (tmp_path / "build").mkdir()
    sizes = reproduce_build.BuildSizes.small()
    reproduce_build._fit(tmp_path / "build", tmp_path / "dataset", "congestion", sizes)
    moved = tmp_path / "elsewhere" / "build"
    moved.parent.mkdir()
    (tmp_path / "build").rename(moved)
    assert (moved / "models" / "congestion" / "network_model.json").is_file()

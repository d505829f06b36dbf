from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError
from experiments.run_directory import ENVIRONMENT, RunDirectory, fingerprint, git_state


@dataclass(frozen=True, kw_only=True)
class ExampleConfig:
    steps: int = 3
    call: CallConfig = field(default_factory=CallConfig)


def create(root: Path, **changes: Any) -> RunDirectory:
    options: dict[str, Any] = {
        "seeds": {"run": 5},
        "networks": {"train": "abc", "test": "def"},
        "command": ["python", "-m", "experiments.train"],
    }
    return RunDirectory.create(root, "ppo", ExampleConfig(steps=7), **(options | changes))


def test_a_second_run_of_a_name_gets_its_own_folder_and_leaves_the_first_alone(
    tmp_path: Path,
) -> None:
    first = create(tmp_path / "runs")
    before = {p: p.read_bytes() for p in first.path.rglob("*") if p.is_file()}
    second = create(tmp_path / "runs")
    assert (first.path.name, second.path.name) == ("ppo-001", "ppo-002")
    assert before == {p: p.read_bytes() for p in first.path.rglob("*") if p.is_file()}


def test_the_record_names_command_versions_seeds_networks_and_git(tmp_path: Path) -> None:
    record = create(tmp_path).record
    assert record["command"] == ["python", "-m", "experiments.train"]
    assert record["environment"] == ENVIRONMENT
    assert record["seeds"] == {"run": 5}
    assert record["networks"] == {"train": "abc", "test": "def"}
    assert {"python", "numpy", "numba", "gymnasium", "torch"} <= set(record["versions"])
    assert record["git"] is None or set(record["git"]) == {"commit", "has_changes"}
    assert record["resumed"] == []


def test_a_folder_outside_any_repository_has_no_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None


def test_the_configuration_comes_back_equal(tmp_path: Path) -> None:
    run = RunDirectory.open(create(tmp_path).path)
    assert run.load_config(ExampleConfig) == ExampleConfig(steps=7)


def test_a_run_of_another_environment_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.check_same(environment=ENVIRONMENT, networks={"train": "abc"})
    with pytest.raises(ArtifactError, match=r"made with .*-v0.*this is .*-v1.*train anew"):
        run.check_same(environment="BandwidthEstimation-v1")


def test_other_networks_than_at_the_start_are_refused(tmp_path: Path) -> None:
    run = create(tmp_path)
    with pytest.raises(ArtifactError, match=r"the test networks are not those .* --traces"):
        run.check_same(networks={"train": "abc", "test": "xyz"})


def test_a_configuration_edited_afterwards_is_refused(tmp_path: Path) -> None:
    run = create(tmp_path)
    values = json.loads((run.path / "config.json").read_text())
    values["steps"] = 8
    (run.path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match="not the configuration this run was started with"):
        RunDirectory.open(run.path)


def test_a_configuration_of_another_project_version_says_which_option_does_not_fit(
    tmp_path: Path,
) -> None:
    run = create(tmp_path)

    @dataclass(frozen=True, kw_only=True)
    class Renamed:
        total_steps: int = 3

    with pytest.raises(ArtifactError, match=r"does not fit this version.*Known: total_steps"):
        run.load_config(Renamed)


def test_a_folder_that_does_not_exist_is_an_unknown_name_with_the_nearest_run(
    tmp_path: Path,
) -> None:
    create(tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean .*ppo-001"):
        RunDirectory.open(tmp_path / "ppo-002")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_that_is_no_whole_run_is_refused(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "something"
    folder.mkdir()
    if content is not None:
        (folder / "run.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"no run directory|damaged"):
        RunDirectory.open(folder)


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="becomes a folder"):
        RunDirectory.create(tmp_path, name, ExampleConfig(), seeds={})
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot make a run directory .* --runs-dir"):
        create(tmp_path / "file")


def test_resuming_is_written_down_without_losing_the_start(tmp_path: Path) -> None:
    run = create(tmp_path)
    started = run.record["started"]
    run.note_resume()
    run.note_resume()
    assert run.record["started"] == started
    assert len(run.record["resumed"]) == 2
    RunDirectory.open(run.path)


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})

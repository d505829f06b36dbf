"""A run's folder: what was asked for, what it ran on, and what came out. Never overwritten.

::

    runs/ppo-001/
        config.json     the whole configuration, as `bwe_env.config.from_mapping` reads it back
        run.json        command, environment version, package versions, git state, seeds, networks
        checkpoints/    last.zip (to resume), best.zip
        policy/         the selected policy as safetensors + JSON, for experiments.evaluate
        tensorboard/    event files
        progress.csv    of learning; validations.csv of the choice of the policy
        compare.json    the final comparison, with compare.txt (its tables) and its CSV files
                        (see `experiments.compare_results`)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from bwe_env.config import from_mapping
from bwe_env.errors import ArtifactError, ConfigError, unknown_name

T = TypeVar("T")

#: Id and version of the environment: what a policy and a run belong to.
ENVIRONMENT = "BandwidthEstimation-v0"

#: Packages whose version can change a result.
PACKAGES = (
    "numpy",
    "numba",
    "gymnasium",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "bwe-env",
)
#: More runs of one name than anybody keeps; the search for a free number ends there.
MAX_RUNS = 100_000


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, path)


def config_to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values (paths as text, tuples as lists)."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return dict(plain)


def fingerprint(values: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order of its keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Installed version of everything that can change a result."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit of the checkout and whether it has changes; None outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "has_changes": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


@dataclass(frozen=True)
class RunDirectory:
    """One existing run."""

    path: Path

    @classmethod
    def create(
        cls,
        root: str | Path,
        name: str,
        config: Any,
        *,
        seeds: Mapping[str, int],
        networks: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        environment: str = ENVIRONMENT,
    ) -> RunDirectory:
        """Make ``root/name-NNN`` with the first free number and write down what will run.

        Args:
            config: the dataclass behind the run; stored whole.
            seeds: every seed of the run by what it seeds.
            networks: digest of each set of networks by its name.
            command: what was typed; by default this process's arguments.
            environment: id and version of the environment.

        Raises:
            ConfigError: `name` cannot be the name of a folder.
        """
        if not name or any(not (c.isalnum() or c in "-_.") for c in name) or name[0] == ".":
            raise ConfigError(
                f"run name {name!r} must be made of letters, digits, '-', '_' and '.', and not "
                "begin with a dot: it becomes a folder."
            )
        path = _claim_folder(Path(root), name)
        for folder in ("checkpoints", "tensorboard"):
            (path / folder).mkdir()
        values = config_to_dict(config)
        write_json(path / "config.json", values)
        write_json(
            path / "run.json",
            {
                "command": list(command if command is not None else sys.orig_argv),
                "config_fingerprint": fingerprint(values),
                "environment": environment,
                "git": git_state(Path(__file__).resolve().parent),
                "networks": dict(networks or {}),
                "resumed": [],
                "seeds": dict(seeds),
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": package_versions(),
            },
        )
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """An existing run, checked to be whole.

        Raises:
            UnknownNameError: there is no such folder.
            ArtifactError: the folder is no run, or its configuration was changed since it began.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise unknown_name("run directory", str(path), _runs_beside(folder))
        run = cls(folder)
        recorded = run.record.get("config_fingerprint")
        if recorded != fingerprint(run._read("config.json")):
            raise ArtifactError(
                f"{folder / 'config.json'} is not the configuration this run was started with "
                "(its fingerprint in run.json differs). Restore the file, or start a new run."
            )
        return run

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        return self._read("run.json")

    @property
    def checkpoints(self) -> Path:
        """Folder of the training checkpoints (SB3 archives: one's own only, they run code)."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def policy(self) -> Path:
        """Folder of the selected policy in its safe form."""
        return self.path / "policy"

    def load_config(self, cls_: type[T]) -> T:
        """The configuration this run was started with."""
        try:
            return from_mapping(cls_, self._read("config.json"))
        except (ConfigError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{self.path / 'config.json'} does not fit this version of the project: {error} "
                "Use the commit named in run.json, or start a new run."
            ) from error

    def check_same(
        self, *, environment: str = ENVIRONMENT, networks: Mapping[str, str] | None = None
    ) -> None:
        """Refuse to go on in another environment version or on other networks.

        Raises:
            ArtifactError: either differs from what the run was started with.
        """
        recorded = self.record
        if recorded.get("environment") != environment:
            raise ArtifactError(
                f"{self.path} was made with environment {recorded.get('environment')!r}, this is "
                f"{environment!r}; its policy has learnt other dynamics. Use the commit "
                f"{(recorded.get('git') or {}).get('commit', 'it was made with')}, or train anew."
            )
        for name, digest in (networks or {}).items():
            if recorded.get("networks", {}).get(name) != digest:
                raise ArtifactError(
                    f"the {name} networks are not those {self.path} was started with (their "
                    "digests differ), so its selection would mean nothing. Give the same --traces "
                    "folder unchanged, or start a new run."
                )

    def note_resume(self) -> None:
        """Write down that, when and how the run was taken up again."""
        record = self.record
        record["resumed"].append(
            {
                "command": list(sys.orig_argv),
                "git": git_state(Path(__file__).resolve().parent),
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": package_versions(),
            }
        )
        write_json(self.path / "run.json", record)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            raise ArtifactError(
                f"{self.path} is no run directory: {name} cannot be read ({error.strerror}). Give "
                "a folder made by python -m experiments.train, such as runs/ppo-001."
            ) from error
        except ValueError as error:
            raise ArtifactError(f"{path} is damaged, it is no JSON: {error}.") from error
        if not isinstance(content, dict):
            raise ArtifactError(f"{path} is damaged: expected a JSON object.")
        return content


def _claim_folder(root: Path, name: str) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in range(1, MAX_RUNS):
            path = root / f"{name}-{number:03d}"
            try:
                # The one step that decides between two runs started at once.
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise ConfigError(
            f"cannot make a run directory under {root}: {error.strerror}. Give a folder that can "
            "be written with --runs-dir."
        ) from error
    raise ConfigError(f"{root} holds {MAX_RUNS} runs called {name!r}; choose another --name.")


def _runs_beside(folder: Path) -> list[str]:
    parent = folder.parent
    if not parent.is_dir():
        return []
    return [str(parent / p.parent.name) for p in parent.glob("*/run.json")]

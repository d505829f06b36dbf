"""Arms of an A/B test whose calls are targeted at their network, and their placebo.

What targets them is a delivered folder (a plan with models, or with rules), fetched from a server
when the calls are set up, or one of this machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agents.targeting import PLAN_FILE, load_targeting
from baselines.targeted import load_targeted
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.network import Network
from bwe_env.rollout import run_calls
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import Targeting, TargetingPlan
from experiments.artifact_store import Store
from experiments.recorded_answers import RecordingModels, read_answers, write_answers
from experiments.store_client import StoreClient

#: Calls side by side; answers are kept and shuffled batch by batch. As `run_calls` has it.
BATCH_CALLS = 64


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How a configuration reaches a call that is being set up."""

    url: str
    """of `experiments.serve`"""
    reference: str
    """name of the configuration there"""
    cache: Path
    """store of this machine; calls of several processes share it"""

    def fetch(self, built_in: Path | None) -> tuple[Path, str]:
        """The folder to use, and the digest of its manifest, "built-in" for none.

        Raises:
            DeliveryError: the server is away, nothing is cached, and nothing is built in.
        """
        client = StoreClient(self.url, Store(self.cache, durable=False))
        delivered = client.fetch(self.reference, kind="configuration", built_in=built_in)
        return delivered.directory, delivered.digest or "built-in"


@dataclass(frozen=True, kw_only=True)
class TargetedArm:
    """GCC, targeted as a delivered configuration says."""

    name: str
    folder: Path | None = None
    """the configuration, or what there is if no server and no cache has one"""
    delivery: Delivery | None = None
    """where calls get it from when they are set up"""
    driver: Literal["models", "rules"] = "models"
    answers: Path | None = None
    """folder that gets what the models said, for a placebo"""

    def __post_init__(self) -> None:
        if self.folder is None and self.delivery is None:
            raise ConfigError(f"arm {self.name!r} needs a folder or a delivery.")

    def inputs(self, call: CallConfig) -> Mapping[str, Any]:
        """Digest of the configuration's files; with a delivery, of what is delivered now.

        Not of its manifest: a call that was too late for the server, and took the same files from
        the built-in folder, has been treated alike.
        """
        folder, _ = self._set_up()
        return {"driver": self.driver, "files": folder_digest(folder)}

    def play(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        call: CallConfig,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `experiments.ab_arms.Arm`; a column ``configuration`` has the digest."""
        folder, digest = self._set_up()
        targeting = _load(folder, self.driver)
        recording = RecordingModels(targeting.models)
        if self.answers is not None:
            targeting = Targeting(targeting.plan, recording)
        calls = _play(networks, seeds, call, targeting, progress)
        if self.answers is not None:
            self.answers.mkdir(parents=True, exist_ok=True)
            write_answers(self.answers / _answers_file(networks, seeds), recording)
        return {**calls, "configuration": np.repeat(digest, len(calls["seed"]))}

    def _set_up(self) -> tuple[Path, str]:
        if self.delivery is not None:
            return self.delivery.fetch(self.folder)
        assert self.folder is not None
        return self.folder, "built-in"


@dataclass(frozen=True, kw_only=True)
class AlwaysArm:
    """GCC with the settings of a plan's alarm from beginning to end, told nothing of the network.

    What it gains, a better default would: a placebo alone does not tell that.
    """

    name: str
    folder: Path
    """of the configuration"""
    alarm: Literal["random_loss", "congestion"]

    def _settings(self) -> SenderSettings:
        plan = TargetingPlan.read(self.folder / PLAN_FILE)
        response = getattr(plan, self.alarm)
        if response is None:
            raise ConfigError(f"the plan in {self.folder} has no alarm for {self.alarm}.")
        return SenderSettings().with_overrides({**plan.base, **response.settings})

    def inputs(self, call: CallConfig) -> Mapping[str, Any]:
        """The settings."""
        return {"settings": dataclasses.asdict(self._settings())}

    def play(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        call: CallConfig,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `experiments.ab_arms.Arm`."""
        settings = self._settings()
        return run_calls(
            networks,
            "gcc",
            call=settings.applied_to(call),
            gcc=settings.gcc,
            seeds=seeds,
            batch_size=BATCH_CALLS,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class PlaceboArm:
    """The treatment, but each call hears what was said of another, from another moment on."""

    name: str
    treatment: TargetedArm
    """played before on the same calls, with `answers` set"""
    seed: int = 0
    """of the shuffle"""

    def inputs(self, call: CallConfig) -> Mapping[str, Any]:
        """Those of the treatment, and the seed of the shuffle."""
        return {**self.treatment.inputs(call), "placebo_seed": self.seed}

    def play(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        call: CallConfig,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """See `experiments.ab_arms.Arm`."""
        if self.treatment.answers is None:
            raise ConfigError(f"the treatment of {self.name!r} keeps no answers; give it a folder.")
        folder, _ = self.treatment._set_up()
        path = self.treatment.answers / _answers_file(networks, seeds)
        plan = _load(folder, self.treatment.driver).plan
        targeting = Targeting(plan, read_answers(path, seed=self.seed))
        return _play(networks, seeds, call, targeting, progress)


def _load(folder: Path, driver: Literal["models", "rules"]) -> Targeting:
    return load_targeting(folder) if driver == "models" else load_targeted(folder)


def _play(
    networks: Sequence[Network],
    seeds: Sequence[int],
    call: CallConfig,
    targeting: Targeting,
    progress: Callable[[int], None] | None,
) -> dict[str, NDArray[Any]]:
    return run_calls(
        networks,
        "gcc",
        call=call,
        seeds=seeds,
        targeting=targeting,
        batch_size=BATCH_CALLS,
        progress=progress,
    )


def _answers_file(networks: Sequence[Network], seeds: Sequence[int]) -> str:
    """Named after the calls, so that a placebo finds those of its treatment."""
    calls = "\n".join([*(network.name for network in networks), *map(str, seeds)])
    return hashlib.sha256(calls.encode()).hexdigest()[:32] + ".npz"


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()

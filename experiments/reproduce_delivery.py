"""Configurations on their way to calls: a store, a server in a process of its own, references.

What is delivered are folders as `agents.targeting` and `baselines.targeted` read them: a plan, the
models that it asks, and the rules that stand in for them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from agents.network_model import MANIFEST_FILE, WEIGHTS_FILE
from agents.targeting import MODELS_FOLDER, PLAN_FILE
from baselines.targeted import RULES_FILE
from bwe_env.errors import ArtifactError
from experiments.artifact_store import Store
from experiments.plan_trials import STUDIES

#: Configurations that come with the project. docs/targeting.md tells how each was made; the full
#: form of `experiments.reproduce` makes its own.
SHIPPED = Path(__file__).parent / "delivered"
#: How long a server may take to end once told, seconds. Ours.
END_WAIT_S = 10.0


def assemble(plans: Path, models: Path, rules: Path, out: Path) -> None:
    """Put together what is delivered: one folder per plan, with nothing that differs between runs.

    Args:
        plans: folder with a folder per plan, as `experiments.tune_plans` leaves it.
        models: folder with a folder per task.
        rules: folder with ``rules.json``.
    """
    for name, study in STUDIES.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copyfile(plans / name / PLAN_FILE, folder / PLAN_FILE)
        shutil.copyfile(rules / RULES_FILE, folder / RULES_FILE)
        for task in study.models:
            target = folder / MODELS_FOLDER / task
            target.mkdir(parents=True)
            for file in (MANIFEST_FILE, WEIGHTS_FILE):
                shutil.copyfile(models / task / file, target / file)


def fill_store(
    store: Store, delivered: Path, plans: Collection[str] = tuple(STUDIES)
) -> dict[str, str]:
    """Add configurations and name them; returns the digests by reference.

    Raises:
        ArtifactError: a configuration is missing.
    """
    digests = {}
    for name in plans:
        folder = delivered / name
        if not (folder / PLAN_FILE).is_file():
            raise ArtifactError(
                f"{folder} holds no configuration; python -m experiments.reproduce without --quick "
                "makes all of them."
            )
        digests[name] = store.add(folder, kind="configuration", architecture="targeting_plan")
        store.set_ref(name, digests[name])
    return digests


@dataclass(frozen=True)
class Server:
    """A running `experiments.serve`."""

    url: str
    process: subprocess.Popen[str]

    def end(self) -> None:
        """Tell it to stop, and wait until it has."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_WAIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def served(store: Path, *, log: Path) -> Iterator[Server]:
    """Serve a store on a free port of the loopback address, from a process of its own.

    Args:
        log: file that gets what the server says.

    Raises:
        ArtifactError: the server did not start; the log says why.
    """
    command = [sys.executable, "-m", "experiments.serve", "--store", str(store), "--port", "0"]
    # Its input is a pipe of ours, which ends with us, however we end: no server is left behind.
    command.append("--until-input-ends")
    root = str(Path(__file__).parent.parent)
    with log.open("a") as messages:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
    try:
        assert process.stdout is not None
        # "serving STORE at URL (read-only)"
        words = process.stdout.readline().split()
        if "at" not in words:
            raise ArtifactError(f"the server of {store} did not start; see {log}.")
        yield (server := Server(url=words[words.index("at") + 1], process=process))
        server.end()
    finally:
        Server(url="", process=process).end()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

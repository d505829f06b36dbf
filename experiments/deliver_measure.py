"""What delivering a model costs: bytes and milliseconds, with a server that is its own process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bwe_env.errors import ConfigError
from bwe_env.units import s_to_ms
from experiments.artifact_store import Store
from experiments.serve import TOKEN_VARIABLE
from experiments.store_client import Delivered, StoreClient
from experiments.store_measure import changed, example_model, write_model
from experiments.store_push import PushReport
from experiments.tables import make_table, show

#: What the models are called on the server.
NAME = "measured"
#: Generous: a machine that is busy makes a set-up slow, and is not to be measured as a fallback.
TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Print what pushing and fetching a model costs, on this machine over the loopback address."""

    repeats: int = 20
    """calls set up, each with a cache of its own"""
    seed: int = 0
    """of the numbers in the model"""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError("--repeats must be at least 1.")


@contextlib.contextmanager
def serving_process(store: Path, token: str) -> Iterator[str]:
    """A server as a process; yields its URL.

    Raises:
        ConfigError: it did not start; its own message is on standard error.
    """
    command = [sys.executable, "-m", "experiments.serve", "--port", "0"]
    with subprocess.Popen(
        [*command, "--store", str(store.resolve())],
        cwd=Path(__file__).resolve().parents[1],  # of the checkout, where `experiments` is found
        env={**os.environ, TOKEN_VARIABLE: token},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            if not words:
                raise ConfigError("the server did not start; try python -m experiments.serve.")
            yield next(word for word in words if word.startswith("http://"))
        finally:
            process.terminate()


def _push_row(what: str, reports: Sequence[PushReport]) -> list[str]:
    return _row(
        what,
        [report.sent_bytes for report in reports],
        [report.sent_blobs for report in reports],
        [report.seconds for report in reports],
    )


def _fetch_row(what: str, delivered: Sequence[Delivered]) -> list[str]:
    return _row(
        what,
        [item.received_bytes for item in delivered],
        [item.received_blobs for item in delivered],
        [item.seconds for item in delivered],
    )


def _row(
    what: str, sizes_bytes: Sequence[int], blobs: Sequence[int], seconds: Sequence[float]
) -> list[str]:
    return [
        what,
        str(len(seconds)),
        f"{int(median(sizes_bytes)):,}",
        str(int(median(blobs))),
        f"{s_to_ms(median(seconds)):.1f}",
        f"{s_to_ms(max(seconds)):.1f}",
    ]


def measured_rows(root: Path, config: MeasureConfig) -> list[list[str]]:
    """A row per kind of push and fetch; `root` is an empty folder to work in."""
    model = example_model(config.seed)
    write_model(root / "first", model)
    write_model(root / "second", changed(model, "heads.congestion.", config.seed + 1))
    token = secrets.token_urlsafe(32)
    mine = Store(root / "mine")
    digests = [
        mine.add(root / version, kind="model", architecture="network_model")
        for version in ("first", "second")
    ]
    with serving_process(Store(root / "server").root, token) as url:
        writer = StoreClient(url, mine, token=token)
        callers = [
            StoreClient(url, Store(root / f"cache-{n}", durable=False), timeout_s=TIMEOUT_S)
            for n in range(config.repeats)
        ]
        rows = [
            _push_row("push, first time", [writer.push(digests[0], NAME)]),
            _push_row("push, the same again", [writer.push(digests[0], NAME) for _ in callers]),
            _fetch_row("fetch, first time", [caller.fetch(NAME) for caller in callers]),
            _fetch_row("fetch, nothing changed", [caller.fetch(NAME) for caller in callers]),
            _push_row("push, one head changed", [writer.push(digests[1], NAME)]),
            _fetch_row("fetch, one head changed", [caller.fetch(NAME) for caller in callers]),
        ]
    away = _fetch_row("fetch, server away", [caller.fetch(NAME) for caller in callers])
    return [*rows, away]


def measure(config: MeasureConfig) -> int:
    """Run the command; returns its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measured_rows(Path(folder), config)
    header = ["what", "times", "bytes", "blobs", "ms, median", "ms, most"]
    caption = (
        "over the loopback address; bytes are those of bodies. Options: "
        f"{dataclasses.asdict(config)}"
    )
    show(make_table("what a delivery costs", header, rows, caption=caption))
    return 0

"""Artifacts to and from a server, by hand: ``python -m experiments.deliver COMMAND``.

    python -m experiments.deliver push congestion --url http://127.0.0.1:8600 --token-file TOKEN
    python -m experiments.deliver fetch congestion --url http://127.0.0.1:8600

`push` sends what the server (`experiments.serve`) lacks of an artifact of a store on this machine
and lets a name stand for it there. `fetch` does what a call does when it is set up, and prints
where the files are and what it cost; `--timeout-s inf` waits, for a dataset. `measure` prints what
both cost on this machine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bwe_env.errors import ConfigError
from bwe_env.units import s_to_ms
from experiments.artifact_store import Store
from experiments.cli import run_command
from experiments.deliver_measure import MeasureConfig, measure
from experiments.manifest import Kind
from experiments.serve import read_token
from experiments.signing import read_trusted_keys
from experiments.store import find
from experiments.store_client import DEFAULT_TIMEOUT_S, Delivered, StoreClient
from experiments.store_options import STORE

#: Where fetched artifacts are kept unless told otherwise.
CACHE = Path("runs/cache")


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Send an artifact to a server; only what it lacks is sent."""

    artifact: tyro.conf.Positional[str]
    """name or digest"""
    url: str
    """of the server, http://HOST:PORT"""
    name: str | None = None
    """what it is called there; by default as here"""
    expected: str | None = None
    """only if the name stands for this digest there until now; "absent": only if it is new"""
    token_file: Path | None = None
    """file with the token of writers; without it, the environment variable BWE_STORE_TOKEN"""
    store: Path = STORE
    """folder of the store that has it"""


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Get the newest version of a name, as a call does when it is set up."""

    name: tyro.conf.Positional[str]
    """of a reference on the server"""
    url: str
    """of the server, http://HOST:PORT"""
    kind: Kind | None = None
    """what it has to be"""
    built_in: Path | None = None
    """folder to fall back to, if there is neither a server nor an earlier version"""
    trusted: Path | None = None
    """file of public keys, one per line; one of them must have signed it"""
    timeout_s: float = DEFAULT_TIMEOUT_S
    """within which there is an answer, from wherever; inf waits and falls back to nothing"""
    cache: Path = CACHE
    """folder of the versions that were fetched before"""


def push(config: PushConfig) -> int:
    """Send an artifact."""
    store = Store(config.store, create=False)
    digest = find(store, config.artifact)
    name = config.name or config.artifact
    if name == digest:
        raise ConfigError("--name: say what the digest is to be called on the server.")
    client = StoreClient(config.url, store, token=read_token(config.token_file))
    report = client.push(digest, name, expected=config.expected)
    print(
        f"{name} is {digest} at {config.url}; it was {report.replaced or 'absent'}\n"
        f"{report.sent_bytes:,} of {report.total_bytes:,} bytes sent in {report.sent_blobs} blobs, "
        f"{report.seconds:.2f} s"
    )
    return 0


def fetch(config: FetchConfig) -> int:
    """Get an artifact."""
    delivered = _fetched(config)
    print(
        f"{delivered.directory}\n"
        f"{delivered.digest or 'no artifact'} of the {delivered.source}; "
        f"{delivered.received_bytes:,} bytes received in {delivered.received_blobs} blobs, "
        f"{s_to_ms(delivered.seconds):.0f} ms"
    )
    return 0


def _fetched(config: FetchConfig) -> Delivered:
    keys = read_trusted_keys(config.trusted) if config.trusted else frozenset()
    # A cache: what a power failure takes from it is fetched again.
    cache = Store(config.cache, durable=False)
    client = StoreClient(
        config.url, cache, trusted_keys=keys, timeout_s=min(config.timeout_s, sys.float_info.max)
    )
    if math.isinf(config.timeout_s):
        return client.pull(config.name, kind=config.kind)
    return client.fetch(config.name, kind=config.kind, built_in=config.built_in)


Command = (
    Annotated[PushConfig, tyro.conf.subcommand("push")]
    | Annotated[FetchConfig, tyro.conf.subcommand("fetch")]
    | Annotated[MeasureConfig, tyro.conf.subcommand("measure")]
)


@dataclass(frozen=True, kw_only=True)
class DeliverConfig:
    """Send artifacts to a server, and get them from there."""

    command: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Command]]


RUN: dict[type[Any], Callable[[Any], int]] = {
    PushConfig: push,
    FetchConfig: fetch,
    MeasureConfig: measure,
}


def run(config: DeliverConfig) -> int:
    """Run one command; returns its exit code."""
    return RUN[type(config.command)](config.command)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.deliver``."""
    return run_command(run, DeliverConfig, module="experiments.deliver", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

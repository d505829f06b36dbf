"""Options of the commands of ``python -m experiments.store``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bwe_env.errors import ConfigError
from experiments.artifact_store import GRACE_S
from experiments.manifest import Kind
from experiments.store_measure import MeasureConfig

#: Where artifacts are kept unless told otherwise.
STORE = Path("runs/store")


@dataclass(frozen=True, kw_only=True)
class AddConfig:
    """Store a folder, or one file, as an artifact."""

    directory: tyro.conf.Positional[Path]
    """every file in it is stored; links are refused"""
    kind: Kind
    """what it is"""
    architecture: str
    """what reads it; the message about a wrong one lists those of the kind"""
    metadata: Path | None = None
    """file of a JSON object to keep with it: how it was made, scores"""
    name: str | None = None
    """let this name stand for it"""
    expected: str | None = None
    """only if the name stands for this digest until now; "absent": only if it is new"""
    store: Path = STORE
    """folder of the store, made if need be"""


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    """List names and artifacts."""

    store: Path = STORE
    """folder of the store"""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Show what an artifact consists of."""

    artifact: tyro.conf.Positional[str]
    """name or digest"""
    store: Path = STORE
    """folder of the store"""


@dataclass(frozen=True, kw_only=True)
class NameConfig:
    """Let a name stand for an artifact, for instance for an earlier one again."""

    name: tyro.conf.Positional[str]
    """lower-case letters, digits, ".", "_", "-" """
    artifact: tyro.conf.Positional[str]
    """digest or another name; "absent" forgets the name"""
    expected: str | None = None
    """only if the name stands for this digest until now; "absent": only if it is new"""
    store: Path = STORE
    """folder of the store"""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Read everything and compare it with its digest; exit code 1 if something is wrong."""

    repair: bool = False
    """move damaged blobs out of the way, so that they can be stored again"""
    store: Path = STORE
    """folder of the store"""


@dataclass(frozen=True, kw_only=True)
class GcConfig:
    """Delete what no name reaches."""

    grace_s: float = GRACE_S
    """keep what is younger: another process may be about to name it"""
    dry_run: bool = False
    """only tell what would go"""
    store: Path = STORE
    """folder of the store"""


@dataclass(frozen=True, kw_only=True)
class CheckoutConfig:
    """Write the files of an artifact; files that are there with the right content stay."""

    artifact: tyro.conf.Positional[str]
    """name or digest"""
    directory: tyro.conf.Positional[Path]
    """made if need be"""
    members: tuple[str, ...] = ()
    """only these files"""
    overwrite: bool = False
    """replace files that have other content"""
    trusted: Path | None = None
    """file of public keys, one per line; one of them must have signed it"""
    store: Path = STORE
    """folder of the store"""


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Send artifacts to another store; only what it lacks is sent."""

    artifacts: tyro.conf.Positional[tuple[str, ...]]
    """names or digests; a name stands for the artifact there, too"""
    source: Path = STORE
    """folder of the store that has them"""
    target: Path
    """folder of the store to send to, made if need be"""
    trusted: Path | None = None
    """file of public keys, one per line; one of them must have signed each"""

    def __post_init__(self) -> None:
        if not self.artifacts:
            raise ConfigError("give at least one name or digest to transfer.")


@dataclass(frozen=True, kw_only=True)
class KeygenConfig:
    """Make a key to sign with, and print its public key."""

    key: tyro.conf.Positional[Path]
    """file for the private key; it has no password, keep it to yourself"""


@dataclass(frozen=True, kw_only=True)
class SignConfig:
    """Vouch for an artifact."""

    artifact: tyro.conf.Positional[str]
    """name or digest"""
    key: Path
    """private key, as keygen makes it"""
    store: Path = STORE
    """folder of the store"""


Command = (
    Annotated[AddConfig, tyro.conf.subcommand("add")]
    | Annotated[ListConfig, tyro.conf.subcommand("list")]
    | Annotated[ShowConfig, tyro.conf.subcommand("show")]
    | Annotated[NameConfig, tyro.conf.subcommand("name")]
    | Annotated[VerifyConfig, tyro.conf.subcommand("verify")]
    | Annotated[GcConfig, tyro.conf.subcommand("gc")]
    | Annotated[CheckoutConfig, tyro.conf.subcommand("checkout")]
    | Annotated[TransferConfig, tyro.conf.subcommand("transfer")]
    | Annotated[KeygenConfig, tyro.conf.subcommand("keygen")]
    | Annotated[SignConfig, tyro.conf.subcommand("sign")]
    | Annotated[MeasureConfig, tyro.conf.subcommand("measure")]
)


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Store, name, check, sign and send configurations, models, policies and datasets."""

    command: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Command]]

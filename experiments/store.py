"""Store, name, check, sign and send artifacts: ``python -m experiments.store COMMAND``.

An artifact is a configuration, a model, a policy or a dataset: a folder of files under one digest,
which depends on nothing but its content (`experiments.manifest`). Names point at artifacts
(`experiments.artifact_store`); a command takes either.

    python -m experiments.store add runs/congestion-001/seed-0 --kind model \
        --architecture network_model --name congestion
    python -m experiments.store transfer congestion --target /mnt/other/store
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bwe_env.errors import ArtifactError
from experiments import signing
from experiments.artifact_store import ABSENT, Store
from experiments.canonical_json import parse_json
from experiments.cli import run_command
from experiments.manifest import DIGEST_PATTERN, Manifest
from experiments.store_measure import MeasureConfig, measure
from experiments.store_options import (
    AddConfig,
    CheckoutConfig,
    GcConfig,
    KeygenConfig,
    ListConfig,
    NameConfig,
    ShowConfig,
    SignConfig,
    StoreConfig,
    TransferConfig,
    VerifyConfig,
)
from experiments.tables import make_table, show
from experiments.transfer import transfer

#: Exit code of a check that found something wrong: not that of a wrong command line.
EXIT_UNSOUND = 1


def find(store: Store, artifact: str) -> str:
    """The digest that a name or digest means.

    Raises:
        UnknownNameError: no such name.
    """
    return artifact if DIGEST_PATTERN.fullmatch(artifact) else store.resolve(artifact)


def megabytes(size_bytes: int) -> str:
    """A size as people read it; small ones to the byte."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes:,} bytes"


def add(config: AddConfig) -> int:
    """Store a folder."""
    started_s = time.perf_counter()
    store = Store(config.store)
    digest = store.add(
        config.directory,
        kind=config.kind,
        architecture=config.architecture,
        metadata=_read_metadata(config.metadata),
    )
    if config.name is not None:
        store.set_ref(config.name, digest, expected=config.expected)
    manifest = store.manifest(digest)
    seconds = time.perf_counter() - started_s
    print(
        f"{digest}: {config.kind}, {len(manifest.members)} files, "
        f"{megabytes(manifest.size_bytes)}, in {seconds:.2f} s"
        + (f"; {config.name} stands for it" if config.name else "")
    )
    return 0


def _read_metadata(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} must hold a JSON object.")
    return content


def list_artifacts(config: ListConfig) -> int:
    """Print names and artifacts."""
    store = Store(config.store, create=False)
    names: dict[str, list[str]] = {}
    for name, digest in store.refs().items():
        names.setdefault(digest, []).append(name)
    rows = [
        _list_row(digest, store.manifest(digest), names.get(digest, []))
        for digest in store.manifests()
    ]
    header = ["digest", "names", "kind", "architecture", "files", "bytes"]
    show(make_table(f"artifacts in {config.store}", header, rows))
    return 0


def _list_row(digest: str, manifest: Manifest, names: Sequence[str]) -> list[str]:
    size = f"{manifest.size_bytes:,}"
    count = str(len(manifest.members))
    return [digest, " ".join(names), manifest.kind, manifest.architecture, count, size]


def show_artifact(config: ShowConfig) -> int:
    """Print the members of an artifact, its metadata, and who signed it."""
    store = Store(config.store, create=False)
    digest = find(store, config.artifact)
    manifest = store.manifest(digest)
    rows = [
        [member.path, f"{member.size_bytes:,}", str(len(member.chunks)), member.digest]
        for member in manifest.members
    ]
    title = f"{digest}: {manifest.kind}, {manifest.architecture}"
    show(make_table(title, ["file", "bytes", "blobs", "digest"], rows))
    for key, value in sorted(manifest.metadata.items()):
        print(f"{key}: {value}")
    for signature in store.signatures(digest):
        print(f"signature of {signature.key} (checked by checkout and transfer with --trusted)")
    return 0


def name_artifact(config: NameConfig) -> int:
    """Set or forget a name."""
    store = Store(config.store, create=False)
    if config.artifact == ABSENT:
        store.delete_ref(config.name, expected=config.expected)
        print(f"{config.name} is forgotten")
        return 0
    digest = find(store, config.artifact)
    store.set_ref(config.name, digest, expected=config.expected)
    print(f"{config.name} stands for {digest}")
    return 0


def verify(config: VerifyConfig) -> int:
    """Check a store."""
    report = Store(config.store, create=False).verify(repair=config.repair)
    for problem in report.problems:
        print(f"wrong: {problem}", file=sys.stderr)
    if report.set_aside:
        print(f"{report.set_aside} damaged blobs moved to {config.store / 'damaged'}")
    print(
        f"{config.store}: {report.references} names, {report.manifests} artifacts, "
        f"{report.blobs} sound blobs of {megabytes(report.bytes_read)}, "
        f"{len(report.problems)} problems, in {report.seconds:.2f} s"
    )
    return EXIT_UNSOUND if report.problems else 0


def collect_garbage(config: GcConfig) -> int:
    """Delete what no name reaches."""
    store = Store(config.store, create=False)
    report = store.collect_garbage(config.grace_s, dry_run=config.dry_run)
    print(
        f"{'would delete' if config.dry_run else 'deleted'} {report.manifests_deleted} artifacts, "
        f"{report.blobs_deleted} blobs, {megabytes(report.bytes_deleted)}; kept "
        f"{report.blobs_kept} blobs of {megabytes(report.bytes_kept)}; in {report.seconds:.2f} s"
    )
    return 0


def checkout(config: CheckoutConfig) -> int:
    """Write files of an artifact."""
    store = Store(config.store, create=False)
    digest = find(store, config.artifact)
    report = store.checkout(
        digest,
        config.directory,
        config.members or None,
        overwrite=config.overwrite,
        trusted=_trusted(config.trusted),
    )
    print(
        f"{config.directory}: {report.files_written} files of {megabytes(report.bytes_written)} "
        f"written, {report.files_present} were there, in {report.seconds:.2f} s; {digest}"
    )
    return 0


def _trusted(path: Path | None) -> frozenset[str] | None:
    return None if path is None else signing.read_trusted_keys(path)


def transfer_artifacts(config: TransferConfig) -> int:
    """Send artifacts to another store."""
    from tqdm import tqdm

    source = Store(config.source, create=False)
    trusted = _trusted(config.trusted)
    digests = {artifact: find(source, artifact) for artifact in config.artifacts}
    target = Store(config.target)
    rows = []
    for artifact, digest in digests.items():
        with tqdm(unit="B", unit_scale=True, desc=artifact, disable=None, leave=False) as bar:
            report = transfer(source, target, digest, trusted=trusted, progress=bar.update)
        if artifact != digest:
            target.set_ref(artifact, digest)
        rows.append(
            [
                artifact,
                f"{report.bytes_sent:,}",
                f"{report.bytes_total:,}",
                f"{report.sent_ratio:.1%}",
                str(report.blobs_sent),
                f"{report.seconds:.2f}",
            ]
        )
    header = ["artifact", "bytes sent", "of", "share", "blobs sent", "seconds"]
    show(make_table(f"{config.source} to {config.target}", header, rows))
    return 0


def keygen(config: KeygenConfig) -> int:
    """Make a key."""
    print(f"{signing.generate_key(config.key)}  # of {config.key}; a line for a list of keys")
    return 0


def sign(config: SignConfig) -> int:
    """Sign an artifact."""
    store = Store(config.store, create=False)
    digest = find(store, config.artifact)
    signature = signing.sign(store.manifest_bytes(digest), config.key)
    store.put_signature(digest, signature)
    print(f"{digest} is signed by {signature.key}")
    return 0


#: What each command's options are given to.
RUN: dict[type[Any], Callable[[Any], int]] = {
    AddConfig: add,
    ListConfig: list_artifacts,
    ShowConfig: show_artifact,
    NameConfig: name_artifact,
    VerifyConfig: verify,
    GcConfig: collect_garbage,
    CheckoutConfig: checkout,
    TransferConfig: transfer_artifacts,
    KeygenConfig: keygen,
    SignConfig: sign,
    MeasureConfig: measure,
}


def run(config: StoreConfig) -> int:
    """Run one command; returns its exit code."""
    return RUN[type(config.command)](config.command)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.store``."""
    return run_command(run, StoreConfig, module="experiments.store", argv=argv)


if __name__ == "__main__":
    sys.exit(main())

"""Take the selected policy out of a run: as a folder with a model card, as an ONNX file, or both.

    python -m experiments.export runs/ppo-001 --out my-policy
    python -m experiments.export runs/ppo-001 --onnx policy.onnx

The folder holds the policy (safetensors and JSON), which every command takes in place of the run,
and README.md, a model card written from the run's records.
"""

from __future__ import annotations

import csv
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bwe_env.errors import ConfigError
from bwe_env.units import bps_to_kbps
from experiments.cli import run_command
from experiments.compare_results import COMPARISON_TEXT
from experiments.run_directory import ENVIRONMENT, RunDirectory
from experiments.tables import refuse_existing

CARD_FILE = "README.md"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Take the selected policy out of a run."""

    run: Annotated[str, tyro.conf.Positional]
    """a run directory of experiments.train"""
    out: Path | None = None
    """folder to make, with the policy and a model card"""
    onnx: Path | None = None
    """ONNX file to write (needs the export extra)"""
    note: str = ""
    """a paragraph for the model card, e.g. how this run was chosen among others"""
    overwrite: bool = False
    """replace what exists"""

    def __post_init__(self) -> None:
        if self.out is None and self.onnx is None:
            raise ConfigError("nothing to write: give --out FOLDER, --onnx FILE, or both.")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.export``."""
    return run_command(export, ExportConfig, module="experiments.export", argv=argv)


def export(config: ExportConfig) -> int:
    """Run the command; returns its exit code."""
    from agents.export import export_policy_onnx, load_policy

    run = RunDirectory.open(config.run)
    policy = load_policy(run.policy, environment=ENVIRONMENT)
    # A file that goes into the folder of --out comes to exist with it, or not at all.
    if config.onnx is not None and config.onnx.parent != config.out:
        refuse_existing(config.onnx, overwrite=config.overwrite)
    if config.out is not None:
        _copy_policy(run, config.out, overwrite=config.overwrite)
        (config.out / CARD_FILE).write_text(model_card(run, note=config.note))
        print(f"policy and model card in {config.out}")
    if config.onnx is not None:
        export_policy_onnx(policy, config.onnx)
        print(f"ONNX in {config.onnx}")
    return 0


def _copy_policy(run: RunDirectory, folder: Path, *, overwrite: bool) -> None:
    from agents.export import MANIFEST_FILE, WEIGHTS_FILE

    if folder.exists() and not overwrite:
        raise ConfigError(
            f"{folder} exists already and stays as it is; give another name, or --overwrite."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS_FILE, MANIFEST_FILE):
        shutil.copyfile(run.policy / name, folder / name)


# --- The model card -------------------------------------------------------------------------------


def model_card(run: RunDirectory, *, note: str = "") -> str:
    """What the policy is, how it was trained and selected, and what came out, as Markdown.

    Args:
        note: a paragraph about its selection.
    """
    from agents.export import read_manifest

    manifest, record = read_manifest(run.policy), run.record
    sections = [
        f"# Policy of {run.path.resolve().name}",
        _description(manifest),
        "## How it was trained\n\n" + _training(record),
        "## How it was selected\n\n" + _selection(run, manifest) + (f"\n\n{note}" if note else ""),
        *_results(run),
        "## How to use it\n\n"
        "    python -m experiments.evaluate --estimator FOLDER --split test\n\n"
        "where FOLDER is the one with this file. Loading it executes nothing.",
    ]
    return "\n\n".join(sections) + "\n"


def _description(manifest: dict[str, Any]) -> str:
    kind, setting = manifest["architecture"], manifest["setting"]
    shape = ", ".join(f"{name} {value}" for name, value in sorted(manifest[kind].items()))
    low, high = (bps_to_kbps(setting[f"{end}_rate_bps"]) for end in ("min", "max"))
    models = ", ".join(setting["network_models"]) or "none"
    return (
        "A congestion controller for video calls, learnt by proximal policy optimisation in a "
        "simulator.\n\n"
        "| property | value |\n|---|---|\n"
        f"| environment | {manifest['environment']} |\n"
        f"| architecture | {kind}: {shape} |\n"
        f"| action mode | {setting['action_mode']} |\n"
        f"| target rates | {low:g} to {high:g} kbps |\n"
        f"| decides every | {setting['interval_s']:g} s |\n"
        f"| intervals observed | {setting['observation']['history']} |\n"
        f"| network models observed | {models} |\n"
        f"| SHA-256 of the weights | {manifest['sha256']} |"
    )


def _training(record: dict[str, Any]) -> str:
    git = record.get("git") or {}
    commit = git.get("commit", "unknown") + (" with changes" if git.get("has_changes") else "")
    versions = ", ".join(f"{name} {text}" for name, text in sorted(record["versions"].items()))
    seeds = ", ".join(f"{name} {value}" for name, value in sorted(record["seeds"].items()))
    digests = "\n".join(
        f"- {name} networks: {digest}" for name, digest in sorted(record["networks"].items())
    )
    return (
        f"    {_command(record)}\n\n"
        f"- begun {record['started']}, taken up again {len(record['resumed'])} times\n"
        f"- commit {commit}\n- seeds: {seeds}\n- versions: {versions}\n{digests}\n\n"
        "The digests are those of everything that makes up a list of networks."
    )


def _command(record: dict[str, Any]) -> str:
    """The command as anybody would write it: without the place of this machine's interpreter."""
    interpreter, *rest = record["command"]
    return shlex.join([Path(interpreter).name, *rest])


def _selection(run: RunDirectory, manifest: dict[str, Any]) -> str:
    steps = manifest["extra"]["steps"]
    rows = _validations(run)
    text = (
        f"Of the policies at the validations below, the one after {steps:,} decisions had the "
        "highest mean reward on the validation networks."
    )
    if not rows:
        return text
    header = list(rows[0])
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in header) + " |" for row in rows]
    return text + "\n\n" + "\n".join(lines)


def _validations(run: RunDirectory) -> list[dict[str, str]]:
    """Rows of the run's validations, of all its parts, by number of decisions."""
    rows: list[dict[str, str]] = []
    for path in run.path.glob("validations*.csv"):
        with path.open() as file:
            rows += csv.DictReader(file)
    return sorted(rows, key=lambda row: float(row["steps"]))


def _cell(text: str) -> str:
    value = float(text)
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"


def _results(run: RunDirectory) -> list[str]:
    path = run.path / COMPARISON_TEXT
    if not path.is_file():
        return ["## Results\n\nThe run has not come to its final table yet."]
    indented = "\n".join("    " + line for line in path.read_text().rstrip().splitlines())
    return [f"## Results on the test networks\n\n{indented}"]


if __name__ == "__main__":
    sys.exit(main())

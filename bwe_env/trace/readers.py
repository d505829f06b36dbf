"""Readers of trace files: our CSV, directories of it, and Mahimahi (AlphaRTC: `alphartc.py`).

Every file may be gzipped (name ending in ``.gz``). What cannot be read ends in a
`TraceFormatError` that says file, line, value, and how to mend it. Nothing is clamped or skipped
without being asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bwe_env.errors import TraceFormatError, UnknownNameError, unknown_name
from bwe_env.trace.files import (
    check_capacity,
    check_some_capacity,
    json_number,
    number,
    read_json,
    read_text,
    shown,
    stem,
)
from bwe_env.trace.trace import NETWORK_TYPES, Trace, check_unique_names
from bwe_env.units import BITS_PER_BYTE, US_PER_MS, US_PER_S, s_to_us

CSV_HEADER = "time_s,capacity_bps"
#: What one line of a Mahimahi trace delivers; mm-link(1).
MAHIMAHI_BYTES = 1500

_MANIFEST = "manifest.json"
_MANIFEST_KEYS = ("name", "file", "network_type", "duration_s")


def read_csv(
    path: str | Path,
    *,
    network_type: str,
    name: str | None = None,
    source: str | None = None,
    duration_s: float | None = None,
) -> Trace:
    """One CSV file: the header ``time_s,capacity_bps``, then one point per line.

    Args:
        name: the file's name without its suffixes by default.
        source: the path by default.
        duration_s: from the first point to the end of the last one; without it the last point
            lasts as long as the median one.
    """
    path = Path(path)
    times, capacities = _csv_points(path)
    end_s = None if duration_s is None else times[0] + duration_s
    if end_s is not None and end_s <= times[-1]:
        raise TraceFormatError(
            f"{path}:{len(times) + 1}: the trace is said to last {duration_s} s, but its last "
            f"point comes {times[-1] - times[0]:.6g} s after its first; mend the duration, or cut "
            "the points."
        )
    check_some_capacity(capacities, path)
    try:
        return Trace.from_points(
            times,
            capacities,
            name=name or stem(path),
            network_type=network_type,
            source=source or str(path),
            end_s=end_s,
        )
    except TraceFormatError as error:
        raise TraceFormatError(f"{path}: {error}") from None


def _csv_points(path: Path) -> tuple[list[float], list[float]]:
    lines = read_text(path).splitlines()
    if not any(line.strip() for line in lines):
        raise TraceFormatError(f"{path}: the file is empty; expected {CSV_HEADER!r} and points.")
    if lines[0].replace(" ", "") != CSV_HEADER:
        raise TraceFormatError(
            f"{path}:1: expected the header {CSV_HEADER!r}, got {shown(lines[0])}. Put it there; "
            "Mahimahi traces (one integer per line) are read with read_mahimahi()."
        )
    if not any(line.strip() for line in lines[1:]):
        raise TraceFormatError(f"{path}:2: no points follow the header; expected one per line.")
    times: list[float] = []
    capacities: list[float] = []
    for line_number, line in enumerate(lines[1:], start=2):
        where = f"{path}:{line_number}"
        fields = line.split(",")
        if len(fields) != 2:
            raise TraceFormatError(
                f"{where}: expected two numbers (time_s,capacity_bps), got {shown(line)}; remove "
                "blank lines and further columns."
            )
        time_s = number(fields[0], f"{where}: time_s")
        if times and time_s <= times[-1]:
            raise TraceFormatError(
                f"{where}: time_s={fields[0].strip()} does not come after {times[-1]:.6f} of the "
                "line before; sort the points by time and drop repeated ones."
            )
        times.append(time_s)
        what = f"{where}: capacity_bps={fields[1].strip()}"
        capacities.append(check_capacity(number(fields[1], f"{where}: capacity_bps"), what))
    return times, capacities


def read_directory(path: str | Path) -> list[Trace]:
    """Every trace listed in a directory's ``manifest.json``, in its order.

    The manifest is a JSON list of objects with at least `name`, `file` (a CSV relative to the
    directory), `network_type` (one of `NETWORK_TYPES`) and `duration_s` (from the first point to
    the end of the last one). `dataset`, `direction` and `source_repo` make up the trace's source;
    a `sha256` of the file is checked if given. Other keys are ignored.
    """
    directory = Path(path)
    if not directory.is_dir():
        what = "is a file, not a directory" if directory.exists() else "does not exist"
        raise UnknownNameError(
            f"trace directory {str(path)!r} {what}; give a directory that holds {_MANIFEST} and "
            "the CSV files listed in it."
        )
    manifest = directory / _MANIFEST
    if not manifest.exists():
        raise TraceFormatError(
            f"{manifest}: no such file. It lists the traces: a JSON array of objects with "
            f"{', '.join(_MANIFEST_KEYS)}."
        )
    entries = read_json(manifest)
    if not isinstance(entries, list) or not entries:
        raise TraceFormatError(
            f"{manifest}: expected a JSON array with one object per trace, got {shown(entries)}; "
            f"write at least one object with {', '.join(_MANIFEST_KEYS)}."
        )
    traces = [
        _read_entry(directory, f"{manifest}: entry {i}", entry) for i, entry in enumerate(entries)
    ]
    try:
        check_unique_names(traces)
    except TraceFormatError as error:
        raise TraceFormatError(f"{manifest}: {error}") from None
    return traces


def _read_entry(directory: Path, where: str, entry: Any) -> Trace:
    if not isinstance(entry, Mapping):
        raise TraceFormatError(f"{where}: expected an object, got {shown(entry)}.")
    for key in _MANIFEST_KEYS:
        if key not in entry:
            raise TraceFormatError(
                f"{where} ({shown(entry.get('name'))}): key {key!r} is missing; every trace needs "
                f"{', '.join(_MANIFEST_KEYS)}."
            )
    for key in ("name", "file", "network_type"):
        if not (isinstance(entry[key], str) and entry[key]):
            raise TraceFormatError(
                f"{where}: {key} must be a non-empty string, got {shown(entry[key])}."
            )
    where = f"{where} ({entry['name']})"
    duration_s = json_number(entry, "duration_s", where)
    if entry["network_type"] not in NETWORK_TYPES:
        unknown = unknown_name("network type", entry["network_type"], NETWORK_TYPES)
        raise TraceFormatError(f"{where}: {unknown}")
    file = directory / entry["file"]
    if not file.is_file():
        raise TraceFormatError(
            f"{where}: file {entry['file']!r} is not in {directory}; restore it, or take the "
            "entry out of the manifest."
        )
    _check_sha256(file, where, entry.get("sha256"))
    parts = [str(entry[key]) for key in ("dataset", "direction", "source_repo") if entry.get(key)]
    return read_csv(
        file,
        network_type=entry["network_type"],
        name=entry["name"],
        source=", ".join(parts) or None,
        duration_s=duration_s,
    )


def _check_sha256(file: Path, where: str, expected: object) -> None:
    if expected is None:
        return
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise TraceFormatError(
            f"{where}: {file} is not the file the manifest describes (sha256 {found[:12]}…, "
            f"expected {str(expected)[:12]}…); fetch it again, or mend the manifest."
        )


def read_losses(path: str | Path) -> tuple[bool, ...]:
    """Recorded losses for `LossConfig.replay`: 1 for each packet that was lost, 0 for the others.

    The digits may stand together, apart, or one on each line; a line that begins with # is a note.

    Raises:
        TraceFormatError: anything else is in the file, or nothing is.
    """
    path = Path(path)
    losses: list[bool] = []
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.startswith("#"):
            continue
        for digit in "".join(line.split()):
            if digit not in "01":
                raise TraceFormatError(
                    f"{path}:{line_number}: {digit!r} is neither 0 (the packet arrives) nor 1 (it "
                    "is lost); mend the line, or begin it with # if it is a note."
                )
            losses.append(digit == "1")
    if not losses:
        raise TraceFormatError(f"{path}: no packet in it; expected a 0 or a 1 for each.")
    return tuple(losses)


def read_mahimahi(
    path: str | Path, *, network_type: str, name: str | None = None, bin_s: float = 0.1
) -> Trace:
    """A Mahimahi packet-delivery trace, as mm-link(1) plays it, averaged over bins.

    Each line is a time in ms at which 1500 bytes may leave; the period is the last time. The bits
    of a round are kept exactly: those of a bin are spread evenly over it, and an opportunity at
    the end of the period belongs to the last bin, which lasts 0.5 to 1.5 times `bin_s`.

    Args:
        bin_s: shorter ones keep the burstiness of the radio link, in more segments.
    """
    path = Path(path)
    bin_us = s_to_us(bin_s)
    if bin_us < US_PER_MS:
        raise TraceFormatError(
            f"bin_s={bin_s} is below 0.001 s, the resolution of Mahimahi traces; give 0.001 or "
            "more."
        )
    times_us = np.array(_mahimahi_times_ms(path), dtype=np.int64) * US_PER_MS
    period_us = int(times_us[-1])
    bins = max(1, round(period_us / bin_us))
    edges_us = np.append(np.arange(bins, dtype=np.int64) * bin_us, period_us)
    bin_index = np.minimum(times_us // bin_us, bins - 1)
    bits = np.bincount(bin_index, minlength=bins) * (MAHIMAHI_BYTES * BITS_PER_BYTE)
    duration_us = np.diff(edges_us)
    capacity_bps = bits * US_PER_S / duration_us
    return Trace(name or stem(path), network_type, str(path), duration_us, capacity_bps)


def _mahimahi_times_ms(path: Path) -> list[int]:
    times_ms: list[int] = []
    previous = 0
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        text = line.strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            raise TraceFormatError(
                f"{path}:{line_number}: expected one non-negative integer (milliseconds), got "
                f"{shown(line)}. Mahimahi traces hold one delivery time per line; a CSV of "
                "(time_s,capacity_bps) is read with Trace.from_csv()."
            )
        time_ms = int(text)
        if time_ms < previous:
            raise TraceFormatError(
                f"{path}:{line_number}: time {time_ms} ms comes before {previous} ms of the line "
                "before; sort the file (sort -n)."
            )
        times_ms.append(time_ms)
        previous = time_ms
    if not times_ms:
        raise TraceFormatError(f"{path}: the file is empty; expected one delivery time per line.")
    if previous == 0:
        raise TraceFormatError(
            f"{path}:{len(times_ms)}: the last time is 0 ms, so the period is 0; the last line "
            "must say when the trace repeats."
        )
    return times_ms

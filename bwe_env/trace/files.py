"""Text, JSON and numbers out of files; what is wrong with them is said with file and value."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bwe_env.errors import TraceFormatError
from bwe_env.trace.trace import explain_capacity, valid_capacity


def read_text(path: Path) -> str:
    """The whole file as text, unzipped if its name ends in ``.gz``."""
    if path.is_dir():
        raise TraceFormatError(
            f"{path}: is a directory; one trace is a file, many are read with read_directory()."
        )
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise TraceFormatError(f"{path}: no such file; check the path.") from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise TraceFormatError(
            f"{path}: not a whole gzip file ({error}); fetch it again, or drop the .gz from its "
            "name if it is plain text."
        ) from None
    except UnicodeDecodeError as error:
        raise TraceFormatError(
            f"{path}: byte {error.start} is not UTF-8 text; is it a trace at all?"
        ) from None
    except OSError as error:
        raise TraceFormatError(f"{path}: cannot be read ({error.strerror}).") from None


def read_json(path: Path) -> Any:
    """The JSON value that a file holds."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise TraceFormatError(
            f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno}); mend the file."
        ) from None


def stem(path: Path) -> str:
    """A file's name without the suffixes of a trace."""
    name = path.name.removesuffix(".gz")
    for suffix in (".csv", ".json"):
        name = name.removesuffix(suffix)
    return name


def shown(value: object) -> str:
    """A value for an error message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def number(text: str, what: str) -> float:
    """A finite number of a text file; `what` is the file, line and column it stands in."""
    try:
        value = float(text)
    except ValueError:
        raise TraceFormatError(f"{what}={text.strip()!r} is not a number; mend the line.") from None
    if not math.isfinite(value):
        raise TraceFormatError(
            f"{what}={text.strip()!r} is not a finite number; remove the line, or write 0 for an "
            "outage."
        )
    return value


def json_number(record: Mapping[str, Any], key: str, where: str) -> float:
    """A finite number of a JSON object; `where` is the file and place of the object."""
    if key not in record:
        raise TraceFormatError(
            f"{where}: key {key!r} is missing; it holds {', '.join(map(str, record)) or 'nothing'}."
        )
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TraceFormatError(f"{where}.{key}={shown(value)} must be a finite number.")
    return float(value)


def check_capacity(capacity_bps: float, what: str) -> float:
    """The capacity itself if it means something; `what` is the file, place and raw value."""
    if not valid_capacity(capacity_bps):
        raise TraceFormatError(f"{what}: {explain_capacity(capacity_bps)}")
    return capacity_bps


def check_some_capacity(capacities: list[float], path: Path) -> None:
    """Refuse a file that is nothing but outage."""
    if not any(capacity > 0 for capacity in capacities):
        raise TraceFormatError(
            f"{path}: every capacity is 0, so no packet would ever arrive; leave the trace out."
        )

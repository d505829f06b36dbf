"""JSON in one spelling, and JSON of strangers: bounded, exact, and refused otherwise.

Sorted keys, no spaces, UTF-8 in NFC, no NaN, whole numbers that every reader keeps exact; floats as
Python's ``repr`` writes them, which is the shortest text that reads back as the same number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from experiments.member_paths import is_plain_text
from experiments.refusals import ArtifactRefused, refuse

#: A manifest is read whole, and small values take up to 25 times as much memory as text. The chunks
#: of a dataset of 3 GB are listed in 3.5 MB. Ours.
MAX_JSON_BYTES = 4 * 2**20
#: Levels of arrays and objects. Ours.
MAX_JSON_DEPTH = 16
#: Whole numbers that every JSON reader keeps exact: RFC 7493 §2.2.
MAX_WHOLE_NUMBER = 2**53 - 1


def canonical_json(content: Any) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8."""
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def parse_json(data: bytes) -> Any:
    """JSON of bounded size, without NaN and without repeated keys.

    Raises:
        ArtifactRefused: it is not.
    """
    if len(data) > MAX_JSON_BYTES:
        refuse("JSON", f"{len(data)} bytes", f"must be at most {MAX_JSON_BYTES} bytes")
    try:
        return json.loads(
            bytes(data).decode(), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except ArtifactRefused:
        raise
    except RecursionError as error:
        refuse("JSON", data[:80], "must not be nested that deep", cause=error)
    except ValueError as error:
        refuse("JSON", data[:80], f"must be JSON in UTF-8 ({error})", cause=error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        refuse("JSON", [key for key, _ in pairs], "must not repeat a key")
    return content


def _no_constant(text: str) -> NoReturn:
    refuse("JSON", text, "must be a finite number (JSON has no other)")


def check_whole_number(value: object, where: str, least: int, most: int) -> None:
    """Refuse anything but a whole number in a range, both ends included.

    Raises:
        ArtifactRefused: it is something else.
    """
    # bool is an int to Python, not to JSON.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        refuse(where, value, f"must be a whole number, {least}..{most}")


def checked_json(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of plain JSON values; tuples become lists.

    Raises:
        ArtifactRefused: anything that JSON cannot hold, or not exactly.
    """
    if depth > MAX_JSON_DEPTH:
        refuse(where, "…", f"must not be nested deeper than {MAX_JSON_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not is_plain_text(value.replace("\n", "").replace("\t", "")):
            refuse(where, value, "must be text in Unicode NFC without control characters")
        return value
    if isinstance(value, int):
        check_whole_number(value, where, -MAX_WHOLE_NUMBER, MAX_WHOLE_NUMBER)
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            refuse(where, value, "must be a finite number (JSON has no other)")
        return value
    if isinstance(value, list | tuple):
        return [checked_json(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _checked_object(value, where, depth)
    return refuse(where, type(value).__name__, "must be a JSON value")


def _checked_object(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str) or not is_plain_text(key):
            refuse(where, key, "must have keys of plain text in Unicode NFC")
    return {key: checked_json(item, f"{where}.{key}", depth + 1) for key, item in value.items()}

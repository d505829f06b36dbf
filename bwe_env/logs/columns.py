"""Members and columns of JSON logs; what is wrong with them is said with their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import CallLogFormatError

#: Integers beyond are not exact as JSON numbers (RFC 8259 §6), and are no time or size of a call.
_MAX_EXACT = 1 << 53


def is_number(value: object) -> bool:
    """A JSON number of a size that makes sense; true and false are none."""
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and -_MAX_EXACT <= value <= _MAX_EXACT  # type: ignore[operator]


def numbers(values: Sequence[object]) -> NDArray[np.float64]:
    """A list as numbers; NaN where there is none."""
    return np.array([float(v) if is_number(v) else np.nan for v in values], np.float64)  # type: ignore[arg-type]


def member(table: Mapping[str, Any], path: str, source: str) -> Any:
    """A member by its path, e.g. ``"meta.scenario.link"``.

    Raises:
        CallLogFormatError: it is not there.
    """
    value: Any = table
    for position, key in enumerate(parts := path.split(".")):
        if not isinstance(value, Mapping) or key not in value:
            raise CallLogFormatError(
                f"{source}: the member {'.'.join(parts[: position + 1])} is missing; it is not "
                "what the recorder writes, or an older form of it. Record it again."
            )
        value = value[key]
    return value


def number(table: Mapping[str, Any], path: str, source: str) -> float:
    """A member that is a finite number."""
    value = member(table, path, source)
    if not is_number(value):
        raise CallLogFormatError(f"{source}: the member {path} is {value!r}, not a number.")
    return float(value)


def integer_columns(
    table: Mapping[str, Any], path: str, names: Sequence[str], source: str
) -> dict[str, NDArray[np.int64]]:
    """Columns of whole numbers, all of one length.

    Raises:
        CallLogFormatError: naming column and row of what is no such thing.
    """
    columns: dict[str, NDArray[np.int64]] = {}
    for name in names:
        values = member(table, f"{path}.{name}", source)
        if not isinstance(values, list):
            raise CallLogFormatError(f"{source}: {path}.{name} is no list.")
        for row, value in enumerate(values):
            if not is_number(value) or value != int(value):
                raise CallLogFormatError(
                    f"{source}: {path}.{name}[{row}] is {value!r}, not a whole number."
                )
        columns[name] = np.array(values, np.float64).astype(np.int64)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise CallLogFormatError(
            f"{source}: the columns of {path} differ in length ({lengths}); it breaks off, or is "
            "damaged. Copy it again."
        )
    return columns

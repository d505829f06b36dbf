"""Single rows to run the boxes on."""

from __future__ import annotations

from typing import Any

import numpy as np

from bwe_env.gcc.controller import gcc_reset
from bwe_env.gcc.parameters import GCC_PARAMETERS, GccParameters, fill_gcc_parameters
from bwe_env.gcc.state import GCC


def parameters(**changes: Any) -> Any:
    """libwebrtc's parameters, with changes, as a record."""
    row = np.zeros(1, GCC_PARAMETERS)[0]
    fill_gcc_parameters(row, GccParameters(**changes))
    return row


def controller(
    p: Any, *, start_rate_bps: int = 300_000, min_rate_bps: int = 30_000, max_rate_bps: int = 0
) -> Any:
    """A whole controller after its reset at time 0; its boxes are fields of it."""
    row = np.zeros(1, GCC)[0]
    gcc_reset(row, p, min_rate_bps, start_rate_bps, max_rate_bps, 0)
    return row

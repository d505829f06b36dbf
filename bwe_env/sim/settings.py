"""Other settings for a sender whose call goes on.

A row of FLOW is filled from each of the settings by `configure_flow`, as for a new call; what
differs between two settings is copied from there. Values act where they are read next: a threshold
at the next report, a window of the pacer at its next packet, parity at the next block. What GCC was
told by its streams (pacing, padding, probing) it is told again. Where parity is switched off, the
block that was open gets none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from bwe_env.gcc.controller import gcc_on_streams_config
from bwe_env.gcc.parameters import record_place
from bwe_env.sender_settings import SenderSettings
from bwe_env.sim._jit import Record, entry, kernel
from bwe_env.sim.decision import follow_gcc
from bwe_env.sim.fec import fec_begin_block
from bwe_env.sim.flow import FLOW
from bwe_env.sim.tables import configure_flow

#: Where a FLOW row keeps them, by part; an empty part is the row itself.
_PLACES = {
    "": ("gcc_parameters", "rtx_rate_share", "rtx_max_age_us", "audio_redundancy"),
    "fec": (
        "enabled",
        "min_protection",
        "key_factor",
        "num_loss_knots",
        "num_rtt_knots",
        "loss_knots",
        "rtt_knots_us",
        "protection",
    ),
    "pacer": ("burst_interval_us", "queue_time_limit_us"),
}


def build_settings(settings: Sequence[SenderSettings], call: CallConfig) -> NDArray[Any]:
    """One FLOW row for each of the settings, of which only what they set is of use."""
    rows = np.zeros(len(settings), dtype=FLOW)
    for index, one in enumerate(settings):
        configure_flow(rows[index : index + 1], one.applied_to(call), one.gcc)
    return rows


def copy_settings(flows: NDArray[Any], index: int, settings: NDArray[Any], choice: int) -> None:
    """Write the chosen settings into a flow, as they are to be when its call begins."""
    for part, names in _PLACES.items():
        target, source = (flows[part], settings[part]) if part else (flows, settings)
        for name in names:
            target[name][index] = source[name][choice]


def set_parameters(
    flows: NDArray[Any], names: Sequence[str], values: NDArray[np.float64], rows: NDArray[np.bool_]
) -> None:
    """Write values of GCC's parameters into the flows for which `rows` is true.

    Args:
        names: fields of `GccParameters`.
        values: in their units, shape (flows, names).
    """
    parameters = flows["gcc_parameters"]
    for column, name in enumerate(names):
        place, factor = record_place(name)
        written = values[rows, column] * factor
        if parameters.dtype[place].kind == "i":
            written = np.rint(written)
        parameters[place][rows] = written


@kernel
def _tell(flow: Record, now_us: int) -> None:
    if flow.fec.enabled == 0:
        # Or the open block would go on when parity is wanted again, over all that lay between.
        fec_begin_block(flow.fec)
    p = flow.gcc_parameters
    gcc_on_streams_config(
        flow.gcc,
        p,
        p.alr_probing == 1,
        p.max_total_allocated_bps,
        p.max_padding_rate_bps,
        p.pacing_factor,
        now_us,
    )
    follow_gcc(flow, now_us)


@entry
def parameters_changed(flows: np.ndarray, step: int, calls: np.ndarray, active: np.ndarray) -> None:
    """`settings_changed` for every `step`-th flow whose call is active."""
    for env in range(len(calls)):
        if active[env]:
            _tell(flows[env * step], calls[env].now_us)


@entry
def settings_changed(flows: np.ndarray, index: int, now_us: int) -> None:
    """Tell a running flow's GCC what its streams ask for under the settings just copied."""
    _tell(flows[index], now_us)

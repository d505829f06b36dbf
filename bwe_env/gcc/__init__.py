"""Google Congestion Control as libwebrtc M150 runs it: compiled boxes under libwebrtc's names.

`GoogCc` is one controller as a sans-IO object; the simulator calls the same kernels (module
`bwe_env.gcc.controller`) on rows of its own records. `GccParameters` holds every number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bwe_env.gcc.parameters import GccParameters

if TYPE_CHECKING:
    from bwe_env.gcc.goog_cc import GoogCc

__all__ = ["GccParameters", "GoogCc"]


def __getattr__(name: str) -> Any:
    if name == "GoogCc":  # loads the compiler, which reading the parameters must not
        from bwe_env.gcc.goog_cc import GoogCc

        return GoogCc
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Draw one call as a PNG: capacity, target, what arrived, queue delay, losses, freezes.

python -m experiments.picture --estimator gcc --network test-0021-wifi-down --out call.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bwe_env.config import CallConfig
from bwe_env.errors import unknown_name
from experiments.cli import run_command
from experiments.contenders import find_contender
from experiments.evaluate import DEFAULT_NETWORKS
from experiments.networks import named_networks
from experiments.tables import refuse_existing


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """Play one call and draw it."""

    estimator: str
    """a baseline (gcc, constant:RATE_BPS, oracle:HEADROOM_RATIO, …) or a run directory"""
    network: str
    """name of a network of the split, or of a trace of --traces"""
    out: str
    """PNG file"""
    traces: str | None = None
    """directory of measured traces (manifest.json); synthetic networks without it"""
    split: str = "test"
    """synthetic split the network is in"""
    duration_s: float = 60.0
    """length of the call"""
    max_rate_bps: int = 6_000_000
    """highest target rate"""
    width: int = 1200
    """of the picture, in pixels"""
    height: int = 640
    """of the picture, in pixels"""
    overwrite: bool = False
    """replace the file of --out if it exists"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.picture``."""
    return run_command(picture, PictureConfig, module="experiments.picture", argv=argv)


def picture(config: PictureConfig) -> int:
    """Play, draw, write."""
    from PIL import Image

    from bwe_env.render import rgb_array
    from experiments import evaluation

    out = Path(config.out)
    refuse_existing(out, overwrite=config.overwrite)
    split = "all" if config.traces else config.split
    networks = named_networks(traces=config.traces, split=split, count=DEFAULT_NETWORKS)
    candidates = {network.name: network for network in networks}
    if config.network not in candidates:
        raise unknown_name("network", config.network, candidates)
    call = CallConfig(duration_s=config.duration_s, max_rate_bps=config.max_rate_bps)
    contender = find_contender(config.estimator, call)
    setting = evaluation.Setting(call=call, seeds=(0,))
    timeline = evaluation.timeline(contender, candidates[config.network], setting)
    Image.fromarray(rgb_array(timeline, config.width, config.height)).save(out, format="PNG")
    print(
        f"{contender.label} on {config.network}: call score {timeline.mean_call_score:.2f}; {out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

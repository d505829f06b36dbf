"""The page of all comparisons with recordings: ``python -m experiments.validate page DIRECTORY``.

Runs the other comparisons on a directory that holds ``gcc/open``, ``gcc/closed`` and ``chromium``,
and writes what they print, beside the commands, into one Markdown page with pictures.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bwe_env.errors import ConfigError
from bwe_env.units import bps_to_kbps
from experiments import validate_calls
from experiments.validate_closed_loop import (
    Profile,
    read_series,
    recorded_losses,
    simulate,
    simulate_losses,
)

#: Closed loops that are drawn: a drop, the alternating link, random loss, a feedback outage.
DRAWN_LOOPS = ("drop_2M_500k", "alt_500k_100k_30s", "loss10_1M", "linkout2s_1M")
#: Calls that are drawn: steady, alternating, a drop, bursty loss.
DRAWN_CALLS = (
    "a_1000k_r2",
    "e_alt500_100_r2",
    "f2_drop2500_500_qms300",
    "d_ge05_2M_r2",
)
RECORDED_COLOR = "#1f77b4"
SIMULATED_COLOR = "#d62728"
CAPACITY_COLOR = "#999999"


@dataclass(frozen=True)
class Section:
    """One comparison of the page."""

    title: str
    text: str
    """what is compared, and how to read it"""
    command: str
    run: Callable[[], int]
    """prints; 0 if all agrees"""
    pictures: tuple[tuple[str, str], ...] = ()
    """file name beside the page, and what it shows"""


class _Tee(io.StringIO):
    """Collects what is printed and shows it meanwhile."""

    def write(self, text: str) -> int:
        sys.__stdout__.write(text)
        return super().write(text)


def _figure(rows: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(rows, 1, figsize=(9, 2.3 * rows), constrained_layout=True, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=75)
    plt.close(figure)


def draw_closed_loops(directory: Path, path: Path) -> None:
    """Recorded and simulated target rates of `DRAWN_LOOPS` over time."""
    summary = json.loads((directory / "summary.json").read_text())
    figure, axes = _figure(len(DRAWN_LOOPS))
    for axis, name in zip(axes[:, 0], DRAWN_LOOPS, strict=True):
        profile = Profile.of(name, summary[name]["config"])
        times_s, recorded_bps = read_series(directory / f"{name}.series.csv.gz")
        if profile.is_random:
            lost = recorded_losses(directory / f"{name}.events.csv.gz")
            simulated_bps = simulate_losses(profile, lost)
        else:
            simulated_bps = simulate(profile, [0])[0]
        trace = profile.network.trace
        capacity_bps = [trace.capacity_at(float(at_s)) for at_s in times_s]
        axis.step(times_s, np.array(capacity_bps) / 1e6, color=CAPACITY_COLOR, label="capacity")
        axis.plot(times_s, recorded_bps / 1e6, color=RECORDED_COLOR, lw=3, label="libwebrtc M150")
        axis.plot(times_s, simulated_bps / 1e6, color=SIMULATED_COLOR, lw=1, label="bwe-env")
        axis.set(title=name, ylabel="target rate, Mbps", ylim=(0, None))
    axes[0, 0].legend(loc="upper right")
    axes[-1, 0].set_xlabel("time, s")
    _save(figure, path)


def draw_calls(directory: Path, path: Path) -> None:
    """Target rates of `DRAWN_CALLS`: the browser's, and every simulated seed's."""
    source = validate_calls.read_source(directory)
    figure, axes = _figure(len(DRAWN_CALLS))
    for axis, name in zip(axes[:, 0], DRAWN_CALLS, strict=True):
        run = validate_calls.read_call(directory / "runs" / f"{name}.json.gz")
        recording, _ = validate_calls.recorded_course(run)
        axis.step(
            recording.time_s, recording.capacity_bps / 1e6, color=CAPACITY_COLOR, label="capacity"
        )
        courses = validate_calls.simulated_courses(name, run, source, validate_calls.NUM_SEEDS)
        for seed, course in enumerate(courses):
            label = f"bwe-env, {len(courses)} seeds" if seed == 0 else None
            axis.plot(
                course.time_s,
                course.target_bps / 1e6,
                color=SIMULATED_COLOR,
                lw=0.8,
                alpha=0.6,
                label=label,
            )
        axis.plot(
            recording.time_s, recording.target_bps / 1e6, color=RECORDED_COLOR, label="Chromium"
        )
        top_mbps = 1.6 * float(bps_to_kbps(recording.capacity_bps.max())) / 1e3
        axis.set(title=name, ylabel="target rate, Mbps", ylim=(0, top_mbps))
    axes[0, 0].legend(loc="upper right", ncols=3)
    axes[-1, 0].set_xlabel("time since media started, s")
    _save(figure, path)


def write_page(path: Path, introduction: str, sections: Sequence[Section]) -> int:
    """Run the sections and write the page; returns how many do not agree."""
    parts = ["# Validation", introduction]
    misses = 0
    for section in sections:
        tee = _Tee()
        with contextlib.redirect_stdout(tee):
            code = section.run()
        misses += code != 0
        parts += [
            f"## {section.title}",
            section.text,
            f"```console\n$ {section.command}\n{tee.getvalue().rstrip()}\n```",
        ]
        parts += [f"![{caption}]({name})\n\n{caption}" for name, caption in section.pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n")
    return misses


def require_directory(directory: Path, *names: str) -> None:
    """Raise a `ConfigError` unless the directory holds these."""
    for name in names:
        if not (directory / name).is_dir():
            raise ConfigError(
                f"{directory} holds no {name}; give the directory of all recordings, such as "
                "../shared/reference."
            )

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
    validate_closed_loop,
)
from experiments.validate_event_logs import validate_event_logs
from experiments.validate_gcc import validate_gcc

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


INTRODUCTION_TEXT = """How our Google Congestion Control (GCC) and the simulated call around it
compare with the real ones.
Everything below is printed by the command beside it; this page is written by

```console
$ {command}
```

The recordings are libwebrtc M150 (its controller alone, and with its pacer around a simple model of
a call) and thirteen calls of an unmodified Chromium 156 over an emulated link. Rows marked as
misses are misses."""

OPEN_LOOP_TEXT = """Event streams that entered libwebrtc's controller enter ours; every column
of its state is compared after every feedback report and every change of the target rate. The
streams cover overuse, underuse, probing, application limits, losses of all kinds, reordering,
feedback gaps, clock jumps, new constraints, and the classic estimators."""

CLOSED_LOOP_TEXT = """The simulator is set up, through public options, as the model of source,
link and feedback in which the recordings were made, and must go the same way. Profiles without
chance are held to every sample of the target rate. Random ones draw their own losses and
jitter: the mean of ten seeds is held to the recorded mean of ten within 0.9 recorded standard
deviations or 1 %. As both means are estimates, the difference also stands in standard errors;
over all random profiles these should spread like a standard normal. Where the recording tells
which packets were lost, a run that loses just these is held to every sample, too. The two
random profiles that miss at ten seeds, loss7_1M and classic_loss10_1M, are within the rule at
fifty; that number was chosen after seeing them, so it is no pass."""

EVENT_LOGS_TEXT = """The client's own event logs hold every packet it sent, every report it got,
and what its controller made of them. Our controller gets the packets and reports. Chromium 156
is newer than the M150 that the code follows, and a log has whole milliseconds where the
controller had microseconds before it floored them: a send time in the log may be one
millisecond off the one that the controller used, which decides close calls of the over-use
detector. Where the detector differs, and after every probe, the rate goes on from the logged
one, so that the errors of the estimate are those of the stretches between; "corrected" says how
often that was, "free" how far off an estimate is that is never corrected, and "normal" what
share of the states a detector would get right that never moves."""

CALLS_TEXT = """The simulator gets the link of each recorded call and runs five seeds. What
the sender offers is taken from one call alone (which is not counted): how much of its target the
encoder is asked for, and how large the frames of the looped clip are beside each other. The bytes
per packet, and that audio takes of the pacer's budget, were learnt from all of the recordings. The
reason stands beside each miss, where one is known. Most concern the tail of the queue's delay: when
the clip asks for more than the target for half a second, the recorded client holds more of it in
its pacer and less in the network; which rule of its encoder or pacer does so is not known."""


@dataclass(frozen=True)
class Section:
    """One comparison of the page."""

    title: str
    text: str
    """what is compared, and how to read it"""
    command: str
    run: Callable[[], int]
    """prints, and returns how much misses"""
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
        misses += code > 0
        parts += [
            f"## {section.title}",
            section.text,
            f"```console\n$ {section.command}\n{tee.getvalue().rstrip()}\n```",
        ]
        parts += [f"![{caption}]({name})\n\n{caption}" for name, caption in section.pictures]
    path.write_text("\n\n".join(parts) + "\n")
    return misses


def _require_directory(directory: Path) -> None:
    for name in ("gcc/open", "gcc/closed", "chromium/eventlogs", "chromium/runs"):
        if not (directory / name).is_dir():
            raise ConfigError(
                f"{directory} holds no {name}; give the directory of all recordings, such as "
                "../shared/reference."
            )


def _sections(directory: Path, loops: str, calls: str) -> list[Section]:
    command = "python -m experiments.validate"
    opened, closed = directory / "gcc/open", directory / "gcc/closed"
    chromium = directory / "chromium"
    return [
        Section(
            "Decision for decision",
            OPEN_LOOP_TEXT,
            f"{command} gcc {opened} {closed}",
            lambda: validate_gcc([opened, closed]),
        ),
        Section(
            "Closed loops",
            CLOSED_LOOP_TEXT,
            f"{command} closed-loop {closed}",
            lambda: validate_closed_loop(closed),
            ((loops, "Target rates of libwebrtc's closed loops and of the simulator's."),),
        ),
        Section(
            "What real calls logged",
            EVENT_LOGS_TEXT,
            f"{command} event-logs {chromium / 'eventlogs'}",
            lambda: validate_event_logs(chromium / "eventlogs"),
        ),
        Section(
            "Real calls",
            CALLS_TEXT,
            f"{command} calls {chromium}",
            lambda: validate_calls.validate_calls(chromium),
            ((calls, "Target rates of recorded Chromium calls and of simulated ones."),),
        ),
    ]


def validate_page(directory: Path, out: Path) -> int:
    """Run all comparisons and write the page; returns how many of them have misses."""
    _require_directory(directory)
    out.parent.mkdir(parents=True, exist_ok=True)
    loops, calls = f"{out.stem}_closed_loops.png", f"{out.stem}_calls.png"
    draw_closed_loops(directory / "gcc/closed", out.parent / loops)
    draw_calls(directory / "chromium", out.parent / calls)
    command = f"python -m experiments.validate page {directory}"
    introduction = INTRODUCTION_TEXT.format(command=command)
    return write_page(out, introduction, _sections(directory, loops, calls))

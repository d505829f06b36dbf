"""Recorded calls through our controller: ``python -m experiments.validate event-logs DIRECTORY``.

An RTC event log holds what a real client's GCC was told and what it made of it: detector state,
estimates, probe results. `experiments.event_log_replay` tells `GoogCc` the same; here both are
compared after every feedback report. `ALLOWED` says what the log's resolution may explain.

As the estimate goes on from the logged one wherever the detector differed and after every probe,
its errors are those of the stretches between. Beside them stand how many reports were corrected so
("corrected %"), the errors of an estimate that never is ("free"), and the share of reports in which
the logged detector is in its normal state, which one that never moves would score ("normal %").
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.gcc import GccParameters
from bwe_env.logs import RtcEventLog, read_rtc_event_log
from bwe_env.logs.rtc_event_log import (
    DETECTOR_NORMAL,
    DETECTOR_OVERUSING,
    DETECTOR_UNDERUSING,
)
from bwe_env.units import us_to_s
from experiments.event_log_replay import Replay, replay
from experiments.recorded_client import GCC_PARAMETERS

SUFFIX = ".rtceventlog.gz"
#: Onsets of over-use so close together are the same one: two reports of the recorded receiver,
#: which reports every 50 to 62 ms; a millisecond may decide in which of them the trend gets there.
SAME_EVENT_US = 100_000
#: Estimates nearer than this are the same to `first_difference`: a packet in a window of a second.
SAME_ESTIMATE = 0.01
STATE_NAME = {0: "unknown", DETECTOR_NORMAL: "normal", DETECTOR_UNDERUSING: "underusing",
              DETECTOR_OVERUSING: "overusing"}  # fmt: skip
#: What the log's resolution allows, as (measure, direction, bound); chosen beforehand:
ALLOWED: Mapping[str, tuple[str, float]] = {
    # A change of state that comes one report late differs in one report. The recordings have about
    # 30 changes per 1,000 reports.
    "state %": (">=", 95.0),
    # One onset in ten may hang on a millisecond: the trend crosses the threshold by a few percent.
    "precision %": (">=", 90.0),
    "recall %": (">=", 90.0),
    # Additive growth is 1 to 2 % of the rate per second; a back-off a report earlier or later
    # shifts the saw-tooth by 60 ms, and the rate it falls to by a packet in a window of a second.
    "delay p50 %": ("<=", 2.0),
    "delay p95 %": ("<=", 10.0),
    "back-off p50 %": ("<=", 2.0),
    # The target is the delay-based estimate or less.
    "target p50 %": ("<=", 2.0),
    # A cluster lasts 15 ms or more, one of which may be an error of the send time.
    "probe p50 %": ("<=", 1.0),
    "probe max %": ("<=", 100 / 15),
}


def match_events(
    ours_us: Sequence[int], logged_us: Sequence[int], within_us: int = SAME_EVENT_US
) -> int:
    """How many of our events have a logged one of their own at most `within_us` away.

    >>> match_events([0, 50, 900], [40, 300], within_us=100)
    1
    """
    matched = i = j = 0
    while i < len(ours_us) and j < len(logged_us):
        difference_us = ours_us[i] - logged_us[j]
        if abs(difference_us) <= within_us:
            matched, i, j = matched + 1, i + 1, j + 1
        elif difference_us < 0:
            i += 1
        else:
            j += 1
    return matched


def _onsets(times_us: NDArray[np.int64], states: NDArray[np.int64]) -> list[int]:
    """When over-use began."""
    is_over = states == DETECTOR_OVERUSING
    begins = is_over & ~np.append(False, is_over[:-1])
    return [int(time_us) for time_us in times_us[begins]]


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else np.nan


def _relative(ours: NDArray[np.int64], logged: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.abs(ours / logged - 1.0)


def _percentile(errors: NDArray[np.float64], percentile: float) -> float:
    return float(100 * np.percentile(errors, percentile)) if len(errors) else np.nan


def back_offs(result: Replay) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(estimate the client backed off to, rate that we find acknowledged then), shapes (n,).

    The acknowledged rate depends on packets and reports alone, not on what our estimate did before.
    """
    pairs = [
        (after.logged_estimate_bps, after.acked_bps)
        for before, after in zip(result.samples, result.samples[1:], strict=False)
        if after.logged_state == DETECTOR_OVERUSING
        and after.logged_estimate_bps < before.logged_estimate_bps
        and after.acked_bps > 0
    ]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def backed_off_bps(acked_bps: NDArray[np.int64], parameters: GccParameters) -> NDArray[np.int64]:
    """What over-use takes the estimate to: RcDecrease of aimd_rate_control.cc."""
    decreased_bps = parameters.decrease_factor * acked_bps
    extra_bps = np.where(decreased_bps > parameters.decrease_extra_bps,
                         parameters.decrease_extra_bps, 0)  # fmt: skip
    reached_bps = np.round(decreased_bps - extra_bps).astype(np.int64)
    return np.maximum(reached_bps, parameters.min_total_allocated_bps)


def measures(results: Sequence[Replay]) -> dict[str, float]:
    """The numbers that are compared, over all reports of the given calls; NaN where there are none.

    An estimate of 0 was not logged yet.
    """
    matched = num_ours = num_logged = 0
    for result in results:
        times_us = np.array([sample.time_us for sample in result.samples], np.int64)
        ours = np.array([sample.state for sample in result.samples], np.int64)
        logged = np.array([sample.logged_state for sample in result.samples], np.int64)
        our_onsets, logged_onsets = _onsets(times_us, ours), _onsets(times_us, logged)
        matched += match_events(our_onsets, logged_onsets)
        num_ours, num_logged = num_ours + len(our_onsets), num_logged + len(logged_onsets)
    samples = [sample for result in results for sample in result.samples]
    known = [sample for sample in samples if sample.logged_estimate_bps > 0]
    table = np.array(
        [(s.state, s.logged_state, s.estimate_bps, s.logged_estimate_bps) for s in known], np.int64
    ).reshape(-1, 4)
    targets = np.array(
        [(s.target_bps, s.logged_target_bps) for s in samples if s.logged_target_bps > 0], np.int64
    ).reshape(-1, 2)
    probes = np.array([(p.rate_bps, p.logged_bps) for result in results for p in result.probes])
    probes = probes.reshape(-1, 2)
    pairs = [back_offs(result) for result in results]
    reached = np.concatenate([pair[0] for pair in pairs] or [np.zeros(0, np.int64)])
    acked = np.concatenate([pair[1] for pair in pairs] or [np.zeros(0, np.int64)])
    delay_errors = _relative(table[:, 2], table[:, 3])
    probe_errors = _relative(probes[:, 0], probes[:, 1])
    return {
        "state %": _percent(float((table[:, 0] == table[:, 1]).sum()), len(table)),
        "precision %": _percent(matched, num_ours),
        "recall %": _percent(matched, num_logged),
        "delay p50 %": _percentile(delay_errors, 50),
        "delay p95 %": _percentile(delay_errors, 95),
        "back-off p50 %": _percentile(
            _relative(backed_off_bps(acked, GCC_PARAMETERS), reached), 50
        ),
        "target p50 %": _percentile(_relative(targets[:, 0], targets[:, 1]), 50),
        "probe p50 %": _percentile(probe_errors, 50),
        "probe max %": _percentile(probe_errors, 100),
    }


def context(result: Replay, free: Replay) -> dict[str, float]:
    """Numbers that are shown beside the compared ones, to judge them by; not held to a bound.

    Args:
        free: the same call, its estimate never corrected.
    """
    known = [sample for sample in result.samples if sample.logged_estimate_bps > 0]
    normal = sum(sample.logged_state == DETECTOR_NORMAL for sample in known)
    corrected = sum(sample.is_corrected for sample in result.samples)
    table = np.array(
        [
            (sample.estimate_bps, sample.logged_estimate_bps)
            for sample in free.samples
            if sample.logged_estimate_bps > 0
        ],
        np.int64,
    ).reshape(-1, 2)
    errors = _relative(table[:, 0], table[:, 1])
    return {
        "normal %": _percent(normal, len(known)),
        "corrected %": _percent(corrected, len(result.samples)),
        "free p50 %": _percentile(errors, 50),
        "free p95 %": _percentile(errors, 95),
    }


def is_allowed(measure: str, value: float) -> bool:
    """Whether a measure is within its bound; one that a call does not have is."""
    if measure not in ALLOWED:
        return True
    direction, bound = ALLOWED[measure]
    return bool(np.isnan(value) or (value >= bound if direction == ">=" else value <= bound))


def first_difference(log: RtcEventLog, result: Replay) -> str:
    """The first report after which state or estimate (by 1 %) differ; empty for none."""
    for sample in result.samples:
        if not sample.logged_estimate_bps:
            continue
        at = f"{us_to_s(sample.time_us - log.begin_us):.3f} s after the log began"
        if sample.state != sample.logged_state:
            names = STATE_NAME[sample.state], STATE_NAME[sample.logged_state]
            return f"{at}: detector {names[0]} instead of {names[1]}"
        if abs(sample.estimate_bps / sample.logged_estimate_bps - 1) > SAME_ESTIMATE:
            return (
                f"{at}: estimate {sample.estimate_bps} instead of {sample.logged_estimate_bps} bps"
            )
    return ""


def _line(name: str, row: Mapping[str, float]) -> str:
    """One line of the table; a star marks what is outside of its bound."""
    cells = []
    for measure, value in row.items():
        text = "-" if np.isnan(value) else f"{value:.2f}"
        cells.append(f"{text}{' ' if is_allowed(measure, value) else '*'}".rjust(len(measure) + 2))
    return f"{name:24}" + "".join(cells)


def logs_of(directory: Path, names: Sequence[str]) -> dict[str, Path]:
    """Logs of a directory by the name of their call."""
    paths = {path.name.removesuffix(SUFFIX): path for path in sorted(directory.glob(f"*{SUFFIX}"))}
    if not paths:
        raise ConfigError(
            f"{directory} holds no NAME{SUFFIX}; give a directory of recorded event logs such as "
            "../shared/reference/chromium/eventlogs."
        )
    for name in names:
        if name not in paths:
            raise unknown_name("recorded event log", name, paths)
    return {name: paths[name] for name in names or paths}


def validate_event_logs(directory: Path, *, names: Sequence[str] = ()) -> int:
    """Replay every log and print the table; returns how many of its lines miss a bound."""
    start_s = time.perf_counter()
    paths = logs_of(directory, names)
    names_shown = [*ALLOWED, "normal %", "corrected %", "free p50 %", "free p95 %"]
    print(f"{'call':24}" + "".join(f"{measure:>{len(measure) + 1}} " for measure in names_shown))
    print(f"{'(bound)':24}" + "".join(
        f"{direction + format(bound, '.3g'):>{len(measure) + 1}} "
        for measure, (direction, bound) in ALLOWED.items()))  # fmt: skip
    results, misses, differences = [], 0, []
    for name, path in paths.items():
        log = read_rtc_event_log(path)
        result = replay(log)
        row = measures([result])
        print(_line(name, row | context(result, replay(log, follows_log=False))), flush=True)
        results.append(result)
        missed = [measure for measure, value in row.items() if not is_allowed(measure, value)]
        misses += bool(missed)
        difference = first_difference(log, result)
        if missed:
            differences.append(f"MISS {name}: {', '.join(missed)}; first difference {difference}")
    totals = measures(results)
    print(_line("all reports", totals))
    misses += not all(is_allowed(measure, value) for measure, value in totals.items())
    for line in differences:
        print(line)
    num_reports = sum(len(result.samples) for result in results)
    print(f"{len(paths) - len(differences)} of {len(paths)} calls within every bound "
          f"({num_reports} reports) in {time.perf_counter() - start_s:.0f} s.")  # fmt: skip
    return misses

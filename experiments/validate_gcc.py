"""Recorded event streams of libwebrtc's GoogCcNetworkController, replayed decision for decision.

A recording is a pair of files ``NAME.events.csv.gz`` and ``NAME.out.csv.gz`` (formats in the README
beside them): what entered the controller, and its state after each report and each change. Every
column of every row is compared.
"""

from __future__ import annotations

import gzip
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.gcc import GccParameters, GoogCc
from experiments.recordings import reading

#: Relative error up to which a column agrees. The recording has about nine digits; the classic
#: acknowledged-rate estimator works in single precision.
TOLERANCE = 1e-4

#: Absolute error below which a column agrees however small the reference: one unit of the last
#: place that the field holds, and for real numbers the recording's precision near zero.
FLOORS = {
    "target_bps": 1.0,
    "pacing_bps": 200.0,  # the pacer's granularity
    "padding_bps": 200.0,
    "sendside_bps": 1.0,
    "delay_bps": 1.0,
    "trend": 1e-9,
    "mod_trend": 1e-6,
    "threshold": 1e-6,
    "detector": 0.0,
    "aimd": 0.0,
    "linkcap_kbps": 1e-3,
    "acked_bps": 1.0,
    "lb_state": 0.0,
    "lb_bw_bps": 1.0,
    "lb_inherent": 1e-9,
    "lb_avgloss": 1e-9,
    "lb_upper_bps": 1.0,
    "lb_lower_bps": 1.0,
    "alr": 0.0,
    "cwnd_bytes": 1.0,
    "cwnd_ratio": 1e-6,
    "inflight": 0.0,
    "probes": 1.0,
}

#: Numbers of a probe cluster, in the order of the column, and which of them are rates; the floor
#: is for those, the others (id, duration, gap, packets) are exact.
PROBE_NUMBERS = 5
PROBE_RATE = 1

#: Before an application says otherwise (kDefaultPaceMultiplier, goog_cc_network_control.cc).
DEFAULT_PACING_FACTOR = 2.5

#: Keys of the G line that switch libwebrtc's classic estimators on.
LOSS_V2_TRIAL = "WebRTC-Bwe-LossBasedBweV2"
ROBUST_TRIAL = "WebRTC-Bwe-RobustThroughputEstimatorSettings"


@dataclass(frozen=True)
class Row:
    """The controller's state after one event: numbers by column, NaN for "none"."""

    time_us: int
    event: str
    values: dict[str, tuple[float, ...]]


@dataclass
class Comparison:
    """How one replay compares with its recording."""

    name: str
    rows: int = 0
    worst: dict[str, float] = field(default_factory=dict)
    """largest relative error by column, where there is any"""
    first_difference: str = ""
    """empty if every column of every row agrees"""

    @property
    def agrees(self) -> bool:
        """Whether all is within tolerance."""
        return not self.first_difference


def _options(fields: Sequence[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in fields if text)


def is_switched_off(options: Mapping[str, Any], trial: str) -> bool:
    """Whether a field trial's group says "Enabled:false"."""
    return "false" in str(options.get(trial, "")).lower()


def controller_of(options: dict[str, str]) -> GoogCc:
    """The controller that a recording's G line describes."""
    parameters = GccParameters(
        loss_estimator="classic" if is_switched_off(options, LOSS_V2_TRIAL) else "v2",
        acked_rate_estimator="classic" if is_switched_off(options, ROBUST_TRIAL) else "robust",
        pacing_factor=float(options.get("pacing_factor", DEFAULT_PACING_FACTOR)),
        max_total_allocated_bps=int(options.get("max_alloc_bps", 0)),
        alr_probing=options.get("alr_probing", "0") == "1",
    )
    return GoogCc(
        parameters=parameters,
        min_rate_bps=int(options.get("min_bps", 30_000)),
        start_rate_bps=int(options.get("start_bps", 300_000)),
        max_rate_bps=int(options.get("max_bps", 0)),
    )


def _sent(controller: GoogCc, fields: Sequence[str], now_us: int) -> None:
    seq, size_bytes, *probe = (int(text) for text in fields)
    cluster = -1
    if probe:
        cluster, min_packets, min_bytes = probe
        controller.declare_probe_cluster(cluster, min_packets=min_packets, min_bytes=min_bytes)
    if controller.on_packet_sent(size_bytes, now_us, probe_cluster=cluster) != seq:
        raise ConfigError(f"packet {seq} is out of sequence; a recording numbers packets from 0.")


#: Keys of the T line, as in the G line, and what they are called here.
_STREAMS_KEYS = {
    "alr_probing": "alr_probing",
    "max_alloc_bps": "max_total_allocated_bps",
    "max_padding_bps": "max_padding_rate_bps",
    "pacing_factor": "pacing_factor",
}


def _streams_config(options: dict[str, str]) -> dict[str, Any]:
    """All of a streams configuration: libwebrtc's defaults for what the line does not say."""
    values: dict[str, Any] = {
        "alr_probing": False,
        "max_total_allocated_bps": 0,
        "max_padding_rate_bps": 0,
        "pacing_factor": DEFAULT_PACING_FACTOR,
    }
    for key, text in options.items():
        if key not in _STREAMS_KEYS:
            raise unknown_name("key of a T line", key, _STREAMS_KEYS)
        value = float(text)
        values[_STREAMS_KEYS[key]] = value if key == "pacing_factor" else int(value)
    return values


def apply_event(controller: GoogCc, kind: str, now_us: int, fields: Sequence[str]) -> None:
    """Feed one line of a recording to the controller."""
    if kind == "P":
        controller.on_process_interval(now_us)
    elif kind == "A":
        controller.on_network_availability(fields[0] == "1", now_us)
    elif kind == "S":
        _sent(controller, fields, now_us)
    elif kind == "F":
        arrivals_us = [None if text == "x" else int(text) * 1000 for text in fields[1:]]
        controller.on_feedback(int(fields[0]), arrivals_us, now_us)
    elif kind == "R":
        controller.on_rtt(int(fields[0]), now_us)
    elif kind == "L":
        controller.on_loss_report(int(fields[0]), int(fields[1]), now_us)
    elif kind == "C":
        minimum, start, maximum = (int(text) for text in fields)
        controller.on_constraints(minimum, start, maximum, now_us)
    elif kind == "T":
        controller.on_streams_config(**_streams_config(_options(fields)), now_us=now_us)
    else:
        raise ConfigError(f"unknown event {kind!r}; known are P A S F R L C T after the G line.")


def _columns(controller: GoogCc) -> dict[str, tuple[float, ...]]:
    gcc = controller.state
    capacity_kbps = float(gcc.aimd.link_capacity.estimate_kbps)
    acked_bps = float(gcc.acked_rate_bps)
    probes = controller.take_probes()
    return {
        "target_bps": (controller.target_rate_bps,),
        "pacing_bps": (controller.pacing_rate_bps,),
        "padding_bps": (controller.padding_rate_bps,),
        "sendside_bps": (float(gcc.send_side.target_rate_bps),),
        "delay_bps": (float(gcc.aimd.rate_bps),),
        "trend": (float(gcc.trendline.trend),),
        "mod_trend": (float(gcc.trendline.modified_trend),),
        "threshold": (float(gcc.trendline.threshold),),
        "detector": (float(gcc.trendline.state),),
        "aimd": (float(gcc.aimd.state),),
        "linkcap_kbps": (capacity_kbps if capacity_kbps >= 0 else math.nan,),
        "acked_bps": (acked_bps if acked_bps >= 0 else math.nan,),
        "lb_state": (float(gcc.loss_based.state),),
        "lb_bw_bps": (float(gcc.loss_based.bandwidth_bps),),
        "lb_inherent": (float(gcc.loss_based.inherent_loss),),
        "lb_avgloss": (float(gcc.loss_based.average_loss),),
        "lb_upper_bps": (float(gcc.loss_based.upper_bound_bps),),
        "lb_lower_bps": (float(gcc.loss_based.lower_bound_bps),),
        "alr": (float(gcc.alr.in_alr),),
        "cwnd_bytes": (controller.cwnd_bytes or math.nan,),
        "cwnd_ratio": (controller.cwnd_reduce_ratio,),
        "inflight": (controller.in_flight_bytes,),
        "probes": tuple(
            float(number)
            for probe in probes
            for number in (
                probe.id,
                probe.target_rate_bps,
                probe.min_duration_us,
                probe.min_delta_us,
                probe.min_packets,
            )
        ),
    }


def replay(lines: Iterator[str]) -> Iterator[Row]:
    """Run a controller on recorded events; a row per feedback and per change, as recorded."""
    first = next(lines, "").strip().split(",")
    if first[0] != "G":
        raise ConfigError(f"a recording begins with its G line, got {','.join(first)!r}.")
    controller = controller_of(_options(first[1:]))
    last_target_bps = 0
    for line in lines:
        kind, time_text, *fields = line.strip().split(",")
        apply_event(controller, kind, int(time_text), fields)
        is_change = controller.target_rate_bps != last_target_bps
        if kind == "F" or is_change or controller.state.num_probes > 0:
            last_target_bps = controller.target_rate_bps
            yield Row(int(time_text), kind, _columns(controller))


def read_rows(lines: Iterator[str]) -> Iterator[Row]:
    """The recorded rows of an ``out`` file."""
    names = next(lines, "").strip().split(",")
    if "t_us" not in names:
        raise ConfigError("its first line must name the columns, t_us among them.")
    for line in lines:
        texts = dict(zip(names, line.rstrip("\n").split(","), strict=True))
        values: dict[str, tuple[float, ...]] = {
            name: (float(texts[name]) if texts[name] else math.nan,)
            for name in FLOORS
            if name != "probes"
        }
        numbers = texts["probes"].replace("|", ":").split(":")
        values["probes"] = tuple(float(text) for text in numbers if text)
        yield Row(int(texts["t_us"]), texts["ev"], values)


def _error(column: str, value: tuple[float, ...], reference: tuple[float, ...]) -> float:
    """Relative error of a column, 0 where the difference is below the column's floor."""
    if len(value) != len(reference):
        return math.inf
    worst = 0.0
    for index, (ours, theirs) in enumerate(zip(value, reference, strict=True)):
        if math.isnan(ours) and math.isnan(theirs):
            continue
        difference = abs(ours - theirs)
        if math.isnan(difference):
            return math.inf
        is_exact = column == "probes" and index % PROBE_NUMBERS != PROBE_RATE
        if is_exact and difference > 0.0:
            return math.inf
        if difference > FLOORS[column]:
            worst = max(worst, difference / abs(theirs) if theirs else math.inf)
    return worst


def compare(name: str, replayed: Iterator[Row], recorded: Iterator[Row]) -> Comparison:
    """Compare row by row until both end, or until they tell of different events."""
    result = Comparison(name)
    while True:
        ours, theirs = next(replayed, None), next(recorded, None)
        if ours is None and theirs is None:
            return result
        at_ours = "no row" if ours is None else f"{ours.event} at {ours.time_us} us"
        at_theirs = "no row" if theirs is None else f"{theirs.event} at {theirs.time_us} us"
        if ours is None or theirs is None or at_ours != at_theirs:
            difference = f"row {result.rows + 1}: {at_ours} instead of {at_theirs}"
            result.first_difference = result.first_difference or difference
            return result
        result.rows += 1
        for column, reference in theirs.values.items():
            value = ours.values[column]
            error = _error(column, value, reference)
            result.worst[column] = max(result.worst.get(column, 0.0), error)
            if error > TOLERANCE and not result.first_difference:
                result.first_difference = (
                    f"row {result.rows} ({at_theirs}), {column}: "
                    f"{_text(value)} instead of {_text(reference)}"
                )


def _text(value: tuple[float, ...]) -> str:
    return ":".join(f"{number:.9g}" for number in value) or "none"


def compare_files(events: Path) -> Comparison:
    """Replay one recording and compare it with the ``out`` file beside it."""
    name = events.name.removesuffix(".events.csv.gz")
    recorded = events.with_name(f"{name}.out.csv.gz")
    if not recorded.is_file():
        raise ConfigError(f"{events} has no {recorded.name} beside it to compare with.")
    with (
        reading(events, f"recorded events, or {recorded.name} as their outcome"),
        gzip.open(events, "rt") as event_lines,
        gzip.open(recorded, "rt") as rows,
    ):
        result = compare(f"{events.parent.name}/{name}", replay(event_lines), read_rows(rows))
    if result.rows == 0 and result.agrees:
        raise ConfigError(f"{events} and {recorded.name} hold no rows to compare.")
    return result


def recordings(directories: Sequence[Path]) -> list[Path]:
    """Event files of the directories, in order."""
    found: list[Path] = []
    for directory in directories:
        events = sorted(directory.glob("*.events.csv.gz"))
        if not events:
            raise ConfigError(
                f"{directory} holds no NAME.events.csv.gz; give a directory of recordings such as "
                "../shared/reference/gcc/open."
            )
        found += events
    return found


def line_of(result: Comparison) -> str:
    """One line about one recording."""
    worst = {column: error for column, error in result.worst.items() if error > 0.0}
    errors = ", ".join(f"{column} {error:.1e}" for column, error in worst.items()) or "none"
    verdict = "agrees" if result.agrees else f"DIFFERS first in {result.first_difference}"
    return f"{result.name:38} {result.rows:5} rows, worst errors: {errors}; {verdict}"


def validate_gcc(directories: Sequence[Path]) -> int:
    """Replay every recording of the directories; returns how many differ."""
    start_s = time.perf_counter()
    events = recordings(directories)
    failures = 0
    rows = 0
    for path in events:
        result = compare_files(path)
        print(line_of(result), flush=True)
        rows += result.rows
        failures += not result.agrees
    seconds = time.perf_counter() - start_s
    print(
        f"{len(events) - failures} of {len(events)} recordings agree on all {len(FLOORS)} columns "
        f"({rows} rows, tolerance {TOLERANCE:g} relative) in {seconds:.0f} s."
    )
    return failures

"""The simulator against recorded closed loops: ``python -m experiments.validate closed-loop DIR``.

The recordings (formats in the README beside them) are libwebrtc's own controller, pacer and prober
around a model of source, link and feedback that is known exactly. Here the simulator is set up as
that model and must go the same way. Deterministic profiles are
held to the recorded target at every sample. Random ones draw losses and jitter anew and are held to
the recorded mean of ten seeds; and where the recording tells which packets were lost, a run that
loses just these is held to every sample, too.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import (
    AudioConfig,
    CallConfig,
    FeedbackConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    OutageConfig,
    PacketConfig,
    PathConfig,
    VideoConfig,
)
from bwe_env.errors import ConfigError, unknown_name
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.observation import ObservationConfig
from bwe_env.reward import RewardConfig
from bwe_env.rollout import call_key
from bwe_env.sim._jit import NEVER
from bwe_env.sim.packet import FATE_PENDING, FATE_RANDOM_LOSS
from bwe_env.sim.receive import schedule_next_arrival
from bwe_env.sim.state import World
from bwe_env.trace import Trace
from bwe_env.units import s_to_us
from experiments.recordings import reading
from experiments.validate_gcc import LOSS_V2_TRIAL, ROBUST_TRIAL, is_switched_off

#: Relative error of the target that a deterministic profile is allowed at every sample.
SAMPLE_TOLERANCE = 0.01
#: The ten-seed mean of a random profile is held to this share of the recorded sd...
SD_SHARE = 0.9
#: ...or to this share of the recorded mean, whichever is more.
MEAN_TOLERANCE = 0.01
#: Recorded seeds of a random profile.
NUM_RECORDED_SEEDS = 10
#: Simulated seeds of a random profile, as many as were recorded. Two means of ten from the same
#: distribution differ by more than the bound in about one profile of twenty; more seeds
#: (``--seeds``) leave the chance of the recording alone.
NUM_SEEDS = 10
#: A run with recorded losses goes so far before it marks the next ones: less than the one-way delay
#: of any such profile, so that no lost packet has arrived by then.
MARK_US = 10_000
#: Time between samples of a recorded series.
SAMPLE_S = 0.1
#: When a series counts as settled (``ss_from_s`` of summary.json is the first sample after it).
SETTLED_S = 30.0

#: The recorded source: wire bytes hold a 12-byte RTP header; its padding packets carry 255 zeros.
RTP_HEADER_BYTES = 12
FRAME_RATE_HZ = 30.0
PADDING_BYTES = 255
MAX_PACKET_BYTES = 1200
#: The recorded loop has no maximum rate. The simulator wants one, for its rings alone.
RING_RATE_BPS = 20_000_000


def _media_bps(wire_bps: float) -> float:
    """The rate of coded video in a source of `wire_bps` that splits frames into full packets."""
    num_packets = math.ceil(wire_bps / 8 / FRAME_RATE_HZ / MAX_PACKET_BYTES)
    return wire_bps - 8 * FRAME_RATE_HZ * RTP_HEADER_BYTES * num_packets


def _schedule(text: str) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in (p.split(":") for p in text.split(";"))]


def capacity_trace(name: str, rate: str, duration_s: float) -> Trace:
    """The trace that a schedule ``t:bps;t:bps`` describes."""
    steps = _schedule(rate)
    return Trace.from_points(
        [at for at, _ in steps],
        [bps for _, bps in steps],
        end_s=duration_s + 60.0,
        name=name,
        network_type="pattern",
    )


@dataclass(frozen=True)
class Profile:
    """A recorded closed loop, as the simulator's own configuration."""

    name: str
    network: Network
    call: CallConfig
    gcc: GccParameters

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> Profile:
        """Translate the ``config`` of ``summary.json``."""
        delay_s = config["owd_ms"] / 1000
        jitter_s = config.get("jitter_ms", 0) / 1000
        jitter = JitterConfig()
        if config.get("jitter_kind") == "normal":
            jitter = JitterConfig(distribution="normal", mean_s=2 * jitter_s, scale_s=jitter_s)
        elif jitter_s:
            jitter = JitterConfig(distribution="uniform", scale_s=jitter_s / 2)
        loss = LossConfig(good_loss=config.get("loss", 0.0))
        if "loss_sched" in config:
            start, end, share = (float(text) for text in config["loss_sched"].split(":"))
            loss = LossConfig(good_loss=share, from_s=start, until_s=end)
        outage = OutageConfig()
        if "outage" in config:
            start_text, end_text, kind = config["outage"].split(":")
            outage = OutageConfig(
                from_s=float(start_text), until_s=float(end_text), keeps=kind == "stall"
            )
        app_max_bps, app_limit_until_s = float(config["app_max_bps"]), 0.0
        if "app_sched" in config:
            (_, app_max_bps), (app_limit_until_s, _) = _schedule(config["app_sched"])
        network = Network(
            trace=capacity_trace(name, config["rate"], config["dur_s"]),
            link=LinkConfig(queue_limit_bytes=config["queue_bytes"]),
            forward=PathConfig(propagation_delay_s=delay_s, jitter=jitter, loss=loss),
            reverse=PathConfig(propagation_delay_s=delay_s, outage=outage),
        )
        call = CallConfig(
            duration_s=config["dur_s"],
            interval_s=SAMPLE_S,
            max_rate_bps=RING_RATE_BPS,
            video=VideoConfig(
                frame_rate_hz=FRAME_RATE_HZ,
                min_rate_bps=1_000,
                app_max_rate_bps=round(_media_bps(app_max_bps)),
                app_limit_until_s=app_limit_until_s,
                encoder_lag_s=0.0,
                frame_size_sd=0.0,
                key_frame_ratio=1.0,
                skip_frames=False,
                repair=False,
            ),
            audio=AudioConfig(enabled=False),
            packets=PacketConfig(
                overhead_bytes=0,
                rtp_header_bytes=RTP_HEADER_BYTES,
                padding_bytes=PADDING_BYTES,
            ),
            feedback=FeedbackConfig(
                interval_s=0.05,
                rtcp_interval_s=1.0,
                rtt_packet="sent",
                clock_skew_ppm=config.get("skew_ppm", 0),
            ),
            consent_interval_s=0.0,
        )
        gcc = GccParameters(
            loss_estimator="classic" if is_switched_off(config, LOSS_V2_TRIAL) else "v2",
            acked_rate_estimator="classic" if is_switched_off(config, ROBUST_TRIAL) else "robust",
            pacing_factor=config.get("pacing_factor", 1.1),
            max_total_allocated_bps=config["max_alloc_bps"],
            alr_probing=bool(config["alr_probing"]),
            knows_max_rate=False,
        )
        return cls(name, network, call, gcc)

    @property
    def is_random(self) -> bool:
        """Whether chance has a part in it."""
        forward = self.network.forward
        return forward.loss.good_loss > 0 or forward.jitter.distribution != "none"


def _make_world(profile: Profile, seeds: Sequence[int]) -> World:
    world = World.make(
        len(seeds),
        [profile.network],
        profile.call,
        gcc=profile.gcc,
        reward=RewardConfig(),
        observation=ObservationConfig(history=1),
    )
    for env, seed in enumerate(seeds):
        world.reset(env, 0, call_key(profile.name, seed))
    return world


def _sample_times_us(profile: Profile) -> list[int]:
    """When the recording looked at the target.

    A report that arrives at that very time has not changed a sample yet: in the recordings the
    earlier entry of the event queue comes first, and a report is entered one reverse delay before
    its arrival.
    """
    is_entered_earlier = profile.network.reverse.propagation_delay_s > SAMPLE_S
    before_us = 0 if is_entered_earlier else 1
    sample_us = s_to_us(SAMPLE_S)
    return [(step + 1) * sample_us - before_us for step in range(profile.call.steps)]


def simulate(profile: Profile, seeds: Sequence[int]) -> NDArray[np.float64]:
    """Run the profile with every seed, side by side; target rates in bps, (seeds, samples)."""
    world = _make_world(profile, seeds)
    target_bps = np.zeros((len(seeds), profile.call.steps))
    for sample, until_us in enumerate(_sample_times_us(profile)):
        world.advance(until_us)
        target_bps[:, sample] = world.flows["target_rate_bps"]
    return target_bps


def recorded_losses(events: Path) -> set[int]:
    """Numbers of the packets that never arrived, as the feedback of a recording tells."""
    told: dict[int, bool] = {}
    with reading(events, "recorded events"), gzip.open(events, "rt") as lines:
        for line in lines:
            kind, _, *fields = line.strip().split(",")
            if kind == "F":
                first = int(fields[0])
                told |= {first + i: text == "x" for i, text in enumerate(fields[1:])}
    return {seq for seq in range(max(told, default=-1)) if told.get(seq, True)}


def simulate_losses(profile: Profile, lost: set[int]) -> NDArray[np.float64]:
    """Run the profile so that these packets, and no others, are lost behind the bottleneck."""
    forward = dataclasses.replace(profile.network.forward, loss=LossConfig())
    network = dataclasses.replace(profile.network, forward=forward)
    world = _make_world(dataclasses.replace(profile, network=network), [0])
    flow, ring = world.flows[0], world.packets[0]
    target_bps = np.zeros(profile.call.steps)
    oldest = 0
    sample_times_us = _sample_times_us(profile)
    for sample, until_us in enumerate(sample_times_us):
        start_us = sample_times_us[sample - 1] if sample else 0
        for stop_us in [*range(start_us + MARK_US, until_us, MARK_US), until_us]:
            world.advance(stop_us)
            next_seq = int(flow["history"]["next_seq"])
            while oldest < next_seq and ring[oldest % len(ring)]["fate"] != FATE_PENDING:
                oldest += 1
            for seq in lost.intersection(range(oldest, next_seq)):
                row = ring[seq % len(ring)]
                if row["fate"] == FATE_PENDING and row["arrival_us"] != NEVER:
                    row["fate"], row["arrival_us"] = FATE_RANDOM_LOSS, NEVER
            schedule_next_arrival(flow, ring)
        target_bps[sample] = flow["target_rate_bps"]
    return target_bps


def read_series(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times in s and target rates in bps of a recorded series."""
    with reading(path, "a recorded series"):
        with gzip.open(path, "rt") as lines:
            rows = [(float(row["t_s"]), float(row["target_bps"])) for row in csv.DictReader(lines)]
        times_s, target_bps = np.array(rows).T
    return times_s, target_bps


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    recorded_kbps: float
    simulated_kbps: float
    error: float
    """relative: the worst sample of a deterministic profile, the mean of a random one"""
    allowed: float
    note: str
    is_followed: bool = True
    """False if a run with the recorded losses leaves the recorded samples"""

    @property
    def passes(self) -> bool:
        """Whether the error is allowed."""
        return self.error <= self.allowed and self.is_followed


def settled(times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Samples of the steady state: after 30 s, or the second half of a shorter series."""
    start_s = min(SETTLED_S, times_s[-1] / 2)
    return times_s > start_s + SAMPLE_S / 2


def compare_samples(
    name: str,
    times_s: NDArray[np.float64],
    recorded_bps: NDArray[np.float64],
    simulated_bps: NDArray[np.float64],
) -> Row:
    """A deterministic profile: the worst of all samples."""
    if len(simulated_bps) != len(recorded_bps):
        raise ConfigError(
            f"{name}: {len(recorded_bps)} recorded samples, but {len(simulated_bps)} in dur_s of "
            "summary.json; the series is not whole."
        )
    errors = np.abs(simulated_bps / recorded_bps - 1.0)
    equal = int((np.round(simulated_bps) == np.round(recorded_bps)).sum())
    note = f"{equal} of {len(errors)} samples equal to the bit per second"
    off = np.flatnonzero(errors > SAMPLE_TOLERANCE)
    if len(off):
        first = off[0]
        note += (
            f"; first off at {times_s[first]:.1f} s: {simulated_bps[first]:.0f} instead of "
            f"{recorded_bps[first]:.0f} bps"
        )
    return Row(
        name,
        recorded_bps.mean() / 1e3,
        simulated_bps.mean() / 1e3,
        float(errors.max()),
        SAMPLE_TOLERANCE,
        note,
    )


def compare_seeds(
    name: str,
    times_s: NDArray[np.float64],
    recorded: Mapping[str, float],
    simulated_bps: NDArray[np.float64],
) -> Row:
    """A random profile: the mean over seeds of the settled mean target."""
    means_bps = simulated_bps[:, settled(times_s)].mean(axis=1)
    mean_bps, sd_bps = recorded["target_ss_mean"], recorded["target_ss_sd"]
    simulated_mean_bps = float(means_bps.mean())
    simulated_sd_bps = float(means_bps.std(ddof=1)) if len(means_bps) > 1 else math.nan
    # Both means are estimates with a spread of their own.
    error_bps = math.sqrt(simulated_sd_bps**2 / len(means_bps) + sd_bps**2 / NUM_RECORDED_SEEDS)
    deviation = (simulated_mean_bps - mean_bps) / error_bps if error_bps > 0.0 else 0.0
    allowed = max(SD_SHARE * sd_bps / mean_bps, MEAN_TOLERANCE)
    note = (
        f"settled mean +- sd over seeds, kbps: recorded {mean_bps / 1e3:.1f} +- "
        f"{sd_bps / 1e3:.1f}, simulated {simulated_mean_bps / 1e3:.1f} +- "
        f"{simulated_sd_bps / 1e3:.1f}, {deviation:+.1f} standard errors apart"
    )
    error = abs(simulated_mean_bps / mean_bps - 1.0)
    return Row(name, mean_bps / 1e3, simulated_mean_bps / 1e3, error, allowed, note)


def compare_profile(
    directory: Path,
    name: str,
    config: Mapping[str, Any],
    recorded_seeds: Mapping[str, Mapping[str, float]],
    num_seeds: int,
) -> Row:
    """Run one profile and hold it against its recording."""
    with reading(directory / "summary.json", f"the configuration of {name}"):
        profile = Profile.of(name, config)
    times_s, recorded_bps = read_series(directory / f"{name}.series.csv.gz")
    if not profile.is_random:
        return compare_samples(name, times_s, recorded_bps, simulate(profile, [0])[0])
    if name not in recorded_seeds:
        raise ConfigError(f"{directory / 'seeds10.json'} does not hold {name}.")
    row = compare_seeds(name, times_s, recorded_seeds[name], simulate(profile, range(num_seeds)))
    events = directory / f"{name}.events.csv.gz"
    if profile.network.forward.jitter.distribution != "none" or not events.is_file():
        return row
    simulated_bps = simulate_losses(profile, recorded_losses(events))
    samples = compare_samples(name, times_s, recorded_bps, simulated_bps)
    note = f"{row.note}; with the recorded losses {samples.note}"
    return dataclasses.replace(row, note=note, is_followed=samples.passes)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}. Give the directory of recorded closed loops, such as "
            "../shared/reference/gcc/closed."
        ) from error


def line_of(row: Row) -> str:
    """One line of the table."""
    verdict = "ok  " if row.passes else "MISS"
    return (
        f"{verdict} {row.name:26} {row.recorded_kbps:9.1f} {row.simulated_kbps:9.1f} "
        f"{100 * row.error:7.3f} {100 * row.allowed:7.3f}  {row.note}"
    )


def validate_closed_loop(
    directory: Path, *, names: Sequence[str] = (), num_seeds: int = NUM_SEEDS
) -> int:
    """Print the table; returns how many profiles miss.

    Args:
        names: only these profiles; all of ``summary.json`` without them.
        num_seeds: of each random profile.
    """
    start_s = time.perf_counter()
    summary = _read_json(directory / "summary.json")
    seeds = _read_json(directory / "seeds10.json")
    if not isinstance(summary, dict) or not summary:
        raise ConfigError(f"{directory / 'summary.json'} holds no profiles to compare.")
    for name in names:
        if name not in summary:
            raise unknown_name("profile", name, summary)
    title = f"{'profile':26} {'recorded':>9} {'simulated':>9} {'error %':>7} {'allowed':>7}"
    print(f"     {title}  (target rate, kbps)")
    rows = []
    for name in names or summary:
        row = compare_profile(directory, name, summary[name]["config"], seeds, num_seeds)
        print(line_of(row), flush=True)
        rows.append(row)
    misses = sum(not row.passes for row in rows)
    print(
        f"{len(rows) - misses} of {len(rows)} closed loops agree in "
        f"{time.perf_counter() - start_s:.0f} s. Deterministic: every sample within "
        f"{SAMPLE_TOLERANCE:.0%}. Random: the settled mean of {num_seeds} seeds within "
        f"{SD_SHARE:g} recorded sd or {MEAN_TOLERANCE:.0%} of the recorded mean of ten."
    )
    return misses

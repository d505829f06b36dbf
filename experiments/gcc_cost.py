"""What Google Congestion Control costs per feedback report inside compiled code.

A simulated call is driven by `GoogCc` from outside, and all that enters the controller is written
down. The same kernels then work through it once more in one compiled loop, with nothing around
them: no link, no pacer, no Python.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import AudioConfig, CallConfig
from bwe_env.estimator import RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.gcc import GccParameters, GoogCc
from bwe_env.gcc.controller import (
    gcc_on_feedback,
    gcc_on_network_availability,
    gcc_on_packet_sent,
    gcc_on_process_interval,
    gcc_reset,
)
from bwe_env.gcc.goog_cc import PROCESS_INTERVAL_US
from bwe_env.gcc.parameters import GCC_PARAMETERS, fill_gcc_parameters
from bwe_env.gcc.state import GCC
from bwe_env.network import Network
from bwe_env.rollout import run_calls
from bwe_env.sim._jit import NEVER, Record, entry
from bwe_env.sim.packet import PACKET
from bwe_env.sim.send_history import (
    SEND_HISTORY,
    send_history_add,
    send_history_report,
    send_history_reset,
)
from bwe_env.trace import constant

SENT = 0
REPORT = 1
PROCESS = 2

EVENT = np.dtype(
    [
        ("kind", "i8"),
        ("time_us", "i8"),
        ("first_seq", "i8"),  # of a report; a sent packet's own
        ("last_seq", "i8"),
        ("built_us", "i8"),  # when a report was built
    ]
)

START_RATE_BPS = 300_000
MIN_RATE_BPS = 30_000


@dataclass
class Recorder:
    """`GoogCc` as an estimator of one call that remembers what it was told."""

    controller: GoogCc = field(
        default_factory=lambda: GoogCc(min_rate_bps=MIN_RATE_BPS, start_rate_bps=START_RATE_BPS)
    )
    events: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    sent: list[SentPacket] = field(default_factory=list)
    arrivals_us: dict[int, int] = field(default_factory=dict)
    next_process_us: int = PROCESS_INTERVAL_US

    def __post_init__(self) -> None:
        self.controller.on_network_availability(True, 0)

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """Tell the controller."""
        self.controller.on_packet_sent(packet.size_bytes, now_us)
        self.events.append((SENT, now_us, packet.seq, packet.seq, 0))
        self.sent.append(packet)

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """Tell the controller, and do what it says."""
        first, last = report.packets[0].sent.seq, report.packets[-1].sent.seq
        told = {result.sent.seq: result.arrival_time_us for result in report.packets}
        self.controller.on_feedback(
            first, [told.get(seq) for seq in range(first, last + 1)], now_us
        )
        self.arrivals_us |= {seq: at for seq, at in told.items() if at is not None}
        self.events.append((REPORT, now_us, first, last, report.built_us))
        return RateDecision(target_rate_bps=self.controller.target_rate_bps)

    def on_timeout(self, now_us: int) -> RateDecision:
        """The controller's process interval."""
        self.controller.on_process_interval(now_us)
        self.events.append((PROCESS, now_us, 0, 0, 0))
        self.next_process_us = now_us + PROCESS_INTERVAL_US
        return RateDecision(target_rate_bps=self.controller.target_rate_bps)

    def next_timeout_us(self) -> int:
        """When the next process interval ends."""
        return self.next_process_us


@entry
def replay_events(
    gcc: Record,
    parameters: Record,
    history: Record,
    packets: np.ndarray,
    arrivals_us: np.ndarray,
    events: np.ndarray,
) -> None:
    """Let the controller's kernels work through recorded events.

    Args:
        packets: PACKET rows with sizes, as many as a power of two, none of them used twice.
        arrivals_us: of every packet, NEVER for a lost one.
        events: EVENT rows in order of time.
    """
    mask = len(packets) - 1
    for index in range(len(events)):
        event = events[index]
        now_us = event.time_us
        if event.kind == SENT:
            row = packets[event.first_seq & mask]
            seq = send_history_add(history, packets, row.size_bytes)
            row.send_us = now_us
            row.arrival_us = arrivals_us[seq]
            gcc_on_packet_sent(gcc, parameters, row.size_bytes, history.in_flight_bytes, now_us)
        elif event.kind == REPORT:
            send_history_report(history, packets, event.first_seq, event.last_seq, event.built_us)
            gcc_on_feedback(
                gcc,
                parameters,
                packets,
                event.first_seq,
                event.last_seq,
                history.in_flight_bytes,
                now_us,
            )
        else:
            gcc_on_process_interval(gcc, parameters, history.in_flight_bytes, now_us)


@dataclass(frozen=True)
class GccCost:
    """Cost of the controller over one call."""

    reports: int
    packets_per_report: float
    call_us: float
    """microseconds of the whole call per report: packets sent, reports, process intervals"""
    other_us: float
    """part of it that is not spent in reports, measured without any"""
    loss_based_us: float
    """part of it that loss-based v2 costs more than the classic loss controller"""


def record_call(*, capacity_bps: float, duration_s: float) -> Recorder:
    """One call on a clean constant link, GCC in control."""
    recorders: list[Recorder] = []

    def make() -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    call = CallConfig(duration_s=duration_s, audio=AudioConfig(enabled=False))
    run_calls([Network(trace=constant(capacity_bps))], make, call=call, seeds=(0,))
    return recorders[0]


def _replay_us(
    recorder: Recorder,
    events: NDArray[np.void],
    arrivals_us: NDArray[np.int64],
    gcc_parameters: GccParameters,
) -> tuple[float, int]:
    """Microseconds of one replay, and the target rate at its end."""
    gcc = np.zeros(1, GCC)[0]
    parameters = np.zeros(1, GCC_PARAMETERS)[0]
    history = np.zeros(1, SEND_HISTORY)[0]
    packets = np.zeros(1 << int(np.ceil(np.log2(len(recorder.sent)))), PACKET)
    packets["size_bytes"][: len(recorder.sent)] = [p.size_bytes for p in recorder.sent]
    packets["probe_cluster"] = -1
    fill_gcc_parameters(parameters, gcc_parameters)
    send_history_reset(history)
    gcc_reset(gcc, parameters, MIN_RATE_BPS, START_RATE_BPS, 0, 0)
    gcc_on_network_availability(gcc, parameters, True, 0)
    started_ns = time.perf_counter_ns()
    replay_events(gcc, parameters, history, packets, arrivals_us, events)
    return (time.perf_counter_ns() - started_ns) / 1e3, int(gcc["target_rate_bps"])


def gcc_cost(
    *, capacity_bps: float = 2.8e6, duration_s: float = 120.0, repeats: int = 15
) -> GccCost:
    """Measure; 2.8 Mbps without audio are about 12 packets to a report.

    Raises:
        RuntimeError: the replay ended at another rate than the call, so it did other work.
    """
    recorder = record_call(capacity_bps=capacity_bps, duration_s=duration_s)
    events = np.array(recorder.events, EVENT)
    arrivals_us = np.array(
        [recorder.arrivals_us.get(packet.seq, NEVER) for packet in recorder.sent], np.int64
    )
    is_report = events["kind"] == REPORT
    reports = events[is_report]

    def best_us(of: NDArray[np.void], parameters: GccParameters) -> float:
        elapsed_us = [_replay_us(recorder, of, arrivals_us, parameters)[0] for _ in range(repeats)]
        return min(elapsed_us) / len(reports)

    plain = GccParameters()
    _, target_bps = _replay_us(recorder, events, arrivals_us, plain)  # compiled now
    if target_bps != recorder.controller.target_rate_bps:
        raise RuntimeError(
            f"the replay ended at {target_bps} bps, the call at "
            f"{recorder.controller.target_rate_bps} bps: they are not the same work."
        )
    call_us = best_us(events, plain)
    told_packets = reports["last_seq"] - reports["first_seq"] + 1
    return GccCost(
        reports=len(reports),
        packets_per_report=float(told_packets.mean()),
        call_us=call_us,
        other_us=best_us(events[~is_report], plain),
        loss_based_us=call_us - best_us(events, GccParameters(loss_estimator="classic")),
    )

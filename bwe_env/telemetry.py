"""What a sender can log of each interval: the input of the network models, of labels and of rules.

One row per interval (a *bin*), from feedback as it arrives. Simulated calls and logs of real ones
fill it by the same kernel: the simulator within its step, a log through `TelemetryRecorder`. So a
model sees the same numbers wherever it runs. Ground truth is not in here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.monitor import (
    MONITOR,
    monitor_acked_rate_bps,
    monitor_begin_interval,
    monitor_on_report,
    monitor_on_sent,
    monitor_reset,
)
from bwe_env.sim.packet import PACKET
from bwe_env.sim.send_history import (
    SEND_HISTORY,
    first_reportable_seq,
    send_history_add,
    send_history_note_arrivals,
    send_history_reset,
)


@dataclass(frozen=True)
class TelemetryColumn:
    """One column of a bin."""

    name: str
    unit: str
    doc: str


#: Delays are one-way and above the smallest of the call so far: the clocks of the two ends need not
#: agree. NaN is "not known in this bin".
TELEMETRY_COLUMNS = (
    TelemetryColumn("time_s", "s", "end of the bin, since the call began"),
    TelemetryColumn("reports", "1", "feedback reports that arrived"),
    TelemetryColumn("sent_packets", "1", "handed to the network"),
    TelemetryColumn("sent_bytes", "B", "the same, on the wire"),
    TelemetryColumn("acked_packets", "1", "first reported as received"),
    TelemetryColumn("acked_bytes", "B", "the same, on the wire"),
    TelemetryColumn("lost_packets", "1", "first reported as missing"),
    TelemetryColumn("loss_runs", "1", "runs of consecutive packets among the missing"),
    TelemetryColumn("acked_rate_bps", "bps", "acknowledged, over the time it took to arrive"),
    TelemetryColumn("queue_delay_ms", "ms", "mean delay of packets acknowledged; NaN without"),
    TelemetryColumn("queue_delay_min_ms", "ms", "smallest of them"),
    TelemetryColumn("queue_delay_max_ms", "ms", "largest of them"),
    TelemetryColumn("delay_variation_ms", "ms", "mean absolute change from packet to packet"),
    TelemetryColumn("loss_delay_ms", "ms", "delay of the packet before each run of missing ones"),
    TelemetryColumn("loss_delay_min_ms", "ms", "smallest of them; the column before is the mean"),
    TelemetryColumn("loss_delay_max_ms", "ms", "largest of them"),
    TelemetryColumn("loss_gap_ms", "ms", "from sending that packet to sending the first missing"),
    TelemetryColumn("rtt_ms", "ms", "newest report: its arrival less the newest packet's sending"),
    TelemetryColumn("target_rate_bps", "bps", "in force at the end; NaN where a log lacks it"),
)
TELEMETRY_NAMES = tuple(column.name for column in TELEMETRY_COLUMNS)

TELEMETRY = record([(name, "f8") for name in TELEMETRY_NAMES])

_US_TO_MS = 1e-3


@kernel
def telemetry_fill(telemetry: Record, monitor: Record, target_rate_bps: float, now_us: int) -> None:
    """Fill the row of the interval that ends now and whose sums `monitor` holds."""
    telemetry.time_s = now_us * 1e-6
    telemetry.reports = float(monitor.reports)
    telemetry.sent_packets = float(monitor.sent_packets)
    telemetry.sent_bytes = float(monitor.sent_bytes)
    telemetry.acked_packets = float(monitor.acked_packets)
    telemetry.acked_bytes = float(monitor.acked_bytes)
    telemetry.lost_packets = float(monitor.lost_packets)
    telemetry.loss_runs = float(monitor.loss_runs)
    telemetry.acked_rate_bps = monitor_acked_rate_bps(monitor)
    telemetry.queue_delay_ms = math.nan
    telemetry.queue_delay_min_ms = math.nan
    telemetry.queue_delay_max_ms = math.nan
    telemetry.delay_variation_ms = math.nan
    telemetry.loss_delay_ms = math.nan
    telemetry.loss_delay_min_ms = math.nan
    telemetry.loss_delay_max_ms = math.nan
    telemetry.loss_gap_ms = math.nan
    telemetry.rtt_ms = math.nan
    telemetry.target_rate_bps = target_rate_bps
    if monitor.acked_packets > 0:
        base_us = monitor.base_delay_us
        mean_us = monitor.delay_sum_us / monitor.acked_packets
        telemetry.queue_delay_ms = (mean_us - base_us) * _US_TO_MS
        telemetry.queue_delay_min_ms = (monitor.delay_min_us - base_us) * _US_TO_MS
        telemetry.queue_delay_max_ms = (monitor.delay_max_us - base_us) * _US_TO_MS
        variation_us = monitor.delay_change_sum_us / monitor.acked_packets
        telemetry.delay_variation_ms = variation_us * _US_TO_MS
        telemetry.rtt_ms = monitor.rtt_us * _US_TO_MS
    if monitor.loss_runs > 0:
        telemetry.loss_gap_ms = monitor.loss_gap_sum_us * _US_TO_MS / monitor.loss_runs
    if monitor.located_runs > 0:
        located_us = monitor.loss_delay_sum_us / monitor.located_runs
        base_us = monitor.base_delay_us
        telemetry.loss_delay_ms = (located_us - base_us) * _US_TO_MS
        telemetry.loss_delay_min_ms = (monitor.loss_delay_min_us - base_us) * _US_TO_MS
        telemetry.loss_delay_max_ms = (monitor.loss_delay_max_us - base_us) * _US_TO_MS


def empty_telemetry(bins: int) -> NDArray[Any]:
    """Rows of dtype `TELEMETRY` in which nothing happened and nothing is known.

    Returns:
        Shape (bins,).
    """
    rows = np.zeros(bins, dtype=TELEMETRY)
    for name in TELEMETRY_NAMES:
        if name.endswith("_ms") or name == "target_rate_bps":
            rows[name] = np.nan
    return rows


def checked_telemetry(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows as kernels want them.

    Raises:
        ConfigError: another dtype.
    """
    if rows.dtype != TELEMETRY:
        raise ConfigError(
            f"expected rows of bwe_env.telemetry.TELEMETRY, got {rows.dtype}; make them with "
            "record_calls, with TelemetryRecorder or from a log."
        )
    # An equal dtype that is another object would be dispatched slowly.
    return np.ascontiguousarray(rows).view(TELEMETRY)


class NetworkModels(Protocol):
    """Models that follow calls bin by bin and say what their networks are doing."""

    outputs: tuple[str, ...]
    """what each number is, e.g. ``("random_loss", "congestion")``"""

    def reset(self, num_envs: int) -> None:
        """`num_envs` calls begin."""

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Take the newest bin of every active call.

        Args:
            telemetry: dtype `TELEMETRY`, shape (num_envs,).
            active: bool, shape (num_envs,); the others are left as they are.

        Returns:
            Probabilities, shape (num_envs, len(outputs)).
        """


class TelemetryRecorder:
    """Bins of one call from what its sender logged; sans-IO: time is an argument.

    Args:
        ring_packets: packets remembered while their feedback is out; a power of two.

    >>> recorder = TelemetryRecorder()
    >>> recorder.on_packet_sent(1200, now_us=10_000)
    0
    >>> recorder.on_packet_sent(1200, now_us=20_000)
    1
    >>> recorder.on_feedback(0, np.array([35_000, NEVER]), now_us=60_000)
    >>> row = recorder.end_bin(now_us=100_000)
    >>> row["acked_packets"].item(), row["lost_packets"].item(), row["rtt_ms"].item()
    (1.0, 1.0, 50.0)
    """

    def __init__(self, *, ring_packets: int = 8192) -> None:
        if ring_packets < 2 or ring_packets & (ring_packets - 1):
            raise ConfigError(f"ring_packets={ring_packets} must be a power of two, e.g. 8192.")
        self._history = np.zeros(1, SEND_HISTORY)[0]
        self._monitor = np.zeros(1, MONITOR)[0]
        self._packets = np.zeros(ring_packets, PACKET)
        self._row = np.zeros(1, TELEMETRY)
        send_history_reset(self._history)
        monitor_reset(self._monitor)

    def on_packet_sent(self, size_bytes: int, now_us: int) -> int:
        """A packet has left; returns its number, counted from 0, by which feedback names it."""
        seq = int(send_history_add(self._history, self._packets, size_bytes))
        packet = self._packets[seq & (len(self._packets) - 1)]
        packet.send_us = now_us
        packet.arrival_us = NEVER
        monitor_on_sent(self._monitor, size_bytes)
        return seq

    def on_feedback(
        self, first_seq: int, arrivals_us: Sequence[int] | NDArray[np.int64], now_us: int
    ) -> None:
        """A transport-wide report has come in.

        Args:
            first_seq: number of the first packet it tells of.
            arrivals_us: when that packet and those after it arrived, on the receiver's clock;
                `NEVER` for those reported as missing.

        Raises:
            ConfigError: it tells of packets that were not sent.
        """
        arrivals = np.ascontiguousarray(arrivals_us, np.int64)
        last_seq = first_seq + len(arrivals) - 1
        if first_seq < 0 or last_seq >= self._history.next_seq:
            raise ConfigError(
                f"feedback tells of packets {first_seq} to {last_seq}, but only packets 0 to "
                f"{self._history.next_seq - 1} were sent; on_packet_sent comes first."
            )
        if len(arrivals) == 0:
            return
        send_history_note_arrivals(self._history, self._packets, first_seq, arrivals)
        first_kept = int(first_reportable_seq(self._history, self._packets, first_seq))
        monitor_on_report(self._monitor, self._packets, first_kept, last_seq, now_us)

    def end_bin(self, now_us: int, *, target_rate_bps: float = math.nan) -> NDArray[Any]:
        """The row of the bin that ends now, dtype `TELEMETRY`, shape (1,); the next one begins."""
        telemetry_fill(self._row[0], self._monitor, target_rate_bps, now_us)
        monitor_begin_interval(self._monitor)
        return self._row.copy()

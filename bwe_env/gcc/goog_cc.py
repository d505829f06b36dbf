"""One Google Congestion Control as a plain object: time comes in, decisions are read off.

Sans-IO: it knows no clock and no socket. The simulator does not use it; it drives the same kernels
on its own records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bwe_env.errors import ConfigError
from bwe_env.gcc.controller import (
    gcc_on_constraints,
    gcc_on_feedback,
    gcc_on_loss_report,
    gcc_on_network_availability,
    gcc_on_packet_sent,
    gcc_on_process_interval,
    gcc_on_rtt,
    gcc_on_streams_config,
    gcc_reset,
)
from bwe_env.gcc.parameters import GCC_PARAMETERS, GccParameters, fill_gcc_parameters
from bwe_env.gcc.probe_bitrate_estimator import probe_declare
from bwe_env.gcc.state import GCC
from bwe_env.sender_settings import SenderSettings
from bwe_env.sim._jit import NEVER, Record
from bwe_env.sim.packet import PACKET
from bwe_env.sim.send_history import (
    SEND_HISTORY,
    send_history_add,
    send_history_note_arrivals,
    send_history_reset,
)

#: Time between calls of `on_process_interval` (api/transport/goog_cc_factory.cc).
PROCESS_INTERVAL_US = 25_000

#: Packets remembered while their feedback is out; libwebrtc remembers 60 s of them.
DEFAULT_RING_PACKETS = 8192


@dataclass(frozen=True)
class ProbeCluster:
    """A request to send a short train of packets at a rate above the pacing rate."""

    id: int
    """to be given to `GoogCc.on_packet_sent` with each of its packets"""
    target_rate_bps: int
    min_duration_us: int
    """length of the train at that rate"""
    min_delta_us: int
    """between bursts"""
    min_packets: int


class GoogCc:
    """Google Congestion Control of one transport.

    Call `on_network_availability(True, …)` when packets can be sent, `on_process_interval` every
    25 ms, and the other methods as things happen; times are microseconds since any fixed moment
    and must not decrease. After each call the properties hold the decision, and `take_probes`
    returns clusters requested meanwhile.

    >>> controller = GoogCc(start_rate_bps=300_000)
    >>> controller.on_network_availability(True, now_us=0)
    >>> [cluster.target_rate_bps for cluster in controller.take_probes()]
    [900000, 1800000]
    """

    def __init__(
        self,
        *,
        parameters: GccParameters | None = None,
        min_rate_bps: int = 30_000,
        start_rate_bps: int = 300_000,
        max_rate_bps: int = 0,
        ring_packets: int = DEFAULT_RING_PACKETS,
        now_us: int = 0,
    ) -> None:
        """Start at `start_rate_bps`.

        Args:
            parameters: every constant; libwebrtc's where not given.
            max_rate_bps: 0 for none.
            ring_packets: packets remembered while their feedback is out; a power of two.
        """
        if ring_packets < 2 or ring_packets & (ring_packets - 1):
            raise ConfigError(f"ring_packets={ring_packets} must be a power of two, e.g. 8192.")
        if min_rate_bps < 0 or start_rate_bps <= 0:
            raise ConfigError(
                f"min_rate_bps={min_rate_bps} must not be negative and "
                f"start_rate_bps={start_rate_bps} must be positive."
            )
        self.parameters = GccParameters() if parameters is None else parameters
        self._p = np.zeros(1, GCC_PARAMETERS)[0]
        self._gcc = np.zeros(1, GCC)[0]
        self._history = np.zeros(1, SEND_HISTORY)[0]
        self._packets = np.zeros(ring_packets, PACKET)
        fill_gcc_parameters(self._p, self.parameters)
        send_history_reset(self._history)
        gcc_reset(self._gcc, self._p, min_rate_bps, start_rate_bps, max_rate_bps, now_us)

    def on_network_availability(self, available: bool, now_us: int) -> None:
        """The transport is connected, or no longer."""
        gcc_on_network_availability(self._gcc, self._p, bool(available), now_us)

    def on_process_interval(self, now_us: int) -> None:
        """25 ms have passed since the last call."""
        gcc_on_process_interval(self._gcc, self._p, self.in_flight_bytes, now_us)

    def on_packet_sent(self, size_bytes: int, now_us: int, *, probe_cluster: int = -1) -> int:
        """A packet has left.

        Args:
            size_bytes: on the wire, as far as the feedback covers it.
            probe_cluster: id of the cluster it belongs to, -1 for none.

        Returns:
            Its transport-wide sequence number (unwrapped, from 0), by which feedback names it.
        """
        seq = int(send_history_add(self._history, self._packets, size_bytes))
        row = self._packets[seq & (len(self._packets) - 1)]
        row.send_us = now_us
        row.arrival_us = NEVER
        row.probe_cluster = probe_cluster
        gcc_on_packet_sent(self._gcc, self._p, size_bytes, self.in_flight_bytes, now_us)
        return seq

    def declare_probe_cluster(self, cluster_id: int, *, min_packets: int, min_bytes: int) -> None:
        """Say what a cluster consists of that this controller did not ask for itself."""
        probe_declare(self._gcc.probe_estimator, cluster_id, min_packets, min_bytes)

    def on_feedback(
        self, first_seq: int, arrivals_us: Sequence[int | None] | npt.NDArray[np.int64], now_us: int
    ) -> None:
        """A transport-wide feedback report has come in.

        Args:
            first_seq: sequence number of the first packet it tells of.
            arrivals_us: when that packet and the following ones arrived, on the receiver's clock;
                None (or `NEVER` in an int64 array) for those reported as missing.
        """
        if isinstance(arrivals_us, np.ndarray):
            arrivals = np.ascontiguousarray(arrivals_us, np.int64)
        else:
            arrivals = np.array([NEVER if t is None else t for t in arrivals_us], np.int64)
        last_seq = first_seq + len(arrivals) - 1
        if first_seq < 0 or last_seq >= self._history.next_seq:
            raise ValueError(
                f"feedback tells of packets {first_seq} to {last_seq}, but only packets 0 to "
                f"{self._history.next_seq - 1} were sent; on_packet_sent comes first."
            )
        if len(arrivals) == 0:
            return
        send_history_note_arrivals(self._history, self._packets, first_seq, arrivals)
        first_kept = max(first_seq, int(self._history.next_seq) - len(self._packets))
        gcc_on_feedback(
            self._gcc, self._p, self._packets, first_kept, last_seq, self.in_flight_bytes, now_us
        )

    def on_rtt(self, rtt_us: int, now_us: int) -> None:
        """RTCP has measured a round-trip time."""
        gcc_on_rtt(self._gcc, self._p, rtt_us, now_us)

    def on_loss_report(self, lost_packets: int, received_packets: int, now_us: int) -> None:
        """An RTCP receiver report: packets lost and received since the last one."""
        gcc_on_loss_report(self._gcc, self._p, lost_packets, received_packets, now_us)

    def on_constraints(
        self, min_rate_bps: int, start_rate_bps: int, max_rate_bps: int, now_us: int
    ) -> None:
        """New bounds; 0 or less for no new start rate, and for no maximum."""
        gcc_on_constraints(self._gcc, self._p, min_rate_bps, start_rate_bps, max_rate_bps, now_us)

    def on_streams_config(
        self,
        *,
        alr_probing: bool,
        max_total_allocated_bps: int,
        max_padding_rate_bps: int,
        pacing_factor: float,
        now_us: int,
    ) -> None:
        """What the application's streams ask for; the parameters of the same names at the start."""
        gcc_on_streams_config(
            self._gcc,
            self._p,
            bool(alr_probing),
            max_total_allocated_bps,
            max_padding_rate_bps,
            float(pacing_factor),
            now_us,
        )

    def set_parameters(self, parameters: GccParameters, now_us: int) -> None:
        """Go on with other constants; what has been estimated so far stays.

        Values act where they are read next, a threshold at the next report. What the streams ask
        for is told anew, as the parameters say it: an `on_streams_config` before is forgotten.

        Raises:
            ConfigError: a parameter of `bwe_env.sender_settings.FIXED_IN_CALL` differs from the one
                that is in force; nothing has changed then.
        """
        in_force = SenderSettings(gcc=self.parameters)
        in_force.check_reachable("set_parameters", SenderSettings(gcc=parameters))
        self.parameters = parameters
        fill_gcc_parameters(self._p, parameters)
        self.on_streams_config(
            alr_probing=parameters.alr_probing,
            max_total_allocated_bps=parameters.max_total_allocated_bps,
            max_padding_rate_bps=parameters.max_padding_rate_bps,
            pacing_factor=parameters.pacing_factor,
            now_us=now_us,
        )

    def take_probes(self) -> list[ProbeCluster]:
        """Clusters requested since the last call."""
        names = PROBE_FIELDS
        rows = self._gcc.probes[: int(self._gcc.num_probes)]
        self._gcc.num_probes = 0
        return [ProbeCluster(*(int(row[name]) for name in names)) for row in rows]

    @property
    def target_rate_bps(self) -> int:
        """What may be sent, all streams together."""
        return int(self._gcc.target_rate_bps)

    @property
    def pacing_rate_bps(self) -> int:
        """How fast packets may leave."""
        return int(self._gcc.pacing_rate_bps)

    @property
    def padding_rate_bps(self) -> int:
        """Up to which rate to fill with padding."""
        return int(self._gcc.padding_rate_bps)

    @property
    def cwnd_bytes(self) -> int:
        """Window of bytes in flight, 0 before the first feedback."""
        return int(self._gcc.cwnd_bytes)

    @property
    def cwnd_reduce_ratio(self) -> float:
        """Share of the target by which the encoder should send less because the window is full."""
        return float(self._gcc.cwnd_reduce_ratio)

    @property
    def in_flight_bytes(self) -> int:
        """Sent and not yet reported, as libwebrtc counts it."""
        return int(self._history.in_flight_bytes)

    @property
    def state(self) -> Record:
        """The controller's record (dtype `bwe_env.gcc.state.GCC`), for looking inside."""
        return self._gcc

    @property
    def parameter_record(self) -> Record:
        """The constants as the kernels read them (`bwe_env.gcc.parameters.GCC_PARAMETERS`)."""
        return self._p


#: Fields of a row of `gcc.probes`, in the order of `ProbeCluster`.
PROBE_FIELDS = ("id", "target_rate_bps", "min_duration_us", "min_delta_us", "min_packets")

"""Network targeting behind the estimator door: for a sender with a socket instead of a simulator.

What the simulator does in a call that is played with `run_calls(…, "gcc", targeting=…)` is done
here from outside: GCC is driven, telemetry gathered, and the same `SettingsPolicy` changes
parameters and scales the target.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.estimator import RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.gcc.goog_cc import DEFAULT_RING_PACKETS, PROCESS_INTERVAL_US, GoogCc
from bwe_env.gcc.rates import INFINITE_RATE
from bwe_env.network_features import BIN_S
from bwe_env.sender_settings import SenderSettings
from bwe_env.sim._jit import NEVER
from bwe_env.targeting import SettingsPolicy
from bwe_env.telemetry import TelemetryRecorder
from bwe_env.units import s_to_us

_BIN_US = s_to_us(BIN_S)


class TargetedGcc:
    """A sender-side `BandwidthEstimator`: GCC, and targeting that follows its call.

    Tell it of every packet and every report, and call `on_timeout` at `next_timeout_us`; what these
    return is to be done. RTCP, where there is any, goes to `on_rtt` and `on_loss_report`. GCC's
    requests for probes wait in ``controller.take_probes()``, the share of frames to drop is
    ``controller.cwnd_reduce_ratio``. Times are the sender's clock in microseconds and never fall.

    A bin of telemetry holds what happens at its end. So it is over when anything is told of a later
    time, its timer is due a microsecond after it, and a timer that goes off late changes no bin.
    """

    def __init__(
        self,
        targeting: SettingsPolicy,
        *,
        min_rate_bps: int = 30_000,
        start_rate_bps: int = 300_000,
        max_rate_bps: int = 0,
        ring_packets: int = DEFAULT_RING_PACKETS,
        now_us: int = 0,
    ) -> None:
        """The call begins now, under the first of the policy's settings.

        Args:
            targeting: for this call alone, as from `agents.targeting.load_targeting`.
            min_rate_bps: no decision goes below.
            max_rate_bps: nor above; 0 for no maximum.
            ring_packets: packets remembered while their feedback is out; a power of two.

        Raises:
            ConfigError: a rate or `ring_packets` that `GoogCc` refuses, or settings that a running
                call cannot go over to.
        """
        start = targeting.settings[0]
        for number, settings in enumerate(targeting.settings):
            start.check_reachable(f"number {number} of targeting's settings", settings)
        targeting.reset(1)
        self.targeting = targeting
        self.controller = GoogCc(
            parameters=start.gcc,
            min_rate_bps=min_rate_bps,
            start_rate_bps=start_rate_bps,
            max_rate_bps=max_rate_bps if start.gcc.knows_max_rate else 0,
            ring_packets=ring_packets,
            now_us=now_us,
        )
        self.controller.on_network_availability(True, now_us)
        self._recorder = TelemetryRecorder(ring_packets=ring_packets)
        self._min_rate_bps = min_rate_bps
        self._max_rate_bps = max_rate_bps if max_rate_bps > 0 else INFINITE_RATE
        self._target_rate_bps = float(start_rate_bps)  # last decided
        self._choice = 0
        self._rate_scale = 1.0
        self._first_seq = 0
        self._sent_packets = 0
        self._start_us = now_us
        self._next_process_us = now_us + PROCESS_INTERVAL_US
        self._bin_end_us = now_us + _BIN_US
        self._unanswered_us = self._bin_end_us  # end of the first bin that no decision followed

    @property
    def settings(self) -> SenderSettings:
        """Those in force; all but `gcc` (parity, repeats, audio, pacer) is left to the sender."""
        return self.targeting.settings[self._choice]

    @property
    def rate_scale(self) -> float:
        """The factor on GCC's target in force; decisions are scaled by it already."""
        return self._rate_scale

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """A packet has left.

        Raises:
            ConfigError: its number does not follow the last one's; any number may be the first.
        """
        self._end_bins(now_us)
        if self._sent_packets == 0:
            self._first_seq = packet.seq
        expected = self._first_seq + self._sent_packets
        if packet.seq != expected:
            raise ConfigError(
                f"packet {packet.seq} came after packet {expected - 1}: tell of every packet with "
                "a transport-wide number once and in order, with numbers that do not wrap."
            )
        self._sent_packets += 1
        cluster = packet.probe_cluster
        self.controller.on_packet_sent(packet.size_bytes, now_us, probe_cluster=cluster)
        self._recorder.on_packet_sent(packet.size_bytes, now_us)

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """A report has arrived.

        Raises:
            ValueError: it tells of packets that were not sent.
        """
        self._end_bins(now_us)
        if report.packets:
            first_seq, arrivals_us = _arrivals(report)
            first_seq -= self._first_seq
            self.controller.on_feedback(first_seq, arrivals_us, now_us)
            self._recorder.on_feedback(first_seq, arrivals_us, now_us)
        return self._decide()

    def on_timeout(self, now_us: int) -> RateDecision:
        """`next_timeout_us` has come."""
        self._end_bins(now_us)
        if now_us >= self._next_process_us:
            self.controller.on_process_interval(now_us)
            self._next_process_us = now_us + PROCESS_INTERVAL_US
        return self._decide()

    def next_timeout_us(self) -> int:
        """When GCC wants to look at the state of things, or a bin is over."""
        return min(self._next_process_us, self._unanswered_us + 1)

    def on_rtt(self, rtt_us: int, now_us: int) -> None:
        """RTCP has measured a round-trip time; GCC assumes `default_rtt_s` before."""
        self._end_bins(now_us)
        self.controller.on_rtt(rtt_us, now_us)

    def on_loss_report(self, lost_packets: int, received_packets: int, now_us: int) -> None:
        """An RTCP receiver report: packets lost and received since the last one."""
        self._end_bins(now_us)
        self.controller.on_loss_report(lost_packets, received_packets, now_us)

    def _end_bins(self, now_us: int) -> None:
        """End the bins that lie before now, and let targeting decide after each."""
        while self._bin_end_us < now_us:
            telemetry = self._recorder.end_bin(
                self._bin_end_us - self._start_us, target_rate_bps=self._target_rate_bps
            )
            choices, scales = self.targeting.update(telemetry, np.ones(1, dtype=np.bool_))
            self._rate_scale = float(scales[0])
            if choices[0] != self._choice:
                self._choice = int(choices[0])
                self.controller.set_parameters(self.settings.gcc, now_us)
            self._bin_end_us += _BIN_US

    def _decide(self) -> RateDecision:
        """What GCC says, scaled; see `bwe_env.sim.decision.follow_gcc`.

        There is no window in it: GCC's goes to its pushback alone, which lowers the target or has
        frames dropped (`current_data_window_` in GCC/goog_cc_network_control.cc).
        """
        controller = self.controller
        self._unanswered_us = self._bin_end_us
        target_bps = int(self._rate_scale * controller.target_rate_bps + 0.5)
        target_bps = min(self._max_rate_bps, max(self._min_rate_bps, target_bps))
        pacing_bps = controller.pacing_rate_bps
        if self._rate_scale != 1.0:
            pacing_bps = int(self.settings.gcc.pacing_factor * target_bps + 0.5)
        self._target_rate_bps = float(target_bps)
        return RateDecision(
            target_rate_bps=target_bps,
            pacing_rate_bps=pacing_bps,
            padding_rate_bps=controller.padding_rate_bps,
        )


def _arrivals(report: FeedbackReport) -> tuple[int, NDArray[np.int64]]:
    """First number a report tells of, and arrivals from there on, `NEVER` for those missing.

    What is left out between them was told of as received before, where `NEVER` changes nothing.
    """
    first_seq = report.packets[0].sent.seq
    arrivals_us = np.full(report.packets[-1].sent.seq - first_seq + 1, NEVER)
    for result in report.packets:
        if result.arrival_time_us is not None:
            arrivals_us[result.sent.seq - first_seq] = result.arrival_time_us
    return first_seq, arrivals_us

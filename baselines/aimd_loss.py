"""Loss alone: the older half of Google congestion control, without its delay-based half.

The rules of draft-ietf-rmcat-gcc-02 section 6: below 2 % loss the rate grows, up to 10 % it holds,
above it falls by half the loss. As the 2 % and 10 % leave room for loss that is not congestion, it
fills the queue of every link until 2 to 10 % of all packets are dropped, and stays there: a
baseline for what delay signals are worth. `bwe_env.gcc.loss_based_classic` is libwebrtc's compiled
version, which acts in GCC and bounds its delay-based half.

Known deviations from the draft:

- The increase is libwebrtc's 8 % per second (1.08 in UpdateEstimate,
  send_side_bandwidth_estimation.cc), where the draft has 5 % per report.
- "Since the previous report" is a second, as with RTCP; transport-wide reports, of which there are
  up to twenty in a second, are gathered. A report of ten packets would know no 2 %.
- The delay-based estimate that the draft takes the minimum with is left out on purpose.
- Silence, of which the draft says nothing, halves the rate as in RFC 5348 section 4.4
  (`baselines.report_reading`).
"""

from __future__ import annotations

from baselines.report_reading import NO_FEEDBACK_FACTOR, ReportReader
from bwe_env.config import CallConfig
from bwe_env.estimator import RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.units import US_PER_S

#: Loss ratios between which the rate holds. draft-ietf-rmcat-gcc-02 section 6.
LOW_LOSS_RATIO = 0.02
HIGH_LOSS_RATIO = 0.10
#: Growth per update of a second. libwebrtc M150, GCC/send_side_bandwidth_estimation.cc.
INCREASE_FACTOR = 1.08
#: Share of the loss ratio that the rate falls by. draft-ietf-rmcat-gcc-02 section 6.
DECREASE_SHARE = 0.5
#: Time between updates: that of RTCP reports, `FeedbackConfig.rtcp_interval_s`.
UPDATE_INTERVAL_US = US_PER_S


def loss_based_rate_bps(rate_bps: float, loss_ratio: float) -> float:
    """As_hat(i) from As_hat(i - 1); not clipped.

    Args:
        loss_ratio: lost / expected packets since the last update, 0 … 1.
    """
    if loss_ratio < LOW_LOSS_RATIO:
        return INCREASE_FACTOR * rate_bps
    if loss_ratio <= HIGH_LOSS_RATIO:
        return rate_bps
    return (1.0 - DECREASE_SHARE * loss_ratio) * rate_bps


class AimdLoss:
    """A sender-side `BandwidthEstimator` that knows nothing but loss.

    Args:
        call: its minimum, start and maximum rate.
    """

    def __init__(self, *, call: CallConfig) -> None:
        self._min_rate_bps = float(call.min_rate_bps)
        self._max_rate_bps = float(call.max_rate_bps)
        self._rate_bps = float(call.start_rate_bps)  # As_hat
        self._lost_packets = 0
        self._expected_packets = 0
        self._built_us: int | None = None  # receiver's clock at the last update
        self._reader = ReportReader()

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """A packet has left."""
        self._reader.newest_sent_seq = packet.seq

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """A report has arrived; it counts with the others of its second."""
        newest_seq = self._reader.newest_reported_seq
        for result in report.packets:
            if result.sent.seq > newest_seq:
                self._expected_packets += 1
                self._lost_packets += result.arrival_time_us is None
            elif result.arrival_time_us is not None:  # late after all, RFC 3550 appendix A.3
                self._lost_packets -= 1
        self._reader.first_verdicts(report)
        self._reader.restart_timer(0.0, now_us)
        if self._built_us is None:
            self._built_us = report.built_us
        elif report.built_us - self._built_us >= UPDATE_INTERVAL_US and self._expected_packets > 0:
            loss_ratio = max(0, self._lost_packets) / self._expected_packets
            self._set_rate(loss_based_rate_bps(self._rate_bps, loss_ratio))
            self._lost_packets = self._expected_packets = 0
            self._built_us = report.built_us
        return RateDecision(target_rate_bps=self._rate_bps)

    def on_timeout(self, now_us: int) -> RateDecision:
        """Reports have stayed away: halve the rate, unless nothing is out."""
        if self._reader.is_silent(now_us):
            self._set_rate(NO_FEEDBACK_FACTOR * self._rate_bps)
        self._reader.restart_timer(0.0, now_us)
        return RateDecision(target_rate_bps=self._rate_bps)

    def next_timeout_us(self) -> int:
        """When silence will have lasted too long."""
        return self._reader.timer_us

    def _set_rate(self, rate_bps: float) -> None:
        self._rate_bps = max(self._min_rate_bps, min(self._max_rate_bps, rate_bps))

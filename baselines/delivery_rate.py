"""How fast the path delivers: rate samples of draft-ietf-ccwg-bbr-05 §4.1, from reports.

The algorithm was first written down in draft-cheng-iccrg-delivery-rate-estimation. Each packet
keeps what had been delivered when it left; its acknowledgement gives a rate over the time between.

Differences to the draft:

- The receiver says when each packet arrived, so acknowledgements are counted at those times, not
  when the report came: reports of 50 to 250 ms would make coarse samples, and jitter on the way
  back fast ones. Arrivals are moved to the sender's clock by the least time from an arrival to its
  report's coming, so that all times here are of one clock.
- A packet is lost when a report first tells of it as missing; if it comes after all, it is counted
  as delivered and no longer as lost (the draft leaves detection to the transport).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bwe_env.feedback import FeedbackReport
from bwe_env.units import BITS_PER_BYTE, US_PER_S

#: Packets that are remembered beyond the newest one a report told of. Ours: some seconds.
REORDERING_PACKETS = 2_000


@dataclass(slots=True)
class LostPacket:
    """A packet that a report tells of as missing for the first time."""

    seq: int
    size_bytes: int
    tx_in_flight_bytes: int
    """in flight right after it was sent, itself included"""
    lost_bytes: int
    """lost since it was sent, itself included (RS.lost of BBRHandleLostPacket)"""
    is_app_limited: bool


@dataclass(slots=True)
class RateSample:
    """RS of the draft §2.2: what one report says about the path."""

    newly_acked_bytes: int = 0
    rtt_us: int = -1
    """of the newest packet acknowledged; -1 for none"""
    delivery_rate_bps: float = 0.0
    """0 for no reliable sample"""
    is_app_limited: bool = False
    delivered_bytes: int = 0
    """between the sending of the newest packet acknowledged and its acknowledgement"""
    prior_delivered_bytes: int = 0
    """delivered in the whole call when the newest packet acknowledged was sent"""
    tx_in_flight_bytes: int = 0
    """in flight right after the newest packet acknowledged was sent"""
    lost_bytes: int = 0
    """lost since the newest packet acknowledged was sent"""
    losses: list[LostPacket] = field(default_factory=list)


def delivery_rate_bps(delivered_bytes: int, send_elapsed_us: float, ack_elapsed_us: float) -> float:
    """§4.1.1.2.4: the slower of send rate and ACK rate; 0 without elapsed time."""
    interval_us = max(send_elapsed_us, ack_elapsed_us)
    if interval_us <= 0:
        return 0.0
    return BITS_PER_BYTE * US_PER_S * delivered_bytes / interval_us


class DeliveryRateSampler:
    """C of the draft §4.1.2.1: a connection's delivery, and what its packets took with them.

    Attributes:
        delivered_bytes: C.delivered.
        lost_bytes: C.lost.
        is_app_limited: whether C.app_limited is set.
    """

    def __init__(self) -> None:
        self.delivered_bytes = 0
        self.lost_bytes = 0
        self._app_limited_until = 0  # C.app_limited, 0 for not limited
        self._delivered_us = 0.0  # C.delivered_time
        self._first_send_us = 0  # C.first_send_time
        self._newest_acked = -1
        self._return_us: int | None = None  # least time from an arrival to its report's coming
        # By number: time, size, C.delivered, C.delivered_time, C.first_send_time, is_app_limited,
        # tx_in_flight, C.lost, each as it was when the packet left. A tuple, because there are
        # hundreds per second.
        self._packets: dict[int, tuple[int, int, int, float, int, bool, int, int]] = {}
        self._missing: set[int] = set()
        self._oldest = 0

    @property
    def is_app_limited(self) -> bool:
        """Whether samples of packets that leave now may tell too little."""
        return self._app_limited_until > 0

    def mark_app_limited(self, bytes_in_flight: int) -> None:
        """§4.1.2.4, MarkConnectionAppLimited."""
        self._app_limited_until = max(self.delivered_bytes + bytes_in_flight, 1)

    def on_sent(self, seq: int, size_bytes: int, send_time_us: int, bytes_in_flight: int) -> None:
        """§4.1.2.2: a packet leaves; `bytes_in_flight` counts it."""
        if bytes_in_flight == size_bytes:  # nothing else is on its way
            self._first_send_us = send_time_us
            self._delivered_us = send_time_us
        self._packets[seq] = (
            send_time_us,
            size_bytes,
            self.delivered_bytes,
            self._delivered_us,
            self._first_send_us,
            self._app_limited_until > 0,
            bytes_in_flight,
            self.lost_bytes,
        )

    def on_report(self, report: FeedbackReport, now_us: int, min_rtt_us: float) -> RateSample:
        """§4.1.2.3: what the report says, `min_rtt_us` being the least interval that is trusted."""
        sample = RateSample()
        newest: tuple[int, int, int, float, int, bool, int, int] | None = None
        newest_arrival_us = 0
        for result in report.packets:
            seq = result.sent.seq
            if result.arrival_time_us is None:
                self._on_missing(seq, sample)
                continue
            packet = self._packets.pop(seq, None)
            if packet is None:
                continue
            sample.newly_acked_bytes += packet[1]
            if seq in self._missing:
                self._missing.discard(seq)
                self.lost_bytes -= packet[1]
            if seq > self._newest_acked:
                self._newest_acked = seq
                newest = packet
                newest_arrival_us = result.arrival_time_us
        self.delivered_bytes += sample.newly_acked_bytes
        self._forget_old()
        if 0 < self._app_limited_until < self.delivered_bytes:
            self._app_limited_until = 0
        if newest is not None:
            self._fill(sample, newest, newest_arrival_us, now_us, min_rtt_us)
        return sample

    def _fill(
        self,
        sample: RateSample,
        packet: tuple[int, int, int, float, int, bool, int, int],
        arrival_us: int,
        now_us: int,
        min_rtt_us: float,
    ) -> None:
        """UpdateRateSample of the newest packet, and GenerateRateSample."""
        send_us, _, prior, prior_us, first_send_us, is_app_limited, in_flight, lost = packet
        back_us = now_us - arrival_us
        self._return_us = back_us if self._return_us is None else min(self._return_us, back_us)
        self._delivered_us = max(self._delivered_us, arrival_us + self._return_us)
        self._first_send_us = send_us
        sample.rtt_us = now_us - send_us
        sample.is_app_limited = is_app_limited
        sample.prior_delivered_bytes = prior
        sample.tx_in_flight_bytes = in_flight
        sample.lost_bytes = self.lost_bytes - lost
        sample.delivered_bytes = self.delivered_bytes - prior
        send_elapsed_us = send_us - first_send_us
        ack_elapsed_us = self._delivered_us - prior_us
        # An interval shorter than the least round trip is no whole flight.
        if max(send_elapsed_us, ack_elapsed_us) >= min_rtt_us:
            sample.delivery_rate_bps = delivery_rate_bps(
                sample.delivered_bytes, send_elapsed_us, ack_elapsed_us
            )

    def _on_missing(self, seq: int, sample: RateSample) -> None:
        packet = self._packets.get(seq)
        if packet is None or seq in self._missing:
            return
        self._missing.add(seq)
        self.lost_bytes += packet[1]
        sample.losses.append(
            LostPacket(seq, packet[1], packet[6], self.lost_bytes - packet[7], packet[5])
        )

    def _forget_old(self) -> None:
        """Let go of packets that will not come any more."""
        while self._oldest < self._newest_acked - REORDERING_PACKETS:
            self._packets.pop(self._oldest, None)
            self._missing.discard(self._oldest)
            self._oldest += 1

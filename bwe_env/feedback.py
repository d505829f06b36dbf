"""What a real sender is told: the packets it sent and the reports that come back.

Plain values without arrays or simulator types, so that a log reader or a socket can make them, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What a packet carries; retransmissions and FEC repair video.
PacketKind = Literal["video", "audio", "retransmission", "padding", "fec"]


@dataclass(frozen=True, slots=True)
class SentPacket:
    """A packet handed to the network."""

    seq: int
    """transport-wide sequence number, unwrapped"""
    send_time_us: int
    size_bytes: int
    """on the wire, IP and UDP headers included"""
    probe_cluster: int = -1
    """id of the probe cluster it belongs to, -1 for none"""
    kind: PacketKind = "video"


@dataclass(frozen=True, slots=True)
class PacketResult:
    """What a report says about one packet."""

    sent: SentPacket
    arrival_time_us: int | None
    """on the receiver's clock; None while it is missing"""


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """One transport-wide feedback report, or (receiver-side) one interval of arrivals."""

    built_us: int
    """when the receiver built it, on its clock"""
    packets: tuple[PacketResult, ...]
    """in order of sequence number; packets reported as received before are left out, one reported
    as missing may come in a later report, missing again or received after all"""
    bytes_in_flight: int
    """after this report: sent, and newer than every packet that a report mentioned"""

    @property
    def received(self) -> tuple[PacketResult, ...]:
        """Those that arrived."""
        return tuple(p for p in self.packets if p.arrival_time_us is not None)

    @property
    def loss_ratio(self) -> float:
        """Missing packets over packets reported; 0 for an empty report."""
        if not self.packets:
            return 0.0
        return 1.0 - len(self.received) / len(self.packets)

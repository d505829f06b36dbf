"""RTCP packets, as much as bandwidth estimation needs: reports and transport-wide feedback.

RFC 3550 §6.4 (sender and receiver reports), RFC 4585 §6.1 (feedback messages) and
draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1 (transport-wide feedback).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bwe_env.logs.wire import Span

_VERSION = 2
_HEADER_BYTES = 4
_REPORT_BLOCK_BYTES = 24
SENDER_REPORT, RECEIVER_REPORT, TRANSPORT_FEEDBACK = 200, 201, 205
#: Feedback message type of transport-wide feedback (draft-holmer §3.1).
TRANSPORT_WIDE_CC = 15
#: Sender's fields before the report blocks: ssrc, NTP time, RTP time, packet and byte counts.
_SENDER_INFO_BYTES = 24

#: Unit of the reference time of transport-wide feedback, and of its receive deltas.
REFERENCE_TIME_US = 64_000
DELTA_US = 250
#: The reference time is a 24-bit number.
REFERENCE_TIME_PERIOD_US = (1 << 24) * REFERENCE_TIME_US

_NOT_RECEIVED, _SMALL_DELTA, _LARGE_DELTA = 0, 1, 2
_MISSING = -1


@dataclass(frozen=True)
class ReportBlock:
    """What a receiver tells of one stream (RFC 3550 §6.4.1)."""

    ssrc: int
    fraction_lost_q8: int
    """of the packets since the last report, in 1/256"""
    cumulative_lost: int
    highest_seq: int
    """extended: upper 16 bits count wrap-arounds"""
    last_sr_compact_ntp: int
    """middle 32 bits of the NTP time in the last sender report it saw, 0 for none"""
    delay_since_sr_compact_ntp: int
    """since it came, in 1/65536 s"""


@dataclass(frozen=True)
class SenderReport:
    """NTP time at which a sender made a report (RFC 3550 §6.4.1)."""

    ssrc: int
    ntp: int
    """64 bits: seconds since 1900 and their fraction"""


@dataclass(frozen=True)
class TransportFeedback:
    """One report of transport-wide feedback."""

    first_seq: int
    """16 bits, of the first packet it tells of"""
    feedback_count: int
    """8 bits, counts reports"""
    reference_us: int
    """`reference time` of the report, wraps at `REFERENCE_TIME_PERIOD_US`"""
    has_arrived: NDArray[np.bool_]
    """shape (n,)"""
    arrival_us: NDArray[np.int64]
    """shape (n,), after `reference_us`; 0 where not arrived"""


@dataclass(frozen=True)
class CompoundPacket:
    """What one RTCP packet holds of interest."""

    sender_reports: tuple[SenderReport, ...]
    report_blocks: tuple[ReportBlock, ...]
    feedback: tuple[TransportFeedback, ...]


def _number(data: bytes, begin: int, size: int) -> int:
    return int.from_bytes(data[begin : begin + size], "big")


def _statuses(data: bytes, num_packets: int) -> tuple[list[int], int]:
    """Status of each packet, and the position after the status chunks; -1 if they do not fit."""
    statuses: list[int] = []
    offset = 8
    while len(statuses) < num_packets:
        if offset + 2 > len(data):
            return statuses, _MISSING
        chunk = _number(data, offset, 2)
        offset += 2
        if chunk >> 15 == 0:  # run length: 2 bits of status, 13 bits of length
            statuses += [chunk >> 13 & 3] * (chunk & 0x1FFF)
        elif chunk >> 14 & 1 == 0:  # vector of 14 one-bit statuses
            statuses += [chunk >> shift & 1 for shift in range(13, -1, -1)]
        else:  # vector of 7 two-bit statuses
            statuses += [chunk >> shift & 3 for shift in range(12, -1, -2)]
    return statuses[:num_packets], offset


def parse_transport_feedback(body: Span) -> TransportFeedback:
    """Transport-wide feedback after its 12 bytes of header and ssrcs.

    Args:
        body: base sequence number (2 bytes), packet count (2), reference time (3), feedback count
            (1), status chunks (2 each), receive deltas (1 or 2 each), padding.
    """
    data = body.content
    if len(data) < 8:
        raise body.error(body.begin, f"feedback of {len(data)} bytes is shorter than its header.")
    num_packets = _number(data, 2, 2)
    statuses, offset = _statuses(data, num_packets)
    sizes = {_NOT_RECEIVED: 0, _SMALL_DELTA: 1, _LARGE_DELTA: 2}
    arrivals_us = np.zeros(num_packets, np.int64)
    arrival_us = 0
    for index, status in enumerate(statuses if offset >= 0 else ()):
        if status not in sizes:
            raise body.error(body.begin + offset, f"packet status {status} is reserved.")
        size = sizes[status]
        if offset + size > len(data):
            offset = _MISSING
            break
        if size:
            delta = int.from_bytes(data[offset : offset + size], "big", signed=size == 2)
            arrival_us += delta * DELTA_US
            arrivals_us[index] = arrival_us
            offset += size
    if offset < 0:
        raise body.error(
            body.begin, f"feedback of {len(data)} bytes ends before its {num_packets} packets do."
        )
    return TransportFeedback(
        first_seq=_number(data, 0, 2),
        feedback_count=data[7],
        reference_us=_number(data, 4, 3) * REFERENCE_TIME_US,
        has_arrived=np.array(statuses, np.int64) != _NOT_RECEIVED,
        arrival_us=arrivals_us,
    )


def _report_blocks(packet: Span, begin: int, count: int) -> list[ReportBlock]:
    blocks = []
    for index in range(count):
        part = packet.part(begin + index * _REPORT_BLOCK_BYTES, _REPORT_BLOCK_BYTES, "a report")
        data = part.content
        blocks.append(
            ReportBlock(
                ssrc=_number(data, 0, 4),
                fraction_lost_q8=data[4],
                cumulative_lost=int.from_bytes(data[5:8], "big", signed=True),
                highest_seq=_number(data, 8, 4),
                last_sr_compact_ntp=_number(data, 16, 4),
                delay_since_sr_compact_ntp=_number(data, 20, 4),
            )
        )
    return blocks


def _packets(compound: Span) -> list[tuple[int, int, Span]]:
    """(packet type, five bits of count or message type, packet) of a compound packet."""
    packets = []
    offset = compound.begin
    while offset < compound.end:
        header = compound.part(offset, _HEADER_BYTES, "an RTCP header").content
        if header[0] >> 6 != _VERSION:
            raise compound.error(offset, f"RTCP version {header[0] >> 6} instead of {_VERSION}.")
        size = 4 * (_number(header, 2, 2) + 1)
        packet = compound.part(offset, size, "an RTCP packet")
        if header[0] & 0x20:  # padding: its length is the last byte
            padding = packet.content[-1]
            if padding > size - _HEADER_BYTES:
                raise compound.error(offset, f"{padding} bytes of padding in a packet of {size}.")
            packet = compound.part(offset, size - padding, "an RTCP packet")
        packets.append((header[1], header[0] & 0x1F, packet))
        offset += size
    return packets


def parse_rtcp(compound: Span) -> CompoundPacket:
    """Read a compound packet; kinds that are of no interest here are skipped."""
    reports: list[SenderReport] = []
    blocks: list[ReportBlock] = []
    feedback: list[TransportFeedback] = []
    for kind, count, packet in _packets(compound):
        body = packet.begin + _HEADER_BYTES
        if kind == SENDER_REPORT:
            info = packet.part(body, _SENDER_INFO_BYTES, "sender information").content
            reports.append(SenderReport(ssrc=_number(info, 0, 4), ntp=_number(info, 4, 8)))
            blocks += _report_blocks(packet, body + _SENDER_INFO_BYTES, count)
        elif kind == RECEIVER_REPORT:
            blocks += _report_blocks(packet, body + 4, count)
        elif kind == TRANSPORT_FEEDBACK and count == TRANSPORT_WIDE_CC:
            packet.part(body, 8, "two ssrcs")
            feedback.append(
                parse_transport_feedback(Span(packet.data, body + 8, packet.end, packet.source))
            )
    return CompoundPacket(tuple(reports), tuple(blocks), tuple(feedback))

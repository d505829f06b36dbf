"""What the sender remembers of its packets, and what a feedback report adds to it.

Follows libwebrtc's `modules/congestion_controller/rtp/transport_feedback_adapter.cc`: a packet
counts as in flight from its sending until a report mentions it or a newer one; a packet reported
as received is never told of twice; one reported as lost may be reported again.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.packet import (
    REPORT_LOST,
    REPORT_LOST_AGAIN,
    REPORT_NONE,
    REPORT_RECEIVED,
    REPORT_RECEIVED_NOW,
)

SEND_HISTORY = record(
    [
        ("next_seq", "i8"),  # transport-wide sequence number of the next packet, unwrapped
        ("acked_seq", "i8"),  # highest sequence number any report mentioned, -1 for none
        ("in_flight_bytes", "i8"),
        ("expired_packets", "i8"),  # overwritten in the ring before a report told of them
    ]
)


@kernel
def send_history_reset(history: Record) -> None:
    """Nothing sent yet."""
    history.next_seq = 0
    history.acked_seq = -1
    history.in_flight_bytes = 0
    history.expired_packets = 0


@kernel
def send_history_add(history: Record, packets: np.ndarray, size_bytes: int) -> int:
    """Claim the ring row of the next packet and count its bytes as in flight.

    The row that is overwritten may still wait for its report (during a long outage of the reverse
    path); it then leaves the history as unreported, as libwebrtc forgets packets after 60 s.

    Returns:
        The packet's sequence number; the caller fills the rest of row ``seq & (len(ring) - 1)``.
    """
    seq = history.next_seq
    row = packets[seq & (len(packets) - 1)]
    expired = seq - len(packets)
    if expired > history.acked_seq and expired >= 0:
        history.in_flight_bytes -= row.size_bytes
        history.acked_seq = expired
        history.expired_packets += 1
    history.next_seq = seq + 1
    history.in_flight_bytes += size_bytes
    row.size_bytes = size_bytes
    row.report_state = REPORT_NONE
    return seq


@kernel
def send_history_report(
    history: Record, packets: np.ndarray, first_seq: int, last_seq: int, received_by_us: int
) -> None:
    """Mark every row of a report before anyone reads it.

    Afterwards the rows ``first_seq..last_seq`` are `REPORT_RECEIVED_NOW` (first told of now),
    `REPORT_LOST` (first told of as missing), `REPORT_LOST_AGAIN` (as missing before, too), or
    `REPORT_RECEIVED` (told of before, to be skipped).

    Args:
        received_by_us: when the receiver built the report; what arrived later is missing in it.
    """
    mask = len(packets) - 1
    for seq in range(history.acked_seq + 1, last_seq + 1):
        history.in_flight_bytes -= packets[seq & mask].size_bytes
    history.acked_seq = max(history.acked_seq, last_seq)
    oldest = history.next_seq - len(packets)
    for seq in range(max(first_seq, oldest), last_seq + 1):
        row = packets[seq & mask]
        state = row.report_state
        if state == REPORT_RECEIVED_NOW:
            row.report_state = REPORT_RECEIVED
        elif state != REPORT_RECEIVED:
            if row.arrival_us <= received_by_us:
                row.report_state = REPORT_RECEIVED_NOW
            elif state == REPORT_NONE:
                row.report_state = REPORT_LOST
            else:
                row.report_state = REPORT_LOST_AGAIN


@kernel
def is_told_lost(packet: Record) -> bool:
    """Whether the report being processed tells of a packet as missing."""
    state = packet.report_state
    return bool(state == REPORT_LOST or state == REPORT_LOST_AGAIN)


@kernel
def first_reportable_seq(history: Record, packets: np.ndarray, first_seq: int) -> int:
    """`first_seq` of a report, or the oldest row that the ring still holds if that is newer."""
    return max(first_seq, history.next_seq - len(packets))


@kernel
def send_history_note_arrivals(
    history: Record, packets: np.ndarray, first_seq: int, arrivals_us: np.ndarray
) -> None:
    """Write what a report says into the ring and mark its rows."""
    mask = len(packets) - 1
    last_seq = first_seq + len(arrivals_us) - 1
    for seq in range(first_reportable_seq(history, packets, first_seq), last_seq + 1):
        packet = packets[seq & mask]
        packet.arrival_us = min(packet.arrival_us, arrivals_us[seq - first_seq])
    send_history_report(history, packets, first_seq, last_seq, NEVER - 1)

"""The acknowledged rate from a window of received packets, robust to delay spikes.

Follows GCC/robust_throughput_estimator.cc of libwebrtc M150, which scans the whole window at every
report. Here sums and the two largest receive gaps are kept up to date as packets come and go, and
the window is scanned (`_refresh`) only where that is not possible: after a packet that arrived or
was sent out of order, and when one of the two gaps leaves the window. `throughput_scan` is the
definition; the tests hold the two against each other.
"""

from __future__ import annotations

from bwe_env.gcc.parameters import MAX_THROUGHPUT_PACKETS
from bwe_env.gcc.rates import NO_RATE, rate_of
from bwe_env.sim._jit import NEVER, Record, kernel, record

#: Rows of the ring: the next power of two above `MAX_THROUGHPUT_PACKETS`, one more than it holds.
_RING = 512
_MASK = _RING - 1

#: Shortest duration a rate is taken over (RobustThroughputEstimator::bitrate).
_MIN_DURATION_US = 1_000

assert MAX_THROUGHPUT_PACKETS < _RING

RECEIVED_PACKET = record(
    [
        ("arrival_us", "i8"),
        ("send_us", "i8"),
        ("size_bytes", "i8"),
    ]
)

THROUGHPUT = record(
    [
        ("first", "i8"),  # positions, counted from the start: packet i is in row i % ring
        ("end", "i8"),
        ("discarded_send_us", "i8"),  # latest send time of a packet that left the window
        ("total_bytes", "i8"),
        ("largest_gap_us", "i8"),  # between consecutive arrivals
        ("largest_gap_at", "i8"),  # position of the packet after it
        ("second_gap_us", "i8"),
        ("second_gap_at", "i8"),
        ("disordered_until", "i8"),  # last position that broke the order of send times
        ("window", RECEIVED_PACKET, (_RING,)),  # in order of arrival
    ]
)


@kernel
def throughput_reset(estimator: Record) -> None:
    """Empty window."""
    estimator.first = 0
    estimator.end = 0
    estimator.discarded_send_us = -NEVER
    estimator.total_bytes = 0
    estimator.largest_gap_us = 0
    estimator.largest_gap_at = -1
    estimator.second_gap_us = 0
    estimator.second_gap_at = -1
    estimator.disordered_until = -1


@kernel
def _note_gap(estimator: Record, position: int) -> None:
    """Let the gap before the packet at `position` into the two largest; the newest of equals."""
    window = estimator.window
    gap_us = window[position & _MASK].arrival_us - window[(position - 1) & _MASK].arrival_us
    if gap_us >= estimator.largest_gap_us:
        estimator.second_gap_us = estimator.largest_gap_us
        estimator.second_gap_at = estimator.largest_gap_at
        estimator.largest_gap_us = gap_us
        estimator.largest_gap_at = position
    elif gap_us >= estimator.second_gap_us:
        estimator.second_gap_us = gap_us
        estimator.second_gap_at = position


@kernel
def _refresh_gaps(estimator: Record) -> None:
    """Find the two largest gaps anew."""
    estimator.largest_gap_us = 0
    estimator.largest_gap_at = estimator.end
    estimator.second_gap_us = 0
    estimator.second_gap_at = estimator.end
    for position in range(estimator.first + 1, estimator.end):
        _note_gap(estimator, position)


@kernel
def _is_oldest_outside(estimator: Record, p: Record) -> bool:
    """Whether the oldest packet of a window that is not empty has to leave."""
    count = estimator.end - estimator.first
    window = estimator.window
    newest = window[(estimator.end - 1) & _MASK]
    span_us = newest.arrival_us - window[estimator.first & _MASK].arrival_us
    return bool(
        count > p.throughput_max_packets
        or span_us > p.throughput_max_window_us
        or (count > p.throughput_window_packets and span_us > p.throughput_min_window_us)
    )


@kernel
def _discard_oldest(estimator: Record) -> None:
    packet = estimator.window[estimator.first & _MASK]
    estimator.discarded_send_us = max(estimator.discarded_send_us, packet.send_us)
    estimator.total_bytes -= packet.size_bytes
    estimator.first += 1


@kernel
def throughput_trim(estimator: Record, p: Record) -> None:
    """Let the packets go that are too many or too old; call once after a report's packets."""
    if estimator.end == estimator.first:
        return
    while estimator.end > estimator.first and _is_oldest_outside(estimator, p):
        _discard_oldest(estimator)
    if min(estimator.largest_gap_at, estimator.second_gap_at) <= estimator.first:
        _refresh_gaps(estimator)


@kernel
def _copy_row(window: Record, source: int, target: int) -> None:
    window[target & _MASK].arrival_us = window[source & _MASK].arrival_us
    window[target & _MASK].send_us = window[source & _MASK].send_us
    window[target & _MASK].size_bytes = window[source & _MASK].size_bytes


@kernel
def _insert_late(estimator: Record, arrival_us: int) -> int:
    """Make room for a packet that arrived before others of the window; returns its position."""
    window = estimator.window
    position = estimator.end - 1
    while position > estimator.first and arrival_us < window[(position - 1) & _MASK].arrival_us:
        _copy_row(window, position - 1, position)
        position -= 1
    estimator.disordered_until = estimator.end - 1
    return int(position)


@kernel
def throughput_add(
    estimator: Record, p: Record, arrival_us: int, send_us: int, size_bytes: int
) -> None:
    """Insert one received packet, keeping the window in order of arrival."""
    if estimator.end - estimator.first == _RING:  # a report of more packets than the ring holds
        _discard_oldest(estimator)
    window = estimator.window
    position = estimator.end
    is_first = position == estimator.first
    newest_us = arrival_us if is_first else window[(position - 1) & _MASK].arrival_us
    estimator.end = position + 1
    estimator.total_bytes += size_bytes
    if arrival_us < newest_us:
        position = _insert_late(estimator, arrival_us)
    elif not is_first and send_us < window[(position - 1) & _MASK].send_us:
        estimator.disordered_until = position
    row = window[position & _MASK]
    row.arrival_us = arrival_us
    row.send_us = send_us
    row.size_bytes = size_bytes
    if newest_us - arrival_us > p.throughput_max_reordering_us:
        estimator.first = estimator.end
        estimator.total_bytes = 0
    elif arrival_us < newest_us:
        _refresh_gaps(estimator)
    elif not is_first:
        _note_gap(estimator, position)


@kernel
def _receive_rate_bps(estimator: Record) -> int:
    """Rate of arrival, with the largest gap cut down to the second largest."""
    window = estimator.window
    oldest = window[estimator.first & _MASK]
    span_us = window[(estimator.end - 1) & _MASK].arrival_us - oldest.arrival_us
    duration_us = span_us - estimator.largest_gap_us + estimator.second_gap_us
    received_bytes = estimator.total_bytes - oldest.size_bytes
    return rate_of(received_bytes, max(duration_us, _MIN_DURATION_US))


@kernel
def throughput_scan(estimator: Record, p: Record) -> int:
    """The acknowledged rate from a scan of the window, for windows in any order of sending."""
    first_send_us = NEVER
    last_send_us = -NEVER
    last_send_bytes = 0
    sent_bytes = 0
    sent_packets = 0
    for position in range(estimator.first, estimator.end):
        packet = estimator.window[position & _MASK]
        if packet.send_us < estimator.discarded_send_us:
            continue  # reordered; its send time may be far in the past
        if packet.send_us > last_send_us:
            last_send_us = packet.send_us
            last_send_bytes = packet.size_bytes
        first_send_us = min(first_send_us, packet.send_us)
        sent_bytes += packet.size_bytes
        sent_packets += 1
    receive_rate_bps = _receive_rate_bps(estimator)
    if sent_packets < p.throughput_required_packets:
        return receive_rate_bps
    duration_us = max(last_send_us - first_send_us, _MIN_DURATION_US)
    return min(rate_of(sent_bytes - last_send_bytes, duration_us), receive_rate_bps)


@kernel
def _ordered_send_rate_bps(estimator: Record) -> int:
    """Rate of sending of a window whose packets left in the order in which they arrived."""
    window = estimator.window
    last = estimator.end - 1
    last_send_us = window[last & _MASK].send_us
    while last > estimator.first and window[(last - 1) & _MASK].send_us == last_send_us:
        last -= 1  # of packets sent in the same millisecond, the first one counts as the last
    duration_us = last_send_us - window[estimator.first & _MASK].send_us
    sent_bytes = estimator.total_bytes - window[last & _MASK].size_bytes
    return rate_of(sent_bytes, max(duration_us, _MIN_DURATION_US))


@kernel
def throughput_rate_bps(estimator: Record, p: Record) -> int:
    """The acknowledged rate, NO_RATE while the window holds too few packets."""
    if estimator.end - estimator.first < p.throughput_required_packets:
        return NO_RATE
    oldest = estimator.window[estimator.first & _MASK]
    if estimator.first < estimator.disordered_until or oldest.send_us < estimator.discarded_send_us:
        return int(throughput_scan(estimator, p))
    return int(min(_ordered_send_rate_bps(estimator), _receive_rate_bps(estimator)))

"""Packets sent together form a group; consecutive groups give delay variations.

Follows GCC/inter_arrival_delta.cc of libwebrtc M150.
"""

from __future__ import annotations

from bwe_env.sim._jit import Record, kernel, record

GROUP = record(
    [
        ("first_send_us", "i8"),
        ("send_us", "i8"),  # of the last packet
        ("first_arrival_us", "i8"),
        ("arrival_us", "i8"),  # of the last packet: the group is complete
        ("feedback_us", "i8"),  # our clock when that packet was reported
        ("is_set", "i1"),
    ]
)

INTER_ARRIVAL = record(
    [
        ("current", GROUP),
        ("previous", GROUP),
        ("reordered_groups", "i8"),  # in a row
        ("send_delta_us", "i8"),  # between the last two complete groups
        ("arrival_delta_us", "i8"),
    ]
)


@kernel
def inter_arrival_reset(inter_arrival: Record) -> None:
    """No group yet."""
    inter_arrival.current.is_set = 0
    inter_arrival.previous.is_set = 0
    inter_arrival.reordered_groups = 0


@kernel
def _belongs_to_burst(
    group: Record, max_gap_us: int, max_span_us: int, send_us: int, arrival_us: int
) -> bool:
    """Whether a packet joins a group although it was sent later: it caught up with it."""
    send_delta_us = send_us - group.send_us
    if send_delta_us == 0:
        return True
    arrival_delta_us = arrival_us - group.arrival_us
    return bool(
        arrival_delta_us < send_delta_us
        and arrival_delta_us <= max_gap_us
        and arrival_us - group.first_arrival_us < max_span_us
    )


@kernel
def inter_arrival_add(
    inter_arrival: Record, p: Record, send_us: int, arrival_us: int, feedback_us: int
) -> bool:
    """Take one received packet (in order of arrival).

    Returns:
        Whether `send_delta_us` and `arrival_delta_us` now tell of a completed pair of groups.
    """
    group = inter_arrival.current
    previous = inter_arrival.previous
    is_complete = False
    if group.is_set == 0:
        group.is_set = 1
        group.first_send_us = send_us
        group.send_us = send_us
        group.first_arrival_us = arrival_us
    elif send_us < group.first_send_us:
        return False  # reordered
    elif send_us - group.first_send_us > p.send_time_group_us and not _belongs_to_burst(
        group, p.burst_delta_us, p.max_burst_us, send_us, arrival_us
    ):
        if previous.is_set == 1:
            arrival_delta_us = group.arrival_us - previous.arrival_us
            local_delta_us = group.feedback_us - previous.feedback_us
            if arrival_delta_us - local_delta_us >= p.clock_jump_us:
                inter_arrival_reset(inter_arrival)
                return False
            if arrival_delta_us < 0:
                inter_arrival.reordered_groups += 1
                if inter_arrival.reordered_groups >= p.reordered_reset_groups:
                    inter_arrival_reset(inter_arrival)
                return False
            inter_arrival.reordered_groups = 0
            inter_arrival.send_delta_us = group.send_us - previous.send_us
            inter_arrival.arrival_delta_us = arrival_delta_us
            is_complete = True
        previous.is_set = 1
        previous.send_us = group.send_us
        previous.arrival_us = group.arrival_us
        previous.feedback_us = group.feedback_us
        group.first_send_us = send_us
        group.send_us = send_us
        group.first_arrival_us = arrival_us
    else:
        group.send_us = max(group.send_us, send_us)
    group.arrival_us = arrival_us
    group.feedback_us = feedback_us
    return is_complete

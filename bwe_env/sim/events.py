"""Event ids and the choice of the next event.

Every flow keeps one timer per kind of event, in int64 microseconds; `NEVER` switches it off. At
equal times the lower id goes first: what has arrived is seen before what is decided, and what is
decided before what is sent.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import kernel

# Flow events, in tie order.
EVENT_MESSAGE_ARRIVAL = 0  # the head of the reverse path reaches the sender
EVENT_PACKET_ARRIVAL = 1  # a media packet reaches the receiver
EVENT_CONSENT_ARRIVAL = 2  # a consent check reaches the receiver
EVENT_DROP = 3  # consent has expired
EVENT_REPORT = 4  # the receiver builds transport feedback
EVENT_RTCP = 5  # the receiver sends an RTCP receiver report
EVENT_REPAIR = 6  # the receiver looks at its missing packets and frames
EVENT_ESTIMATOR = 7  # a receiver-side or timed estimator is due
EVENT_PROCESS = 8  # GCC's process interval
EVENT_CONSENT = 9  # the sender sends a consent check
EVENT_FRAME = 10  # the camera delivers a frame
EVENT_AUDIO = 11  # the microphone delivers a frame
EVENT_PACER = 12  # the pacer may send
N_EVENTS = 13

#: Pseudo-id of the one event that belongs to the link and not to a flow: a packet leaves it.
EVENT_LINK = -1


@kernel
def earliest_timer(timers_us: np.ndarray) -> int:
    """Index of the smallest timer; the lowest index among equals."""
    best = 0
    best_us = timers_us[0]
    for event in range(1, N_EVENTS):
        if timers_us[event] < best_us:
            best = event
            best_us = timers_us[event]
    return best

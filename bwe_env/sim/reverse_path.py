"""Messages on their way back to the sender: feedback, reports, requests, responses, decisions.

They cross the reverse path in order (its jitter never reorders), so one ring per flow and one timer
for its head suffice. A message says what it is about by numbers; what it stands for on the wire
(RTCP transport feedback, receiver report, NACK, PLI, STUN response) is in its kind.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.path import path_arrival_us, path_is_out, path_loses
from bwe_env.sim.relay import relay_reverse_us
from bwe_env.sim.rng import STREAM_REVERSE_JITTER, STREAM_REVERSE_LOSS

MESSAGE_REPORT = 0  # transport feedback on packets a..b
#: Receiver report: a packets lost, b received since the last one, c is what the RTT is made of.
MESSAGE_RTCP = 1
MESSAGE_NACK = 2  # packet a is wanted again, and a + 1 + i for each bit i of b
#: How many packets after the first one NACK message can name. On the wire (RFC 4585 section 6.2.1)
#: an entry names 16 and a message has many entries.
NACK_SPAN = 62
MESSAGE_KEY_REQUEST = 3  # PLI
MESSAGE_CONSENT = 4  # STUN response
MESSAGE_DECISION = 5  # a receiver-side estimator's target rate: a bps

MESSAGE = record(
    [
        ("arrival_us", "i8"),
        ("built_us", "i8"),
        ("a", "i8"),
        ("b", "i8"),
        ("c", "i8"),
        ("kind", "i8"),
    ]
)

MAILBOX = record(
    [
        ("head", "i8"),  # messages head..tail-1 are under way
        ("tail", "i8"),
        ("lost", "i8"),
        ("overflows", "i8"),  # messages that found the ring full: an error
        ("added_delay_us", "i8"),  # configuration: beyond the path's own
    ]
)


@kernel
def mailbox_reset(mailbox: Record) -> None:
    """Nothing under way."""
    mailbox.head = 0
    mailbox.tail = 0
    mailbox.lost = 0
    mailbox.overflows = 0


@kernel
def message_send(
    mailbox: Record,
    messages: np.ndarray,
    path: Record,
    relay: Record,
    key: np.uint64,
    kind: int,
    a: int,
    b: int,
    c: int,
    now_us: int,
) -> None:
    """Put a message on the reverse path; it may be lost there.

    An outage that keeps what it meets keeps transport feedback and nothing else.
    """
    is_lost = path_loses(path, key, STREAM_REVERSE_LOSS, now_us)
    if is_lost or (kind != MESSAGE_REPORT and path_is_out(path, now_us)):
        mailbox.lost += 1
        return
    if mailbox.tail - mailbox.head >= len(messages):
        mailbox.overflows += 1
        return
    arrival_us = path_arrival_us(path, key, STREAM_REVERSE_JITTER, now_us)
    arrival_us = relay_reverse_us(relay, key, arrival_us)
    if arrival_us == NEVER:
        mailbox.lost += 1
        return
    message = messages[mailbox.tail & (len(messages) - 1)]
    message.arrival_us = arrival_us + mailbox.added_delay_us
    message.built_us = now_us
    message.a = a
    message.b = b
    message.c = c
    message.kind = kind
    mailbox.tail += 1


@kernel
def mailbox_next_us(mailbox: Record, messages: np.ndarray) -> int:
    """Arrival time of the oldest message under way; NEVER when there is none."""
    if mailbox.head == mailbox.tail:
        return NEVER
    return int(messages[mailbox.head & (len(messages) - 1)].arrival_us)

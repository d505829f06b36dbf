"""A call: the network between two endpoints, and the flows that share it.

The first flow is the call's own; further ones belong to competing calls, as sources of cross
traffic do to nobody.
"""

from __future__ import annotations

from bwe_env.config import MAX_COMPETING_CALLS
from bwe_env.sim._jit import record
from bwe_env.sim.link import LINK
from bwe_env.sim.path import PATH
from bwe_env.sim.queue_discipline import QUEUE_DISCIPLINE
from bwe_env.sim.relay import RELAY

# What `CALL.status` says.
STATUS_ACTIVE = 0
STATUS_DROPPED = 1  # consent expired
STATUS_MESSAGE_RING_FULL = 2  # an error of ours, raised by name

CALL = record(
    [
        ("now_us", "i8"),  # the call is simulated up to here
        ("key", "u8"),  # of the random streams that belong to the network
        ("first_flow", "i8"),
        ("num_flows", "i8"),
        ("num_sources", "i8"),  # of cross traffic
        ("cross_us", "i8"),  # when the next of them does something; NEVER
        ("network", "i8"),  # row of the network table
        ("status", "i8"),
        ("dropped_us", "i8"),  # when the call dropped
        ("paused_flow", "i8"),  # number of the flow whose external estimator is to be asked
        ("link", LINK),
        ("forward", PATH),
        ("reverse", PATH),
        ("relay", RELAY),
    ]
)

#: One row per network: what a reset copies into a call.
NETWORK = record(
    [
        ("first_segment", "i8"),
        ("last_segment", "i8"),
        ("start_us", "i8"),  # where in the trace the call begins
        ("queue_limit_bytes", "i8"),
        ("queue_limit_s", "f8"),
        ("loss_before_queue", "i8"),
        ("discipline", QUEUE_DISCIPLINE),
        ("policer_rate_bps", "f8"),
        ("policer_burst_bytes", "f8"),
        ("max_wait_us", "i8"),
        ("grant_interval_us", "i8"),
        ("grant_spread", "f8"),
        ("competing_calls", "i8"),
        ("competing_start_us", "i8", (MAX_COMPETING_CALLS,)),
        ("competing_added_us", "i8", (MAX_COMPETING_CALLS,)),  # to the delay of either direction
        ("first_source", "i8"),  # of the table of sources
        ("num_sources", "i8"),
        ("forward", PATH),
        ("reverse", PATH),
        ("relay", RELAY),
    ]
)

"""A flow: one sender and its receiver. A call has one; a competing call would be one more.

Only `flow.py`, `sender.py`, `receive.py` and `advance.py` see a whole flow; each component beside
them sees its own sub-record.
"""

from __future__ import annotations

from bwe_env.gcc.parameters import GCC_PARAMETERS
from bwe_env.gcc.state import GCC
from bwe_env.observation import OBSERVER
from bwe_env.sim._jit import record
from bwe_env.sim.accounts import INTERVAL, TOTALS
from bwe_env.sim.audio import AUDIO
from bwe_env.sim.encoder import ENCODER
from bwe_env.sim.events import N_EVENTS
from bwe_env.sim.fec import FEC
from bwe_env.sim.monitor import MONITOR
from bwe_env.sim.pacer import PACER
from bwe_env.sim.receiver import RECEIVER
from bwe_env.sim.repair import REPAIR
from bwe_env.sim.retransmit import RETRANSMIT
from bwe_env.sim.reverse_path import MAILBOX
from bwe_env.sim.send_history import SEND_HISTORY
from bwe_env.sim.step import WINDOW

# Who sets the rate (field `controller`).
CONTROLLER_GCC = 0  # the compiled GCC, times `scale`
CONTROLLER_ACTION = 1  # decisions from outside at interval boundaries; GCC runs in the shadow
CONTROLLER_EXTERNAL = 2  # a Python estimator, asked at every report or timer

# Where an external estimator sits (field `estimator_side`).
SIDE_SENDER = 0  # it sees transport feedback; its decision acts at once
SIDE_RECEIVER = 1  # it sees arrivals; its decision crosses the reverse path

FLOW = record(
    [
        ("timers_us", "i8", (N_EVENTS,)),
        ("number", "i8"),  # within its call
        ("key", "u8"),  # of the random streams that belong to this sender
        # Configuration
        ("min_rate_bps", "i8"),
        ("start_rate_bps", "i8"),
        ("max_rate_bps", "i8"),
        ("scale", "f8"),  # on GCC's target; 1.0 leaves every bit as it is
        ("overhead_bytes", "i8"),  # IP and UDP headers
        ("uncounted_bytes", "i8"),  # on the link, but in no packet's size_bytes
        ("rtp_header_bytes", "i8"),
        ("mtu_bytes", "i8"),  # RTP packet, header included
        ("padding_bytes", "i8"),  # zeros in a padding packet
        ("audio_payload_bytes", "i8"),
        ("audio_interval_us", "i8"),  # 0: no audio
        ("audio_redundancy", "i8"),  # frames of the past in each audio packet; may change
        ("feedback_interval_us", "i8"),  # 0: adaptive
        ("rtcp_interval_us", "i8"),
        ("clock_skew", "f8"),  # the receiver's clock runs faster by this share
        ("repair_enabled", "i8"),
        ("rtx_rate_share", "f8"),  # of the target rate, for repeats; may change, as may the next
        ("rtx_max_age_us", "i8"),  # of packets that are repeated; 0: as long as the history has it
        ("rtt_of_sent", "i8"),  # 1: an RTT is that of the newest packet sent, not arrived
        ("estimator_interval_us", "i8"),  # 0: at every report; receiver-side: the period
        ("consent_interval_us", "i8"),
        ("drop_timeout_us", "i8"),
        ("start_us", "i8"),  # a competing call may begin later
        ("added_delay_us", "i8"),  # beyond the path's own, as its mailbox has it for messages
        # The present decision
        ("target_rate_bps", "i8"),
        # State
        ("camera_phase_us", "i8"),  # capture time of the first frame
        ("next_arrival_seq", "i8"),  # packet whose arrival is timed
        ("first_pending_seq", "i8"),  # nothing before it is on its way
        ("rtcp_received_base", "i8"),  # received packets told by the last RTCP report
        ("rtcp_newest_seq", "i8"),
        ("newest_forward_us", "i8"),  # one-way delay of the newest packet that has arrived
        ("rtt_us", "i8"),  # newest RTCP measurement at the sender
        ("last_consent_us", "i8"),  # newest consent response
        ("protection_rate_bps", "f8"),  # RTX and FEC of the last second, smoothed
        ("protection_bytes", "i8"),  # sent since that was updated
        ("report_first_seq", "i8"),  # the newest report, for an external estimator
        ("report_last_seq", "i8"),
        ("report_built_us", "i8"),
        ("history", SEND_HISTORY),
        ("encoder", ENCODER),
        ("pacer", PACER),
        ("monitor", MONITOR),
        ("observer", OBSERVER),
        ("mailbox", MAILBOX),
        ("interval", INTERVAL),
        ("receiver", RECEIVER),
        ("audio", AUDIO),
        ("gcc", GCC),
        ("gcc_parameters", GCC_PARAMETERS),
        ("repair", REPAIR),
        ("retransmit", RETRANSMIT),
        ("fec", FEC),
        ("totals", TOTALS),
        ("window", WINDOW),
        ("controller", "i1"),
        ("estimator_side", "i1"),
        ("may_overtake", "i1"),  # 1: packets may arrive in another order than they were sent
    ]
)

"""The packet row: what the sender, the link and the receiver know of one packet.

A flow's packets live in a ring; packet `seq` (the transport-wide sequence number, unwrapped) sits
in row `seq & (len(ring) - 1)`. The sender-side code (`bwe_env.gcc`, observations) may read only
what a real sender knows: size, send time, probe cluster, and `arrival_us` of packets whose
`report_state` says that a feedback report has told of them.
"""

from __future__ import annotations

from bwe_env.sim._jit import record

# What a packet carries (field `kind`).
KIND_VIDEO = 0
KIND_AUDIO = 1
KIND_RTX = 2
KIND_PADDING = 3
KIND_FEC = 4
N_KINDS = 5

# What became of it (field `fate`): the ground truth of every loss.
FATE_PENDING = 0  # waiting, in service, or propagating
FATE_DELIVERED = 1
FATE_QUEUE_DROP = 2  # the bottleneck's buffer was full
FATE_RANDOM_LOSS = 3  # of the path: i.i.d., of the Gilbert-Elliott chain, or replayed
FATE_AQM_DROP = 4  # the queue discipline dropped it, though there was room
FATE_POLICER_DROP = 5  # it exceeded the policer's rate, in front of the queue
N_FATES = 6

#: Losses that come from too much traffic. All others are nobody's fault: random.
CONGESTION_FATES = (FATE_QUEUE_DROP, FATE_AQM_DROP, FATE_POLICER_DROP)

# What the sender has been told (field `report_state`).
REPORT_NONE = 0
REPORT_LOST = 1  # covered by a report, not received by then
REPORT_RECEIVED_NOW = 2  # first reported as received by the report being processed
REPORT_RECEIVED = 3  # reported as received by an earlier report
REPORT_LOST_AGAIN = 4  # covered by an earlier report, too, and still not received

PACKET = record(
    [
        ("send_us", "i8"),  # handed to the network
        ("arrival_us", "i8"),  # at the receiver; NEVER until the bottleneck has sent it on
        ("size_bytes", "i4"),  # on the wire, IP and UDP headers included
        ("frame", "i4"),  # video frame number; FEC: block number; -1 for none
        # RTX: how many sequence numbers back the lost packet was. Video: minus how many ahead its
        # newest repeat is. FEC: which of its block's parity packets. Audio: how many frames before
        # its own it repeats. Padding: 0.
        ("repairs", "i2"),
        ("probe_cluster", "i2"),  # pacing probe cluster id, -1 for none
        ("kind", "i1"),
        ("fate", "i1"),
        ("report_state", "i1"),
        ("is_repaired", "i1"),  # lost or late, but a retransmission or FEC has brought it
    ]
)

"""Python estimators in the simulator: calls pause at every report or timer, and ask.

Calls under an external estimator run in three phases per interval: up to the next pause, the
estimator's turn, on to the next pause; an estimator that raises or returns nonsense drops its own
call (a competing one hangs up) with a warning, and the others go on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from operator import itemgetter

from bwe_env.config import CallConfig
from bwe_env.errors import unknown_name
from bwe_env.estimator import NO_TIMEOUT_US, BandwidthEstimator, EstimatorFactory, RateDecision
from bwe_env.feedback import FeedbackReport, PacketKind, PacketResult, SentPacket
from bwe_env.gcc.rates import reported_us
from bwe_env.sim._jit import NEVER, Record
from bwe_env.sim.advance import ADVANCE_DONE, ADVANCE_ENDED, ADVANCE_REPORT
from bwe_env.sim.call import STATUS_ACTIVE, STATUS_DROPPED
from bwe_env.sim.events import EVENT_ESTIMATOR
from bwe_env.sim.flow import SIDE_RECEIVER, SIDE_SENDER
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    FATE_PENDING,
    KIND_AUDIO,
    KIND_FEC,
    KIND_PADDING,
    KIND_RTX,
    KIND_VIDEO,
    PACKET,
    REPORT_LOST,
    REPORT_LOST_AGAIN,
    REPORT_RECEIVED,
    REPORT_RECEIVED_NOW,
)
from bwe_env.sim.receive import send_decision
from bwe_env.sim.sender import decide_externally
from bwe_env.sim.state import World
from bwe_env.units import s_to_us

_LOG = logging.getLogger(__name__)

#: Report interval of a receiver-side estimator that names none.
DEFAULT_INTERVAL_S = 0.1
SIDES = {"sender": SIDE_SENDER, "receiver": SIDE_RECEIVER}

#: What a `SentPacket` holds, from the tuple of a row's fields.
_SENT_FIELDS = itemgetter(
    *(
        (PACKET.names or ()).index(name)
        for name in ("send_us", "size_bytes", "probe_cluster", "kind")
    )
)
_PACKET_KINDS: dict[int, PacketKind] = {
    KIND_VIDEO: "video",
    KIND_AUDIO: "audio",
    KIND_RTX: "retransmission",
    KIND_PADDING: "padding",
    KIND_FEC: "fec",
}


@dataclass
class _Asked:
    """An estimator, the flow whose rate it sets, and what it has been told.

    Its clock begins with the flow: a competing call may begin later than the call.
    """

    estimator: BandwidthEstimator
    env: int
    index: int
    """of the flow, within the world"""
    start_us: int
    told: int = 0
    """number of the next packet to tell of"""
    overtaken: list[int] = field(default_factory=list)


class ExternalEstimators:
    """One estimator per flow of a world whose calls have just been reset.

    Args:
        factory: makes those of the calls themselves; None where something else drives them.
        competing: makes those of their competing calls, in the same way.
    """

    def __init__(
        self,
        world: World,
        factory: EstimatorFactory | None,
        call: CallConfig,
        *,
        competing: EstimatorFactory | None = None,
    ) -> None:
        self._world = world
        self._asked: dict[int, _Asked] = {}
        for env, row in enumerate(world.calls):
            for number in range(int(row["num_flows"])):
                maker = factory if number == 0 else competing
                if maker is not None:
                    self._add(maker(), env, int(row["first_flow"]) + number)

    def _add(self, estimator: BandwidthEstimator, env: int, index: int) -> None:
        side = getattr(estimator, "side", "sender")
        if side not in SIDES:
            raise unknown_name("side of an estimator", side, SIDES)
        flow = self._world.flows[index]
        asked = _Asked(estimator, env, index, int(flow["start_us"]))
        self._asked[index] = asked
        flow["estimator_side"] = SIDES[side]
        if SIDES[side] == SIDE_RECEIVER:
            interval_us = s_to_us(getattr(estimator, "interval_s", DEFAULT_INTERVAL_S))
            flow["estimator_interval_us"] = interval_us
            flow["timers_us"][EVENT_ESTIMATOR] = asked.start_us + interval_us
        else:
            self._set_timer(asked, asked.start_us)

    def advance(self, until_us: int) -> None:
        """Run all calls to `until_us`, asking each estimator whenever its call pauses."""
        calls = self._world.calls
        pending = list(range(self._world.num_envs))
        while pending:
            paused = []
            for env in pending:
                reason = int(self._world.advance(until_us, range(env, env + 1))[0])
                if reason not in (ADVANCE_DONE, ADVANCE_ENDED):
                    index = int(calls[env]["first_flow"] + calls[env]["paused_flow"])
                    self._ask(self._asked[index], reason)
                    paused.append(env)
            pending = paused

    def _ask(self, asked: _Asked, reason: int) -> None:
        call = self._world.calls[asked.env]
        flow = self._world.flows[asked.index]
        now_us = int(call["now_us"])
        try:
            if flow["estimator_side"] == SIDE_RECEIVER:
                self._ask_receiver(asked, flow, now_us)
            else:
                self._ask_sender(asked, flow, reason, now_us)
        except Exception as error:  # whatever a user's code raises is its own call's end
            _LOG.warning("estimator of call %d failed at t = %d us: %r", asked.env, now_us, error)
            if flow["number"] > 0:
                flow["timers_us"][:] = NEVER  # a competing call hangs up alone
            elif call["status"] == STATUS_ACTIVE:
                call["status"] = STATUS_DROPPED
                call["dropped_us"] = now_us

    def _ask_receiver(self, asked: _Asked, flow: Record, now_us: int) -> None:
        report = self._arrivals(asked, flow, now_us)
        decision = asked.estimator.on_feedback(report, now_us - asked.start_us)
        self._check(decision)
        call, messages = self._world.calls[asked.env], self._world.messages[asked.index]
        send_decision(call, flow, messages, int(decision.target_rate_bps), now_us)
        flow["timers_us"][EVENT_ESTIMATOR] = now_us + flow["estimator_interval_us"]

    def _ask_sender(self, asked: _Asked, flow: Record, reason: int, now_us: int) -> None:
        self._tell_sent(asked, flow)
        told_us = now_us - asked.start_us
        if reason == ADVANCE_REPORT:
            decision = asked.estimator.on_feedback(self._report(asked, flow), told_us)
        else:
            decision = asked.estimator.on_timeout(told_us)
        self._check(decision)
        decide_externally(
            flow,
            int(decision.target_rate_bps + 0.5),
            int(decision.pacing_rate_bps + 0.5),
            int(decision.padding_rate_bps + 0.5),
            int(decision.cwnd_bytes),
            now_us,
        )
        self._set_timer(asked, now_us)

    @staticmethod
    def _check(decision: object) -> None:
        if not isinstance(decision, RateDecision):
            raise TypeError(f"an estimator must return a RateDecision, got {decision!r}")

    def _set_timer(self, asked: _Asked, now_us: int) -> None:
        due_us = int(asked.estimator.next_timeout_us())
        timers_us = self._world.flows[asked.index]["timers_us"]
        if due_us >= NO_TIMEOUT_US:
            timers_us[EVENT_ESTIMATOR] = NEVER
        else:
            timers_us[EVENT_ESTIMATOR] = max(asked.start_us + due_us, now_us + 1)

    def _sent(self, asked: _Asked, seq: int) -> SentPacket:
        ring = self._world.packets[asked.index]
        # All fields at once: one by one they take most of an external call's time.
        send_us, size_bytes, probe_cluster, kind = _SENT_FIELDS(ring[seq & (len(ring) - 1)].item())
        return SentPacket(
            seq, send_us - asked.start_us, size_bytes, probe_cluster, _PACKET_KINDS[kind]
        )

    def _tell_sent(self, asked: _Asked, flow: Record) -> None:
        next_seq = int(flow["history"]["next_seq"])
        first = max(asked.told, next_seq - self._world.packets.shape[1])
        for seq in range(first, next_seq):
            packet = self._sent(asked, seq)
            asked.estimator.on_packet_sent(packet, packet.send_time_us)
        asked.told = next_seq

    def _report(self, asked: _Asked, flow: Record) -> FeedbackReport:
        ring = self._world.packets[asked.index]
        results = []
        for seq in range(int(flow["report_first_seq"]), int(flow["report_last_seq"]) + 1):
            row = ring[seq & (len(ring) - 1)]
            if row["report_state"] == REPORT_RECEIVED_NOW:
                arrival_us = reported_us(int(row["arrival_us"])) - asked.start_us
                results.append(PacketResult(self._sent(asked, seq), arrival_us))
            elif row["report_state"] in (REPORT_LOST, REPORT_LOST_AGAIN):
                results.append(PacketResult(self._sent(asked, seq), None))
        built_us = _by_receiver_clock_us(flow, int(flow["report_built_us"]))
        return FeedbackReport(
            built_us=built_us - asked.start_us,
            packets=tuple(results),
            bytes_in_flight=int(flow["history"]["in_flight_bytes"]),
        )

    def _arrivals(self, asked: _Asked, flow: Record, now_us: int) -> FeedbackReport:
        """What the receiver saw since its last report: gaps below the newest arrival are losses.

        A packet of such a gap that has come since then is told of again, as received.
        """
        ring = self._world.packets[asked.index]
        newest = int(flow["receiver"]["newest_seq"])
        oldest = int(flow["history"]["next_seq"]) - len(ring)
        overtaken = [seq for seq in asked.overtaken if seq >= oldest]
        asked.overtaken = []
        results = []
        for seq in (*overtaken, *range(max(asked.told, oldest), newest + 1)):
            row = ring[seq & (len(ring) - 1)]
            if row["fate"] == FATE_PENDING:  # so its row is not overwritten before it arrives
                asked.overtaken.append(seq)
            arrived = row["fate"] == FATE_DELIVERED
            if arrived or seq >= asked.told:
                arrival_us = _arrival_us(flow, row) - asked.start_us if arrived else None
                results.append(PacketResult(self._sent(asked, seq), arrival_us))
        asked.told = newest + 1
        told_us = _by_receiver_clock_us(flow, now_us) - asked.start_us
        return FeedbackReport(built_us=told_us, packets=tuple(results), bytes_in_flight=0)


def _by_receiver_clock_us(flow: Record, time_us: int) -> int:
    """A true time as the receiver's clock shows it."""
    return time_us + int(time_us * float(flow["clock_skew"]))


def _arrival_us(flow: Record, row: Record) -> int:
    """When a packet arrived, by the receiver's clock; a report to the sender has left it so."""
    arrival_us = int(row["arrival_us"])
    if row["report_state"] in (REPORT_RECEIVED_NOW, REPORT_RECEIVED):
        return arrival_us
    return _by_receiver_clock_us(flow, arrival_us)

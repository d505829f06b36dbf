"""Python estimators in the simulator: calls pause at every report or timer, and ask.

Calls under an external estimator run in three phases per interval: up to the next pause, the
estimator's turn, on to the next pause; an estimator that raises or returns nonsense drops its own
call with a warning, and the others go on.
"""

from __future__ import annotations

import logging

import numpy as np

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
    REPORT_LOST,
    REPORT_LOST_AGAIN,
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

_PACKET_KINDS: dict[int, PacketKind] = {
    KIND_VIDEO: "video",
    KIND_AUDIO: "audio",
    KIND_RTX: "retransmission",
    KIND_PADDING: "padding",
    KIND_FEC: "fec",
}


class ExternalEstimators:
    """One estimator per call of a world whose calls have just been reset."""

    def __init__(self, world: World, factory: EstimatorFactory, call: CallConfig) -> None:
        self._world = world
        self._estimators = [factory() for _ in range(world.num_envs)]
        self._told = [0] * world.num_envs
        self._overtaken: list[list[int]] = [[] for _ in range(world.num_envs)]
        self._reasons = np.zeros(world.num_envs, dtype=np.int64)
        for env, estimator in enumerate(self._estimators):
            side = getattr(estimator, "side", "sender")
            if side not in SIDES:
                raise unknown_name("side of an estimator", side, SIDES)
            flow = world.own_flows[env]
            flow["estimator_side"] = SIDES[side]
            if SIDES[side] == SIDE_RECEIVER:
                interval_s = getattr(estimator, "interval_s", DEFAULT_INTERVAL_S)
                flow["estimator_interval_us"] = s_to_us(interval_s)
                flow["timers_us"][EVENT_ESTIMATOR] = s_to_us(interval_s)
            else:
                self._set_timer(env, estimator)

    def advance(self, until_us: int) -> None:
        """Run all calls to `until_us`, asking each estimator whenever its call pauses."""
        pending = list(range(self._world.num_envs))
        while pending:
            paused = []
            for env in pending:
                self._reasons[env] = self._world.advance(until_us, range(env, env + 1))[0]
                if self._reasons[env] not in (ADVANCE_DONE, ADVANCE_ENDED):
                    self._ask(env)
                    paused.append(env)
            pending = paused

    def _ask(self, env: int) -> None:
        estimator = self._estimators[env]
        call = self._world.calls[env]
        flow = self._world.own_flows[env]
        now_us = int(call["now_us"])
        try:
            if flow["estimator_side"] == SIDE_RECEIVER:
                decision = estimator.on_feedback(self._arrivals(env, flow, now_us), now_us)
                self._check(decision)
                target_bps = int(decision.target_rate_bps)
                send_decision(call, flow, self._world.own_messages[env], target_bps, now_us)
                flow["timers_us"][EVENT_ESTIMATOR] = now_us + flow["estimator_interval_us"]
                return
            self._tell_sent(env, estimator, flow)
            if self._reasons[env] == ADVANCE_REPORT:
                decision = estimator.on_feedback(self._report(env, flow), now_us)
            else:
                decision = estimator.on_timeout(now_us)
            self._check(decision)
            decide_externally(
                flow,
                int(decision.target_rate_bps + 0.5),
                int(decision.pacing_rate_bps + 0.5),
                int(decision.padding_rate_bps + 0.5),
                int(decision.cwnd_bytes),
                now_us,
            )
            self._set_timer(env, estimator)
        except Exception as error:  # whatever a user's code raises is its own call's end
            _LOG.warning("estimator of call %d failed at t = %d us: %r", env, now_us, error)
            if call["status"] == STATUS_ACTIVE:
                call["status"] = STATUS_DROPPED
                call["dropped_us"] = now_us

    @staticmethod
    def _check(decision: object) -> None:
        if not isinstance(decision, RateDecision):
            raise TypeError(f"an estimator must return a RateDecision, got {decision!r}")

    def _set_timer(self, env: int, estimator: BandwidthEstimator) -> None:
        due_us = int(estimator.next_timeout_us())
        timers_us = self._world.own_flows[env]["timers_us"]
        if due_us >= NO_TIMEOUT_US:
            timers_us[EVENT_ESTIMATOR] = NEVER
        else:
            timers_us[EVENT_ESTIMATOR] = max(due_us, int(self._world.calls[env]["now_us"]) + 1)

    def _sent(self, env: int, seq: int) -> SentPacket:
        ring = self._world.own_packets[env]
        row = ring[seq & (len(ring) - 1)]
        return SentPacket(
            seq=seq,
            send_time_us=int(row["send_us"]),
            size_bytes=int(row["size_bytes"]),
            probe_cluster=int(row["probe_cluster"]),
            kind=_PACKET_KINDS[int(row["kind"])],
        )

    def _tell_sent(self, env: int, estimator: BandwidthEstimator, flow: Record) -> None:
        next_seq = int(flow["history"]["next_seq"])
        first = max(self._told[env], next_seq - self._world.packets.shape[1])
        for seq in range(first, next_seq):
            packet = self._sent(env, seq)
            estimator.on_packet_sent(packet, packet.send_time_us)
        self._told[env] = next_seq

    def _report(self, env: int, flow: Record) -> FeedbackReport:
        ring = self._world.own_packets[env]
        results = []
        for seq in range(int(flow["report_first_seq"]), int(flow["report_last_seq"]) + 1):
            row = ring[seq & (len(ring) - 1)]
            if row["report_state"] == REPORT_RECEIVED_NOW:
                arrival_us = reported_us(int(row["arrival_us"]))
                results.append(PacketResult(self._sent(env, seq), arrival_us))
            elif row["report_state"] in (REPORT_LOST, REPORT_LOST_AGAIN):
                results.append(PacketResult(self._sent(env, seq), None))
        return FeedbackReport(
            built_us=int(flow["report_built_us"]),
            packets=tuple(results),
            bytes_in_flight=int(flow["history"]["in_flight_bytes"]),
        )

    def _arrivals(self, env: int, flow: Record, now_us: int) -> FeedbackReport:
        """What the receiver saw since its last report: gaps below the newest arrival are losses.

        A packet of such a gap that has come since then is told of again, as received.
        """
        ring = self._world.own_packets[env]
        newest = int(flow["receiver"]["newest_seq"])
        oldest = int(flow["history"]["next_seq"]) - len(ring)
        overtaken = [seq for seq in self._overtaken[env] if seq >= oldest]
        self._overtaken[env] = []
        results = []
        for seq in (*overtaken, *range(max(self._told[env], oldest), newest + 1)):
            row = ring[seq & (len(ring) - 1)]
            if row["fate"] == FATE_PENDING:  # so its row is not overwritten before it arrives
                self._overtaken[env].append(seq)
            arrived = row["fate"] == FATE_DELIVERED
            if arrived or seq >= self._told[env]:
                arrival_us = int(row["arrival_us"]) if arrived else None
                results.append(PacketResult(self._sent(env, seq), arrival_us))
        self._told[env] = newest + 1
        return FeedbackReport(built_us=now_us, packets=tuple(results), bytes_in_flight=0)

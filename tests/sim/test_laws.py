"""What holds in every call, whatever the network and whoever sets the rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bwe_env.config import (
    AudioConfig,
    CallConfig,
    FecConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    PathConfig,
    VideoConfig,
)
from bwe_env.network import Network
from bwe_env.sim._jit import NEVER
from bwe_env.sim.call import STATUS_DROPPED
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    FATE_PENDING,
    FATE_QUEUE_DROP,
    FATE_RANDOM_LOSS,
    KIND_AUDIO,
    KIND_PADDING,
    KIND_RTX,
    KIND_VIDEO,
    N_FATES,
    N_KINDS,
    REPORT_NONE,
    REPORT_RECEIVED,
    REPORT_RECEIVED_NOW,
)
from bwe_env.trace import Trace
from bwe_env.units import s_to_us
from tests.reference.naive_link import NaiveCapacity
from tests.sim.calls import OneCall

CALL_S = 3.0
#: The shortest decision interval there is; states are looked at after each.
STEP_US = 20_000

#: Bits by which floating-point sums of a thousand packets may be off; a packet has 400 at least.
EPSILON_BITS = 1e-3


@dataclass(frozen=True)
class Plan:
    """A call to be made."""

    network: Network
    config: CallConfig
    mode: str
    key: int
    values: tuple[float, ...]
    """decisions, repeated as often as needed, each for one step"""

    def play(
        self,
        look: Callable[[OneCall], None] | None = None,
        *,
        packet_rows: int | None = 1 << 14,
        call_s: float = CALL_S,
    ) -> tuple[OneCall, NDArray[Any]]:
        """Make the call; `look` is called after each step. Returns it and its STEP rows."""
        call = OneCall(
            self.network,
            self.config,
            mode=self.mode,
            key=self.key,
            step_us=STEP_US,
            packet_rows=packet_rows,
        )
        rows = []
        while call.now_us < s_to_us(call_s) and call.is_active:
            rows.append(call.step(self.values[len(rows) % len(self.values)]))
            if look is not None:
                look(call)
        return call, np.array(rows, dtype=call.world.steps.dtype)


capacities = st.one_of(st.just(0.0), st.floats(4.7, 7.3).map(lambda exponent: 10.0**exponent))

traces = (
    st.lists(st.tuples(st.integers(10_000, 1_500_000), capacities), min_size=1, max_size=8)
    .filter(lambda segments: any(capacity > 0.0 for _, capacity in segments))
    .map(
        lambda segments: Trace(
            "t",
            "pattern",
            "test",
            np.array([duration for duration, _ in segments]),
            np.array([capacity for _, capacity in segments]),
        )
    )
)

losses = st.one_of(
    st.just(LossConfig()),
    st.floats(0.0, 0.3).map(lambda p: LossConfig(good_loss=p)),
    st.builds(
        LossConfig,
        good_loss=st.floats(0.0, 0.05),
        bad_loss=st.floats(0.3, 1.0),
        good_to_bad=st.floats(0.0, 0.1),
        bad_to_good=st.floats(0.05, 1.0),
    ),
)

jitters = st.one_of(
    st.just(JitterConfig()),
    st.builds(
        JitterConfig,
        distribution=st.sampled_from(["uniform", "normal"]),
        scale_s=st.floats(0.0, 0.1),
        correlation=st.floats(0.0, 0.99),
    ),
)

paths = st.builds(PathConfig, propagation_delay_s=st.floats(0.0, 0.3), jitter=jitters, loss=losses)
forward_paths = st.builds(
    PathConfig,
    propagation_delay_s=st.floats(0.0, 0.3),
    jitter=jitters,
    loss=losses,
    keeps_order=st.booleans(),
)

links = st.builds(
    LinkConfig,
    queue_limit_bytes=st.one_of(st.just(0), st.integers(1500, 200_000)),
    queue_limit_s=st.floats(0.005, 2.0),
    loss_before_queue=st.booleans(),
)

networks = st.builds(
    Network,
    trace=traces,
    start_s=st.floats(0.0, 10.0),
    link=links,
    forward=forward_paths,
    reverse=paths,
)

configs = st.builds(
    CallConfig,
    duration_s=st.just(10.0),
    max_rate_bps=st.sampled_from([500_000, 6_000_000]),
    video=st.builds(
        VideoConfig,
        enabled=st.sampled_from([True, True, True, False]),
        app_max_rate_bps=st.sampled_from([0, 0, 200_000]),
        scene_change_interval_s=st.sampled_from([0.0, 1.0]),
        fec=st.builds(FecConfig, enabled=st.booleans()),
    ),
    audio=st.builds(AudioConfig, enabled=st.booleans()),
    drop_timeout_s=st.sampled_from([1.0, 15.0]),
    consent_interval_s=st.just(0.5),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any call: GCC alone, scaled, or random targets, lowest and highest and beyond them too."""
    config = draw(configs)
    mode = draw(st.sampled_from(["gcc", "scale", "rate"]))
    if mode == "rate":
        low, high = config.min_rate_bps, config.max_rate_bps
        extremes = st.sampled_from([0.0, float(low), float(high), 1e12])
        values = st.one_of(extremes, st.floats(low, high))
    else:
        values = st.one_of(st.sampled_from([0.5, 1.0, 2.0]), st.floats(0.5, 2.0))
    return Plan(
        draw(networks),
        config,
        mode,
        draw(st.integers(0, 2**63 - 1)),
        tuple(draw(st.lists(values, min_size=1, max_size=20))),
    )


def in_order(plan: Plan) -> Plan:
    """The same call on a path that keeps order."""
    forward = replace(plan.network.forward, keeps_order=True)
    return replace(plan, network=replace(plan.network, forward=forward))


def with_visible_departures(plan: Plan) -> Plan:
    """The same call, such that a packet's arrival tells when it left the bottleneck."""
    network = plan.network
    forward = replace(network.forward, jitter=JitterConfig())
    link = replace(network.link, loss_before_queue=True)
    return replace(plan, network=replace(network, forward=forward, link=link))


def departures_us(call: OneCall, rows: NDArray[Any]) -> NDArray[np.int64]:
    """When each of `rows` left the bottleneck; NEVER if it is still there."""
    propagation_us = s_to_us(call.network.forward.propagation_delay_s)
    left_us: NDArray[np.int64] = np.where(
        rows["arrival_us"] == NEVER, NEVER, rows["arrival_us"] - propagation_us
    )
    return left_us


def capacity_of(call: OneCall) -> NaiveCapacity:
    trace = call.network.trace
    return NaiveCapacity(
        trace.duration_us.tolist(), trace.capacity_bps.tolist(), s_to_us(call.network.start_s)
    )


few = settings(max_examples=40)


# --- Conservation ---------------------------------------------------------------------------------


@few
@given(plans())
def test_what_was_sent_is_delivered_or_dropped_with_its_cause_or_in_flight(plan: Plan) -> None:
    def look(call: OneCall) -> None:
        totals, rows = call.flow.totals, call.packets
        sizes = rows["size_bytes"]
        for fate in range(N_FATES):
            mine = rows["fate"] == fate
            assert totals.fate_packets[fate] == mine.sum()
            assert totals.fate_bytes[fate] == sizes[mine].sum()
        for kind in range(N_KINDS):
            mine = rows["kind"] == kind
            assert totals.sent_packets[kind] == mine.sum()
            assert totals.sent_bytes[kind] == sizes[mine].sum()
        assert totals.fate_packets.sum() == totals.sent_packets.sum() == len(rows)
        assert totals.fate_bytes.sum() == totals.sent_bytes.sum()

    plan.play(look)


@few
@given(plans())
def test_what_is_in_flight_is_in_the_queue_or_propagating(plan: Plan) -> None:
    def look(call: OneCall) -> None:
        rows, link, ring = call.packets, call.call.link, call.world.queues[0]
        entries = [ring[index & (len(ring) - 1)] for index in range(link.head, link.tail)]
        assert link.queue_bytes == sum(int(entry["size_bytes"]) for entry in entries)
        queued = [int(entry["seq"]) for entry in entries if entry["seq"] >= 0]
        assert all(rows["arrival_us"][queued] == NEVER)
        pending = np.flatnonzero(rows["fate"] == FATE_PENDING)
        propagating = pending[rows["arrival_us"][pending] != NEVER]
        assert (rows["arrival_us"][propagating] > call.now_us).all()
        assert sorted([*queued, *propagating.tolist()]) == pending.tolist()

    plan.play(look)


@few
@given(plans())
def test_bytes_in_flight_at_the_sender_are_those_no_report_has_reached(plan: Plan) -> None:
    def look(call: OneCall) -> None:
        history, rows = call.flow.history, call.packets
        assert history.in_flight_bytes == rows["size_bytes"][history.acked_seq + 1 :].sum()
        assert (rows["report_state"][history.acked_seq + 1 :] == REPORT_NONE).all()

    plan.play(look)


@few
@given(plans())
def test_no_call_outgrows_its_own_rings_and_what_its_socket_refuses_is_counted_as_dropped(
    plan: Plan,
) -> None:
    def look(call: OneCall) -> None:
        totals = call.flow.totals
        assert totals.fate_packets.sum() == totals.sent_packets.sum()
        assert totals.fate_bytes.sum() == totals.sent_bytes.sum()
        # A refused packet never gets a sequence number.
        assert call.flow.history.next_seq + totals.refused_packets == totals.sent_packets.sum()
        assert totals.fate_packets[FATE_QUEUE_DROP] >= totals.refused_packets
        assert 0 <= totals.fate_packets[FATE_PENDING] <= call.packet_rows

    plan.play(look, packet_rows=None, call_s=2 * CALL_S)


# --- The bottleneck -------------------------------------------------------------------------------


@few
@given(plans().map(in_order))
def test_packets_arrive_in_the_order_in_which_they_were_sent(plan: Plan) -> None:
    call, _ = plan.play()
    rows = call.packets
    assert (np.diff(rows["send_us"]) >= 0).all()
    delivered = np.flatnonzero(rows["fate"] == FATE_DELIVERED)
    arrivals_us = rows["arrival_us"][delivered]
    assert (np.diff(arrivals_us) >= 0).all()
    least_us = s_to_us(plan.network.forward.propagation_delay_s)
    assert (arrivals_us - rows["send_us"][delivered] >= least_us).all()
    if len(delivered):  # nobody overtakes
        assert not (rows["fate"][: delivered[-1]] == FATE_PENDING).any()


@few
@given(plans().map(in_order))
def test_bytes_delivered_by_any_time_never_exceed_the_capacity_up_to_then(plan: Plan) -> None:
    call, _ = plan.play()
    rows = call.packets[call.packets["fate"] == FATE_DELIVERED]
    capacity = capacity_of(call)
    propagation_us = s_to_us(plan.network.forward.propagation_delay_s)
    delivered_bits, capacity_bits, upto_us = 0, 0.0, 0
    for arrival_us, size_bytes in zip(rows["arrival_us"], rows["size_bytes"], strict=True):
        left_us = int(arrival_us) - propagation_us  # jitter only makes it later
        capacity_bits += float(capacity.bits(upto_us, left_us))
        upto_us = left_us
        delivered_bits += 8 * int(size_bytes)
        assert delivered_bits <= capacity_bits + EPSILON_BITS


@few
@given(plans().map(with_visible_departures))
def test_bytes_that_leave_within_any_span_never_exceed_its_capacity(plan: Plan) -> None:
    call, _ = plan.play()
    rows = call.packets[call.packets["fate"] == FATE_DELIVERED]
    capacity = capacity_of(call)
    # A packet leaves on a whole microsecond: up to one after its last bit.
    slack_bits = float(plan.network.trace.capacity_bps.max()) * 1e-6 + EPSILON_BITS
    ahead_bits, least_bits, upto_us = 0.0, 0.0, 0
    for left_us, size_bytes in zip(departures_us(call, rows), rows["size_bytes"], strict=True):
        ahead_bits += 8 * int(size_bytes) - float(capacity.bits(upto_us, int(left_us)))
        upto_us = int(left_us)
        # From the departure at which the server was least ahead of its capacity until now.
        assert ahead_bits - least_bits <= slack_bits
        least_bits = min(least_bits, ahead_bits)


@few
@given(plans())
def test_the_queue_never_holds_more_than_its_limit_in_bytes(plan: Plan) -> None:
    limit_bytes = plan.network.link.queue_limit_bytes or 5_000
    link = replace(plan.network.link, queue_limit_bytes=limit_bytes)

    def look(call: OneCall) -> None:
        assert 0 <= call.call.link.queue_bytes <= limit_bytes

    replace(plan, network=replace(plan.network, link=link)).play(look)


@few
@given(plans().map(with_visible_departures))
def test_no_packet_enters_a_queue_that_it_would_fill_above_its_limit(plan: Plan) -> None:
    call, _ = plan.play()
    was_let_in = (call.packets["fate"] == FATE_DELIVERED) | (call.packets["fate"] == FATE_PENDING)
    rows = call.packets[was_let_in]
    left_us = departures_us(call, rows)
    capacity, link = capacity_of(call), plan.network.link
    for index, row in enumerate(rows):
        still_there = left_us[: index + 1] > row["send_us"]
        queue_bytes = int(rows["size_bytes"][: index + 1][still_there].sum())
        limit_bytes = link.queue_limit_bytes or max(
            3_000.0, link.queue_limit_s * float(capacity.at(int(row["send_us"]))) / 8
        )
        assert queue_bytes <= limit_bytes + 1e-6


# --- The picture ----------------------------------------------------------------------------------


@few
@given(plans())
def test_frozen_time_is_part_of_each_interval_and_of_the_call(plan: Plan) -> None:
    call, steps = plan.play()
    assert ((steps["frozen_ratio"] >= 0.0) & (steps["frozen_ratio"] <= 1.0)).all()
    spans_s = np.diff(steps["time_s"], prepend=0.0)
    assert (steps["frozen_ratio"] * spans_s).sum() <= call.now_us * 1e-6 + 1e-9
    receiver = call.flow.receiver
    assert 0 <= receiver.freeze_us <= call.now_us
    assert (receiver.freeze_count == 0) == (receiver.freeze_us == 0)
    assert receiver.frames_shown <= call.flow.encoder.next_frame
    assert call.flow.encoder.next_frame <= call.flow.encoder.captured


@few
@given(plans().map(in_order))
def test_retransmissions_repeat_only_lost_video_and_not_before_its_loss_can_be_known(
    plan: Plan,
) -> None:
    call, _ = plan.play()
    rows, network = call.packets, plan.network
    round_trip_us = s_to_us(network.forward.propagation_delay_s) + s_to_us(
        network.reverse.propagation_delay_s
    )
    for seq in np.flatnonzero(rows["kind"] == KIND_RTX):
        repeat = rows[seq]
        assert repeat["repairs"] > 0
        original = rows[seq - repeat["repairs"]]
        assert original["kind"] == KIND_VIDEO
        assert original["fate"] in (FATE_QUEUE_DROP, FATE_RANDOM_LOSS)
        assert original["frame"] == repeat["frame"]
        assert repeat["size_bytes"] == original["size_bytes"] + 2  # RFC 4588, section 4
        assert repeat["send_us"] >= original["send_us"] + round_trip_us
        if repeat["fate"] == FATE_DELIVERED:
            assert original["is_repaired"] == 1
    others = rows[np.isin(rows["kind"], (KIND_AUDIO, KIND_PADDING))]
    assert (others["repairs"] == 0).all()
    assert (rows["repairs"][rows["kind"] == KIND_VIDEO] <= 0).all()
    repaired = rows[rows["is_repaired"] == 1]
    assert (repaired["kind"] == KIND_VIDEO).all()
    assert np.isin(repaired["fate"], (FATE_QUEUE_DROP, FATE_RANDOM_LOSS)).all()


@few
@given(plans())
def test_video_is_delivered_once_or_recovered_or_lost_with_its_cause(plan: Plan) -> None:
    call, _ = plan.play()
    rows, frames = call.packets, call.world.frames[0]
    video = rows["kind"] == KIND_VIDEO
    arrived = video & (rows["fate"] == FATE_DELIVERED)
    recovered = video & (rows["is_repaired"] == 1)
    lost = video & np.isin(rows["fate"], (FATE_QUEUE_DROP, FATE_RANDOM_LOSS)) & ~recovered
    pending = video & (rows["fate"] == FATE_PENDING) & ~recovered
    is_here = arrived | recovered  # a late one may come after what repaired it
    assert plan.network.forward.keeps_order is False or not (arrived & recovered).any()
    assert ((is_here + 0 + lost + pending)[video] == 1).all()
    # Every repeat that arrived recovered a packet or is a duplicate.
    repeats = (rows["kind"] == KIND_RTX) & (rows["fate"] == FATE_DELIVERED)
    totals = call.flow.totals
    by_repeat = repeats.sum() - totals.duplicate_packets
    assert recovered.sum() == by_repeat + totals.fec_recovered
    # Each frame that may still be shown has as many packets as are there, each counted once.
    for frame in frames[frames["number"] >= call.flow.receiver.next_frame]:
        mine = (rows["frame"] == frame["number"]) & (arrived | recovered)
        assert frame["num_received"] == mine.sum() <= frame["num_packets"]


@few
@given(plans())
def test_the_sender_knows_of_no_arrival_before_a_message_could_have_told_it(plan: Plan) -> None:
    reverse_us = s_to_us(plan.network.reverse.propagation_delay_s)

    def look(call: OneCall) -> None:
        rows = call.packets
        told = np.isin(rows["report_state"], (REPORT_RECEIVED, REPORT_RECEIVED_NOW))
        assert (rows["fate"][told] == FATE_DELIVERED).all()
        assert (rows["arrival_us"][told] + reverse_us <= call.now_us).all()

    plan.play(look)


# --- The step -------------------------------------------------------------------------------------


@few
@given(plans())
def test_every_number_of_a_step_is_finite_and_every_share_a_share(plan: Plan) -> None:
    def look(call: OneCall) -> None:
        assert np.isfinite(call.world.history).all()
        assert (np.abs(call.world.history) <= 1.0).all()

    _, steps = plan.play(look)
    for name in steps.dtype.names:
        assert np.isfinite(steps[name]).all(), name
    for name in ("queue_loss_ratio", "random_loss_ratio", "frozen_ratio"):
        assert ((steps[name] >= 0.0) & (steps[name] <= 1.0)).all(), name
    assert ((steps["video_mos"] >= 1.0) & (steps["video_mos"] <= 5.0)).all()
    assert (steps["call_score"] <= steps["video_mos"]).all()
    targets = steps["target_rate_bps"]
    assert (targets >= plan.config.min_rate_bps).all()
    assert (targets <= plan.config.max_rate_bps).all()


@few
@given(plans())
def test_the_terms_add_up_to_the_reward_and_a_second_is_worth_at_most_one_either_way(
    plan: Plan,
) -> None:
    call, steps = plan.play()
    terms = ["quality", "freeze", "delay", "loss", "rate_change", "drop"]
    total = sum(steps[f"reward_{term}"] for term in terms)
    assert np.allclose(steps["reward"], total, rtol=0.0, atol=1e-12)
    assert (steps["reward_quality"] >= 0.0).all()
    for term in terms[1:]:
        assert (steps[f"reward_{term}"] <= 0.0).all(), term
    spans_s = np.diff(steps["time_s"], prepend=0.0)
    worth = steps["reward"] - steps["reward_drop"]
    assert (np.abs(worth) <= spans_s + 1e-12).all()
    is_dropped = call.call.status == STATUS_DROPPED
    assert (steps["reward_drop"][:-1] == 0.0).all()
    remaining_s = plan.config.duration_s - call.call.dropped_us * 1e-6 if is_dropped else 0.0
    assert abs(steps["reward_drop"][-1] + remaining_s) < 1e-9

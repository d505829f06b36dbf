"""The clock: run every event of a call up to a time, one call after another.

`advance_one` is the only place where events are dispatched, and `advance` the only loop over calls.
It releases the GIL, so a vector env with two threads runs it twice on two halves; calls share
nothing, so the result is the same.
"""

from __future__ import annotations

import numpy as np

from bwe_env.gcc.controller import gcc_on_process_interval
from bwe_env.sim._jit import NEVER, Record, entry, inline_kernel, kernel
from bwe_env.sim.accounts import account_departed, account_lost
from bwe_env.sim.call import (
    STATUS_ACTIVE,
    STATUS_DROPPED,
    STATUS_MESSAGE_RING_FULL,
)
from bwe_env.sim.cross_traffic import (
    earliest_source_us,
    source_on_departed,
    source_on_dropped,
    source_on_timer,
)
from bwe_env.sim.decision import follow_gcc
from bwe_env.sim.events import (
    EVENT_AUDIO,
    EVENT_CONSENT,
    EVENT_CONSENT_ARRIVAL,
    EVENT_CROSS_TRAFFIC,
    EVENT_DROP,
    EVENT_ESTIMATOR,
    EVENT_FRAME,
    EVENT_LINK,
    EVENT_MESSAGE_ARRIVAL,
    EVENT_PACER,
    EVENT_PACKET_ARRIVAL,
    EVENT_PROCESS,
    EVENT_REPAIR,
    EVENT_REPORT,
    EVENT_RTCP,
    N_EVENTS,
    earliest_timer,
)
from bwe_env.sim.flow import CONTROLLER_EXTERNAL, SIDE_SENDER
from bwe_env.sim.link import (
    CONSENT_ENTRY,
    link_depart,
    link_drops_head,
    link_enqueue,
    link_pop,
    link_release_us,
)
from bwe_env.sim.packet import FATE_PENDING, FATE_RANDOM_LOSS
from bwe_env.sim.path import path_arrival_us, path_loses
from bwe_env.sim.receive import (
    on_consent_arrival,
    on_message_arrival,
    on_packet_arrival,
    on_repair_timer,
    on_report_timer,
    on_rtcp_timer,
    time_arrival,
)
from bwe_env.sim.receiver import receiver_show_due
from bwe_env.sim.relay import relay_forward_us
from bwe_env.sim.reverse_path import MESSAGE_REPORT
from bwe_env.sim.rng import STREAM_FORWARD_JITTER, STREAM_FORWARD_LOSS
from bwe_env.sim.sender import schedule_pacer, sender_on_audio, sender_on_frame, sender_on_pacer

# Why `advance_one` returned.
ADVANCE_DONE = 0  # at `until_us`
ADVANCE_REPORT = 1  # an external sender-side estimator has a report to see
ADVANCE_ESTIMATOR = 2  # an external estimator's timer is due
ADVANCE_ENDED = 3  # the call dropped, or failed (see CALL.status)

PROCESS_INTERVAL_US = 25_000  # api/transport/goog_cc_factory.cc
#: A STUN binding request with its attributes, IP and UDP headers included (seen in Chromium calls).
CONSENT_BYTES = 128


@kernel
def _choose_head(
    call: Record,
    flows: np.ndarray,
    packets: np.ndarray,
    sources: np.ndarray,
    tcp_rows: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """Drop packets at the head until the link begins to serve one or has none left."""
    link = call.link
    while True:
        fate = link_drops_head(link, segments, queue, now_us)
        if fate == FATE_PENDING:
            return
        entry = queue[link_pop(link, queue)]
        if entry.flow < 0:
            source_on_dropped(sources[-1 - entry.flow], fate)
            continue
        if entry.seq == CONSENT_ENTRY:
            continue
        flow_index = call.first_flow + entry.flow
        flow = flows[flow_index]
        flow_packets = packets[flow_index]
        packet = flow_packets[entry.seq & (len(flow_packets) - 1)]
        packet.fate = fate
        account_lost(flow.totals, flow.interval, packet)


@kernel
def _on_departure(
    call: Record,
    flows: np.ndarray,
    packets: np.ndarray,
    sources: np.ndarray,
    tcp_rows: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """The packet in service leaves the bottleneck: lost behind it, or on its way."""
    entry = queue[link_depart(call.link, segments, queue, now_us)]
    release_us = link_release_us(call.link, now_us)
    if entry.flow < 0:
        number = -1 - entry.flow
        source = sources[number]
        source_on_departed(source, tcp_rows[number], entry.seq, entry.enqueue_us, release_us)
        call.cross_us = min(call.cross_us, source.timer_us)
        return
    flow_index = call.first_flow + entry.flow
    flow = flows[flow_index]
    is_lost = call.link.loss_before_queue == 0 and path_loses(
        call.forward, call.key, STREAM_FORWARD_LOSS, now_us
    )
    arrival_us = NEVER
    if not is_lost:
        arrival_us = path_arrival_us(call.forward, call.key, STREAM_FORWARD_JITTER, release_us)
        arrival_us = relay_forward_us(call.relay, call.key, arrival_us)
        is_lost = arrival_us == NEVER
        if not is_lost:
            arrival_us += flow.added_delay_us
    if entry.seq == CONSENT_ENTRY:
        # One check under way is enough: a later one would only confirm what this one does.
        if flow.timers_us[EVENT_CONSENT_ARRIVAL] == NEVER:
            flow.timers_us[EVENT_CONSENT_ARRIVAL] = arrival_us
        return
    flow_packets = packets[flow_index]
    packet = flow_packets[entry.seq & (len(flow_packets) - 1)]
    account_departed(flow.totals, flow.interval, release_us - packet.send_us)
    if is_lost:
        packet.fate = FATE_RANDOM_LOSS
        account_lost(flow.totals, flow.interval, packet)
        return
    packet.arrival_us = arrival_us
    time_arrival(flow, entry.seq, arrival_us)


@kernel
def _on_cross_traffic(
    call: Record,
    sources: np.ndarray,
    tcp_rows: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """Let every source act whose time has come."""
    for number in range(call.num_sources):
        source = sources[number]
        if source.timer_us <= now_us:
            source_on_timer(source, tcp_rows[number], call.link, segments, queue, now_us)
    call.cross_us = earliest_source_us(sources, call.num_sources)


@kernel
def _on_consent(
    call: Record,
    flow: Record,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> None:
    """Send a consent check through the same queue as the media."""
    flow.timers_us[EVENT_CONSENT] = now_us + flow.consent_interval_us
    if call.link.loss_before_queue == 1 and path_loses(
        call.forward, call.key, STREAM_FORWARD_LOSS, now_us
    ):
        return
    link_enqueue(call.link, segments, queue, flow.number, CONSENT_ENTRY, CONSENT_BYTES, now_us)


@inline_kernel
def _on_flow_event(
    call: Record,
    flow: Record,
    event: int,
    packets: np.ndarray,
    frames: np.ndarray,
    messages: np.ndarray,
    queue: np.ndarray,
    segments: np.ndarray,
    now_us: int,
) -> int:
    """Dispatch one event of a flow; returns why to pause, or ADVANCE_DONE to go on."""
    if event == EVENT_PACKET_ARRIVAL:
        on_packet_arrival(call, flow, packets, frames, messages, now_us)
    elif event == EVENT_PACER:
        sender_on_pacer(call, flow, packets, frames, queue, segments, now_us)
    elif event == EVENT_AUDIO:
        sender_on_audio(call, flow, packets, queue, segments, now_us)
    elif event == EVENT_PROCESS:
        gcc_on_process_interval(flow.gcc, flow.gcc_parameters, flow.history.in_flight_bytes, now_us)
        follow_gcc(flow, now_us)
        schedule_pacer(flow, now_us)
        flow.timers_us[EVENT_PROCESS] = now_us + PROCESS_INTERVAL_US
    elif event == EVENT_FRAME:
        sender_on_frame(flow, packets, frames, now_us)
    elif event == EVENT_REPORT:
        on_report_timer(call, flow, messages, now_us)
    elif event == EVENT_MESSAGE_ARRIVAL:
        kind = on_message_arrival(flow, packets, messages, now_us)
        if (
            kind == MESSAGE_REPORT
            and flow.controller == CONTROLLER_EXTERNAL
            and flow.estimator_side == SIDE_SENDER
        ):
            return ADVANCE_REPORT
    elif event == EVENT_REPAIR:
        on_repair_timer(call, flow, packets, frames, messages, now_us)
    elif event == EVENT_RTCP:
        on_rtcp_timer(call, flow, packets, messages, queue, segments, now_us)
    elif event == EVENT_CONSENT:
        _on_consent(call, flow, queue, segments, now_us)
    elif event == EVENT_CONSENT_ARRIVAL:
        on_consent_arrival(call, flow, messages, now_us)
    elif event == EVENT_ESTIMATOR:
        flow.timers_us[EVENT_ESTIMATOR] = NEVER
        return ADVANCE_ESTIMATOR
    elif event == EVENT_DROP and flow.number > 0:
        for timer in range(N_EVENTS):  # a competing call hangs up
            flow.timers_us[timer] = NEVER
    elif event == EVENT_DROP:
        call.status = STATUS_DROPPED
        call.dropped_us = now_us
    return ADVANCE_DONE


@kernel
def _show_due(call: Record, flows: np.ndarray, frames: np.ndarray) -> None:
    """Bring every receiver's picture up to the present."""
    for index in range(call.first_flow, call.first_flow + call.num_flows):
        receiver_show_due(flows[index].receiver, frames[index], call.now_us)


@kernel
def advance_one(
    calls: np.ndarray,
    flows: np.ndarray,
    packets: np.ndarray,
    frames: np.ndarray,
    messages: np.ndarray,
    sources: np.ndarray,
    tcp_rows: np.ndarray,
    queues: np.ndarray,
    segments: np.ndarray,
    env: int,
    until_us: int,
) -> int:
    """Run call `env` up to `until_us`, events at exactly that time included.

    Returns:
        `ADVANCE_DONE`, or why it paused before; call again to go on from there.
    """
    call = calls[env]
    queue = queues[env]
    while call.status == STATUS_ACTIVE:
        now_us = call.link.departure_us
        event = EVENT_LINK
        flow_index = call.first_flow
        for index in range(call.first_flow, call.first_flow + call.num_flows):
            timers_us = flows[index].timers_us
            candidate = earliest_timer(timers_us)
            if timers_us[candidate] < now_us:
                now_us = timers_us[candidate]
                event = candidate
                flow_index = index
        if call.cross_us < now_us:
            now_us = call.cross_us
            event = EVENT_CROSS_TRAFFIC
        if now_us > until_us:
            call.now_us = until_us
            _show_due(call, flows, frames)
            return ADVANCE_DONE
        call.now_us = now_us
        if event == EVENT_LINK:
            _on_departure(
                call, flows, packets, sources[env], tcp_rows[env], queue, segments, now_us
            )
            if call.link.drops_at_head == 1:
                _choose_head(
                    call, flows, packets, sources[env], tcp_rows[env], queue, segments, now_us
                )
            continue
        if event == EVENT_CROSS_TRAFFIC:
            _on_cross_traffic(call, sources[env], tcp_rows[env], queue, segments, now_us)
            continue
        flow = flows[flow_index]
        reason = _on_flow_event(
            call,
            flow,
            event,
            packets[flow_index],
            frames[flow_index],
            messages[flow_index],
            queue,
            segments,
            now_us,
        )
        if flow.mailbox.overflows > 0:
            call.status = STATUS_MESSAGE_RING_FULL
        if reason != ADVANCE_DONE:
            call.paused_flow = flow.number
            return reason
    _show_due(call, flows, frames)
    return ADVANCE_ENDED


@entry
def advance(
    calls: np.ndarray,
    flows: np.ndarray,
    packets: np.ndarray,
    frames: np.ndarray,
    messages: np.ndarray,
    sources: np.ndarray,
    tcp_rows: np.ndarray,
    queues: np.ndarray,
    segments: np.ndarray,
    first_env: int,
    last_env: int,
    until_us: np.ndarray,
    reasons: np.ndarray,
) -> None:
    """Run calls ``first_env..last_env - 1``, each to its own `until_us`; fills `reasons`."""
    for env in range(first_env, last_env):
        reasons[env] = advance_one(
            calls,
            flows,
            packets,
            frames,
            messages,
            sources,
            tcp_rows,
            queues,
            segments,
            env,
            until_us[env],
        )

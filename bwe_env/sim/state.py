"""Everything a batch of calls is: record arrays, rings, traces; made once, reset in place."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.action import CONFIG_PARAMETERS
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError, RingOverflowError
from bwe_env.gcc.controller import gcc_on_network_availability, gcc_reset
from bwe_env.gcc.parameters import GCC_PARAMETERS, GccParameters
from bwe_env.network import Network
from bwe_env.observation import NUM_FEATURES, ObservationConfig, observer_reset
from bwe_env.reward import REWARD_WEIGHTS, RewardConfig
from bwe_env.sim._jit import NEVER, Record, entry, kernel
from bwe_env.sim.accounts import accounts_reset
from bwe_env.sim.advance import PROCESS_INTERVAL_US, advance
from bwe_env.sim.audio import audio_reset
from bwe_env.sim.batch import MODE_CONFIG, MODE_NONE, MODE_SCALE, step_calls
from bwe_env.sim.call import (
    CALL,
    NETWORK,
    STATUS_ACTIVE,
    STATUS_DROPPED,
    STATUS_MESSAGE_RING_FULL,
)
from bwe_env.sim.capacity import SEGMENT, cursor_seek
from bwe_env.sim.competition import decide_flows
from bwe_env.sim.cross_traffic import (
    SOURCE,
    TCP_ROW,
    earliest_source_us,
    source_reset,
)
from bwe_env.sim.decision import apply_decision, follow_gcc
from bwe_env.sim.encoder import FRAME, encoder_reset
from bwe_env.sim.events import (
    EVENT_AUDIO,
    EVENT_CONSENT,
    EVENT_DROP,
    EVENT_FRAME,
    EVENT_PROCESS,
    EVENT_REPORT,
    EVENT_RTCP,
    N_EVENTS,
)
from bwe_env.sim.fec import fec_reset
from bwe_env.sim.flow import CONTROLLER_GCC, FLOW
from bwe_env.sim.link import MIN_QUEUE_LIMIT_BYTES, QUEUE_ENTRY, link_reset
from bwe_env.sim.loss import loss_copy
from bwe_env.sim.monitor import monitor_reset
from bwe_env.sim.pacer import pacer_reset
from bwe_env.sim.packet import FATE_DELIVERED, PACKET
from bwe_env.sim.path import path_reset
from bwe_env.sim.queue_discipline import (
    discipline_copy,
)
from bwe_env.sim.receive import FIRST_REPORT_US
from bwe_env.sim.receiver import DEFAULT_RTT_US, receiver_reset
from bwe_env.sim.repair import repair_reset
from bwe_env.sim.retransmit import retransmit_reset
from bwe_env.sim.reverse_path import MESSAGE, mailbox_reset
from bwe_env.sim.rng import STREAM_CAMERA_PHASE, mix64, uniform
from bwe_env.sim.send_history import send_history_reset
from bwe_env.sim.settings import (
    build_settings,
    copy_settings,
    parameters_changed,
    set_parameters,
    settings_changed,
)
from bwe_env.sim.step import STEP, observe_flow, step_reset, window_reset
from bwe_env.sim.tables import (
    CROSS_QUEUE_ENTRIES,
    build_networks,
    build_sources,
    configure_flow,
    ring_lengths,
)
from bwe_env.targeting import SettingsPolicy
from bwe_env.telemetry import TELEMETRY, NetworkModels, telemetry_fill
from bwe_env.units import us_to_s


@kernel
def copy_link(link: Record, row: Record) -> None:
    """Give a link the configuration of a row of the network table."""
    link.queue_limit_bytes = row.queue_limit_bytes
    link.queue_limit_s = row.queue_limit_s
    link.loss_before_queue = row.loss_before_queue
    discipline_copy(link.discipline, row.discipline)
    link.policer.rate_bps = row.policer_rate_bps
    link.policer.burst_bytes = row.policer_burst_bytes
    link.max_wait_us = row.max_wait_us
    link.grant_interval_us = row.grant_interval_us
    link.grant_spread = row.grant_spread


@kernel
def _copy_path(target: Record, source: Record) -> None:
    target.delay.propagation_us = source.delay.propagation_us
    target.delay.jitter_mean_us = source.delay.jitter_mean_us
    target.delay.jitter_scale_us = source.delay.jitter_scale_us
    target.delay.jitter_correlation = source.delay.jitter_correlation
    target.delay.jitter_distribution = source.delay.jitter_distribution
    target.delay.may_overtake = source.delay.may_overtake
    target.delay.num_steps = source.delay.num_steps
    for step in range(source.delay.num_steps):
        target.delay.step_from_us[step] = source.delay.step_from_us[step]
        target.delay.step_added_us[step] = source.delay.step_added_us[step]
    loss_copy(target.loss, source.loss)
    target.loss_from_us = source.loss_from_us
    target.loss_until_us = source.loss_until_us
    target.outage.from_us = source.outage.from_us
    target.outage.until_us = source.outage.until_us
    target.outage.keeps = source.outage.keeps
    path_reset(target)


@kernel
def _start_timers(flow: Record) -> None:
    start_us = flow.start_us
    for event in range(N_EVENTS):
        flow.timers_us[event] = NEVER
    if flow.consent_interval_us > 0:
        flow.timers_us[EVENT_CONSENT] = start_us
        flow.timers_us[EVENT_DROP] = start_us + flow.drop_timeout_us
    flow.timers_us[EVENT_REPORT] = start_us + FIRST_REPORT_US
    if flow.feedback_interval_us > 0:
        flow.timers_us[EVENT_REPORT] = start_us + flow.feedback_interval_us
    flow.timers_us[EVENT_RTCP] = start_us + flow.rtcp_interval_us
    flow.timers_us[EVENT_PROCESS] = start_us + PROCESS_INTERVAL_US  # the first was the reset
    if flow.encoder.enabled == 1:
        flow.timers_us[EVENT_FRAME] = flow.camera_phase_us
    if flow.audio_interval_us > 0:
        flow.timers_us[EVENT_AUDIO] = start_us


@kernel
def _count_from(flow: Record, start_us: int) -> None:
    """What intervals are judged and observed by begins with the flow, not with the call."""
    flow.monitor.report_us = start_us
    flow.monitor.newest_arrival_us = start_us
    flow.monitor.previous_arrival_us = start_us
    flow.observer.observed_us = start_us
    flow.interval.newest_arrival_send_us = start_us
    # The receiver waits for its first picture since the call began: that much is nobody's freeze.
    flow.window.charged_frozen_us = start_us


@kernel
def flow_reset(flow: Record, key: np.uint64) -> None:
    """A flow at its start: transport ready, the start rate, GCC asking for its first probes."""
    start_us = flow.start_us
    flow.key = key
    flow.camera_phase_us = start_us
    if flow.number > 0:  # a competing call's camera knows nothing of the call's
        share = uniform(key, STREAM_CAMERA_PHASE, 0)
        flow.camera_phase_us = start_us + int(share * flow.encoder.frame_interval_us)
    flow.scale = 1.0
    flow.next_arrival_seq = 0
    flow.first_pending_seq = 0
    flow.rtcp_received_base = 0
    flow.rtcp_newest_seq = -1
    flow.newest_forward_us = 0
    flow.rtt_us = DEFAULT_RTT_US
    flow.last_consent_us = start_us
    flow.report_first_seq = 0
    flow.report_last_seq = -1
    flow.report_built_us = 0
    flow.protection_rate_bps = 0.0
    flow.protection_bytes = 0
    send_history_reset(flow.history)
    encoder_reset(flow.encoder, float(flow.start_rate_bps))
    pacer_reset(flow.pacer)
    monitor_reset(flow.monitor)
    observer_reset(flow.observer)
    mailbox_reset(flow.mailbox)
    receiver_reset(flow.receiver, flow.encoder.frame_interval_us)
    audio_reset(flow.audio, flow.audio_interval_us)
    repair_reset(flow.repair)
    retransmit_reset(flow.retransmit)
    fec_reset(flow.fec)
    accounts_reset(flow.totals, flow.interval)
    window_reset(flow.window, float(flow.start_rate_bps))
    _count_from(flow, start_us)
    gcc_reset(
        flow.gcc,
        flow.gcc_parameters,
        flow.min_rate_bps,
        flow.start_rate_bps,
        flow.max_rate_bps if flow.gcc_parameters.knows_max_rate == 1 else 0,
        start_us,
    )
    gcc_on_network_availability(flow.gcc, flow.gcc_parameters, True, start_us)
    apply_decision(flow, flow.start_rate_bps, 0, 0, 0, start_us)
    follow_gcc(flow, start_us)
    _start_timers(flow)


@kernel
def _scale_delay(path: Record, scale: float) -> None:
    path.delay.propagation_us = int(scale * path.delay.propagation_us + 0.5)


@entry
def call_reset(
    calls: np.ndarray,
    flows: np.ndarray,
    packets: np.ndarray,
    frames: np.ndarray,
    networks: np.ndarray,
    segments: np.ndarray,
    steps: np.ndarray,
    history: np.ndarray,
    telemetry: np.ndarray,
    source_table: np.ndarray,
    sources: np.ndarray,
    tcp_rows: np.ndarray,
    queue_length: int,
    env: int,
    network: int,
    key: np.uint64,
    offset_us: int,
    capacity_scale: float,
    delay_scale: float,
    queue_scale: float,
) -> None:
    """Begin call `env` on row `network` of the network table.

    Args:
        queue_length: of the rings of queue entries.
        key: seeds every random stream of the call.
        offset_us: added to where in the trace the network says that a call begins.
        capacity_scale: factor on the capacity, on a policer's rate, and on a queue limit in bytes.
        delay_scale: factor on the propagation delay of both directions, the relay left alone.
        queue_scale: factor on the queue limit, of which two full packets are left.
    """
    call = calls[env]
    row = networks[network]
    call.now_us = 0
    call.key = key
    call.network = network
    call.status = STATUS_ACTIVE
    call.dropped_us = 0
    copy_link(call.link, row)
    _copy_path(call.forward, row.forward)
    _copy_path(call.reverse, row.reverse)
    if row.queue_limit_bytes > 0:
        # A queue that holds no packet would be an outage, and 0 bytes the other kind of limit.
        least_bytes = min(row.queue_limit_bytes, MIN_QUEUE_LIMIT_BYTES)
        limit_bytes = int(capacity_scale * queue_scale * row.queue_limit_bytes + 0.5)
        call.link.queue_limit_bytes = max(least_bytes, limit_bytes)
    call.link.queue_limit_s *= queue_scale
    call.link.policer.rate_bps *= capacity_scale
    _scale_delay(call.forward, delay_scale)
    _scale_delay(call.reverse, delay_scale)
    call.relay.is_used = row.relay.is_used
    _copy_path(call.relay.forward, row.relay.forward)
    _copy_path(call.relay.reverse, row.relay.reverse)
    start_us = row.start_us + offset_us
    link_reset(
        call.link, segments, row.first_segment, row.last_segment, start_us, capacity_scale, key
    )
    call.num_flows = 1 + row.competing_calls
    call.num_sources = row.num_sources
    # Not simply the ring's length: that depends on the other networks at hand.
    max_entries = call.num_flows * packets.shape[1]
    if call.num_sources > 0:
        max_entries += CROSS_QUEUE_ENTRIES
    call.link.max_entries = min(queue_length, max_entries)
    for number in range(call.num_sources):
        sources[env, number] = source_table[row.first_source + number]
        source_reset(sources[env, number], tcp_rows[env, number], key, number)
    call.cross_us = earliest_source_us(sources[env], call.num_sources)
    for index in range(call.first_flow, call.first_flow + call.num_flows):
        # A fresh ring holds nothing pending: what a row says before it is written is not read.
        flow_packets = packets[index]
        for position in range(len(flow_packets)):
            flow_packets[position].fate = FATE_DELIVERED
        flow_frames = frames[index]
        for position in range(len(flow_frames)):
            flow_frames[position].number = -1
        number = index - call.first_flow
        flow = flows[index]
        flow.start_us = 0
        flow.added_delay_us = 0
        flow.may_overtake = call.forward.delay.may_overtake
        if call.relay.is_used == 1:
            flow.may_overtake = call.relay.forward.delay.may_overtake
        if number > 0:
            flow.start_us = row.competing_start_us[number - 1]
            flow.added_delay_us = row.competing_added_us[number - 1]
        flow.mailbox.added_delay_us = flow.added_delay_us
        # A competing call has chances of its own.
        flow_reset(flow, key if number == 0 else mix64(key + np.uint64(number)))
    flow = flows[call.first_flow]
    step_reset(call, flow, steps[env])
    observe_flow(flow, history[env], 1, 0)
    telemetry_fill(telemetry[env], flow.monitor, float(flow.target_rate_bps), 0)


@entry
def present_capacity(calls: np.ndarray, segments: np.ndarray, capacity_bps: np.ndarray) -> None:
    """Fill the capacity of every call's bottleneck at its present time, in bps."""
    for env in range(len(calls)):
        call = calls[env]
        capacity_bps[env] = cursor_seek(call.link.present, segments, float(call.now_us))


@dataclass
class World:
    """A batch of calls and what they share. All but the tables of networks is state."""

    calls: NDArray[Any]  # CALL[num_envs]
    flows: NDArray[Any]  # FLOW[num_envs * flows per call], those of a call together, its own first
    packets: NDArray[Any]  # PACKET[as many, ring]
    frames: NDArray[Any]  # FRAME[as many, ring]
    messages: NDArray[Any]  # MESSAGE[as many, ring]
    sources: NDArray[Any]  # SOURCE[num_envs, most sources]
    tcp_rows: NDArray[Any]  # TCP_ROW[num_envs, most sources, ring]
    queues: NDArray[Any]  # QUEUE_ENTRY[num_envs, ring]
    steps: NDArray[Any]  # STEP[num_envs]
    history: NDArray[np.float32]  # [num_envs, history, features], the newest row last
    telemetry: NDArray[Any]  # TELEMETRY[num_envs]
    networks: NDArray[Any]  # NETWORK[n]
    segments: NDArray[Any]  # SEGMENT[total]
    source_table: NDArray[Any]  # SOURCE[total]: configurations
    weights: NDArray[Any]  # REWARD_WEIGHTS[1]
    models: NetworkModels | None  # fill the columns of `history` behind the features
    targeting: SettingsPolicy | None  # changes settings of the calls' own senders
    settings: NDArray[Any]  # FLOW[those of `targeting`], a table, see `sim.settings`
    choice: NDArray[np.int64]  # [num_envs], which row of it is in force
    scale: NDArray[np.float64]  # [num_envs], factor of `targeting` on GCC's target
    parameters: NDArray[Any]  # GCC_PARAMETERS[1], with which calls begin

    @classmethod
    def make(
        cls,
        num_envs: int,
        networks: Sequence[Network],
        call: CallConfig,
        *,
        gcc: GccParameters,
        reward: RewardConfig,
        observation: ObservationConfig,
        controller: int = CONTROLLER_GCC,
        models: NetworkModels | None = None,
        targeting: SettingsPolicy | None = None,
        longest_delay_scale: float = 1.0,
    ) -> World:
        """Allocate `num_envs` calls that can run on any of `networks`; reset each before use.

        Args:
            controller: who sets the rate of every call, one of `bwe_env.sim.flow.CONTROLLER_…`.
            models: follow every call; what they say is part of the observation.
            targeting: follows every call and changes its sender's settings, of which the first
                take the place of those of `call` and `gcc` (competing calls keep these).
            longest_delay_scale: the largest `delay_scale` that a reset will give.
        """
        if call.feedback.rtt_packet == "sent" and any(
            network.cross_traffic or network.competing_calls for network in networks
        ):
            raise ConfigError(
                'feedback.rtt_packet="sent" knows only a queue that the call has for itself; use '
                '"arrived" on networks with cross_traffic or competing_calls.'
            )
        rings = ring_lengths(call, networks, longest_delay_scale=longest_delay_scale)
        rows, segments = build_networks(networks)
        num_flows = num_envs * rings.flows
        flows = np.zeros(num_flows, dtype=FLOW)
        configure_flow(flows, call, gcc)
        flows["controller"] = CONTROLLER_GCC
        flows["controller"][:: rings.flows] = controller
        flows["number"] = np.arange(num_flows) % rings.flows
        flows["encoder"]["pause_until_us"][flows["number"] > 0] = 0
        calls = np.zeros(num_envs, dtype=CALL)
        calls["first_flow"] = np.arange(num_envs) * rings.flows
        calls["num_flows"] = 1
        return cls(
            calls=calls,
            flows=flows,
            packets=np.zeros((num_flows, rings.packets), dtype=PACKET),
            frames=np.zeros((num_flows, rings.frames), dtype=FRAME),
            messages=np.zeros((num_flows, rings.messages), dtype=MESSAGE),
            sources=np.zeros((num_envs, rings.sources), dtype=SOURCE),
            tcp_rows=np.zeros((num_envs, rings.sources, rings.tcp), dtype=TCP_ROW),
            queues=np.zeros((num_envs, rings.queue), dtype=QUEUE_ENTRY),
            steps=np.zeros(num_envs, dtype=STEP),
            history=np.zeros((num_envs, *observation.shape(models)), dtype=np.float32),
            telemetry=np.zeros(num_envs, dtype=TELEMETRY),
            networks=rows,
            segments=segments,
            source_table=build_sources(networks),
            weights=reward.to_record(),
            models=models,
            targeting=targeting,
            settings=build_settings(targeting.settings if targeting else (), call),
            choice=np.zeros(num_envs, dtype=np.int64),
            scale=np.ones(num_envs),
            parameters=flows["gcc_parameters"][:1].copy(),
        )

    @property
    def num_envs(self) -> int:
        """Calls in this batch."""
        return len(self.calls)

    @property
    def flows_per_call(self) -> int:
        """Flows that a call may have: its own, and as many as compete with it."""
        return len(self.flows) // len(self.calls)

    @property
    def own_flows(self) -> NDArray[Any]:
        """FLOW rows of the calls' own senders, shape (num_envs,), a view."""
        return self.flows[:: self.flows_per_call]

    @property
    def own_packets(self) -> NDArray[Any]:
        """PACKET rings of the calls' own senders, shape (num_envs, ring), a view."""
        return self.packets[:: self.flows_per_call]

    @property
    def own_messages(self) -> NDArray[Any]:
        """MESSAGE rings of the calls' own senders, shape (num_envs, ring), a view."""
        return self.messages[:: self.flows_per_call]

    def cross_traffic_bytes(self) -> NDArray[np.int64]:
        """What others got through each call's bottleneck so far, shape (num_envs,).

        Packets of sources count when they have left it, those of competing calls when they have
        arrived.
        """
        is_present = np.arange(self.sources.shape[1]) < self.calls["num_sources"][:, None]
        total = np.where(is_present, self.sources["departed_bytes"], 0).sum(axis=1)
        delivered = self.flows["totals"]["fate_bytes"][:, FATE_DELIVERED]
        delivered = delivered.reshape(len(self.calls), self.flows_per_call)
        numbers = np.arange(self.flows_per_call)
        is_other = (numbers > 0) & (numbers < self.calls["num_flows"][:, None])
        others: NDArray[np.int64] = total + np.where(is_other, delivered, 0).sum(axis=1)
        return others

    @property
    def bytes_per_env(self) -> int:
        """Memory that one more call takes, traces not counted."""
        arrays = (
            self.calls,
            self.flows,
            self.packets,
            self.frames,
            self.messages,
            self.sources,
            self.tcp_rows,
            self.queues,
            self.steps,
            self.history,
            self.telemetry,
        )
        return sum(array.nbytes for array in arrays) // self.num_envs

    def reset(
        self,
        env: int,
        network: int,
        key: int,
        offset_us: int = 0,
        *,
        capacity_scale: float = 1.0,
        delay_scale: float = 1.0,
        queue_scale: float = 1.0,
    ) -> None:
        """Begin a call; see `call_reset`."""
        if self.targeting is not None:
            self.choice[env], self.scale[env] = 0, 1.0
            copy_settings(self.own_flows, env, self.settings, 0)
            self.targeting.restart(env)
        else:
            self.own_flows["gcc_parameters"][env] = self.parameters[0]  # mode config changes them
        call_reset(
            self.calls,
            self.flows,
            self.packets,
            self.frames,
            self.networks,
            self.segments,
            self.steps,
            self.history,
            self.telemetry,
            self.source_table,
            self.sources,
            self.tcp_rows,
            self.queues.shape[1],
            env,
            network,
            np.uint64(key),
            offset_us,
            capacity_scale,
            delay_scale,
            queue_scale,
        )
        if self.models is not None:
            self.models.restart(env)
            self.history[env, :, NUM_FEATURES:] = -1.0  # probability 0: nothing seen yet

    def decide(self, mode: int, values: NDArray[np.float64], active: NDArray[np.bool_]) -> None:
        """Let decisions act now; an interval in which calls pause begins with this, not `step`."""
        if mode == MODE_CONFIG:
            self._configure(values, active)
        elif mode != MODE_NONE:
            decide_flows(self.calls, self.flows, mode, values[:, None], 0, 1, active)

    def step(
        self,
        mode: int,
        values: NDArray[np.float64],
        active: NDArray[np.bool_],
        *,
        interval_us: int,
        duration_us: int,
        threads: ThreadPoolExecutor | None = None,
        num_threads: int = 1,
    ) -> None:
        """Run the active calls for one interval; see `bwe_env.sim.batch.step_calls`.

        Args:
            threads: runs all parts of the batch but the last, which the caller's thread runs.
            num_threads: parts; results do not depend on it, as calls share nothing.
        """
        if mode == MODE_CONFIG:
            self._configure(values, active)
            mode, values = MODE_NONE, self.scale
        # A rate that comes from elsewhere has no GCC's target to be scaled.
        if self.targeting is not None and self.flows["controller"][0] == CONTROLLER_GCC:
            values = self.scale * values if mode == MODE_SCALE else self.scale
            mode = MODE_SCALE
        arguments = (
            self.calls,
            self.flows,
            self.packets,
            self.frames,
            self.messages,
            self.sources,
            self.tcp_rows,
            self.queues,
            self.segments,
            self.steps,
            self.history,
            self.telemetry,
            self.weights,
            mode,
            values,
            interval_us,
            duration_us,
            active,
        )
        if threads is None or num_threads == 1:
            worst = step_calls(*arguments, 0, self.num_envs)
        else:
            bounds = [self.num_envs * part // num_threads for part in range(num_threads + 1)]
            parts = list(itertools.pairwise(bounds))
            futures = [threads.submit(step_calls, *arguments, *part) for part in parts[:-1]]
            worst = step_calls(*arguments, *parts[-1])
            for future in futures:
                worst = max(worst, future.result())
        if worst > STATUS_DROPPED:
            self.raise_ring_errors()
        if self.models is not None:
            outputs = self.models.update(self.telemetry, active)
            self.history[active, -1, NUM_FEATURES:] = 2.0 * outputs[active] - 1.0
        if self.targeting is not None:
            self._target(self.targeting, active)

    def _configure(self, values: NDArray[np.float64], active: NDArray[np.bool_]) -> None:
        """Set `CONFIG_PARAMETERS` of the active calls, values of shape (num_envs, parameters)."""
        set_parameters(self.own_flows, [p.name for p in CONFIG_PARAMETERS], values, active)
        parameters_changed(self.flows, self.flows_per_call, self.calls, active)

    def _target(self, targeting: SettingsPolicy, active: NDArray[np.bool_]) -> None:
        """Let targeting decide what is in force in the interval that begins."""
        choice, scale = targeting.update(self.telemetry, active)
        self.scale[active] = scale[active]
        for env in np.flatnonzero(active & (choice != self.choice)).tolist():
            copy_settings(self.own_flows, env, self.settings, choice[env])
            settings_changed(self.own_flows, env, self.calls["now_us"][env])
            self.choice[env] = choice[env]

    def present_capacity_bps(self) -> NDArray[np.float64]:
        """Capacity of each call's bottleneck at this moment, shape (num_envs,)."""
        capacity_bps = np.empty(self.num_envs)
        present_capacity(self.calls, self.segments, capacity_bps)
        return capacity_bps

    def advance(self, until_us: int, envs: range | None = None) -> NDArray[np.int64]:
        """Run calls up to a time, without decisions, observations or accounts of an interval.

        Args:
            envs: which; a range of step 1, all by default.

        Returns:
            Why each stopped (`bwe_env.sim.advance.ADVANCE_DONE`, …), one for each of `envs`.

        Raises:
            RingOverflowError: see `raise_ring_errors`.
        """
        envs = range(self.num_envs) if envs is None else envs
        reasons = np.empty(self.num_envs, dtype=np.int64)
        until = np.empty(self.num_envs, dtype=np.int64)
        until[envs.start : envs.stop] = until_us
        advance(
            self.calls,
            self.flows,
            self.packets,
            self.frames,
            self.messages,
            self.sources,
            self.tcp_rows,
            self.queues,
            self.segments,
            envs.start,
            envs.stop,
            until,
            reasons,
        )
        self.raise_ring_errors(envs)
        return reasons[envs.start : envs.stop]

    def raise_ring_errors(self, envs: range | None = None) -> None:
        """Turn a full ring into its named error.

        Raises:
            RingOverflowError: a call needed more rows than `ring_lengths` reckoned.
        """
        envs = range(self.num_envs) if envs is None else envs
        status = self.calls["status"][envs.start : envs.stop]
        failed = envs.start + np.flatnonzero(status == STATUS_MESSAGE_RING_FULL)
        if len(failed):
            raise RingOverflowError(
                f"the message ring of call {int(failed[0])} ({self.messages.shape[1]} rows) is "
                f"full at t = {us_to_s(self.calls['now_us'][failed[0]]):.3f} s. It is sized from "
                "max_rate_bps and the reverse delay; please report the network that did it."
            )

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copies of all state but that of models and targeting, to go back to with `restore`."""
        names = [f.name for f in fields(self) if f.name not in ("models", "targeting")]
        return {name: getattr(self, name).copy() for name in names}

    def restore(self, snapshot: dict[str, NDArray[Any]]) -> None:
        """Go back to a snapshot of this world (or of one of the same shape)."""
        for name, array in snapshot.items():
            getattr(self, name)[...] = array

    def __setstate__(self, state: dict[str, NDArray[Any]]) -> None:
        # An unpickled array carries another, equal dtype object, which numba dispatches slowly.
        dtypes = {
            "calls": CALL,
            "flows": FLOW,
            "packets": PACKET,
            "frames": FRAME,
            "messages": MESSAGE,
            "sources": SOURCE,
            "tcp_rows": TCP_ROW,
            "source_table": SOURCE,
            "queues": QUEUE_ENTRY,
            "steps": STEP,
            "telemetry": TELEMETRY,
            "networks": NETWORK,
            "segments": SEGMENT,
            "settings": FLOW,
            "parameters": GCC_PARAMETERS,
            "weights": REWARD_WEIGHTS,
        }
        for name, array in copy.copy(state).items():
            self.__dict__[name] = array.view(dtypes[name]) if name in dtypes else array

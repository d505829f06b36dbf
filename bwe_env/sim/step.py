"""The end of a decision interval: what happened in it, how good it was, and what it is worth.

One `STEP` row per call holds everything that `info` shows, in people's units. Quality is judged
over the second that ends now, because a tenth of a second holds three frames and one of them may be
a key frame.
"""

from __future__ import annotations

import math

import numpy as np

from bwe_env.observation import observe
from bwe_env.quality import DISPLAY_PIXELS, delay_impairment_mos, video_mos
from bwe_env.reward import delay_term, quality_term
from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.accounts import interval_begin
from bwe_env.sim.audio import audio_play_until
from bwe_env.sim.call import STATUS_DROPPED
from bwe_env.sim.capacity import capacity_bits
from bwe_env.sim.monitor import monitor_begin_interval
from bwe_env.sim.pacer import pacer_expected_queue_us
from bwe_env.sim.receiver import receiver_frozen_us
from bwe_env.telemetry import telemetry_fill

#: Slots of the one-second window: intervals are 20 ms or longer.
WINDOW_SLOTS = 50

_SECOND_US = 1_000_000

STEP = record(
    [
        ("time_s", "f8"),  # since the call began
        ("capacity_bps", "f8"),  # mean over the interval
        ("target_rate_bps", "f8"),  # at the end of the interval, like GCC's
        ("gcc_target_rate_bps", "f8"),
        ("sent_rate_bps", "f8"),  # on the wire
        ("receive_rate_bps", "f8"),  # on the wire
        ("media_rate_bps", "f8"),  # of the frames shown in the last second
        ("queue_delay_ms", "f8"),  # mean of packets that left; else age of the head of the queue
        ("one_way_delay_ms", "f8"),  # mean of packets that arrived; else age of the newest
        ("rtt_ms", "f8"),  # newest at the sender, 0 before the first
        ("queue_loss_ratio", "f8"),  # of packets sent in the interval
        ("random_loss_ratio", "f8"),
        ("aqm_loss_ratio", "f8"),
        ("policer_loss_ratio", "f8"),
        ("reported_random_packets", "f8"),  # lost by chance, first reported in this interval
        ("reported_congestion_packets", "f8"),  # lost to queue, AQM or policer, in the same way
        ("frozen_ratio", "f8"),  # of the interval
        ("frame_rate_hz", "f8"),  # shown in the last second
        ("video_mos", "f8"),  # of the last second, 1..5
        ("call_score", "f8"),  # of the last second: video MOS less delay impairment
        ("utilisation", "f8"),  # of min(capacity, max_rate_bps)
        ("reward", "f8"),
        ("reward_quality", "f8"),  # the terms, weighted and signed; they add up to the reward
        ("reward_freeze", "f8"),
        ("reward_delay", "f8"),
        ("reward_loss", "f8"),
        ("reward_rate_change", "f8"),
        ("reward_drop", "f8"),
        ("clipped_actions", "f8"),  # finite actions outside the box so far
    ]
)

WINDOW = record(
    [
        ("steps", "i8"),
        ("shown_bytes", "i8"),  # totals at the end of the last interval
        ("frames_shown", "i8"),
        ("charged_frozen_us", "i8"),  # frozen time already assigned to an interval
        ("slot_bytes", "i8", (WINDOW_SLOTS,)),  # the last intervals, a ring
        ("slot_frames", "i8", (WINDOW_SLOTS,)),
        ("slot_frozen_us", "i8", (WINDOW_SLOTS,)),
        ("slot_delay_ms", "f8", (WINDOW_SLOTS,)),
        ("previous_target_bps", "f8"),
        ("score_sum", "f8"),  # MOS times seconds, over whole seconds (as near as intervals come)
        ("mos_sum", "f8"),
        ("scored_s", "f8"),
    ]
)


@kernel
def window_reset(window: Record, start_rate_bps: float) -> None:
    """Before the first interval."""
    window.steps = 0
    window.shown_bytes = 0
    window.frames_shown = 0
    window.charged_frozen_us = 0
    window.previous_target_bps = start_rate_bps
    window.score_sum = 0.0
    window.mos_sum = 0.0
    window.scored_s = 0.0


@kernel
def _fill_slot(call: Record, flow: Record, window: Record, delay_ms: float, span_us: int) -> int:
    """Put the interval that ends now into the window's ring.

    A frozen gap counts from its beginning, but shows itself only after some 180 ms: what an
    interval cannot hold is carried to the next.

    Returns:
        Frozen microseconds charged to this interval.
    """
    receiver = flow.receiver
    receiver.frozen_us = receiver_frozen_us(receiver, call.now_us)
    grown_us = receiver.frozen_us - window.charged_frozen_us
    frozen_us = min(span_us, max(0, grown_us))
    window.charged_frozen_us += frozen_us
    slot = window.steps % WINDOW_SLOTS
    window.slot_bytes[slot] = receiver.shown_bytes - window.shown_bytes
    window.slot_frames[slot] = receiver.frames_shown - window.frames_shown
    window.slot_frozen_us[slot] = frozen_us
    window.slot_delay_ms[slot] = delay_ms
    window.shown_bytes = receiver.shown_bytes
    window.frames_shown = receiver.frames_shown
    window.steps += 1
    return int(frozen_us)


@kernel
def _judge_second(
    flow: Record, window: Record, step: Record, interval_us: int, max_slots: int
) -> None:
    """Video MOS and call score of the second that ends now (less at the start of a call)."""
    count = min(max_slots, window.steps)
    frames = 0
    frame_bytes = 0
    frozen_us = 0
    delay_ms = 0.0
    for back in range(1, count + 1):
        slot = (window.steps - back) % WINDOW_SLOTS
        frames += window.slot_frames[slot]
        frame_bytes += window.slot_bytes[slot]
        frozen_us += window.slot_frozen_us[slot]
        delay_ms += window.slot_delay_ms[slot]
    delay_ms /= count
    span_us = count * interval_us
    live_us = span_us - frozen_us
    step.media_rate_bps = frame_bytes * 8e6 / span_us
    step.frame_rate_hz = frames * 1e6 / span_us
    mos = 1.0
    if frames > 0 and live_us > 0:
        # Frames that pile up behind a freeze are seen at the camera's rate, not faster.
        nominal_hz = 1e6 / flow.encoder.frame_interval_us
        live_hz = min(nominal_hz, frames * 1e6 / live_us)
        media_bps = 8.0 * frame_bytes / frames * live_hz
        live_mos = video_mos(
            media_bps, live_hz, float(flow.receiver.shown_pixels), float(DISPLAY_PIXELS)
        )
        mos += (live_mos - 1.0) * (live_us / span_us)
    step.video_mos = mos
    step.call_score = mos - delay_impairment_mos(delay_ms)


@kernel
def _head_age_us(
    flow: Record, link: Record, packets: np.ndarray, queue: np.ndarray, now_us: int
) -> int:
    """How long the oldest of this flow's packets in the queue has waited; 0 without any."""
    for index in range(link.head, link.tail):
        entry = queue[index & (len(queue) - 1)]
        if entry.flow == flow.number and entry.seq >= 0:
            return int(now_us - packets[entry.seq & (len(packets) - 1)].send_us)
    return 0


@kernel
def step_reset(call: Record, flow: Record, step: Record) -> None:
    """The row before the first interval: nothing sent, nothing seen, the start rate in force."""
    step.time_s = 0.0
    step.capacity_bps = call.link.present.capacity_bps
    step.target_rate_bps = float(flow.target_rate_bps)
    step.gcc_target_rate_bps = float(flow.gcc.target_rate_bps)
    step.sent_rate_bps = 0.0
    step.receive_rate_bps = 0.0
    step.media_rate_bps = 0.0
    step.queue_delay_ms = 0.0
    step.one_way_delay_ms = 0.0
    step.rtt_ms = 0.0
    step.queue_loss_ratio = 0.0
    step.random_loss_ratio = 0.0
    step.aqm_loss_ratio = 0.0
    step.policer_loss_ratio = 0.0
    step.reported_random_packets = 0.0
    step.reported_congestion_packets = 0.0
    step.frozen_ratio = 0.0
    step.frame_rate_hz = 0.0
    step.video_mos = 1.0
    step.call_score = 1.0
    step.utilisation = 0.0
    step.reward = 0.0
    step.reward_quality = 0.0
    step.reward_freeze = 0.0
    step.reward_delay = 0.0
    step.reward_loss = 0.0
    step.reward_rate_change = 0.0
    step.reward_drop = 0.0
    step.clipped_actions = 0.0


@kernel
def observe_flow(flow: Record, history: np.ndarray, span_us: int, now_us: int) -> None:
    """Shift the history by one interval and write the one that ends now; at the start fill it."""
    last = len(history) - 1
    if now_us > flow.start_us:
        for position in range(last):
            for feature in range(history.shape[1]):
                history[position, feature] = history[position + 1, feature]
    observe(
        flow.observer,
        flow.monitor,
        flow.gcc,
        float(flow.target_rate_bps),
        float(pacer_expected_queue_us(flow.pacer)),
        float(span_us),
        flow.start_us,
        now_us,
        history[last],
    )
    if now_us == flow.start_us:
        for position in range(last):
            for feature in range(history.shape[1]):
                history[position, feature] = history[last, feature]


@kernel
def interval_span_us(call: Record, flow: Record) -> int:
    """Length of the interval of a flow that ends now; its first may begin within one of the call's.

    A dropped call ends inside an interval: what is judged is over what there was of it.
    """
    return int(max(1, call.now_us - flow.observer.observed_us))


@kernel
def mean_capacity_bps(call: Record, flow: Record, segments: np.ndarray) -> float:
    """Mean capacity over the call's own interval that ends now; to be asked once for each."""
    start_us = flow.observer.observed_us
    bits = capacity_bits(call.link.accounted, segments, start_us, call.now_us)
    return float(bits * 1e6 / interval_span_us(call, flow))


@kernel
def finish_interval(
    call: Record,
    flow: Record,
    step: Record,
    weights: Record,
    packets: np.ndarray,
    queue: np.ndarray,
    history: np.ndarray,
    telemetry: Record,
    capacity_bps: float,
    interval_us: int,
    duration_us: int,
) -> None:
    """Fill `step`, `telemetry` and the newest row of `history` for the interval that ends now.

    Args:
        capacity_bps: mean over the interval.
    """
    window = flow.window
    interval = flow.interval
    end_us = call.now_us
    span_us = interval_span_us(call, flow)
    link = call.link
    step.time_s = end_us * 1e-6
    step.capacity_bps = capacity_bps
    step.target_rate_bps = float(flow.target_rate_bps)
    step.gcc_target_rate_bps = float(flow.gcc.target_rate_bps)
    step.sent_rate_bps = interval.sent_bytes * 8e6 / span_us
    step.receive_rate_bps = interval.arrived_bytes * 8e6 / span_us
    usable_bps = min(step.capacity_bps, float(flow.max_rate_bps))
    step.utilisation = step.receive_rate_bps / usable_bps if usable_bps > 0.0 else 0.0
    if interval.departed_packets > 0:
        step.queue_delay_ms = interval.queue_delay_sum_us * 1e-3 / interval.departed_packets
    elif link.head < link.tail:
        step.queue_delay_ms = _head_age_us(flow, link, packets, queue, end_us) * 1e-3
    else:
        step.queue_delay_ms = 0.0
    if interval.arrived_packets > 0:
        step.one_way_delay_ms = interval.one_way_delay_sum_us * 1e-3 / interval.arrived_packets
    else:
        step.one_way_delay_ms = (end_us - interval.newest_arrival_send_us) * 1e-3
    step.rtt_ms = flow.monitor.rtt_us * 1e-3
    sent = max(1, interval.sent_packets)
    step.queue_loss_ratio = min(1.0, interval.queue_drops / sent)
    step.random_loss_ratio = min(1.0, interval.random_losses / sent)
    step.aqm_loss_ratio = min(1.0, interval.aqm_drops / sent)
    step.policer_loss_ratio = min(1.0, interval.policer_drops / sent)
    step.reported_random_packets = float(interval.reported_random)
    step.reported_congestion_packets = float(interval.reported_congestion)

    audio_play_until(flow.audio, end_us)
    frozen_us = _fill_slot(call, flow, window, step.one_way_delay_ms, span_us)
    step.frozen_ratio = frozen_us / span_us
    slots_per_second = min(WINDOW_SLOTS, max(1, int(_SECOND_US / interval_us + 0.5)))
    _judge_second(flow, window, step, interval_us, slots_per_second)
    if window.steps % slots_per_second == 0:
        scored_s = slots_per_second * interval_us * 1e-6
        window.scored_s += scored_s
        window.score_sum += step.call_score * scored_s
        window.mos_sum += step.video_mos * scored_s

    span_s = span_us * 1e-6
    impairment = step.video_mos - step.call_score
    loss_ratio = step.queue_loss_ratio + step.random_loss_ratio
    loss_ratio = min(1.0, loss_ratio + step.aqm_loss_ratio + step.policer_loss_ratio)
    change = abs(math.log(step.target_rate_bps / window.previous_target_bps) / math.log(2.0))
    window.previous_target_bps = step.target_rate_bps
    step.reward_quality = weights.quality * quality_term(step.video_mos) * span_s
    step.reward_freeze = -weights.freeze * step.frozen_ratio * span_s
    step.reward_delay = -weights.delay * delay_term(impairment) * span_s
    step.reward_loss = -weights.loss * loss_ratio * span_s
    step.reward_rate_change = -weights.rate_change * min(1.0, change) * span_s
    step.reward_drop = 0.0
    if call.status == STATUS_DROPPED:
        step.reward_drop = -(duration_us - end_us) * 1e-6
    step.reward = (
        step.reward_quality
        + step.reward_freeze
        + step.reward_delay
        + step.reward_loss
        + step.reward_rate_change
        + step.reward_drop
    )
    observe_flow(flow, history, span_us, end_us)
    telemetry_fill(telemetry, flow.monitor, step.target_rate_bps, end_us - flow.start_us)
    interval_begin(interval)
    monitor_begin_interval(flow.monitor)

"""The row of metrics of a finished call, from its steps and its accounts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from bwe_env.metrics import PICTURE_CLASSES, histogram_percentile, target_error
from bwe_env.quality import (
    AUDIO_CODER_DELAY_MS,
    WORST_MOS,
    conversation_mos,
    delay_impairment_mos,
)
from bwe_env.sim.accounts import READY_SILENCE_US
from bwe_env.sim.call import STATUS_DROPPED
from bwe_env.sim.encoder import MAX_QP
from bwe_env.sim.packet import (
    FATE_AQM_DROP,
    FATE_DELIVERED,
    FATE_POLICER_DROP,
    FATE_QUEUE_DROP,
    FATE_RANDOM_LOSS,
    KIND_AUDIO,
    KIND_FEC,
    KIND_RTX,
    KIND_VIDEO,
)
from bwe_env.sim.receiver import LONG_FREEZE_US
from bwe_env.sim.state import World
from bwe_env.sim.step import WINDOW_SLOTS
from bwe_env.talk_time import talk_time_s
from bwe_env.units import BITS_PER_BYTE, us_to_s

_US_TO_MS = 1e-3
#: Score of a second that a dropped call did not deliver: no picture and an endless delay, so that a
#: call cannot be bad enough for hanging up to pay.
_DROPPED_SCORE = WORST_MOS - delay_impairment_mos(math.inf)

#: Limits of a bad call: share frozen, share of sound concealed, 95th percentile of the one-way
#: delay (G.114: 400 ms is the limit of network planning), call score. Ours.
BAD_SHARE = 0.05
BAD_DELAY_MS = 400.0
BAD_SCORE = 2.5
#: The last minute of calls that are long enough to have one, and how far it must fall. Ours.
LAST_MINUTE_S = 60.0
LAST_MINUTE_MIN_DURATION_S = 180.0
REGRESSION_FALL = 0.5
REGRESSION_SCORE = 3.0


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    result = np.zeros(np.shape(part))
    np.divide(part, whole, out=result, where=np.asarray(whole) > 0)
    return result


def _rate_change(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """`metrics.rate_change_ratio` over the intervals that a call had (NaN after a drop)."""
    change = np.nansum(np.abs(np.diff(targets, axis=-1)), axis=-1)
    base = np.nansum(np.where(np.isnan(targets[..., 1:]), np.nan, targets[..., :-1]), axis=-1)
    return _ratio(change, base)


def call_columns(world: World, steps: NDArray[Any], call: CallConfig) -> dict[str, NDArray[Any]]:
    """All columns of `bwe_env.metrics.CALL_COLUMNS` but the four that say what was called.

    Args:
        world: its calls have ended.
        steps: STEP rows, shape (intervals, num_envs); `time_s` is NaN where a call had dropped.
    """
    # A row per call: NumPy's order of summation along a row does not depend on the number of rows.
    steps = np.ascontiguousarray(steps.T)
    duration_s = np.full(world.num_envs, call.duration_s)
    dropped = world.calls["status"] == STATUS_DROPPED
    remaining_s = np.where(dropped, duration_s - us_to_s(1.0) * world.calls["dropped_us"], 0.0)
    columns = {
        "duration_s": duration_s,
        "dropped": dropped,
        **_quality_columns(world, steps, duration_s, remaining_s),
        **_rate_columns(world, steps, call, duration_s),
        **_delay_columns(world),
        **_packet_columns(world),
        **_video_columns(world, duration_s),
        **_audio_columns(world),
    }
    return columns | _experience_columns(world, steps, call, columns, remaining_s)


def _quality_columns(
    world: World,
    steps: NDArray[Any],
    duration_s: NDArray[np.float64],
    remaining_s: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """Reward, scores and frozen time; what was left after a drop counts as the worst there is."""
    flows = world.own_flows
    receiver, window = flows["receiver"], flows["window"]
    is_missing = np.isnan(steps["time_s"])
    # Seconds that end before the call does; what is left of a last one is not scored.
    scored_s = window["scored_s"] + remaining_s
    frozen_s = us_to_s(1.0) * receiver["frozen_us"] + remaining_s
    return {
        "mean_reward": np.where(is_missing, 0.0, steps["reward"]).sum(axis=1) / duration_s,
        "call_score": _ratio(window["score_sum"] + _DROPPED_SCORE * remaining_s, scored_s),
        "video_mos": _ratio(window["mos_sum"] + WORST_MOS * remaining_s, scored_s),
        "freeze_ratio": np.minimum(1.0, frozen_s / duration_s),
        "freeze_ratio_above_500ms": np.minimum(
            1.0, _long_frozen_s(world, remaining_s) / duration_s
        ),
        "freeze_count": receiver["freeze_count"].copy(),
        "freeze_duration_s": receiver["freeze_us"] * us_to_s(1.0),
    }


def _rate_columns(
    world: World, steps: NDArray[Any], call: CallConfig, duration_s: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Rates, and how the target stood to the capacity."""
    flows = world.own_flows
    totals = flows["totals"]
    is_missing = np.isnan(steps["time_s"])

    def bits_per_s(total_bytes: NDArray[Any]) -> NDArray[np.float64]:
        rates: NDArray[np.float64] = total_bytes * BITS_PER_BYTE / duration_s
        return rates

    usable_bps = np.minimum(steps["capacity_bps"], call.max_rate_bps)
    mean_capacity = np.nanmean(np.where(is_missing, np.nan, usable_bps), axis=1)
    mean_receive = bits_per_s(totals["fate_bytes"][:, FATE_DELIVERED])
    cross_traffic = bits_per_s(world.cross_traffic_bytes())
    targets = np.where(is_missing, np.nan, steps["target_rate_bps"])
    error = target_error(targets, steps["capacity_bps"], max_rate_bps=call.max_rate_bps)
    header_bytes = flows["overhead_bytes"] + flows["rtp_header_bytes"]
    header_bytes = totals["sent_packets"][:, KIND_VIDEO] * header_bytes
    return {
        "contested": np.any((steps["capacity_bps"] < call.max_rate_bps) & ~is_missing, axis=1),
        "mean_target_bps": np.nanmean(targets, axis=1),
        "mean_sent_bps": bits_per_s(totals["sent_bytes"].sum(axis=1)),
        "mean_receive_bps": mean_receive,
        "mean_media_bps": bits_per_s(flows["receiver"]["shown_bytes"]),
        "mean_video_sent_bps": bits_per_s(totals["sent_bytes"][:, KIND_VIDEO] - header_bytes),
        "mean_capacity_bps": mean_capacity,
        "cross_traffic_bps": cross_traffic,
        "link_share": _ratio(mean_receive, mean_receive + cross_traffic),
        "utilisation": np.minimum(1.0, _ratio(mean_receive, mean_capacity)),
        **error._asdict(),
        "rate_change_ratio": _rate_change(targets),
    }


def _delay_columns(world: World) -> dict[str, NDArray[Any]]:
    """Delays of packets."""
    totals = world.own_flows["totals"]
    columns = {
        "queue_delay_ms_mean": _US_TO_MS
        * _ratio(totals["queue_delay_sum_us"], totals["departed_packets"]),
    }
    for kind in ("queue_delay", "one_way_delay"):
        for q in (50, 95, 99):
            columns[f"{kind}_ms_p{q}"] = histogram_percentile(totals[f"{kind}_bins"], q)
    return columns


def _packet_columns(world: World) -> dict[str, NDArray[Any]]:
    """Losses by cause, and how they were repaired."""
    flows = world.own_flows
    totals, receiver = flows["totals"], flows["receiver"]
    fates, sent = totals["fate_packets"], totals["sent_packets"]
    sent_packets = sent.sum(axis=1)
    return {
        "queue_loss_ratio": _ratio(fates[:, FATE_QUEUE_DROP], sent_packets),
        "random_loss_ratio": _ratio(fates[:, FATE_RANDOM_LOSS], sent_packets),
        "aqm_loss_ratio": _ratio(fates[:, FATE_AQM_DROP], sent_packets),
        "policer_loss_ratio": _ratio(fates[:, FATE_POLICER_DROP], sent_packets),
        "audio_loss_ratio": _ratio(totals["audio_lost_packets"], sent[:, KIND_AUDIO]),
        "nacks": flows["repair"]["nacked_packets"].copy(),
        "rtx_packets": sent[:, KIND_RTX].copy(),
        "fec_packets": sent[:, KIND_FEC].copy(),
        "fec_recovered": totals["fec_recovered"].copy(),
        "plis": receiver["key_requests"].copy(),
    }


def _experience_columns(
    world: World,
    steps: NDArray[Any],
    call: CallConfig,
    columns: dict[str, NDArray[Any]],
    remaining_s: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """What follows from the other `columns` and from the course of the call's score."""
    totals = world.own_flows["totals"]
    scores = _scores(steps, call)
    dropped, duration_s = columns["dropped"], columns["duration_s"]
    silent_us = world.calls["now_us"] - totals["inbound_us"] - READY_SILENCE_US
    not_ready_us = totals["not_ready_us"] + np.maximum(0, silent_us)
    return {
        "not_ready_s": us_to_s(1.0) * not_ready_us + remaining_s,
        **_last_minute_columns(steps, scores, dropped, call),
        "bad_experience": dropped
        | (columns["freeze_ratio"] > BAD_SHARE)
        | (columns["audio_concealed_s"] > BAD_SHARE * columns["audio_played_s"])
        | (columns["one_way_delay_ms_p95"] > BAD_DELAY_MS)
        | (columns["call_score"] < BAD_SCORE),
        "talk_time_s": talk_time_s(
            scores,
            _scored_interval_s(call),
            keys=world.calls["key"],
            end_s=np.where(dropped, us_to_s(1.0) * world.calls["now_us"], duration_s),
        ),
    }


def _scored_interval_s(call: CallConfig) -> float:
    """What a score is over: a second, as near as intervals come (see `bwe_env.sim.step`)."""
    return _slots_per_second(call) * call.interval_s


def _slots_per_second(call: CallConfig) -> int:
    return min(WINDOW_SLOTS, max(1, int(1.0 / call.interval_s + 0.5)))


def _scores(steps: NDArray[Any], call: CallConfig) -> NDArray[np.float64]:
    """Call score of every scheduled second, shape (calls, seconds)."""
    slots = _slots_per_second(call)
    rows = steps[:, slots - 1 :: slots]
    scores: NDArray[np.float64] = np.where(
        np.isnan(rows["time_s"]), _DROPPED_SCORE, rows["call_score"]
    )
    return scores


def _last_minute_columns(
    steps: NDArray[Any], scores: NDArray[np.float64], dropped: NDArray[Any], call: CallConfig
) -> dict[str, NDArray[Any]]:
    """The two regressions of the last minute; NaN for a call that is too short to have one."""
    names = ("last_minute_regression_v1", "last_minute_regression_v2")
    if call.duration_s < LAST_MINUTE_MIN_DURATION_S:
        return {name: np.full(len(scores), np.nan) for name in names}
    seconds = round(LAST_MINUTE_S / _scored_interval_s(call))
    intervals = round(LAST_MINUTE_S / call.interval_s)
    last = scores[:, -seconds:].mean(axis=1)
    before = scores[:, :-seconds].mean(axis=1)
    frozen = steps["frozen_ratio"][:, -intervals:].mean(axis=1)
    first = dropped | ((before - last >= REGRESSION_FALL) & (last < REGRESSION_SCORE))
    second = dropped | (frozen >= BAD_SHARE) | (last < BAD_SCORE)
    return {names[0]: first.astype(np.float64), names[1]: second.astype(np.float64)}


def _audio_columns(world: World) -> dict[str, NDArray[Any]]:
    """What the audio receiver heard; NaN where it never decoded a frame."""
    flows = world.own_flows
    audio, totals = flows["audio"], flows["totals"]
    is_heard = audio["played_us"] > 0
    concealed = _ratio(audio["concealed_us"], audio["played_us"])
    frames = _ratio(audio["concealed_us"], audio["concealments"] * flows["audio_interval_us"])
    burst_ratio = np.maximum(1.0, frames * (1.0 - concealed))
    buffer_ms = _US_TO_MS * _ratio(audio["delay_sum_us"], audio["played_frames"])
    network_ms = _US_TO_MS * _ratio(
        totals["one_way_delay_sum_us"], totals["fate_packets"][:, FATE_DELIVERED]
    )
    delay_ms = network_ms + buffer_ms + AUDIO_CODER_DELAY_MS
    mos = [
        conversation_mos(float(loss), float(burst), float(delay))
        for loss, burst, delay in zip(concealed, burst_ratio, delay_ms, strict=True)
    ]

    def heard(values: Any) -> NDArray[np.float64]:
        known: NDArray[np.float64] = np.where(is_heard, values, np.nan)
        return known

    return {
        "audio_played_s": us_to_s(1.0) * audio["played_us"],
        "audio_concealed_s": us_to_s(1.0) * audio["concealed_us"],
        "audio_silent_s": us_to_s(1.0) * audio["silent_us"],
        "audio_concealments": audio["concealments"].copy(),
        "audio_interruptions": audio["interruptions"].copy(),
        "audio_long_interruption_ratio": heard(
            _ratio(audio["long_interrupted_us"], audio["played_us"])
        ),
        "audio_late_packets": audio["late_packets"].copy(),
        "audio_recovered_frames": audio["recovered_frames"].copy(),
        "audio_jitter_buffer_ms": heard(buffer_ms),
        "audio_target_delay_ms": heard(
            _US_TO_MS * _ratio(audio["target_sum_us"], audio["played_frames"])
        ),
        "audio_burst_ratio": heard(burst_ratio),
        "audio_mos": heard(mos),
    }


def _long_frozen_s(world: World, remaining_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time in frozen gaps of `LONG_FREEZE_US` or more, the one that is open at the end included."""
    receiver = world.own_flows["receiver"]
    open_s = us_to_s(1.0) * (receiver["frozen_us"] - receiver["closed_frozen_us"]) + remaining_s
    open_s[open_s < us_to_s(LONG_FREEZE_US)] = 0.0
    total: NDArray[np.float64] = us_to_s(1.0) * receiver["long_frozen_us"] + open_s
    return total


def _video_columns(world: World, duration_s: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """What the picture was like at either end."""
    flows = world.own_flows
    receiver, encoder = flows["receiver"], flows["encoder"]
    first_s = us_to_s(1.0) * receiver["first_shown_us"]
    last_s = duration_s - us_to_s(1.0) * receiver["last_shown_us"]
    squares_s2 = receiver["squared_delays_s2"] + first_s**2 + last_s**2
    frames = encoder["next_frame"]
    qp = np.full(world.num_envs, MAX_QP)
    np.divide(encoder["qp_sum"], frames, out=qp, where=frames > 0)
    return {
        "frames_encoded": frames.copy(),
        "frames_rendered": receiver["frames_shown"].copy(),
        "key_frames": encoder["key_frames"].copy(),
        "pause_count": receiver["pause_count"].copy(),
        "harmonic_frame_rate_hz": duration_s / squares_s2,
        "jitter_buffer_delay_ms": _US_TO_MS
        * _ratio(receiver["buffer_delay_sum_us"], receiver["frames_shown"]),
        "video_qp": qp,
        "video_qp_sum": encoder["qp_sum"].copy(),
        **_per_class("video_qp_sum", encoder["class_qp_sum"]),
        **_per_class("frames_encoded", encoder["class_frames"]),
    }


def _per_class(name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A column for each class of picture sizes, from `values` of shape (num_envs, classes)."""
    return {
        f"{name}_{size}": column.copy()
        for size, column in zip(PICTURE_CLASSES, values.T, strict=True)
    }

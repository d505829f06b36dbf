"""Picture and sound: what getStats() tell of a recorded call, and the same of a simulated one.

Both give the same names, so that `experiments.validate_calls` can set them side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bwe_env.config import AudioConfig
from bwe_env.sim.audio import AUDIO, audio_on_packet, audio_reset
from bwe_env.sim.packet import KIND_PADDING, KIND_RTX, KIND_VIDEO
from bwe_env.units import s_to_ms, s_to_us, us_to_ms, us_to_s
from experiments.recorded_client import OVERHEAD_BYTES, RTP_HEADER_BYTES
from experiments.recordings import stats_column

#: Of the recordings' packets: the audio stream.
AUDIO_STREAM = 2
OPUS_CLOCK_HZ = 48_000


def _last(table: Mapping[str, Any], name: str) -> float:
    """The newest value of a counter of getStats(); 0 for one that never appeared."""
    values = table.get(name, 0)
    if isinstance(values, list):
        values = next((value for value in reversed(values) if value is not None), 0)
    return float(values)


# --- Picture, over the whole call -----------------------------------------------------------------


def recorded_picture(run: Mapping[str, Any]) -> dict[str, float]:
    """What getStats() of both ends say of the picture at the end of a recorded call."""
    sent = run["sender_stats"]["outbound-rtp:video"]
    shown = run["receiver_stats"]["inbound-rtp:video"]
    delays_s = _last(shown, "totalInterFrameDelay")
    buffered = _last(shown, "jitterBufferEmittedCount")
    return {
        "freezes": _last(shown, "freezeCount"),
        "frozen s": _last(shown, "totalFreezesDuration"),
        "frames/s": _last(shown, "framesDecoded") / delays_s,
        "harmonic fps": delays_s / _last(shown, "totalSquaredInterFrameDelay"),
        "RTX %": 100 * _last(sent, "retransmittedBytesSent") / _last(sent, "bytesSent"),
        "PLIs": _last(shown, "pliCount"),
        "mean QP": _last(sent, "qpSum") / _last(sent, "framesEncoded"),
        "buffer ms": s_to_ms(_last(shown, "jitterBufferDelay") / buffered),
    }


def simulated_picture(flow: Any) -> dict[str, float]:
    """The same of a simulated call's FLOW row at its end."""
    receiver, encoder, totals = flow["receiver"], flow["encoder"], flow["totals"]
    delays_s = us_to_s(int(receiver["last_shown_us"] - receiver["first_shown_us"]))
    header_bytes = RTP_HEADER_BYTES + OVERHEAD_BYTES
    payload_bytes = totals["sent_bytes"] - header_bytes * totals["sent_packets"]
    video_bytes = sum(int(payload_bytes[kind]) for kind in (KIND_VIDEO, KIND_RTX, KIND_PADDING))
    shown = int(receiver["frames_shown"])
    return {
        "freezes": float(receiver["freeze_count"]),
        "frozen s": us_to_s(int(receiver["freeze_us"])),
        "frames/s": shown / delays_s,
        "harmonic fps": delays_s / float(receiver["squared_delays_s2"]),
        "RTX %": 100 * float(payload_bytes[KIND_RTX]) / video_bytes,
        "PLIs": float(receiver["key_requests"]),
        "mean QP": float(encoder["qp_sum"]) / int(encoder["next_frame"]),
        "buffer ms": us_to_ms(int(receiver["buffer_delay_sum_us"])) / shown,
    }


# --- Sound, from a moment on ----------------------------------------------------------------------


def recorded_sound(run: Mapping[str, Any], from_s: float) -> dict[str, float]:
    """What getStats() of the receiver say of the sound of a recorded call after `from_s`."""
    stats = run["receiver_stats"]
    times_s = np.array(stats["t"], dtype=np.float64)
    late = times_s > from_s + float(run["summary"]["media_start_s"])

    def grown(name: str) -> float:
        column = stats_column(stats["inbound-rtp:audio"], name, len(times_s))[late]
        known = column[np.isfinite(column)]
        return float(known[-1] - known[0])

    return {
        "audio concealed %": 100 * grown("concealedSamples") / grown("totalSamplesReceived"),
        "audio buffer ms": s_to_ms(grown("jitterBufferDelay") / grown("jitterBufferEmittedCount")),
    }


def simulated_sound(audio: Any, before: Any) -> dict[str, float]:
    """The same of a simulated call between two moments.

    Args:
        audio: AUDIO row of the receiver at the end.
        before: the same row at the beginning.
    """

    def grown(name: str) -> int:
        return int(audio[name] - before[name])

    return {
        "audio concealed %": 100 * grown("concealed_us") / grown("played_us"),
        "audio buffer ms": us_to_ms(grown("delay_sum_us") / grown("played_frames")),
    }


def heard_sound(run: Mapping[str, Any], from_s: float) -> dict[str, float]:
    """The same of the simulator's audio receiver on the packets that the recorded one got."""
    packets = run["packets_fwd"]
    is_audio = np.array(packets["stream"]) == AUDIO_STREAM
    delay_us = np.array(packets["oneway_us"], dtype=np.int64)
    arrived = is_audio & (delay_us >= 0)
    ticks = np.array(packets["rtpts"], dtype=np.int64)
    frame_s = AudioConfig().packet_interval_s
    numbers = (ticks - ticks[is_audio].min()) // round(frame_s * OPUS_CLOCK_HZ)
    times_us = np.array(packets["t_us"], dtype=np.int64) + delay_us
    order = np.flatnonzero(arrived)[np.argsort(times_us[arrived], kind="stable")]
    audio = np.zeros(1, dtype=AUDIO)[0]
    audio_reset(audio, s_to_us(frame_s))
    start_us = s_to_us(from_s + float(run["summary"]["media_start_s"]))
    before = audio.copy()
    for packet in order:
        if times_us[packet] <= start_us:
            before = audio.copy()
        audio_on_packet(audio, int(numbers[packet]), int(times_us[packet]))
    return {
        name.replace("audio", "heard"): value
        for name, value in simulated_sound(audio, before).items()
    }


def lip_sync_ms(run: Mapping[str, Any]) -> float:
    """Mean of what lip synchronisation added to the audio jitter buffer's own target."""
    stats = run["receiver_stats"]
    audio = stats["inbound-rtp:audio"]
    names = ("jitterBufferTargetDelay", "jitterBufferMinimumDelay", "jitterBufferEmittedCount")
    target_s, least_s, emitted = (_last(audio, name) for name in names)
    return s_to_ms((target_s - least_s) / emitted)

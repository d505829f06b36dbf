"""A camera that stands still for a while, and goes on."""

from __future__ import annotations

from dataclasses import replace

from bwe_env.config import CallConfig, VideoConfig
from bwe_env.network import Network
from bwe_env.sim.packet import KIND_AUDIO, KIND_VIDEO
from bwe_env.trace import constant
from tests.sim.calls import OneCall

PAUSED = CallConfig(duration_s=20.0, video=VideoConfig(pause_from_s=8.0, pause_until_s=12.0))
NETWORK = Network(trace=constant(3e6, name="pause"), competing_calls=1)


def test_no_frame_is_captured_in_a_pause_and_audio_goes_on() -> None:
    call = OneCall(NETWORK, PAUSED)
    call.run_until(20.0)
    times_s = call.packets["send_us"] * 1e-6
    during = call.packets[(times_s > 8.5) & (times_s < 12.0)]  # 0.5 s for the pacer to run dry
    assert (during["kind"] != KIND_VIDEO).all()
    assert (during["kind"] == KIND_AUDIO).sum() > 150
    after = call.packets[times_s > 12.0]
    assert (after["kind"] == KIND_VIDEO).sum() > 200


def test_competing_calls_do_not_pause() -> None:
    call = OneCall(NETWORK, PAUSED)
    sent = []
    for time_s in (8.0, 12.0):
        call.run_until(time_s)
        sent.append(int(call.world.flows[1]["encoder"]["next_frame"]))
    assert sent[1] - sent[0] == 120


def test_a_pause_that_ends_before_it_begins_is_none() -> None:
    runs = []
    for video in (VideoConfig(), VideoConfig(pause_from_s=8.0, pause_until_s=8.0)):
        call = OneCall(NETWORK, replace(PAUSED, video=video))
        call.run_until(20.0)
        runs.append(call.packets.tobytes())
    assert runs[0] == runs[1]

"""What leaves when: bursts of 40 ms, queues that drain in 2 s, sound that never waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import CallConfig, VideoConfig
from bwe_env.network import Network
from bwe_env.sim._jit import NEVER
from bwe_env.sim.events import EVENT_FRAME
from bwe_env.sim.pacer import (
    PACER,
    pacer_elapse,
    pacer_next_send_us,
    pacer_on_audio,
    pacer_on_sent,
    pacer_padding_bytes,
    pacer_plan_wake,
    pacer_queue_packets,
    pacer_reset,
    pacer_set_rates,
    pacer_unqueue,
)
from bwe_env.sim.packet import KIND_AUDIO, KIND_PADDING, KIND_VIDEO
from bwe_env.trace import constant
from tests.sim.calls import PLAIN_VIDEO, SILENT, OneCall

ROOMY = Network(trace=constant(50e6))

#: Longest time that a packet may wait in the pacer.
QUEUE_LIMIT_US = 2_000_000


def frame_packets(call: OneCall, number: int) -> NDArray[Any]:
    rows = call.packets
    mine: NDArray[Any] = rows[(rows["kind"] == KIND_VIDEO) & (rows["frame"] == number)]
    return mine


def capture_us(call: OneCall, number: int) -> int:
    frame = call.world.frames[0][number]
    assert frame["number"] == number
    return int(frame["capture_us"])


# --- In a call ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [300_000, 2_000_000, 6_000_000])
def test_a_frame_of_average_size_leaves_as_one_burst_when_it_is_captured(rate: int) -> None:
    # It takes 33.3 ms at the target, 30.3 ms at 1.1 times that: less than the window of 40 ms.
    call = OneCall(ROOMY, CallConfig(video=PLAIN_VIDEO, audio=SILENT), mode="rate")
    call.run_until(2.0, rate)
    for number in range(1, 60):
        sent_us = frame_packets(call, number)["send_us"]
        assert sent_us.tolist() == [capture_us(call, number)] * len(sent_us)


def test_an_oversized_frame_is_spread_in_bursts_of_40_ms_by_hand() -> None:
    video = VideoConfig(encoder_lag_s=0.0, frame_size_sd=0.0, key_frame_ratio=4.0)
    call = OneCall(ROOMY, CallConfig(video=video, audio=SILENT), mode="rate")
    call.run_until(0.2, 1_000_000)
    # 1 Mbps are 4 packets a frame, with 38,400 bps of headers: 4006.67 bytes a frame are left, and
    # four times that for the key frame: 16,027 bytes in 14 packets, 11 of 1185 and 3 of 1184 bytes
    # with their headers. At 1.1 Mbps a packet takes 8.6 ms: the fifth is still let out, at 34.5 ms
    # of debt, and five packets take 5 * 1185 * 8 / 1.1 = 43,090.9 us to pay. The timer goes off at
    # the next whole millisecond, and the next five are paid for from 43,090 us on.
    rows = frame_packets(call, 0)
    assert rows["size_bytes"].tolist() == [1185] * 11 + [1184] * 3
    assert rows["send_us"].tolist() == [0] * 5 + [44_000] * 5 + [87_000] * 4
    # The next frame waits its turn behind it.
    assert frame_packets(call, 1)["send_us"][0] == 87_000


def test_in_no_span_does_the_pacer_send_more_than_its_rate_and_a_burst() -> None:
    video = VideoConfig(frame_size_sd=0.5, scene_change_interval_s=1.0)
    call = OneCall(ROOMY, CallConfig(video=video, audio=SILENT), mode="rate")
    call.run_until(10.0, 1_000_000)
    rows = call.packets
    assert (rows["kind"] == KIND_VIDEO).all()
    ahead_bits = np.cumsum(8.0 * rows["size_bytes"]) - 1.1 * rows["send_us"]
    before = np.minimum.accumulate(np.append(0.0, ahead_bits[:-1]))
    # 40 ms, and the packet that was let out just before they were used up.
    assert (ahead_bits - before).max() <= 1.1e6 * 0.04 + 8 * 1228


def with_a_quarter_of_a_megabyte_waiting() -> OneCall:
    """A call whose frame 88, at 2.9333 s, is ten times as large as 6 Mbps need; then 100 kbps."""
    video = VideoConfig(frame_size_sd=0.0, key_frame_ratio=10.0)
    call = OneCall(ROOMY, CallConfig(video=video, audio=SILENT), mode="rate", step_us=10_000)
    call.run_until(2.91, 6_000_000)
    call.flow.encoder.is_key_requested = 1
    call.run_until(2.94, 6_000_000)
    assert call.world.frames[0][88]["is_key"] == 1
    assert call.world.frames[0][88]["size_bytes"] > 240_000  # 17 s at 110 kbps
    return call


def test_a_queue_that_nothing_joins_is_drained_in_two_seconds_and_a_burst() -> None:
    call = with_a_quarter_of_a_megabyte_waiting()
    call.flow.timers_us[EVENT_FRAME] = NEVER  # the camera is switched off
    call.run_until(6.0, 100_000)
    rows = frame_packets(call, 88)
    assert len(rows) == call.world.frames[0][88]["num_packets"]
    waits_us = rows["send_us"] - capture_us(call, 88)
    # What is left always has just the time that is left: a straight line to the limit, where the
    # last burst waits for the one before it to be paid for (40 ms and a packet).
    assert 0.9 * QUEUE_LIMIT_US < waits_us.max() <= QUEUE_LIMIT_US + 50_000
    middle = waits_us[len(waits_us) // 2]
    assert middle == pytest.approx(QUEUE_LIMIT_US / 2, rel=0.05)


def test_the_camera_pauses_while_the_queue_would_take_more_than_two_seconds() -> None:
    call = with_a_quarter_of_a_megabyte_waiting()
    while call.now_us < 7_000_000:
        next_frame, captured = int(call.flow.encoder.next_frame), int(call.flow.encoder.captured)
        queue_us = call.flow.pacer.queue_bytes * 8e6 / 110_000
        call.step(100_000)
        if call.flow.encoder.captured > captured and abs(queue_us - QUEUE_LIMIT_US) > 300_000:
            was_coded = call.flow.encoder.next_frame > next_frame
            assert was_coded == (queue_us < QUEUE_LIMIT_US)
    encoder = call.flow.encoder
    assert encoder.captured - encoder.next_frame == call.flow.totals.skipped_frames > 40


def test_sound_leaves_every_20_ms_whatever_waits_in_the_pacer() -> None:
    video = VideoConfig(key_frame_ratio=20.0)
    call = OneCall(ROOMY, CallConfig(video=video), mode="rate")
    call.run_until(3.0, 500_000)
    rows = call.packets
    audio = rows[rows["kind"] == KIND_AUDIO]
    assert audio["send_us"].tolist() == list(range(0, 3_000_001, 20_000))
    waits_us = frame_packets(call, 0)["send_us"] - capture_us(call, 0)
    assert waits_us.max() > 350_000  # there was something to wait behind


def test_a_policy_that_sets_the_rate_sends_neither_probes_nor_padding_and_gcc_does() -> None:
    by_mode = {}
    for mode in ("rate", "gcc"):
        call = OneCall(ROOMY, CallConfig(), mode=mode)
        call.run_until(3.0, 300_000)
        rows = call.packets
        extra = (rows["kind"] == KIND_PADDING) | (rows["probe_cluster"] >= 0)
        by_mode[mode] = int(extra.sum())
    assert by_mode["rate"] == 0
    assert by_mode["gcc"] > 10


# --- The record alone -----------------------------------------------------------------------------

#: An idle pacer looks at its clock so often.
IDLE_US = 500_000


def pacer(*, rate_bps: int = 800_000, padding_bps: int = 0, cwnd_bytes: int = 0) -> Any:
    row = np.zeros(1, PACER)[0]
    row.burst_interval_us = 40_000
    row.queue_time_limit_us = QUEUE_LIMIT_US
    pacer_reset(row)
    pacer_set_rates(row, rate_bps, padding_bps, 0)
    row.cwnd_bytes = cwnd_bytes
    return row


def test_an_empty_pacer_without_padding_only_looks_at_its_clock() -> None:
    assert pacer_next_send_us(pacer(), 0, 1_000) == IDLE_US


def test_debt_delays_the_next_burst_until_it_is_paid_and_asking_twice_changes_nothing() -> None:
    row = pacer()
    pacer_queue_packets(row, 10_000, 10, 0)
    # 800 kbps are 0.1 bytes a microsecond: 1000 bytes take 10 ms.
    for _ in range(4):
        assert pacer_next_send_us(row, 0, 0) == 0
        pacer_on_sent(row, 1_000)
    # 40 ms of debt are not less than the window.
    assert pacer_next_send_us(row, 0, 0) == 40_000
    assert pacer_next_send_us(row, 0, 0) == 40_000
    assert pacer_next_send_us(row, 0, 15_000) == 40_000
    # Once 15 ms are paid, 25 ms are left: within the window.
    pacer_elapse(row, 15_000)
    assert pacer_next_send_us(row, 0, 15_000) == 15_000


def test_audio_passes_what_waits_and_adds_to_its_wait_but_does_not_let_it_go() -> None:
    row = pacer()
    pacer_queue_packets(row, 10_000, 10, 0)
    for _ in range(4):
        pacer_on_sent(row, 1_000)
    assert pacer_next_send_us(row, 0, 0) == 40_000
    # 20 ms later half of the debt is paid, which would let the next burst begin; 200 bytes of sound
    # take 2 ms, twice.
    pacer_on_audio(row, 200, 20_000)
    assert pacer_next_send_us(row, 0, 20_000) == 42_000
    pacer_on_audio(row, 200, 40_000)
    assert pacer_next_send_us(row, 0, 40_000) == 44_000
    # Then a whole burst: four packets are the 40 ms of the window.
    pacer_elapse(row, 44_000)
    sent = 0
    while pacer_next_send_us(row, 0, 44_000) <= 44_000:
        pacer_unqueue(row, 1_000, 0)
        pacer_on_sent(row, 1_000)
        sent += 1
    assert sent == 4
    # Sound within a burst that has room does not close it.
    row = pacer()
    pacer_queue_packets(row, 10_000, 10, 0)
    pacer_on_sent(row, 1_000)
    pacer_on_audio(row, 200, 1_000)
    assert pacer_next_send_us(row, 0, 1_000) == 1_000


def test_time_with_an_empty_queue_is_no_budget_but_pays_debts() -> None:
    row = pacer()
    pacer_queue_packets(row, 1_000, 1, 0)
    pacer_on_sent(row, 1_000)
    row.queue_bytes = row.queue_packets = 0
    pacer_queue_packets(row, 10_000, 10, 100_000)  # 10 ms of debt, 100 ms later
    for _ in range(4):
        assert pacer_next_send_us(row, 0, 100_000) == 100_000
        pacer_on_sent(row, 1_000)
    assert pacer_next_send_us(row, 0, 100_000) == 140_000


def test_a_burst_never_exceeds_63_kilobytes_however_fast_the_rate() -> None:
    row = pacer(rate_bps=100_000_000)  # 40 ms are 500 kB
    pacer_queue_packets(row, 200_000, 200, 0)
    sent = 0
    while pacer_next_send_us(row, 0, 0) == 0:
        pacer_on_sent(row, 1_000)
        sent += 1_000
    assert sent == 63_000
    assert pacer_next_send_us(row, 0, 0) == 5_040  # 63,000 bytes at 12.5 a microsecond


def test_a_full_congestion_window_holds_media_and_padding_back() -> None:
    row = pacer(padding_bps=100_000, cwnd_bytes=5_000)
    assert pacer_next_send_us(row, 5_000, 0) == IDLE_US
    assert pacer_next_send_us(row, 4_999, 0) == 0
    pacer_queue_packets(row, 1_000, 1, 0)
    assert pacer_next_send_us(row, 5_000, 0) == IDLE_US
    assert pacer_next_send_us(row, 4_999, 0) == 0


def test_padding_waits_for_the_debt_of_media_and_its_own() -> None:
    row = pacer(padding_bps=100_000)
    pacer_on_sent(row, 1_000)
    # 1000 bytes: 10 ms at the pacing rate, 80 ms at the padding rate.
    assert pacer_next_send_us(row, 0, 0) == 80_000
    pacer_elapse(row, 80_000)
    assert pacer_next_send_us(row, 0, 80_000) == 80_000


def test_the_timer_goes_off_after_whole_milliseconds_and_never_within_the_next_five() -> None:
    row = pacer()
    pacer_plan_wake(row, 20_300, 333)
    assert (row.task_us, row.wake_us) == (20_300, 20_333)
    pacer_plan_wake(row, 30_000, 333)  # later than what is planned
    assert row.wake_us == 20_333
    pacer_plan_wake(row, 1_000, 666)
    assert (row.task_us, row.wake_us) == (5_666, 5_666)


def test_at_high_rates_the_timer_is_held_back_for_three_packets_only() -> None:
    row = pacer(rate_bps=24_000_000)  # 1200 bytes take 400 us
    row.packet_bytes = 1_200.0
    pacer_plan_wake(row, 100, 0)
    assert (row.task_us, row.wake_us) == (1_200, 2_000)


@pytest.mark.parametrize("padding_bps", [1, 5, 799])
def test_the_smallest_padding_rate_sends_something_and_never_asks_for_ever(
    padding_bps: int,
) -> None:
    row = pacer(padding_bps=padding_bps)
    assert pacer_padding_bytes(row, 0) == 1
    row.padding_debt_bytes = 1
    assert pacer_padding_bytes(row, 0) == 0
    assert pacer_padding_bytes(pacer(), 0) == 0

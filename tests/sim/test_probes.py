"""Probe clusters on the wire: as fast and as long as GCC asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import CallConfig, VideoConfig
from bwe_env.network import Network
from bwe_env.sim.packet import KIND_AUDIO, KIND_PADDING, KIND_VIDEO
from bwe_env.trace import constant
from tests.sim.calls import PLAIN_VIDEO, SILENT, OneCall

#: A padding packet of 224 bytes with its RTP, UDP and IP headers.
SMALL_BYTES = 224 + 12 + 28

MIN_DURATION_US = 15_000
MIN_BURSTS = 5
BURST_US = 2_000

#: The first two clusters of a call: 3 and 6 times the start rate of 300 kbps.
INITIAL = {1: 900_000, 2: 1_800_000}


def initial_probes(video: VideoConfig) -> NDArray[Any]:
    """Packets of the first 100 ms, before any feedback is back."""
    network = Network(trace=constant(5e6))
    call = OneCall(network, CallConfig(video=video, audio=SILENT), step_us=100_000)
    call.step()
    rows = call.packets
    assert rows["kind"].max() != KIND_AUDIO
    return rows.copy()


def bursts(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Packets of a cluster, together where they were sent at the same moment."""
    return [rows[rows["send_us"] == moment] for moment in np.unique(rows["send_us"])]


@pytest.mark.parametrize(
    "video", [PLAIN_VIDEO, VideoConfig()], ids=["one-packet frame", "key frame"]
)
@pytest.mark.parametrize("cluster", [1, 2])
def test_the_initial_clusters_are_on_the_wire_at_3_and_6_times_the_start_rate(
    cluster: int, video: VideoConfig
) -> None:
    rows = initial_probes(video)
    rows = rows[rows["probe_cluster"] == cluster]
    rate = INITIAL[cluster]
    sent = bursts(rows)
    # Every burst leaves when what was sent before it has had its time at the probed rate, up to a
    # millisecond early: the timer is set for then, and goes off after whole milliseconds.
    for position in range(1, len(sent)):
        before_bits = 8 * sum(int(burst["size_bytes"].sum()) for burst in sent[:position])
        due_us = int(rows["send_us"][0]) + before_bits * 1_000_000 // rate
        set_us = int(sent[position - 1]["send_us"][0])
        assert sent[position]["send_us"][0] == set_us - (set_us - due_us + 1_000) // 1_000 * 1_000
    # What the estimator measures: all bytes but the last burst's, over the time until that.
    bits = 8 * sum(int(burst["size_bytes"].sum()) for burst in sent[:-1])
    span_us = int(rows["send_us"][-1] - rows["send_us"][0])
    assert rate * (1.0 - 1e-3) <= bits * 1e6 / span_us <= rate * span_us / (span_us - 1_000)
    # At least 15 ms at that rate, in at least 5 bursts, each of at least 2 ms but for the first,
    # and no more: one burst less would have been too little.
    sizes = [int(burst["size_bytes"].sum()) for burst in sent]
    assert len(sizes) >= MIN_BURSTS
    assert 8 * sum(sizes) * 1e6 / rate >= MIN_DURATION_US
    too_few = len(sizes) - 1 < MIN_BURSTS
    assert too_few or 8 * sum(sizes[:-1]) * 1e6 / rate < MIN_DURATION_US
    assert min(sizes) * 8 * 1e6 / rate >= BURST_US


def test_the_second_cluster_begins_with_a_small_padding_packet_and_the_first_with_media() -> None:
    rows = initial_probes(VideoConfig())
    probes = rows[rows["probe_cluster"] > 0]
    assert (np.diff(probes["probe_cluster"]) >= 0).all()
    # Padding has to follow media: there is nothing to take its timestamps from before.
    assert probes["kind"][0] == KIND_VIDEO
    first = probes[probes["probe_cluster"] == 2][0]
    assert first["kind"] == KIND_PADDING
    assert first["size_bytes"] == SMALL_BYTES


def test_a_padded_cluster_sends_a_burst_about_every_two_milliseconds() -> None:
    rows = initial_probes(PLAIN_VIDEO)
    second = rows[rows["probe_cluster"] == 2]
    gaps_us = np.diff([burst["send_us"][0] for burst in bursts(second)])
    # 2 ms at 1.8 Mbps are 450 bytes: two small packets, or one that repeats half a frame of media.
    assert gaps_us.min() >= BURST_US
    assert gaps_us.max() <= 700 * 8 / 1.8 + 1_000


def test_probing_padding_repeats_the_last_media_packet_where_that_is_not_far_too_large() -> None:
    rows = initial_probes(PLAIN_VIDEO)
    media_bytes = rows["size_bytes"][rows["kind"] == KIND_VIDEO].max()
    padding = rows[rows["kind"] == KIND_PADDING]
    assert set(padding["size_bytes"]) == {SMALL_BYTES, media_bytes + 2}


def test_nothing_is_probed_while_there_is_no_media_to_begin_with() -> None:
    config = CallConfig(video=VideoConfig(enabled=False))  # sound alone: its packets are too small
    call = OneCall(Network(trace=constant(5e6)), config)
    call.run_until(5.0)
    assert (call.packets["probe_cluster"] == -1).all()
    assert (call.packets["kind"] == KIND_AUDIO).all()


@pytest.mark.parametrize("capacity_bps", [1e6, 2e6, 5e6])
def test_the_initial_probes_find_the_capacity_within_a_second(capacity_bps: float) -> None:
    config = CallConfig(video=PLAIN_VIDEO, audio=SILENT)
    steps = OneCall(Network(trace=constant(capacity_bps)), config).run_until(1.5)
    reached = steps["target_rate_bps"][steps["time_s"] > 0.95]
    assert (reached >= 0.8 * min(capacity_bps, 5e6)).all()

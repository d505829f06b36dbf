"""The whole controller as an object: recordings replayed, misuse refused, compiler on and off."""

from __future__ import annotations

import copy
import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bwe_env.errors import ConfigError
from bwe_env.gcc import GccParameters, GoogCc
from bwe_env.gcc.goog_cc import PROCESS_INTERVAL_US
from experiments.validate_gcc import compare_files, replay

ROOT = Path(__file__).resolve().parents[2]
EXCERPTS = sorted((ROOT / "tests/data/gcc").glob("*.events.csv.gz"))
SHARED = ROOT.parent / "shared/reference/gcc"

#: A choice that reaches every box: both variants, over-use, loss, probes, pauses, long RTT.
SHARED_NAMES = (
    "open/probe_clusters",
    "open/stream_timeout",
    "open/loss40",
    "open/classic_loss20",
    "closed/applim_then_free_2M_alr",
    "closed/linkout2s_1M",
    "closed/classic_clean_1M",
)


@pytest.mark.parametrize("events", EXCERPTS, ids=lambda path: path.name.split(".")[0])
def test_a_recorded_excerpt_replays_on_every_column(events: Path) -> None:
    result = compare_files(events)
    assert result.first_difference == ""
    assert result.rows > 50
    assert max(result.worst.values()) < 1e-5


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_a_recording_of_libwebrtc_replays_on_every_column(name: str) -> None:
    events = SHARED / f"{name}.events.csv.gz"
    if not events.is_file():
        pytest.skip(f"{events} is not there: the recordings lie beside the checkout, not in it")
    result = compare_files(events)
    assert result.first_difference == ""
    assert result.rows > 1_000


def digest_of_replays() -> str:
    """The state after every row of the excerpts, to the last bit."""
    digest = hashlib.sha256()
    for path in EXCERPTS:
        with gzip.open(path, "rt") as lines:
            for row in replay(lines):
                digest.update(repr(row).encode())
    return digest.hexdigest()


def test_the_compiler_switched_off_gives_the_same_bits() -> None:
    script = "from tests.gcc.test_goog_cc import digest_of_replays; print(digest_of_replays())"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == digest_of_replays()


def call(
    controller: GoogCc, capacity_bps: int, seconds: float, *, start_s: float = 0.0
) -> Iterator[int]:
    """A source at the target rate over a link that delays by its queue; the target every 50 ms."""
    link_free_us = int(start_s * 1e6)
    pending: list[tuple[int, int]] = []  # (seq, arrival)
    step_us = PROCESS_INTERVAL_US
    for now_us in range(int(start_s * 1e6), int((start_s + seconds) * 1e6), step_us):
        controller.on_process_interval(now_us)
        size_bytes = max(controller.target_rate_bps * step_us // 8_000_000, 1)
        for _ in range(-(-size_bytes // 1200)):
            packet_bytes = size_bytes // -(-size_bytes // 1200)
            link_free_us = max(link_free_us, now_us) + packet_bytes * 8_000_000 // capacity_bps
            seq = controller.on_packet_sent(packet_bytes, now_us)
            pending.append((seq, link_free_us + 20_000))
        if now_us // step_us % 2:
            told = [(seq, t) for seq, t in pending if t + 20_000 <= now_us]
            pending = [(seq, t) for seq, t in pending if t + 20_000 > now_us]
            if told:
                controller.on_feedback(told[0][0], [t for _, t in told], now_us)
            yield controller.target_rate_bps


def test_over_a_link_of_1_mbps_the_target_stays_between_84_and_110_percent_of_it() -> None:
    targets = list(call(GoogCc(start_rate_bps=900_000), 1_000_000, 40))[200:]
    assert min(targets) >= 840_000  # 0.85 of it, less 5 kbps
    assert max(targets) <= 1_100_000
    assert min(targets) < 860_000 < 1_000_000 < max(targets)  # over-use, decrease, and again


def test_the_target_never_leaves_the_given_bounds() -> None:
    controller = GoogCc(min_rate_bps=100_000, start_rate_bps=400_000, max_rate_bps=600_000)
    targets = [*call(controller, 5_000_000, 10), *call(controller, 50_000, 10, start_s=10)]
    assert min(targets) == 100_000
    assert max(targets) == 600_000


def test_a_larger_decrease_factor_keeps_a_higher_rate_after_overuse() -> None:
    def lowest(decrease_factor: float) -> int:
        parameters = GccParameters(decrease_factor=decrease_factor)
        controller = GoogCc(parameters=parameters, start_rate_bps=900_000)
        return min(list(call(controller, 1_000_000, 20))[100:])

    assert lowest(0.95) > lowest(0.85) + 50_000


def test_equal_inputs_give_equal_decisions() -> None:
    assert list(call(GoogCc(), 700_000, 5)) == list(call(GoogCc(), 700_000, 5))


def test_a_copy_goes_its_own_way_and_an_undisturbed_one_the_same_way() -> None:
    controller = GoogCc()
    list(call(controller, 1_000_000, 2))
    twin = copy.deepcopy(controller)
    assert list(call(twin, 200_000, 3, start_s=2)) != list(call(controller, 800_000, 3, start_s=2))
    again = GoogCc()
    list(call(again, 1_000_000, 2))
    assert list(call(again, 800_000, 3, start_s=2))[-1] == controller.target_rate_bps


def test_probes_are_requested_once_and_handed_out_once() -> None:
    controller = GoogCc(start_rate_bps=300_000)
    assert controller.take_probes() == []
    controller.on_network_availability(True, now_us=0)
    assert [probe.target_rate_bps for probe in controller.take_probes()] == [900_000, 1_800_000]
    assert controller.take_probes() == []
    controller.on_network_availability(True, now_us=1)
    assert controller.take_probes() == []


def test_packets_count_as_in_flight_until_a_report_mentions_them_or_newer_ones() -> None:
    controller = GoogCc()
    for i in range(4):
        assert controller.on_packet_sent(1000, i * 5_000) == i
    assert controller.in_flight_bytes == 4_000
    controller.on_feedback(1, [30_000, None], 60_000)
    assert controller.in_flight_bytes == 1_000
    controller.on_feedback(0, [25_000], 70_000)
    assert controller.in_flight_bytes == 1_000


def test_a_packet_is_received_once_however_often_it_is_reported() -> None:
    controller = GoogCc()
    for i in range(30):
        controller.on_packet_sent(1000, i * 10_000)
    arrivals: list[int | None] = [20_000 + i * 10_000 for i in range(30)]
    controller.on_feedback(0, arrivals, 330_000)
    before = controller.state.tobytes()
    controller.on_feedback(0, arrivals, 340_000)
    controller.on_feedback(3, [None, None], 350_000)
    assert controller.state.tobytes() == before


def test_a_packet_reported_lost_may_still_arrive() -> None:
    controller = GoogCc()
    for i in range(12):
        controller.on_packet_sent(1000, i * 10_000)
    controller.on_feedback(0, [None, *(20_000 + i * 10_000 for i in range(1, 9))], 150_000)
    assert controller.state.acked_rate_bps == -1  # eight packets are too few
    controller.on_feedback(0, [120_000, None, 45_000], 160_000)
    assert controller.state.acked_rate_bps == -1  # nine: the third was known
    controller.on_feedback(9, [121_000], 170_000)
    assert controller.state.acked_rate_bps > 0


def test_silence_of_feedback_lowers_the_rate() -> None:
    controller = GoogCc()
    list(call(controller, 2_000_000, 5))
    before = controller.target_rate_bps
    for now_us in range(5_000_000, 12_000_000, PROCESS_INTERVAL_US):
        controller.on_packet_sent(1000, now_us)
        controller.on_process_interval(now_us)
    # From 3 s of silence on, a fifth less every second.
    assert controller.target_rate_bps <= before * 0.8**3
    assert controller.cwnd_reduce_ratio > 0.5


def test_feedback_about_packets_that_were_not_sent_is_refused() -> None:
    controller = GoogCc()
    controller.on_packet_sent(1000, 0)
    with pytest.raises(ValueError, match="tells of packets 0 to 1, but only packets 0 to 0"):
        controller.on_feedback(0, [1, 2], 100_000)
    with pytest.raises(ValueError, match="tells of packets -1 to -1"):
        controller.on_feedback(-1, [1], 100_000)


def test_an_empty_report_changes_nothing() -> None:
    controller = GoogCc()
    controller.on_packet_sent(1000, 0)
    before = controller.state.tobytes()
    controller.on_feedback(0, [], 100_000)
    assert controller.state.tobytes() == before


@pytest.mark.parametrize("ring_packets", [0, 1, 1000, -8])
def test_a_ring_that_is_no_power_of_two_is_refused(ring_packets: int) -> None:
    with pytest.raises(ConfigError, match=f"ring_packets={ring_packets} must be a power of two"):
        GoogCc(ring_packets=ring_packets)


def test_a_start_rate_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ConfigError, match="start_rate_bps=0 must be positive"):
        GoogCc(start_rate_bps=0)


def test_a_new_start_rate_counts_at_once_and_a_new_maximum_from_the_next_interval_on() -> None:
    controller = GoogCc(start_rate_bps=300_000)
    controller.on_process_interval(0)
    controller.on_constraints(30_000, 500_000, 0, 10_000)
    assert controller.target_rate_bps == 500_000
    assert controller.pacing_rate_bps == 550_000
    controller.on_constraints(30_000, -1, 200_000, 20_000)
    assert controller.target_rate_bps == 500_000  # as in libwebrtc
    controller.on_process_interval(PROCESS_INTERVAL_US)
    assert controller.target_rate_bps == 200_000


def test_the_streams_set_pacing_and_padding() -> None:
    controller = GoogCc(start_rate_bps=300_000)
    controller.on_process_interval(0)
    controller.on_streams_config(
        alr_probing=True,
        max_total_allocated_bps=1_000_000,
        max_padding_rate_bps=100_100,
        pacing_factor=2.5,
        now_us=1_000,
    )
    assert controller.pacing_rate_bps == 750_000
    assert controller.padding_rate_bps == 100_200  # in steps of 200 bps


def test_with_frame_dropping_off_the_pushback_lowers_the_target_itself() -> None:
    def after_silence(cwnd_drop_frames: bool) -> GoogCc:
        parameters = GccParameters(cwnd_drop_frames=cwnd_drop_frames)
        controller = GoogCc(parameters=parameters)
        list(call(controller, 2_000_000, 5))
        for now_us in range(5_000_000, 6_000_000, 5_000):
            controller.on_packet_sent(1200, now_us)
        return controller

    dropping, falling = after_silence(True), after_silence(False)
    assert falling.target_rate_bps < 0.5 * dropping.target_rate_bps
    assert falling.cwnd_reduce_ratio == 0.0
    assert dropping.cwnd_reduce_ratio > 0.5

"""The observation of the MMSys'24 challenge: against a naive twin, by hand, and on a real call."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bwe_env.feedback import PacketKind, PacketResult, SentPacket
from bwe_env.mmsys24 import (
    FEATURES,
    INTERVALS_US,
    NUM_INTERVALS,
    OBSERVATION_SIZE,
    SHAPE,
    Mmsys24Observer,
)
from tests.reference.naive_mmsys24 import naive_observation

RECORDED_CALL = (
    Path(__file__).resolve().parents[1].parent / "shared/reference/mmsys24/00917.json.gz"
)
KINDS: tuple[PacketKind, ...] = get_args(PacketKind)


def a_packet(
    seq: int,
    arrival_ms: float | None,
    *,
    delay_ms: float = 30.0,
    size_bytes: int = 1000,
    kind: PacketKind = "video",
) -> PacketResult:
    """A packet that arrives `delay_ms` after it was sent, or never."""
    arrival_us = None if arrival_ms is None else round(1000 * arrival_ms)
    send_us = 0 if arrival_us is None else arrival_us - round(1000 * delay_ms)
    return PacketResult(SentPacket(seq, send_us, size_bytes, kind=kind), arrival_us)


def observed(*packets: PacketResult) -> dict[str, NDArray[np.float32]]:
    """Features by name, shape (length of interval, interval), after all packets at once."""
    observer = Mmsys24Observer()
    observer.add(packets)
    return dict(zip(FEATURES, observer.observation().reshape(SHAPE), strict=True))


# --- By hand --------------------------------------------------------------------------------------


def test_the_newest_interval_comes_first_and_ends_with_the_last_arrival() -> None:
    # The last at 200 ms: (140, 200] holds two, (80, 140] the one at 140, (20, 80] none.
    seen = observed(
        a_packet(0, 0), a_packet(1, 140, size_bytes=300), a_packet(2, 141), a_packet(3, 200)
    )
    np.testing.assert_array_equal(seen["packets"][0], [2, 1, 0, 1, 0])
    np.testing.assert_array_equal(seen["packets"][1], [4, 0, 0, 0, 0])
    np.testing.assert_array_equal(seen["bytes"][0], [2000, 300, 0, 1000, 0])
    np.testing.assert_allclose(seen["receive_rate_bps"][0, :2], [16_000 / 0.06, 2400 / 0.06])
    np.testing.assert_allclose(seen["receive_rate_bps"][1, 0], 8 * 3300 / 0.6)


def test_the_first_packet_took_200_ms_whatever_the_clocks_say() -> None:
    for clock_offset_ms in (-5000.0, 0.0, 12.5):
        seen = observed(
            a_packet(0, 0, delay_ms=30 + clock_offset_ms),
            a_packet(1, 60, delay_ms=25 + clock_offset_ms),
            a_packet(2, 120, delay_ms=55 + clock_offset_ms),
            a_packet(3, 130, delay_ms=75 + clock_offset_ms),
        )
        # 200, then 195 (at 60 ms, in (10, 70]), then 225 and 245: the smallest is 195.
        np.testing.assert_allclose(seen["delay_ms"][0, :3], [35, -5, 0])
        np.testing.assert_allclose(seen["queuing_delay_ms"][0, :3], [40, 0, 5])
        np.testing.assert_allclose(seen["min_delay_ms"][0], [195, 195, 195, 0, 0])
        np.testing.assert_allclose(seen["delay_ratio"][0, 0], 235 / 225, rtol=1e-6)
        np.testing.assert_allclose(seen["delay_above_min_ms"][0, :2], [10, 0])


def test_a_gap_belongs_to_the_packet_behind_it_and_the_first_of_a_call_has_none() -> None:
    seen = observed(a_packet(0, 0), a_packet(1, 28), a_packet(2, 131), a_packet(3, 141))
    np.testing.assert_allclose(seen["mean_gap_ms"][0], [(103 + 10) / 2, 28, 0, 0, 0])
    np.testing.assert_allclose(seen["gap_deviation_ms"][0], [(103 - 10) / 2, 0, 0, 0, 0])


def test_losses_are_gaps_in_the_sequence_and_each_gap_is_a_burst() -> None:
    # 1, 2 and 4 are missing when 5 has come: of 6 packets three, in bursts of two and one.
    seen = observed(
        a_packet(0, 0), a_packet(1, None), a_packet(2, None), a_packet(3, 10), a_packet(5, 20)
    )
    np.testing.assert_allclose(seen["loss_ratio"][0, 0], 0.5)
    np.testing.assert_allclose(seen["loss_burst_packets"][0, 0], 1.5)


def test_retransmissions_and_fec_are_video_and_padding_is_probing() -> None:
    packets = [a_packet(seq, 5 * seq, kind=kind) for seq, kind in enumerate(KINDS)]
    seen = observed(*packets)
    np.testing.assert_allclose(seen["video_ratio"][0, 0], 3 / 5)
    np.testing.assert_allclose(seen["audio_ratio"][0, 0], 1 / 5)
    np.testing.assert_allclose(seen["probing_ratio"][0, 0], 1 / 5)


def test_nothing_has_arrived_reads_zero_and_silence_changes_nothing() -> None:
    observer = Mmsys24Observer()
    observer.add([a_packet(0, None)])
    assert not observer.has_arrivals
    np.testing.assert_array_equal(observer.observation(), np.zeros(OBSERVATION_SIZE))
    observer.add([a_packet(1, 10), a_packet(2, 25)])
    before = observer.observation()
    observer.add([])
    observer.add([a_packet(3, None)])
    assert observer.has_arrivals
    np.testing.assert_array_equal(observer.observation(), before)


def test_arrivals_that_go_back_in_time_are_refused() -> None:
    observer = Mmsys24Observer()
    observer.add([a_packet(0, 10)])
    with pytest.raises(ValueError, match="packet 1 arrived at 9000 us, before one at 10000 us"):
        observer.add([a_packet(1, 9)])


# --- Against the twin -----------------------------------------------------------------------------

calls = st.lists(
    st.tuples(
        st.integers(0, 400_000),  # since the arrival before, us
        st.floats(-40.0, 300.0),  # delay beyond 100 ms
        st.integers(40, 1500),
        st.sampled_from(KINDS),
        st.sampled_from([1, 1, 1, 2, 4]),  # step of the sequence number
        st.booleans(),  # observed behind it
    ),
    min_size=1,
    max_size=60,
)


@given(calls=calls)
def test_packet_by_packet_it_is_what_the_definition_says(
    calls: list[tuple[int, float, int, PacketKind, int, bool]],
) -> None:
    observer, packets, added = Mmsys24Observer(), [], 0
    arrival_us, seq = 7_000_000, 40
    for wait_us, delay_ms, size_bytes, kind, step, is_observed in calls:
        arrival_us, seq = arrival_us + wait_us, seq + step
        send_us = arrival_us - round(1000 * (100 + delay_ms))
        packets.append(PacketResult(SentPacket(seq, send_us, size_bytes, kind=kind), arrival_us))
        if is_observed:
            observer.add(packets[added:])
            added = len(packets)
            # float32, and a standard deviation from a difference of squares.
            np.testing.assert_allclose(
                observer.observation(), naive_observation(packets), rtol=2e-6, atol=2e-3
            )


def test_a_long_dense_call_forgets_nothing_that_still_counts() -> None:
    generator = np.random.default_rng(5)
    gaps_us = generator.integers(0, 9_000, 3_000)  # 3 s hold some 670: rings move and grow
    gaps_us[1_500] = 4_000_000  # longer than anything that is kept
    packets = [
        a_packet(seq, arrival_us / 1000, delay_ms=20 + delay_ms)
        for seq, (arrival_us, delay_ms) in enumerate(
            zip(np.cumsum(gaps_us), generator.exponential(15, 3_000), strict=True)
        )
        if seq == 0 or generator.random() > 0.03
    ]
    observer = Mmsys24Observer()
    for first in range(0, len(packets), 97):
        observer.add(packets[first : first + 97])
        naive = naive_observation(packets[: first + 97])
        np.testing.assert_allclose(observer.observation(), naive, rtol=2e-6, atol=2e-3)


# --- Identities, on our observations and on a recorded call ---------------------------------------


def check_identities(observations: NDArray[np.float64]) -> None:
    """What holds between the features of every observation of a call, shape (rows, 150).

    Tolerances: recorded numbers are of single precision, and so are ours.
    """
    rows = np.asarray(observations, dtype=np.float64).reshape(-1, *SHAPE)
    seen = dict(zip(FEATURES, np.moveaxis(rows, 1, 0), strict=True))
    packets = seen["packets"]
    filled = packets > 0
    lengths_s = 1e-6 * np.array(INTERVALS_US)[None, :, None]
    assert filled[:, :, 0].all()  # windows end with the last arrival
    np.testing.assert_allclose(seen["receive_rate_bps"], 8 * seen["bytes"] / lengths_s, rtol=1e-5)
    mean_ms = seen["delay_ms"] + 200
    least_ms = mean_ms - seen["delay_above_min_ms"]  # of the interval
    close = {"rtol": 1e-5, "atol": 1e-3}
    for name, expected in (
        ("queuing_delay_ms", mean_ms - seen["min_delay_ms"]),
        ("delay_ratio", mean_ms / np.maximum(least_ms, 1.0)),
    ):
        np.testing.assert_allclose(seen[name][filled], expected[filled], **close)
    # The smallest delay of the call is one number per row, set from the call's first interval on.
    least_of_call_ms = seen["min_delay_ms"][:, 0, 0]
    assert (np.diff(least_of_call_ms) <= 1e-3).all()
    assert least_of_call_ms[0] <= 200
    is_set = seen["min_delay_ms"] != 0
    assert is_set[filled].all()
    assert (np.diff(is_set.astype(int), axis=2) <= 0).all()
    np.testing.assert_array_equal(
        np.where(is_set, seen["min_delay_ms"], least_of_call_ms[:, None, None]),
        np.broadcast_to(least_of_call_ms[:, None, None], is_set.shape),
    )
    shares = seen["video_ratio"] + seen["audio_ratio"] + seen["probing_ratio"]
    np.testing.assert_allclose(shares, filled, atol=1e-5)
    # The last packet alone in its interval followed that much silence, unless it was the first.
    for length, length_s in enumerate(lengths_s[0, :, 0]):
        is_alone = (packets[:, length, 0] == 1) & is_set[:, length, 1]
        assert (seen["mean_gap_ms"][is_alone, length, 0] >= 1000 * length_s - 1e-3).all()
    np.testing.assert_allclose(seen["gap_deviation_ms"][packets == 1], 0, atol=1e-3)
    lost = seen["loss_ratio"] / np.maximum(1 - seen["loss_ratio"], 1e-9) * packets
    np.testing.assert_allclose(lost, np.round(lost), atol=1e-2)
    assert ((seen["loss_burst_packets"] >= 1) == (seen["loss_ratio"] > 0))[filled].all()
    for name, feature in seen.items():
        if name != "min_delay_ms":
            assert (feature[~filled] == 0).all(), name
    # The five short intervals make up half of the first long one.
    assert (packets[:, 0].sum(axis=1) <= packets[:, 1, 0]).all()


@given(calls=calls)
def test_the_identities_between_features_hold(
    calls: list[tuple[int, float, int, PacketKind, int, bool]],
) -> None:
    observer, observations, arrival_us, seq = Mmsys24Observer(), [], 1_000_000, 3
    for wait_us, delay_ms, size_bytes, kind, step, _ in calls:
        arrival_us, seq = arrival_us + wait_us, seq + step
        # No packet more than 140 ms faster than the first: delays stay well above 1 ms.
        send_us = arrival_us - round(1000 * (100 + max(delay_ms, -40.0)))
        observer.add([PacketResult(SentPacket(seq, send_us, size_bytes, kind=kind), arrival_us)])
        observations.append(observer.observation())
    first_is_slow = 200 + min(delay for _, delay, *_ in calls) - calls[0][1] < 2
    if not first_is_slow:
        check_identities(np.array(observations))


def test_they_hold_in_a_recorded_call_of_the_challenge() -> None:
    if not RECORDED_CALL.is_file():
        pytest.skip("the recorded call is not part of this repository")
    with gzip.open(RECORDED_CALL) as file:
        observations = np.array(json.load(file)["observations"])
    assert observations.shape == (1986, OBSERVATION_SIZE)
    check_identities(observations)
    # A row repeats where nothing has arrived.
    repeated = (observations[1:] == observations[:-1]).all(axis=1)
    assert repeated.sum() == 271


def test_the_index_of_a_feature_is_ten_times_its_number_and_its_interval() -> None:
    position = np.arange(OBSERVATION_SIZE).reshape(SHAPE)
    for number in range(len(FEATURES)):
        for k in range(NUM_INTERVALS):
            assert position[number, 0, k] == 10 * number + k
            assert position[number, 1, k] == 10 * number + 5 + k

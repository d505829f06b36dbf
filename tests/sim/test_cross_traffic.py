"""Others in the same queue: laws, windows by the RFCs, fairness, and a call among them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bwe_env.config import (
    CallConfig,
    FecConfig,
    FeedbackConfig,
    LinkConfig,
    LossConfig,
    OnOffTraffic,
    PathConfig,
    RelayConfig,
    TcpTraffic,
)
from bwe_env.config import VideoConfig as Video
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.rollout import run_calls
from bwe_env.sim.cross_traffic import CUBIC_C, w_cubic
from bwe_env.sim.packet import (
    FATE_AQM_DROP,
    FATE_DELIVERED,
    FATE_PENDING,
    FATE_POLICER_DROP,
    FATE_QUEUE_DROP,
    KIND_FEC,
    KIND_RTX,
    KIND_VIDEO,
    N_FATES,
    N_KINDS,
)
from bwe_env.trace import Trace, constant, square
from experiments.rfc8867_criteria import jain_index
from tests.sim.calls import SILENT, OneCall

#: A call of consent checks alone leaves the link to the others.
MUTE = CallConfig(duration_s=60.0, video=Video(enabled=False), audio=SILENT)
VIDEO = CallConfig(duration_s=60.0)

Source = OnOffTraffic | TcpTraffic


def network(
    *sources: Source, capacity_bps: float = 10e6, queue_s: float = 0.05, **link: Any
) -> Network:
    return Network(
        trace=constant(capacity_bps, name="shared"),
        link=LinkConfig(queue_limit_s=queue_s, **link),
        cross_traffic=sources,
    )


def play(
    a_network: Network, call: CallConfig = MUTE, *, seconds: float = 60.0, step_us: int = 100_000
) -> tuple[OneCall, NDArray[Any]]:
    """A call, and SOURCE rows after every step: shape (steps, sources)."""
    one = OneCall(a_network, replace(call, duration_s=seconds), step_us=step_us)
    rows = []
    while one.now_us < seconds * 1e6 and one.is_active:
        one.step()
        rows.append(one.world.sources[0].copy())
    return one, np.array(rows)


# --- Laws -----------------------------------------------------------------------------------------

tcp = st.builds(
    TcpTraffic,
    algorithm=st.sampled_from(["reno", "cubic"]),
    rtt_s=st.floats(0.001, 0.3),
    packet_bytes=st.integers(100, 1500),
    max_window_packets=st.integers(2, 500),
    ack_jitter_s=st.floats(0.0, 0.01),
    min_rto_s=st.floats(0.05, 1.0),
    start_s=st.floats(0.0, 2.0),
)
on_off = st.builds(
    OnOffTraffic,
    rate_bps=st.floats(1e4, 5e6),
    mean_on_s=st.floats(0.01, 2.0),
    mean_off_s=st.floats(0.0, 2.0),
    packet_bytes=st.integers(100, 1500),
    start_s=st.floats(0.0, 2.0),
)
links = st.builds(
    LinkConfig,
    queue_limit_s=st.floats(0.01, 0.5),
    discipline=st.sampled_from(["drop_tail", "codel", "pie"]),
    policer_rate_bps=st.one_of(st.just(0.0), st.floats(3e5, 3e6)),
    max_wait_s=st.one_of(st.just(0.0), st.floats(0.02, 0.3)),
    grant_interval_s=st.one_of(st.just(0.0), st.floats(0.001, 0.02)),
)
shared = st.builds(
    Network,
    trace=st.sampled_from(
        [
            constant(1e6, name="t"),
            square(4e6, 0.0, half_period_s=0.7),
            square(2e6, 3e5, half_period_s=1.0),
        ]
    ),
    link=links,
    cross_traffic=st.lists(st.one_of(tcp, on_off), min_size=1, max_size=4).map(tuple),
    competing_calls=st.integers(0, 2),
)


def queued(call: OneCall) -> NDArray[Any]:
    link, ring = call.call.link, call.world.queues[0]
    return ring[np.arange(link.head, link.tail) & (len(ring) - 1)]


@settings(max_examples=30, deadline=None)
@given(shared, st.integers(1, 1000))
def test_every_byte_of_everybody_is_delivered_dropped_with_its_cause_or_under_way(
    a_network: Network, key: int
) -> None:
    call = OneCall(a_network, replace(VIDEO, duration_s=6.0), key=key)
    while call.now_us < 6_000_000:
        call.step()
        entries = queued(call)
        assert call.call.link.queue_bytes == entries["size_bytes"].sum()
        for number, source in enumerate(call.world.sources[0][: len(a_network.cross_traffic)]):
            mine = entries["size_bytes"][entries["flow"] == -1 - number]
            for unit, in_queue in (("bytes", mine.sum()), ("packets", len(mine))):
                gone = source[f"departed_{unit}"] + source[f"fate_{unit}"].sum()
                assert source[f"sent_{unit}"] == gone + in_queue
            assert source["una"] <= source["expected_seq"] <= source["next_seq"]
            assert source["next_seq"] - source["una"] <= max(1, source["max_window"])
            assert 0 <= source["pipe"] <= source["next_seq"] - source["una"]
            assert source["timer_us"] > call.now_us
        for totals in call.world.flows["totals"][: call.call.num_flows]:
            assert totals["fate_bytes"].sum() == totals["sent_bytes"].sum()


lossy = st.builds(
    PathConfig,
    propagation_delay_s=st.floats(0.005, 0.2),
    loss=st.one_of(
        st.floats(0.0, 0.2).map(lambda p: LossConfig(good_loss=p)),
        st.just(LossConfig(bad_loss=0.8, good_to_bad=0.02, bad_to_good=0.2)),
    ),
)
crowds = st.builds(
    replace,
    shared,
    forward=lossy,
    reverse=lossy,
    relay=st.one_of(st.none(), st.builds(RelayConfig, forward=lossy, reverse=lossy)),
    competing_added_delay_s=st.just(()),
)


@settings(max_examples=30, deadline=None)
@given(crowds, st.integers(1, 1000), st.booleans())
def test_video_of_every_call_in_a_crowd_arrives_once_or_is_recovered_or_lost_with_its_cause(
    a_network: Network, key: int, fec: bool
) -> None:
    video = Video(fec=FecConfig(enabled=fec), scene_change_interval_s=2.0)
    call = OneCall(a_network, replace(VIDEO, duration_s=6.0, video=video), key=key)
    call.run_until(6.0)
    for index in range(call.call.num_flows):
        flow = call.world.flows[index]
        assert flow["history"]["next_seq"] <= call.packet_rows
        rows = call.world.packets[index, : flow["history"]["next_seq"]]
        totals, fates, kinds = flow["totals"], rows["fate"], rows["kind"]
        # By kind and by fate, in packets and bytes, refused ones apart.
        for kind in range(N_KINDS):
            mine = rows[kinds == kind]
            assert totals["sent_packets"][kind] >= len(mine)
            if totals["refused_packets"] == 0:
                assert totals["sent_packets"][kind] == len(mine)
                assert totals["sent_bytes"][kind] == mine["size_bytes"].sum()
        for fate in set(range(N_FATES)) - {FATE_QUEUE_DROP}:
            mine = rows[fates == fate]
            assert totals["fate_packets"][fate] == len(mine)
            assert totals["fate_bytes"][fate] == mine["size_bytes"].sum()
        # A packet that was recovered had been lost, and is recovered once: by a repeat or by FEC.
        is_video = kinds == KIND_VIDEO
        recovered = rows["is_repaired"] == 1
        assert (kinds[recovered] == KIND_VIDEO).all()
        assert not np.isin(fates[recovered], (FATE_DELIVERED, FATE_PENDING)).any()
        repeats = ((kinds == KIND_RTX) & (fates == FATE_DELIVERED)).sum()
        by_repeat = repeats - totals["duplicate_packets"]
        assert recovered.sum() == by_repeat + totals["fec_recovered"]
        assert fec or totals["fec_recovered"] == totals["sent_packets"][KIND_FEC] == 0
        # No frame has a packet twice, and none is shown without all of its own.
        there = is_video & ((fates == FATE_DELIVERED) | recovered)
        counts = np.bincount(rows["frame"][there], minlength=flow["encoder"]["next_frame"] + 1)
        frames = call.world.frames[index]
        for frame in frames[frames["number"] >= 0]:
            assert frame["num_received"] <= counts[frame["number"]]
            assert frame["num_received"] <= frame["num_packets"]
            if frame["show_us"] > 0:
                assert frame["num_received"] == frame["num_packets"] == counts[frame["number"]]


@settings(max_examples=10, deadline=None)
@given(shared)
def test_all_together_never_get_more_than_the_capacity(a_network: Network) -> None:
    a_network = replace(a_network, link=replace(a_network.link, grant_interval_s=0.0))
    call, rows = play(a_network, VIDEO, seconds=6.0)
    trace: Trace = a_network.trace
    repeats = int(np.ceil(6e6 / trace.period_us))
    ends_us = np.cumsum(np.tile(trace.duration_us, repeats))
    bits = np.cumsum(np.tile(trace.duration_us * trace.capacity_bps * 1e-6, repeats))
    capacity_bits = float(np.interp(6e6, np.append(0, ends_us), np.append(0.0, bits)))
    flows = call.world.flows["totals"][: call.call.num_flows]
    own_bits = 8 * int(flows["fate_bytes"][:, FATE_DELIVERED].sum())
    cross_bits = 8 * int(rows[-1]["departed_bytes"][: len(a_network.cross_traffic)].sum())
    assert own_bits + cross_bits <= capacity_bits + 1e-3


def test_a_call_without_cross_traffic_is_the_same_whoever_else_is_in_the_batch() -> None:
    alone = Network(trace=constant(1e6, name="alone"))
    crowd = network(TcpTraffic(), OnOffTraffic(), capacity_bps=2e6)
    calls = Network(trace=constant(2e6, name="calls"), competing_calls=2)
    config = replace(VIDEO, duration_s=10.0)
    expected = run_calls([alone], "gcc", seeds=(5,), call=config)
    for networks in ([alone, crowd], [alone, calls], [alone, crowd, calls]):
        table = run_calls(networks, "gcc", seeds=(5,), call=config)
        for name, column in expected.items():
            np.testing.assert_array_equal(table[name][:1], column, err_msg=name)
    assert expected["link_share"][0] == 1.0
    assert expected["cross_traffic_bps"][0] == 0.0


def test_equal_keys_give_equal_cross_traffic_and_others_give_other() -> None:
    noisy = network(OnOffTraffic(mean_on_s=0.5, mean_off_s=0.5), TcpTraffic(), capacity_bps=2e6)
    ends = []
    for key in (1, 1, 2):
        call = OneCall(noisy, replace(VIDEO, duration_s=10.0), key=key)
        call.run_until(10.0)
        ends.append(call.world.sources.tobytes())
    assert ends[0] == ends[1] != ends[2]


# --- On/off ---------------------------------------------------------------------------------------


def test_an_on_off_source_sends_its_rate_for_its_share_of_the_time() -> None:
    source = OnOffTraffic(rate_bps=2e6, mean_on_s=0.2, mean_off_s=0.6, packet_bytes=500)
    _, rows = play(network(source), seconds=600.0)
    # 750 periods; each time is exponential: the share is off by 5 % at one standard deviation.
    assert rows[-1]["sent_bytes"][0] * 8 / 600.0 == pytest.approx(0.25 * 2e6, rel=0.15)
    sent_bits = np.diff(rows["sent_bytes"][:, 0], prepend=0) * 8
    assert sent_bits.max() <= 2e6 * 0.1 + 2 * 500 * 8
    assert (sent_bits == 0).mean() > 0.5


def test_a_source_that_is_always_on_sends_exactly_its_rate_between_start_and_stop() -> None:
    source = OnOffTraffic(rate_bps=1e6, mean_off_s=0.0, packet_bytes=1250, start_s=2.0, stop_s=7.0)
    _, rows = play(network(source), seconds=10.0)
    assert rows["sent_packets"][19, 0] <= 1
    assert rows[-1]["sent_packets"][0] == 500  # 5 s of one each 10 ms


# --- TCP ------------------------------------------------------------------------------------------


def test_the_first_round_trips_double_the_window_as_slow_start_says() -> None:
    source = TcpTraffic(rtt_s=0.1, ack_jitter_s=0.0)
    _, rows = play(network(source, capacity_bps=1e9), seconds=1.0, step_us=20_000)
    at_ms = {20 * (step + 1): int(row["next_seq"][0]) for step, row in enumerate(rows)}
    # 10 packets at 0 (RFC 6928), then with every ACK two more: 10, 30, 70, 150 in all.
    assert [at_ms[ms] for ms in (80, 180, 280, 380)] == [10, 30, 70, 150]


def test_renos_window_halves_at_a_loss_and_grows_by_one_packet_per_round_trip() -> None:
    _, rows = play(network(TcpTraffic(algorithm="reno")), step_us=20_000)
    cwnd, recoveries = rows["cwnd"][:, 0], rows["fast_recoveries"][:, 0]
    late = np.arange(len(rows)) > 500
    drops = np.flatnonzero((np.diff(recoveries) == 1) & late[1:])
    assert len(drops) > 8
    ratios = cwnd[drops + 1] / cwnd[drops]
    assert np.abs(ratios - 0.5).max() < 0.05  # it may have grown by a packet or two within a step
    for first, last in itertools.pairwise(drops):
        grown = cwnd[last] - cwnd[first + 1]
        rtts_s = 0.02 * (last - first) / (rows["srtt_us"][first:last, 0].mean() * 1e-6)
        assert grown == pytest.approx(rtts_s, rel=0.2)


def test_cubic_returns_to_its_last_maximum_after_k_seconds_as_its_equation_says() -> None:
    w_max, start = 100.0, 70.0
    k_s = ((w_max - start) / CUBIC_C) ** (1 / 3)
    assert w_cubic(w_max, k_s, 0.0) == pytest.approx(start)
    assert w_cubic(w_max, k_s, k_s) == w_max
    assert w_cubic(w_max, k_s, k_s + 1.0) == pytest.approx(w_max + CUBIC_C)


def test_cubics_window_shrinks_to_seven_tenths_at_a_loss() -> None:
    _, rows = play(network(TcpTraffic(rtt_s=0.1), queue_s=0.1), step_us=20_000)
    cwnd, recoveries = rows["cwnd"][:, 0], rows["fast_recoveries"][:, 0]
    drops = np.flatnonzero((np.diff(recoveries) == 1) & (np.arange(1, len(rows)) > 500))
    assert len(drops) >= 5
    assert np.abs(cwnd[drops + 1] / cwnd[drops] - 0.7).max() < 0.05


@pytest.mark.parametrize("algorithm", ["reno", "cubic"])
@pytest.mark.parametrize("rtt_s", [0.02, 0.1])
def test_one_flow_fills_a_link_with_a_buffer_of_one_bandwidth_delay_product(
    algorithm: Any, rtt_s: float
) -> None:
    source = TcpTraffic(algorithm=algorithm, rtt_s=rtt_s)
    _, rows = play(network(source, queue_s=rtt_s))
    departed = rows["departed_bytes"][:, 0]
    assert departed[-1] * 8 / 60.0 > 0.9 * 10e6
    # And what it sends again is what was lost, but for a few after timeouts.
    source_row = rows[-1][0]
    resent = source_row["sent_packets"] - source_row["next_seq"]
    assert resent <= source_row["fate_packets"].sum() + 100


def test_a_receivers_window_limits_the_rate_to_a_window_per_round_trip() -> None:
    source = TcpTraffic(rtt_s=0.1, max_window_packets=20, ack_jitter_s=0.0)
    _, rows = play(network(source), seconds=20.0)
    rate_bps = (rows["departed_bytes"][-1, 0] - rows["departed_bytes"][49, 0]) * 8 / 15.0
    # One window of 30 kB per 0.1 s and the service of one packet of 1.2 ms.
    assert rate_bps == pytest.approx(20 * 1500 * 8 / 0.1012, rel=0.02)
    assert rows[-1]["fate_packets"][0].sum() == 0


def test_a_retransmission_timer_backs_off_in_an_outage_and_the_flow_recovers() -> None:
    trace = Trace(
        "gap",
        "pattern",
        "test",
        np.array([5_000_000, 6_000_000, 30_000_000]),
        np.array([2e6, 0.0, 2e6]),
    )
    source = TcpTraffic(rtt_s=0.05)
    one = Network(trace=trace, link=LinkConfig(queue_limit_bytes=30_000), cross_traffic=(source,))
    _, rows = play(one, seconds=20.0)
    timeouts = rows["timeouts"][:, 0]
    during = timeouts[109] - timeouts[49]
    assert 3 <= during <= 6  # 0.2, 0.4, 0.8, 1.6, ... s apart, not 30 of 0.2 s
    late = (rows["departed_bytes"][-1, 0] - rows["departed_bytes"][149, 0]) * 8 / 5.0
    assert late > 0.9 * 2e6


@pytest.mark.parametrize("min_rto_s", [0.2, 1.0])
def test_the_floor_of_the_retransmission_timer_is_an_option(min_rto_s: float) -> None:
    _, rows = play(network(TcpTraffic(rtt_s=0.01, min_rto_s=min_rto_s)), seconds=10.0)
    assert rows[-1]["rto_us"][0] == min_rto_s * 1e6


# --- Sharing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["reno", "cubic"])
@pytest.mark.parametrize("capacity_bps", [5e6, 10e6, 20e6])
def test_two_equal_flows_share_fairly(algorithm: Any, capacity_bps: float) -> None:
    first = TcpTraffic(algorithm=algorithm, rtt_s=0.05)
    pair = network(first, replace(first, start_s=1.0), capacity_bps=capacity_bps, queue_s=0.05)
    indices = []
    for key in range(1, 5):
        call = OneCall(pair, MUTE, key=key)
        call.run_until(60.0)
        indices.append(jain_index(call.world.sources[0]["departed_bytes"][:2]))
    assert min(indices) > 0.95


def test_a_shorter_round_trip_gets_the_larger_share_of_reno() -> None:
    near, far = TcpTraffic(algorithm="reno", rtt_s=0.02), TcpTraffic(algorithm="reno", rtt_s=0.2)
    _, rows = play(network(near, far))
    departed = rows[-1]["departed_bytes"]
    assert departed[0] > 2 * departed[1] > 0


@pytest.mark.parametrize("discipline", ["codel", "pie"])
def test_a_queue_discipline_keeps_the_delay_of_a_bulk_flow_near_its_target(discipline: str) -> None:
    def delay_ms(**link: Any) -> tuple[float, float]:
        ping = OnOffTraffic(rate_bps=40_000.0, mean_off_s=0.0, packet_bytes=100)
        _, rows = play(network(TcpTraffic(), ping, queue_s=0.5, **link))
        source = rows[-1][0]
        return float(np.median(rows["srtt_us"][100:, 0]) / 1000 - 51.0), float(
            source["departed_bytes"] * 8 / 60 / 10e6
        )

    managed_ms, used = delay_ms(discipline=discipline)
    drop_tail_ms, _ = delay_ms()
    assert managed_ms < 40.0 < 200.0 < drop_tail_ms
    assert used > 0.8


def test_drops_of_cross_traffic_carry_their_cause() -> None:
    for link, fate in (
        ({"discipline": "codel", "queue_s": 1.0}, FATE_AQM_DROP),
        ({"policer_rate_bps": 5e6}, FATE_POLICER_DROP),
        ({}, FATE_QUEUE_DROP),
        ({"queue_s": 1.0, "max_wait_s": 0.05}, FATE_QUEUE_DROP),
    ):
        _, rows = play(network(TcpTraffic(), **link), seconds=20.0)  # type: ignore[arg-type]
        packets = rows[-1]["fate_packets"][0]
        assert packets[fate] > 0
        assert packets.sum() == packets[fate]


def test_gcc_keeps_a_small_share_beside_a_bulk_flow_that_fills_a_deep_queue() -> None:
    crowded = network(TcpTraffic(), capacity_bps=3e6, queue_s=0.3)
    table = run_calls([crowded], "gcc", seeds=(0, 1, 2), call=VIDEO)
    print(
        f"GCC beside one CUBIC flow, 3 Mbps, 300 ms drop-tail: "
        f"{table['mean_receive_bps'].mean() / 1e3:.0f} kbps, share {table['link_share'].mean():.3f}"
    )
    assert (table["link_share"] > 0.01).all()
    assert (table["link_share"] < 0.3).all()
    assert not table["dropped"].any()
    total = table["mean_receive_bps"] + table["cross_traffic_bps"]
    assert (total > 0.9 * 3e6).all()
    assert (total <= 3e6).all()


#: What a call sends at its lowest: sound with its headers (32 + 16 kbps), video of 30 kbps with its
#: own (10 kbps at 30 Hz).
LEAST_BPS = 88_000.0
STATIC = {"threshold_gain_up": 0.0, "threshold_gain_down": 0.0, "loss_estimator": "classic"}
DRAFT = {"threshold_gain_up": 0.01, "threshold_gain_down": 0.00018, "loss_estimator": "classic"}


@pytest.mark.parametrize(
    ("name", "parameters", "least_share", "most_share"),
    [
        ("small static threshold", STATIC | {"threshold_initial_ms": 6.0}, 0.0, 0.06),
        ("large static threshold", STATIC | {"threshold_initial_ms": 60.0}, 1 / 3, 0.9),
        ("adaptive as in the draft", DRAFT, 1 / 3, 2 / 3),
        ("adaptive as in libwebrtc", {}, 0.0, 1 / 3),
    ],
)
def test_a_small_static_threshold_starves_gcc_beside_tcp_and_an_adaptive_one_saves_it(
    name: str, parameters: dict[str, Any], least_share: float, most_share: float
) -> None:
    """draft-ietf-rmcat-gcc-02 section 5.4, from De Cicco, Carlucci and Mascolo, Packet Video 2013:
    a static threshold lets a concurrent TCP flow starve GCC, a larger one avoids it, and so does an
    adaptive one with K_u = 0.01 and K_d = 0.00018.

    Starved: hardly more than the least that a call sends. A fair share: within a factor of two of
    TCP's rate (RFC 5348 section 1). libwebrtc M150 has K_u = 0.0087 and K_d = 0.039, against the
    draft's recommendation of K_u > K_d: it gives way beside a deep queue.
    """
    shared = network(TcpTraffic(), capacity_bps=2e6, queue_s=0.3)
    gcc = GccParameters(**parameters)
    call = replace(VIDEO, duration_s=120.0)
    table = run_calls([shared], "gcc", seeds=(0, 1, 2), call=call, gcc=gcc)
    shares = table["link_share"]
    print(f"GCC beside one CUBIC flow, 2 Mbps, 300 ms, {name}: share {np.round(shares, 3)}")
    assert (shares >= least_share).all()
    assert (shares <= most_share).all()
    if most_share < 0.1:
        assert (table["mean_receive_bps"] < 1.3 * LEAST_BPS).all()
    # A loss-based flow fills the queue whoever shares it: most of 300 ms, most of the time.
    assert (table["queue_delay_ms_p50"] > 200.0).all()


def test_without_tcp_the_queue_is_short_whatever_the_threshold_does() -> None:
    for parameters in (DRAFT, {}):
        gcc = GccParameters(**parameters)  # type: ignore[arg-type]
        table = run_calls([network(capacity_bps=2e6, queue_s=0.3)], "gcc", seeds=(0,), gcc=gcc)
        assert table["queue_delay_ms_p50"][0] < 60.0


def test_a_call_regains_the_link_when_the_bulk_flow_ends() -> None:
    crowded = network(TcpTraffic(start_s=10.0, stop_s=25.0), capacity_bps=2e6, queue_s=0.3)
    call = OneCall(crowded, VIDEO)
    rate_bps = call.run_until(60.0)["receive_rate_bps"]
    assert rate_bps[200:250].mean() < 0.5 * rate_bps[50:100].mean()
    assert rate_bps[550:].mean() > 0.7 * 2e6


# --- Competing calls ------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity_bps", [2e6, 4e6])
def test_two_gcc_calls_share_a_link_fairly(capacity_bps: float) -> None:
    pair = Network(trace=constant(capacity_bps, name="pair"), competing_calls=1)
    table = run_calls([pair], "gcc", seeds=range(12), call=replace(VIDEO, duration_s=120.0))
    own, other = table["mean_receive_bps"], table["cross_traffic_bps"]
    indices = [jain_index(rates) for rates in zip(own, other, strict=True)]
    print(f"two GCC calls at {capacity_bps / 1e6:g} Mbps: Jain {np.round(indices, 3).tolist()}")
    # Two cameras keep the phase they began with, so one call may stay ahead for the whole of a run:
    # of 24 runs the mean was 0.95 to 0.97, the worst 0.84.
    assert np.mean(indices) > 0.9
    assert (own + other > 0.8 * capacity_bps).all()
    assert (own + other <= capacity_bps).all()


def test_a_competing_call_that_loses_its_consent_hangs_up_alone() -> None:
    pair = Network(trace=constant(3e6, name="pair"), competing_calls=1)
    call = OneCall(pair, replace(VIDEO, duration_s=40.0))
    call.run_until(5.0)
    other = call.world.flows[1]
    other["drop_timeout_us"] = 1  # the next consent response makes it expire at once
    call.run_until(20.0)
    assert call.is_active
    sent = int(other["totals"]["sent_packets"].sum())
    call.run_until(40.0)
    assert call.is_active
    assert int(other["totals"]["sent_packets"].sum()) == sent > 0
    assert call.flow.totals.sent_packets.sum() > 2 * sent


def test_an_action_acts_on_the_calls_own_sender_alone() -> None:
    pair = Network(trace=constant(3e6, name="pair"), competing_calls=1)
    call = OneCall(pair, VIDEO, mode="rate")
    call.run_until(20.0, 500_000.0)
    own, other = call.world.flows["target_rate_bps"][:2]
    assert own == 500_000
    assert other > 1_000_000


def test_a_competing_call_sends_nothing_before_its_start_and_then_begins_like_any_other() -> None:
    late = Network(
        trace=constant(3e6, name="late"), competing_calls=2, competing_start_s=(0.0, 7.25)
    )
    call = OneCall(late, VIDEO, step_us=10_000)
    others = call.world.flows[1:3]
    call.run_until(7.25 - 0.01)
    sent = others["totals"]["sent_packets"].sum(axis=1)
    assert sent[0] > 1000
    assert sent[1] == 0
    call.run_until(20.0)
    first = call.world.packets[2, 0]
    assert others["history"]["next_seq"][1] < len(call.world.packets[2])
    assert first["send_us"] == 7_250_000
    assert others["target_rate_bps"][1] > 300_000


def test_an_added_delay_lengthens_the_round_trip_of_its_own_call_alone() -> None:
    sound = CallConfig(video=Video(enabled=False))
    alone = Network(trace=constant(20e6, name="wide"), competing_calls=2)
    far = replace(alone, competing_added_delay_s=(0.04,))
    rtts = []
    for a_network in (alone, far):
        call = OneCall(a_network, sound)
        call.run_until(5.0)
        rtts.append(call.world.flows["rtt_us"][:3].copy())
    assert (rtts[1] - rtts[0]).tolist() == [0, 80_000, 0]


# --- Files ----------------------------------------------------------------------------------------


def test_files_of_one_size_arrive_whole_one_after_another_with_idle_times_between() -> None:
    tcp = TcpTraffic(min_file_bytes=150_000, max_file_bytes=150_000, mean_idle_s=2.0, rtt_s=0.03)
    _, rows = play(network(tcp), seconds=120.0)
    sent, arrived = rows["next_seq"][:, 0], rows["una"][:, 0]
    is_idle = sent == arrived
    assert (arrived[is_idle] % 100 == 0).all()
    files = int(arrived[-1]) // 100
    # 10 Mbps carries a file in some 0.3 s: a period is about 2.3 s, its sd over 52 files is 0.3 s.
    assert 35 <= files <= 75
    assert 0.7 < is_idle.mean() < 0.95


def test_sizes_of_files_lie_between_the_two_that_are_given() -> None:
    tcp = TcpTraffic(
        min_file_bytes=30_000, max_file_bytes=300_000, mean_idle_s=0.5, starts_idle=True
    )
    _, rows = play(network(tcp), seconds=120.0, step_us=20_000)
    ends = np.unique(rows["end_seq"][:, 0])
    assert ends[0] == 0  # no file before the first idle time has passed
    sizes = np.diff(ends)
    assert len(sizes) > 50
    assert sizes.min() >= 20
    assert sizes.max() <= 200
    # Uniform: mean 110 packets, sd 52.
    assert abs(sizes.mean() - 110) < 4 * 52 / np.sqrt(len(sizes))


def test_a_file_begins_with_the_first_window_of_a_new_connection() -> None:
    tcp = TcpTraffic(min_file_bytes=600_000, max_file_bytes=600_000, mean_idle_s=1.0, rtt_s=0.2)
    _, rows = play(network(tcp, capacity_bps=5e6), seconds=60.0, step_us=5_000)
    begins = np.flatnonzero(np.diff(rows["end_seq"][:, 0]) > 0) + 1
    assert len(begins) > 5
    assert (rows["cwnd"][begins, 0] == 10.0).all()
    assert (rows["pipe"][begins, 0] == 10).all()


# --- Impossible values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnOffTraffic(rate_bps=0.0), "on_off.rate_bps=0.0 must be .* between 1000 and"),
        (lambda: OnOffTraffic(mean_on_s=0.0), "on_off.mean_on_s=0.0"),
        (lambda: OnOffTraffic(packet_bytes=10_000), "on_off.packet_bytes=10000 .* 40 and 9000"),
        (lambda: TcpTraffic(rtt_s=0.0), "tcp.rtt_s=0.0 must be"),
        (lambda: TcpTraffic(max_window_packets=1), "tcp.max_window_packets=1 .* 2 and 32768"),
        (lambda: TcpTraffic(min_rto_s=0.0), "tcp.min_rto_s=0.0"),
        (lambda: TcpTraffic(ack_jitter_s=-0.1), "tcp.ack_jitter_s=-0.1"),
        (lambda: TcpTraffic(start_s=5.0, stop_s=4.0), "tcp.stop_s=4.0 must be after"),
        (lambda: TcpTraffic(min_file_bytes=2, max_file_bytes=1), "tcp.min_file_bytes=2 must not"),
        (lambda: TcpTraffic(mean_idle_s=0.0), "tcp.mean_idle_s=0.0"),
        (lambda: network(*[TcpTraffic()] * 17), "at most 16 of"),
        (lambda: network("cubic"), "at most 16 of"),  # type: ignore[arg-type]
        (lambda: replace(network(), competing_calls=-1), "competing_calls=-1 .* from 0 to 15"),
        (
            lambda: replace(network(), competing_calls=1, competing_start_s=(1.0, 2.0)),
            "competing_start_s=.* at most competing_calls=1 times",
        ),
        (
            lambda: replace(network(), competing_calls=1, competing_added_delay_s=(-0.1,)),
            "competing_added_delay_s=.* from 0 to 10 s",
        ),
    ],
)
def test_an_impossible_value_says_its_name_and_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_unknown_congestion_control_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Known: cubic, reno"):
        TcpTraffic(algorithm="vegas")  # type: ignore[arg-type]


def test_an_rtt_of_the_newest_packet_sent_needs_a_queue_of_ones_own() -> None:
    call = replace(VIDEO, feedback=FeedbackConfig(rtt_packet="sent"), consent_interval_s=0.0)
    with pytest.raises(ConfigError, match='rtt_packet="sent" knows only a queue'):
        OneCall(network(TcpTraffic()), call)

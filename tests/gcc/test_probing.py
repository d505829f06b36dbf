"""When probes are requested, and what a cluster of packets measures."""

from __future__ import annotations

from typing import Any

import pytest

from bwe_env.gcc.probe_bitrate_estimator import (
    probe_declare,
    probe_estimator_add,
    probe_take_result_bps,
)
from bwe_env.gcc.probe_controller import (
    COMPLETE,
    FREE,
    LOSS_INCREASING,
    NO_PROBES,
    WAITING,
    probe_after_drop,
    probe_process,
    probe_set_allocated,
    probe_set_available,
    probe_set_estimate,
    probe_set_rates,
)
from bwe_env.gcc.rates import NO_RATE
from tests.gcc.records import controller, parameters

P = parameters()
S = 1_000_000
MS = 1_000


def taken(gcc: Any) -> list[int]:
    """Rates of the clusters requested since the last look."""
    rates = [int(gcc.probes[i].target_rate_bps) for i in range(gcc.num_probes)]
    gcc.num_probes = 0
    return rates


def started(p: Any = P, **rates: int) -> Any:
    gcc = controller(p, **rates)
    probe_set_available(gcc, p, True, 0)
    return gcc


def completed(p: Any = P, **rates: int) -> Any:
    """A controller whose initial probes have brought nothing."""
    gcc = started(p, **rates)
    probe_process(gcc, p, 1_100 * MS)
    taken(gcc)
    assert gcc.probe.state == COMPLETE
    return gcc


def test_the_first_probes_go_to_3_and_6_times_the_start_rate_for_15_ms() -> None:
    gcc = started()
    first = gcc.probes[0]
    assert (first.id, first.min_duration_us, first.min_delta_us, first.min_packets) == (
        1, 15 * MS, 2 * MS, 5,
    )  # fmt: skip
    assert taken(gcc) == [900_000, 1_800_000]
    assert gcc.probe.state == WAITING


def test_nothing_is_probed_before_the_network_is_there() -> None:
    gcc = controller(P)
    probe_process(gcc, P, 10 * S)
    assert taken(gcc) == []


def test_probes_stay_below_the_maximum_rate_and_end_there() -> None:
    gcc = started(max_rate_bps=1_500_000)
    assert taken(gcc) == [900_000, 1_500_000]
    assert gcc.probe.state == COMPLETE


def test_probes_stay_below_5_mbps_where_there_is_no_maximum() -> None:
    assert taken(started(start_rate_bps=1_000_000)) == [3_000_000, 5_000_000]


def test_probes_stay_below_twice_what_the_streams_can_use() -> None:
    assert taken(started(parameters(max_total_allocated_bps=600_000))) == [900_000, 1_200_000]


def test_an_estimate_above_70_percent_of_the_probe_leads_to_one_at_twice_the_estimate() -> None:
    gcc = started()
    taken(gcc)
    probe_set_estimate(gcc, P, 1_260_000, FREE, 100 * MS)
    assert taken(gcc) == []
    probe_set_estimate(gcc, P, 1_260_001, FREE, 100 * MS)
    assert taken(gcc) == [2_520_002]


def test_waiting_for_a_result_ends_after_one_second() -> None:
    gcc = started()
    probe_process(gcc, P, 1 * S)
    assert gcc.probe.state == WAITING
    probe_process(gcc, P, 1 * S + 1)
    assert gcc.probe.state == COMPLETE
    taken(gcc)
    probe_set_estimate(gcc, P, 1_700_000, FREE, 2 * S)
    assert taken(gcc) == []


@pytest.mark.parametrize(
    ("limited_by", "expected"), [(FREE, 3_400_000), (LOSS_INCREASING, 2_550_000), (NO_PROBES, None)]
)
def test_what_limits_the_estimate_limits_the_probe(limited_by: int, expected: int | None) -> None:
    gcc = started()
    taken(gcc)
    probe_set_estimate(gcc, P, 1_700_000, limited_by, 100 * MS)
    assert taken(gcc) == ([] if expected is None else [expected])


def test_while_application_limited_a_probe_at_twice_the_estimate_goes_out_every_5_s() -> None:
    p = parameters(alr_probing=True)
    gcc = completed(p)
    gcc.probe.alr_started_us = 2 * S
    at_s = []
    for now_us in range(2 * S, 20 * S, 25 * MS):
        probe_process(gcc, p, now_us)
        if rates := taken(gcc):
            assert rates == [600_000]
            at_s.append(now_us / S)
    assert at_s == [7.0, 12.0, 17.0]


def test_a_camera_is_not_probed_while_application_limited() -> None:
    gcc = completed()
    gcc.probe.alr_started_us = 2 * S
    probe_process(gcc, P, 60 * S)
    assert taken(gcc) == []


def test_a_large_drop_that_ends_while_application_limited_is_probed_at_85_percent() -> None:
    gcc = completed()
    probe_set_estimate(gcc, P, 1_000_000, FREE, 10 * S)
    probe_set_estimate(gcc, P, 600_000, FREE, 11 * S)
    probe_after_drop(gcc, P, 12 * S)
    assert taken(gcc) == []  # not application limited
    gcc.probe.alr_started_us = 11 * S
    probe_after_drop(gcc, P, 12 * S)
    assert taken(gcc) == [850_000]
    probe_after_drop(gcc, P, 13 * S)  # at most every 5 s
    assert taken(gcc) == []


def test_a_raised_maximum_is_probed_at_once() -> None:
    gcc = completed(max_rate_bps=1_000_000)
    probe_set_rates(gcc, P, 30_000, -1, 2_000_000, 5 * S)
    assert taken(gcc) == [2_000_000]
    probe_set_rates(gcc, P, 30_000, -1, 1_500_000, 6 * S)
    assert taken(gcc) == []


def test_a_raised_allocation_is_probed_while_application_limited() -> None:
    gcc = completed()
    gcc.probe.alr_started_us = 2 * S
    probe_set_allocated(gcc, P, 250_000, 3 * S)
    assert taken(gcc) == []  # below the estimate
    probe_set_allocated(gcc, P, 350_000, 3 * S)
    assert taken(gcc) == [350_000, 600_000]  # the second limited to twice the estimate
    probe_process(gcc, P, 5 * S)
    probe_set_allocated(gcc, P, 2_000_000, 5 * S)
    assert taken(gcc) == [600_000]


def test_repeated_initial_probing_goes_on_every_second_for_5_s() -> None:
    p = parameters(repeated_initial_probing=True)
    gcc = started(p)
    assert gcc.probes[0].min_duration_us == 100 * MS
    assert gcc.probes[0].min_delta_us == 20 * MS
    assert taken(gcc) == [900_000, 1_800_000]
    times_s = []
    for now_us in range(25 * MS, 10 * S, 25 * MS):
        probe_process(gcc, p, now_us)
        if rates := taken(gcc):
            assert rates == [900_000]
            times_s.append(now_us / S)
    assert times_s == [1.025, 2.05, 3.075, 4.1]


def test_a_ninth_cluster_that_nobody_takes_is_forgotten() -> None:
    gcc = started()
    for i in range(20):
        probe_set_estimate(gcc, P, 1_900_000 + 2_000_000 * (i % 2), FREE, i * MS)
    assert gcc.num_probes <= len(gcc.probes)


def cluster(gcc: Any, *, send_ms: list[int], arrival_ms: list[int], size: int = 1000) -> int:
    """Result of cluster 9, which asks for 5 packets and 5000 bytes."""
    probe_declare(gcc.probe_estimator, 9, 5, 5_000)
    for sent, arrived in zip(send_ms, arrival_ms, strict=True):
        probe_estimator_add(gcc.probe_estimator, P, 9, arrived * MS, sent * MS, size)
    return int(probe_take_result_bps(gcc.probe_estimator))


SENT = [0, 2, 4, 6, 8]
ARRIVED = [50, 52, 54, 56, 58]


def test_a_cluster_measures_the_smaller_of_send_and_receive_rate() -> None:
    # 4 packets in 8 ms, either way.
    assert cluster(controller(P), send_ms=SENT, arrival_ms=ARRIVED) == 4_000_000
    faster = [50, 51, 53, 55, 57]
    assert cluster(controller(P), send_ms=SENT, arrival_ms=faster) == 4_000_000


def test_a_full_link_counts_with_95_percent_of_the_receive_rate() -> None:
    slower = [50, 54, 58, 62, 66]  # 2 Mbps of 4
    assert cluster(controller(P), send_ms=SENT, arrival_ms=slower) == 1_900_000
    nearly = [50, 52, 54, 56, 59]  # 8/9 of the send rate is below 90 percent as well
    result_bps = cluster(controller(P), send_ms=SENT, arrival_ms=nearly)
    assert result_bps == pytest.approx(0.95 * 32_000 / 0.009, abs=1)


def test_four_of_five_packets_are_enough_and_three_are_not() -> None:
    assert cluster(controller(P), send_ms=SENT[:4], arrival_ms=ARRIVED[:4]) == 4_000_000
    assert cluster(controller(P), send_ms=SENT[:3], arrival_ms=ARRIVED[:3]) == NO_RATE


def test_a_cluster_needs_80_percent_of_its_bytes() -> None:
    sizes = {"send_ms": SENT, "arrival_ms": ARRIVED}
    assert cluster(controller(P), **sizes, size=799) == NO_RATE
    assert cluster(controller(P), **sizes, size=800) > 0


def test_a_cluster_received_at_more_than_twice_its_send_rate_is_not_believed() -> None:
    apart = [0, 10, 20, 30, 40]  # 800 kbps
    assert cluster(controller(P), send_ms=apart, arrival_ms=[50, 55, 60, 65, 70]) == 800_000
    assert cluster(controller(P), send_ms=apart, arrival_ms=[50, 54, 59, 64, 69]) == NO_RATE


def test_a_cluster_sent_or_received_at_one_instant_says_nothing() -> None:
    assert cluster(controller(P), send_ms=[3] * 5, arrival_ms=ARRIVED) == NO_RATE
    assert cluster(controller(P), send_ms=SENT, arrival_ms=[50] * 5) == NO_RATE


def test_a_cluster_that_takes_more_than_a_second_says_nothing() -> None:
    late = [50, 400, 700, 900, 1051]
    assert cluster(controller(P), send_ms=SENT, arrival_ms=late) != NO_RATE  # after 4 packets
    assert cluster(controller(P), send_ms=SENT[:4], arrival_ms=[50, 400, 800, 1051]) == NO_RATE


def test_packets_of_a_cluster_more_than_a_second_apart_start_it_anew() -> None:
    gcc = controller(P)
    assert cluster(gcc, send_ms=SENT[:2], arrival_ms=[50, 52]) == NO_RATE
    assert cluster(gcc, send_ms=SENT[2:], arrival_ms=[2000, 2002, 2004]) == NO_RATE
    assert gcc.probe_estimator.clusters[9 % 8].num_packets == 3


def test_a_packet_of_a_cluster_declared_too_long_ago_is_ignored() -> None:
    gcc = controller(P)
    probe_declare(gcc.probe_estimator, 1, 5, 5_000)
    probe_declare(gcc.probe_estimator, 9, 5, 5_000)
    probe_estimator_add(gcc.probe_estimator, P, 1, 50 * MS, 0, 1000)
    assert gcc.probe_estimator.clusters[1].num_packets == 0

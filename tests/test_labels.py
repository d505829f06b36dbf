"""The labels of the supervised models, by hand, at their thresholds and against a naive twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bwe_env.config import LossConfig
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.labels import (
    BURSTY_PACKETS,
    CELLULAR_LOW_BPS,
    MIXED,
    NETWORK_CLASSES,
    NOT_ELIGIBLE,
    NOT_RANDOM,
    RANDOM,
    CongestionLabels,
    burst_label,
    congestion_labels,
    first_of_episodes,
    loss_episodes,
    mean_loss_burst_packets,
    network_class,
    random_loss_labels,
)
from bwe_env.trace import NETWORK_TYPES
from tests.reference import naive_labels

law = settings(deadline=None, derandomize=True, max_examples=150)

#: A call of 20 s in bins of 100 ms, with 100 packets a second.
BINS = 200
PER_BIN = 10
BASE_MS = 60.0
#: The label of the bin in the middle: its past is bins 60 to 99, its future 100 to 139.
NOW = 99


class Call:
    """A quiet call of 20 s, to which a test does what it is about."""

    def __init__(self, bins: int = BINS) -> None:
        self.rtt_ms = np.full(bins, BASE_MS)
        self.lost = np.zeros(bins, dtype=np.int64)
        self.reported = np.full(bins, PER_BIN)

    def spike(self, rtt_ms: float = 100.0, *, bins: tuple[int, ...] = (80, 81)) -> Call:
        self.rtt_ms[list(bins)] = rtt_ms
        return self

    def lose(self, packets: int, *, bins: tuple[int, ...]) -> Call:
        self.lost[list(bins)] = packets
        return self

    def labels(self) -> CongestionLabels:
        return congestion_labels(self.rtt_ms, self.lost, reported_packets=self.reported)

    def is_positive(self) -> bool:
        return bool(self.labels().is_positive[NOW])

    def had_spike(self) -> bool:
        return bool(self.labels().had_spike[NOW])


# --- Congestion: by hand --------------------------------------------------------------------------


def test_a_spike_before_losses_is_positive_while_it_is_past_and_they_are_ahead() -> None:
    labels = Call().spike().lose(1, bins=(105, 106)).labels()
    # The second high bin is 81, and 80 leaves the past of 4 s with bin 120.
    assert np.flatnonzero(labels.had_spike).tolist() == list(range(81, 120))
    # The last second with both losses is bins 105 to 114, wholly ahead up to bin 104.
    assert np.flatnonzero(labels.is_positive).tolist() == list(range(81, 105))


def test_losses_without_a_spike_are_negative() -> None:
    labels = Call().lose(5, bins=(105, 106)).labels()
    assert not labels.had_spike.any()
    assert not labels.is_positive.any()


def test_a_spike_without_losses_or_growth_is_negative() -> None:
    labels = Call().spike().labels()
    assert labels.had_spike.any()
    assert not labels.is_positive.any()


def test_losses_of_the_past_make_no_positive() -> None:
    assert not Call().spike().lose(5, bins=(98, 99)).is_positive()


@pytest.mark.parametrize(
    ("base_ms", "threshold_ms"),
    # 40 ms up to a floor of 160 ms, a quarter of the floor beyond.
    [(60.0, 100.0), (160.0, 200.0), (400.0, 500.0)],
)
def test_a_bin_is_high_from_the_greater_of_40_ms_and_a_quarter_above_the_floor(
    base_ms: float, threshold_ms: float
) -> None:
    for rtt_ms, is_high in ((threshold_ms, True), (np.nextafter(threshold_ms, 0.0), False)):
        call = Call()
        call.rtt_ms[:] = base_ms
        assert call.spike(rtt_ms).had_spike() is is_high


def test_one_high_bin_is_no_spike_and_two_apart_are() -> None:
    assert not Call().spike(bins=(80,)).had_spike()
    assert Call().spike(bins=(60, 99)).had_spike()
    assert not Call().spike(bins=(59, 99)).had_spike()  # the first is 4 s past


def test_each_bin_is_held_against_the_floor_at_t_and_not_at_its_own_time() -> None:
    call = Call(400)
    call.rtt_ms[:] = 100.0
    call.rtt_ms[[80, 81]] = 120.0  # not high above 100
    call.rtt_ms[90] = 70.0  # from here on 110 is high
    labels = call.labels()
    assert not labels.had_spike[89]
    assert labels.had_spike[90]


def test_the_floor_forgets_after_30_s() -> None:
    call = Call(400)
    call.rtt_ms[0] = 40.0
    call.rtt_ms[1:] = 100.0
    labels = call.labels()
    assert labels.had_spike[2:300].all()  # bin 299 still sees bin 0
    assert not labels.had_spike[300:].any()


@pytest.mark.parametrize(
    ("past_max_ms", "threshold_ms"),
    # Rises of 140, 200 and 300 ms above 60: half of them is 70, 100 and 150 ms.
    [(200.0, 300.0), (260.0, 360.0), (360.0, 510.0)],
)
def test_rtt_grows_by_the_greater_of_100_ms_and_half_the_past_rise(
    past_max_ms: float, threshold_ms: float
) -> None:
    for rtt_ms, grows in ((threshold_ms, True), (np.nextafter(threshold_ms, 0.0), False)):
        call = Call().spike(past_max_ms)
        call.rtt_ms[139] = rtt_ms
        assert call.is_positive() is grows


def test_growth_after_4_s_does_not_count() -> None:
    call = Call().spike()
    call.rtt_ms[140] = 1000.0
    assert not call.is_positive()


def test_exactly_two_losses_and_exactly_two_per_cent_of_one_second_are_congestion() -> None:
    assert Call().spike().lose(1, bins=(110, 119)).is_positive()  # 2 of 100, in one second
    assert not Call().spike().lose(1, bins=(110, 120)).is_positive()  # never in one second
    assert not Call().spike().lose(1, bins=(110,)).is_positive()
    call = Call().spike().lose(1, bins=(110, 119))
    call.reported[110:120] = 11  # 2 of 110
    assert not call.is_positive()


@pytest.mark.parametrize("lost", [2, 3, 7, 11, 14, 29])
def test_two_per_cent_is_exact_for_every_count(lost: int) -> None:
    for surplus, is_lossy in ((0, True), (1, False)):
        call = Call().spike()
        call.lost[115] = lost
        # The packets of the second stand in bin 115; the other nine of every window are empty.
        call.reported[:] = 0
        call.reported[115] = 50 * lost + surplus
        assert call.is_positive() is is_lossy


def test_the_second_of_losses_lies_wholly_within_the_4_s_ahead() -> None:
    assert Call().spike().lose(2, bins=(100,)).is_positive()  # bins 100 to 109
    assert Call().spike().lose(2, bins=(139,)).is_positive()  # bins 130 to 139
    # Seconds with two losses, but they begin before t or end after t + 4 s.
    assert not Call().spike().lose(1, bins=(99, 100)).is_positive()
    assert not Call().spike().lose(1, bins=(139, 140)).is_positive()


def test_bins_without_reports_have_no_rtt_and_are_no_spike() -> None:
    call = Call().spike().lose(1, bins=(105, 106))
    call.rtt_ms[60:100] = np.nan
    labels = call.labels()
    assert not labels.had_spike[NOW]
    assert not labels.is_positive[NOW]
    assert not labels.is_scored[NOW]  # nothing was measured in its past
    assert labels.is_scored[NOW - 1]  # bin 59 was
    assert labels.is_scored[NOW + 1]


def test_the_first_and_the_last_4_s_are_not_scored() -> None:
    # Bin 39 ends at 4.0 s; bin 159 ends at 16.0 s of 20 s.
    assert np.flatnonzero(Call().labels().is_scored).tolist() == list(range(39, 160))


@pytest.mark.parametrize(("bins", "scored"), [(0, 0), (1, 0), (40, 0), (79, 0), (80, 1), (81, 2)])
def test_nothing_of_a_call_shorter_than_8_s_is_scored(bins: int, scored: int) -> None:
    labels = Call(bins).labels()
    assert labels.is_scored.sum() == scored
    assert labels.had_spike.shape == labels.is_positive.shape == labels.is_scored.shape == (bins,)


def test_losses_by_cause_make_a_positive_only_if_the_queue_took_them() -> None:
    call = Call().spike().lose(2, bins=(110,))
    assert call.is_positive()
    none = np.zeros(BINS)
    labels = congestion_labels(call.rtt_ms, none, reported_packets=call.reported)
    assert not labels.is_positive.any()


def test_windows_are_seconds_whatever_the_length_of_a_bin() -> None:
    call = Call().spike(300.0, bins=(80, 81, 82, 83)).lose(3, bins=(110, 111))
    coarse = congestion_labels(
        call.rtt_ms[::2],
        call.lost.reshape(-1, 2).sum(axis=1),
        reported_packets=call.reported.reshape(-1, 2).sum(axis=1),
        interval_s=0.2,
    )
    assert np.flatnonzero(coarse.is_scored).tolist() == list(range(19, 80))
    # Two high bins of 200 ms are 40 and 41; the losses are ahead up to bin 54.
    assert np.flatnonzero(coarse.is_positive).tolist() == list(range(41, 55))


# --- Congestion: against the twin -----------------------------------------------------------------


@st.composite
def calls(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """RTTs on a grid that meets the thresholds, in levels and with gaps; few losses of many."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bins = draw(st.integers(0, 130))
    span = draw(st.integers(1, 40))
    levels = rng.choice(
        [40.0, 60.0, 80.0, 100.0, 120.0, 160.0, 220.0, 330.0], size=bins // span + 1
    )
    rtt_ms = np.repeat(levels, span)[:bins]
    rtt_ms[rng.random(bins) < 0.1] += draw(st.sampled_from([0.0, 40.0, 100.0]))
    rtt_ms[rng.random(bins) < draw(st.sampled_from([0.0, 0.2, 0.95]))] = np.nan
    reported = rng.integers(0, draw(st.sampled_from([3, 12, 25])), size=bins)
    lost = rng.binomial(reported, draw(st.sampled_from([0.0, 0.01, 0.1])))
    return rtt_ms, lost, reported


@law
@given(calls(), st.sampled_from([1, 2, 4, 10]))
def test_congestion_labels_are_those_of_the_naive_twin(
    call: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], per_second: int
) -> None:
    rtt_ms, lost, reported = call
    labels = congestion_labels(rtt_ms, lost, reported_packets=reported, interval_s=1.0 / per_second)
    expected = naive_labels.congestion(
        rtt_ms.tolist(), lost.tolist(), reported.tolist(), per_second=per_second
    )
    assert labels.had_spike.tolist() == [label.had_spike for label in expected]
    assert labels.is_positive.tolist() == [label.is_positive for label in expected]
    assert labels.is_scored.tolist() == [label.is_scored for label in expected]


def test_a_call_with_positives_negatives_after_a_spike_and_quiet_bins_is_that_of_the_twin() -> None:
    rng = np.random.default_rng(7)
    rtt_ms = np.repeat(rng.choice([40.0, 60.0, 100.0, 220.0], size=60), 10)
    reported = rng.integers(0, 25, size=600)
    lost = rng.binomial(reported, np.repeat(rng.choice([0.0, 0.0, 0.0, 0.1], size=12), 50))
    labels = congestion_labels(rtt_ms, lost, reported_packets=reported)
    expected = naive_labels.congestion(rtt_ms.tolist(), lost.tolist(), reported.tolist())
    assert labels.is_positive.tolist() == [label.is_positive for label in expected]
    counts = [labels.is_positive.sum(), (labels.had_spike & ~labels.is_positive).sum()]
    assert min(*counts, (~labels.had_spike).sum()) > 20


# --- Congestion: what is refused ------------------------------------------------------------------


@pytest.mark.parametrize("interval_s", [0.06, 0.3, 2.0, 0.0, -0.1, math.nan, math.inf])
def test_a_second_must_be_a_whole_number_of_bins(interval_s: float) -> None:
    with pytest.raises(ConfigError, match="whole number of bins"):
        congestion_labels([60.0], [0], reported_packets=[1], interval_s=interval_s)
    with pytest.raises(ConfigError, match="whole number of bins"):
        random_loss_labels([0], [0], interval_s=interval_s)


@pytest.mark.parametrize(
    ("rtt_ms", "lost", "reported", "message"),
    [
        ([60.0, 60.0], [0], [1, 1], r"same bins, got \[2, 1, 2\]"),
        ([[60.0]], [0], [1], r"rtt_ms has shape \(1, 1\)"),
        ([math.inf], [0], [1], "NaN stands for"),
        ([-1.0], [0], [1], "NaN stands for"),
        ([60.0], [0.5], [1], "lost_packets must be counts"),
        ([60.0], [0], [math.nan], "reported_packets must be counts"),
        ([60.0], [-1], [1], "lost_packets must be counts"),
        ([60.0, 60.0], [0, 2], [1, 1], "bin 1 has more lost_packets"),
    ],
)
def test_what_means_nothing_is_refused(
    rtt_ms: list[float], lost: list[float], reported: list[float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        congestion_labels(rtt_ms, lost, reported_packets=reported)


# --- Random loss ----------------------------------------------------------------------------------

NAMES = {"R": RANDOM, "M": MIXED, "N": NOT_RANDOM, ".": NOT_ELIGIBLE}


@pytest.mark.parametrize(
    ("by_chance", "by_load", "kind"),
    [
        (1, 4, NOT_RANDOM),  # exactly 20 %
        (2, 8, NOT_RANDOM),
        (21, 79, MIXED),
        (1, 1, MIXED),
        (79, 21, MIXED),
        (4, 1, RANDOM),  # exactly 80 %
        (12, 3, RANDOM),
        (2, 0, RANDOM),
        (0, 2, NOT_RANDOM),
        (1, 0, NOT_ELIGIBLE),
        (0, 1, NOT_ELIGIBLE),
        (0, 0, NOT_ELIGIBLE),
    ],
)
def test_the_share_of_random_losses_makes_the_kind(by_chance: int, by_load: int, kind: int) -> None:
    labels = random_loss_labels([by_chance], [by_load])
    assert labels.kind.tolist() == [kind]
    assert labels.kind.dtype == np.int8
    assert labels.is_eligible.tolist() == [kind != NOT_ELIGIBLE]
    assert labels.is_random.tolist() == [kind == RANDOM]


@pytest.mark.parametrize("fifth", range(1, 60))
def test_a_fifth_and_four_fifths_are_exact_for_every_count(fifth: int) -> None:
    assert random_loss_labels([fifth], [4 * fifth]).kind.tolist() == [NOT_RANDOM]
    assert random_loss_labels([4 * fifth], [fifth]).kind.tolist() == [RANDOM]


def test_losses_are_counted_over_the_ten_bins_that_end_with_the_one_judged() -> None:
    by_chance = np.zeros(30)
    by_chance[[5, 14]] = 1
    labels = random_loss_labels(by_chance, np.zeros(30))
    assert np.flatnonzero(labels.is_eligible).tolist() == [14]  # 5 to 14 is one second
    by_chance[[5, 14]] = 2
    labels = random_loss_labels(by_chance, np.zeros(30))
    assert np.flatnonzero(labels.is_eligible).tolist() == list(range(5, 24))


def test_an_episode_ends_where_its_kind_changes_and_where_losses_do() -> None:
    by_chance, by_load = np.zeros(40), np.zeros(40)
    by_chance[2] = 2  # random in bins 2 to 11, but mixed from 8 on
    by_load[8] = 2  # alone, so not random, in bins 12 to 17
    by_load[30] = 5  # not random, after a pause
    labels = random_loss_labels(by_chance, by_load)
    kinds = [NOT_ELIGIBLE] * 2 + [RANDOM] * 6 + [MIXED] * 4 + [NOT_RANDOM] * 6
    kinds += [NOT_ELIGIBLE] * 12 + [NOT_RANDOM] * 10
    assert labels.kind.tolist() == kinds
    episodes = loss_episodes(labels)
    assert episodes.tolist() == [-1] * 2 + [0] * 6 + [1] * 4 + [2] * 6 + [-1] * 12 + [3] * 10
    assert episodes.dtype == np.int64
    assert first_of_episodes(episodes).tolist() == [2, 8, 12, 30]


def test_a_call_without_losses_has_no_episode() -> None:
    for bins in (0, 50):
        episodes = loss_episodes(random_loss_labels(np.zeros(bins), np.zeros(bins)))
        assert episodes.tolist() == [-1] * bins
        assert first_of_episodes(episodes).tolist() == []


@law
@given(
    st.integers(0, 2**32),
    st.integers(0, 80),
    st.sampled_from([0.02, 0.1, 1.0]),
    st.sampled_from([0.02, 0.1, 1.0]),
    st.sampled_from([1, 5, 10]),
)
def test_random_loss_labels_and_episodes_are_those_of_the_naive_twin(
    seed: int, bins: int, chance_rate: float, load_rate: float, per_second: int
) -> None:
    rng = np.random.default_rng(seed)
    by_chance, by_load = rng.poisson(chance_rate, bins), rng.poisson(load_rate, bins)
    labels = random_loss_labels(by_chance, by_load, interval_s=1.0 / per_second)
    kinds = naive_labels.random_loss(by_chance.tolist(), by_load.tolist(), per_second=per_second)
    assert labels.kind.tolist() == [NAMES[kind] for kind in kinds]
    numbers, firsts = naive_labels.episodes(kinds)
    episodes = loss_episodes(labels)
    assert episodes.tolist() == numbers
    assert first_of_episodes(episodes).tolist() == firsts


def test_random_losses_must_be_counts_of_the_same_bins() -> None:
    with pytest.raises(ConfigError, match="same bins"):
        random_loss_labels([1, 2], [1])
    with pytest.raises(ConfigError, match="congestion_packets must be counts"):
        random_loss_labels([1], [-1])


# --- Kinds of networks ----------------------------------------------------------------------------


@pytest.mark.parametrize("network_type", ["3G", "4G-LTE", "5G"])
def test_a_cellular_network_is_low_below_2_mbps(network_type: str) -> None:
    assert network_class(network_type, np.nextafter(CELLULAR_LOW_BPS, 0.0)) == "cellular-low"
    assert network_class(network_type, CELLULAR_LOW_BPS) == "cellular-high"


@pytest.mark.parametrize(
    ("network_type", "name"),
    [("wifi", "wifi"), ("wired-broadband", "wired"), ("satellite", "satellite")],
)
def test_the_other_networks_are_one_class_at_every_capacity(network_type: str, name: str) -> None:
    assert network_class(network_type, 0.0) == network_class(network_type, 1e9) == name


def test_every_type_but_the_pattern_has_a_class_and_every_class_a_type() -> None:
    types = [name for name in NETWORK_TYPES if name != "pattern"]
    found = {network_class(name, bps) for name in types for bps in (1e6, 1e7)}
    assert found == set(NETWORK_CLASSES)


@pytest.mark.parametrize("network_type", ["pattern", "wi-fi", "4G"])
def test_a_type_without_a_class_is_refused_with_those_that_have_one(network_type: str) -> None:
    with pytest.raises(UnknownNameError, match=r"with a class .*Known: 3G, 4G-LTE, 5G, satellite"):
        network_class(network_type, 1e6)


@pytest.mark.parametrize("capacity_bps", [-1.0, math.nan, math.inf])
def test_a_mean_capacity_must_be_a_rate(capacity_bps: float) -> None:
    with pytest.raises(ConfigError, match="mean_capacity_bps"):
        network_class("wifi", capacity_bps)


# --- Bursts of random loss ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "packets"),
    [
        # Independent: a run ends with 1 - p after each loss.
        (LossConfig(good_loss=0.2), 1.25),
        (LossConfig(good_loss=0.5), 2.0),
        # Gilbert: it lasts as long as the bad state.
        (LossConfig(good_to_bad=0.01, bad_to_good=0.25), 4.0),
        (LossConfig(good_to_bad=0.3, bad_to_good=0.5), 2.0),
        # Every second packet.
        (LossConfig(good_to_bad=1.0, bad_to_good=1.0), 1.0),
        # A quarter of the time bad. Lost: 3/4 * 1/10 + 1/4 * 1/2 = 1/5. Lost, and the next is not:
        # 3/4 * 1/10 (9/10 * 9/10 + 1/10 * 1/2) + 1/4 * 1/2 (3/10 * 9/10 + 7/10 * 1/2) = 0.142.
        (
            LossConfig(good_loss=0.1, bad_loss=0.5, good_to_bad=0.1, bad_to_good=0.3),
            0.2 / 0.142,
        ),
        # The state does not matter where it changes nothing.
        (LossConfig(good_loss=0.2, bad_loss=0.2, good_to_bad=0.1, bad_to_good=0.3), 1.25),
        (LossConfig(good_loss=1.0), math.inf),
        # Replays, also around the end.
        (LossConfig(replay=(True, False, True, True, False)), 1.5),
        (LossConfig(replay=(True, False, False, True, True)), 3.0),
        (LossConfig(replay=(True,)), math.inf),
    ],
)
def test_the_mean_burst_is_the_one_worked_by_hand(loss: LossConfig, packets: float) -> None:
    assert mean_loss_burst_packets(loss) == pytest.approx(packets)


PROBABILITIES = st.floats(0.01, 0.99)


@law
@given(PROBABILITIES, PROBABILITIES, PROBABILITIES, PROBABILITIES)
def test_the_mean_burst_is_the_sum_over_all_lengths(
    good_loss: float, bad_loss: float, good_to_bad: float, bad_to_good: float
) -> None:
    loss = LossConfig(
        good_loss=good_loss, bad_loss=bad_loss, good_to_bad=good_to_bad, bad_to_good=bad_to_good
    )
    goes = np.array([[1 - good_to_bad, good_to_bad], [bad_to_good, 1 - bad_to_good]])
    chances = np.array([good_loss, bad_loss])
    shares = np.array([bad_to_good, good_to_bad]) / (good_to_bad + bad_to_good)
    # A run begins with a loss after a packet that got through, and goes on with `lost_again`. So
    # the chances of lengths >= 1, 2, 3… are those of a geometric series of matrices.
    lost_again = goes * chances
    begins = (shares * (1 - chances)) @ lost_again
    begins /= begins.sum()
    expected = (begins @ np.linalg.inv(np.eye(2) - lost_again)).sum()
    assert mean_loss_burst_packets(loss) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [LossConfig(), LossConfig(replay=(False, False)), None])
def test_a_path_that_loses_nothing_has_no_burst_label(loss: LossConfig | None) -> None:
    assert burst_label(loss) is None
    if loss is not None:
        assert mean_loss_burst_packets(loss) is None


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        (LossConfig(good_to_bad=0.01, bad_to_good=0.5), True),  # exactly 2 packets
        (LossConfig(good_to_bad=0.01, bad_to_good=0.51), False),
        (LossConfig(good_loss=0.02), False),
        # Independent losses have long runs if there are enough of them, and are no bursts.
        (LossConfig(good_loss=0.9), False),
        (LossConfig(good_loss=1.0), False),
        (LossConfig(good_loss=0.9, bad_loss=0.9, good_to_bad=0.1, bad_to_good=0.1), False),
        (LossConfig(good_to_bad=0.7, bad_to_good=0.3), False),  # 7/10, whatever the state was
        (LossConfig(good_to_bad=0.6, bad_to_good=0.3), True),
        (LossConfig(replay=(True, True, False)), True),
        (LossConfig(replay=(True, False)), False),
    ],
)
def test_bursty_loss_has_memory_and_a_mean_run_of_two(loss: LossConfig, label: bool) -> None:
    assert BURSTY_PACKETS == 2.0
    assert burst_label(loss) is label


def test_the_label_is_of_the_process_and_not_of_when_it_acts() -> None:
    loss = LossConfig(good_to_bad=0.01, bad_to_good=0.25, from_s=10.0, until_s=10.1)
    assert burst_label(loss) is True

"""Features of network models: by hand, alike in streams and records, and blind to the future."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.errors import ConfigError
from bwe_env.feature_scale import markdown_table
from bwe_env.network_features import (
    BIN_S,
    DENSE_FEATURES,
    DENSE_NAMES,
    FLOOR_BINS,
    MAX_WINDOW_BINS,
    NUM_DENSE,
    NUM_SERIES,
    SERIES_FEATURES,
    SERIES_NAMES,
    FeatureStream,
    call_features,
    series_windows,
)
from bwe_env.telemetry import TELEMETRY, empty_telemetry

ALL = np.ones(1, dtype=np.bool_)


def calm(bins: int, *, rtt_ms: float = 50.0, delay_ms: float = 10.0):
    """A call in which nothing happens: 10 packets of 1000 bytes per bin, sent and received."""
    rows = empty_telemetry(bins)
    rows["time_s"] = BIN_S * np.arange(1, bins + 1)
    rows["reports"] = 1
    rows["sent_packets"] = rows["acked_packets"] = 10
    rows["sent_bytes"] = rows["acked_bytes"] = 10_000
    rows["acked_rate_bps"] = 800e3
    rows["queue_delay_ms"] = delay_ms
    rows["queue_delay_min_ms"] = delay_ms - 2.0
    rows["queue_delay_max_ms"] = delay_ms + 5.0
    rows["delay_variation_ms"] = 1.5
    rows["rtt_ms"] = rtt_ms
    return rows


def lose(rows, position: int, *, lost: int, runs: int, delay_ms: float, gap_ms: float) -> None:
    """Some packets of a bin are reported missing."""
    rows["lost_packets"][position] = lost
    rows["loss_runs"][position] = runs
    rows["loss_delay_ms"][position] = delay_ms
    rows["loss_delay_min_ms"][position] = delay_ms - 1.0
    rows["loss_delay_max_ms"][position] = delay_ms + 1.0
    rows["loss_gap_ms"][position] = gap_ms


def unit(feature, scaled: float) -> float:
    """Back from [-1, 1] to the feature's unit, written from the table's words."""
    share = (float(scaled) + 1.0) / 2.0
    if feature.scale == "log":
        return feature.low * (feature.high / feature.low) ** share
    return feature.low + share * (feature.high - feature.low)


def dense_at(rows, position: int, *, window_bins: int = MAX_WINDOW_BINS) -> dict[str, float]:
    _, dense = call_features(rows, [position], window_bins=window_bins)
    return {f.name: unit(f, value) for f, value in zip(DENSE_FEATURES, dense[0], strict=True)}


def series_at(rows, position: int) -> dict[str, float]:
    series, _ = call_features(rows, [], window_bins=MAX_WINDOW_BINS)
    values = series[position]
    return {f.name: unit(f, value) for f, value in zip(SERIES_FEATURES, values, strict=True)}


def test_every_feature_has_a_name_of_its_own_and_a_range_that_its_scale_allows():
    for table in (SERIES_FEATURES, DENSE_FEATURES):
        assert len({feature.name for feature in table}) == len(table)
        assert all(feature.low < feature.high for feature in table)
        assert all(feature.low > 0.0 for feature in table if feature.scale == "log")


def test_features_of_a_calm_call_are_those_worked_by_hand():
    rows = calm(120)
    found = dense_at(rows, 119)
    for name in (
        "acked_rate_1s",
        "acked_rate_w",
        "acked_rate_max_w",
        "sent_rate_1s",
        "sent_rate_w",
    ):
        assert found[name] == pytest.approx(800e3, rel=1e-5), name
    assert found["delivery_ratio_1s"] == pytest.approx(1.0, abs=1e-6)
    assert found["sent_over_acked_max"] == pytest.approx(1.0, rel=1e-5)
    assert found["acked_rate_variation_w"] == pytest.approx(0.0, abs=1e-6)
    assert found["queue_delay_w"] == pytest.approx(10.0, rel=1e-5)
    assert found["queue_delay_min_w"] == pytest.approx(8.0, rel=1e-5)
    assert found["queue_delay_max_w"] == pytest.approx(15.0, rel=1e-5)
    assert found["delay_variation_1s"] == pytest.approx(1.5, rel=1e-5)
    assert found["rtt_floor"] == found["rtt_now"] == pytest.approx(50.0, rel=1e-5)
    assert found["rtt_rise_max_w"] == 1.0  # the lowest that the table knows
    assert found["rtt_slope_1s"] == found["rtt_slope_w"] == pytest.approx(0.0, abs=1e-4)
    assert found["loss_ratio_w"] == DENSE_FEATURES[DENSE_NAMES.index("loss_ratio_w")].low
    assert found["feedback_bins_1s"] == 1.0


def test_features_of_losses_are_those_worked_by_hand():
    rows = calm(200)
    # 12 s before the end: outside the window. 5 s before: 4 packets in 2 runs. Now: 2 in 2 runs.
    lose(rows, 79, lost=9, runs=1, delay_ms=15.0, gap_ms=1.0)
    lose(rows, 149, lost=4, runs=2, delay_ms=15.0, gap_ms=2.0)
    lose(rows, 199, lost=2, runs=2, delay_ms=6.0, gap_ms=8.0)
    found = dense_at(rows, 199)
    assert found["loss_ratio_w"] == pytest.approx(6 / 1006, rel=1e-4)
    assert found["loss_ratio_1s"] == pytest.approx(2 / 102, rel=1e-4)
    assert found["loss_ratio_before"] == pytest.approx(4 / 904, rel=1e-4)
    assert found["lossy_bins_w"] == pytest.approx(0.02, abs=1e-6)
    assert found["loss_runs_w"] == pytest.approx(4 / 10.0, rel=1e-4)
    assert found["loss_run_1s"] == pytest.approx(1.0, rel=1e-4)
    assert found["loss_run_w"] == pytest.approx(1.5, rel=1e-4)
    assert found["loss_run_max_w"] == pytest.approx(2.0, rel=1e-4)
    assert found["loss_delay_1s"] == pytest.approx(6.0, rel=1e-4)
    assert found["loss_delay_w"] == pytest.approx((2 * 15 + 2 * 6) / 4, rel=1e-4)
    assert found["loss_delay_sd_w"] == pytest.approx(4.5, rel=1e-4)
    assert found["loss_delay_share_1s"] == pytest.approx(6 / 15, abs=1e-4)
    assert found["loss_delay_share_w"] == pytest.approx(10.5 / 15, abs=1e-4)
    assert found["loss_delay_rank_1s"] == 0.0
    assert found["loss_delay_min_1s"] == pytest.approx(5.0, rel=1e-4)
    assert found["loss_delay_max_1s"] == pytest.approx(7.0, rel=1e-4)
    assert found["loss_delay_rank_w"] == 1.0
    # 102 packets in 1 s: 9.80 ms apart on average.
    assert found["loss_gap_1s"] == pytest.approx(8.0 * 102 / 1000, rel=1e-4)
    assert found["loss_gap_w"] == pytest.approx((2 * 2 + 2 * 8) / 4 * 1006 / 10_000, rel=1e-4)
    # Bins with losses had 14 and 12 packets reported, the others 10.
    assert found["lossy_load_ratio_w"] == pytest.approx(1.3, rel=1e-4)
    assert found["loss_load_correlation_w"] == pytest.approx(1.0, abs=0.02)


def test_series_of_a_bin_are_those_worked_by_hand():
    rows = calm(150)
    rows["rtt_ms"][20] = 40.0
    lose(rows, 149, lost=3, runs=2, delay_ms=12.0, gap_ms=5.0)
    found = series_at(rows, 149)
    assert found["sent_rate"] == found["acked_rate"] == pytest.approx(800e3, rel=1e-5)
    assert found["loss_ratio"] == pytest.approx(3 / 13, rel=1e-4)
    assert found["loss_run"] == pytest.approx(1.5, rel=1e-4)
    assert found["rtt"] == pytest.approx(50.0, rel=1e-5)
    assert found["rtt_rise"] == pytest.approx(10.0, rel=1e-4)
    assert found["loss_delay"] == pytest.approx(12.0, rel=1e-4)
    assert found["loss_delay_share"] == pytest.approx(12 / 15, abs=1e-5)
    assert found["reported_packets"] == pytest.approx(13.0, rel=1e-4)
    assert found["loss_gap"] == pytest.approx(5.0 * 13 / 100, rel=1e-4)


def test_a_bin_without_feedback_repeats_the_delays_known_before():
    rows = calm(30)
    silent = empty_telemetry(1)
    silent["time_s"] = 3.1
    silent["sent_packets"], silent["sent_bytes"] = 10, 10_000
    found = series_at(np.concatenate([rows, silent]), 30)
    assert found["queue_delay"] == pytest.approx(10.0, rel=1e-5)
    assert found["rtt"] == pytest.approx(50.0, rel=1e-5)
    assert found["acked_rate"] == pytest.approx(800e3, rel=1e-5)
    assert found["has_feedback"] == 0.0
    assert found["sent_rate"] == pytest.approx(800e3, rel=1e-5)


def test_the_floor_of_the_rtt_forgets_what_is_older_than_30_s():
    rows = calm(FLOOR_BINS + 10)
    rows["rtt_ms"][5] = 20.0
    for position, floor_ms in ((5, 20.0), (FLOOR_BINS + 4, 20.0), (FLOOR_BINS + 5, 50.0)):
        assert dense_at(rows, position)["rtt_floor"] == pytest.approx(floor_ms, rel=1e-5)


def test_a_spike_of_the_features_is_one_of_the_labels():
    rows = calm(100, rtt_ms=200.0)
    rows["rtt_ms"][60] = 249.9  # a quarter of the floor is 50 ms
    rows["rtt_ms"][61] = 250.0
    assert dense_at(rows, 99)["spike_bins_w"] == pytest.approx(0.01, abs=1e-6)


def test_slopes_are_the_newer_half_against_the_older():
    rows = calm(100)
    rows["rtt_ms"][95:] = 60.0
    found = dense_at(rows, 99)
    assert found["rtt_slope_1s"] == pytest.approx(10.0 / 0.5, rel=1e-3)
    assert found["rtt_slope_w"] == pytest.approx(1.0 / 5.0, abs=1e-3)


def test_a_window_at_the_start_of_a_call_is_as_long_as_the_call():
    rows = calm(20)
    lose(rows, 3, lost=10, runs=1, delay_ms=15.0, gap_ms=1.0)
    assert dense_at(rows, 3)["loss_ratio_w"] == pytest.approx(10 / 50, rel=1e-4)
    series, _ = call_features(rows, [], window_bins=40)
    window = series_windows(series, np.array([3]), window_bins=40)[0]
    assert (window[:36] == -1.0).all()
    assert np.array_equal(window[36:], series[:4])


def random_rows(generator: np.random.Generator, bins: int):
    """A call in which anything happens, bins without feedback too."""
    rows = calm(bins)
    for name in ("queue_delay_ms", "rtt_ms", "delay_variation_ms", "acked_rate_bps"):
        rows[name] *= generator.lognormal(0.0, 1.0, bins)
    lossy = generator.random(bins) < 0.3
    rows["lost_packets"][lossy] = generator.integers(1, 9, lossy.sum())
    rows["loss_runs"][lossy] = np.ceil(rows["lost_packets"][lossy] / 2)
    rows["loss_gap_ms"][lossy] = generator.exponential(10.0, lossy.sum())
    located = lossy & (generator.random(bins) < 0.8)
    rows["loss_delay_ms"][located] = generator.exponential(20.0, located.sum())
    rows["loss_delay_min_ms"][located] = 0.9 * rows["loss_delay_ms"][located]
    rows["loss_delay_max_ms"][located] = 1.1 * rows["loss_delay_ms"][located]
    silent = generator.random(bins) < 0.2
    for name in ("acked_packets", "acked_bytes", "acked_rate_bps", "lost_packets", "loss_runs"):
        rows[name][silent] = 0
    for name in ("queue_delay_ms", "queue_delay_min_ms", "queue_delay_max_ms", "rtt_ms",
                 "delay_variation_ms", "loss_delay_ms", "loss_delay_min_ms", "loss_delay_max_ms",
                 "loss_gap_ms"):  # fmt: skip
        rows[name][silent] = np.nan
    return rows


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bins=st.integers(1, 450))
def test_streams_of_several_calls_give_bit_for_bit_what_the_records_of_each_give(seed, bins):
    generator = np.random.default_rng(seed)
    calls = [random_rows(generator, bins) for _ in range(3)]
    stream = FeatureStream(3, windows=(40, MAX_WINDOW_BINS))
    everybody = np.ones(3, dtype=np.bool_)
    for position in range(bins):
        rows = np.array([call[position] for call in calls], dtype=TELEMETRY)
        stream.push(rows.view(TELEMETRY), everybody)
    for env, call in enumerate(calls):
        for index, window_bins in enumerate((40, MAX_WINDOW_BINS)):
            series, dense = call_features(call, [bins - 1], window_bins=window_bins)
            assert np.array_equal(stream.dense[index, env], dense[0])
            window = series_windows(series, np.array([bins - 1]), window_bins=window_bins)[0]
            assert np.array_equal(stream.series(window_bins)[env], window)


def test_a_restarted_call_knows_nothing_of_the_call_before_it():
    generator = np.random.default_rng(3)
    stream = FeatureStream(2, windows=(MAX_WINDOW_BINS,))
    before = random_rows(generator, 150)
    after = random_rows(generator, 70)
    both = np.ones(2, dtype=np.bool_)
    for position in range(150):
        stream.push(before[[position, position]].view(TELEMETRY), both)
    stream.restart(0)
    for position in range(70):
        stream.push(after[[position, position]].view(TELEMETRY), both)
    series, dense = call_features(after, [69], window_bins=MAX_WINDOW_BINS)
    assert np.array_equal(stream.dense[0, 0], dense[0])
    window = series_windows(series, np.array([69]), window_bins=MAX_WINDOW_BINS)[0]
    assert np.array_equal(stream.series(MAX_WINDOW_BINS)[0], window)
    assert not np.array_equal(stream.dense[0, 1], dense[0])


def test_what_comes_after_a_window_does_not_change_its_features():
    generator = np.random.default_rng(5)
    rows = random_rows(generator, 200)
    other = rows.copy()
    other[120:] = random_rows(generator, 80)
    one, two = (call_features(r, [119], window_bins=MAX_WINDOW_BINS) for r in (rows, other))
    assert np.array_equal(one[0][:120], two[0][:120])
    assert np.array_equal(one[1], two[1])


def test_features_stay_within_one_whatever_a_call_does():
    generator = np.random.default_rng(7)
    rows = random_rows(generator, 300)
    rows["rtt_ms"][10] = 1e9
    rows["queue_delay_ms"][11] = -5.0  # a clock that drifts
    rows["sent_bytes"][12] = 1e12
    series, dense = call_features(rows, np.arange(300), window_bins=MAX_WINDOW_BINS)
    assert series.shape == (300, NUM_SERIES) == (300, len(SERIES_NAMES))
    assert dense.shape == (300, NUM_DENSE)
    for values in (series, dense):
        assert np.isfinite(values).all()
        assert (np.abs(values) <= 1.0).all()


@pytest.mark.parametrize("window_bins", [0, 9, 101, 20.0])
def test_a_window_that_no_model_has_is_refused(window_bins):
    with pytest.raises(ConfigError, match=r"whole number of 0\.1 s bins from 10 to 100"):
        call_features(calm(10), [3], window_bins=window_bins)


@pytest.mark.parametrize("at", [[3, 3], [5, 4], [-1], [10]])
def test_windows_that_end_nowhere_or_out_of_order_are_refused(at):
    with pytest.raises(ConfigError, match="ascending bins from 0 to 9"):
        call_features(calm(10), at, window_bins=40)


def test_rows_of_another_kind_are_refused():
    with pytest.raises(ConfigError, match="TELEMETRY"):
        call_features(np.zeros(5), [1], window_bins=40)


def test_the_documentation_shows_the_tables_of_features():
    page = Path(__file__).parent.parent.joinpath("docs/network-models.md").read_text()
    assert markdown_table(SERIES_FEATURES) in page
    assert markdown_table(DENSE_FEATURES) in page

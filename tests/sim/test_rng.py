"""The random numbers: published words, right moments, streams that know nothing of each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.sim.rng import N_STREAMS, mix64, normal, uniform

COUNT = 10_000
KEY = np.uint64(20_250_101)

#: Four standard deviations: a correct generator fails one such test in 16,000.
SIGMAS = 4.0


def draws(key: int, stream: int, count: int = COUNT) -> NDArray[np.float64]:
    return np.array([uniform(np.uint64(key), stream, counter) for counter in range(count)])


def test_the_mixer_makes_the_published_words_of_splitmix64() -> None:
    # The first outputs for the seed 1234567 of the authors' C code (prng.di.unimi.it/splitmix64.c).
    words = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + golden * (position + 1)) % 2**64 for position in range(len(words))]
    assert [int(mix64(np.uint64(state))) for state in states] == words


def test_uniform_numbers_have_the_moments_of_a_uniform_and_fill_its_bins_evenly() -> None:
    values = draws(int(KEY), 0)
    assert ((values >= 0.0) & (values < 1.0)).all()
    assert abs(values.mean() - 1 / 2) < SIGMAS * math.sqrt(1 / 12 / COUNT)
    # The fourth central moment of a uniform is 1/80.
    assert abs(values.var() - 1 / 12) < SIGMAS * math.sqrt((1 / 80 - 1 / 144) / COUNT)
    bins = np.bincount((values * 100).astype(int), minlength=100)
    chi_square = ((bins - COUNT / 100) ** 2 / (COUNT / 100)).sum()
    assert abs(chi_square - 99) < SIGMAS * math.sqrt(2 * 99)


def test_neighbouring_counters_are_uncorrelated() -> None:
    values = draws(int(KEY), 0)
    for lag in (1, 2, 3):
        correlation = np.corrcoef(values[:-lag], values[lag:])[0, 1]
        assert abs(correlation) < SIGMAS / math.sqrt(COUNT)


def test_streams_of_one_call_and_the_same_stream_of_neighbouring_calls_are_uncorrelated() -> None:
    count = 2_000
    columns = [draws(int(KEY), stream, count) for stream in range(N_STREAMS)]
    columns += [draws(int(KEY) + 1, 0, count), draws(int(KEY) ^ (1 << 62), 0, count)]
    for first, second in itertools.combinations(columns, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < SIGMAS / math.sqrt(count)


def test_a_number_depends_on_nothing_but_key_stream_and_counter() -> None:
    places = [
        (key, stream, counter) for key in (0, 1, 7) for stream in (0, 3) for counter in (0, 9)
    ]
    forward = [uniform(np.uint64(key), stream, counter) for key, stream, counter in places]
    backward = [uniform(np.uint64(key), stream, counter) for key, stream, counter in places[::-1]]
    assert forward == backward[::-1]
    assert len(set(forward)) == len(places)


def test_normal_numbers_have_the_moments_and_the_tails_of_a_normal() -> None:
    values = np.array([normal(KEY, 1, counter) for counter in range(COUNT)])
    assert abs(values.mean()) < SIGMAS / math.sqrt(COUNT)
    assert abs(values.var() - 1.0) < SIGMAS * math.sqrt(2.0 / COUNT)
    for bound, share in ((1.0, 0.6827), (2.0, 0.9545)):
        error = math.sqrt(share * (1.0 - share) / COUNT)
        assert (np.abs(values) < bound).mean() == pytest.approx(share, abs=SIGMAS * error)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < SIGMAS / math.sqrt(COUNT)

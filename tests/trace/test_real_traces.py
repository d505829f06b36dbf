"""The 322 measured traces and the originals in their native formats, where they are at hand.

Their licences forbid shipping them, so they lie beside the checkout and these tests are skipped
without them.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env.trace import (
    Trace,
    build_bank,
    read_alphartc,
    read_directory,
    read_mahimahi,
    real_networks,
)

DIRECTORY = Path(__file__).resolve().parents[2] / ".." / "shared" / "traces"
pytestmark = pytest.mark.skipif(
    not (DIRECTORY / "manifest.json").exists(),
    reason=f"the measured traces are not at {DIRECTORY} (their licences forbid shipping them)",
)


@pytest.fixture(scope="module")
def manifest() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((DIRECTORY / "manifest.json").read_text())
    return entries


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    return read_directory(DIRECTORY)


def test_all_322_traces_load_with_the_durations_and_means_of_the_manifest(
    manifest: list[dict[str, Any]], traces: list[Trace]
) -> None:
    assert len(traces) == len(manifest) == 322
    for trace, entry in zip(traces, manifest, strict=True):
        assert trace.name == entry["name"]
        assert trace.network_type == entry["network_type"]
        assert entry["dataset"] in trace.source
        assert len(trace) == entry["n_samples"]
        # The manifest rounds means to 1 bps and durations to 1 ms: the last segment's length is
        # known no better, which moves the mean by up to 5e-6.
        assert trace.duration_s == pytest.approx(entry["duration_s"], abs=0.001)
        assert trace.mean_bps == pytest.approx(entry["mean_bps"], rel=5e-6, abs=1.0)
        assert trace.capacity_bps.max() == pytest.approx(entry["max_bps"], abs=1.0)
        assert trace.capacity_bps.min() == pytest.approx(entry["min_bps"], abs=1.0)


def test_real_networks_keep_their_traces_and_meet_the_same_path_in_every_reading(
    traces: list[Trace],
) -> None:
    networks = real_networks(DIRECTORY)
    assert [network.trace for network in networks] == traces
    assert networks == real_networks(DIRECTORY)
    assert Counter(network.network_type for network in networks) == {
        "3G": 60,
        "4G-LTE": 96,
        "5G": 75,
        "satellite": 31,
        "wifi": 20,
        "wired-broadband": 40,
    }
    assert sum((network.trace.capacity_bps == 0).any() for network in networks) > 30  # outages
    assert len({network.forward for network in networks}) == 322


def test_all_traces_fit_in_one_bank(traces: list[Trace]) -> None:
    bank = build_bank(traces)
    assert len(bank.period_us) == 322
    bits = np.add.reduceat(bank.capacity_bps * bank.duration_us, bank.offset[:-1])
    assert bits / bank.period_us == pytest.approx([trace.mean_bps for trace in traces], rel=1e-9)


def test_every_alphartc_original_parses_and_glitches_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = sorted((DIRECTORY / "originals").glob("*.json"))
    assert len(paths) == 8
    with_glitches = set()
    for path in paths:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            raw = read_alphartc(path, network_type="4G-LTE")
        if caplog.records:
            assert "pass max_capacity_bps to cut them" in caplog.text
            assert raw.trace.capacity_bps.max() > 8e9
            with_glitches.add(path.stem)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            cut = read_alphartc(path, network_type="4G-LTE", max_capacity_bps=200e6)
        assert bool(caplog.records) == (path.stem in with_glitches)
        assert cut.trace.capacity_bps.max() <= 200e6
        changed = cut.trace.capacity_bps != raw.trace.capacity_bps
        assert np.all(raw.trace.capacity_bps[changed] > 200e6)
        assert cut.network().trace.duration_s == raw.trace.duration_s
    assert with_glitches == {"alphartc-4G_3mbps", "alphartc-5G_13mbps", "alphartc-WIRED_35mbps"}


def test_the_alphartc_originals_in_the_manifest_have_its_mean(traces: list[Trace]) -> None:
    by_name = {trace.name: trace for trace in traces}
    for name in ("4G_500kbps", "4G_700kbps"):
        ours = read_alphartc(DIRECTORY / "originals" / f"alphartc-{name}.json", network_type="5G")
        reference = by_name[f"4G-LTE__onl-gym__{name}"]
        assert ours.trace.mean_bps == pytest.approx(reference.mean_bps, rel=1e-4)
        assert ours.trace.duration_s == pytest.approx(reference.duration_s, rel=1e-4)


def test_every_mahimahi_original_parses_and_no_opportunity_is_lost() -> None:
    paths = [
        path
        for path in sorted((DIRECTORY / "originals").iterdir())
        if path.suffix != ".json" and path.name != "README.mahimahi"
    ]
    assert len(paths) == 25
    for path in paths:
        trace = read_mahimahi(path, network_type="4G-LTE")
        assert 100 < trace.duration_s < 1100
        opportunities = trace.mean_bps * trace.duration_s / 12_000
        assert opportunities == pytest.approx(round(opportunities), abs=1e-3)
        assert 0.3e6 < trace.mean_bps < 30e6


def test_a_mahimahi_original_is_what_the_manifest_made_of_it(traces: list[Trace]) -> None:
    original = read_mahimahi(
        DIRECTORY / "originals" / "TMobile-UMTS-driving.down.gz", network_type="3G"
    )
    chunks = [t for t in traces if t.name.startswith("3G__mahimahi__TMobile-UMTS-driving.down__")]
    first = min(chunks, key=lambda trace: trace.name)
    # The chunks were binned to 100 ms from 0, like ours; all but the last, partial bin agree.
    count = len(first) - 1
    assert np.array_equal(original.capacity_bps[:count], first.capacity_bps[:count])

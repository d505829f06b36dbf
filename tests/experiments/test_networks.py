from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.errors import ConfigError, UnknownNameError
from experiments.networks import (
    SPLITS,
    measured_sets,
    named_networks,
    networks_digest,
    split_recordings,
    synthetic_sets,
)


def write_traces(directory: Path, sessions: int, *, network_type: str = "4G-LTE") -> Path:
    """`sessions` recordings of two chunks each, as a directory that can be read."""
    directory.mkdir(exist_ok=True)
    entries = []
    for session in range(sessions):
        for chunk in range(2):
            name = f"rec{session}__c{chunk}"
            rate = 1_000_000 + 1000 * session + chunk
            (directory / f"{name}.csv").write_text(
                f"time_s,capacity_bps\n0,{rate}\n1,{rate + 500_000}\n"
            )
            entries.append(
                {
                    "name": name,
                    "file": f"{name}.csv",
                    "network_type": network_type,
                    "duration_s": 2.0,
                    "dataset": "made",
                    "session": f"rec{session}",
                }
            )
    (directory / "manifest.json").write_text(json.dumps(entries))
    return directory


def test_synthetic_sets_share_no_network_and_have_the_wanted_sizes() -> None:
    sets = synthetic_sets(train=12, validation=6, test=6)
    names = [n.name for split in SPLITS for n in getattr(sets, split)]
    digests = [n.trace.digest for split in SPLITS for n in getattr(sets, split)]
    assert (len(sets.train), len(sets.validation), len(sets.test)) == (12, 6, 6)
    assert len(set(names)) == len(names) == len(set(digests))
    assert sets.digests == synthetic_sets(train=12, validation=6, test=6).digests


def test_a_digest_changes_with_any_network() -> None:
    networks = synthetic_sets(train=3, validation=1, test=1).train
    assert networks_digest(networks) == networks_digest(list(networks))
    assert networks_digest(networks) != networks_digest(networks[:2])
    assert networks_digest(networks) != networks_digest(networks[::-1])


def test_measured_traces_fill_three_sets_and_a_recording_stays_on_one_side(
    tmp_path: Path,
) -> None:
    sets = measured_sets(write_traces(tmp_path / "traces", sessions=5))
    sides = {split: {n.name.split("__")[0] for n in getattr(sets, split)} for split in SPLITS}
    assert sum(len(getattr(sets, split)) for split in SPLITS) == 10
    assert sum(len(side) for side in sides.values()) == 5
    assert all(sides.values())
    assert set.union(*sides.values()) == {f"rec{i}" for i in range(5)}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["3G", "5G"]), st.integers(0, 6), st.integers(0, 3), st.booleans()
        ),
        max_size=40,
    ),
    st.randoms(),
)
def test_a_split_is_a_function_of_the_set_of_traces_that_keeps_recordings_together(
    rows: list[tuple[str, int, int, bool]], random: object
) -> None:
    traces = [
        (
            f"t{i}",
            network_type,
            f"g{group}" if grouped else None,
            f"g{group}s{session}{grouped}",
        )
        for i, (network_type, group, session, grouped) in enumerate(rows)
    ]
    split_of = split_recordings(traces)
    shuffled = list(traces)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_recordings(shuffled) == split_of
    assert set(split_of) == {name for name, *_ in traces}
    sides: dict[tuple[str, str | None], set[str]] = {}
    for name, network_type, _, session in traces:
        sides.setdefault((network_type, session), set()).add(split_of[name])
    assert all(len(side) == 1 for side in sides.values())


def test_too_few_recordings_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few recordings .* at least 3 recordings"):
        measured_sets(write_traces(tmp_path / "traces", sessions=2))


def test_a_directory_is_taken_whole_or_by_split(tmp_path: Path) -> None:
    traces = write_traces(tmp_path / "traces", sessions=5)
    assert len(named_networks(traces=traces, split="all", count=1)) == 10
    test = named_networks(traces=traces, split="test", count=1)
    assert [n.name for n in test] == [n.name for n in measured_sets(traces).test]
    assert len(named_networks(traces=None, split="validation", count=3)) == 3


def test_unknown_splits_and_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown split 'tests'. Did you mean 'test'"):
        named_networks(traces=None, split="tests", count=1)
    with pytest.raises(ConfigError, match="needs --traces DIR"):
        named_networks(traces=None, split="all", count=1)
    with pytest.raises(UnknownNameError, match="does not exist"):
        named_networks(traces=tmp_path / "nothing", split="all", count=1)

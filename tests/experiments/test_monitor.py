from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.metrics import FIELD_METRICS
from experiments.ab_test import joined_calls
from experiments.monitor import main, read_table, verdicts
from experiments.monitor_statistics import (
    ALL,
    MIN_NETWORKS,
    NO_TYPE,
    Drift,
    compared_types,
    drifts,
    mix_of,
    stability_index,
    unpaired_changes,
)
from experiments.tables import write_csv
from tests.experiments.ab_calls import Table, noisy_table

FREEZE = "peer_video_freeze_percentage"


def detected(table: Table, counts: dict[str, int]) -> Table:
    """The table with so many calls of each detected type, shuffled over its networks."""
    names = np.array(list(itertools.chain(*([name] * n for name, n in counts.items()))))
    return table | {"detected_type": np.random.default_rng(5).permutation(names)}


def halves(networks: int = 120, **options: Any) -> Table:
    """Half of the calls were found to be on wifi, the other half on 4G."""
    half = networks // 2
    return detected(noisy_table(networks, **options), {"wifi": half, "4G": networks - half})


# --- Mix ------------------------------------------------------------------------------------------


def test_the_stability_index_by_hand() -> None:
    """Shares 0.5, 0.5 to 0.6, 0.4: 0.1 ln(1.2) + (-0.1) ln(0.8) = 0.0182 + 0.0223."""
    reference, now = np.array([5e8, 5e8]), np.array([6e8, 4e8])  # the prior calls do not matter
    expected = 0.1 * math.log(1.2) - 0.1 * math.log(0.8)
    assert stability_index(reference, now) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.0405, abs=1e-4)
    assert stability_index(reference, reference) == 0.0


def test_a_type_that_is_gone_has_a_finite_index() -> None:
    index = stability_index(np.array([50.0, 50.0]), np.array([100.0, 0.0]))
    assert 0.25 < index < math.inf


def test_a_changed_mix_is_found_and_the_shares_are_told_with_intervals() -> None:
    reference = detected(noisy_table(200, seed=1), {"wifi": 100, "4G": 100})
    now = detected(noisy_table(200, seed=2), {"wifi": 150, "4G": 40, "": 10})
    mix = mix_of(reference, now, resamples=2_000)
    assert mix.has_drifted
    assert mix.size == "large"
    assert mix.low < mix.index < mix.high
    shares = {share.name: share for share in mix.shares}
    assert set(shares) == {"wifi", "4G", NO_TYPE}
    assert shares["wifi"].change.mean == pytest.approx(25.0)
    # Two shares of 200 calls: sqrt(0.25 / 200 + 0.1875 / 200) = 4.7 points.
    width = shares["wifi"].change.high - shares["wifi"].change.low
    assert width == pytest.approx(2 * 1.96 * 4.7, rel=0.1)


def test_the_same_mix_is_rarely_called_drifted() -> None:
    generator = np.random.default_rng(3)
    p_values = []
    for run in range(24):
        tables = []
        for _ in range(2):
            names = generator.choice(["wifi", "4G", "3G"], size=60)
            table = {
                "network": np.array([f"n{i}" for i in range(60)]),
                "detected_type": names,
            }
            tables.append(table)
        p_values.append(mix_of(*tables, resamples=200, seed=run).p_value)
    # 1.2 of 24 are expected below 0.05; more than 4 have a chance of 0.6 %.
    assert sum(p < 0.05 for p in p_values) <= 4
    assert 0.3 < np.mean(p_values) < 0.7


def test_the_permutation_test_agrees_with_all_re_deals_of_few_networks() -> None:
    """4 + 4 networks of one call each; 70 ways to deal them."""
    types = ["a", "a", "a", "b"], ["b", "b", "b", "a"]
    tables = [
        {"network": np.array([f"n{i}" for i in range(4)]), "detected_type": np.array(t)}
        for t in types
    ]
    counts = np.array([[t == "a", t == "b"] for t in (*types[0], *types[1])], dtype=float)
    observed = stability_index(counts[:4].sum(0), counts[4:].sum(0))
    deals = list(itertools.combinations(range(8), 4))
    as_high = [
        stability_index(counts[list(d)].sum(0), counts.sum(0) - counts[list(d)].sum(0))
        >= observed - 1e-12
        for d in deals
    ]
    # 10,000 draws: the standard error is at most 0.5 %.
    assert mix_of(*tables, resamples=200).p_value == pytest.approx(np.mean(as_high), abs=0.02)


# --- Metrics --------------------------------------------------------------------------------------


def test_unpaired_changes_have_the_width_of_two_independent_means() -> None:
    reference, now = noisy_table(400, seed=1), noisy_table(300, seed=2)
    now["freeze_ratio"] = np.random.default_rng(8).permutation(now["freeze_ratio"])
    for table in (reference, now):
        table["network_type"][:] = "wifi"
    found = {c.metric.name: c for c in unpaired_changes(reference, now, resamples=4_000)}[FREEZE]
    x, y = reference["freeze_ratio"], now["freeze_ratio"]
    error = math.hypot(
        x.std(ddof=1) / x.mean() / math.sqrt(400), y.std(ddof=1) / y.mean() / math.sqrt(300)
    )
    assert found.change_pct == pytest.approx(100.0 * (y.mean() / x.mean() - 1.0))
    assert found.log_se == pytest.approx(error, rel=0.06)  # 4,000 resamples: 1 %, and curvature
    assert found.networks == 700


def by_type(rows: list[Drift]) -> dict[tuple[str, str], Drift]:
    return {(row.type_name, row.change.metric.name): row for row in rows}


def test_a_metric_that_moved_in_one_type_is_flagged_there_and_not_in_the_other() -> None:
    reference, now = halves(seed=1), halves(seed=2)
    now["freeze_ratio"][now["detected_type"] == "wifi"] *= 3.0
    rows = drifts(reference, now, resamples=4_000)
    assert len(rows) == 3 * len(FIELD_METRICS)
    found = by_type(rows)
    assert found["wifi", FREEZE].is_flagged
    assert not found["4G", FREEZE].is_flagged
    fits = verdicts(mix_of(reference, now, resamples=500), rows, ["4G", "wifi"])
    assert fits["4G"] == "no drift found"
    assert fits["wifi"].startswith("has drifted: ")
    assert FREEZE in fits["wifi"]


def test_calls_that_did_not_change_are_not_flagged() -> None:
    rows = drifts(halves(seed=1), halves(seed=2), resamples=4_000)
    assert [row.change.metric.name for row in rows if row.is_flagged] == []


def test_one_drop_in_either_table_is_no_drift() -> None:
    reference, now = halves(seed=1), halves(seed=2)
    reference["dropped"][0] = 1.0
    row = by_type(drifts(reference, now, resamples=2_000))[ALL, "connection_drop_rate"]
    # One event falls into either of two equal tables half of the time.
    assert row.change.p_value >= 0.5
    assert not row.is_flagged


def test_resamples_too_few_for_the_rows_are_refused_and_as_many_as_asked_for_suffice() -> None:
    """36 rows: 2 * 36 / 0.05 = 1,440; the least p-value is then 2 / 1,441, times 36 = 0.04997."""
    reference, now = halves(seed=1), halves(seed=2, freeze_ratio=3.0)
    with pytest.raises(ConfigError, match="must be at least 1440"):
        drifts(reference, now, resamples=1_439)
    assert by_type(drifts(reference, now, resamples=1_440))[ALL, FREEZE].is_flagged


def test_rare_types_are_not_compared_but_named() -> None:
    few = MIN_NETWORKS - 1
    reference = detected(noisy_table(100, seed=1), {"wifi": 100 - few, "5G": few})
    now = detected(noisy_table(100, seed=2), {"wifi": 60, "5G": 40})
    assert compared_types(reference, now) == ["wifi"]
    mix = mix_of(reference, now, resamples=200)
    assert "too few calls" in verdicts(mix, [], ["wifi"])["5G"]


# --- The command ----------------------------------------------------------------------------------


def test_the_command_writes_a_report_csv_and_scalars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed, factor in (("then", 1, 1.0), ("now", 2, 3.0)):
        (tmp_path / name).mkdir()
        table = halves(seed=seed, freeze_ratio=factor)
        write_csv(tmp_path / name / "calls.csv", table)
    logdir = tmp_path / "log"
    argv = ["--reference", str(tmp_path / "then"), "--now", str(tmp_path / "now")]
    argv += ["--logdir", str(logdir), "--resamples", "2000", "--step", "7"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "the mix of types holds" in printed
    assert "drifted" in (logdir / "monitor.txt").read_text()
    with (logdir / "drift.csv").open() as file:
        rows = {(r["detected_type"], r["metric"]): r for r in csv.DictReader(file)}
    assert rows["all", FREEZE]["flagged"] == "1"
    with (logdir / "shares.csv").open() as file:
        assert [row["detected_type"] for row in csv.DictReader(file)] == ["4G", "wifi"]
    scalars = read_scalars(logdir)
    assert scalars["share/wifi"] == [(7, pytest.approx(0.5))]
    assert scalars[f"change_pct/all/{FREEZE}"][0][1] == pytest.approx(
        float(rows["all", FREEZE]["change_pct"]), rel=1e-5
    )


def read_scalars(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logdir))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_a_table_of_calls_comes_back_from_its_csv(tmp_path: Path) -> None:
    table = halves(8, seed=1)
    table["dropped"] = table["dropped"] == 1.0
    table["freeze_ratio"][0] = np.nan
    write_csv(tmp_path / "calls.csv", table)
    for name, column in read_table(tmp_path, "treatment").items():
        np.testing.assert_array_equal(column, table[name])


def test_of_a_table_of_several_arms_only_the_wanted_one_is_read(tmp_path: Path) -> None:
    calls = detected(noisy_table(4, seed=1), {"wifi": 4})
    arms = {"control": calls, "treatment": {**calls, "duration_s": 2.0 * calls["duration_s"]}}
    write_csv(tmp_path / "calls.csv", joined_calls(arms))
    back = read_table(tmp_path, "treatment")
    assert back["duration_s"].tolist() == arms["treatment"]["duration_s"].tolist()
    with pytest.raises(ArtifactError, match="no arm 'rules'; it has control, treatment"):
        read_table(tmp_path, "rules")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no calls in"),
        ("network,freeze_ratio\n", "holds no calls"),
        ("network,freeze_ratio\na,x\n", "column freeze_ratio must hold numbers"),
        ("network,freeze_ratio\na,0.1\n", "the calls have no columns audio_concealed_s"),
    ],
)
def test_a_folder_without_usable_calls_ends_with_code_2(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "calls.csv").write_text(content)
    argv = ["--reference", str(tmp_path), "--now", str(tmp_path), "--logdir", str(tmp_path / "x")]
    assert main(argv) == 2
    assert message in capsys.readouterr().err

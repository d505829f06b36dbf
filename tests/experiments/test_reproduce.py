"""The published tests in one command: the report on made-up calls, delivery, a small real run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError
from bwe_env.metrics import FIELD_METRICS
from experiments.ab_power import power_of
from experiments.ab_published import Published
from experiments.ab_report import report
from experiments.artifact_store import Store
from experiments.plan_trials import STUDIES
from experiments.published_experiments import EXPERIMENTS, experiment_of
from experiments.reproduce import ReproduceConfig, main
from experiments.reproduce_delivery import SHIPPED, assemble, fill_store
from experiments.reproduce_report import (
    AGAINST,
    AS_PUBLISHED,
    NOT_SHOWN,
    Reproduced,
    conclusion,
    reason,
    result_columns,
    tables,
    verdict,
)
from experiments.tables import show
from tests.experiments.ab_calls import noisy_table


def reproduced(name: str, *, change: float, placebo: float, calls: int = 300) -> Reproduced:
    """An experiment in which every frozen share is multiplied, on made-up calls."""
    experiment = experiment_of(name)
    control = noisy_table(calls, seed=1)

    def against(factor: float, label: str) -> Any:
        frozen = {"freeze_ratio": factor, "freeze_ratio_above_500ms": factor}
        return report(
            control,
            noisy_table(calls, seed=2, **frozen),
            names=("gcc", label),
            metrics=tuple(FIELD_METRICS[metric] for metric in experiment.rows),
            directions={metric: row.direction for metric, row in experiment.rows.items()},
            resamples=1_000,
        )

    return Reproduced(
        experiment=experiment,
        treatment=against(change, "models"),
        placebo=against(placebo, "placebo"),
        rules=against(change, "rules"),
        over_rules=against(1.0, "models"),
        headroom=(),
        detected={"cellular-low": 0.75, "none": 0.25},
        delivered={"0123456789abcdef": calls - 64, "built-in": 64},
    )


def test_a_row_moves_as_published_against_it_or_is_not_shown() -> None:
    better, worse = (reproduced("random-loss", change=change, placebo=1.0) for change in (0.5, 1.5))
    metric = "peer_video_freeze_percentage"

    def row(its: Reproduced, name: str) -> Any:
        return next(row for row in its.treatment.rows if row.change.metric.name == name)

    assert verdict(row(better, metric)) == AS_PUBLISHED
    assert verdict(row(worse, metric)) == AGAINST
    assert verdict(row(better, "peer_neteq_plc_cng_perc")) == NOT_SHOWN


def test_a_row_that_is_not_shown_says_why() -> None:
    slight, worse = (
        reproduced("random-loss", change=c, placebo=1.0).treatment.rows[0] for c in (0.5, 1.5)
    )
    assert reason(slight) == ""  # it moves as published
    unclear = dataclasses.replace(slight, p_holm=0.2)
    needed = f"{power_of(slight.change).networks_needed:,.0f}"
    assert reason(unclear) == f"so small a change takes {needed} networks or more to show"
    unclear = dataclasses.replace(worse, p_holm=0.2)
    assert reason(unclear) == "moves the other way, by chance or not"


def test_only_rows_that_are_evidence_are_counted() -> None:
    its = reproduced("random-loss", change=0.5, placebo=1.0)
    assert [row.change.metric.name for row in its.counted()] == [
        "peer_video_freeze_percentage",
        "peer_video_freeze_percentage_above_500ms",
        "peer_neteq_plc_cng_perc",
    ]


def test_the_conclusion_counts_rows_and_names_placebos_that_win() -> None:
    honest = reproduced("random-loss", change=0.5, placebo=1.0)
    text = conclusion([honest])
    assert text.startswith("2 of 3 counted rows move as published, 0 significantly against it, 1")
    assert "Placebos that win: none." in text
    broken = reproduced("random-loss", change=0.5, placebo=0.5)
    assert broken.placebo.gains
    assert broken.placebo_wins
    assert "Placebos that win: random-loss." in conclusion([broken])
    undecided = dataclasses.replace(broken, placebo_is_harmless=False)
    assert "Placebos that win: none." in conclusion([undecided])
    assert "by undecided guards alone: random-loss." in conclusion([undecided])
    harmful = dataclasses.replace(undecided, placebo_is_harmful=True)
    assert "by undecided guards alone: none." in conclusion([harmful])
    assert not harmful.placebo_wins
    assert "Placebos that win: none." in conclusion([harmful])


def test_the_printed_report_has_every_published_row(capsys: pytest.CaptureFixture[str]) -> None:
    its = reproduced("random-loss", change=0.5, placebo=1.0)
    show(*tables([its]))
    printed = capsys.readouterr().out
    for metric, row in its.experiment.rows.items():
        assert metric in printed
        assert f"{row.change_pct:+.2f}" in printed
    assert "cellular-low 75 %" in printed
    assert "0123456789ab in 236 calls, built-in in 64 calls" in " ".join(printed.split())
    columns = result_columns([its])
    assert len(columns["metric"]) == 4 * len(its.experiment.rows)
    assert {len(column) for column in columns.values()} == {len(columns["metric"])}


def test_what_is_shipped_is_whole_and_has_one_digest_everywhere(tmp_path: Path) -> None:
    digests = [fill_store(Store(tmp_path / place / "store"), SHIPPED) for place in ("a", "b/c")]
    assert digests[0] == digests[1]
    assert set(digests[0]) == set(STUDIES)


def test_configurations_built_in_two_places_have_the_same_digests(tmp_path: Path) -> None:
    digests = []
    for place in ("first", "second/deeper"):
        root = tmp_path / place
        sources = root / "sources"
        for name, study in STUDIES.items():
            (sources / "plans" / name).mkdir(parents=True)
            plan = (SHIPPED / name / "plan.json").read_bytes()
            (sources / "plans" / name / "plan.json").write_bytes(plan)
            for task in study.models:
                folder = sources / "models" / task
                folder.mkdir(parents=True)
                for file in (SHIPPED / name / "models" / task).iterdir():
                    (folder / file.name).write_bytes(file.read_bytes())
                (folder / "history.json").write_text(place)  # what differs from run to run
        (sources / "rules").mkdir()
        rules = (SHIPPED / "cellular" / "rules.json").read_bytes()
        (sources / "rules" / "rules.json").write_bytes(rules)
        parts = (sources / "plans", sources / "models", sources / "rules")
        assemble(*parts, root / "delivered")
        digests.append(fill_store(Store(root / "store"), root / "delivered"))
    assert digests[0] == digests[1]


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no configuration"):
        fill_store(Store(tmp_path / "store"), tmp_path)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="plan of --plans"):
        ReproduceConfig(plans=("wifi",))
    with pytest.raises(ConfigError, match="at least 2"):
        ReproduceConfig(calls=1)


def test_the_forms_of_the_command_share_no_folder_unless_told() -> None:
    forms = (ReproduceConfig(), ReproduceConfig(quick=True), ReproduceConfig(shipped=True))
    assert len({form.folder for form in forms}) == 3
    assert ReproduceConfig(quick=True, out=Path("x")).folder == Path("x")


def test_every_experiment_has_a_plan_that_is_tuned_for_it() -> None:
    planned = [name for study in STUDIES.values() for name in study.experiments]
    assert sorted(planned) == sorted(experiment.name for experiment in EXPERIMENTS)
    for name, study in STUDIES.items():
        assert {experiment_of(e).plan for e in study.experiments} == {name}


def test_published_rows_carry_their_interval() -> None:
    row = experiment_of("congestion").rows["connection_drop_rate"]
    assert row == Published(change_pct=-0.326, low_pct=-0.326 - 0.216, high_pct=-0.326 + 0.216)


@pytest.mark.slow
def test_the_command_plays_a_test_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--quick", "--plans", "cellular", "--calls", "12", "--out", str(out)]
    command += ["--split", "validation", "--workers", "1"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "counted rows move as published" in first
    played = {path.name: path.read_bytes() for path in (out / "cellular").glob("calls-*.npz")}
    assert len(played) == 4
    (out / "cellular" / "calls-rules-0000.npz").unlink()
    assert main(command) == 0
    again = {path.name: path.read_bytes() for path in (out / "cellular").glob("calls-*.npz")}
    with np.load(out / "cellular" / "calls-treatment-0000.npz") as calls:
        assert len(set(calls["configuration"].tolist())) == 1
    assert again.keys() == played.keys()
    assert (out / "results.csv").is_file()

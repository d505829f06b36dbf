"""The page of a comparison, made from a folder of made-up calls."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments.compare_results import read_comparison
from experiments.report import main as report
from experiments.results_data import read_results
from experiments.results_page import Sources, write_page
from experiments.results_tables import best_label
from tests.experiments.compare_folder import ESTIMATORS, METRICS, TYPES, write_folder, write_run
from tests.experiments.pages import CHROMIUM, NO_CHROMIUM, Page, in_browser

SECTIONS = [
    "summary",
    "differences",
    "chances",
    "distributions",
    "profiles",
    "network-type",
    "bandwidth",
    "training",
    "ablations",
    "robustness",
    "made",
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    root = tmp_path_factory.mktemp("results")
    (root / "ablations").mkdir()
    (root / "ablations" / "reward.csv").write_text(
        "variant,metric,mean,low,high\n"
        "full,call score,3.4125,3.3,3.5\nno delay term,call score,3.2,3.1,3.3\n"
        "full,freeze %,2.4,,\n"
    )
    (root / "robustness").mkdir()
    (root / "robustness" / "loss_sweep.csv").write_text("loss,estimator,score\n0.05,PPO,2.98765\n")
    return Sources(
        comparison=write_folder(root / "compare"),
        runs=tuple(
            write_run(root / "runs", name, seed=seed, ends_at=end)
            for name, seed, end in (("ppo", 0, 3.5), ("ppo", 1, 3.25), ("lstm", 0, 3.0))
        ),
        ablations=root / "ablations",
        robustness=root / "robustness",
        timelines=False,
    )


@pytest.fixture(scope="module")
def written(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(sources, tmp_path_factory.mktemp("page") / "new" / "results.html")


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


# --- What stands in it ----------------------------------------------------------------------------


def test_the_page_has_a_section_for_all_there_is(page: Page) -> None:
    assert [heading["id"] for heading in page.all("h2")] == SECTIONS
    assert len(page.all("table")) >= 12


@pytest.mark.parametrize("subset", ["contested", "all"])
def test_every_mean_and_difference_stands_in_the_page(
    page: Page, sources: Sources, subset: str
) -> None:
    comparison = read_comparison(sources.comparison)
    for estimator in ESTIMATORS:
        for metric in METRICS:
            value = comparison.find(estimator.label, subset, metric.name, "mean")
            assert value is not None
            cells = [f"{v:.{metric.digits}f}" for v in (value.value, value.low, value.high)]
            assert f"{cells[0]} [{cells[1]}, {cells[2]}]" in page.text
            value = comparison.find(estimator.label, subset, metric.name, "difference")
            if value is not None:
                cells = [f"{v:+.{metric.digits}f}" for v in (value.value, value.low, value.high)]
                assert f"{cells[0]} [{cells[1]}, {cells[2]}]" in page.text


@pytest.mark.parametrize(
    "planted",
    [
        "at most 6 Mbps, calls of 20 s <planted & escaped>",
        "Capacity-limited calls: 25 networks, 50 calls per estimator and run",
        "68.0 [63.0, 73.0]",  # 0.5 + 0.6 * 0.3 of improvement
        "55 [45, 65]",  # 0.3 / 0.55 of the gap
        "PPO, ppo-001",
        "beats it",
        "does not",
        "0.00617",  # a p-value of non-inferiority
        "not shown",
        "0, 1",  # seeds of the training
        "3.500, 3.250",  # where its runs ended
        "3.413 [3.3, 3.5]",
        "2.4 [–, –]",
        "2.988",
        "<b>bbr</b>",
        "A planted note.",
        "digest " + "ab" * 32,
        "python -m experiments.report results compare --runs ppo-001 ppo-002 lstm-001 "
        "--ablations ablations --robustness robustness --no-timelines",
    ],
)
def test_the_page_tells_every_planted_number(page: Page, planted: str) -> None:
    assert planted in page.text


def test_the_best_is_not_an_oracle_and_is_lowest_where_lower_is_better(sources: Sources) -> None:
    results = read_results(sources.comparison)
    for metric in METRICS:
        means = {
            e.label: results.comparison.find(e.label, "contested", metric.name, "mean").value  # type: ignore[union-attr]
            for e in ESTIMATORS
            if not e.label.startswith("oracle")
        }
        ordered = sorted(means, key=lambda name: means[name])
        expected = ordered[-1] if metric.better == "higher" else ordered[0]
        assert best_label(results, "contested", metric) == expected


def test_the_agent_is_what_was_trained_and_the_first_estimator_without_any(tmp_path: Path) -> None:
    assert read_results(write_folder(tmp_path / "one")).agent == "PPO"
    untrained = read_results(
        write_folder(tmp_path / "two", estimators=ESTIMATORS[1:] + ESTIMATORS[:1])
    )
    assert untrained.agent == "PPO"
    results = read_results(
        write_folder(tmp_path / "three", estimators=tuple(reversed(ESTIMATORS)), reference="PPO")
    )
    assert results.agent == "copa" or results.agent == "constant:500000"


def test_the_agent_and_the_reference_alone_have_their_colours(sources: Sources) -> None:
    series = read_results(sources.comparison).series
    assert (series["PPO"], series["gcc"]) == ("s0 main", "s1 main")
    others = [int(name[1:]) for label, name in series.items() if label not in ("PPO", "gcc")]
    assert len(set(others)) == len(others)
    assert all(i % 7 > 1 for i in others)


def test_distributions_are_of_calls_that_are_capacity_limited_under_the_reference(
    sources: Sources,
) -> None:
    results = read_results(sources.comparison)
    calls = results.headline("PPO")
    assert set(calls["network_type"].tolist()) == set(TYPES) - {"ethernet"}
    assert len(calls["network"]) == 2 * 25 * 2  # runs, networks, seeds


# --- Its form -------------------------------------------------------------------------------------


def test_the_html_is_well_formed_and_every_link_leads_somewhere(page: Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(page.ids)


def test_the_page_needs_nothing_from_elsewhere(page: Page, written: Path) -> None:
    for tag in ("script", "link", "iframe", "img", "use", "image"):
        assert page.all(tag) == []
    text = written.read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert written.stat().st_size < 3e6


def test_no_path_of_the_machine_stands_in_the_page(page: Page, sources: Sources) -> None:
    assert "/home/somebody" not in page.text
    assert str(sources.comparison.parent) not in page.text + str(page.elements)


def test_every_figure_has_a_text_alternative_with_its_numbers(page: Page) -> None:
    figures = page.all("figure")
    pictures = [picture for picture in page.all("svg") if picture.get("role") == "img"]
    assert len(pictures) == len(figures) >= 20
    assert all(len(picture["aria-label"]) > 20 for picture in pictures)
    assert not re.search(r"\b(nan|inf)\b", page.text + str(pictures), flags=re.IGNORECASE)


def test_the_same_sources_give_the_same_bytes(
    sources: Sources, written: Path, tmp_path: Path
) -> None:
    again = write_page(sources, tmp_path / "again.html")
    assert again.read_bytes() == written.read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_a_browser_shows_it_on_a_telephone_and_a_laptop_without_a_word_or_request(
    written: Path, tmp_path: Path
) -> None:
    for width, measured in zip(
        (390, 1280), in_browser(written, (390, 1280), tmp_path), strict=True
    ):
        assert measured["window"] == measured["page"] == width
        assert measured["requests"] == measured["empty"] == measured["broken"] == 0
        assert measured["pictures"] >= 20
        assert measured["tables"] >= 12
        assert len(measured["headings"]) == len(SECTIONS)
        assert width == 1280 or measured["scrolling"] > 5


# --- The command ----------------------------------------------------------------------------------


def test_the_command_writes_beside_the_comparison_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "compare")
    assert report(["results", str(folder), "--no-timelines"]) == 0
    page = Page((folder / "results.html").read_text(encoding="utf-8"))
    left_out = {"training", "ablations", "robustness"}
    assert [h["id"] for h in page.all("h2")] == [s for s in SECTIONS if s not in left_out]
    assert f"page: {folder / 'results.html'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no comparison", "compare.json"),
        ("no calls", "calls.csv cannot be read"),
        ("a column less", "lacks the columns contested"),
        ("strangers", "calls of somebody"),
        ("no number", "is damaged"),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, message: str
) -> None:
    folder = write_folder(tmp_path / "compare")
    calls = folder / "calls.csv"
    text = calls.read_text()
    if damage == "no comparison":
        (folder / "compare.json").unlink()
    elif damage == "no calls":
        calls.unlink()
    else:
        changed = {
            "a column less": text.replace("contested", "other", 1),
            "strangers": text.replace("\nPPO,", "\nsomebody,", 1),
            "no number": re.sub(r",(\d+\.\d+)\n", ",many\n", text, count=1),
        }
        calls.write_text(changed[damage])
    assert report(["results", str(folder), "--no-timelines"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert "Traceback" not in told


def test_an_empty_folder_of_ablations_is_refused(
    sources: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--no-timelines", "--out", str(tmp_path / "page.html")]
    command = ["results", str(sources.comparison), "--ablations", str(tmp_path), *options]
    assert report(command) == 2
    assert "holds no CSV file" in capsys.readouterr().err


def test_numbers_that_are_not_known_stand_as_dashes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "compare")
    content = json.loads((folder / "compare.json").read_text())
    for value in content["values"][::3]:
        value["low"] = value["high"] = None
    for value in content["values"][::7]:
        value["value"] = None
    (folder / "compare.json").write_text(json.dumps(content))
    written = write_page(Sources(comparison=folder, timelines=False), tmp_path / "page.html")
    page = Page(written.read_text(encoding="utf-8"))
    assert not re.search(r"\b(nan|inf)\b", page.text + str(page.elements), flags=re.IGNORECASE)
    assert page.text.count("–") > np.ceil(len(METRICS))

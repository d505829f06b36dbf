from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.model_page import print_tables, write_page
from experiments.model_report import ModelReport
from experiments.model_sections import report_sections
from tests.experiments.model_reports import (
    alternating,
    empty_report,
    examples,
    full_report,
    interval,
)
from tests.experiments.pages import CHROMIUM, NO_CHROMIUM, Page, in_browser


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(full_report(), tmp_path_factory.mktemp("page") / "new" / "folder")


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def small_page(report: ModelReport, directory: Path) -> Page:
    return Page(write_page(report, directory).read_text(encoding="utf-8"))


# --- What stands in it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "planted",
    [
        "QueueRule(threshold_ms=47.25) <tuned>",
        "0.842 [0.831, 0.854]",  # offline
        "0.832 [0.821, 0.844]",  # online
        "the call's own future",
        "0.012, 0.023, 0.035",  # calibration errors by seed
        "41,000 (×2.00)",  # four models have twice the parameters of one for all
        "168,444 (×2.00)",
        "11.00 (×2.00)",
        "5.50 ms",
        "22.00 ms",
        "25.0 %",  # of the simulation
        "187 µs",
        "+15.00 [+15.00, +15.00] *",  # what GCC causes itself, the same on every network
        "3 of 3 (100.0 %)",
        "0.22 false alarms per minute",  # mean over seeds
        "0.33",  # of the third
        "alarm at 30.2 s, first loss at 30.5 s",
        "threshold 0.715",
        "threshold 0.625",  # the operating point
        "floor 52 ms, spike threshold 92 ms",
        "0 packets lost in the past 4 s and 14 in the next",
        "0.876",  # mean probability in a real call
        "2 independent runs",
        "runs/a-1/models/seed-0, runs/a-1/models/seed-1",
        "A planted note, with <angles> & an ampersand.",
        "python -m experiments.report models runs/a-1 runs/b-1",
    ],
)
def test_the_page_tells_every_planted_number(page: Page, planted: str) -> None:
    assert planted in page.text


def test_every_contest_and_difference_stands_in_the_page(page: Page) -> None:
    report = full_report()
    for contest in report.contests:
        for name in contest.values:
            score = contest.interval(name)
            assert f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]" in page.text
            by_seed = ", ".join(f"{value:.3f}" for value in contest.by_seed[name])
            assert by_seed in page.text
    for contest, one, other in report.differences:
        assert contest.difference(one, other).text() in page.text


def test_the_page_opens_with_the_headlines_and_has_a_section_for_all_there_is(page: Page) -> None:
    sections = [heading["id"] for heading in page.all("h2")]
    assert sections == [
        "summary",
        "random-loss",
        "congestion",
        "network-type",
        "examples",
        "alternating",
        "self-made",
        "online",
        "ablations",
        "multi-task",
        "cost",
        "logs",
        "notes",
        "models",
    ]


def test_the_terminal_shows_the_cells_of_the_page(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    report = full_report()
    print_tables(report)
    printed = capsys.readouterr().out
    tables = [table for section in report_sections(report) for table in section.tables]
    assert len(tables) == len(page.all("table")) > 15
    for cell in (cell for table in tables for row in table.rows for cell in row):
        assert cell in page.text
        assert cell in printed
    assert report.notes[0] in printed


# --- Its form -------------------------------------------------------------------------------------


def test_the_html_is_well_formed(page: Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.all("html") == [{"lang": "en"}]
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(page.ids)


def test_the_page_needs_nothing_from_elsewhere(page: Page, written: Path) -> None:
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    sources = [a[n] for _, a in page.elements for n in ("src", "href", "srcset") if n in a]
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in sources)
    style = written.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_text_of_the_report_cannot_become_html(tmp_path: Path) -> None:
    report = empty_report()
    report.notes, report.command = ["<script>alert(1)</script>"], '"><b>x'
    report.contestants = {"<i>": "</td>"}
    page = small_page(report, tmp_path)
    assert page.all("script") == page.all("b") == page.all("i") == []
    assert "<script>alert(1)</script>" in page.text


def test_every_figure_is_in_the_page_and_beside_it_with_content(page: Page, written: Path) -> None:
    files = {path.stem: path for path in written.parent.glob("*.png")}
    figures = [figure["id"].removeprefix("figure-") for figure in page.all("figure")]
    images = page.all("img")
    assert sorted(files) == sorted(figures)
    assert len(images) == len(figures) == 16
    for name, image in zip(figures, images, strict=True):
        content = files[name].read_bytes()
        assert base64.b64decode(image["src"].partition(",")[2]) == content
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=np.float64)
        # Axes and labels alone darken some two percent of the paper.
        assert (pixels < 200.0).mean() > 0.01
        assert len(image["alt"]) > 20


def test_files_stay_below_five_megabytes(written: Path) -> None:
    assert all(path.stat().st_size < 5e6 for path in written.parent.iterdir())
    assert not list(written.parent.glob("*.tmp"))


def test_the_json_file_holds_the_report_s_rows(written: Path) -> None:
    content = json.loads((written.parent / "models.json").read_text())
    report = full_report()
    assert content == json.loads(json.dumps(report.as_json()))


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_on_a_telephone_tables_scroll_in_their_box_and_the_page_does_not(
    written: Path, tmp_path: Path
) -> None:
    [measured] = in_browser(written, (390,), tmp_path)
    assert measured["window"] == measured["page"] == 390
    assert measured["scrolling"] > 5
    assert 0 < measured["widest"] <= 390
    assert measured["broken"] == measured["requests"] == 0


# --- Parts that are not there ---------------------------------------------------------------------


def test_an_empty_report_makes_a_page_without_sections(tmp_path: Path) -> None:
    page = small_page(empty_report(), tmp_path)
    assert page.open == []
    for tag in ("h2", "section", "table", "figure", "nav", "img"):
        assert page.all(tag) == []
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["models.html", "models.json"]
    assert report_sections(empty_report()) == []


@pytest.mark.parametrize(
    ("part", "nothing", "anchors"),
    [
        ("online", [], {"online"}),
        ("alternating", None, {"alternating"}),
        ("shares", [], {"self-made"}),
        ("examples", [], {"examples"}),
        ("cost", None, {"cost"}),
        ("logs", None, {"logs"}),
        ("notes", [], {"notes"}),
        ("models", {}, {"models"}),
        ("contests", [], {"ablations"}),
    ],
)
def test_a_part_that_is_not_there_has_no_section(
    part: str, nothing: object, anchors: set[str]
) -> None:
    report = full_report()
    before = {section.anchor for section in report_sections(report)}
    setattr(report, part, nothing)
    assert before - {section.anchor for section in report_sections(report)} == anchors


def test_what_is_not_known_stands_as_a_dash_and_never_as_nan(tmp_path: Path) -> None:
    report = full_report()
    nan = float("nan")
    report.curves, report.examples = [], []
    report.online = [replace(report.online[0], offline=replace(interval(0.5), mean=nan))]
    report.calibration_errors = {"congestion": [nan]}
    report.contests[0].by_seed["model"][0] = nan  # type: ignore[index]
    quiet = alternating(falls_have_alarms=False)
    report.alternating = replace(quiet, false_alarms_per_minute=[nan, nan, nan])
    report.shares[1].positive_ratio[:] = nan
    assert report.cost is not None
    report.cost = replace(report.cost, models_ms=nan)
    page = small_page(report, tmp_path)
    assert not re.search(r"\b(nan|inf)\b", page.text + str(page.all("img")), flags=re.IGNORECASE)
    assert page.text.count("–") >= 10
    assert "0 of 3 (0.0 %)" in page.text  # no alarm came early
    assert "3 of 3" in page.text  # falls without alarm
    assert "alternating-lead" not in str(page.ids)
    rows = json.loads((tmp_path / "models.json").read_text(), parse_constant=pytest.fail)["scores"]
    assert rows[0]["by_seed"][0] is None


@pytest.mark.parametrize("change", ["one label", "no point", "constant scores", "gaps in the RTT"])
def test_degenerate_answers_are_drawn_or_left_out(tmp_path: Path, change: str) -> None:
    report = empty_report()
    curves = full_report().curves[0]
    changes: dict[str, Callable[[], object]] = {
        "one label": lambda: report.curves.append(
            replace(curves, labels=np.zeros_like(curves.labels))
        ),
        "no point": lambda: report.curves.append(replace(curves, point=None)),
        "constant scores": lambda: report.curves.append(
            replace(curves, scores={"model": np.full(len(curves.labels), 0.5)})
        ),
        "gaps in the RTT": lambda: report.examples.extend(
            [replace(examples()[0], rtt_ms=np.full(80, np.nan))]
        ),
    }
    changes[change]()
    page = small_page(report, tmp_path)
    names = {figure["id"].removeprefix("figure-") for figure in page.all("figure")}
    calibration = {"random_loss-calibration"}
    assert (
        names
        == {
            "one label": calibration,
            "no point": calibration | {"random_loss-roc", "random_loss-pr"},
            "constant scores": calibration | {"random_loss-roc", "random_loss-pr"},
            "gaps in the RTT": {"congestion-example-0"},
        }[change]
    )

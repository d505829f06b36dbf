"""What folders of ablations and robustness studies add to a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from bwe_env.errors import ArtifactError
from experiments.results_folders import MOST_ROWS, read_folder
from tests.experiments.pages import Page


def test_variants_become_rows_metrics_columns_and_forests(tmp_path: Path) -> None:
    (tmp_path / "reward_terms.csv").write_text(
        "variant,metric,mean,low,high\n"
        "full,score,3.25,3,3.5\nfull,freeze %,2,1,3\nnone,score,2.5,2.25,2.75\n"
    )
    content = read_folder(tmp_path)
    [table] = content.tables
    assert (table.title, table.header) == ("Reward terms", ["variant", "score", "freeze %"])
    assert table.rows == [["full", "3.25 [3, 3.5]", "2 [1, 3]"], ["none", "2.5 [2.25, 2.75]", "–"]]
    page = Page("".join(content.figures))
    labels = [svg["aria-label"] for svg in page.all("svg")]
    assert labels == ["score: full 3.25 [3, 3.5]; none 2.5 [2.25, 2.75]", "freeze %: full 2 [1, 3]"]
    # Surely apart from the first variant: none, which alone is full.
    dots = [circle["class"] for circle in page.all("circle")]
    assert dots == ["dot hollow", "dot", "dot hollow"]


def test_a_sweep_becomes_a_table_per_controller_and_a_figure_per_metric_and_axis(
    tmp_path: Path,
) -> None:
    (tmp_path / "robustness.csv").write_text(
        "axis,value,controller,metric,minus_gcc,minus_gcc_low,minus_gcc_high\n"
        "random_loss,0.01,PPO,score,0.5,0.25,0.75\n"
        "random_loss,0.05,PPO,score,-0.1,-0.3,0.1\n"
        "random_loss,0.01,nada,score,0.2,,\n"
        "queue,short,PPO,score,0.125,0.1,0.15\n"
    )
    content = read_folder(tmp_path)
    assert [table.title for table in content.tables] == ["PPO − gcc", "nada − gcc"]
    assert content.tables[0].rows == [
        ["random loss", "0.01", "+0.5 [+0.25, +0.75] *"],
        ["random loss", "0.05", "-0.1 [-0.3, +0.1]"],
        ["queue", "short", "+0.125 [+0.1, +0.15] *"],
    ]
    assert content.tables[1].rows == [["random loss", "0.01", "+0.2 [–, –]"]]
    page = Page("".join(content.figures))
    labels = [svg["aria-label"] for svg in page.all("svg") if "aria-label" in svg]
    assert labels == [
        "score, difference to gcc over random loss. PPO at 0.01: +0.5 [+0.25, +0.75] *; "
        "PPO at 0.05: -0.1 [-0.3, +0.1]; nada at 0.01: +0.2 [–, –]",
        "score, difference to gcc over queue. PPO at short: +0.125 [+0.1, +0.15] *",
    ]


def test_any_other_file_is_shown_as_it_is_up_to_a_length(tmp_path: Path) -> None:
    lines = [f"{i},{i / 3},word" for i in range(MOST_ROWS + 5)]
    (tmp_path / "b.csv").write_text("\n".join(["count,share,text", *lines]) + "\n")
    (tmp_path / "a.csv").write_text("one\n1\n")
    first, second = read_folder(tmp_path).tables
    assert (first.title, first.rows) == ("A", [["1"]])
    assert second.rows[1] == ["1", "0.3333", "word"]
    assert len(second.rows) == MOST_ROWS
    assert second.caption == "5 more rows are in the file."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variant,metric,mean,low,high\na,score,many,1,2\n", "mean, low and high are numbers"),
        (
            "axis,value,controller,metric,minus_gcc,minus_gcc_low,minus_gcc_high\n"
            "loss,1,a,score,many,1,2\n",
            "is damaged",
        ),
        ("a,b\n1\n", "is no table"),
        ("", "is no table"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.csv").write_text(text)
    with pytest.raises(ArtifactError, match=message):
        read_folder(tmp_path)

"""Figures of one task's models: curves, calibration, confusions, importances.

Each is small and stands alone, so that a page can set them side by side or below each other. They
are drawn on white; a dark page inverts them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.classification import (
    Metric,
    OperatingCurve,
    calibration_bins,
    operating_curve,
    pr_auc,
    roc_auc,
)
from experiments.model_report import ConfusionTable, Curves
from experiments.model_scores import Importance, OperatingPoint
from experiments.model_tables import number, task_title
from experiments.page import UNKNOWN

#: Series in the colour-blind safe palette of Okabe and Ito (2008), without its yellow.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
FAINT = "#8a8f99"
#: Dots per inch: sharp on screens of up to 1.7 dots per CSS pixel.
DPI = 160
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11,
    "grid.color": "#e3e6ec",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}
#: Three stand side by side on a laptop, and one fills a telephone.
SQUARE_IN = (3.9, 4.3)
#: Features that are drawn.
TOP_FEATURES = 15


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn figure."""

    name: str
    """of its file, without suffix"""
    alt: str
    """what a reader who cannot see it is told"""
    caption: str
    png: bytes
    width_in: float
    """inches, as its text is meant to be read"""


def paint(
    draw: Callable[[Figure], None],
    *,
    name: str,
    alt: str,
    caption: str,
    size_in: tuple[float, float] = SQUARE_IN,
) -> Picture:
    """Draw a figure and encode it; nothing of matplotlib's state is left changed."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size_in, layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        # Without the version of matplotlib the same figure gives the same bytes.
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(name=name, alt=alt, caption=caption, png=buffer.getvalue(), width_in=size_in[0])


# --- ROC and PR -----------------------------------------------------------------------------------


def curve_pictures(curves: Curves) -> list[Picture]:
    """ROC and PR curves of a yes-or-no task; none without answers, or without both labels."""
    known = {
        name: (scores, curve)
        for name, scores in curves.scores.items()
        if (curve := operating_curve(scores, curves.labels)) is not None
    }
    return [_roc_picture(curves, known), _pr_picture(curves, known)] if known else []


#: By contestant: its scores, and the curve of them.
_Known = dict[str, tuple[NDArray[np.floating], OperatingCurve]]


def _labels(curves: Curves, known: _Known, metric: Metric) -> dict[str, str]:
    """Name and area of each curve."""
    once = np.ones((1, len(curves.labels)))
    areas = {name: float(metric(known[name][0], curves.labels, once)[0]) for name in known}
    return {name: f"{name} ({area:.3f})" for name, area in areas.items()}


def _legends(figure: Figure, axis: Axes, curves: Curves, x: float, y: float, corner: str) -> None:
    """Curves below the axes; the operating point, if there is one, in an empty corner of them."""
    columns = {"loc": "outside lower center", "ncols": 2, "columnspacing": 1.2}
    figure.legend(*axis.get_legend_handles_labels(), **columns)
    if curves.point is None:
        return
    (dot,) = axis.plot([x], [y], "o", color="black", ms=6, zorder=5)
    text = _point_text(curves.point).replace(", ", "\n")
    axis.legend([dot], [text], loc=corner, frameon=True, edgecolor="none", framealpha=0.85)


def _point_of(curves: Curves) -> tuple[float, float, float]:
    """Recall, precision and false positive rate of the operating point; NaN without one."""
    if curves.point is None:
        return np.nan, np.nan, np.nan
    named = curves.probabilities >= curves.point.threshold
    return curves.point.recall, curves.point.precision, float(named[~curves.labels].mean())


def _point_text(point: OperatingPoint) -> str:
    precision, recall = number(point.precision, 2), number(point.recall, 2)
    return f"threshold {number(point.threshold)}, precision {precision}, recall {recall}"


def _point_sentence(curves: Curves) -> str:
    if curves.point is None:
        return ""
    return f" The dot, found on validation networks: {_point_text(curves.point)}."


def _roc_picture(curves: Curves, known: _Known) -> Picture:
    labels = _labels(curves, known, roc_auc)
    recall, _, false_ratio = _point_of(curves)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], ":", color=FAINT)
        for color, (name, (_, curve)) in zip(_colors(len(known)), known.items(), strict=True):
            x = curve.false_positive_ratio
            axis.plot(x, curve.recall, color=color, label=labels[name])
        axis.set(
            xlabel="false positive rate (0 to 1)",
            ylabel="true positive rate (0 to 1)",
            title="ROC (area under the curve)",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        _legends(figure, axis, curves, false_ratio, recall, "lower right")

    return paint(
        draw,
        name=f"{curves.task}-roc",
        alt=f"ROC curves of {task_title(curves.task).lower()}; areas: "
        + "; ".join(labels.values()),
        caption=f"ROC curves ({curves.subset}), first seed.{_point_sentence(curves)}",
    )


def _pr_picture(curves: Curves, known: _Known) -> Picture:
    labels = _labels(curves, known, pr_auc)
    recall, precision, _ = _point_of(curves)
    share = float(curves.labels.mean())

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.axhline(share, ls=":", color=FAINT)
        for color, (name, (_, curve)) in zip(_colors(len(known)), known.items(), strict=True):
            # Each threshold's precision holds for the recall that it adds, as in average precision.
            x, y = curve.recall, curve.precision
            axis.plot(x, y, color=color, label=labels[name], drawstyle="steps-pre")
        axis.set(
            xlabel="recall (0 to 1)",
            ylabel="precision (0 to 1)",
            title="Precision and recall (area)",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        _legends(figure, axis, curves, recall, precision, "lower left")

    return paint(
        draw,
        name=f"{curves.task}-pr",
        alt=f"Precision over recall of {task_title(curves.task).lower()}; areas: "
        + "; ".join(labels.values()),
        caption=f"Precision and recall ({curves.subset}), first seed; dotted: the share of "
        f"positives, {share:.3f}.{_point_sentence(curves)}",
    )


def _colors(count: int) -> list[str]:
    return [COLORS[index % len(COLORS)] for index in range(count)]


# --- Calibration ----------------------------------------------------------------------------------


def reliability_picture(curves: Curves, errors: Sequence[float]) -> Picture | None:
    """Frequency over probability, above the histogram of what was said.

    Args:
        errors: expected calibration error of each seed; the first is told.
    """
    if len(curves.probabilities) == 0:
        return None
    bins = calibration_bins(curves.probabilities, curves.is_right)

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], ":", color=FAINT)
        above.plot(bins.probability, bins.frequency, "o-", color=COLORS[0], ms=4.5)
        above.set(ylabel="it came true (share)", ylim=(-0.02, 1.02), title="Calibration")
        weights = np.full(len(curves.probabilities), 100.0 / len(curves.probabilities))
        edges = np.linspace(0.0, 1.0, 21)
        below.hist(curves.probabilities, bins=list(edges), weights=weights, color=COLORS[5])
        below.set(xlabel="predicted probability (0 to 1)", ylabel="windows (%)", xlim=(-0.02, 1.02))

    error = f" Expected calibration error {number(errors[0])}." if errors else ""
    return paint(
        draw,
        name=f"{curves.task}-calibration",
        alt=f"Reliability diagram of {task_title(curves.task).lower()}: "
        + ", ".join(
            f"{said:.2f} came true {true:.2f}"
            for said, true in zip(bins.probability, bins.frequency, strict=True)
        ),
        caption=f"How often it came true, over {len(bins.counts)} bins of equal counts, and how "
        f"often each probability was said ({curves.subset}), first seed.{error}",
    )


# --- Several classes ------------------------------------------------------------------------------


def confusion_picture(task: str, table: ConfusionTable) -> Picture:
    """Counts, shaded by the share within each true class."""
    counts = table.counts
    totals = counts.sum(axis=1, keepdims=True)
    unknown = np.full(counts.shape, np.nan)
    shares = np.divide(counts, totals, out=unknown, where=totals > 0)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.grid(visible=False)
        axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            text = f"{count:,}\n" + (f"{100.0 * share:.0f} %" if np.isfinite(share) else UNKNOWN)
            color = "white" if share > 0.55 else "black"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=7.5)
        ticks = range(len(table.classes))
        axis.set_xticks(ticks, table.classes, rotation=35, ha="right", rotation_mode="anchor")
        axis.set_yticks(ticks, table.classes)
        axis.set(xlabel="named", ylabel="true", title=table.contestant)

    hits = ", ".join(
        f"{name} {number(100.0 * shares[index, index], 0)} %"
        for index, name in enumerate(table.classes)
    )
    return paint(
        draw,
        name=f"{task}-confusion-{_file_part(table.contestant)}",
        alt=f"Confusion matrix of {table.contestant}; named rightly: {hits}",
        caption=f"{table.contestant}: windows by true and by named class; shading and percent are "
        "shares of the true class.",
    )


def _file_part(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


# --- Importances ----------------------------------------------------------------------------------


def importance_picture(task: str, importances: Sequence[Importance], metric: str) -> Picture | None:
    """What the model loses without each of the features that it leans on most.

    Args:
        metric: whose loss it is.
    """
    top = sorted(importances, key=lambda importance: -importance.loss)[:TOP_FEATURES]
    if not top:
        return None

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        places = np.arange(len(top))[::-1]
        losses = [importance.loss for importance in top]
        bars = axis.barh(places, losses, color=COLORS[0], height=0.7)
        axis.bar_label(bars, [f"{loss:.3f}" for loss in losses], padding=3, fontsize=9)
        axis.set_yticks(places, [importance.feature for importance in top])
        axis.margins(x=0.14)
        axis.grid(axis="y", visible=False)
        axis.set(xlabel=f"loss of {metric} (points)", title="Features by importance")

    return paint(
        draw,
        name=f"{task}-importances",
        alt="Loss when shuffled: " + ", ".join(f"{i.feature} {i.loss:.3f}" for i in top),
        caption="What the first seed's model loses when one feature is shuffled among the "
        f"windows, the {len(top)} largest. Features that tell the same stand in for each other.",
        size_in=(5.8, 1.2 + 0.25 * len(top)),
    )

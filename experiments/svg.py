"""Small plots as SVG text: axes, lines, bands, dots, and the words a screen reader says of them.

The figures stand in the page itself, not in an image: their text can be selected and searched,
their colours follow the page's choice of light or dark, and the same numbers give the same bytes.
Series differ by colour *and* by dashes, so nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Colours of the palette of Okabe and Ito (2008), which colour-blind people can tell apart; orange,
#: pink and sky are darkened until a thin line has a contrast of 3:1 on white (WCAG 2.2, 1.4.11),
#: and all are lightened on dark paper.
_LIGHT = ("#0072b2", "#d55e00", "#00845f", "#a8508a", "#946200", "#2f87b8", "#5c6370")
_DARK = ("#5fb4ee", "#ff8a3d", "#2fc79a", "#e59ccb", "#e6b13c", "#9ad8f7", "#b4bac6")
#: Patterns of dashes; each round of colours has the next one.
_DASHES = ("", "7 3", "2 2.5", "9 3 2 3")
#: Where each colour begins: the first two series, which stand out, are solid.
_FIRST_DASHES = (0, 0, 2, 0, 1, 2, 0)

#: Colours, and series that differ in colour or dashes.
NUM_COLORS = len(_LIGHT)
NUM_SERIES = NUM_COLORS * len(_DASHES)

#: Digits after the point of a coordinate: a tenth of a CSS pixel cannot be seen.
_DIGITS = 1


def _variables(colors: Sequence[str]) -> str:
    return " ".join(f"--series-{i}: {color};" for i, color in enumerate(colors))


def _series_rules() -> str:
    rules = []
    for series in range(NUM_SERIES):
        dash = _DASHES[dash_of(series)]
        color = f"var(--series-{series % NUM_COLORS})"
        dashes = f" stroke-dasharray: {dash};" if dash else ""
        rules.append(f".s{series} {{ stroke: {color}; fill: {color};{dashes} }}")
    return "\n".join(rules)


def dash_of(series: int) -> int:
    """Which of the patterns a series has: no two series share colour and dashes."""
    return (series // NUM_COLORS + _FIRST_DASHES[series % NUM_COLORS]) % len(_DASHES)


STYLE = f"""
:root {{ {_variables(_LIGHT)} --band: #dbe3ee; --bad: #d03030; }}
@media (prefers-color-scheme: dark) {{
  :root {{ {_variables(_DARK)} --band: #2d3542; --bad: #ff6b6b; }}
}}
svg.plot {{ display: block; width: 100%; height: auto; overflow: visible; }}
svg.plot text {{ fill: var(--ink); font: 11.5px system-ui, sans-serif; }}
svg.plot .faint text, svg.plot text.faint {{ fill: var(--faint); }}
svg.plot text.title {{ font-size: 13px; font-weight: 600; }}
svg.plot .grid {{ stroke: var(--line); stroke-width: 1; fill: none; }}
svg.plot .rule {{ stroke: var(--faint); stroke-width: 1.2; stroke-dasharray: 3 3; fill: none; }}
svg.plot path.curve, .legend path {{ fill: none; stroke-width: 1.5; stroke-linejoin: round; }}
svg.plot path.main, .legend path.main {{ stroke-width: 2.6; }}
svg.plot .area {{ stroke: none; opacity: 0.22; }}
svg.plot .band {{ fill: var(--band); stroke: none; }}
svg.plot .bad {{ fill: var(--bad); stroke: none; opacity: 0.3; }}
svg.plot .dot {{ stroke-width: 1.8; stroke-dasharray: none; }}
svg.plot .hollow {{ fill: var(--paper); }}
svg.plot path.column {{ stroke-width: 1.6; stroke-dasharray: none; }}
.legend path.solid {{ stroke-width: 8; stroke-dasharray: none; }}
.legend path.band {{ stroke: var(--band); stroke-width: 8; }}
.legend path.bad {{ stroke: var(--bad); stroke-width: 8; opacity: 0.4; }}
svg.plot .whisker {{ stroke-width: 1.8; stroke-dasharray: none; }}
.legend {{ display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; width: 100%; margin: 0;
  padding: 0; list-style: none; max-width: none; font-size: 0.87rem; }}
.legend li {{ display: flex; align-items: center; gap: 0.4rem; max-width: none; }}
{_series_rules()}
"""


def number_text(value: float) -> str:
    """A tick's label: as many digits as it needs."""
    if abs(value) >= 1e4 and value % 1000 == 0:
        return f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M"
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two ends, at steps of 1, 2 or 5 times a power of ten.

    Args:
        count: about so many; at least one, unless no round number lies between.
    """
    span = high - low
    if not (math.isfinite(span) and span > 0.0):
        return [low] if math.isfinite(low) else []
    rough = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1.0, 2.0, 5.0, 10.0) if s * power >= rough * (1.0 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two positive ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    return [float(f"{c:.6g}") for c in candidates if low * 0.999 <= c <= high * 1.001]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Where numbers lie along one side of a plot."""

    low: float
    high: float
    label: str = ""
    is_log: bool = False
    at: Sequence[float] | None = None
    """ticks; by default round numbers"""
    names: Sequence[str] | None = None
    """labels of `at`; by default the numbers"""

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Ticks and what stands beside each."""
        if self.at is not None:
            at = list(self.at)
        else:
            at = (
                log_ticks(self.low, self.high) if self.is_log else ticks(self.low, self.high, count)
            )
        return list(zip(at, self.names or map(number_text, at), strict=True))

    def ratio(self, values: ArrayLike) -> NDArray[np.float64]:
        """0 at `low` and 1 at `high`; values beyond are held at the ends, NaN stays."""
        numbers = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.is_log:
            numbers = np.log(np.maximum(numbers, 1e-300))
            low, high = math.log(low), math.log(high)
        ratio = (numbers - low) / ((high - low) or 1.0)
        return np.clip(ratio, 0.0, 1.0)


@dataclass(kw_only=True)
class Plot:
    """One set of axes, into which marks are put in the order of the calls."""

    x: Axis
    y: Axis
    width: float = 380.0
    height: float = 260.0
    title: str = ""
    left: float = 46.0
    right: float = 12.0
    below: float = 40.0
    above: float = 24.0
    """margins, in CSS pixels"""
    has_grid: bool = True
    marks: list[str] = field(default_factory=list)

    # --- Marks ---

    def curve(self, xs: ArrayLike, ys: ArrayLike, series: str, *, label: str = "") -> None:
        """A line through points; NaN leaves a gap.

        Args:
            series: classes of the line, such as ``"s0 main"``.
            label: what is shown where a pointer rests on it.
        """
        path = _path(*self._place(xs, ys))
        if path:
            title = f"<title>{escape(label)}</title>" if label else ""
            self.marks.append(f'<path class="curve {series}" d="{path}">{title}</path>')

    def area(self, xs: ArrayLike, lows: ArrayLike, highs: ArrayLike, series: str) -> None:
        """What lies between two curves; points where one is not known are left out."""
        x, low, high = (np.asarray(v, dtype=np.float64) for v in (xs, lows, highs))
        known = np.isfinite(low) & np.isfinite(high)
        if known.sum() < 2:
            return
        around = np.concatenate([x[known], x[known][::-1]])
        edge = np.concatenate([high[known], low[known][::-1]])
        self.marks.append(f'<path class="{series}" d="{_path(*self._place(around, edge))}Z"/>')

    def span(self, x_low: float, x_high: float, series: str) -> None:
        """A rectangle over the whole height."""
        (left, right), _ = self._place([x_low, x_high], [self.y.low] * 2)
        width = max(float(right - left), 0.6)  # what lasts one interval has to be seen, too
        self.marks.append(
            f'<rect class="{series}" x="{_text(left)}" y="{_text(self.above)}" '
            f'width="{_text(width)}" height="{_text(self._inner_height)}"/>'
        )

    def column(self, x: float, low: float, high: float, series: str, *, label: str) -> None:
        """A thin upright stroke between two heights."""
        xs, ys = self._place([x, x], [low, high])
        self.marks.append(
            f'<path class="column {series}" d="{_path(xs, ys)}">'
            f"<title>{escape(label)}</title></path>"
        )

    def rule(self, *, x: float | None = None, y: float | None = None) -> None:
        """A dashed line across the plot."""
        xs = [self.x.low, self.x.high] if x is None else [x, x]
        ys = [self.y.low, self.y.high] if y is None else [y, y]
        self.marks.append(f'<path class="rule" d="{_path(*self._place(xs, ys))}"/>')

    def whisker(
        self, x: float, low: float, high: float, y: float, series: str, *, label: str, is_full: bool
    ) -> None:
        """A dot with its interval, lying; hollow unless `is_full`. Unknown ends reach the edge."""
        ends = [self.x.low if math.isnan(low) else low, self.x.high if math.isnan(high) else high]
        xs, ys = self._place([*ends, x], [y] * 3)
        dot = "dot" if is_full else "dot hollow"
        self.marks.append(
            f'<g class="{series}"><title>{escape(label)}</title>'
            f'<path class="whisker" d="{_path(xs[:2], ys[:2])}"/>'
            f'<circle class="{dot}" cx="{_text(xs[2])}" cy="{_text(ys[2])}" r="4"/></g>'
        )

    def words(self, x: float, y: float, text: str, *, anchor: str = "start") -> None:
        """Small words at a point of the plot."""
        (left,), (top,) = self._place([x], [y])
        self.marks.append(
            f'<text class="faint" x="{_text(left)}" y="{_text(top)}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    # --- The whole ---

    def svg(self, alt: str) -> str:
        """The plot as an SVG element with a text alternative."""
        inside = self.group()
        return svg_element(self.width, self.height, inside, alt)

    def group(self, *, top: float = 0.0) -> str:
        """The plot as a group, `top` pixels down, for a figure of several."""
        title = (
            f'<text class="title" x="{_text(self.left)}" y="14">{escape(self.title)}</text>'
            if self.title
            else ""
        )
        move = f' transform="translate(0 {_text(top)})"' if top else ""
        marks = "".join(self.marks)
        return f"<g{move}>{self._grid()}{title}{marks}</g>"

    @property
    def _inner_width(self) -> float:
        return self.width - self.left - self.right

    @property
    def _inner_height(self) -> float:
        return self.height - self.above - self.below

    def _place(
        self, xs: ArrayLike, ys: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return (
            self.left + self._inner_width * self.x.ratio(xs),
            self.above + self._inner_height * (1.0 - self.y.ratio(ys)),
        )

    def _grid(self) -> str:
        bottom, right = self.above + self._inner_height, self.left + self._inner_width
        parts, lines = [], []
        for value, name in self.x.ticks(max(2, int(self._inner_width / 60))):
            (x,), _ = self._place([value], [self.y.low])
            lines.append(f"M{_text(x)} {_text(self.above)}V{_text(bottom)}")
            parts.append(_label(x, bottom + 15, name, "middle"))
        for value, name in self.y.ticks(max(2, int(self._inner_height / 45))):
            _, (y,) = self._place([self.x.low], [value])
            lines.append(f"M{_text(self.left)} {_text(y)}H{_text(right)}")
            parts.append(_label(self.left - 6, y + 4, name, "end"))
        if self.x.label:
            parts.append(_label((self.left + right) / 2, bottom + 33, self.x.label, "middle"))
        if self.y.label:
            parts.append(_label(self.left, self.above - 6, self.y.label, "start"))
        grid = f'<path class="grid" d="{"".join(lines)}"/>' if self.has_grid else ""
        return f'{grid}<g class="faint">{"".join(parts)}</g>'


def svg_element(width: float, height: float, inside: str, alt: str) -> str:
    """An SVG element of this size that a screen reader names `alt`."""
    return (
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(alt)}">{inside}</svg>'
    )


def legend(names: Iterable[tuple[str, str]]) -> str:
    """A list of (name, classes of its line) as HTML, which wraps as the page needs it."""
    items = "".join(
        f'<li><svg width="26" height="10" aria-hidden="true">'
        f'<path class="{series}" d="M0 5H26"/></svg>{escape(name)}</li>'
        for name, series in names
    )
    return f'<ul class="legend" aria-label="Legend">{items}</ul>'


def thinned(
    xs: ArrayLike, ys: ArrayLike, most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most so many of the points, evenly chosen, both ends among them."""
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    if len(x) <= most:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, most).round().astype(np.int64))
    return x[kept], y[kept]


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{_text(x)}" y="{_text(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _text(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{round(float(value), _DIGITS) + 0.0:g}"


def _path(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
    """Moves and lines through the points; a gap where one is NaN, no point twice."""
    parts: list[str] = []
    is_open, last = False, ""
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            is_open = False
            continue
        point = f"{_text(x)} {_text(y)}"
        if not is_open:
            parts.append("M" + point)
        elif point != last:
            parts.append("L" + point)
        is_open, last = True, point
    return "".join(parts)

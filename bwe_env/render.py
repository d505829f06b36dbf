"""A call as a picture, and a step as a line of text.

`rgb_array` draws what has happened so far: capacity, target and received rate, queue delay, losses
by cause, frozen spans. It is called after every step, so it draws only what is new: a step owns a
narrow column of the plot, columns are painted left to right on a canvas of twice the size (which
smooths the edges when it is halved), and the finished part is kept beside the timeline. Only when
an axis has to grow is everything painted again. As every picture is made by the same sequence of
strokes, it depends on the timeline alone and not on how often it was looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.units import bps_to_mbps

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

#: What a step adds to a timeline; keys of `info`, and `reward`.
TIMELINE_COLUMNS: tuple[str, ...] = (
    "time_s",
    "capacity_bps",
    "target_rate_bps",
    "gcc_target_rate_bps",
    "receive_rate_bps",
    "queue_delay_ms",
    "queue_loss_ratio",
    "random_loss_ratio",
    "aqm_loss_ratio",
    "policer_loss_ratio",
    "frozen_ratio",
    "video_mos",
    "call_score",
    "reward",
)

#: Below this the labels would cover the plot.
MIN_WIDTH, MIN_HEIGHT = 640, 360

RGB = tuple[int, int, int]

# Series in the colour-blind safe palette of Okabe and Ito (2008); the rest are greys and a red.
_PAPER: RGB = (255, 255, 255)
_PANEL: RGB = (250, 251, 253)
_GRID: RGB = (229, 232, 238)
_AXIS: RGB = (150, 156, 168)
_TEXT: RGB = (38, 43, 54)
_FAINT_TEXT: RGB = (112, 119, 133)
_CAPACITY: RGB = (219, 227, 238)
_CAPACITY_EDGE: RGB = (158, 174, 197)
_TARGET: RGB = (0, 114, 178)
_GCC_TARGET: RGB = (230, 159, 0)
_RECEIVED: RGB = (0, 158, 115)
_DELAY: RGB = (86, 92, 120)
_DELAY_FILL: RGB = (214, 217, 230)
_QUEUE_LOSS: RGB = (213, 94, 0)
_AQM_LOSS: RGB = (128, 72, 20)
_POLICER_LOSS: RGB = (96, 96, 96)
_RANDOM_LOSS: RGB = (190, 80, 150)
_FROZEN: RGB = (226, 59, 59)
_FROZEN_OPACITY = 0.32

#: Causes of loss from the bottom of the panel to the top: column, colour, label.
_LOSSES: tuple[tuple[str, RGB, str], ...] = (
    ("queue_loss_ratio", _QUEUE_LOSS, "queue loss"),
    ("aqm_loss_ratio", _AQM_LOSS, "AQM"),
    ("policer_loss_ratio", _POLICER_LOSS, "policer"),
    ("random_loss_ratio", _RANDOM_LOSS, "random"),
)

_SUPERSAMPLING = 2
#: A steep stroke reaches into the neighbouring columns; so many are stroked again after a new one.
_RESTROKED_STEPS = 3
_MARGIN = 8  # pixels of the large canvas that a stroke can reach beyond its column


class Timeline:
    """What happened in one call so far: equally long columns that grow by one row per step.

    Args:
        network: title of the picture.
        network_type: set beside the title.
        duration_s: scheduled length of the call, the extent of the time axis; 0 if unknown, then
            the axis grows.
        max_rate_bps: highest target rate; capacity above it is cut off, not shown to scale.
    """

    def __init__(
        self,
        network: str = "",
        *,
        network_type: str = "",
        duration_s: float = 0.0,
        max_rate_bps: float = math.inf,
    ) -> None:
        self.network = network
        self.network_type = network_type
        self.duration_s = duration_s
        self.max_rate_bps = max_rate_bps
        self.total_reward = 0.0
        self._score_sum, self._score_steps = 0.0, 0
        self._columns: dict[str, list[float]] = {name: [] for name in TIMELINE_COLUMNS}
        self._canvas: _Canvas | None = None

    def __len__(self) -> int:
        return len(self._columns["time_s"])

    def __getstate__(self) -> dict[str, Any]:
        """A copy paints its own picture."""
        return {**self.__dict__, "_canvas": None}

    def append(self, row: Mapping[str, float]) -> None:
        """Add a step.

        Args:
            row: at least the keys `TIMELINE_COLUMNS`; others are ignored. `time_s` is the end of
                the step and must rise. NaN is allowed in the others and leaves a gap.
        """
        missing = [name for name in TIMELINE_COLUMNS if name not in row]
        if missing:
            raise ConfigError(
                f"a timeline row lacks {', '.join(missing)}; it needs {', '.join(TIMELINE_COLUMNS)}"
                " (the keys of a step's info, and reward)."
            )
        time_s = float(row["time_s"])
        if not time_s > self.end_s:
            raise ConfigError(
                f"time_s={time_s} does not follow {self.end_s}; give the end of each step, and a "
                "new Timeline for each call."
            )
        for name, values in self._columns.items():
            values.append(float(row[name]))
        self.total_reward += float(row["reward"])
        if not math.isnan(row["call_score"]):
            self._score_sum += float(row["call_score"])
            self._score_steps += 1

    @property
    def mean_call_score(self) -> float:
        """Mean over the steps so far, NaN before the first."""
        return self._score_sum / self._score_steps if self._score_steps else math.nan

    @property
    def end_s(self) -> float:
        """End of the last step, 0 before the first."""
        return self._columns["time_s"][-1] if len(self) else 0.0

    def column(self, name: str) -> NDArray[np.float64]:
        """A copy of one column, shape (len,)."""
        if name not in self._columns:
            raise unknown_name("timeline column", name, TIMELINE_COLUMNS)
        return np.array(self._columns[name], dtype=np.float64)


def ansi(row: Mapping[str, float]) -> str:
    """One step as one line of text.

    Args:
        row: keys as in `TIMELINE_COLUMNS`.
    """
    frozen = f"FROZEN {100 * row['frozen_ratio']:3.0f} %" if row["frozen_ratio"] > 0 else ""
    # On one line all that the sender can help: a full queue, an AQM, a policer.
    congestion_loss = sum(row[name] for name, _, _ in _LOSSES if name != "random_loss_ratio")
    return (
        f"{row['time_s']:7.1f} s"
        f" | capacity {bps_to_mbps(row['capacity_bps']):6.2f}"
        f" target {bps_to_mbps(row['target_rate_bps']):6.2f}"
        f" received {bps_to_mbps(row['receive_rate_bps']):6.2f} Mbps"
        f" | queue {row['queue_delay_ms']:5.0f} ms"
        f" | loss {100 * congestion_loss:5.1f} % congestion"
        f" {100 * row['random_loss_ratio']:5.1f} % random"
        f" | video {row['video_mos']:4.2f} MOS"
        f" | reward {row['reward']:+.4f}"
        f" | {frozen}".rstrip(" |")
    )


def rgb_array(timeline: Timeline, width: int = 960, height: int = 540) -> NDArray[np.uint8]:
    """The call so far as a picture.

    Returns:
        Shape (height, width, 3); a new array each time.
    """
    canvas = timeline._canvas
    if canvas is None or (canvas.width, canvas.height) != (width, height):
        canvas = _Canvas(width, height)
        timeline._canvas = canvas
    canvas.update(timeline)
    return np.array(canvas.picture, dtype=np.uint8)


def stacked(
    timelines: Sequence[Timeline], width: int = 960, height: int = 540
) -> NDArray[np.uint8]:
    """Pictures of calls one above the other, all on the same axes, so that they can be compared.

    Args:
        timelines: from top to bottom, at least one.
        width: of the whole, in pixels.
        height: of each picture, in pixels.

    Returns:
        Shape (len(timelines) * height, width, 3).
    """
    needed = [_needed(timeline, 0) for timeline in timelines]
    axes = _Scales(*map(max, zip(*needed, strict=True)))
    pictures = []
    for timeline in timelines:
        canvas = _Canvas(width, height, axes)
        canvas.update(timeline)
        pictures.append(np.array(canvas.picture, dtype=np.uint8))
    return np.vstack(pictures)


# --- Scales ---------------------------------------------------------------------------------------

_NICE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)
_NICE_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_NICE_TIMES_S = (10, 20, 30, 60, 120, 180, 300, 600, 900, 1200, 1800, 3600, 7200, 14_400, 43_200)
_NICE_TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)


def _ceiling(value: float, least: float) -> float:
    """The next round number at or above `value`, at least `least`."""
    value = max(value, least)
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * nice for nice in _NICE if power * nice >= value * (1.0 - 1e-9))


def _tick_step(extent: float, most: int) -> float:
    """A round distance that cuts `extent` into at most `most` parts."""
    power = 10.0 ** math.floor(math.log10(extent / most))
    return next(power * nice for nice in _NICE_STEPS if power * nice * most >= extent * (1 - 1e-9))


def _ticks(extent: float, step: float) -> list[float]:
    return [i * step for i in range(int(extent / step + 1e-9) + 1)]


class _Scales(NamedTuple):
    """Upper ends of the axes; every lower end is 0."""

    time_s: float
    rate_bps: float
    delay_ms: float
    loss_ratio: float


_NO_EXTENT = _Scales(0.0, 0.0, 0.0, 0.0)


def _highest(values: Sequence[float], start: int, cap: float = math.inf) -> float:
    return max((min(v, cap) for v in values[start:] if math.isfinite(v)), default=0.0)


def _needed(timeline: Timeline, start: int) -> _Scales:
    """Axes with room for the steps from `start` on.

    Each extent is a never falling function of the highest value, so that the largest of the extents
    needed by parts of a call is the extent needed by all of it.
    """
    columns = timeline._columns
    rate_bps = max(
        _highest(columns["capacity_bps"], start, timeline.max_rate_bps),
        *(_highest(columns[name], start) for name, _, _ in _RATE_LINES),
    )
    causes = [columns[name][start:] for name, _, _ in _LOSSES]
    time_s = timeline.duration_s
    if timeline.end_s > time_s * (1.0 + 1e-9):
        end_s = timeline.end_s
        time_s = next((nice for nice in _NICE_TIMES_S if nice >= end_s), _ceiling(end_s, 1.0))
    return _Scales(
        time_s=time_s or _NICE_TIMES_S[0],
        # A little air above, so that a line at the top of its range is not lost in the border.
        rate_bps=_ceiling(1.04 * rate_bps, 100e3),
        delay_ms=_ceiling(1.04 * _highest(columns["queue_delay_ms"], start), 100.0),
        loss_ratio=min(
            1.0, _ceiling(_highest([sum(row) for row in zip(*causes, strict=True)], 0), 0.05)
        ),
    )


# --- Drawing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Panel:
    """A plot area, in pixels of the large canvas; `right` and `bottom` are the last inside."""

    left: int
    top: int
    right: int
    bottom: int

    def y(self, share: float) -> int:
        """Row of a value given as share of the axis; kept inside."""
        return self.bottom - round(min(1.0, max(0.0, share)) * (self.bottom - self.top))


#: Column, colour, width in small pixels; the last is on top.
_RATE_LINES: tuple[tuple[str, RGB, float], ...] = (
    ("receive_rate_bps", _RECEIVED, 1.5),
    ("gcc_target_rate_bps", _GCC_TARGET, 1.5),
    ("target_rate_bps", _TARGET, 2.0),
)


def _mix(below: RGB, above: RGB, opacity: float) -> RGB:
    r, g, b = (round(x + (y - x) * opacity) for x, y in zip(below, above, strict=True))
    return r, g, b


@dataclass
class _Canvas:
    """The picture under construction: a large canvas for the plots, a small one for the result."""

    width: int
    height: int
    least: _Scales = _NO_EXTENT
    """the axes have at least these upper ends"""
    picture: Image.Image = field(init=False)
    _large: Image.Image = field(init=False)
    _pen: ImageDraw.ImageDraw = field(init=False)
    _title_font: ImageFont.FreeTypeFont | ImageFont.ImageFont = field(init=False)
    _font: ImageFont.FreeTypeFont | ImageFont.ImageFont = field(init=False)
    _scales: _Scales | None = None
    _grids: list[tuple[_Panel, float, list[float]]] = field(default_factory=list)
    _drawn: int = 0

    def __post_init__(self) -> None:
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ImportError(
                "render modes 'human' and 'rgb_array' draw with Pillow; install it with "
                "pip install 'bwe-env[render]' (or pip install pillow)."
            ) from error
        if self.width < MIN_WIDTH or self.height < MIN_HEIGHT:
            raise ConfigError(
                f"a picture of {self.width} x {self.height} pixels has no room for its labels; "
                f"give at least {MIN_WIDTH} x {MIN_HEIGHT}."
            )
        self.picture = Image.new("RGB", (self.width, self.height), _PAPER)
        size = (self.width * _SUPERSAMPLING, self.height * _SUPERSAMPLING)
        self._large = Image.new("RGB", size, _PAPER)
        self._pen = ImageDraw.Draw(self._large)
        self._font = ImageFont.load_default(self._px(12.5))
        self._title_font = ImageFont.load_default(self._px(18))
        self._rate, self._delay, self._loss = self._panels()

    def _px(self, pixels_at_540: float) -> int:
        """A length that grows with the picture's height."""
        return max(1, round(pixels_at_540 * self.height / 540))

    def _panels(self) -> tuple[_Panel, _Panel, _Panel]:
        """Rate, queue delay and loss from top to bottom, in heights of 62, 24 and 14 percent."""
        s = _SUPERSAMPLING
        left, right = self._px(64) * s, (self.width - self._px(20)) * s - 1
        top, gap, bottom = self._px(74), self._px(14), self.height - self._px(44)
        space = bottom - top - 2 * gap
        rate, delay = round(0.62 * space), round(0.24 * space)
        edges = (top, top + rate, top + rate + gap, top + rate + gap + delay)
        return (
            _Panel(left, edges[0] * s, right, edges[1] * s - 1),
            _Panel(left, edges[2] * s, right, edges[3] * s - 1),
            _Panel(left, (edges[3] + gap) * s, right, bottom * s - 1),
        )

    def update(self, timeline: Timeline) -> None:
        """Bring the picture up to the timeline's last step."""
        scales = _Scales(*map(max, self.least, _needed(timeline, self._drawn)))
        if self._scales is not None:
            scales = _Scales(*map(max, self._scales, scales))
        if scales != self._scales:
            self._scales = scales
            self._draw_frame(timeline)
            self._drawn = 0
        first = self._drawn
        for step in range(first, len(timeline)):
            self._draw_step(timeline, step)
        self._drawn = len(timeline)
        if self._drawn > first:
            self._copy_plots(timeline, first)
        self._draw_figures(timeline)

    # -- the parts that change only with the scales --

    def _draw_frame(self, timeline: Timeline) -> None:
        from PIL import ImageDraw

        assert self._scales is not None
        self._grids = list(self._make_grids(self._scales))
        for panel, _, ticks in self._grids:
            self._pen.rectangle((panel.left, panel.top, panel.right, panel.bottom), fill=_PANEL)
            self._draw_grid(panel, ticks, panel.left, panel.right)
        self.picture.paste(_PAPER, (0, 0, self.width, self.height))
        self._paste_columns(0, self._large.width)
        pen = ImageDraw.Draw(self.picture)
        self._draw_title(pen, timeline)
        self._draw_legend(pen)
        labels = ("rate (Mbps)", "queue (ms)", "loss (%)")
        units = (1e6, 1.0, 0.01)
        for (panel, extent, ticks), label, unit in zip(self._grids, labels, units, strict=True):
            numbers = [f"{tick * extent / unit:.6g}" for tick in ticks]
            self._draw_axis(pen, panel, label, dict(zip(numbers, ticks, strict=True)))
        self._draw_time_axis(pen, self._scales.time_s)

    def _make_grids(self, scales: _Scales) -> Iterator[tuple[_Panel, float, list[float]]]:
        """Each panel, the extent of its axis, and its ticks as shares of that."""
        panels = (self._rate, self._delay, self._loss)
        extents = (scales.rate_bps, scales.delay_ms, scales.loss_ratio)
        for panel, extent, most in zip(panels, extents, (6, 4, 2), strict=True):
            step = _tick_step(extent, most)
            yield panel, extent, [tick / extent for tick in _ticks(extent, step)]

    def _draw_grid(self, panel: _Panel, ticks: Sequence[float], left: int, right: int) -> None:
        for tick in ticks:
            y = panel.y(tick)
            self._pen.rectangle((left, y - 1, right, y), fill=_GRID)

    def _draw_title(self, pen: ImageDraw.ImageDraw, timeline: Timeline) -> None:
        left, baseline = self._rate.left // _SUPERSAMPLING, self._px(28)
        kind = f"   {timeline.network_type}" if timeline.network_type else ""
        room = self._figures_left() - left - self._font.getlength(kind) - self._px(10)
        title = timeline.network or "call"
        while self._title_font.getlength(title) > room and len(title) > 1:
            title = title.rstrip("…")[:-1] + "…"
        pen.text((left, baseline), title, _TEXT, self._title_font, anchor="ls")
        x = left + self._title_font.getlength(title)
        pen.text((x, baseline), kind, _FAINT_TEXT, self._font, anchor="ls")

    def _figures_left(self) -> int:
        """Where the title ends and the running figures may begin."""
        return round(0.55 * self.width)

    def _draw_legend(self, pen: ImageDraw.ImageDraw) -> None:
        middle, x = self._px(54), float(self._rate.left // _SUPERSAMPLING)
        half, swatch = self._px(5), self._px(16)
        frozen = _mix(_PANEL, _FROZEN, _FROZEN_OPACITY)
        entries: tuple[tuple[str, RGB, int], ...] = (
            ("capacity", _CAPACITY, half),
            ("target", _TARGET, 1),
            ("GCC target", _GCC_TARGET, 1),
            ("received", _RECEIVED, 1),
            *((label, colour, half) for _, colour, label in _LOSSES),
            ("frozen", frozen, half),
        )
        for label, colour, reach in entries:
            box = (round(x), middle - reach, round(x) + swatch, middle + reach)
            pen.rectangle(box, fill=colour)
            if label == "capacity":
                pen.line((box[0], box[1], box[2], box[1]), fill=_CAPACITY_EDGE)
            x += swatch + self._px(6)
            pen.text((x, middle), label, _TEXT, self._font, anchor="lm")
            x += self._font.getlength(label) + self._px(18)

    def _draw_axis(
        self, pen: ImageDraw.ImageDraw, panel: _Panel, label: str, ticks: Mapping[str, float]
    ) -> None:
        from PIL import Image, ImageDraw

        s = _SUPERSAMPLING
        left, top, bottom = panel.left // s, panel.top // s, (panel.bottom + 1) // s
        pen.line((left - 1, top, left - 1, bottom), fill=_AXIS)
        pen.line((left - 1, bottom, panel.right // s, bottom), fill=_AXIS)
        for number, tick in ticks.items():
            at = (left - self._px(7), panel.y(tick) // s)
            pen.text(at, number, _FAINT_TEXT, self._font, anchor="rm")
        length = math.ceil(self._font.getlength(label)) + 2
        upright = Image.new("RGB", (length, self._px(18)), _PAPER)
        middle = (length / 2, upright.height / 2)
        ImageDraw.Draw(upright).text(middle, label, _TEXT, self._font, anchor="mm")
        turned = upright.transpose(Image.Transpose.ROTATE_90)
        self.picture.paste(turned, (self._px(4), (top + bottom - turned.height) // 2))

    def _draw_time_axis(self, pen: ImageDraw.ImageDraw, extent_s: float) -> None:
        s = _SUPERSAMPLING
        bottom = (self._loss.bottom + 1) // s
        step_s = next((nice for nice in _NICE_TIME_STEPS_S if nice * 12 >= extent_s), extent_s / 12)
        for tick_s in _ticks(extent_s, step_s):
            x = self._x(tick_s) // s
            pen.line((x, bottom, x, bottom + self._px(3)), fill=_AXIS)
            pen.text((x, bottom + self._px(6)), f"{tick_s:.6g}", _FAINT_TEXT, self._font, "mt")
        x = (self._loss.left + self._loss.right) // 2 // s
        pen.text((x, self.height - self._px(5)), "time (s)", _TEXT, self._font, anchor="ms")

    # -- the parts that grow with every step --

    def _x(self, time_s: float) -> int:
        assert self._scales is not None
        span = self._rate.right - self._rate.left
        return self._rate.left + round(min(1.0, time_s / self._scales.time_s) * span)

    def _draw_step(self, timeline: Timeline, step: int) -> None:
        assert self._scales is not None
        scales, columns = self._scales, timeline._columns
        times = columns["time_s"]
        left, right = self._x(times[step - 1] if step else 0.0), self._x(times[step])
        frozen = columns["frozen_ratio"][step]
        opacity = _FROZEN_OPACITY * min(1.0, frozen) if frozen > 0.0 else 0.0
        for panel, _, ticks in self._grids:
            box = (left, panel.top, right, panel.bottom)
            self._pen.rectangle(box, fill=_mix(_PANEL, _FROZEN, opacity))
            if panel is self._rate:
                self._draw_capacity(columns["capacity_bps"], step, left, right, opacity)
            if panel is self._delay:
                self._draw_queue(columns["queue_delay_ms"], step, left, right, opacity)
            self._draw_grid(panel, ticks, left, right)
        self._draw_losses(columns, step, left, right)
        recent = range(max(0, step - _RESTROKED_STEPS + 1), step + 1)
        for name, colour, line_width in _RATE_LINES:
            self._stroke(
                times, columns[name], recent, self._rate, scales.rate_bps, colour, line_width
            )
        self._stroke(
            times, columns["queue_delay_ms"], recent, self._delay, scales.delay_ms, _DELAY, 1.5
        )

    def _draw_capacity(
        self, capacity: Sequence[float], step: int, left: int, right: int, opacity: float
    ) -> None:
        assert self._scales is not None
        if not capacity[step] > 0.0:
            return
        panel, extent = self._rate, self._scales.rate_bps
        top = panel.y(capacity[step] / extent)
        fill = _mix(_CAPACITY, _FROZEN, opacity)
        self._pen.rectangle((left, top, right, panel.bottom), fill=fill)
        if capacity[step] <= extent:
            self._pen.rectangle((left, top, right, top + 1), fill=_CAPACITY_EDGE)
        if step and capacity[step - 1] >= 0.0:
            before = panel.y(capacity[step - 1] / extent)
            box = (left, min(before, top), left + 1, max(before, top))
            self._pen.rectangle(box, fill=_CAPACITY_EDGE)

    def _draw_queue(
        self, delay: Sequence[float], step: int, left: int, right: int, opacity: float
    ) -> None:
        assert self._scales is not None
        if math.isnan(delay[step]):
            return
        panel, extent = self._delay, self._scales.delay_ms
        before = delay[step - 1] if step and not math.isnan(delay[step - 1]) else delay[step]
        corners = [(left, panel.y(before / extent)), (right, panel.y(delay[step] / extent))]
        corners += [(right, panel.bottom), (left, panel.bottom)]
        self._pen.polygon(corners, fill=_mix(_DELAY_FILL, _FROZEN, opacity))

    def _draw_losses(
        self, columns: Mapping[str, Sequence[float]], step: int, left: int, right: int
    ) -> None:
        assert self._scales is not None
        panel, base = self._loss, self._loss.bottom
        for name, colour, _ in _LOSSES:
            ratio = columns[name][step]
            if ratio > 0.0:
                share = ratio / self._scales.loss_ratio
                tick = max(5 * _SUPERSAMPLING, round(share * (panel.bottom - panel.top)))
                top = max(panel.top, base - tick)
                self._pen.rectangle((left, top, max(left + 1, right - 1), base), fill=colour)
                base = max(panel.top, top - 1)

    def _stroke(
        self,
        times: Sequence[float],
        values: Sequence[float],
        steps: range,
        panel: _Panel,
        extent: float,
        colour: RGB,
        line_width: float,
    ) -> None:
        """A line through the values at the ends of the steps; NaN leaves a gap."""
        points: list[tuple[int, int]] = []
        for step in range(max(0, steps.start - 1), steps.stop):
            if math.isnan(values[step]):
                self._line(points, colour, line_width)
                points = []
                continue
            y = panel.y(values[step] / extent)
            if step == 0:
                points.append((self._x(0.0), y))
            points.append((self._x(times[step]), y))
        self._line(points, colour, line_width)

    def _line(self, points: Sequence[tuple[int, int]], colour: RGB, line_width: float) -> None:
        if len(points) > 1:
            self._pen.line(points, fill=colour, width=round(line_width * _SUPERSAMPLING))

    def _copy_plots(self, timeline: Timeline, first: int) -> None:
        """Halve what the steps from `first` on have touched into the picture."""
        times = timeline._columns["time_s"]
        oldest = first - _RESTROKED_STEPS - 1
        left = self._x(times[oldest]) - _MARGIN if oldest >= 0 else 0
        self._paste_columns(left, self._x(times[-1]) + _MARGIN)

    def _paste_columns(self, left: int, right: int) -> None:
        s = _SUPERSAMPLING
        left = max(left, self._rate.left) // s * s
        right = min(right // s * s + s, self._rate.right + 1)
        for panel in (self._rate, self._delay, self._loss):
            strip = self._large.crop((left, panel.top, right, panel.bottom + 1)).reduce(s)
            self.picture.paste(strip, (left // s, panel.top // s))

    def _draw_figures(self, timeline: Timeline) -> None:
        """The running figures at the right end of the title line."""
        from PIL import ImageDraw

        right, baseline = self._rate.right // _SUPERSAMPLING, self._px(28)
        box = (self._figures_left(), 0, self.width, self._px(36))
        self.picture.paste(_PAPER, box)
        if not len(timeline):
            return
        text = (
            f"t = {timeline.end_s:.1f} s    video {timeline._columns['video_mos'][-1]:.2f} MOS    "
            f"call score {timeline.mean_call_score:.2f}    reward {timeline.total_reward:+.2f}"
        )
        pen = ImageDraw.Draw(self.picture)
        pen.text((right, baseline), text, _TEXT, self._font, anchor="rs")

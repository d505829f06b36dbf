"""Pictures of a call: their form, what they show, and that they depend on the timeline alone."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.render import TIMELINE_COLUMNS, Timeline, ansi, rgb_array, stacked

pytest.importorskip("PIL", reason="needs Pillow (pip install 'bwe-env[render]')")

ROOT = Path(__file__).resolve().parent.parent


def step_row(step: int, **changes: float) -> dict[str, float]:
    """A step of a made-up call: capacity in stairs, rates that follow, a queue now and then."""
    capacity_bps = 1e6 * (1 + (step // 30) % 4)
    row = {
        "time_s": 0.1 * (step + 1),
        "capacity_bps": capacity_bps,
        "target_rate_bps": capacity_bps * (0.9 + 0.2 * math.sin(step / 7)),
        "gcc_target_rate_bps": 0.8 * capacity_bps,
        "receive_rate_bps": 0.85 * capacity_bps,
        "queue_delay_ms": max(0.0, 120 * math.sin(step / 7)),
        "queue_loss_ratio": 0.0,
        "random_loss_ratio": 0.0,
        "aqm_loss_ratio": 0.0,
        "policer_loss_ratio": 0.0,
        "frozen_ratio": 0.0,
        "video_mos": 3.9,
        "call_score": 3.7,
        "reward": 0.05,
    }
    return row | changes


def timeline_of(rows: list[dict[str, float]], *, max_rate_bps: float = 6e6) -> Timeline:
    timeline = Timeline(
        "a-network", network_type="wifi", duration_s=20.0, max_rate_bps=max_rate_bps
    )
    for row in rows:
        timeline.append(row)
    return timeline


def pixels_of(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int(np.all(picture == np.array(colour, dtype=np.uint8), axis=-1).sum())


def plots(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The part below title and legend, which repeats the colours."""
    return picture[70:]


# --- Form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(960, 540), (640, 360), (1280, 720), (801, 455)])
def test_a_picture_has_the_asked_size_three_channels_and_bytes(width: int, height: int) -> None:
    picture = rgb_array(timeline_of([step_row(i) for i in range(20)]), width, height)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8


def test_a_call_that_has_not_begun_can_be_drawn() -> None:
    assert rgb_array(Timeline()).shape == (540, 960, 3)


def test_a_picture_too_small_for_its_labels_is_refused_with_the_smallest_size() -> None:
    with pytest.raises(ConfigError, match="640 x 360"):
        rgb_array(Timeline(), 320, 180)


def test_each_picture_is_a_new_array() -> None:
    timeline = timeline_of([step_row(0)])
    first = rgb_array(timeline)
    kept = first.copy()
    second = rgb_array(timeline)
    second[:] = 0
    timeline.append(step_row(1))
    third = rgb_array(timeline)
    assert np.array_equal(first, kept)
    assert not np.array_equal(second, third)


# --- Determinism ----------------------------------------------------------------------------------


def eventful_rows() -> list[dict[str, float]]:
    """Axes that grow late, gaps, an outage, losses, freezes, more steps than scheduled."""
    rows = [step_row(i) for i in range(260)]
    rows[40] |= {"gcc_target_rate_bps": math.nan, "queue_delay_ms": math.nan}
    rows[70] |= {"queue_loss_ratio": 0.02, "random_loss_ratio": 0.01}
    rows[71] |= {"capacity_bps": 0.0, "frozen_ratio": 1.0, "queue_delay_ms": 900.0}
    rows[130] |= {"target_rate_bps": 6e6, "capacity_bps": 80e6}
    rows[180] |= {"queue_loss_ratio": 0.7, "frozen_ratio": 0.3}
    return rows


def test_a_picture_does_not_depend_on_how_often_the_call_was_looked_at() -> None:
    rows = eventful_rows()
    watched = timeline_of([])
    for count, row in enumerate(rows, start=1):
        watched.append(row)
        after_each_step = rgb_array(watched)
        if count % 26 == 0 or count in (71, 72, 131, 181, 201):
            at_once = rgb_array(timeline_of(rows[:count]))
            assert np.array_equal(after_each_step, at_once), f"after {count} steps"


def test_the_same_timeline_gives_the_same_bytes() -> None:
    first, second = (rgb_array(timeline_of(eventful_rows())) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_a_timeline_can_be_drawn_at_two_sizes_in_turn() -> None:
    timeline = timeline_of([step_row(i) for i in range(50)])
    large = rgb_array(timeline)
    rgb_array(timeline, 640, 360)
    assert np.array_equal(rgb_array(timeline), large)


# --- What it shows --------------------------------------------------------------------------------


def test_a_frozen_span_turns_its_columns_red_and_no_others() -> None:
    rows = [step_row(i) for i in range(100)]
    frozen_rows = [
        row | {"frozen_ratio": 1.0} if 50 <= i < 60 else row for i, row in enumerate(rows)
    ]
    clear, frozen = rgb_array(timeline_of(rows)), rgb_array(timeline_of(frozen_rows))
    changed = np.flatnonzero(np.any(clear != frozen, axis=(0, 2)))
    # 5 to 6 s of a 20 s axis that runs from x = 64 to x = 940.
    assert changed.min() == pytest.approx(64 + 876 * 5 / 20, abs=2)
    assert changed.max() == pytest.approx(64 + 876 * 6 / 20, abs=2)
    assert len(changed) == changed.max() - changed.min() + 1
    is_changed = np.any(clear != frozen, axis=2)
    redder = frozen[is_changed].astype(int) - clear[is_changed].astype(int)
    # Red against green and blue gains everywhere that the span shows.
    assert np.all(2 * redder[:, 0] >= redder[:, 1] + redder[:, 2])


def test_a_shorter_freeze_is_a_paler_red() -> None:
    def redness(frozen_ratio: float) -> int:
        rows = [step_row(i, frozen_ratio=frozen_ratio) for i in range(50)]
        picture = plots(rgb_array(timeline_of(rows))).astype(int)
        return int((picture[..., 0] - picture[..., 1]).clip(min=0).sum())

    assert redness(0.0) < redness(0.3) < redness(1.0)


def test_losses_are_coloured_by_their_cause() -> None:
    colours = {
        "queue_loss_ratio": (213, 94, 0),
        "aqm_loss_ratio": (128, 72, 20),
        "policer_loss_ratio": (96, 96, 96),
        "random_loss_ratio": (190, 80, 150),
    }
    for name in ("reward", *colours):
        picture = plots(rgb_array(timeline_of([step_row(i, **{name: 0.04}) for i in range(50)])))
        for cause, colour in colours.items():
            assert (pixels_of(picture, colour) > 0) == (cause == name)


def test_a_single_small_loss_leaves_a_visible_tick() -> None:
    rows = [step_row(i) for i in range(50)]
    loss = [*rows[:-1], rows[-1] | {"queue_loss_ratio": 0.5}]  # the axis goes up to 50 %
    both = [loss[0] | {"random_loss_ratio": 0.001}, *loss[1:]]
    assert not np.array_equal(rgb_array(timeline_of(loss)), rgb_array(timeline_of(both)))


@pytest.mark.parametrize(
    "name",
    [
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
    ],
)
def test_every_column_of_the_timeline_can_be_seen(name: str) -> None:
    rows = [step_row(i) for i in range(50)]
    changed = [row | {name: 0.7 * row[name] + 0.2} for row in rows]
    assert not np.array_equal(rgb_array(timeline_of(rows)), rgb_array(timeline_of(changed)))


def test_capacity_beyond_the_maximum_rate_does_not_flatten_the_rates() -> None:
    plain = [step_row(i, capacity_bps=6e6, target_rate_bps=6e6) for i in range(50)]
    fast = [row | {"capacity_bps": 300e6} for row in plain]
    blue = (0, 114, 178)
    rows_of_target = [
        np.flatnonzero(np.all(plots(rgb_array(timeline_of(rows))) == blue, axis=-1).any(axis=1))
        for rows in (plain, fast)
    ]
    assert np.array_equal(*rows_of_target)


def test_a_long_network_name_is_cut_before_it_reaches_the_figures() -> None:
    def figures(name: str) -> NDArray[np.uint8]:
        timeline = Timeline(name, duration_s=20.0)
        timeline.append(step_row(0))
        return rgb_array(timeline)[:36, 530:]

    assert np.array_equal(figures("short"), figures("a-very-long-network-name-" * 10))


# --- Several calls --------------------------------------------------------------------------------


def test_calls_that_need_the_same_axes_are_stacked_as_they_are_drawn_alone() -> None:
    first = [step_row(i) for i in range(100)]
    second = [row | {"frozen_ratio": 0.5} for row in first]
    picture = stacked([timeline_of(first), timeline_of(second)], 640, 360)
    assert picture.shape == (720, 640, 3)
    assert np.array_equal(picture[:360], rgb_array(timeline_of(first), 640, 360))
    assert np.array_equal(picture[360:], rgb_array(timeline_of(second), 640, 360))


def test_stacked_calls_share_the_longest_of_their_axes() -> None:
    low = timeline_of([step_row(i, queue_delay_ms=50.0, queue_loss_ratio=0.01) for i in range(50)])
    high = timeline_of([step_row(i, queue_delay_ms=900.0, target_rate_bps=6e6) for i in range(50)])
    labels = np.s_[70:, :64]  # the numbers left of the panels

    def together(*timelines: Timeline) -> list[NDArray[np.uint8]]:
        return np.split(stacked(timelines), len(timelines))

    above, below = together(low, high)
    assert np.array_equal(above[labels], below[labels])
    assert not np.array_equal(above[labels], together(low)[0][labels])
    assert np.array_equal(below, rgb_array(high))


def test_stacking_leaves_the_pictures_of_the_calls_themselves_alone() -> None:
    low, high = (timeline_of([step_row(0, queue_delay_ms=ms)]) for ms in (50.0, 900.0))
    before = rgb_array(low)
    stacked([low, high])
    low.append(step_row(1, queue_delay_ms=50.0))
    after = timeline_of([step_row(i, queue_delay_ms=50.0) for i in range(2)])
    assert not np.array_equal(before, rgb_array(low))
    assert np.array_equal(rgb_array(low), rgb_array(after))


# --- Timeline and text ----------------------------------------------------------------------------


def test_a_row_that_lacks_a_column_is_refused_by_its_name() -> None:
    row = step_row(0)
    del row["queue_delay_ms"]
    with pytest.raises(ConfigError, match="lacks queue_delay_ms"):
        Timeline().append(row)


@pytest.mark.parametrize("time_s", [0.1, 0.05, math.nan])
def test_a_step_that_does_not_follow_the_last_one_is_refused(time_s: float) -> None:
    timeline = timeline_of([step_row(0)])
    with pytest.raises(ConfigError, match="does not follow"):
        timeline.append(step_row(1, time_s=time_s))
    assert len(timeline) == 1


def test_a_timeline_gives_back_what_was_put_in() -> None:
    timeline = timeline_of([step_row(0), step_row(1)])
    for name in TIMELINE_COLUMNS:
        assert timeline.column(name).tolist() == [step_row(0)[name], step_row(1)[name]]
    assert timeline.total_reward == pytest.approx(0.1)
    assert timeline.mean_call_score == pytest.approx(3.7)
    with pytest.raises(UnknownNameError, match="Did you mean 'capacity_bps'"):
        timeline.column("capacity")


def test_ansi_is_one_line_with_every_figure_in_its_unit() -> None:
    row = step_row(11, queue_loss_ratio=0.031, random_loss_ratio=0.2, queue_delay_ms=47.4)
    line = ansi(row)
    assert "\n" not in line
    for part in (
        "1.2 s",
        "1.00",
        "0.85 Mbps",
        "47 ms",
        "3.1 % congestion",
        "20.0 % random",
        "3.90 MOS",
    ):
        assert part in line
    assert "FROZEN" not in line
    assert "FROZEN  50 %" in ansi(row | {"frozen_ratio": 0.5})


def test_without_pillow_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['PIL'] = None\n"
        "from bwe_env.render import Timeline, rgb_array\n"
        "try:\n    rgb_array(Timeline())\n"
        "except ImportError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert "pip install 'bwe-env[render]'" in result.stdout, result.stderr

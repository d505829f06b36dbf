"""render_mode="human": what the window shows, when, for how long, and what closing it does."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from bwe_env import live_window
from bwe_env.config import CallConfig
from bwe_env.errors import DisplayError
from bwe_env.live_window import LiveView, TkWindow, grid
from bwe_env.network import Network
from bwe_env.render import Timeline, rgb_array
from bwe_env.trace import constant
from bwe_env.vector_env import BandwidthEstimationVectorEnv
from tests.test_render import step_row, timeline_of

pytest.importorskip("PIL", reason="needs Pillow (pip install 'bwe-env[render]')")

ID = "BandwidthEstimation-v0"
ROOT = Path(__file__).resolve().parent.parent
NETWORKS = [Network(trace=constant(1e6))]
SHORT = CallConfig(duration_s=2.0)
ZERO = np.zeros(1, np.float32)


class FakeWindow:
    """Keeps what it was shown; can be closed as a user would, while it answers."""

    made: list[FakeWindow]

    def __init__(self, title: str, width: int, height: int) -> None:
        self.title, self.size = title, (height, width)
        self.pictures: list[NDArray[np.uint8]] = []
        self.answers = 0
        self.is_open = True
        self.closes_on_answer = False
        type(self).made.append(self)

    def show(self, picture: NDArray[np.uint8]) -> None:
        assert self.is_open, "a picture for a closed window"
        assert picture.shape == (*self.size, 3)
        self.pictures.append(picture)

    def answer(self) -> None:
        self.answers += 1
        if self.closes_on_answer:
            self.is_open = False

    def close(self) -> None:
        self.is_open = False


class FakeClock:
    """Time passes only where somebody sleeps or works."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[FakeWindow]:
    FakeWindow.made = []
    monkeypatch.setattr(live_window, "TkWindow", FakeWindow)
    return FakeWindow.made


def human_env() -> gymnasium.Env[Any, Any]:
    return gymnasium.make(ID, networks=NETWORKS, call=SHORT, render_mode="human")


def view(clock: FakeClock, *, interval_s: float = 0.1, frames_per_s: float = 10.0) -> LiveView:
    FakeWindow.made = []
    return LiveView(
        interval_s=interval_s,
        frames_per_s=frames_per_s,
        open_window=FakeWindow,
        clock=clock,
        sleep=clock.sleep,
    )


# --- What is shown --------------------------------------------------------------------------------


def test_the_window_shows_what_rgb_array_returns_after_every_step(
    windows: list[FakeWindow],
) -> None:
    seen = human_env()
    twin = gymnasium.make(ID, networks=NETWORKS, call=SHORT, render_mode="rgb_array")
    for env in (seen, twin):
        env.reset(seed=3)
    assert windows == []  # nothing to see before the first step
    for step in range(4):
        action = np.array([0.2 * step], np.float32)
        seen.step(action)
        twin.step(action)
        assert seen.render() is None
        assert len(windows[0].pictures) == step + 1
        assert np.array_equal(windows[0].pictures[-1], twin.render())
    assert len(windows) == 1


def test_a_watched_call_goes_as_an_unwatched_one(windows: list[FakeWindow]) -> None:
    seen, unseen = human_env(), gymnasium.make(ID, networks=NETWORKS, call=SHORT)
    assert np.array_equal(seen.reset(seed=1)[0], unseen.reset(seed=1)[0])
    for _ in range(3):
        first, second = seen.step(ZERO), unseen.step(ZERO)
        assert np.array_equal(first[0], second[0])
        assert first[1:] == second[1:]


def test_a_reset_shows_the_new_call_empty_in_the_same_window(windows: list[FakeWindow]) -> None:
    env = human_env()
    env.reset(seed=0)
    env.step(ZERO)
    env.reset()
    empty = Timeline(
        NETWORKS[0].name,
        network_type=NETWORKS[0].network_type,
        duration_s=SHORT.duration_s,
        max_rate_bps=SHORT.max_rate_bps,
    )
    assert len(windows) == 1
    assert np.array_equal(windows[0].pictures[-1], rgb_array(empty))


@pytest.mark.parametrize(
    ("num_envs", "size", "title"),
    [
        (1, (540, 960), "Bandwidth estimation"),
        (2, (360, 1280), "Bandwidth estimation: calls 1 to 2 of 2"),
        (3, (720, 1280), "Bandwidth estimation: calls 1 to 3 of 3"),
        (6, (720, 1280), "Bandwidth estimation: calls 1 to 4 of 6"),
    ],
)
def test_a_vector_environment_shows_its_first_four_calls_two_by_two(
    windows: list[FakeWindow], num_envs: int, size: tuple[int, int], title: str
) -> None:
    arguments: dict[str, Any] = {"networks": NETWORKS, "call": SHORT}
    seen = BandwidthEstimationVectorEnv(num_envs, render_mode="human", **arguments)
    twin = BandwidthEstimationVectorEnv(num_envs, render_mode="rgb_array", **arguments)
    for env in (seen, twin):
        env.reset(seed=5)
        env.step(np.full((num_envs, 1), 0.3, np.float32))
    (window,) = windows
    assert (window.size, window.title) == (size, title)
    assert np.array_equal(window.pictures[0], grid(twin._timelines))
    assert seen.render() is None


def test_several_calls_stand_left_to_right_then_below_and_a_missing_one_is_white() -> None:
    timelines = [timeline_of([step_row(i) for i in range(10 * n)]) for n in (1, 2, 3)]
    picture = grid(timelines)
    corners = [(0, 0), (0, 640), (360, 0)]
    for timeline, (top, left) in zip(timelines, corners, strict=True):
        assert np.array_equal(
            picture[top : top + 360, left : left + 640], rgb_array(timeline, 640, 360)
        )
    assert (picture[360:, 640:] == 255).all()


# --- How fast -------------------------------------------------------------------------------------


def test_a_step_lasts_its_interval_whatever_the_agent_needs_of_it() -> None:
    clock = FakeClock()
    live, timelines = view(clock), [timeline_of([step_row(0)])]
    ends = []
    for thinking_s in (0.0, 0.0, 0.03, 0.1, 0.25, 0.0):
        clock.now_s += thinking_s
        live.step(timelines)
        ends.append(clock.now_s - 100.0)
    # The first step waits for nobody; one that is late delays what follows, without a burst.
    assert ends == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.55, 0.65])


def test_a_click_on_the_cross_is_answered_within_a_twentieth_of_a_second() -> None:
    clock = FakeClock()
    live = view(clock, interval_s=1.0)
    for _ in range(3):
        live.step([timeline_of([step_row(0)])])
    assert max(clock.slept) <= 0.05
    assert FakeWindow.made[0].answers > 2 * 20


@pytest.mark.parametrize(
    ("interval_s", "drawn"),
    [
        (0.1, [1, 1, 1, 1, 1, 1]),
        (0.06, [1, 0, 1, 0, 1, 0]),  # 0.06 s is too soon after the last picture, 0.12 s is not
        (0.02, [1, 0, 0, 0, 0, 1]),
        (0.5, [1, 1, 1, 1, 1, 1]),
    ],
)
def test_pictures_come_at_most_at_the_frame_rate(interval_s: float, drawn: list[int]) -> None:
    live, timelines = view(FakeClock(), interval_s=interval_s), [timeline_of([step_row(0)])]
    counts = [0]
    for _ in drawn:
        live.step(timelines)
        counts.append(len(FakeWindow.made[0].pictures))
    assert np.diff(counts).tolist() == drawn


def test_the_last_step_of_a_call_is_always_seen() -> None:
    live, timelines = view(FakeClock(), interval_s=0.02), [timeline_of([step_row(0)])]
    live.step(timelines)
    live.step(timelines, is_last=True)
    assert len(FakeWindow.made[0].pictures) == 2


@pytest.mark.parametrize("autoreset_mode", ["next_step", "same_step"])
def test_calls_that_begin_anew_by_themselves_are_seen_to_their_end(
    windows: list[FakeWindow], autoreset_mode: str
) -> None:
    env = BandwidthEstimationVectorEnv(
        2,
        networks=NETWORKS,
        call=CallConfig(interval_s=0.02),
        max_episode_steps=10,
        autoreset_mode=autoreset_mode,
        render_mode="human",
    )
    env.reset(seed=0)
    for _ in range(10):
        _, _, _, truncated, _ = env.step(np.zeros((2, 1), np.float32))
    assert truncated.all()
    assert len(windows[0].pictures) == 3  # at 0.02 s, 0.12 s and, because it is the end, 0.2 s


# --- Closing --------------------------------------------------------------------------------------


def test_a_window_closed_by_the_user_lets_the_calls_go_on_unseen_and_unpaced() -> None:
    clock = FakeClock()
    live, timelines = view(clock), [timeline_of([step_row(0)])]
    live.step(timelines)
    live.step(timelines)
    (window,) = FakeWindow.made
    window.closes_on_answer = True
    live.step(timelines)
    closed_at_s, pictures = clock.now_s, len(window.pictures)
    for _ in range(5):
        live.step(timelines, is_last=True)
    live.begin(timelines)
    assert clock.now_s == closed_at_s
    assert len(window.pictures) == pictures
    assert len(FakeWindow.made) == 1


def test_the_environment_outlives_its_window(windows: list[FakeWindow]) -> None:
    env = human_env()
    env.reset(seed=0)
    env.step(ZERO)
    windows[0].is_open = False
    over = False
    while not over:
        _, _, _, over, _ = env.step(ZERO)
        assert env.render() is None
    env.reset()
    env.step(ZERO)
    env.close()
    env.close()
    assert len(windows) == 1


@pytest.mark.parametrize("stepped", [False, True])
def test_close_closes_the_window_for_good(windows: list[FakeWindow], stepped: bool) -> None:
    env = BandwidthEstimationVectorEnv(1, networks=NETWORKS, call=SHORT, render_mode="human")
    env.reset(seed=0)
    if stepped:
        env.step(np.zeros((1, 1)))
    env.close()
    env.close()
    assert all(not window.is_open for window in windows)
    env.step(np.zeros((1, 1)))
    assert len(windows) == int(stepped)


def test_a_copy_of_a_watched_environment_opens_a_window_of_its_own(
    windows: list[FakeWindow],
) -> None:
    env = human_env().unwrapped
    env.reset(seed=0)
    env.step(ZERO)
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        shown = len(windows[0].pictures)
        twin.step(ZERO)
        assert len(windows[0].pictures) == shown
        assert len(windows[-1].pictures) == 1
    assert len(windows) == 3


# --- Without a display ----------------------------------------------------------------------------


def without_display(script: str) -> str:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    return result.stdout + result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a display is always found")
def test_without_a_display_the_error_names_the_ways_out() -> None:
    script = "from bwe_env.live_window import TkWindow\nTkWindow('title', 640, 360)\n"
    said = without_display(script)
    assert "DisplayError: render_mode 'human' has no display" in said
    for way_out in ("rgb_array", "RecordVideo", "'ansi'", "xvfb-run"):
        assert way_out in said


@pytest.mark.parametrize(
    ("module", "advice"),
    [("tkinter", "apt install python3-tk"), ("PIL", "pip install 'bwe-env[render]'")],
)
def test_without_tkinter_or_pillow_the_error_says_what_to_install(module: str, advice: str) -> None:
    said = without_display(
        f"import sys; sys.modules['{module}'] = None\n"
        "from bwe_env.live_window import LiveView\nfrom bwe_env.render import Timeline\n"
        "LiveView(interval_s=0.1, frames_per_s=10).step([Timeline()])\n"
    )
    assert "ImportError: render" in said
    assert "human" in said
    assert advice in said


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a display is always found")
def test_check_env_tries_every_render_mode_without_a_warning_where_there_is_no_display(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, networks=NETWORKS).unwrapped)


def test_check_env_passes_on_an_environment_that_is_being_watched(
    windows: list[FakeWindow],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(human_env().unwrapped)
    assert windows


def test_sb3_check_env_passes_on_an_environment_that_is_being_watched(
    windows: list[FakeWindow],
) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(human_env().unwrapped)
    assert windows


# --- A real window --------------------------------------------------------------------------------


@pytest.fixture
def real_window() -> TkWindow:
    pytest.importorskip("tkinter", reason="this Python was built without tkinter")
    try:
        return TkWindow("a test", 640, 360)
    except DisplayError as error:
        pytest.skip(f"needs a display, for example xvfb-run: {error}")


def pixels_on_screen(window: TkWindow) -> NDArray[np.uint8]:
    get = window._photo.get
    rows = [[get(x, y) for x in range(0, 640, 16)] for y in range(0, 360, 9)]
    return np.array(rows, dtype=np.uint8)


def test_a_real_window_holds_the_picture_it_was_given(real_window: TkWindow) -> None:
    picture = rgb_array(timeline_of([step_row(i) for i in range(100)]), 640, 360)
    real_window.show(picture)
    assert real_window.is_open
    assert np.array_equal(pixels_on_screen(real_window), picture[::9, ::16])
    real_window.close()
    real_window.close()
    assert not real_window.is_open
    real_window.show(picture)
    real_window.answer()


def test_the_cross_of_a_real_window_closes_it_without_an_error(real_window: TkWindow) -> None:
    root = real_window._root
    root.tk.eval(root.protocol("WM_DELETE_WINDOW"))  # what a window manager triggers
    assert real_window.is_open  # until the environment looks
    real_window.answer()
    assert not real_window.is_open


def test_a_real_window_destroyed_from_outside_counts_as_closed(real_window: TkWindow) -> None:
    real_window._root.destroy()
    real_window.show(np.zeros((360, 640, 3), np.uint8))
    real_window.answer()
    assert not real_window.is_open


@pytest.mark.parametrize("by_the_user", [False, True])
def test_a_closed_window_is_freed_at_once_and_not_by_the_collector(
    real_window: TkWindow, by_the_user: bool
) -> None:
    root = weakref.ref(real_window._root)
    gc.disable()
    try:
        real_window.show(np.zeros((360, 640, 3), np.uint8))
        if by_the_user:
            root().tk.eval(root().protocol("WM_DELETE_WINDOW"))
            real_window.answer()
        else:
            real_window.close()
        assert root() is None
    finally:
        gc.enable()


def test_a_call_can_be_watched_in_a_real_window_in_real_time(real_window: TkWindow) -> None:
    real_window.close()  # there is a display; the environment opens its own
    env = human_env()
    env.reset(seed=0)
    env.step(ZERO)
    started_s = time.monotonic()
    for _ in range(5):
        env.step(ZERO)
    lasted_s = time.monotonic() - started_s
    env.close()
    assert lasted_s >= 5 * SHORT.interval_s - 1e-3  # timers are no finer than that

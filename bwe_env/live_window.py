"""`render_mode="human"`: the calls in a window, at the pace of real time.

The window shows the pictures of `bwe_env.render.rgb_array`, nothing of its own. It needs a display,
tkinter (of the standard library, which some systems package apart) and Pillow, which draws.

A step lasts at least as long on the clock as it simulates; a slower machine or agent makes the film
slower, and what was late is not made up for in a burst. Pictures come at most at the environment's
`render_fps`: where intervals are shorter than that, some steps have none, but the last of a call
always has one.

The window opens with the first step, as before it there is nothing to see. The user may close it
at any time: the calls go on unseen, no longer held to real time, and the window stays closed. So it
does after `close()`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import DisplayError
from bwe_env.render import MIN_HEIGHT, MIN_WIDTH, Timeline, rgb_array

#: Calls of a vector environment that fit on a screen: the first four, two by two. Ours.
MOST_CALLS = 4
#: Width and height of the only call, that of `rgb_array`; several calls have the smallest pictures.
ONE_CALL_SIZE = (960, 540)
#: Longest time in which a click on the window's cross waits for an answer. Ours.
RESPONSE_S = 0.05
#: Rounding of sums of intervals must not cost a picture.
_SLACK_S = 1e-9


class Window(Protocol):
    """A window of fixed size that shows one picture at a time."""

    @property
    def is_open(self) -> bool:
        """False once the user or `close` has closed it."""

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Replace what is seen; shape (height, width, 3). Nothing happens if it is closed."""

    def answer(self) -> None:
        """Let what the user did to the window take effect."""

    def close(self) -> None:
        """May be called more than once."""


#: Makes a window from its title, width and height in pixels.
OpenWindow = Callable[[str, int, int], Window]


class LiveView:
    """The first calls of an environment in a window, one picture per step, in real time.

    Args:
        interval_s: what a step simulates, and lasts at least.
        frames_per_s: most pictures per second.
        open_window: makes the window at the first step; `TkWindow` by default.
        clock: seconds from any origin, rising.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        *,
        interval_s: float,
        frames_per_s: float,
        open_window: OpenWindow | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_s = interval_s
        self._picture_every_s = 1.0 / frames_per_s
        self._open_window = open_window or TkWindow
        self._clock = clock
        self._sleep = sleep
        self._window: Window | None = None
        self._is_over = False
        self._unseen_s = math.inf
        self._step_ended_s = -math.inf

    def begin(self, timelines: Sequence[Timeline]) -> None:
        """Calls were reset: show them empty, if there is a window already."""
        self._leave_if_closed()
        if self._window is not None:
            self._show(timelines)

    def step(self, timelines: Sequence[Timeline], *, is_last: bool = False) -> None:
        """Show the calls after a step, and wait until the step has lasted its interval.

        Args:
            timelines: of every call of the environment.
            is_last: one of the calls seen has ended, so that a picture is due in any case.

        Raises:
            DisplayError: there is no display to open a window on.
            ImportError: tkinter or Pillow is missing.
        """
        self._leave_if_closed()
        if self._is_over:
            return
        self._unseen_s += self._interval_s
        if is_last or self._unseen_s >= self._picture_every_s - _SLACK_S:
            self._show(timelines)
        self._wait()

    def close(self) -> None:
        """Close the window for good."""
        self._is_over = True
        if self._window is not None:
            self._window.close()
            self._window = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no window; it opens its own."""
        return {**self.__dict__, "_window": None}

    def _show(self, timelines: Sequence[Timeline]) -> None:
        picture = grid(timelines)
        if self._window is None:
            shown, total = min(MOST_CALLS, len(timelines)), len(timelines)
            which = f": calls 1 to {shown} of {total}" if total > 1 else ""
            height, width, _ = picture.shape
            self._window = self._open_window(f"Bandwidth estimation{which}", width, height)
        self._window.show(picture)
        self._unseen_s = 0.0
        self._leave_if_closed()

    def _wait(self) -> None:
        due_s = self._step_ended_s + self._interval_s
        while self._window is not None:
            self._window.answer()
            self._leave_if_closed()
            remaining_s = due_s - self._clock()
            if remaining_s <= 0.0:
                break
            self._sleep(min(remaining_s, RESPONSE_S))
        self._step_ended_s = self._clock()

    def _leave_if_closed(self) -> None:
        if self._window is not None and not self._window.is_open:
            self.close()


def grid(timelines: Sequence[Timeline]) -> NDArray[np.uint8]:
    """One call as `rgb_array` draws it; of several the first four, left to right, two to a row.

    Returns:
        Shape (height, width, 3); white where a fourth call is missing.
    """
    if len(timelines) == 1:
        return rgb_array(timelines[0], *ONE_CALL_SIZE)
    pictures = [rgb_array(timeline, MIN_WIDTH, MIN_HEIGHT) for timeline in timelines[:MOST_CALLS]]
    if len(pictures) % 2:
        pictures.append(np.full_like(pictures[0], 255))
    rows = [np.hstack(pictures[first : first + 2]) for first in range(0, len(pictures), 2)]
    return np.vstack(rows)


class TkWindow:
    """A `Window` of tkinter. Use it from the thread that made it, as Tk demands."""

    def __init__(self, title: str, width: int, height: int) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise ImportError(
                "render_mode 'human' opens its window with tkinter, which this Python lacks; "
                "install it (Debian and Ubuntu: apt install python3-tk; Fedora: dnf install "
                "python3-tkinter; Homebrew: brew install python-tk), or use "
                "render_mode='rgb_array'."
            ) from error
        self._tcl_error: type[Exception] = tkinter.TclError
        try:
            root = tkinter.Tk(className="bwe-env")
        except tkinter.TclError as error:
            raise DisplayError(
                f"render_mode 'human' has no display to open its window on ({error}). Where there "
                "is none, make the environment with render_mode='rgb_array' (the same picture; "
                "gymnasium.wrappers.RecordVideo films it) or 'ansi', or start Python with a "
                "virtual display (xvfb-run python …)."
            ) from error
        root.title(title)
        root.resizable(False, False)
        # Only noted here: whoever runs in the window's own loop must not take it away.
        root.protocol("WM_DELETE_WINDOW", self._note_closing)
        self._photo: Any = tkinter.PhotoImage(master=root, width=width, height=height)
        tkinter.Label(root, image=self._photo, borderwidth=0).pack()
        self._root: Any = root
        self._is_closing = False

    @property
    def is_open(self) -> bool:
        """False once the user or `close` has closed it."""
        return self._root is not None

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Replace what is seen; shape (height, width, 3). Nothing happens if it is closed."""
        if self._root is None:
            return
        # As a file in memory. ImageTk of Pillow is 5 ms faster, and where the window has been
        # destroyed from outside it brings the process down; this is an error that can be caught.
        height, width, _ = picture.shape
        portable_pixmap = b"P6 %d %d 255 " % (width, height) + picture.tobytes()
        try:
            self._photo.configure(data=portable_pixmap)
        except self._tcl_error:
            self.close()
        self.answer()

    def answer(self) -> None:
        """Let what the user did to the window take effect."""
        if self._root is None:
            return
        try:
            self._root.update()
        except self._tcl_error:  # destroyed from outside
            self._is_closing = True
        if self._is_closing:
            self.close()

    def close(self) -> None:
        """May be called more than once."""
        if self._root is None:
            return
        # No reference to Tk may be left for the collector, which also runs in the simulator's
        # threads: Tcl aborts the process where another thread frees it.
        root, self._root, self._photo = self._root, None, None
        with contextlib.suppress(self._tcl_error):  # destroyed already, from outside
            root.destroy()

    def _note_closing(self) -> None:
        self._is_closing = True

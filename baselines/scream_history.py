"""What SCReAM remembers of delays and missing packets, RFC 8298 section 4.1.2."""

from __future__ import annotations

from collections import deque

from baselines.scream_equations import QDELAY_NORM_AVERAGE_HIST, QDELAY_NORM_VARIANCE_HIST
from bwe_env.feedback import FeedbackReport
from bwe_env.units import s_to_us

#: Minutes of base delay that are remembered (RFC 6817 section 3.4.2, BASE_HISTORY).
BASE_HISTORY = 10
_MINUTE_US = s_to_us(60.0)


class BaseDelay:
    """The least one-way delay of the last minutes, RFC 6817 section 3.4.2."""

    def __init__(self) -> None:
        self._minima_us: deque[int] = deque(maxlen=BASE_HISTORY)
        self._minute = -1

    def update(self, delay_us: int, now_us: int) -> int:
        """The base delay after another sample, on clocks that need not agree, microseconds."""
        minute = now_us // _MINUTE_US
        if minute != self._minute:
            self._minute = minute
            self._minima_us.append(delay_us)
        elif delay_us < self._minima_us[-1]:
            self._minima_us[-1] = delay_us
        return min(self._minima_us)


class LossDetector:
    """Packets that are missing for longer than the reordering window, section 4.1.2.4."""

    def __init__(self) -> None:
        self._missing_since_us: dict[int, int] = {}
        self._lost_since_us: dict[int, int] = {}
        self._window_us = 0

    def update(self, report: FeedbackReport, now_us: int, s_rtt_s: float) -> bool:
        """Whether packets have been found lost."""
        for result in report.packets:
            seq = result.sent.seq
            if result.arrival_time_us is None:
                if seq not in self._lost_since_us:
                    self._missing_since_us.setdefault(seq, now_us)
                continue
            since_us = self._missing_since_us.pop(seq, None)
            if since_us is None:
                since_us = self._lost_since_us.pop(seq, None)
            if since_us is not None:
                self._window_us = min(now_us - since_us, s_to_us(s_rtt_s))
        missing = self._missing_since_us
        lost = [seq for seq, us in missing.items() if now_us - us >= self._window_us]
        for seq in lost:
            self._lost_since_us[seq] = missing.pop(seq)
        return bool(lost)


class NormHistory:
    """`qdelay_norm_history` of section 4.1.2.3, with running sums."""

    def __init__(self) -> None:
        self._values: deque[float] = deque()
        self._sum = 0.0
        self._sum_of_squares = 0.0

    def append(self, value: float) -> None:
        """Another sample; the oldest of 200 goes."""
        self._values.append(value)
        self._sum += value
        self._sum_of_squares += value * value
        if len(self._values) > QDELAY_NORM_VARIANCE_HIST:
            oldest = self._values.popleft()
            self._sum -= oldest
            self._sum_of_squares -= oldest * oldest

    @property
    def average(self) -> float:
        """Of the last 50."""
        length = min(len(self._values), QDELAY_NORM_AVERAGE_HIST)
        start = len(self._values)
        return sum(self._values[start - 1 - i] for i in range(length)) / max(1, length)

    @property
    def variance(self) -> float:
        """Of the last 200, >= 0."""
        length = max(1, len(self._values))
        mean = self._sum / length
        return max(0.0, self._sum_of_squares / length - mean * mean)

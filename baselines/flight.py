"""What a window-based controller can tell of its own sender from the packets that left.

An estimator is told of packets when they leave and of reports when they come; it never sees the
pacer's queue. But the pacer keeps no packet back that window and pacing rate let go, so a sender
that may send and does not has nothing to send: `Flight.on_sent` says when that was so.
"""

from __future__ import annotations

from bwe_env.units import BITS_PER_BYTE, US_PER_S

#: What may leave waits so long for a timer at most; silence beyond it is an empty queue. The pacer
#: of libwebrtc holds back for 5 ms and counts in whole milliseconds; twice that, ours.
HOLD_BACK_US = 10_000

_FOREVER_US = 1 << 62


class Flight:
    """Bytes in flight under a window and a pacing rate.

    Attributes:
        bytes_in_flight: sent, and newer than every packet that a report mentioned.
        is_window_full: whether the window keeps packets back.
    """

    def __init__(self) -> None:
        self.bytes_in_flight = 0
        self.is_window_full = False
        self._cwnd_bytes = _FOREVER_US
        self._us_per_byte = 0.0
        self._drained_us = 0.0  # the pacer has made up for what it sent
        self._opened_us = 0  # the window let packets go since then

    def on_sent(self, size_bytes: int, send_time_us: int) -> bool:
        """A packet has left; whether the sender had run out of packets just before."""
        had_run_dry = self.is_dry(send_time_us)
        self.bytes_in_flight += size_bytes
        self._drained_us = max(self._drained_us, send_time_us) + size_bytes * self._us_per_byte
        self.is_window_full = self.bytes_in_flight >= self._cwnd_bytes
        return had_run_dry

    def is_dry(self, now_us: int) -> bool:
        """Whether nothing waits: all could have left for longer than timers hold it back."""
        if self.is_window_full:
            return False
        return now_us - max(self._drained_us, self._opened_us) > HOLD_BACK_US

    def decide(
        self, bytes_in_flight: int, cwnd_bytes: int, pacing_rate_bps: float, now_us: int
    ) -> None:
        """A new window and pacing rate (bits per second, > 0) hold from now on.

        Args:
            bytes_in_flight: as the last report says it, and what has left since.
            cwnd_bytes: > 0.
        """
        us_per_byte = BITS_PER_BYTE * US_PER_S / pacing_rate_bps
        if self._drained_us > now_us:
            # What the pacer still has to make up for goes on at the new rate.
            self._drained_us = now_us + (self._drained_us - now_us) * us_per_byte / (
                self._us_per_byte or us_per_byte
            )
        self._us_per_byte = us_per_byte
        was_full = self.is_window_full
        self.bytes_in_flight = bytes_in_flight
        self._cwnd_bytes = cwnd_bytes
        self.is_window_full = bytes_in_flight >= cwnd_bytes
        if was_full and not self.is_window_full:
            self._opened_us = now_us

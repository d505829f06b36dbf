"""Logs that real clients write."""

from bwe_env.logs.rtc_event_log import RtcEventLog, parse_rtc_event_log, read_rtc_event_log
from bwe_env.logs.wire import EventLogFormatError, TruncatedEventLogError

__all__ = [
    "EventLogFormatError",
    "RtcEventLog",
    "TruncatedEventLogError",
    "parse_rtc_event_log",
    "read_rtc_event_log",
]

"""Logs that real clients write."""

from bwe_env.logs.call_log import CallLog
from bwe_env.logs.chromium_run import chromium_run_call
from bwe_env.logs.event_log_call import event_log_call
from bwe_env.logs.read_call import read_call_log
from bwe_env.logs.rtc_event_log import RtcEventLog, parse_rtc_event_log, read_rtc_event_log
from bwe_env.logs.webrtc_internals import webrtc_internals_call
from bwe_env.logs.wire import EventLogFormatError, TruncatedEventLogError

__all__ = [
    "CallLog",
    "EventLogFormatError",
    "RtcEventLog",
    "TruncatedEventLogError",
    "chromium_run_call",
    "event_log_call",
    "parse_rtc_event_log",
    "read_call_log",
    "read_rtc_event_log",
    "webrtc_internals_call",
]

"""Any log of a call that this package can read, recognised by what it holds."""

from __future__ import annotations

from pathlib import Path

from bwe_env.errors import CallLogFormatError
from bwe_env.logs.call_log import CallLog
from bwe_env.logs.chromium_run import chromium_run_from
from bwe_env.logs.event_log_call import event_log_call
from bwe_env.logs.files import parse_json_object, read_log_bytes
from bwe_env.logs.webrtc_internals import webrtc_internals_from

#: A JSON object, perhaps after a byte order mark; an event log begins with other bytes.
_JSON_BEGIN = (b"{", b"[")
_SPACE_AND_MARK = b"\xef\xbb\xbf \t\r\n"


def read_call_log(path: Path | str) -> CallLog:
    """Bins of a call from an RTC event log, a recorded Chromium run or a webrtc-internals dump.

    Raises:
        CallLogFormatError: none of them, damaged, or nothing can be learnt from it.
    """
    path = Path(path)
    data = read_log_bytes(path)
    if not data.content.lstrip(_SPACE_AND_MARK).startswith(_JSON_BEGIN):
        return event_log_call(path)
    log = parse_json_object(data, str(path))
    if "packets_fwd" in log:
        return chromium_run_from(log, source=str(path))
    if "PeerConnections" in log:
        return webrtc_internals_from(log, source=str(path))
    members = ", ".join(list(log)[:8]) or "nothing"
    raise CallLogFormatError(
        f"{path}: JSON, but neither a recorded run (packets_fwd) nor a dump of "
        f"chrome://webrtc-internals (PeerConnections); it has {members}."
    )

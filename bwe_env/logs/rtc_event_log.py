"""RTC event logs of libwebrtc (v2): what a real client sent, heard and estimated.

``chrome://webrtc-internals`` and ``--webrtc-event-logging=DIRECTORY`` write them. The field numbers
below are facts of logging/rtc_event_log/rtc_event_log2.proto. The log tells times in whole
milliseconds of a clock of its own; here they are microseconds on that clock.

>>> log = read_rtc_event_log("call.rtceventlog.gz")  # doctest: +SKIP
>>> log.outgoing.size_bytes.sum()  # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.logs.delta_encoding import MAX_DELTAS, Column, decode_blobs, decode_deltas
from bwe_env.logs.files import read_log_bytes
from bwe_env.logs.rtcp import CompoundPacket, parse_rtcp
from bwe_env.logs.wire import (
    EventLogFormatError,
    Message,
    Span,
    TruncatedEventLogError,
    read_fields,
    read_message,
    read_varint,
)
from bwe_env.units import US_PER_MS

# Fields of EventStream.
_INCOMING_RTP, _OUTGOING_RTP, _INCOMING_RTCP, _OUTGOING_RTCP = 2, 3, 4, 5
_BEGIN_LOG, _END_LOG = 16, 17
_LOSS_BASED, _DELAY_BASED = 18, 19
_PROBE_CLUSTER, _PROBE_SUCCESS, _PROBE_FAILURE, _ALR_STATE = 21, 22, 23, 24
_DTLS_WRITABLE, _ROUTE_CHANGE = 28, 32
_KNOWN = frozenset((_INCOMING_RTP, _OUTGOING_RTP, _INCOMING_RTCP, _OUTGOING_RTCP, _BEGIN_LOG,
                    _END_LOG, _LOSS_BASED, _DELAY_BASED, _PROBE_CLUSTER, _PROBE_SUCCESS,
                    _PROBE_FAILURE, _ALR_STATE, _DTLS_WRITABLE, _ROUTE_CHANGE))  # fmt: skip

#: Every message has its time here; batches have its differences there.
_TIMESTAMP_MS, _TIMESTAMP_DELTAS = 1, 101
#: BeginLogEvent: version of the log's encoding, and wall-clock time.
_BEGIN_VERSION, _BEGIN_UTC_MS = 2, 3
#: RTCP batches: the packets, and how many follow the first.
_RAW_PACKET, _RTCP_NUM_DELTAS, _RAW_PACKET_BLOBS = 2, 3, 102

#: (column, field of the base, field of the differences) of RTP packets.
_RTP_NUM_DELTAS = 11
_RTP_COLUMNS = (
    ("marker", 2, 102),
    ("payload_type", 3, 103),
    ("sequence_number", 4, 104),
    ("rtp_timestamp", 5, 105),
    ("ssrc", 6, 106),
    ("payload_bytes", 8, 108),
    ("header_bytes", 9, 109),
    ("padding_bytes", 10, 110),
    ("transport_seq", 15, 115),
)
#: The same of the estimates.
_LOSS_NUM_DELTAS = 5
_LOSS_COLUMNS = (("bitrate_bps", 2, 102), ("fraction_lost_q8", 3, 103), ("packets", 4, 104))
_DELAY_NUM_DELTAS = 4
_DELAY_COLUMNS = (("bitrate_bps", 2, 102), ("detector_state", 3, 103))

#: DelayBasedBweUpdates.DetectorState.
DETECTOR_UNKNOWN, DETECTOR_NORMAL, DETECTOR_UNDERUSING, DETECTOR_OVERUSING = 0, 1, 2, 3
#: BweProbeResultFailure.FailureReason.
PROBE_FAILURES = (
    "unknown",
    "invalid send/receive interval",
    "invalid send/receive ratio",
    "timeout",
)

#: Transport-wide sequence numbers have 16 bits on the wire.
_SEQ_PERIOD = 1 << 16

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RtpPackets:
    """RTP packets in the order of their transport-wide numbers, then time; arrays of shape (n,)."""

    time_us: Ints
    ssrc: Ints
    sequence_number: Ints  # 16 bits, of the stream
    rtp_timestamp: Ints
    payload_type: Ints
    marker: NDArray[np.bool_]
    header_bytes: Ints  # RTP header with extensions
    payload_bytes: Ints
    padding_bytes: Ints
    transport_seq: Ints  # unwrapped; where `has_transport_seq`
    has_transport_seq: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.time_us)

    @property
    def size_bytes(self) -> Ints:
        """RTP packets whole, before encryption, without IP and UDP headers."""
        return self.header_bytes + self.payload_bytes + self.padding_bytes


@dataclass(frozen=True, eq=False)
class DelayBasedUpdates:
    """Changes of the delay-based estimate or of the detector's state; arrays of shape (n,)."""

    time_us: Ints
    bitrate_bps: Ints
    detector_state: Ints  # DETECTOR_…

    def __len__(self) -> int:
        return len(self.time_us)


@dataclass(frozen=True, eq=False)
class LossBasedUpdates:
    """Changes of the target (delay, loss and RTT together) or of the loss; arrays of shape (n,).

    The name is the log's; the rate is what send_side_bandwidth_estimation.cc arrives at.
    """

    time_us: Ints
    bitrate_bps: Ints
    fraction_lost_q8: Ints  # of the last receiver report, in 1/256
    packets: Ints  # that the report tells of

    def __len__(self) -> int:
        return len(self.time_us)


@dataclass(frozen=True)
class RtcpPacket:
    """An RTCP packet with its time."""

    time_us: int
    content: CompoundPacket


@dataclass(frozen=True)
class ProbeClusterCreated:
    """The controller has asked for a cluster of probe packets."""

    time_us: int
    id: int
    bitrate_bps: int
    min_packets: int
    min_bytes: int


@dataclass(frozen=True)
class ProbeResult:
    """What came of a cluster: a rate, or a reason why there is none."""

    time_us: int
    id: int
    bitrate_bps: int | None
    failure: str | None


@dataclass(frozen=True)
class AlrState:
    """The sender began or ceased to be application limited."""

    time_us: int
    in_alr: bool


@dataclass(frozen=True)
class RouteChange:
    """The transport came, went, or took another path."""

    time_us: int
    is_connected: bool
    overhead_bytes: int
    """per packet, that the client adds to RTP sizes"""


@dataclass(frozen=True, eq=False)
class RtcEventLog:
    """One log, each kind of event in order of time."""

    begin_us: int
    """when the log was opened, on its own clock"""
    begin_utc_us: int
    """the same moment since 1970"""
    outgoing: RtpPackets
    incoming: RtpPackets
    incoming_rtcp: tuple[RtcpPacket, ...]
    outgoing_rtcp: tuple[RtcpPacket, ...]
    delay_based: DelayBasedUpdates
    loss_based: LossBasedUpdates
    probe_clusters: tuple[ProbeClusterCreated, ...]
    probe_results: tuple[ProbeResult, ...]
    alr_states: tuple[AlrState, ...]
    route_changes: tuple[RouteChange, ...]
    writable_us: int | None
    """when DTLS was first ready for media; None if the log does not tell"""
    was_ended: bool
    """the client closed the log itself"""
    is_truncated: bool
    """the file breaks off within a message, or in its compressed form (``allow_truncated``)"""
    left_out_bytes: int
    """of the message that is cut off"""
    has_last_targets: bool
    """loss-based updates follow the last packets sent: clients write every few seconds, packets
    first, so that a log cut off between the two lacks the targets of its last packets"""


def unwrap(values: Ints, period: int = _SEQ_PERIOD) -> Ints:
    """Numbers counted on past each wrap-around, by the shortest way from one to the next.

    >>> unwrap(np.array([65534, 65535, 1, 0])).tolist()
    [65534, 65535, 65537, 65536]
    """
    steps = (np.diff(values) + period // 2) % period - period // 2
    return np.concatenate([values[:1], values[:1] + np.cumsum(steps)]) if len(values) else values


def _signed(column: Column) -> Ints:
    return column.values.view(np.int64)


def _num_deltas(message: Message, number: int) -> int:
    count = message.scalars.get(number, 0)
    if count > MAX_DELTAS:
        raise message.span.error(message.span.begin, f"a batch of {count} events; at most "
                                 f"{MAX_DELTAS} are believed.")  # fmt: skip
    return count


def _times_us(message: Message, num_deltas: int) -> Ints:
    base = message.required(_TIMESTAMP_MS, "timestamp_ms")
    return US_PER_MS * _signed(decode_deltas(message.blob(_TIMESTAMP_DELTAS), base, num_deltas))


def _batch(
    message: Message, count_field: int, fields: Sequence[tuple[str, int, int]]
) -> dict[str, Column]:
    """Every column of a batch, and its times as "time_us"."""
    num_deltas = _num_deltas(message, count_field)
    times_us = _times_us(message, num_deltas)
    columns = {"time_us": Column(times_us.view(np.uint64), np.ones(len(times_us), np.bool_))}
    for name, base, deltas in fields:
        blob = message.blob(deltas)
        columns[name] = decode_deltas(blob, message.scalars.get(base), num_deltas)
    return columns


def _table(
    messages: Sequence[Message], count_field: int, fields: Sequence[tuple[str, int, int]]
) -> tuple[dict[str, Ints], dict[str, NDArray[np.bool_]]]:
    """Columns of all batches one after another, and which of their values exist; by time."""
    batches = [_batch(message, count_field, fields) for message in messages]
    values, exists = {}, {}
    for name in ("time_us", *(name for name, _, _ in fields)):
        empty = Column(np.zeros(0, np.uint64), np.zeros(0, np.bool_))
        parts = [batch[name] for batch in batches] or [empty]
        values[name] = np.concatenate([_signed(part) for part in parts])
        exists[name] = np.concatenate([part.exists for part in parts])
    order = np.argsort(values["time_us"], kind="stable")
    return (
        {name: column[order] for name, column in values.items()},
        {name: column[order] for name, column in exists.items()},
    )


def _rtp_packets(messages: Sequence[Message]) -> RtpPackets:
    values, exists = _table(messages, _RTP_NUM_DELTAS, _RTP_COLUMNS)
    for name in ("ssrc", "payload_bytes", "header_bytes"):
        if not exists[name].all():
            raise messages[0].span.error(messages[0].span.begin, f"RTP packets without {name}.")
    has_seq = exists["transport_seq"]
    # Batches hold one stream each; within a millisecond only the numbers tell the order.
    unwrapped = values["transport_seq"]
    unwrapped[has_seq] = unwrap(unwrapped[has_seq])
    key = unwrapped.copy()
    known = np.flatnonzero(has_seq)
    if len(known):  # packets without a number stay behind what was sent before them
        key = np.maximum.accumulate(np.where(has_seq, unwrapped, unwrapped[known[0]] - 1))
        key[has_seq] = unwrapped[has_seq]
    order = np.argsort(key, kind="stable")
    marker = values.pop("marker").astype(np.bool_)
    columns: dict[str, Any] = {name: column[order] for name, column in values.items()}
    return RtpPackets(marker=marker[order], has_transport_seq=has_seq[order], **columns)


def _rtcp_packets(messages: Sequence[Message]) -> tuple[RtcpPacket, ...]:
    packets = []
    for message in messages:
        num_deltas = _num_deltas(message, _RTCP_NUM_DELTAS)
        first, others = message.blob(_RAW_PACKET), message.blob(_RAW_PACKET_BLOBS)
        if first is None or (num_deltas and others is None):
            raise message.span.error(message.span.begin, "an RTCP batch lacks its packets.")
        contents = [first, *decode_blobs(others, num_deltas)]
        for time_us, content in zip(_times_us(message, num_deltas), contents, strict=True):
            packets.append(RtcpPacket(int(time_us), parse_rtcp(content)))
    return tuple(sorted(packets, key=lambda packet: packet.time_us))


def _time_us(message: Message) -> int:
    return US_PER_MS * message.required(_TIMESTAMP_MS, "timestamp_ms")


def _probe_clusters(messages: Sequence[Message]) -> tuple[ProbeClusterCreated, ...]:
    names = ((2, "id"), (3, "bitrate_bps"), (4, "min_packets"), (5, "min_bytes"))
    return tuple(
        ProbeClusterCreated(
            _time_us(message), *(message.required(number, name) for number, name in names)
        )
        for message in messages
    )


def _probe_results(
    successes: Sequence[Message], failures: Sequence[Message]
) -> tuple[ProbeResult, ...]:
    results = [
        ProbeResult(
            _time_us(message),
            message.required(2, "id"),
            message.required(3, "bitrate_bps"),
            None,
        )
        for message in successes
    ]
    for message in failures:
        reason = message.scalars.get(3, 0)
        name = PROBE_FAILURES[reason] if reason < len(PROBE_FAILURES) else f"reason {reason}"
        results.append(ProbeResult(_time_us(message), message.required(2, "id"), None, name))
    return tuple(sorted(results, key=lambda result: result.time_us))


def _stream(span: Span, allow_truncated: bool) -> tuple[dict[int, list[Message]], int]:
    """Messages of the log by field of EventStream, and the bytes of one that is cut off."""
    messages: dict[int, list[Message]] = {}
    left_out_bytes = 0
    try:
        fields = read_fields(span)
    except TruncatedEventLogError:
        if not allow_truncated:
            raise
        whole = _whole_messages(span)
        fields, left_out_bytes = read_fields(whole), span.end - whole.end
    for offset, number, value in fields:
        if isinstance(value, int):
            raise span.error(offset, f"field {number} of the event stream is no message; this is "
                             "no RTC event log (v2).")  # fmt: skip
        if number in _KNOWN:
            messages.setdefault(number, []).append(read_message(value))
    return messages, left_out_bytes


def _last_begin(messages: dict[int, list[Message]], number: int) -> int:
    """Where the last message of a kind begins, -1 if there is none."""
    return max((message.span.begin for message in messages.get(number, ())), default=-1)


def _whole_messages(span: Span) -> Span:
    """The log up to the message that is cut off."""
    offset = span.begin
    while True:
        try:
            _, value_offset = read_varint(span, offset)
            length, content_offset = read_varint(span, value_offset)
        except TruncatedEventLogError:
            break
        if content_offset + length > span.end:
            break
        offset = content_offset + length
    return Span(span.data[:offset], 0, offset, span.source)


def parse_rtc_event_log(
    data: bytes, *, source: str = "event log", allow_truncated: bool = False
) -> RtcEventLog:
    """Decode a log.

    Args:
        source: what to call it in errors.
        allow_truncated: read a log that breaks off within a message up to there.

    Raises:
        EventLogFormatError: naming the byte at which the log stops making sense.
    """
    if not data:
        raise EventLogFormatError(f"{source}: byte 0: the log is empty.")
    span = Span(data, 0, len(data), source)
    messages, left_out_bytes = _stream(span, allow_truncated)
    begins = messages.get(_BEGIN_LOG, [])
    if not begins:
        raise span.error(0, "there is no BeginLogEvent; this is no RTC event log (v2). Logs from "
                         "before 2019 have another format.")  # fmt: skip
    delay_based, _ = _table(messages.get(_DELAY_BASED, []), _DELAY_NUM_DELTAS, _DELAY_COLUMNS)
    loss_based, _ = _table(messages.get(_LOSS_BASED, []), _LOSS_NUM_DELTAS, _LOSS_COLUMNS)
    return RtcEventLog(
        begin_us=_time_us(begins[0]),
        begin_utc_us=US_PER_MS * begins[0].required(_BEGIN_UTC_MS, "utc_time_ms"),
        outgoing=_rtp_packets(messages.get(_OUTGOING_RTP, [])),
        incoming=_rtp_packets(messages.get(_INCOMING_RTP, [])),
        incoming_rtcp=_rtcp_packets(messages.get(_INCOMING_RTCP, [])),
        outgoing_rtcp=_rtcp_packets(messages.get(_OUTGOING_RTCP, [])),
        delay_based=DelayBasedUpdates(**delay_based),
        loss_based=LossBasedUpdates(**loss_based),
        probe_clusters=_probe_clusters(messages.get(_PROBE_CLUSTER, [])),
        probe_results=_probe_results(
            messages.get(_PROBE_SUCCESS, []), messages.get(_PROBE_FAILURE, [])
        ),
        alr_states=tuple(
            AlrState(_time_us(message), bool(message.required(2, "in_alr")))
            for message in messages.get(_ALR_STATE, [])
        ),
        route_changes=tuple(
            RouteChange(
                _time_us(message),
                bool(message.required(2, "connected")),
                message.required(3, "overhead"),
            )
            for message in messages.get(_ROUTE_CHANGE, [])
        ),
        writable_us=min(
            (_time_us(m) for m in messages.get(_DTLS_WRITABLE, []) if m.scalars.get(2)),
            default=None,
        ),
        was_ended=_END_LOG in messages,
        is_truncated=left_out_bytes > 0,
        left_out_bytes=left_out_bytes,
        has_last_targets=_last_begin(messages, _LOSS_BASED) > _last_begin(messages, _OUTGOING_RTP),
    )


def read_rtc_event_log(path: Path | str, *, allow_truncated: bool = False) -> RtcEventLog:
    """Read a log from a file, gzipped or not; see `parse_rtc_event_log`."""
    path = Path(path)
    data = read_log_bytes(path, EventLogFormatError)
    if data.cut_at is not None and not allow_truncated:
        raise TruncatedEventLogError(
            f"{path}: byte {data.cut_at}: the compressed log is truncated. Copy it again, or read "
            "what is there with allow_truncated=True."
        )
    log = parse_rtc_event_log(data.content, source=str(path), allow_truncated=allow_truncated)
    return dataclasses.replace(log, is_truncated=True) if data.cut_at is not None else log

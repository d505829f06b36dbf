"""Protocol-buffer wire format, as much of it as an RTC event log uses, and no more.

A message is a row of (key, value); key = field number * 8 + wire type, a varint (protobuf.dev,
"Encoding"). Positions are kept, so that whatever is wrong is told with its byte offset.
"""

from __future__ import annotations

from dataclasses import dataclass

from bwe_env.errors import CallLogFormatError

#: Wire types; 3 and 4 (groups) have been out of use since proto2.
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
#: A varint carries seven bits per byte, low ones first; 64 bits need ten bytes.
MAX_VARINT_BYTES = 10
_MASK_64 = (1 << 64) - 1


class EventLogFormatError(CallLogFormatError):
    """An RTC event log that cannot be read: not one, damaged, or cut off."""


class TruncatedEventLogError(EventLogFormatError):
    """An RTC event log that ends within a message."""


@dataclass(frozen=True)
class Span:
    """A stretch of the log: bytes `begin` up to `end` of `data`."""

    data: bytes
    begin: int
    end: int
    source: str
    """what to call the log in errors, e.g. its path"""

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def content(self) -> bytes:
        """The bytes themselves."""
        return self.data[self.begin : self.end]

    def part(self, begin: int, length: int, what: str) -> Span:
        """The stretch of `length` bytes from the absolute position `begin`; it must be inside."""
        if begin + length > self.end:
            raise self.truncated(begin, f"{what} of {length} bytes has {self.end - begin} left")
        return Span(self.data, begin, begin + length, self.source)

    def error(self, offset: int, problem: str) -> EventLogFormatError:
        """An error that names log and byte."""
        return EventLogFormatError(f"{self.source}: byte {offset}: {problem}")

    def truncated(self, offset: int, problem: str) -> EventLogFormatError:
        """The same where something ends too early: the whole log, or what is inside of it."""
        if self.begin == 0 and self.end == len(self.data):
            return TruncatedEventLogError(
                f"{self.source}: byte {offset}: the log is truncated: {problem}. Copy it again, or "
                "read what is there with allow_truncated=True."
            )
        return self.error(offset, f"{problem}; the log is damaged.")


def read_varint(span: Span, offset: int) -> tuple[int, int]:
    """The unsigned 64-bit number at an absolute position, and the position after it."""
    value = 0
    for index in range(MAX_VARINT_BYTES):
        if offset + index >= span.end:
            raise span.truncated(offset, "a number has no end")
        byte = span.data[offset + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & _MASK_64, offset + index + 1
    raise span.error(offset, f"a number is longer than {MAX_VARINT_BYTES} bytes; is it damaged?")


@dataclass(frozen=True)
class Message:
    """One message: the last value of each scalar field, every value of each delimited one."""

    span: Span
    scalars: dict[int, int]
    """by field number, as unsigned 64-bit numbers"""
    delimited: dict[int, list[Span]]
    """by field number: strings, bytes and messages"""

    def required(self, number: int, name: str) -> int:
        """A scalar that has to be there."""
        if number not in self.scalars:
            raise self.span.error(self.span.begin, f"a message lacks its field {number} ({name}).")
        return self.scalars[number]

    def blob(self, number: int) -> Span | None:
        """The last value of a field of bytes, None if it is absent."""
        values = self.delimited.get(number)
        return values[-1] if values else None


def _read_field(span: Span, offset: int) -> tuple[int, int | Span, int]:
    """(field number, value, position after it) of the field at an absolute position."""
    key, value_offset = read_varint(span, offset)
    number, wire_type = key >> 3, key & 7
    if number == 0:
        raise span.error(offset, "field number 0 does not exist; this is no RTC event log (v2).")
    if wire_type == _VARINT:
        value, end = read_varint(span, value_offset)
        return number, value, end
    if wire_type == _LENGTH_DELIMITED:
        length, content_offset = read_varint(span, value_offset)
        content = span.part(content_offset, length, f"field {number}")
        return number, content, content.end
    if wire_type in (_FIXED32, _FIXED64):
        size = 4 if wire_type == _FIXED32 else 8
        content = span.part(value_offset, size, f"field {number}")
        return number, int.from_bytes(content.content, "little"), content.end
    raise span.error(offset, f"wire type {wire_type} of field {number} is unknown; damaged, or no "
                     "RTC event log (v2).")  # fmt: skip


def read_fields(span: Span) -> list[tuple[int, int, int | Span]]:
    """(absolute position, field number, value) of every field of a message, in order."""
    fields = []
    offset = span.begin
    while offset < span.end:
        number, value, end = _read_field(span, offset)
        fields.append((offset, number, value))
        offset = end
    return fields


def read_message(span: Span) -> Message:
    """All fields of a message, known or not."""
    message = Message(span, {}, {})
    for _, number, value in read_fields(span):
        if isinstance(value, int):
            message.scalars[number] = value
        else:
            message.delimited.setdefault(number, []).append(value)
    return message

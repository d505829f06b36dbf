"""A tiny writer of RTC event logs, for tests: protocol-buffer fields, differences, RTCP."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def scalar(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value % (1 << 64))


def fixed32(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + value.to_bytes(4, "little")


def delimited(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def pack(bits: str) -> bytes:
    """A string of 0, 1 and blanks as bytes, filled up with zeros at the end."""
    bits = bits.replace(" ", "")
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def deltas(differences: Sequence[int], width: int = 16) -> bytes:
    """Unsigned differences of 64-bit values."""
    return pack(f"00{width - 1:06b}" + "".join(f"{value:0{width}b}" for value in differences))


def begin(time_ms: int = 1000) -> bytes:
    content = scalar(1, time_ms) + scalar(2, 2) + scalar(3, 1_700_000_000_000)
    return delimited(16, content)


def outgoing(
    times_ms: Sequence[int], seqs: Sequence[int], *, payload_bytes: int = 1000, ssrc: int = 7
) -> bytes:
    """A batch of RTP packets; times and transport-wide numbers must not fall."""
    content = scalar(1, times_ms[0]) + scalar(2, 1) + scalar(3, 96) + scalar(4, 5)
    content += fixed32(5, 90_000) + fixed32(6, ssrc)
    content += scalar(8, payload_bytes) + scalar(9, 24) + scalar(10, 0) + scalar(15, seqs[0])
    if len(times_ms) > 1:
        steps = [b - a for a, b in itertools.pairwise(times_ms)]
        seq_steps = [b - a for a, b in itertools.pairwise(seqs)]
        content += scalar(11, len(steps)) + delimited(101, deltas(steps))
        content += delimited(115, deltas(seq_steps))
    return delimited(3, content)


def incoming_rtcp(time_ms: int, packet: bytes) -> bytes:
    return delimited(4, scalar(1, time_ms) + delimited(2, packet))


def outgoing_rtcp(time_ms: int, packet: bytes) -> bytes:
    return delimited(5, scalar(1, time_ms) + delimited(2, packet))


def rtcp(kind: int, count: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return bytes([0x80 | count, kind]) + (len(body) // 4).to_bytes(2, "big") + body


def feedback(first_seq: int, arrivals_ms: Sequence[int | None], reference_64ms: int = 10) -> bytes:
    """Transport-wide feedback with large deltas and two-bit vectors."""
    num = len(arrivals_ms)
    body = bytes(8) + first_seq.to_bytes(2, "big") + num.to_bytes(2, "big")
    body += reference_64ms.to_bytes(3, "big") + bytes([0])
    statuses = [0 if arrival is None else 2 for arrival in arrivals_ms]
    statuses += [0] * (-num % 7)
    for i in range(0, len(statuses), 7):
        body += pack("11" + "".join(f"{status:02b}" for status in statuses[i : i + 7]))
    last_ms = 64 * reference_64ms
    for arrival in arrivals_ms:
        if arrival is not None:
            body += (4 * (arrival - last_ms)).to_bytes(2, "big", signed=True)
            last_ms = arrival
    return rtcp(205, 15, body)


def report_block(ssrc: int, *, lost: int, highest_seq: int, lsr: int = 0, dlsr: int = 0) -> bytes:
    return (
        ssrc.to_bytes(4, "big")
        + bytes([0])
        + lost.to_bytes(3, "big", signed=True)
        + highest_seq.to_bytes(4, "big")
        + bytes(4)
        + lsr.to_bytes(4, "big")
        + dlsr.to_bytes(4, "big")
    )


def receiver_report(*blocks: bytes) -> bytes:
    return rtcp(201, len(blocks), bytes(4) + b"".join(blocks))


def sender_report(ntp: int) -> bytes:
    return rtcp(200, 0, bytes(4) + ntp.to_bytes(8, "big") + bytes(12))


def delay_update(time_ms: int, bitrate_bps: int, state: int) -> bytes:
    return delimited(19, scalar(1, time_ms) + scalar(2, bitrate_bps) + scalar(3, state))

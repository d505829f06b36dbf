"""Forward error correction: parity packets that replace lost video without a round trip.

The model is ULPFEC's with interleaved masks (RFC 5109): the k media packets of a block, in the
order in which they were sent, fall into m classes by turns, packet i into class i mod m, and each
of the m parity packets is the exclusive or of one class. So a class that lacks one packet gets it
back, one that lacks two does not: m parity packets recover up to m losses, any run of m among them.
A parity packet is as large as the largest packet of its block and its own header.

How much is sent follows libwebrtc modules/video_coding/media_opt_util.cc in outline: by loss (the
largest of ten seconds) and round-trip time, more for key frames, nothing for small frames whose
repeats come soon. Its table is not reproduced; ours is `bwe_env.config.FecConfig`.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.packet import FATE_DELIVERED, KIND_VIDEO

#: FEC header, level header with a mask of 48 packets (RFC 5109 sections 7.3, 7.4), RED (RFC 2198).
FEC_HEADER_BYTES = 10 + 8 + 1
#: A mask names so many packets (RFC 5109 section 7.4).
MAX_BLOCK_PACKETS = 48
#: Largest share of protection in all that is sent (media_opt_util.cc: 128 of 255; exactly 50 %
#: here).
MAX_PROTECTION = 0.5
#: Blocks that a parity packet may still arrive for: two seconds of one block a frame (ours).
BLOCK_RING = 64
#: Loss counts as its largest value in so many seconds (kLossPrHistorySize, media_opt_util.h).
LOSS_HISTORY_S = 10
#: A block lasts two round trips of frames, at most 6 (media_opt_util.cc, ComputeMaxFramesFec).
MAX_BLOCK_FRAMES = 6
#: Up to this round-trip time, smaller frames than these are not protected: by picture size up to
#: 352 x 288, up to 640 x 480, larger (media_opt_util.cc, BitRateTooLowForFec).
SMALL_FRAME_RTT_US = 200_000
SMALL_FRAME_BYTES = (400, 700, 1000)
_SMALL_PIXELS = 352 * 288
_MEDIUM_PIXELS = 640 * 480

MAX_LOSS_KNOTS = 8
MAX_RTT_KNOTS = 4

BLOCK = record(
    [
        ("number", "i8"),  # -1 for none
        ("first_seq", "i8"),  # of its media packets; others may lie between them
        ("last_seq", "i8"),
        ("num_parity", "i8"),
        ("arrived", "i8"),  # bit j: parity packet j is at the receiver
    ]
)

FEC = record(
    [
        # Configuration
        ("enabled", "i8"),
        ("min_protection", "f8"),
        ("key_factor", "f8"),
        ("num_loss_knots", "i8"),
        ("num_rtt_knots", "i8"),
        ("loss_knots", "f8", (MAX_LOSS_KNOTS,)),
        ("rtt_knots_us", "f8", (MAX_RTT_KNOTS,)),
        ("protection", "f8", (MAX_RTT_KNOTS * MAX_LOSS_KNOTS,)),  # rows by RTT, without gaps
        # State
        ("losses", "f8", (LOSS_HISTORY_S,)),  # largest loss ratio of each second, a ring
        ("second", "i8"),  # of the newest
        ("first_seq", "i8"),  # of the block that is being sent
        ("last_seq", "i8"),
        ("num_media", "i8"),
        ("num_frames", "i8"),
        ("media_bytes", "i8"),  # its largest packet, on the wire
        ("has_key", "i8"),
        ("next_block", "i8"),  # number of the next block that gets parity
        ("blocks", BLOCK, (BLOCK_RING,)),
    ]
)


@kernel
def fec_reset(fec: Record) -> None:
    """No loss, no block."""
    fec.second = 0
    for index in range(LOSS_HISTORY_S):
        fec.losses[index] = 0.0
    fec.next_block = 0
    for index in range(BLOCK_RING):
        fec.blocks[index].number = -1
    fec_begin_block(fec)


@kernel
def fec_begin_block(fec: Record) -> None:
    """The next media packet is the first of a block."""
    fec.first_seq = -1
    fec.last_seq = -1
    fec.num_media = 0
    fec.num_frames = 0
    fec.media_bytes = 0
    fec.has_key = 0


@kernel
def fec_on_loss(fec: Record, lost: int, received: int, now_us: int) -> None:
    """A receiver report tells of so many packets."""
    second = now_us // 1_000_000
    for passed in range(max(fec.second + 1, second - LOSS_HISTORY_S + 1), second + 1):
        fec.losses[passed % LOSS_HISTORY_S] = 0.0
    fec.second = second
    if lost + received > 0:
        index = second % LOSS_HISTORY_S
        fec.losses[index] = max(fec.losses[index], lost / (lost + received))


@kernel
def fec_loss(fec: Record) -> float:
    """The loss to protect against."""
    loss = 0.0
    for index in range(LOSS_HISTORY_S):
        loss = max(loss, fec.losses[index])
    return loss


@kernel
def fec_table(fec: Record, loss: float, rtt_us: int) -> float:
    """Protection as a share of all that is sent: linear in the loss, in steps of the RTT."""
    row = 0
    while row + 1 < fec.num_rtt_knots and rtt_us >= fec.rtt_knots_us[row + 1]:
        row += 1
    first = row * fec.num_loss_knots
    last = fec.num_loss_knots - 1
    if loss >= fec.loss_knots[last]:
        return fec.protection[first + last]
    index = 0
    while loss >= fec.loss_knots[index + 1]:
        index += 1
    span = fec.loss_knots[index + 1] - fec.loss_knots[index]
    share = (loss - fec.loss_knots[index]) / span
    low = fec.protection[first + index]
    return low + share * (fec.protection[first + index + 1] - low)


@kernel
def fec_protection(
    fec: Record, rtt_us: int, packets_per_frame: float, frame_bytes: float, pixels: int
) -> float:
    """Share of parity in what is sent for the present block."""
    loss = fec_loss(fec)
    if loss <= 0.0:
        return 0.0
    size = 0
    if pixels > _SMALL_PIXELS:
        size = 1
    if pixels > _MEDIUM_PIXELS:
        size = 2
    if frame_bytes < SMALL_FRAME_BYTES[size] and rtt_us < SMALL_FRAME_RTT_US:
        return 0.0
    protection = fec_table(fec, loss, rtt_us)
    if protection > 0.0 and packets_per_frame > 1.0:
        protection = max(protection, fec.min_protection)
    if fec.has_key == 1:
        protection = max(fec.key_factor * protection, loss)
    return min(MAX_PROTECTION, protection)


@kernel
def fec_on_media(fec: Record, seq: int, size_bytes: int, is_key: int) -> None:
    """A media packet was sent; it belongs to the present block."""
    if fec.num_media == 0:
        fec.first_seq = seq
    fec.last_seq = seq
    fec.num_media += 1
    fec.media_bytes = max(fec.media_bytes, size_bytes)
    if is_key == 1:
        fec.has_key = 1


@kernel
def fec_block_is_full(fec: Record, rtt_us: int, frame_rate_hz: float) -> bool:
    """Whether the block ends with the frame that has just ended."""
    frames = int(2.0 * frame_rate_hz * rtt_us * 1e-6 + 0.5)
    return bool(fec.num_frames >= min(MAX_BLOCK_FRAMES, max(1, frames)))


@kernel
def fec_end_block(fec: Record, protection: float) -> int:
    """Close the present block and begin the next.

    Args:
        protection: share of parity in all that is sent, at most a half.

    Returns:
        Parity packets to be sent for it, block number `next_block` - 1.
    """
    num_parity = 0
    if protection > 0.0 and fec.num_media > 0:
        # From a share of the total to one of the media.
        num_parity = int(fec.num_media * protection / (1.0 - protection) + 0.5)
        num_parity = min(fec.num_media, max(1, num_parity))
        block = fec.blocks[fec.next_block % BLOCK_RING]
        block.number = fec.next_block
        block.first_seq = fec.first_seq
        block.last_seq = fec.last_seq
        block.num_parity = num_parity
        block.arrived = 0
        fec.next_block += 1
    fec_begin_block(fec)
    return num_parity


@kernel
def fec_on_parity(fec: Record, number: int, parity: int) -> bool:
    """Parity packet `parity` of a block is at the receiver; False if the block is forgotten."""
    block = fec.blocks[number % BLOCK_RING]
    if block.number != number:
        return False
    block.arrived |= 1 << parity
    return True


@kernel
def fec_recoverable(
    fec: Record, packets: np.ndarray, number: int, parity: int, oldest_seq: int
) -> int:
    """The one packet that a class lacks.

    Args:
        oldest_seq: the first packet that the ring still holds.

    Returns:
        Its sequence number; -1 if the class is whole, lacks more, or lacks its parity.
    """
    block = fec.blocks[number % BLOCK_RING]
    if block.number != number or (block.arrived >> parity) & 1 == 0:
        return -1
    if block.first_seq < oldest_seq:
        return -1
    mask = len(packets) - 1
    lacking = -1
    position = 0
    for seq in range(block.first_seq, block.last_seq + 1):
        packet = packets[seq & mask]
        if packet.kind != KIND_VIDEO:
            continue
        is_lacking = packet.fate != FATE_DELIVERED and packet.is_repaired == 0
        if is_lacking and position % block.num_parity == parity:
            if lacking >= 0:
                return -1
            lacking = seq
        position += 1
    return lacking


@kernel
def fec_class_of(fec: Record, packets: np.ndarray, seq: int) -> tuple[int, int]:
    """Block and class of a media packet, (-1, -1) if no parity stands for it at the receiver."""
    mask = len(packets) - 1
    for number in range(fec.next_block - 1, max(-1, fec.next_block - 1 - BLOCK_RING), -1):
        block = fec.blocks[number % BLOCK_RING]
        if block.last_seq < seq:
            return -1, -1
        if block.first_seq <= seq:
            if block.arrived == 0:
                return -1, -1
            position = 0
            for before in range(block.first_seq, seq):
                if packets[before & mask].kind == KIND_VIDEO:
                    position += 1
            return number, position % block.num_parity
    return -1, -1

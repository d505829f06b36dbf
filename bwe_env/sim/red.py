"""Redundant audio (RED, RFC 2198): a packet repeats the frames before its own.

Follows libwebrtc modules/audio_coding/codecs/red/audio_encoder_copy_red.cc: as many of the wanted
frames as fit go along, the newest first, each behind a header of its own; a frame that is too long
for RED's block length leaves as a plain packet. What the receiver makes of copies is in
`bwe_env.sim.audio`.

Where we leave libwebrtc: how many frames are wanted may change during a call, and the frames before
the change can be repeated, too.
"""

from __future__ import annotations

from bwe_env.sim._jit import kernel

#: In front of each repeated frame: payload type, timestamp offset, length (kRedHeaderLength).
BLOCK_HEADER_BYTES = 4
#: In front of the packet's own frame: its payload type (kRedLastHeaderLength).
OWN_HEADER_BYTES = 1
#: Blocks are shorter, to fit a length of 10 bits (kRedMaxPacketSize).
MAX_BLOCK_BYTES = 1 << 10
#: Headers, the packet's own frame and all copies; its own RED header is not counted
#: (kAudioMaxRtpPacketLen).
MAX_PACKET_BYTES = 1200


@kernel
def red_copies(wanted: int, frame_bytes: int, header_bytes: int) -> int:
    """How many of the `wanted` frames before its own a packet has room for.

    Args:
        frame_bytes: of every frame.
        header_bytes: of IP, UDP and RTP.
    """
    if frame_bytes >= MAX_BLOCK_BYTES:
        return 0
    room_bytes = MAX_PACKET_BYTES - header_bytes - frame_bytes
    return max(0, min(wanted, room_bytes // (BLOCK_HEADER_BYTES + frame_bytes)))


@kernel
def red_payload_bytes(wanted: int, copies: int, frame_bytes: int) -> int:
    """A packet's payload with `copies` frames beside its own; without RED if none are `wanted`."""
    if wanted == 0 or frame_bytes >= MAX_BLOCK_BYTES:
        return frame_bytes
    return OWN_HEADER_BYTES + frame_bytes + copies * (BLOCK_HEADER_BYTES + frame_bytes)

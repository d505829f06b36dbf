"""The client of the recorded Chromium calls, as far as its controller and packets go."""

from __future__ import annotations

from bwe_env.gcc import GccParameters

#: IPv4 and UDP headers: what the recorded client adds to an RTP packet's size. The ten bytes of
#: SRTP's authentication tag, which the link carried too, it leaves out: with 28 bytes, not with 0
#: or 38, most of its logged probe results come out exactly.
OVERHEAD_BYTES = 28
#: That tag (AES_CM_128_HMAC_SHA1_80, RFC 3711 section 4.2).
UNCOUNTED_BYTES = 10
#: RTP header and extensions of most video packets in the recorded event logs; audio has 4 more.
RTP_HEADER_BYTES = 24
#: Library defaults, no maximum rate, a camera of at most 5 Mbps (maxBitrate of its encoding).
MIN_RATE_BPS, START_RATE_BPS, MAX_MEDIA_BPS = 30_000, 300_000, 5_000_000
#: What its streams ask for at least, the floor of every estimate: video 30 kbps, Opus 32 kbps, and
#: 50 audio packets a second with 28 bytes of RTP header and 28 of IP and UDP. Estimates of
#: c_loss20_2M and e_alt500_100_r2 lie on it.
MIN_ALLOCATED_BPS = 30_000 + 32_000 + 50 * 8 * (28 + 28)

GCC_PARAMETERS = GccParameters(
    min_total_allocated_bps=MIN_ALLOCATED_BPS,
    max_total_allocated_bps=MAX_MEDIA_BPS,
    knows_max_rate=False,
)

"""Configuration of a simulated call: frozen dataclasses, checked when they are made.

The same object is the `gym.make` keyword, the `--help` page, and the record in a run directory.
`from_mapping` turns the JSON form back into the dataclass and names every wrong key.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from bwe_env.errors import ConfigError, unknown_name

#: Largest RTP packet handed to IP, header included. libwebrtc `kVideoMtu`, video/config/.
MTU_BYTES = 1200

#: Frames of the past in an audio packet. Chrome's RED repeats one; two treble the payload (ours).
MAX_AUDIO_REDUNDANCY = 2

#: Steps of one direction's propagation delay in a call (ours).
MAX_DELAY_STEPS = 16

#: Packets after which a replayed loss begins again: most of a call at 2 Mbps. Each path of a call
#: keeps them as bits, 2 KiB (ours).
MAX_REPLAY_PACKETS = 1 << 14

#: Sources of cross traffic, and competing calls, of one network (ours).
MAX_SOURCES = 16
MAX_COMPETING_CALLS = 15

T = TypeVar("T")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    _require(
        isinstance(value, (int, float)) and math.isfinite(value) and low <= value <= high,
        f"{name}={value!r} must be a finite number between {low:g} and {high:g} {unit}.",
    )


def _require_list(name: str, value: Any) -> tuple[Any, ...]:
    """`value` as a tuple; text and single numbers are no lists."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}={value!r} must be a list.")
    return tuple(value)


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def from_mapping(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build the dataclass `cls` from plain JSON values, nested ones included.

    Raises:
        UnknownNameError: a key is not a field of `cls`; the known fields are listed.
        ConfigError: a value is out of range (raised by the dataclass itself).
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise unknown_name(f"option of {cls.__name__}", key, known)
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            value = from_mapping(typing.cast(type[Any], hint), value)
        arguments[key] = value
    return cls(**arguments)


@dataclass(frozen=True, kw_only=True)
class FecConfig:
    """Parity packets for video (`bwe_env.sim.fec`); off, as in Chrome's default.

    Protection is the share of parity in all that is sent, by the loss that receiver reports told of
    (the largest of ten seconds) and by the round-trip time. libwebrtc reads it from a table that is
    not reproduced here; what is known of it bounds ours: none below 20 ms, at least a fifth where
    frames have several packets, at most a half. In between, twice the loss (ours).
    """

    enabled: bool = False
    rtt_knots_s: tuple[float, ...] = (0.0, 0.02)
    """rows of `protection`: each holds from this round-trip time on; the first is 0"""
    loss_knots: tuple[float, ...] = (0.0, 0.25)
    """columns of `protection`, linear in between; the first is 0"""
    protection: tuple[float, ...] = (0.0, 0.0, 0.0, 0.5)
    """share of all that is sent, row after row"""
    min_protection: float = 0.2
    """where there is any, and more than one packet per frame (libwebrtc: 51 of 255)"""
    key_factor: float = 2.0
    """how much more a block with a key frame gets; at least the loss"""

    def __post_init__(self) -> None:
        _require(
            isinstance(self.enabled, bool), f"fec.enabled={self.enabled!r} must be True or False."
        )
        for name in ("rtt_knots_s", "loss_knots", "protection"):
            object.__setattr__(self, name, _require_list(f"fec.{name}", getattr(self, name)))
        for name, most in (("rtt_knots_s", 4), ("loss_knots", 8)):
            knots = getattr(self, name)
            _require(
                1 <= len(knots) <= most
                and _are_numbers(knots)
                and knots[0] == 0.0
                and all(low < high for low, high in itertools.pairwise(knots)),
                f"fec.{name}={knots!r} must be 1 to {most} rising numbers, the first of them 0.",
            )
        cells = len(self.rtt_knots_s) * len(self.loss_knots)
        _require(
            len(self.protection) == cells
            and _are_numbers(self.protection)
            and all(0.0 <= share <= 0.5 for share in self.protection),
            f"fec.protection={self.protection!r} must be {cells} shares of at most 0.5, one for "
            "each pair of rtt_knots_s and loss_knots.",
        )
        _require_range("fec.min_protection", self.min_protection, 0.0, 0.5, "")
        _require_range("fec.key_factor", self.key_factor, 1.0, 10.0, "")


@dataclass(frozen=True, kw_only=True)
class RtxConfig:
    """Which of the packets that are asked for are sent again (`bwe_env.sim.retransmit`).

    The defaults are libwebrtc's rules. To repeat nothing at all, set `VideoConfig.repair` to False.
    """

    rate_share: float = 1.0
    """all repeats together take at most this share of the target rate, over half a second"""
    max_age_s: float = 0.0
    """packets that were first sent longer ago are not repeated; 0 for all that libwebrtc's history
    still holds: at least those of one second and of three round trips. The receiver is not told: it
    waits for what it asks for in vain until it wants a key frame, after 3 s"""

    def __post_init__(self) -> None:
        _require_range("rtx.rate_share", self.rate_share, 0.01, 1.0, "")
        if self.max_age_s != 0.0:
            _require_range("rtx.max_age_s", self.max_age_s, 0.001, 60.0, "s, or 0")


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """The camera, the encoder and its rate control (wording of RFC 8593)."""

    enabled: bool = True
    """False mutes the video: audio and consent checks only"""
    frame_rate_hz: float = 30.0
    """frames captured per second"""
    min_rate_bps: int = 30_000
    """the encoder never aims lower (libwebrtc kDefaultMinVideoBitrateBps)"""
    app_max_rate_bps: int = 0
    """application limit on the media rate (screen share, muted camera); 0 for none"""
    app_limit_until_s: float = 0.0
    """when the application lifts that limit; 0 for never"""
    pause_from_s: float = 0.0
    """when the call's own camera stands still (competing calls go on): nothing is coded"""
    pause_until_s: float = 0.0
    """when it goes on; not after `pause_from_s` for no pause. A receiver sees a freeze"""
    rate_share: float = 1.0
    """share of what the controller leaves for video that the encoder is asked for: below 1, the
    sender keeps something back for what it cannot foresee"""
    encoder_lag_s: float = 0.2
    """time constant with which frame sizes follow a new target (tau_v, RFC 8593 section 6)"""
    frame_size_sd: float = 0.15
    """sd of the logarithm of a frame's size over its nominal size (SCALE_B, RFC 8593 section 6)"""
    frame_size_correlation: float = 0.5
    """AR(1) coefficient of that deviation from frame to frame: content changes slowly"""
    picture_size: Literal["smooth", "ladder"] = "smooth"
    """follows the rate as a mean over contents does, or steps with the quantiser as one encoder
    does, with hysteresis (`bwe_env.quality.resolution_pixels` says why the mean is the default)"""
    skip_frames: bool = True
    """frames are skipped where the rate is too low for all, even at the coarsest quantiser"""
    key_frame_ratio: float = 4.0
    """size of a key frame over that of a nominal frame"""
    scene_change_interval_s: float = 0.0
    """mean time between scene changes, each a key frame; 0 for never (a talking head)"""
    repair: bool = True
    """lost packets are asked for (NACK) and sent again (RTX)"""
    rtx: RtxConfig = field(default_factory=RtxConfig)
    fec: FecConfig = field(default_factory=FecConfig)
    jitter_buffer: bool = True
    """frames are shown when the receiver's jitter buffer lets them go; False shows each as soon as
    it can be decoded"""

    def __post_init__(self) -> None:
        _require_range("frame_rate_hz", self.frame_rate_hz, 1, 120, "Hz")
        _require_range("min_rate_bps", self.min_rate_bps, 1_000, 1e9, "bps")
        _require_range("app_max_rate_bps", self.app_max_rate_bps, 0, 1e9, "bps")
        _require_range("rate_share", self.rate_share, 0.1, 1.0, "")
        _require_range("app_limit_until_s", self.app_limit_until_s, 0, 86_400, "s")
        _require(
            self.app_limit_until_s == 0.0 or self.app_max_rate_bps > 0,
            f"app_limit_until_s={self.app_limit_until_s} lifts a limit that "
            "app_max_rate_bps=0 does not set.",
        )
        _require_range("pause_from_s", self.pause_from_s, 0, 86_400, "s")
        _require_range("pause_until_s", self.pause_until_s, 0, 86_400, "s")
        _require_range("encoder_lag_s", self.encoder_lag_s, 0, 10, "s")
        _require_range("frame_size_sd", self.frame_size_sd, 0, 2, "")
        _require_range("frame_size_correlation", self.frame_size_correlation, 0, 0.999, "")
        if self.picture_size not in ("smooth", "ladder"):
            raise unknown_name("video.picture_size", self.picture_size, ("smooth", "ladder"))
        _require_range("key_frame_ratio", self.key_frame_ratio, 1, 100, "")
        _require_range("scene_change_interval_s", self.scene_change_interval_s, 0, 1e6, "s")


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """An Opus-like constant-rate stream; never paced, as in libwebrtc."""

    enabled: bool = True
    rate_bps: int = 32_000
    """payload rate (Opus default in Chromium)"""
    packet_interval_s: float = 0.02
    """one packet per Opus frame of 20 ms"""
    redundancy: int = 0
    """frames of the past that each packet repeats (RED, RFC 2198), as far as it has room for them;
    0 for plain packets, 1 in Chrome's RED for Opus. What they take, video does not get"""

    def __post_init__(self) -> None:
        _require_range("audio.rate_bps", self.rate_bps, 6_000, 510_000, "bps (RFC 6716)")
        _require_range("audio.packet_interval_s", self.packet_interval_s, 0.01, 0.12, "s")
        _require(
            isinstance(self.redundancy, int) and 0 <= self.redundancy <= MAX_AUDIO_REDUNDANCY,
            f"audio.redundancy={self.redundancy!r} must be a whole number of frames from 0 to "
            f"{MAX_AUDIO_REDUNDANCY}.",
        )


@dataclass(frozen=True, kw_only=True)
class PacketConfig:
    """How a frame becomes packets, and what each costs on the wire."""

    overhead_bytes: int = 28
    """IPv4 + UDP headers per packet; the bottleneck serves them and the controller counts them"""
    uncounted_bytes: int = 0
    """served by the bottleneck on top, and unknown to the controller: an SRTP tag (10 bytes, RFC
    3711 section 4.2), headers of the layers below IP"""
    rtp_header_bytes: int = 12
    """RFC 3550 fixed header; taken out of the MTU"""
    mtu_bytes: int = MTU_BYTES
    """largest RTP packet handed to IP, header included"""
    burst_interval_s: float = 0.04
    """what the pacer may send ahead of its rate (libwebrtc M150 kDefaultBurstInterval)"""
    padding_bytes: int = 224
    """zeros in a padding packet (kMaxPaddingLength, modules/rtp_rtcp/source/rtp_sender.h)"""
    queue_time_limit_s: float = 2.0
    """the pacer speeds up so that nothing waits longer (libwebrtc kMaxExpectedQueueLength)"""

    def __post_init__(self) -> None:
        _require_range("overhead_bytes", self.overhead_bytes, 0, 200, "bytes")
        _require_range("uncounted_bytes", self.uncounted_bytes, 0, 200, "bytes")
        _require_range("rtp_header_bytes", self.rtp_header_bytes, 0, 200, "bytes")
        # Ethernet's 1500 bytes less IPv6 and UDP headers; and twice the largest RTP header.
        _require_range("mtu_bytes", self.mtu_bytes, 400, 1452, "bytes")
        _require_range("burst_interval_s", self.burst_interval_s, 0.001, 1.0, "s")
        _require_range("padding_bytes", self.padding_bytes, 1, 255, "bytes (RFC 3550)")
        _require_range("queue_time_limit_s", self.queue_time_limit_s, 0.1, 60.0, "s")


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig:
    """Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01)."""

    interval_s: float = 0.0
    """fixed time between reports; 0 adapts it, 50 to 250 ms, to the rate as libwebrtc does"""
    rtcp_interval_s: float = 1.0
    """time between RTCP receiver reports (RTT and loss of the classic path)"""
    rtt_packet: Literal["arrived", "sent"] = "arrived"
    """whose forward delay enters the RTT of a receiver report: the newest packet that has arrived,
    or the newest sent, which may not be known yet, plus the bare propagation delay back (the model
    of the recorded closed loops)"""
    clock_skew_ppm: float = 0.0
    """how much faster the receiver's clock runs, in parts per million"""

    def __post_init__(self) -> None:
        _require_range("feedback.interval_s", self.interval_s, 0.0, 1.0, "s")
        _require_range("feedback.rtcp_interval_s", self.rtcp_interval_s, 0.1, 10.0, "s")
        if self.rtt_packet not in ("arrived", "sent"):
            raise unknown_name("feedback.rtt_packet", self.rtt_packet, ("arrived", "sent"))
        _require_range("feedback.clock_skew_ppm", self.clock_skew_ppm, -1_000, 1_000, "ppm")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Packet loss that is not the bottleneck's queue: i.i.d., Gilbert-Elliott, or replayed.

    The chain steps once per packet; it has left the bad state after ``1 / bad_to_good`` packets on
    average. With ``good_to_bad = 0`` only `good_loss` acts, which is i.i.d. loss.
    """

    good_loss: float = 0.0
    """probability of loss in the good state"""
    bad_loss: float = 1.0
    """probability of loss in the bad state"""
    good_to_bad: float = 0.0
    """probability per packet of entering the bad state"""
    bad_to_good: float = 1.0
    """probability per packet of leaving it"""
    from_s: float = 0.0
    """time of the call from which on packets are lost"""
    until_s: float = 0.0
    """time of the call at which that ends; 0 for never"""
    replay: tuple[bool, ...] = ()
    """whether each packet is lost, one after the other and then from the start again, instead of
    the chain; true or 1 is lost (`bwe_env.trace.read_losses` reads them from a file). All that the
    path is offered counts: consent checks, and what comes before `from_s` or after `until_s`"""

    def __post_init__(self) -> None:
        for name in ("good_loss", "bad_loss", "good_to_bad", "bad_to_good"):
            _require_range(f"loss.{name}", getattr(self, name), 0.0, 1.0, "(a probability)")
        for name in ("from_s", "until_s"):
            _require_range(f"loss.{name}", getattr(self, name), 0.0, 86_400.0, "s")
        _require(
            self.until_s == 0.0 or self.until_s > self.from_s,
            f"loss.until_s={self.until_s} must be after loss.from_s={self.from_s}, or 0 for never.",
        )
        _require(
            self.good_to_bad == 0.0 or self.bad_to_good > 0.0,
            "loss.bad_to_good=0 with good_to_bad > 0 never recovers; give a probability above 0.",
        )
        self._check_replay()

    def _check_replay(self) -> None:
        if isinstance(self.replay, str | bytes | Mapping) or not isinstance(self.replay, Iterable):
            raise ConfigError(
                f"loss.replay={self.replay!r} must be a sequence of 0 (arrives) and 1 (lost)."
            )
        replay = tuple(self.replay)
        _require(
            len(replay) <= MAX_REPLAY_PACKETS,
            f"loss.replay has {len(replay)} packets; at most {MAX_REPLAY_PACKETS}: cut it.",
        )
        for packet, is_lost in enumerate(replay):
            # An array's own numbers compare equal to these, too; text and None do not.
            _require(
                np.ndim(is_lost) == 0 and is_lost in (0, 1),
                f"loss.replay: packet {packet} is {is_lost!r}; each must be 0 (arrives) or 1 "
                "(lost).",
            )
        _require(
            not replay or (self.good_loss == 0.0 and self.good_to_bad == 0.0),
            f"loss.replay and a chain (good_loss={self.good_loss}, good_to_bad={self.good_to_bad}) "
            "are two models of one loss; leave one of them out.",
        )
        object.__setattr__(self, "replay", tuple(bool(is_lost) for is_lost in replay))

    @property
    def mean_loss_ratio(self) -> float:
        """Long-run share of packets lost, while any are."""
        if self.replay:
            return sum(self.replay) / len(self.replay)
        if self.good_to_bad == 0.0:
            return self.good_loss
        bad = self.good_to_bad / (self.good_to_bad + self.bad_to_good)
        return bad * self.bad_loss + (1.0 - bad) * self.good_loss


@dataclass(frozen=True, kw_only=True)
class JitterConfig:
    """Random extra delay per packet; `PathConfig.keeps_order` says whether they may overtake."""

    distribution: Literal["none", "uniform", "normal"] = "none"
    """uniform on [0, 2 * scale]; normal with sd = scale, clipped at 0 from below"""
    mean_s: float = 0.0
    """mean of the normal before it is clipped"""
    scale_s: float = 0.0
    """mean of the uniform, sd of the normal"""
    correlation: float = 0.0
    """AR(1) coefficient of the normal from packet to packet"""

    def __post_init__(self) -> None:
        if self.distribution not in ("none", "uniform", "normal"):
            raise unknown_name(
                "jitter distribution", self.distribution, ("none", "uniform", "normal")
            )
        _require_range("jitter.mean_s", self.mean_s, 0.0, 10.0, "s")
        _require(
            self.mean_s == 0.0 or self.distribution == "normal",
            f"jitter.mean_s={self.mean_s} is for distribution='normal', not {self.distribution!r}.",
        )
        _require_range("jitter.scale_s", self.scale_s, 0.0, 10.0, "s")
        _require_range("jitter.correlation", self.correlation, 0.0, 0.9999, "")


#: Longest outage that may keep what it meets: its messages wait in a ring (ours).
MAX_KEPT_OUTAGE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class OutageConfig:
    """A time in which one direction lets nothing through."""

    from_s: float = 0.0
    """time of the call at which it begins"""
    until_s: float = 0.0
    """time at which it ends; not after `from_s` for no outage"""
    keeps: bool = False
    """whether what enters meanwhile goes on at its end instead of being lost; on the reverse path
    that holds for transport feedback only"""

    def __post_init__(self) -> None:
        _require_range("outage.from_s", self.from_s, 0.0, 86_400.0, "s")
        _require_range("outage.until_s", self.until_s, 0.0, 86_400.0, "s")
        _require(
            not self.keeps or self.until_s - self.from_s <= MAX_KEPT_OUTAGE_S,
            f"an outage of {self.until_s - self.from_s:g} s that keeps what it meets is too long; "
            f"at most {MAX_KEPT_OUTAGE_S:g} s, or keeps=False.",
        )


@dataclass(frozen=True, kw_only=True)
class PathConfig:
    """Propagation, jitter and random loss of one direction."""

    propagation_delay_s: float = 0.025
    """one way, without queueing"""
    jitter: JitterConfig = field(default_factory=JitterConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    outage: OutageConfig = field(default_factory=OutageConfig)
    delay_steps: tuple[tuple[float, float], ...] = ()
    """hand-overs: pairs of the time of the call, in seconds, and what is added to the propagation
    delay from then on"""
    keeps_order: bool = True
    """whether a packet waits for the one before it; False lets jitter and hand-overs reorder them.
    Only the last hop to the receiver may: the relay's where there is one"""

    def __post_init__(self) -> None:
        _require_range("propagation_delay_s", self.propagation_delay_s, 0.0, 10.0, "s")
        _require(
            isinstance(self.keeps_order, bool),
            f"keeps_order={self.keeps_order!r} must be True or False.",
        )
        _require_list("delay_steps", self.delay_steps)
        _require(
            all(isinstance(step, Sequence) and len(step) == 2 for step in self.delay_steps)
            and len(self.delay_steps) <= MAX_DELAY_STEPS,
            f"delay_steps={self.delay_steps!r} must be at most {MAX_DELAY_STEPS} pairs of a time "
            "and an added delay, both in seconds.",
        )
        for from_s, added_s in self.delay_steps:
            _require_range("delay_steps: a time", from_s, 0.0, 86_400.0, "s")
            _require_range("delay_steps: an added delay", added_s, 0.0, 10.0, "s")
        times_s = [from_s for from_s, _ in self.delay_steps]
        _require(
            all(earlier < later for earlier, later in itertools.pairwise(times_s)),
            f"delay_steps={self.delay_steps!r} must have increasing times.",
        )
        steps = tuple((from_s, added_s) for from_s, added_s in self.delay_steps)
        object.__setattr__(self, "delay_steps", steps)  # JSON has lists


@dataclass(frozen=True, kw_only=True)
class CodelConfig:
    """Controlled Delay, RFC 8289."""

    target_s: float = 0.005
    """standing queue delay that is acceptable (TARGET)"""
    interval_s: float = 0.1
    """how long the delay must stay above it before the first drop: a usual worst RTT (INTERVAL)"""

    def __post_init__(self) -> None:
        _require_range("codel.target_s", self.target_s, 1e-4, 1.0, "s")
        _require_range("codel.interval_s", self.interval_s, 1e-3, 10.0, "s")
        _require(
            self.target_s < self.interval_s,
            f"codel.target_s={self.target_s} must be below codel.interval_s={self.interval_s}.",
        )


@dataclass(frozen=True, kw_only=True)
class PieConfig:
    """Proportional Integral controller Enhanced, RFC 8033."""

    reference_s: float = 0.015
    """queue delay that it steers for (QDELAY_REF)"""
    update_interval_s: float = 0.015
    """time between changes of the drop probability (T_UPDATE)"""
    max_burst_s: float = 0.15
    """how long a queue may build up out of nothing before anything is dropped (MAX_BURST)"""
    alpha_per_s: float = 0.125
    """weight of the distance to the reference"""
    beta_per_s: float = 1.25
    """weight of the change since the last update"""

    def __post_init__(self) -> None:
        _require_range("pie.reference_s", self.reference_s, 1e-4, 1.0, "s")
        _require_range("pie.update_interval_s", self.update_interval_s, 1e-3, 1.0, "s")
        _require_range("pie.max_burst_s", self.max_burst_s, 0.0, 10.0, "s")
        _require_range("pie.alpha_per_s", self.alpha_per_s, 0.0, 10.0, "per second")
        _require_range("pie.beta_per_s", self.beta_per_s, 0.0, 100.0, "per second")


@dataclass(frozen=True, kw_only=True)
class RelayConfig:
    """A relay that the call goes through (TURN, a media server): one more hop in each direction."""

    forward: PathConfig = field(default_factory=PathConfig)
    """from the relay to the receiver; behind the bottleneck and the network's own path"""
    reverse: PathConfig = field(default_factory=PathConfig)
    """from the relay to the sender; added to the network's own path"""

    def __post_init__(self) -> None:
        _require(
            self.reverse.keeps_order,
            "relay.reverse.keeps_order=False is not simulated: messages to the sender keep their "
            "order. Allowed: True.",
        )


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """The bottleneck: a FIFO served at the trace's capacity."""

    queue_limit_s: float = 0.3
    """limit as time at the present capacity; used when `queue_limit_bytes` is 0"""
    queue_limit_bytes: int = 0
    """limit in bytes, the packet in service included; 0 to use `queue_limit_s`"""
    loss_before_queue: bool = False
    """where random loss strikes: before the queue, or after it (as on a radio hop behind it)"""
    discipline: Literal["drop_tail", "codel", "pie"] = "drop_tail"
    """what is dropped before the queue is full (the limit holds in any case)"""
    codel: CodelConfig = field(default_factory=CodelConfig)
    pie: PieConfig = field(default_factory=PieConfig)
    policer_rate_bps: float = 0.0
    """token rate of a policer in front of the queue; 0 for no policer"""
    policer_burst_bytes: int = 15_000
    """depth of its bucket"""
    max_wait_s: float = 0.0
    """a packet that has waited longer is dropped when its turn comes (the discard timer of a radio
    buffer, discardTimer of 3GPP TS 38.323); 0 for none. Such drops count as the queue's"""
    grant_interval_s: float = 0.0
    """what has been served goes on in bursts, at multiples of this time: an LTE grant (5 to 20 ms),
    a WiFi aggregate; 0 for at once. It delays, and takes no capacity away"""
    grant_spread: float = 0.0
    """each grant comes later by a uniform share of the interval, up to this: 0 for a schedule, 1
    for turns that are contended for, whose distances go from 0 to twice the interval"""

    def __post_init__(self) -> None:
        if self.policer_rate_bps != 0.0:
            _require_range("policer_rate_bps", self.policer_rate_bps, 1_000, 1e10, "bps, or 0")
        _require_range("policer_burst_bytes", self.policer_burst_bytes, 1500, 1e9, "bytes")
        if self.max_wait_s != 0.0:
            _require_range("max_wait_s", self.max_wait_s, 0.001, 60.0, "s, or 0")
        _require_range("grant_interval_s", self.grant_interval_s, 0.0, 1.0, "s")
        _require_range("grant_spread", self.grant_spread, 0.0, 1.0, "(a share of the interval)")
        _require(
            self.grant_spread == 0.0 or self.grant_interval_s > 0.0,
            f"grant_spread={self.grant_spread} spreads grants that grant_interval_s=0 does not "
            "give.",
        )
        _require_range("queue_limit_s", self.queue_limit_s, 0.001, 60.0, "s")
        _require_range("queue_limit_bytes", self.queue_limit_bytes, 0, 1e9, "bytes")
        _require(
            self.queue_limit_bytes == 0 or self.queue_limit_bytes >= 1500,
            f"queue_limit_bytes={self.queue_limit_bytes} cannot hold one packet of 1500 bytes; "
            "give at least 1500, or 0 to use queue_limit_s.",
        )
        if self.discipline not in ("drop_tail", "codel", "pie"):
            raise unknown_name("queue discipline", self.discipline, ("drop_tail", "codel", "pie"))


@dataclass(frozen=True, kw_only=True)
class OnOffTraffic:
    """A UDP sender that is on and off for exponential times."""

    rate_bps: float = 500_000.0
    """on the wire, while it is on"""
    mean_on_s: float = 5.0
    mean_off_s: float = 5.0
    """0 for always on"""
    packet_bytes: int = 1500
    """on the wire"""
    start_s: float = 0.0
    """time of the call at which it goes on first"""
    stop_s: float = 0.0
    """time of the call at which it ends; 0 for never"""

    def __post_init__(self) -> None:
        _require_range("on_off.rate_bps", self.rate_bps, 1_000, 1e9, "bps")
        _require_range("on_off.mean_on_s", self.mean_on_s, 0.001, 86_400, "s")
        _require_range("on_off.mean_off_s", self.mean_off_s, 0.0, 86_400, "s")
        _require_source("on_off", self.packet_bytes, self.start_s, self.stop_s)


@dataclass(frozen=True, kw_only=True)
class TcpTraffic:
    """A TCP sender (see `bwe_env.sim.cross_traffic`) that always has something to send, or fetches
    one file after another, each over a new connection, with idle times between them.
    """

    algorithm: Literal["reno", "cubic"] = "cubic"
    """congestion control of RFC 5681 or RFC 9438"""
    rtt_s: float = 0.05
    """its round trip without queueing"""
    packet_bytes: int = 1500
    """on the wire"""
    ack_jitter_s: float = 0.002
    """an ACK is late by up to so much, uniformly and in order. Without it, sources in step with a
    drop-tail queue starve each other (Floyd and Jacobson, "On traffic phase effects in
    packet-switched gateways", 1992)"""
    max_window_packets: int = 4096
    """what its receiver lets it have under way (6 MB of full packets)"""
    min_rto_s: float = 0.2
    """floor of the retransmission timer: 0.2 in Linux, 1.0 in RFC 6298"""
    min_file_bytes: int = 0
    max_file_bytes: int = 0
    """sizes of its files on the wire, uniform between the two; 0 for one file without end"""
    mean_idle_s: float = 10.0
    """between two files: exponential"""
    starts_idle: bool = False
    """whether an idle time comes before its first file"""
    start_s: float = 0.0
    """time of the call at which it begins to send"""
    stop_s: float = 0.0
    """time of the call from which on it sends nothing new; 0 for never"""

    def __post_init__(self) -> None:
        if self.algorithm not in ("reno", "cubic"):
            raise unknown_name("TCP congestion control", self.algorithm, ("reno", "cubic"))
        _require_range("tcp.rtt_s", self.rtt_s, 0.0001, 10.0, "s")
        _require_range("tcp.ack_jitter_s", self.ack_jitter_s, 0.0, 1.0, "s")
        _require_range("tcp.max_window_packets", self.max_window_packets, 2, 32_768, "packets")
        _require_range("tcp.min_rto_s", self.min_rto_s, 0.001, 60.0, "s")
        _require_range("tcp.min_file_bytes", self.min_file_bytes, 0, 1e9, "bytes")
        _require_range("tcp.max_file_bytes", self.max_file_bytes, 0, 1e9, "bytes")
        _require(
            self.min_file_bytes <= self.max_file_bytes,
            f"tcp.min_file_bytes={self.min_file_bytes} must not be above "
            f"tcp.max_file_bytes={self.max_file_bytes}.",
        )
        _require_range("tcp.mean_idle_s", self.mean_idle_s, 0.001, 86_400, "s")
        _require_source("tcp", self.packet_bytes, self.start_s, self.stop_s)


def _require_source(name: str, packet_bytes: int, start_s: float, stop_s: float) -> None:
    _require_range(f"{name}.packet_bytes", packet_bytes, 40, 9_000, "bytes")
    _require_range(f"{name}.start_s", start_s, 0.0, 86_400, "s")
    _require_range(f"{name}.stop_s", stop_s, 0.0, 86_400, "s")
    _require(
        stop_s == 0.0 or stop_s > start_s,
        f"{name}.stop_s={stop_s} must be after {name}.start_s={start_s}, or 0 for never.",
    )


@dataclass(frozen=True, kw_only=True)
class CallConfig:
    """Everything about a call that is not its network."""

    duration_s: float = 60.0
    """scheduled length; the episode is truncated there"""
    interval_s: float = 0.1
    """one decision per interval"""
    min_rate_bps: int = 30_000
    """lowest target rate (libwebrtc session minimum)"""
    start_rate_bps: int = 300_000
    """target at t = 0 (libwebrtc session start)"""
    max_rate_bps: int = 6_000_000
    """highest target rate"""
    video: VideoConfig = field(default_factory=VideoConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    packets: PacketConfig = field(default_factory=PacketConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    drop_timeout_s: float = 15.0
    """no consent response for so long drops the call"""
    consent_interval_s: float = 2.5
    """time between consent checks (RFC 7675; libwebrtc's STRONG_AND_STABLE interval); 0 for none,
    and then the call never drops"""

    def __post_init__(self) -> None:
        _require_range("duration_s", self.duration_s, 1.0, 86_400.0, "s")
        _require_range("interval_s", self.interval_s, 0.02, 10.0, "s")
        _require_range("min_rate_bps", self.min_rate_bps, 5_000, 1e9, "bps")
        _require_range("max_rate_bps", self.max_rate_bps, 10_000, 1e9, "bps")
        _require(
            self.min_rate_bps <= self.start_rate_bps <= self.max_rate_bps
            and self.min_rate_bps < self.max_rate_bps,
            f"rates must satisfy min_rate_bps <= start_rate_bps <= max_rate_bps, min < max; got "
            f"{self.min_rate_bps}, {self.start_rate_bps}, {self.max_rate_bps}.",
        )
        _require_range("drop_timeout_s", self.drop_timeout_s, 1.0, 600.0, "s")
        _require(
            self.feedback.rtt_packet == "arrived" or self.consent_interval_s == 0.0,
            'feedback.rtt_packet="sent" is the model of a call without consent checks; set '
            "consent_interval_s=0.",
        )
        if self.consent_interval_s != 0.0:
            _require_range("consent_interval_s", self.consent_interval_s, 0.1, 60.0, "s")
        steps = self.duration_s / self.interval_s
        _require(
            abs(steps - round(steps)) < 1e-6,
            f"duration_s={self.duration_s} is not a whole number of intervals of "
            f"{self.interval_s} s; change one of them.",
        )

    @property
    def steps(self) -> int:
        """Decision intervals in a full call."""
        return round(self.duration_s / self.interval_s)


@dataclass(frozen=True, kw_only=True)
class RandomisationConfig:
    """How a reset varies the network that it draws (domain randomisation), for training.

    A scale is a range of factors, drawn log-uniformly for each call; (1, 1) varies nothing.
    """

    random_start: bool = False
    """begin anywhere in the trace instead of where the network says"""
    capacity_scale: tuple[float, float] = (1.0, 1.0)
    """of the capacity and of a policer's rate; a queue given in bytes grows with it, so that it
    holds the same time. Cross traffic stays as it is"""
    delay_scale: tuple[float, float] = (1.0, 1.0)
    """of the propagation delay of both directions"""
    queue_scale: tuple[float, float] = (1.0, 1.0)
    """of the queue's limit; it never shrinks below two full packets"""

    def __post_init__(self) -> None:
        for name in ("capacity_scale", "delay_scale", "queue_scale"):
            bounds = _require_list(f"randomisation.{name}", getattr(self, name))
            _require(
                len(bounds) == 2
                and _are_numbers(bounds)
                and 0.01 <= bounds[0] <= bounds[1] <= 100.0,
                f"randomisation.{name}={bounds!r} must be two factors from 0.01 to 100, the "
                "smaller one first.",
            )
            object.__setattr__(self, name, (float(bounds[0]), float(bounds[1])))

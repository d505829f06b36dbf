"""What configuration becomes: rows of records for kernels, and the lengths of their rings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import (
    MTU_BYTES,
    CallConfig,
    FecConfig,
    LinkConfig,
    OnOffTraffic,
    PathConfig,
    TcpTraffic,
)
from bwe_env.errors import ConfigError
from bwe_env.gcc.parameters import GccParameters, fill_gcc_parameters
from bwe_env.network import Network
from bwe_env.sim._jit import NEVER
from bwe_env.sim.call import (
    NETWORK,
)
from bwe_env.sim.capacity import SEGMENT
from bwe_env.sim.cross_traffic import (
    SOURCE,
    SOURCE_CUBIC,
    SOURCE_ON_OFF,
    SOURCE_RENO,
)
from bwe_env.sim.delay import JITTER_NONE, JITTER_NORMAL, JITTER_UNIFORM
from bwe_env.sim.flow import SIDE_SENDER
from bwe_env.sim.queue_discipline import (
    DISCIPLINE_CODEL,
    DISCIPLINE_DROP_TAIL,
    DISCIPLINE_PIE,
)
from bwe_env.trace.bank import build_bank
from bwe_env.units import s_to_us

#: Frames the receiver can wait for, as time at the camera's rate; libwebrtc's buffer holds 800.
FRAME_RING_S = 8.0
#: What a sender may have behind a packet that is stuck in the queue, as time at its maximum rate
#: (ours: more than any queue that still carries a call holds).
PACKET_RING_S = 2.0
#: Longest packet ring: `PACKET.repairs` counts back over it in 16 bits.
MAX_PACKET_RING = 1 << 14
#: Packets a second beside full-sized video: audio, and one for each of 30 small frames.
_SMALL_PACKETS_PER_S = 80
#: Queue entries for cross traffic: 0.7 s of full packets at 100 Mbps.
CROSS_QUEUE_ENTRIES = 6 << 10
#: Mean packet of a full-rate sender: frames just above a whole number of MTUs are split evenly.
_MEAN_PACKET_BYTES = 1000

#: Messages of one moment: a look at a list of missing packets that are spread over the largest
#: packet ring takes one for each `NACK_SPAN` rows, 260; of the usual ring, 33.
_SPARE_MESSAGES = 300

_DISCIPLINE_IDS = {
    "drop_tail": DISCIPLINE_DROP_TAIL,
    "codel": DISCIPLINE_CODEL,
    "pie": DISCIPLINE_PIE,
}
_TCP_IDS = {"reno": SOURCE_RENO, "cubic": SOURCE_CUBIC}
_JITTER_IDS = {"none": JITTER_NONE, "uniform": JITTER_UNIFORM, "normal": JITTER_NORMAL}


def _power_of_two(at_least: float) -> int:
    return 1 << max(4, int(np.ceil(np.log2(max(1.0, at_least)))))


def _end_us(end_s: float) -> int:
    return s_to_us(end_s) if end_s > 0.0 else NEVER


def _fill_path(row: Any, path: PathConfig) -> None:
    row["delay"]["propagation_us"] = s_to_us(path.propagation_delay_s)
    row["delay"]["jitter_mean_us"] = s_to_us(path.jitter.mean_s)
    row["delay"]["jitter_scale_us"] = s_to_us(path.jitter.scale_s)
    row["delay"]["jitter_correlation"] = path.jitter.correlation
    row["delay"]["jitter_distribution"] = _JITTER_IDS[path.jitter.distribution]
    row["delay"]["may_overtake"] = not path.keeps_order
    for name in ("good_loss", "bad_loss", "good_to_bad", "bad_to_good"):
        row["loss"][name] = getattr(path.loss, name)
    bits = np.packbits(np.array(path.loss.replay, dtype=bool), bitorder="little")
    row["loss"]["replay_packets"] = len(path.loss.replay)
    row["loss"]["replay_bits"][: len(bits)] = bits
    row["loss_from_us"] = s_to_us(path.loss.from_s)
    row["loss_until_us"] = _end_us(path.loss.until_s)
    row["delay"]["num_steps"] = len(path.delay_steps)
    for step, (from_s, added_s) in enumerate(path.delay_steps):
        row["delay"]["step_from_us"][..., step] = s_to_us(from_s)
        row["delay"]["step_added_us"][..., step] = s_to_us(added_s)
    row["outage"]["from_us"] = s_to_us(path.outage.from_s)
    row["outage"]["until_us"] = s_to_us(path.outage.until_s)
    row["outage"]["keeps"] = path.outage.keeps


def _fill_discipline(row: Any, link: LinkConfig) -> None:
    row["kind"] = _DISCIPLINE_IDS[link.discipline]
    row["codel"]["target_us"] = s_to_us(link.codel.target_s)
    row["codel"]["interval_us"] = s_to_us(link.codel.interval_s)
    pie = row["pie"]
    pie["reference_s"] = link.pie.reference_s
    pie["alpha_per_s"] = link.pie.alpha_per_s
    pie["beta_per_s"] = link.pie.beta_per_s
    pie["max_burst_us"] = s_to_us(link.pie.max_burst_s)
    pie["update_interval_us"] = s_to_us(link.pie.update_interval_s)


def build_networks(networks: Sequence[Network]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The tables a reset reads: one NETWORK row per network, and all trace segments.

    Returns:
        ``(NETWORK[n], SEGMENT[total])``.
    """
    if len(networks) == 0:
        raise ConfigError("networks is empty; give at least one Network.")
    bank = build_bank([network.trace for network in networks])
    segments = np.zeros(len(bank.start_us), dtype=SEGMENT)
    segments["start_us"] = bank.start_us
    segments["duration_us"] = bank.duration_us
    segments["capacity_bps"] = bank.capacity_bps
    rows = np.zeros(len(networks), dtype=NETWORK)
    rows["first_segment"] = bank.offset[:-1]
    rows["last_segment"] = bank.offset[1:] - 1
    for row, network in zip(rows, networks, strict=True):
        row["start_us"] = s_to_us(network.start_s)
        row["queue_limit_bytes"] = network.link.queue_limit_bytes
        row["queue_limit_s"] = network.link.queue_limit_s
        row["loss_before_queue"] = network.link.loss_before_queue
        _fill_discipline(row["discipline"], network.link)
        row["policer_rate_bps"] = network.link.policer_rate_bps
        row["policer_burst_bytes"] = network.link.policer_burst_bytes
        row["max_wait_us"] = s_to_us(network.link.max_wait_s)
        row["grant_interval_us"] = s_to_us(network.link.grant_interval_s)
        row["grant_spread"] = network.link.grant_spread
        row["competing_calls"] = network.competing_calls
        for name, values in (
            ("competing_start_us", network.competing_start_s),
            ("competing_added_us", network.competing_added_delay_s),
        ):
            row[name][: len(values)] = [s_to_us(value) for value in values]
        row["num_sources"] = len(network.cross_traffic)
        _fill_path(row["forward"], network.forward)
        _fill_path(row["reverse"], network.reverse)
        if network.relay is not None:
            row["relay"]["is_used"] = True
            _fill_path(row["relay"]["forward"], network.relay.forward)
            _fill_path(row["relay"]["reverse"], network.relay.reverse)
    rows["first_source"] = np.cumsum(rows["num_sources"]) - rows["num_sources"]
    return rows, segments


def build_sources(networks: Sequence[Network]) -> NDArray[Any]:
    """Configurations of all sources of cross traffic, network by network: SOURCE[total]."""
    sources = [source for network in networks for source in network.cross_traffic]
    rows = np.zeros(max(1, len(sources)), dtype=SOURCE)
    for row, source in zip(rows, sources, strict=False):
        row["start_us"] = s_to_us(source.start_s)
        row["stop_us"] = _end_us(source.stop_s)
        row["packet_bytes"] = source.packet_bytes
        if isinstance(source, OnOffTraffic):
            row["kind"] = SOURCE_ON_OFF
            row["rate_bps"] = source.rate_bps
            row["mean_on_us"] = source.mean_on_s * 1e6
            row["mean_off_us"] = source.mean_off_s * 1e6
        else:
            row["kind"] = _TCP_IDS[source.algorithm]
            row["rtt_us"] = s_to_us(source.rtt_s)
            row["ack_jitter_us"] = s_to_us(source.ack_jitter_s)
            row["max_window"] = source.max_window_packets
            row["min_rto_us"] = s_to_us(source.min_rto_s)
            row["min_file_bytes"] = source.min_file_bytes
            row["max_file_bytes"] = source.max_file_bytes
            row["mean_idle_us"] = source.mean_idle_s * 1e6
            row["starts_idle"] = source.starts_idle
    return rows


def _longest_delay_s(path: PathConfig) -> float:
    jitter_s = path.jitter.mean_s + 5.0 * path.jitter.scale_s
    outage_s = path.outage.until_s - path.outage.from_s if path.outage.keeps else 0.0
    added_s = max((added_s for _, added_s in path.delay_steps), default=0.0)
    return path.propagation_delay_s + added_s + jitter_s + max(0.0, outage_s)


def _longest_reverse_s(network: Network) -> float:
    relay_s = 0.0 if network.relay is None else _longest_delay_s(network.relay.reverse)
    return _longest_delay_s(network.reverse) + relay_s


@dataclass(frozen=True)
class RingLengths:
    """Rows per ring, powers of two; see `ring_lengths` for the reckoning."""

    packets: int
    queue: int
    frames: int
    messages: int
    tcp: int
    sources: int
    """sources of cross traffic per call"""
    flows: int
    """flows per call"""


def ring_lengths(
    call: CallConfig, networks: Sequence[Network], *, longest_delay_scale: float = 1.0
) -> RingLengths:
    """Ring sizes for calls on these networks.

    A packet's row is needed until the packet has arrived or been lost. The packet ring holds what
    `PACKET_RING_S` of sending at the maximum rate takes; when more is stuck behind a packet in the
    queue, the sender's socket refuses further packets. It depends on the call alone, so that a
    result does not depend on which other networks are at hand.

    Args:
        longest_delay_scale: the most that delays of the networks are multiplied by.
    """
    mean_bytes = _MEAN_PACKET_BYTES * call.packets.mtu_bytes / MTU_BYTES
    packets_per_s = call.max_rate_bps / 8 / mean_bytes + _SMALL_PACKETS_PER_S
    packets = min(MAX_PACKET_RING, _power_of_two(PACKET_RING_S * packets_per_s))
    reverse_s = max(
        _longest_reverse_s(network) + max(network.competing_added_delay_s, default=0.0)
        for network in networks
    )
    reverse_s *= max(1.0, longest_delay_scale)
    flows = 1 + max(network.competing_calls for network in networks)
    sources = [source for network in networks for source in network.cross_traffic]
    windows = [s.max_window_packets for s in sources if isinstance(s, TcpTraffic)]
    entries = flows * packets + (CROSS_QUEUE_ENTRIES if sources else 0)
    return RingLengths(
        packets=packets,
        queue=_power_of_two(entries),
        tcp=_power_of_two(max(windows)) if windows else 1,
        sources=max(1, *(len(network.cross_traffic) for network in networks), 1),
        flows=flows,
        frames=_power_of_two(FRAME_RING_S * call.video.frame_rate_hz),
        messages=_power_of_two(_SPARE_MESSAGES + 2.0 * reverse_s * packets_per_s),
    )


def configure_fec(fec: Any, config: FecConfig) -> None:
    """Fill the FEC part of a FLOW row, or of all rows of an array of them."""
    fec["enabled"] = config.enabled
    fec["min_protection"] = config.min_protection
    fec["key_factor"] = config.key_factor
    fec["num_loss_knots"] = len(config.loss_knots)
    fec["num_rtt_knots"] = len(config.rtt_knots_s)
    fec["loss_knots"][..., : len(config.loss_knots)] = config.loss_knots
    fec["rtt_knots_us"][..., : len(config.rtt_knots_s)] = [s_to_us(s) for s in config.rtt_knots_s]
    fec["protection"][..., : len(config.protection)] = config.protection


def configure_flow(flow: Any, call: CallConfig, gcc: GccParameters) -> None:
    """Write what stays the same in every call of a flow: sizes, intervals, options, GCC."""
    flow["min_rate_bps"] = call.min_rate_bps
    flow["start_rate_bps"] = call.start_rate_bps
    flow["max_rate_bps"] = call.max_rate_bps
    flow["overhead_bytes"] = call.packets.overhead_bytes
    flow["uncounted_bytes"] = call.packets.uncounted_bytes
    flow["rtp_header_bytes"] = call.packets.rtp_header_bytes
    flow["mtu_bytes"] = call.packets.mtu_bytes
    flow["padding_bytes"] = call.packets.padding_bytes
    audio = call.audio
    flow["audio_payload_bytes"] = round(audio.rate_bps * audio.packet_interval_s / 8)
    flow["audio_interval_us"] = s_to_us(audio.packet_interval_s) if audio.enabled else 0
    flow["audio_redundancy"] = audio.redundancy
    flow["feedback_interval_us"] = s_to_us(call.feedback.interval_s)
    flow["clock_skew"] = call.feedback.clock_skew_ppm * 1e-6
    flow["rtt_of_sent"] = call.feedback.rtt_packet == "sent"
    flow["repair_enabled"] = call.video.repair
    flow["rtx_rate_share"] = call.video.rtx.rate_share
    flow["rtx_max_age_us"] = s_to_us(call.video.rtx.max_age_s)
    flow["rtcp_interval_us"] = s_to_us(call.feedback.rtcp_interval_s)
    flow["consent_interval_us"] = s_to_us(call.consent_interval_s)
    flow["drop_timeout_us"] = s_to_us(call.drop_timeout_s)
    flow["estimator_side"] = SIDE_SENDER
    video = call.video
    encoder = flow["encoder"]
    encoder["frame_interval_us"] = 1e6 / video.frame_rate_hz
    encoder["min_rate_bps"] = video.min_rate_bps
    encoder["rate_share"] = video.rate_share
    encoder["app_max_rate_bps"] = video.app_max_rate_bps
    encoder["app_limit_until_us"] = s_to_us(video.app_limit_until_s)
    encoder["pause_from_us"] = s_to_us(video.pause_from_s)
    encoder["pause_until_us"] = s_to_us(video.pause_until_s)
    encoder["lag_us"] = video.encoder_lag_s * 1e6
    encoder["size_sd"] = video.frame_size_sd
    encoder["size_correlation"] = video.frame_size_correlation
    encoder["key_frame_ratio"] = video.key_frame_ratio
    encoder["enabled"] = video.enabled
    encoder["uses_ladder"] = video.picture_size == "ladder"
    encoder["skips_frames"] = video.skip_frames
    if video.scene_change_interval_s > 0.0:
        encoder["scene_change_chance"] = 1.0 / (video.scene_change_interval_s * video.frame_rate_hz)
    configure_fec(flow["fec"], video.fec)
    flow["receiver"]["jitter_buffer"] = video.jitter_buffer
    pacer = flow["pacer"]
    pacer["burst_interval_us"] = s_to_us(call.packets.burst_interval_s)
    pacer["queue_time_limit_us"] = s_to_us(call.packets.queue_time_limit_s)
    fill_gcc_parameters(flow["gcc_parameters"], gcc)

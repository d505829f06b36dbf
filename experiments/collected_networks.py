"""The networks and senders of collected calls, where random loss and congestion are independent.

A model that tells random loss from congestion, foresees congestion or names the network type learns
from the time series of calls. On the networks of `bwe_env.trace.networks` it could learn shortcuts
instead: satellites lose packets and wires do not, AQM stands on WiFi and on wires only, fast links
never congest. So each network keeps its name, its type, its delays and the course of its capacity,
and draws anew what loses packets: a process of random loss, a queue, an AQM or a policer, others in
the same queue, how fast the link is, and steps of its capacity. The draws hang on the name alone
and know neither the type nor each other, so a cause goes with no type, rate, time or other cause.

Rates of others and of policers are shares of what a call could use of the link
(`usable_rate_bps`): what congests is relative to it.

Shares are of networks. Every number here is ours unless it says otherwise: nobody measured how
often calls meet each of these, and the set is to show all of them, not their frequencies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import (
    AudioConfig,
    CallConfig,
    FecConfig,
    FeedbackConfig,
    LinkConfig,
    LossConfig,
    OnOffTraffic,
    PieConfig,
    TcpTraffic,
    VideoConfig,
)
from bwe_env.network import Network
from bwe_env.trace.catalog import networks
from bwe_env.trace.paths import DOCSIS_PIE, ROUTER_CODEL, WIFI_CODEL
from bwe_env.trace.randomness import between, log_between, one_of, uniforms
from bwe_env.trace.trace import Trace
from bwe_env.units import BITS_PER_BYTE, s_to_us

#: Length of a collected call, and of its decision intervals. The intervals are `CallConfig`'s own.
DURATION_S = 60.0
INTERVAL_S = 0.1

#: What the default call asks for at most: a link that carries more shows it no congestion.
USABLE_BPS = CallConfig().max_rate_bps
#: Share of the faster links (by their median in the call) that are slowed, and the median they get,
#: log-uniform: that of congested networks of the splits (from 0.3 Mbps on) without the slowest, of
#: which every type has enough.
SLOWED_SHARE = 0.5
SLOWED_MEDIAN_BPS = (0.8e6, 6e6)
#: Neither slowing nor a drop takes away what audio and the worst video need: fades of fast links
#: would become outages, which drop calls for no other reason than the scale.
LEAST_BPS = 200e3

#: Networks whose capacity drops to a share of itself once in each minute, at any time of it. The
#: range has the alternating 500/100 kbps of recorded calls near its low end.
DROPPING_SHARE = 0.3
DROP_PERIOD_S = 60.0
DROP_RATIO = (0.2, 0.6)
DROP_S = (10.0, 30.0)

#: Random loss on the way forward: as the network's type draws it (mostly next to none), independent
#: from packet to packet, or in the bursts of a Gilbert chain.
LOSS_SHARES = {"drawn": 0.25, "independent": 0.375, "bursts": 0.375}
#: Mean loss, log-uniform: from about one packet in three seconds of a slow call up to where GCC
#: backs off for loss alone (10 %, draft-ietf-rmcat-gcc-02 section 6).
LOSS_RATIO = (0.003, 0.1)
#: Mean length of a burst in packets, log-uniform: from a median cellular session (1.8 packets) to
#: the shorter bursts of satellites (10), see `bwe_env.trace.paths`; a little more at both ends.
BURST_PACKETS = (2.0, 12.0)
#: Share of the last two that act for a part of the call only, and for how long: any part alike.
PARTIAL_LOSS_SHARE = 0.3
PARTIAL_LOSS_S = (10.0, 40.0)
#: Share of networks that lose packets before the queue; the others do behind it, as a radio hop.
LOSS_BEFORE_QUEUE_SHARE = 0.5

#: Time that a queue holds, log-uniform: from shallow switches to bloated base stations.
QUEUE_S = (0.03, 1.5)
#: Share of queues limited in time at the present capacity; the others have a limit in bytes.
TIMED_QUEUE_SHARE = 0.5
#: A limit in bytes holds at least five full packets: fewer drop from every frame at any rate.
MIN_QUEUE_BYTES = 7_500

#: What drops before the queue is full, on every type alike. With none of the others, either, about
#: a third of all networks: 0.6 x 0.55.
MANAGEMENT_SHARES = {"none": 0.6, "codel": 0.1, "pie": 0.1, "policer": 0.2}
#: Settings that are in use, equally likely: of RFC 8289 and of Linux's access points; of RFC 8033
#: and of DOCSIS modems.
CODELS = (ROUTER_CODEL.codel, WIFI_CODEL.codel)
PIES = (PieConfig(), DOCSIS_PIE.pie)
#: Rate of a policer as a share of the usable rate, and the depth of its bucket, log-uniform: from a
#: tenth of a second of a slow call to a key frame of a fast one.
POLICER_RATIO = (0.3, 1.0)
POLICER_BURST_BYTES = (8_000.0, 60_000.0)

#: Who else sends into the queue.
OTHERS_SHARES = {"nobody": 0.55, "on-off": 0.13, "tcp": 0.1, "files": 0.12, "call": 0.1}
#: Rate of an on/off sender as a share of the usable rate, and its mean times on and off.
ON_OFF_RATIO = (0.1, 0.6)
ON_OFF_S = (1.0, 10.0)
#: Round trips of TCP without queueing, log-uniform: a server in the country to one across an ocean.
TCP_RTT_S = (0.02, 0.15)
#: Receive window of TCP: more than fills a link of `USABLE_BPS`, and holds TCP to 41 Mbps (at the
#: longest round trip) to 307 Mbps on links that stay fast, where packets take long to simulate.
TCP_WINDOW_PACKETS = 512
#: A long-lived connection begins in the first half of the call and lasts so long.
TCP_START_S = (0.0, 30.0)
TCP_LASTS_S = (15.0, 60.0)
#: Files from a picture to a short clip: the largest is log-uniform. Times idle between two.
MIN_FILE_BYTES = 20_000
MAX_FILE_BYTES = (100e3, 3e6)
FILE_IDLE_S = (1.0, 8.0)
#: When a competing call begins.
CALL_START_S = (0.0, 30.0)


@dataclass(frozen=True, kw_only=True)
class Sender:
    """How the endpoints of a call are set up, by name."""

    name: str
    """unique within `SENDERS`"""
    call: CallConfig


def _call(
    *,
    max_rate_bps: int = USABLE_BPS,
    video: VideoConfig | None = None,
    audio: AudioConfig | None = None,
    feedback: FeedbackConfig | None = None,
) -> CallConfig:
    return CallConfig(
        duration_s=DURATION_S,
        interval_s=INTERVAL_S,
        max_rate_bps=max_rate_bps,
        video=video or VideoConfig(),
        audio=audio or AudioConfig(),
        feedback=feedback or FeedbackConfig(),
    )


#: Equally likely. Their order is part of every collected call: append only, and collect anew.
SENDERS = (
    Sender(name="default", call=_call()),
    # A small picture on a phone.
    Sender(name="small", call=_call(max_rate_bps=1_500_000, video=VideoConfig(frame_rate_hz=15.0))),
    # A large picture, its sound sent elsewhere.
    Sender(name="large", call=_call(max_rate_bps=8_000_000, audio=AudioConfig(enabled=False))),
    # Slides for the first half, then a film: the application limits the rate, not the network.
    Sender(
        name="screen-share",
        call=_call(
            video=VideoConfig(
                app_max_rate_bps=600_000, app_limit_until_s=30.0, scene_change_interval_s=10.0
            )
        ),
    ),
    # Parity packets, and an encoder whose picture changes its size in steps.
    Sender(
        name="protected",
        call=_call(video=VideoConfig(picture_size="ladder", fec=FecConfig(enabled=True))),
    ),
    # The interval of feedback before libwebrtc adapted it, at the short end of today's range.
    Sender(name="fixed-feedback", call=_call(feedback=FeedbackConfig(interval_s=0.05))),
)


def sender_of(network_name: str) -> Sender:
    """Who calls over this network: a function of its name alone, whatever the network draws.

    Networks of one sender can be simulated in one batch.
    """
    (u,) = _draws(network_name, "sender", 1)
    return one_of(SENDERS, u)


def collected_networks(split: str, count: int) -> tuple[Network, ...]:
    """The first `count` networks of a split, each varied by `collected_network`.

    The content of each is a function of its name alone: a longer split begins with the shorter one,
    and no two splits share a network.

    Raises:
        UnknownNameError: no such split; the known ones are listed.
        ConfigError: `count` is not a whole number >= 1.
    """
    return tuple(collected_network(network) for network in networks(split, count=count))


def collected_network(network: Network) -> Network:
    """A network with its loss, queue, others and capacity drawn anew, as a function of its name.

    Name, type, delays, jitter, hand-overs, grants and discard timers stay, and so does the way
    back. What the network had of cross traffic, competing calls, AQM and policer is replaced.
    """
    trace = _capacity(network.trace)
    usable_bps = usable_rate_bps(trace)
    before_queue, *draws = _draws(network.name, "loss", 6)
    link = dataclasses.replace(
        _link(network, usable_bps), loss_before_queue=before_queue < LOSS_BEFORE_QUEUE_SHARE
    )
    others, *source_draws = _draws(network.name, "others", 6)
    kind = _chosen(OTHERS_SHARES, others)
    return dataclasses.replace(
        network,
        trace=trace,
        link=link,
        forward=dataclasses.replace(
            network.forward, loss=_loss(network.forward.loss, draws), keeps_order=True
        ),
        cross_traffic=_cross_traffic(kind, usable_bps, source_draws),
        competing_calls=1 if kind == "call" else 0,
        competing_start_s=(between(CALL_START_S, source_draws[0]),) if kind == "call" else (),
        competing_added_delay_s=(),
    )


def usable_rate_bps(trace: Trace) -> float:
    """What a call of up to `USABLE_BPS` could use of a link on average, if it were alone.

    Never below `LEAST_BPS`: a link may be in outage for all of the call.
    """
    return float(np.clip(_capacity_in_call_bps(trace), LEAST_BPS, USABLE_BPS).mean())


def _capacity_in_call_bps(trace: Trace) -> NDArray[np.float64]:
    """Capacity at each second of a call that begins with the trace: enough to scale others by."""
    return np.array([trace.capacity_at(time_s) for time_s in range(round(DURATION_S))])


def _draws(name: str, aspect: str, count: int) -> list[float]:
    """Uniforms of one aspect of a network. Their order is part of every collected call: a new one
    goes to the end of its aspect, and moves nothing else.
    """
    return cast(list[float], uniforms(count, "collect", name, aspect).tolist())


def _chosen(shares: Mapping[str, float], u: float) -> str:
    """The name whose share `u` falls into; shares add up to 1, and their order matters."""
    for name, share in shares.items():
        if u < share:
            return name
        u -= share
    return name  # what rounding leaves over belongs to the last


def _capacity(trace: Trace) -> Trace:
    """The trace, slowed if it is fast, and with drops: each on some networks."""
    slowed, median, drops = _draws(trace.name, "capacity", 3)
    median_bps = float(np.median(_capacity_in_call_bps(trace)))
    if median_bps > USABLE_BPS and slowed < SLOWED_SHARE:
        ratio = np.full(len(trace), log_between(SLOWED_MEDIAN_BPS, median) / median_bps)
        trace = _reduced(trace, ratio, "slowed")
    if drops < DROPPING_SHARE and trace.duration_s >= DROP_PERIOD_S:
        trace = _reduced(trace, drop_ratios(trace), "with drops")
    return trace


def _reduced(trace: Trace, ratio: NDArray[np.float64], how: str) -> Trace:
    """A trace times a ratio per segment, but no lower than `LEAST_BPS` for it."""
    least_bps = np.minimum(trace.capacity_bps, LEAST_BPS)
    return dataclasses.replace(
        trace,
        source=f"{trace.source}, {how}",
        capacity_bps=np.maximum(ratio * trace.capacity_bps, least_bps),
    )


def drop_ratios(trace: Trace) -> NDArray[np.float64]:
    """What a drop in each whole `DROP_PERIOD_S` of a trace leaves of its segments, 1 elsewhere.

    A drop lies within its period; it begins and ends with a segment.
    """
    periods = int(trace.duration_s / DROP_PERIOD_S)
    ratio = np.ones(len(trace))
    draws = iter(_draws(trace.name, "drops", 3 * periods))
    for period, (begin, length, depth) in enumerate(zip(draws, draws, draws, strict=True)):
        length_s = between(DROP_S, length)
        begin_s = DROP_PERIOD_S * period + between((0.0, DROP_PERIOD_S - length_s), begin)
        edges = np.searchsorted(trace.start_us, [s_to_us(begin_s), s_to_us(begin_s + length_s)])
        ratio[slice(*edges)] = between(DROP_RATIO, depth)
    return ratio


def _loss(drawn: LossConfig, draws: list[float]) -> LossConfig:
    """Random loss of the way forward."""
    kind, mean, burst, partial, when = draws
    loss_kind = _chosen(LOSS_SHARES, kind)
    if loss_kind == "drawn":
        return drawn
    mean_ratio = log_between(LOSS_RATIO, mean)
    if loss_kind == "independent":
        loss = LossConfig(good_loss=mean_ratio)
    else:
        leave = 1.0 / log_between(BURST_PACKETS, burst)
        # In the long run the chain is bad for enter / (enter + leave) of all packets.
        loss = LossConfig(good_to_bad=leave * mean_ratio / (1.0 - mean_ratio), bad_to_good=leave)
    if partial >= PARTIAL_LOSS_SHARE:
        return loss
    lasts_s = between(PARTIAL_LOSS_S, partial / PARTIAL_LOSS_SHARE)
    from_s = between((0.0, DURATION_S - lasts_s), when)
    return dataclasses.replace(loss, from_s=from_s, until_s=from_s + lasts_s)


def _link(network: Network, usable_bps: float) -> LinkConfig:
    """The bottleneck: the queue's limit, and what drops before it is full.

    Settings of a discipline that was not chosen do nothing.
    """
    size, timed, managed, setting, burst = _draws(network.name, "link", 5)
    queue_s = log_between(QUEUE_S, size)
    is_timed = timed < TIMED_QUEUE_SHARE
    queue_bytes = max(MIN_QUEUE_BYTES, round(queue_s * usable_bps / BITS_PER_BYTE))
    kind = _chosen(MANAGEMENT_SHARES, managed)
    policer_bps = max(LEAST_BPS, between(POLICER_RATIO, setting) * usable_bps)
    return dataclasses.replace(
        network.link,
        queue_limit_s=queue_s,
        queue_limit_bytes=0 if is_timed else queue_bytes,
        discipline=_discipline(kind),
        codel=one_of(CODELS, setting),
        pie=one_of(PIES, setting),
        policer_rate_bps=policer_bps if kind == "policer" else 0.0,
        policer_burst_bytes=round(log_between(POLICER_BURST_BYTES, burst)),
    )


def _discipline(kind: str) -> Literal["drop_tail", "codel", "pie"]:
    if kind == "codel":
        return "codel"
    return "pie" if kind == "pie" else "drop_tail"


def _cross_traffic(
    kind: str, usable_bps: float, draws: list[float]
) -> tuple[OnOffTraffic | TcpTraffic, ...]:
    if kind == "on-off":
        return (
            OnOffTraffic(
                rate_bps=between(ON_OFF_RATIO, draws[0]) * usable_bps,
                mean_on_s=log_between(ON_OFF_S, draws[1]),
                mean_off_s=log_between(ON_OFF_S, draws[2]),
            ),
        )
    if kind not in ("tcp", "files"):
        return ()
    algorithms: tuple[Literal["reno", "cubic"], ...] = ("reno", "cubic")
    tcp = TcpTraffic(
        algorithm=one_of(algorithms, draws[0]),
        rtt_s=log_between(TCP_RTT_S, draws[1]),
        max_window_packets=TCP_WINDOW_PACKETS,
    )
    if kind == "files":
        return (
            dataclasses.replace(
                tcp,
                min_file_bytes=MIN_FILE_BYTES,
                max_file_bytes=round(log_between(MAX_FILE_BYTES, draws[2])),
                mean_idle_s=log_between(FILE_IDLE_S, draws[3]),
                starts_idle=True,
            ),
        )
    start_s = between(TCP_START_S, draws[2])
    return (
        dataclasses.replace(tcp, start_s=start_s, stop_s=start_s + between(TCP_LASTS_S, draws[3])),
    )

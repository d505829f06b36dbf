"""RFC 8867's test cases as scenarios: networks and call settings.

`RFC_8867` holds the test cases of RFC 8867, "Test Cases for Evaluating Congestion Control for
Interactive Real-Time Media", section 5, one entry per value where a case names several. Where a
case is not played as written, `PublishedCase.departures` says how it differs.

>>> published_case("rfc8867-5.1-50ms").network.trace.capacity_at(50.0)
2500000.0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bwe_env.config import (
    AudioConfig,
    CallConfig,
    JitterConfig,
    LinkConfig,
    PathConfig,
    TcpTraffic,
    VideoConfig,
)
from bwe_env.errors import unknown_name
from bwe_env.network import Network
from bwe_env.scenario import Scenario
from bwe_env.trace import Trace
from bwe_env.units import bps_to_mbps, mbps_to_bps, ms_to_s, s_to_ms, us_to_s

# --- What the cases share: RFC 8867 sections 4.2 (path) and 4.3 (media) ---------------------------

#: One-way propagation delay, and how long a full tail-drop queue takes to drain. Section 4.2.
PROPAGATION_DELAY_S = 0.05
QUEUE_S = 0.3
#: Most jitter from end to end. Section 4.2. Ours: normal, its mean three standard deviations above
#: the least delay, so that 99.7 % of packets stay within it; it never reorders.
MAX_JITTER_S = 0.03
JITTER = JitterConfig(distribution="normal", mean_s=MAX_JITTER_S / 2, scale_s=MAX_JITTER_S / 6)
#: Media of one flow. Section 4.3; here audio and headers are within these rates.
MIN_MEDIA_BPS = 150_000
MAX_MEDIA_BPS = 1_500_000
AUDIO_BPS = 20_000
#: How fast the encoder follows a new target. Section 4.3.
RESPONSE_S = 0.1

#: Short TCP flows of section 5.7: ten, of which two begin at once and eight with an idle time.
SHORT_FLOWS = 10
SHORT_FLOWS_AT_ONCE = 2
MIN_FILE_BYTES = 100_000
MAX_FILE_BYTES = 1_000_000
MEAN_IDLE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class PublishedCase(Scenario):
    """A case of a published document; its name is its network's, too."""

    section: str
    """of the document that describes it"""
    title: str
    backward: Network | None = None
    """carries media the other way, if any does (see `bwe_env.rollout.run_series`)"""
    media_start_s: float = 0.0
    """when the call's own media begins"""
    departures: tuple[str, ...] = ()
    """where it differs from the document"""

    @property
    def num_flows(self) -> int:
        """Media flows in the queue, the call's own included."""
        return 1 + self.network.competing_calls

    @property
    def flow_starts_s(self) -> tuple[float, ...]:
        """When each media flow begins, the call's own first."""
        named = self.network.competing_start_s
        rest = (0.0,) * (self.network.competing_calls - len(named))
        return (self.media_start_s, *named, *rest)

    @property
    def capacity_steps(self) -> tuple[tuple[float, float], ...]:
        """Pairs of the time of the call, in seconds, and the capacity from then on, in bps."""
        return _steps(self.network)

    def unimpaired(self) -> PublishedCase:
        """The same with the capacity that the backward direction begins with, all along."""
        if self.backward is None:
            return self
        trace = self.backward.trace
        best = replace(trace, capacity_bps=np.full(len(trace), trace.capacity_bps[0]))
        return replace(self, backward=replace(self.backward, trace=best))

    @property
    def parameters(self) -> str:
        """Everything that a reader needs to play it elsewhere, on one line."""
        network, video = self.network, self.call.video
        delay_ms = s_to_ms(network.forward.propagation_delay_s)
        delays = [delay_ms + s_to_ms(added_s) for added_s in network.competing_added_delay_s]
        starts = "/".join(f"{start_s:g}" for start_s in self.flow_starts_s)
        texts = [
            f"{self.call.duration_s:g} s",
            _told_steps(network),
            f"one-way delay {'/'.join(f'{d:g}' for d in (delay_ms, *delays))} ms",
            f"queue {s_to_ms(network.link.queue_limit_s):g} ms",
            f"{_told_number(self.num_flows, 'media flow')} from {starts} s",
        ]
        if video.pause_from_s > self.media_start_s:
            texts.append(f"one pauses from {video.pause_from_s:g} to {video.pause_until_s:g} s")
        if self.backward is not None:
            texts.append(f"backward: as many, {_told_steps(self.backward)}")
        if network.cross_traffic:
            texts.append(_told_number(len(network.cross_traffic), "TCP flow"))
        return "; ".join(texts)


def _steps(network: Network) -> tuple[tuple[float, float], ...]:
    trace = network.trace
    pairs = zip(trace.start_us.tolist(), trace.capacity_bps.tolist(), strict=True)
    return tuple((us_to_s(start_us), capacity_bps) for start_us, capacity_bps in pairs)


def _told_number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _told_steps(network: Network) -> str:
    steps = _steps(network)
    return ", ".join(f"{bps_to_mbps(bps):g} Mbps from {at_s:g} s" for at_s, bps in steps)


def media_call(
    duration_s: float,
    *,
    start_s: float = 0.0,
    pause_s: tuple[float, float] = (0.0, 0.0),
) -> CallConfig:
    """The media of section 4.3 for so long.

    Args:
        start_s: when video begins.
        pause_s: when it stops and goes on; not together with a late start.
    """
    from_s, until_s = (0.0, start_s) if start_s > 0.0 else pause_s
    return CallConfig(
        duration_s=duration_s,
        min_rate_bps=MIN_MEDIA_BPS,
        start_rate_bps=MIN_MEDIA_BPS,
        max_rate_bps=MAX_MEDIA_BPS,
        video=VideoConfig(encoder_lag_s=RESPONSE_S, pause_from_s=from_s, pause_until_s=until_s),
        audio=AudioConfig(rate_bps=AUDIO_BPS),
    )


def _network(
    name: str,
    steps_mbps: Sequence[tuple[float, float]],
    duration_s: float,
    *,
    delay_s: float = PROPAGATION_DELAY_S,
    queue_s: float = QUEUE_S,
    tcp: Sequence[TcpTraffic] = (),
    starts_s: Sequence[float] = (),
    added_delay_s: Sequence[float] = (),
    competing_calls: int = 0,
) -> Network:
    path = PathConfig(propagation_delay_s=delay_s, jitter=JITTER)
    trace = Trace.from_points(
        [time_s for time_s, _ in steps_mbps],
        [mbps_to_bps(capacity) for _, capacity in steps_mbps],
        name=name,
        network_type="pattern",
        source="RFC 8867",
        end_s=duration_s,
    )
    return Network(
        trace=trace,
        link=LinkConfig(queue_limit_s=queue_s),
        forward=path,
        reverse=path,
        cross_traffic=tuple(tcp),
        competing_calls=competing_calls,
        competing_start_s=tuple(starts_s),
        competing_added_delay_s=tuple(added_delay_s),
    )


# --- Section 5 ------------------------------------------------------------------------------------


def _variable_capacity(delay_ms: float) -> PublishedCase:
    name = f"rfc8867-5.1-{delay_ms:g}ms"
    steps = ((0.0, 1.0), (40.0, 2.5), (60.0, 0.6), (80.0, 1.0))
    return PublishedCase(
        name=name,
        section="5.1",
        title="Variable available capacity with a single flow",
        network=_network(name, steps, 100.0, delay_s=ms_to_s(delay_ms)),
        call=media_call(100.0),
    )


def _variable_capacity_shared() -> PublishedCase:
    name = "rfc8867-5.2"
    steps = ((0.0, 4.0), (25.0, 2.0), (50.0, 3.5), (75.0, 1.0), (100.0, 2.0))
    return PublishedCase(
        name=name,
        section="5.2",
        title="Variable available capacity with multiple flows",
        network=_network(name, steps, 125.0, competing_calls=1),
        call=media_call(125.0),
    )


def _congested_feedback() -> PublishedCase:
    name = "rfc8867-5.3"
    steps = ((0.0, 2.0), (20.0, 1.0), (40.0, 0.5), (60.0, 2.0))
    backward = ((0.0, 2.0), (35.0, 0.8), (70.0, 2.0))
    return PublishedCase(
        name=name,
        section="5.3",
        title="Congested feedback link with bidirectional media flows",
        network=_network(name, steps, 100.0),
        call=media_call(100.0),
        backward=_network(f"{name}-backward", backward, 100.0),
        departures=(
            "feedback waits behind the media that goes its way, as long as the queue held at the "
            "end of the last interval; it takes no capacity and is not dropped there",
        ),
    )


def _same_algorithm() -> PublishedCase:
    name = "rfc8867-5.4"
    return PublishedCase(
        name=name,
        section="5.4",
        title="Competing media flows with the same congestion control",
        network=_network(name, ((0.0, 3.5),), 120.0, competing_calls=2, starts_s=(20.0, 40.0)),
        call=media_call(120.0),
    )


def _rtt_fairness() -> PublishedCase:
    name = "rfc8867-5.5"
    delays_ms = (10.0, 25.0, 50.0, 100.0, 150.0)
    shortest_s = ms_to_s(delays_ms[0])
    return PublishedCase(
        name=name,
        section="5.5",
        title="Round-trip time fairness",
        network=_network(
            name,
            ((0.0, 4.0),),
            300.0,
            delay_s=shortest_s,
            competing_calls=4,
            starts_s=(10.0, 20.0, 30.0, 40.0),
            added_delay_s=[ms_to_s(delay_ms) - shortest_s for delay_ms in delays_ms[1:]],
        ),
        call=media_call(300.0),
    )


#: Media of 5.6 and 5.7 begins later than TCP does.
_LATE_START_S = 5.0
_AUDIO_FIRST = "before its video begins, the call's own flow sends its audio"


def _long_tcp(queue_ms: float) -> PublishedCase:
    name = f"rfc8867-5.6-{queue_ms:g}ms"
    tcp = TcpTraffic(algorithm="cubic", rtt_s=2.0 * PROPAGATION_DELAY_S)
    return PublishedCase(
        name=name,
        section="5.6",
        title="Media flow competing with a long TCP flow",
        network=_network(name, ((0.0, 2.0),), 120.0, queue_s=ms_to_s(queue_ms), tcp=(tcp,)),
        call=media_call(120.0, start_s=_LATE_START_S),
        media_start_s=_LATE_START_S,
        departures=(_AUDIO_FIRST,),
    )


def _short_tcp() -> PublishedCase:
    name = "rfc8867-5.7"
    flows = [
        TcpTraffic(
            algorithm="cubic",
            rtt_s=2.0 * PROPAGATION_DELAY_S,
            min_file_bytes=MIN_FILE_BYTES,
            max_file_bytes=MAX_FILE_BYTES,
            mean_idle_s=MEAN_IDLE_S,
            starts_idle=number >= SHORT_FLOWS_AT_ONCE,
        )
        for number in range(SHORT_FLOWS)
    ]
    return PublishedCase(
        name=name,
        section="5.7",
        title="Media flows competing with short TCP flows",
        network=_network(
            name,
            ((0.0, 2.0),),
            300.0,
            tcp=flows,
            competing_calls=1,
            starts_s=(_LATE_START_S,),
        ),
        call=media_call(300.0, start_s=_LATE_START_S),
        media_start_s=_LATE_START_S,
        departures=(_AUDIO_FIRST,),
    )


def _pause() -> PublishedCase:
    name = "rfc8867-5.8"
    return PublishedCase(
        name=name,
        section="5.8",
        title="Media pause and resume",
        network=_network(name, ((0.0, 3.5),), 120.0, competing_calls=2),
        call=media_call(120.0, pause_s=(40.0, 60.0)),
        departures=("the flow that pauses keeps its audio",),
    )


#: Every case of section 5, one entry per delay (5.1) and queue (5.6) that it names.
RFC_8867 = (
    _variable_capacity(50.0),
    _variable_capacity(100.0),
    _variable_capacity_shared(),
    _congested_feedback(),
    _same_algorithm(),
    _rtt_fairness(),
    _long_tcp(300.0),
    _long_tcp(1000.0),
    _short_tcp(),
    _pause(),
)

#: Suites by the name that a command line gives them.
SUITES = {"rfc8867": RFC_8867}


def suite(name: str) -> tuple[PublishedCase, ...]:
    """The cases of a suite.

    Raises:
        UnknownNameError: no such suite; the known ones are listed.
    """
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    return SUITES[name]


def published_case(name: str) -> PublishedCase:
    """The case called `name`.

    Raises:
        UnknownNameError: no such case; the known ones are listed.
    """
    known = {entry.name: entry for entries in SUITES.values() for entry in entries}
    if name not in known:
        raise unknown_name("published case", name, known)
    return known[name]

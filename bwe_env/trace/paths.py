"""Delay, jitter, random loss, queue and service that go with a kind of access network.

Capacity traces say nothing of them, so each network draws them once from the distributions below:
round-trip times and jitter of idle links (STATS section 5; the tail from the probes beside it, held
against them by ``python -m experiments.validate networks``), Gilbert loss fitted to real sessions
(STATS section 6; what STATS is, `recipes` says). How a link serves (grants), discards and drops
(queue, AQM), and how the delay steps at a hand-over, no recording of ours tells: standards say
which values there are, and how often each is met is ours. Where there is nothing, the number is
marked "ours", with its reason.

Probes waited for grants, too: what a link's grants add to the mean and to the tail of the
round-trip time is taken off its base and its jitter, so that the idle link stays as measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bwe_env.config import (
    MAX_DELAY_STEPS,
    CodelConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    PathConfig,
    PieConfig,
)
from bwe_env.errors import unknown_name
from bwe_env.network import Network
from bwe_env.trace.randomness import between, log_between, one_of, uniforms
from bwe_env.trace.trace import Trace
from bwe_env.units import BITS_PER_BYTE, ms_to_s, s_to_ms

#: RTT from an edge server near the access network on to the other party: log-normal with median
#: 20 ms and p10-p90 of 8-49 ms, a call within a country or to its neighbour. Ours: STATS section 7
#: says only "+ WAN part".
WAN_RTT_LN_MEAN = math.log(20.0)
WAN_RTT_LN_SD = 0.7
#: Nothing is nearer or (a geostationary hop apart) farther. Ours.
RTT_RANGE_MS = (5.0, 400.0)
#: of what is left of the RTT beside grants. Ours.
MIN_RTT_MS = 2.0

#: Satellite calls whose far end is reached over inter-satellite links. Ours: STATS section 5 has
#: both kinds, but no share.
ISL_SHARE = 0.25
#: Their base RTT: 65-83 ms (Lagos, STATS section 7) to 113 ms (STATS section 5).
ISL_RTT_MS = (65.0, 113.0)

#: The RTT of two directions, each with normal jitter of sd 1 clipped at 0, has its 95th percentile
#: 1.82 above its median, and its mean absolute difference of two probes is 0.884; with a mean of
#: `RAISED_JITTER_MEAN` it is 2.12 and 1.22 (Monte Carlo, 8e6).
RTT_SPREAD_PER_SCALE = 1.82
RTT_STEP_PER_SCALE = 0.884
RAISED_SPREAD_PER_SCALE = 2.12
RAISED_STEP_PER_SCALE = 1.22
#: Mean of the jitter before it is clipped, over its sd, where the median RTT lies about half as far
#: above the base as the 95th percentile above the median, or farther (satellite, wired).
RAISED_JITTER_MEAN = 0.6
#: The tail of the RTT asks for more jitter than its steps do. It counts this share, as it is what
#: a delay-based controller has to bear; with all of it satellite steps would be 1.8 times as large.
#: Ours.
SPREAD_WEIGHT = 2.0 / 3.0
#: Jitter is independent from packet to packet. Pings 0.2 s apart cannot tell how it moves within a
#: burst; the one call we have over known jitter (Chromium, independent U(0, 60) ms behind a FIFO)
#: kept 0.90 of the capacity. At 0.95 per packet GCC would keep 0.1 to 0.3 of a 4G link, which no
#: measurement supports and which would make it too easy to beat. Ours.
JITTER_CORRELATION = 0.0

#: Share of networks with random loss from the upper half of the measured sessions. STATS section 6:
#: those losses hold the sender's own congestion drops, so a link model takes the lower half, and
#: the upper one is for "bad link" scenarios; one in five is enough to learn them. Ours.
LOSSY_SHARE = 0.2
#: Percentiles of p that the two kinds are drawn between.
USUAL_LOSS_PERCENT = (5.0, 50.0)
LOSSY_PERCENT = (50.0, 90.0)

#: A queue holds at least ten packets, and as much as its time at no more than twice the 6 Mbps of
#: a call: buffers grow with the rate that a flow may use, not with that of a 5G cell. Ours.
MIN_QUEUE_BYTES = 15_000
QUEUE_REFERENCE_BPS = 12e6

#: The wait for the next grant over the interval: its mean, and what the jitter's scale gives up, in
#: quadrature, so that the 95th percentile of the RTT stays as far above the median (Monte Carlo,
#: 1e6: 0.21 to 0.26 and 0.28 to 0.34 for scales of one to three intervals, raised or not).
#: A schedule makes the wait uniform. With contention the gap g between grants is 1 and the
#: difference of two uniforms, of variance 1/6; a wait has the mean E[g^2] / 2.
SCHEDULED_WAIT = (0.5, 0.23)
CONTENDED_WAIT = (7.0 / 12.0, 0.31)
#: Jitter keeps at least this share of its scale when grants take theirs: what is left of fading and
#: contention on a link with the longest grants. Ours.
MIN_JITTER_SHARE = 0.5

#: A moving phone changes its cell about every 0.4 km of road (5G; LTE a little less often: Hassan
#: et al., "Vivisecting mobility management in 5G cellular networks", SIGCOMM 2022), at 36 km/h
#: every 40 s.
HANDOVER_INTERVAL_S = 40.0
#: Share of mobile networks that move: most calls are held in one place. Ours.
MOVING_SHARE = 0.25
#: What the delay of one direction has more than in the nearest cell, after a change of cell. Ours:
#: the backhaul of another site; 10 ms is a tenth of the RTT spread of bad sessions (STATS section
#: 7, "handover spikes").
CELL_ADDED_S = (0.0, 0.010)

#: Starlink assigns satellites anew every 15 s (STATS section 7).
RECONFIGURATION_S = 15.0
#: What one direction has more than over the best satellite: up to 550 km and down, the zenith and
#: 25 degrees of elevation differ by 3.8 ms, and by a little more with another gateway. Ours.
SATELLITE_ADDED_S = (0.0, 0.005)

#: Discard timers of a radio bearer; 0 for "infinity", the usual value where delay is no concern.
#: discardTimer of 3GPP TS 36.331 and 38.331 has 50 to 1500 ms; below 300 ms it is for voice
#: bearers, and calls of applications go over the one of all other traffic. Half the networks have
#: none: ours.
PDCP_DISCARD_S = (0.0, 0.0, 0.0, 0.3, 0.75, 1.5)
#: RLC SDU discard timers of UMTS: 0.1 to 7.5 s (3GPP TS 25.331, Timer_discard). Shares: ours.
RLC_DISCARD_S = (0.0, 0.0, 0.0, 0.75, 1.5, 3.0)
#: Lifetime of an MSDU: 500 time units of 1024 us by default (IEEE 802.11,
#: dot11EDCATableMSDULifetime); many access points leave it to the queue. Share: ours.
MSDU_LIFETIME_S = (0.0, 0.0, 0.512)


@dataclass(frozen=True, kw_only=True)
class QueueManagement:
    """What drops before the queue is full."""

    share: float
    """of networks. Ours throughout"""
    link: LinkConfig
    """whose discipline that is"""


#: CoDel as Linux runs it per station of an access point: target 20 ms, interval 100 ms
#: (net/mac80211). A call alone in its queue, as fair queueing would have it.
WIFI_CODEL = LinkConfig(discipline="codel", codel=CodelConfig(target_s=0.02, interval_s=0.1))
#: CoDel with the values of RFC 8289, as home routers that shape run it (fq_codel, RFC 8290).
ROUTER_CODEL = LinkConfig(discipline="codel")
#: DOCSIS-PIE, in every DOCSIS 3.1 modem: 10 ms, every 16 ms, bursts of 142 ms, A and B of RFC 8034
#: appendix A. (Of its own burst states and derandomisation there are none, see `queue_discipline`.)
DOCSIS_PIE = LinkConfig(
    discipline="pie",
    pie=PieConfig(
        reference_s=0.010,
        update_interval_s=0.016,
        max_burst_s=0.142,
        alpha_per_s=0.25,
        beta_per_s=2.5,
    ),
)

#: Uniforms per network. Their order is part of every recorded network: append only. The last ones
#: are of hand-overs: one for all, three for each of as many as there may be.
NUM_DRAWS = 19 + 1 + 3 * (MAX_DELAY_STEPS // 2)

P_PERCENTS = (5.0, 25.0, 50.0, 75.0, 90.0, 95.0)
R_PERCENTS = (5.0, 25.0, 50.0, 75.0, 95.0)


@dataclass(frozen=True, kw_only=True)
class GilbertTable:
    """Quantiles of a loss chain's transition probabilities per packet over real sessions."""

    good_to_bad: tuple[float, ...]
    """at `P_PERCENTS`"""
    bad_to_good: tuple[float, ...]
    """at `R_PERCENTS`"""
    correlation: float
    """of their logarithms"""


# STATS section 6 (stats.json: p_good_to_bad_q, r_bad_to_good_q, corr_log10p_log10r).
CELL_LOSS = GilbertTable(
    good_to_bad=(3.23e-6, 1.65e-5, 7.47e-5, 5.21e-4, 3.32e-3, 5.14e-3),
    bad_to_good=(0.4062, 0.4905, 0.5556, 0.6395, 1.0),
    correlation=-0.11,
)
WIFI_LOSS = GilbertTable(
    good_to_bad=(1.15e-5, 7.09e-5, 3.88e-4, 7.83e-3, 3.04e-2, 5.44e-2),
    bad_to_good=(0.0715, 0.165, 0.3106, 0.4625, 0.756),
    correlation=0.55,
)
WIRED_LOSS = GilbertTable(
    good_to_bad=(3.96e-6, 1.78e-5, 1.06e-4, 2.04e-3, 1.9e-2, 2.73e-2),
    bad_to_good=(0.0599, 0.0941, 0.1429, 0.2524, 0.5658),
    correlation=0.52,
)


@dataclass(frozen=True, kw_only=True)
class SatelliteLoss:
    """Background loss with rare bursts, each of many packets."""

    background: tuple[float, float] = (0.001, 0.01)
    """log-uniform. STATS section 7 judges 0.3-1 %; widened downwards, since its sample of 3.3 % is
    one recording and most links are better"""
    burst_packets: tuple[float, float] = (10.0, 35.0)
    """mean burst, STATS section 7"""
    packets_between_bursts: float = 12_000.0
    """a minute at 200 packets per second: one in four of the 15 s reconfigurations that STATS
    section 7 names. Ours"""


@dataclass(frozen=True, kw_only=True)
class PathRecipe:
    """What to draw delay, jitter, loss and queue from."""

    base_rtt_ln_mean: float
    """of the base RTT in ms"""
    base_rtt_ln_sd: float
    has_wan: bool
    """whether the RTT stands for the access alone, so that `WAN_RTT` comes on top"""
    rtt_spread_ms: float
    """95th percentile of the RTT above its median, in a median session"""
    rtt_spread_low_ms: float
    """the same in a session at the 10th percentile of sessions"""
    rtt_step_ms: float
    """mean absolute difference of successive probes"""
    spread_per_scale: float = RTT_SPREAD_PER_SCALE
    step_per_scale: float = RTT_STEP_PER_SCALE
    jitter_mean: float = 0.0
    """before it is clipped, over its sd"""
    loss: GilbertTable | SatelliteLoss
    queue_s: tuple[float, float]
    """log-uniform; time the queue holds, at the mean capacity or at the present one. Ours
    throughout"""
    timed_queue_share: float
    """of queues that are limited in time, at the present capacity, not in bytes. Ours throughout"""
    management: tuple[QueueManagement, ...] = ()
    grants_s: tuple[float, ...]
    """intervals between grants, equally likely; 0 for none. Shares ours throughout"""
    is_contended: bool = False
    """whether turns come at random (`LinkConfig.grant_spread` of 1), not by a schedule"""
    discard_s: tuple[float, ...] = (0.0,)
    """limits of the wait in a radio buffer, equally likely; 0 for none"""
    interruption_s: tuple[float, float] | None = None
    """how long nothing comes through at a change of cell; None where there are no cells"""

    @property
    def jitter_scale_ms(self) -> float:
        """Per direction, of a median session: between what the tail and the steps of the RTT ask
        for.
        """
        tail = self.rtt_spread_ms / self.spread_per_scale
        body = self.rtt_step_ms / self.step_per_scale
        return float(tail**SPREAD_WEIGHT * body ** (1.0 - SPREAD_WEIGHT))

    @property
    def jitter_ln_sd(self) -> float:
        """Spread over sessions, from the lower half. The upper tail of STATS (83-176 ms) is
        handovers and queues, which the capacity's own dips bring about already.
        """
        low = math.log(self.rtt_spread_ms / self.rtt_spread_low_ms)
        return low / NormalDist().inv_cdf(0.9)


PATH_RECIPES = {
    # STATS section 7: no data, the literature has 70-150 ms. Jitter 1.5 times that of 4G; base
    # stations known for buffers of seconds. Ours.
    "3G": PathRecipe(
        base_rtt_ln_mean=math.log(100.0),
        base_rtt_ln_sd=0.25,
        has_wan=False,
        rtt_spread_ms=34.5,
        rtt_spread_low_ms=15.5,
        rtt_step_ms=12.1,
        loss=CELL_LOSS,
        queue_s=(0.3, 2.0),
        timed_queue_share=0.1,
        # Transmission time intervals of E-DCH (2 and 10 ms) and of dedicated channels (10 to 80
        # ms), 3GPP TS 25.321; the longest are for voice.
        grants_s=(0.002, 0.010, 0.020, 0.040),
        discard_s=RLC_DISCARD_S,
        # A change of the serving HSDPA cell goes through the controller of the network. Ours.
        interruption_s=(0.1, 0.3),
    ),
    # STATS section 5, "4G/5G cellular drive (US)". Deep per-user queues, shallower than 3G. Ours.
    # Base stations buffer packets (bytes); those that size buffers by the rate are few.
    "4G-LTE": PathRecipe(
        base_rtt_ln_mean=4.106,
        base_rtt_ln_sd=0.315,
        has_wan=False,
        rtt_spread_ms=23.0,
        rtt_spread_low_ms=9.9,
        rtt_step_ms=8.09,
        loss=CELL_LOSS,
        queue_s=(0.15, 1.5),
        timed_queue_share=0.2,
        # Scheduling requests come every 1 to 80 ms (3GPP TS 36.213 table 10.1.5-1); a phone that
        # sends all the time gets by with buffer status reports every 5 to 20 ms.
        grants_s=(0.005, 0.010, 0.020),
        discard_s=PDCP_DISCARD_S,
        # 3GPP TR 36.881: about 50 ms without user data. The range is ours.
        interruption_s=(0.03, 0.08),
    ),
    # STATS section 5: RTT pooled from "3 operators" (3.948 +- 0.243) and "city" (3.726 +- 0.179),
    # jitter of "5G cellular city".
    "5G": PathRecipe(
        base_rtt_ln_mean=3.837,
        base_rtt_ln_sd=0.24,
        has_wan=False,
        rtt_spread_ms=21.7,
        rtt_spread_low_ms=10.4,
        rtt_step_ms=8.42,
        loss=CELL_LOSS,
        queue_s=(0.1, 1.0),
        timed_queue_share=0.3,
        # Periods of the TDD pattern up to 10 ms (3GPP TS 38.331, dl-UL-TransmissionPeriodicity);
        # mid-band networks use 2.5 and 5 ms.
        grants_s=(0.0025, 0.005, 0.010),
        discard_s=PDCP_DISCARD_S,
        # As LTE, or longer where LTE and NR cells change one after the other. Ours.
        interruption_s=(0.03, 0.15),
    ),
    # STATS section 5, "WiFi". Access points hold some hundred packets. Ours.
    "wifi": PathRecipe(
        base_rtt_ln_mean=2.57,
        base_rtt_ln_sd=0.285,
        has_wan=True,
        rtt_spread_ms=13.6,
        rtt_spread_low_ms=3.7,
        rtt_step_ms=3.79,
        loss=WIFI_LOSS,
        queue_s=(0.08, 0.5),
        # Access points under Linux limit a station's queue in airtime.
        timed_queue_share=0.3,
        management=(QueueManagement(share=0.25, link=WIFI_CODEL),),
        # An aggregate lasts up to 5.5 ms (IEEE 802.11ac, aPPDUMaxTime): turns of a station that is
        # alone, has one neighbour, or some.
        grants_s=(0.002, 0.004, 0.008),
        is_contended=True,
        discard_s=MSDU_LIFETIME_S,
    ),
    # STATS section 5, "wired". From modems with AQM to bloated ones. Ours.
    "wired-broadband": PathRecipe(
        base_rtt_ln_mean=2.038,
        base_rtt_ln_sd=0.352,
        has_wan=True,
        rtt_spread_ms=1.95,
        rtt_spread_low_ms=0.85,
        rtt_step_ms=1.48,
        spread_per_scale=RAISED_SPREAD_PER_SCALE,
        step_per_scale=RAISED_STEP_PER_SCALE,
        jitter_mean=RAISED_JITTER_MEAN,
        loss=WIRED_LOSS,
        queue_s=(0.05, 0.4),
        # Drivers under Linux hold what the last times could send (byte queue limits).
        timed_queue_share=0.3,
        management=(
            QueueManagement(share=0.2, link=DOCSIS_PIE),
            QueueManagement(share=0.1, link=ROUTER_CODEL),
        ),
        # Cable modems send when a MAP message lets them: one every 2 ms or so (DOCSIS 3.1). DSL and
        # fibre have none, or of microseconds.
        grants_s=(0.0, 0.0, 0.002),
    ),
    # STATS section 5, "Starlink bent-pipe to gateway". Queues kept short by the operator. Ours.
    "satellite": PathRecipe(
        base_rtt_ln_mean=3.145,
        base_rtt_ln_sd=0.04,
        has_wan=True,
        rtt_spread_ms=39.8,
        rtt_spread_low_ms=31.9,
        rtt_step_ms=13.9,
        spread_per_scale=RAISED_SPREAD_PER_SCALE,
        step_per_scale=RAISED_STEP_PER_SCALE,
        jitter_mean=RAISED_JITTER_MEAN,
        loss=SatelliteLoss(),
        queue_s=(0.1, 0.4),
        timed_queue_share=0.3,
        # Every 4th, 8th or 16th frame of 4/3 ms (Humphreys et al., "Signal structure of the
        # Starlink Ku-band downlink", 2023); how many a terminal waits for is not published.
        grants_s=(0.00533, 0.01067, 0.02133),
    ),
}


def draw_network(trace: Trace, *, access_only: bool = False) -> Network:
    """A network on this trace, with the path that its type and its name draw.

    Args:
        access_only: end the path where probes of access networks end, at an edge server or a
            satellite's gateway, to compare it with them. No call does.

    Raises:
        UnknownNameError: a "pattern" has no such distributions; build its `Network` by hand.
    """
    if trace.network_type not in PATH_RECIPES:
        raise unknown_name("network type with a path", trace.network_type, PATH_RECIPES)
    recipe = PATH_RECIPES[trace.network_type]
    draws = uniforms(NUM_DRAWS, "path", trace.name).tolist()
    link = _link(recipe, trace, draws[5], draws[15:19])
    rtt_ms = _base_rtt_ms(recipe, draws[0:4], access_only=access_only)
    one_way_s = ms_to_s(max(MIN_RTT_MS, rtt_ms - _grant_wait_ms(recipe, link)[0])) / 2.0
    # Feedback is few packets: its path loses as a usual link does, whatever the forward one does.
    # Both directions share one access network and so one level of jitter.
    jitter = _jitter(recipe, draws[6], link)
    steps = _delay_steps(recipe, draws[19:])
    forward_percent = LOSSY_PERCENT if draws[4] < LOSSY_SHARE else USUAL_LOSS_PERCENT
    return Network(
        trace=trace,
        link=link,
        forward=PathConfig(
            propagation_delay_s=one_way_s,
            jitter=jitter,
            loss=_loss(recipe.loss, forward_percent, draws[7:11]),
            delay_steps=steps,
        ),
        reverse=PathConfig(
            propagation_delay_s=one_way_s,
            jitter=jitter,
            loss=_loss(recipe.loss, USUAL_LOSS_PERCENT, draws[11:15]),
            delay_steps=steps,
        ),
    )


def _log_normal(ln_mean: float, ln_sd: float, u: float) -> float:
    return math.exp(ln_mean + ln_sd * _normal(u))


def _normal(u: float) -> float:
    return NormalDist().inv_cdf(min(max(u, 1e-9), 1.0 - 1e-9))


def _base_rtt_ms(recipe: PathRecipe, draws: Sequence[float], *, access_only: bool) -> float:
    if isinstance(recipe.loss, SatelliteLoss) and draws[0] < ISL_SHARE and not access_only:
        return between(ISL_RTT_MS, draws[1])
    rtt_ms = _log_normal(recipe.base_rtt_ln_mean, recipe.base_rtt_ln_sd, draws[2])
    if recipe.has_wan and not access_only:
        rtt_ms += _log_normal(WAN_RTT_LN_MEAN, WAN_RTT_LN_SD, draws[3])
    return min(max(rtt_ms, RTT_RANGE_MS[0]), RTT_RANGE_MS[1])


def _grant_wait_ms(recipe: PathRecipe, link: LinkConfig) -> tuple[float, float]:
    """Mean wait for the next grant, and the scale of the jitter that it stands for."""
    mean, scale = CONTENDED_WAIT if recipe.is_contended else SCHEDULED_WAIT
    interval_ms = s_to_ms(link.grant_interval_s)
    return mean * interval_ms, scale * interval_ms


def _jitter(recipe: PathRecipe, u: float, link: LinkConfig) -> JitterConfig:
    scale_ms = _log_normal(math.log(recipe.jitter_scale_ms), recipe.jitter_ln_sd, u)
    granted_ms = _grant_wait_ms(recipe, link)[1]
    rest_ms2 = scale_ms**2 - granted_ms**2
    scale_ms = math.sqrt(max((MIN_JITTER_SHARE * scale_ms) ** 2, rest_ms2))
    return JitterConfig(
        distribution="normal",
        mean_s=ms_to_s(recipe.jitter_mean * scale_ms),
        scale_s=ms_to_s(scale_ms),
        correlation=JITTER_CORRELATION,
    )


def _loss(
    loss: GilbertTable | SatelliteLoss, percent: tuple[float, float], draws: Sequence[float]
) -> LossConfig:
    if isinstance(loss, SatelliteLoss):
        return LossConfig(
            good_loss=log_between(loss.background, draws[0]),
            good_to_bad=1.0 / loss.packets_between_bursts,
            bad_to_good=1.0 / between(loss.burst_packets, draws[1]),
        )
    p_percent = between(percent, draws[0])
    # r follows p by the correlation of their normal scores (a Gaussian copula).
    score = loss.correlation * _normal(p_percent / 100.0)
    score += math.sqrt(1.0 - loss.correlation**2) * _normal(draws[1])
    r_percent = 100.0 * NormalDist().cdf(score)
    return LossConfig(
        good_to_bad=_quantile(p_percent, P_PERCENTS, loss.good_to_bad),
        bad_to_good=_quantile(r_percent, R_PERCENTS, loss.bad_to_good),
    )


def _quantile(percent: float, percents: Sequence[float], values: Sequence[float]) -> float:
    """Read a quantile table, straight in the logarithm; its ends hold beyond them."""
    return math.exp(float(np.interp(percent, percents, np.log(values))))


def _link(recipe: PathRecipe, trace: Trace, size: float, draws: Sequence[float]) -> LinkConfig:
    link = _managed(recipe.management, draws[1])
    queue_s = log_between(recipe.queue_s, size)
    if draws[0] < recipe.timed_queue_share:
        link = dataclasses.replace(link, queue_limit_s=queue_s)
    else:
        reference_bps = min(trace.mean_bps, QUEUE_REFERENCE_BPS)
        queue_bytes = max(MIN_QUEUE_BYTES, round(queue_s * reference_bps / BITS_PER_BYTE))
        link = dataclasses.replace(link, queue_limit_bytes=queue_bytes)
    interval_s = one_of(recipe.grants_s, draws[2])
    return dataclasses.replace(
        link,
        grant_interval_s=interval_s,
        grant_spread=1.0 if recipe.is_contended and interval_s > 0.0 else 0.0,
        max_wait_s=one_of(recipe.discard_s, draws[3]),
    )


def _managed(kinds: Sequence[QueueManagement], u: float) -> LinkConfig:
    """A link with the discipline that was drawn: one of these, or none."""
    for kind in kinds:
        if u < kind.share:
            return kind.link
        u -= kind.share
    return LinkConfig()


def _delay_steps(recipe: PathRecipe, draws: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Hand-overs of a call, as far as `MAX_DELAY_STEPS` lets it know them."""
    if isinstance(recipe.loss, SatelliteLoss):
        phase_s = draws[0] * RECONFIGURATION_S
        return tuple(
            (phase_s + slot * RECONFIGURATION_S, between(SATELLITE_ADDED_S, u))
            for slot, u in enumerate(draws[1 : 1 + MAX_DELAY_STEPS])
        )
    if recipe.interruption_s is None or draws[0] >= MOVING_SHARE:
        return ()
    steps: list[tuple[float, float]] = []
    now_s = added_s = 0.0
    for wait, interruption, level in zip(draws[1::3], draws[2::3], draws[3::3], strict=False):
        now_s -= HANDOVER_INTERVAL_S * math.log(1.0 - wait)
        # What the old cell still gets meanwhile it forwards to the new one, which delivers it first
        # (3GPP TS 36.300, data forwarding): nothing comes through for so long. A step of the delay
        # is harder than that: what is sent meanwhile is late by all of the stall instead of by half
        # on average, and only what is sent as long after it comes in a burst.
        stall_s = between(recipe.interruption_s, interruption)
        steps.append((now_s, added_s + stall_s))
        now_s += stall_s
        added_s = between(CELL_ADDED_S, level)
        steps.append((now_s, added_s))
    return tuple(steps[:MAX_DELAY_STEPS])

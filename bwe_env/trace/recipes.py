"""How each kind of access network behaves: the numbers behind `synthetic`, with their sources.

STATS is the digest of some 740 public recordings (``STATS.md`` and ``stats.json``) that lies in the
directory of measured traces; it is quoted here, not shipped. Medians, percentiles and outages are
its own (``stats.json``: section 1, "log10_session_median_bps"; section 2, "ln_ratio_quantiles";
section 3, "outage_lt150kbps"), with its caveats: TCP-measured sets hold stalls that look like dips,
3G up (6 recordings) and 4G up (8) are small samples.

How a link moves (`slow_tau_s` to `noise_sd`) is ours: a random search for the numbers with which
1 s means of the synthetic capacity have the sd, the autocorrelation at 1 to 20 s, the steps (p50
to p95) and the dips of STATS sections 2 and 3. `tests/trace/test_synthetic.py` holds the two side
by side. Time constants are longer than STATS' own, which are those of a clock without bursts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

#: One segment of a synthetic trace. STATS section 7 names 100-200 ms as the step of a simulator.
STEP_S = 0.2

#: Below it a link counts as in outage; STATS, head.
OUTAGE_BPS = 150e3

#: What a congested network's session median is drawn between, log-uniform. Ours: from where a call
#: shows little more than a face, to the highest rate of a call (`CallConfig.max_rate_bps`). Crowded
#: cells, weak signals, shared access points, cheap lines; the measured sets hold few of them, since
#: they are drive tests and speed tests of fast networks (STATS, caveat 5).
CONGESTED_MEDIAN_BPS = (0.3e6, 6e6)

#: Cut of ln(capacity / median), a factor of 12. The last percent of the 5G and satellite tables
#: goes up to 7 because some sessions have a median near outage; no session of usual median does
#: that. Ours.
MAX_LN_RATIO = 2.5

#: Of the values in `Recipe.ln_ratio_percentiles`; stats.json, "pct".
PERCENTS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9)


@dataclass(frozen=True, kw_only=True)
class Outages:
    """Events that leave the link less than `OUTAGE_BPS`; STATS section 3."""

    prone_share: float
    """share of sessions that have any"""
    time_share: float
    """share of time spent in one, over all sessions"""
    median_s: float
    """duration, log-normal"""
    p90_s: float
    longest_s: float
    """99th percentile; longer ones are cut to it"""

    @property
    def ln_sd(self) -> float:
        """Sd of the logarithm of the duration."""
        return math.log(self.p90_s / self.median_s) / NormalDist().inv_cdf(0.9)

    @property
    def mean_s(self) -> float:
        """Mean duration, of the log-normal cut at `longest_s`."""
        normal = NormalDist()
        cut = math.log(self.longest_s / self.median_s) / self.ln_sd
        below = self.median_s * math.exp(self.ln_sd**2 / 2.0) * normal.cdf(cut - self.ln_sd)
        return below + self.longest_s * (1.0 - normal.cdf(cut))


@dataclass(frozen=True, kw_only=True)
class Dips:
    """Cross traffic or scheduling that leaves part of the capacity; all draws uniform."""

    per_min: tuple[float, float]
    """rate, drawn per session"""
    ratio: tuple[float, float]
    """what is left of the capacity"""
    duration_s: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PeriodicDips:
    """Dips at a fixed interval, in episodes."""

    period_s: float
    duration_s: float
    """of one dip"""
    ratio: tuple[float, float]
    """what is left of the capacity, uniform, drawn per dip"""
    time_share: float
    """share of time in an episode"""
    episode_s: float
    """mean length of an episode"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One kind of link: its session medians, and how capacity moves around them."""

    name: str
    network_type: str
    log10_median_mean: float
    """of the session's median capacity in bps"""
    log10_median_sd: float
    median_range_bps: tuple[float, float] = (0.0, math.inf)
    """the drawn median is clipped to it"""
    max_bps: float
    """no capacity exceeds it: about the highest of the measured traces of this kind. The highest
    percentiles belong to sessions of low median; on a fast one they would be no link at all"""
    ln_ratio_percentiles: tuple[tuple[float, float], ...]
    """(percent, ln(capacity / session median))"""
    slow_tau_s: float = 1.0
    """time constant of the slow part"""
    slow_share: float = 0.5
    """its share of the variance"""
    fast_tau_s: float = 1.0
    """time constant of the fast part"""
    burst_share: float = 0.5
    """mean share of time in which the link moves fast"""
    burst_share_sd: float = 0.0
    """sd of the logarithm of that share over sessions"""
    burst_s: float = 1.0
    """mean length of a burst of movement"""
    quiet_speed: float = 1.0
    """speed of the clock between bursts; its mean speed is 1"""
    noise_sd: tuple[float, float] = (0.0, 0.0)
    """sd of ln(capacity) within a second, in bursts; drawn per session, uniform"""
    outages: Outages | None = None
    dips: Dips | None = None
    periodic_dips: PeriodicDips | None = None

    @property
    def outage_percent(self) -> float:
        """The percentile of `ln_ratio_percentiles` below which lie the outages."""
        return 100.0 * self.outages.time_share if self.outages is not None else 0.0

    @property
    def outage_ln_ratio(self) -> float:
        """`OUTAGE_BPS` in terms of that table, for a session of typical median."""
        return math.log(OUTAGE_BPS) - math.log(10.0) * self.log10_median_mean


#: What a scheduling gap leaves of the capacity, and how long gaps are (one or two steps): the dips
#: that 1 s means hide. STATS section 2, 200 ms (stats.json, "dip_lt_half_median"): 16 per minute
#: with 4G down, 11 with 4G up, 9 with WiFi, mostly of 0.2 s. 5G as 4G; the 3G sets are quantised at
#: that step (STATS, caveat 3), so 3G has none. Ours.
GAP_RATIO = (0.1, 0.6)
GAP_S = (0.2, 0.4)


def _percentiles(values: str) -> tuple[tuple[float, float], ...]:
    return tuple(zip(PERCENTS, map(float, values.split()), strict=True))


_RECIPES = (
    # STATS class "3G-down".
    Recipe(
        name="3G-down",
        network_type="3G",
        log10_median_mean=6.004,
        log10_median_sd=0.21,
        max_bps=10e6,
        ln_ratio_percentiles=_percentiles(
            "-7.223 -6.174 -4.868 -3.351 -1.87 -1.223 -0.484 0.0 "
            "0.298 0.559 0.748 1.032 1.263 1.449 1.927"
        ),
        slow_tau_s=39.0,
        slow_share=0.78,
        fast_tau_s=0.57,
        burst_share=0.7,
        burst_share_sd=0.2,
        burst_s=2.9,
        quiet_speed=0.056,
        noise_sd=(0.1, 0.1),
        outages=Outages(
            prone_share=0.924,
            time_share=0.0632,
            median_s=2.0,
            p90_s=8.0,
            longest_s=23.74,
        ),
    ),
    # STATS class "3G-up".
    Recipe(
        name="3G-up",
        network_type="3G",
        log10_median_mean=5.983,
        log10_median_sd=0.062,
        max_bps=6e6,
        ln_ratio_percentiles=_percentiles(
            "-7.06 -6.867 -6.755 -6.644 -2.478 -1.266 -0.422 0.0 "
            "0.179 0.295 0.451 0.586 0.612 0.629 0.637"
        ),
        slow_tau_s=21.0,
        slow_share=0.78,
        fast_tau_s=4.6,
        burst_share=0.34,
        burst_share_sd=1.1,
        burst_s=2.5,
        quiet_speed=0.31,
        noise_sd=(0.6, 0.6),
        outages=Outages(
            prone_share=1.0,
            time_share=0.0723,
            median_s=2.0,
            p90_s=8.0,
            longest_s=23.4,
        ),
    ),
    # STATS class "4G-down-mobile".
    Recipe(
        name="4G-LTE-down",
        network_type="4G-LTE",
        log10_median_mean=7.29,
        log10_median_sd=0.546,
        max_bps=250e6,
        ln_ratio_percentiles=_percentiles(
            "-10.736 -9.68 -9.23 -8.376 -1.946 -1.101 -0.357 0.0 "
            "0.244 0.649 0.965 1.382 1.797 2.062 2.442"
        ),
        slow_tau_s=64.0,
        slow_share=0.95,
        fast_tau_s=0.2,
        burst_share=0.63,
        burst_share_sd=0.3,
        burst_s=3.0,
        quiet_speed=0.13,
        noise_sd=(0.25, 0.25),
        dips=Dips(per_min=(6.0, 18.0), ratio=GAP_RATIO, duration_s=GAP_S),
        outages=Outages(
            prone_share=0.502,
            time_share=0.0326,
            median_s=1.0,
            p90_s=4.0,
            longest_s=15.92,
        ),
    ),
    # STATS class "4G-up-mobile".
    Recipe(
        name="4G-LTE-up",
        network_type="4G-LTE",
        log10_median_mean=6.188,
        log10_median_sd=0.445,
        max_bps=40e6,
        ln_ratio_percentiles=_percentiles(
            "-7.356 -6.951 -6.659 -6.659 -6.659 -1.859 -0.38 0.0 "
            "0.113 0.4 0.513 0.787 0.887 0.949 1.505"
        ),
        slow_tau_s=72.0,
        slow_share=0.95,
        fast_tau_s=0.5,
        burst_share=0.14,
        burst_share_sd=0.25,
        burst_s=0.85,
        quiet_speed=0.21,
        noise_sd=(0.5, 0.5),
        dips=Dips(per_min=(4.0, 12.0), ratio=GAP_RATIO, duration_s=GAP_S),
        outages=Outages(
            prone_share=0.625,
            time_share=0.0937,
            median_s=2.0,
            p90_s=4.6,
            longest_s=55.88,
        ),
    ),
    # STATS class "5G-down".
    Recipe(
        name="5G-down",
        network_type="5G",
        log10_median_mean=8.034,
        log10_median_sd=0.538,
        max_bps=1.2e9,
        ln_ratio_percentiles=_percentiles(
            "-12.553 -11.292 -9.82 -7.063 -2.545 -1.481 -0.515 0.0 "
            "0.368 0.881 1.272 2.036 2.625 3.357 4.903"
        ),
        slow_tau_s=41.0,
        slow_share=0.95,
        fast_tau_s=0.46,
        burst_share=0.43,
        burst_share_sd=0.9,
        burst_s=1.1,
        quiet_speed=0.45,
        noise_sd=(0.6, 0.6),
        dips=Dips(per_min=(6.0, 18.0), ratio=GAP_RATIO, duration_s=GAP_S),
        outages=Outages(
            prone_share=0.439,
            time_share=0.0244,
            median_s=1.0,
            p90_s=4.0,
            longest_s=33.22,
        ),
    ),
    # STATS class "5G-mmWave-down".
    Recipe(
        name="5G-mmWave-down",
        network_type="5G",
        log10_median_mean=8.516,
        log10_median_sd=0.363,
        max_bps=2e9,
        ln_ratio_percentiles=_percentiles(
            "-13.54 -13.162 -11.813 -11.626 -3.359 -2.041 -0.715 0.0 "
            "0.453 1.072 1.599 2.045 2.303 2.468 2.713"
        ),
        slow_tau_s=4.3,
        slow_share=0.39,
        fast_tau_s=3.0,
        burst_share=0.37,
        burst_share_sd=0.6,
        burst_s=6.2,
        quiet_speed=0.037,
        noise_sd=(0.03, 0.03),
        dips=Dips(per_min=(6.0, 18.0), ratio=GAP_RATIO, duration_s=GAP_S),
        outages=Outages(
            prone_share=0.917,
            time_share=0.0238,
            median_s=1.0,
            p90_s=4.0,
            longest_s=9.42,
        ),
    ),
    # STATS class "5G-up".
    Recipe(
        name="5G-up",
        network_type="5G",
        log10_median_mean=7.404,
        log10_median_sd=0.434,
        max_bps=160e6,
        ln_ratio_percentiles=_percentiles(
            "-10.837 -9.976 -9.644 -8.402 -2.398 -1.425 -0.42 0.0 "
            "0.354 0.834 1.118 1.531 1.911 2.444 2.897"
        ),
        slow_tau_s=18.0,
        slow_share=0.8,
        fast_tau_s=1.0,
        burst_share=0.25,
        burst_share_sd=0.9,
        burst_s=2.0,
        quiet_speed=0.1,
        noise_sd=(0.5, 0.5),
        dips=Dips(per_min=(4.0, 12.0), ratio=GAP_RATIO, duration_s=GAP_S),
        outages=Outages(
            prone_share=0.5,
            time_share=0.0294,
            median_s=1.0,
            p90_s=3.0,
            longest_s=6.73,
        ),
    ),
    # STATS class "wifi-down".
    Recipe(
        name="wifi-down",
        network_type="wifi",
        log10_median_mean=7.295,
        log10_median_sd=0.428,
        max_bps=50e6,
        ln_ratio_percentiles=_percentiles(
            "-5.778 -3.616 -2.949 -2.444 -1.523 -0.717 -0.184 0.0 "
            "0.057 0.217 0.318 0.742 2.355 2.385 2.393"
        ),
        slow_tau_s=39.0,
        slow_share=0.85,
        fast_tau_s=2.2,
        burst_share=0.62,
        burst_share_sd=0.95,
        burst_s=7.1,
        quiet_speed=0.5,
        noise_sd=(0.19, 0.19),
        dips=Dips(per_min=(5.0, 11.0), ratio=GAP_RATIO, duration_s=GAP_S),
        outages=Outages(
            prone_share=0.238,
            time_share=0.0027,
            median_s=1.0,
            p90_s=1.8,
            longest_s=2.0,
        ),
    ),
    # STATS class "satellite-down".
    Recipe(
        name="satellite-down",
        network_type="satellite",
        log10_median_mean=7.892,
        log10_median_sd=0.603,
        max_bps=400e6,
        ln_ratio_percentiles=_percentiles(
            "-11.915 -11.622 -11.622 -11.265 -10.174 -2.269 -0.493 0.0 "
            "0.282 0.586 0.82 1.733 3.569 5.206 7.371"
        ),
        slow_tau_s=25.0,
        slow_share=0.37,
        fast_tau_s=1.1,
        burst_share=0.45,
        burst_share_sd=0.13,
        burst_s=15,
        quiet_speed=0.093,
        noise_sd=(0.32, 0.32),
        outages=Outages(
            prone_share=0.629,
            time_share=0.0825,
            median_s=2.0,
            p90_s=17.8,
            longest_s=74.32,
        ),
    ),
    # STATS section 7, "satellite-up": white noise and a 5 s periodic dip. The upper percentiles are
    # measured; the lower ones are their like without the dips; dips and episodes are read off the
    # measured traces (a second and a half at about 0.65, for some tens of seconds). Ours.
    Recipe(
        name="satellite-up",
        network_type="satellite",
        log10_median_mean=7.182,
        log10_median_sd=0.331,
        max_bps=60e6,
        ln_ratio_percentiles=_percentiles(
            "-1.0 -0.6 -0.4 -0.3 -0.2 -0.12 -0.05 0.0 0.037 0.072 0.154 0.299 0.511 0.606 0.719"
        ),
        slow_tau_s=16.0,
        slow_share=0.6,
        fast_tau_s=1.0,
        noise_sd=(0.05, 0.1),
        periodic_dips=PeriodicDips(
            period_s=5.0, duration_s=1.4, ratio=(0.5, 0.8), time_share=0.5, episode_s=25.0
        ),
    ),
    # STATS section 7, "Wired broadband capacity": a judgement, not a fit (what is measured there is
    # TCP delivery, not the line): near-constant rate, white noise, cross traffic.
    Recipe(
        name="wired-broadband",
        network_type="wired-broadband",
        log10_median_mean=7.0,
        log10_median_sd=0.4,
        median_range_bps=(0.7e6, 100e6),
        max_bps=100e6,
        ln_ratio_percentiles=((50.0, 0.0),),
        noise_sd=(0.03, 0.1),
        dips=Dips(per_min=(0.5, 2.0), ratio=(0.2, 0.7), duration_s=(2.0, 6.0)),
    ),
)

#: Every kind of link, by name.
RECIPES = {recipe.name: recipe for recipe in _RECIPES}

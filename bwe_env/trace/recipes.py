"""How each kind of access network behaves: the numbers behind `synthetic`, with their sources.

Every number of a recipe that says nothing else is fitted to the measured traces of its type and
direction: a random search for the numbers with which 1 s means of the synthetic capacity have the
sd, the autocorrelation at 1 to 20 s, the steps (p50 to p99), the outages and the dips of the
recordings. ``python -m experiments.validate networks DIRECTORY`` holds the two side by side.
Nothing but those statistics was looked at: no controller ran. Tables of percentiles are the
measured ones, stretched (by 0.6 to 1.4, one factor below and one above the median) to undo what
averaging, dips and caps take away or add. Medians and their spread are those of the draw, from
which the recorded ones come out.

STATS is the digest of some 740 public recordings, part of which lies in the directory of measured
traces (``STATS.md`` and ``stats.json`` there); it is quoted here, not shipped. Its caveats hold:
TCP-measured sets hold stalls that look like dips, 3G up (6 recordings) and 4G up (8) are small
samples.
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
    """longer ones are cut to it"""
    weakness: float = 1.0
    """how much likelier one begins on a weak link: the rate is proportional to exp(-this * z), with
    the standard normal z that moves the link. With 2 a few sessions hold all outages"""

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
    """Events that leave part of the capacity, each drawn between two bounds."""

    per_min: tuple[float, float]
    """rate, drawn per session"""
    ratio: tuple[float, float]
    """what is left of the capacity, log-uniform"""
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
    gaps: Dips | None = None
    """within a second: scheduling, contention"""
    dips: Dips | None = None
    """of seconds: handovers, obstructions, cross traffic"""
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
    Recipe(
        name="3G-down",
        network_type="3G",
        log10_median_mean=6.043,
        log10_median_sd=0.269,
        max_bps=7e6,
        ln_ratio_percentiles=_percentiles(
            "-6.938 -6.54 -5.96 -4.596 -2.38 -1.396 -0.52 0 "
            "0.292 0.589 0.817 1.133 1.304 1.492 1.918"
        ),
        slow_tau_s=32.48,
        slow_share=0.784,
        fast_tau_s=0.56,
        burst_share=0.624,
        burst_share_sd=0.15,
        burst_s=3.52,
        quiet_speed=0.034,
        noise_sd=(0.096, 0.096),
        dips=Dips(per_min=(0.0, 2.82), ratio=(0.095, 0.553), duration_s=(0.4, 1.94)),
        outages=Outages(
            prone_share=0.922,
            time_share=0.0788,
            median_s=1.56,
            p90_s=12.18,
            longest_s=80.0,
            weakness=1.15,
        ),
    ),
    # Two recording sessions: their medians differ less than ours wander.
    Recipe(
        name="3G-up",
        network_type="3G",
        log10_median_mean=6.026,
        log10_median_sd=0.062,
        max_bps=1.7e6,
        ln_ratio_percentiles=_percentiles(
            "-6.097 -5.913 -5.805 -5.699 -2.373 -1.213 -0.404 0 "
            "0.238 0.393 0.6 0.78 0.814 0.836 0.848"
        ),
        slow_tau_s=20.9,
        slow_share=0.733,
        fast_tau_s=4.31,
        burst_share=0.336,
        burst_share_sd=1.18,
        burst_s=2.4,
        quiet_speed=0.235,
        noise_sd=(0.6, 0.6),
        dips=Dips(per_min=(0.0, 2.25), ratio=(0.105, 0.526), duration_s=(0.4, 2.11)),
        outages=Outages(
            prone_share=0.956,
            time_share=0.0661,
            median_s=1.35,
            p90_s=8.02,
            longest_s=27.0,
            weakness=0.98,
        ),
    ),
    Recipe(
        name="4G-LTE-down",
        network_type="4G-LTE",
        log10_median_mean=7.103,
        log10_median_sd=0.371,
        max_bps=150e6,
        ln_ratio_percentiles=_percentiles(
            "-12.514 -10.99 -10.946 -9.559 -3.148 -1.426 -0.497 0 "
            "0.328 0.865 1.212 1.746 2.271 2.555 3.049"
        ),
        slow_tau_s=93.09,
        slow_share=0.936,
        fast_tau_s=0.2,
        burst_share=0.641,
        burst_share_sd=0.35,
        burst_s=3.9,
        quiet_speed=0.146,
        noise_sd=(0.175, 0.175),
        gaps=Dips(per_min=(6.0, 18.0), ratio=GAP_RATIO, duration_s=GAP_S),
        dips=Dips(per_min=(0.0, 1.97), ratio=(0.084, 0.512), duration_s=(0.4, 1.72)),
        outages=Outages(
            prone_share=0.47,
            time_share=0.0412,
            median_s=0.81,
            p90_s=2.98,
            longest_s=37.0,
            weakness=1.33,
        ),
    ),
    Recipe(
        name="4G-LTE-up",
        network_type="4G-LTE",
        log10_median_mean=6.284,
        log10_median_sd=0.403,
        max_bps=29e6,
        ln_ratio_percentiles=_percentiles(
            "-5.61 -5.269 -5.023 -5.023 -5.023 -1.565 -0.32 0 "
            "0.093 0.329 0.422 0.648 0.73 0.781 1.239"
        ),
        slow_tau_s=53.85,
        slow_share=0.99,
        fast_tau_s=0.84,
        burst_share=0.141,
        burst_share_sd=0.26,
        burst_s=2.08,
        quiet_speed=0.166,
        noise_sd=(0.602, 0.602),
        gaps=Dips(per_min=(4.0, 12.0), ratio=GAP_RATIO, duration_s=GAP_S),
        dips=Dips(per_min=(0.0, 3.39), ratio=(0.077, 0.8), duration_s=(0.4, 4.18)),
        outages=Outages(
            prone_share=1.0,
            time_share=0.0601,
            median_s=3.2,
            p90_s=3.84,
            longest_s=79.0,
            weakness=1.4,
        ),
    ),
    # Includes phones on a 5G plan that fell back to 4G and 3G for part of the time.
    Recipe(
        name="5G-down",
        network_type="5G",
        log10_median_mean=7.553,
        log10_median_sd=0.571,
        max_bps=1.1e9,
        ln_ratio_percentiles=_percentiles(
            "-11.786 -9.626 -9.001 -8.887 -3.992 -1.978 -0.586 0 "
            "0.36 0.875 1.373 2.25 2.593 2.827 3.014"
        ),
        slow_tau_s=31.65,
        slow_share=0.99,
        fast_tau_s=0.75,
        burst_share=0.21,
        burst_share_sd=1.05,
        burst_s=3.92,
        quiet_speed=0.816,
        noise_sd=(0.339, 0.339),
        gaps=Dips(per_min=(6.0, 18.0), ratio=GAP_RATIO, duration_s=GAP_S),
        dips=Dips(per_min=(0.0, 3.18), ratio=(0.045, 0.158), duration_s=(0.4, 4.23)),
        outages=Outages(
            prone_share=0.607,
            time_share=0.0637,
            median_s=0.41,
            p90_s=1.24,
            longest_s=36.0,
            weakness=1.32,
        ),
    ),
    Recipe(
        name="5G-mmWave-down",
        network_type="5G",
        log10_median_mean=8.465,
        log10_median_sd=0.208,
        max_bps=1.8e9,
        ln_ratio_percentiles=_percentiles(
            "-17.793 -16.674 -16.623 -14.595 -5.237 -3.263 -1.004 0 "
            "0.609 1.567 1.931 2.15 2.254 2.32 2.54"
        ),
        slow_tau_s=3.29,
        slow_share=0.529,
        fast_tau_s=3.69,
        burst_share=0.207,
        burst_share_sd=0.79,
        burst_s=4.36,
        quiet_speed=0.01,
        noise_sd=(0.021, 0.021),
        gaps=Dips(per_min=(6.0, 18.0), ratio=GAP_RATIO, duration_s=GAP_S),
        dips=Dips(per_min=(0.0, 1.7), ratio=(0.093, 0.543), duration_s=(0.4, 2.46)),
        outages=Outages(
            prone_share=0.569,
            time_share=0.0365,
            median_s=0.75,
            p90_s=3.03,
            longest_s=6.0,
            weakness=0.63,
        ),
    ),
    Recipe(
        name="5G-up",
        network_type="5G",
        log10_median_mean=7.396,
        log10_median_sd=0.407,
        max_bps=150e6,
        ln_ratio_percentiles=_percentiles(
            "-14.539 -13.586 -12.048 -9.737 -3.292 -1.941 -0.568 0 "
            "0.324 0.724 1.243 2.194 2.498 2.633 2.921"
        ),
        slow_tau_s=11.95,
        slow_share=0.99,
        fast_tau_s=1.15,
        burst_share=0.19,
        burst_share_sd=0.94,
        burst_s=1.44,
        quiet_speed=0.072,
        noise_sd=(0.223, 0.223),
        gaps=Dips(per_min=(4.0, 12.0), ratio=GAP_RATIO, duration_s=GAP_S),
        dips=Dips(per_min=(0.0, 3.88), ratio=(0.089, 0.635), duration_s=(0.4, 3.14)),
        outages=Outages(
            prone_share=0.99,
            time_share=0.031,
            median_s=0.67,
            p90_s=2.09,
            longest_s=14.0,
            weakness=1.8,
        ),
    ),
    Recipe(
        name="wifi-down",
        network_type="wifi",
        log10_median_mean=7.38,
        log10_median_sd=0.44,
        max_bps=41e6,
        ln_ratio_percentiles=_percentiles(
            "-5.386 -3.495 -2.79 -2.321 -1.465 -0.723 -0.184 0 "
            "0.093 0.253 0.371 1.163 2.687 2.711 2.721"
        ),
        slow_tau_s=46.82,
        slow_share=0.99,
        fast_tau_s=2.26,
        burst_share=0.311,
        burst_share_sd=0.91,
        burst_s=7.76,
        quiet_speed=0.512,
        noise_sd=(0.355, 0.355),
        gaps=Dips(per_min=(5.0, 11.0), ratio=GAP_RATIO, duration_s=GAP_S),
        dips=Dips(per_min=(0.0, 2.0), ratio=(0.05, 0.632), duration_s=(0.4, 2.48)),
        outages=Outages(
            prone_share=0.272,
            time_share=0.0022,
            median_s=0.91,
            p90_s=1.24,
            longest_s=2.0,
            weakness=1.69,
        ),
    ),
    Recipe(
        name="satellite-down",
        network_type="satellite",
        log10_median_mean=7.822,
        log10_median_sd=0.395,
        max_bps=350e6,
        ln_ratio_percentiles=_percentiles(
            "-15.711 -15.229 -15.028 -14.949 -13.961 -9.508 -0.78 0 "
            "0.373 0.792 1.276 3.249 4.214 4.545 4.917"
        ),
        slow_tau_s=9.29,
        slow_share=0.251,
        fast_tau_s=2.25,
        burst_share=0.444,
        burst_share_sd=0.07,
        burst_s=3.9,
        quiet_speed=0.098,
        noise_sd=(0.185, 0.185),
        dips=Dips(per_min=(0.0, 3.63), ratio=(0.032, 0.543), duration_s=(0.4, 2.43)),
        outages=Outages(
            prone_share=0.614,
            time_share=0.1509,
            median_s=1.03,
            p90_s=12.6,
            longest_s=101.0,
            weakness=1.35,
        ),
    ),
    # STATS section 7, "satellite-up": noise and a 5 s periodic dip. Dips and episodes are read off
    # the measured traces (a second and a half at about 0.65, for some tens of seconds). Ours.
    Recipe(
        name="satellite-up",
        network_type="satellite",
        log10_median_mean=7.069,
        log10_median_sd=0.264,
        max_bps=51e6,
        ln_ratio_percentiles=_percentiles(
            "-1.04 -0.665 -0.526 -0.467 -0.311 -0.218 -0.048 0 "
            "0.022 0.047 0.104 0.244 0.337 0.365 0.459"
        ),
        slow_tau_s=8.84,
        slow_share=0.401,
        fast_tau_s=1.23,
        burst_share=0.164,
        burst_share_sd=0.05,
        burst_s=0.4,
        quiet_speed=0.258,
        noise_sd=(0.035, 0.035),
        periodic_dips=PeriodicDips(
            period_s=5.0, duration_s=1.4, ratio=(0.5, 0.8), time_share=0.5, episode_s=25.0
        ),
    ),
    # TCP delivery rates over residential lines (Puffer): what a flow gets, not what a line carries,
    # and so an upper bound of how capacity moves (STATS, caveat 2).
    Recipe(
        name="wired-broadband-down",
        network_type="wired-broadband",
        log10_median_mean=7.035,
        log10_median_sd=0.476,
        median_range_bps=(0.7e6, 100e6),
        max_bps=87e6,
        ln_ratio_percentiles=_percentiles(
            "-2.749 -2.16 -1.593 -1.169 -0.674 -0.42 -0.114 0 "
            "0.056 0.164 0.282 0.52 0.605 0.791 0.794"
        ),
        slow_tau_s=9.65,
        slow_share=0.966,
        fast_tau_s=1.89,
        burst_share=0.193,
        burst_share_sd=0.21,
        burst_s=0.6,
        quiet_speed=0.359,
        noise_sd=(0.03, 0.03),
        dips=Dips(per_min=(0.0, 3.79), ratio=(0.061, 0.125), duration_s=(0.4, 3.74)),
    ),
    # STATS section 7, "Wired broadband capacity": a judgement, not a fit, of the line itself:
    # near-constant rate, white noise, cross traffic. Both directions.
    Recipe(
        name="wired-line",
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

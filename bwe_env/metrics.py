"""What is measured about a call: every metric's name, unit, formula and source, in one table.

A finished call is one row of `CALL_COLUMNS`. Every mean is over *scheduled* time: what a dropped
call did not deliver counts against it. The arithmetic that a column needs beyond a mean stands
here, too: the error of a target rate against the capacity, the rate change, percentiles of a delay
histogram. Summaries over calls belong to whoever compares (they resample networks, not calls).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.units import bps_to_kbps, bps_to_mbps

Better = Literal["higher", "lower", "neither"]

#: Where a definition is from, when no standard has it.
OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of the table of calls."""

    name: str
    """the column's name; ends with its unit where it has one"""
    unit: str
    """the unit for people; empty for text, flags and plain ratios"""
    better: Better
    """which direction is better for the user of the call, other things equal"""
    doc: str
    """formula, in words"""
    source: str
    """the standard, program or paper that defines it so, or `OURS`"""


def _metric(name: str, unit: str, better: Better, doc: str, source: str = OURS) -> Metric:
    return Metric(name=name, unit=unit, better=better, doc=doc, source=source)


_W3C = "W3C webrtc-stats, libwebrtc video_quality_observer2.cc"
_MMSYS = "MMSys'24 grand challenge on offline bandwidth estimation, evaluation metrics"
_WEBRTC_STATS = "W3C webrtc-stats"
_NETEQ = "W3C webrtc-stats, libwebrtc neteq/statistics_calculator.cc"
_QP = "ours, fitted to libvpx VP8 (see bwe_env.sim.encoder)"

#: Classes of picture sizes, by the height of their step of `bwe_env.quality.RESOLUTION_LADDER`. A
#: picture belongs to the step that its size is nearest to (`bwe_env.sim.encoder.picture_class`).
PICTURE_CLASSES = ("180p", "270p", "360p", "540p", "720p")

_METRICS = (
    _metric("network", "", "neither", "name of the network, unique within a set"),
    _metric("network_type", "", "neither", "kind of network"),
    _metric("seed", "", "neither", "seed of the call's randomness, the same for every controller"),
    _metric("path", "", "neither", "'relay' if the call went through a relay, else 'direct'"),
    _metric("duration_s", "s", "neither", "scheduled length of the call"),
    _metric("dropped", "", "lower", "1 if the connection was lost before the scheduled end"),
    _metric(
        "contested",
        "",
        "neither",
        "1 if the capacity was below the maximum rate for some of the call; else any controller "
        "can send at the maximum",
    ),
    _metric("mean_reward", "1/s", "higher", "sum of rewards / scheduled time"),
    _metric(
        "call_score",
        "MOS",
        "higher",
        "mean per scheduled second of video MOS (frozen = 1) minus the delay impairment; the part "
        "after a drop scores as frozen with an endless delay",
        "ours, from ITU-T P.1203.1 and G.107 (see bwe_env.quality)",
    ),
    _metric(
        "video_mos",
        "MOS",
        "higher",
        "mean per scheduled second of the video MOS (frozen = 1)",
        "ITU-T P.1203.1 mode 0 (see bwe_env.quality)",
    ),
    _metric(
        "freeze_ratio",
        "",
        "lower",
        "frozen time / scheduled time; the gap still open at the end and the part after a drop are "
        "frozen",
        "ours, on the rule of W3C webrtc-stats freezeCount",
    ),
    _metric(
        "freeze_ratio_above_500ms",
        "",
        "lower",
        "the same over frozen gaps of 500 ms or more",
        "ours, on the rule of W3C webrtc-stats freezeCount",
    ),
    _metric("freeze_count", "", "lower", "freezes that ended", _W3C),
    _metric("freeze_duration_s", "s", "lower", "sum of their delays (totalFreezesDuration)", _W3C),
    _metric("mean_target_bps", "bps", "neither", "mean target rate over the intervals of the call"),
    _metric(
        "mean_sent_bps",
        "bps",
        "neither",
        "bits handed to the network / scheduled time; media, padding, probes, RTX, IP and UDP "
        "headers",
    ),
    _metric("mean_receive_bps", "bps", "higher", "bits that arrived / scheduled time"),
    _metric(
        "mean_media_bps",
        "bps",
        "higher",
        "bits of video frames that were shown / scheduled time; no headers, padding, RTX, audio",
    ),
    _metric(
        "mean_capacity_bps",
        "bps",
        "neither",
        "mean of min(capacity, maximum rate) over the intervals that the call had",
    ),
    _metric(
        "cross_traffic_bps",
        "bps",
        "neither",
        "bits of others through the same bottleneck / scheduled time: packets of TCP and on/off "
        "sources that left it, packets of competing calls that arrived",
    ),
    _metric(
        "link_share",
        "",
        "neither",
        "mean_receive_bps / (mean_receive_bps + cross_traffic_bps); 1 without cross traffic",
    ),
    _metric("utilisation", "", "higher", "mean_receive_bps / mean_capacity_bps, at most 1"),
    _metric(
        "queue_delay_ms_mean",
        "ms",
        "lower",
        "mean over packets of waiting and service at the bottleneck",
    ),
    *(
        _metric(f"queue_delay_ms_p{q}", "ms", "lower", f"{q}th percentile over packets of the same")
        for q in (50, 95, 99)
    ),
    *(
        _metric(
            f"one_way_delay_ms_p{q}",
            "ms",
            "lower",
            f"{q}th percentile over delivered packets of the time from sender to receiver",
        )
        for q in (50, 95, 99)
    ),
    _metric(
        "queue_loss_ratio",
        "",
        "lower",
        "packets dropped because the bottleneck's queue was full / packets sent",
    ),
    _metric(
        "random_loss_ratio",
        "",
        "neither",
        "packets lost for no fault of the sender / packets sent",
    ),
    _metric(
        "aqm_loss_ratio",
        "",
        "lower",
        "packets that the queue discipline (CoDel, PIE) dropped / packets sent",
    ),
    _metric(
        "policer_loss_ratio",
        "",
        "lower",
        "packets dropped because they exceeded the policer's rate / packets sent",
    ),
    _metric(
        "mse_mbps2",
        "Mbps²",
        "lower",
        "mean of (target - capacity)²; capacity is capped at the maximum rate, here and below",
        _MMSYS,
    ),
    _metric("error_rate", "", "lower", "mean of min(1, |target - capacity| / capacity)", _MMSYS),
    _metric(
        "overestimation", "", "lower", "mean of max(0, (target - capacity) / capacity)", _MMSYS
    ),
    _metric(
        "underestimation", "", "lower", "mean of max(0, (capacity - target) / capacity)", _MMSYS
    ),
    _metric(
        "rate_change_ratio",
        "",
        "lower",
        "sum of |target - previous target| / sum of previous targets, over the intervals",
    ),
    _metric("pause_count", "", "lower", "gaps in which no video came for 5 s or longer", _W3C),
    _metric(
        "harmonic_frame_rate_hz",
        "Hz",
        "higher",
        "scheduled time / sum of squared times between pictures, the first wait and the gap at the "
        "end among them",
        "libwebrtc video_quality_observer2.cc; the two ends are ours",
    ),
    _metric(
        "jitter_buffer_delay_ms",
        "ms",
        "lower",
        "mean over frames shown of the time from the first packet until then (jitterBufferDelay)",
        _WEBRTC_STATS,
    ),
    _metric(
        "video_qp",
        "",
        "lower",
        "mean quantiser of encoded frames, the coarsest if there are none; compare at equal "
        "picture size",
        _QP,
    ),
    _metric("video_qp_sum", "", "lower", "sum of the quantisers of encoded frames (qpSum)", _QP),
    _metric("frames_encoded", "", "neither", "frames the encoder made", _WEBRTC_STATS),
    *(
        _metric(f"video_qp_sum_{size}", "", "lower", f"video_qp_sum of pictures of {size}", _QP)
        for size in PICTURE_CLASSES
    ),
    *(
        _metric(
            f"frames_encoded_{size}",
            "",
            "neither",
            f"frames_encoded of pictures of {size}; others count with the nearest size by ratio",
            _WEBRTC_STATS,
        )
        for size in PICTURE_CLASSES
    ),
    _metric("frames_rendered", "", "higher", "frames shown to the receiver", _WEBRTC_STATS),
    _metric("key_frames", "", "neither", "key frames encoded (keyFramesEncoded)", _WEBRTC_STATS),
    _metric("nacks", "", "neither", "packets asked for again (nackCount)", _WEBRTC_STATS),
    _metric(
        "rtx_packets", "", "neither", "packets sent again (retransmittedPacketsSent)", _WEBRTC_STATS
    ),
    _metric("fec_packets", "", "neither", "parity packets sent (fecPacketsSent)", _WEBRTC_STATS),
    _metric("fec_recovered", "", "neither", "video packets that FEC brought back"),
    _metric(
        "plis", "", "neither", "key frames asked for by the receiver (pliCount)", _WEBRTC_STATS
    ),
    _metric(
        "audio_loss_ratio", "", "lower", "audio packets that did not arrive / audio packets sent"
    ),
    _metric(
        "audio_played_s",
        "s",
        "neither",
        "sound played from the first decoded frame on, concealment included (totalSamplesReceived)",
        _NETEQ,
    ),
    _metric("audio_concealed_s", "s", "lower", "of that, made up (concealedSamples)", _NETEQ),
    _metric(
        "audio_silent_s", "s", "lower", "of that, background noise (silentConcealedSamples)", _NETEQ
    ),
    _metric("audio_concealments", "", "lower", "concealments begun (concealmentEvents)", _NETEQ),
    _metric(
        "audio_interruptions", "", "lower", "concealments of 150 ms or more (interruptions)", _NETEQ
    ),
    _metric(
        "audio_long_interruption_ratio",
        "",
        "lower",
        "sound in concealments of more than 500 ms / audio_played_s",
    ),
    _metric(
        "audio_late_packets",
        "",
        "lower",
        "audio packets that came after their time (packetsDiscarded)",
        _NETEQ,
    ),
    _metric(
        "audio_recovered_frames",
        "",
        "neither",
        "audio frames played from a copy in a later packet (AudioConfig.redundancy)",
    ),
    _metric(
        "audio_jitter_buffer_ms",
        "ms",
        "lower",
        "mean over played frames of the wait in the jitter buffer (jitterBufferDelay / "
        "jitterBufferEmittedCount)",
        _NETEQ,
    ),
    _metric(
        "audio_target_delay_ms",
        "ms",
        "lower",
        "mean over played frames of the jitter buffer's target (jitterBufferMinimumDelay / "
        "jitterBufferEmittedCount)",
        _NETEQ,
    ),
    _metric(
        "audio_burst_ratio",
        "",
        "lower",
        "mean length of concealments in frames x (1 - concealed share), at least 1: random loss "
        "has 1",
        "ITU-T G.107 clause 7.5 (BurstR)",
    ),
    _metric(
        "audio_mos",
        "MOS",
        "higher",
        "E-model with the concealed share as packet loss, the burst ratio, and the delay of the "
        "network (mean), the jitter buffer (mean) and the coder",
        "ITU-T G.107 and G.113 (see bwe_env.quality)",
    ),
    _metric(
        "mean_video_sent_bps",
        "bps",
        "higher",
        "bits of video handed to the network / scheduled time; no headers, padding, RTX, audio",
    ),
    _metric(
        "not_ready_s",
        "s",
        "lower",
        "time from 5 s after the last packet that arrived to the next one, the open silence at the "
        "end and all time after a drop; set-up takes none: a call begins with the transport ready",
    ),
    _metric(
        "last_minute_regression_v1",
        "",
        "lower",
        "1 if the call score of the last 60 s is at least 0.5 below that of the time before, and "
        "below 3; or if the call dropped. Undefined (NaN) for calls shorter than 180 s",
    ),
    _metric(
        "last_minute_regression_v2",
        "",
        "lower",
        "1 if 5 % of the last 60 s are frozen, or their call score is below 2.5; or if the call "
        "dropped. Undefined (NaN) for calls shorter than 180 s",
    ),
    _metric(
        "bad_experience",
        "",
        "lower",
        "1 if the call dropped, or was frozen for more than 5 %, or more than 5 % of its sound was "
        "concealed, or its one-way delay p95 was above 400 ms, or its call score below 2.5",
    ),
    _metric(
        "talk_time_s",
        "s",
        "higher",
        "until a simulated user hangs up, the call drops or its time is over; a function of the "
        "score of every second, so no evidence beside it",
        "ours (see bwe_env.talk_time)",
    ),
)

#: Every metric of a call by name, in the order of the columns.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}

#: Columns of the table of calls, in order.
CALL_COLUMNS: tuple[str, ...] = tuple(METRICS)

#: Columns that say which call it is. A row is unique in the first and the third.
KEY_COLUMNS: tuple[str, ...] = ("network", "network_type", "seed")


def metric(name: str) -> Metric:
    """The metric called `name`.

    Raises:
        UnknownNameError: nobody defined it; the known names are listed.
    """
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


# --- Names that call services report by -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FieldMetric:
    """What a service reports over many calls, made of columns of `METRICS`.

    Its value is ``factor`` times the mean of `column`, or with `per` the sum of `column` over the
    sum of `per`. Definitions and sources are those of the columns. With `classes` that value is
    right for one arm; two arms are compared by `at_equal_classes`.
    """

    name: str
    """as services call it"""
    unit: str
    """of the value"""
    column: str
    """what is averaged or summed"""
    per: str | None = None
    """what its sum is divided by"""
    factor: float = 1.0
    """from the column's unit to `unit`"""
    classes: tuple[str, ...] = ()
    """endings of the columns that hold `column` and `per` of one class each (``video_qp_sum_360p``
    for 360p), of things that are not to be compared with those of another class"""

    @property
    def better(self) -> Better:
        """Which direction is better for the users."""
        return METRICS[self.column].better

    @property
    def class_columns(self) -> tuple[tuple[str, str | None], ...]:
        """What each class is made of, as `column` and `per`; those two without `classes`."""
        if not self.classes:
            return ((self.column, self.per),)
        return tuple((f"{self.column}_{name}", f"{self.per}_{name}") for name in self.classes)


class EqualClasses(NamedTuple):
    """Two arms with the same mix of classes."""

    control: NDArray[np.float64]
    """numerator and denominator over all classes, shape (..., 2); both 0 without a shared class"""
    treatment: NDArray[np.float64]
    """the same of the other arm; the denominators of the two are equal"""
    left_out_ratio: NDArray[np.float64]
    """share of both arms' denominators in classes that only one arm has, shape (...)"""


def at_equal_classes(control: ArrayLike, treatment: ArrayLike) -> EqualClasses:
    """Sums of two arms as they would be if both had their classes in the same shares.

    The value of an arm as a whole mixes what it is within a class with how often it is there: an
    arm that sends smaller pictures has finer quantisers on the whole, though it may be the coarser
    one at every size. So the ratio of each class is weighted by the same shares, those of both arms
    together; a class that one arm does not have is left out (direct standardisation, as for death
    rates of populations of different age).

    Args:
        control: numerator and denominator (>= 0) of each class, shape (..., classes, 2).
        treatment: the same shape.

    QP of 30 and 60 in one small and three large pictures against 40 and 70 in three and one: the
    mean of all falls from 52.5 to 47.5, and yet it is 10 more at either size. Of 8 pictures, half
    of them small, the sums are 8 x 45 and 8 x 55:

    >>> at_equal_classes([[30, 1], [180, 3]], [[120, 3], [70, 1]])[:2]
    (array([360.,   8.]), array([440.,   8.]))
    """
    arms = [np.asarray(arm, dtype=np.float64) for arm in (control, treatment)]
    weights = equal_class_weights(arms[0][..., 1], arms[1][..., 1])
    both = arms[0][..., 1] + arms[1][..., 1]
    left_out = np.where(weights[0] > 0.0, 0.0, both)
    return EqualClasses(
        control=weighted_classes(arms[0], weights[0]),
        treatment=weighted_classes(arms[1], weights[1]),
        left_out_ratio=_quotient(left_out.sum(axis=-1), both.sum(axis=-1)),
    )


def equal_class_weights(
    control: ArrayLike, treatment: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a unit of each class counts in either arm, so that both have that class as often.

    Args:
        control: denominators of the classes, >= 0, shape (..., classes).
        treatment: the same shape.

    Returns:
        For each arm the denominators of both arms over its own, same shape; 0 for a class that one
        arm does not have.
    """
    arms = [np.asarray(arm, dtype=np.float64) for arm in (control, treatment)]
    both = np.where((arms[0] > 0.0) & (arms[1] > 0.0), arms[0] + arms[1], 0.0)
    return _quotient(both, arms[0]), _quotient(both, arms[1])


def weighted_classes(
    sums: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Numerator and denominator over all classes, shape (..., 2), from those of each.

    Args:
        sums: shape (..., classes, 2).
        weights: of the classes, as `equal_class_weights` gives them; broadcast to (..., classes).
    """
    total: NDArray[np.float64] = (sums * weights[..., np.newaxis]).sum(axis=-2)
    return total


def _quotient(above: ArrayLike, below: ArrayLike) -> NDArray[np.float64]:
    """`above` / `below`, and 0 where `below` is 0."""
    parts, wholes = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    result = np.zeros(parts.shape)
    np.divide(parts, wholes, out=result, where=wholes > 0.0)
    return result


_PERCENT = 100.0

_FIELD_METRICS = (
    FieldMetric(name="connection_drop_rate", unit="%", column="dropped", factor=_PERCENT),
    FieldMetric(
        name="transport_not_ready_pct",
        unit="%",
        column="not_ready_s",
        per="duration_s",
        factor=_PERCENT,
    ),
    *(
        FieldMetric(
            name=f"last_minute_quality_regression_{version}",
            unit="%",
            column=f"last_minute_regression_{version}",
            factor=_PERCENT,
        )
        for version in ("v1", "v2")
    ),
    FieldMetric(
        name="bad_experience_percentage", unit="%", column="bad_experience", factor=_PERCENT
    ),
    FieldMetric(
        name="peer_video_freeze_percentage", unit="%", column="freeze_ratio", factor=_PERCENT
    ),
    FieldMetric(
        name="peer_video_freeze_percentage_above_500ms",
        unit="%",
        column="freeze_ratio_above_500ms",
        factor=_PERCENT,
    ),
    FieldMetric(
        name="peer_neteq_plc_cng_perc",
        unit="%",
        column="audio_concealed_s",
        per="audio_played_s",
        factor=_PERCENT,
    ),
    FieldMetric(name="total_talk_time", unit="s", column="talk_time_s"),
    FieldMetric(
        name="avg_sender_video_encode_fps", unit="Hz", column="frames_encoded", per="duration_s"
    ),
    FieldMetric(
        name="avg_sender_video_qp",
        unit="",
        column="video_qp_sum",
        per="frames_encoded",
        classes=PICTURE_CLASSES,
    ),
    FieldMetric(name="avg_video_quality_score", unit="MOS", column="video_mos"),
    FieldMetric(
        name="avg_video_sent_bitrate",
        unit="kbps",
        column="mean_video_sent_bps",
        factor=bps_to_kbps(1.0),
    ),
)

#: Metrics over many calls by the name that services give them.
FIELD_METRICS: dict[str, FieldMetric] = {field.name: field for field in _FIELD_METRICS}


# --- Error of the target rate ---------------------------------------------------------------------


class TargetError(NamedTuple):
    """How far a target rate is from the capacity: per interval, or as means over a call."""

    mse_mbps2: NDArray[np.float64]
    error_rate: NDArray[np.float64]
    overestimation: NDArray[np.float64]
    underestimation: NDArray[np.float64]


def target_error_terms(
    target_bps: ArrayLike, capacity_bps: ArrayLike, *, max_rate_bps: float = np.inf
) -> TargetError:
    """The four errors of each interval.

    Args:
        target_bps: any shape, >= 0.
        capacity_bps: same shape, >= 0.
        max_rate_bps: no target can be higher; capacity beyond it counts as this much.

    Returns:
        Arrays of the same shape. During an outage (capacity 0) the three relative errors mean
        nothing and are NaN.
    """
    target = np.asarray(target_bps, dtype=np.float64)
    capacity = np.minimum(np.asarray(capacity_bps, dtype=np.float64), max_rate_bps)
    error = target - capacity
    error_mbps = error * bps_to_mbps(1.0)
    relative = np.full(error.shape, np.nan)
    np.divide(error, capacity, out=relative, where=capacity > 0.0)
    return TargetError(
        mse_mbps2=error_mbps**2,
        error_rate=np.minimum(1.0, np.abs(relative)),
        overestimation=np.maximum(0.0, relative),
        underestimation=np.maximum(0.0, -relative),
    )


def target_error(
    target_bps: ArrayLike, capacity_bps: ArrayLike, *, max_rate_bps: float = np.inf
) -> TargetError:
    """Means over the last axis of `target_error_terms`; intervals in outage only enter the MSE.

    Returns:
        Arrays without the last axis; NaN where no interval counts.
    """
    terms = target_error_terms(target_bps, capacity_bps, max_rate_bps=max_rate_bps)
    return TargetError(*(_mean_of_known(term) for term in terms))


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without NaN; NaN where nothing is left."""
    is_known = ~np.isnan(values)
    count = np.asarray(is_known.sum(axis=-1), dtype=np.float64)
    mean = np.full(count.shape, np.nan)
    np.divide(np.where(is_known, values, 0.0).sum(axis=-1), count, out=mean, where=count > 0.0)
    return mean


def rate_change_ratio(target_bps: ArrayLike) -> NDArray[np.float64]:
    """How much a target rate moves from interval to interval, relative to itself.

    Args:
        target_bps: shape (..., intervals), >= 0.

    Returns:
        Sum of absolute changes over the sum of the rates they start from: 0 for a constant, 0.1 for
        one that moves by a tenth every time. 0 if there are fewer than two intervals.
    """
    target = np.asarray(target_bps, dtype=np.float64)
    change = np.abs(np.diff(target, axis=-1)).sum(axis=-1)
    base = target[..., :-1].sum(axis=-1)
    ratio = np.zeros(np.shape(base))
    np.divide(change, base, out=ratio, where=base > 0.0)
    return ratio


# --- Delay histograms -----------------------------------------------------------------------------

#: Equal parts of an octave: a bin is 1/16 to 1/31 of its delay wide, so a percentile is at most
#: 6.25 % off even without interpolation.
DELAY_BINS_PER_OCTAVE = 16

#: From 1 ms to 16.4 s: longer than consent checks let a silent connection live (15 s).
DELAY_OCTAVES = 14

#: One bin for delays below 1 ms, then the octaves, then one for everything above.
DELAY_BINS = DELAY_BINS_PER_OCTAVE * DELAY_OCTAVES + 2


def delay_bin_edges_ms() -> NDArray[np.float64]:
    """Shape (DELAY_BINS + 1,): bin i holds delays in [edge i, edge i + 1); the last edge is inf."""
    part = 1.0 + np.arange(DELAY_BINS_PER_OCTAVE) / DELAY_BINS_PER_OCTAVE
    octave = 2.0 ** np.arange(DELAY_OCTAVES)
    inner = (octave[:, None] * part).ravel()
    return np.concatenate(([0.0], inner, [2.0**DELAY_OCTAVES, np.inf]))


def histogram_percentile(counts: ArrayLike, q: float) -> NDArray[np.float64]:
    """The delay that `q` percent of the counted ones do not exceed.

    Within its bin the delay is interpolated linearly, as if the bin were filled evenly.

    Args:
        counts: shape (..., DELAY_BINS), as filled by `bwe_env.sim.histogram`.
        q: percent, 0 to 100.

    Returns:
        Milliseconds, shape (...); NaN for a row without counts. Delays in the last bin are reported
        as its lower edge, 16,384 ms.
    """
    if not 0.0 <= q <= 100.0:
        raise ConfigError(f"q={q!r} must be a percentage between 0 and 100.")
    rows = np.asarray(counts, dtype=np.float64)
    if rows.shape[-1:] != (DELAY_BINS,):
        raise ConfigError(
            f"counts has shape {rows.shape}; its last axis must be the {DELAY_BINS} delay bins."
        )
    edges = delay_bin_edges_ms()
    cumulative = rows.cumsum(axis=-1)
    total = cumulative[..., -1:]
    rank = total * (q / 100.0)
    # The first bin that reaches the rank; for q = 0 the first that holds anything.
    index = np.argmax((cumulative >= rank) & (cumulative > 0.0), axis=-1)[..., None]
    inside = np.take_along_axis(rows, index, axis=-1)
    before = np.take_along_axis(cumulative, index, axis=-1) - inside
    share = np.divide(rank - before, inside, out=np.zeros_like(rank), where=inside > 0.0)
    index = index[..., 0]
    low = edges[index]
    width = np.where(index < DELAY_BINS - 1, edges[index + 1], low) - low
    return np.where(total[..., 0] > 0.0, low + share[..., 0] * width, np.nan)

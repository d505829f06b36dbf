"""Every number of Google Congestion Control, tunable, with the place it comes from.

The defaults are libwebrtc M150 (branch-heads/7871, commit 1f975dfd) without field trials. GCC/
stands for modules/congestion_controller/goog_cc/, RBE/ for modules/remote_bitrate_estimator/.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from bwe_env.errors import ConfigError, unknown_name
from bwe_env.units import s_to_us

#: Rows that the records of `trendline.py` and `loss_based_v2.py` hold, hence the largest windows.
MAX_TRENDLINE_WINDOW = 100
MAX_LOSS_OBSERVATIONS = 30
#: Rows of the acknowledged-rate window, RobustThroughputEstimatorSettings::max_window_packets.
MAX_THROUGHPUT_PACKETS = 500

AckedRateEstimator = Literal["robust", "classic"]
LossEstimator = Literal["v2", "classic"]


def _number(default: float, low: float, high: float, unit: str = "") -> Any:
    """A field with its range, which `__post_init__` enforces."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "unit": unit})


@dataclass(frozen=True, kw_only=True)
class GccParameters:
    """What may be tuned about GCC. Names follow libwebrtc, units are in the suffix."""

    # Which estimators run.
    acked_rate_estimator: AckedRateEstimator = "robust"
    """robust: GCC/robust_throughput_estimator.cc; classic: the Bayesian GCC/bitrate_estimator.cc"""
    loss_estimator: LossEstimator = "v2"
    """v2: GCC/loss_based_bwe_v2.cc; classic: 2 % and 10 % rules of RTCP receiver reports"""

    # Streams: what the application tells the controller (api/transport/network_types.h).
    pacing_factor: float = _number(1.1, 1.0, 10.0)
    """pacing rate over target rate; 1.1 with transport-wide feedback (video_send_stream_impl.cc)"""
    max_padding_rate_bps: int = _number(0, 0, 1e9, "bps")
    """padding the streams ask for (layered video); a single stream asks for none"""
    min_total_allocated_bps: int = _number(0, 0, 1e9, "bps")
    """what the streams need at least; a floor of the target rate"""
    max_total_allocated_bps: int = _number(0, 0, 1e9, "bps")
    """what the streams can use at most: probes stay below twice of it; 0 for not told"""
    knows_max_rate: bool = True
    """whether the call's maximum rate bounds estimates and probes; False for a codec without one"""
    alr_probing: bool = False
    """probe while application limited: a screen share asks for it, a camera does not"""
    repeated_initial_probing: bool = False
    """probe every second for 5 s before the first media"""

    # Inter-arrival grouping: GCC/inter_arrival_delta.cc, GCC/delay_based_bwe.cc.
    send_time_group_s: float = _number(0.005, 0.0, 1.0, "s")
    """packets sent within this after the first of a group belong to it (kSendTimeGroupLength)"""
    burst_delta_s: float = _number(0.005, 0.0, 1.0, "s")
    """arrival gap below which a packet that caught up joins the group (kBurstDeltaThreshold)"""
    max_burst_s: float = _number(0.1, 0.0, 10.0, "s")
    """arrival span of a group grown by such bursts (kMaxBurstDuration)"""
    reordered_reset_groups: int = _number(3, 1, 1000)
    """groups in a row that arrive before their predecessor: reset (kReorderedResetThreshold)"""
    clock_jump_s: float = _number(3.0, 0.01, 1000.0, "s")
    """receive clock ahead of ours by so much: start anew (kArrivalTimeOffsetThreshold)"""
    stream_timeout_s: float = _number(2.0, 0.1, 1000.0, "s")
    """silence after which grouping and trendline start anew (kStreamTimeOut)"""

    # Trendline and over-use detector: GCC/trendline_estimator.cc.
    trendline_window_groups: int = _number(20, 10, MAX_TRENDLINE_WINDOW)
    """groups in the regression (kDefaultTrendlineWindowSize)"""
    trendline_smoothing: float = _number(0.9, 0.0, 0.999)
    """weight of the old delay in the smoothed one (kDefaultTrendlineSmoothingCoeff)"""
    trendline_gain: float = _number(4.0, 0.1, 100.0)
    """slope to modified trend (kDefaultTrendlineThresholdGain)"""
    trendline_max_deltas: int = _number(60, 1, 1000)
    """modified trend grows with the number of deltas up to this (kMinNumDeltas)"""
    overuse_time_ms: float = _number(10.0, 0.0, 1000.0, "ms")
    """time above the threshold before over-use is signalled (kOverUsingTimeThreshold)"""
    threshold_initial_ms: float = _number(12.5, 0.1, 600.0, "ms")
    """detector threshold at the start (threshold_)"""
    threshold_min_ms: float = _number(6.0, 0.1, 600.0, "ms")
    """lowest threshold (UpdateThreshold)"""
    threshold_max_ms: float = _number(600.0, 0.1, 10_000.0, "ms")
    """highest threshold (UpdateThreshold)"""
    threshold_gain_up: float = _number(0.0087, 0.0, 1.0)
    """per ms and ms above it, the threshold rises so (k_up_)"""
    threshold_gain_down: float = _number(0.039, 0.0, 1.0)
    """per ms and ms below it, the threshold falls so (k_down_)"""
    threshold_max_offset_ms: float = _number(15.0, 0.0, 10_000.0, "ms")
    """a trend so far above the threshold does not adapt it (kMaxAdaptOffsetMs)"""
    threshold_max_step_ms: float = _number(100.0, 1.0, 10_000.0, "ms")
    """longest time one adaptation counts for (kMaxTimeDeltaMs)"""

    # AIMD: RBE/aimd_rate_control.cc.
    decrease_factor: float = _number(0.85, 0.1, 0.999)
    """of the acknowledged rate after over-use (kDefaultBackoffFactor)"""
    decrease_extra_bps: int = _number(5_000, 0, 1e6, "bps")
    """taken off on top of it, if the rate stays positive (RcDecrease)"""
    increase_factor_per_s: float = _number(1.08, 1.0, 10.0)
    """multiplicative growth while the link capacity is unknown (MultiplicativeRateIncrease)"""
    min_multiplicative_increase_bps: int = _number(1_000, 0, 1e6, "bps")
    """least step of it per update (MultiplicativeRateIncrease)"""
    min_additive_increase_bps_per_s: int = _number(4_000, 0, 1e9, "bps/s")
    """least growth near the link capacity (kMinIncreaseRateBpsPerSecond)"""
    increase_limit_factor: float = _number(1.5, 1.0, 100.0)
    """no increase above this times the acknowledged rate … (ChangeBitrate)"""
    increase_limit_extra_bps: int = _number(10_000, 0, 1e9, "bps")
    """… plus this (ChangeBitrate)"""
    default_rtt_s: float = _number(0.2, 0.001, 10.0, "s")
    """until RTCP tells one (kDefaultRtt)"""
    detector_delay_s: float = _number(0.1, 0.0, 10.0, "s")
    """added to the RTT for the response time (GetNearMaxIncreaseRateBpsPerSecond)"""
    min_reduction_interval_s: float = _number(0.01, 0.0, 10.0, "s")
    """bounds of the RTT as time between decreases (TimeToReduceFurther)"""
    max_reduction_interval_s: float = _number(0.2, 0.0, 10.0, "s")
    """bounds of the RTT as time between decreases (TimeToReduceFurther)"""
    increase_in_alr: bool = True
    """False: the delay-based estimate stands still while application limited"""
    link_capacity_weight: float = _number(0.05, 0.0001, 1.0)
    """of a new sample at over-use (GCC/link_capacity_estimator.cc)"""
    link_capacity_deviations: float = _number(3.0, 0.0, 100.0)
    """width of the band around the link capacity (GCC/link_capacity_estimator.cc)"""

    # Acknowledged rate, robust: GCC/robust_throughput_estimator.cc.
    throughput_window_packets: int = _number(20, 2, MAX_THROUGHPUT_PACKETS)
    """packets the window keeps however old (window_packets)"""
    throughput_required_packets: int = _number(10, 2, MAX_THROUGHPUT_PACKETS)
    """packets a rate needs (required_packets)"""
    throughput_max_packets: int = _number(MAX_THROUGHPUT_PACKETS, 2, MAX_THROUGHPUT_PACKETS)
    """packets the window holds at most (max_window_packets)"""
    throughput_min_window_s: float = _number(1.0, 0.01, 60.0, "s")
    """span the window keeps (min_window_duration)"""
    throughput_max_window_s: float = _number(5.0, 0.01, 60.0, "s")
    """span it never exceeds (max_window_duration)"""
    throughput_max_reordering_s: float = _number(1.0, 0.01, 60.0, "s")
    """a packet received so long before the newest empties the window (kMaxReorderingTime)"""

    # Acknowledged rate, classic: GCC/bitrate_estimator.cc.
    bitrate_initial_window_s: float = _number(0.5, 0.01, 3.0, "s")
    """first window (kInitialRateWindowMs)"""
    bitrate_window_s: float = _number(0.15, 0.01, 3.0, "s")
    """later windows (kRateWindowMs)"""
    bitrate_uncertainty_scale: float = _number(10.0, 0.1, 1000.0)
    """uncertainty of a sample over its relative distance (uncertainty_scale_)"""
    bitrate_process_noise: float = _number(5.0, 0.0, 1e6)
    """variance added per sample (BitrateEstimator::Update)"""
    bitrate_initial_variance: float = _number(50.0, 0.0, 1e6)
    """of the first estimate (bitrate_estimate_var_)"""
    bitrate_alr_variance: float = _number(200.0, 0.0, 1e6)
    """added after an application-limited phase (ExpectFastRateChange)"""

    # Loss-based estimation v2: GCC/loss_based_bwe_v2.cc (names of its Config in parentheses).
    loss_observation_s: float = _number(0.25, 0.01, 10.0, "s")
    """send time one observation spans at least (ObservationDurationLowerBound)"""
    loss_window_observations: int = _number(15, 2, MAX_LOSS_OBSERVATIONS)
    """observations remembered (ObservationWindowSize)"""
    loss_min_observations: int = _number(3, 1, MAX_LOSS_OBSERVATIONS)
    """observations before the estimate counts (MinNumObservations)"""
    loss_temporal_weight: float = _number(0.9, 0.01, 1.0)
    """weight of an observation per step of age in the likelihood (TemporalWeightFactor)"""
    loss_average_weight: float = _number(0.9, 0.01, 1.0)
    """the same in the average loss (InstantUpperBoundTemporalWeightFactor)"""
    loss_candidate_up: float = _number(1.02, 0.01, 10.0)
    """candidate bandwidths over the present one (CandidateFactors, first)"""
    loss_candidate_keep: float = _number(1.0, 0.01, 10.0)
    """candidate bandwidths over the present one (CandidateFactors, second)"""
    loss_candidate_down: float = _number(0.95, 0.01, 10.0)
    """candidate bandwidths over the present one (CandidateFactors, third)"""
    loss_acked_candidate_factor: float = _number(1.0, 0.0, 1.0)
    """candidate over the acknowledged rate (BandwidthBackoffLowerBoundFactor)"""
    inherent_loss_initial: float = _number(0.01, 0.0, 0.999)
    """inherent loss to start from (InitialInherentLossEstimate)"""
    inherent_loss_min: float = _number(0.001, 0.0, 0.999)
    """least inherent loss (InherentLossLowerBound)"""
    inherent_loss_max_offset: float = _number(0.05, 0.0, 0.999)
    """largest inherent loss: this … (InherentLossUpperBoundOffset)"""
    inherent_loss_balance_bps: int = _number(100_000, 1, 1e9, "bps")
    """… plus this over the bandwidth (InherentLossUpperBoundBwBalance)"""
    newton_step: float = _number(0.75, 0.01, 1.0)
    """step size of Newton's method (NewtonStepSize)"""
    newton_iterations: int = _number(1, 1, 20)
    """its steps (NewtonIterations)"""
    bandwidth_bias: float = _number(0.0002, 0.0, 1.0)
    """per kbps, towards the larger candidate (HigherBwBiasFactor)"""
    log_bandwidth_bias: float = _number(0.02, 0.0, 10.0)
    """per ln(1 + kbps), the same (HigherLogBwBiasFactor)"""
    bias_loss_threshold: float = _number(0.2, 0.0, 0.999)
    """average loss at which the bias turns (LossThresholdOfHighBandwidthPreference)"""
    bias_smoothing: float = _number(0.002, 1e-6, 1.0)
    """width of that turn (BandwidthPreferenceSmoothingFactor)"""
    instant_bound_loss_offset: float = _number(0.05, 0.0, 0.999)
    """average loss above which the estimate is bounded at once (InstantUpperBoundLossOffset)"""
    instant_bound_balance_bps: int = _number(100_000, 1, 1e9, "bps")
    """that bound times the loss above the offset (InstantUpperBoundBwBalance)"""
    loss_lower_bound_acked_factor: float = _number(1.0, 0.0, 2.0)
    """lowest estimate over the acknowledged rate (LowerBoundByAckedRateFactor)"""
    spike_send_rate_factor: float = _number(2.0, 0.0, 100.0)
    """the worst observation counts if sent so much above the median (MedianSendingRateFactor)"""
    loss_max_increase_factor: float = _number(1.3, 0.01, 10.0)
    """growth per window while loss limited (MaxIncreaseFactor)"""
    loss_increase_window_s: float = _number(0.3, 0.01, 60.0, "s")
    """that window (DelayedIncreaseWindow)"""
    rampup_factor: float = _number(1.5, 1.0, 100.0)
    """growth over the acknowledged rate (BwRampupUpperBoundFactor)"""
    rampup_factor_in_hold: float = _number(1.2, 1.0, 100.0)
    """the same while far below the hold rate (BwRampupUpperBoundInHoldFactor)"""
    rampup_hold_threshold: float = _number(1.3, 0.0, 100.0)
    """times the hold rate is what "far below" means (BwRampupUpperBoundHoldThreshold)"""
    hold_duration_factor: float = _number(2.0, 0.0, 10.0)
    """each new decrease holds so much longer; 0 for never holding (HoldDurationFactor)"""
    hold_initial_s: float = _number(0.3, 0.0, 60.0, "s")
    """first hold after a decrease (kInitHoldDuration)"""
    hold_max_s: float = _number(60.0, 0.0, 600.0, "s")
    """longest hold (kMaxHoldDuration)"""
    loss_padding_s: float = _number(2.0, 0.0, 60.0, "s")
    """padding while recovering from loss; 0 for none (PaddingDuration)"""

    # Send-side estimation, classic loss rules: GCC/send_side_bandwidth_estimation.cc.
    classic_low_loss: float = _number(0.02, 0.0, 1.0)
    """increase up to this loss (kDefaultLowLossThreshold)"""
    classic_high_loss: float = _number(0.1, 0.0, 1.0)
    """decrease above this loss (kDefaultHighLossThreshold)"""
    classic_increase_factor: float = _number(1.08, 1.0, 10.0)
    """times the lowest target of the last second (UpdateEstimate)"""
    classic_increase_extra_bps: int = _number(1_000, 0, 1e9, "bps")
    """plus this (UpdateEstimate)"""
    classic_increase_interval_s: float = _number(1.0, 0.01, 60.0, "s")
    """that "last second" (kBweIncreaseInterval)"""
    classic_decrease_interval_s: float = _number(0.3, 0.0, 60.0, "s")
    """plus an RTT, the time between decreases (kBweDecreaseInterval)"""
    classic_report_timeout_s: float = _number(6.0, 0.1, 600.0, "s")
    """loss reports older than this say nothing (1.2 * kMaxRtcpFeedbackInterval)"""
    classic_min_report_packets: int = _number(20, 1, 10_000)
    """packets a loss ratio needs (kLimitNumPackets)"""
    start_phase_s: float = _number(2.0, 0.0, 60.0, "s")
    """after the first report the delay-based estimate leads (kStartPhase)"""
    rtt_limit_s: float = _number(3.0, 0.1, 600.0, "s")
    """RTT above which the rate falls without feedback (RttBasedBackoff limit)"""
    rtt_drop_factor: float = _number(0.8, 0.01, 1.0)
    """by this factor (RttBasedBackoff fraction)"""
    rtt_drop_interval_s: float = _number(1.0, 0.01, 60.0, "s")
    """once per this (RttBasedBackoff interval)"""
    rtt_drop_floor_bps: int = _number(5_000, 1, 1e9, "bps")
    """down to this (RttBasedBackoff floor)"""

    # Probing: GCC/probe_controller.cc, GCC/probe_bitrate_estimator.cc.
    first_probe_scale: float = _number(3.0, 0.1, 100.0)
    """first probe over the start rate (p1)"""
    second_probe_scale: float = _number(6.0, 0.0, 100.0)
    """second probe over the start rate; 0 for none (p2)"""
    further_probe_scale: float = _number(2.0, 0.1, 100.0)
    """next probe over the estimate (step_size)"""
    further_probe_threshold: float = _number(0.7, 0.0, 10.0)
    """of the last probe that the estimate must reach to go on (further_probe_threshold)"""
    probe_result_timeout_s: float = _number(1.0, 0.01, 60.0, "s")
    """longest wait for results (kMaxWaitingTimeForProbingResult)"""
    default_max_probe_bps: int = _number(5_000_000, 1, 1e9, "bps")
    """limit of probes where no maximum rate is set (kDefaultMaxProbingBitrate)"""
    initial_probing_period_s: float = _number(5.0, 0.0, 60.0, "s")
    """how long repeated initial probing goes on (initial_probing)"""
    initial_probe_s: float = _number(0.1, 0.001, 10.0, "s")
    """length of such a cluster (initial_probe_duration)"""
    initial_probe_delta_s: float = _number(0.02, 0.0, 10.0, "s")
    """between its bursts (initial_min_probe_delta)"""
    probe_s: float = _number(0.015, 0.001, 10.0, "s")
    """length of a cluster (min_probe_duration)"""
    probe_delta_s: float = _number(0.002, 0.0, 10.0, "s")
    """between its bursts (min_probe_delta)"""
    probe_min_packets: int = _number(5, 1, 1000)
    """packets of a cluster (min_probe_packets_sent)"""
    alr_probe_interval_s: float = _number(5.0, 0.1, 600.0, "s")
    """between probes while application limited (alr_interval)"""
    alr_probe_scale: float = _number(2.0, 0.1, 100.0)
    """such a probe over the estimate (alr_scale)"""
    alr_ended_timeout_s: float = _number(3.0, 0.0, 600.0, "s")
    """after that phase a drop may still be probed (kAlrEndedTimeout)"""
    drop_threshold: float = _number(0.66, 0.0, 1.0)
    """a fall below this share is a large drop (kBitrateDropThreshold)"""
    drop_timeout_s: float = _number(5.0, 0.0, 600.0, "s")
    """recovery within this is probed (kBitrateDropTimeout)"""
    drop_probe_scale: float = _number(0.85, 0.0, 10.0)
    """at this share of the rate before (kProbeFractionAfterDrop)"""
    drop_probe_interval_s: float = _number(5.0, 0.0, 600.0, "s")
    """at most once per this (kMinTimeBetweenAlrProbes)"""
    probe_uncertainty: float = _number(0.05, 0.0, 1.0)
    """a probe so close above the estimate is not worth sending (kProbeUncertainty)"""
    loss_limited_probe_scale: float = _number(1.5, 0.1, 100.0)
    """limit of probes over the estimate while loss limited (loss_limited_scale)"""
    first_allocation_probe_scale: float = _number(1.0, 0.0, 100.0)
    """first probe over a new allocation; 0 for none (alloc_p1)"""
    second_allocation_probe_scale: float = _number(2.0, 0.0, 100.0)
    """second probe over a new allocation; 0 for none (alloc_p2)"""
    allocation_probe_limit_scale: float = _number(2.0, 0.0, 100.0)
    """limit of both over the estimate; 0 for none (alloc_current_bwe_limit)"""
    probe_received_ratio: float = _number(0.8, 0.0, 1.0)
    """packets and bytes of a cluster that must arrive (kMinReceivedProbesRatio)"""
    probe_max_ratio: float = _number(2.0, 0.1, 100.0)
    """receive over send rate of a believable cluster (kMaxValidRatio)"""
    probe_saturation_ratio: float = _number(0.9, 0.0, 1.0)
    """below this the link was full (kMinRatioForUnsaturatedLink)"""
    probe_utilisation: float = _number(0.95, 0.01, 1.0)
    """of a full link's receive rate (kTargetUtilizationFraction)"""
    probe_max_interval_s: float = _number(1.0, 0.001, 60.0, "s")
    """longest span of a cluster and of its memory (kMaxProbeInterval, kMaxClusterHistory)"""
    probe_throughput_floor: float = _number(0.85, 0.0, 1.0)
    """results stay above this share of the acknowledged rate (kProbeDropThroughputFraction)"""

    # Application-limited region: GCC/alr_detector.cc, rtc_base/experiments/alr_experiment.cc.
    alr_usage_ratio: float = _number(0.8, 0.01, 1.0)
    """share of the target that the application should use (screenshare group: 80)"""
    alr_start_level: float = _number(0.4, -1.0, 1.0)
    """unused budget at which the phase starts (screenshare group: 40)"""
    alr_stop_level: float = _number(-0.6, -1.0, 1.0)
    """… and ends (screenshare group: -60)"""
    alr_budget_s: float = _number(0.5, 0.01, 60.0, "s")
    """depth of the budget (kWindowMs, modules/pacing/interval_budget.cc)"""

    # Congestion window and pushback: GCC/congestion_window_pushback_controller.cc,
    # rtc_base/experiments/rate_control_settings.cc ("QueueSize:350,MinBitrate:30000").
    cwnd_enabled: bool = True
    """False: no window, no pushback"""
    cwnd_queue_s: float = _number(0.35, 0.0, 60.0, "s")
    """queue the window allows on top of the RTT (QueueSize)"""
    cwnd_min_bytes: int = _number(3_000, 1, 1e9, "bytes")
    """smallest window (kMinCwnd)"""
    cwnd_min_rate_bps: int = _number(30_000, 0, 1e9, "bps")
    """pushback never goes below (MinBitrate)"""
    cwnd_drop_frames: bool = True
    """the target stays and the encoder drops frames; False: the target itself falls (DropFrame)"""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        _check_order(self, "threshold_min_ms", "threshold_initial_ms", "threshold_max_ms")
        _check_order(self, "min_reduction_interval_s", "max_reduction_interval_s")
        _check_order(self, "throughput_window_packets", "throughput_max_packets")
        _check_order(self, "throughput_min_window_s", "throughput_max_window_s")
        _check_order(self, "inherent_loss_min", "inherent_loss_max_offset")
        _check_order(self, "classic_low_loss", "classic_high_loss")
        _check_order(self, "hold_initial_s", "hold_max_s")
        _check_order(self, "alr_stop_level", "alr_start_level")


def _choices(name: str) -> tuple[str, ...]:
    """Allowed words of a field that names one, in the order of their numbers in the record."""
    return get_args(_HINTS[name])


_HINTS = get_type_hints(GccParameters)


def _check(field: dataclasses.Field[Any], value: object) -> None:
    hint = _HINTS[field.name]
    if hint is bool:
        if not isinstance(value, (bool, np.bool_)):
            raise ConfigError(f"gcc.{field.name}={value!r} must be True or False.")
        return
    if choices := _choices(field.name):
        if value not in choices:
            raise unknown_name(f"gcc.{field.name}", value, choices)
        return
    low, high, unit = (field.metadata[key] for key in ("low", "high", "unit"))
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not is_number or not low <= value <= high:
        raise ConfigError(
            f"gcc.{field.name}={value!r} must be a number from {low:g} to {high:g}"
            f"{unit and ' ' + unit}; libwebrtc uses {field.default!r}."
        )
    if hint is int and not math.floor(value) == value:  # type: ignore[call-overload]
        raise ConfigError(f"gcc.{field.name}={value!r} must be a whole number.")


def _check_order(parameters: GccParameters, *names: str) -> None:
    values = [getattr(parameters, name) for name in names]
    if any(low > high for low, high in itertools.pairwise(values)):
        raise ConfigError(
            f"gcc parameters must satisfy {' <= '.join(names)}; got "
            f"{', '.join(f'{value:g}' for value in values)}."
        )


def _record_name(name: str) -> str:
    """Seconds of the configuration are microseconds in the record: `probe_s` -> `probe_us`."""
    return name[:-2] + "_us" if name.endswith("_s") and not name.endswith("_per_s") else name


def record_place(name: str) -> tuple[str, float]:
    """Field of the record that holds a number of the configuration, and the factor to its unit."""
    place = _record_name(name)
    return place, 1.0 if place == name else float(s_to_us(1.0))


def _record_field(name: str) -> tuple[str, str]:
    is_float = _HINTS[name] is float and _record_name(name) == name
    return _record_name(name), "f8" if is_float else "i8"


#: The same fields as a record: seconds as int64 microseconds (`_s` becomes `_us`), words as the
#: number of the choice, flags as 0 and 1. Not `sim._jit.record`: whoever reads the parameters
#: must not load the compiler.
GCC_PARAMETERS = np.dtype(
    (
        np.record,
        np.dtype([_record_field(f.name) for f in dataclasses.fields(GccParameters)], align=True),
    )
)

# Numbers of the words.
ROBUST, CLASSIC_RATE = 0, 1
LOSS_V2, LOSS_CLASSIC = 0, 1


def fill_gcc_parameters(row: Any, parameters: GccParameters) -> None:
    """Write `parameters` into one row (or every row at once) of dtype `GCC_PARAMETERS`."""
    for field in dataclasses.fields(parameters):
        value = getattr(parameters, field.name)
        name = _record_name(field.name)
        if name != field.name:
            value = s_to_us(value)
        elif choices := _choices(field.name):
            value = choices.index(value)
        row[name] = value

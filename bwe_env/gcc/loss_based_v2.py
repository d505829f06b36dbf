"""The loss-based estimate: a link model fitted to the losses of the last seconds.

Follows GCC/loss_based_bwe_v2.cc of libwebrtc M150. The model says that a share `inherent_loss` of
the bytes is lost whatever is sent, and all that is sent above `bandwidth_bps` is lost too. Every
250 ms of send time become one observation; then a few candidate bandwidths compete by likelihood.

Where we leave libwebrtc: it can take back any number of packets that were reported lost and later
received within one observation, here `_MAX_PENDING_LOST` of them (only reordering makes any).
"""

from __future__ import annotations

import math

from bwe_env.gcc.parameters import LOSS_V2, MAX_LOSS_OBSERVATIONS
from bwe_env.gcc.rates import INFINITE_RATE, NO_RATE, rate_of, round_half_up, scale
from bwe_env.sim._jit import NEVER, Record, kernel, record

#: What limits the estimate (LossBasedState).
INCREASING, INCREASING_WITH_PADDING, DECREASING, DELAY_BASED = 0, 1, 2, 3

#: Lost packets of the observation being collected that a later report can still take back.
_MAX_PENDING_LOST = 128

#: Bounds of the loss probability (GetLossProbability).
_MIN_PROBABILITY, _MAX_PROBABILITY = 1.0e-6, 1.0 - 1.0e-6

#: The window limit after a decrease is at least this (kCongestionControllerMinBitrate).
_MIN_LIMIT_BPS = 5_000

#: Loss above the offset that bounds the estimate at all: keeps the bound below 2^63.
_MIN_EXCESS = 1.0e-9

#: Observations above which best and worst are left out (CalculateAverageReportedByteLossRatio).
_MIN_FOR_TRIMMED_MEAN = 3

OBSERVATION = record(
    [
        ("id", "i8"),  # counted from 0, -1 for none
        ("size_bytes", "i8"),
        ("lost_bytes", "i8"),
        ("send_rate_bps", "i8"),
        ("size_kb", "f8"),  # the sizes once more
        ("lost_kb", "f8"),
        ("kept_kb", "f8"),
    ]
)

LOSS_BASED_V2 = record(
    [
        ("bandwidth_bps", "i8"),  # loss-limited bandwidth of the model, NO_RATE before any
        ("inherent_loss", "f8"),
        ("average_loss", "f8"),  # of the remembered observations
        ("result_bps", "i8"),  # bounded estimate
        ("upper_bound_bps", "i8"),  # from the average loss
        ("lower_bound_bps", "i8"),  # from the acknowledged rate and the minimum
        ("acked_rate_bps", "i8"),
        ("delay_based_bps", "i8"),
        ("min_rate_bps", "i8"),
        ("max_rate_bps", "i8"),
        ("num_observations", "i8"),
        ("last_send_us", "i8"),  # of the last observation, -NEVER before the first report
        ("recovering_us", "i8"),  # begin of the increase window, -NEVER for none
        ("window_limit_bps", "i8"),  # of that window
        ("hold_until_us", "i8"),
        ("hold_us", "i8"),  # length of the next hold
        ("hold_rate_bps", "i8"),  # INFINITE_RATE for none
        ("padding_us", "i8"),  # begin of padding, -NEVER for none
        ("padding_rate_bps", "i8"),
        ("partial_bytes", "i8"),  # of the observation being collected
        ("partial_lost_bytes", "i8"),
        ("num_pending_lost", "i8"),
        ("last_pending_seq", "i8"),  # highest of `pending_lost`
        ("state", "i1"),
        ("pending_lost", "i8", (_MAX_PENDING_LOST,)),  # sequence numbers lost in it
        ("observations", OBSERVATION, (MAX_LOSS_OBSERVATIONS,)),  # id is in row id % window
        ("weights", "f8", (MAX_LOSS_OBSERVATIONS,)),  # by age, of the likelihood
        ("average_weights", "f8", (MAX_LOSS_OBSERVATIONS,)),  # by age, of the average loss
    ]
)


@kernel
def loss_v2_reset(loss: Record, p: Record) -> None:
    """Delay-based until enough has been observed."""
    loss.bandwidth_bps = NO_RATE
    loss.inherent_loss = p.inherent_loss_initial if p.loss_estimator == LOSS_V2 else 0.0
    loss.average_loss = 0.0
    loss.result_bps = 0
    loss.acked_rate_bps = NO_RATE
    loss.delay_based_bps = INFINITE_RATE
    loss.num_observations = 0
    loss.last_send_us = -NEVER
    loss.recovering_us = -NEVER
    loss.window_limit_bps = INFINITE_RATE
    loss.hold_until_us = -NEVER
    loss.hold_us = p.hold_initial_us
    loss.hold_rate_bps = INFINITE_RATE
    loss.padding_us = -NEVER
    loss.padding_rate_bps = NO_RATE
    loss.state = DELAY_BASED
    for row in range(MAX_LOSS_OBSERVATIONS):
        loss.observations[row].id = -1
        loss.observations[row].send_rate_bps = 0
        loss.weights[row] = math.pow(p.loss_temporal_weight, float(row))
        loss.average_weights[row] = math.pow(p.loss_average_weight, float(row))
    _clear_partial(loss)


@kernel
def _clear_partial(loss: Record) -> None:
    loss.partial_bytes = 0
    loss.partial_lost_bytes = 0
    loss.num_pending_lost = 0
    loss.last_pending_seq = -1


@kernel
def _update_lower_bound(loss: Record, p: Record) -> None:
    acked_bps = 0
    if loss.acked_rate_bps != NO_RATE:
        acked_bps = scale(loss.acked_rate_bps, p.loss_lower_bound_acked_factor)
    loss.lower_bound_bps = max(acked_bps, loss.min_rate_bps)


@kernel
def loss_v2_set_limits(loss: Record, p: Record, min_rate_bps: int, max_rate_bps: int) -> None:
    """Smallest and largest rate the estimate may take."""
    loss.min_rate_bps = min_rate_bps
    loss.max_rate_bps = max_rate_bps
    if loss.num_observations == 0:
        loss.upper_bound_bps = max_rate_bps
    _update_lower_bound(loss, p)


@kernel
def loss_v2_set_acked_rate(loss: Record, p: Record, acked_rate_bps: int) -> None:
    """The acknowledged rate of the report at hand."""
    loss.acked_rate_bps = acked_rate_bps
    _update_lower_bound(loss, p)


@kernel
def loss_v2_is_ready(loss: Record, p: Record) -> bool:
    """Whether the estimate may be used."""
    return bool(loss.bandwidth_bps != NO_RATE and loss.num_observations >= p.loss_min_observations)


@kernel
def _find_pending(loss: Record, seq: int) -> int:
    """Row of a sequence number among the pending losses, -1 for none."""
    if seq <= loss.last_pending_seq:
        for row in range(loss.num_pending_lost):
            if loss.pending_lost[row] == seq:
                return row
    return -1


@kernel
def loss_v2_add_packet(loss: Record, seq: int, size_bytes: int, is_received: bool) -> None:
    """Count one packet of a report towards the observation being collected."""
    loss.partial_bytes += size_bytes
    row = _find_pending(loss, seq)
    if is_received:
        if row >= 0:
            loss.partial_lost_bytes -= size_bytes
            loss.num_pending_lost -= 1
            loss.pending_lost[row] = loss.pending_lost[loss.num_pending_lost]
    elif row < 0:
        loss.partial_lost_bytes += size_bytes
        if loss.num_pending_lost < _MAX_PENDING_LOST:
            loss.pending_lost[loss.num_pending_lost] = seq
            loss.num_pending_lost += 1
            loss.last_pending_seq = max(loss.last_pending_seq, seq)


@kernel
def _nth_send_rate_bps(loss: Record, p: Record, rank: int) -> int:
    """The observations' send rate that `rank` others (zeros left out) are not above."""
    for row in range(p.loss_window_observations):
        rate_bps = loss.observations[row].send_rate_bps
        below = 0
        same = 0
        for other in range(p.loss_window_observations):
            other_bps = loss.observations[other].send_rate_bps
            if 0 < other_bps < rate_bps:
                below += 1
            elif other_bps == rate_bps:
                same += 1
        if rate_bps > 0 and below <= rank < below + same:
            return int(rate_bps)
    return 0


@kernel
def median_send_rate_bps(loss: Record, p: Record) -> int:
    """Median of the observations' send rates, zeros left out."""
    count = 0
    for row in range(p.loss_window_observations):
        if loss.observations[row].send_rate_bps > 0:
            count += 1
    low_bps = _nth_send_rate_bps(loss, p, (count - 1) // 2)
    high_bps = _nth_send_rate_bps(loss, p, count // 2)
    return (low_bps + high_bps) // 2


@kernel
def _aged(loss: Record, observation: Record, size_bytes: int) -> int:
    """Bytes of an observation, weighted by its age."""
    return scale(size_bytes, loss.average_weights[loss.num_observations - 1 - observation.id])


@kernel
def average_loss_ratio(loss: Record, p: Record) -> float:
    """Weighted share of lost bytes, without the best and the worst observation.

    The worst one counts after all when it was sent much faster than the others: then its loss is
    our own doing and no spike.
    """
    total_bytes = 0
    lost_bytes = 0
    best_row = -1
    best_ratio = 1.0
    worst_row = -1
    worst_ratio = 0.0
    for row in range(min(loss.num_observations, p.loss_window_observations)):
        observation = loss.observations[row]
        total_bytes += _aged(loss, observation, observation.size_bytes)
        lost_bytes += _aged(loss, observation, observation.lost_bytes)
        ratio = 0.0
        if observation.size_bytes > 0:
            ratio = observation.lost_bytes / observation.size_bytes
        if ratio > worst_ratio:
            worst_ratio = ratio
            worst_row = row
        if ratio < best_ratio:
            best_ratio = ratio
            best_row = row
    if lost_bytes == 0:
        return 0.0
    kept_bytes = total_bytes
    kept_lost_bytes = lost_bytes
    if loss.num_observations > _MIN_FOR_TRIMMED_MEAN:
        for row in (best_row, worst_row):
            if row >= 0:
                observation = loss.observations[row]
                kept_bytes -= _aged(loss, observation, observation.size_bytes)
                kept_lost_bytes -= _aged(loss, observation, observation.lost_bytes)
        spike_bps = scale(median_send_rate_bps(loss, p), p.spike_send_rate_factor)
        if spike_bps <= loss.observations[worst_row].send_rate_bps or kept_bytes == 0:
            return float(lost_bytes / total_bytes)
    return float(kept_lost_bytes / kept_bytes)


@kernel
def _update_upper_bound(loss: Record, p: Record) -> None:
    loss.upper_bound_bps = loss.max_rate_bps
    excess = loss.average_loss - p.instant_bound_loss_offset
    if excess > _MIN_EXCESS:
        loss.upper_bound_bps = round_half_up(p.instant_bound_balance_bps / excess)


@kernel
def _push_observation(loss: Record, p: Record, first_send_us: int, last_send_us: int) -> bool:
    """Close the observation being collected if it spans enough send time."""
    if loss.last_send_us == -NEVER:
        loss.last_send_us = first_send_us
    duration_us = last_send_us - loss.last_send_us
    if duration_us <= 0 or duration_us < p.loss_observation_us:
        return False
    loss.last_send_us = last_send_us
    observation = loss.observations[loss.num_observations % p.loss_window_observations]
    observation.id = loss.num_observations
    observation.size_bytes = loss.partial_bytes
    observation.lost_bytes = loss.partial_lost_bytes
    observation.send_rate_bps = rate_of(loss.partial_bytes, duration_us)
    observation.size_kb = loss.partial_bytes / 1000.0
    observation.lost_kb = loss.partial_lost_bytes / 1000.0
    observation.kept_kb = (loss.partial_bytes - loss.partial_lost_bytes) / 1000.0
    loss.num_observations += 1
    _clear_partial(loss)
    loss.average_loss = average_loss_ratio(loss, p)
    _update_upper_bound(loss, p)
    return True


@kernel
def loss_probability(inherent_loss: float, bandwidth_bps: int, send_rate_bps: int) -> float:
    """Share of bytes the model expects to be lost at a send rate."""
    probability = inherent_loss
    if send_rate_bps > bandwidth_bps:
        excess_bps = scale(send_rate_bps - bandwidth_bps, 1.0 - inherent_loss)
        probability += excess_bps / send_rate_bps
    return min(max(probability, _MIN_PROBABILITY), _MAX_PROBABILITY)


@kernel
def feasible_inherent_loss(inherent_loss: float, bandwidth_bps: int, p: Record) -> float:
    """Inherent loss within its bounds, which are tighter for large bandwidths."""
    largest: float = 1.0
    if bandwidth_bps > 0:
        balance = p.inherent_loss_balance_bps / bandwidth_bps
        largest = min(p.inherent_loss_max_offset + balance, 1.0)
    feasible: float = min(max(inherent_loss, p.inherent_loss_min), largest)
    return feasible


@kernel
def _fitted_inherent_loss(loss: Record, p: Record, start: float, bandwidth_bps: int) -> float:
    """Newton's method on the likelihood of the observations."""
    inherent_loss = start
    for _ in range(p.newton_iterations):
        first = 0.0
        second = 0.0
        for row in range(p.loss_window_observations):
            observation = loss.observations[row]
            if observation.id < 0:
                continue
            lost = loss_probability(inherent_loss, bandwidth_bps, observation.send_rate_bps)
            kept = 1.0 - lost
            weight = loss.weights[loss.num_observations - 1 - observation.id]
            kept_kb = observation.kept_kb
            first_term = -kept_kb / kept
            second_term = kept_kb / (kept * kept)
            if observation.lost_bytes > 0:
                lost_kb = observation.lost_kb
                first_term += lost_kb / lost
                second_term += lost_kb / (lost * lost)
            first += weight * first_term
            second -= weight * second_term
        if second >= 0.0:
            second = -1.0e-6
        inherent_loss = feasible_inherent_loss(
            inherent_loss - p.newton_step * first / second, bandwidth_bps, p
        )
    return inherent_loss


@kernel
def high_bandwidth_bias(loss: Record, p: Record, bandwidth_bps: int) -> float:
    """Preference for the larger candidate, turned around where the average loss is high."""
    distance = p.bias_loss_threshold - loss.average_loss
    smoothing = p.bias_smoothing + abs(distance)
    kbps = (bandwidth_bps + 500) // 1000
    linear = p.bandwidth_bias * distance / smoothing * kbps
    return float(linear + p.log_bandwidth_bias * distance / smoothing * math.log(1.0 + kbps))


@kernel
def _objective(loss: Record, p: Record, inherent_loss: float, bandwidth_bps: int) -> float:
    """Log-likelihood of the observations under a candidate, plus the bias."""
    bias = high_bandwidth_bias(loss, p, bandwidth_bps)
    # Most observations were sent below the bandwidth: the same logarithms serve them all.
    inherent = loss_probability(inherent_loss, bandwidth_bps, bandwidth_bps)
    log_inherent_lost = math.log(inherent)
    log_inherent_kept = math.log(1.0 - inherent)
    objective = 0.0
    for row in range(p.loss_window_observations):
        observation = loss.observations[row]
        if observation.id < 0:
            continue
        log_lost = log_inherent_lost
        log_kept = log_inherent_kept
        if observation.send_rate_bps > bandwidth_bps:
            lost = loss_probability(inherent_loss, bandwidth_bps, observation.send_rate_bps)
            log_lost = math.log(lost)
            log_kept = math.log(1.0 - lost)
        weight = loss.weights[loss.num_observations - 1 - observation.id]
        objective += weight * (observation.lost_kb * log_lost + observation.kept_kb * log_kept)
        objective += weight * bias * observation.size_kb
    return objective


@kernel
def _is_increasing(loss: Record, old_bps: int, new_bps: int) -> bool:
    """Whether a loss-limited estimate goes up, or stays while it was going up."""
    if loss.state == DELAY_BASED or new_bps < old_bps:
        return False
    return bool(old_bps < new_bps or loss.state != DECREASING)


@kernel
def _candidate_bps(loss: Record, p: Record, index: int, in_alr: bool) -> int:
    """Bandwidth of candidate 0…4 before its ceiling, NO_RATE if there is no such candidate."""
    if index == 0:
        return scale(loss.bandwidth_bps, p.loss_candidate_up)
    if index == 1:
        return scale(loss.bandwidth_bps, p.loss_candidate_keep)
    if index == 2:
        return scale(loss.bandwidth_bps, p.loss_candidate_down)
    if index == 3:
        is_padding = (
            p.loss_padding_us > 0 and loss.padding_us + p.loss_padding_us >= loss.last_send_us
        )
        if loss.acked_rate_bps == NO_RATE or (in_alr and not is_padding):
            return NO_RATE
        return scale(loss.acked_rate_bps, p.loss_acked_candidate_factor)
    is_above = loss.bandwidth_bps < loss.delay_based_bps < INFINITE_RATE
    return int(loss.delay_based_bps) if is_above else NO_RATE


@kernel
def _choose_candidate(loss: Record, p: Record, in_alr: bool) -> tuple[int, float]:
    """Bandwidth and inherent loss of the most likely candidate."""
    ceiling_bps = loss.max_rate_bps
    if loss.state != DELAY_BASED and loss.window_limit_bps < INFINITE_RATE:
        ceiling_bps = loss.window_limit_bps
    ceiling_bps = max(loss.bandwidth_bps, ceiling_bps)
    best_bps = int(loss.bandwidth_bps)
    best_inherent_loss = float(loss.inherent_loss)
    best_objective = -math.inf
    for index in range(5):
        candidate_bps = _candidate_bps(loss, p, index, in_alr)
        if candidate_bps == NO_RATE:
            continue
        candidate_bps = min(candidate_bps, ceiling_bps)
        start = feasible_inherent_loss(loss.inherent_loss, candidate_bps, p)
        inherent_loss = _fitted_inherent_loss(loss, p, start, candidate_bps)
        objective = _objective(loss, p, inherent_loss, candidate_bps)
        is_better = objective > best_objective
        if is_better or (objective == best_objective and candidate_bps > best_bps):
            best_objective = objective
            best_bps = candidate_bps
            best_inherent_loss = inherent_loss
    return best_bps, best_inherent_loss


@kernel
def _limit_increase(loss: Record, p: Record, candidate_bps: int) -> int:
    """What of an increase is allowed while loss limited."""
    window_end_us = loss.recovering_us + p.loss_increase_window_us
    if window_end_us > loss.last_send_us:
        candidate_bps = min(candidate_bps, loss.window_limit_bps)
    if loss.acked_rate_bps == NO_RATE or not _is_increasing(
        loss, loss.bandwidth_bps, candidate_bps
    ):
        return candidate_bps
    factor = p.rampup_factor
    if loss.hold_rate_bps < INFINITE_RATE and loss.acked_rate_bps < scale(
        loss.hold_rate_bps, p.rampup_hold_threshold
    ):
        factor = p.rampup_factor_in_hold
    limited_bps = min(candidate_bps, scale(loss.acked_rate_bps, factor))
    limited_bps = max(limited_bps, loss.bandwidth_bps)
    if loss.state == DECREASING and limited_bps == loss.bandwidth_bps:
        return int(loss.bandwidth_bps + 1)  # leaves the state, so that padding starts
    return int(limited_bps)


@kernel
def _may_keep_increasing(loss: Record, p: Record, bounded_bps: int) -> bool:
    """Whether padding is still young, or has proved a higher rate."""
    if p.loss_padding_us == 0 or loss.state != INCREASING_WITH_PADDING:
        return True
    is_young = loss.padding_us + p.loss_padding_us >= loss.last_send_us
    return bool(is_young or loss.padding_rate_bps < bounded_bps)


@kernel
def _forget_padding(loss: Record) -> None:
    loss.padding_us = -NEVER
    loss.padding_rate_bps = NO_RATE


@kernel
def _change_state(loss: Record, p: Record, bounded_bps: int) -> None:
    """Increase (with padding), hold after a decrease, or leave it to the delay-based estimate."""
    is_limited = bounded_bps < loss.delay_based_bps and bounded_bps < loss.max_rate_bps
    is_increasing = _is_increasing(loss, loss.result_bps, bounded_bps)
    if is_limited and is_increasing and _may_keep_increasing(loss, p, bounded_bps):
        if p.loss_padding_us > 0 and bounded_bps > loss.padding_rate_bps:
            loss.padding_rate_bps = bounded_bps
            loss.padding_us = loss.last_send_us
        loss.state = INCREASING_WITH_PADDING if p.loss_padding_us > 0 else INCREASING
    elif is_limited:
        if loss.state != DECREASING and p.hold_duration_factor > 0.0:
            loss.hold_until_us = loss.last_send_us + loss.hold_us
            loss.hold_us = min(scale(loss.hold_us, p.hold_duration_factor), p.hold_max_us)
            loss.hold_rate_bps = bounded_bps
        _forget_padding(loss)
        loss.state = DECREASING
    else:
        loss.hold_until_us = -NEVER
        loss.hold_us = p.hold_initial_us
        loss.hold_rate_bps = INFINITE_RATE
        _forget_padding(loss)
        loss.state = DELAY_BASED


@kernel
def _update_result(loss: Record, p: Record, bounded_bps: int) -> None:
    is_held = loss.state == DECREASING and loss.hold_until_us > loss.last_send_us
    if is_held and bounded_bps < loss.delay_based_bps:
        loss.hold_rate_bps = max(loss.lower_bound_bps, loss.hold_rate_bps)
        loss.result_bps = min(loss.hold_rate_bps, bounded_bps)
        return
    _change_state(loss, p, bounded_bps)
    loss.result_bps = bounded_bps
    window_end_us = loss.recovering_us + p.loss_increase_window_us
    if loss.state != DELAY_BASED and window_end_us < loss.last_send_us:
        grown_bps = scale(loss.bandwidth_bps, p.loss_max_increase_factor)
        loss.window_limit_bps = max(grown_bps, _MIN_LIMIT_BPS)
        loss.recovering_us = loss.last_send_us


@kernel
def loss_v2_update(
    loss: Record,
    p: Record,
    first_send_us: int,
    last_send_us: int,
    delay_based_bps: int,
    in_alr: bool,
) -> None:
    """Estimate anew once the packets added so far make an observation.

    Args:
        first_send_us: earliest send time in the report.
        last_send_us: latest send time in the report.
        delay_based_bps: INFINITE_RATE while there is no delay-based limit.
    """
    loss.delay_based_bps = delay_based_bps
    if not _push_observation(loss, p, first_send_us, last_send_us):
        return
    if loss.bandwidth_bps == NO_RATE:
        if delay_based_bps == INFINITE_RATE:
            return
        loss.bandwidth_bps = delay_based_bps
        loss.result_bps = delay_based_bps
        loss.state = DELAY_BASED
    best_bps, inherent_loss = _choose_candidate(loss, p, in_alr)
    if loss.average_loss > inherent_loss and loss.bandwidth_bps < best_bps:
        best_bps = int(loss.bandwidth_bps)
    if loss.state != DELAY_BASED:
        best_bps = _limit_increase(loss, p, best_bps)
    bounded_bps = min(best_bps, loss.upper_bound_bps, delay_based_bps)
    bounded_bps = max(bounded_bps, loss.lower_bound_bps)
    if bounded_bps < best_bps:
        loss.bandwidth_bps = bounded_bps
        loss.inherent_loss = 0.0
    else:
        loss.bandwidth_bps = max(best_bps, loss.lower_bound_bps)
        loss.inherent_loss = inherent_loss
    _update_result(loss, p, bounded_bps)

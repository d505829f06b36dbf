"""A learned policy with a hand-tuned one behind it: GCC takes over where the policy is not at home.

Everything is read from the observation. Two reasons to step in, call by call:

* *off distribution*: the newest interval is further from those of training than nearly all of them
  were (`agents.observation_statistics`), several intervals in a row; it ends below a lower bound;
* *overshoot*: the target is above what GCC itself would allow for the rate that arrives, while the
  queue is long or packets are lost.

GCC then sets the target until neither has held for a while. A call that falls back again and again
is held for longer each time.

In mode "rate" GCC runs in the policy's shadow: it sees the feedback of what is sent but has no
probes of its own, so it finds free capacity later than where it drives alone. How much that costs
at most was measured on the 60 synthetic validation networks (one call of 60 s each), with a policy
that asks for the shadow's target all the time: 38 % of the capacity used instead of 55 %, 0.30
[0.24, 0.35] less call score, and at that lower rate fewer freezes (-0.87 points [-1.48, -0.25]). A
fallback is as safe as GCC, but not as good: it is meant to be rare. Modes "scale" and "config" do
not pay this price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.observation_statistics import ObservationStatistics, is_warm, newest_features
from agents.policy_estimator import PolicyEstimator
from agents.policy_setting import PolicySetting
from bwe_env.action import ActionMode, rate_to_action
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.feature_scale import unscaled
from bwe_env.observation import FEATURE_NAMES, FEATURES, NUM_FEATURES

REASONS = ("off_distribution", "overshoot")


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When the policy is not followed."""

    off_distribution: bool = True
    """whether to look at the distance from training; needs statistics with the policy"""
    enter_level: float = 0.999
    """share of training intervals below the distance that is too far. Ours: one interval a minute
    and a half lies beyond it by chance"""
    leave_level: float = 0.99
    """share of training intervals below the distance at which it ends. Ours"""
    enter_intervals: int = 3
    """intervals in a row that must be too far. Ours: one odd report is no other network"""
    overshoot: bool = True
    """whether to look at the target against what arrives"""
    overshoot_factor: float = 1.5
    """target over acked rate; how far GCC's own target may be above it (libwebrtc's
    AimdRateControl, modules/remote_bitrate_estimator/aimd_rate_control.cc)"""
    overshoot_offset_bps: float = 10_000.0
    """added to that bound; the same source"""
    queue_delay_ms: float = 200.0
    """a longer queue is long. Ours: with as much propagation delay it makes the 400 ms that ITU-T
    G.114 calls the limit for conversation"""
    loss_ratio: float = 0.1
    """smoothed loss above it is high: where libwebrtc's first loss-based control backs off"""
    overshoot_intervals: int = 2
    """intervals in a row. Ours: the first may be the queue's first sight"""
    hold_s: float = 2.0
    """GCC stays for so long after the last reason. Ours: a few round trips and a drained queue"""
    max_hold_s: float = 30.0
    """each further time within `forget_s` holds twice as long, up to this. Ours"""
    forget_s: float = 30.0
    """after so long without a reason the first hold applies again. Ours"""

    def __post_init__(self) -> None:
        if not self.leave_level <= self.enter_level:
            raise ConfigError(
                f"guard.leave_level={self.leave_level} must not be above "
                f"guard.enter_level={self.enter_level}: it would leave and enter at once."
            )
        for name in ("enter_intervals", "overshoot_intervals"):
            if getattr(self, name) < 1:
                raise ConfigError(f"guard.{name}={getattr(self, name)} must be at least 1.")
        for name in ("overshoot_factor", "queue_delay_ms", "hold_s"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"guard.{name}={getattr(self, name)} must be above 0.")
        if self.max_hold_s < self.hold_s:
            raise ConfigError(
                f"guard.max_hold_s={self.max_hold_s} must be at least guard.hold_s={self.hold_s}."
            )


class Guard:
    """Decides, interval by interval, which of many calls GCC drives.

    Args:
        config: when.
        statistics: of training; None where `config.off_distribution` is False.
        interval_s: between two decisions.
    """

    #: The acked rate is the largest of so many intervals: single ones may lack a report. Ours.
    ACKED_INTERVALS = 5

    def __init__(
        self, config: GuardConfig, statistics: ObservationStatistics | None, *, interval_s: float
    ) -> None:
        self.config = config
        self._interval_s = interval_s
        self._statistics = statistics
        if config.off_distribution:
            if statistics is None:
                raise ArtifactError(
                    "the policy carries no statistics of its training calls, by which a guard "
                    "tells what is new to it. Measure them: python -m "
                    "experiments.policy_statistics RUN."
                )
            self._enter = statistics.quantile(config.enter_level)
            self._leave = statistics.quantile(config.leave_level)
        self.reset(1)

    def reset(self, num_envs: int) -> None:
        """`num_envs` calls begin, all under the policy."""
        self._far_intervals = np.zeros(num_envs, dtype=np.int64)
        self._is_off = np.zeros(num_envs, dtype=np.bool_)
        self._over_intervals = np.zeros(num_envs, dtype=np.int64)
        self._acked_bps = np.zeros((self.ACKED_INTERVALS, num_envs))
        self._left = np.zeros(num_envs, dtype=np.int64)  # intervals of the hold
        self._hold_s = np.full(num_envs, self.config.hold_s)  # of the present or next hold
        self._quiet_s = np.full(num_envs, np.inf)  # since GCC last drove

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""
        for counts in (self._far_intervals, self._over_intervals, self._left):
            counts[env] = 0
        self._quiet_s[env] = np.inf
        self._is_off[env] = False
        self._acked_bps[:, env] = 0.0
        self._hold_s[env] = self.config.hold_s

    def update(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
        """Whether GCC drives each call in the interval that begins, and which reasons hold now.

        Args:
            features: of the newest interval, shape (calls, NUM_FEATURES).
        """
        reasons = {
            "off_distribution": self._off_distribution(features),
            "overshoot": self._overshoot(features),
        }
        has_reason = reasons["off_distribution"] | reasons["overshoot"]
        before = self._left > 0
        self._quiet_s = np.where(before, 0.0, self._quiet_s + self._interval_s)
        enters = has_reason & ~before
        again = enters & (self._quiet_s < self.config.forget_s)
        self._hold_s[enters & ~again] = self.config.hold_s
        self._hold_s[again] = np.minimum(2.0 * self._hold_s[again], self.config.max_hold_s)
        hold = np.ceil(self._hold_s / self._interval_s - 1e-9).astype(np.int64)
        self._left = np.where(has_reason, hold, np.maximum(self._left - 1, 0))
        return self._left > 0, reasons

    def _off_distribution(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self._statistics is None or not self.config.off_distribution:
            return np.zeros(len(features), dtype=np.bool_)
        score = self._statistics.score(features)
        self._far_intervals = np.where(score > self._enter, self._far_intervals + 1, 0)
        enters = self._far_intervals >= self.config.enter_intervals
        self._is_off = enters | (self._is_off & (score > self._leave))
        return self._is_off.copy()

    def _overshoot(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        config = self.config
        self._acked_bps = np.roll(self._acked_bps, 1, axis=0)
        self._acked_bps[0] = in_unit(features, "acked_rate")
        bound_bps = config.overshoot_factor * self._acked_bps.max(axis=0)
        is_above = in_unit(features, "target_rate") > bound_bps + config.overshoot_offset_bps
        suffers = (in_unit(features, "queue_delay") > config.queue_delay_ms) | (
            in_unit(features, "loss_ratio_slow") > config.loss_ratio
        )
        is_over = config.overshoot & is_above & suffers & is_warm(features)
        self._over_intervals = np.where(is_over, self._over_intervals + 1, 0)
        return np.asarray(self._over_intervals >= config.overshoot_intervals)


def in_unit(features: NDArray[np.float32], name: str) -> NDArray[np.float64]:
    """A feature of every call in its unit, shape (calls,)."""
    index = FEATURE_NAMES.index(name)
    return unscaled(FEATURES[index], features[:, index])


class GuardedPolicy:
    """A `bwe_env.estimator.RatePolicy` that follows another one, or GCC where a `Guard` says so.

    The policy is asked all the time, so that one with memory stays in step with the call.

    Args:
        policy: the trained policy, with its statistics.
        config: when it is not followed.

    Attributes:
        fallback_intervals: of all calls so far, in which GCC drove.
        reason_intervals: of all calls so far, in which each of `REASONS` held.
        intervals: of all calls so far.

    Raises:
        ArtifactError: the policy carries no statistics, and the guard is to look at them.
    """

    def __init__(self, policy: PolicyEstimator, config: GuardConfig | None = None) -> None:
        self.policy = policy
        self._guard = Guard(
            config or GuardConfig(), policy.statistics, interval_s=policy.setting.interval_s
        )
        self.clear_counts()

    @property
    def setting(self) -> PolicySetting:
        """Of the policy."""
        return self.policy.setting

    @property
    def action_mode(self) -> ActionMode:
        """Of the policy."""
        return self.setting.action_mode

    @property
    def fallback_share(self) -> float:
        """Share of the intervals of all calls so far in which GCC drove; 0 before the first."""
        return self.fallback_intervals / max(1, self.intervals)

    def clear_counts(self) -> None:
        """Count from here on; `reset` does not, since one table is made of many batches."""
        self.intervals = 0
        self.fallback_intervals = 0
        self.reason_intervals = dict.fromkeys(REASONS, 0)

    def reset(self, num_envs: int) -> None:
        """Forget everything but the counts; `num_envs` calls begin."""
        self.policy.reset(num_envs)
        self._guard.reset(num_envs)

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""
        self.policy.restart(env)
        self._guard.restart(env)

    def act(self, observation: NDArray[np.float32], truth: Any) -> NDArray[np.float32]:
        """The policy's actions, or those by which GCC drives."""
        actions = self.policy.act(observation, truth)
        features = newest_features(observation, self.setting.observation.history)
        is_fallback, reasons = self._guard.update(features)
        self.intervals += len(features)
        self.fallback_intervals += int(is_fallback.sum())
        for name, holds in reasons.items():
            self.reason_intervals[name] += int(holds.sum())
        return np.where(is_fallback[:, None], self._gcc_actions(features, actions), actions)

    def _gcc_actions(
        self, features: NDArray[np.float32], actions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if self.action_mode != "rate":
            return np.zeros_like(actions)  # leaves GCC as it is
        rates_bps = in_unit(features, "gcc_target_rate")
        low, high = self.setting.min_rate_bps, self.setting.max_rate_bps
        return rate_to_action(rates_bps, low, high).astype(np.float32)[:, None]


def guarded_shares(
    calls: Sequence[NDArray[np.float32]],
    statistics: ObservationStatistics,
    *,
    interval_s: float,
    config: GuardConfig | None = None,
) -> dict[str, float]:
    """Share of the intervals of recorded calls in which a guard would step in.

    Nothing is done about it there: the calls go on as they were recorded.

    Args:
        calls: features of each, shape (intervals, NUM_FEATURES), all equally long.

    Returns:
        The share in which each of `REASONS` holds, and "any" in which GCC would drive.
    """
    guard = Guard(config or GuardConfig(), statistics, interval_s=interval_s)
    guard.reset(len(calls))
    counts = dict.fromkeys((*REASONS, "any"), 0)
    series = np.stack(calls, axis=1)
    assert series.shape[2] == NUM_FEATURES
    for features in series:
        is_fallback, reasons = guard.update(features)
        for name, holds in {**reasons, "any": is_fallback}.items():
            counts[name] += int(holds.sum())
    return {name: count / (series.shape[0] * series.shape[1]) for name, count in counts.items()}

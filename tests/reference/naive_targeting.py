"""What a targeting plan does in one call, in plain Python: the twin of `bwe_env.targeting`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bwe_env.labels import NETWORK_CLASSES
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import AlarmResponse, TargetingPlan


class NaiveAlarm:
    """One alarm of one call; intervals are counted, times never added up."""

    def __init__(self, response: AlarmResponse) -> None:
        self.response = response
        self.last_raised: int | None = None

    def is_on(self, probability: np.float32, rate_bps: float, interval: int) -> bool:
        """Whether it is on in the interval after the one numbered `interval`."""
        # A model's answer has single precision, and so has what it is held against.
        is_likely = probability >= np.float32(self.response.threshold)
        if is_likely and rate_bps >= self.response.min_rate_bps:
            self.last_raised = interval
            return True
        if self.last_raised is None:
            return False
        return 0.1 * (interval - self.last_raised) < self.response.hold_s - 0.05


class NaiveTargeting:
    """One call under a plan."""

    def __init__(self, plan: TargetingPlan, base: SenderSettings) -> None:
        self.plan = plan
        self.base = base.with_overrides(plan.base)
        self.intervals = 0
        self.rate_bps = 0.0
        self.smoothed = [0.0] * len(NETWORK_CLASSES)
        self.detected = ""
        self.random_loss = NaiveAlarm(plan.random_loss) if plan.random_loss else None
        self.congestion = NaiveAlarm(plan.congestion) if plan.congestion else None
        self.in_force: list[tuple[SenderSettings, float]] = [(self.base, 1.0)]

    def update(self, said: Mapping[str, np.float32], acked_bytes: float) -> None:
        """One interval has passed; the settings and the factor of the next join `in_force`."""
        self.intervals += 1
        self.rate_bps += (8.0 * acked_bytes / 0.1 - self.rate_bps) * 0.1 / 3.1
        overrides: dict[str, Any] = {}
        scale = 1.0
        if self.plan.network_type is not None:
            self._detect(said)
            overrides |= self.plan.network_type.settings.get(self.detected, {})
        for name, alarm in (("random_loss", self.random_loss), ("congestion", self.congestion)):
            if alarm is not None and alarm.is_on(said[name], self.rate_bps, self.intervals):
                overrides |= alarm.response.settings
                scale *= alarm.response.rate_scale
        self.in_force.append((self.base.with_overrides(overrides), scale))

    def _detect(self, said: Mapping[str, np.float32]) -> None:
        response = self.plan.network_type
        assert response is not None
        past = max(1.0, min(float(self.intervals), response.smoothing_s / 0.1))  # intervals
        for position, name in enumerate(NETWORK_CLASSES):
            now = float(said[f"network_type:{name}"])
            self.smoothed[position] += (now - self.smoothed[position]) / past
        if self.intervals < response.earliest_s / 0.1 - 0.5:
            return
        best = max(range(len(NETWORK_CLASSES)), key=lambda position: self.smoothed[position])
        if self.smoothed[best] >= response.confidence:
            self.detected = NETWORK_CLASSES[best]

    @property
    def targeted_s(self) -> float:
        """Of the intervals that have passed, those with something else than at the beginning."""
        played = self.in_force[: self.intervals]
        return 0.1 * sum(one != (self.base, 1.0) for one in played)

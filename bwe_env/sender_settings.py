"""What a sender can be told anew while its call goes on: GCC's numbers, repair, redundancy, pacing.

A `SenderSettings` is the part of a call's configuration that a service tunes offline, delivers when
a call is set up, and changes when it has found out what kind of network the call is on. Whatever
else there is about a call (rates, camera, receiver) stays in `CallConfig`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_type_hints

from bwe_env.config import AudioConfig, CallConfig, FecConfig, PacketConfig, RtxConfig
from bwe_env.errors import ConfigError, unknown_name
from bwe_env.gcc import GccParameters

#: Parameters of GCC that a running call cannot take: what they set up is already in its state (the
#: estimators that run, lengths of windows, weights by age), or they are looked at only when a call
#: begins, or when its streams are allotted another rate, which they never are.
FIXED_IN_CALL = frozenset(
    {
        "acked_rate_estimator",
        "loss_estimator",
        "knows_max_rate",
        "repeated_initial_probing",
        "min_total_allocated_bps",
        "max_total_allocated_bps",
        "trendline_window_groups",
        "threshold_initial_ms",
        "default_rtt_s",
        "throughput_window_packets",
        "throughput_required_packets",
        "throughput_max_packets",
        "throughput_min_window_s",
        "throughput_max_window_s",
        "bitrate_initial_window_s",
        "bitrate_window_s",
        "bitrate_initial_variance",
        "loss_window_observations",
        "loss_temporal_weight",
        "loss_average_weight",
        "inherent_loss_initial",
        "default_max_probe_bps",
        "first_probe_scale",
        "second_probe_scale",
        "initial_probing_period_s",
        "initial_probe_s",
        "initial_probe_delta_s",
        "first_allocation_probe_scale",
        "second_allocation_probe_scale",
        "allocation_probe_limit_scale",
    }
)


@dataclass(frozen=True, kw_only=True)
class SenderSettings:
    """Everything that may change about a sender while its call goes on."""

    gcc: GccParameters = field(default_factory=GccParameters)
    fec: FecConfig = field(default_factory=FecConfig)
    rtx: RtxConfig = field(default_factory=RtxConfig)
    audio_redundancy: int = AudioConfig.redundancy
    """see `AudioConfig.redundancy`"""
    burst_interval_s: float = PacketConfig.burst_interval_s
    """see `PacketConfig`"""
    queue_time_limit_s: float = PacketConfig.queue_time_limit_s
    """see `PacketConfig`"""

    def __post_init__(self) -> None:
        self.applied_to(CallConfig())  # whose parts check the numbers

    @classmethod
    def of(cls, call: CallConfig, gcc: GccParameters) -> SenderSettings:
        """Those that a call begins with."""
        return cls(
            gcc=gcc,
            fec=call.video.fec,
            rtx=call.video.rtx,
            audio_redundancy=call.audio.redundancy,
            burst_interval_s=call.packets.burst_interval_s,
            queue_time_limit_s=call.packets.queue_time_limit_s,
        )

    def applied_to(self, call: CallConfig) -> CallConfig:
        """The call with these settings; `gcc` has its own place beside it (`run_calls(gcc=…)`)."""
        return dataclasses.replace(
            call,
            video=dataclasses.replace(call.video, fec=self.fec, rtx=self.rtx),
            audio=dataclasses.replace(call.audio, redundancy=self.audio_redundancy),
            packets=dataclasses.replace(
                call.packets,
                burst_interval_s=self.burst_interval_s,
                queue_time_limit_s=self.queue_time_limit_s,
            ),
        )

    def with_overrides(self, overrides: Mapping[str, Any]) -> SenderSettings:
        """A copy with some values replaced.

        Args:
            overrides: plain JSON values by name, those of parts with a dot, e.g.
                ``{"gcc.decrease_factor": 0.9, "fec.enabled": True, "burst_interval_s": 0.02}``.

        Raises:
            UnknownNameError: no such setting; the known ones are listed.
            ConfigError: a value is out of range.

        >>> SenderSettings().with_overrides({"gcc.decrease_factor": 0.9}).gcc.decrease_factor
        0.9
        """
        settings = self
        parts: dict[str, dict[str, Any]] = {}
        for name, value in overrides.items():
            if name not in SETTING_NAMES:
                raise unknown_name("sender setting", name, SETTING_NAMES)
            part, dot, leaf = name.partition(".")
            if dot:
                parts.setdefault(part, {})[leaf] = value
            else:
                settings = dataclasses.replace(settings, **cast(Any, {name: value}))
        for part, values in parts.items():
            changed = dataclasses.replace(getattr(settings, part), **values)
            settings = dataclasses.replace(settings, **{part: changed})
        return settings

    def value(self, name: str) -> Any:
        """The value of a setting by its dotted name.

        Raises:
            UnknownNameError: no such setting; the known ones are listed.
        """
        if name not in SETTING_NAMES:
            raise unknown_name("sender setting", name, SETTING_NAMES)
        value: Any = self
        for step in name.split("."):
            value = getattr(value, step)
        return value

    def check_reachable(self, name: str, other: SenderSettings) -> None:
        """Raise `ConfigError` if a running call cannot go over from these settings to `other`.

        Args:
            name: what `other` is called in the error.
        """
        for parameter in sorted(FIXED_IN_CALL):
            ours, theirs = getattr(self.gcc, parameter), getattr(other.gcc, parameter)
            if ours != theirs:
                raise ConfigError(
                    f"{name} sets gcc.{parameter}={theirs!r}, and the call begins with {ours!r}: a "
                    "running call cannot change it. Leave it out, or set it for the whole call."
                )


def _names() -> tuple[str, ...]:
    hints = get_type_hints(SenderSettings)
    names: list[str] = []
    for part in dataclasses.fields(SenderSettings):
        if dataclasses.is_dataclass(hints[part.name]):
            leaves = dataclasses.fields(hints[part.name])
            names += [f"{part.name}.{leaf.name}" for leaf in leaves]
        else:
            names.append(part.name)
    return tuple(names)


#: Every setting by its dotted name.
SETTING_NAMES: tuple[str, ...] = _names()

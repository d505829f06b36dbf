"""What can be told a sender: by name, in range, and what only a new call can take."""

from __future__ import annotations

import ast
import dataclasses
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import bwe_env
from bwe_env.config import AudioConfig, CallConfig, FecConfig, PacketConfig, RtxConfig, VideoConfig
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.gcc import GccParameters
from bwe_env.sender_settings import FIXED_IN_CALL, SETTING_NAMES, SenderSettings

#: Another value for every setting whose default alone does not say what else it may be.
OTHERS: dict[str, Any] = {
    "fec.rtt_knots_s": (0.0, 0.05),
    "fec.loss_knots": (0.0, 0.3),
    "fec.protection": (0.0, 0.0, 0.1, 0.4),
    "fec.min_protection": 0.1,
    "rtx.rate_share": 0.5,
    "rtx.max_age_s": 0.4,
    "audio_redundancy": 2,
    "burst_interval_s": 0.02,
    "queue_time_limit_s": 1.5,
    "gcc.acked_rate_estimator": "classic",
    "gcc.loss_estimator": "classic",
}


def another(name: str) -> Any:
    """A permitted value other than the default."""
    default = SenderSettings().value(name)
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(default, bool):
        return not default
    part, _, leaf = name.partition(".")
    if part != "gcc":
        return default * 1.25
    field = {f.name: f for f in dataclasses.fields(GccParameters)}[leaf]
    for candidate in (default * 0.9, default * 1.1, field.metadata["low"], field.metadata["high"]):
        value = int(candidate) if isinstance(default, int) else candidate
        if value == default:
            continue
        try:
            GccParameters(**{leaf: value})
        except ConfigError:  # out of range, or of order
            continue
        return value
    raise AssertionError(name)


def test_every_part_of_the_settings_has_its_name() -> None:
    names = set(SETTING_NAMES)
    assert len(SETTING_NAMES) == len(names)
    assert {f"gcc.{f.name}" for f in dataclasses.fields(GccParameters)} < names
    assert {f"fec.{f.name}" for f in dataclasses.fields(FecConfig)} < names
    assert {f"rtx.{f.name}" for f in dataclasses.fields(RtxConfig)} < names
    assert {"audio_redundancy", "burst_interval_s", "queue_time_limit_s"} < names
    assert names == {n for n in SETTING_NAMES if SenderSettings().value(n) is not None}


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_an_override_changes_what_it_names_and_nothing_else(name: str) -> None:
    value = another(name)
    before = SenderSettings()
    after = before.with_overrides({name: value})
    assert after.value(name) == value
    assert after != before
    assert {n for n in SETTING_NAMES if after.value(n) != before.value(n)} == {name}
    assert after.with_overrides({name: before.value(name)}) == before


def test_overrides_may_only_make_sense_together() -> None:
    """Three columns need six shares; either alone is refused."""
    columns: dict[str, Any] = {"fec.loss_knots": [0.0, 0.1, 0.3]}
    shares: dict[str, Any] = {"fec.protection": [0.0, 0.0, 0.0, 0.0, 0.3, 0.5]}
    for alone in (columns, shares):
        with pytest.raises(ConfigError, match="shares"):
            SenderSettings().with_overrides(alone)
    fec = SenderSettings().with_overrides({**columns, **shares}).fec
    assert fec.loss_knots == (0.0, 0.1, 0.3)


def test_no_override_is_no_change() -> None:
    settings = SenderSettings().with_overrides({"gcc.decrease_factor": 0.9})
    assert settings.with_overrides({}) == settings


def test_what_a_call_begins_with_goes_back_into_it() -> None:
    call = CallConfig(
        duration_s=12.0,
        video=VideoConfig(
            fec=FecConfig(enabled=True), rtx=RtxConfig(rate_share=0.3), frame_rate_hz=15.0
        ),
        audio=AudioConfig(redundancy=1, rate_bps=24_000),
        packets=PacketConfig(burst_interval_s=0.01, queue_time_limit_s=1.0, overhead_bytes=48),
    )
    gcc = GccParameters(decrease_factor=0.7)
    settings = SenderSettings.of(call, gcc)
    assert settings.applied_to(call) == call
    assert settings.gcc == gcc
    plain = settings.applied_to(CallConfig())
    assert SenderSettings.of(plain, gcc) == settings
    # All else stays that of the call.
    assert (plain.duration_s, plain.video.frame_rate_hz) == (60.0, CallConfig().video.frame_rate_hz)
    assert plain.packets.overhead_bytes == PacketConfig().overhead_bytes


def test_the_defaults_are_those_of_a_call() -> None:
    assert SenderSettings() == SenderSettings.of(CallConfig(), GccParameters())


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'gcc\.decrease_factor'"):
        SenderSettings().with_overrides({"gcc.decrese_factor": 0.9})
    for name in ("gcc", "gcc.", "decrease_factor", "fec", "", "gcc.decrease_factor.x"):
        with pytest.raises(UnknownNameError, match="sender setting"):
            SenderSettings().with_overrides({name: 1})
        with pytest.raises(UnknownNameError, match="sender setting"):
            SenderSettings().value(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gcc.decrease_factor", 1.5),
        ("gcc.decrease_factor", math.nan),
        ("gcc.decrease_factor", "0.9"),
        ("gcc.decrease_factor", None),
        ("gcc.alr_probing", 1),
        ("gcc.loss_estimator", "v3"),
        ("gcc.loss_min_observations", 2.5),
        ("fec.enabled", "no"),
        ("fec.enabled", 1),
        ("fec.protection", 0.5),
        ("fec.min_protection", math.nan),
        ("rtx.rate_share", 0.0),
        ("audio_redundancy", -1),
        ("audio_redundancy", 1.5),
        ("burst_interval_s", -0.1),
        ("burst_interval_s", "0.02"),
        ("queue_time_limit_s", math.inf),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(name: str, value: Any) -> None:
    leaf = name.rpartition(".")[2].removeprefix("audio_")
    with pytest.raises((ConfigError, UnknownNameError), match=leaf):
        SenderSettings().with_overrides({name: value})


# --- What a running call can take -----------------------------------------------------------------


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_a_running_call_takes_all_but_the_fixed_parameters(name: str) -> None:
    before = SenderSettings()
    after = before.with_overrides({name: another(name)})
    if name.removeprefix("gcc.") in FIXED_IN_CALL and name.startswith("gcc."):
        with pytest.raises(ConfigError, match=rf"wifi sets {name}=.*a running call cannot"):
            before.check_reachable("wifi", after)
    else:
        before.check_reachable("wifi", after)
    after.check_reachable("itself", after)


def readers() -> dict[str, set[str]]:
    """Functions that read each field of GCC's parameters, by name in the record, from source."""
    root = Path(bwe_env.__file__).parent
    found: dict[str, set[str]] = defaultdict(set)
    for path in [*root.glob("gcc/*.py"), *root.glob("sim/*.py")]:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if not isinstance(node, ast.Attribute):
                    continue
                owner = node.value
                if (isinstance(owner, ast.Name) and owner.id == "p") or (
                    isinstance(owner, ast.Attribute) and owner.attr == "gcc_parameters"
                ):
                    found[node.attr].add(function.name)
    return found


#: Read once per call: when it begins, and (these) before its first media or for streams whose
#: allotted rate changes. No call of the simulator changes that.
ONLY_AT_THE_BEGINNING = {"_initiate_exponential", "_probe_allocation"}


def test_what_is_read_only_when_a_call_begins_is_fixed_in_it() -> None:
    """A change that nobody reads would be a tuned number that silently does nothing."""
    found = readers()
    fields = [field.name for field in dataclasses.fields(GccParameters)]
    for name in fields:
        in_record = (
            name[:-2] + "_us" if name.endswith("_s") and not name.endswith("per_s") else name
        )
        functions = found[in_record]
        assert functions, f"nobody reads {name}"
        is_late = {f for f in functions if not f.endswith("_reset")} - ONLY_AT_THE_BEGINNING
        if not is_late:
            assert name in FIXED_IN_CALL, f"{name} is read by {functions} alone"
    assert set(fields) >= FIXED_IN_CALL
    # The walk has teeth: it sees both kinds.
    assert found["loss_average_weight"] == {"loss_v2_reset"}
    assert found["decrease_factor"] == {"_decrease"}


def test_windows_kept_in_rings_are_fixed_in_a_call() -> None:
    """Their rows are found by position modulo the window: another length would mix them up."""
    assert {"trendline_window_groups", "loss_window_observations"} <= FIXED_IN_CALL

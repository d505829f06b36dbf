"""Targeting plans: what they say, what they do in a call, and what they leave alone."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError
from bwe_env.labels import NETWORK_CLASSES
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import (
    NO_TYPE,
    AlarmResponse,
    Targeting,
    TargetingPlan,
    TypeResponse,
)
from tests.reference.naive_targeting import NaiveTargeting
from tests.scripted_models import ALL_OUTPUTS, TYPE_OUTPUTS, ScriptedModels, telemetry_rows

FULL = TargetingPlan(
    base={"gcc.decrease_factor": 0.8, "fec.loss_knots": [0.0, 0.2]},
    network_type=TypeResponse(
        settings={
            "wifi": {"gcc.decrease_factor": 0.9, "burst_interval_s": 0.02},
            "satellite": {"queue_time_limit_s": 1.0},
        },
        smoothing_s=2.0,
        earliest_s=1.0,
    ),
    random_loss=AlarmResponse(
        settings={"fec.enabled": True, "burst_interval_s": 0.01},
        rate_scale=1.1,
        hold_s=0.7,
        min_rate_bps=4e5,
    ),
    congestion=AlarmResponse(
        settings={"burst_interval_s": 0.005}, rate_scale=0.7, threshold=0.6, hold_s=1.3
    ),
)


# --- The plan -------------------------------------------------------------------------------------


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    for plan in (TargetingPlan(), FULL, TargetingPlan(congestion=AlarmResponse())):
        path = tmp_path / "plan.json"
        plan.write(path)
        assert TargetingPlan.read(path) == plan


def test_equal_plans_give_equal_bytes(tmp_path: Path) -> None:
    """Whatever the order of their names, and whether a number is written 1 or 1.0."""
    one = TargetingPlan(
        base={"gcc.decrease_extra_bps": 4000, "fec.protection": [0, 0, 0, 0.5]},
        congestion=AlarmResponse(rate_scale=1, hold_s=5, min_rate_bps=0),
        network_type=TypeResponse(settings={"wifi": {}, "wired": {}}, earliest_s=5),
    )
    other = TargetingPlan(
        version=1.0,  # type: ignore[arg-type]
        base={"fec.protection": (-0.0, 0.0, 0.0, np.float64(0.5)), "gcc.decrease_extra_bps": 4e3},
        congestion=AlarmResponse(rate_scale=1.0, hold_s=5.0, min_rate_bps=0.0),
        network_type=TypeResponse(settings={"wired": {}, "wifi": {}}, earliest_s=5.0),
    )
    assert one == other
    one.write(tmp_path / "one.json")
    other.write(tmp_path / "other.json")
    written = (tmp_path / "one.json").read_bytes()
    assert written == (tmp_path / "other.json").read_bytes()
    assert written.endswith(b"}\n")
    # What was read is written alike.
    TargetingPlan.read(tmp_path / "one.json").write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == written


DAMAGED = {
    "nothing": (b"", "damaged"),
    "half": (b'{"version": 1, "base"', "damaged"),
    "another encoding": (b'{"base": {}, "x": "\xff"}', "damaged"),
    "a list": (b"[]", "JSON object"),
    "a number": (b"1", "JSON object"),
    "nothing but depth": (b"[" * 200_000, "damaged"),
    "a deep value": (
        b'{"base": {"burst_interval_s": ' + b"[" * 300 + b"]" * 300 + b"}}",
        "no targeting plan",
    ),
    "another version": (b'{"version": 2}', "reads version 1"),
    "a version in words": (b'{"version": "1"}', "reads version 1"),
    "another field": (b'{"bases": {}}', r"Did you mean 'base'"),
    "another field of a part": (b'{"congestion": {"treshold": 0.5}}', r"Did you mean 'threshold'"),
    "another setting": (b'{"base": {"fec.enable": true}}', r"Did you mean 'fec\.enabled'"),
    "a part of a setting": (b'{"base": {"fec": {"enabled": true}}}', "sender setting in base"),
    "another type": (
        b'{"network_type": {"settings": {"wify": {}}}}',
        r"Did you mean 'wifi'",
    ),
    "another setting of a type": (
        b'{"network_type": {"settings": {"wifi": {"x": 1}}}}',
        r"network_type\.settings\.wifi",
    ),
    "types in a list": (b'{"network_type": {"settings": ["wifi"]}}', "must map network types"),
    "no types": (b'{"network_type": {"settings": []}}', "must map network types"),
    "a type's settings in a list": (
        b'{"network_type": {"settings": {"wifi": ["fec.enabled"]}}}',
        "must map names",
    ),
    "a base in a list": (b'{"base": []}', "must map names"),
    "a part that is none": (b'{"congestion": 0.5}', "congestion=0.5 must be a mapping"),
    "not a number": (b'{"congestion": {"threshold": NaN}}', "threshold=nan must be a number"),
    "an infinite number": (b'{"congestion": {"hold_s": Infinity}}', "hold_s=inf must be a number"),
    "a number beyond floats": (
        b'{"congestion": {"hold_s": 1' + b"0" * 400 + b"}}",
        "hold_s=1.* must be a number from 0 to 600",
    ),
    "yes for a number": (b'{"congestion": {"rate_scale": true}}', "rate_scale=True must be"),
    "a word for a number": (b'{"random_loss": {"threshold": "0.5"}}', "threshold='0.5' must be"),
    "no value": (b'{"random_loss": {"threshold": null}}', "threshold=None must be"),
    "a mute call": (b'{"random_loss": {"rate_scale": 0}}', "from 0.1 to 2"),
    "a setting that is no number": (
        b'{"base": {"gcc.decrease_factor": NaN}}',
        r"base\.gcc\.decrease_factor=nan must be a finite number",
    ),
    "a setting beyond floats": (
        b'{"base": {"fec.key_factor": 1' + b"0" * 400 + b"}}",
        r"base\.fec\.key_factor=1.* must be a finite number up to",
    ),
    "a setting without a value": (b'{"base": {"fec.enabled": null}}', r"base\.fec\.enabled=None"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_plan_is_refused_and_says_how_to_mend_it(name: str, tmp_path: Path) -> None:
    content, message = DAMAGED[name]
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as error:
        TargetingPlan.read(path)
    assert str(path) in str(error.value)


def test_a_missing_plan_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="none.json cannot be read: No such file"):
        TargetingPlan.read(tmp_path / "none.json")
    with pytest.raises(ArtifactError, match="cannot be read"):
        TargetingPlan.read(tmp_path)


@settings(max_examples=50)
@given(cut=st.integers(0, 2000), flip=st.integers(0, 255))
def test_no_damage_raises_anything_else(
    cut: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    FULL.write(path)
    content = bytearray(path.read_bytes())
    content[cut % len(content)] = flip
    path.write_bytes(bytes(content))
    refusal = ""
    try:
        TargetingPlan.read(path)
    except ArtifactError as error:
        refusal = str(error)
    assert refusal == "" or str(path) in refusal


def test_a_plan_wants_to_be_told_no_more_than_it_uses() -> None:
    assert TargetingPlan().outputs == ()
    assert TargetingPlan(random_loss=AlarmResponse()).outputs == ("random_loss",)
    assert TargetingPlan(network_type=TypeResponse()).outputs == TYPE_OUTPUTS
    assert set(FULL.outputs) == set(ALL_OUTPUTS)


# --- What follows it ------------------------------------------------------------------------------


def test_models_that_do_not_say_enough_are_refused() -> None:
    deaf = ScriptedModels([[0.5]], ("congestion",))
    with pytest.raises(ConfigError, match="needs random_loss, network_type:"):
        Targeting(FULL, deaf)
    Targeting(TargetingPlan(congestion=AlarmResponse()), deaf)


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        (
            TargetingPlan(congestion=AlarmResponse(settings={"gcc.trendline_window_groups": 40})),
            "any type with congestion sets gcc.trendline_window_groups=40",
        ),
        (
            TargetingPlan(
                network_type=TypeResponse(settings={"wired": {"gcc.loss_estimator": "classic"}})
            ),
            "wired sets gcc.loss_estimator='classic'",
        ),
    ],
)
def test_settings_that_a_running_call_cannot_take_are_refused(
    plan: TargetingPlan, named: str
) -> None:
    models = ScriptedModels.constant()
    with pytest.raises(ConfigError, match=named):
        Targeting(plan, models)
    # For the whole call they are as good as any.
    whole: dict[str, Any] = {"gcc.trendline_window_groups": 40, "gcc.loss_estimator": "classic"}
    Targeting(dataclasses.replace(plan, base=whole), models)


def test_values_out_of_range_are_refused_before_any_call() -> None:
    models = ScriptedModels.constant()
    bad: dict[str, Any] = {"gcc.decrease_factor": 7}
    with pytest.raises(ConfigError, match="decrease_factor=7"):
        Targeting(TargetingPlan(base=bad), models)
    with pytest.raises(ConfigError, match="decrease_factor=7"):
        Targeting(TargetingPlan(random_loss=AlarmResponse(settings=bad)), models)


class _Rows:
    """Models whose answers are given for each bin and call."""

    outputs = ALL_OUTPUTS

    def __init__(self) -> None:
        self.row = np.zeros((0, len(ALL_OUTPUTS)), dtype=np.float32)
        self.restarted: list[int] = []

    def reset(self, num_envs: int) -> None:
        self.row = np.zeros((num_envs, len(ALL_OUTPUTS)), dtype=np.float32)

    def restart(self, env: int) -> None:
        self.restarted.append(env)

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        return self.row


tenths = st.integers(0, 40).map(lambda tenth: tenth / 10)
shares = st.integers(0, 8).map(lambda eighth: eighth / 8)


@st.composite
def plans(draw: st.DrawFn) -> TargetingPlan:
    """Plans over a few settings, all of them able to overrule each other."""
    names = ("burst_interval_s", "gcc.decrease_factor", "queue_time_limit_s")
    values = st.sampled_from((0.25, 0.5, 0.75))
    overrides = st.dictionaries(st.sampled_from(names), values)
    alarm = st.builds(
        AlarmResponse,
        settings=overrides,
        rate_scale=st.sampled_from((0.5, 1.0, 1.5)),
        threshold=shares,
        hold_s=tenths,
        min_rate_bps=st.sampled_from((0.0, 2e5, 6e5)),
    )
    types = st.builds(
        TypeResponse,
        settings=st.dictionaries(st.sampled_from(NETWORK_CLASSES), overrides),
        smoothing_s=tenths,
        # A mean of a few eighths is often exactly on a threshold of eighths.
        confidence=shares.map(lambda share: share - 0.01 if share > 0 else share),
        earliest_s=tenths,
    )
    return TargetingPlan(
        base=draw(overrides),
        network_type=draw(st.none() | types),
        random_loss=draw(st.none() | alarm),
        congestion=draw(st.none() | alarm),
    )


@settings(max_examples=60)
@given(plan=plans(), seed=st.integers(0, 2**32 - 1))
def test_many_calls_at_once_are_targeted_as_each_alone(plan: TargetingPlan, seed: int) -> None:
    """With calls that stand still in some intervals, and one that begins anew."""
    bins, num_envs, anew = 60, 3, 25
    random = np.random.default_rng(seed)
    said = random.integers(0, 9, (bins, num_envs, len(ALL_OUTPUTS))).astype(np.float32) / 8
    said[random.random((bins, num_envs)) < 0.6] = 0.0
    acked = random.choice([0.0, 5e3, 2e4, math.nan], (bins, num_envs), p=[0.2, 0.3, 0.4, 0.1])
    active = random.random((bins, num_envs)) < 0.9
    models = _Rows()
    targeting = Targeting(plan, models)
    targeting.reset(num_envs)
    twins = [NaiveTargeting(plan, SenderSettings()) for _ in range(num_envs)]
    for position in range(bins):
        if position == anew:
            targeting.restart(1)
            twins[1] = NaiveTargeting(plan, SenderSettings())
        models.row = said[position]
        choice, scale = targeting.update(telemetry_rows(acked[position]), active[position])
        assert choice.shape == scale.shape == (num_envs,)
        for env in np.flatnonzero(active[position]).tolist():
            answers = dict(zip(ALL_OUTPUTS, said[position, env], strict=True))
            twins[env].update(answers, float(np.nan_to_num(acked[position, env])))
            expected = twins[env].in_force[-1]
            assert (targeting.settings[choice[env]], scale[env]) == expected
    columns = targeting.call_columns()
    assert columns["detected_type"].tolist() == [twin.detected for twin in twins]
    assert columns["targeted_s"] == pytest.approx([twin.targeted_s for twin in twins])
    assert models.restarted == [1]


def decide(plan: TargetingPlan, said: Mapping[str, list[float]], **options: Any) -> list[Any]:
    """What is in force after each bin of one call: choice and factor."""
    bins = len(next(iter(said.values())))
    rows = [[said.get(name, [0.0] * bins)[b] for name in ALL_OUTPUTS] for b in range(bins)]
    targeting = Targeting(plan, ScriptedModels(rows))
    targeting.reset(1)
    acked = options.get("acked_bytes", [0.0] * bins)
    decisions = []
    for position in range(bins):
        choice, scale = targeting.update(telemetry_rows([acked[position]]), np.ones(1, np.bool_))
        decisions.append((targeting.settings[choice[0]], float(scale[0])))
    return decisions


@pytest.mark.parametrize("first", [0, 1, 7, 58, 601])
@pytest.mark.parametrize("hold_s", [0.0, 0.1, 0.3, 5.0, 7.7])
def test_an_alarm_holds_for_as_many_intervals_wherever_it_begins(first: int, hold_s: float) -> None:
    """Times are sums of tenths, which no float is; that must not cost or give an interval."""
    plan = TargetingPlan(congestion=AlarmResponse(rate_scale=0.5, hold_s=hold_s))
    bins = first + 100
    raised = [0.9 if position == first else 0.0 for position in range(bins)]
    is_on = [scale == 0.5 for _, scale in decide(plan, {"congestion": raised})]
    expected = max(1, round(hold_s / 0.1))
    assert np.flatnonzero(is_on).tolist() == list(range(first, first + expected))


def test_alarms_add_up_and_the_later_overrule_the_type() -> None:
    bins = 40
    decisions = decide(
        FULL,
        {
            "network_type:wifi": [1.0] * bins,
            "random_loss": [0.0] * 20 + [1.0] + [0.0] * 19,
            "congestion": [0.0] * 22 + [0.61] + [0.0] * 17,
        },
        acked_bytes=[2e4] * bins,
    )
    base = SenderSettings().with_overrides(FULL.base)
    wifi = base.with_overrides({"gcc.decrease_factor": 0.9, "burst_interval_s": 0.02})
    random = wifi.with_overrides({"fec.enabled": True, "burst_interval_s": 0.01})
    both = random.with_overrides({"burst_interval_s": 0.005})
    congested = wifi.with_overrides({"burst_interval_s": 0.005})
    expected = (
        9 * [(base, 1.0)]  # not before 1 s
        + 11 * [(wifi, 1.0)]
        + 2 * [(random, 1.1)]
        + 5 * [(both, 1.1 * 0.7)]  # loss was heard of in bin 20, and holds for seven
        + 8 * [(congested, 0.7)]  # congestion in bin 22, for thirteen
        + 5 * [(wifi, 1.0)]
    )
    assert decisions == expected


def test_an_alarm_that_wants_a_rate_is_silent_in_slow_calls() -> None:
    plan = TargetingPlan(random_loss=AlarmResponse(rate_scale=0.5, min_rate_bps=8e5))
    always = {"random_loss": [1.0] * 100}
    slow = decide(plan, always, acked_bytes=[9e3] * 100)  # 720 kbps
    assert {scale for _, scale in slow} == {1.0}
    fast = [scale for _, scale in decide(plan, always, acked_bytes=[2e4] * 100)]  # 1.6 Mbps
    # 1.6 (1 - (30/31)^n) reaches 0.8 Mbps at n = 22.
    assert fast == 21 * [1.0] + 79 * [0.5]


def test_a_type_is_known_by_the_mean_of_what_was_said() -> None:
    plan = TargetingPlan(
        network_type=TypeResponse(
            settings={"wired": {"queue_time_limit_s": 1.0}},
            smoothing_s=60.0,
            confidence=0.5,
            earliest_s=0.0,
        )
    )
    # Once in two, then always: after n of the latter the mean is (5 + n) / (10 + n).
    said = {"network_type:wired": [0.0, 0.99] * 5 + [1.0] * 5}
    limits = [one.queue_time_limit_s for one, _ in decide(plan, said)]
    assert limits == 10 * [2.0] + 5 * [1.0]


def test_a_type_stays_known_until_another_is_as_likely() -> None:
    plan = TargetingPlan(
        network_type=TypeResponse(
            settings={"wifi": {"queue_time_limit_s": 1.0}, "wired": {"queue_time_limit_s": 3.0}},
            smoothing_s=0.0,
            earliest_s=0.0,
        )
    )
    said = {
        "network_type:wifi": [0.9, 0.4, 0.0, 0.0, 0.0],
        "network_type:wired": [0.1, 0.4, 0.3, 0.6, 0.0],
    }
    limits = [one.queue_time_limit_s for one, _ in decide(plan, said)]
    assert limits == [1.0, 1.0, 1.0, 3.0, 3.0]


def test_nothing_is_known_before_the_first_call_and_after_a_restart() -> None:
    targeting = Targeting(FULL, ScriptedModels.constant(**{"network_type:wifi": 1.0}))
    assert targeting.call_columns()["detected_type"].shape == (0,)
    targeting.reset(2)
    both = np.ones(2, np.bool_)
    for _ in range(20):
        targeting.update(telemetry_rows([0.0, 0.0]), both)
    assert targeting.call_columns()["detected_type"].tolist() == ["wifi", "wifi"]
    targeting.restart(0)
    assert targeting.detected_types.tolist() == [NO_TYPE, NETWORK_CLASSES.index("wifi")]
    # Of 2 s, 1 s passed before the type was known.
    assert targeting.call_columns()["targeted_s"] == pytest.approx([0.0, 1.0], abs=1e-9)
    targeting.reset(1)
    assert targeting.call_columns()["detected_type"].tolist() == [""]


def test_time_of_a_factor_alone_counts_as_targeted() -> None:
    plan = TargetingPlan(congestion=AlarmResponse(rate_scale=0.5))
    targeting = Targeting(plan, ScriptedModels.constant(congestion=1.0))
    targeting.reset(1)
    for _ in range(30):
        targeting.update(telemetry_rows([0.0]), np.ones(1, np.bool_))
    # The first of 30 intervals was over before anything was said.
    assert targeting.call_columns()["targeted_s"] == pytest.approx([2.9])


def test_plans_hold_no_more_than_json_can_say() -> None:
    for value in (object(), {"a": 1}, [[1.0]], math.inf, None):
        with pytest.raises(ConfigError, match=r"base\.burst_interval_s="):
            TargetingPlan(base={"burst_interval_s": value})
    with pytest.raises(UnknownNameError, match="sender setting in base"):
        TargetingPlan(base={"burst": 1})
    assert json.dumps(dataclasses.asdict(FULL))  # and all of it plain

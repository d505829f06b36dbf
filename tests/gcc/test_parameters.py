"""Every number of GCC can be set, within bounds, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from bwe_env.config import from_mapping
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.gcc.parameters import GCC_PARAMETERS, GccParameters, fill_gcc_parameters

NUMBERS = [field for field in dataclasses.fields(GccParameters) if field.metadata]


def one_row(**changes: Any) -> Any:
    row = np.zeros(1, GCC_PARAMETERS)[0]
    fill_gcc_parameters(row, GccParameters(**changes))
    return row


def test_every_field_is_a_number_with_a_range_a_flag_or_a_choice() -> None:
    rest = {f.name: f.default for f in dataclasses.fields(GccParameters) if not f.metadata}
    assert rest == {
        "acked_rate_estimator": "robust",
        "loss_estimator": "v2",
        "knows_max_rate": True,
        "alr_probing": False,
        "repeated_initial_probing": False,
        "increase_in_alr": True,
        "cwnd_enabled": True,
        "cwnd_drop_frames": True,
    }


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_a_number_outside_its_range_is_refused_by_name_value_and_range(
    field: dataclasses.Field[Any],
) -> None:
    low, high = field.metadata["low"], field.metadata["high"]
    for value in (low - 1, high + 1, float("nan")):
        with pytest.raises(ConfigError) as caught:
            GccParameters(**{field.name: value})
        message = str(caught.value)
        assert f"gcc.{field.name}={value!r} must be a number from {low:g} to {high:g}" in message
        assert f"libwebrtc uses {field.default!r}" in message


@pytest.mark.parametrize("value", ["0.85", None, True, [0.85]])
def test_a_value_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="gcc.decrease_factor=.* must be a number"):
        GccParameters(decrease_factor=value)  # type: ignore[arg-type]


def test_a_count_must_be_whole() -> None:
    with pytest.raises(ConfigError, match=r"gcc.trendline_window_groups=20.5 must be a whole"):
        GccParameters(trendline_window_groups=20.5)  # type: ignore[arg-type]


def test_a_flag_must_be_true_or_false() -> None:
    with pytest.raises(ConfigError, match="gcc.alr_probing='yes' must be True or False"):
        GccParameters(alr_probing="yes")  # type: ignore[arg-type]


def test_an_unknown_estimator_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown gcc.acked_rate_estimator 'robus'.*'robust'"
    ):
        GccParameters(acked_rate_estimator="robus")  # type: ignore[arg-type]


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="threshold_min_ms <= threshold_initial_ms <= .*14, 12.5"):
        GccParameters(threshold_min_ms=14.0)


def test_parameters_survive_json() -> None:
    changed = GccParameters(decrease_factor=0.9, loss_estimator="classic", probe_s=0.03)
    text = json.dumps(dataclasses.asdict(changed))
    assert from_mapping(GccParameters, json.loads(text)) == changed


def test_the_record_holds_seconds_as_microseconds_words_as_numbers_and_the_rest_as_it_is() -> None:
    row = one_row(
        probe_s=0.0155, loss_estimator="classic", alr_probing=True, decrease_factor=0.9,
        throughput_window_packets=30,
    )  # fmt: skip
    assert row.probe_us == 15_500
    assert row.loss_estimator == 1
    assert row.acked_rate_estimator == 0
    assert row.alr_probing == 1
    assert row.decrease_factor == 0.9
    assert row.throughput_window_packets == 30
    assert row.increase_factor_per_s == 1.08  # "per second", not seconds


def test_every_field_of_the_record_is_filled() -> None:
    assert len(GCC_PARAMETERS.names or ()) == len(dataclasses.fields(GccParameters))
    zeros = {f.name for f in dataclasses.fields(GccParameters) if not getattr(one_row(), _in(f))}
    assert zeros == {
        "acked_rate_estimator",
        "loss_estimator",
        "max_padding_rate_bps",
        "min_total_allocated_bps",
        "max_total_allocated_bps",
        "alr_probing",
        "repeated_initial_probing",
    }


def _in(field: dataclasses.Field[Any]) -> str:
    name = field.name
    return name if name in (GCC_PARAMETERS.names or ()) else name[:-2] + "_us"

"""Rules in the place of models: what they say in calls, and the file they are delivered in."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from baselines.network_rules import CongestionPointsRule, LossPointsRule
from baselines.network_type_rules import TypeTree, TypicalValuesRule
from baselines.targeted import (
    PLAN_FILE,
    RULES_FILE,
    AnsweringRule,
    RuleModels,
    load_targeted,
    write_rules,
)
from bwe_env.errors import ArtifactError, ConfigError, UnknownNameError
from bwe_env.labels import ELIGIBLE_LOST_PACKETS, NETWORK_CLASSES
from bwe_env.network_features import call_features
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import AlarmResponse, TargetingPlan, TypeResponse
from bwe_env.telemetry import empty_telemetry

RULES = {
    "random_loss": AnsweringRule(rule=LossPointsRule(delay_ms=60.0), slope=2.0, offset=-0.5),
    "congestion": AnsweringRule(rule=CongestionPointsRule(), slope=0.7, offset=0.1),
    "network_type": AnsweringRule(rule=TypeTree()),
}
BINS = 130


def call_of(seed: int, bins: int = BINS) -> NDArray[Any]:
    """Telemetry of a call in which rates, delays and losses come and go."""
    random = np.random.default_rng(seed)
    rows = empty_telemetry(bins)
    rows["time_s"] = 0.1 * np.arange(1, bins + 1)
    rows["reports"] = 1.0
    rows["sent_packets"] = random.integers(5, 40, bins)
    rows["acked_packets"] = rows["sent_packets"]
    rows["sent_bytes"] = rows["acked_bytes"] = 1000.0 * rows["sent_packets"]
    rows["acked_rate_bps"] = 8.0 * rows["acked_bytes"] / 0.1
    delay_ms = random.uniform(0.0, 200.0, bins)
    for name in ("queue_delay_ms", "queue_delay_min_ms", "queue_delay_max_ms"):
        rows[name] = delay_ms
    rows["delay_variation_ms"] = 3.0
    rows["rtt_ms"] = 40.0 + delay_ms
    rows["target_rate_bps"] = 1e6
    rows["lost_packets"] = np.where(random.random(bins) < 0.05, 2.0, 0.0)
    rows["loss_runs"] = np.minimum(rows["lost_packets"], 1.0)
    return rows


def by_record(call: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """What the rules say of each bin of a record, window by window."""
    at = np.arange(len(call))
    _, ten_seconds = call_features(call, at, window_bins=100)
    _, four_seconds = call_features(call, at, window_bins=40)
    said = {}
    for task, dense in (("random_loss", ten_seconds), ("congestion", four_seconds)):
        answering = RULES[task]
        score = answering.rule.score(dense)  # type: ignore[union-attr]
        log_odds = answering.slope * score + answering.offset
        said[task] = 1.0 / (1.0 + np.exp(-log_odds))
    lost = np.convolve(call["lost_packets"], np.ones(10))[: len(call)]
    said["random_loss"][lost < ELIGIBLE_LOST_PACKETS] = 0.0
    kinds = TypeTree().classify(ten_seconds)
    for position, name in enumerate(NETWORK_CLASSES):
        said[f"network_type:{name}"] = (kinds == position).astype(np.float64)
    return said


def test_rules_say_of_running_calls_what_they_say_of_their_records() -> None:
    calls = [call_of(1), call_of(2)]
    models = RuleModels(RULES)
    models.reset(2)
    said = np.array(
        [
            models.update(np.stack([call[position] for call in calls]), np.ones(2, np.bool_))
            for position in range(BINS)
        ]
    )
    assert said.shape == (BINS, 2, len(models.outputs))
    assert said.dtype == np.float32
    for env, call in enumerate(calls):
        expected = by_record(call)
        for column, name in enumerate(models.outputs):
            assert np.allclose(said[:, env, column], expected[name], atol=1e-6), name
    losses = said[:, :, models.outputs.index("random_loss")]
    assert (losses == 0.0).any()
    assert (losses > 0.0).any()


def test_a_call_that_begins_anew_has_no_past() -> None:
    models = RuleModels(RULES)
    models.reset(2)
    first, second = call_of(3), call_of(4)
    both = np.ones(2, np.bool_)
    for position in range(20):
        models.update(np.stack([first[position], second[position]]), both)
    models.restart(1)
    expected = by_record(second)
    for position in range(30):
        said = models.update(np.stack([first[20 + position], second[position]]), both)
        for column, name in enumerate(models.outputs):
            assert said[1, column] == pytest.approx(expected[name][position], abs=1e-6), name


def test_log_odds_of_any_size_are_a_probability() -> None:
    call = call_of(5, bins=5)
    for slope, offset in ((1e250, 0.0), (-1e250, 0.0), (0.0, 1e250), (0.0, -1e250)):
        rule = AnsweringRule(rule=CongestionPointsRule(), slope=slope, offset=offset)
        models = RuleModels({"congestion": rule})
        for position in range(5):
            said = models.update(call[position : position + 1], np.ones(1, np.bool_))
            assert 0.0 <= said[0, 0] <= 1.0


def test_each_task_has_a_rule_that_answers_it() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'congestion'"):
        RuleModels({"congestoin": RULES["congestion"]})
    with pytest.raises(ConfigError, match="at least one rule"):
        RuleModels({})
    with pytest.raises(ConfigError, match=r"TypeTree does not answer congestion.*score\(\)"):
        RuleModels({"congestion": RULES["network_type"]})
    with pytest.raises(ConfigError, match=r"LossPointsRule does not answer.*classify\(\)"):
        RuleModels({"network_type": RULES["random_loss"]})


# --- The file -------------------------------------------------------------------------------------

PLAN = TargetingPlan(
    congestion=AlarmResponse(rate_scale=0.7),
    network_type=TypeResponse(settings={"wifi": {"burst_interval_s": 0.02}}),
)


def test_rules_are_read_as_they_were_written(tmp_path: Path) -> None:
    PLAN.write(tmp_path / PLAN_FILE)
    rules = {**RULES, "network_type": AnsweringRule(rule=TypicalValuesRule())}
    write_rules(tmp_path, rules)
    targeting = load_targeted(tmp_path, base=SenderSettings(audio_redundancy=1))
    assert targeting.plan == PLAN
    assert targeting.settings[0].audio_redundancy == 1
    assert isinstance(targeting.models, RuleModels)
    assert targeting.models._rules == rules


def test_equal_rules_give_equal_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, order, number in ((one, 1, 60), (other, -1, 60.0)):
        folder.mkdir()
        rule = AnsweringRule(rule=LossPointsRule(delay_ms=number), slope=number, offset=0)
        rules = {**RULES, "random_loss": rule}
        write_rules(folder, dict(list(rules.items())[::order]))
    assert (one / RULES_FILE).read_bytes() == (other / RULES_FILE).read_bytes()


def damaged(**changes: Any) -> bytes:
    form = {**RULES["congestion"].to_mapping(), **changes}
    return json.dumps({"congestion": form}).encode()


DAMAGED = {
    "nothing": (b"", "holds no rules"),
    "another encoding": (b'{"\xff": 1}', "holds no rules"),
    "a list": (b"[]", "JSON object"),
    "nothing but depth": (b"[" * 200_000, "holds no rules"),
    "no rule at all": (b"{}", "at least one rule"),
    "a rule in a list": (b'{"congestion": []}', "a rule needs 'rule'"),
    "a rule without its values": (b'{"congestion": {"rule": "TypeTree"}}', "needs 'values'"),
    "another rule": (damaged(rule="CongestionPointRule"), "Did you mean 'CongestionPointsRule'"),
    "no name": (damaged(rule=3), "unknown rule 3"),
    "another task": (b'{"jitter": ' + damaged()[15:], "unknown task of a rule 'jitter'"),
    "a rule of another task": (damaged(rule="TypeTree", values={}), "does not answer congestion"),
    "another value": (damaged(values={"horizon": 0.5}), "Did you mean 'horizon_s'"),
    "a word": (damaged(values={"horizon_s": "0.5"}), "horizon_s='0.5' must be a finite number"),
    "values in a list": (damaged(values=[1]), "must map names"),
    "not a number": (damaged(slope=math.nan), "slope=nan must be a finite number"),
    "a list for a number": (damaged(offset=[1.0]), "offset=.* must be a finite number"),
    "no number": (damaged(offset=None), "offset=None must be a finite number"),
    "a number beyond floats": (damaged(offset=10**400), "must be a finite number"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_and_says_how_to_mend_it(name: str, tmp_path: Path) -> None:
    content, message = DAMAGED[name]
    TargetingPlan(congestion=AlarmResponse()).write(tmp_path / PLAN_FILE)
    (tmp_path / RULES_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as error:
        load_targeted(tmp_path)
    assert str(tmp_path / RULES_FILE) in str(error.value)


def test_missing_files_are_refused_by_their_paths(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"plan\.json cannot be read"):
        load_targeted(tmp_path)
    PLAN.write(tmp_path / PLAN_FILE)
    with pytest.raises(ArtifactError, match=r"rules\.json cannot be read"):
        load_targeted(tmp_path)


def test_rules_that_do_not_answer_the_plan_are_refused(tmp_path: Path) -> None:
    PLAN.write(tmp_path / PLAN_FILE)
    write_rules(tmp_path, {"congestion": RULES["congestion"]})
    with pytest.raises(ConfigError, match="the plan needs network_type:"):
        load_targeted(tmp_path)

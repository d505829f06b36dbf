"""Arms whose calls are targeted as delivered: through a server, without it, and the placebo."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.labels import NETWORK_CLASSES
from bwe_env.rollout import run_calls
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import TargetingPlan
from experiments.ab_arms import BaselineArm
from experiments.artifact_store import Store
from experiments.published_experiments import experiment_of
from experiments.reproduce_delivery import SHIPPED, fill_store, served
from experiments.targeted_arms import (
    AlwaysArm,
    Delivery,
    PlaceboArm,
    TargetedArm,
    folder_digest,
)

CALL = CallConfig(duration_s=20.0)
SEEDS = (0,)


def networks(count: int) -> Any:
    return experiment_of("cellular-low").networks("validation", count)


def same(first: dict[str, NDArray[Any]], second: dict[str, NDArray[Any]]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        equal_nan = first[name].dtype.kind == "f"
        assert np.array_equal(first[name], second[name], equal_nan=equal_nan), name


def joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_a_server_that_goes_away_changes_nothing_but_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "store")
    digests = fill_store(store, SHIPPED)
    chosen = networks(4)
    with served(store.root, log=tmp_path / "server.log") as server:
        delivery = Delivery(url=server.url, reference="cellular", cache=tmp_path / "cache")
        arm = TargetedArm(name="targeted", delivery=delivery)
        whole = [arm.play(chosen[:2], SEEDS, CALL), arm.play(chosen[2:], SEEDS, CALL)]
        server.end()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            interrupted = [whole[0], arm.play(chosen[2:], SEEDS, CALL)]
    assert any("cache" in record.getMessage() for record in caplog.records)
    same(joined(interrupted), joined(whole))
    assert set(joined(whole)["configuration"].tolist()) == {digests["cellular"]}


def test_a_new_reference_reaches_the_calls_set_up_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    digests = fill_store(store, SHIPPED)
    with served(store.root, log=tmp_path / "server.log") as server:
        delivery = Delivery(url=server.url, reference="cellular", cache=tmp_path / "cache")
        arm = TargetedArm(name="targeted", delivery=delivery)
        before = arm.play(networks(2), SEEDS, CALL)["configuration"]
        (changed := tmp_path / "changed").mkdir()
        for name in ("plan.json", "rules.json"):
            (changed / name).write_bytes((SHIPPED / "cellular" / name).read_bytes())
        model = changed / "models" / "network_type"
        model.mkdir(parents=True)
        for file in (SHIPPED / "cellular" / "models" / "network_type").iterdir():
            (model / file.name).write_bytes(file.read_bytes())
        (changed / "note.txt").write_text("a later one")
        newer = store.add(changed, kind="configuration", architecture="targeting_plan")
        store.set_ref("cellular", newer)
        after = arm.play(networks(2), SEEDS, CALL)["configuration"]
    assert set(before.tolist()) == {digests["cellular"]}
    assert set(after.tolist()) == {newer}
    assert newer != digests["cellular"]


def test_without_server_and_cache_the_built_in_configuration_is_used(tmp_path: Path) -> None:
    delivery = Delivery(url="http://127.0.0.1:9", reference="cellular", cache=tmp_path / "cache")
    away = TargetedArm(name="away", delivery=delivery, folder=SHIPPED / "cellular")
    here = TargetedArm(name="here", folder=SHIPPED / "cellular")
    same(away.play(networks(2), SEEDS, CALL), here.play(networks(2), SEEDS, CALL))


def test_the_same_files_are_the_same_inputs_however_they_reached_the_call(tmp_path: Path) -> None:
    (folder := tmp_path / "built-in").mkdir()
    (folder / "plan.json").write_text("{}")
    store = Store(tmp_path / "store", durable=False)
    store.set_ref("p", store.add(folder, kind="configuration", architecture="targeting_plan"))
    with served(store.root, log=tmp_path / "server.log") as server:
        there, away = (
            TargetedArm(
                name="t",
                folder=folder,
                delivery=Delivery(url=url, reference="p", cache=tmp_path / name),
            )
            for name, url in (("a", server.url), ("b", "http://127.0.0.1:9"))
        )
        assert there._set_up()[1] != away._set_up()[1] == "built-in"
        assert there.inputs(CALL) == away.inputs(CALL)
    (folder / "plan.json").write_text('{"base": {}}')
    assert away.inputs(CALL) != there.inputs(CALL)  # the cache has the older one


def test_the_type_is_detected_in_the_call_and_changes_its_course() -> None:
    chosen = networks(6)
    call = CallConfig(duration_s=60.0)
    treated = TargetedArm(name="t", folder=SHIPPED / "cellular").play(chosen, SEEDS, call)
    control = BaselineArm(baseline="gcc").play(chosen, SEEDS, call)
    known = set(NETWORK_CLASSES) | {""}
    assert set(treated["detected_type"].tolist()) <= known
    acted = treated["targeted_s"] > 0.0
    assert acted.any()
    assert (treated["mean_target_bps"][acted] != control["mean_target_bps"][acted]).all()
    still = ~acted
    assert (treated["mean_target_bps"][still] == control["mean_target_bps"][still]).all()


def test_rules_drive_the_same_plan() -> None:
    arm = TargetedArm(name="rules", folder=SHIPPED / "congestion", driver="rules")
    calls = arm.play(experiment_of("congestion").networks("validation", 3), SEEDS, CALL)
    assert (calls["targeted_s"] > 0.0).any()


def test_a_placebo_says_what_the_treatment_heard_to_other_calls(tmp_path: Path) -> None:
    chosen = experiment_of("congestion").networks("validation", 4)
    treatment = TargetedArm(name="t", folder=SHIPPED / "congestion", answers=tmp_path / "answers")
    treated = treatment.play(chosen, SEEDS, CALL)
    unheard = TargetedArm(name="t", folder=SHIPPED / "congestion")
    same(treated, unheard.play(chosen, SEEDS, CALL))  # to listen changes nothing
    placebo = PlaceboArm(name="p", treatment=treatment)
    calls = placebo.play(chosen, SEEDS, CALL)
    assert not np.array_equal(calls["mean_target_bps"], treated["mean_target_bps"])
    same(calls, placebo.play(chosen, SEEDS, CALL))
    with pytest.raises(ConfigError, match="keeps no answers"):
        PlaceboArm(name="p", treatment=unheard).play(chosen, SEEDS, CALL)


def test_an_arm_without_any_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="folder or a delivery"):
        TargetedArm(name="t")


def test_the_same_files_have_the_same_digest_wherever_they_are(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "models").mkdir(parents=True)
        (tmp_path / place / "plan.json").write_text("{}")
        (tmp_path / place / "models" / "x").write_text("1")
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")
    (tmp_path / "b" / "models" / "x").write_text("2")
    assert folder_digest(tmp_path / "a") != folder_digest(tmp_path / "b")


def test_an_alarm_that_is_always_on_is_a_call_configured_so_from_the_beginning() -> None:
    folder = SHIPPED / "congestion"
    plan = TargetingPlan.read(folder / "plan.json")
    assert plan.congestion is not None
    settings = SenderSettings().with_overrides({**plan.base, **plan.congestion.settings})
    chosen = experiment_of("congestion").networks("validation", 2)
    arm = AlwaysArm(name="always", folder=folder, alarm="congestion")
    expected = run_calls(
        chosen, "gcc", call=settings.applied_to(CALL), gcc=settings.gcc, seeds=(0,)
    )
    same(arm.play(chosen, SEEDS, CALL), expected)
    with pytest.raises(ConfigError, match="no alarm for random_loss"):
        AlwaysArm(name="always", folder=folder, alarm="random_loss").play(chosen, SEEDS, CALL)

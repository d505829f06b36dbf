"""Training curves: runs of one configuration together, resumed parts in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bwe_env.errors import UnknownNameError
from experiments.results_training import Curve, over_seeds, read_trainings, training_table
from tests.experiments.compare_folder import write_run

SCORE = "validation call score, MOS"


def _curve(*points: tuple[float, float]) -> Curve:
    steps, values = np.array(points).T
    return Curve(steps=steps, values=values)


def test_mean_and_spread_are_taken_where_all_seeds_have_been() -> None:
    first = _curve((0, 1.0), (10, 2.0), (20, 3.0))
    second = _curve((5, 2.5), (15, 4.5))
    steps, means, least, most = over_seeds([first, second])
    assert steps.tolist() == [5, 10, 15]
    np.testing.assert_allclose(means, [(1.5 + 2.5) / 2, (2.0 + 3.5) / 2, (2.5 + 4.5) / 2])
    np.testing.assert_allclose(least, [1.5, 2.0, 2.5])
    np.testing.assert_allclose(most, [2.5, 3.5, 4.5])


def test_curves_that_share_no_step_have_no_mean() -> None:
    steps, *_ = over_seeds([_curve((0, 1.0), (1, 1.0)), _curve((2, 1.0), (3, 1.0))])
    assert len(steps) == 0


def test_runs_that_differ_in_their_seed_alone_are_one_training(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "ppo", seed=seed, ends_at=3.0 + seed) for seed in (0, 1)]
    [training] = read_trainings(runs)
    assert (training.name, training.seeds) == ("ppo", (0, 1))
    assert [curve.values[-1] for curve in training.curves[SCORE]] == [3.0, 4.0]
    # A value that was not yet known is no zero.
    assert len(training.curves["training reward per call"][0].steps) == 3
    assert training_table([training]).rows[0][:3] == ["ppo", "0, 1", "3.000, 4.000"]


def test_what_a_resumed_run_did_again_replaces_what_it_did_before(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ppo", seed=0, ends_at=3.0)
    header = "steps,mean_reward,call_score\n"
    (run / "validations-2.csv").write_text(header + "2500000,0.5,3.5\n")
    (run / "validations-10.csv").write_text(header + "2500000,0.6,3.75\n3000000,0.6,3.875\n")
    [training] = read_trainings([run])
    [curve] = training.curves[SCORE]
    assert curve.steps.tolist() == [5e5, 1e6, 1.5e6, 2e6, 2.5e6, 3e6]
    assert curve.values[-2:].tolist() == [3.75, 3.875]


def test_a_run_that_does_not_exist_is_told_with_the_nearest(tmp_path: Path) -> None:
    write_run(tmp_path, "ppo", seed=0, ends_at=3.0)
    with pytest.raises(UnknownNameError, match="ppo-001"):
        read_trainings([tmp_path / "ppo-002"])

"""What happens beside learning: TensorBoard figures, validation, selection, checkpoints, progress.

Tags: ``bwe/…`` are the call metrics of the training calls, ``reward/…`` the terms of their reward,
``validation/…`` calls on the fixed validation networks, ``call/…`` three of them as pictures,
``test/…`` calls of the finished run. `agents.tags` explains each, also inside TensorBoard.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam, Image

from agents.export import save_policy
from agents.policy_setting import PolicySetting
from agents.ppo import estimator_of
from agents.tags import CALL_TAGS, explanation

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from agents.policy_estimator import PolicyEstimator
    from bwe_env.render import Timeline

Calls = Mapping[str, NDArray[Any]]

REWARD_PREFIX = "reward_"
#: Keys of the step info that say when and where, not how well.
NOT_A_METRIC = ("time_s", "network_index")
#: Figures that are no scalars.
NO_SCALAR = ("stdout", "log", "json", "csv")
#: Size of the picture of one call in TensorBoard, in pixels; two stand one above the other. Ours.
PICTURE_WIDTH, PICTURE_HEIGHT = 1000, 460


def save_checkpoint(model: BaseAlgorithm, path: Path) -> None:
    """Write an SB3 archive whole or not at all."""
    temporary = path.with_name(f"{path.stem}.tmp.zip")
    model.save(temporary)
    os.replace(temporary, path)


class StepMetricsCallback(BaseCallback):
    """Mean of every metric of the training calls over each rollout, as ``bwe/`` and ``reward/``."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[Mapping[str, NDArray[Any]]] = []

    def _on_step(self) -> bool:
        self._steps.append(self.training_env.step_info)  # type: ignore[attr-defined]
        return True

    def _on_rollout_end(self) -> None:
        for key in self._steps[-1]:
            if key.startswith("_") or key in NOT_A_METRIC:
                continue
            values = np.concatenate([step[key] for step in self._steps])
            if not np.issubdtype(values.dtype, np.number) or np.isnan(values).all():
                continue
            is_term = key.startswith(REWARD_PREFIX)
            tag = f"reward/{key.removeprefix(REWARD_PREFIX)}" if is_term else f"bwe/{key}"
            self.logger.record(tag, float(np.nanmean(values)))
        self._steps.clear()


@dataclass(frozen=True, kw_only=True)
class ValidationCalls:
    """Every validation call under one controller, in an order that does not depend on it."""

    columns: Calls
    """those of `bwe_env.rollout.run_calls`, one row per call"""
    steps: Sequence[NDArray[Any]] = ()
    """of each call what happened in its intervals, as `info` shows it; or nothing"""

    def reward_terms(self) -> dict[str, float]:
        """Mean over the calls of each term of the reward, per second of scheduled time.

        They add up to the mean of ``mean_reward``.
        """
        if not self.steps:
            return {}
        scheduled_s = float(np.sum(self.columns["duration_s"]))
        rows = np.concatenate(self.steps)
        return {
            name.removeprefix(REWARD_PREFIX): float(rows[name].sum()) / scheduled_s
            for name in rows.dtype.names or ()
            if name.startswith(REWARD_PREFIX)
        }


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How an agent is judged while it learns: always on the same calls, beside GCC's on them."""

    run: Callable[[PolicyEstimator | None], ValidationCalls]
    """plays every validation call; without a policy under GCC, for which it is asked once"""
    timeline: Callable[[str, NDArray[Any]], Timeline] | None = None
    """of a call on the network of this name, from its steps, for the picture"""


def shown_calls(agent: Calls, gcc: Calls) -> dict[str, int]:
    """Rows of the calls to draw, by what the agent's reward has over GCC's on the same call.

    Args:
        agent: columns with ``mean_reward``, one row per call.
        gcc: the same calls in the same order.

    Returns:
        Rows of the "worst", "median" (the lower of two in the middle) and "best" call.
    """
    order = np.argsort(agent["mean_reward"] - gcc["mean_reward"], kind="stable")
    last = len(order) - 1
    return {"worst": int(order[0]), "median": int(order[last // 2]), "best": int(order[last])}


class ValidationCallback(BaseCallback):
    """Judges the agent on the validation networks, keeps the best policy, writes checkpoints.

    The best is the one with the highest mean reward; nothing else is looked at.

    Args:
        validation: the calls.
        every_steps: env steps between two validations; one more comes at the end.
        policy_directory: where the best policy goes in its safe form.
        checkpoint: where the archive to resume from goes, at every validation.
        environment: id of the environment, kept with the policy.
        setting: of the policy, kept with it.
        best_reward: what an earlier part of the same run has reached.
        report: receives one line per validation.
    """

    def __init__(
        self,
        validation: Validation,
        *,
        every_steps: int,
        policy_directory: Path,
        checkpoint: Path,
        environment: str,
        setting: PolicySetting,
        best_reward: float = -np.inf,
        report: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self.best_reward = best_reward
        self.history: list[dict[str, float]] = []
        self._validation = validation
        self._every_steps = every_steps
        self._policy_directory = policy_directory
        self._checkpoint = checkpoint
        self._environment = environment
        self._setting = setting
        self._report = report
        self._validated_at = 0
        self._gcc: ValidationCalls | None = None

    def _on_training_start(self) -> None:
        self._validated_at = self.num_timesteps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        # Between an update and the next rollout: the policy just trained is the one judged.
        if self.num_timesteps - self._validated_at >= self._every_steps:
            self.validate()

    def _on_training_end(self) -> None:
        if self.num_timesteps > self._validated_at:
            self.validate()

    def validate(self) -> None:
        """Judge the policy as it is now."""
        self._validated_at = self.num_timesteps
        policy = estimator_of(self.model.policy, setting=self._setting)
        calls = self._validation.run(policy)
        if self._gcc is None:
            self._gcc = self._validation.run(None)
        row = self._record_calls(calls, self._gcc)
        self._draw(calls, self._gcc)
        is_best = self._keep_if_best(policy, row["mean_reward"])
        save_checkpoint(self.model, self._checkpoint)
        self.logger.dump(self.num_timesteps)
        gcc_reward = float(np.mean(self._gcc.columns["mean_reward"]))
        self._report(
            f"{self.num_timesteps:>10,} steps: validation reward {row['mean_reward']:.4f}/s "
            f"({row['mean_reward'] - gcc_reward:+.4f} against GCC)"
            + (", best so far" if is_best else "")
        )

    def _record_calls(self, calls: ValidationCalls, gcc: ValidationCalls) -> dict[str, float]:
        row = {"steps": float(self.num_timesteps)}
        for column, (value, difference) in _means(calls.columns, gcc.columns).items():
            row[column] = value
            self.logger.record(f"validation/{column}", value)
            self.logger.record(f"validation_minus_gcc/{column}", difference)
        terms, gcc_terms = calls.reward_terms(), gcc.reward_terms()
        for term, value in terms.items():
            self.logger.record(f"validation_reward/{term}", value)
            self.logger.record(f"validation_reward_minus_gcc/{term}", value - gcc_terms[term])
        self.history.append(row)
        return row

    def _keep_if_best(self, policy: PolicyEstimator, reward: float) -> bool:
        if not reward > self.best_reward:
            return False
        self.best_reward = reward
        save_policy(
            self._policy_directory,
            policy,
            environment=self._environment,
            extra={"steps": self.num_timesteps, "validation_reward": reward},
        )
        return True

    def _draw(self, calls: ValidationCalls, gcc: ValidationCalls) -> None:
        """The agent's call above GCC's, for the worst, the median and the best."""
        from bwe_env.render import stacked

        if self._validation.timeline is None:
            return
        for name, row in shown_calls(calls.columns, gcc.columns).items():
            network = str(calls.columns["network"][row])
            pair = [self._validation.timeline(network, c.steps[row]) for c in (calls, gcc)]
            for timeline, label in zip(pair, ("PPO", "GCC"), strict=True):
                timeline.network = f"{label}: {network}"
            picture = stacked(pair, PICTURE_WIDTH, PICTURE_HEIGHT)
            self.logger.record(f"call/{name}", Image(picture, "HWC"), exclude=NO_SCALAR)

    @property
    def columns(self) -> dict[str, list[float]]:
        """Every validation so far as columns, for a CSV file."""
        names = ("steps", *CALL_TAGS)
        return {name: [row[name] for row in self.history] for name in names}


def _means(agent: Calls, gcc: Calls) -> dict[str, tuple[float, float]]:
    """Mean of each column of `CALL_TAGS` over the agent's calls, and its difference to GCC's."""
    means = {}
    for column in CALL_TAGS:
        value = float(np.nanmean(agent[column]))
        means[column] = (value, value - float(np.nanmean(gcc[column])))
    return means


class ExplorationCallback(BaseCallback):
    """Lets the exploration noise fall linearly over the run; the optimizer has no say in it.

    Args:
        log_std_init: log of the noise's standard deviation at the first rollout.
        log_std_final: at the end of the run.
    """

    def __init__(self, log_std_init: float, log_std_final: float) -> None:
        super().__init__()
        self._log_std_init = log_std_init
        self._log_std_final = log_std_final

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        import torch

        remaining = self.model._current_progress_remaining
        log_std = self._log_std_final + remaining * (self._log_std_init - self._log_std_final)
        with torch.no_grad():
            self.model.policy.log_std.fill_(log_std)  # type: ignore[operator, union-attr]
        self.logger.record("train/log_std", log_std)


#: What the HPARAMS tab can be sorted by: the final figures, and the last validation's.
HPARAM_METRICS = (
    *(f"{group}/{column}" for column in CALL_TAGS for group in ("test", "test_minus_gcc")),
    "validation/mean_reward",
    "validation_minus_gcc/mean_reward",
)


class DescriptionCallback(BaseCallback):
    """The configuration in TensorBoard's HPARAMS tab, and what its tags mean in the TEXT tab.

    The HPARAMS tab takes its metrics from the scalars of the run. Those of `write_final_metrics`
    are announced here, so that a run which is interrupted stands there too, without them.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self._values = flatten(values)

    def _on_training_start(self) -> None:
        metrics = dict.fromkeys(HPARAM_METRICS, 0.0)  # names only; no value is written
        self.logger.record("hparams", HParam(self._values, metrics), exclude=NO_SCALAR)
        self.logger.record("about/tags", explanation(), exclude=NO_SCALAR)
        self.logger.dump(self.num_timesteps)

    def _on_step(self) -> bool:
        return True


def write_final_metrics(directory: Path, agent: Calls, gcc: Calls, *, steps: int) -> None:
    """Put what a finished run has reached into its TensorBoard, for the HPARAMS tab.

    Args:
        directory: of the run's event files; one is added.
        agent: the test calls under the policy that was kept, columns of `CALL_TAGS`.
        gcc: the same calls under GCC.
        steps: env steps from which that policy had learnt.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(directory)) as writer:
        for column, (value, difference) in _means(agent, gcc).items():
            writer.add_scalar(f"test/{column}", value, steps)
            writer.add_scalar(f"test_minus_gcc/{column}", difference, steps)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | str | float]:
    """Nested JSON values as ``{"ppo.gamma": 0.98}``; what is no scalar becomes text."""
    flat: dict[str, bool | str | float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            is_scalar = isinstance(value, (bool, str, int, float))
            flat[f"{prefix}{key}"] = value if is_scalar else str(value)
    return flat


class ProgressCallback(BaseCallback):
    """A progress bar on a terminal; where there is none, a line every `line_every_s` seconds."""

    def __init__(self, total_steps: int, *, line_every_s: float = 15.0) -> None:
        super().__init__()
        from tqdm import tqdm

        # disable=None: off when standard error is no terminal.
        self._bar = tqdm(
            total=total_steps, unit="step", unit_scale=True, disable=None, mininterval=0.25
        )
        self._total_steps = total_steps
        self._line_every_s = line_every_s
        self._line_at_s = 0.0
        self._start_s = 0.0
        self._start_steps = 0

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""
        self._bar.write(line)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def _on_training_start(self) -> None:
        self._start_s = self._line_at_s = time.monotonic()
        self._start_steps = self.num_timesteps
        self._bar.update(self.num_timesteps - self._bar.n)

    def _on_step(self) -> bool:
        if not self._bar.disable:
            self._bar.update(self.num_timesteps - self._bar.n)
        return True

    def _on_rollout_end(self) -> None:
        now_s = time.monotonic()
        if self._bar.disable and now_s - self._line_at_s >= self._line_every_s:
            self._line_at_s = now_s
            rate = (self.num_timesteps - self._start_steps) / (now_s - self._start_s)
            print(
                f"{self.num_timesteps:>10,} of {self._total_steps:,} steps, {rate:,.0f} steps/s",
                flush=True,
            )

    def _on_training_end(self) -> None:
        self.close()

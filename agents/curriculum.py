"""A curriculum: networks are drawn more often where the agent lags behind a rule most.

The idea is Genet's (Xia, Zhou, Yan and Jiang, "Genet: Automatic Curriculum Generation for Learning
Adaptation in Networking", SIGCOMM 2022): not the networks that are hard for everyone teach most,
but those on which a rule-based baseline shows that more was possible. We take from it this gap to
the baseline as the measure, and that a part of the draws stays as it was. The rest is ours:

- Genet searches a space of network parameters for large gaps (Bayesian optimisation), stops
  learning to measure them, and adds what it finds to the training distribution in a few phases. We
  weight a fixed list of networks at every draw.
- Genet measures the agent in calls made for it. We take the training calls, which cost nothing: so
  the gap holds what exploration costs, and the policies of the last few calls on that network.
- Genet takes gaps as they are, we their ranks. A run of 2 million decisions plays each of 600
  networks about five times, so single gaps are noisy, and one call that drops lies many standard
  deviations out: weighted by size (softmax), few such networks would take most draws. Ranks bound
  the weight of each, whatever the scale of the reward.

With 600 networks a finished call costs 0.2 ms, which is 0.3 us for each decision of a call of 60 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bwe_env.errors import ArtifactError, ConfigError

CurriculumName = Literal["none", "gap"]

#: Share of the draws in which all networks are equal: none is forgotten, and each is judged again
#: from time to time. Ours.
SHARE_UNIFORM = 0.5
#: By which share of the ranks the weight falls to 1/e. At 0.25 and half of the draws uniform, the
#: network with the largest gap is drawn 2.5 times as often as without curriculum, the last 0.54
#: times. Ours.
TEMPERATURE = 0.25
#: Weight of the newest call in the mean of a network: about three calls count, because each is
#: noisy and the agent that played the older ones was another. Ours.
SMOOTHING = 0.5


class GapCurriculum:
    """How often each network is drawn, from what the agent reached on it and what a rule did.

    The gap of a network is the baseline's reward less the agent's (an exponential mean over its
    finished calls); networks not yet played count with the mean gap of the others. With r the rank
    of a gap, (1 … n) / n less half a step and equal for equal gaps, a network is drawn with

        p = share_uniform / n + (1 - share_uniform) exp(r / temperature) / (sum over networks)

    Before the first finished call all gaps are equal, and so are all probabilities.

    Args:
        baseline_rewards: of the rule, shape (n,), per second of scheduled time.
        share_uniform: 0 … 1; no network is drawn less often than share_uniform / n.
        temperature: > 0; small ones concentrate on the largest gaps.
        smoothing: above 0 … 1, weight of the newest call; 1 keeps the newest alone.

    Raises:
        ConfigError: no networks, rewards that are not finite, or a parameter out of its range.
    """

    def __init__(
        self,
        baseline_rewards: ArrayLike,
        *,
        share_uniform: float = SHARE_UNIFORM,
        temperature: float = TEMPERATURE,
        smoothing: float = SMOOTHING,
    ) -> None:
        rewards = np.array(baseline_rewards, dtype=np.float64)
        if rewards.ndim != 1 or not len(rewards) or not np.isfinite(rewards).all():
            raise ConfigError(
                "baseline_rewards must be a finite number for each of at least one network; got "
                f"shape {rewards.shape}, {int((~np.isfinite(rewards)).sum())} not finite."
            )
        if not 0.0 <= share_uniform <= 1.0:
            raise ConfigError(f"share_uniform={share_uniform} must be between 0 and 1.")
        if not 0.0 < temperature < np.inf:
            raise ConfigError(f"temperature={temperature} must be above 0 and finite.")
        if not 0.0 < smoothing <= 1.0:
            raise ConfigError(f"smoothing={smoothing} must be above 0, at most 1.")
        self.baseline_rewards = rewards
        #: Exponential mean per network, NaN where none has been played.
        self.agent_rewards: NDArray[np.float64] = np.full(len(rewards), np.nan)
        #: Finished calls per network.
        self.calls: NDArray[np.int64] = np.zeros(len(rewards), dtype=np.int64)
        self._share_uniform = share_uniform
        self._temperature = temperature
        self._smoothing = smoothing

    def __len__(self) -> int:
        return len(self.baseline_rewards)

    def record(self, network_index: int, mean_reward: float) -> None:
        """Take in a finished call.

        Args:
            network_index: 0 … n - 1.
            mean_reward: the agent's, per second of scheduled time.

        Raises:
            ConfigError: no such network, or a reward that is not finite.
        """
        if not 0 <= network_index < len(self):
            raise ConfigError(f"network_index={network_index} must be 0 to {len(self) - 1}.")
        if not np.isfinite(mean_reward):
            raise ConfigError(f"mean_reward={mean_reward} of network {network_index}: not finite.")
        if self.calls[network_index] == 0:
            self.agent_rewards[network_index] = mean_reward
        else:
            change = mean_reward - self.agent_rewards[network_index]
            self.agent_rewards[network_index] += self._smoothing * change
        self.calls[network_index] += 1

    @property
    def mean_gap(self) -> float:
        """Over the networks played; 0 before the first call."""
        is_played = self.calls > 0
        if not is_played.any():
            return 0.0
        return float(np.mean((self.baseline_rewards - self.agent_rewards)[is_played]))

    @property
    def gaps(self) -> NDArray[np.float64]:
        """Reward of the baseline less the agent's, shape (n,); above 0 the agent lags."""
        gaps = self.baseline_rewards - self.agent_rewards
        return np.where(self.calls > 0, gaps, self.mean_gap)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each network in the next draw, shape (n,)."""
        # Less 1, the largest rank, so that no temperature overflows.
        weights = np.exp((_ranks(self.gaps) - 1.0) / self._temperature)
        share_gap = 1.0 - self._share_uniform
        p: NDArray[np.float64] = share_gap * weights / weights.sum()
        return p + self._share_uniform / len(self)

    @property
    def effective_networks(self) -> float:
        """How many networks drawn equally often would meet themselves as often: 1 / sum of p²."""
        return float(1.0 / np.sum(self.probabilities**2))

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Networks for `count` calls that begin now, independent of each other."""
        drawn: NDArray[np.int64] = generator.choice(len(self), size=count, p=self.probabilities)
        return drawn

    # --- To go on later -----------------------------------------------------------------------

    @property
    def state(self) -> dict[str, list[Any]]:
        """What is known of each network, as JSON columns; None where none has been played."""
        rewards = [None if np.isnan(reward) else reward for reward in self.agent_rewards.tolist()]
        return {
            "baseline_rewards": self.baseline_rewards.tolist(),
            "agent_rewards": rewards,
            "calls": self.calls.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`.

        Raises:
            ArtifactError: it is damaged, or of other networks.
        """
        try:
            baseline, agent = (
                np.array(state[name], dtype=np.float64)
                for name in ("baseline_rewards", "agent_rewards")
            )
            calls = np.array(state["calls"], dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"the state of a curriculum is damaged: {error!r}.") from error
        is_whole = baseline.shape == agent.shape == calls.shape == (len(self),)
        if not is_whole or not np.array_equal(np.isfinite(agent), calls > 0):
            raise ArtifactError(
                f"the state of a curriculum does not fit its {len(self)} networks: columns of "
                f"{baseline.shape}, {agent.shape} and {calls.shape} values, and a reward is wanted "
                "exactly where there are calls. Let the curriculum begin anew."
            )
        self.baseline_rewards, self.agent_rewards, self.calls = baseline, agent, calls


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each value as a share of their number, inside 0 … 1; equal values share theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - counts / 2.0
    shares: NDArray[np.float64] = middles[group] / len(values)
    return shares

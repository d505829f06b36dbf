"""The questions that network models answer, each with its window and its possible answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bwe_env.errors import unknown_name
from bwe_env.labels import NETWORK_CLASSES, PAST_S
from bwe_env.network_features import BIN_S, MAX_WINDOW_BINS


@dataclass(frozen=True, kw_only=True)
class NetworkTask:
    """One question about the network of a call."""

    name: str
    question: str
    window_bins: int
    """how much of the past a model of this task alone sees"""
    classes: tuple[str, ...] = ()
    """answers of which one is right; empty where the answer is yes or no"""
    only_while_losing: bool = False
    """the question is put only where packets were reported missing in the last second"""

    @property
    def is_binary(self) -> bool:
        """Whether the answer is the probability of yes."""
        return not self.classes

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each probability is."""
        return tuple(f"{self.name}:{name}" for name in self.classes) or (self.name,)


#: Windows of 10 s and of 4 s: DEFINITIONS of the labels (`bwe_env.labels`); type and burst as loss.
TASKS = {
    task.name: task
    for task in (
        NetworkTask(
            name="random_loss",
            question="Are the packets that are being lost lost by chance?",
            window_bins=MAX_WINDOW_BINS,
            only_while_losing=True,
        ),
        NetworkTask(
            name="congestion",
            question="Will there be congestion in the next 4 s?",
            window_bins=round(PAST_S / BIN_S),
        ),
        NetworkTask(
            name="network_type",
            question="What kind of network is it?",
            window_bins=MAX_WINDOW_BINS,
            classes=NETWORK_CLASSES,
        ),
        NetworkTask(
            name="bursty_loss",
            question="Does the loss that comes by chance come in bursts?",
            window_bins=MAX_WINDOW_BINS,
            only_while_losing=True,
        ),
    )
}


def task_of(name: str) -> NetworkTask:
    """A task by name.

    Raises:
        UnknownNameError: the known ones are listed.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]


def window_of(tasks: Sequence[str]) -> int:
    """Bins that a model of all these tasks sees: what the most curious of them needs."""
    return max(task_of(name).window_bins for name in tasks)

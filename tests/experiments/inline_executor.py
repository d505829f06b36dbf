"""An executor without processes, for tests: quick, and as unlucky as wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


class InlineExecutor:
    """Runs everything here; may finish items in another order, and be interrupted."""

    def __init__(
        self,
        *,
        shuffle_seed: int | None = None,
        interrupt_after: int | None = None,
        play: Callable[[Any], Any] | None = None,
    ) -> None:
        """`play` stands in for every function that is mapped."""
        self.shuffle_seed = shuffle_seed
        self.interrupt_after = interrupt_after
        self.play = play
        self.items: list[Any] = []
        self.is_closed = False

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        order = np.arange(len(items))
        if self.shuffle_seed is not None:
            np.random.default_rng(self.shuffle_seed + len(self.items)).shuffle(order)
        for position in order.tolist():
            if self.interrupt_after is not None and len(self.items) >= self.interrupt_after:
                raise KeyboardInterrupt
            self.items.append(items[position])
            yield position, (self.play or function)(items[position])

    def close(self) -> None:
        self.is_closed = True

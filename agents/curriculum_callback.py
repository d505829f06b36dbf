"""What a curriculum shows while an agent learns, and when its state is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.curriculum import GapCurriculum


class CurriculumCallback(BaseCallback):
    """Shows after each rollout how a curriculum would draw now, as ``curriculum/``.

    Args:
        curriculum: that of the training environment.
        network_types: of its networks, in their order.
        keep: called after each rollout, to write the state somewhere.
    """

    def __init__(
        self,
        curriculum: GapCurriculum,
        network_types: Sequence[str],
        *,
        keep: Callable[[GapCurriculum], None],
    ) -> None:
        super().__init__()
        self._curriculum = curriculum
        self._types, self._type_of = np.unique(list(network_types), return_inverse=True)
        self._keep = keep

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        curriculum = self._curriculum
        shares = np.bincount(self._type_of, weights=curriculum.probabilities)
        figures = {
            "mean_gap": curriculum.mean_gap,
            "effective_networks": curriculum.effective_networks,
            "top_type_share": float(shares.max()),
            "played_ratio": float(np.mean(curriculum.calls > 0)),
        }
        for name, value in figures.items():
            self.logger.record(f"curriculum/{name}", value)
        self._keep(curriculum)

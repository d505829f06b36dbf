"""The report on one arm against the control: its rows, its guards, and whether it wins.

An arm *wins* if at least one row that counts moves in its declared direction with a Holm-adjusted
p-value below 0.05, none moves against it so, and all guards hold. The placebo, the same
intervention driven by predictions that mean nothing, must not win: if it does, so could the arm
without its predictions being right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bwe_env.metrics import FIELD_METRICS, Better, FieldMetric
from experiments.ab_guards import Guard, guards
from experiments.ab_pairs import pair
from experiments.ab_statistics import AB_RESAMPLES, Row, rows
from experiments.evaluation import Calls


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an A/B test says of one arm."""

    control: str
    treatment: str
    networks: int
    calls: int
    """of either arm"""
    rows: tuple[Row, ...]
    guards: tuple[Guard, ...]

    @property
    def gains(self) -> bool:
        """Whether a row moves as declared, and none against it."""
        moves = [row.moves for row in self.rows]
        return "for" in moves and "against" not in moves

    @property
    def harmless(self) -> bool:
        """Whether all guards hold."""
        return all(guard.state == "holds" for guard in self.guards)

    @property
    def wins(self) -> bool:
        """Whether the arm is better, and harms nothing that is guarded."""
        return self.gains and self.harmless

    @property
    def verdict(self) -> str:
        """One sentence that says whether the arm wins, and why."""
        gains = [row.change.metric.name for row in self.rows if row.moves == "for"]
        losses = [row.change.metric.name for row in self.rows if row.moves == "against"]
        broken = [f"{g.name} ({g.state})" for g in self.guards if g.state != "holds"]
        parts = [
            f"better: {', '.join(gains) or 'nothing'}",
            f"worse: {', '.join(losses) or 'nothing'}",
            f"guards that do not hold: {', '.join(broken) or 'none'}",
        ]
        return f"{self.treatment} {'WINS' if self.wins else 'does not win'}. {'; '.join(parts)}."


def report(
    control: Calls,
    treatment: Calls,
    *,
    names: tuple[str, str] = ("control", "treatment"),
    metrics: Sequence[FieldMetric] = tuple(FIELD_METRICS.values()),
    directions: Mapping[str, Better] | None = None,
    resamples: int = AB_RESAMPLES,
    seed: int = 0,
) -> Report:
    """Compare two arms on the same calls.

    Args:
        names: of control and treatment.
        metrics: the rows.
        directions: where the treatment is declared to move a metric (see `ab_statistics.rows`).

    Raises:
        ConfigError: the tables are not of the same calls, or of fewer than two networks.
    """
    pairs = pair(control, treatment)
    return Report(
        control=names[0],
        treatment=names[1],
        networks=pairs.networks,
        calls=pairs.calls,
        rows=tuple(
            rows(pairs, metrics=metrics, directions=directions, resamples=resamples, seed=seed)
        ),
        guards=tuple(guards(pairs, resamples=resamples, seed=seed)),
    )

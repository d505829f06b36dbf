"""Network targeting driven by learned models: a plan and the models it needs, as delivered.

A delivered folder holds ``plan.json`` (`bwe_env.targeting.TargetingPlan`) and one folder per model
under ``models``. Nothing in it is executed: plans are numbers, weights plain arrays.
"""

from __future__ import annotations

from pathlib import Path

from agents.online_models import OnlineModels
from bwe_env.errors import ArtifactError
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import Targeting, TargetingPlan

PLAN_FILE = "plan.json"
MODELS_FOLDER = "models"
#: A call's models are asked five times a second: of the 1.6 s by which an alarm of congestion comes
#: before the first loss report, that takes a tenth of a second on average, and half of the work.
#: Ours.
PERIOD_BINS = 2


def load_targeting(
    directory: str | Path, *, base: SenderSettings | None = None, period_bins: int = PERIOD_BINS
) -> Targeting:
    """What a delivered folder says, ready to follow calls.

    Args:
        base: the sender's own settings; libwebrtc's by default.
        period_bins: intervals of 0.1 s between two questions to the models of one call.

    Raises:
        ArtifactError: no plan or no models, a damaged one, or models of other features.
        ConfigError: the models cannot answer what the plan asks, or a running call cannot take
            some of the plan's settings.
    """
    folder = Path(directory)
    plan = TargetingPlan.read(folder / PLAN_FILE)
    models = sorted(path for path in (folder / MODELS_FOLDER).glob("*") if path.is_dir())
    if not models:
        raise ArtifactError(
            f"{folder / MODELS_FOLDER} holds no model; a delivered plan comes with those it needs, "
            "one folder each, as python -m experiments.fit writes them."
        )
    return Targeting(plan, OnlineModels.load(*models, period_bins=period_bins), base=base)

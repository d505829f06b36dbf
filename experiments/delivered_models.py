"""The network models that are delivered with the project, by the task that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from bwe_env.errors import ArtifactError, unknown_name

if TYPE_CHECKING:
    from agents.online_models import OnlineModels

ModelName = Literal["random_loss", "congestion", "network_type"]
MODEL_NAMES: tuple[str, ...] = get_args(ModelName)

_DELIVERED = Path(__file__).parent / "delivered"
_FOLDERS = {
    "random_loss": _DELIVERED / "random-loss/models/random_loss",
    "congestion": _DELIVERED / "congestion/models/congestion",
    "network_type": _DELIVERED / "cellular/models/network_type",
}


def model_folder(name: str) -> Path:
    """Where the model of a task is.

    Raises:
        UnknownNameError: no such task.
    """
    if name not in _FOLDERS:
        raise unknown_name("network model", name, MODEL_NAMES)
    return _FOLDERS[name]


def model_digests(names: Sequence[str]) -> tuple[str, ...]:
    """SHA-256 of the weights of each."""
    from agents.network_model import read_network_manifest

    return tuple(str(read_network_manifest(model_folder(name))["sha256"]) for name in names)


def load_models(
    names: Sequence[str], *, period_bins: int = 1, digests: Sequence[str] | None = None
) -> OnlineModels | None:
    """The models of these tasks, in this order; None for none of them.

    Args:
        period_bins: how often they are asked; see `OnlineModels`.
        digests: what `model_digests` gave when they were learnt from.

    Raises:
        ArtifactError: other models than those have been delivered since.
    """
    if not names:
        return None
    from agents.online_models import OnlineModels

    if digests is not None and tuple(digests) != model_digests(names):
        raise ArtifactError(
            f"the policy was trained with other network models for {', '.join(names)} than are "
            "delivered now: it has learnt other answers. Train anew, or use the version of the "
            "project it was made with."
        )
    return OnlineModels.load(*map(model_folder, names), period_bins=period_bins)

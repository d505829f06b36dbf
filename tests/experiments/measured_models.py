"""Models as `experiments.store_measure` makes them, stored."""

from __future__ import annotations

from pathlib import Path

from experiments.artifact_store import Store
from experiments.store_measure import Tensors, write_model
from tests.experiments.stored_models import MODEL


def add_model(store: Store, folder: Path, tensors: Tensors) -> str:
    """Store a model with these tensors."""
    write_model(folder, tensors)
    return store.add(folder, **MODEL)

"""Torch modules as ONNX files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bwe_env.errors import ConfigError


def write_onnx(
    module: torch.nn.Module,
    path: str | Path,
    *,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    any_batch: bool,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module in inference mode as ONNX.

    Args:
        inputs: an example of each argument of ``forward``, by its name there and in the file.
        outputs: names of what it returns.
        any_batch: whether the first axis of all inputs may have any length; otherwise it has that
            of the examples. An example for any length has 2 rows: torch takes 1 for a constant.
        metadata: kept in the file as ``metadata_props``.

    Raises:
        ConfigError: the packages for it are not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            'writing ONNX needs more packages: pip install -c constraints.txt -e ".[export]"'
        ) from error
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch to itself
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: {0: batch} for name in inputs} if any_batch else None,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with the places of this machine's files
    program.model.metadata_props.update(metadata or {})
    program.save(str(path))

"""A model of the MMSys'24 challenge as an estimator: ONNX in, bandwidth out, every 60 ms.

Such a model reads the observation of `bwe_env.mmsys24` and its own recurrent state, and answers
with the mean and the standard deviation of a rate; the mean is the target. Here its calls differ
from those it was trained on:

- The answer crosses the reverse path and may be lost there; the challenge logged no such path.
- A call begins at its own start rate, not at the 20 kbps of most of the challenge's policies, and
  until the first packet arrives the answer is that start rate.
- Delays have fractions of a millisecond, and the gaps that tell of losses are those of transport-
  wide sequence numbers (`bwe_env.mmsys24` says what else is ours).
- What its target does to the call is this simulator's: encoder, pacing, and no padding up to it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError
from bwe_env.estimator import NO_TIMEOUT_US, RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.mmsys24 import OBSERVATION_INTERVAL_S, OBSERVATION_SIZE, Mmsys24Observer

if TYPE_CHECKING:
    import onnxruntime

_INPUTS = ("obs", "hidden_states", "cell_states")
_OUTPUTS = ("output", "state_out", "cell_out")


class OnnxEstimator:
    """A receiver-side `bwe_env.estimator.BandwidthEstimator` that asks a model of the challenge.

    Args:
        path: an ``.onnx`` file with inputs ``obs``, ``hidden_states``, ``cell_states`` and outputs
            ``output``, ``state_out``, ``cell_out``.
        call: the range of rates, to which answers are clipped, and the rate at the start.

    Raises:
        ArtifactError: no such model, or onnxruntime is not installed.
    """

    side = "receiver"
    interval_s = OBSERVATION_INTERVAL_S

    def __init__(self, path: str | Path, *, call: CallConfig) -> None:
        self._path = Path(path)
        self._session = _session(self._path.resolve())
        shapes = {given.name: given.shape for given in self._session.get_inputs()}
        self._hidden = np.zeros((1, shapes["hidden_states"][-1]), dtype=np.float32)
        self._cell = np.zeros((1, shapes["cell_states"][-1]), dtype=np.float32)
        self._obs_shape = (1,) * (len(shapes["obs"]) - 1) + (OBSERVATION_SIZE,)
        self._observer = Mmsys24Observer()
        self._min_rate_bps = call.min_rate_bps
        self._max_rate_bps = call.max_rate_bps
        self._target_rate_bps = float(call.start_rate_bps)

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """Of the sender's side, about which a receiver knows nothing."""

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """The model's mean after the arrivals of another interval, clipped to the call's range."""
        self._observer.add(report.packets)
        if self._observer.has_arrivals:
            self._target_rate_bps = self._ask()
        return RateDecision(target_rate_bps=self._target_rate_bps)

    def on_timeout(self, now_us: int) -> RateDecision:
        """Never due: the receiver's reports come by themselves."""
        return RateDecision(target_rate_bps=self._target_rate_bps)

    def next_timeout_us(self) -> int:
        """Never."""
        return NO_TIMEOUT_US

    def _ask(self) -> float:
        inputs = (self._observer.observation().reshape(self._obs_shape), self._hidden, self._cell)
        output, self._hidden, self._cell = self._session.run(
            _OUTPUTS, dict(zip(_INPUTS, inputs, strict=True))
        )
        mean_bps = float(output.reshape(-1)[0])
        if not np.isfinite(mean_bps):
            raise ArtifactError(f"{self._path}: the model answered {mean_bps}; it must be finite.")
        return float(np.clip(mean_bps, self._min_rate_bps, self._max_rate_bps))


@lru_cache(maxsize=8)
def _session(path: Path) -> onnxruntime.InferenceSession:
    """The model ready to run on one thread; calls share it, since it keeps no state."""
    onnxruntime = _onnxruntime()
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; give an .onnx model after 'onnx:'.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has a class of its own for every kind of damage
        raise ArtifactError(f"{path} is no ONNX model that can be run: {error}") from error
    _check_interface(session, path)
    return session


def _check_interface(session: onnxruntime.InferenceSession, path: Path) -> None:
    inputs = {given.name: given.shape for given in session.get_inputs()}
    outputs = {given.name for given in session.get_outputs()}
    is_complete = set(inputs) == set(_INPUTS) and outputs >= set(_OUTPUTS)
    sizes = [shape[-1] for shape in inputs.values()]
    if not (is_complete and inputs["obs"][-1] == OBSERVATION_SIZE) or not all(
        isinstance(size, int) for size in sizes
    ):
        raise ArtifactError(
            f"{path}: a model of the MMSys'24 challenge takes {', '.join(_INPUTS)} and gives "
            f"{', '.join(_OUTPUTS)}, and its obs has {OBSERVATION_SIZE} numbers; this one takes "
            f"{inputs} and gives {', '.join(sorted(outputs))}."
        )


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ArtifactError(
            'an ONNX model needs onnxruntime: pip install -c constraints.txt -e ".[export]".'
        ) from error
    return onnxruntime

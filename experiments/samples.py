"""Windows of a dataset's calls with their labels: what is learnt from, and what is scored on.

For learning, windows are thinned to some per call, so that a call with a long congestion does not
outweigh the others. For scores they are taken as DEFINITIONS of the labels have it: one per loss
episode, every second of congestion, and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.network_tasks import task_of
from bwe_env.errors import ArtifactError
from bwe_env.labels import (
    MIXED,
    NETWORK_CLASSES,
    NOT_RANDOM,
    RANDOM,
    CongestionLabels,
    RandomLossLabels,
    congestion_labels,
    first_of_episodes,
    loss_episodes,
    random_loss_labels,
)
from bwe_env.network_features import BIN_S, NUM_SERIES, call_features
from experiments.dataset import DatasetCall

#: Windows per call that are learnt from. Neighbours 0.1 s apart teach little. Ours.
LEARN_PER_CALL = {"random_loss": 30, "congestion": 36, "network_type": 12, "bursty_loss": 16}
#: Bins between windows that are scored, where there is no episode to take one of. Ours: the labels
#: look 4 s ahead, so that neighbours agree.
SCORE_STRIDE = 10
#: The type is asked from 5 s into the call on, every 5 s.
TYPE_STRIDE = 50


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Windows of one call."""

    bins: NDArray[np.int64]
    """where each ends, ascending"""
    labels: NDArray[np.int64]
    """class, or 1 for yes"""
    is_special: NDArray[np.bool_]
    """congestion: a spike came before; random loss: the cause is mixed; else false"""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Windows of many calls. Arrays have one entry per window unless they say otherwise."""

    task: str
    window_bins: int
    series: NDArray[np.float32]
    """series of all calls, each after `window_bins` - 1 rows of -1; shape (rows, NUM_SERIES)"""
    first_row: NDArray[np.int64]
    """where in `series` the window begins"""
    dense: NDArray[np.float32]
    """shape (n, NUM_DENSE)"""
    labels: NDArray[np.int64]
    is_special: NDArray[np.bool_]
    network: NDArray[np.int64]
    """position in `networks`"""
    call: NDArray[np.int64]
    """position among the calls that were given"""
    bin: NDArray[np.int64]
    networks: tuple[str, ...]
    """names"""
    types: tuple[str, ...]
    """network type of each network"""

    def __len__(self) -> int:
        return len(self.labels)

    def windows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Series of some windows, shape (len(rows), window_bins, NUM_SERIES)."""
        index = self.first_row[rows][:, None] + np.arange(self.window_bins)
        return self.series[index]


def loss_labels(call: DatasetCall) -> RandomLossLabels:
    """Random-loss labels of a call by its true causes."""
    return random_loss_labels(
        call.truth["reported_random_packets"],
        call.truth["reported_congestion_packets"],
        interval_s=call.interval_s,
    )


def telemetry_labels(telemetry: NDArray[Any]) -> CongestionLabels:
    """Congestion labels of a call's bins of 0.1 s, dtype `bwe_env.telemetry.TELEMETRY`."""
    lost = telemetry["lost_packets"]
    reported = lost + telemetry["acked_packets"]
    return congestion_labels(telemetry["rtt_ms"], lost, reported_packets=reported)


def queue_labels(call: DatasetCall) -> CongestionLabels:
    """Congestion labels of a call by the losses of queues, AQM and policers alone."""
    telemetry = call.telemetry
    return congestion_labels(
        telemetry["rtt_ms"],
        call.truth["reported_congestion_packets"],
        reported_packets=telemetry["lost_packets"] + telemetry["acked_packets"],
    )


def has_both_causes(call: DatasetCall) -> bool:
    """Whether a call has episodes of random loss and episodes of congestion."""
    kind = loss_labels(call).kind
    return bool((kind == RANDOM).any() and (kind == NOT_RANDOM).any())


def _generator(task: str, call: DatasetCall) -> np.random.Generator:
    """Which windows are learnt from is a function of the call alone."""
    digest = hashlib.sha256(f"{task}\n{call.network}\n{call.seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _thinned(
    bins: NDArray[np.int64], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    if len(bins) <= count:
        return bins
    return np.sort(generator.choice(bins, size=count, replace=False))


def _random_loss(call: DatasetCall, learn: bool) -> Chosen | None:
    if not call.has_causes:
        return None
    labels = loss_labels(call)
    starts = first_of_episodes(loss_episodes(labels))
    bins = starts
    if learn:
        eligible = np.flatnonzero(labels.is_eligible)
        # Half of them beginnings, which scores are taken from and which are the hardest to tell.
        count = LEARN_PER_CALL["random_loss"]
        generator = _generator("random_loss", call)
        chosen = _thinned(starts, count // 2, generator)
        rest = np.setdiff1d(eligible, chosen)
        bins = np.union1d(chosen, _thinned(rest, count - len(chosen), generator))
    kind = labels.kind[bins]
    return Chosen(bins=bins, labels=(kind == RANDOM).astype(np.int64), is_special=kind == MIXED)


def _congestion(call: DatasetCall, learn: bool) -> Chosen | None:
    labels = telemetry_labels(call.telemetry)
    bins = np.flatnonzero(labels.is_scored)
    if learn:
        generator = _generator("congestion", call)
        count = LEARN_PER_CALL["congestion"]
        after_spike = bins[labels.had_spike[bins]]
        # Without a spike the answer is no; a few of those windows teach that.
        calm = _thinned(np.setdiff1d(bins, after_spike), count // 5, generator)
        bins = np.union1d(_thinned(after_spike, count - len(calm), generator), calm)
    else:
        bins = bins[::SCORE_STRIDE]
    return Chosen(
        bins=bins,
        labels=labels.is_positive[bins].astype(np.int64),
        is_special=labels.had_spike[bins],
    )


def _network_type(call: DatasetCall, learn: bool) -> Chosen | None:
    if call.network_class not in NETWORK_CLASSES:
        return None
    bins = np.arange(TYPE_STRIDE - 1, len(call.telemetry), TYPE_STRIDE)
    if learn:
        generator = _generator("network_type", call)
        moved = bins + generator.integers(0, TYPE_STRIDE, len(bins))
        inside = moved[moved < len(call.telemetry)]
        bins = _thinned(inside, LEARN_PER_CALL["network_type"], generator)
    label = NETWORK_CLASSES.index(call.network_class)
    return Chosen(
        bins=bins, labels=np.full(len(bins), label), is_special=np.zeros(len(bins), dtype=np.bool_)
    )


def _bursty_loss(call: DatasetCall, learn: bool) -> Chosen | None:
    if call.loss_process not in ("bursty", "independent"):
        return None
    labels = loss_labels(call)
    bins = np.flatnonzero(labels.kind == RANDOM)
    if learn:
        bins = _thinned(bins, LEARN_PER_CALL["bursty_loss"], _generator("bursty_loss", call))
    else:
        bins = bins[np.unique(bins // SCORE_STRIDE, return_index=True)[1]]  # one a second at most
    label = int(call.loss_process == "bursty")
    return Chosen(
        bins=bins, labels=np.full(len(bins), label), is_special=np.zeros(len(bins), dtype=np.bool_)
    )


CHOOSE: dict[str, Callable[[DatasetCall, bool], Chosen | None]] = {
    "random_loss": _random_loss,
    "congestion": _congestion,
    "network_type": _network_type,
    "bursty_loss": _bursty_loss,
}


@dataclass(frozen=True, kw_only=True)
class _CallWindows:
    """The windows of one call, and its features."""

    call: int
    chosen: Chosen
    series: NDArray[np.float32]
    dense: NDArray[np.float32]


def _windows_of(
    task: str, calls: Sequence[DatasetCall], *, learn: bool, window_bins: int
) -> Iterator[_CallWindows]:
    """Of every call that has any."""
    for index, call in enumerate(calls):
        if call.interval_s != BIN_S:
            raise ArtifactError(
                f"{call.network!r} has bins of {call.interval_s:g} s, features are of bins of "
                f"{BIN_S:g} s: they would mean something else. Collect it anew in such bins."
            )
        chosen = CHOOSE[task](call, learn)
        if chosen is not None and len(chosen.bins):
            series, dense = call_features(call.telemetry, chosen.bins, window_bins=window_bins)
            yield _CallWindows(call=index, chosen=chosen, series=series, dense=dense)


def make_samples(
    task: str, calls: Sequence[DatasetCall], *, learn: bool, window_bins: int | None = None
) -> Samples:
    """Windows of one task.

    Args:
        learn: thinned for learning, or as they are scored.
        window_bins: of the model; that of the task by default.

    Raises:
        ArtifactError: no call has a window of this task, or a call has bins of another length.
    """
    bins = window_bins or task_of(task).window_bins
    parts = list(_windows_of(task, calls, learn=learn, window_bins=bins))
    if not parts:
        raise ArtifactError(f"no call of the dataset has a window of the task {task!r}.")
    names = sorted({call.network for call in calls})
    type_of = {call.network: call.network_type for call in calls}
    padding = np.full((bins - 1, NUM_SERIES), -1.0, dtype=np.float32)
    rows = np.cumsum([0, *(len(padding) + len(part.series) for part in parts)])
    counts = [len(part.chosen.bins) for part in parts]
    networks = [names.index(calls[part.call].network) for part in parts]
    ends = np.concatenate([part.chosen.bins for part in parts])
    return Samples(
        task=task,
        window_bins=bins,
        series=np.concatenate([piece for part in parts for piece in (padding, part.series)]),
        first_row=np.repeat(rows[:-1], counts) + ends,
        dense=np.concatenate([part.dense for part in parts]),
        labels=np.concatenate([part.chosen.labels for part in parts]),
        is_special=np.concatenate([part.chosen.is_special for part in parts]),
        network=np.repeat(networks, counts),
        call=np.repeat([part.call for part in parts], counts),
        bin=ends,
        networks=tuple(names),
        types=tuple(type_of[name] for name in names),
    )

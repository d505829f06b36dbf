"""Many independent pieces of work at once: processes of this machine, or a Ray cluster.

A piece of work is one item that a top-level function is called with. Results come back with the
item's position as they finish. Which worker ran an item, and in which order they ended, must not
matter to the caller: whoever wants the same bits for any number of workers sorts by position.

Workers are *spawned*, not forked: a forked child would inherit locks held by threads of numba and
torch, and hang. Each has one thread of its own for BLAS and torch, because the pieces of work are
what runs side by side.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol, TypeVar, get_args

from bwe_env.errors import BweEnvError, ConfigError, unknown_name

T = TypeVar("T")
R = TypeVar("R")

ExecutorName = Literal["local", "ray"]

#: How long a worker may take to end once asked, before it is killed. Ours.
END_WAIT_S = 5.0
#: An item is shown in errors up to so many characters. Ours.
SHOWN_ITEM_LENGTH = 200
#: What makes a library use one thread where it starts: OpenBLAS, MKL and torch all read it.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class WorkerError(BweEnvError, RuntimeError):
    """A piece of work failed, or its worker died; the message names the item."""


class Executor(Protocol):
    """Runs a function on every item of a list, several at a time."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yield (position in `items`, result) as pieces of work finish, in any order.

        Args:
            function: a top-level function, or another object that pickles; the module that defines
                it is imported by the workers.
            items: pickle as well.

        Raises:
            WorkerError: a piece of work raised, or its worker died. The others are given up.
        """
        ...

    def close(self) -> None:
        """End the workers; may be called twice."""
        ...


def make_executor(name: ExecutorName = "local", *, workers: int = 0) -> Executor:
    """An executor by name.

    Args:
        name: "local" for processes of this machine; "ray" for the cluster that ``RAY_ADDRESS``
            names, or for Ray's own processes on this machine.
        workers: how many pieces of work run at once; 0 for one per processor.

    Raises:
        UnknownNameError: no such executor.
        ConfigError: a negative number of workers, or Ray is not installed.
    """
    if workers < 0:
        raise ConfigError(f"workers={workers} must be at least 1, or 0 for one per processor.")
    if name == "local":
        return LocalExecutor(workers)
    if name == "ray":
        return RayExecutor(workers)
    raise unknown_name("executor", name, get_args(ExecutorName))


def _failure(position: int, item: object, error: str) -> WorkerError:
    shown = repr(item)
    if len(shown) > SHOWN_ITEM_LENGTH:
        shown = shown[:SHOWN_ITEM_LENGTH] + "…"
    return WorkerError(f"item {position}, {shown}: {error}")


def _told(error: BaseException) -> str:
    """An error as the caller reads it: what was raised on purpose in one line, a bug in full."""
    if isinstance(error, BweEnvError):
        return str(error)
    return "failed in its worker.\n" + "".join(traceback.format_exception(error)).rstrip()


def _run(function: Callable[[T], R], item: T) -> R:
    """One piece of work; torch is held to one thread if it is loaded, and not loaded for it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    return function(item)


# --- Processes of this machine --------------------------------------------------------------------


@dataclass(frozen=True)
class _Worker:
    """A process and the parent's end of the pipe to it."""

    process: Any
    pipe: Connection

    def end(self) -> None:
        """Terminate the process, whatever it is doing."""
        self.process.terminate()
        self.process.join(END_WAIT_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


class LocalExecutor:
    """Spawned processes that stay for the next `map`, so that kernels are loaded once.

    Ctrl-C ends them without a word of their own; so does leaving the loop over `map` early. They
    end by themselves if this process is killed.
    """

    def __init__(self, workers: int = 0) -> None:
        """See `make_executor`. Processes start with the first `map`."""
        self._count = workers or os.cpu_count() or 1
        self._workers: list[_Worker] = []

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        try:
            yield from self._map(function, items)
        except BaseException:
            # Also when interrupted or left early: workers then hold work that nobody waits for.
            self.close()
            raise

    def close(self) -> None:
        """See `Executor.close`."""
        while self._workers:
            self._workers.pop().end()

    def _map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        waiting = deque(enumerate(items))
        while len(self._workers) < min(self._count, len(items)):
            self._workers.append(_start_worker())
        idle, busy = list(self._workers), dict[Connection, tuple[_Worker, int]]()
        while waiting or busy:
            while waiting and idle:
                worker, (position, item) = idle.pop(), waiting.popleft()
                _send(worker, function, position, item)
                busy[worker.pipe] = worker, position
            for pipe in wait(list(busy)):
                worker, position = busy.pop(pipe)  # type: ignore[call-overload]
                yield position, _receive(worker, position, items[position])
                idle.append(worker)


def _start_worker() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # Daemonic: they go when this process exits, however it does.
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    with _without_interrupt(), _environment(ONE_THREAD):
        process.start()
    theirs.close()  # so that the pipe ends when the worker does
    return _Worker(process, ours)


@contextlib.contextmanager
def _without_interrupt() -> Iterator[None]:
    """Hold SIGINT back; a process started meanwhile never sees it, not even while it imports."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows: workers ignore it once they run
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables that a process started meanwhile inherits."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _send(worker: _Worker, function: Callable[[T], R], position: int, item: T) -> None:
    try:
        worker.pipe.send((function, item))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        advice = "Give a function at the top level of a module, and items that pickle."
        raise _failure(position, item, f"cannot be sent to a worker: {error}. {advice}") from error
    except OSError as error:
        raise _failure(position, item, "its worker has died.") from error


def _receive(worker: _Worker, position: int, item: object) -> Any:
    try:
        is_done, result = worker.pipe.recv()
    except (EOFError, OSError) as error:
        worker.process.join(END_WAIT_S)
        code = worker.process.exitcode
        hint = " That often means that memory ran out." if code == -signal.SIGKILL else ""
        raise _failure(position, item, f"its worker died, exit code {code}.{hint}") from error
    if is_done:
        return result
    raise _failure(position, item, result)


def _serve(pipe: Connection) -> None:
    """What a worker does until the parent's end of its pipe is gone."""
    # Ctrl-C reaches the whole terminal's group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_answer(pipe.recv_bytes()))


def _answer(request: bytes) -> bytes:
    """Run a pickled piece of work; returns, pickled, whether it was done, and what came of it."""
    try:
        function, item = pickle.loads(request)
        return pickle.dumps((True, _run(function, item)))
    except Exception as error:
        return pickle.dumps((False, _told(error)))


# --- Ray ------------------------------------------------------------------------------------------


class RayExecutor:
    """Tasks of a Ray cluster, each on one processor.

    Machines of the cluster need this checkout at the same place, or a `runtime_env` of the cluster
    that brings it: functions are sent by their module's name.
    """

    def __init__(self, workers: int = 0) -> None:
        """See `make_executor`."""
        try:
            import ray  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise ConfigError(
                "the executor 'ray' needs Ray, which is not installed: pip install -c "
                "constraints-ray.txt -e \".[ray]\". Or use the executor 'local'."
            ) from error
        self._ray: Any = ray
        self._owns = not ray.is_initialized()
        if self._owns:
            variables = {**ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            ray.init(
                num_cpus=None if os.environ.get("RAY_ADDRESS") else workers or None,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": variables},
            )
        self._count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        task = self._ray.remote(num_cpus=1, max_retries=0)(_ray_answer)
        waiting = deque(enumerate(items))
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._count:
                    position, item = waiting.popleft()
                    running[task.remote(function, item)] = position
                finished, _ = self._ray.wait(list(running), num_returns=1)
                position = running.pop(finished[0])
                yield position, self._result(finished[0], position, items[position])
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """See `Executor.close`. A Ray that was running before stays."""
        if self._owns and self._ray.is_initialized():
            self._ray.shutdown()

    def _result(self, reference: Any, position: int, item: object) -> Any:
        try:
            is_done, result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise _failure(position, item, f"its worker died: {error}") from error
        if is_done:
            return result
        raise _failure(position, item, result)


def _ray_answer(function: Callable[[T], R], item: T) -> tuple[bool, Any]:
    try:
        return True, _run(function, item)
    except Exception as error:
        return False, _told(error)

"""Work in several processes: every result, whatever the order, and errors that name the item."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bwe_env.errors import ConfigError, UnknownNameError
from experiments.executor import Executor, LocalExecutor, WorkerError, make_executor
from tests.experiments import executor_work as work

ROOT = Path(__file__).parents[2]


def is_running(process_id: int) -> bool:
    """Whether there is such a process that has not ended; a zombie has."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 10.0) -> bool:
    """Whether the condition becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    made = make_executor("local", workers=2)
    yield made
    made.close()


def test_every_item_comes_back_once_with_its_position(executor: Executor):
    numbers = [5, 3, 5, 0, -2, 7]
    results = dict(executor.map(work.square, numbers))
    assert results == {position: number * number for position, number in enumerate(numbers)}


def test_no_items_give_no_results(executor: Executor):
    assert list(executor.map(work.square, [])) == []


def test_results_come_as_they_finish_and_not_in_the_order_of_items(executor: Executor):
    order = [position for position, _ in executor.map(work.sleep_and_return, [0.6, 0.0, 0.1])]
    assert order == [1, 2, 0]


def test_two_workers_share_the_work_and_stay_for_the_next_map(executor: Executor):
    first = {process for _, process in executor.map(work.process_id, range(8))}
    second = {process for _, process in executor.map(work.process_id, range(8))}
    assert len(first) == 2
    assert first == second
    assert os.getpid() not in first


def test_an_error_in_a_worker_names_the_item_and_shows_where_it_was_raised():
    executor = LocalExecutor(1)
    with pytest.raises(WorkerError) as raised:
        list(executor.map(work.fail_on_three, [1, 2, 3]))
    text = str(raised.value)
    assert text.startswith("item 2, 3: ")
    assert "fail_on_three" in text
    assert text.endswith("ZeroDivisionError: three is too many")


def test_a_refusal_in_a_worker_is_one_line_that_names_the_item():
    with pytest.raises(WorkerError) as raised:
        list(LocalExecutor(1).map(work.refuse, ["dust"]))
    assert str(raised.value) == "item 0, 'dust': dust is not allowed."


def test_a_long_item_is_cut_in_the_message():
    with pytest.raises(WorkerError) as raised:
        list(LocalExecutor(1).map(work.square, ["x" * 5000]))
    assert "…: failed" in str(raised.value)
    assert "x" * 201 not in str(raised.value)


def test_a_worker_that_dies_is_told_with_its_item_and_exit_code():
    with pytest.raises(WorkerError, match=r"item 0, 7: its worker died, exit code 7\."):
        list(LocalExecutor(1).map(work.die, [7]))


def test_an_executor_works_on_after_an_error():
    executor = LocalExecutor(1)
    with pytest.raises(WorkerError):
        list(executor.map(work.fail_on_three, [3]))
    assert list(executor.map(work.square, [4])) == [(0, 16)]
    executor.close()


def test_a_function_that_does_not_pickle_is_refused_with_advice():
    with pytest.raises(WorkerError, match="cannot be sent to a worker.*top level of a module"):
        list(LocalExecutor(1).map(lambda number: number, [1]))


def test_a_result_that_does_not_pickle_names_its_item():
    with pytest.raises(WorkerError, match="item 0, 1: failed"):
        list(LocalExecutor(1).map(work.unpicklable, [1]))


def test_leaving_the_loop_early_ends_the_workers():
    executor = LocalExecutor(2)
    results = executor.map(work.process_id, range(100))
    processes = {next(results)[1] for _ in range(4)}
    results.close()
    assert not any(is_running(process) for process in processes)


def test_closing_twice_is_allowed():
    executor = LocalExecutor(1)
    ((_, process),) = executor.map(work.process_id, [1])
    executor.close()
    executor.close()
    assert not is_running(process)


def test_workers_have_one_thread_and_do_not_load_torch_for_it(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(LocalExecutor(1).map(work.threads_and_loaded_torch, [0])) == [(0, ("1", False))]
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.slow
def test_torch_has_one_thread_in_a_worker_that_loads_it():
    assert dict(LocalExecutor(1).map(work.torch_threads, [0, 1])) == {0: 1, 1: 1}


SLEEPER = """
import signal

from experiments.executor import LocalExecutor
from tests.experiments import executor_work as work

if __name__ == "__main__":
    # A shell's background jobs inherit an ignored SIGINT, which Python would leave ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    executor = LocalExecutor(2)
    for _, process in executor.map(work.process_id, range(4)):
        print(process, flush=True)
    print("busy", flush=True)
    list(executor.map(work.sleep_and_return, [60.0, 60.0]))
"""


def start_sleeper(directory: Path) -> tuple[subprocess.Popen[str], set[int]]:
    """A program whose two workers sleep, and their process ids."""
    script = directory / "sleeper.py"
    script.write_text(SLEEPER)
    program = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,  # so that the signal reaches the group, as a terminal's Ctrl-C
    )
    assert program.stdout is not None
    processes = set()
    for line in program.stdout:
        if line.strip() == "busy":
            break
        processes.add(int(line))
    return program, processes


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_ctrl_c_ends_the_workers_without_a_traceback_of_theirs(tmp_path: Path):
    program, processes = start_sleeper(tmp_path)
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=20)
    assert program.returncode in (130, -signal.SIGINT)
    assert errors.count("Traceback") == 1  # the program's own
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not any(is_running(process) for process in processes)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_idle_workers_end_when_their_parent_is_killed(tmp_path: Path):
    script = tmp_path / "idle.py"
    script.write_text(SLEEPER.replace("list(executor.map(work.sleep_and_return, [60.0, 60.0]))",
                                      "__import__('time').sleep(60)"))  # fmt: skip
    program = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert program.stdout is not None
    processes = {int(program.stdout.readline()) for _ in range(4)}
    program.kill()
    program.communicate(timeout=20)
    assert wait_until(lambda: not any(is_running(process) for process in processes))


def test_an_unknown_executor_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="local, ray"):
        make_executor("locale")  # type: ignore[arg-type]


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ConfigError, match="workers=-1"):
        make_executor(workers=-1)


HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_the_error_tells_how_to_install_it():
    with pytest.raises(ConfigError, match=r'constraints-ray\.txt -e "\.\[ray\]"'):
        make_executor("ray")


@pytest.mark.skipif(not HAS_RAY, reason="needs the ray extra, which is not installed")
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_results_and_errors():
    executor = make_executor("ray", workers=2)
    try:
        assert dict(executor.map(work.square, [3, 1, 2])) == {0: 9, 1: 1, 2: 4}
        with pytest.raises(WorkerError, match=r"item 0, 'dust': dust is not allowed\."):
            list(executor.map(work.refuse, ["dust"]))
        with pytest.raises(WorkerError, match="item 0, 7: its worker died"):
            list(executor.map(work.die, [7]))
    finally:
        executor.close()

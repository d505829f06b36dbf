"""Pieces of work for tests of the executor: workers import this file by its name."""

from __future__ import annotations

import os
import sys
import time

from bwe_env.errors import ConfigError


def square(number: int) -> int:
    return number * number


def sleep_and_return(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fail_on_three(number: int) -> int:
    if number == 3:
        raise ZeroDivisionError("three is too many")
    return number


def refuse(name: str) -> str:
    raise ConfigError(f"{name} is not allowed.")


def die(number: int) -> int:
    os._exit(number)


def threads_and_loaded_torch(_: int) -> tuple[str | None, bool]:
    return os.environ.get("OMP_NUM_THREADS"), "torch" in sys.modules


def torch_threads(_: int) -> int:
    import torch

    return torch.get_num_threads()


def unpicklable(_: int) -> object:
    return lambda: None


def process_id(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()

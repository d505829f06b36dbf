"""What every command line shares: options from a dataclass, errors in one line, exit codes.

Exit code 0: done. 2: wrong input, told in one message. 130: interrupted with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from bwe_env.errors import BweEnvError

C = TypeVar("C")

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def run_command(
    command: Callable[[C], int],
    config_type: type[C],
    *,
    module: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the options of `config_type`, run `command` on them, and return its exit code.

    Whatever the project raises on purpose ends as one message on standard error, without a
    traceback. Anything else is a bug and keeps its traceback.

    Args:
        module: as after ``python -m``; shown in ``--help``.
        argv: the arguments; those of the process by default.
    """
    import tyro

    try:
        config = tyro.cli(config_type, prog=f"python -m {module}", args=argv)
        return command(config)
    except BweEnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

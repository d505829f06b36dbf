"""Hold the code against recordings and measurements: ``python -m experiments.validate WHAT …``.

- `gcc`: event streams recorded from libwebrtc's controller, decision for decision
- `closed-loop`: the simulator set up as recorded closed loops
- `event-logs`: our controller on the packets and reports that real calls logged
- `calls`: the simulator beside recorded Chromium calls
- `networks`: synthetic networks beside measured ones
- `page`: the first four on one page, with pictures

Exit code 0: all agree. 1: something differs. 2: wrong input, told in one message.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bwe_env.errors import BweEnvError
from experiments.cli import EXIT_WRONG_INPUT
from experiments.recordings import positive_int
from experiments.validate_calls import NUM_SEEDS as NUM_CALL_SEEDS
from experiments.validate_calls import validate_calls
from experiments.validate_closed_loop import NUM_SEEDS as NUM_LOOP_SEEDS
from experiments.validate_closed_loop import validate_closed_loop
from experiments.validate_event_logs import validate_event_logs
from experiments.validate_gcc import validate_gcc
from experiments.validate_networks import validate_networks
from experiments.validate_page import validate_page

EXIT_DIFFERS = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="WHAT")

    gcc = commands.add_parser("gcc", help="Google Congestion Control against libwebrtc's own runs")
    gcc.add_argument("directories", nargs="+", type=Path, metavar="DIRECTORY")
    gcc.set_defaults(run=lambda options: validate_gcc(options.directories))

    loop = commands.add_parser("closed-loop", help="the simulator against recorded closed loops")
    loop.add_argument("directory", type=Path, metavar="DIRECTORY")
    loop.add_argument("--profile", nargs="+", default=(), metavar="NAME", help="only these")
    loop.add_argument(
        "--seeds",
        type=positive_int,
        default=NUM_LOOP_SEEDS,
        help="of each random profile",
    )
    loop.set_defaults(
        run=lambda options: validate_closed_loop(
            options.directory, names=options.profile, num_seeds=options.seeds
        )
    )

    logs = commands.add_parser("event-logs", help="our controller on event logs of real calls")
    logs.add_argument("directory", type=Path, metavar="DIRECTORY")
    logs.add_argument("--call", nargs="+", default=(), metavar="NAME", help="only these")
    logs.set_defaults(
        run=lambda options: validate_event_logs(options.directory, names=options.call)
    )

    calls = commands.add_parser("calls", help="the simulator beside recorded Chromium calls")
    calls.add_argument("directory", type=Path, metavar="DIRECTORY")
    calls.add_argument("--call", nargs="+", default=(), metavar="NAME", help="only these")
    calls.add_argument("--seeds", type=positive_int, default=NUM_CALL_SEEDS, help="of each call")
    calls.set_defaults(
        run=lambda options: validate_calls(
            options.directory, names=options.call, num_seeds=options.seeds
        )
    )

    networks = commands.add_parser("networks", help="synthetic networks beside measured ones")
    networks.add_argument("directory", type=Path, metavar="DIRECTORY")
    networks.set_defaults(run=lambda options: validate_networks(options.directory))

    page = commands.add_parser("page", help="gcc, closed-loop, event-logs and calls on one page")
    page.add_argument("directory", type=Path, metavar="DIRECTORY")
    page.add_argument("--out", type=Path, default=Path("docs/validation.md"), metavar="FILE")
    page.set_defaults(run=lambda options: validate_page(options.directory, options.out))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the comparison, and return the exit code."""
    options = _parser().parse_args(argv)
    try:
        misses = options.run(options)
    except BweEnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    return EXIT_DIFFERS if misses else 0


if __name__ == "__main__":
    sys.exit(main())

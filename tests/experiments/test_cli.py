from __future__ import annotations

from dataclasses import dataclass

import pytest

from bwe_env.errors import ConfigError
from experiments.cli import run_command


@dataclass(frozen=True, kw_only=True)
class Options:
    """Count things."""

    count: int = 1
    """how many"""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count={self.count} must be at least 1.")


def run(argv: list[str], command=lambda options: 0) -> int:
    return run_command(command, Options, module="experiments.example", argv=argv)


def test_the_options_reach_the_command_and_its_exit_code_comes_back() -> None:
    assert run(["--count", "3"], lambda options: options.count + 4) == 7


def test_help_is_generated_from_the_dataclass(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(["--help"])
    printed = capsys.readouterr().out
    assert exit_info.value.code == 0
    assert "python -m experiments.example" in printed
    assert "Count things." in printed
    assert "--count INT" in printed
    assert "how many (default: 1)" in printed


@pytest.mark.parametrize("argv", [["--count", "0"], ["--count", "x"], ["--counts", "1"]])
def test_wrong_options_end_with_code_2_and_a_message(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(argv)
    captured = capsys.readouterr()
    assert exit_info.value.code == 2
    assert "count" in captured.out + captured.err
    assert "Traceback" not in captured.out + captured.err


def test_an_error_on_purpose_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def command(options: Options) -> int:
        raise ConfigError("the answer is missing; give one.")

    assert run([], command) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: the answer is missing; give one.\n"
    assert captured.out == ""


def test_an_unexpected_error_keeps_its_traceback() -> None:
    def command(options: Options) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run([], command)


def test_ctrl_c_ends_with_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    def command(options: Options) -> int:
        raise KeyboardInterrupt

    assert run([], command) == 130
    assert "interrupted" in capsys.readouterr().err

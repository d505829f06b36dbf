from __future__ import annotations

import pytest

from experiments import benchmark


def test_the_benchmark_prints_core_and_plain_python_with_their_ratio(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "WARM_UP_S", 1.0)
    argv = ["--num-envs", "4", "--seconds", "0.05", "--threads", "1", "--no-compile-time"]
    assert benchmark.main(argv) == 0
    printed = capsys.readouterr().out
    for words in ("plain Python, 1 call", "compiled core, 4 calls, 1 thread", "single env step"):
        assert words in printed


def test_a_call_under_gcc_fills_most_of_its_constant_link() -> None:
    config = benchmark.BenchmarkConfig(num_envs=2, seconds=0.2)
    measured = benchmark.measure(config, num_envs=2, threads=1)
    # 2 Mbps in packets of at most 1,228 bytes are 20.4 a step; audio adds 5 small ones.
    assert 14 <= measured.packets_per_step <= 30
    assert measured.packets_per_s > 0
    assert measured.steps_per_s > 0


@pytest.mark.slow
def test_a_start_from_the_kernel_cache_is_faster_than_compiling() -> None:
    cold_s, cached_s = benchmark.compile_seconds()
    assert cached_s < 0.7 * cold_s

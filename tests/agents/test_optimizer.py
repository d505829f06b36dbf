from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from agents.optimizer import PlainAdam


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def train(model: torch.nn.Module, optimizer: object, batches: torch.Tensor) -> None:
    for batch in batches:
        optimizer.zero_grad()  # type: ignore[attr-defined]
        (model(batch) ** 2).mean().backward()
        optimizer.step()  # type: ignore[attr-defined]


def test_it_moves_the_weights_as_the_librarys_adam_does() -> None:
    batches = torch.randn(100, 16, 5, generator=torch.Generator().manual_seed(1))
    ours, theirs = network(), network()
    train(ours, PlainAdam(ours.parameters(), lr=3e-3, eps=1e-5), batches)
    train(theirs, torch.optim.Adam(theirs.parameters(), lr=3e-3, eps=1e-5), batches)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        # Equal bits on the machine this was written on; another BLAS may round otherwise.
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


def test_a_restored_optimizer_goes_on_as_if_never_stopped() -> None:
    batches = torch.randn(20, 16, 5, generator=torch.Generator().manual_seed(2))
    whole = network()
    train(whole, PlainAdam(whole.parameters(), lr=1e-2), batches)
    halves = network()
    first = PlainAdam(halves.parameters(), lr=1e-2)
    train(halves, first, batches[:10])
    second = PlainAdam(halves.parameters(), lr=123.0)
    second.load_state_dict(first.state_dict())
    train(halves, second, batches[10:])
    for mine, other in zip(halves.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_parameter_without_a_gradient_stays_where_it_is() -> None:
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = PlainAdam([used, unused], lr=0.1)
    used.sum().backward()
    optimizer.step()
    assert (used < 1).all()
    assert (unused == 1).all()


def test_a_closure_is_refused() -> None:
    with pytest.raises(TypeError, match="no closure"):
        PlainAdam([torch.nn.Parameter(torch.ones(1))]).step(lambda: 0.0)


def test_a_first_step_does_not_import_the_compiler_of_torch() -> None:
    script = (
        "import sys, torch\n"
        "from agents.optimizer import PlainAdam\n"
        "p = torch.nn.Parameter(torch.ones(3)); o = PlainAdam([p])\n"
        "p.sum().backward(); o.step(); o.zero_grad()\n"
        "print([m for m in ('torch._dynamo', 'sympy') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr

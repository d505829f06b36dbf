"""Adam without the import bill.

The first use of `torch.optim.Adam` imports torch._dynamo and sympy, 1.2-1.4 s of a start that takes
3 s in all. The update itself is a dozen lines. Same arithmetic as `torch.optim.Adam` without weight
decay and AMSGrad (a test compares the two).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch


class PlainAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba, ICLR 2015) over one group of dense float parameters.

    `torch.optim.Optimizer` is the base so that Stable-Baselines3 recognises an optimizer; nothing
    of it is used, since its constructor is what starts the imports.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
    ) -> None:
        self._parameters = list(params)
        self._first = [torch.zeros_like(p) for p in self._parameters]
        self._second = [torch.zeros_like(p) for p in self._parameters]
        self._step = 0
        self.defaults = {"lr": lr, "betas": betas, "eps": eps}
        self.param_groups = [{"params": self._parameters, **self.defaults}]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; parameters without a gradient keep their value and their moments."""
        if closure is not None:
            raise TypeError("PlainAdam takes no closure; compute the gradients before step().")
        live = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        if not live:
            return
        group = self.param_groups[0]
        beta1, beta2 = group["betas"]
        self._step += 1
        parameters = [self._parameters[i] for i in live]
        gradients = [p.grad for p in parameters]
        first = [self._first[i] for i in live]
        second = [self._second[i] for i in live]
        torch._foreach_lerp_(first, gradients, 1.0 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1.0 - beta2)
        scale = math.sqrt(1.0 - beta2**self._step)
        denominator = torch._foreach_sqrt(second)
        torch._foreach_div_(denominator, scale)
        torch._foreach_add_(denominator, group["eps"])
        torch._foreach_addcdiv_(
            parameters, first, denominator, -group["lr"] / (1.0 - beta1**self._step)
        )

    def state_dict(self) -> dict[str, Any]:
        """Moments, step count and the options of the group."""
        group = {key: value for key, value in self.param_groups[0].items() if key != "params"}
        return {"step": self._step, "first": self._first, "second": self._second, "group": group}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, own in (("first", self._first), ("second", self._second)):
            for tensor, saved in zip(own, state_dict[name], strict=True):
                tensor.copy_(saved)
        self._step = int(state_dict["step"])
        self.param_groups[0].update(state_dict["group"])

    def __repr__(self) -> str:
        """The options, without the parameters."""
        return f"PlainAdam({self.defaults})"

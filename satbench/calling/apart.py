"""Ask a model for gradients of only the pixels, whoever calls `backward` on its answer.

Packages call `loss.backward()`, which adds to the `.grad` of every weight that requires one.  Here
the graph behind the answer is the pixels' own, so that nothing reaches the weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from satbench.calling.model import Model


def apart(model: Model) -> Model:
    """Return `model` with the same answers and pixel gradients, that leaves no `.grad` behind."""

    def ask(x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return model(x)
        logits: Tensor = _Apart.apply(x, model)
        return logits

    return ask


class _Apart(torch.autograd.Function):
    """A model as one step of a graph, with a graph of its own inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Model) -> Tensor:
        with torch.enable_grad():
            ctx.leaf = x.detach().requires_grad_()
            ctx.logits = model(ctx.leaf)
        logits: Tensor = ctx.logits.detach()
        return logits

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # Kept, because the caller may go back a second time.
        (given,) = torch.autograd.grad(ctx.logits, ctx.leaf, grad, retain_graph=True)
        return given, None

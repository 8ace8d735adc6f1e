"""A model whose `backward` computes gradients of the pixels only.

Attack packages call `loss.backward()`, which adds to the `.grad` of every weight that requires one.
Here the answer has a graph of its own that ends at the pixels, so nothing reaches the weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from satbench.calling.model import Model


def pixels_only(model: Model) -> Model:
    """Return `model` with the same answers and pixel gradients, with no `.grad` of weights."""

    def ask(x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return model(x)
        logits: Tensor = _PixelGraph.apply(x, model)
        return logits

    return ask


class _PixelGraph(torch.autograd.Function):
    """A model as one operation of the caller's graph, with a graph of its own inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Model) -> Tensor:
        with torch.enable_grad():
            ctx.leaf = x.detach().requires_grad_()
            ctx.logits = model(ctx.leaf)
        logits: Tensor = ctx.logits.detach()
        return logits

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # The graph is kept, because the caller may call backward a second time.
        (pixels,) = torch.autograd.grad(ctx.logits, ctx.leaf, grad, retain_graph=True)
        return pixels, None

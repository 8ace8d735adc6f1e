"""Adversarial weight perturbation (Wu et al., 2020, arXiv:2004.05884)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

_TINY = 1e-12


@contextmanager
def perturbed_weights(
    network: nn.Module, size: float, grads: Callable[[], object]
) -> Iterator[None]:
    """Move the weights along the gradient of the loss for the block, by `size` per layer.

    `grads` computes the gradient of the batch into `.grad`.  The weights w of each convolution or
    linear layer become w + γ ‖w‖ g/‖g‖ (algorithm 1 and equation 10, one step); `size` is γ.  They
    are restored exactly, and so are the buffers that `grads` changes (statistics of batch-norm).
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    grads()
    weights = [p for p in network.parameters() if p.dim() > 1 and p.grad is not None]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            grad = weight.grad
            assert grad is not None  # noqa: S101 (for mypy: selected above)
            weight.add_(grad, alpha=float(size * weight.norm() / grad.norm().clamp_min(_TINY)))
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)

"""The gradient of global pooling, in the memory layout of its input.

The backward of torch's pooling returns a gradient with channels first.  If everything else is
channels last, the ReLU before it then reads two layouts at once.  On a CPU this is many times
slower, which is noticeable in the training step of a small network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def pools(network: nn.Module) -> list[nn.Module]:
    """Return the layers of a network that average each channel to one number."""
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
    ]


@contextmanager
def layout_kept(found: list[nn.Module]) -> Iterator[None]:
    """Make the pools `found` return gradients in the layout of the ReLU before, for the block.

    The gradient of ReLU is a copy or 0, so its bits are the same in any layout.  After other
    activations nothing changes: their rounding depends on the layout, and models must be
    reproducible to the bit.
    """
    hooks = [pool.register_forward_pre_hook(_watch) for pool in found]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _watch(pool: nn.Module, inputs: tuple[Any, ...]) -> None:
    x = inputs[0]
    if x.grad_fn is not None and x.grad_fn.name() == "ReluBackward0" and not x.is_contiguous():
        x.register_hook(_channels_last)


def _channels_last(grad: Tensor) -> Tensor:
    return grad.contiguous(memory_format=torch.channels_last)

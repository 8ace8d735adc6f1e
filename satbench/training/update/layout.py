"""The gradient of global pooling in the memory layout of what was pooled.

The backward of torch's pooling hands on a gradient whose channels come first.  Where all else is
channels-last, the ReLU in front of it then walks two layouts at once: on a processor many
times slower, which a small net's training step feels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def pools(network: nn.Module) -> list[nn.Module]:
    """Return the layers of a network that pool each channel to one number."""
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
    ]


@contextmanager
def layout_kept(found: list[nn.Module]) -> Iterator[None]:
    """Within, gradients come out of the pools `found` in the layout that the ReLU before needs.

    The gradient of ReLU is a copy or 0, the same bits in any layout.  Behind other activations
    nothing is changed: rounding depends on the layout there, and models are trained again to the
    bit.
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

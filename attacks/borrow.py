"""Borrow a model: use it in eval mode and hand it back exactly as it came."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """Yield `model` in eval mode with frozen parameters; restore everything when done.

    Restored: the mode of every submodule, `requires_grad` and `.grad` of every parameter, and every
    buffer, the same tensors with the same contents.
    """
    modes = {module: module.training for module in model.modules()}
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    holders = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    try:
        model.eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, wanted, grad in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = grad
        for held, before in holders:
            held.update(before)
        with torch.no_grad():
            for buffer, contents in buffers:
                if not torch.equal(buffer, contents):
                    buffer.copy_(contents)


def searching_copy(model: nn.Module) -> nn.Module:
    """Return a frozen copy of a borrowed `model` made for speed: batch-norm folded, channels last.

    Only searches use it: its rounding differs from the model's.  A model that cannot be copied is
    returned itself.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception:  # any error of a user's __deepcopy__, or of what it holds (locks, handles)
        return model
    for module in twin.modules():
        if type(module) is nn.Sequential:
            _fold_batch_norm(module)
    return twin.to(memory_format=torch.channels_last)


def _fold_batch_norm(chain: nn.Sequential) -> None:
    """Fold each batch-norm that directly follows a convolution into it, in place.

    Only within a plain Sequential is it certain that nothing happens between the two.
    """
    for number in range(len(chain) - 1):
        conv, norm = chain[number], chain[number + 1]
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
            if any((m._forward_hooks or m._forward_pre_hooks) for m in (conv, norm)):
                continue
            chain[number] = fuse_conv_bn_eval(conv, norm).requires_grad_(False)
            chain[number + 1] = nn.Identity()

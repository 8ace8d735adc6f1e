"""Borrow a model: use it in eval mode and hand it back exactly as it came."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from satbench.attacks.bpda import Replaced
from satbench.attacks.twin import speed_up


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


def searching_copy(
    model: nn.Module, replacements: Mapping[str, nn.Module] | None = None
) -> nn.Module:
    """Return a frozen copy of a borrowed `model` made for speed: batch-norm folded, channels last.

    Only searches use it: its rounding differs from the model's.  A model that cannot be copied is
    returned itself.  With `replacements` (layer to what gives it a backward, see
    `satbench.attacks.bpda`) nothing is rewritten, so that the named layers stay where they are.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception:  # any error of a user's __deepcopy__, or of what it holds (locks, handles)
        return Replaced(model, replacements) if replacements else model
    return Replaced(twin, replacements) if replacements else speed_up(twin, model)

"""Borrow a model: use it in eval mode and hand it back exactly as it came, whatever happens."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from satbench.attacks.bpda import Replaced
from satbench.attacks.twin import speed_up
from satbench.core.errors import SatbenchError


@contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """Yield `model` in eval mode with frozen parameters; restore everything when done.

    Restored, after any error and after Ctrl-C: the mode of every module; its parameters, buffers,
    submodules and hooks, the same objects; `requires_grad`, `.grad` and the memory of every
    parameter; the contents of every buffer; and the global generators of torch, NumPy and Python.
    What fails to be restored does not keep the rest from it.  Contents of parameters that the
    model itself writes into are its own matter.
    Raises SatbenchError where the model's `train()` raises as it is put in eval mode.
    """
    with ExitStack() as undo:  # it goes on with the others when one of its callbacks raises
        undo.enter_context(kept_generators())
        undo.enter_context(kept_state(model))
        for module in model.modules():
            undo.callback(setattr, module, "training", module.training)
        for parameter in model.parameters():
            if not is_lazy(parameter):
                keep = parameter.requires_grad, parameter.grad, parameter.detach()
                undo.callback(_restore_parameter, parameter, *keep)
        _put_in_eval_mode(model)
        for parameter in model.parameters():
            # One made under inference_mode could not be unfrozen again.
            if parameter.requires_grad and not parameter.is_inference():
                parameter.requires_grad_(False)
        yield model


@contextmanager
def kept_state(model: nn.Module) -> Iterator[None]:
    """Restore a model's buffers, contents and all, and its tables of what it holds, when done."""
    with ExitStack() as undo:
        for buffer in model.buffers():
            if not is_lazy(buffer):
                undo.callback(_restore_buffer, buffer, buffer.detach(), buffer.detach().clone())
        for module in model.modules():
            if isinstance(module, torch.jit.ScriptModule):  # what it holds is in no table
                for name, held in module.named_buffers(recurse=False):
                    undo.callback(_restore_attribute, module, name, held)
                continue
            for name, table in _tables(module).items():
                undo.callback(_restore_table, module, name, table, dict(table))
            undo.callback(_restore_set, module, set(module._non_persistent_buffers_set))
        yield


@contextmanager
def kept_generators() -> Iterator[None]:
    """Restore the global generators of torch, CUDA devices, NumPy and Python when done."""
    with ExitStack() as undo:
        undo.callback(torch.set_rng_state, torch.get_rng_state())
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            undo.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        undo.callback(np.random.set_state, np.random.get_state())
        undo.callback(random.setstate, random.getstate())
        yield


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


def _put_in_eval_mode(model: nn.Module) -> None:
    if not any(module.training for module in model.modules()):
        return
    try:
        model.eval()
    except Exception as error:  # whatever a user's train() raises
        if isinstance(model, fx.GraphModule) and isinstance(error, NotImplementedError):
            return  # an exported program, whose mode is part of it
        raise SatbenchError(
            f"expected model.eval() to put the model in eval mode, it raised "
            f"{type(error).__name__}: {error}; mend its train(), or put it in eval mode yourself"
        ) from error


def _tables(module: nn.Module) -> dict[str, dict[str, object]]:
    """Return what a module holds by name: parameters, buffers, submodules, hooks of every kind."""
    held = ("_parameters", "_buffers", "_modules")
    return {
        name: table
        for name, table in vars(module).items()
        if isinstance(table, dict) and (name in held or "_hooks" in name)
    }


def _restore_table(
    module: nn.Module, name: str, table: dict[str, object], before: dict[str, object]
) -> None:
    attributes = vars(module)
    attributes[name] = table
    if [*table] != [*before] or any(table[key] is not value for key, value in before.items()):
        table.clear()
        table.update(before)
    if "_hooks" not in name:
        for key in before.keys() & attributes.keys():  # deleted, and set to what is no tensor
            del attributes[key]


def _restore_set(module: nn.Module, before: set[str]) -> None:
    module._non_persistent_buffers_set = before


def _restore_attribute(module: nn.Module, name: str, held: Tensor) -> None:
    if getattr(module, name) is not held:
        setattr(module, name, held)


def _restore_parameter(
    parameter: nn.Parameter, requires_grad: bool, grad: Tensor | None, memory: Tensor
) -> None:
    if not _same_memory(parameter, memory):
        parameter.data = memory
    if not parameter.is_leaf:  # the model wrote into it while gradients were on
        parameter.detach_()
    if parameter.requires_grad != requires_grad:
        parameter.requires_grad_(requires_grad)
    if parameter.grad is not grad:
        parameter.grad = grad


def _restore_buffer(buffer: Tensor, memory: Tensor, contents: Tensor) -> None:
    with torch.inference_mode(buffer.is_inference()), torch.no_grad():
        if not buffer.is_leaf:
            buffer.detach_()
        if not _same_memory(buffer, memory):
            buffer.data = memory
        if _is_without_memory(buffer):
            buffer.data = contents
        elif not _equal(buffer, contents):
            buffer.copy_(contents)


def _same_memory(tensor: Tensor, memory: Tensor) -> bool:
    if tensor.layout != torch.strided or memory.layout != torch.strided:
        return tensor.layout == memory.layout
    return (
        tensor.data_ptr() == memory.data_ptr()
        and tensor.dtype == memory.dtype
        and tensor.shape == memory.shape
        and tensor.stride() == memory.stride()
    )


def _is_without_memory(tensor: Tensor) -> bool:
    """Whether a tensor's storage was taken away: to read it would end the process."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


def _equal(tensor: Tensor, other: Tensor) -> bool:
    try:
        return torch.equal(tensor, other)
    except Exception:  # a layout or a dtype without equality
        return False

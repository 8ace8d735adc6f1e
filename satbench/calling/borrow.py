"""Use a model in eval mode and restore it exactly afterwards, even after an error."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import is_

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from satbench.core.errors import SatbenchError

_TABLES = tuple(name for name, table in vars(nn.Module()).items() if isinstance(table, dict))
"""The attributes in which a module keeps its parameters, buffers, submodules and hooks."""

_TENSORS = ("_parameters", "_buffers", "_modules")
"""The tables whose entries are also attributes of the module."""


@contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """Yield `model` in eval mode with frozen parameters; restore everything when done.

    These are restored, also after an error or Ctrl-C: the mode of every module; the same
    parameters, buffers, submodules and hooks; `requires_grad`, `.grad` and the memory of every
    parameter; the contents of every buffer; and the global random generators of torch, NumPy and
    Python.  If one of them cannot be restored, the others still are.  If the model writes into its
    own parameters, those changes are kept.  Raises SatbenchError if the model's `train()` raises.
    """
    with ExitStack() as undo:  # when one callback raises, the others still run
        undo.callback(save_generators())
        keep_buffers(model, undo)
        for module in model.modules():
            undo.callback(_restore_module, module, module.training, _held_by(module))
        for parameter in model.parameters():
            if not is_lazy(parameter):
                keep = parameter.requires_grad, parameter.grad, parameter.detach()
                undo.callback(_restore_parameter, parameter, *keep)
        _put_in_eval_mode(model)
        for parameter in model.parameters():
            # A parameter made under inference_mode could not be unfrozen again.
            if parameter.requires_grad and not parameter.is_inference():
                parameter.requires_grad_(False)
        yield model


def keep_buffers(model: nn.Module, undo: ExitStack) -> None:
    """Make `undo` restore a model's buffers: the same tensors with the same contents."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if not is_lazy(buffer):
                undo.callback(_restore_buffer, buffer, buffer.detach(), buffer.detach().clone())
                undo.callback(_restore_attribute, module, name, buffer)


def save_generators() -> Callable[[], None]:
    """Return a function that restores the present state of the global random generators."""
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_cuda = torch.cuda.get_rng_state_all() if cuda else []
    of_torch, of_numpy, of_python = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def restore() -> None:
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        for number, state in enumerate(on_cuda):
            torch.cuda.set_rng_state(state, number)

    return restore


def _put_in_eval_mode(model: nn.Module) -> None:
    if not any(module.training for module in model.modules()):
        return
    try:
        model.eval()
    except Exception as error:  # anything that a user's train() raises
        if isinstance(model, fx.GraphModule) and isinstance(error, NotImplementedError):
            return  # an exported program has one fixed mode
        raise SatbenchError(
            f"expected model.eval() to put the model in eval mode, it raised "
            f"{type(error).__name__}: {error}; fix its train(), or put it in eval mode yourself"
        ) from error


@dataclass(frozen=True)
class _Held:
    """The tables of a module, each with a copy, and the names of its non-persistent buffers."""

    tables: dict[str, tuple[dict[str, object], dict[str, object]]]
    unsaved: set[str]


def _held_by(module: nn.Module) -> _Held:
    if isinstance(module, torch.jit.ScriptModule):  # it keeps nothing in these tables
        return _Held({}, set())
    held = vars(module)
    tables = {name: (held[name], dict(held[name])) for name in _TABLES if name in held}
    return _Held(tables, set(module._non_persistent_buffers_set))


def _restore_module(module: nn.Module, training: bool, held: _Held) -> None:
    attributes = vars(module)
    for name, (table, before) in held.tables.items():
        attributes[name] = table
        if not _are_same(table, before):
            table.clear()
            table.update(before)
    for name in _TENSORS:
        _, before = held.tables.get(name, ({}, {}))
        for key in before.keys() & attributes.keys():  # the model replaced it by a plain attribute
            del attributes[key]
    if held.tables:
        module._non_persistent_buffers_set = held.unsaved
    module.training = training


def _are_same(table: dict[str, object], before: dict[str, object]) -> bool:
    """Return whether two tables hold the same objects in the same order."""
    if not (table or before):
        return True
    same = len(table) == len(before) and all(map(is_, table.values(), before.values()))
    return same and [*table] == [*before]


def _restore_attribute(module: nn.Module, name: str, held: Tensor) -> None:
    if getattr(module, name, None) is not held:
        setattr(module, name, held)


def _restore_parameter(
    parameter: nn.Parameter, requires_grad: bool, grad: Tensor | None, memory: Tensor
) -> None:
    if not _same_memory(parameter, memory):
        parameter.data = memory
    if not parameter.is_leaf:  # the model wrote into it with gradients enabled
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
    """Return whether a tensor's storage was freed: reading it would crash the process."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


def _equal(tensor: Tensor, other: Tensor) -> bool:
    try:
        return torch.equal(tensor, other)
    except Exception:  # a layout or a dtype without equality
        return False

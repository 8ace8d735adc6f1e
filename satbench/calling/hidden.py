"""Modules that a model calls but has not registered as submodules.

A list, a dict, an object or a closure may hold layers.  `model.eval()`, `parameters()`, `to()` and
`state_dict()` do not reach these.  They stay in train mode and change while the model is evaluated.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from satbench.calling.eager import uncompiled
from satbench.core.errors import SatbenchError

_DEPTH = 5  # levels of containers, objects and closures to search in a module's attributes
_MOST = 20_000  # objects to look at
_OWN = frozenset(vars(nn.Module()))  # attributes of every module


class HiddenModuleError(SatbenchError):
    """A model's forward uses modules that `model.eval()` does not reach."""


@contextmanager
def watched(model: nn.Module) -> Iterator[Hidden]:
    """Watch a forward of `model` and list the unregistered modules with weights that it calls.

    Raises HiddenModuleError when one in train mode is called, before it computes anything.
    """
    hidden = Hidden(model)
    handle = register_module_forward_pre_hook(hidden.note)
    try:
        with hidden.direct_calls(), uncompiled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using `torch.compile")  # with hooks such as ours
            yield hidden
    finally:
        handle.remove()
    hidden.check()


@dataclass
class Hidden:
    """The modules that a forward called and that are not registered in `model`, by place."""

    model: nn.Module
    called: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = set(self.model.modules())
        self._inside: set[nn.Module] = set()  # those called, and their submodules
        self._places = {
            part: f"{place}.{name}" if name else place
            for place, module in hidden_modules(self.model)
            for name, part in module.named_modules()
        }

    def note(self, module: nn.Module, inputs: object = ()) -> None:
        """Note a call of a module."""
        if module in self._known or module in self._inside:
            return
        if getattr(module, "_is_replica", False):  # a copy made by DataParallel
            return
        place = self._places.get(module, "")
        parts = self._parts(module)
        if any(map(_has_weights, parts)) or (place and any(map(_asks_its_mode, parts))):
            self.called[place or _unplaced(module, self.called)] = module
            self._inside.update(parts)
            self.check()

    def check(self) -> None:
        """Raise HiddenModuleError if one of them is in train mode."""
        in_train_mode = {
            place: module
            for place, module in self.called.items()
            if any(part.training for part in self._parts(module))
        }
        if in_train_mode:
            places = list({**in_train_mode, **self._others()})
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            raise HiddenModuleError(
                f"expected every layer with weights to be a part of the model, got "
                f"{', '.join(places[:3])}{more}, which nn.Module does not know: eval(), to() and "
                "state_dict() miss them, so they run in train mode; keep them in "
                "nn.ModuleList or nn.ModuleDict, or as attributes of the model"
            )

    def _others(self) -> dict[str, nn.Module]:
        """Return the unregistered modules that were not called yet: they need the same fix."""
        return {
            place: module
            for module, place in self._places.items()
            if module not in self._known | self._inside and _has_weights(module)
        }

    def _parts(self, module: nn.Module) -> list[nn.Module]:
        return [part for part in module.modules() if part not in self._known]

    @contextmanager
    def direct_calls(self) -> Iterator[None]:
        """Note direct calls of `module.forward` as well, which no hook sees."""
        wrapped = []
        for part in self._places:
            if part in self._known or "forward" in vars(part) or not _is_plain(part):
                continue
            vars(part)["forward"] = functools.partial(self._forward, part, part.forward)
            wrapped.append(part)
        try:
            yield
        finally:
            for part in wrapped:
                vars(part).pop("forward", None)

    def _forward(self, module: nn.Module, own: Any, *args: Any, **kwargs: Any) -> Any:
        self.note(module)
        return own(*args, **kwargs)


def hidden_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules in a model's attributes that `model.modules()` misses, by place.

    Submodules of a yielded module are not yielded, and neither is a module that holds `model`
    itself.
    """
    for place, found in _hidden(model):
        if isinstance(found, nn.Module) and model not in set(found.modules()):
            yield place, found


def hidden_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters in a model's attributes that `parameters()` misses, by place.

    Parameters of hidden modules are not included.
    """
    known = {id(parameter) for parameter in model.parameters()}
    found = {place: one for place, one in _hidden(model) if isinstance(one, nn.Parameter)}
    return {place: one for place, one in found.items() if id(one) not in known}


def _hidden(model: nn.Module) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Yield the unregistered modules and parameters in a model's attributes, by place.

    Lists, tuples, sets, dicts, objects, partial and bound functions, and closures are searched, to
    a limited depth.  A place is written as code: `blocks[2]`, `heads['b']`.
    """
    seen: set[int] = {id(module) for module in model.modules()}
    for name, module in model.named_modules():
        start = f"{name}." if name else ""
        values = [
            (f"{start}{key}", value) for key, value in vars(module).items() if key not in _OWN
        ]
        code = inspect.getattr_static(type(module), "forward", None)
        if isinstance(code, FunctionType) and not type(module).__module__.startswith("torch."):
            values += [(f"{start}forward", code)]
        for place, value in values:
            yield from _search(place, value, seen, _DEPTH)


def _search(
    place: str, value: object, seen: set[int], depth: int
) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    if id(value) in seen or len(seen) > _MOST or isinstance(value, _LEAVES):
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        seen.update(id(part) for part in value.modules())
        yield place, value
    elif isinstance(value, nn.Parameter):
        yield place, value
    elif depth:
        for where, one in _within(place, value):
            yield from _search(where, one, seen, depth - 1)


_LEAVES = (str, bytes, int, float, complex, bool, type(None), type)


def _within(place: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"{place}[{key!r}]", one) for key, one in list(value.items()))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"{place}[{number}]", one) for number, one in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from _within(place, (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, MethodType):
        yield from ((place, one) for one in (value.__self__, value.__func__))
    elif isinstance(value, FunctionType):
        yield from _within_function(value)
    elif type(value).__module__.partition(".")[0] not in _FOREIGN:
        held = getattr(value, "__dict__", {})
        yield from ((f"{place}.{key}", one) for key, one in list(held.items()))


_FOREIGN = {"torch", "numpy", "builtins", "logging", "threading", "weakref", "collections"}


def _within_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
    yield from (("an argument's default", one) for one in function.__defaults__ or ())
    for name in code.co_names:
        if isinstance(held := function.__globals__.get(name), nn.Module):
            yield name, held


def _has_weights(module: nn.Module) -> bool:
    held = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return bool(held)


def _asks_its_mode(module: nn.Module) -> bool:
    """Return whether a module without weights may behave differently in train mode, as dropout."""
    forward = inspect.getattr_static(type(module), "forward", None)
    code = getattr(forward, "__code__", None)
    return code is not None and "training" in code.co_names


def _is_plain(module: nn.Module) -> bool:
    return isinstance(inspect.getattr_static(type(module), "forward", None), FunctionType)


def _unplaced(module: nn.Module, called: Mapping[str, nn.Module]) -> str:
    kind = type(module).__name__
    return f"a {kind}" if f"a {kind}" not in called else f"a {kind} ({len(called)})"

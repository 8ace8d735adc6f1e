"""Swap the activations of any model: a user's own, torchvision's or timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.networks.activations import PSSiLUModule, SmoothReLUModule
from satbench.networks.build import build_activation
from satbench.networks.probe import Probe

# Activations between layers.  Sigmoid, Hardsigmoid and Tanh are not included, because they are
# gates, as in squeeze-and-excitation.
_KINDS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.SiLU,
    nn.GELU, nn.Mish, nn.Softplus, nn.Hardswish, SmoothReLUModule, PSSiLUModule,
)  # fmt: skip
# Names of classes of timm.layers that are not torch's.
_TIMM = re.compile("(Hard|Quick)?(Swish|Mish|GELU|GELUTanh)(Me|Jit|JitMe)?")
_LOOKS_LIKE_ONE = re.compile("relu|elu|silu|swish|mish|softplus", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One place whose activation was swapped."""

    name: str
    """The name in `model.named_modules()`."""
    old: str
    new: str
    calls: int
    """The number of runs of the new module in one forward pass, under all its names."""


@dataclass(frozen=True)
class Swapped:
    """The result of a swap."""

    sites: tuple[Site, ...]
    left: tuple[str, ...] = ()
    """Activations that cannot be swapped, each with its place in the code."""


def swap_activation(
    model: nn.Module,
    activation: str,
    *,
    example: Tensor | None = None,
    also: tuple[type[nn.Module], ...] = (),
    keep: Collection[str] = (),
    unswappable: Literal["refuse", "leave"] = "refuse",
) -> Swapped:
    """Swap every activation module of `model`, in place, for `activation`, such as `silu`.

    ReLU and its variants, ELU, SiLU, GELU, Mish, Softplus, Hardswish, satbench's own activations
    and timm's are swapped.  Gates (sigmoid, tanh) are not.  `also` gives further classes to swap;
    `keep` names modules that are left unchanged with their submodules.  If several places share an
    instance, they share the new one, with its trained parameters.  An optimiser made before the
    swap does not have the new parameters.

    One forward pass in eval mode on the first of `example`, images (B, C, H, W), by default on
    zeros of a shape that the model accepts, finds activations that cannot be swapped: functions
    such as F.relu, modules without a name, and in-place modules whose result is not used.  These
    are refused; with `unswappable="leave"` the first two are left and reported.  Formulas such as
    `x.clamp(min=0)`, and code that this pass does not run, are not found.

    After an error nothing is swapped.  Raises SatbenchError.

    >>> import satbench
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> satbench.swap_activation(net, "silu").sites
    (Site(name='2', old='ReLU()', new='SiLU()', calls=1),)
    """
    if unswappable not in ("refuse", "leave"):
        raise SatbenchError(f"expected unswappable='refuse' or 'leave', got {unswappable!r}")
    make = build_activation(activation)
    kept = _kept(model, keep)
    named = _activations(model, also, kept)
    new = {old: _made(make, old, model) for _, old in named}
    _replace(model, new)
    try:
        probe = Probe(model, [*new.values(), *kept])
        probe.run(example)
        left = (*probe.functions, *_lookalikes(model, (*_KINDS, *also), kept))
        _expect_swappable(left if unswappable == "refuse" else ())
        _expect_some(named)
        unused = probe.unused([new[old] for old in new if getattr(old, "inplace", False)])
        _expect_used([name for name, old in named if new[old] in unused])
    except BaseException:
        _replace(model, {made: old for old, made in new.items()})
        raise
    return Swapped(
        tuple(Site(name, repr(o), repr(new[o]), probe.calls(new[o])) for name, o in named), left
    )


def _kept(model: nn.Module, keep: Collection[str]) -> set[nn.Module]:
    """Return the modules that `keep` names, with their submodules. Raises SatbenchError."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in keep:
        if name not in modules:
            raise UnknownNameError("module", name, modules)
    return {module for name in keep for module in modules[name].modules()}


def _activations(
    model: nn.Module, also: tuple[type[nn.Module], ...], kept: Collection[nn.Module]
) -> list[tuple[str, nn.Module]]:
    """Return the modules to swap, by each of their names.  Raises SatbenchError."""
    named = []
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, torch.jit.ScriptModule):
            raise SatbenchError(
                f"expected modules in Python, got TorchScript at {name or 'the model'}; "
                "swap before torch.jit.script"
            )
        if module in kept or not (isinstance(module, (*_KINDS, *also)) or _is_timms(module)):
            continue
        if not name:
            raise SatbenchError(f"expected a model with activations in it, got just {module}")
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            raise SatbenchError(
                f"the activation {name} has hooks, which would be lost; remove them before the swap"
            )
        named.append((name, module))
    return named


def _is_timms(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__module__.startswith("timm.") and bool(_TIMM.fullmatch(kind.__name__))


def _made(make: Callable[[], nn.Module], old: nn.Module, model: nn.Module) -> nn.Module:
    """Make the new module on the device of the old one's parameters, or the model's."""
    tensors = [*old.parameters(), *model.parameters(), *model.buffers(), torch.empty(0)]
    with tensors[0].device:
        return make().train(old.training)


def _replace(model: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child in new:
                module._modules[name] = new[child]


def _lookalikes(
    model: nn.Module, known: tuple[type[nn.Module], ...], kept: Collection[nn.Module]
) -> tuple[str, ...]:
    """Return leaves with the name of an activation whose class is not swapped."""
    return tuple(
        f"{name} ({type(module).__module__}.{type(module).__name__})"
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
        and _LOOKS_LIKE_ONE.search(type(module).__name__)
        and not (isinstance(module, known) or _is_timms(module) or module in kept)
    )


def _expect_swappable(shown: Collection[str]) -> None:
    if shown:
        first = "; ".join(list(shown)[:3])
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        raise SatbenchError(
            f"expected activations to be modules that can be swapped, found {first}{more}; for a "
            "function, make self.act = nn.ReLU() in __init__ and call it, for a class of your own "
            "pass also=(CLASS,), or pass unswappable='leave' to leave them"
        )


def _expect_some(named: list[tuple[str, nn.Module]]) -> None:
    if not named:
        raise SatbenchError(
            "expected a model with activation modules in it, got none; if it has ones of your own "
            "making, pass also=(CLASS,)"
        )


def _expect_used(unused: list[str]) -> None:
    if unused:
        raise SatbenchError(
            f"the forward pass runs {', '.join(unused[:4])} in place and takes no result, so a "
            "module that is not in place would do nothing there; write x = self.act(x)"
        )

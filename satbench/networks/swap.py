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

# Activations between layers.  Sigmoid, Hardsigmoid and Tanh are not among them: they gate, as in
# squeeze-and-excitation.
_KINDS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.SiLU,
    nn.GELU, nn.Mish, nn.Softplus, nn.Hardswish, SmoothReLUModule, PSSiLUModule,
)  # fmt: skip
# As classes of timm.layers are called that are not torch's.
_TIMM = re.compile("(Hard|Quick)?(Swish|Mish|GELU|GELUTanh)(Me|Jit|JitMe)?")
_LOOKS_LIKE_ONE = re.compile("relu|elu|silu|swish|mish|softplus", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One place whose activation was swapped."""

    name: str
    """As `model.named_modules()` has it."""
    old: str
    new: str
    calls: int
    """How often the new module ran in one forward pass, by all the names that share it."""


@dataclass(frozen=True)
class Swapped:
    """The result of a swap."""

    sites: tuple[Site, ...]
    left: tuple[str, ...] = ()
    """Activations that are no module to swap, each with its place in the code."""


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

    Swapped are ReLU and its kin, ELU, SiLU, GELU, Mish, Softplus, Hardswish, satbench's own and
    timm's.  Left are gates (sigmoid, tanh).  `also` gives further classes to swap, `keep` names
    of modules to leave, with all in them.  An instance that several places share becomes one
    that they share, so what a trainable activation learns is theirs together; an optimiser made
    before does not know of it.

    A forward pass in eval mode of the first of `example`, images (B, C, H, W), by default of
    zeros of a shape that the model takes, shows what a list of modules does not: activations
    called as functions, such as F.relu, ones that no name leads to, and ones in place whose
    result nobody takes.  These are refused; with `unswappable="leave"` the first two are left,
    and told of.  What is written out by hand, such as `x.clamp(min=0)`, and what lies on a path
    that this pass does not take is not seen.

    Either all of it is done or, with an error, nothing.  Raises SatbenchError.

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
    """Return the modules that `keep` names, and all in them.  Raises SatbenchError."""
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
    """Make the new module where the old one's parameters, or the model's, are."""
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
    """Tell of leaves that are called like activations and are of no class that is swapped."""
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

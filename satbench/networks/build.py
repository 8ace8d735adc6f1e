"""Build a network from the specs of its architecture and its activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from satbench.core.errors import SatbenchError
from satbench.core.limits import MOST_LAYERS, MOST_PARAMETERS, MOST_WIDTH
from satbench.core.specs import build, spec_of, split_spec
from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES

_USUAL = 2_000  # with numbers up to this, no architecture here is too large


def build_activation(spec: str) -> Callable[[], nn.Module]:
    """Read `parametric-softplus(alpha=10)`; return a factory of modules. Raises SatbenchError."""
    name, arguments = split_spec(spec)
    cls = cast(type[Callable[[], nn.Module]], ACTIVATIONS[name].load())
    return build(cls, name, arguments)


def build_network(architecture: str, activation: str, classes: int) -> nn.Module:
    """Build a freshly initialised network from two specs.

    Its initial weights come from torch's global generator, in an order that does not depend on
    the activation, so nets that differ only in the activation start equal.
    """
    make, part = make_architecture(architecture), build_activation(activation)
    _check_size(architecture, make, part, classes)
    return make(part, classes)


def _check_size(
    spec: str,
    make: Callable[[Callable[[], nn.Module], int], nn.Module],
    activation: Callable[[], nn.Module],
    classes: int,
) -> None:
    """Raise SatbenchError if a network with unusual numbers has more than `MOST_PARAMETERS`."""
    numbers = [value for value in (*vars(make).values(), classes) if isinstance(value, int)]
    if max(numbers) <= _USUAL:
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # shapes only, without memory
            count = sum(one.numel() for one in make(activation, classes).parameters())
    except (RuntimeError, OverflowError, TypeError):  # a size of more than 64 bits
        count = MOST_PARAMETERS + 1
    if count > MOST_PARAMETERS:
        raise SatbenchError(
            f"expected an architecture of at most {MOST_PARAMETERS:,} parameters, got {spec[:200]} "
            f"for {classes:,} classes"
        )


def make_architecture(spec: str) -> Callable[[Callable[[], nn.Module], int], nn.Module]:
    """Read `resnet(depth=50)`; return a factory of networks (activation, classes -> network)."""
    name, arguments = split_spec(spec)
    cls = cast(
        type[Callable[[Callable[[], nn.Module], int], nn.Module]], ARCHITECTURES[name].load()
    )
    made = build(cls, name, arguments)
    for key, value in vars(made).items():
        most = MOST_LAYERS if key in ("depth", "blocks") else MOST_WIDTH
        if isinstance(value, int) and value > most:
            raise SatbenchError(f"{name}: expected {key} of at most {most:,}, got {value}")
    return made


def canonical_activation(spec: str) -> str:
    """Return the canonical text of an activation: `gelu` -> `gelu(approximate=tanh)`."""
    return spec_of(split_spec(spec)[0], build_activation(spec))


def canonical_architecture(spec: str) -> str:
    """Return the canonical text of an architecture: `tiny` -> `tiny(width=8)`."""
    return spec_of(split_spec(spec)[0], make_architecture(spec))

"""Build a network from the specs of its architecture and its activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import nn

from satbench.core.specs import build, spec_of, split_spec
from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES


def build_activation(spec: str) -> Callable[[], nn.Module]:
    """Read `parametric-softplus(alpha=10)`: a maker of modules.  Raises SatbenchError."""
    name, arguments = split_spec(spec)
    cls = cast(type[Callable[[], nn.Module]], ACTIVATIONS[name].load())
    return build(cls, name, arguments)


def build_network(architecture: str, activation: str, classes: int) -> nn.Module:
    """Build a freshly initialised network from two specs.

    Its initial weights come from torch's global generator, in an order that does not depend on
    the activation, so nets that differ in the activation alone start equal.
    """
    return make_architecture(architecture)(build_activation(activation), classes)


def make_architecture(spec: str) -> Callable[[Callable[[], nn.Module], int], nn.Module]:
    """Read `resnet(depth=50)`: a maker of networks from an activation and the number of classes."""
    name, arguments = split_spec(spec)
    cls = cast(
        type[Callable[[Callable[[], nn.Module], int], nn.Module]], ARCHITECTURES[name].load()
    )
    return build(cls, name, arguments)


def canonical_activation(spec: str) -> str:
    """Return the canonical text of an activation: `gelu` -> `gelu(approximate=tanh)`."""
    return spec_of(split_spec(spec)[0], build_activation(spec))


def canonical_architecture(spec: str) -> str:
    """Return the canonical text of an architecture: `tiny` -> `tiny(width=8)`."""
    return spec_of(split_spec(spec)[0], make_architecture(spec))

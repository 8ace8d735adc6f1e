"""The activations: a formula, its parameters and its source each.

An entry is a frozen dataclass; calling it makes one module, so that every site of a network has
an instance of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from satbench.core.errors import SatbenchError


@dataclass(frozen=True)
class ReLU:
    """max(0, x)."""

    def __call__(self) -> nn.Module:
        return nn.ReLU()


@dataclass(frozen=True)
class SiLU:
    """x σ(x), also called Swish (Ramachandran et al., 2017, arXiv:1710.05941)."""

    def __call__(self) -> nn.Module:
        return nn.SiLU()


@dataclass(frozen=True)
class GELU:
    """x Φ(x) (Hendrycks & Gimpel, 2016, arXiv:1606.08415).

    The SAT paper prints x Φ(x); its code computes the tanh form, which is the default here.
    """

    approximate: Literal["tanh", "none"] = "tanh"

    def __call__(self) -> nn.Module:
        return nn.GELU(approximate=self.approximate)


@dataclass(frozen=True)
class ParametricSoftplus:
    """(1/α) log(1 + exp(αx)), α = 10 (Xie et al., 2020, arXiv:2006.14536, section 3.2)."""

    alpha: float = 10.0

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise SatbenchError(f"parametric-softplus: expected alpha above 0, got {self.alpha:g}")

    def __call__(self) -> nn.Module:
        # Above αx = 20 the value is x to float32 precision; torch then returns x itself.
        return nn.Softplus(beta=self.alpha, threshold=20)

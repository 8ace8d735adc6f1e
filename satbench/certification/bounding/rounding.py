"""Bounds on the errors of rounding, in the model's answers and in the bounds themselves.

A sum of n products in arithmetic of unit roundoff u is off by at most γ(n) = n u / (1 - n u) times
the sum of the absolute products, in whatever order and with or without fused operations (Higham,
2002, "Accuracy and stability of numerical algorithms", section 3.1).  So a program that computes y
= W x + b returns W x + b + e with |e| ≤ γ (|W| |x| + |b|).  Bounds treat e as one more unknown of
the network, so they are valid for every such program and for real arithmetic.  They are not valid
for convolutions by Winograd's algorithm or by Fourier transforms, which sum other numbers; torch
does not use these on a CPU, but cuDNN sometimes does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SPARE = 16
"""Roundings in addition to those of products and sums, such as those of batch-norm factors."""

ACTIVATION_UNITS = 16
"""The error of a computed activation in unit roundoffs, relative to its scale (1 + |x|)."""


@dataclass(frozen=True)
class Roundoff:
    """`unit` is the roundoff of the model's answers, `own` that of the bounds' arithmetic."""

    unit: float
    own: float = 2.0**-53

    @classmethod
    def of(cls, dtype: torch.dtype) -> Roundoff:
        """Return the rounding of a model of this type, float32 or float64."""
        return cls(torch.finfo(dtype).eps / 2)

    def answers(self, terms: int) -> float:
        """Return the relative error of a sum of `terms` products in the model."""
        return _gamma(terms + SPARE, self.unit) if terms else 0.0

    def here(self, terms: int) -> float:
        """Return the relative error of a sum of `terms` products in the bounds' arithmetic."""
        return _gamma(terms, self.own)

    @property
    def activations(self) -> float:
        """The error of an activation, relative to `ActivationShape.scale` (1 + |x|)."""
        return ACTIVATION_UNITS * self.unit


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit)

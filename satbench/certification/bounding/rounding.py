"""What rounding may do: to the answers of the model, and to the bounds themselves.

A sum of n products in arithmetic of unit roundoff u is off by at most γ(n) = n u / (1 - n u) times
the sum of the absolute products, in whatever order and with or without fused operations (Higham,
2002, "Accuracy and stability of numerical algorithms", section 3.1).  So a program that computes
y = W x + b returns W x + b + e with |e| ≤ γ (|W| |x| + |b|), which bounds take for one more
unknown of the network: what they say holds for every such program, and for real arithmetic.  It
does not hold for convolutions by Winograd's algorithm or by Fourier transforms, whose sums are of
other numbers; torch's on a CPU are not of that kind, some of cuDNN's are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SPARE = 16
"""Roundings beyond those of the products and sums: of the factors of a batch-norm, for one."""

ACTIVATION_UNITS = 16
"""How many unit roundoffs a computed activation may be off, relative to its scale (1 + |x|)."""


@dataclass(frozen=True)
class Roundoff:
    """`unit` is the roundoff of the model's answers, `own` that of what is computed here."""

    unit: float
    own: float = 2.0**-53

    @classmethod
    def of(cls, dtype: torch.dtype) -> Roundoff:
        """Return the rounding of a model of this type, float32 or float64."""
        return cls(torch.finfo(dtype).eps / 2)

    def answers(self, terms: int) -> float:
        """Return how far a sum of so many products of the model's may be off, relatively."""
        return _gamma(terms + SPARE, self.unit) if terms else 0.0

    def here(self, terms: int) -> float:
        """Return how far a sum of so many products computed here may be off, relatively."""
        return _gamma(terms, self.own)

    @property
    def activations(self) -> float:
        """How far an activation may be off, relative to `ActivationShape.scale` (1 + |x|)."""
        return ACTIVATION_UNITS * self.unit


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit)

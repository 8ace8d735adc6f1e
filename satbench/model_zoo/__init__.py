"""The zoo: activations, architectures, cards, weights, and loaders for other people's models.

A new activation or architecture is one dataclass and one registry line; a new zoo entry is one
card in `cards/` and its weights in `weights/`.
"""

from __future__ import annotations

from satbench.model_zoo._registry import ACTIVATIONS, ARCHITECTURES

__all__ = ["ACTIVATIONS", "ARCHITECTURES"]

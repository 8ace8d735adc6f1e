"""Networks: activations, architectures, and swaps of activations.

A new activation or architecture is one dataclass and one registry line.
"""

from __future__ import annotations

from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES

__all__ = ["ACTIVATIONS", "ARCHITECTURES"]

"""The type of a model."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Model = Callable[[Tensor], Tensor]
"""A classifier in pixel space: (B, C, H, W) float32 in [0, 1] -> (B, K) logits."""

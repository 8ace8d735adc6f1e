"""A warm-up that makes some activations faster on the CPU."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional as F


@cache
def warm_cpu() -> None:
    """Compute the tanh form of GELU once in this process.

    On a processor with AVX-512, torch's expm1 and log1p are several times slower before that, and
    with them ELU, CELU, softplus and SmoothReLU (measured by `benchmarks/warm.py` with torch 2.14).
    No bit of any result changes.
    """
    F.gelu(torch.zeros(1024), approximate="tanh")

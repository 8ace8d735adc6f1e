"""What a process computes once on the CPU, so that what follows is quicker."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional as F


@cache
def warm_cpu() -> None:
    """Compute the tanh form of GELU once in this process.

    On a processor with AVX-512, torch's expm1 and log1p, and with them ELU, CELU, softplus and
    SmoothReLU, take several times as long until then (`benchmarks/warm.py` measures it; seen with
    torch 2.14).  No bit of any result changes.
    """
    F.gelu(torch.zeros(1024), approximate="tanh")

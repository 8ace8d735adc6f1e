"""Torch's global generators: lent to a model that draws from them, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_generators(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's global generators with `seed` for a while; the caller's come back as they were.

    So a randomised model draws the same each time, and the caller's own draws do not move.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield

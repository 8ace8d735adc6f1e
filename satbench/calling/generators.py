"""What is global and a run needs in a known state: generators, and torch's defaults."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from satbench.calling.defaults import plain_defaults
from satbench.calling.eager import uncompiled
from satbench.core.limits import check_seed


@contextmanager
def own_generators(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global generators with `seed` for a while; the caller's come back as they were.

    So a randomised model draws the same each time, and the caller's own draws do not move.  They
    are those of torch, NumPy and Python; torch's default dtype and device are plain meanwhile
    (`satbench.calling.defaults`), and compiled models run as they are written.
    Raises SatbenchError for a seed of more than 64 bits.
    """
    check_seed(seed)
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        cards = [device] if device.type == "cuda" else []
        with plain_defaults(), uncompiled(), torch.random.fork_rng(devices=cards):
            seed_generators(seed)
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def seed_generators(seed: int) -> None:
    """Seed the global generators; within `own_generators`, which puts the caller's back."""
    torch.default_generator.manual_seed(seed)
    # Without a GPU, torch.manual_seed would keep this call, and its traceback, each time.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)

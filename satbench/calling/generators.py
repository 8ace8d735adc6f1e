"""Global random generators and torch defaults, set to a known state for a run."""

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
    """Seed the global random generators with `seed` within the block, and restore the caller's.

    So a randomised model draws the same numbers each time, and the caller's own draws do not
    change. The generators are those of torch, NumPy and Python.  Within the block, torch's default
    dtype and device are float32 and the CPU (`satbench.calling.defaults`), and compiled models run
    uncompiled. Raises SatbenchError for a seed of more than 64 bits.
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
    """Seed the global generators; call it inside `own_generators`, which restores the caller's."""
    torch.default_generator.manual_seed(seed)
    # Without a GPU, torch.manual_seed queues this call, with its traceback, each time.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)

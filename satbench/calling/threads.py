"""The number of threads that torch uses, for a block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MOST = 256

_NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_chosen: list[int] = []
"""The numbers of the `with_threads` blocks that are open."""


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Compute with this number of threads in the block, then with the old number.

    Small networks are slower with more than one, and the last bits of a sum depend on their number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(count, _MOST))
    _chosen.append(count)
    try:
        yield
    finally:
        _chosen.pop()
        torch.set_num_threads(before)


def are_chosen() -> bool:
    """Return whether somebody chose the number of threads.

    `--threads`, OMP_NUM_THREADS, MKL_NUM_THREADS, `with_threads`, and `torch.set_num_threads` to
    anything but the number of cores are choices.
    """
    if _chosen or any(os.environ.get(name) for name in _NAMES):
        return True
    return torch.get_num_threads() != _cores()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""The number of threads that torch uses, for a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MOST = 256


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Compute with this number of threads in the block, then with the old number.

    Small networks are slower with more than one, and the last bits of a sum depend on their number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(count, _MOST))
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""The default number of threads: one for small networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from satbench.calling.threads import are_chosen, with_threads
from satbench.engine.machine.flops import PassFlops

SMALL = 50_000_000
"""FLOPs of a forward of one image.  Below, a second thread takes much time and saves little."""


@contextmanager
def one_thread_if_small(device: torch.device, *flops: PassFlops | None) -> Iterator[None]:
    """Compute with one thread in the block if all networks are small and nobody chose a number.

    `flops` are those of each network; None means unknown.  On a GPU nothing is changed.
    """
    small = all(one is not None and one.forward < SMALL for one in flops)
    if device.type != "cpu" or not small or are_chosen():
        yield
        return
    with with_threads(1):
        yield

"""Several processes at one run (`torchrun`): who is who, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.devices import choose_device
from satbench.core.errors import SatbenchError


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of the run."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, and speaks to the user."""
        return self.rank == 0

    def share(self, batch: int, parts: int = 1) -> NDArray[np.int64]:
        """Return which rows of a batch are computed here, part after part.

        Each of its parts is shared evenly, so that a part holds the same images however many
        processes there are.  Raises SatbenchError for a batch that does not split evenly.
        """
        if batch % (self.world * parts):
            raise SatbenchError(
                f"expected a batch_size that {self.world} processes times {parts} parts divide, "
                f"got {batch}"
            )
        return np.arange(batch).reshape(parts, self.world, -1)[:, self.rank].ravel()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def agree_on_buffers(self, network: nn.Module) -> None:
        """Give all processes the mean of their running statistics.

        So each has the network that is saved, and a stopped run goes on alike.
        """
        if self.world == 1:
            return
        moving = [b for b in network.buffers() if b.is_floating_point()]
        if moving:
            flat = self.total(torch.cat([buffer.flatten() for buffer in moving])) / self.world
            sizes = [buffer.numel() for buffer in moving]
            with torch.no_grad():
                for buffer, mean in zip(moving, torch.split(flat, sizes), strict=True):
                    buffer.copy_(mean.view_as(buffer))


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that `torchrun` started, if it did; yield the place here and the device.

    They speak through NCCL on GPUs, one each, and through gloo on the CPU.  Raises SatbenchError
    for a device that is not there.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE, choose_device(device)
        return
    rank, world, local = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = choose_device(f"cuda:{local}")
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world), chosen
    finally:
        dist.destroy_process_group()


def bare(network: nn.Module) -> nn.Module:
    """Return the network itself where torch.compile has wrapped it."""
    inside = getattr(network, "_orig_mod", network)
    return inside if isinstance(inside, nn.Module) else network

"""The processes of a distributed run (`torchrun`): their ranks, and their communication."""

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
    """The rank of this process in the run."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, batch: int, parts: int = 1) -> NDArray[np.int64]:
        """Return the rows of a batch that this process computes, part by part.

        Each part is divided evenly, so that a part has the same images for any number of processes.
        Raises SatbenchError for a batch that cannot be divided evenly.
        """
        if batch % (self.world * parts):
            raise SatbenchError(
                f"expected a batch_size that is a multiple of {self.world} processes × {parts} "
                f"parts, got {batch}"
            )
        return np.arange(batch).reshape(parts, self.world, -1)[:, self.rank].ravel()

    def wait(self) -> None:
        """Wait until all processes reach this point."""
        if self.world > 1:
            dist.barrier()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def agree_on_buffers(self, network: nn.Module) -> None:
        """Set the running statistics of all processes to their mean.

        Then each process has the network that is saved, and a resumed run is the same.
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
    """Join the processes that `torchrun` started, if any; yield the rank and the device.

    They communicate through NCCL on GPUs (one each), and through gloo on the CPU.  Raises
    SatbenchError for a device that does not exist.
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
    """Return the network without the wrapper of torch.compile."""
    inside = getattr(network, "_orig_mod", network)
    return inside if isinstance(inside, nn.Module) else network

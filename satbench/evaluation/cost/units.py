"""How many images a unit of work has, so that a stop loses little of a stage that takes long."""

from __future__ import annotations

import torch

from satbench.core.progress.course import StageCost
from satbench.evaluation.cost.rate import PassFlops

CPU = torch.device("cpu")

UNIT = {"cpu": 1e13, "cuda": 1e15}
"""The FLOPs of a unit, about: some minutes of a CPU's core, or of a GPU.

A unit is cut by FLOPs and not by time, so that every process and machine cuts alike.
"""

LEAST = {"cpu": 16, "cuda": 64}
"""Images of a unit at least: with fewer a device does less a second."""


def images_a_unit(
    cost: StageCost, flops: PassFlops | None, device: torch.device, batch_size: int
) -> int:
    """Return how many images a stage takes on at once, `batch_size` at most.

    `cost` is that of an image that holds out, `flops` are those of a pass; where one of them is not
    known, it is `batch_size`.

    >>> images_a_unit(StageCost(100), PassFlops(10**9, 2 * 10**9), CPU, 250)
    66
    """
    if flops is None or not cost.passes:
        return batch_size
    of_an_image = cost.passes * (flops.forward + flops.backward) / 2
    fit = int(UNIT.get(device.type, UNIT["cuda"]) / max(of_an_image, 1.0))
    least = LEAST.get(device.type, LEAST["cuda"])
    return min(batch_size, max(least, fit))

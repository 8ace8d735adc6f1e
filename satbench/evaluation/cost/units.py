"""The number of images in a unit of work, so that a stop loses little of a long stage."""

from __future__ import annotations

import torch

from satbench.core.progress.course import StageCost
from satbench.engine.machine.flops import PassFlops

CPU = torch.device("cpu")

UNIT = {"cpu": 1e13, "cuda": 1e15}
"""The approximate FLOPs of a unit: a few minutes of a CPU core, or of a GPU.

Units are cut by FLOPs and not by time, so that every process and machine cuts them alike.
"""

LEAST = {"cpu": 16, "cuda": 64}
"""Least images of a unit: with fewer a device is less efficient."""


def images_a_unit(
    cost: StageCost, flops: PassFlops | None, device: torch.device, batch_size: int
) -> int:
    """Return how many images a unit of a stage has, at most `batch_size`.

    `cost` is that of an image that survives, `flops` are those of a pass; if either is unknown, the
    result is `batch_size`.

    >>> images_a_unit(StageCost(100), PassFlops(10**9, 2 * 10**9), CPU, 250)
    66
    """
    if flops is None or not cost.passes:
        return batch_size
    of_an_image = cost.passes * (flops.forward + flops.backward) / 2
    fit = int(UNIT.get(device.type, UNIT["cuda"]) / max(of_an_image, 1.0))
    least = LEAST.get(device.type, LEAST["cuda"])
    return min(batch_size, max(least, fit))

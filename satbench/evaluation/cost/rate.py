"""The seconds of a pass, measured on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from satbench.engine.searched import Searched

_SECONDS = 0.3  # time to measure each of two kinds of passes
_FEW = 4  # images that are timed first; a large network needs no more


@dataclass(frozen=True)
class PassSeconds:
    """The seconds of one image here: for a forward, and for a forward with its input gradient."""

    forward: float
    both: float

    def of(self, forwards: float, backwards: float) -> float:
        """Return the seconds of these passes, each backward with its forward."""
        return self.both * backwards + self.forward * max(0.0, forwards - backwards)


def pass_seconds(model: nn.Module, x: Tensor) -> PassSeconds:
    """Time passes of the images `x`, (B, C, H, W), on their device, as a search makes them.

    `model` is in eval mode, with frozen parameters.  The check of the fast copy is not timed.
    """
    searched = Searched(model)
    searched.get_ready()

    def forward(images: Tensor) -> None:
        with torch.no_grad():
            searched(images)

    def both(images: Tensor) -> None:
        leaf = images.clone().requires_grad_()
        with torch.enable_grad():
            torch.autograd.grad(searched(leaf).sum(), leaf)

    few = x[:_FEW]
    for call in (forward, both):
        for _ in range(2):
            call(few)
    slow = _least(lambda: both(few), x.device) > _SECONDS / 2
    images = few if slow else x
    return PassSeconds(
        _least(lambda: forward(images), x.device) / len(images),
        _least(lambda: both(images), x.device) / len(images),
    )


def _least(call: Callable[[], None], device: torch.device) -> float:
    """Return the shortest time of a call, among those that fit into `_SECONDS`.

    On a CPU it is the process's own CPU time if that is less, so that other jobs do not count.
    """
    call()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not times or time.perf_counter() < end:
        start, spent = time.perf_counter(), time.process_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        else:
            taken = time.perf_counter() - start
            own = (time.process_time() - spent) / max(1, torch.get_num_threads())
            times.append(min(taken, own) if torch.get_num_threads() == 1 else taken)
    return min(times)

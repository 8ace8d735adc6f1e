"""A good batch size: measured on the model and the device, and remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from satbench.calling.shortage import catch_out_of_memory
from satbench.core.downloads import cache_folder
from satbench.core.progress.words import duration
from satbench.engine.machine.remembered import key_of, remembered
from satbench.engine.searched import Searched

_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
_GAIN = 1.05  # least speed-up at which a larger batch is worth its memory
_PATIENCE = 3.0  # if a step takes more seconds than this, no larger batch is tried


@dataclass(frozen=True)
class GoodBatch:
    """A batch size, and its origin: `remembered` in a file, or just measured."""

    size: int
    seconds: float
    remembered: bool
    path: Path

    def __str__(self) -> str:
        if self.remembered:
            return f"batch size {self.size}, as measured before ({self.path})"
        return f"batch size {self.size}, measured in {duration(self.seconds)}: {self.path}"


def best_batch_size(
    model: nn.Module, x: Tensor, name: str, checkpointing: bool = False, path: Path | None = None
) -> GoodBatch:
    """Return the batch size with which a search is fastest on the device of `x`.

    `model` is in eval mode, with frozen parameters; `x`, (N, C, H, W), are images to measure with,
    repeated if there are too few.  `name` identifies the network.  The result is stored in `path`,
    by default `batch_sizes.json` in the cache, by network, image shape, device and threads.
    """
    path = path or cache_folder() / "batch_sizes.json"
    key = key_of(name, x.shape[1:], x.device) + (" checkpointing" if checkpointing else "")
    begun = time.perf_counter()
    size, known = remembered(
        path,
        key,
        1,
        lambda: best_of(_measured(Searched(model, checkpointing=checkpointing), x)),
    )
    return GoodBatch(size, time.perf_counter() - begun, known, path)


def best_of(measured: Iterator[tuple[int, float]]) -> int:
    """Return the smallest batch size that is about as fast as larger ones; pairs of size, seconds.

    >>> best_of(iter([(8, 1.0), (16, 1.1), (32, 2.2), (64, 4.4)]))
    16
    """
    best, rate = 1, 0.0
    worse = 0
    for size, seconds in measured:
        now = size / max(seconds, 1e-9)
        if now > _GAIN * rate:
            best, rate, worse = size, now, 0
        else:
            worse += 1
        if worse == 2 or seconds > _PATIENCE:
            break
    return best


def _measured(searched: Searched, x: Tensor) -> Iterator[tuple[int, float]]:
    """Yield batch sizes with the seconds of a gradient step, as long as they fit into memory."""
    for size in _SIZES:
        images = x.repeat(-(-size // len(x)), 1, 1, 1)[:size]
        messages: list[str] = []
        seconds = 0.0
        with catch_out_of_memory(messages):
            seconds = _least(lambda: _step(searched, images), x.device)  # noqa: B023 - called now
        if messages:
            return
        yield size, seconds


def _step(searched: Searched, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        torch.autograd.grad(searched(leaf).sum(), leaf)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _least(call: Callable[[], None], device: torch.device) -> float:
    """Return the shortest time of a few calls, after one to warm up."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
        if times[-1] > _PATIENCE:
            break
    return min(times[1:] or times)

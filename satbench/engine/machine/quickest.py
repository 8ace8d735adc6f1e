"""The form of a model that a search uses: the fastest one, as measured on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from satbench.core.downloads import cache_folder
from satbench.core.heap import release_freed_memory
from satbench.engine.machine.remembered import key_of, remembered
from satbench.engine.machine.ways import FORMS, Form
from satbench.engine.searched import Searched

FEW, TIMES = 4, 3
"""The number of images and of repetitions for timing; the first repetition does not count."""

GAIN = 1.1
"""The least speed-up of another form over the usual one, because clocks are not exact."""

MEASURING = 2 * FEW * TIMES * len(FORMS)
"""The passes that a measurement costs."""

HEAVY, MANY = 10**8, 50 * MEASURING
"""The least FLOPs of a forward and passes of a run for which a measurement is worth its cost.

For smaller networks the usual form was the fastest in all measurements (docs/benchmarks.md), and
one gradient takes less time than the resolution of the clock.
"""


def quickest_form(
    model: nn.Module,
    x: Tensor,
    name: str,
    path: Path | None = None,
    clock: Callable[[Searched, Tensor], float] | None = None,
) -> Form:
    """Return the form of a model with which a search on images like `x` is fastest here.

    `model` is in eval mode, with frozen parameters; `x`, (N, C, H, W), are images on its device,
    and `name` identifies the network.  The measurement is stored in `path`, by default `forms.json`
    in the cache.
    """
    path = path or cache_folder() / "forms.json"
    timed = clock or seconds_of_a_step

    def measure() -> int:
        return best_of([timed(Searched(model, forms=(form,)), x[:FEW]) for form in FORMS])

    found, _ = remembered(path, key_of(name, x.shape[1:], x.device), 0, measure)
    release_freed_memory()
    return FORMS[found] if found < len(FORMS) else FORMS[0]


def best_of(seconds: Sequence[float]) -> int:
    """Return the place of the least, or 0 where the first takes little longer.

    >>> best_of([1.0, 1.2, 0.95]), best_of([1.0, 0.8, 0.7])
    (0, 2)
    """
    least = min(range(len(seconds)), key=lambda place: seconds[place])
    return least if seconds[least] * GAIN < seconds[0] else 0


def seconds_of_a_step(searched: Searched, x: Tensor) -> float:
    """Return the least seconds of a forward and its input gradient; infinity where it fails."""
    try:
        return min([_step(searched, x) for _ in range(TIMES)][1:])
    except Exception:  # a copy that is another function, or needs too much memory
        return math.inf


def _step(searched: Searched, x: Tensor) -> float:
    """Make a step; on a CPU only this process's time counts, not that of other programs."""
    leaf = x.clone().requires_grad_()
    cuda, clock = x.is_cuda, time.perf_counter if x.is_cuda else time.process_time
    if cuda:
        torch.cuda.synchronize(x.device)
    begun = clock()
    with torch.enable_grad():
        torch.autograd.grad(searched(leaf).sum(), leaf)
    if cuda:
        torch.cuda.synchronize(x.device)
    return clock() - begun

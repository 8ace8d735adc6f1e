"""Which form of a model a search asks: the quickest, as measured on the machine."""

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
"""How many images the model is timed with, and how often; the first time does not count."""

GAIN = 1.1
"""How many times as quick as the usual form another must be: clocks are not exact."""

MEASURING = 2 * FEW * TIMES * len(FORMS)
"""The passes that measuring costs."""

HEAVY, MANY = 10**8, 50 * MEASURING
"""From which FLOPs of a forward and which passes of a run on it is worth that.

Of lighter networks the usual form was the quickest of all that were tried (docs/benchmarks.md), and
one gradient takes less time than the clock is exact to.
"""


def quickest_form(
    model: nn.Module,
    x: Tensor,
    name: str,
    path: Path | None = None,
    clock: Callable[[Searched, Tensor], float] | None = None,
) -> Form:
    """Return the form of a model with which a search on images such as `x` is quickest here.

    `model` is in eval mode, with frozen parameters; `x`, (N, C, H, W), are images on its device,
    and `name` says what network it is.  What was measured is kept in `path`, by default
    `forms.json` in the cache.
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
    except Exception:  # a copy that is another function, or has no room
        return math.inf


def _step(searched: Searched, x: Tensor) -> float:
    """Take a step; on a processor its own time counts, not that of other programs."""
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

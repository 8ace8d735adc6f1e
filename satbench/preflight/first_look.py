"""The first look at a model: its answers to a few images, each unchanged and with noise.

Preflight uses it to check that an answer depends only on its image and that there is a gradient.
It also identifies a model that is the user's own code (`satbench.evaluation.own_code`).  Both share
its passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.generators import seed_generators
from satbench.calling.logits import ask
from satbench.calling.shortage import is_out_of_memory
from satbench.core.noise import generator_for
from satbench.data import Dataset
from satbench.engine.judge import in_full_precision
from satbench.preflight.independence import GROUP
from satbench.records.answers import LOGITS, PROBES

LEAST, MOST, SHARE = 4, 16, 0.4
"""The images that are used: this share of them, at least and at most these numbers."""

MOVED = 0.1
"""The size of the noise.

Code that detects attacks may answer correctly until an image is changed.
"""


@dataclass(frozen=True)
class FirstLook:
    """A model's answers to the images `x`, (2N, C, H, W): each of N unchanged, then with noise.

    `logits`, (2N, K), are computed without gradients, as for the judge; `searched`, (2N, K), with
    gradients.  `gradient`, (2N, C, H, W), is that of a fixed projection of the logits, as for a
    search; it is 0 if there is none, and then `error` says why.  `untouched` says that the model
    did not change the images.
    """

    x: Tensor
    logits: Tensor
    searched: Tensor
    gradient: Tensor
    error: Exception | None
    untouched: bool


def looked_at(n: int) -> int:
    """Return how many of `n` images are looked at.

    >>> looked_at(3), looked_at(20), looked_at(40), looked_at(1000)
    (3, 8, 16, 16)
    """
    return min(n, max(LEAST, min(MOST, int(SHARE * n))))


def as_they_are_and_moved(dataset: Dataset) -> NDArray[np.float32]:
    """Return the first images, each followed by itself with noise. -> (2N, C, H, W)."""
    pixels = dataset.pixels(np.arange(looked_at(len(dataset))))
    draws = generator_for("answers", "moved").random(pixels.shape)
    moved = np.clip(pixels + MOVED * (2 * draws - 1), 0, 1).astype(np.float32)
    return np.stack([pixels, moved], 1).reshape(-1, *pixels.shape[1:])


def directions(length: int, purpose: str) -> NDArray[np.float64]:
    """Return directions of ±1 that are the same on all machines.  -> (length, PROBES)."""
    draws = generator_for(purpose, length).random((length, PROBES))
    return np.where(draws < 0.5, -1.0, 1.0)


def first_look(
    model: nn.Module, x: Tensor, at_once: int = 2 * MOST, known: Tensor | None = None
) -> FirstLook:
    """Call `model`, in eval mode with frozen parameters, on `x`, at most `at_once` images at once.

    `x` is from `as_they_are_and_moved`.  `known` (N, K) are logits of the unchanged images, if they
    are known.  A randomised model draws from generators that are seeded here, and for such a model
    `known` is not used, because those answers came from other draws.  Raises ModelError.
    """
    settled = torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False)
    with in_full_precision(), settled:
        seed_generators(0)
        if known is None:
            logits = _answers(model, x, at_once)
        else:
            moved = _answers(model, x[1::2], at_once)
            logits = torch.stack([known, moved], 1).flatten(0, 1)
        looks = [_gradient(model, part) for part in torch.split(x, min(GROUP, at_once))]
    if known is not None and _differ(logits, torch.cat([searched for searched, *_ in looks])):
        return first_look(model, x, at_once)
    errors = [error for _, _, error, _ in looks if error is not None]
    return FirstLook(
        x,
        logits,
        torch.cat([searched for searched, _, _, _ in looks]),
        torch.cat([gradient for _, gradient, _, _ in looks]),
        errors[0] if errors else None,
        all(untouched for _, _, _, untouched in looks),
    )


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether two answers to the same images differ by more than rounding."""
    finite = one.isfinite() & other.isfinite()
    apart = (one - other).where(finite, 0).abs().amax(1)
    return bool((apart > LOGITS * one.where(finite, 0).abs().amax(1)).any())


@torch.no_grad()
def _answers(model: nn.Module, x: Tensor, at_once: int) -> Tensor:
    return torch.cat([ask(model, part) for part in torch.split(x, at_once)])


@torch.enable_grad()
def _gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Exception | None, bool]:
    """Return logits, the gradient of a projection of them, why it is 0, and if `x` was left."""
    leaf = x.clone().requires_grad_()
    given = leaf.clone()  # autograd lets a model write into this one, so this can be detected
    logits = ask(model, given, copied=False)
    untouched = torch.equal(given, x)
    weights = torch.from_numpy(directions(logits.shape[1], "logits")[:, 0]).to(logits)
    error, gradient = None, torch.zeros_like(x)
    try:
        (gradient,) = torch.autograd.grad((logits * weights).sum(), leaf)
    except Exception as raised:  # whatever a user's backward raises: attacks may need none
        if is_out_of_memory(raised):
            raise
        error = raised
    return logits.detach(), gradient, error, untouched

"""Whether the answer to an image is its own: alone, among others, and in any order.

The robustness of an image means nothing where its logits hang on the rest of the batch, and then no
verdict is the same for another batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from satbench.calling.generators import seed_generators
from satbench.calling.logits import ModelError, ask, without_masks
from satbench.calling.rounding import SAME, apart, rounding_of, same_up_to
from satbench.engine.judge import in_full_precision

_SEED = 0

ALONE, GROUP = 8, 8
"""How many images are asked about one by one, and how many of the others at a time.

A model that mixes the images of a batch answers a group of 8 otherwise than all 32.  One that does
so only for a batch of one image is seen on the first 8.
"""


@dataclass(frozen=True)
class Dependence:
    """Which images, (B,) bool, get other logits in other company, and by how much at most.

    `share` is that of the images, or that of those asked about one by one, if it is greater.
    """

    images: Tensor
    most: float
    share: float


def find_dependence(model: Callable[[Tensor], object], x: Tensor) -> Dependence | None:
    """Compare answers to images (B, C, H, W) together with those in shuffled groups and one by one.

    None where they agree but for rounding.  For a model that draws random numbers from the global
    generators, which are seeded here, each image keeps its place and its draw while its neighbours
    change; of one that is random in another way nothing can be said, and None is returned.
    Raises ModelError where the model fails on one image, or on others in that order.
    """
    together = _answers(model, x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(_SEED)).to(x.device)
    alone, others = order[:ALONE], order[ALONE:]
    gap = torch.zeros(len(x), device=x.device)
    for places in (*torch.split(alone, 1), *(torch.split(others, GROUP) if len(others) else ())):
        there = _alike(_answers(model, x[places]), together, x[places])
        gap[places] = apart(together[places], there)
    if bool((gap <= SAME).all()):
        return None
    same = same_up_to(rounding_of(model, x[:1]))
    if bool((apart(together, _answers(model, x)) > same).any()):
        return None  # random in a way of its own
    if bool((apart(together, _answers(model, x, _SEED + 1)) > same).any()):
        gap = _gap_in_place(model, x, together)
    images = ~(gap <= same)
    if not bool(images.any()):
        return None
    shares = [part.float().mean() for part in (images, images[alone])]
    return Dependence(images, float(gap.max()), float(max(shares)))


def suspects(model: nn.Module) -> Iterator[str]:
    """Yield the layers that are known to mix the images of a batch, and why, in words."""
    for name, module in model.named_modules():
        kind = type(module)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is None:
                yield f"the layer {name!r} has no running statistics"
            elif module.training:
                yield f"the layer {name!r} stays in train mode"
        elif "quantized.dynamic" in kind.__module__:
            yield f"the layer {name!r} is quantised by the range of the batch"


def _gap_in_place(model: Callable[[Tensor], object], x: Tensor, together: Tensor) -> Tensor:
    """Keep each image in its place while its neighbours change; return how far answers move."""
    others = x.roll(1, 0).flip(3) if len(x) > 1 else 1 - x
    gap = torch.zeros(len(x), device=x.device)
    for first in (0, 1):
        mixed = others.clone()
        mixed[first::2] = x[first::2]
        gap[first::2] = apart(together, _answers(model, mixed))[first::2]
    return gap


def _alike(logits: Tensor, others: Tensor, x: Tensor) -> Tensor:
    """Return logits that are as many an image as others.  Raises ModelError if they are not."""
    if logits.shape[1] != others.shape[1]:
        raise ModelError(
            f"expected {others.shape[1]} logits for every image, got {logits.shape[1]} for some", x
        )
    return logits


def _answers(model: Callable[[Tensor], object], x: Tensor, seed: int = _SEED) -> Tensor:
    seed_generators(seed)
    with torch.no_grad(), in_full_precision():
        return without_masks(ask(model, x))

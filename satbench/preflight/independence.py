"""The check that the answer to an image does not depend on the other images of the batch.

If the logits of an image depend on the rest of the batch, its robustness is undefined, and verdicts
depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from satbench.calling.generators import seed_generators
from satbench.calling.logits import ModelError, ask, without_masks
from satbench.calling.rounding import SAME, relative_difference, rounding_of, same_up_to
from satbench.engine.judge import in_full_precision

_SEED = 0

OTHER_SEED = 1
"""The seed of an answer that is compared with one of another seed: random answers never agree."""

ALONE, GROUP = 8, 16
"""The number of images that are run one by one, and the size of groups of the others.

A model that mixes the images of a batch gives other answers for a group of 16 than for all 32.  One
that does so only for a batch of one image is found on the first 8.
"""


@dataclass(frozen=True)
class Dependence:
    """Which images, (B,) bool, get other logits in another batch, and the largest difference.

    `share` is the share of all images, or of the images run one by one, whichever is greater.
    """

    images: Tensor
    most: float
    share: float


def agree(together: Tensor, alone: Tensor, searched: Tensor) -> bool:
    """Whether images got the same answers in other batches, up to rounding.

    `together` are all answers, (B, K); `alone` is the answer to the last image by itself, (1, K);
    `searched` are those to the first images in another batch, with gradients, (N, K).  If they
    agree, an answer depends only on its image and is not random.  Raises ModelError if an answer
    has another number of logits.
    """
    pairs = ((together[-1:], alone), (together[: len(searched)], searched[: len(together)]))
    if any(one.shape != other.shape for one, other in pairs):
        raise ModelError(
            f"expected {together.shape[1]} logits for every image, got another number for some"
        )
    return all(bool((relative_difference(one, other) <= SAME).all()) for one, other in pairs)


def find_dependence(model: Callable[[Tensor], object], x: Tensor) -> Dependence | None:
    """Compare answers to images (B, C, H, W) in one batch, in shuffled groups and one by one.

    None if they agree up to rounding.  If a model draws from the global random generators, which
    are seeded here, each image keeps its position and its draw while its neighbours change.  If a
    model is random in another way, nothing can be concluded, and the result is None.  Raises
    ModelError if the model fails on one image or on another order.
    """
    together = _answers(model, x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(_SEED)).to(x.device)
    alone, others = order[:ALONE], order[ALONE:]
    gap = torch.zeros(len(x), device=x.device)
    for places in (*torch.split(alone, 1), *(torch.split(others, GROUP) if len(others) else ())):
        there = _alike(_answers(model, x[places]), together, x[places])
        gap[places] = relative_difference(together[places], there)
    if bool((gap <= SAME).all()):
        return None
    same = same_up_to(rounding_of(model, x[:1]))
    if bool((relative_difference(together, _answers(model, x)) > same).any()):
        return None  # random in another way
    if bool((relative_difference(together, _answers(model, x, _SEED + 1)) > same).any()):
        gap = _gap_in_place(model, x, together)
    images = ~(gap <= same)
    if not bool(images.any()):
        return None
    shares = [part.float().mean() for part in (images, images[alone])]
    return Dependence(images, float(gap.max()), float(max(shares)))


def suspects(model: nn.Module) -> Iterator[str]:
    """Yield descriptions of layers that are known to mix the images of a batch."""
    for name, module in model.named_modules():
        kind = type(module)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is None:
                yield f"the layer {name!r} has no running statistics"
            elif module.training:
                yield f"the layer {name!r} is in train mode"
        elif "quantized.dynamic" in kind.__module__:
            yield f"the layer {name!r} quantises by the range of the batch"


def _gap_in_place(model: Callable[[Tensor], object], x: Tensor, together: Tensor) -> Tensor:
    """Keep each image in its position and change its neighbours; return the change of answers."""
    others = x.roll(1, 0).flip(3) if len(x) > 1 else 1 - x
    gap = torch.zeros(len(x), device=x.device)
    for first in (0, 1):
        mixed = others.clone()
        mixed[first::2] = x[first::2]
        gap[first::2] = relative_difference(together, _answers(model, mixed))[first::2]
    return gap


def _alike(logits: Tensor, others: Tensor, x: Tensor) -> Tensor:
    """Return `logits` if they have as many classes as `others`, else raise ModelError."""
    if logits.shape[1] != others.shape[1]:
        raise ModelError(
            f"expected {others.shape[1]} logits for every image, got {logits.shape[1]} for some", x
        )
    return logits


def _answers(model: Callable[[Tensor], object], x: Tensor, seed: int = _SEED) -> Tensor:
    with as_judged(seed):
        return without_masks(ask(model, x))


@contextmanager
def as_judged(seed: int = _SEED) -> Iterator[None]:
    """Call models in the block as the judge does, with seeded generators."""
    seed_generators(seed)
    with torch.no_grad(), in_full_precision():
        yield

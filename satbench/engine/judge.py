"""The judge: the one place that decides whether an image is broken.

It uses the original model, in eval mode and full float32, whatever the search used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from satbench.calling.logits import ModelError, ask, unanswered
from satbench.calling.shortage import NoRoomError, catch_out_of_memory
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.engine.ball import size

TOLERANCE = {"linf": 1e-6, "l2": 1e-5, "l1": 1e-3}
"""By how much the size of a perturbation may exceed eps, in pixels of [0, 1].

An attack that projects onto the ball is still off by rounding.  The tolerance must allow that
rounding, and be too small to help an attack.

Pixels are float32: adding delta to x and subtracting x again moves a pixel by up to 6e-8 in Linf,
and d = 150,528 pixels (3×224×224) by up to √d · 3e-8 ≈ 1.2e-5 in L2 in the worst case.  In L1 the
worst case is d · 3e-8: 1e-4 for 3×32×32 pixels (where eps is 12), and 4.5e-3 for 3×224×224.  There
the error of a dense change on the ball of eps 60 was measured as 2e-5, because errors cancel.
"""


class OutsideBallError(SatbenchError):
    """An attack returned an image that the threat model does not allow."""


class NonFiniteLogitsError(ModelError):
    """A model returned NaN or infinity for the images `x`, (B, C, H, W)."""


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """Return predicted classes, computed in full float32.  (B, C, H, W) -> (B,) int64.

    The model gets a copy of `x`.  Raises NonFiniteLogitsError, because the argmax of NaN is a
    class, so that a broken model could look robust.  Raises ModelError if the model returns no
    logits.
    """
    with torch.no_grad(), in_full_precision():
        return _predicted(model, x)


def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    """Predict in halves if the device has no memory for all."""
    messages: list[str] = []
    with catch_out_of_memory(messages):
        return answered(ask(model, x), x).argmax(1)
    if len(x) <= 1:
        raise NoRoomError("the judge's pass of 1 image", messages[-1])
    half = len(x) // 2
    return torch.cat([_predicted(model, x[:half]), _predicted(model, x[half:])])


def answered(logits: Tensor, x: Tensor) -> Tensor:
    """Return the logits of images `x` if they are valid; search and judge both use this.

    (B, K), (B, C, H, W) -> (B, K).  Raises NonFiniteLogitsError if they are not valid answers
    (`satbench.calling.logits.unanswered`).
    """
    if math.isfinite(logits.detach().sum().item()):  # at every pass, so the cheap check is first
        return logits
    bad = unanswered(logits)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise NonFiniteLogitsError(
            f"expected finite logits, got NaN or infinity for {int(bad.sum())} of {len(x)} images "
            f"(the first is row {row} of its batch); a model must answer every image of [0, 1]",
            x.detach()[bad],
        )
    return logits


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Keep float32 passes on a GPU in float32: no TF32 in convolutions and matrix products."""
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)


def broken(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Decide which of the images `x_adv` break.  (B, C, H, W) twice, (B,) labels -> (B,) bool.

    `model` must be in eval mode.  Raises OutsideBallError for a witness outside the ball (beyond
    `TOLERANCE`), outside [0, 1], not finite, or of another shape or dtype, and
    NonFiniteLogitsError.
    """
    check_allowed(x, x_adv, threat)
    return predict(model, x_adv) != y


def check_allowed(x: Tensor, x_adv: Tensor, threat: Threat) -> None:
    """Raise OutsideBallError unless every row of `x_adv` is allowed by `threat` around `x`."""
    if x_adv.shape != x.shape or x_adv.dtype != torch.float32:
        raise OutsideBallError(
            f"expected adversarial images of shape {tuple(x.shape)} in float32, "
            f"got {tuple(x_adv.shape)} in {str(x_adv.dtype).removeprefix('torch.')}"
        )
    if not bool(x_adv.isfinite().all()):
        raise OutsideBallError("expected finite adversarial pixels, got NaN or infinity")
    if bool((x_adv < 0).any()) or bool((x_adv > 1).any()):
        raise OutsideBallError(
            "expected adversarial pixels in [0, 1], "
            f"got {float(x_adv.min()):.6g} to {float(x_adv.max()):.6g}"
        )
    sizes = size(x_adv.double() - x.double(), threat)
    limit = threat.radius + TOLERANCE[threat.norm]
    if bool((sizes > limit).any()):
        row = int(sizes.argmax())
        raise OutsideBallError(
            f"expected perturbations within {threat}, got one of size {float(sizes[row]):.8g} "
            f"(row {row} of its batch)"
        )

"""Losses that attacks climb. Each gives one value per image, independent of the other images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TINY = 1e-12  # as in pyautoattack: equal logits give a large quotient, not NaN

_LEAST = torch.finfo(torch.float32).tiny


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log softmax(z)_y, at least 0; it vanishes if the model is confident.

    (B, K), (B,) -> (B,).
    """
    return F.cross_entropy(logits, y, reduction="none")


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio -(z_y - max_{i≠y} z_i) / (z_π1 - z_π3).

    π sorts the logits downward.  It does not change if the logits are shifted or scaled, and is
    above 0 exactly if the image is misclassified.  Needs K ≥ 3 (Croce & Hein, 2020,
    arXiv:2003.01690, equation 6).  (B, K), (B,) -> (B,).
    """
    ordered, classes = logits.sort(1)
    rival = torch.where(classes[:, -1] == y, ordered[:, -2], ordered[:, -1])
    return -(_of(logits, y) - rival) / (ordered[:, -1] - ordered[:, -3] + _TINY)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return -(z_y - z_t) / (z_π1 - (z_π3 + z_π4) / 2), the DLR loss toward the class `target`.

    Needs K ≥ 4 (Croce & Hein, 2020, arXiv:2003.01690, equation 7).  (B, K), (B,), (B,) -> (B,).
    """
    ordered = logits.sort(1).values
    scale = ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4])
    return -(_of(logits, y) - _of(logits, target)) / (scale + _TINY)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the best other logit minus the label's: above 0 exactly if misclassified.

    The loss of Carlini & Wagner, 2017 (arXiv:1608.04644, f_6) without its floor.  (B, K), (B,) ->
    (B,).
    """
    label = y[:, None]
    return logits.scatter(1, label, -torch.inf).amax(1) - _of(logits, y)


def label_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the label's logit minus the best other: 0 or less exactly where argmax is not `y`.

    A tie that argmax decides for the label is the least number above 0, because the judge counts
    the image as right; a search goes on there.  (B, K), (B,) -> (B,).
    """
    found = -margin(logits, y)
    tied = found == 0
    if bool(tied.any()):
        right = tied & (logits.argmax(1) == y)
        found = found.masked_fill(right, max(torch.finfo(found.dtype).tiny, _LEAST))
    return found


def margin_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the target's logit minus the label's.  (B, K), (B,), (B,) -> (B,)."""
    return _of(logits, target) - _of(logits, y)


def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the best other probability minus the label's.

    Sriramanan et al., 2020 (arXiv:2011.14969, equation 2).  It vanishes if the model is very
    confident.  (B, K), (B,) -> (B,), in [-1, 1].
    """
    return margin(logits.softmax(1), y)


def relaxation(logits: Tensor, clean: Tensor) -> Tensor:
    """Return ‖softmax(z) - softmax(z_0)‖², the first term of guided adversarial margin attacks.

    Sriramanan et al., 2020 (arXiv:2011.14969, equation 3); `clean` are the logits at the start.
    (B, K), (B, K) -> (B,).
    """
    return (logits.softmax(1) - clean.softmax(1)).square().sum(1)


def mifpe(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of logits that are divided by the gap between the two largest.

    It does not change if the logits are scaled, so float32 neither under- nor overflows (Yu & Xu,
    2023, "Efficient loss function by minimizing the detrimental effect of floating-point errors on
    gradient-based attacks", CVPR 2023).  The gradient treats the divisor as a constant.  (B, K),
    (B,) -> (B,).
    """
    top = logits.detach().topk(2, 1).values
    gap = (top[:, 0] - top[:, 1]).clamp_min(_TINY)
    return cross_entropy(logits / gap[:, None], y)


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def divergence(clean: Tensor, logits: Tensor) -> Tensor:
    """Return KL(softmax(clean) ‖ softmax(logits)) of each image.  (B, K), (B, K) -> (B,)."""
    return F.kl_div(
        logits.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True
    ).sum(1)


def wide(logits: Tensor) -> Tensor:
    """Return logits in at least float32: losses in half precision lose small differences."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

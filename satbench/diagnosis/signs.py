"""The signs of masked gradients of each image; `satbench.diagnosis.diagnose` makes flags from them.

An attack that uses gradients finds nothing if they are zero, wrong or random (Athalye,
Carlini & Wagner, 2018, arXiv:1802.00420; Pintor et al., 2022, arXiv:2106.09947).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from satbench.calling.logits import MASKED_LOGIT, classes_in_play
from satbench.calling.rounding import FLOAT32, relative_difference, same_up_to
from satbench.calling.shortage import is_out_of_memory
from satbench.core.threat import Threat
from satbench.engine.contract import Model

NEARBY = 0.01
"""The distance from an image to the point at which its gradient is tested, in eps."""

WRONG_BY = 0.5
"""If the gradient's error exceeds this share of the margin's change, it misjudges the change.

On 3,000 test images and the 19 honest shipped models the worst was 0.39 (a kink of a ReLU network;
the 99.9th percentile was 0.24).  With a detached part, 99 % of the images exceed 0.5.
"""

NEGLIGIBLE = 0.01
"""The least share of the margin that the gradient explains over the whole range of pixels.

On the same images and models the least was 0.09.
"""

PROBABLE = 1e-5
"""Largest distance of logits from a probability vector to count as one (AutoAttack's value)."""

TINY = 1e-12
"""The length below which attacks in L2 treat a gradient as zero (`satbench.engine.ball`)."""

TARGETS = 9
"""How many target classes AutoAttack's targeted attacks try (arXiv:2003.01690, section 4)."""

MASKED = (
    "randomised",
    "gradient-mode",
    "zero-gradient",
    "vanishing-loss-gradient",
    "negligible-gradient",
    "unstable-gradient",
    "dynamic-gradient",
)
"""The signs that a search by gradients cannot be trusted for an image."""


def examine(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    rounding: float = FLOAT32,
    attacked: Tensor | None = None,
    loss_by_logits: bool = False,
) -> dict[str, Tensor]:
    """Return for each sign the images that show it.  (B, C, H, W), (B,) -> (B,) bool each.

    `rounding` is how coarsely the model computes (`satbench.calling.rounding`).  Each image costs 3
    forwards and 2 backwards.  The answers to the images in `attacked`, (B,) bool, are compared at
    attacked points too, for 2 more forwards.  With `loss_by_logits` the gradient of the
    cross-entropy is computed from the logits and the margin's gradient, which saves a backward.
    """
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        leaf = x.clone().requires_grad_()
        logits: Tensor = model(leaf)
        rival = _rival(logits, y)
        margin = _margin(logits, y, rival)
        if not loss_by_logits:
            loss_grad = _gradient(F.cross_entropy(logits, y, reduction="sum"), leaf)
        grad = _gradient(margin.sum(), leaf)
        if loss_by_logits:
            loss_grad = -grad * _pull(logits.detach(), y).view(-1, *[1] * (x.dim() - 1))
        with torch.no_grad(), _autograd_calls() as calls:
            again = _in_halves(model, x)
            nearby = (x - _step(x, threat) * grad.sign()).clamp(0, 1)
            nearby_logits: Tensor = model(nearby)

    logits, margin = logits.detach(), margin.detach()
    differ = compare(model, x, logits, again, rounding)
    randomised = differ["randomised"]
    if attacked is not None and bool(attacked.any()):
        there = _compare_attacked(model, x[attacked], loss_grad[attacked], threat, rounding)
        for name, holds in there.items():
            differ[name] = differ[name].index_put((attacked,), differ[name][attacked] | holds)
    zero = _is_zero(loss_grad) & _is_zero(grad)
    change = _margin(nearby_logits, y, rival) - margin
    every, unit = torch.ones_like(zero), rounding * _size(logits)
    return {
        **differ,
        "softmax-output": _is_probability(logits),
        "zero-gradient": zero,
        "vanishing-loss-gradient": _vanishes(loss_grad, grad, threat),
        "negligible-gradient": ~zero & _is_negligible(grad, margin),
        # Noise and a zero gradient are separate causes.
        "unstable-gradient": ~zero & ~randomised & _misjudges(grad, nearby - x, change, unit),
        "dynamic-gradient": every if calls else ~every,
        "few-classes": every if classes_in_play(logits) <= TARGETS else ~every,
    }


@torch.no_grad()
def compare(
    model: Model, x: Tensor, with_gradients: Tensor, in_halves: Tensor, rounding: float
) -> dict[str, Tensor]:
    """Find out why two answers to the same images differ.

    (B, C, H, W), (B, K) twice -> (B,) bool each.  One was computed with gradients recorded, the
    other without, in two halves of the batch.  If they agree this costs nothing, else two forwards
    per image.
    """
    same = same_up_to(rounding)
    none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if bool((relative_difference(with_gradients, in_halves) <= same).all()):
        return {"randomised": none, "batch-dependent": none, "gradient-mode": none}
    once, twice = model(x), model(x)
    randomised = relative_difference(once, twice) > same
    return {
        "randomised": randomised,
        "batch-dependent": ~randomised & (relative_difference(once, in_halves) > same),
        "gradient-mode": ~randomised & (relative_difference(once, with_gradients) > same),
    }


def _compare_attacked(
    model: Model, x: Tensor, loss_grad: Tensor, threat: Threat, rounding: float
) -> dict[str, Tensor]:
    """Compare answers to attacked images with gradients recorded and without.

    (B, C, H, W) twice -> (B,) bool each.  The points are a whole eps from the images, so that a
    model cannot recognise the images.  Each image costs 2 forwards.
    """
    step = _step(x, threat) / NEARBY
    attacked = (x + step * loss_grad.sign()).clamp(0, 1)
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        with_gradients = model(attacked.clone().requires_grad_()).detach()
    with torch.no_grad():
        return compare(model, attacked, with_gradients, _in_halves(model, attacked), rounding)


def _in_halves(model: Model, x: Tensor) -> Tensor:
    """Return the logits, computed in two batches of every other image.  (B, C, H, W) -> (B, K)."""
    if len(x) < 2:
        return model(x)
    first, second = model(x[::2]), model(x[1::2])
    logits = first.new_empty(len(x), first.shape[1])
    logits[::2], logits[1::2] = first, second
    return logits


def _is_probability(logits: Tensor) -> Tensor:
    inside = (logits > -PROBABLE).all(1) & (logits < 1 + PROBABLE).all(1)
    return inside & ((logits.sum(1) - 1).abs() < PROBABLE)


def _size(logits: Tensor) -> Tensor:
    """Return the largest logit of each image, without masked classes.  (B, K) -> (B,)."""
    return torch.where(logits > MASKED_LOGIT, logits, 0).abs().amax(1)


def _is_zero(grad: Tensor) -> Tensor:
    return (grad == 0).flatten(1).all(1)


def _vanishes(loss_grad: Tensor, grad: Tensor, threat: Threat) -> Tensor:
    """Return where the cross-entropy has lost the gradient that the margin still has.

    Its gradient is about 1 - p_y times the margin's.  From a margin of 104 on, this is 0 in
    float32.  Attacks in Linf use its sign, so it is lost if most of its pixels are 0.  Attacks in
    L2 divide by its length, so it is also lost below `TINY` (a margin of about 30).
    """
    moving = (grad != 0).flatten(1)
    lost = moving & (loss_grad == 0).flatten(1)
    vanishes = lost.sum(1) > 0.5 * moving.sum(1)
    if threat.norm != "linf":
        vanishes |= torch.linalg.vector_norm(loss_grad.flatten(1), dim=1) < TINY
    return vanishes & moving.any(1)


def _pull(logits: Tensor, y: Tensor) -> Tensor:
    """Return the strength of the cross-entropy's gradient in the logits.  (B, K), (B,) -> (B,).

    It is the largest component of that gradient, float32, about 1 - p_y.  The gradient in the
    pixels is this times the margin's gradient.
    """
    leaf = logits.clone().requires_grad_()
    with torch.enable_grad():
        (pull,) = torch.autograd.grad(F.cross_entropy(leaf, y, reduction="sum"), leaf)
    return pull.abs().amax(1)


def _is_negligible(grad: Tensor, margin: Tensor) -> Tensor:
    """Return where the gradient is too small to change the margin even if each pixel moved by 1."""
    return grad.double().abs().flatten(1).sum(1) < NEGLIGIBLE * margin.double()


def _misjudges(grad: Tensor, delta: Tensor, change: Tensor, unit: Tensor) -> Tensor:
    """Return where the gradient misjudges the change of the margin over `delta` by more than half.

    Over such a short distance the true gradient is right up to curvature and rounding; the
    tolerance for rounding is 100 times `unit`, (B,), the last place of the largest logit.
    """
    predicted = (grad.double() * delta.double()).flatten(1).sum(1)
    largest = torch.maximum(predicted.abs(), change.double().abs())
    return (change.double() - predicted).abs() > WRONG_BY * largest + 100 * unit.double()


def _step(x: Tensor, threat: Threat) -> float:
    """Return how far each pixel moves to the nearby point: `NEARBY` of eps over all pixels."""
    power = {"linf": 0.0, "l2": 0.5, "l1": 1.0}[threat.norm]
    return float(NEARBY * threat.radius / x[0].numel() ** power)


def _rival(logits: Tensor, y: Tensor) -> Tensor:
    others = logits.detach().scatter(1, y[:, None], -torch.inf)
    return others.argmax(1)


def _margin(logits: Tensor, y: Tensor, rival: Tensor) -> Tensor:
    rows = torch.arange(len(y), device=y.device)
    return logits[rows, y] - logits[rows, rival]


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    try:
        (grad,) = torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)
    except Exception as error:  # no graph, or an error of the user's backward: there is no gradient
        if is_out_of_memory(error):
            raise
        return torch.zeros_like(x)
    return torch.zeros_like(x) if grad is None else grad.detach()


@contextmanager
def _autograd_calls() -> Iterator[list[str]]:
    """Yield a list that grows by a name with each call of autograd while the block runs."""
    calls: list[str] = []
    # A model can call grad() or backward(); both end in autograd's engine.
    names = [
        name
        for name in ("grad", "backward", "_engine_run_backward")
        if hasattr(torch.autograd, name)
    ]
    originals = {name: getattr(torch.autograd, name) for name in names}

    def noting(name: str) -> object:
        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            return originals[name](*args, **kwargs)

        return call

    try:
        for name in names:
            setattr(torch.autograd, name, noting(name))
        yield calls
    finally:
        for name, original in originals.items():
            setattr(torch.autograd, name, original)

"""Targeted margin attacks, the targets in order of their linearised distance: MALT.

Melamed, Yehudai, Shamir, 2024, "MALT powers up adversarial attacks" (arXiv:2407.02240).  The
distance to class j is (z_y - z_j) / ‖∇(z_j - z_y)‖, in the dual norm of the threat's, at the clean
image: one forward, and one backward per class.  `malt-apgd` is the attack as published, with
Auto-PGD of 100 steps on each target.  `malt` differs from the paper: each target is attacked by a
short search on the plain margin with a decaying step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from satbench.attacks.gradient import losses
from satbench.attacks.gradient.apgd import BLOCK, clean_logits, in_runs
from satbench.attacks.gradient.apgd_run import Search
from satbench.attacks.gradient.cosine import TRUE, TWICE_EPS, Climb, Loss, half_cosine, start_of
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Length, Threat
from satbench.engine.backward import Backward
from satbench.engine.contract import Found, Hints, Informed, Model, NoiseSource, of_any_batch

_CANDIDATES = 20  # with more classes, only those with the largest logits are considered
_PUBLISHED_CANDIDATES = 100  # in the paper (section 3) and its code
_TINY = 1e-12


@dataclass(frozen=True)
class MALT(Informed):
    """`steps` steps toward each of the `targets` classes with least linearised distance, in order.

    `step`, `start` and `backward` are as in `cosine-pgd`; the linearised distances are measured
    with that backward too.
    """

    targets: int = 3
    steps: int = 40
    step: Length = TWICE_EPS
    start: Literal["corner", "uniform", "clean", "best"] = "uniform"
    backward: Backward = TRUE

    def __post_init__(self) -> None:
        check_at_least_one("malt", self, "targets", "steps")

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Perturb `x`, from the best points so far if `start` is `best`."""
        order = targets_in_order(model, x, y, threat, self.targets, self.backward)
        start = start_of(self.start, x, threat, noise, hints)
        lengths = half_cosine(self.step.within(threat), self.steps)
        best = Found(start.clone(), torch.full((len(x),), torch.inf, device=x.device))
        left = torch.arange(len(x), device=x.device)
        for target in order.unbind(1):
            aim = target[left]
            climb = Climb(model, x[left], y[left], threat, lengths, self.backward)
            found = climb.run(start[left], _toward(y[left], aim))
            better = found.margins < best.margins[left]
            best.margins[left[better]] = found.margins[better]
            best.x_adv[left[better]] = found.x_adv[better]
            left = left[best.margins[left] > 0]
            if not len(left):
                break
        return best


@dataclass(frozen=True)
class PublishedMALT:
    """Auto-PGD on the targeted DLR loss, the `targets` nearest of up to 100 likely classes.

    The fields are those of apgd-t.  Differs from the paper: an image leaves at its first
    misclassified iterate, in any class, so that no more images survive than there; the gradients of
    an image's classes share one forward; the noise is drawn block by block, as in apgd-t.  Raises
    SatbenchError for fewer than 4 classes.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    least_classes: ClassVar[int] = 4

    steps: int = 100
    targets: int = 9
    block: int = BLOCK

    def __post_init__(self) -> None:
        check_at_least_one("malt-apgd", self)

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        clean = clean_logits(model, x, least_classes=4, loss="DLR loss")
        right = clean.argmax(1) == y
        runs = y[None].repeat(min(self.targets, clean.shape[1] - 1), 1)
        if bool(right.any()):
            near = targets_in_order(
                model, x[right], y[right], threat, len(runs), TRUE, _PUBLISHED_CANDIDATES
            )
            runs[:, right] = near.T
        search = Search(model, losses.dlr_targeted, self.steps, eot=1)
        return in_runs(search, x, y, clean, list(runs), threat, noise)


def targets_in_order(
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    targets: int,
    backward: Backward,
    most: int = _CANDIDATES,
) -> Tensor:
    """Return the classes of least linearised distance, nearest first.  -> (B, targets) int64.

    Only the `most` classes with the largest logits are considered.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad(), backward.applied():
        logits = model(x)
    classes = logits.shape[1]
    others = logits.detach().scatter(1, y[:, None], -torch.inf)
    candidates = others.topk(min(classes - 1, most), 1).indices
    distances = []
    for number, aim in enumerate(candidates.unbind(1), 1):
        with torch.enable_grad():
            gap = losses.margin_targeted(logits, y, aim)
            (grad,) = torch.autograd.grad(gap.sum(), x, retain_graph=number < candidates.shape[1])
        distances.append(-gap.detach() / _dual_norm(grad, threat).clamp_min(_TINY))
    order = torch.stack(distances, 1).argsort(dim=1, stable=True)[:, :targets]
    return candidates.gather(1, order)


def _toward(y: Tensor, aim: Tensor) -> Loss:
    return lambda logits, rows, done: losses.margin_targeted(logits, y[rows], aim[rows])


def _dual_norm(grad: Tensor, threat: Threat) -> Tensor:
    """Measure gradients in the dual norm of the threat's: L1 for Linf, L2 for L2, Linf for L1."""
    order = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[threat.norm]
    length: Tensor = torch.linalg.vector_norm(grad.flatten(1), ord=order, dim=1)
    return length

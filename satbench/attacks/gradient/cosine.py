"""Projected gradient descent with a step that decays by a cosine, and a choice of losses.

The steps shrink from `step` to 0 along half a cosine (as in Yao et al., 2021, arXiv:2102.11860, and
Xie et al., 2025, arXiv:2411.15210).  With the same number of passes this breaks more than a
constant step.  The loss `gama` gives the guided adversarial margin attack, GAMA (Sriramanan et al.,
2020, arXiv:2011.14969).  `backward=softplus(10)` uses the smooth backward of Smooth Adversarial
Training for an attack (Xie et al., 2020, arXiv:2006.14536, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from satbench.attacks.gradient import losses
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Length, Threat
from satbench.engine.backward import Backward
from satbench.engine.ball import project, random_point, steepest
from satbench.engine.contract import Found, Hints, Informed, Model, NoiseSource

TWICE_EPS = Length(Fraction(2), relative=True)
TRUE = Backward()

_RELAXED = 0.25  # the share of the steps over which GAMA's relaxation fades: 25 of 100 in its code
_WEIGHT = 50.0  # its initial weight, for CIFAR-10 (arXiv:2011.14969, section 5)

Loss = Callable[[Tensor, Tensor, int], Tensor]
"""(logits (B, K), rows of the batch (B,), number of steps done) -> what to climb, (B,)."""


@dataclass(frozen=True)
class CosinePGD(Informed):
    """`steps` steps along the steepest ascent of `loss`, the first of length `step`.

    `start` is a corner of the ball (a random sign per pixel; in L2 a uniform point), a uniform
    point, the clean image, or the best point of an earlier attack of the suite (the clean image if
    there is none).  An image leaves at its first misclassified iterate.  For an image that
    survives, the iterate of least margin is returned.  The loss `dlr` needs 3 classes.
    """

    loss: Literal["ce", "margin", "gama", "mifpe", "dlr"] = "margin"
    steps: int = 40
    step: Length = TWICE_EPS
    start: Literal["corner", "uniform", "clean", "best"] = "uniform"
    backward: Backward = TRUE

    def __post_init__(self) -> None:
        check_at_least_one("cosine-pgd", self, "steps")

    @property
    def least_classes(self) -> int:
        """The number of classes that the loss needs."""
        return 3 if self.loss == "dlr" else 2

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
        start = start_of(self.start, x, threat, noise, hints)
        lengths = half_cosine(self.step.within(threat), self.steps)
        return Climb(model, x, y, threat, lengths, self.backward).run(start, self._loss(y))

    def _loss(self, y: Tensor) -> Loss:
        if self.loss == "gama":
            return _Gama(y, self.steps)
        if self.loss == "dlr":
            return lambda logits, rows, done: losses.dlr(_of_three(logits), y[rows])
        plain = {
            "ce": losses.cross_entropy,
            "margin": losses.margin,
            "mifpe": losses.mifpe,
        }[self.loss]
        return lambda logits, rows, done: plain(logits, y[rows])


def _of_three(logits: Tensor) -> Tensor:
    if logits.shape[1] < 3:
        raise SatbenchError(
            f"cosine-pgd: the loss dlr needs at least 3 classes, got {logits.shape[1]}; take "
            "margin or mifpe"
        )
    return logits


class _Gama:
    """The probability margin, plus a fading distance from the probabilities at the start."""

    def __init__(self, y: Tensor, steps: int) -> None:
        self._y, self._steps = y, steps
        self._start: Tensor | None = None

    def __call__(self, logits: Tensor, rows: Tensor, done: int) -> Tensor:
        if self._start is None:
            self._start = logits.detach()
        climbed = losses.probability_margin(logits, self._y[rows])
        weight = _WEIGHT * (1 - done / self._steps / _RELAXED)
        if weight <= 0:
            return climbed
        return climbed + weight * losses.relaxation(logits, self._start[rows])


def start_of(
    name: Literal["corner", "uniform", "clean", "best"],
    x: Tensor,
    threat: Threat,
    noise: NoiseSource,
    hints: Hints,
) -> Tensor:
    """Return the starting points of a search. (B, C, H, W) -> (B, C, H, W)."""
    if name == "clean":
        return x
    if name == "best":
        return hints.points
    if name == "corner" and threat.norm == "linf":
        signs = torch.from_numpy(noise.uniform(tuple(x.shape[1:]))).to(x.device, x.dtype).sign()
        return (x + threat.radius * signs).clamp(0, 1)
    return random_point(x, threat, noise)


def half_cosine(step: float, steps: int) -> list[float]:
    """Return the lengths of `steps` steps that fall from `step` toward 0 along half a cosine."""
    return [step * (1 + math.cos(math.pi * number / steps)) / 2 for number in range(steps)]


@dataclass(frozen=True)
class Climb:
    """A search around `x` with a step for each of `lengths` and a choice of backward."""

    model: Model
    x: Tensor
    y: Tensor
    threat: Threat
    lengths: Sequence[float]
    backward: Backward = TRUE

    def run(self, start: Tensor, loss: Loss) -> Found:
        """Climb from `start`; broken images leave, and the best point of each image is kept."""
        best = Found(start.clone(), torch.full((len(start),), torch.inf, device=start.device))
        rows = torch.arange(len(start), device=start.device)
        x_adv, x = start, self.x
        for number, length in enumerate(self.lengths):
            x_adv = x_adv.detach().requires_grad_()
            with torch.enable_grad(), self.backward.applied():
                logits = self.model(x_adv)
                # Summed, so that no image's gradient depends on the size of its batch.
                climbed = loss(logits, rows, number).sum()
            holds = self._keep_best(best, rows, x_adv.detach(), logits.detach())
            if not bool(holds.any()):
                return best
            (grad,) = torch.autograd.grad(climbed, x_adv)
            x_adv = x_adv.detach()
            stepped = x_adv + length * steepest(grad, self.threat, x_adv)
            x_adv = project(stepped, x, self.threat)
            if not bool(holds.all()):
                rows, x_adv, x = rows[holds], x_adv[holds], x[holds]
        with torch.no_grad():
            self._keep_best(best, rows, x_adv, self.model(x_adv))
        return best

    def _keep_best(self, best: Found, rows: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Store the points that are better than the best; return which rows are still right."""
        margins = losses.label_margin(logits, self.y[rows]).to(best.margins.dtype)
        holds: Tensor = logits.argmax(1) == self.y[rows]
        better = (margins < best.margins[rows]) | ~holds
        best.margins[rows[better]] = margins[better]
        best.x_adv[rows[better]] = x_adv[better]
        return holds

"""Projected gradient descent on the cross-entropy (Madry et al., 2018, arXiv:1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from satbench.core.limits import check_at_least_one
from satbench.core.specs import later
from satbench.core.threat import Length, Threat
from satbench.engine.backward import Backward
from satbench.engine.ball import project, random_point, steepest
from satbench.engine.contract import Model, NoiseSource, of_any_batch

OWN_GRADIENT = Backward()
QUARTER_EPS = Length(Fraction(1, 4), relative=True)


@dataclass(frozen=True)
class PGD:
    """`steps` steps of length `step` along the steepest ascent of the cross-entropy.

    `step` defaults to eps/4: SAT's own evaluation uses 1/255 at eps 4/255 (Xie et al., 2020,
    arXiv:2006.14536, README of the official code).  `start` is a uniform point of the ball or the
    clean image; each restart draws its own point.

    `keep` says which iterate is returned to the judge: `any` stops an image at its first
    misclassified iterate, so that no success is lost and no further pass is made; `last` returns
    the last iterate, as the SAT paper, Foolbox and torchattacks do.

    For a randomised model a step follows the sum of the gradients of `eot` forwards (expectation
    over transformation: Athalye et al., 2018, arXiv:1802.00420, section 4.2), and an iterate is
    misclassified if all of them are.  The judge makes one draw of its own, so the verdict of a
    randomised model is also one draw.  `backward` can replace the gradient of activations by that
    of softplus (`satbench.engine.backward`).
    """

    steps: int = 20
    step: Length = QUARTER_EPS
    restarts: int = 1
    start: Literal["uniform", "clean"] = "uniform"
    keep: Literal["any", "last"] = "any"
    eot: int = later(1)
    backward: Backward = later(OWN_GRADIENT)  # noqa: RUF009 (it is frozen)

    def __post_init__(self) -> None:
        check_at_least_one("pgd", self, "steps", "restarts", "eot")

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        best = self._run(model, x, y, threat, self._start(x, threat, noise, 0))
        left = torch.arange(len(x), device=x.device)
        for restart in range(1, self.restarts):
            left = left[_correct(model, best[left], y[left])]
            if not len(left):
                break
            start = self._start(x, threat, noise, restart)[left]
            best[left] = self._run(model, x[left], y[left], threat, start)
        return best

    def _start(self, x: Tensor, threat: Threat, noise: NoiseSource, restart: int) -> Tensor:
        return x if self.start == "clean" else random_point(x, threat, noise, restart)

    def _run(self, model: Model, x: Tensor, y: Tensor, threat: Threat, start: Tensor) -> Tensor:
        result = start.clone()
        active = torch.arange(len(x), device=x.device)  # rows that no iterate has broken yet
        x_adv, step = start, self.step.within(threat)
        for _ in range(self.steps):
            grad, holds = self._look(model, x_adv, y)
            if self.keep == "any" and not bool(holds.all()):
                result[active[~holds]] = x_adv[~holds]
                active, x_adv, grad, x, y = (t[holds] for t in (active, x_adv, grad, x, y))
                if not len(active):
                    return result
            x_adv = project(x_adv + step * steepest(grad, threat, x_adv), x, threat)
        result[active] = x_adv
        return result

    def _look(self, model: Model, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient, (B, C, H, W), and which images hold in a forward or more, (B,)."""
        grad, holds = self._one_forward(model, x_adv, y)
        for _ in range(1, self.eot):
            another, right = self._one_forward(model, x_adv, y)
            grad, holds = grad + another, holds | right
        return grad, holds

    def _one_forward(self, model: Model, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x_adv.detach().requires_grad_()
        with torch.enable_grad(), self.backward.applied():
            logits = model(leaf)
            # Summed, so that no image's gradient depends on the size of its batch.
            loss = F.cross_entropy(logits, y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, leaf)
        return grad, logits.argmax(1) == y


def _correct(model: Model, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(1) == y

"""The probability margin attack, PMA: it climbs the margin of the softmax term by term.

Xie et al., 2025, "Towards Million-Scale Adversarial Robustness Evaluation With Stronger Individual
Attacks" (arXiv:2411.15210).  Its loss is that of Sriramanan et al., 2020 (arXiv:2011.14969,
equation 2), its schedule that of the margin decomposition attack (Ma et al., 2020,
arXiv:2006.13726): in the first half of a run only one term of the margin is climbed.  PMA+, which
adds Auto-PGD on targets, is the suite `pma-plus`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from satbench.attacks.gradient import losses
from satbench.attacks.gradient.cosine import Climb, Loss
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Threat
from satbench.engine.ball import random_point
from satbench.engine.contract import Found, Hints, Informed, Model, NoiseOfSome, NoiseSource

_LEAST_STEPS = 4  # if a half had only one step, its length would be 0


@dataclass(frozen=True)
class PMA(Informed):
    """`steps` steps from each of `restarts` uniform points of the Linf ball.

    The first step climbs the label's probability, as in the authors' code
    (github.com/xieyong0/PMA).  The rest of the first half lowers it in the first, third, … restart,
    and raises the best other probability in the others.  The second half climbs their difference.
    In each half the step falls from 2 eps to 0 along half a cosine; the first step of the second
    half still has the length that ends the first half, as in that code.  Differs from the code: the
    random start is clipped to [0, 1], because a model is only evaluated on images.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf",)

    steps: int = 100
    restarts: int = 2

    def __post_init__(self) -> None:
        check_at_least_one("pma", self)
        if self.steps < _LEAST_STEPS:
            raise SatbenchError(
                f"pma: expected steps of {_LEAST_STEPS} or more, two for each half, "
                f"got {self.steps}"
            )

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Perturb `x`; the points of earlier attacks are not used."""
        best = Found(x.clone(), torch.full((len(x),), torch.inf, device=x.device))
        left = torch.arange(len(x), device=x.device)
        for restart in range(self.restarts):
            held = (best.margins > 0).cpu().numpy()
            start = random_point(x[left], threat, NoiseOfSome(noise, held), restart)
            climb = Climb(model, x[left], y[left], threat, self._lengths(threat.radius))
            found = climb.run(start, self._loss(y[left], restart))
            better = found.margins < best.margins[left]
            best.margins[left[better]] = found.margins[better]
            best.x_adv[left[better]] = found.x_adv[better]
            left = left[best.margins[left] > 0]
            if not len(left):
                break
        return best

    def _lengths(self, eps: float) -> list[float]:
        """Return the length of each step; the authors' code counts them so in each half."""
        half = self.steps / 2
        counted = [number - 1 - half * (number > half) for number in range(self.steps)]
        return [eps * (1 + math.cos(math.pi * number / half)) for number in counted]

    def _loss(self, y: Tensor, restart: int) -> Loss:
        def climbed(logits: Tensor, rows: Tensor, done: int) -> Tensor:
            if done >= self.steps / 2:
                return losses.probability_margin(logits, y[rows])
            label, likely = y[rows, None], logits.softmax(1)
            own = likely.gather(1, label).squeeze(1)
            if done == 0:
                return own
            if restart % 2 == 0:
                return -own
            return likely.scatter(1, label, -torch.inf).amax(1)

        return climbed

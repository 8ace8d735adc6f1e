"""The adaptive auto attack, A3: it learns from its successes how to start and what to attack.

Liu et al., 2022, "Practical evaluation of adversarial robustness via adaptive auto attack"
(arXiv:2203.05154).  It goes through its images in rounds.  A search starts with steps along a
direction of the logits (adaptive direction initialisation); which signs of that direction went with
success is counted in the second round and kept to in all later ones.  Later rounds take longer
searches on ever fewer images, those of least margin (online statistics-based discarding).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from satbench.attacks.gradient import losses
from satbench.attacks.gradient.cosine import Climb, Loss
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Threat
from satbench.engine.ball import random_point
from satbench.engine.contract import Found, Hints, Informed, Model, NoiseOfSome, NoiseSource


@dataclass(frozen=True)
class Round:
    """One round: `restarts` searches of `steps` steps on the `share` of images of least margin."""

    share: float
    steps: int
    restarts: int = 1


ROUNDS = (
    *(Round(1, 8), Round(1, 8), Round(1, 20)),
    *(Round(0.7, 25), Round(0.6, 30), Round(0.5, 30), Round(0.4, 35), Round(0.3, 40)),
    *(Round(0.2, 45), Round(0.1, 50), Round(0.1, 50, 4), Round(0.065, 55, 4), Round(0.03, 60, 50)),
)
_ALONG = 7  # steps along a direction, in every round but the first
_FEWEST = 100  # images that a round attacks, if there are so many
_NEARLY_ALL = 0.1  # if no larger share survives, each round attacks all of them …
_MORE = 10  # … with so many more restarts
_AT_ONCE = 250  # images that the model is asked about together
_TARGETS = ((10, 9), (100, 14), (math.inf, 20))  # of up to so many classes, so many are aimed at


@dataclass(frozen=True)
class A3(Informed):
    """The first `rounds` of the 13 rounds, on the images of a block.

    Successes are counted, and margins ranked, among the `block` images that are numbered together.
    Differs from the paper: there that is done among all images, which is the same where the block
    holds them all; `block` makes results independent of batches and processes.  The other schedule
    of the authors' code, for models of which 5 % fall to the first steps along a direction, is left
    out.  The numbers of the rounds are from notes on that code
    (github.com/liuye6666/adaptive_auto_attack); the steps of the third round, which the notes do
    not tell, are ours.  The label is read off the forward that gives the next gradient, so that a
    step costs one forward and not two.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    rounds: int = len(ROUNDS)
    block: int = 1000

    def __post_init__(self) -> None:
        check_at_least_one("a3", self)
        if self.rounds > len(ROUNDS):
            raise SatbenchError(f"a3: expected at most {len(ROUNDS)} rounds, got {self.rounds}")

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Perturb `x`; what earlier attacks found is not used."""
        run = _Rounds(model, x, y, threat, noise)
        for number, one in enumerate(ROUNDS[: self.rounds]):
            run.do(number, one)
        return run.best


@dataclass
class _Rounds:
    """The images of a block under attack, and what was learnt of them.

    `best` has the points of least margin; `order` (N, K) the classes by their clean logits, the
    largest first; `signs` those of the label's and of the target's logit that go with success;
    `calls` counts searches.
    """

    model: Model
    x: Tensor
    y: Tensor
    threat: Threat
    noise: NoiseSource
    best: Found = field(init=False)
    order: Tensor = field(init=False)
    signs: tuple[float, float] = (-1.0, 1.0)
    calls: int = 0

    def __post_init__(self) -> None:
        with torch.no_grad():
            logits = torch.cat([self.model(part) for part in torch.split(self.x, _AT_ONCE)])
        self.best = Found(self.x.clone(), -losses.margin(logits, self.y).float())
        self.order = logits.argsort(dim=1, descending=True, stable=True)

    def do(self, number: int, one: Round) -> None:
        """Do one round."""
        standing = int((self.best.margins > 0).sum())
        few = standing <= _NEARLY_ALL * len(self.x)
        share, restarts = (
            (1.0, one.restarts + _MORE) if few and number > 2 else (one.share, one.restarts)
        )
        for _ in range(restarts):
            rows = self._weakest(share)
            if not len(rows):
                return
            directions = self._directions(rows, number)
            self._search(rows, directions, one.steps)
            if number == 1:
                self._learn(rows, directions)
            self.calls += 1

    def _weakest(self, share: float) -> Tensor:
        """Return that share of the survivors, those of least margin, in the order of the block."""
        left = (self.best.margins > 0).nonzero().squeeze(1)
        count = max(math.ceil(share * len(left)), _FEWEST)
        ranked = left[self.best.margins[left].argsort(stable=True)]
        return ranked[:count].sort().values

    def _directions(self, rows: Tensor, number: int) -> Tensor | None:
        """Return the direction of the logits that each search sets out along, (R, K)."""
        if number == 0:
            return None
        classes = self.order.shape[1]
        drawn = self._drawn(rows, classes + 1)
        directions, last = drawn[:, :classes], drawn[:, classes:]
        if number == 1:
            return directions
        most = next(count for upto, count in _TARGETS if classes <= upto)
        wrong = self.order[rows]
        wrong = wrong[wrong != self.y[rows, None]].view(len(rows), classes - 1)
        target = wrong[:, self.calls % min(most, classes - 1), None]
        label, aim = (sign * classes / 10 for sign in self.signs)
        directions = directions.scatter(1, self.y[rows, None], label * (0.2 + 0.3 * last))
        return directions.scatter(1, target, torch.full_like(last, 0.8 * aim))

    def _search(self, rows: Tensor, directions: Tensor | None, steps: int) -> None:
        """Search from uniform points, and keep what is better than the best."""
        held = np.zeros(len(self.x), bool)
        held[rows.cpu().numpy()] = True
        some = NoiseOfSome(self.noise, held)
        starts = random_point(self.x[rows], self.threat, some, 2 * self.calls)
        lengths = _lengths(steps, self.threat.radius)
        if directions is not None:
            lengths = [self.threat.radius] * _ALONG + lengths
        for part in torch.split(torch.arange(len(rows), device=rows.device), _AT_ONCE):
            these = rows[part]
            loss = _loss(self.y[these], None if directions is None else directions[part])
            climb = Climb(self.model, self.x[these], self.y[these], self.threat, lengths)
            found = climb.run(starts[part], loss)
            better = found.margins < self.best.margins[these]
            self.best.margins[these[better]] = found.margins[better]
            self.best.x_adv[these[better]] = found.x_adv[better]

    def _learn(self, rows: Tensor, directions: Tensor | None) -> None:
        """Read off the successes with which signs of a direction they went."""
        fell = self.best.margins[rows] <= 0
        if directions is None or not bool(fell.any()):
            return
        there = self.best.x_adv[rows[fell]]
        with torch.no_grad():
            answers = torch.cat([self.model(part) for part in torch.split(there, _AT_ONCE)])
        own = directions[fell].gather(1, self.y[rows[fell], None]).mean()
        other = directions[fell].gather(1, answers.argmax(1)[:, None]).mean()
        self.signs = (1.0 if own > 0 else -1.0, 1.0 if other > 0 else -1.0)

    def _drawn(self, rows: Tensor, count: int) -> Tensor:
        drawn = self.noise.uniform((count,), 2 * self.calls + 1)
        return torch.from_numpy(drawn).to(self.x.device)[rows]


def _lengths(steps: int, eps: float) -> list[float]:
    """Return the lengths of the steps after those along a direction."""
    least = (0.1 if steps <= 10 else 0.001) * eps
    return [
        least + (eps - least) * (1 + math.cos(math.pi * number / (steps + 1))) / 2
        for number in range(steps)
    ]


def _loss(y: Tensor, directions: Tensor | None) -> Loss:
    def climbed(logits: Tensor, rows: Tensor, done: int) -> Tensor:
        if directions is not None and done < _ALONG:
            return (logits * directions[rows]).sum(1)
        return losses.margin(logits, y[rows])

    return climbed

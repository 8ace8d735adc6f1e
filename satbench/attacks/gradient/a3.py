"""The adaptive auto attack, A3: it learns from its successes how to start and what to attack.

Liu et al., 2022, "Practical Evaluation of Adversarial Robustness via Adaptive Auto Attack"
(arXiv:2203.05154), as in the authors' code (github.com/liuye6666/adaptive_auto_attack).  The attack
has 13 rounds.  From the second round on, a search starts with steps along a direction of the logits
(adaptive direction initialisation).  The second round draws random directions, and counts the signs
with which its searches succeeded; later rounds keep to these signs.  Later rounds make longer
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
from satbench.attacks.gradient.cosine import Climb, start_of
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Threat
from satbench.engine.ball import random_point
from satbench.engine.contract import Found, Hints, Informed, Model, NoiseOfSome, NoiseSource


@dataclass(frozen=True)
class Round:
    """One round: `restarts` searches on the `share` of images of least margin.

    A search has `along` steps along a direction of the logits, then `steps` steps on the margin.
    """

    share: float
    steps: int
    restarts: int = 1
    along: int = 7


_FIRST = (Round(1, 8, along=0), Round(1, 15), Round(1, 15))
ROUNDS = (
    *_FIRST,
    *(Round(0.7, 32), Round(0.6, 37), Round(0.5, 37), Round(0.4, 42), Round(0.3, 47)),
    *(Round(0.2, 52), Round(0.1, 57), Round(0.1, 57, 4), Round(0.065, 62, 4), Round(0.03, 67, 50)),
)
EASY_ROUNDS = (
    *_FIRST,
    *(Round(1, 15, 10, 10), Round(1, 20, 1, 15), Round(1, 25, 1, 15), Round(1, 20, 1, 10)),
    *(Round(1, 25, 1, 10), Round(1, 28, 1, 10), Round(1, 30, 1, 10), Round(0.8, 35, 5, 10)),
    *(Round(0.5, 45, 5, 10), Round(0.5, 55, 20, 10)),
)
"""The rounds of a model of which many images fall to the steps along a direction."""

_EASY = 0.05  # of the survivors of the first round: so many such falls make a model easy
_FINAL, _EASY_FINAL = 10, 11  # from this round on, the label's direction is drawn otherwise
_FEWEST = 100  # images that a round attacks, if there are so many
_NEARLY_ALL = 0.1  # if fewer survive, each round attacks all of them …
_MORE = 10  # … with so many more restarts
_AT_ONCE = 250  # images that the model is asked about together
_TARGETS = ((10, 9, 4), (100, 14, 14), (math.inf, 20, 20))
"""Of up to so many classes, so many are aimed at, and so many in the final rounds."""


@dataclass(frozen=True)
class A3(Informed):
    """The first `rounds` of the 13 rounds, on the images of a block.

    Successes are counted, and margins ranked, among the `block` images that are numbered together.
    Differs from the authors' code: there that is done among all images of the data set, those too
    that are wrong when clean, and a block holds only the images that are attacked; `block` makes
    results independent of batches and processes.  The label's share of a direction is drawn for
    each image, not for each batch.  The code's limit of 1,000 backwards an image, which a block of
    1,000 images does not reach, is left out, and so are its own numbers for ImageNet (10 steps and
    one restart more in each round).  An iterate is judged by the forward that gives the next
    gradient, so that a step costs one forward and not two, and a start is judged too.
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
        for number in range(self.rounds):
            run.do(number)
        return run.best


@dataclass
class _Rounds:
    """The images of a block under attack, and what was learnt of them.

    `best` has the points of least margin; `order` (N, K) the classes by their logits at a random
    corner of the ball, the largest first; `ups` the sums of the label's and of the answer's shares
    in the directions that succeeded; `calls` counts searches.  `after_first` images survived the
    first round, and `along` fell to steps along a direction.
    """

    model: Model
    x: Tensor
    y: Tensor
    threat: Threat
    noise: NoiseSource
    best: Found = field(init=False)
    order: Tensor = field(init=False)
    ups: tuple[float, float] = (0.0, 0.0)
    calls: int = 0
    after_first: int = 0
    along: int = 0

    def __post_init__(self) -> None:
        start = self.x
        if self.threat.norm == "linf":
            start = start_of("corner", self.x, self.threat, self.noise, Hints.none(self.x))
        with torch.no_grad():
            logits = torch.cat([self.model(part) for part in torch.split(start, _AT_ONCE)])
        self.best = Found(start.clone(), -losses.margin(logits, self.y).float())
        self.order = logits.argsort(dim=1, descending=True, stable=True)

    @property
    def signs(self) -> tuple[float, float]:
        """The signs of the label's and of the target's share that go with success."""
        label, answer = self.ups
        return 1.0 if label > 0 else -1.0, -1.0 if answer < 0 else 1.0

    @property
    def easy(self) -> bool:
        """Whether many images fell to the steps along a direction."""
        return self.along >= _EASY * self.after_first

    def do(self, number: int) -> None:
        """Do one round."""
        easy = number > 2 and self.easy
        one = (EASY_ROUNDS if easy else ROUNDS)[number]
        share, restarts = one.share, one.restarts
        if self._standing() < _NEARLY_ALL * len(self.x):
            share, restarts = 1.0, restarts + _MORE
        for _ in range(restarts):
            rows = self._weakest(share)
            if not len(rows):
                return
            directions = self._directions(rows, number, easy) if one.along else None
            fell = self._search(rows, directions, one)
            if number == 1:
                self._learn(rows, directions)
            self.along += fell
            self.calls += 1
        if number == 0:
            self.after_first = self._standing()

    def _standing(self) -> int:
        return int((self.best.margins > 0).sum())

    def _weakest(self, share: float) -> Tensor:
        """Return that share of the survivors, those of least margin, in the order of the block."""
        left = (self.best.margins > 0).nonzero().squeeze(1)
        count = max(int(share * len(left)), _FEWEST)
        ranked = left[self.best.margins[left].argsort(stable=True)]
        return ranked[:count].sort().values

    def _directions(self, rows: Tensor, number: int, easy: bool) -> Tensor:
        """Return the direction of the logits that each search sets out along, (R, K)."""
        classes = self.order.shape[1]
        drawn = self._drawn(rows, classes + 1)
        directions, last = drawn[:, :classes], drawn[:, classes:]
        if number == 1:
            return directions
        most, final_most = next(counts for upto, *counts in _TARGETS if classes <= upto)
        of_label, of_target = (1.0, 1.0) if easy else self.signs
        if classes >= 100 and not easy:
            of_label, of_target = -1.0, 1.0
        label = of_label * (0.2 + 0.3 * last)
        directions = self._aimed(directions, rows, label, 0.8 * of_target, most)
        if number < (_EASY_FINAL if easy else _FINAL):
            return directions
        label = torch.zeros_like(last) if easy else 0.45 * last - 0.35
        return self._aimed(directions, rows, label, 0.8, most if easy else final_most)

    def _aimed(
        self, directions: Tensor, rows: Tensor, label: Tensor, target: float, most: int
    ) -> Tensor:
        """Return directions with other shares of the label (R, 1) and of this search's target."""
        classes = self.order.shape[1]
        wrong = self.order[rows]
        wrong = wrong[wrong != self.y[rows, None]].view(len(rows), classes - 1)
        aim = wrong[:, (self.calls - 1) % most % (classes - 1), None]
        directions = directions.scatter(1, self.y[rows, None], classes / 10 * label)
        return directions.scatter(1, aim, torch.full_like(label, classes / 10 * target))

    def _search(self, rows: Tensor, directions: Tensor | None, one: Round) -> int:
        """Search from uniform points, and keep what is better than the best.

        Returns how many images fell to the steps along a direction.
        """
        held = np.zeros(len(self.x), bool)
        held[rows.cpu().numpy()] = True
        some = NoiseOfSome(self.noise, held)
        starts = random_point(self.x[rows], self.threat, some, 2 * self.calls + 2)
        lengths = [self.threat.radius] * one.along + _lengths(one.steps, self.threat.radius)
        fell = 0
        for part in torch.split(torch.arange(len(rows), device=rows.device), _AT_ONCE):
            these = rows[part]
            loss = _Directed(
                self.y[these], None if directions is None else directions[part], one.along
            )
            climb = Climb(self.model, self.x[these], self.y[these], self.threat, lengths)
            found = climb.run(starts[part], loss)
            better = found.margins < self.best.margins[these]
            self.best.margins[these[better]] = found.margins[better]
            self.best.x_adv[these[better]] = found.x_adv[better]
            fell += len(these) - loss.left
        return fell

    def _learn(self, rows: Tensor, directions: Tensor | None) -> None:
        """Sum up the directions with which searches succeeded."""
        fell = self.best.margins[rows] <= 0
        if directions is None or not bool(fell.any()):
            return
        there = self.best.x_adv[rows[fell]]
        with torch.no_grad():
            answers = torch.cat([self.model(part) for part in torch.split(there, _AT_ONCE)])
        label = directions[fell].gather(1, self.y[rows[fell], None]).sum()
        answer = directions[fell].gather(1, answers.argmax(1)[:, None]).sum()
        self.ups = (self.ups[0] + float(label), self.ups[1] + float(answer))

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


class _Directed:
    """The loss of a search; `left` images still stand after the steps along a direction."""

    def __init__(self, y: Tensor, directions: Tensor | None, along: int) -> None:
        self.y, self.directions, self.along = y, directions, along
        self.left = len(y) if directions is None else 0

    def __call__(self, logits: Tensor, rows: Tensor, done: int) -> Tensor:
        if self.directions is not None and done < self.along:
            return (logits * self.directions[rows]).sum(1)
        if self.directions is not None and done == self.along:
            self.left = int((logits.detach().argmax(1) == self.y[rows]).sum())
        return losses.margin(logits, self.y[rows])

"""The adaptive auto attack, A3: it learns from its successes how to start a search.

Liu et al., 2022, "Practical Evaluation of Adversarial Robustness via Adaptive Auto Attack"
(arXiv:2203.05154), as in the authors' code (github.com/liuye6666/adaptive_auto_attack).  The attack
has 13 rounds.  From the second round on, a search starts with steps along a direction of the logits
(adaptive direction initialisation).  The second round draws random directions, and counts the signs
with which its searches succeeded; later rounds use these signs.  Later rounds make longer searches
on fewer images, those of least margin (online statistics-based discarding).
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
"""The rounds for a model of which the steps along a direction break many images."""

_EASY = 0.05  # a model is easy if this share of the survivors of the first round breaks so
_FINAL, _EASY_FINAL = 10, 11  # from this round on, the label's direction is drawn otherwise
_FEWEST = 100  # images that a round attacks, if there are so many
_NEARLY_ALL = 0.1  # if fewer survive, each round attacks all of them …
_MORE = 10  # … with this many more restarts
_AT_ONCE = 250  # images in one forward pass
_TARGETS = ((10, 9, 4), (100, 14, 14), (math.inf, 20, 20))
"""The most classes, the number of targets, and that of the final rounds."""


@dataclass(frozen=True)
class A3(Informed):
    """The first `rounds` of the 13 rounds, on the images of a block.

    Successes are counted and margins ranked within a block of `block` consecutive images, so that
    results do not depend on batches and processes.  Differs from the authors' code: the code uses
    all images of the data set, including those that are wrong without an attack; a block has only
    images that are attacked.  The label's share of a direction is drawn for each image, not for
    each batch.  The code's limit of 1,000 backwards per image is left out, because a block of 1,000
    images does not reach it, and so are its own numbers for ImageNet (10 steps and one restart more
    in each round).  The predicted label of an iterate comes from the forward that gives the next
    gradient, so a step costs one forward instead of two, and the starting point counts too.
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
        """Perturb `x`; the points of earlier attacks are not used."""
        run = _Rounds(model, x, y, threat, noise)
        for number in range(self.rounds):
            run.do(number)
        return run.best


@dataclass
class _Rounds:
    """The images of a block under attack, and what was learnt about them.

    `best` has the points of least margin; `order` (N, K) the classes by their logits at a random
    corner of the ball, the largest first; `ups` the sums of the label's and of the answer's shares
    in the directions that succeeded; `calls` counts searches.  `after_first` images survived the
    first round, and steps along a direction broke `along`.
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
        self.best = Found(start.clone(), losses.label_margin(logits, self.y).float())
        self.order = logits.argsort(dim=1, descending=True, stable=True)

    @property
    def signs(self) -> tuple[float, float]:
        """The signs of the label's and of the target's share that led to success."""
        label, answer = self.ups
        return 1.0 if label > 0 else -1.0, -1.0 if answer < 0 else 1.0

    @property
    def easy(self) -> bool:
        """Whether the steps along a direction broke many images."""
        return self.along >= _EASY * self.after_first

    def do(self, number: int) -> None:
        """Run one round."""
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
        """Return a share of the survivors, those of least margin, in the order of the block."""
        left = (self.best.margins > 0).nonzero().squeeze(1)
        count = max(int(share * len(left)), _FEWEST)
        ranked = left[self.best.margins[left].argsort(stable=True)]
        return ranked[:count].sort().values

    def _directions(self, rows: Tensor, number: int, easy: bool) -> Tensor:
        """Return the direction of the logits in which each search starts, (R, K)."""
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
        """Search from uniform points, and keep points that are better than the best so far.

        Returns how many images the steps along a direction broke.
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
    """Return the lengths of the steps that follow those along a direction."""
    least = (0.1 if steps <= 10 else 0.001) * eps
    return [
        least + (eps - least) * (1 + math.cos(math.pi * number / (steps + 1))) / 2
        for number in range(steps)
    ]


class _Directed:
    """The loss of a search; `left` images survive the steps along a direction."""

    def __init__(self, y: Tensor, directions: Tensor | None, along: int) -> None:
        self.y, self.directions, self.along = y, directions, along
        self.left = len(y) if directions is None else 0

    def __call__(self, logits: Tensor, rows: Tensor, done: int) -> Tensor:
        if self.directions is not None and done < self.along:
            return (logits * self.directions[rows]).sum(1)
        if self.directions is not None and done == self.along:
            self.left = int((logits.detach().argmax(1) == self.y[rows]).sum())
        return losses.margin(logits, self.y[rows])

"""One run of Auto-PGD: its iterates, its step sizes, and when an image leaves the run.

Algorithm 1 of Croce & Hein, 2020 (arXiv:2003.01690), and algorithm 1 of Croce & Hein, 2021
(arXiv:2103.01208) in L1.  The order of operations is that of pyautoattack 0.2, because the sign of
a small gradient, and so the iterate, can depend on the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from satbench.core.threat import Norm
from satbench.engine.ball import l1_correction
from satbench.engine.contract import Model

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(B, K) logits, (B,) labels, (B,) targets -> (B,), to be maximised."""

_MOMENTUM = 0.75
_RISES = 0.75  # a window with no more than this share of rises halves the step
_CLEAR = 1e-4  # relative to the spread of the logits; the rounding of a fast copy is far smaller


@dataclass(frozen=True)
class Problem:
    """The input of a run. `last` is false if its radius is larger than that of the threat model."""

    x: Tensor
    y: Tensor
    target: Tensor
    norm: Norm
    eps: float
    last: bool


@dataclass(frozen=True)
class SearchResult:
    """The result of a run: which images were broken, (B,) bool, and the adversarial images.

    `best` are the iterates of highest loss; for images that left they are the start.
    """

    best: Tensor
    fooled: Tensor
    found: Tensor


@dataclass(frozen=True)
class Search:
    """Auto-PGD on one loss; `eot` gradients of a randomised model are averaged."""

    model: Model
    loss: Loss
    steps: int
    eot: int

    def run(
        self, problem: Problem, start: Tensor, steps: int, sparse_start: bool = False
    ) -> SearchResult:
        """Take `steps` steps from `start`.

        At the last radius an image leaves at its first iterate that is clearly misclassified.  If
        rounding decides, the image goes on, and its last misclassified iterate counts.  With
        `sparse_start`, L1 takes the number of pixels to change from the start.
        """
        best, found = start.clone(), start.clone()
        fooled = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        rows = _Rows.begin(problem, start)
        logits = self._evaluate(rows, gradient=steps > 0)
        rows.best_grad, rows.best_loss = rows.grad, rows.loss
        schedule = _schedule(problem, rows, steps, sparse_start)
        for number in range(steps + 1):
            if number:
                rows.move(schedule.step(rows, first=number == 1))
                logits = self._evaluate(rows, gradient=number < steps)
            if problem.last:
                wrong, clear = _wrong(logits, rows.y)
                hit = rows.index[wrong]
                found[hit], fooled[hit] = rows.x_adv[wrong], True
                if bool(clear.any()):
                    if bool(clear.all()):
                        break
                    _keep(rows, ~clear)
                    _keep(schedule, ~clear)
            if number and (number < steps or not problem.last):
                rows.improve()
                schedule.check(rows, number)
        best[rows.index] = rows.best
        return SearchResult(best, fooled, found)

    def _evaluate(self, rows: _Rows, gradient: bool) -> Tensor:
        """Set the loss, and the gradient if it is needed, at `x_adv`; return the logits."""
        if not gradient:
            logits = self.model(rows.x_adv)
            rows.loss = self.loss(logits, rows.y, rows.target)
            return logits
        total = torch.zeros_like(rows.x_adv)
        for _ in range(self.eot):
            x_adv = rows.x_adv.detach().requires_grad_()
            with torch.enable_grad():
                logits = self.model(x_adv)
                loss = self.loss(logits, rows.y, rows.target)
                total += torch.autograd.grad(loss.sum(), x_adv)[0]
        rows.grad, rows.loss = total / self.eot, loss.detach()
        return logits.detach()


def normalised(delta: Tensor, norm: Norm) -> Tensor:
    """Return `delta` scaled to norm 1 in Linf or L2; 0 is returned as 0. (B, …) -> (B, …)."""
    return delta / (_lengths(delta, norm) + 1e-12)


@dataclass
class _Rows:
    """The state of a run for the images in its batch, one row each."""

    index: Tensor  # rows of the problem
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    before: Tensor  # the iterate before x_adv
    grad: Tensor
    loss: Tensor
    best: Tensor
    best_grad: Tensor
    best_loss: Tensor
    step: Tensor  # (B, 1, 1, 1)

    @classmethod
    def begin(cls, problem: Problem, start: Tensor) -> _Rows:
        index = torch.arange(len(start), device=start.device)
        zero = start.new_zeros(len(start))
        step = start.new_full((len(start), *[1] * (start.dim() - 1)), problem.eps)
        if problem.norm != "l1":
            step = 2 * step
        return cls(
            index,
            problem.x,
            problem.y,
            problem.target,
            start,
            start,
            start,
            zero,
            start,
            start,
            zero,
            step,
        )

    def move(self, x_adv: Tensor) -> None:
        self.before, self.x_adv = self.x_adv, x_adv

    def improve(self) -> None:
        """Store the iterates whose loss is higher than all before."""
        better = self.loss > self.best_loss
        self.best_loss = torch.where(better, self.loss, self.best_loss)
        wide = better.view(self.step.shape)
        self.best = torch.where(wide, self.x_adv, self.best)
        self.best_grad = torch.where(wide, self.grad, self.best_grad)

    def back_to_best(self, which: Tensor) -> None:
        """Set the images of `which`, (B,) bool, back to their best iterate."""
        wide = which.view(self.step.shape)
        self.x_adv = torch.where(wide, self.best, self.x_adv)
        self.grad = torch.where(wide, self.best_grad, self.grad)


class _Schedule(Protocol):
    """The steps of a run, and the changes at its checkpoints."""

    def step(self, rows: _Rows, first: bool) -> Tensor:
        """Return the next iterates."""
        ...

    def check(self, rows: _Rows, number: int) -> None:
        """Update the schedule after step `number`; the first step is 1."""
        ...


def _schedule(problem: Problem, rows: _Rows, steps: int, sparse_start: bool) -> _Schedule:
    if problem.norm != "l1":
        return _Halving.begin(problem, rows, steps)
    return _Sparse.begin(problem, rows, steps, sparse_start)


@dataclass
class _Halving:
    """Linf and L2: steps with momentum; a checkpoint halves the step of an image in two cases.

    The loss rose in too few steps since the last checkpoint; or the last checkpoint kept the step,
    and the best loss has not risen since.
    """

    norm: Norm
    eps: float
    steps: int
    window: int
    due: int  # the step of the next checkpoint
    rises: Tensor
    last_loss: Tensor
    checked_loss: Tensor  # the best loss at the last checkpoint
    halved: Tensor  # whether the last checkpoint halved the step

    @classmethod
    def begin(cls, problem: Problem, rows: _Rows, steps: int) -> _Halving:
        window = max(int(0.22 * steps), 1)
        # The package compares the first loss with 0, not with that of the start.
        zero, yes = torch.zeros_like(rows.loss), torch.ones_like(rows.y, dtype=torch.bool)
        return cls(
            problem.norm, problem.eps, steps, window, window, zero, zero, rows.best_loss, yes
        )

    def step(self, rows: _Rows, first: bool) -> Tensor:
        if self.norm == "linf":
            low, high = (rows.x - self.eps).clamp_min(0), (rows.x + self.eps).clamp_max(1)
            ahead = (rows.x_adv + rows.step * rows.grad.sign()).clamp(low, high)
            return self._with_momentum(rows, ahead, first).clamp(low, high)
        ahead = rows.x_adv + rows.step * normalised(rows.grad, "l2")
        ahead = self._onto_l2_ball(ahead, rows.x)
        return self._onto_l2_ball(self._with_momentum(rows, ahead, first), rows.x)

    def _with_momentum(self, rows: _Rows, ahead: Tensor, first: bool) -> Tensor:
        share = 1.0 if first else _MOMENTUM
        inertia = (rows.x_adv - rows.before) * (1 - share)
        return rows.x_adv + (ahead - rows.x_adv) * share + inertia

    def _onto_l2_ball(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        lengths = _lengths(delta, "l2")
        return (x + delta / (lengths + 1e-12) * lengths.clamp_max(self.eps)).clamp(0, 1)

    def check(self, rows: _Rows, number: int) -> None:
        self.rises = self.rises + (rows.loss > self.last_loss)
        self.last_loss = rows.loss
        if number < self.due:
            return
        # Few rises mean that the step is too long and jumps over the maximum.  The second condition
        # is for a loss that oscillates: it can rise often and never exceed the best.  It does not
        # hold directly after a halving, so that the shorter step gets one window to work.
        stuck = ~self.halved & (self.checked_loss >= rows.best_loss)
        self.halved = (self.rises <= _RISES * self.window) | stuck
        rows.step = torch.where(self.halved.view(rows.step.shape), rows.step / 2, rows.step)
        rows.back_to_best(self.halved)  # a shorter step searches near the best iterate
        self.checked_loss, self.rises = rows.best_loss, torch.zeros_like(self.rises)
        shorter, shortest = (max(int(share * self.steps), 1) for share in (0.03, 0.06))
        self.window = max(self.window - shorter, shortest)
        self.due += self.window


@dataclass
class _Sparse:
    """L1: equal steps on the pixels of largest gradient, in number after those changed so far.

    At a checkpoint at which the best iterates have grown sparser the full step is taken up again
    from there, else the step shrinks, down to a tenth.
    """

    eps: float
    every: int  # steps between checkpoints
    share: Tensor  # of the pixels to step
    changed: Tensor  # pixels changed at the last checkpoint

    @classmethod
    def begin(cls, problem: Problem, rows: _Rows, steps: int, sparse_start: bool) -> _Sparse:
        every, pixels = max(int(0.04 * steps), 1), rows.x[0].numel()
        if sparse_start:
            changed = _changed(rows.x_adv, rows.x)
            return cls(problem.eps, every, changed / pixels / 1.5, changed)
        return cls(
            problem.eps, every, torch.full_like(rows.loss, 0.2), torch.full_like(rows.loss, pixels)
        )

    def step(self, rows: _Rows, first: bool) -> Tensor:
        flat = rows.grad.flatten(1)
        sizes, pixels = flat.abs(), flat.shape[1]
        place = ((1.0 - self.share) * pixels).clamp(0, pixels - 1).long()
        least = sizes.sort(1).values.gather(1, place[:, None])
        signs = (flat.sign() * (sizes >= least)).view_as(rows.x)
        count = signs.abs().flatten(1).sum(1).view(rows.step.shape)
        delta = rows.x_adv + rows.step * signs / (count + 1e-10) - rows.x
        # No clipping here: a pixel outside the box by rounding counts as changed in the package.
        return rows.x + delta + l1_correction(delta, rows.x, self.eps)

    def check(self, rows: _Rows, number: int) -> None:
        if number % self.every:
            return
        changed = _changed(rows.best, rows.x)
        sparser = changed / self.changed < 0.95
        self.share, self.changed = changed / rows.x[0].numel() / 1.5, changed
        shrunk = torch.where(sparser.view(rows.step.shape), self.eps, rows.step / 1.5)
        rows.step = shrunk.clamp(self.eps / 10, self.eps)
        rows.back_to_best(sparser)


def _lengths(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.flatten(1)
    lengths = flat.abs().amax(1) if norm == "linf" else flat.square().sum(1).sqrt()
    return lengths.view(-1, *[1] * (delta.dim() - 1))


def _changed(x_adv: Tensor, x: Tensor) -> Tensor:
    return (x_adv != x).flatten(1).sum(1)


def _wrong(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return which images are misclassified, and which of them beyond all rounding."""
    top, predicted = logits.max(1)
    wrong = predicted != y
    margin = top - logits.gather(1, y[:, None]).squeeze(1)
    return wrong, wrong & (margin > _CLEAR * (top - logits.amin(1)))


def _keep(state: object, which: Tensor) -> None:
    """Drop all rows but `which`, (B,) bool, from every tensor of a dataclass."""
    for field in fields(state):  # type: ignore[arg-type]
        value = getattr(state, field.name)
        if isinstance(value, Tensor):
            setattr(state, field.name, value[which])

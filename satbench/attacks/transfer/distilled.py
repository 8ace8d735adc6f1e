"""Attack a model without its gradients: query labels, train a smooth student, attack the student.

The black-box attack of Papernot et al., 2017, "Practical black-box attacks against machine
learning" (arXiv:1602.02697): a substitute learns from the target's labels (section 4, algorithm 1),
and what fools the substitute often fools the target.  Only labels of the target are used, and their
number is fixed in advance.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from satbench.attacks.transfer.student import Lesson, smooth_net
from satbench.calling.devices import device_of
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.noise import generator_for
from satbench.core.threat import Length, Threat
from satbench.engine.ball import project, random_point, steepest
from satbench.engine.contract import Attack, CountedSurrogates, Model, NoiseSource, of_any_batch
from satbench.engine.passes import CountingModel, Passes

EPS = Length(Fraction(1), relative=True)

_BATCH = 250  # images in one query of the target
_DECAY = 1.0  # of the momentum, as in MI-FGSM (Dong et al., 2018, arXiv:1710.06081)


@dataclass(frozen=True)
class Distilled:
    """Train a student on at most `queries` labels, and return images that fool the student.

    The first `seeds` queries are images of the split that are not under evaluation; if there are
    fewer, mixtures of two of them are added.  In each of `rounds` rounds, every labelled image
    gives a new one, `stride` away along the gradient of the student's logit of its label, until the
    queries are used up (Jacobian-based augmentation, equation 4; the sign is random, because points
    on both sides of the boundary teach most).  The student has `width` channels after its first
    convolution.  It is trained for `training` steps of 100 images in the last round and a quarter
    of them in each round before, on images moved by `hardening` of eps against it.

    The attack itself makes `steps` steps of momentum PGD on the student's margin from each of
    `restarts` points, the first of which is the image.  It does not query the target.
    """

    queries: int = 5000
    seeds: int = 1000
    rounds: int = 3
    stride: Length = EPS
    width: int = 8
    training: int = 600
    hardening: float = 0.25
    steps: int = 40
    restarts: int = 2

    uses_gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_at_least_one(
            "distilled", self, "queries", "seeds", "width", "training", "steps", "restarts"
        )
        if self.rounds < 0:
            raise SatbenchError(f"distilled: expected rounds of 0 or more, got {self.rounds}")
        if not 0 <= self.hardening <= 1:
            raise SatbenchError(
                f"distilled: expected hardening between 0 and 1 of eps, got {self.hardening:g}"
            )

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Raise SatbenchError: this attack needs its student."""
        raise SatbenchError("distilled needs its student first: call prepare, as the engine does")

    def prepare(
        self, target: Model, surrogates: CountedSurrogates, threat: Threat, seed: int
    ) -> Attack:
        """Query the labels, train the student, and return the attack on it.

        Raises SatbenchError if there is no image to start with.
        """
        draws = torch.Generator().manual_seed(int(generator_for(seed, "distilled").integers(2**31)))
        device = device_of(target) if isinstance(target, nn.Module) else torch.device("cpu")
        x = self._first_images(surrogates, draws).to(device)
        oracle = _Oracle(target, self.queries)
        labels = oracle.labels(x)
        passes = Passes()
        net = smooth_net(x, oracle.classes, self.width, draws.initial_seed())
        student = CountingModel(net, passes)
        radius = self.hardening * threat.radius
        early = Lesson(max(1, self.training // 4), radius, threat)
        for _ in range(self.rounds):
            if not oracle.left:
                break
            early.teach(student, x, labels, draws)
            chosen = torch.randperm(len(x), generator=draws)[: oracle.left].to(device)
            new = self._stepped(student, x[chosen], labels[chosen], threat, draws)
            x, labels = torch.cat((x, new)), torch.cat((labels, oracle.labels(new)))
        Lesson(self.training, radius, threat).teach(student, x, labels, draws)
        surrogates.spent(*passes.take())
        return _OnStudent(student, passes, surrogates, self.steps, self.restarts)

    def _first_images(self, surrogates: CountedSurrogates, draws: torch.Generator) -> Tensor:
        wanted = min(self.seeds, self.queries)
        pool = torch.from_numpy(surrogates.pool(wanted))[:wanted]
        if not len(pool):
            raise SatbenchError(
                "distilled has no images to query the model with: it takes those of the split that "
                "are not under evaluation, so evaluate fewer of a named data set (--n-examples)"
            )
        missing = wanted - len(pool)
        pairs = torch.randint(len(pool), (2, missing), generator=draws)
        share = torch.rand(missing, 1, 1, 1, generator=draws)
        return torch.cat((pool, share * pool[pairs[0]] + (1 - share) * pool[pairs[1]]))

    def _stepped(
        self,
        student: CountingModel,
        x: Tensor,
        labels: Tensor,
        threat: Threat,
        draws: torch.Generator,
    ) -> Tensor:
        sign = 2.0 * torch.randint(2, (len(x), 1, 1, 1), generator=draws).to(x.device) - 1
        stepped = []
        for part, y, side in zip(*(torch.split(t, _BATCH) for t in (x, labels, sign)), strict=True):
            leaf = part.clone().requires_grad_()
            with torch.enable_grad():
                row = student(leaf).gather(1, y[:, None]).sum()
            (grad,) = torch.autograd.grad(row, leaf)
            length = self.stride.within(threat)
            stepped.append((part + side * length * steepest(grad, threat, part)).clamp(0, 1))
        return torch.cat(stepped)


class _Oracle:
    """The target as the adversary sees it: a limited number of labels."""

    def __init__(self, target: Model, queries: int) -> None:
        self._target, self.left, self.classes = target, queries, 0

    def labels(self, x: Tensor) -> Tensor:
        """Query the labels of `x`. (N, C, H, W) -> (N,) int64; at least N queries must be left."""
        if len(x) > self.left:
            raise ValueError(f"{len(x)} queries asked, {self.left} left")
        self.left -= len(x)
        with torch.no_grad():
            answers = [self._target(part) for part in torch.split(x, _BATCH)]
        self.classes = answers[0].shape[1]
        return torch.cat([logits.argmax(1) for logits in answers])


@dataclass(frozen=True)
class _OnStudent:
    """Momentum PGD on the margin of a student (Dong et al., 2018, arXiv:1710.06081)."""

    student: CountingModel
    passes: Passes
    lender: CountedSurrogates
    steps: int
    restarts: int

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`; return the best restart by the student's margin."""
        best, margins = self._run(x, y, threat, x)
        for restart in range(1, self.restarts):
            x_adv, margin = self._run(x, y, threat, random_point(x, threat, noise, restart))
            better = margin > margins
            best[better], margins[better] = x_adv[better], margin[better]
        self.lender.spent(*self.passes.take())
        return best

    def _run(self, x: Tensor, y: Tensor, threat: Threat, start: Tensor) -> tuple[Tensor, Tensor]:
        x_adv, momentum = start, torch.zeros_like(x)
        step = 2.5 * threat.radius / self.steps
        for _ in range(self.steps):
            leaf = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                margin = _margin(self.student(leaf), y)
            (grad,) = torch.autograd.grad(margin.sum(), leaf)
            length = grad.flatten(1).abs().mean(1).clamp_min(1e-12).view(-1, 1, 1, 1)
            momentum = _DECAY * momentum + grad / length
            x_adv = project(x_adv.detach() + step * steepest(momentum, threat, x_adv), x, threat)
        with torch.no_grad():
            return x_adv, _margin(self.student(x_adv), y)


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the best other logit minus the label's: above 0 if misclassified."""
    of_label = logits.gather(1, y[:, None]).squeeze(1)
    rival = logits.scatter(1, y[:, None], -torch.inf).max(1).values
    return rival - of_label

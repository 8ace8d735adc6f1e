"""Robust accuracy under the same PGD, as a user of each package would compute it.

The attack has no random start, steps of eps/4, and takes the whole batch at once.  Each contestant
does the whole job: it begins with a model, images and labels, and ends with which images survive.
For the peers that is what their documentation tells a user to write: a clean pass, the attack's
call, a pass of what came back.  `early_stopping` is what a user would write by hand.  Peers are
imported when they are first called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import satbench
from satbench.core.threat import Threat
from satbench.data import Dataset

PACKAGES = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "adv-lib")

PLACE = torch.device("cpu")
"""The device of images and models; `gpu.py` sets another."""

Contestant = Callable[[nn.Module, Dataset, Threat, int], Tensor]
"""(model, images, threat, steps) -> which images survive, (N,) bool."""

Attack = Callable[[nn.Module, Tensor, Tensor, float, int], Tensor]
"""(model, x, y, eps, steps) -> x_adv, (N, C, H, W)."""


def evaluate(
    model: nn.Module, images: Dataset, threat: Threat, steps: int, keep: str = "any"
) -> Tensor:
    """Call satbench.evaluate: preflight, PGD, judge, diagnosis, record and witnesses on the disk.

    By default an image that is broken leaves the batch; with `keep` last the last iterate counts,
    as with the peers.
    """
    x, y = tensors(images)
    attack = f"pgd(steps={steps},start=clean,keep={keep})"
    record = satbench.evaluate(model, x, y, attacks=attack, eps=str(threat.eps), out=None)
    return torch.tensor(record.verdicts) == -1


def attack(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
    """Call satbench.attack, and ask the model about what comes back."""
    x, y = tensors(images)
    x_adv = satbench.attack(model, x, y, f"pgd(steps={steps},start=clean)", eps=str(threat.eps))
    return right(model, x_adv, y)


def early_stopping(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
    """Run PGD in a bare loop, in which an image that is broken leaves the batch."""
    x, y = tensors(images)
    eps, x_adv = threat.radius, x.clone()
    survives = right(model, x, y)
    rows = survives.nonzero().flatten()
    for _ in range(steps):
        if not len(rows):
            break
        leaf = x_adv[rows].requires_grad_()
        logits = model(leaf)
        holds = logits.argmax(1) == y[rows]
        loss = F.cross_entropy(logits, y[rows], reduction="sum")
        (grad,) = torch.autograd.grad(loss, leaf)
        rows = rows[holds]
        ahead = leaf.detach()[holds] + eps / 4 * grad[holds].sign()
        x_adv[rows] = (x[rows] + (ahead - x[rows]).clamp(-eps, eps)).clamp(0, 1)
    return survives & right(model, x_adv, y)


def foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Foolbox's LinfPGD; its call judges too, with one forward."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import foolbox as package

    made = package.attacks.LinfPGD(abs_stepsize=eps / 4, steps=steps, random_start=False)
    wrapped = package.PyTorchModel(model, bounds=(0, 1))
    x_adv: Tensor = made(wrapped, x, y, epsilons=eps)[1]
    return x_adv


def torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Run torchattacks' PGD."""
    import torchattacks as package

    made = package.PGD(model, eps=eps, alpha=eps / 4, steps=steps, random_start=False)
    x_adv: Tensor = made(x, y)
    return x_adv


def art(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Run the Adversarial Robustness Toolbox's ProjectedGradientDescent."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classes = model(x[:1]).shape[1]
    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), x.shape[1:], classes, clip_values=(0.0, 1.0)
    )
    made = ProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=eps,
        eps_step=eps / 4,
        max_iter=steps,
        batch_size=len(x),
        verbose=False,
    )
    return torch.from_numpy(made.generate(x.numpy(), y.numpy()))


def adv_lib(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """adv-lib's pgd_linf: the last misclassified iterate of the first `steps`, else the image."""
    from adv_lib.attacks import pgd_linf

    x_adv: Tensor = pgd_linf(
        model, x, y, eps, steps=steps, random_init=False, absolute_step_size=eps / 4
    )
    return x_adv


def whole_job(attack: Attack) -> Contestant:
    """Return a peer's attack with the passes before and after it, which tell what survives."""

    def contestant(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
        x, y = tensors(images)
        clean = right(model, x, y)
        return clean & right(model, attack(model, x, y, threat.radius, steps), y)

    return contestant


BASE, LOOP = "satbench.evaluate", "early-stopping loop"
CONTESTANTS: dict[str, Contestant] = {
    BASE: evaluate,
    "satbench.attack": attack,
    LOOP: early_stopping,
    "torchattacks": whole_job(torchattacks),
    "foolbox": whole_job(foolbox),
    "ART": whole_job(art),
    "adv-lib": whole_job(adv_lib),
}


@torch.no_grad()
def right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return which images the model gets right, (N,) bool."""
    correct: Tensor = model(x).argmax(1) == y
    return correct


def tensors(images: Dataset) -> tuple[Tensor, Tensor]:
    """Return x (N, C, H, W) float32 in [0, 1] and y (N,) int64, on `PLACE`."""
    rows = np.arange(len(images))
    x, y = torch.from_numpy(images.pixels(rows)), torch.from_numpy(images.labels.copy())
    return x.to(PLACE), y.to(PLACE)

"""The same PGD by five packages: no random start, steps of eps/4, the whole batch at once.

Each contestant is what its package's documentation tells a user to write.  Peers are imported
when they are first called.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from harness import run_engine
from torch import Tensor, nn

from satbench.attacks.suites.suite import parse_suite
from satbench.core.threat import Threat
from satbench.data import Dataset

PACKAGES = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "adv-lib")

Contestant = Callable[[nn.Module, Dataset, Threat, int], Tensor]
"""(model, images, threat, steps) -> which images survive, (N,) bool, or x_adv, (N, C, H, W)."""


ENGINE = {
    "satbench": "pgd(steps={steps},start=clean)",  # an image that is broken leaves the batch
    "satbench, keep=last": "pgd(steps={steps},start=clean,keep=last)",  # as the peers do it
}


def evaluate(
    name: str, model: nn.Module, images: Dataset, threat: Threat, steps: int
) -> tuple[Tensor, tuple[int, int]]:
    """Run one of `ENGINE`; return which images survive, (N,), and all forwards and backwards."""
    suite = parse_suite([ENGINE[name].format(steps=steps)])
    survivors, journal = run_engine(model, images, threat, suite)
    forwards, backwards = journal.search_passes()
    return torch.from_numpy(survivors), (forwards + journal.judged(), backwards)


def satbench(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
    """Run the engine as it comes."""
    return evaluate("satbench", model, images, threat, steps)[0]


def satbench_last(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
    """Run the engine; the last iterate counts, as with the peers, and no image leaves."""
    return evaluate("satbench, keep=last", model, images, threat, steps)[0]


def foolbox(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
    """Foolbox's LinfPGD; its call judges too, with one forward."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import foolbox as package

    x, y = tensors(images)
    attack = package.attacks.LinfPGD(
        abs_stepsize=threat.radius / 4, steps=steps, random_start=False
    )
    wrapped = package.PyTorchModel(model, bounds=(0, 1))
    x_adv: Tensor = attack(wrapped, x, y, epsilons=threat.radius)[1]
    return x_adv


def torchattacks(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
    """Run torchattacks' PGD."""
    import torchattacks as package

    x, y = tensors(images)
    eps = threat.radius
    attack = package.PGD(model, eps=eps, alpha=eps / 4, steps=steps, random_start=False)
    x_adv: Tensor = attack(x, y)
    return x_adv


def art(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
    """Run the Adversarial Robustness Toolbox's ProjectedGradientDescent."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    x, y = tensors(images)
    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), images.shape, images.classes, clip_values=(0.0, 1.0)
    )
    attack = ProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=threat.radius,
        eps_step=threat.radius / 4,
        max_iter=steps,
        batch_size=len(x),
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def adv_lib(model: nn.Module, images: Dataset, threat: Threat, steps: int) -> Tensor:
    """adv-lib's pgd_linf: the last misclassified iterate of the first `steps`, else the image."""
    from adv_lib.attacks import pgd_linf

    x, y = tensors(images)
    x_adv: Tensor = pgd_linf(
        model,
        x,
        y,
        threat.radius,
        steps=steps,
        random_init=False,
        absolute_step_size=threat.radius / 4,
    )
    return x_adv


BASE = "satbench"
CONTESTANTS: dict[str, Contestant] = {
    BASE: satbench,
    "satbench, keep=last": satbench_last,
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "ART": art,
    "adv-lib": adv_lib,
}


def tensors(images: Dataset) -> tuple[Tensor, Tensor]:
    """Return x (N, C, H, W) float32 in [0, 1] and y (N,) int64."""
    rows = np.arange(len(images))
    return torch.from_numpy(images.pixels(rows)), torch.from_numpy(images.labels.copy())

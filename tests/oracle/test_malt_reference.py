"""MALT as published, against targets ordered class by class and the package's own Auto-PGD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack_targeted
from torch import Tensor, nn

from satbench.attacks.gradient.malt import PublishedMALT
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.judge import broken
from satbench.engine.passes import CountingModel, Passes
from satbench.models import LoadedModel


def nearest(model: nn.Module, x: Tensor, y: int, norm: str) -> list[int]:
    """Return the wrong classes of one image, those of least linearised distance first."""
    distances = {}
    for label in range(10):
        leaf = x[None].clone().requires_grad_()
        logits = model(leaf)[0]
        if label != y:
            (slope,) = torch.autograd.grad(logits[label] - logits[y], leaf)
            length = slope.abs().sum() if norm == "linf" else slope.square().sum().sqrt()
            distances[label] = float((logits[y] - logits[label]).detach() / length)
    return sorted(distances, key=distances.__getitem__)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("threat", ["linf:0.1", "l2:1.5"])
def test_each_image_has_the_verdict_of_the_package_on_the_nearest_targets(
    threat: str, fashion: Dataset, shipped: LoadedModel
) -> None:
    model, parsed, steps, targets = shipped.module.requires_grad_(False), Threat.parse(threat), 6, 3
    x, y = torch.from_numpy(fashion.pixels(np.arange(40))), torch.from_numpy(fashion.labels[:40])
    noise = Noise(0, "malt", tuple(range(40)), block=1)
    right = (model(x).argmax(1) == y).nonzero().squeeze(1)
    orders = {int(k): nearest(model, x[k], int(y[k]), parsed.norm) for k in right}
    package = APGDAttack_targeted(
        model,
        n_iter=steps,
        n_target_classes=targets,
        norm={"linf": "Linf", "l2": "L2"}[parsed.norm],
        eps=parsed.radius,
    )
    package.init_hyperparam(x)
    left = right
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(noise.block_seed())
        for number in range(targets):
            package.y_target = torch.tensor([orders[int(k)][number] for k in left])
            _, held, *_ = package.attack_single_run(x[left], y[left])
            left = left[held]
    expected = torch.ones(40, dtype=torch.bool)
    expected[left] = False

    x_adv = PublishedMALT(steps, targets)(model, x, y, parsed, noise)

    assert expected.tolist() == broken(model, x, x_adv, y, parsed).tolist()
    assert 3 < len(left) < len(right) - 3
    assert len({tuple(order[:3]) for order in orders.values()}) > 5


def test_a_robust_image_costs_a_forward_and_a_backward_per_class_and_its_searches() -> None:
    class Robust(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1e-3 * x.flatten(1) * torch.arange(5.0) + torch.tensor([9.0, 0, 0, 0, 0])

    passes, x = Passes(), torch.full((2, 1, 1, 1), 0.5)
    y, noise = torch.zeros(2, dtype=torch.int64), Noise(0, "malt", (0, 1))

    PublishedMALT(7, 3)(CountingModel(Robust(), passes), x, y, Threat.parse("linf:0.1"), noise)

    # One forward when clean, one for all four distances, one at each start and after each step.
    assert (2 * (1 + 1 + 3 * 8), 2 * (4 + 3 * 7)) == passes.take()

"""Code of other projects gives the same verdicts on a shipped model and real images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.ball import random_point
from satbench.engine.judge import broken
from satbench.models import LoadedModel

STEPS = 10
THREATS = {"linf": Threat.parse("linf:0.1"), "l2": Threat.parse("l2:1")}

Search = Callable[[nn.Module, Tensor, Tensor, Tensor, Threat], Tensor]
"""(model, x, y, start, threat) -> x_adv: `STEPS` steps of eps/4, the last iterate."""


@pytest.fixture(scope="module")
def foolbox() -> ModuleType:
    """Import foolbox, which warns about a scipy name that it uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please import `gaussian_filter`", DeprecationWarning)
        import foolbox
    return foolbox


@pytest.fixture
def by_foolbox(foolbox: ModuleType) -> Search:
    """Return Foolbox's projected gradient descent."""

    def search(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, threat: Threat) -> Tensor:
        kinds = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}

        class FromStart(kinds[threat.norm]):  # type: ignore[misc]
            def get_random_start(self, x0: Any, epsilon: float) -> Any:
                return type(x0)(start)

        attack = FromStart(abs_stepsize=threat.radius / 4, steps=STEPS, random_start=True)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        criterion = foolbox.criteria.Misclassification(y)
        x_adv: Tensor = attack.run(wrapped, x, criterion, epsilon=threat.radius)
        return x_adv

    return search


@pytest.fixture
def by_plain_loop() -> Search:
    """Return the loop of torchattacks, written out: mean loss, a new leaf tensor each step."""

    def search(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, threat: Threat) -> Tensor:
        eps, step, x_adv = threat.radius, threat.radius / 4, start.clone().detach()
        for _ in range(STEPS):
            x_adv.requires_grad = True
            grad = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)[0]
            if threat.norm == "linf":
                x_adv = x_adv.detach() + step * grad.sign()
                delta = torch.clamp(x_adv - x, min=-eps, max=eps)
            else:
                lengths = torch.norm(grad.view(len(x), -1), p=2, dim=1)
                x_adv = x_adv.detach() + step * grad / lengths.view(-1, 1, 1, 1)
                lengths = torch.norm((x_adv - x).view(len(x), -1), p=2, dim=1)
                factor = torch.min(eps / lengths, torch.ones_like(lengths))
                delta = (x_adv - x) * factor.view(-1, 1, 1, 1)
            x_adv = torch.clamp(x + delta, min=0, max=1).detach()
        return x_adv

    return search


@pytest.mark.sampled(1)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("reference", ["by_foolbox", "by_plain_loop"])
def test_pgd_gives_the_same_verdicts_as_the_reference_image_by_image(
    reference: str,
    norm: Literal["linf", "l2"],
    request: pytest.FixtureRequest,
    shipped: LoadedModel,
    fashion: Dataset,
) -> None:
    model, threat, rows = shipped.module.requires_grad_(False), THREATS[norm], np.arange(50)
    x, y = torch.from_numpy(fashion.pixels(rows)), torch.from_numpy(fashion.labels[rows])
    noise = Noise(0, "pgd", tuple(rows.tolist()))
    search: Search = request.getfixturevalue(reference)
    expected = search(model, x, y, random_point(x, threat, noise), threat)

    got = parse_attack(f"pgd(steps={STEPS},keep=last)")(model, x, y, threat, noise)

    verdicts = broken(model, x, expected, y, threat)
    assert broken(model, x, got, y, threat).tolist() == verdicts.tolist()
    assert 5 < verdicts.sum() < 45
    # Rounding may flip the sign of a gradient that is nearly 0, and move the pixel the other way.
    # This is allowed for 1 pixel in 1,000.
    assert ((got - expected).abs() <= 1e-6).double().mean() >= 0.999

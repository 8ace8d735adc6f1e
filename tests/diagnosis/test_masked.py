from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.attacks.gradient.pgd import PGD
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.judge import predict
from satbench.model_zoo import masked
from satbench.models import load_model, request_model
from satbench.preflight.preflight import check_set_up

LINF = Threat.parse("linf:0.1")
N = 40
Factory = Callable[[], nn.Module]

every_mask = pytest.mark.parametrize(
    "factory",
    [masked.hard_labels, masked.rounding, masked.saturated, masked.noisy, masked.detached],
)


def robust(model: nn.Module, data: Dataset) -> tuple[int, Tensor]:
    """Return how many images are right after PGD-10, and its images."""
    x = torch.from_numpy(data.pixels(np.arange(N)))
    y = torch.from_numpy(data.labels[:N])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x_adv = PGD(steps=10)(
            model.requires_grad_(False), x, y, LINF, Noise(0, "pgd", tuple(range(N)))
        )
        right = (predict(model, x) == y) & (predict(model, x_adv) == y)
    return int(right.sum()), x_adv


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return load_model(request_model(masked.WRAPPED), 10).module.requires_grad_(False)


@every_mask
def test_a_masked_model_is_found_by_its_name(factory: Factory) -> None:
    request = request_model(f"satbench.model_zoo.masked:{factory.__name__}")

    assert type(load_model(request, 10).module) is type(factory())


@every_mask
def test_a_masked_model_passes_preflight(factory: Factory, fashion: Dataset) -> None:
    check_set_up(factory(), fashion.first(N), LINF)


@every_mask
def test_a_masked_model_classifies_clean_images_as_the_net_does(
    factory: Factory, plain: nn.Module, fashion: Dataset
) -> None:
    x = torch.from_numpy(fashion.pixels(np.arange(N)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        alike = (predict(factory(), x) == predict(plain, x)).float().mean()

    assert alike >= 0.85


def test_pgd_breaks_every_image_of_the_net_without_a_mask(
    plain: nn.Module, fashion: Dataset
) -> None:
    assert robust(plain, fashion)[0] == 0


@pytest.mark.parametrize(
    ("factory", "least"),
    [
        (masked.hard_labels, 30),
        (masked.rounding, 30),
        (masked.saturated, 30),
        (masked.detached, 25),
        (masked.noisy, 5),
    ],
)
def test_pgd_takes_a_masked_model_for_robust(
    factory: Factory, least: int, fashion: Dataset
) -> None:
    assert robust(factory(), fashion)[0] >= least


@pytest.mark.parametrize(
    ("factory", "most"),
    [(masked.hard_labels, 0), (masked.saturated, 0), (masked.detached, 0), (masked.rounding, 10)],
)
def test_images_made_on_the_net_itself_break_a_masked_model(
    factory: Factory, most: int, plain: nn.Module, fashion: Dataset
) -> None:
    _, x_adv = robust(plain, fashion)

    right = predict(factory(), x_adv) == torch.from_numpy(fashion.labels[:N])

    assert int(right.sum()) <= most


@every_mask
def test_making_a_masked_model_leaves_the_global_generators_alone(
    factory: Factory, global_generators: None
) -> None:
    factory()

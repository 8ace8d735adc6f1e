"""The gradient measures: exact answers on losses that are known, and what they cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.diagnosis.gradient_quality import MEASURES, PURPOSE, gradient_measures, measure
from satbench.engine.passes import CountingModel, Passes

LINF = Threat.parse("linf:0.1")
Loss = Callable[[Tensor], Tensor]
MakeNet = Callable[..., nn.Module]


class Known(nn.Module):
    """Two classes, float64, such that the cross-entropy at label 0 is a given function above 0.

    With logits (0, z) it is log(1 + exp(z)), which is q for z = log(exp(q) - 1).
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Tensor) -> Tensor:
        z = self.loss(x.double().flatten(1)).expm1().log()
        return torch.stack([torch.zeros_like(z), z], 1)


class Given:
    """Noise that is the same for every pixel of every image: a value for each draw."""

    def __init__(self, images: int, *draws: float) -> None:
        self.images, self.draws = images, draws

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        return np.full((self.images, *shape), self.draws[restart], np.float32)

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        raise AssertionError("not drawn in Linf")

    def block_seed(self, restart: int = 0) -> int:
        raise AssertionError("not drawn here")


def measures_of(loss: Loss, x: Tensor, *draws: float) -> dict[str, float]:
    """Return the measures of one flat image of float64 with one draw nearby.

    `draws` are that one, the start of PGD and the start of the search for the linearity error.
    """
    image = x.double().view(1, 1, 1, -1)
    label = torch.zeros(1, dtype=torch.long)
    found = measure(Known(loss), image, label, LINF, Given(1, *draws), draws=1)
    return {name: value.item() for name, value in found.items()}


def noise_of(n: int) -> Noise:
    return Noise(0, PURPOSE, tuple(range(n)))


def batch(n: int = 6) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    images = generator.random((n, 1, 8, 8), np.float32)
    return images, generator.integers(0, 5, n), np.arange(n)


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.5", "l1:3"])
def test_a_logistic_model_has_one_gradient_direction(threat: str) -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(16, generator=generator)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False)
    net[1].weight.copy_(torch.stack([-w, w]))
    x = torch.rand(5, 1, 4, 4, generator=generator)

    found = measure(net, x, torch.arange(5) % 2, Threat.parse(threat), noise_of(5))

    ones = torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(found["gradient cosine"], ones)
    torch.testing.assert_close(found["path cosine"], ones)
    assert torch.equal(found["sign flips"], 0 * ones)


def test_a_linear_loss_is_as_its_gradient_says() -> None:
    w = torch.tensor([1.0, -2.0, 0.0, 3.0], dtype=torch.float64)

    found = measures_of(lambda x: 5 + x @ w, torch.full((4,), 0.5), 0.5, -0.5, 0.3)

    assert found == pytest.approx(
        {
            "gradient cosine": 1,
            "path cosine": 1,
            "sign flips": 0,
            "gradient Lipschitz, mean": 0,
            "gradient Lipschitz, max": 0,
            "linearity error": 0,
            "single-step share": 1,
            "zero entries": 0.25,
            "vanished gradients": 0,
        },
        abs=1e-6,
    )


def bowl(x: Tensor) -> Tensor:
    return 1 + 3 * (x - 0.25).square().sum(1)


def test_the_gradient_of_a_quadratic_loss_changes_by_the_inverse_distance_to_its_centre() -> None:
    # ‖6η‖ / (‖6(x - c)‖ ‖η‖)
    x = torch.tensor([0.5, 0.75, 0.4])

    found = measures_of(bowl, x, 0.5, 0.0, 0.0)

    expected = 1 / (x - 0.25).norm().item()
    assert found["gradient Lipschitz, mean"] == pytest.approx(expected, rel=1e-6)
    assert found["gradient Lipschitz, max"] == pytest.approx(expected, rel=1e-6)


def test_the_linearity_error_of_a_quadratic_loss_is_its_second_order_term() -> None:
    # at the corners of the ball 3 d eps², and the largest rise is 6 eps ‖x - c‖₁ + 3 d eps²
    x = torch.tensor([0.5, 0.75, 0.4])

    found = measures_of(bowl, x, 0.5, 0.0, 0.2)

    term = 3 * 3 * 0.1**2
    expected = term / (6 * 0.1 * (x - 0.25).abs().sum().item() + term)
    assert found["linearity error"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("start", "largest"), [(0.3, 0.15), (-0.3, 0.15 + 0.03)])
def test_the_linearity_error_is_found_below_the_linearisation_too(
    start: float, largest: float
) -> None:
    # The truth falls 3 eps² short of the linearisation, 1.5 eps up or down, whichever side the
    # search starts on; down there the truth changes more than the linearisation.
    found = measures_of(
        lambda x: 5 - 3 * (x - 0.75).square().sum(1), torch.tensor([0.5]), 0.5, 0.0, start
    )

    assert found["linearity error"] == pytest.approx(0.03 / largest, rel=1e-5)


def kinked(x: Tensor) -> Tensor:
    """Its gradient is (3, 4) where the pixels sum to less than 1, and (3, 4) - (7, 7) beyond."""
    return 5 + 3 * x[:, 0] + 4 * x[:, 1] - 7 * torch.relu(x.sum(1) - 1)


def test_across_a_kink_the_cosine_and_the_signs_are_those_of_both_sides() -> None:
    found = measures_of(kinked, torch.tensor([0.48, 0.48]), 0.5, -1.0, 0.0)

    assert found["gradient cosine"] == pytest.approx(-24 / 25)
    assert found["sign flips"] == 1
    assert found["gradient Lipschitz, mean"] == pytest.approx(7 / 5 / 0.05, rel=1e-5)


def test_draws_are_averaged_and_the_steepest_is_kept() -> None:
    x = torch.full((1, 1, 1, 2), 0.48, dtype=torch.float64)
    noise = Given(1, 0.5, -0.5, 0.0, 0.0)

    found = measure(Known(kinked), x, torch.zeros(1, dtype=torch.long), LINF, noise, draws=2)

    steep = 7 / 5 / 0.05
    assert found["gradient cosine"].item() == pytest.approx((1 - 24 / 25) / 2)
    assert found["sign flips"].item() == 0.5
    assert found["gradient Lipschitz, mean"].item() == pytest.approx(steep / 2, rel=1e-5)
    assert found["gradient Lipschitz, max"].item() == pytest.approx(steep, rel=1e-5)


def hat(x: Tensor) -> Tensor:
    """It rises with slope 1 up to 0.55, and falls with slope 1/2 beyond."""
    return (2 + x - 1.5 * torch.relu(x - 0.55)).squeeze(1)


@pytest.mark.parametrize("start", [0.0, -0.25])
def test_a_single_step_past_the_peak_has_its_share_of_the_rise(start: float) -> None:
    # PGD comes upon the peak, 0.05 above, and from -0.25 eps leaves it again with its last step;
    # one step of eps ends up 0.05 beyond it, 0.025 above
    found = measures_of(hat, torch.tensor([0.5]), 0.1, start, 0.0)

    assert found["single-step share"] == pytest.approx(0.5, rel=1e-4)


def test_the_path_counts_every_pair_of_consecutive_gradients() -> None:
    # from 0.5 by steps of 0.025: 0.525, over the peak at 0.54 to 0.55, and back again and again
    found = measures_of(
        lambda x: (2 + x - 1.5 * torch.relu(x - 0.54)).squeeze(1), torch.tensor([0.5]), 0.1, 0, 0
    )

    # signs of the 10 gradients: + + - + - + - + - +, so 1 pair agrees and 8 do not
    assert found["path cosine"] == pytest.approx((1 - 8) / 9)


def test_the_share_of_zeros_and_vanished_gradients_are_told_and_the_rest_is_undefined() -> None:
    found = measures_of(
        lambda x: 2 + torch.relu(x - 0.55).sum(1), torch.tensor([0.5, 0.5]), 1.0, 0.0, 0.0
    )

    assert (found.pop("zero entries"), found.pop("vanished gradients")) == (1, 1)
    assert all(np.isnan(value) for value in found.values())


def test_a_gradient_that_vanishes_nearby_has_nothing_in_common() -> None:
    found = measures_of(
        lambda x: 2 + torch.relu(x - 0.45).sum(1), torch.tensor([0.5, 0.5]), -1.0, 0.0, 0.0
    )

    assert (found["gradient cosine"], found["sign flips"]) == (0, 1)


def test_of_a_model_without_a_gradient_every_gradient_vanishes() -> None:
    model = Known(lambda x: 1 + x.detach().sum(1))
    images, labels, indices = batch()

    found = gradient_measures(model, images, labels * 0, indices, LINF, 0, 4)

    assert found == {"zero entries": 1, "vanished gradients": 1}


def test_undefined_images_are_left_out_of_the_mean() -> None:
    # constant where the first pixel is 0, linear where it is 1
    w = torch.tensor([0.0, 1.0, 2.0, 2.0], dtype=torch.float64)
    model = Known(lambda x: 5 + (x[:, 0] > 0.5) * (x @ w))
    images = np.full((4, 1, 2, 2), 0.5, np.float32)
    images[:, 0, 0, 0] = [0, 1, 0, 0]

    found = gradient_measures(model, images, np.zeros(4, np.int64), np.arange(4), LINF, 0, 3)

    assert found["vanished gradients"] == 0.75
    assert found["zero entries"] == (3 + 0.25) / 4
    assert found["gradient cosine"] == pytest.approx(1)
    assert found["single-step share"] == pytest.approx(1)


@pytest.mark.parametrize("factor", [1e-3, 1e2])
def test_no_measure_depends_on_the_scale_of_the_loss(factor: float) -> None:
    x = torch.tensor([0.48, 0.48])

    def bent(x: Tensor) -> Tensor:
        return 0.1 * kinked(x) * bowl(x)

    found = measures_of(lambda x: factor * bent(x), x, 0.5, 0.3, -0.2)

    assert found == pytest.approx(measures_of(bent, x, 0.5, 0.3, -0.2), rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_means_do_not_depend_on_the_batch_size(batch_size: int, small_net: MakeNet) -> None:
    net, data = small_net().double(), batch()
    doubled = Doubled(net)

    found = gradient_measures(doubled, *data, LINF, 0, batch_size)

    assert found == pytest.approx(gradient_measures(doubled, *data, LINF, 0, 6), rel=1e-9)
    assert list(found) == list(MEASURES)


def test_the_means_do_not_depend_on_the_order(small_net: MakeNet) -> None:
    doubled, data = Doubled(small_net().double()), batch()
    order = np.array([3, 5, 0, 2, 1, 4])

    found = gradient_measures(doubled, *(part[order] for part in data), LINF, 0, 4)

    assert found == pytest.approx(gradient_measures(doubled, *data, LINF, 0, 4), rel=1e-9)


def test_another_seed_draws_other_points(small_net: MakeNet) -> None:
    doubled, data = Doubled(small_net().double()), batch()

    found = [gradient_measures(doubled, *data, LINF, seed, 6)["gradient cosine"] for seed in (0, 1)]

    assert found[0] != found[1]


class Doubled(nn.Module):
    """A net of float64 for images of float32, so that rounding turns no sign."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.double())
        return logits


@pytest.mark.parametrize("draws", [1, 3])
def test_an_image_costs_24_forwards_and_21_backwards_beside_its_draws(
    draws: int, small_net: MakeNet
) -> None:
    passes, n = Passes(), 6
    images, labels, _ = batch(n)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)

    measure(CountingModel(small_net(), passes), x, y, LINF, noise_of(n), draws)

    assert passes == Passes(n * (draws + 24), n * (draws + 21))


def test_the_model_is_unchanged(small_net: MakeNet, global_generators: None) -> None:
    net = small_net().train().requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    gradient_measures(net, *batch(), LINF, 0, 4)

    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_images_and_labels_are_unchanged(small_net: MakeNet) -> None:
    images, labels, _ = batch()
    x, y = torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())

    measure(small_net(), x, y, LINF, noise_of(6))

    assert torch.equal(x, torch.from_numpy(images))
    assert torch.equal(y, torch.from_numpy(labels))
    assert not x.requires_grad


def test_every_point_looked_at_is_allowed() -> None:
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return bowl(x)

    x = torch.tensor([0.02, 0.98, 0.5, 0.7])
    measures_of(watched, x, 1.0, -1.0, 0.7)

    points = torch.cat(seen)
    assert ((points >= 0) & (points <= 1)).all()
    assert ((points - x.double()).abs() <= 0.1 + 1e-7).all()


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(SatbenchError, match="expected draws of 1 or more, got 0"):
        measure(Known(bowl), torch.rand(1, 1, 1, 2), torch.tensor([0]), LINF, noise_of(1), 0)


def test_as_many_labels_as_images_are_asked_for(small_net: MakeNet) -> None:
    images, labels, indices = batch()

    with pytest.raises(SatbenchError, match="got 6 images, 5 labels and 6 indices"):
        gradient_measures(small_net(), images, labels[:5], indices, LINF, 0, 4)

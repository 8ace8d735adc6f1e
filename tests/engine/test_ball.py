"""The maths of the L1 ball; tests of the judge, PGD and the contract cover the other balls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import L1_projection
from scipy.optimize import brentq
from torch import Tensor

from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.ball import l1_correction, project, random_point, size, steepest


def images_and_deltas(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Return images with a quarter of their pixels at 0 or 1, and changes of many lengths."""
    generator = torch.Generator().manual_seed(d)
    x = torch.rand(n, d, generator=generator)
    x[:, : d // 4] = x[:, : d // 4].round()
    delta = torch.randn(n, d, generator=generator) * torch.rand(n, 1, generator=generator) * 2
    delta[0], delta[1] = 0, delta[1] * 1e-4
    return x, delta


@pytest.mark.parametrize(("d", "eps"), [(1, 0.2), (10, 1.0), (64, 3.0), (784, 10.0)])
def test_the_l1_projection_is_the_nearest_point_of_ball_and_box(d: int, eps: float) -> None:
    # By the optimality conditions each pixel shrinks by the same λ until the box stops it.  Here λ
    # is found by bisection.
    x, delta = images_and_deltas(30, d)

    got = project(x + delta, x, Threat.of("l1", eps)) - x

    for row in range(len(x)):
        a = ((x[row] + delta[row]) - x[row]).double().numpy()
        centre = x[row].double().numpy()
        room = np.where(a > 0, 1 - centre, centre)

        def nearest(shrink: float, a=a, room=room):  # type: ignore[no-untyped-def]
            return np.minimum(np.maximum(np.abs(a) - shrink, 0), room)

        shrink = 0.0
        if nearest(0).sum() > eps:
            shrink = brentq(lambda t: nearest(t).sum() - eps, 0, np.abs(a).max(), xtol=1e-14)
        np.testing.assert_allclose(got[row], np.sign(a) * nearest(shrink), atol=3e-7)


@pytest.mark.parametrize(("d", "eps"), [(10, 1.0), (64, 3.0), (784, 10.0)])
def test_the_l1_correction_equals_that_of_the_package(d: int, eps: float) -> None:
    x, delta = images_and_deltas(30, d)

    got, expected = l1_correction(delta, x, eps), L1_projection(x, delta, eps)

    assert torch.equal(got, expected)


def test_a_pixel_that_the_l1_projection_resets_gets_exactly_its_clean_value() -> None:
    x, delta = images_and_deltas(30, 784)
    gone = l1_correction(delta.double(), x.double(), 10.0) == -delta

    assert 0.3 < gone.double().mean() < 1
    assert torch.equal(project(x + delta, x, Threat.parse("l1:10"))[gone], x[gone])


def test_the_l1_projection_does_not_move_a_point_inside_ball_and_box() -> None:
    x = torch.tensor([[0.2, 0.9, 0.0]])
    x_adv = torch.tensor([[0.5, 1.0, 0.4]])

    assert torch.equal(project(x_adv, x, Threat.parse("l1:0.9")), x_adv)


def test_random_points_of_the_l1_ball_have_the_radii_and_signs_of_the_uniform_law() -> None:
    # In d dimensions (‖δ‖ / eps)^d is uniform, the share of each pixel is Beta(1, d), and the sign
    # of every pixel has probability 1/2.
    n, d, threat = 4000, 6, Threat.parse("l1:0.3")
    x = torch.full((n, d), 0.5)

    delta = random_point(x, threat, Noise(0, "ball", tuple(range(n)))) - x

    radii = ((size(delta, threat) / 0.3) ** d).sort().values
    expected = (torch.arange(n).double() + 0.5) / n
    assert (radii - expected).abs().max() < 1.63 / n**0.5  # Kolmogorov-Smirnov at 1 %
    assert (delta > 0).double().mean(0).sub(0.5).abs().max() < 0.03
    torch.testing.assert_close(
        (delta.abs() / 0.3).mean(0), torch.full((d,), 1 / (d + 1)), atol=0.006, rtol=0
    )


def test_steepest_ascent_in_l1_moves_one_percent_of_the_pixels_equally() -> None:
    grad = torch.arange(-300.0, 0).view(1, 3, 10, 10)

    direction = steepest(grad, Threat.parse("l1:1")).flatten()

    assert direction[:3].tolist() == pytest.approx([-1 / 3] * 3)
    assert direction[3:].abs().sum() == 0


def test_steepest_ascent_in_l1_skips_pixels_at_the_edge_of_the_box() -> None:
    grad = torch.tensor([[-5.0, 4.0, -3.0, 2.0]])
    x_adv = torch.tensor([[0.0, 1.0, 1.0, 0.0]])

    direction = steepest(grad, Threat.parse("l1:1"), x_adv)

    assert direction.tolist() == [[0, 0, -1, 0]]


def test_steepest_ascent_in_l1_without_a_gradient_is_zero() -> None:
    grad = torch.zeros(2, 1, 3, 3)

    assert torch.equal(steepest(grad, Threat.parse("l1:1")), grad)

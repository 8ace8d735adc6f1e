"""FAB's projections against linear programs, a root finder in float64, and the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack.fab_projections import projection_l1, projection_l2, projection_linf
from scipy.optimize import brentq, linprog
from torch import Tensor

from satbench.attacks.gradient.fab_projections import to_hyperplane
from satbench.attacks.gradient.order import ascending
from satbench.core.threat import Threat

THREATS = {norm: Threat.parse(f"{norm}:0.1") for norm in ("linf", "l2", "l1")}
PACKAGE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linf": projection_linf,
    "l2": projection_l2,
    "l1": projection_l1,
}
in_every_norm = pytest.mark.parametrize("norm", list(THREATS))


def problems(rows: int, size: int, reach: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return points (some pixels at 0 and 1), uneven weights (some 0), and offsets.

    An offset is at most `reach` times what the box allows; below 1 the hyperplane can be reached.
    """
    g = torch.Generator().manual_seed(seed)
    t = (torch.rand(rows, size, generator=g) * 1.6 - 0.3).clamp(0, 1)
    w = torch.randn(rows, size, generator=g) * 10 ** (2 * torch.rand(rows, size, generator=g) - 1)
    w *= torch.rand(rows, size, generator=g) > 0.1
    w[:, 0] = 1
    t[:, 0] = 0.5
    side = torch.rand(rows, 1, generator=g).round() * 2 - 1
    most = (w * (torch.where(w * side > 0, 1, 0) - t)).sum(1)  # at the far corner of the box
    share = reach * torch.rand(rows, generator=g) ** 2
    return t, w, (w * t).sum(1) + most * share


def least_length(t: Any, w: Any, b: float, norm: str) -> float:
    """Return the length of the shortest way, by a method that uses none of our code."""
    size, gap = len(t), b - w @ t
    if norm == "l2":  # d = clip(multiple · w), whose w·d grows with the multiple
        far = 1e6 * np.sign(gap)
        multiple = brentq(lambda m: w @ np.clip(m * w, -t, 1 - t) - gap, 0, far, xtol=1e-15)
        return float(np.linalg.norm(np.clip(multiple * w, -t, 1 - t)))
    # Variables: d, then the bound of |d|: one for all in Linf, one each in L1.
    bounds = 1 if norm == "linf" else size
    cap = -np.ones((size, 1)) if norm == "linf" else -np.eye(size)
    solved = linprog(
        np.r_[np.zeros(size), np.ones(bounds)],
        A_ub=np.block([[np.eye(size), cap], [-np.eye(size), cap]]),
        b_ub=np.zeros(2 * size),
        A_eq=np.r_[w, np.zeros(bounds)][None],
        b_eq=[gap],
        bounds=[*zip(-t, 1 - t, strict=True), *[(0, None)] * bounds],
    )
    assert solved.success
    return float(solved.fun)


@in_every_norm
def test_a_projection_is_the_shortest_way_to_the_hyperplane_within_the_box(norm: str) -> None:
    t, w, b = problems(rows=20, size=11, reach=0.98)

    d = to_hyperplane(t, w, b, THREATS[norm]).double()

    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    moved, expected = (
        t.double() + d,
        [
            least_length(row.double().numpy(), weights.double().numpy(), float(offset), norm)
            for row, weights, offset in zip(t, w, b, strict=True)
        ],
    )
    assert moved.min() > -1e-6
    assert moved.max() < 1 + 1e-6
    np.testing.assert_allclose((w * moved).sum(1), b, atol=2e-5, rtol=1e-5)
    # In float32 the distance of w·t from b is known to about 1e-6.
    lengths = torch.linalg.vector_norm(d, order, dim=1)
    np.testing.assert_allclose(lengths, expected, rtol=1e-4, atol=2e-6)


@in_every_norm
def test_an_unreachable_hyperplane_moves_every_weighted_pixel_to_a_side_of_the_box(
    norm: str,
) -> None:
    t, w, _ = problems(rows=20, size=11, reach=1)

    down = to_hyperplane(t, w, torch.full((20,), -1e3), THREATS[norm])
    up = to_hyperplane(t, w, torch.full((20,), 1e3), THREATS[norm])

    torch.testing.assert_close(t + down, torch.where(w == 0, t, (w < 0).float()))
    torch.testing.assert_close(t + up, torch.where(w == 0, t, (w > 0).float()))


@in_every_norm
@pytest.mark.parametrize("size", [1, 5, 64, 784])
@pytest.mark.parametrize("reach", [0.01, 0.5, 1.5])
def test_a_projection_equals_that_of_the_package_bit_by_bit(
    norm: str, size: int, reach: float
) -> None:
    t, w, b = problems(rows=60, size=size, reach=reach, seed=size)
    w[0], b[0] = 0, 1  # no gradient at all
    b[1] = (w[1] * t[1]).sum()  # on the hyperplane already

    assert torch.equal(to_hyperplane(t, w, b, THREATS[norm]), PACKAGE[norm](t, w, b))


def test_a_projection_does_not_change_its_arguments() -> None:
    t, w, b = problems(rows=5, size=9, reach=0.5)
    before = (t.clone(), w.clone(), b.clone())

    for threat in THREATS.values():
        to_hyperplane(t, w, b, threat)

    assert all(torch.equal(now, then) for now, then in zip((t, w, b), before, strict=True))


def test_the_ascending_order_is_that_of_a_stable_sort() -> None:
    keys = torch.rand(20, 50, generator=torch.Generator().manual_seed(0)).mul(9).round() / 9
    keys[:, 3], keys[0, :9], keys[1, 5] = -0.0, 0.0, 1e12

    assert torch.equal(ascending(keys), keys.argsort(dim=1, stable=True))
    assert torch.equal(ascending(keys.T), keys.T.argsort(dim=1, stable=True))

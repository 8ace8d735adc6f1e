"""The outer objectives against independent formulas in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.attacks.gradient.losses import divergence
from satbench.recipes import TrainConfig
from satbench.training.update.objectives import Objective, adversarial_cross_entropy, mart, trades

Array = NDArray[np.float64]
CLASSES, PIXELS = 4, 6


def softmax(logits: Array) -> Array:
    powers = np.exp(logits)
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture
def drawn() -> tuple[Array, Array, Array, Array]:
    """Return weights, images, adversarial images and labels."""
    rng = np.random.default_rng(0)
    x = rng.random((5, PIXELS))
    return (
        rng.standard_normal((CLASSES, PIXELS)),
        x,
        x + rng.uniform(-0.3, 0.3, x.shape),
        rng.integers(0, CLASSES, 5),
    )


def smoothed_cross_entropy(w: Array, x: Array, x_adv: Array, y: Array) -> float:
    p = softmax(x_adv @ w.T)
    total = 0.0
    for row, label in zip(p, y, strict=True):
        target = np.full(CLASSES, 0.1 / CLASSES)
        target[label] += 0.9
        total -= float((target * np.log(row)).sum())
    return total / len(y)


def trades_by_hand(w: Array, x: Array, x_adv: Array, y: Array) -> float:
    p, q = softmax(x @ w.T), softmax(x_adv @ w.T)
    total = 0.0
    for clean, adv, label in zip(p, q, y, strict=True):
        total += -np.log(clean[label]) + 6 * sum(
            a * np.log(a / b) for a, b in zip(clean, adv, strict=True)
        )
    return float(total / len(y))


def mart_by_hand(w: Array, x: Array, x_adv: Array, y: Array) -> float:
    p, q = softmax(x @ w.T), softmax(x_adv @ w.T)
    total = 0.0
    for clean, adv, label in zip(p, q, y, strict=True):
        wrong = max(adv[k] for k in range(CLASSES) if k != label)
        kl = sum(a * np.log(a / b) for a, b in zip(clean, adv, strict=True))
        total += -np.log(adv[label]) - np.log(1 - wrong) + 5 * kl * (1 - clean[label])
    return float(total / len(y))


CASES = [
    (lambda m, x, a, y: adversarial_cross_entropy(m, a, y, 0.1), smoothed_cross_entropy),
    (lambda m, x, a, y: trades(m, x, a, y, beta=6), trades_by_hand),
    (lambda m, x, a, y: mart(m, x, a, y, beta=5), mart_by_hand),
]


@pytest.mark.parametrize(("ours", "by_hand"), CASES, ids=["cross-entropy", "trades", "mart"])
def test_an_objective_equals_its_formula(
    ours: Callable[..., Any], by_hand: Callable[..., float], drawn: tuple[Array, ...]
) -> None:
    w, x, x_adv, y = drawn
    weight = torch.from_numpy(w)
    tensors = [torch.from_numpy(a) for a in (x, x_adv, y)]
    loss, logits = ours(lambda images: images @ weight.T, *tensors)

    assert float(loss) == pytest.approx(by_hand(w, x, x_adv, y), rel=1e-12)
    np.testing.assert_allclose(logits.numpy(), x_adv @ w.T, rtol=1e-12)


@pytest.mark.parametrize(("ours", "by_hand"), CASES, ids=["cross-entropy", "trades", "mart"])
def test_the_gradient_of_an_objective_equals_that_of_its_formula(
    ours: Callable[..., Any], by_hand: Callable[..., float], drawn: tuple[Array, ...]
) -> None:
    w, *rest = drawn
    weight = torch.from_numpy(w).requires_grad_()
    ours(lambda images: images @ weight.T, *[torch.from_numpy(a) for a in rest])[0].backward()
    assert weight.grad is not None
    step, expected = 1e-5, np.zeros_like(w)
    for place in np.ndindex(*w.shape):
        nudge = np.zeros_like(w)
        nudge[place] = step
        expected[place] = (by_hand(w + nudge, *rest) - by_hand(w - nudge, *rest)) / (2 * step)

    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-6, atol=1e-8)


def test_the_divergence_is_0_only_for_equal_predictions() -> None:
    logits = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    other = torch.tensor([[1.0, 2.0], [0.0, 1.0]])

    assert divergence(logits, logits).tolist() == [0, 0]
    assert (divergence(logits, other) > 0).tolist() == [False, True]


@pytest.mark.parametrize(
    ("changes", "formula"),
    [
        ({"label_smoothing": 0.1}, lambda m, x, a, y: adversarial_cross_entropy(m, a, y, 0.1)),
        ({"objective": "trades", "beta": 6.0}, lambda m, x, a, y: trades(m, x, a, y, 6.0)),
        ({"objective": "mart", "beta": 5.0}, lambda m, x, a, y: mart(m, x, a, y, 5.0)),
    ],
    ids=["cross-entropy", "trades", "mart"],
)
def test_the_config_chooses_the_objective(
    changes: dict[str, Any], formula: Callable[..., Any], config: TrainConfig
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, x_adv, y = torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    loss, _ = Objective(replace(config, **changes), net)(x, x_adv, y)

    assert torch.equal(loss, formula(net, x, x_adv, y)[0])


def test_with_bfloat16_the_network_runs_in_bfloat16_and_the_loss_in_float32(
    config: TrainConfig,
) -> None:
    seen = []

    class Net(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    objective = Objective(replace(config, precision="bfloat16"), Net(4, 3))
    loss, logits = objective(torch.rand(2, 4), torch.rand(2, 4), torch.tensor([0, 1]))

    assert seen == [torch.bfloat16]
    assert (loss.dtype, logits.dtype) == (torch.float32, torch.float32)


def test_mart_has_a_finite_gradient_if_a_wrong_class_is_certain() -> None:
    logits = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)
    clean = torch.tensor([[1.0, 0.0, 0.0]])
    answers = iter((logits, clean))
    loss, _ = mart(lambda x: next(answers), clean, clean, torch.tensor([0]), beta=5)
    loss.backward()

    assert torch.isfinite(loss)
    assert logits.grad is not None
    p = softmax(clean.double().numpy())[0]
    assert float(logits.grad[0, 1]) == pytest.approx(2 + 5 * (1 - p[0]) * (1 - p[1]), rel=1e-5)

"""Ties between the label and another class: the judge's argmax decides, and searches go on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.attacks.gradient import losses
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.contract import Hints, Informed

SPECS = (
    "malt(targets=1,steps=4)",
    "cosine-pgd(loss=margin,steps=6)",
    "pma(steps=8)",
    "a3(rounds=4)",
)
Y = torch.zeros(4, dtype=torch.int64)


class Steps(nn.Module):
    """Two classes by the mean pixel, in whole logits: a tie from 0.42 to 0.5, below it class 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2); the gradient is that of the mean."""
        mean = x.flatten(1).mean(1)
        other = (mean < 0.5).to(x) + (mean < 0.42).to(x) - 1 + (mean.detach() - mean)
        return torch.stack([torch.zeros_like(other), other], 1)


class TwoPixels(nn.Module):
    """Class 1 if two pixels are dark; a tie if one of them is."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2)."""
        dark = (x[:, 0, [0, 4], [0, 4]] < 0.5).to(x).sum(1)
        return torch.stack([torch.zeros_like(dark), dark - 1], 1)


@pytest.mark.parametrize("spec", ["square(queries=200)", "square-from-best(queries=200)"])
def test_square_goes_on_at_a_tie_that_the_label_wins(spec: str) -> None:
    x = torch.full((4, 1, 6, 6), 0.6)

    x_adv = parse_attack(spec)(TwoPixels(), x, Y, Threat.parse("linf:0.2"), noise())

    assert TwoPixels()(x_adv).argmax(1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("eps", "held"), [("0.1", True), ("0.2", False)])
def test_an_image_at_a_tie_that_the_label_wins_is_not_reported_as_broken(
    spec: str, eps: str, held: bool
) -> None:
    x, attack = torch.full((4, 1, 6, 6), 0.55), parse_attack(spec)
    assert isinstance(attack, Informed)

    found = attack.follow(Steps(), x, Y, Threat.parse(f"linf:{eps}"), noise(), Hints.none(x))

    assert (found.margins > 0).tolist() == [held] * 4
    assert (Steps()(found.x_adv).argmax(1) == Y).tolist() == [held] * 4


def noise() -> Noise:
    return Noise(0, "ties", (0, 1, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_margin_of_a_tie_is_above_0_only_if_the_label_wins(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1, 1, 0], [1, 1, 0], [2, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=dtype)

    found = losses.label_margin(logits, torch.tensor([0, 1, 0, 0, 0])).float()

    assert (found > 0).tolist() == [True, False, True, False, True]
    assert found[1] == 0
    np.testing.assert_allclose(found, [0, 0, 1, -1, 0], atol=1e-4)

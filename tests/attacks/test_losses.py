from __future__ import annotations

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from satbench.attacks.gradient.losses import cross_entropy, dlr, dlr_targeted

LOGITS = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 3
Y = torch.arange(50) % 6
TARGET = (torch.arange(50) * 5 + 1) % 6


def test_cross_entropy_is_the_negative_log_of_the_probability() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 0]])

    got = cross_entropy(logits, torch.tensor([0, 3]))

    probability = torch.tensor([2.0, 0, 0, 0]).exp()[0] / torch.tensor([2.0, 0, 0, 0]).exp().sum()
    torch.testing.assert_close(got, torch.stack([-probability.log(), torch.tensor(4.0).log()]))


def test_dlr_is_the_ratio_of_two_differences() -> None:
    # Right: -(5 - 3) / (5 - 1).  Wrong, the label second: -(3 - 5) / (5 - 1).
    logits = torch.tensor([[5.0, 3, 1, 0], [3, 5, 1, 0]])

    assert dlr(logits, torch.tensor([0, 0])).tolist() == [-0.5, 0.5]


def test_targeted_dlr_is_the_ratio_of_two_differences() -> None:
    # -(5 - 1) / (5 - (1 + 0) / 2)
    logits = torch.tensor([[5.0, 3, 1, 0]])

    got = dlr_targeted(logits, torch.tensor([0]), torch.tensor([2]))

    assert got.tolist() == pytest.approx([-4 / 4.5])


def test_dlr_is_above_zero_exactly_where_the_label_is_not_on_top() -> None:
    assert torch.equal(dlr(LOGITS, Y) > 0, LOGITS.argmax(1) != Y)


def test_shifting_and_scaling_the_logits_changes_no_dlr() -> None:
    other = 7 * LOGITS + torch.arange(50.0)[:, None]

    torch.testing.assert_close(dlr(other, Y), dlr(LOGITS, Y))
    torch.testing.assert_close(dlr_targeted(other, Y, TARGET), dlr_targeted(LOGITS, Y, TARGET))


def test_dlr_of_equal_logits_is_finite() -> None:
    even = torch.ones(1, 4)

    assert dlr(even, torch.tensor([0])).tolist() == [0]
    assert dlr_targeted(even, torch.tensor([0]), torch.tensor([1])).tolist() == [0]


def test_both_dlr_losses_are_those_of_the_package() -> None:
    untargeted = APGDAttack(None, eps=1.0)
    targeted = APGDAttack_targeted(None, eps=1.0)
    targeted.y_target = TARGET

    assert torch.equal(dlr(LOGITS, Y), untargeted.dlr_loss(LOGITS, Y))
    assert torch.equal(dlr_targeted(LOGITS, Y, TARGET), targeted.dlr_loss_targeted(LOGITS, Y))

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from satbench.calling.logits import ModelError
from satbench.core.threat import Threat
from satbench.engine.judge import (
    NonFiniteLogitsError,
    OutsideBallError,
    broken,
    check_allowed,
    predict,
)

LINF = Threat.parse("linf:8/255")
L2 = Threat.parse("l2:0.5")
L1 = Threat.parse("l1:1")
GREY = torch.full((2, 1, 2, 2), 0.5)


class Mean(nn.Module):
    """Class 1 if the mean pixel is above 1/2, else class 0; remembers its last logits."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1) - 0.5
        self.logits = torch.stack([-score, score], 1)
        return self.logits


class Answer(nn.Module):
    """Gives the same logits for all images."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


def moved(by: float, row: int = 1) -> Tensor:
    """Move one pixel of one image."""
    x_adv = GREY.clone()
    x_adv[row, 0, 1, 0] += by
    return x_adv


def test_an_image_is_broken_when_its_prediction_is_wrong() -> None:
    x_adv = GREY + torch.tensor([0.03, -0.03]).view(2, 1, 1, 1)

    assert broken(Mean(), GREY, x_adv, torch.tensor([0, 0]), LINF).tolist() == [True, False]


def test_the_clean_images_are_always_allowed() -> None:
    check_allowed(GREY, GREY, LINF)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_pixel_exactly_on_the_ball_is_allowed(sign: int) -> None:
    check_allowed(GREY, moved(sign * LINF.radius), LINF)


def test_a_perturbation_exactly_on_the_l2_ball_is_allowed() -> None:
    check_allowed(GREY, GREY + 0.25, L2)


def test_float32_rounding_beyond_eps_is_tolerated() -> None:
    check_allowed(GREY, moved(LINF.radius + 8e-7), LINF)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_pixel_beyond_the_ball_is_refused_with_its_size_and_row(sign: int) -> None:
    with pytest.raises(
        OutsideBallError,
        match=r"^expected perturbations within linf:8/255, got one of size 0\.03137\d+ "
        r"\(row 1 of its batch\)$",
    ):
        check_allowed(GREY, moved(sign * (LINF.radius + 2e-6)), LINF)


def test_a_perturbation_beyond_the_l2_ball_is_refused() -> None:
    with pytest.raises(OutsideBallError, match=r"within l2:0\.5, got one of size 0\.50004"):
        check_allowed(GREY, GREY + 0.25002, L2)


def test_a_perturbation_exactly_on_the_l1_ball_is_allowed() -> None:
    check_allowed(GREY, GREY + 0.25, L1)


def test_an_l1_perturbation_beyond_eps_is_refused_with_the_sum_of_its_pixels() -> None:
    check_allowed(GREY, GREY + 0.25 + 2e-4, L1)  # four pixels: 8e-4, within the tolerance
    with pytest.raises(OutsideBallError, match=r"within l1:1, got one of size 1\.0012"):
        check_allowed(GREY, GREY + 0.25 + 3e-4, L1)


def test_l2_is_measured_in_float64() -> None:
    # ‖delta‖² = 40000 · 0.5² + 0.0022, so that ‖delta‖ = 100.000011, beyond the tolerance of
    # 1e-5; the nearest float32 is 100.0000076, within it.
    x = torch.zeros(1, 1, 1, 40_001)
    x_adv = torch.full_like(x, 0.5)
    x_adv[..., -1] = 0.0022**0.5
    with pytest.raises(OutsideBallError, match=r"within l2:100, got one of size 100\.00001 "):
        check_allowed(x, x_adv, Threat.parse("l2:100"))


def test_linf_is_measured_in_float64() -> None:
    # The difference 1 - 2^-26 lies 1e-8 within the tolerance; in float32 it rounds to 1, outside.
    x, x_adv = torch.full((1, 1, 1, 1), 2.0**-26), torch.ones(1, 1, 1, 1)
    check_allowed(x, x_adv, Threat.of("linf", 1 - 2.0**-26 - 0.99e-6))


def test_a_pixel_slightly_below_zero_is_refused() -> None:
    x = torch.zeros(2, 1, 2, 2)
    x_adv = x.clone()
    x_adv[1, 0, 0, 1] = -1e-7
    with pytest.raises(OutsideBallError, match=r"expected adversarial pixels in \[0, 1\], got -1e"):
        check_allowed(x, x_adv, LINF)


def test_a_pixel_slightly_above_one_is_refused() -> None:
    x = torch.ones(2, 1, 2, 2)
    with pytest.raises(OutsideBallError, match=r"expected adversarial pixels in \[0, 1\], got 1"):
        check_allowed(x, x + 2e-7, LINF)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_pixel_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(
        OutsideBallError, match=r"^expected finite adversarial pixels, got NaN or infinity$"
    ):
        check_allowed(GREY, moved(value), LINF)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_dtype_is_refused(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(OutsideBallError, match=rf"in float32, got \(2, 1, 2, 2\) in {name}$"):
        check_allowed(GREY, GREY.to(dtype), LINF)


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 2, 2), (2, 1, 4, 1)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        OutsideBallError,
        match=r"^expected adversarial images of shape \(2, 1, 2, 2\) in float32, got \(\d",
    ):
        check_allowed(GREY, torch.full(shape, 0.5), LINF)


def test_a_witness_outside_the_ball_is_refused_even_if_it_breaks_nothing() -> None:
    with pytest.raises(OutsideBallError, match="expected perturbations within"):
        broken(Mean(), GREY, moved(-0.4), torch.tensor([0, 0]), LINF)


def test_an_empty_batch_breaks_nothing() -> None:
    none = torch.empty(0, 1, 2, 2)

    assert broken(Mean(), none, none, torch.empty(0, dtype=torch.int64), LINF).tolist() == []


def test_nan_logits_are_refused_with_their_number_and_first_row() -> None:
    model = Answer([[0.0, 1], [torch.nan, 1], [0, torch.nan]])
    with pytest.raises(
        NonFiniteLogitsError,
        match=r"^expected finite logits, got NaN or infinity for 2 of 3 images "
        r"\(the first is row 1 of its batch\); a model must answer every image of \[0, 1\]$",
    ):
        predict(model, torch.zeros(3, 1, 2, 2))


@pytest.mark.parametrize("logits", [[[0, 2], [0, torch.inf]], [[0, 2], [0, -torch.inf]]])
def test_infinite_logits_are_refused(logits: list[list[float]]) -> None:
    with pytest.raises(NonFiniteLogitsError, match=r"for 1 of 2 images \(the first is row 1"):
        predict(Answer(logits), GREY)


def test_a_class_masked_for_every_image_is_never_predicted() -> None:
    assert predict(Answer([[-torch.inf, -3, -5], [-torch.inf, -9, -2]]), GREY).tolist() == [1, 2]


def test_the_judge_gives_the_model_a_copy_of_the_images() -> None:
    class Writes(Mean):
        def forward(self, x: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                x.fill_(0.9)
            return super().forward(x)

    x, x_adv, y = GREY.clone(), moved(-0.02), torch.tensor([1, 1])
    broken(Writes(), x, x_adv, y, LINF)

    assert torch.equal(x, GREY)
    assert torch.equal(x_adv, moved(-0.02))


def test_an_error_in_the_model_is_reported_in_one_sentence() -> None:
    class Fails(Mean):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no such layer")

    with pytest.raises(ModelError, match=r"^the model fails on 2 images .*: RuntimeError: no such"):
        predict(Fails(), GREY)


def test_nan_logits_give_an_error_instead_of_a_verdict() -> None:
    with pytest.raises(NonFiniteLogitsError, match="expected finite logits"):
        broken(Answer([[torch.nan, 0.0]] * 2), GREY, GREY, torch.tensor([0, 0]), LINF)


def test_predictions_are_the_classes_of_the_largest_logits() -> None:
    assert predict(Answer([[0.0, 2, 1], [5, 2, 1]]), GREY).tolist() == [1, 0]


def test_predictions_use_float32_even_under_the_callers_autocast() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), mean := Mean())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predict(model, GREY)

    assert mean.logits.dtype == torch.float32


def test_predictions_build_no_autograd_graph() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), mean := Mean())
    predict(model, GREY)

    assert not mean.logits.requires_grad

"""Models that fail on one image, long after preflight: the error, and the kept results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import satbench
from satbench.core.errors import SatbenchError
from satbench.curve.run import CurvePlan, measure_curve
from satbench.evaluation.given import Given
from satbench.models import describe_module
from satbench.preflight.image_checks import dataset_from_tensors
from satbench.proofs.challenging import Challenge, run_challenge

BAD, N = 37, 40  # preflight calls the model on the first 32
X = torch.rand(N, 1, 3, 3, generator=torch.Generator().manual_seed(0))
Y = (X.flatten(1).mean(1) > 0.5).long()
EPS = 0.02


class Fails(nn.Module):
    """Two classes by the mean pixel, with a failure near the image `BAD`."""

    def __init__(self, fail: Callable[[Tensor], object], only: Callable[[], bool]) -> None:
        super().__init__()
        self.fail, self.only, self.failing, self.asked = fail, only, True, 0

    def forward(self, x: Tensor) -> Any:
        self.asked += len(x)
        score = x.flatten(1).mean(1) - 0.5
        logits = torch.stack([-score, score], 1)
        near = bool(((x - X[BAD]).flatten(1).abs().amax(1) <= EPS + 1e-6).any())
        return self.fail(logits) if near and self.failing and self.only() else logits


def raises(logits: Tensor) -> object:
    raise LookupError("no such prototype")


def hangs(logits: Tensor) -> object:
    time.sleep(60)
    return logits


class Stuck(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise ArithmeticError("no backward here")


class Sleeping(Stuck):
    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        time.sleep(60)
        return grads[0]


def evaluate(model: nn.Module, out: Path, **more: Any) -> Any:
    arguments = {
        "attacks": ["pgd-2", "square(queries=3)"],
        "eps": EPS,
        "batch_size": 10,
        "out": out,
    }
    return satbench.evaluate(model, X, Y, **arguments | more)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[int], int]:
    """The verdicts of the model without a failure, and the number of images in its calls."""
    model = Fails(raises, lambda: False)
    return evaluate(model, tmp_path_factory.mktemp("honest")).verdicts, model.asked


def in_clean_pass() -> bool:
    return not torch.is_grad_enabled()


CLEAN, PGD = r"\(image 37, under no attack\)$", r"\(image 37, under pgd-2\)$"
FAILURES: dict[str, tuple[Callable[[Tensor], object], Callable[[], bool], str]] = {
    "error": (raises, in_clean_pass, r"LookupError: no such prototype " + CLEAN),
    "error in the search": (raises, torch.is_grad_enabled, r"no such prototype " + PGD),
    "whole numbers": (
        torch.Tensor.long,
        in_clean_pass,
        "got int64: .*" + CLEAN,
    ),
    "fewer classes": (
        lambda z: z[:, :1].repeat(1, 3),
        torch.is_grad_enabled,
        r"got 3 .* under pgd-2\)$",
    ),
    "nothing": (
        lambda z: None,
        torch.is_grad_enabled,
        "got NoneType: .*" + PGD,
    ),
    "one row": (lambda z: z[0], torch.is_grad_enabled, r"one row .*\(image.* under pgd-2\)"),
    "backward": (Stuck.apply, torch.is_grad_enabled, r"no backward here " + PGD),
    "NaN": (lambda z: z * torch.nan, in_clean_pass, r"^expected finite .* under no attack\)$"),
}


@pytest.mark.parametrize(("fail", "only", "said"), FAILURES.values(), ids=FAILURES)
def test_a_late_failure_gives_one_sentence_with_the_image_and_the_run_can_be_resumed(
    fail: Callable[[Tensor], object],
    only: Callable[[], bool],
    said: str,
    honest: tuple[list[int], int],
    tmp_path: Path,
) -> None:
    model = Fails(fail, only)
    with pytest.raises(SatbenchError, match=said) as caught:
        evaluate(model, tmp_path)
    model.failing, spent = False, model.asked
    mended = evaluate(model, tmp_path)

    assert "\n" not in str(caught.value)
    assert mended.verdicts == honest[0]
    assert model.asked - spent < honest[1]  # the batches before were kept


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_floating_dtype_of_logits_does_not_change_the_verdicts(
    dtype: torch.dtype, honest: tuple[list[int], int], tmp_path: Path
) -> None:
    changing = evaluate(Fails(lambda z: z.to(dtype), lambda: True), tmp_path)

    assert changing.verdicts == honest[0]


@pytest.mark.parametrize(
    ("hang", "only"),
    [
        (hangs, in_clean_pass),
        (hangs, torch.is_grad_enabled),
        (Sleeping.apply, torch.is_grad_enabled),
    ],
    ids=["clean", "search", "backward"],
)
def test_a_hanging_model_is_stopped_and_finished_batches_are_kept(
    hang: Callable[[Tensor], object], only: Callable[[], bool], tmp_path: Path
) -> None:
    model = Fails(hang, only)
    with pytest.raises(SatbenchError, match=r"at most 0\.2 seconds.*\(image 37, under "):
        evaluate(model, tmp_path, timeout=0.2)
    model.failing = False

    assert len(list(tmp_path.glob(".runs/*/*.npz"))) >= 3
    assert evaluate(model, tmp_path, timeout=60).n == N


def test_preflight_stops_a_model_that_hangs_at_once(tmp_path: Path) -> None:
    class Hangs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(60)
            return x.flatten(1)

    with pytest.raises(SatbenchError, match=r"^expected a batch to take at most 0\.1 seconds"):
        evaluate(Hangs(), tmp_path, timeout=0.1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_not_positive_and_finite_is_refused(
    timeout: float, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=r"^expected a timeout above 0 seconds, got "):
        evaluate(Fails(raises, lambda: False), tmp_path, timeout=timeout)


def test_a_timeout_does_not_change_the_identity(tmp_path: Path) -> None:
    model = Fails(raises, lambda: False)
    first = evaluate(model, tmp_path, timeout=100)

    assert evaluate(model, tmp_path).found
    np.testing.assert_array_equal(first.verdicts, evaluate(model, tmp_path).verdicts)


@pytest.mark.slow
def test_a_curve_of_a_hanging_model_is_stopped_and_finished_batches_are_kept(
    tmp_path: Path,
) -> None:
    model = Fails(hangs, torch.is_grad_enabled)
    data = dataset_from_tensors(X, Y)
    plan = CurvePlan(data, "linf", ("foolbox.fmn(steps=2)",), batch_size=10, marks=(), timeout=0.2)
    info = describe_module(model, "fails", "python")
    model.failing = False
    measure_curve(model, info, replace(plan, timeout=None), tmp_path / "honest")  # imports foolbox
    model.failing = True
    with pytest.raises(SatbenchError, match=r"at most 0\.2 seconds.*\(image 37, under "):
        measure_curve(model, info, plan, tmp_path)
    kept = len(list(tmp_path.glob(".runs/*/*.npz")))
    model.failing = False

    assert kept >= 4 + 3
    assert measure_curve(model, info, replace(plan, timeout=None), tmp_path).curve.dataset.n == N


def test_a_challenge_of_a_hanging_model_is_stopped(tmp_path: Path) -> None:
    model = Fails(hangs, lambda: False)
    record = evaluate(model, tmp_path, attacks="pgd-2")
    model.only = torch.is_grad_enabled
    data = dataset_from_tensors(X, Y)
    given = Given(model, data)
    asked = Challenge(record.path, ("pgd-3",), given=given, batch_size=10, timeout=0.2)
    with pytest.raises(SatbenchError, match=r"at most 0\.2 seconds.*\(image 37, under "):
        run_challenge(asked)

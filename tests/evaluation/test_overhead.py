"""The passes of an evaluation beyond its attacks, counted on the model and its copies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import satbench
from satbench.data import Dataset
from satbench.engine import fast_copy
from satbench.models import load_model, request_model
from satbench.records.record import Record

ROBUST, WEAK = "fmnist-sat-tiny-relu-s0", "fmnist-standard-tiny-relu-s0"
PGD = "pgd(steps=20,start=clean)"


class Counter(nn.Module):
    """A layer that counts the images which pass through it; fast copies share it."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        counted: Tensor = _Tap.apply(x, self)
        return counted

    @property
    def passes(self) -> int:
        return self.forwards + self.backwards


class _Tap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counter: Counter) -> Tensor:
        ctx.counter = counter
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.counter.backwards += len(grad)
        return grad, None


def counted(name: str) -> tuple[Counter, nn.Module]:
    counter = Counter()
    return counter, nn.Sequential(counter, load_model(request_model(name), 10).module).eval()


def right(model: nn.Module, images: Dataset, n: int) -> tuple[Tensor, Tensor]:
    """Return the first `n` images that the model gets right, and their labels."""
    x = torch.from_numpy(images.pixels(np.arange(len(images))))
    y = torch.from_numpy(images.labels.copy())
    good = (model(x).argmax(1) == y).nonzero().flatten()[:n]
    assert len(good) == n
    return x[good], y[good]


def attack_itself(record: Record) -> int:
    """The passes of the clean images, the searches, and the judge on each result."""
    searches = sum(stage.forwards + stage.backwards for stage in record.stages)
    return record.n + searches + sum(stage.attacked for stage in record.stages)


@pytest.fixture(scope="module")
def some(fashion: Dataset) -> Dataset:
    return fashion.first(60)


LOOK = 3 * 2 * 8  # 8 of 20 images, clean and perturbed, with and without gradients, and backward
# The clean pass includes 8 of these images.  Others: one single image, two to count, the proof.
BESIDE = LOOK - 8 + 1 + 2 + 3
DIAGNOSIS = 1 + 4 * 4 + 2 * 1  # the rounding; 4 images; one attacked image


def test_an_evaluation_of_20_images_costs_at_most_a_tenth_more_than_the_attack(
    some: Dataset, tmp_path: Path
) -> None:
    counter, model = counted(ROBUST)
    x, y = right(model, some, 20)
    counter.forwards = counter.backwards = 0
    record = satbench.evaluate(model, x, y, attacks=PGD, eps=0.1, out=tmp_path)

    assert record.surviving() > 10
    assert counter.passes == attack_itself(record) + BESIDE + DIAGNOSIS
    assert counter.passes <= 1.1 * attack_itself(record)


def test_an_evaluation_without_survivors_spends_no_pass_on_the_diagnosis(
    some: Dataset, tmp_path: Path
) -> None:
    counter, model = counted(WEAK)
    x, y = right(model, some, 20)
    counter.forwards = counter.backwards = 0
    record = satbench.evaluate(model, x, y, attacks=PGD, eps=0.1, out=tmp_path)

    assert record.surviving() == 0
    assert counter.passes == attack_itself(record) + BESIDE


def test_satbench_attack_costs_its_search_and_preflight_only(some: Dataset, tmp_path: Path) -> None:
    counter, model = counted(ROBUST)
    x, y = right(model, some, 20)
    record = satbench.evaluate(model, x, y, attacks=PGD, eps=0.1, out=tmp_path)
    counter.forwards = counter.backwards = 0
    satbench.attack(model, x, y, PGD, eps=0.1)

    assert counter.passes == attack_itself(record) + BESIDE


def test_a_run_makes_one_fast_copy_and_none_for_stages_without_images(
    some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[nn.Module] = []

    def noted(model: nn.Module, channels_last: bool = True) -> nn.Module | None:
        made.append(model)
        return real(model, channels_last)

    real = fast_copy.fast_copy
    monkeypatch.setattr("satbench.engine.searched.fast_copy", noted)
    _, model = counted(WEAK)
    x, y = right(model, some, 20)
    record = satbench.evaluate(model, x, y, attacks=[PGD, "fast"], eps=0.1, out=tmp_path)

    assert [stage.attacked for stage in record.stages[1:]] == [0] * (len(record.stages) - 1)
    assert made == [model]


SLOW = (
    "scipy",
    "scipy.special",
    "torch.fx.experimental.symbolic_shapes",
    "torch.utils._sympy.functions",
)
"""Imports of 0.2 to 1 CPU s each, which an evaluation of a small net has no need of."""


def test_an_evaluation_imports_no_slow_library(
    some: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = counted(ROBUST)
    x, y = right(model, some, 2)
    for name in SLOW:
        monkeypatch.setitem(sys.modules, name, None)  # its import fails
    record = satbench.evaluate(model, x, y, attacks=PGD, eps=0.1, out=tmp_path)

    assert [stage.search for stage in record.stages] == ["folded"]

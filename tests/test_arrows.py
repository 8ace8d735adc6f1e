"""The shape arrows of docstrings can be read, and what contradicts one is seen."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from arrows import Arrow, Shape, read_arrow, watched
from torch import Tensor

import satbench
from satbench.data import Dataset
from satbench.models import LoadedModel
from satbench.recipes import load_recipe
from satbench.training.ranks import ALONE
from satbench.training.start import fresh_model
from satbench.training.update.step import Stepper

ROOT = Path(__file__).parents[1]


def rows(x: Tensor, y: Tensor, shape: tuple[int, ...] = (1,)) -> object:
    """Do something.  (B, C, H, W) in [0, 1], (B,) labels -> (B,) bool."""
    return torch.zeros(shape, dtype=torch.bool) if len(shape) else torch.zeros(3)


def pairs(x: Tensor, *, of: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Draw twice.  (B, …), (C, H, W) -> (B, C, H, W), (B, …) float64."""
    return torch.zeros(len(x), *of), x


def test_an_arrow_is_read() -> None:
    assert read_arrow("Do it.  (B, …) twice, (B,) labels -> (B, 2 K) bool.") == Arrow(
        (Shape(("B", "…")), Shape(("B", "…")), Shape(("B",))), (Shape(("B", "2 K"), "bool"),)
    )
    assert read_arrow("Return `f(x)` -> `g`; (N,) in [0, 1].") is None
    assert read_arrow("Return all of them.  -> (N,)\n    int64") == Arrow(
        (), (Shape(("N",), "int64"),)
    )


@pytest.mark.parametrize(
    ("x", "y", "returned", "wrong"),
    [
        ((2, 1, 3, 3), (2,), (2,), 0),
        ((2, 1, 3), (2,), (2,), 1),
        ((2, 1, 3, 3), (3,), (2,), 1),
        ((2, 1, 3, 3), (2,), (1,), 1),
        ((2, 1, 3, 3), (2,), (), 1),
    ],
)
def test_a_shape_that_is_not_that_of_the_arrow_is_seen(
    x: tuple[int, ...], y: tuple[int, ...], returned: tuple[int, ...], wrong: int
) -> None:
    with watched(__name__) as watch:
        rows(torch.zeros(x), torch.zeros(y), returned)

    assert len(watch.wrong) == wrong
    assert watch.compared == {f"{__name__}:rows": 1}


def test_a_type_and_a_range_that_are_not_those_of_the_arrow_are_seen() -> None:
    with watched(__name__) as watch:
        rows(torch.full((1, 1, 2, 2), 1.5), torch.zeros(1))
        pairs(torch.zeros(2, 7), of=(1, 3, 3))

    assert [one.partition(":")[2].partition(":")[0] for one in watch.wrong] == ["rows", "pairs"]


def test_the_arrows_of_the_attacks_are_read() -> None:
    read = [
        read_arrow(ast.get_docstring(node))
        for path in (ROOT / "satbench" / "attacks").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]

    assert sum(bool(arrow and arrow.given and arrow.returned) for arrow in read) > 50


def test_shapes_hold_in_an_evaluation(shipped: LoadedModel, fashion: Dataset) -> None:
    x, y = fashion.pixels(np.arange(6)), fashion.labels[:6]
    attacks = ["pgd-2", "apgd-ce(steps=2)", "square(queries=3)", "cosine-pgd(steps=2)"]
    with watched() as watch:
        satbench.evaluate(shipped.module, x, y, attacks=attacks, eps="0.1", out=None)

    assert watch.wrong == []
    assert watch.compared.keys() >= {
        "attacks.gradient.apgd:APGDCE.__call__",
        "attacks.gradient.losses:cross_entropy",
        "attacks.gradient.pgd:PGD.__call__",
        "attacks.score.square:Square.__call__",
        "calling.logits:ask",
        "calling.logits:read_logits",
        "core.noise:Noise.uniform",
        "data._dataset:Dataset.pixels",
        "diagnosis.signs:examine",
        "engine.ball:project",
        "engine.ball:size",
        "engine.judge:broken",
        "engine.judge:predict",
        "engine.searched:Searched.__call__",
        "networks.normalize:Normalize.forward",
    }


@pytest.mark.parametrize("objective", ["cross-entropy", "trades", "mart"])
def test_shapes_hold_in_a_step_of_training(objective: str) -> None:
    beta = 0 if objective == "cross-entropy" else 5
    config = load_recipe("fmnist-pgd2", batch_size=4, objective=objective, beta=beta)
    x, y = torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 3])
    with torch.random.fork_rng(), watched() as watch:
        model = fresh_model(config, classes=10)
        Stepper(config, model, torch.device("cpu"), ALONE)(x, y, 0, 0, config.learning_rate)

    assert watch.wrong == []
    assert watch.compared.keys() >= {
        "training.update.inner:Inner.perturb",
        "training.update.noise:StepNoise.uniform",
        "training.update.objectives:Objective.forward",
    }

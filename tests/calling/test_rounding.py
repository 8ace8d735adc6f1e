from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from satbench.calling.rounding import FLOAT32, rounding_of

X, WEIGHTS = torch.rand(2, 1, 2, 2), torch.rand(4, 3)


def in_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x.flatten(1) @ WEIGHTS).float()


def fails(x: Tensor) -> Tensor:
    raise RuntimeError("not to be watched")


@pytest.mark.parametrize(
    ("model", "rounding"),
    [
        (lambda x: x.flatten(1) @ WEIGHTS, FLOAT32),
        (lambda x: (x.flatten(1).half() @ WEIGHTS.half()).float(), 2**-10),
        (lambda x: (x.flatten(1) @ WEIGHTS).bfloat16(), 2**-7),
        (lambda x: (x.flatten(1).double() @ WEIGHTS.double()).float(), FLOAT32),
        (in_autocast, 2**-7),
        (fails, FLOAT32),
    ],
    ids=["float32", "float16 within", "bfloat16 returned", "float64", "autocast", "failing"],
)
def test_the_rounding_of_a_model_is_that_of_the_coarsest_dtype_it_goes_through(
    model: Callable[[Tensor], Tensor], rounding: float
) -> None:
    assert rounding_of(model, X) == rounding


def test_a_watched_model_cannot_write_into_the_images() -> None:
    before = X.clone()
    rounding_of(lambda x: x.zero_(), X)

    assert torch.equal(X, before)

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from satbench.calling.defaults import plain_defaults
from satbench.calling.logits import (
    MASKED_LOGIT,
    ModelError,
    ask,
    classes_in_play,
    place_of_logits,
    read_logits,
    unanswered,
    without_masks,
)
from satbench.core.errors import SatbenchError
from satbench.engine.passes import CountingModel, Passes

INF, NAN = torch.inf, torch.nan
LOGITS = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
X = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))

Pair = namedtuple("Pair", "scores features")


class Ordered(dict[str, Any]):
    """An answer as libraries of transformers give it: a mapping with attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor


# Where logits are


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda z: z, ""),
        (lambda z: (z,), "its part 0"),
        (lambda z: [None, z], "its part 1"),
        (lambda z: (torch.rand(3, 8, 2, 2), z, torch.tensor(0.5)), "its part 1"),
        (lambda z: Pair(z, None), "its part 0"),
        (lambda z: {"out": z, "labels": z.argmax(1)}, "its entry 'out'"),
        (lambda z: {"logits": z, "features": torch.rand(3, 8)}, "its entry 'logits'"),
        (lambda z: Ordered(logits=z, states=(z, z)), "its attribute 'logits'"),
        (lambda z: Answer(z, torch.rand(3, 8)), "its attribute 'logits'"),
        (lambda z: SimpleNamespace(logits=z), "its attribute 'logits'"),
    ],
    ids=[
        "tensor",
        "tuple",
        "list",
        "mixed",
        "namedtuple",
        "dict",
        "entry",
        "mapping",
        "dataclass",
        "object",
    ],
)
def test_the_one_tensor_of_logits_is_taken_out_of_an_answer(
    wrap: Callable[[Tensor], object], place: str
) -> None:
    answer = wrap(LOGITS)

    assert torch.equal(read_logits(answer, 3), LOGITS)
    assert place_of_logits(answer, 3) == place


@pytest.mark.parametrize(
    "answer",
    [
        (LOGITS, LOGITS),
        {"coarse": LOGITS, "fine": torch.rand(3, 20)},
        (),
        {},
        None,
        "logits",
        LOGITS.numpy(),
        (LOGITS.argmax(1), torch.rand(3)),
        SimpleNamespace(scores=LOGITS),
    ],
    ids=["twice", "classes", "empty", "nothing", "none", "text", "array", "others", "object"],
)
def test_an_answer_with_no_or_several_tensors_of_logits_is_an_error(answer: object) -> None:
    with pytest.raises(ModelError, match=r"to return one tensor of logits, got .*: wrap it in a"):
        read_logits(answer, 3)


@pytest.mark.parametrize("shape", [(15,), (3, 5, 1), (2, 5), (3, 5, 1, 1), ()])
def test_another_shape_is_an_error_that_names_both(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"shape \(3, classes\) for 3 images, got shape \("):
        read_logits(torch.rand(shape), 3)


@pytest.mark.parametrize(
    "wrap", [lambda z: z, lambda z: (z,), lambda z: {"logits": z}], ids=["tensor", "tuple", "dict"]
)
def test_the_logits_of_a_single_image_get_their_batch_dimension_back(
    wrap: Callable[[Tensor], object],
) -> None:
    assert torch.equal(read_logits(wrap(LOGITS[0]), 1), LOGITS[:1])


@pytest.mark.parametrize(
    "change",
    [Tensor.to_sparse, Tensor.to_sparse_csr, Tensor.to_mkldnn],
    ids=["coordinates", "rows", "mkldnn"],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_logits_in_another_layout_become_dense(change: Callable[[Tensor], Tensor]) -> None:
    logits = read_logits(change(LOGITS), 3)

    assert logits.layout == torch.strided
    assert torch.equal(logits, LOGITS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_any_floating_dtype_become_float32(dtype: torch.dtype) -> None:
    logits = read_logits(LOGITS.to(dtype), 3)

    assert logits.dtype == torch.float32
    assert torch.equal(logits, LOGITS.to(dtype).float())


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_logits_of_a_quantised_dtype_become_float32() -> None:
    whole = torch.tensor([[0.0, 1.0], [2.0, -1.0]])

    assert torch.equal(read_logits(torch.quantize_per_tensor(whole, 0.5, 0, torch.qint8), 2), whole)


def test_logits_of_a_subclass_of_tensors_become_plain() -> None:
    class Named(Tensor):
        pass

    assert type(read_logits(LOGITS.as_subclass(Named), 3)) is Tensor


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_logits_of_another_dtype_are_an_error(dtype: torch.dtype) -> None:
    with pytest.raises(ModelError, match=r"of a floating dtype, got .*: return the scores"):
        read_logits(LOGITS.to(dtype), 3)


# Which logits are answers


@pytest.mark.parametrize(
    ("logits", "rows"),
    [
        ([[0, 1], [2, 3]], []),
        ([[0, NAN], [2, 3]], [0]),
        ([[0, 1], [INF, 3]], [1]),
        ([[0, NAN], [2, NAN]], [0, 1]),
        ([[0, INF], [2, INF]], [0, 1]),
        ([[0, -INF], [2, -INF]], []),
        ([[0, -INF], [2, 3]], [0]),
        ([[-INF, 0], [0, -INF]], [0, 1]),
        ([[0, -INF, NAN], [2, -INF, 3]], [0]),
        ([[-INF, -INF], [-INF, -INF]], [0, 1]),
        ([[0, -INF]], []),
    ],
)
def test_only_a_column_of_minus_infinity_for_every_image_is_an_answer(
    logits: list[list[float]], rows: list[int]
) -> None:
    assert unanswered(torch.tensor(logits)).nonzero()[:, 0].tolist() == rows


def test_no_image_is_unanswered_in_an_empty_batch() -> None:
    assert unanswered(torch.empty(0, 5)).tolist() == []


def test_searches_see_a_masked_class_as_finite_and_nan_and_infinity_as_they_are() -> None:
    least = torch.finfo(torch.float32).min
    seen = without_masks(torch.tensor([[1.0, -INF, 2e9, least], [NAN, -INF, INF, 0.0]]))

    assert seen[0].tolist() == [1.0, MASKED_LOGIT, 2e9, MASKED_LOGIT]
    assert seen[1, 1:].tolist() == [MASKED_LOGIT, INF, 0.0]
    assert bool(seen[1, 0].isnan())


def test_the_gradient_of_logits_beside_a_masked_class_is_their_own() -> None:
    logits = torch.tensor([[1.0, 2.0]], requires_grad=True)
    seen = without_masks(torch.cat([logits, torch.full((1, 1), -INF)], 1))

    assert torch.autograd.grad(seen.sum(), logits)[0].tolist() == [[1, 1]]


def test_masked_classes_are_ignored() -> None:
    assert (
        classes_in_play(torch.tensor([[0.0, -INF, MASKED_LOGIT, 1.0], [5.0, -INF, 2.0, 1.0]])) == 3
    )


# How a model is asked


def test_a_model_that_writes_into_its_input_writes_into_a_copy() -> None:
    before = X.clone()
    ask(lambda x: x.zero_().flatten(1), X)

    assert torch.equal(X, before)


def test_an_answer_stays_when_the_model_answers_again_in_the_same_memory() -> None:
    memory = torch.empty(3, 4)
    first = ask(lambda x: memory.copy_(x.flatten(1)), X)
    ask(lambda x: memory.zero_(), X)

    assert torch.equal(first, X.flatten(1))


def test_a_first_layer_in_place_passes_the_gradient_on() -> None:
    leaf, passes = X.clone().requires_grad_(), Passes()
    logits = CountingModel(lambda x: x.clamp_(0, 1).flatten(1), passes)(leaf)

    assert torch.equal(torch.autograd.grad(logits.sum(), leaf)[0], torch.ones_like(X))
    assert (passes.forwards, passes.backwards) == (3, 3)


def test_any_error_of_a_model_becomes_one_line_and_keeps_the_images() -> None:
    def fail(x: Tensor) -> Tensor:
        raise LookupError("first\nsecond")

    with pytest.raises(
        ModelError,
        match=r"^the model fails on 3 images of shape \(1, 2, 2\) in float32 on cpu: "
        r"LookupError: first$",
    ) as caught:
        ask(fail, X)
    assert caught.value.x is X
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize(
    ("bad", "blamed"), [([1], [1]), ([0, 1], [0]), ([0, 2], [0, 1, 2]), ([], [0, 1, 2])]
)
def test_the_image_that_a_model_fails_on_is_found(bad: list[int], blamed: list[int]) -> None:
    def fail(x: Tensor) -> Tensor:
        known = (torch.cdist(x.flatten(1), X[bad].flatten(1)) == 0).any()
        if known or len(x) == 3:
            raise RuntimeError("no")
        return x.flatten(1)

    with pytest.raises(ModelError) as caught:
        ask(fail, X)
    assert caught.value.x is not None
    assert torch.equal(caught.value.x, X[blamed])


def test_a_sentence_of_satbench_passes_as_it_is() -> None:
    def fail(x: Tensor) -> Tensor:
        raise SatbenchError("name a layer")

    with pytest.raises(SatbenchError, match=r"^name a layer$"):
        ask(fail, X)


def test_a_model_is_asked_outside_the_callers_autocast() -> None:
    weights = torch.rand(4, 2)
    expected = X.flatten(1) @ weights
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = ask(lambda x: x.flatten(1) @ weights, X)

    assert torch.equal(logits, expected)


def test_our_code_has_plain_defaults_and_the_model_those_of_its_caller() -> None:
    def model(x: Tensor) -> Tensor:
        seen.append(torch.ones(1).dtype)
        return x.flatten(1)

    seen: list[torch.dtype] = []
    torch.set_default_dtype(torch.float64)
    try:
        with plain_defaults():
            seen.append(torch.ones(1).dtype)
            ask(model, X)
            seen.append(torch.ones(1).dtype)
        seen.append(torch.ones(1).dtype)
    finally:
        torch.set_default_dtype(torch.float32)

    assert seen == [torch.float32, torch.float64, torch.float32, torch.float64]


def test_the_callers_default_device_is_put_aside_and_comes_back() -> None:
    seen: list[str] = []
    with torch.device("meta"):
        with plain_defaults():
            seen.append(torch.ones(1).device.type)
            ask(lambda x: [seen.append(torch.ones(1).device.type), x.flatten(1)][1], X)
        seen.append(torch.ones(1).device.type)

    assert seen == ["cpu", "meta", "meta"]

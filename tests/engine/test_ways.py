"""Searches in lower precision and by CUDA graphs: on a CPU every day, on a GPU by `make gpu`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from in_memory import Journal
from torch import Tensor, nn

import satbench
from satbench.attacks.suites.suite import parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.machine import ways
from satbench.engine.machine.asked import EAGER, Graphed, InexactError, guarded, in_dtype
from satbench.engine.machine.ways import PRECISIONS, VARIABLE, WAYS, Way, chosen_way
from satbench.engine.runner import Context
from satbench.engine.searched import Searched, Trial, joint
from satbench.engine.suite_run import run_suite
from satbench.models import load_model, request_model

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LESS = ("bfloat16", "float16")
NET = "fmnist-sat-tiny-relu-s0"


def gradient(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return torch.autograd.grad(F.cross_entropy(call(leaf), y, reduction="sum"), leaf)[0]


def off(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return load_model(request_model(NET), 10).module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def x(fashion: Dataset) -> Tensor:
    return torch.from_numpy(fashion.first(24).pixels(np.arange(24)))


@pytest.mark.parametrize("way", WAYS)
def test_a_way_is_parsed_back_from_its_text(way: Way) -> None:
    assert Way.parse(str(way)) == way


@pytest.mark.parametrize("text", ["", "float8", "bfloat16+", "bfloat16+float16", "graph+plain"])
def test_an_invalid_text_is_refused_as_a_way(text: str) -> None:
    with pytest.raises(SatbenchError, match=f"expected {VARIABLE}"):
        Way.parse(text)


def test_a_gpu_is_searched_in_float32_unless_a_measurement_allows_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(ways, "device_name", lambda device: "A Fast GPU")
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert (WAYS[0], WAYS[0]) == (chosen_way(gpu), chosen_way(cpu))

    monkeypatch.setattr(ways, "allowed_ways", lambda: {"A Fast GPU": "bfloat16"})
    assert (Way("bfloat16"), WAYS[0]) == (chosen_way(gpu), chosen_way(cpu))
    monkeypatch.setenv(VARIABLE, "float32+graph")
    assert chosen_way(gpu) == chosen_way(cpu) == Way(graph=True)


def test_all_allowed_ways_can_be_parsed() -> None:
    for text in json.loads(ways.ALLOWED.read_text()).values():
        assert Way.parse(text)


def test_float32_passes_of_a_search_are_not_rounded_to_tf32_by_default() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    seen = {}
    for way in (WAYS[0], Way("tf32")):
        with way.applied():
            seen[way.precision] = (
                torch.backends.cudnn.allow_tf32,
                torch.get_float32_matmul_precision(),
            )

    assert seen == {"float32": (False, "highest"), "tf32": (True, "high")}
    assert before == (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", LESS)
def test_passes_in_lower_precision_have_the_expected_rounding_error(
    precision: Any, device: str, model: nn.Module, x: Tensor
) -> None:
    net, there = model.to(device), x.to(device)
    searched = Searched(net, way=Way(precision))
    error = off(gradient(searched, there), gradient(net, there))
    model.to("cpu")

    assert searched.kind == precision
    assert 1e-5 < error < {"bfloat16": 0.2, "float16": 0.03}[precision]


@pytest.mark.parametrize("device", DEVICES)
def test_a_float16_gradient_of_a_confident_model_does_not_underflow(device: str) -> None:
    def call(x: Tensor) -> Tensor:
        # The loss' gradient is about exp(-18) = 1.5e-8 at the logits, below float16.
        return torch.stack([18 + 0 * x.sum((1, 2, 3)), x.mean((1, 2, 3))], 1)

    x = torch.rand(3, 1, 4, 4, device=device)
    half = in_dtype(lambda x: call(x.half()), torch.float16)

    assert off(gradient(guarded(half, torch.float16), x), gradient(call, x)) < 0.01
    assert float(gradient(half, x).abs().max()) == 0


@pytest.mark.parametrize("scale", [1e4, 1e38])
def test_numbers_outside_the_range_of_float16_end_a_float16_search(scale: float) -> None:
    def call(x: Tensor) -> Tensor:
        return (x.half().flatten(1) * scale)[:, :3]

    with pytest.raises(InexactError, match="not finite"):
        gradient(guarded(in_dtype(call, torch.float16), torch.float16), 50 * torch.ones(2, 1, 2, 2))


def test_a_search_that_fails_in_lower_precision_starts_again_in_float32(
    monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor
) -> None:
    searched = Searched(model, way=Way("float16"))
    trial = Trial([searched])
    tried = []

    def search() -> str:
        tried.append(searched.kind)
        logits = searched(x)
        if searched.kind == "float16":
            raise InexactError("made here")
        assert off(logits, model(x)) < 1e-5
        return "found"

    assert trial.run(search, lambda: tried.append("again")) == "found"
    assert tried == ["", "again", ""]
    assert searched.kind == "folded"


def test_lower_precision_is_reported_before_everything_else() -> None:
    assert joint(["folded", "bfloat16", "plain", ""]) == "bfloat16"
    assert (joint(["folded", "plain", ""]), joint([])) == ("plain", "")


class Static:
    """A CUDA graph simulated on a CPU: one memory for all outputs, one forward at a time."""

    def __init__(self, call: Callable[[Tensor], Tensor], sample: Tensor) -> None:
        self.call, self.size, self.memory = call, len(sample), call(sample).detach()

    def __call__(self, x: Tensor) -> Tensor:
        assert len(x) == self.size
        logits: Tensor = _Static.apply(self.call(x), self.memory)
        return logits


class _Static(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, memory: Tensor) -> Tensor:
        return memory.copy_(logits)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


@pytest.mark.parametrize("device", DEVICES)
def test_graphs_give_the_gradients_of_the_call_for_any_batch(device: str, model: nn.Module) -> None:
    net = model.to(device)
    graphed = Graphed(net, None if device == "cuda" else Static)
    batches = [torch.rand(n, 1, 28, 28, device=device) for n in [5] * EAGER + [5, 8, 7, 3, 1]]
    errors = [off(gradient(graphed, x), gradient(net, x)) for x in batches]
    model.to("cpu")

    assert max(errors) < 1e-5
    assert list(graphed._graphs) == [8]


def test_logits_of_a_graph_are_kept_when_it_runs_again(model: nn.Module, x: Tensor) -> None:
    graphed = Graphed(model, Static)
    for _ in range(EAGER):
        graphed(x.clone().requires_grad_())
    first = graphed(x.clone().requires_grad_())
    second = graphed((1 - x).requires_grad_())

    first_logits, second_logits = first.detach(), second.detach()
    assert off(first_logits, model(x)) < 1e-5 < off(first_logits, second_logits)
    with pytest.raises(InexactError, match="ran again"):
        first.sum().backward()


def suite_run(model: nn.Module, images: Dataset, spec: str, way: Way) -> tuple[Any, Any]:
    journal = Journal()
    threat = Threat.parse("linf:0.1")
    context = replace(Context(images, threat, journal), way=way)
    verdicts = run_suite(model, parse_suite([spec]), context)
    return verdicts, journal[-1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", ["float32+graph", "bfloat16", "float16+graph", "float32+plain"])
@pytest.mark.parametrize(
    "spec", ["pgd(steps=10)", "apgd-t(steps=5,targets=2)", "square(queries=30)"]
)
def test_every_way_of_searching_breaks_almost_the_same_images(
    spec: str, way: str, device: str, model: nn.Module, fashion: Dataset
) -> None:
    images = fashion.first(40)
    expected, _ = suite_run(model, images, spec, WAYS[0])
    found, unit = suite_run(model.to(device), images, spec, Way.parse(way))
    model.to("cpu")

    assert unit.search == {"float32+graph": "folded", "float32+plain": "plain"}.get(
        way, way.partition("+")[0]
    )
    assert 2 < int((expected > 0).sum()) < 35
    assert int((found != expected).sum()) <= 2


class Wrong(nn.Module):
    """A model that treats every image as broken in lower precision than float32."""

    def forward(self, x: Tensor) -> Tensor:
        logits = x.flatten(1)[:, :2] - x.new_tensor([0.0, 0.5])
        return -logits if torch.is_autocast_enabled(x.device.type) else logits


@pytest.mark.parametrize("spec", ["pgd(steps=8)", "apgd-ce(steps=8)"])
def test_an_image_that_the_judge_does_not_confirm_is_searched_again_in_float32(
    spec: str,
) -> None:
    pixels = np.full((6, 1, 2, 2), 128, np.uint8)
    pixels[:, 0, 0, 0] = [8, 12, 20, 230, 240, 250]
    pixels[:, 0, 0, 1] = 128
    images = Dataset("some", "test", pixels, np.array([0, 0, 0, 0, 0, 0]), 2)
    exact, _ = suite_run(Wrong(), images, spec, WAYS[0])
    found, unit = suite_run(Wrong(), images, spec, Way("bfloat16"))

    assert sorted(set(exact.tolist())) == [-1, 1]
    assert found.tolist() == exact.tolist()
    assert unit.search == "bfloat16"


def test_records_of_different_search_precision_are_distinct(
    monkeypatch: pytest.MonkeyPatch, model: nn.Module, fashion: Dataset, tmp_path: Path
) -> None:
    def evaluated() -> Any:
        x, y = torch.from_numpy(fashion.first(8).pixels(np.arange(8))), fashion.labels[:8]
        return satbench.evaluate(
            model, x, torch.from_numpy(y), attacks="pgd-3", eps=0.1, out=tmp_path, progress=False
        )

    monkeypatch.setenv(VARIABLE, "bfloat16")
    first, second = evaluated(), evaluated()
    monkeypatch.delenv(VARIABLE)
    third = evaluated()

    assert [one.stages[0].search for one in (first, second, third)] == ["bfloat16"] * 2 + ["folded"]
    assert [one.found for one in (first, second, third)] == [False, True, False]
    assert PRECISIONS[0] == "float32"

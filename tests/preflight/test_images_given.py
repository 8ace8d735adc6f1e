"""Users' images and labels: loaders, data sets, lists, bytes; models as functions."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import satbench
from satbench.calling.function import Function
from satbench.core.errors import SatbenchError
from satbench.models import load_model, request_model
from satbench.preflight.image_checks import dataset_from_tensors
from satbench.preflight.reading import images_given

X = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 2
DIGEST = dataset_from_tensors(X, Y).digest
PAIRS = TensorDataset(X, Y)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(PAIRS)


class Dicts(list[Any]):
    """Items as data sets of Hugging Face give them."""


DICTS = Dicts({"pixel_values": x, "labels": int(y)} for x, y in zip(X, Y, strict=True))

GIVEN: dict[str, tuple[Any, ...]] = {
    "Dataset": (PAIRS,),
    "DataLoader": (DataLoader(PAIRS, batch_size=3),),
    "shuffled DataLoader": (DataLoader(PAIRS, batch_size=3, shuffle=True),),
    "IterableDataset": (Stream(),),
    "DataLoader of dicts": (DataLoader(DICTS, batch_size=4),),
    "list of tensors": (list(X), Y),
    "list of arrays and numbers": ([image.numpy() for image in X], Y.tolist()),
    "tuples": (tuple(X), tuple(Y)),
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_same_images_are_the_same_data_set(name: str) -> None:
    assert images_given(*GIVEN[name]).digest == DIGEST


def test_bytes_mean_0_to_255_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    grey = (255 * X).round().to(torch.uint8)
    for x in (grey, grey.numpy(), list(grey)):
        found = images_given(x, Y)
        assert np.array_equal(found.images, grey.numpy())
        assert np.array_equal(found.pixels(np.arange(10)), (grey / 255).numpy())

    assert capsys.readouterr().err.count("uint8 pixels are read as 0…255") == 3


def test_channels_last_is_named() -> None:
    grey = (255 * X).round().to(torch.uint8).permute(0, 2, 3, 1)

    with pytest.raises(SatbenchError, match=r"\(10, 4, 4, 3\): .* x\.permute\(0, 3, 1, 2\)"):
        images_given(grey, Y)


def test_a_loader_is_read_no_further_than_asked() -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Any:
            while True:
                yield X[0], 0

    found = satbench.evaluate(
        Net(), Endless(), n_examples=5, attacks="pgd-1", eps="0.01", out=None, progress=False
    )

    assert found.n == 5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((X,), r"^expected images x together with their labels y$"),
        ((PAIRS, Y), r"^expected the labels from the Dataset or DataLoader, got y too"),
        ((list("ab"), [0, 1]), r"^expected a list of tensors or arrays .* got one with str"),
        ((DataLoader([{"pixels": X[0]}]),), r"^expected a data set of pairs .* dict with pixels$"),
        (([X[0], X[0, :, :3]], [0, 1]), r"^expected images of one shape, got \(3, 4, 4\) and "),
    ],
)
def test_what_are_no_images_is_refused_in_a_sentence(given: tuple[Any, ...], said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        images_given(*given)


# Models


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.line = nn.Linear(48, 2)
        torch.manual_seed(0)
        nn.init.normal_(self.line.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(self.drop(x.flatten(1)))


NET = Net()


def score(x: Tensor) -> Tensor:
    return NET(x)


class Wrapper:
    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor) -> Any:
        return SimpleNamespace(logits=self.net(x))

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)


MODELS: dict[str, Any] = {
    "a function of a global": score,
    "a lambda": lambda x: NET(x),
    "a bound forward": NET.forward,
    "a method": Wrapper(NET).predict,
    "an object with .logits": Wrapper(NET),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_function_is_the_model_that_it_calls(name: str) -> None:
    NET.train()
    given: dict[str, Any] = {"attacks": "pgd-5", "eps": "0.05", "out": None}
    plain = satbench.evaluate(NET, X, Y, **given)
    found = satbench.evaluate(MODELS[name], X, Y, **given)

    assert found.verdicts == plain.verdicts
    assert found.model.parameters == 98
    assert found.model.answers == plain.model.answers
    assert NET.training
    assert all(module.training for module in NET.modules())


def test_two_functions_of_the_same_weights_are_two_models() -> None:
    given: dict[str, Any] = {"attacks": "pgd-2", "eps": "0.05", "out": None}
    one, other = (satbench.evaluate(f, X, Y, **given) for f in (score, lambda x: NET(1 - x)))

    assert one.model.weights_digest == other.model.weights_digest
    assert one.identity != other.identity


def test_module_name_may_be_an_instance_a_function_or_a_factory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_given.py").write_text(
        "import torch\nfrom torch import nn\n"
        "torch.manual_seed(3)\n"
        "net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))\n"
        "def logits(x):\n    return net(x)\n"
        "def make():\n    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    loaded = {
        name: load_model(request_model(f"mine_given:{name}"), 2)
        for name in ("net", "make", "logits")
    }

    assert loaded["net"].module is loaded["make"].module
    assert isinstance(loaded["logits"].module, Function)
    answers = [one.module(X) for one in loaded.values()]
    assert torch.equal(answers[0], answers[2])

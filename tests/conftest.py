"""What the tests share: models whose answers are known, the shipped one, and no network."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import numpy as np
import pytest
import torch
from synthetic_records import make_record, small_board, small_records, spread
from torch import Tensor, nn

from satbench.data import Dataset, load_dataset
from satbench.models import LoadedModel, load_model, request_model

__all__ = ["make_record", "small_board", "small_records", "spread"]

SHIPPED = "fmnist-sat-tiny-relu-s0"
_ZOOS = count()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a test opened a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(autouse=True)
def _no_zoo_of_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A folder for each test, which is not made before something is put there.
    zoo = tmp_path_factory.getbasetemp() / f"own-zoo-{next(_ZOOS)}"
    monkeypatch.setenv("SATBENCH_ZOO", str(zoo))


@pytest.fixture(autouse=True)
def _no_module_of_another_test(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Tests write modules of one name into folders of their own; each imports its own.
    before = set(sys.modules)  # to look at all of them after each test takes longer than most tests
    yield
    base = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(base):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("SATBENCH_WORKERS", "1")  # else commands share their work among processes


class Mean(nn.Module):
    """Two classes by the mean pixel: logits (-s, s) with s = mean - 1/2.

    So the Linf distance of an image to the boundary is |mean - 1/2|, in L2 √d times as much.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)


@pytest.fixture
def mean_model() -> nn.Module:
    """A model whose robustness is known, as a user would hand it over: in train mode."""
    return Mean()


@pytest.fixture(scope="session")
def grey_images() -> Callable[..., Dataset]:
    """A function from mean pixels and labels to 1×2×2 images of just these means."""

    def make(means: Sequence[float], labels: Sequence[int]) -> Dataset:
        pixels = np.repeat(np.array(means, np.float32), 4).reshape(-1, 1, 2, 2)
        return Dataset("tensors", "user", pixels, np.array(labels, np.int64), 2)

    return make


@pytest.fixture(scope="session")
def small_net() -> Callable[..., nn.Module]:
    """A function that makes a random convolutional net with batch norm, in eval mode, frozen."""

    def make(channels: int = 1, classes: int = 5, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Conv2d(channels, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(32, classes),
            )
            x = torch.rand(64, channels, 8, 8)
            net(x)  # gives the batch norm its statistics
            with torch.no_grad():
                net[-1].bias -= net.eval()(x).mean(0)  # so that every class is predicted
        return net.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def fashion() -> Dataset:
    """The first 200 test images of Fashion-MNIST."""
    return load_dataset("fashion-mnist", "test", 200)


@pytest.fixture
def shipped() -> LoadedModel:
    """A fresh copy of the shipped ReLU model, in eval mode."""
    return load_model(request_model(SHIPPED), classes=10)


@pytest.fixture
def global_generators() -> Iterator[None]:
    """Fail the test if it moves a global random generator of torch."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)

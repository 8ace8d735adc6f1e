"""Shared fixtures: models with known answers, a shipped model, and no network.

Slow imports are made by the fixture that needs them, because the process that only distributes
tests (`pytest -n`) reads this file too.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from sampling import leave_out_what_is_not_drawn

if TYPE_CHECKING:
    from benchmark_scripts import Load
    from synthetic_records import MakeRecord
    from torch import nn

    from satbench.board.board import Board
    from satbench.data import Dataset
    from satbench.models import LoadedModel
    from satbench.records.record import Record

SHIPPED = "fmnist-sat-tiny-relu-s0"
_ZOOS = count()
_CHANGED: list[ModuleType] = []


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect without garbage collection, and exclude imported modules from it."""
    if not session.config.getoption("numprocesses", None):  # else it only distributes tests
        import hypothesis  # noqa: F401 (its plug-ins go through all that is imported: first)

    gc.disable()
    try:
        return (yield)
    finally:
        # What is imported refers to itself, and little else does: looking seldom is enough.
        gc.set_threshold(20_000, 20, 20)
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    """Collect once: pytest does it five times at the end, which is quick when all is excluded."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out_what_is_not_drawn(items, config.args)


@pytest.fixture(autouse=True, scope="session")
def _apart_from_this_machine() -> Iterator[None]:
    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a test opened a connection to {address}")

    # A shell starts processes in the background with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket.socket, "connect_ex", refuse)
        patch.setattr(os, "fsync", lambda handle: None)  # the disk is not what is tested
        patch.setenv("SATBENCH_WORKERS", "1")  # else commands share their work among processes
        yield


@pytest.fixture(autouse=True)
def _apart_from_other_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # This runs around every test, so it does little.
    base = str(tmp_path_factory.getbasetemp())
    # A zoo of the user's own for each test, which is not made before something is put there.
    number = next(_ZOOS)
    os.environ["SATBENCH_ZOO"] = f"{base}/own-zoo-{number}"
    if number % 100 == 0:
        gc.freeze()  # tests import packages, and some collect garbage
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    _read_what_is_shipped_once()
    last = next(reversed(sys.modules))
    yield
    # Tests write modules of one name into folders of their own; each imports its own.
    for name in reversed(list(sys.modules)):
        if name == last:
            break
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(base):
            del sys.modules[name]


def _read_what_is_shipped_once() -> None:
    """Read the shipped images and the published records once, not for each test.

    A module is changed after something imported it, since this conftest imports nothing heavy.
    """
    images = sys.modules.get("satbench.data.fashion_mnist")
    if images and images not in _CHANGED:
        _CHANGED.append(images)
        place = Path(str(images.__file__)).parent / "files"
        images.read_folder = _remembered(images.read_folder, lambda *given: given[0] == place)  # type: ignore[attr-defined]
    records = sys.modules.get("satbench.records.record")
    if records and records not in _CHANGED:
        _CHANGED.append(records)
        boards = str(Path(__file__).parents[1] / "leaderboard")
        records.parse_record = _remembered(  # type: ignore[attr-defined]
            records.parse_record, lambda text, where: where.startswith(boards)
        )


def _remembered(
    function: Callable[..., Any], is_shipped: Callable[..., bool]
) -> Callable[..., Any]:
    """Return a function that remembers its results for what is shipped."""
    known = cache(function)
    return lambda *given: (known if is_shipped(*given) else function)(*given)


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """A function that imports a script of benchmarks/."""
    from benchmark_scripts import scripts

    with scripts() as load:
        yield load


@pytest.fixture
def mean_model() -> nn.Module:
    """A model of known robustness, as a user would pass it: in train mode."""
    from known_models import Mean

    return Mean()


@pytest.fixture(scope="session")
def grey_images() -> Callable[..., Dataset]:
    """A function from mean pixels and labels to 1×2×2 images with these means."""
    import numpy as np

    from satbench.data import Dataset

    def make(means: Sequence[float], labels: Sequence[int]) -> Dataset:
        pixels = np.repeat(np.array(means, np.float32), 4).reshape(-1, 1, 2, 2)
        return Dataset("tensors", "user", pixels, np.array(labels, np.int64), 2)

    return make


@pytest.fixture(scope="session")
def small_net() -> Callable[..., nn.Module]:
    """A function that makes a random convolutional net with batch norm, in eval mode, frozen."""
    from known_models import random_net

    return random_net


@pytest.fixture(scope="session")
def fashion() -> Dataset:
    """The first 200 test images of Fashion-MNIST."""
    from satbench.data import load_dataset

    return load_dataset("fashion-mnist", "test", 200)


@pytest.fixture(scope="session")
def _shipped_once() -> LoadedModel:
    from satbench.models import load_model, request_model

    return load_model(request_model(SHIPPED), classes=10)


@pytest.fixture
def shipped(_shipped_once: LoadedModel) -> LoadedModel:
    """A fresh copy of the shipped ReLU model, in eval mode."""
    from copy import deepcopy

    return deepcopy(_shipped_once)


@pytest.fixture
def global_generators() -> Iterator[None]:
    """Fail the test if it moves a global random generator of torch."""
    import torch

    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def shapes_checked() -> Iterator[None]:
    """Compare the shape arrows of docstrings with each call of satbench in the test."""
    from arrows import watched

    with watched() as watch:
        yield
    assert watch.wrong == []


@pytest.fixture(scope="session")
def make_record() -> MakeRecord:
    """A function that builds a record from verdicts."""
    import synthetic_records

    return synthetic_records.a_record


@pytest.fixture(scope="session")
def spread() -> Callable[[int, int, int, int], list[int]]:
    """A function that builds verdicts from counts."""
    import synthetic_records

    return synthetic_records.spread


@pytest.fixture(scope="session")
def small_records() -> list[Record]:
    """Records of ReLU and SiLU over three seeds, a control, and a foreign model without PGD."""
    import synthetic_records

    return synthetic_records.a_few_records()


@pytest.fixture(scope="session")
def small_board(small_records: list[Record]) -> Board:
    """The board of `small_records`."""
    from satbench.board.board import build_board

    return build_board(small_records)

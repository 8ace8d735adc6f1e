"""A study that takes seconds: two nets of width 1 on noise images, and its files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from satbench.data import Dataset
from satbench.studies import Study
from satbench.studies.design import Arm, Pair, StudyColumn
from satbench.studies.images import DatasetCache
from satbench.studies.plan import StudyOptions, plan_study
from satbench.studies.runner import Machine, Runner
from satbench.studies.store import Places

BASE: dict[str, object] = {
    "architecture": "tiny(width=1)",
    "epochs": 1,
    "batch_size": 8,
    "held_out": 8,
}


def _noise(split: str, n: int) -> Dataset:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    images = rng.integers(0, 86, (n, 1, 8, 8)) + 80 * labels.reshape(-1, 1, 1, 1)
    return Dataset("toy", split, images.astype(np.uint8), labels, 3)


def _load(name: str, split: str = "test", n: int | None = None, data_dir: object = None) -> Dataset:
    whole = _noise(split, 40)
    return whole if n is None else whole.first(n)


@pytest.fixture(scope="session")
def made_study() -> Study:
    """Return a study of two activations under two suites; the second begins with the first."""
    return Study(
        name="made",
        title="A made-up study",
        section="section 4.1",
        question="Is one more robust than the other?",
        setup="Only the activation differs.",
        arms=(Arm("ReLU", {"activation": "relu"}), Arm("SILU", {"activation": "silu"})),
        seeds=2,
        evaluations=(
            StudyColumn("PGD-1", ("pgd-1",)),
            StudyColumn("both", ("pgd-1", "pgd-2")),
            StudyColumn("worse", worst_of=("PGD-1", "both")),
        ),
        verdict="worse",
        paper_verdict="PGD-1",
        contrasts=(Pair("SILU", "ReLU"),),
        base=BASE,
        measured=True,
    )


@pytest.fixture(scope="session")
def serve_noise() -> Callable[[pytest.MonkeyPatch], None]:
    """Return a function that replaces Fashion-MNIST by noise images."""
    return _serve_noise


def _serve_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("satbench.training.images.training_set.load_dataset", _load)
    patch.setattr("satbench.studies.images.load_dataset", _load)
    patch.setattr("satbench.studies.images._KNOWN", {})


def _runner(study: Study, places: Places) -> Runner:
    images = DatasetCache()
    plan = plan_study(study, StudyOptions(n_examples=12), images)
    return Runner(plan, places, images, Machine("cpu", 1, quiet=True))


@pytest.fixture
def noise_images(monkeypatch: pytest.MonkeyPatch) -> DatasetCache:
    """Return noise images in place of Fashion-MNIST."""
    _serve_noise(monkeypatch)
    return DatasetCache()


@pytest.fixture
def make_runner(noise_images: DatasetCache) -> Callable[[Study, Places], Runner]:
    """Return a function from a study and places to its runner, on 12 images."""
    return _runner


@pytest.fixture(scope="session")
def _done(made_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        _serve_noise(patch)
        _runner(made_study, Places(folder / "store", folder / "results")).carry_out("all")
    return folder


@pytest.fixture
def done(_done: Path, tmp_path: Path) -> Places:
    """Return the places of the finished made-up study: a copy that a test may change."""
    shutil.copytree(_done, tmp_path / "done")
    return Places(tmp_path / "done" / "store", tmp_path / "done" / "results")

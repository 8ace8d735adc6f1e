"""A dry run needs no data: a missing data set is replaced by its known size, with a note."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.recipes import load_recipe
from satbench.studies.images import DatasetCache
from satbench.studies.outline import Outlines
from satbench.studies.store import Places, trained_digests

pytestmark = pytest.mark.sampled(2)


@pytest.fixture
def _nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SATBENCH_DATA", str(tmp_path / "none"))
    monkeypatch.setattr("satbench.studies.outline.find", lambda _: None)
    monkeypatch.setattr("satbench.data.fashion_mnist.find", lambda _: None)
    monkeypatch.setattr("satbench.studies.estimate.Estimate._measure", lambda *_: (1e-3, 2e-3))
    monkeypatch.chdir(tmp_path)


@pytest.mark.sampled(1)
@pytest.mark.usefixtures("_nothing_here")
@pytest.mark.parametrize(
    "words",
    [
        ("activations", "--recipe", "sat-cifar10"),
        ("activations", "--recipe", "sat-imagenet-resnet50"),
        ("scaling",),
        ("activations", "--set", "dataset=arrays:mine.npz"),
        ("activations", "--eval-dataset", "cifar100"),
    ],
)
def test_a_dry_run_needs_no_data(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satbench.data.fashion_mnist._download", _never)
    done = CliRunner().invoke(cli, ["study", *words, "--dry-run", "--json", "--seeds", "0"])
    lines = json.loads(done.stdout)

    assert 0 == done.exit_code
    assert len(lines) > 3
    assert all(line["seconds"] > 0 for line in lines if line["missing"])
    assert "is missing, and counts as" in done.stderr


def _never(*_: object) -> None:
    raise AssertionError("a dry run downloads nothing")


@pytest.mark.usefixtures("_nothing_here")
@pytest.mark.parametrize(
    ("name", "n", "shape", "classes"),
    [
        ("fashion-mnist@20", 60_000, (1, 20, 20), 10),
        ("cifar100", 50_000, (3, 32, 32), 100),
        ("imagefolder:nowhere", 1_281_167, (3, 224, 224), 1000),
    ],
)
def test_a_missing_data_set_has_its_known_size_and_is_reported_once(
    name: str, n: int, shape: tuple[int, int, int], classes: int
) -> None:
    said: list[str] = []
    images = Outlines(None, {name: "told"}, said.append)
    config = load_recipe("fmnist-sat", dataset=name)
    assert "told" == images.training_digest(config)
    whole = images.training(config).data

    assert (n, shape, classes) == (len(whole), whole.shape, whole.classes)
    assert 1 == len(said)


def test_a_present_data_set_is_loaded() -> None:
    outlines, images = Outlines(None, {}, _never), DatasetCache()

    assert images.test("fashion-mnist", 5).digest == outlines.test("fashion-mnist", 5).digest
    with pytest.raises(SatbenchError, match="expected at most 10000 examples"):
        outlines.test("fashion-mnist", 10_001)


def test_cards_in_the_store_give_the_digest_of_a_missing_data_set(done: Places) -> None:
    for path in done.results.glob("*.json"):
        path.unlink()

    assert {"fashion-mnist"} == set(trained_digests(done))

"""Data sets at another resolution: NAME@SIDE."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from satbench.cli import cli
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.data import Dataset, check_name, load_dataset
from satbench.data import fashion_mnist as _fashion_mnist
from satbench.data._resized import resized


@pytest.mark.parametrize("name", ["fashion-mnist@8", "cifar10@512", "imagefolder:/me@home"])
def test_a_side_is_part_of_a_name(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("side", ["7", "513", "0", "", "-20", "20.5", "2²", "20@20"])
def test_a_side_out_of_range_is_refused(side: str) -> None:
    with pytest.raises(
        SatbenchError,
        match=rf"^expected the dataset as cifar10@SIDE with a side from 8 to 512 pixels, got "
        rf"'cifar10@{side}'$",
    ):
        check_name(f"cifar10@{side}")


@pytest.mark.parametrize("name", ["imagefolder@20", "imagefolder@20:/data"])
def test_a_side_is_refused_for_a_folder_of_images(name: str) -> None:
    with pytest.raises(SatbenchError, match=r"^expected imagefolder:PATH, .*imagefolder:PATH@RULE"):
        check_name(name)


def test_an_unknown_name_with_a_side_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown dataset 'cifar': did you mean 'cifar10'"):
        check_name("cifar@20")


@pytest.mark.parametrize("side", [20, 45])
def test_images_are_resized_bilinearly_with_antialiasing(fashion: Dataset, side: int) -> None:
    found = load_dataset(f"fashion-mnist@{side}", "test", 200)
    expected = F.interpolate(
        torch.tensor(fashion.images, dtype=torch.float64),
        (side, side),
        mode="bilinear",
        antialias=True,
    )

    assert found.images.dtype == np.uint8
    # Pillow rounds to integers after the rows and after the columns.
    np.testing.assert_allclose(found.images, expected.numpy(), rtol=0, atol=1.01)
    assert abs(found.images - expected.numpy()).mean() < 0.4


def test_float_images_stay_floats_when_they_are_resized() -> None:
    pixels = np.random.default_rng(0).random((2, 3, 12, 12), np.float32)
    found = resized(Dataset("toy", "test", pixels, np.array([1, 0]), 2), 8)
    expected = F.interpolate(
        torch.from_numpy(pixels), (8, 8), mode="bilinear", antialias=True
    ).numpy()

    assert found.images.dtype == np.float32
    np.testing.assert_allclose(found.images, expected, rtol=0, atol=1e-6)


def test_a_resized_data_set_has_a_new_name_and_digest_and_the_same_labels(
    fashion: Dataset,
) -> None:
    found = load_dataset("fashion-mnist@20", "test", 200)

    assert (found.name, found.split, found.shape) == ("fashion-mnist@20", "test", (1, 20, 20))
    assert found.labels.tolist() == fashion.labels.tolist()
    assert found.digest == "acffec6bdfabf277d0dd4a990c0d396bfb389ab655bc23dda78ba348f311bf68"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("architecture", ["tiny(width=1)", "small(width=1,blocks=1)"])
def test_a_model_is_evaluated_only_at_the_side_of_its_training(
    architecture: str, fashion: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(folder: Path, split: str, n_examples: int | None = None) -> Dataset:
        return replace(fashion, split=split)

    monkeypatch.setattr(_fashion_mnist, "load", load)
    words = ("train", "--recipe", "fmnist-sat", "--arch", architecture, "--epochs", "1", "--quiet")
    sets = ("dataset=fashion-mnist@20", "batch_size=50", "held_out=50")
    told = CliRunner().invoke(
        cli,
        [*words, *(w for s in sets for w in ("--set", s)), "--name", "m", "--out", str(tmp_path)],
    )
    assert told.exit_code == 0, told.output
    card = tmp_path / "m" / "m.json"
    assert json.loads(card.read_text())["input_shape"] == [1, 20, 20]
    assert f"satbench eval --model {card} --dataset fashion-mnist@20 --norm linf" in told.output

    evaluate = ("eval", "--model", str(card), "--eps", "0.1", "--attack", "pgd-1")
    rest = ("--n-examples", "20", "--out", str(tmp_path / "results"), "--quiet")
    for dataset in ((), ("--dataset", "fashion-mnist@20")):
        done = CliRunner().invoke(cli, [*evaluate, *dataset, *rest, "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)[0]["dataset"] == "fashion-mnist@20"
    other = CliRunner().invoke(cli, [*evaluate, "--dataset", "fashion-mnist", *rest])
    assert str(other.exception) == (
        "expected images of shape (1, 20, 20) for m, got (1, 28, 28) from fashion-mnist"
    )

"""No model is evaluated on its training images, unless an option allows and a flag shows it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import satbench
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.recipes import TrainConfig
from satbench.training.run import TrainingRun, run_training

CONFIG = TrainConfig(
    recipe="toy",
    dataset="arrays:train.npz",
    architecture="tiny(width=1)",
    activation="silu",
    threat="linf:0.1",
    attack="pgd(steps=1,step=1.25*eps,restarts=1,start=uniform,keep=last)",
    epochs=1,
    batch_size=8,
    learning_rate=0.05,
    weight_decay=5e-4,
    held_out=8,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with arrays and folders of images, and a net trained on each kind."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 100, (40, 1, 8, 8)) + 120 * labels.reshape(-1, 1, 1, 1)
    grey = images.astype(np.uint8)
    np.savez(folder / "train.npz", x=grey, y=labels)
    np.savez(folder / "test.npz", x=255 - grey, y=labels)
    for side in ("train", "val"):
        for row, image in enumerate(grey[:: 1 if side == "train" else 4]):
            path = folder / "pair" / side / str(row % 2) / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.repeat(image, 3, 0).transpose(1, 2, 0)).save(path)
    return folder


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def trained(config: TrainConfig, name: str) -> TrainingRun:
    done = run_training(config, name, Path("runs"), None, "cpu", 1, lambda metrics: None, True, 0)
    assert done is not None
    return done


@pytest.fixture
def of_arrays() -> TrainingRun:
    return trained(CONFIG, "arrays")


@pytest.fixture
def of_folder() -> TrainingRun:
    architecture = "wide-resnet(depth=10,widen=1)"
    config = replace(CONFIG, architecture=architecture, dataset="imagefolder:pair/train", crop=8)
    return trained(config, "folder")


def evaluated(run: TrainingRun, *words: str) -> Result:
    given = ("eval", "--model", str(run.card), "--attack", "pgd-1", "--device", "cpu", "--quiet")
    return CliRunner().invoke(cli, [*given, "--json", "--out", str(run.card.parent / "r"), *words])


REFUSED = " was trained on "


@pytest.mark.parametrize(
    "words",
    [
        ("--data", "train.npz"),
        ("--data", "train.npz", "--n-examples", "5"),
        ("--data", "train.npz", "--until-interval", "50%"),
        ("--data", "copy.npz", "--data-name", "another"),
    ],
    ids=" ".join,
)
def test_training_arrays_are_refused(words: tuple[str, ...], of_arrays: TrainingRun) -> None:
    shutil.copy("train.npz", "copy.npz")
    done = evaluated(of_arrays, *words)

    assert REFUSED in str(done.exception)
    assert "--allow-training-data" in str(done.exception)


def test_other_arrays_are_evaluated(of_arrays: TrainingRun) -> None:
    (told,) = json.loads(evaluated(of_arrays, "--data", "test.npz").stdout)

    assert told["n"] == 40
    assert "training-data" not in json.dumps(told)


def test_training_tensors_are_refused_in_python(of_arrays: TrainingRun) -> None:
    with np.load("train.npz") as stored:
        x, y = torch.from_numpy(stored["x"]) / 255, torch.from_numpy(stored["y"])
    with pytest.raises(SatbenchError, match=REFUSED):
        satbench.evaluate(str(of_arrays.card), x, y, attacks="pgd-1", out=None)


def test_allowed_training_data_sets_a_flag_in_the_record(of_arrays: TrainingRun) -> None:
    done = evaluated(of_arrays, "--data", "train.npz", "--allow-training-data")
    (path,) = (of_arrays.card.parent / "r").glob("*train*.json")
    flags = json.loads(path.read_text())["diagnosis"]["flags"]

    assert done.exit_code == 0
    assert [flag["name"] for flag in flags if flag["name"] == "training-data"]


def test_a_model_whose_training_set_has_no_test_set_needs_a_named_one(
    of_arrays: TrainingRun,
) -> None:
    done = evaluated(of_arrays)

    assert of_arrays.test_set is None
    assert "--dataset TEST_SET " in of_arrays.eval_command
    assert "which has no test set" in str(done.exception)


@pytest.mark.parametrize(
    "dataset",
    [
        "imagefolder:pair/train",
        "imagefolder:pair/train@none",
        "imagefolder:pair/train@resize=10,crop=8",
        "imagefolder:moved",
    ],
)
def test_a_training_folder_is_refused_under_any_path_and_pixel_rule(
    dataset: str, of_folder: TrainingRun
) -> None:
    if not Path("moved").exists():
        shutil.copytree("pair/train", "moved")
    done = evaluated(of_folder, "--dataset", dataset, "--n-examples", "5")

    assert REFUSED in str(done.exception)
    assert "give --dataset imagefolder:pair/val" in str(done.exception)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "words", [(), ("--dataset", "imagefolder:pair/val")], ids=["default", "named"]
)
def test_a_net_trained_on_a_folder_is_evaluated_on_the_validation_folder_next_to_it(
    words: tuple[str, ...], of_folder: TrainingRun
) -> None:
    (told,) = json.loads(evaluated(of_folder, *words).stdout)

    assert of_folder.test_set == "imagefolder:pair/val@none"
    assert (told["dataset"], told["n"]) == ("imagefolder:val@none", 10)


def test_a_curve_on_training_data_is_refused(of_arrays: TrainingRun) -> None:
    words = ("curve", "--model", str(of_arrays.card), "--data", "train.npz", "--device", "cpu")
    done = CliRunner().invoke(cli, [*words, "--attack", "foolbox.fmn(steps=2)", "--out", "curves"])

    assert REFUSED in str(done.exception)


def test_a_transfer_matrix_on_training_data_of_its_targets_is_refused(
    of_arrays: TrainingRun,
) -> None:
    source = trained(replace(CONFIG, seed=1), "other")  # this is allowed for a source
    words = ("transfer", "--source", str(source.card), "--target", str(of_arrays.card))
    done = CliRunner().invoke(cli, [*words, "--data", "train.npz", "--eps", "0.1", "--quiet"])

    assert REFUSED in str(done.exception)


def test_a_file_whose_subset_was_trained_on_is_refused() -> None:
    # Sorted by class, and used in part: the card holds the digest of the whole file.
    with np.load("train.npz") as stored:
        order = np.argsort(stored["y"], kind="stable")
        np.savez("sorted.npz", x=stored["x"][order], y=stored["y"][order])
    run = trained(replace(CONFIG, dataset="arrays:sorted.npz", subset=30), "part")

    assert REFUSED in str(evaluated(run, "--data", "sorted.npz", "--n-examples", "3").exception)


def test_a_shipped_model_is_evaluated_on_test_images(tmp_path: Path) -> None:
    record = satbench.evaluate(
        "fmnist-sat-tiny-relu-s0", attacks="pgd-1", n_examples=5, out=tmp_path
    )

    assert record.dataset.split == "test"

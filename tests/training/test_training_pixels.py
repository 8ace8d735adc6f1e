"""Training and evaluation use the same pixels, in a folder or in arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.data import (
    Dataset,
    ImageTree,
    ResizeCrop,
    evaluation_set_of,
    load_dataset,
    training_rule,
)
from satbench.model_zoo.card import read_card
from satbench.model_zoo.weights import digest_weights
from satbench.recipes import TrainConfig
from satbench.training.images.batches import batches_of
from satbench.training.images.training_set import open_training_set
from satbench.training.loop import train
from satbench.training.run import run_training

CPU = torch.device("cpu")
Pictures = Callable[..., Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Return a function that writes a folder of noise images, with a number per class."""

    def write(*sizes: tuple[int, int], name: str = "pictures", each: int = 6) -> Path:
        rng, folder = np.random.default_rng(0), tmp_path / name
        for kind in range(3):
            (folder / f"{kind}").mkdir(parents=True, exist_ok=True)
            for k in range(each):
                width, height = sizes[k % len(sizes)]
                pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{kind}" / f"{k}.png")
        return folder

    return write


@pytest.fixture
def small(config: TrainConfig) -> TrainConfig:
    """Return a config of a short epoch of a colour net on images of 16 × 16."""
    return replace(
        config,
        architecture="wide-resnet(depth=10,widen=1)",
        attack="",
        epochs=1,
        batch_size=6,
        held_out=6,
        augment="crop-flip",
    )


def of_folder(config: TrainConfig, folder: Path, **changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"dataset": f"imagefolder:{folder}", "crop": 16} | changes
    return replace(config, **given)


# The rule


@pytest.mark.parametrize(
    ("sizes", "crop", "resize", "rule"),
    [
        ([(16, 16)], 16, "", ResizeCrop()),  # as they are
        ([(16, 16)], 16, "none", ResizeCrop()),
        ([(24, 24)], 16, "none", ResizeCrop(None, 16)),
        ([(24, 20)], 224, "none", ResizeCrop()),  # no crop was requested
        ([(16, 16)], 16, "18", ResizeCrop(18, 16)),
        ([(18, 18)], 16, "", ResizeCrop(18, 16)),  # a border in proportion, like 256 for 224
        ([(300, 260), (224, 240)], 224, "", ResizeCrop(256, 224)),
        ([(300, 200), (224, 240)], 224, "", ResizeCrop(256, 224)),  # ImageNet has smaller ones
        ([(400, 400)], 380, "", ResizeCrop(412, 380)),  # as the SAT code evaluates
    ],
    ids=str,
)
def test_the_images_of_a_folder_and_the_settings_decide_the_pixel_rule(
    sizes: list[tuple[int, int]], crop: int, resize: str, rule: ResizeCrop, pictures: Pictures
) -> None:
    folder = pictures(*sizes, each=2)

    assert training_rule(f"imagefolder:{folder}", crop, resize, "bicubic") == rule


@pytest.mark.parametrize(
    ("crop", "resize", "said"),
    [
        (224, "", r"got 32×32: give crop=32 instead of 224 for images as they are, or resize=256"),
        (64, "none", r"got 32×32: with resize=none give crop=32 instead of 64"),
    ],
)
def test_images_smaller_than_the_crop_are_refused(
    crop: int, resize: str, said: str, pictures: Pictures
) -> None:
    folder = pictures((32, 32), each=2)
    with pytest.raises(SatbenchError, match=said):
        training_rule(f"imagefolder:{folder}", crop, resize, "bicubic")


def test_a_rule_in_the_name_of_the_data_set_overrides_the_default_and_excludes_settings(
    pictures: Pictures,
) -> None:
    name = f"imagefolder:{pictures((32, 32), each=2)}@resize=20,crop=16,interpolation=box"

    assert training_rule(name, 224, "", "bicubic") == ResizeCrop(20, 16, "box")
    with pytest.raises(SatbenchError, match=r"says what is done to its pixels \(resize=20,crop=1"):
        training_rule(name, 224, "none", "bicubic")


@pytest.mark.parametrize("text", ["0", "some", "-3", "1.5", "²"])
def test_an_invalid_resize_is_refused(text: str, small: TrainConfig) -> None:
    with pytest.raises(SatbenchError, match=r"^expected resize none or pixels, such as 256, got"):
        replace(small, dataset="imagefolder:x", resize=text)


def test_resize_and_interpolation_need_a_folder(small: TrainConfig) -> None:
    with pytest.raises(SatbenchError, match=r"^crop, resize, crop_schedule and augment resized-"):
        replace(small, resize="none")


def test_an_image_that_differs_in_size_from_the_first_is_refused(
    pictures: Pictures, small: TrainConfig
) -> None:
    folder = pictures((16, 16), each=80)
    Image.new("RGB", (20, 16)).save(folder / "1" / "79.png")
    opened = open_training_set(of_folder(small, folder))
    rows = np.arange(len(opened.data))
    with pytest.raises(
        SatbenchError, match=r"^expected all images 16×16 as the first one is, got 2"
    ):
        list(batches_of(opened.data, small, CPU).train(0, [rows]))


@pytest.mark.parametrize("augment", ["none", "flip", "crop-flip"])
def test_small_images_keep_every_pixel(
    augment: Any, pictures: Pictures, small: TrainConfig
) -> None:
    config = replace(of_folder(small, pictures((16, 16))), augment=augment, crop_padding=0)
    tree = open_training_set(config).data
    rows = np.arange(6)
    ((x, _),) = batches_of(tree, config, CPU).train(0, [rows])
    stored = np.stack([np.asarray(tree.picture(int(row))) for row in rows])  # type: ignore[attr-defined]
    seen = (x * 255).round().byte().numpy().transpose(0, 2, 3, 1)

    for image, whole in zip(seen, stored, strict=True):
        assert any((image == turned).all() for turned in (whole, whole[:, ::-1]))


# Folders and arrays


def weights_of(config: TrainConfig, folder: Path) -> str:
    return digest_weights(train(config, open_training_set(config), folder, CPU).model)


def arrays_of(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images of a folder, sorted by class and name."""
    paths = sorted(folder.glob("*/*.png"), key=lambda path: (path.parent.name, path.name))
    images = [np.asarray(Image.open(path)).transpose(2, 0, 1) for path in paths]
    return np.stack(images), np.array([int(path.parent.name) for path in paths])


def test_a_folder_and_arrays_of_the_same_images_train_the_same_weights(
    pictures: Pictures, small: TrainConfig, tmp_path: Path
) -> None:
    folder = pictures((16, 16))
    images, labels = arrays_of(folder)
    np.savez(tmp_path / "sorted.npz", images=images, labels=labels)
    loaded = load_dataset(f"imagefolder:{folder}@none", "train")
    np.savez(tmp_path / "loaded.npz", x=loaded.images, y=loaded.labels)
    torch.save(
        {"x": torch.from_numpy(loaded.images), "y": torch.from_numpy(loaded.labels)},
        tmp_path / "loaded.pt",
    )
    named = {
        name: weights_of(
            replace(small, dataset=f"arrays:{tmp_path / name}"), tmp_path / f"run-{name}"
        )
        for name in ("sorted.npz", "loaded.npz", "loaded.pt")
    }
    in_memory = digest_weights(train(small, loaded, tmp_path / "run-memory", CPU).model)
    expected = weights_of(of_folder(small, folder), tmp_path / "run-folder")
    again = replace(small, dataset=f"imagefolder:{folder}@none")

    assert set(named.values()) == {expected}
    assert in_memory == expected
    assert weights_of(again, tmp_path / "run-none") == expected


def test_images_sorted_by_class_are_shuffled_in_a_fixed_order_and_a_note_says_so(
    toy: Dataset, small: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = np.argsort(toy.labels, kind="stable")
    lying = toy.taken(order)
    monkeypatch.setattr(
        "satbench.training.images.training_set.load_dataset", lambda *_, **__: lying
    )
    opened = open_training_set(small)

    assert opened.digest == lying.digest
    assert opened.notes == (
        "the images of toy are sorted by class: they are used in a fixed random order",
    )
    assert sorted(map(bytes, opened.data.images)) == sorted(map(bytes, toy.images))
    assert set(opened.data.labels[-8:].tolist()) == {0, 1, 2}


def test_classes_without_held_out_images_are_named(
    toy: Dataset, small: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.array([2, 1, 0] + [2] * 5 + [0, 1] * 16)
    data = Dataset("toy", "train", toy.images[: len(labels)], labels, 3)
    monkeypatch.setattr("satbench.training.images.training_set.load_dataset", lambda *_, **__: data)
    (note,) = open_training_set(replace(small, held_out=30)).notes

    assert note.startswith("the 30 held-out images, the last of toy, have none of class 2: ")
    assert open_training_set(small).notes == ()  # in a few images a class can be missing by chance


# A part of the images


@pytest.fixture
def shuffled_toy(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr("satbench.training.images.training_set.load_dataset", lambda *_, **__: toy)
    return toy


def test_a_subset_is_drawn_from_all_images_and_is_equal_for_every_seed(
    shuffled_toy: Dataset, small: TrainConfig
) -> None:
    part, other = (open_training_set(replace(small, subset=20, seed=seed)) for seed in (0, 1))
    whole = open_training_set(small)
    stored = set(map(bytes, whole.data.images))

    assert len(part.data) == 20
    assert set(map(bytes, part.data.images)) < stored
    assert part.data.digest == other.data.digest != shuffled_toy.first(20).digest
    assert part.digest == whole.digest == shuffled_toy.digest


def test_a_subset_of_a_folder_can_be_trained_on(
    pictures: Pictures, small: TrainConfig, tmp_path: Path
) -> None:
    folder = pictures((16, 16))
    config = replace(of_folder(small, folder), subset=12)
    tree = open_training_set(config).data
    assert isinstance(tree, ImageTree)

    assert len(tree) == len(tree.files) == 12
    assert len(tree.digest) == 64
    assert [int(Path(name).parent.name) for name in tree.files] == tree.labels.tolist()
    assert weights_of(config, tmp_path / "run")


@pytest.mark.usefixtures("shuffled_toy")
def test_a_subset_larger_than_the_data_set_is_refused(small: TrainConfig) -> None:
    with pytest.raises(SatbenchError, match=r"^expected at most 40 examples, all that toy"):
        open_training_set(replace(small, subset=41))


# Pairs of folders


def test_a_pair_of_folders_gives_the_training_and_the_evaluation_set(
    pictures: Pictures, small: TrainConfig, tmp_path: Path
) -> None:
    pictures((16, 16), name="pair/train")
    pictures((16, 16), name="pair/val", each=2)
    pair = f"imagefolder:{tmp_path / 'pair'}"
    trained = open_training_set(replace(small, dataset=pair, crop=16))

    assert (trained.data.classes, len(trained.data)) == (3, 18)
    assert (
        trained.data.digest
        == open_training_set(replace(small, dataset=f"{pair}/train", crop=16)).digest
    )
    assert len(load_dataset(f"{pair}@none", "test")) == 6
    assert len(load_dataset(f"{pair}@none", "train")) == 18


def test_a_folder_named_train_without_a_test_folder_is_a_class(
    pictures: Pictures, small: TrainConfig, tmp_path: Path
) -> None:
    pictures((16, 16), name="toys/train")
    pictures((16, 16), name="toys/plane")

    assert open_training_set(of_folder(small, tmp_path / "toys")).data.classes == 2


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist@20", "fashion-mnist@20"),
        ("imagefolder:pair/train", "imagefolder:pair/val"),
        ("imagefolder:pair/train@none", "imagefolder:pair/val@none"),
        ("imagefolder:pair", "imagefolder:pair"),
        ("imagefolder:alone/train", None),
        ("imagefolder:pictures", None),
        ("imagefolder:other/train", None),
        ("arrays:train.npz", None),
        ("tensors", None),
        ("hf:me/mine", "hf:me/mine"),
        ("hf:me/mine@split=train", None),
    ],
)
def test_the_evaluation_set_that_belongs_to_a_training_set_is_found(
    dataset: str,
    expected: str | None,
    pictures: Pictures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("pair/train", "pair/val", "alone/train", "pictures", "other/train"):
        pictures((8, 8), name=name, each=1)
    (tmp_path / "other/val/3").mkdir(parents=True)  # other classes
    monkeypatch.chdir(tmp_path)

    assert evaluation_set_of(dataset) == expected


# The card


def trained(config: TrainConfig, out: Path) -> Any:
    return run_training(config, "mine", out, None, "cpu", 1, lambda metrics: None, True, 0)


def test_the_card_holds_the_pixel_rule_and_evaluation_uses_it(
    pictures: Pictures, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures((16, 16), name="pair/train")
    pictures((16, 16), name="pair/val", each=2)
    config = replace(of_folder(small, Path("pair/train")), augment="none")
    run = trained(config, tmp_path / "runs")
    card = read_card(run.card)
    assert card.training is not None
    done = CliRunner().invoke(
        cli,
        [
            "eval",
            "--model",
            str(run.card),
            "--attack",
            "pgd-2",
            "--json",
            "--quiet",
            "--device",
            "cpu",
        ],
    )

    assert card.input_shape == (3, 16, 16)
    assert card.training.dataset == "imagefolder:pair/train@none"
    assert "--dataset imagefolder:pair/val@none " in run.eval_command
    assert done.exit_code == 0, done.exception
    (told,) = json.loads(done.stdout)
    assert (told["dataset"], told["n"]) == ("imagefolder:val@none", 6)


def test_the_digest_covers_the_pixels_after_the_rule(
    pictures: Pictures, small: TrainConfig
) -> None:
    folder = pictures((20, 20))
    digests = {
        open_training_set(of_folder(small, folder, resize=resize)).digest
        for resize in ("", "none", "20", "18")
    }

    assert len(digests) == 3  # the usual rule for 16 is to resize to 18

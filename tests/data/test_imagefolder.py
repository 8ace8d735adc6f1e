from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satbench.core.errors import SatbenchError
from satbench.data import ResizeCrop, _imagefolder, load_dataset, open_tree
from satbench.data.image_files.classes import class_order

PER_CLASS = 6


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write 3 classes of 6 one-coloured images: red is 10 times the class, green the image."""
    monkeypatch.setattr(_imagefolder, "STANDARD", ResizeCrop(8, 6))
    for label, name in enumerate(["ant", "bee", "cat"]):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            picture = Image.new("RGB", (12, 9), (10 * label, number, 200))
            picture.save(tmp_path / "val" / name / f"{number}.png")
    return tmp_path / "val"


def corrupt(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def test_images_are_cropped_and_channels_first(tree: Path) -> None:
    dataset = load_dataset(f"imagefolder:{tree}")

    assert (dataset.images.shape, dataset.images.dtype) == ((18, 3, 6, 6), np.uint8)
    assert (dataset.images[:, 2] == 200).all()


def test_labels_are_the_positions_of_the_sorted_class_folders(tree: Path) -> None:
    dataset = load_dataset(f"imagefolder:{tree}")

    assert (dataset.images[:, 0, 0, 0] // 10).tolist() == dataset.labels.tolist()
    assert (np.bincount(dataset.labels).tolist(), dataset.classes) == ([PER_CLASS] * 3, 3)


NAMES = {
    "numbers": ("0 1 2 9 10 11", "0 1 2 9 10 11"),
    "a thousand numbers": (" ".join(map(str, range(1000))), " ".join(map(str, range(1000)))),
    "numbers with zeros": ("100 007 09 1", "1 007 09 100"),
    "numbers and a word": ("0 2 10 other", "0 10 2 other"),
    "WordNet": ("n02 n1 n10", "n02 n1 n10"),
    "decimals": ("0.1 0.02 1", "0.02 0.1 1"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_class_folders_are_sorted_as_numbers_only_if_all_are_numbers(kind: str) -> None:
    names, expected = NAMES[kind]

    assert class_order(names.split()[::-1]) == expected.split()


def test_evaluation_and_training_give_numbered_folders_the_same_labels(tree: Path) -> None:
    for old, new in (("ant", "2"), ("bee", "9"), ("cat", "10")):
        (tree / old).rename(tree / new)
    evaluated, trained = (
        load_dataset(f"imagefolder:{tree}"),
        open_tree(f"imagefolder:{tree}", ResizeCrop.centre(6), 0),
    )

    assert (evaluated.images[:, 0, 0, 0] // 10).tolist() == evaluated.labels.tolist()
    assert evaluated.labels.tolist() == trained.labels.tolist()


def test_the_images_have_a_fixed_shuffled_order(tree: Path) -> None:
    expected = [2, 2, 1, 1, 0, 0, 0, 2, 0, 2, 2, 1, 0, 1, 1, 2, 0, 1]

    assert load_dataset(f"imagefolder:{tree}").labels.tolist() == expected


def test_the_first_n_images_equal_the_first_n_of_the_whole_set(tree: Path) -> None:
    whole = load_dataset(f"imagefolder:{tree}")
    part = load_dataset(f"imagefolder:{tree}", n_examples=5)

    assert part.digest == whole.first(5).digest


def test_loading_the_first_n_images_reads_no_other_image(tree: Path) -> None:
    for path in tree.glob("*/*.png"):
        if path.parent.name != "cat":
            path.write_bytes(b"")

    assert load_dataset(f"imagefolder:{tree}", n_examples=1).labels.tolist() == [2]


def test_more_examples_than_images_are_refused(tree: Path) -> None:
    with pytest.raises(SatbenchError, match=r"expected at most 18 examples, .* got 19"):
        load_dataset(f"imagefolder:{tree}", n_examples=19)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("", "resize=8,crop=6,interpolation=bicubic"),
        ("@none", "none"),
        ("@8", "resize=8x8,interpolation=bilinear"),
        ("@bicubicres256crop224", "resize=256,crop=224,interpolation=bicubic"),
        ("@crop=5,classes=3", "crop=5,classes=3"),
        ("@classes=3", "resize=8,crop=6,interpolation=bicubic,classes=3"),
        ("@none,classes=folders", "none"),
    ],
)
def test_the_name_holds_the_folder_and_the_rule_for_pixels(
    rule: str, said: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)

    assert load_dataset(f"imagefolder:{tree}{rule}", n_examples=2).name == f"imagefolder:val@{said}"
    assert load_dataset(f"imagefolder:.{rule}", n_examples=2).name == f"imagefolder:val@{said}"


def test_grey_images_become_rgb(tree: Path) -> None:
    for path in tree.glob("*/*.png"):
        Image.new("L", (12, 9), 77).save(path)

    assert (load_dataset(f"imagefolder:{tree}").images == 77).all()


@pytest.mark.parametrize("keep", [0, 10, 45])
def test_an_unreadable_image_is_named(tree: Path, keep: int) -> None:
    corrupt(tree / "bee" / "4.png", keep)
    with pytest.raises(SatbenchError, match=r"^cannot read the image .*/bee/4\.png \(.*repair or"):
        load_dataset(f"imagefolder:{tree}")


def test_a_png_with_a_broken_chunk_is_named(tree: Path) -> None:
    # Pillow raises SyntaxError if the chunk with the pixels is too short.
    path = tree / "bee" / "4.png"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") - 1] = 4
    path.write_bytes(raw)
    with pytest.raises(SatbenchError, match=r"^cannot read the image .*/bee/4\.png \(broken PNG"):
        load_dataset(f"imagefolder:{tree}")


def test_image_rows_are_not_swapped_with_columns(tree: Path) -> None:
    for path in tree.glob("*/*.png"):
        picture = Image.new("RGB", (8, 8))
        picture.paste((255, 255, 255), (0, 0, 8, 4))  # the upper half
        picture.save(path)

    first = load_dataset(f"imagefolder:{tree}", n_examples=1).images[0, 0]
    np.testing.assert_array_equal(first, np.repeat([255, 0], 3)[:, None] * np.ones((1, 6)))


def test_a_class_folder_without_images_is_refused(tree: Path) -> None:
    (tree / "dog").mkdir()
    with pytest.raises(
        SatbenchError, match=r"expected images in class folders below .*/val: .*dog"
    ):
        load_dataset(f"imagefolder:{tree}")


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"expected images in class folders below "):
        load_dataset(f"imagefolder:{tmp_path}")


def test_a_path_that_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"expected a folder of class folders, got '.*/absent'"):
        load_dataset(f"imagefolder:{tmp_path / 'absent'}")

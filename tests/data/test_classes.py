"""Class folders and labels become the indices of a model's logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satbench.core.errors import SatbenchError
from satbench.data import Dataset, ResizeCrop, load_arrays, load_dataset, open_tree
from satbench.data.image_files.classes import wordnet_ids

# Of ILSVRC 2012: tench, hen, starfish, Old English sheepdog, toilet paper.
WORDNET = {"n01440764": 0, "n01514859": 8, "n02317335": 327, "n02105641": 229, "n15075141": 999}


def tree_of(folder: Path, *names: str, empty: tuple[str, ...] = ()) -> Path:
    """Write class folders with one image each; its red value is the index of the name."""
    for name in (*names, *empty):
        (folder / "tree" / name).mkdir(parents=True)
    for place, name in enumerate(names):
        Image.new("RGB", (4, 4), (place, 0, 0)).save(folder / "tree" / name / "a.png")
    return folder / "tree"


def numbers(data: Dataset, *names: str) -> dict[str, int]:
    """Return the label of each name, found by the red value of its image."""
    return {
        names[int(image[0, 0, 0])]: int(label)
        for image, label in zip(data.images, data.labels, strict=True)
    }


def written(folder: Path, content: object) -> Path:
    (folder / "map.json").write_text(json.dumps(content))
    return folder / "map.json"


def test_there_are_1000_sorted_wordnet_ids() -> None:
    assert len(wordnet_ids()) == 1000
    assert list(wordnet_ids()) == sorted(wordnet_ids())
    assert {name: wordnet_ids()[name] for name in WORDNET} == WORDNET


@pytest.mark.parametrize("classes", ["", ",classes=imagenet"])
def test_folders_named_by_wordnet_ids_get_imagenets_class_numbers(
    classes: str, tmp_path: Path
) -> None:
    tree = tree_of(tmp_path, *WORDNET, empty=("n01443537",))
    data = load_dataset(f"imagefolder:{tree}@none{classes}")

    assert numbers(data, *WORDNET) == WORDNET
    assert (data.classes, data.more_classes) == (1000, False)


def test_training_numbers_wordnet_folders_by_their_order_by_default(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, *WORDNET)
    places = {name: place for place, name in enumerate(sorted(WORDNET))}
    trained = open_tree(f"imagefolder:{tree}@none", ResizeCrop(), 0)
    data = load_dataset(f"imagefolder:{tree}@none,classes=folders")

    assert numbers(data, *WORDNET) == places
    assert trained.labels.tolist() == data.labels.tolist()
    assert trained.classes == data.classes == 5


def test_training_can_use_imagenets_class_numbers(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, *WORDNET)
    trained = open_tree(f"imagefolder:{tree}@none,classes=imagenet", ResizeCrop(), 0)

    assert trained.labels.tolist() == load_dataset(f"imagefolder:{tree}@none").labels.tolist()
    assert trained.classes == 1000
    assert trained.origin == f"imagefolder:{tree}@none,classes=imagenet"


@pytest.mark.parametrize(
    ("content", "expected", "count", "more"),
    [
        ({"cat": 3, "dog": 5, "eel": 9}, {"cat": 3, "dog": 5}, 10, True),
        ({"cat": 0, "dog": 0}, {"cat": 0, "dog": 0}, 1, True),
        ({"7": "cat", "2": "dog", "0": "eel"}, {"cat": 7, "dog": 2}, 8, False),
        ({"1": ["cat", "tom"], "0": ["dog", "rex"]}, {"cat": 1, "dog": 0}, 2, False),
        (["eel", "dog", "ant", "cat"], {"cat": 3, "dog": 1}, 4, False),
    ],
)
def test_a_class_map_gives_folders_their_numbers(
    content: object, expected: dict[str, int], count: int, more: bool, tmp_path: Path
) -> None:
    tree = tree_of(tmp_path, "cat", "dog", empty=("gnu",))
    path = written(tmp_path, content)
    data = load_dataset(f"imagefolder:{tree}@none,classes={path}")

    assert numbers(data, "cat", "dog") == expected
    assert (data.classes, data.more_classes) == (count, more)


@pytest.mark.parametrize(
    "content",
    [{}, [], {"cat": -1}, {"cat": 1.5}, {"cat": True}, {"cat": "1"}, ["cat", 3], 5, {"0": 0.5}],
)
def test_an_invalid_class_map_is_refused(content: object, tmp_path: Path) -> None:
    tree, path = tree_of(tmp_path, "cat"), written(tmp_path, content)
    with pytest.raises(SatbenchError, match=rf"^expected a map of classes in {path}: "):
        load_dataset(f"imagefolder:{tree}@none,classes={path}")


def test_a_missing_or_broken_class_map_is_named(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "cat")
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken", "missing"):
        with pytest.raises(SatbenchError, match=rf"map of classes .*{name}\.json"):
            load_dataset(f"imagefolder:{tree}@classes={tmp_path}/{name}.json")


def test_a_folder_that_is_missing_in_the_class_map_is_named(tmp_path: Path) -> None:
    tree, path = tree_of(tmp_path, "cat", "dog"), written(tmp_path, {"cat": 0})
    with pytest.raises(SatbenchError, match=r"^expected a number in .*map\.json .* none for dog$"):
        load_dataset(f"imagefolder:{tree}@none,classes={path}")
    with pytest.raises(SatbenchError, match=r"^expected a number in ImageNet's .* for cat, dog$"):
        load_dataset(f"imagefolder:{tree}@none,classes=imagenet")


def test_folders_named_by_numbers_keep_them_if_the_class_count_is_given(tmp_path: Path) -> None:
    names = ("22", "9", "101")
    tree = tree_of(tmp_path, *names, empty=("7",))
    data = load_dataset(f"imagefolder:{tree}@none,classes=1000")

    assert numbers(data, *names) == {"22": 22, "9": 9, "101": 101}
    assert (data.classes, data.more_classes) == (1000, False)
    with pytest.raises(SatbenchError, match=r"^expected labels in 0…99 for 100 classes .*got 101"):
        load_dataset(f"imagefolder:{tree}@none,classes=100")


@pytest.mark.parametrize("names", [("1", "2", "3"), ("3", "7", "12"), ("0", "1", "9")])
def test_as_many_folders_as_classes_are_numbered_by_their_order(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    tree = tree_of(tmp_path, *names)
    data = load_dataset(f"imagefolder:{tree}@none,classes=3")

    assert numbers(data, *names) == {name: place for place, name in enumerate(names)}


def test_the_name_of_a_data_set_says_how_classes_are_numbered(tmp_path: Path) -> None:
    tree, path = tree_of(tmp_path, "0", "1"), written(tmp_path, {"0": 3, "1": 2})
    named = {
        f"none,classes={path}": "none,classes=map.json",
        "none,classes=10": "none,classes=10",
        "none,classes=folders": "none",
    }
    for said, told in named.items():
        assert load_dataset(f"imagefolder:{tree}@{said}").name == f"imagefolder:tree@{told}"


def test_the_number_of_named_folders_must_equal_the_class_count(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "ant", "bee", "cat")

    assert load_dataset(f"imagefolder:{tree}@none,classes=3").classes == 3
    for count in (2, 10):
        with pytest.raises(SatbenchError, match=rf"^expected {count} class folders in .* got 3,"):
            load_dataset(f"imagefolder:{tree}@none,classes={count}")


@pytest.mark.parametrize("classes", ["0", "-3", "many", "1e3", "map.txt"])
def test_malformed_class_counts_are_refused(classes: str, tmp_path: Path) -> None:
    said = r"^expected (the classes as a num|1 to 1,000,000 classes)"
    with pytest.raises(SatbenchError, match=said):
        load_dataset(f"imagefolder:{tmp_path}@classes={classes}")


@pytest.mark.parametrize("name", ["tree@none,classes=folders", "tree@classes=2", "tree"])
def test_an_empty_folder_is_refused_if_it_shifts_the_class_numbers(
    name: str, tmp_path: Path
) -> None:
    tree_of(tmp_path, "ant", "cat", empty=("bee",))
    with pytest.raises(SatbenchError, match=r"there are none in bee; .*--classes FILE\.json"):
        load_dataset(f"imagefolder:{tmp_path}/{name}")


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "ant", "bee", empty=(".ipynb_checkpoints",))
    (tree / "ant" / "._a.png").write_bytes(b"of another system")
    (tree / "ant" / "notes.txt").write_text("no image")

    assert numbers(load_dataset(f"imagefolder:{tree}@none"), "ant", "bee") == {"ant": 0, "bee": 1}


def test_a_link_to_a_parent_folder_does_not_count_images_twice(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "ant", "bee")
    (tree / "ant" / "more").symlink_to("../ant")

    assert len(load_dataset(f"imagefolder:{tree}@none")) == 2


# Labels of arrays


@pytest.fixture
def arrays(tmp_path: Path) -> str:
    images, labels = np.zeros((3, 1, 2, 2), np.uint8), np.array([7, 2, 7])
    np.savez(tmp_path / "mine.npz", x=images, y=labels)
    return str(tmp_path / "mine.npz")


@pytest.mark.parametrize(
    ("classes", "labels", "count", "more"),
    [
        ("", [7, 2, 7], 8, True),
        (8, [7, 2, 7], 8, False),
        ("100", [7, 2, 7], 100, False),
        ("imagenet", [7, 2, 7], 1000, False),
        ({"7": 1, "2": 30}, [1, 30, 1], 31, True),
        ({"4": "7", "0": "2"}, [4, 0, 4], 5, False),
    ],
)
def test_labels_of_arrays_are_numbered_by_classes_or_a_map(
    classes: object, labels: list[int], count: int, more: bool, arrays: str, tmp_path: Path
) -> None:
    text = str(written(tmp_path, classes) if isinstance(classes, dict) else classes)
    data = load_arrays(arrays, classes=text)

    assert data.labels.tolist() == labels
    assert (data.classes, data.more_classes) == (count, more)
    if text:
        assert load_dataset(f"arrays:{arrays}@classes={text}").digest == data.digest


@pytest.mark.parametrize(
    ("classes", "said"),
    [("7", "0…6 for 7 classes .*got 7"), ("folders", "for folders"), ("none", "the classes as")],
)
def test_labels_without_a_class_number_are_refused(classes: str, said: str, arrays: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        load_arrays(arrays, classes=classes)


def test_a_label_that_is_missing_in_the_class_map_is_named(arrays: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"7": 0})
    with pytest.raises(SatbenchError, match=r"map\.json for every class in .*mine\.npz, .* for 2$"):
        load_arrays(arrays, classes=str(path))

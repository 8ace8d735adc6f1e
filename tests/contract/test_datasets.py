"""The contract of every data set in the registry.  A new one is picked up automatically.

Its files are small ones of the real format (`dataset_files.py`).  A data set without a line there
has its own images, or is only tested with an empty data folder.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.dataset_files import Made, made_dataset
from satbench.core.digests import digest_arrays
from satbench.core.errors import SatbenchError
from satbench.data import AT_A_PATH, DATASETS, USER, Dataset, Split, check_name, load_dataset

# Whoever adds one is told of its faults every day.
pytestmark = pytest.mark.sampled(None)

each_data_set = pytest.mark.parametrize("name", DATASETS.names())
NAMED = [name for name in DATASETS.names() if name not in AT_A_PATH]


@pytest.fixture(autouse=True)
def _no_data_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Where Debian's package of Fashion-MNIST is installed, its files would be found.
    monkeypatch.setattr("satbench.data.fashion_mnist._DEBIAN", tmp_path / "nowhere")


@pytest.fixture
def made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return made_dataset(name, tmp_path / "data", monkeypatch)


def load(made: Made, n_examples: int | None = None) -> Dataset:
    try:
        return load_dataset(made.name, _split(made), n_examples, made.folder)
    except SatbenchError as refusal:
        if made.images is None and not made.folder.exists():
            pytest.skip(f"no files to test with, see tests/contract/dataset_files.py: {refusal}")
        raise


def answer(ask: Callable[[], Dataset]) -> tuple[Dataset | None, str]:
    """Return the data set, or the sentence that refuses it."""
    try:
        return ask(), ""
    except SatbenchError as refused:
        return None, str(refused)


def place_of(made: Made) -> str:
    """Return a pattern of what a refusal names: the folder, or the last part of the name."""
    return f"{re.escape(str(made.folder))}|:{re.escape(Path(made.name).name)}"


def _split(made: Made) -> Split:
    return "train" if made.split == "train" else "test"


@each_data_set
def test_a_data_set_is_listed_with_a_name_and_a_sentence(name: str) -> None:
    entry = DATASETS[name]

    assert entry.name == name == name.lower()
    assert not set(name) & set(" ,:@#")
    assert entry.summary
    assert callable(entry.load())


@each_data_set
def test_shapes_ranges_and_labels_are_those_of_a_data_set(made: Made, name: str) -> None:
    data = load(made)
    n, channels, *sides = data.images.shape

    assert len(sides) == 2
    assert channels in (1, 3)
    assert data.images.dtype in (np.uint8, np.float32)
    assert (n, data.labels.dtype) == (len(data.labels), np.int64)
    assert 0 <= data.labels.min() <= data.labels.max() < data.classes
    assert (data.origin, data.population) == (made.name, 0)
    assert data.split == (USER if name == "arrays" else made.split)
    assert data.shape == (channels, *sides)
    assert data.name.startswith(name) or (name in AT_A_PATH and data.name)


@pytest.mark.usefixtures("shapes_checked")
@each_data_set
def test_pixels_are_float32_from_0_to_1_in_the_order_asked_for(made: Made) -> None:
    data = load(made)
    rows = np.array([1, 0])

    x = data.pixels(rows)

    assert (x.shape, x.dtype) == ((2, *data.shape), np.float32)
    assert 0 <= x.min() < x.max() <= 1
    scale = 255 if data.images.dtype == np.uint8 else 1
    np.testing.assert_array_equal(x, data.images[rows].astype(np.float32) / np.float32(scale))


@each_data_set
def test_images_and_labels_are_those_of_the_files(made: Made) -> None:
    data = load(made)
    if made.images is None:
        pytest.skip("brings its own images")

    found = [
        (int(label), image.tobytes()) for image, label in zip(data.images, data.labels, strict=True)
    ]
    put = [(label, image.tobytes()) for image, label in zip(made.images, made.labels, strict=True)]
    assert found == put if made.in_order else sorted(found) == sorted(put)


@each_data_set
def test_the_digest_is_that_of_pixels_and_labels_wherever_they_lie(
    made: Made, name: str, tmp_path: Path
) -> None:
    data = load(made)
    moved = tmp_path / "moved"
    if made.folder.exists():
        shutil.copytree(made.folder, moved)
    text = made.name.replace(str(made.folder), str(moved))

    again = load_dataset(text, _split(made), None, moved)

    assert data.digest == digest_arrays(data.images, data.labels) == again.digest
    assert data.name == again.name
    assert data.labels.tolist() == again.labels.tolist()


@each_data_set
@pytest.mark.parametrize("n", [1, 2])
def test_the_first_n_are_the_first_of_all(made: Made, n: int) -> None:
    few, all_of_them = load(made, n), load(made)

    assert len(few) == n
    assert few.digest == all_of_them.first(n).digest
    assert few.classes == all_of_them.classes


@each_data_set
def test_a_random_order_holds_the_same_images_and_is_the_same_each_time(made: Made) -> None:
    data = load(made).first(2)

    mixed = data.shuffled()

    assert mixed.digest == data.shuffled().digest
    assert mixed.population == 2
    assert sorted(image.tobytes() for image in mixed.images) == sorted(
        image.tobytes() for image in data.images
    )


@each_data_set
def test_loading_leaves_the_global_generators_alone(made: Made) -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())

    load(made)

    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


@each_data_set
def test_a_number_of_images_that_cannot_be_had_is_refused(made: Made) -> None:
    n = len(load(made))
    for wanted in (0, -1, n + 1):
        with pytest.raises(SatbenchError, match=rf"got {wanted}$"):
            load(made, wanted)

    fewer = load_dataset(made.name, _split(made), n + 1, made.folder, or_fewer=True)
    assert len(fewer) == n


@each_data_set
def test_a_file_that_is_missing_cut_short_or_empty_is_refused_and_its_place_named(
    made: Made,
) -> None:
    for file in made.files:
        whole = file.read_bytes()
        for left in (None, b"", whole[: len(whole) // 2]):
            file.unlink() if left is None else file.write_bytes(left)
            if left is None and made.name.startswith("imagefolder"):
                assert len(load(made)) == len(made.files) - 1  # a folder holds what it holds
            else:
                with pytest.raises(SatbenchError, match=place_of(made)):
                    load(made)
            file.write_bytes(whole)


@each_data_set
def test_a_changed_byte_is_refused_or_makes_another_digest(made: Made) -> None:
    digest = load(made).digest
    for file in made.files[:1]:
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        file.write_bytes(bytes(whole))
        changed, refusal = answer(lambda: load(made))
        assert (changed.digest != digest) if changed else re.search(place_of(made), refusal)


@each_data_set
def test_an_empty_data_folder_is_refused_with_its_place_or_not_needed(
    name: str, tmp_path: Path
) -> None:
    text = f"{name}:{tmp_path / 'none'}" if name in AT_A_PATH else name
    none = tmp_path / "none"
    data, refusal = answer(lambda: load_dataset(text, data_dir=none))
    assert len(data) > 0 if data else str(none) in refusal


@pytest.mark.parametrize("name", NAMED)
def test_a_side_behind_the_name_resizes(made: Made) -> None:
    data = load(made)
    sized = load_dataset(f"{made.name}@20", _split(made), 2, made.folder)

    assert sized.shape == (data.shape[0], 20, 20)
    assert sized.labels.tolist() == data.labels[:2].tolist()
    assert sized.digest != data.first(2).digest


@pytest.mark.parametrize("name", AT_A_PATH)
def test_a_data_set_at_a_path_needs_its_path(name: str) -> None:
    for text in (name, f"{name}@20:x"):
        with pytest.raises(SatbenchError, match=f"{name}:PATH"):
            check_name(text)


@pytest.mark.parametrize("name", NAMED)
def test_a_data_set_with_a_name_has_no_path(name: str) -> None:
    with pytest.raises(SatbenchError, match=f"expected the dataset as {name}"):
        check_name(f"{name}:somewhere")

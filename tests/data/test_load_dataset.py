from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from satbench.core.digests import digest_arrays
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.data import DATASETS, Dataset, check_name, load_dataset
from satbench.data.folders import data_folder

GREYS = np.array([0, 1, 128, 255], np.uint8).reshape(2, 1, 1, 2)
BYTES = Dataset("toy", "test", GREYS, np.array([1, 0]), 2)
FLOATS = replace(BYTES, images=np.array([0, 0.25, 0.5, 1], np.float32).reshape(2, 1, 1, 2))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("fashion-mnst", "fashion-mnist"), ("cifar", "cifar10"), ("CIFAR100", "cifar100")],
)
def test_an_unknown_name_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(
        UnknownNameError, match=rf"^unknown dataset '{name}': did you mean '{nearest}'\?$"
    ):
        load_dataset(name)


@pytest.mark.parametrize("name", ["imagefolder", "imagefolder:"])
def test_imagefolder_without_a_path_is_refused(name: str) -> None:
    with pytest.raises(
        SatbenchError, match=rf"^expected the dataset as imagefolder:PATH, got '{name}'$"
    ):
        check_name(name)


def test_a_path_after_the_name_of_a_built_in_set_is_refused() -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected the dataset as cifar10, got 'cifar10:/data'$"
    ):
        check_name("cifar10:/data")


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100", "imagefolder:/data"])
def test_known_names_are_accepted(name: str) -> None:
    check_name(name)


def test_every_registered_dataset_can_be_imported() -> None:
    assert all(callable(entry.load()) for entry in DATASETS)


def test_checking_a_name_does_not_import_torch() -> None:
    code = (
        "import sys; from satbench.data import check_name; check_name('cifar10'); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_n_examples_loads_the_first_images() -> None:
    few = load_dataset("fashion-mnist", n_examples=7)

    assert (len(few), few.images.shape) == (7, (7, 1, 28, 28))
    assert few.labels.tolist() == [9, 2, 1, 1, 6, 1, 4]


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_example_is_refused(n: int) -> None:
    with pytest.raises(SatbenchError, match=rf"^expected at least 1 example, got {n}$"):
        load_dataset("fashion-mnist", n_examples=n)


def test_more_examples_than_there_are_is_refused_with_their_number() -> None:
    with pytest.raises(
        SatbenchError,
        match=r"^expected at most 10000 examples, all that fashion-mnist \(test\) has, got 10001$",
    ):
        load_dataset("fashion-mnist", n_examples=10_001)


def test_bytes_become_float32_in_0_to_1() -> None:
    pixels = BYTES.pixels(np.array([1, 0]))

    expected = np.array([128, 255, 0, 1], np.float32).reshape(2, 1, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(pixels, expected, strict=True)


def test_float_pixels_are_unchanged() -> None:
    np.testing.assert_array_equal(FLOATS.pixels(np.array([1])), FLOATS.images[1:], strict=True)


def test_changing_given_pixels_does_not_change_the_dataset() -> None:
    FLOATS.pixels(np.array([0, 1]))[:] = 9

    assert FLOATS.images.max() == 1


def test_the_digest_covers_pixels_and_labels() -> None:
    assert BYTES.digest == digest_arrays(BYTES.images, BYTES.labels)


def test_the_digest_of_the_first_n_covers_only_these() -> None:
    BYTES.digest  # noqa: B018 - a cached digest must not be copied

    assert BYTES.first(1).digest == digest_arrays(BYTES.images[:1], BYTES.labels[:1])


def test_a_data_set_has_the_length_and_shape_of_its_images() -> None:
    assert (len(BYTES), BYTES.shape) == (2, (1, 1, 2))


def test_a_given_data_folder_is_used_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SATBENCH_DATA", "/from/environment")

    assert data_folder(Path("/chosen")) == Path("/chosen")


def test_the_environment_sets_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SATBENCH_DATA", "/from/environment")

    assert data_folder() == Path("/from/environment")


@pytest.mark.parametrize("value", [None, ""])
def test_the_data_folder_is_in_the_users_cache_by_default(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("SATBENCH_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("SATBENCH_DATA", value)
    monkeypatch.setenv("HOME", "/home/someone")

    assert data_folder() == Path("/home/someone/.cache/satbench/data")

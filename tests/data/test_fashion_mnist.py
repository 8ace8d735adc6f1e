from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torchvision
from numpy.typing import NDArray

from satbench.core.digests import digest_arrays
from satbench.core.errors import SatbenchError
from satbench.data import Dataset, load_dataset
from satbench.data import fashion_mnist as _fashion_mnist

PLACES = ("fashion-mnist", "FashionMNIST/raw", "debian")
N = 3


@pytest.fixture(scope="module")
def test_set() -> Dataset:
    return load_dataset("fashion-mnist")


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NDArray[np.uint8]:
    """Replace the training set by N made-up images, and forbid the network."""
    images = np.arange(N * 28 * 28).astype(np.uint8).reshape(N, 1, 28, 28)
    digests = {"train": digest_arrays(images, np.array([2, 0, 1]))}
    monkeypatch.setattr(_fashion_mnist, "DIGESTS", digests)
    monkeypatch.setattr(_fashion_mnist, "_SHAPES", {"train": N})
    monkeypatch.setattr(_fashion_mnist, "_DEBIAN", tmp_path / "debian")
    forbid_download(monkeypatch, OSError("the network is off"))
    return images


def forbid_download(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def download(root: str, train: bool, download: bool) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)


def write_idx(place: Path, images: NDArray[np.uint8], zipped: bool = True) -> Path:
    """Write a training set as IDX files; return the path of the images."""
    place.mkdir(parents=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in (2051, N, 28, 28))
    labels = (2049).to_bytes(4, "big") + N.to_bytes(4, "big") + bytes([2, 0, 1])
    suffix, pack = (".gz", gzip.compress) if zipped else ("", bytes)
    (place / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))
    path = place / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(sizes + images.tobytes()))
    return path


def load_train(folder: Path) -> Dataset:
    return load_dataset("fashion-mnist", "train", data_dir=folder)


def test_the_test_set_has_its_published_digest(test_set: Dataset) -> None:
    assert test_set.digest == "20c9a769a8b6cc43acc7634384389417dc2fb7e9c67adcf40bd172d15d975ca1"


def test_the_test_set_is_10_000_grey_images(test_set: Dataset) -> None:
    assert test_set.images.shape == (10_000, 1, 28, 28)
    assert test_set.images.dtype == np.uint8


def test_the_first_labels_of_the_test_set_are_the_published_ones(test_set: Dataset) -> None:
    assert test_set.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert test_set.labels.dtype == np.int64


def test_the_test_set_has_1000_images_per_class(test_set: Dataset) -> None:
    assert np.bincount(test_set.labels).tolist() == [1000] * test_set.classes


def test_the_test_set_needs_no_data_folder(tmp_path: Path, test_set: Dataset) -> None:
    assert load_dataset("fashion-mnist", data_dir=tmp_path / "absent").digest == test_set.digest


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_the_training_set_is_found_in_each_possible_folder(
    tmp_path: Path, images: NDArray[np.uint8], place: str, zipped: bool
) -> None:
    write_idx(tmp_path / place, images, zipped)
    found = load_train(tmp_path)

    np.testing.assert_array_equal(found.images, images)
    assert found.labels.tolist() == [2, 0, 1]
    assert (found.name, found.split, found.classes) == ("fashion-mnist", "train", 10)


def test_satbenchs_own_folder_is_searched_before_torchvisions(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    write_idx(tmp_path / PLACES[0], images)
    write_idx(tmp_path / PLACES[1], images + np.uint8(1))

    np.testing.assert_array_equal(load_train(tmp_path).images, images)


def test_a_training_set_with_other_pixels_is_refused(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    write_idx(tmp_path / PLACES[0], images + np.uint8(1))
    with pytest.raises(
        SatbenchError,
        match=r"expected Fashion-MNIST's train set with digest \w{12}… in .*/fashion-mnist, "
        r"got \w{12}…; delete these files and fetch them again",
    ):
        load_train(tmp_path)


def test_a_truncated_gz_file_is_named(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = write_idx(tmp_path / PLACES[0], images)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SatbenchError, match=r"images-idx3-ubyte\.gz is corrupt .*; fetch it again"):
        load_train(tmp_path)


def test_a_gz_file_with_flipped_bits_is_named(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = write_idx(tmp_path / PLACES[0], images)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 255  # in the checksum
    path.write_bytes(raw)
    with pytest.raises(SatbenchError, match=r"images-idx3-ubyte\.gz is corrupt .*; fetch it again"):
        load_train(tmp_path)


def test_a_file_that_is_not_gzip_is_named(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    write_idx(tmp_path / PLACES[0], images).write_bytes(b"<html>404</html>")
    with pytest.raises(SatbenchError, match=r"images-idx3-ubyte\.gz is corrupt .*; fetch it again"):
        load_train(tmp_path)


def test_a_truncated_plain_file_is_refused_with_both_sizes(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    path = write_idx(tmp_path / PLACES[0], images, zipped=False)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SatbenchError, match=r"expected 2368 bytes in .*, got 2367; fetch it again"):
        load_train(tmp_path)


def test_a_missing_labels_file_is_named(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    write_idx(tmp_path / PLACES[0], images)
    (tmp_path / PLACES[0] / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(SatbenchError, match=r"file .*labels-idx1-ubyte\.gz, which is missing"):
        load_train(tmp_path)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    "error",
    [OSError("unreachable"), RuntimeError("Error downloading:\nTried a mirror, got:\nunreachable")],
)
def test_a_failing_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    forbid_download(monkeypatch, error)
    with pytest.raises(
        SatbenchError,
        match=r"^found no Fashion-MNIST training set in .*/fashion-mnist, and its download failed "
        r"\(.*unreachable\); put train-images-idx3-ubyte\.gz .* install Debian's package",
    ):
        load_train(tmp_path)


def test_a_download_is_saved_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: NDArray[np.uint8]
) -> None:
    def download(root: str, train: bool, download: bool) -> None:
        write_idx(Path(root) / "FashionMNIST" / "raw", images)

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)

    np.testing.assert_array_equal(load_train(tmp_path).images, images)

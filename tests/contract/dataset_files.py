"""Small files in the real format of each data set, written for a test.

A data set that needs no files, because its images ship with it or are computed, needs no line here.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from satbench.core.digests import digest_arrays
from satbench.data import DATASETS, fashion_mnist

Value = NDArray[np.uint8] | Sequence[int] | Sequence[str]


@dataclass(frozen=True)
class Made:
    """A data set that a test can load: its name, its data folder, and what was put there.

    `images` and `labels` are those of `split`, in order if `in_order`; None where nothing was
    written, for a data set that brings its own.  `files` holds every file that `split` needs;
    `train` is what was put beside it for training.
    """

    name: str
    folder: Path
    split: str = "test"
    images: NDArray[np.uint8] | None = None
    labels: Sequence[int] = ()
    in_order: bool = True
    files: tuple[Path, ...] = ()
    train: NDArray[np.uint8] | None = None


def made_dataset(name: str, folder: Path, patch: pytest.MonkeyPatch) -> Made:
    """Write the files of a registered data set into `folder`; `patch` sets published digests."""
    make = MAKERS.get(DATASETS[name].name)
    return make(folder, patch) if make else Made(name, folder)


def pixels(*shape: int) -> NDArray[np.uint8]:
    """Return noise of some shape, the same each time."""
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def fashion(folder: Path, patch: pytest.MonkeyPatch) -> Made:
    """Write the training set of Fashion-MNIST, with 3 images: two IDX files."""
    images, labels = pixels(3, 1, 28, 28), [2, 0, 1]
    digest = digest_arrays(images, np.array(labels, np.int64))
    patch.setattr(fashion_mnist, "DIGESTS", {**fashion_mnist.DIGESTS, "train": digest})
    patch.setattr(fashion_mnist, "_SHAPES", {**fashion_mnist._SHAPES, "train": 3})
    place = folder / "fashion-mnist"
    place.mkdir(parents=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in (2051, 3, 28, 28))
    counts = b"".join(size.to_bytes(4, "big") for size in (2049, 3))
    files = (place / "train-images-idx3-ubyte.gz", place / "train-labels-idx1-ubyte.gz")
    files[0].write_bytes(gzip.compress(sizes + images.tobytes()))
    files[1].write_bytes(gzip.compress(counts + bytes(labels)))
    return Made("fashion-mnist", folder, "train", images, labels, files=files)


def cifar10(folder: Path, patch: pytest.MonkeyPatch) -> Made:
    """Write CIFAR-10 with 2 images a batch, as torchvision unpacks it."""
    train, labels = pixels(12, 3072), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 8, 0]
    rows = {f"data_batch_{i + 1}": slice(2 * i, 2 * i + 2) for i in range(5)}
    contents: dict[str, dict[str, Value]] = {
        name: {"data": train[two], "labels": labels[two]} for name, two in rows.items()
    }
    contents["test_batch"] = {"data": train[10:], "labels": labels[10:]}
    contents["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    place = folder / "cifar-10-batches-py"
    digests = write_pickles(place, contents)
    patch.setattr(CIFAR10, "train_list", [[name, digests[name]] for name in rows])
    patch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    patch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": digests["batches.meta"]})
    files = (place / "test_batch", place / "batches.meta")
    images = in_rows(train[10:])
    return Made("cifar10", folder, "test", images, labels[10:], True, files, in_rows(train[:10]))


def cifar100(folder: Path, patch: pytest.MonkeyPatch) -> Made:
    """Write CIFAR-100 with 10 and 2 images, as torchvision unpacks it."""
    train, labels = pixels(12, 3072), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 99, 0]
    contents: dict[str, dict[str, Value]] = {
        "train": {"data": train[:10], "fine_labels": labels[:10], "coarse_labels": [0] * 10},
        "test": {"data": train[10:], "coarse_labels": [7, 1], "fine_labels": labels[10:]},
        "meta": {"fine_label_names": [f"class {i}" for i in range(100)]},
    }
    place = folder / "cifar-100-python"
    digests = write_pickles(place, contents)
    patch.setattr(CIFAR100, "train_list", [["train", digests["train"]]])
    patch.setattr(CIFAR100, "test_list", [["test", digests["test"]]])
    patch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": digests["meta"]})
    images = in_rows(train[10:])
    files = (place / "test", place / "meta")
    return Made("cifar100", folder, "test", images, labels[10:], True, files, in_rows(train[:10]))


def imagefolder(folder: Path, patch: pytest.MonkeyPatch) -> Made:
    """Write 5 colour images in the folders of 2 classes."""
    images, labels = pixels(5, 3, 9, 8), [0, 0, 0, 1, 1]
    files = tuple(
        folder / "tree" / ("ant", "bee")[label] / f"{k}.png" for k, label in enumerate(labels)
    )
    for image, file in zip(images, files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(file)
    name = f"imagefolder:{folder / 'tree'}@none"
    return Made(name, folder, "test", images, labels, in_order=False, files=files)


def arrays(folder: Path, patch: pytest.MonkeyPatch) -> Made:
    """Write 4 images and their labels into one .npz."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels, file = pixels(4, 3, 6, 6), [1, 0, 2, 1], folder / "mine.npz"
    np.savez(file, images=images, labels=np.array(labels))
    return Made(f"arrays:{file}", folder, "test", images, labels, files=(file,))


def hugging_face(folder: Path, patch: pytest.MonkeyPatch) -> Made:
    """Write 5 images in classes of their own order, as the library saves a data set."""
    datasets = pytest.importorskip("datasets", reason="needs satbench[datasets]")
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    images, labels = pixels(5, 3, 9, 8), [2, 0, 1, 2, 0]
    features = datasets.Features(
        {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["ant", "bee", "cat"])}
    )
    photos = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
    table = datasets.Dataset.from_dict({"photo": photos, "kind": labels}, features=features)
    datasets.disable_progress_bars()
    table.save_to_disk(str(folder / "mine"))
    datasets.enable_progress_bars()
    (file,) = (folder / "mine").glob("*.arrow")
    return Made(f"hf:{folder / 'mine'}", folder, "test", images, labels, files=(file,))


def in_rows(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return CIFAR's images as (N, C, H, W)."""
    return stored.reshape(-1, 3, 32, 32)


MAKERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Made]] = {
    "fashion-mnist": fashion,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagefolder": imagefolder,
    "arrays": arrays,
    "hf": hugging_face,
}


def write_pickles(folder: Path, files: Mapping[str, Mapping[str, Value]]) -> dict[str, str]:
    """Write pickles as CIFAR's are; return the MD5 of each."""
    folder.mkdir(parents=True)
    for name, things in files.items():
        (folder / name).write_bytes(python2_pickle(things))
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in files}


def python2_pickle(things: Mapping[str, Value]) -> bytes:
    """Pickle as the published files are: protocol 2 of Python 2, arrays of NumPy 1."""
    items = b"".join(_text(key.encode()) + _pickled(value) for key, value in things.items())
    return b"\x80\x02}(" + items + b"u."


def _pickled(value: Value) -> bytes:
    if not isinstance(value, np.ndarray):
        each = (_text(v.encode()) if isinstance(v, str) else _int(v) for v in value)
        return b"](" + b"".join(each) + b"e"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * _int(-1) + b"K\x00tb"
    shape = _int(value.shape[0]) + _int(value.shape[1]) + b"\x86"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + _text(value.tobytes()) + b"tb"


def _int(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def _text(value: bytes) -> bytes:
    return b"T" + len(value).to_bytes(4, "little") + value

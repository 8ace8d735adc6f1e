from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, CIFAR100

from satbench.core.errors import SatbenchError
from satbench.data import load_dataset

Value = NDArray[np.uint8] | Sequence[int] | Sequence[str]

# A batch is 2 images; the published training set is 5 batches.
TRAIN = np.arange(10 * 3072).astype(np.uint8).reshape(10, 3072)
TEST = TRAIN[::-5] + np.uint8(1)
LABELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


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


def write(folder: Path, files: Mapping[str, Mapping[str, Value]]) -> dict[str, str]:
    """Write pickles; return the MD5 of each."""
    folder.mkdir(parents=True)
    for name, things in files.items():
        (folder / name).write_bytes(python2_pickle(things))
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in files}


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = {f"data_batch_{i + 1}": slice(2 * i, 2 * i + 2) for i in range(5)}
    files: dict[str, dict[str, Value]] = {
        name: {"data": TRAIN[two], "labels": LABELS[two]} for name, two in rows.items()
    }
    files["test_batch"] = {"data": TEST, "labels": [8, 0]}
    files["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    digests = write(tmp_path / "cifar-10-batches-py", files)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, digests[name]] for name in rows])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": digests["batches.meta"]})
    return tmp_path


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fine, coarse = [99, 0], [7, 1]
    files: dict[str, dict[str, Value]] = {
        "train": {"data": TRAIN, "fine_labels": LABELS, "coarse_labels": [0] * 10},
        "test": {"data": TEST, "coarse_labels": coarse, "fine_labels": fine},
        "meta": {"fine_label_names": [f"class {i}" for i in range(100)]},
    }
    digests = write(tmp_path / "cifar-100-python", files)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", digests["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", digests["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": digests["meta"]})
    return tmp_path


def test_cifar10s_test_images_come_channels_first_in_the_order_of_the_file(cifar10: Path) -> None:
    dataset = load_dataset("cifar10", data_dir=cifar10)

    np.testing.assert_array_equal(dataset.images, TEST.reshape(2, 3, 32, 32))
    assert dataset.images.flags.c_contiguous


def test_cifar10_has_its_labels_and_10_classes(cifar10: Path) -> None:
    dataset = load_dataset("cifar10", data_dir=cifar10)

    assert (dataset.labels.tolist(), dataset.labels.dtype, dataset.classes) == (
        [8, 0],
        np.int64,
        10,
    )


def test_cifar10s_training_set_is_its_batches_in_order(cifar10: Path) -> None:
    dataset = load_dataset("cifar10", "train", data_dir=cifar10)

    np.testing.assert_array_equal(dataset.images, TRAIN.reshape(10, 3, 32, 32))
    assert dataset.labels.tolist() == LABELS


def test_cifar100_has_its_fine_labels_and_100_classes(cifar100: Path) -> None:
    dataset = load_dataset("cifar100", data_dir=cifar100)

    np.testing.assert_array_equal(dataset.images, TEST.reshape(2, 3, 32, 32))
    assert (dataset.labels.tolist(), dataset.classes) == ([99, 0], 100)


@pytest.mark.parametrize("file", ["test_batch", "data_batch_3", "batches.meta"])
def test_a_corrupt_cifar_file_is_refused_before_it_is_unpickled(cifar10: Path, file: str) -> None:
    # os.system would be called by unpickling this.
    (cifar10 / "cifar-10-batches-py" / file).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        SatbenchError,
        match=r"^expected cifar10 in .*/cifar-10-batches-py, which is incomplete or corrupt .*; "
        r"fetch it with `python -c .*CIFAR10.*download=True",
    ):
        load_dataset("cifar10", data_dir=cifar10)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing_cifar_files_say_where_they_belong_and_how_to_fetch_them(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        SatbenchError,
        match=rf"^expected {name} in {tmp_path}/cifar-100?-\S+, which is missing; "
        rf"fetch it with `python -c .*{name.upper()}.*'{tmp_path}', download=True",
    ):
        load_dataset(name, data_dir=tmp_path)

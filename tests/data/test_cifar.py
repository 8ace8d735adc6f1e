"""CIFAR-10 and CIFAR-100; tests/contract/test_datasets.py tests what holds for every data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contract.dataset_files import Made, made_dataset

from satbench.core.errors import SatbenchError
from satbench.data import load_dataset


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return made_dataset("cifar10", tmp_path, monkeypatch)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_training_set_holds_its_batches_in_order(
    name: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_dataset(name, tmp_path, monkeypatch)
    train = load_dataset(name, "train", data_dir=tmp_path)
    test = load_dataset(name, data_dir=tmp_path)

    assert made.train is not None
    np.testing.assert_array_equal(train.images, made.train)
    assert train.labels.tolist() == [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert (train.classes, test.classes) == (classes, classes)
    assert test.images.flags.c_contiguous


@pytest.mark.parametrize("file", ["test_batch", "data_batch_3", "batches.meta"])
def test_a_corrupt_cifar_file_is_refused_before_it_is_unpickled(cifar10: Made, file: str) -> None:
    # Unpickling this would call os.system.
    (cifar10.folder / "cifar-10-batches-py" / file).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        SatbenchError,
        match=r"^expected cifar10 in .*/cifar-10-batches-py, which is incomplete or corrupt .*; "
        r"download it with `satbench datasets --get cifar10 --data-dir ",
    ):
        load_dataset("cifar10", data_dir=cifar10.folder)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing_cifar_files_are_reported_with_their_place_and_the_download_command(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(
        SatbenchError,
        match=rf"^expected {name} in {tmp_path}/cifar-100?-\S+, which is missing; "
        rf"download it with `satbench datasets --get {name} --data-dir {tmp_path}`",
    ):
        load_dataset(name, data_dir=tmp_path)

"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), in torchvision's format on disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from satbench.core.errors import SatbenchError
from satbench.data._dataset import Dataset


def load_cifar10(
    folder: Path, split: Literal["test", "train"], n_examples: int | None = None
) -> Dataset:
    """Load CIFAR-10 from `folder/cifar-10-batches-py`."""
    return load("cifar10", folder, split)


def load_cifar100(
    folder: Path, split: Literal["test", "train"], n_examples: int | None = None
) -> Dataset:
    """Load CIFAR-100 from `folder/cifar-100-python`."""
    return load("cifar100", folder, split)


def load(name: str, folder: Path, split: str) -> Dataset:
    """Load a split of `cifar10` or `cifar100`. Raises SatbenchError if files are incomplete."""
    # torchvision checks the MD5 of each file before it unpickles it, so that only the
    # published bytes are ever unpickled.
    kind = _KINDS[name]
    try:
        found = kind(str(folder), train=split == "train", download=False)
    except RuntimeError:
        place = folder / kind.base_folder
        state = "incomplete or corrupt (by the published MD5s)" if place.exists() else "missing"
        raise SatbenchError(
            f"expected {name} in {place}, which is {state}; download it with "
            f"`satbench datasets --get {name} --data-dir {folder}`"
        ) from None
    images = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
    return Dataset(name, split, images, np.array(found.targets, np.int64), len(found.classes))


def fetch(name: str, folder: Path) -> None:
    """Download `cifar10` or `cifar100` into `folder`, replacing its old files.

    Raises SatbenchError if that fails; `folder` is then unchanged.
    """
    kind = _KINDS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{name}-", dir=folder) as made:
        try:
            kind(made, train=False, download=True)
        except (OSError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise SatbenchError(
                f"the download of {name} from {kind.url} failed ({said}); try again where there "
                f"is a network, or unpack {kind.filename} of there in {folder}"
            ) from error
        place = folder / kind.base_folder
        shutil.rmtree(place, ignore_errors=True)
        os.replace(Path(made) / kind.base_folder, place)


_KINDS: dict[str, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}

"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), in the format torchvision keeps on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from satbench.core.errors import SatbenchError
from satbench.data._dataset import Dataset


def load_cifar10(
    folder: Path, split: Literal["test", "train"], n_examples: int | None = None
) -> Dataset:
    """Load CIFAR-10 from `folder/cifar-10-batches-py`."""
    return _load("cifar10", folder, split, classes=10)


def load_cifar100(
    folder: Path, split: Literal["test", "train"], n_examples: int | None = None
) -> Dataset:
    """Load CIFAR-100 from `folder/cifar-100-python`."""
    return _load("cifar100", folder, split, classes=100)


def _load(name: str, folder: Path, split: str, classes: int) -> Dataset:
    # torchvision checks the MD5 of each file before it unpickles it, so that only the
    # published bytes are ever unpickled.
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if name == "cifar10" else CIFAR100
    try:
        found = kind(str(folder), train=split == "train", download=False)
    except RuntimeError:
        place = folder / kind.base_folder
        state = "incomplete or corrupt (by the published MD5s)" if place.exists() else "missing"
        raise SatbenchError(
            f"expected {name} in {place}, which is {state}; fetch it with "
            f'`python -c "from torchvision.datasets import {kind.__name__} as D; '
            f"D('{folder}', download=True)\"`"
        ) from None
    images = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
    return Dataset(name, split, images, np.array(found.targets, np.int64), classes)

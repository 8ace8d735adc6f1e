"""Datasets: named, ordered images with a digest.  A new one is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from satbench.core.errors import SatbenchError
from satbench.core.registry import Entry, Registry
from satbench.data._arrays import load_arrays
from satbench.data._dataset import USER, Dataset
from satbench.data._folders import data_folder

Split = Literal["test", "train"]

SIDES = range(8, 513)
"""The sides in pixels that images can be resized to."""

DATASETS = Registry(
    "dataset",
    (
        Entry(
            "fashion-mnist",
            "satbench.data._fashion_mnist:load",
            "28×28 grey photos of clothes, 10 classes; the 10,000 test images ship with satbench",
            "Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747",
        ),
        Entry(
            "cifar10",
            "satbench.data._cifar:load_cifar10",
            "32×32 colour photos, 10 classes; torchvision's format in the data folder",
            "Krizhevsky, 2009",
        ),
        Entry(
            "cifar100",
            "satbench.data._cifar:load_cifar100",
            "32×32 colour photos, 100 classes; torchvision's format in the data folder",
            "Krizhevsky, 2009",
        ),
        Entry(
            "imagefolder",
            "satbench.data._imagefolder:load",
            "imagefolder:PATH, a tree PATH/CLASS/IMAGE such as ImageNet's val/",
        ),
    ),
)


def check_name(name: str) -> None:
    """Raise UnknownNameError unless `name` is a dataset's: NAME, NAME@SIDE or imagefolder:PATH."""
    base, side, path = _parse(name)
    entry = DATASETS[base]
    if side and entry.name == "imagefolder":
        raise SatbenchError(
            f"expected imagefolder:PATH, whose images are cropped to a side, got {name!r}"
        )
    if (entry.name == "imagefolder") != bool(path):
        wanted = "imagefolder:PATH" if entry.name == "imagefolder" else entry.name
        raise SatbenchError(f"expected the dataset as {wanted}, got {name!r}")


def load_dataset(
    name: str,
    split: Split = "test",
    n_examples: int | None = None,
    data_dir: Path | None = None,
) -> Dataset:
    """Load the first `n_examples` images of a split (all of them for None), digest checked.

    The name may have a side in pixels, `fashion-mnist@20`, to which the images are resized.
    `data_dir` is where files are looked for and downloaded to; None means `$SATBENCH_DATA`, else
    `~/.cache/satbench/data`.  Raises SatbenchError for an unknown name, files that are missing
    or corrupt, and `n_examples` below 1 or above what the split has.
    """
    check_name(name)
    if n_examples is not None and n_examples < 1:
        raise SatbenchError(f"expected at least 1 example, got {n_examples}")
    base, side, path = _parse(name)
    folder = Path(path) if base == "imagefolder" else data_folder(data_dir)
    load = cast(Callable[[Path, Split, int | None], Dataset], DATASETS[base].load())
    dataset = load(folder, split, n_examples)
    dataset = dataset if n_examples is None else dataset.first(n_examples)
    if side is None:
        return dataset
    from satbench.data._resized import resized

    return resized(dataset, side)


def _parse(name: str) -> tuple[str, int | None, str]:
    # NAME, NAME@SIDE or NAME:PATH -> name, side, path; a path may have an @ of its own.
    base, _, path = name.partition(":")
    base, at, text = base.partition("@")
    if not at:
        return base, None, path
    side = int(text) if text.isascii() and text.isdecimal() else 0
    if side not in SIDES:
        raise SatbenchError(
            f"expected the dataset as {base}@SIDE with a side from {SIDES[0]} to {SIDES[-1]} "
            f"pixels, got {name!r}"
        )
    return base, side, path


__all__ = ["DATASETS", "USER", "Dataset", "Split", "check_name", "load_arrays", "load_dataset"]

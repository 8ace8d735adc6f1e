"""The list of a tree PATH/CLASS/IMAGE with its labels, in one order for training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.noise import generator_for
from satbench.data.image_files.classes import Classes
from satbench.data.image_files.picture import SUFFIXES


@dataclass(frozen=True)
class Listing:
    """The image files of a tree, paths below its folder, in one fixed random order.

    So the first n are a fair sample of all classes.  `more_classes` is as in `Dataset`.
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: int
    more_classes: bool


def list_images(folder: Path, classes: Classes) -> Listing:
    """List the images below `folder`, each with the number that `classes` gives its class folder.

    Hidden folders and files are left out.  Raises SatbenchError if `folder` is no folder or has no
    class folders, for a class folder without images if that changes the numbers of others, and for
    a class folder without a number.
    """
    if not os.path.isdir(folder):
        raise SatbenchError(f"expected a folder of class folders, got {str(folder)!r}")
    found = {name: _images_in(folder, name) for name in _folders_in(folder)}
    full = [name for name, paths in found.items() if paths]
    if not full:
        raise SatbenchError(
            f"expected images in class folders below {folder}, PATH/CLASS/IMAGE: there are none"
        )
    empty = [name for name, paths in found.items() if not paths]
    numbers = classes.of_folders(full, empty, folder)
    paths = [(file, numbers.by_name[name]) for name in full for file in found[name]]
    order = generator_for("imagefolder order").permutation(len(paths))
    return Listing(
        files=tuple(paths[row][0] for row in order),
        labels=np.array([paths[row][1] for row in order], np.int64),
        classes=numbers.count,
        more_classes=numbers.more,
    )


def _folders_in(folder: Path) -> list[str]:
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return sorted(name for name in names if not name.startswith("."))


def _images_in(folder: Path, name: str) -> list[str]:
    """Return the image files of a class at any depth, below `folder`, in torchvision's order."""
    top = str(folder / name)
    return [
        f"{name}{root[len(top) :]}/{file}".replace(os.sep, "/")
        for root, files in sorted(_walk(top))
        for file in sorted(files)
        if file.lower().endswith(SUFFIXES) and not file.startswith(".")
    ]


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders below `top` with their files; a link back to one is not followed."""
    seen: set[str] = set()
    for root, folders, files in os.walk(top, followlinks=True):
        place = os.path.realpath(root)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        yield root, files

"""A tree PATH/CLASS/IMAGE, listed with its labels: the one order for training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satbench.core.errors import SatbenchError

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder


def list_images(folder: Path, transform: Callable[[Any], Any] | None = None) -> ImageFolder:
    """List the images below `folder`; labels number the class folders as `class_order` has them.

    `transform` is what a listed image goes through when it is read.  Raises SatbenchError for what
    is no folder, a folder without class folders, and a class folder without images.
    """
    from torchvision.datasets import ImageFolder

    class Tree(ImageFolder):  # type: ignore[misc]
        def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
            found = [entry.name for entry in os.scandir(directory) if entry.is_dir()]
            if not found:
                raise FileNotFoundError(f"there is no class folder in {directory}")
            names = class_order(found)
            return names, {name: label for label, name in enumerate(names)}

    if not folder.is_dir():
        raise SatbenchError(f"expected a folder of class folders, got {str(folder)!r}")
    try:
        return Tree(str(folder), transform=transform)
    except FileNotFoundError as error:
        raise SatbenchError(f"expected images in class folders below {folder}: {error}") from None


def class_order(names: list[str]) -> list[str]:
    """Sort the names of class folders: as numbers where all are whole numbers, else as text.

    Folders named by their label, 0…999 as ImageNet-V2 has them, so keep it: as text, 10 comes
    before 2.
    """
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)

"""A tree PATH/CLASS/IMAGE whose images are read when they are asked for: for training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satbench.core.digests import digest_json
from satbench.core.errors import SatbenchError
from satbench.core.noise import generator_for
from satbench.data._class_folders import list_images
from satbench.data._dataset import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ImageTree(Dataset):
    """A data set of image files: `images` is empty and stands for the shape of one image alone.

    `files` are paths below `folder`, in the order of `labels`; `workers` is how many processes
    read them, 0 for the one that trains.
    """

    folder: Path = Path()
    files: tuple[str, ...] = ()
    workers: int = 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, sizes in bytes and labels, in order.

        A weaker promise than that of other data sets: no image is read for it, so that bytes that
        change while the size stays go unnoticed.
        """
        sizes = [(self.folder / file).stat().st_size for file in self.files]
        return digest_json([*zip(self.files, sizes, self.labels.tolist(), strict=True)])

    def picture(self, row: int) -> Image:
        """Read an image as RGB.  Raises SatbenchError for a file that is broken."""
        from PIL import Image

        path = self.folder / self.files[row]
        try:
            with Image.open(path) as picture:
                return picture.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise SatbenchError(
                f"cannot read the image {path} ({error}); repair or remove it"
            ) from error


def open_tree(folder: Path, crop: int, workers: int) -> ImageTree:
    """List the images below `folder` as evaluation does, in the same fixed random order.

    `crop` is the side of the images in pixels.  Raises SatbenchError where there are none.
    """
    tree = list_images(folder)
    order = generator_for("imagefolder order").permutation(len(tree))
    return ImageTree(
        name=f"imagefolder:{folder.absolute().name}",
        split="train",
        images=np.empty((0, 3, crop, crop), np.uint8),
        labels=np.array([tree.targets[row] for row in order], np.int64),
        classes=len(tree.classes),
        folder=folder,
        files=tuple(Path(tree.samples[row][0]).relative_to(folder).as_posix() for row in order),
        workers=workers,
    )

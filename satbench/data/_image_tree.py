"""A tree PATH/CLASS/IMAGE for training, whose images are read when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from satbench.core.digests import digest_json
from satbench.data._dataset import Dataset
from satbench.data._imagefolder import ImageFolder
from satbench.data.image_files.class_folders import list_images
from satbench.data.image_files.pairs import side_of
from satbench.data.image_files.picture import as_bytes, read_picture
from satbench.data.image_files.pixels import STANDARD, ResizeCrop
from satbench.data.image_files.stack import check_size


@dataclass(frozen=True)
class ImageTree(Dataset):
    """A data set of image files: `images` is empty and has only the shape of one image.

    `files` are paths below `folder`, in the order of `labels`; `workers` is the number of processes
    that read them, 0 for the training process itself.  `rule` is the rule for pixels if nothing is
    random.  All images are bytes: more than 8 bits are rounded to the nearest of 256 levels.
    """

    folder: Path = Path()
    files: tuple[str, ...] = ()
    workers: int = 0
    rule: ResizeCrop = STANDARD

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, sizes in bytes and labels, in order, and of the rule for pixels.

        It is weaker than that of other data sets: no image is read for it, so a change of bytes
        without a change of size is not noticed.
        """
        sizes = [(self.folder / file).stat().st_size for file in self.files]
        files = [*zip(self.files, sizes, self.labels.tolist(), strict=True)]
        return digest_json([str(self.rule), files])

    def taken(self, rows: NDArray[np.int64] | slice) -> ImageTree:
        """Return the images of some rows, in that order."""
        files = tuple(self.files[row] for row in np.arange(len(self))[rows])
        return replace(self, files=files, labels=self.labels[rows])

    def picture(self, row: int) -> Image.Image:
        """Read an image as RGB, in its own size.  Raises SatbenchError for a broken file."""
        return as_bytes(read_picture(self.folder / self.files[row], self.rule.upright))

    def view(self, row: int) -> Image.Image:
        """Read an image as for evaluation, with the rule for pixels applied.

        Raises SatbenchError for a broken file, and for an image with another size than the others.
        """
        path = self.folder / self.files[row]
        (image,) = self.rule.applied((self.picture(row),), path)
        check_size(image, (self.shape[2], self.shape[1]), path)
        return image


def open_tree(name: str, rule: ResizeCrop, workers: int) -> ImageTree:
    """List the images of `imagefolder:PATH[@RULE]` as evaluation does, in the same fixed order.

    `rule` is the rule for pixels if the text has none.  Classes are numbered by the order of their
    folders, unless the text says otherwise.  Raises SatbenchError if there are no images.
    """
    source = ImageFolder.parse(name.removeprefix("imagefolder:"))
    rule, folder = source.treatment.rule or rule, side_of(source.folder, "train")
    treatment = source.treatment.numbered_by_place()
    found = list_images(folder, treatment.classes)
    height, width = rule.shape or _size_of_first(folder / found.files[0], rule)
    return ImageTree(
        name=f"imagefolder:{folder.absolute().name}@{replace(treatment, rule=rule).name}",
        split="train",
        images=np.empty((0, 3, height, width), np.uint8),
        labels=found.labels,
        classes=found.classes,
        more_classes=found.more_classes,
        origin=f"imagefolder:{source.treated(replace(source.treatment, rule=rule))}",
        folder=folder,
        files=found.files,
        workers=workers,
        rule=rule,
    )


def same_images(name: str, trained_on: str, digest: str) -> bool:
    """Return whether an evaluation of the folder `name` uses the files of a training.

    `digest` is that of the training set, whose name is `trained_on`.
    """
    here, there = (
        ImageFolder.parse(text.removeprefix("imagefolder:")) for text in (name, trained_on)
    )
    if not there.treatment.rule or not here.folder.is_dir():
        return False
    folder = side_of(here.folder, "test")
    same = replace(there, folder=folder)
    return open_tree(f"imagefolder:{same}", there.treatment.rule, 0).digest == digest


def _size_of_first(path: Path, rule: ResizeCrop) -> tuple[int, int]:
    width, height = rule.applied(read_picture(path, rule.upright), path)[0].size
    return height, width

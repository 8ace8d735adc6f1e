"""A tree PATH/CLASS/IMAGE of any images, such as ImageNet's validation set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from satbench.core.errors import SatbenchError
from satbench.core.noise import generator_for
from satbench.data._class_folders import list_images
from satbench.data._dataset import Dataset

# Shortest side 256, centre crop 224: the usual ImageNet evaluation
# (He et al., 2016, arXiv:1512.03385, section 3.4).
RESIZE, CROP = 256, 224


def load(folder: Path, split: Literal["test", "train"], n_examples: int | None = None) -> Dataset:
    """Load the images below `folder`, resized (bicubic, shortest side 256) and cropped to 224².

    Files are sorted by class and name, then put into one fixed random order, so that the first n
    are a fair sample of all classes.  Labels number the class folders, sorted as numbers where all
    names are whole numbers.
    """
    from PIL.Image import DecompressionBombError
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    prepare = Compose([Resize(RESIZE, InterpolationMode.BICUBIC), CenterCrop(CROP)])
    tree = list_images(folder, prepare)
    order = generator_for("imagefolder order").permutation(len(tree))[:n_examples]
    images = np.empty((len(order), 3, CROP, CROP), np.uint8)
    labels = np.empty(len(order), np.int64)
    for row, index in enumerate(order):
        try:
            picture, labels[row] = tree[int(index)]
        except (OSError, SyntaxError, ValueError, DecompressionBombError) as error:
            broken = tree.samples[int(index)][0]
            raise SatbenchError(
                f"cannot read the image {broken} ({error}); repair or remove it"
            ) from error
        images[row] = np.asarray(picture).transpose(2, 0, 1)
    return Dataset(
        f"imagefolder:{folder.absolute().name}", split, images, labels, len(tree.classes)
    )

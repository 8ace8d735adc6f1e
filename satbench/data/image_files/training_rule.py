"""The rule for the pixels of a training folder if its text has none."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from satbench.core.errors import SatbenchError
from satbench.data._imagefolder import ImageFolder
from satbench.data.image_files.class_folders import list_images
from satbench.data.image_files.pairs import side_of
from satbench.data.image_files.pixels import UNTOUCHED, Interpolation, ResizeCrop

USUAL = 224
"""The crop if none is given."""

_LOOKED_AT = 64
"""The number of images, the first of the fixed order, that are read for the sizes of a folder."""


def training_rule(name: str, crop: int, resize: str, interpolation: Interpolation) -> ResizeCrop:
    """Return the rule for the pixels of `imagefolder:PATH[@RULE]` in training.

    A rule in the text excludes these settings.  `resize` is none (only the centre of size `crop` is
    cut out; images that all have one size below the usual crop are not cut) or the length of the
    shortest side.  If it is empty, images of exactly the size `crop` are not changed, and others
    are resized as in the usual evaluation (`ResizeCrop.centre`).  Raises SatbenchError if something
    is given twice, and for images that would only be enlarged.
    """
    source = ImageFolder.parse(name.removeprefix("imagefolder:"))
    if rule := source.treatment.rule:
        if resize or interpolation != "bicubic":
            raise SatbenchError(
                f"the dataset {name} says what is done to its pixels ({rule}): leave resize and "
                "interpolation to it"
            )
        return rule
    sizes = _sizes(source)
    if resize == "none":
        if crop == USUAL and len(sizes) == 1 and all(max(size) < crop for size in sizes):
            return UNTOUCHED  # no crop was given
        if any(min(size) < crop for size in sizes):
            raise SatbenchError(f"{_told(sizes, name)}: with resize=none {_smaller(sizes, crop)}")
        return UNTOUCHED if sizes == {(crop, crop)} else ResizeCrop(None, crop)
    if resize:
        return ResizeCrop(int(resize), crop, interpolation)
    if sizes == {(crop, crop)}:
        return UNTOUCHED
    if all(min(size) < crop for size in sizes):
        raise SatbenchError(
            f"{_told(sizes, name)}: {_smaller(sizes, crop)}, or "
            f"resize={ResizeCrop.centre(crop).resize} to make them larger"
        )
    return replace(ResizeCrop.centre(crop), interpolation=interpolation)


def _sizes(source: ImageFolder) -> set[tuple[int, int]]:
    """Return the sizes (width, height) of the first images in their files."""
    folder = side_of(source.folder, "train")
    sizes = set()
    for file in list_images(folder, source.treatment.numbered_by_place().classes).files[
        :_LOOKED_AT
    ]:
        try:
            with Image.open(folder / file) as picture:
                sizes.add(picture.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise SatbenchError(
                f"cannot read the image {folder / file} ({error}); repair or remove it"
            ) from error
    return sizes


def _told(sizes: set[tuple[int, int]], name: str) -> str:
    width, height = min(sizes, key=min)
    return f"expected larger images in {name}, got {width}×{height}"


def _smaller(sizes: set[tuple[int, int]], crop: int) -> str:
    side = min(min(size) for size in sizes)
    return f"give crop={side} instead of {crop} for images as they are"

"""Pictures of broken images, embedded in the page: they need no file and no request."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from satbench.calling.threads import with_threads
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.evaluation.given import Given, find_images
from satbench.evaluation.python.result import Result
from satbench.figures.images import Broken, amplified, factor_of, seen_pixels
from satbench.records.record import Record

SHOWN = 8
"""The number of images that a page shows."""

MOST_SIDE = 112
"""The most pixels that a side of a picture has; larger images are made smaller."""


@dataclass(frozen=True)
class Triple:
    """A broken image: three pictures as data URLs, and the model's answers before and after."""

    index: int
    clean: str
    perturbation: str
    adversarial: str
    label: str
    before: str
    predicted: str
    after: str


@dataclass(frozen=True)
class PictureGrid:
    """Broken images of a record; perturbations are amplified by `factor`."""

    triples: Sequence[Triple]
    factor: float


def shown_record(records: Sequence[Record]) -> Record | None:
    """Return the record whose broken images are shown: the one that leaves fewest right.

    None if no record breaks an image or none lies in a file.
    """
    broken = [one for one in records if one.path and one.surviving() < one.clean_correct]
    return min(broken, key=lambda one: (one.surviving(), one.identity), default=None)


class Pictures:
    """Draws broken images, up to `images` of each record; each data set is read once."""

    def __init__(self, images: int = SHOWN) -> None:
        self.images = images
        self._datasets: dict[str, Dataset | None] = {}

    def grid(self, record: Record) -> PictureGrid | None:
        """Return pictures of a record; None if they cannot be drawn here.

        They cannot if the witnesses are missing, or if the model or the images are not known here:
        no name in a record runs code or fetches anything.
        """
        dataset = self._dataset(record)
        if dataset is None:
            return None
        try:
            with with_threads(1):
                found = Result.of(record, Given(dataset=dataset)).broken_images(self.images)
        except SatbenchError:
            return None
        factor = factor_of(found)
        return PictureGrid([_triple(one, factor) for one in found], factor)

    def _dataset(self, record: Record) -> Dataset | None:
        digest = record.dataset.digest
        if digest not in self._datasets:
            self._datasets[digest] = None  # searched for once, also if it is not found
            with suppress(SatbenchError):
                self._datasets[digest] = find_images(record, Given())
        return self._datasets[digest]


def _triple(one: Broken, factor: float) -> Triple:
    return Triple(
        one.index,
        picture_address(one.clean),
        picture_address(amplified(one, factor)),
        picture_address(one.adversarial),
        one.before.said,
        f"{one.before.confidence:.0%}",
        one.after.said,
        f"{one.after.confidence:.0%}",
    )


def picture_address(pixels: NDArray[np.float32]) -> str:
    """Return an image (C, H, W) in [0, 1] as a data URL of its PNG."""
    picture = Image.fromarray(np.rint(255 * seen_pixels(pixels)).astype(np.uint8))
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    file = BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

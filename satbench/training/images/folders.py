"""Training images from files; worker processes read, crop and flip them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from satbench.core.errors import SatbenchError
from satbench.core.noise import generator_for
from satbench.data import ImageTree
from satbench.recipes import TrainConfig
from satbench.training.images.colours import jittered, lit
from satbench.training.update.augment import Augmentation

if TYPE_CHECKING:
    from PIL.Image import Image

Read = tuple[NDArray[np.uint8], NDArray[np.int64]]
AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
"""Range of area, range of width to height, and number of tries (torchvision's defaults)."""
_PIECE = 32  # held-out images that a worker reads at once


def default_workers(world: int) -> int:
    """Return how many readers each of `world` processes has: its share of the cores, at most 8."""
    here = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if here else os.cpu_count() or 1
    return max(1, min(8, cores // world))


class FromFiles:
    """Batches of a tree of images; each image is a function of (seed, epoch, image)."""

    def __init__(self, tree: ImageTree, config: TrainConfig, device: torch.device) -> None:
        self._tree, self._config, self._device = tree, config, device
        self._white = torch.tensor(255, dtype=torch.float32, device=device)
        kind = config.augment
        on_device = "none" if kind == "resized-crop-flip" else kind
        self._augment = Augmentation(on_device, config.crop_padding, config.seed)

    def train(
        self, epoch: int, rows: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented images in [0, 1] and labels for each of the batches to come."""
        random = self._config.augment == "resized-crop-flip"
        tree = at_side(self._tree, self._config.crop_at(epoch + 1))
        views = Views(
            tree,
            self._config.seed,
            epoch,
            random,
            self._config.colour_jitter,
            self._config.lighting,
        )
        augments = self._augment.kind != "none"
        drawn = self._augment.draws(epoch, len(self._tree)) if augments else None
        for some, (x, y) in zip(rows, self._read(views, rows), strict=True):
            if drawn is not None:
                x = self._augment(x, torch.from_numpy(drawn[some]).to(x.device))
            yield x.float() / self._white, y

    def held_out(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return images as in an evaluation, and labels.  (B,) -> (B, 3, H, W), (B,)."""
        views = Views(self._tree, self._config.seed, 0, random=False)
        pieces = np.array_split(rows, math.ceil(len(rows) / _PIECE))
        x, y = (torch.cat(parts) for parts in zip(*self._read(views, pieces), strict=True))
        return x.float() / self._white, y

    def _read(
        self, views: Views, rows: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # A separate generator: the loader draws a seed for its workers, which nothing here uses.
        loader: DataLoader[Read | str] = DataLoader(
            views,  # type: ignore[arg-type]  # an index is the rows of a whole batch
            batch_size=None,
            sampler=rows,
            num_workers=min(self._tree.workers, len(rows)),
            collate_fn=_as_read,
            generator=torch.Generator(),
        )
        for read in loader:
            if isinstance(read, str):
                raise SatbenchError(read)
            x, y = (torch.from_numpy(array).to(self._device) for array in read)
            yield x, y


@dataclass(frozen=True)
class Views:
    """The images that a worker reads: rows of a tree, resized, in one epoch."""

    tree: ImageTree
    seed: int
    epoch: int
    random: bool
    jitter: float = 0.0
    lighting: float = 0.0

    def __getitem__(self, rows: NDArray[np.int64]) -> Read | str:
        """Return images as bytes and labels; or an error as text, because workers lose exceptions.

        (B,) -> (B, 3, H, W), (B,).
        """
        try:
            pixels = np.stack([np.asarray(self._view(int(row))) for row in rows])
        except SatbenchError as error:
            return str(error)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), self.tree.labels[rows]

    def _view(self, row: int) -> Image:
        if self.random:
            generator = generator_for(self.seed, "resized crop", self.epoch, row)
            size = self.tree.shape[2], self.tree.shape[1]
            view = resized_crop_flip(self.tree.picture(row), size, generator)
        else:
            view = self.tree.view(row)
        # Separate streams, so that the crops are the same with and without colours.
        if self.jitter:
            colours = generator_for(self.seed, "colour jitter", self.epoch, row)
            view = jittered(view, self.jitter, colours)
        if self.lighting:
            view = lit(view, self.lighting, generator_for(self.seed, "lighting", self.epoch, row))
        return view


def _as_read(read: Any) -> Any:
    # Arrays go through a pipe; each tensor would need a socket and an open file.
    return read


def at_side(tree: ImageTree, side: int) -> ImageTree:
    """Return the same images at side × side, with the same part of each picture as in `tree`.

    With `side` 0 nothing changes.
    """
    if side == 0:
        return tree
    rule, shape = tree.rule, np.empty((0, 3, side, side), np.uint8)
    scaled = side
    if rule.crop is not None and isinstance(rule.resize, int):
        scaled = max(side, round(rule.resize * side / rule.crop))
    return replace(tree, images=shape, rule=replace(rule, resize=scaled, crop=side))


def resized_crop_flip(
    picture: Image, size: tuple[int, int], generator: np.random.Generator
) -> Image:
    """Resize a random part (bilinear) to `size` (width, height), mirrored with probability 1/2.

    The part is drawn as in Szegedy et al., 2015, arXiv:1409.4842, section 6.
    """
    from PIL.Image import Resampling, Transpose

    box = random_box(*picture.size, generator)
    part = picture.crop(box).resize(size, Resampling.BILINEAR)
    return part.transpose(Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else part


def random_box(
    width: int, height: int, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a part with random area and ratio: left, upper, right, lower, in pixels.

    If none of ten draws fits, it is the largest centred part with an allowed ratio.
    """
    for _ in range(TRIES):
        area = width * height * generator.uniform(*AREA)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left = int(generator.integers(width - across + 1))
            upper = int(generator.integers(height - down + 1))
            return left, upper, left + across, upper + down
    across = min(width, max(1, round(height * RATIO[1])))
    down = min(height, max(1, round(width / RATIO[0])))
    left, upper = (width - across) // 2, (height - down) // 2
    return left, upper, left + across, upper + down
